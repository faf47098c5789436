//! What a reader sees of a row: the row itself, with what became known later about its trace and its span.
//!
//! A row's own value wins. A mark fills nulls, that of a span before that of its trace. A color that is null or
//! `unmarked` is filled, and where nobody knows it reads `unmarked`; `unmarked_reason` is null exactly on rows that
//! have a color. Of two records of one call ([`crate::Twin`]) one reads as no call. Live rows and patched sealed rows go
//! through the same functions, and sealing folds the same result into the file.

mod fill;
mod marks;
mod twins;

use crate::{Layers, Mark, Marks, TraceId, words::declared};
use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, RecordBatch, RecordBatchOptions, new_null_array},
    compute::{cast, filter_record_batch},
    datatypes::{Schema, SchemaRef},
    error::ArrowError,
};
use marks::RowMarks;
use proto::{cell::PPM, layout::Table};
use std::sync::Arc;

/// Columns that the mark of a trace may fill.
const FILLED: [&str; 7] = [
    "route",
    "color",
    "unmarked_reason",
    "version",
    "release",
    "cohort",
    "split",
];

/// Those of [`FILLED`] that the mark of a span may fill as well.
const FILLED_BY_SPAN: [&str; 3] = ["color", "unmarked_reason", "version"];

/// Further columns of `spans` that the mark of a span may change.
const TWINNED: [&str; 12] = [
    "role",
    "response_model",
    "prompt_tokens",
    "completion_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "cost_usd",
    "emitter_cost_usd",
    "price_version",
    "ttft_ms",
    "repeats_span_id",
];

/// What the marks of some rows may speak of. Who knows that they speak of traces only need not look up the mark of
/// every row to show a token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Depth {
    /// Of traces as a whole.
    Traces,
    /// Of single spans too: some mark has [`Mark::spans`].
    Spans,
}

impl Depth {
    /// Whether a mark may change `column` of `table`. Rows of other tables than `spans` and `evals` are complete when
    /// they are made.
    #[must_use]
    pub fn touches(self, table: Table, column: &str) -> bool {
        match table {
            Table::Spans => FILLED.contains(&column) || (self == Self::Spans && TWINNED.contains(&column)),
            Table::Evals => FILLED.contains(&column),
            Table::Traces | Table::Cells => false,
        }
    }
}

/// The columns `projection` (indices into `schema`, all if `None`) of `rows`, in the declared types: a declared column
/// that `rows` has not is all null, columns that are not declared are left out.
///
/// # Errors
/// A column that cannot be cast to its declared type, or one that may not be null and is.
pub fn complete(
    rows: &RecordBatch,
    schema: &SchemaRef,
    projection: Option<&[usize]>,
) -> Result<RecordBatch, ArrowError> {
    let schema = match projection {
        Some(indices) => Arc::new(schema.project(indices)?),
        None => Arc::clone(schema),
    };
    let columns = schema
        .fields()
        .iter()
        .map(|field| match rows.column_by_name(field.name()) {
            Some(column) if column.data_type() == field.data_type() => Ok(Arc::clone(column)),
            Some(column) => cast(column, field.data_type()),
            None => Ok(new_null_array(field.data_type(), rows.num_rows())),
        })
        .collect::<Result<Vec<ArrayRef>, ArrowError>>()?;
    RecordBatch::try_new_with_options(schema, columns, &row_count(rows))
}

/// `projection` (indices into the declared schema of `table`) with what [`apply_marks`] must see beside it: what a
/// reader of a patched file asks Parquet for. The added columns come last.
#[must_use]
pub fn columns_for(table: Table, projection: &[usize], depth: Depth) -> Vec<usize> {
    let schema = declared(table);
    let name = |&i: &usize| schema.field(i).name().as_str();
    let wants = |column: &str| projection.iter().any(|i| name(i) == column);
    let by_span = |column: &str| FILLED_BY_SPAN.contains(&column) || TWINNED.contains(&column);
    let of_spans = depth == Depth::Spans && table == Table::Spans;
    let needs = [
        ("trace_id", projection.iter().any(|i| depth.touches(table, name(i)))),
        ("span_id", of_spans && projection.iter().any(|i| by_span(name(i)))),
        ("color", wants("unmarked_reason")),
        ("request_model", of_spans && wants("response_model")),
    ];
    let mut columns = projection.to_vec();
    for (column, _) in needs.iter().filter(|(_, needed)| *needed) {
        if let Ok(index) = schema.index_of(column)
            && !columns.contains(&index)
        {
            columns.push(index);
        }
    }
    columns
}

/// [`complete`], then [`apply_marks`], then `projection`: what a query reads of a live batch (`rows` as it is), or of
/// a sealed file (`rows` with [`columns_for`] the projection).
///
/// # Errors
/// As [`complete`].
pub fn marked(
    table: Table,
    rows: &RecordBatch,
    projection: Option<&[usize]>,
    depth: Depth,
    lookup: &impl Fn(&TraceId) -> Option<Arc<Mark>>,
) -> Result<RecordBatch, ArrowError> {
    let schema = declared(table);
    let Some(projection) = projection else {
        return apply_marks(table, &complete(rows, schema, None)?, depth, lookup);
    };
    let wider = columns_for(table, projection, depth);
    let filled = apply_marks(table, &complete(rows, schema, Some(&wider))?, depth, lookup)?;
    let first: Vec<usize> = (0..projection.len()).collect();
    filled.project(&first)
}

/// Changes the columns of `rows` that a mark may change, and that `rows` has. `rows` needs the columns that
/// [`columns_for`] adds; its schema stays as it is.
///
/// # Errors
/// A column that is not of its declared type.
pub fn apply_marks(
    table: Table,
    rows: &RecordBatch,
    depth: Depth,
    lookup: &impl Fn(&TraceId) -> Option<Arc<Mark>>,
) -> Result<RecordBatch, ArrowError> {
    let schema = rows.schema_ref();
    if !schema.fields().iter().any(|field| depth.touches(table, field.name())) {
        return Ok(rows.clone());
    }
    let marks = RowMarks::of(rows, lookup);
    apply(table, rows, &marks)
}

/// `rows` as they go into a file: with every column that their marks have something for, marks folded in.
pub(crate) fn folded(table: Table, rows: &RecordBatch, marks: &Marks) -> Result<RecordBatch, ArrowError> {
    let found = RowMarks::of(rows, &|id| marks.get(id).cloned());
    let depth = if found.speaks_of_spans() {
        Depth::Spans
    } else {
        Depth::Traces
    };
    apply(table, &with_touched(table, rows, depth)?, &found)
}

fn apply(table: Table, rows: &RecordBatch, marks: &RowMarks) -> Result<RecordBatch, ArrowError> {
    let spans = match table {
        Table::Spans => marks.spans(rows),
        _ => Vec::new(),
    };
    let mut columns = rows.columns().to_vec();
    fill::fill(rows, marks, &spans, &mut columns)?;
    if !spans.is_empty() {
        twins::settle(rows, &spans, &mut columns)?;
    }
    RecordBatch::try_new_with_options(rows.schema(), columns, &row_count(rows))
}

/// `rows` with every column that a mark may change, as nulls where it was left out.
fn with_touched(table: Table, rows: &RecordBatch, depth: Depth) -> Result<RecordBatch, ArrowError> {
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for field in declared(table).fields() {
        match rows.column_by_name(field.name()) {
            Some(column) => columns.push(Arc::clone(column)),
            None if depth.touches(table, field.name()) => {
                columns.push(new_null_array(field.data_type(), rows.num_rows()));
            }
            None => continue,
        }
        fields.push(Arc::clone(field));
    }
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &row_count(rows))
}

/// Puts `column` in the place of the column called `name`.
fn set(rows: &RecordBatch, columns: &mut [ArrayRef], name: &str, column: ArrayRef) {
    if let Ok(index) = rows.schema_ref().index_of(name) {
        columns[index] = column;
    }
}

fn mistyped(column: &ArrayRef, expected: &str) -> ArrowError {
    ArrowError::SchemaError(format!("a column is {}, not {expected}", column.data_type()))
}

fn row_count(rows: &RecordBatch) -> RecordBatchOptions {
    RecordBatchOptions::new().with_row_count(Some(rows.num_rows()))
}

/// The 16 bytes of 32 hex digits.
#[must_use]
pub fn trace_id(hex: &str) -> Option<TraceId> {
    bytes_of(hex)
}

/// The 8 bytes of 16 hex digits, big-endian.
pub(crate) fn span_id(hex: &str) -> Option<u64> {
    bytes_of(hex).map(u64::from_be_bytes)
}

fn bytes_of<const N: usize>(hex: &str) -> Option<[u8; N]> {
    let digits = hex.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let mut id = [0; N];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(id)
}

/// A split in ppm as the share that columns show.
#[must_use]
pub fn share(split_ppm: u32) -> f64 {
    f64::from(split_ppm) / f64::from(PPM)
}

/// The rows of `traces` that no later row of the same trace replaces. `lsn` is that of the live batch, or `lsn_max` of
/// the sealed file: within one file a trace has one row, so only a replacement made after the file hides it.
///
/// # Errors
/// None but Arrow's own.
pub fn current(rows: &RecordBatch, lsn: u64, replaced: &Layers<TraceId, u64>) -> Result<RecordBatch, ArrowError> {
    if replaced.is_empty() {
        return Ok(rows.clone());
    }
    let Some(ids) = rows
        .column_by_name("trace_id")
        .and_then(|ids| ids.as_string_opt::<i32>())
    else {
        return Ok(rows.clone());
    };
    let stands: Vec<bool> = (0..ids.len())
        .map(|row| {
            trace_id(ids.value(row))
                .and_then(|id| replaced.get(&id).copied())
                .is_none_or(|from| lsn >= from)
        })
        .collect();
    if stands.iter().all(|stands| *stands) {
        return Ok(rows.clone());
    }
    filter_record_batch(rows, &BooleanArray::from(stands))
}
