//! Rows by id, wherever they lie: in sealed files, which are asked through their bloom filters, then row groups, then
//! rows, and in the live batches of the same snapshot. What is looked up is rare (late spans, late evaluations), so
//! nothing is kept in memory between two searches: one search for many values reads every file's footer once.

use crate::{
    SealedFile, Snapshot,
    error::{At, StoreError},
    overlay::current,
};
use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    datatypes::DataType,
    error::ArrowError,
};
use hashbrown::HashSet;
use parquet::arrow::{
    ProjectionMask,
    arrow_reader::{ArrowPredicateFn, ParquetRecordBatchReaderBuilder, RowFilter},
};
use proto::layout::Table;
use std::{fs::File, path::Path};

/// Text by which rows are looked up; only columns that have bloom filters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum IdColumn {
    /// 32 hex digits.
    Trace,
    /// 16 hex digits.
    Span,
    /// As the provider wrote it.
    Response,
}

impl IdColumn {
    /// Its name.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Trace => "trace_id",
            Self::Span => "span_id",
            Self::Response => "response_id",
        }
    }
}

/// Rows of a table whose id is one of many.
#[derive(Debug, Clone, Copy)]
pub struct Search<'a> {
    /// Table.
    pub table: Table,
    /// Column that is asked.
    pub column: IdColumn,
    /// Values that are looked for.
    pub values: &'a HashSet<String, ahash::RandomState>,
    /// Columns that are returned, all if `None`.
    pub columns: Option<&'a [&'a str]>,
    /// Rows at most; beyond, the rest is not read and [`Matches::cut`] says so.
    pub rows_max: usize,
}

/// Rows that were found together.
#[derive(Debug, Clone)]
pub struct Match {
    /// Smallest and largest journal record of the file, or that of the live batch.
    pub lsn_min: u64,
    /// Largest.
    pub lsn_max: u64,
    /// From a file.
    pub sealed: bool,
    /// Rows; columns that the file or batch has not are left out.
    pub rows: RecordBatch,
}

/// What a search found.
#[derive(Debug, Clone, Default)]
pub struct Matches {
    /// In commit order, files first. Rows of `traces` that were replaced are left out.
    pub found: Vec<Match>,
    /// There were more rows than asked for.
    pub cut: bool,
}

/// Searches the files (under `root`) and live batches of a snapshot. Reads files: not for threads that must not wait.
///
/// # Errors
/// A file that cannot be read: then nothing is known, not even that something is not there.
pub fn find(root: &Path, snapshot: &Snapshot, search: &Search<'_>) -> Result<Matches, StoreError> {
    let mut matches = Matches::default();
    if search.values.is_empty() {
        return Ok(matches);
    }
    let mut rows_left = search.rows_max;
    let mut keep = |found: Match| -> Result<bool, ArrowError> {
        let mut rows = match search.table {
            Table::Traces => current(&found.rows, found.lsn_max, &snapshot.replaced)?,
            _ => found.rows,
        };
        if rows.num_rows() > rows_left {
            matches.cut = true;
            rows = rows.slice(0, rows_left);
        }
        rows_left -= rows.num_rows();
        if rows.num_rows() > 0 {
            matches.found.push(Match { rows, ..found });
        }
        Ok(matches.cut)
    };
    for file in snapshot.files.iter().filter(|file| file.table == search.table) {
        let named = |error| StoreError::Sealed {
            path: file.path.clone(),
            source: Box::new(error),
        };
        for rows in in_file(&root.join(&file.path), search).map_err(named)? {
            if keep(of_file(file, rows.map_err(named)?))? {
                return Ok(matches);
            }
        }
    }
    let live = match search.table {
        Table::Spans => &snapshot.spans,
        Table::Evals => &snapshot.evals,
        Table::Traces => &snapshot.traces,
        Table::Cells => return Ok(matches),
    };
    for batch in live {
        let Some(wanted) = wanted(&batch.rows, search)? else {
            continue;
        };
        let rows = filter_record_batch(&batch.rows, &wanted)?;
        let live = Match {
            lsn_min: batch.lsn,
            lsn_max: batch.lsn,
            sealed: false,
            rows: projected(rows, search)?,
        };
        if keep(live)? {
            break;
        }
    }
    Ok(matches)
}

fn of_file(file: &SealedFile, rows: RecordBatch) -> Match {
    Match {
        lsn_min: file.lsn_min,
        lsn_max: file.lsn_max,
        sealed: true,
        rows,
    }
}

fn projected(rows: RecordBatch, search: &Search<'_>) -> Result<RecordBatch, ArrowError> {
    let Some(columns) = search.columns else {
        return Ok(rows);
    };
    let indices: Vec<usize> = columns
        .iter()
        .filter_map(|name| rows.schema_ref().index_of(name).ok())
        .collect();
    rows.project(&indices)
}

/// Which rows have a wanted id; `None` if there is no such column, or no such row.
fn wanted(rows: &RecordBatch, search: &Search<'_>) -> Result<Option<BooleanArray>, ArrowError> {
    let Some(ids) = rows.column_by_name(search.column.name()) else {
        return Ok(None);
    };
    let wanted = matching(ids.as_ref(), search.values)?;
    Ok((wanted.true_count() > 0).then_some(wanted))
}

fn matching(ids: &dyn Array, values: &HashSet<String, ahash::RandomState>) -> Result<BooleanArray, ArrowError> {
    let is_wanted = |id: Option<&str>| Some(id.is_some_and(|id| values.contains(id)));
    match ids.data_type() {
        DataType::Utf8 => Ok(ids.as_string::<i32>().iter().map(is_wanted).collect()),
        DataType::Utf8View => Ok(ids.as_string_view().iter().map(is_wanted).collect()),
        other => Err(ArrowError::SchemaError(format!("an id column is {other}, not text"))),
    }
}

pub(crate) type Batches = Box<dyn Iterator<Item = Result<RecordBatch, StoreError>>>;

/// Rows of one file that have a wanted id.
pub(crate) fn in_file(path: &Path, search: &Search<'_>) -> Result<Batches, StoreError> {
    let builder = ParquetRecordBatchReaderBuilder::try_new(File::open(path).at("open", path)?)?;
    let name = search.column.name();
    let leaf = |name: &str| {
        let columns = builder.parquet_schema().columns();
        columns.iter().position(|column| column.path().string() == name)
    };
    let Some(id_leaf) = leaf(name) else {
        return Ok(Box::new(std::iter::empty()));
    };
    let mut groups = Vec::new();
    for group in 0..builder.metadata().num_row_groups() {
        let filter = builder.get_row_group_column_bloom_filter(group, id_leaf)?;
        if filter.is_none_or(|filter| search.values.iter().any(|value| filter.check(value.as_str()))) {
            groups.push(group);
        }
    }
    if groups.is_empty() {
        return Ok(Box::new(std::iter::empty()));
    }
    let schema = builder.parquet_schema();
    let ids = ProjectionMask::leaves(schema, [id_leaf]);
    let columns = match search.columns {
        Some(columns) => ProjectionMask::columns(schema, columns.iter().copied()),
        None => ProjectionMask::all(),
    };
    let values = search.values.clone();
    let predicate = ArrowPredicateFn::new(ids, move |rows| matching(rows.column(0).as_ref(), &values));
    let reader = builder
        .with_row_groups(groups)
        .with_projection(columns)
        .with_row_filter(RowFilter::new(vec![Box::new(predicate)]))
        .build()?;
    Ok(Box::new(reader.map(|rows| Ok(rows?))))
}
