//! Which live row goes into which file, and in which order.

use super::file::time_column;
use crate::{
    Layers, LiveBatch, Marks, TraceId,
    overlay::{current, folded},
    words::{Lexicon, as_words, column_of, declared, with_same_keys},
};
use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch, UInt32Array, new_null_array},
    compute::{interleave, take},
    datatypes::{DataType, TimestampNanosecondType},
    error::ArrowError,
};
use hashbrown::{HashMap, HashSet};
use proto::{Color, Nanos, layout::Table};
use std::{collections::BTreeMap, sync::Arc};

/// Nanoseconds in an hour.
const HOUR: i64 = 3_600_000_000_000;

/// All rows of one table of a seal, with what they say now, and their columns made ready to be picked from.
pub(crate) struct Plan {
    table: Table,
    batches: Vec<RecordBatch>,
    columns: Vec<Column>,
    /// Rows of every file, in file order, by color and start of the hour of receipt.
    pub(crate) files: BTreeMap<(Color, i64), Vec<Row>>,
}

/// One live row.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Row {
    /// Rank of the route's name; rows without a route come last.
    route: u32,
    /// Start of the span or trace, time of the evaluation.
    start: i64,
    batch: u32,
    row: u32,
}

/// One declared column over all batches.
enum Column {
    /// No batch has it.
    Absent,
    /// Words: codes of every batch, all into the same dictionary. A batch without the column has no codes.
    Words(ArrayRef, Vec<Option<Vec<i32>>>),
    /// Any other type, maps with keys into the same dictionary. A batch without the column has a single null.
    Plain(Vec<ArrayRef>, Vec<bool>),
}

impl Plan {
    /// Folds the marks in, drops rows of `traces` that were replaced, and orders what is left.
    pub(crate) fn new(
        table: Table,
        live: &[LiveBatch],
        marks: &Marks,
        replaced: &Layers<TraceId, u64>,
        sealed_at: Nanos,
    ) -> Result<Self, ArrowError> {
        let mut batches = Vec::with_capacity(live.len());
        for batch in live {
            batches.push(match table {
                Table::Traces => current(&batch.rows, batch.lsn, replaced)?,
                _ => folded(table, &batch.rows, marks)?,
            });
        }
        let mut plan = Self::unsorted(table, batches)?;
        let stale = plan.stale();
        plan.sort(sealed_at, &stale)?;
        Ok(plan)
    }

    /// Of rows that lie in files and are read again: all stay, marks are folded in, and the order goes over all of them.
    pub(crate) fn again(table: Table, batches: Vec<RecordBatch>) -> Result<(Self, Vec<Row>), ArrowError> {
        let mut plan = Self::unsorted(table, batches)?;
        plan.sort(Nanos::ZERO, &HashSet::new())?;
        let mut rows: Vec<Row> = std::mem::take(&mut plan.files).into_values().flatten().collect();
        rows.sort_unstable();
        Ok((plan, rows))
    }

    fn unsorted(table: Table, batches: Vec<RecordBatch>) -> Result<Self, ArrowError> {
        let columns = declared(table)
            .fields()
            .iter()
            .map(|field| Column::of(&batches, field.name(), field.data_type()))
            .collect::<Result<Vec<Column>, ArrowError>>()?;
        Ok(Self {
            table,
            batches,
            columns,
            files: BTreeMap::new(),
        })
    }

    fn column(&self, name: &str) -> Option<&Column> {
        let index = declared(self.table).index_of(name).ok()?;
        self.columns.get(index)
    }

    fn sort(&mut self, sealed_at: Nanos, stale: &HashSet<(u32, u32)>) -> Result<(), ArrowError> {
        let sort_time = time_column(self.table);
        let route_ranks = match self.column("route") {
            Some(Column::Words(words, _)) if self.table != Table::Evals => ranks(words),
            _ => Vec::new(),
        };
        let colors: Vec<Color> = match self.column("color") {
            Some(Column::Words(words, _)) => words
                .as_string::<i32>()
                .iter()
                .map(|word| word.and_then(Color::parse).unwrap_or_default())
                .collect(),
            _ => Vec::new(),
        };
        let mut files: BTreeMap<(Color, i64), Vec<Row>> = BTreeMap::new();
        for (b, batch) in self.batches.iter().enumerate() {
            let time = |name: &str| {
                batch
                    .column_by_name(name)
                    .and_then(|c| c.as_primitive_opt::<TimestampNanosecondType>())
            };
            let starts = time(sort_time)
                .ok_or_else(|| ArrowError::SchemaError(format!("{} without {sort_time}", self.table.as_str())))?;
            let received = time("received_at");
            let (route_codes, color_codes) = (self.codes("route", b), self.codes("color", b));
            for row in 0..batch.num_rows() {
                if stale.contains(&(b as u32, row as u32)) {
                    continue;
                }
                let word = |codes: Option<&[i32]>| codes.map_or(-1, |codes| codes[row]) as usize;
                let color = colors.get(word(color_codes)).copied().unwrap_or_default();
                let at = received.map_or(sealed_at.0, |times| times.value(row));
                files.entry((color, at.div_euclid(HOUR) * HOUR)).or_default().push(Row {
                    route: route_ranks.get(word(route_codes)).copied().unwrap_or(u32::MAX),
                    start: starts.value(row),
                    batch: b as u32,
                    row: row as u32,
                });
            }
        }
        for rows in files.values_mut() {
            rows.sort_unstable();
        }
        self.files = files;
        Ok(())
    }

    fn codes(&self, name: &str, batch: usize) -> Option<&[i32]> {
        match self.column(name)? {
            Column::Words(_, codes) => codes[batch].as_deref(),
            _ => None,
        }
    }

    /// Rows of `traces` that are followed by another row of the same trace: a file has one row a trace.
    fn stale(&self) -> HashSet<(u32, u32)> {
        let mut stale = HashSet::new();
        if self.table != Table::Traces {
            return stale;
        }
        let mut newest: HashMap<&str, (u32, u32), ahash::RandomState> = HashMap::default();
        for (b, batch) in self.batches.iter().enumerate() {
            let Some(ids) = batch
                .column_by_name("trace_id")
                .and_then(|ids| ids.as_string_opt::<i32>())
            else {
                continue;
            };
            for row in 0..ids.len() {
                stale.extend(newest.insert(ids.value(row), (b as u32, row as u32)));
            }
        }
        stale
    }

    /// Names of columns that no row uses.
    pub(crate) fn absent(&self) -> Vec<&'static str> {
        let columns = self.columns.iter().zip(declared(self.table).fields());
        columns
            .filter(|(column, _)| matches!(column, Column::Absent))
            .map(|(_, field)| field.name().as_str())
            .collect()
    }

    /// The given rows with all declared columns.
    pub(crate) fn rows(&self, rows: &[Row]) -> Result<RecordBatch, ArrowError> {
        let schema = declared(self.table);
        let columns = self
            .columns
            .iter()
            .zip(schema.fields())
            .map(|(column, field)| column.pick(rows, field.data_type()))
            .collect::<Result<Vec<ArrayRef>, ArrowError>>()?;
        RecordBatch::try_new(Arc::clone(schema), columns)
    }
}

impl Column {
    fn of(batches: &[RecordBatch], name: &str, ty: &DataType) -> Result<Self, ArrowError> {
        let parts: Vec<Option<&ArrayRef>> = batches.iter().map(|b| b.column_by_name(name)).collect();
        if parts.iter().all(Option::is_none) {
            return Ok(Self::Absent);
        }
        if let DataType::Dictionary(..) = ty {
            let mut lexicon = Lexicon::default();
            let mut codes = Vec::with_capacity(parts.len());
            for part in &parts {
                codes.push(match part {
                    None => None,
                    Some(column) => Some(
                        lexicon.recode(
                            as_words(column)
                                .ok_or_else(|| ArrowError::SchemaError(format!("column {name} is no dictionary")))?,
                        ),
                    ),
                });
            }
            return Ok(Self::Words(lexicon.values(), codes));
        }
        let null = new_null_array(ty, 1);
        let whole = parts
            .iter()
            .map(|part| part.map_or_else(|| Arc::clone(&null), Arc::clone));
        Ok(Self::Plain(
            with_same_keys(ty, whole.collect())?,
            parts.iter().map(Option::is_some).collect(),
        ))
    }

    fn pick(&self, rows: &[Row], ty: &DataType) -> Result<ArrayRef, ArrowError> {
        match self {
            Self::Absent => Ok(new_null_array(ty, rows.len())),
            Self::Words(values, codes) => {
                let picked = rows
                    .iter()
                    .map(|r| codes[r.batch as usize].as_ref().map_or(-1, |c| c[r.row as usize]))
                    .collect();
                column_of(picked, values)
            }
            Self::Plain(parts, present) => {
                if let [only] = parts.as_slice() {
                    let indices: UInt32Array = rows.iter().map(|r| Some(r.row)).collect();
                    return take(only, &indices, None);
                }
                let indices: Vec<(usize, usize)> = rows
                    .iter()
                    .map(|r| {
                        let batch = r.batch as usize;
                        (batch, if present[batch] { r.row as usize } else { 0 })
                    })
                    .collect();
                let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
                interleave(&parts, &indices)
            }
        }
    }
}

/// Place of every word in alphabetical order.
fn ranks(words: &ArrayRef) -> Vec<u32> {
    let words = words.as_string::<i32>();
    let mut order: Vec<usize> = (0..words.len()).collect();
    order.sort_unstable_by_key(|&i| words.value(i));
    let mut ranks = vec![0; order.len()];
    for (rank, i) in order.into_iter().enumerate() {
        ranks[i] = rank as u32;
    }
    ranks
}
