//! What a reader sees of a row: the row itself, with what became known later about its trace.
//!
//! A row's own value wins. A mark fills nulls. A color that is null or `unmarked` is filled, and where nobody knows it
//! reads `unmarked`; `unmarked_reason` is null exactly on rows that have a color. Live rows and patched sealed rows go
//! through the same functions, and sealing folds the same result into the file.

use crate::{
    Layers, Mark, TraceId,
    words::{self, Lexicon, as_words, column_of, declared},
};
use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, RecordBatch, RecordBatchOptions, new_null_array},
    compute::{cast, filter_record_batch},
    datatypes::{Float64Type, Schema, SchemaRef},
    error::ArrowError,
};
use hashbrown::HashMap;
use proto::{Color, cell::PPM, layout::Table};
use std::sync::Arc;

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
pub fn columns_for(table: Table, projection: &[usize]) -> Vec<usize> {
    let schema = declared(table);
    let wants = |name: &str| projection.iter().any(|&i| schema.field(i).name() == name);
    let mut columns = projection.to_vec();
    let mut add = |name: &str| {
        if let Ok(index) = schema.index_of(name)
            && !columns.contains(&index)
        {
            columns.push(index);
        }
    };
    if projection
        .iter()
        .any(|&i| FILLED.contains(&schema.field(i).name().as_str()))
    {
        add("trace_id");
    }
    if wants("unmarked_reason") {
        add("color");
    }
    columns
}

/// Columns that a mark may fill.
const FILLED: [&str; 7] = [
    "route",
    "color",
    "unmarked_reason",
    "version",
    "release",
    "cohort",
    "split",
];

/// [`complete`], then [`apply_marks`], then `projection`: what a query reads of a live batch (`rows` as it is), or of
/// a sealed file (`rows` with [`columns_for`] the projection).
///
/// # Errors
/// As [`complete`].
pub fn marked(
    table: Table,
    rows: &RecordBatch,
    projection: Option<&[usize]>,
    lookup: &impl Fn(&TraceId) -> Option<Arc<Mark>>,
) -> Result<RecordBatch, ArrowError> {
    let schema = declared(table);
    let Some(projection) = projection else {
        return apply_marks(table, &complete(rows, schema, None)?, lookup);
    };
    let wider = columns_for(table, projection);
    let filled = apply_marks(table, &complete(rows, schema, Some(&wider))?, lookup)?;
    let first: Vec<usize> = (0..projection.len()).collect();
    filled.project(&first)
}

/// Fills the columns of `rows` that a mark may fill, and that `rows` has. `rows` needs `trace_id`, and `color` where it
/// has `unmarked_reason`; its schema stays as it is. Only `spans` and `evals` are filled, rows of other tables are
/// complete when they are made.
///
/// # Errors
/// A column that is not of its declared type.
pub fn apply_marks(
    table: Table,
    rows: &RecordBatch,
    lookup: &impl Fn(&TraceId) -> Option<Arc<Mark>>,
) -> Result<RecordBatch, ArrowError> {
    let has = |name: &str| rows.column_by_name(name).is_some();
    if !matches!(table, Table::Spans | Table::Evals) || !FILLED.iter().any(|name| has(name)) {
        return Ok(rows.clone());
    }
    let marks = Marks::of(rows, lookup);
    let mut columns = rows.columns().to_vec();
    let mut set = |name: &str, column: ArrayRef| {
        if let Ok(index) = rows.schema_ref().index_of(name) {
            columns[index] = column;
        }
    };
    if let Some(color) = rows.column_by_name("color") {
        let filled = fill_color(color, &marks)?;
        if let Some(reason) = rows.column_by_name("unmarked_reason") {
            set("unmarked_reason", fill_reason(reason, &filled, &marks)?);
        }
        set("color", filled);
    }
    if !marks.known.is_empty() {
        for (name, value) in TEXTS {
            if let Some(column) = rows.column_by_name(name) {
                set(name, fill_words(column, &marks, value)?);
            }
        }
        if let Some(split) = rows.column_by_name("split") {
            set("split", fill_split(split, &marks)?);
        }
    }
    RecordBatch::try_new_with_options(rows.schema(), columns, &row_count(rows))
}

type TextOf = fn(&Mark) -> Option<&str>;

/// Text columns that are filled by the mark's own word.
const TEXTS: [(&str, TextOf); 4] = [
    ("route", |mark| mark.route.as_deref()),
    ("version", |mark| mark.version.as_deref()),
    ("release", |mark| mark.release.as_deref()),
    ("cohort", |mark| mark.cohort.as_deref()),
];

fn row_count(rows: &RecordBatch) -> RecordBatchOptions {
    RecordBatchOptions::new().with_row_count(Some(rows.num_rows()))
}

/// The mark of every row.
struct Marks {
    known: Vec<Arc<Mark>>,
    /// Index into `known`, or `NONE`.
    of_row: Vec<u32>,
}

const NONE: u32 = u32::MAX;

impl Marks {
    fn of(rows: &RecordBatch, lookup: &impl Fn(&TraceId) -> Option<Arc<Mark>>) -> Self {
        let mut marks = Self {
            known: Vec::new(),
            of_row: vec![NONE; rows.num_rows()],
        };
        let Some(ids) = rows
            .column_by_name("trace_id")
            .and_then(|ids| ids.as_string_opt::<i32>())
        else {
            return marks;
        };
        let mut seen: HashMap<&str, u32, ahash::RandomState> = HashMap::default();
        let mut last: Option<(&str, u32)> = None;
        for (row, slot) in marks.of_row.iter_mut().enumerate() {
            if ids.is_null(row) {
                continue;
            }
            let id = ids.value(row);
            // Spans of a trace come in runs.
            *slot = match last {
                Some((before, mark)) if before == id => mark,
                _ => *seen.entry(id).or_insert_with(|| {
                    let mark = trace_id(id).and_then(|id| lookup(&id));
                    mark.map_or(NONE, |mark| {
                        marks.known.push(mark);
                        marks.known.len() as u32 - 1
                    })
                }),
            };
            last = Some((id, *slot));
        }
        marks
    }

    fn get(&self, row: usize) -> Option<&Mark> {
        self.known.get(self.of_row[row] as usize).map(AsRef::as_ref)
    }

    /// Code of every mark's word, -1 where it has none.
    fn codes<'a>(&'a self, lexicon: &mut Lexicon<'a>, value: TextOf) -> Vec<i32> {
        self.known
            .iter()
            .map(|mark| value(mark).map_or(-1, |word| lexicon.code(word)))
            .collect()
    }

    fn code(&self, codes: &[i32], row: usize) -> i32 {
        codes.get(self.of_row[row] as usize).copied().unwrap_or(-1)
    }
}

/// The 16 bytes of 32 hex digits.
#[must_use]
pub fn trace_id(hex: &str) -> Option<TraceId> {
    let digits = hex.as_bytes();
    if digits.len() != 32 {
        return None;
    }
    let digit = |b: u8| (b as char).to_digit(16).map(|d| d as u8);
    let mut id = [0; 16];
    for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(pair[0])? << 4 | digit(pair[1])?;
    }
    Some(id)
}

fn words_of<'a>(column: &'a ArrayRef, name: &str) -> Result<&'a words::Words, ArrowError> {
    as_words(column).ok_or_else(|| {
        ArrowError::SchemaError(format!(
            "column {name} is {}, not Dictionary(Int32, Utf8)",
            column.data_type()
        ))
    })
}

fn fill_words(column: &ArrayRef, marks: &Marks, value: TextOf) -> Result<ArrayRef, ArrowError> {
    if column.logical_null_count() == 0 {
        return Ok(Arc::clone(column));
    }
    let mut lexicon = Lexicon::default();
    let mut codes = lexicon.recode(words_of(column, "of text")?);
    let fills = marks.codes(&mut lexicon, value);
    for (row, code) in codes.iter_mut().enumerate() {
        if *code < 0 {
            *code = marks.code(&fills, row);
        }
    }
    column_of(codes, &lexicon.values())
}

fn fill_color(column: &ArrayRef, marks: &Marks) -> Result<ArrayRef, ArrowError> {
    let own = words_of(column, "color")?;
    let mut lexicon = Lexicon::default();
    let unmarked = lexicon.code(Color::Unmarked.as_str());
    let mut codes = lexicon.recode(own);
    let fills = marks.codes(&mut lexicon, |mark| Some(mark.color.as_str()));
    for (row, code) in codes.iter_mut().enumerate() {
        if *code < 0 || *code == unmarked {
            *code = marks.code(&fills, row).max(unmarked);
        }
    }
    column_of(codes, &lexicon.values())
}

fn fill_reason(column: &ArrayRef, color: &ArrayRef, marks: &Marks) -> Result<ArrayRef, ArrowError> {
    let color = words_of(color, "color")?;
    let colors = color.values().as_string::<i32>();
    let mut lexicon = Lexicon::default();
    let mut codes = lexicon.recode(words_of(column, "unmarked_reason")?);
    let fills = marks.codes(&mut lexicon, |mark| mark.unmarked_reason.as_deref());
    for (row, code) in codes.iter_mut().enumerate() {
        let is_marked = color
            .key(row)
            .is_some_and(|key| colors.value(key) != Color::Unmarked.as_str());
        if is_marked {
            *code = -1;
        } else if *code < 0 {
            *code = marks.code(&fills, row);
        }
    }
    column_of(codes, &lexicon.values())
}

fn fill_split(column: &ArrayRef, marks: &Marks) -> Result<ArrayRef, ArrowError> {
    let Some(own) = column.as_primitive_opt::<Float64Type>() else {
        return Err(ArrowError::SchemaError("column split is not Float64".into()));
    };
    let filled: Float64Array = own
        .iter()
        .enumerate()
        .map(|(row, split)| split.or_else(|| marks.get(row)?.split_ppm.map(share)))
        .collect();
    Ok(Arc::new(filled))
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

/// `rows` with every column that a mark may fill, as nulls where it was left out; for sealing.
pub(crate) fn with_fillable(table: Table, rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for field in declared(table).fields() {
        match rows.column_by_name(field.name()) {
            Some(column) => columns.push(Arc::clone(column)),
            None if FILLED.contains(&field.name().as_str()) => {
                columns.push(new_null_array(field.data_type(), rows.num_rows()));
            }
            None => continue,
        }
        fields.push(Arc::clone(field));
    }
    RecordBatch::try_new_with_options(Arc::new(Schema::new(fields)), columns, &row_count(rows))
}
