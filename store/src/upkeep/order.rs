//! The first reading of files that become one: only the columns that say which rows stay, in which file and where.

use super::{input::Input, rewrite::Failure};
use crate::{
    Layers, Marks, TraceId,
    error::StoreError,
    overlay::{self, Depth},
    seal::file::time_column,
    words::as_words,
};
use arrow::{
    array::{Array, AsArray, RecordBatch, StringArray, TimestampNanosecondArray},
    datatypes::TimestampNanosecondType,
    error::ArrowError,
};
use hashbrown::{HashMap, HashSet, hash_map::Entry};
use proto::{Color, layout::Table};
use std::{cell::RefCell, collections::BTreeMap, sync::Arc};

/// A row by where it stands now; ordered as it will stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    /// Rank of the route's name; rows without a route come last. Evaluations are in order of time alone.
    route: u32,
    start: i64,
    pub input: u32,
    pub row: u32,
}

/// Rows that stay, in order, by the color they have now.
#[derive(Debug, Default)]
pub(super) struct Order {
    pub places: BTreeMap<Color, Vec<Place>>,
    /// Rows that do not stay.
    pub dropped: u64,
    /// Traces whose patch was met.
    pub patched: HashSet<TraceId>,
    /// Traces of which a former row was left out.
    pub replaced: HashSet<TraceId>,
}

/// All rows as they are met.
#[derive(Default)]
struct Met {
    /// With their color; `None` if they do not stay.
    rows: Vec<(Option<Color>, Place)>,
    routes: Routes,
    /// Time of receipt of the row of a span that stays, and which one it is.
    spans: HashMap<(TraceId, u64), (i64, usize), ahash::RandomState>,
    patched: HashSet<TraceId>,
    replaced: HashSet<TraceId>,
}

/// What decides about rows.
pub(super) struct Rules<'a> {
    pub table: Table,
    pub marks: &'a Marks,
    pub replaced: &'a Layers<TraceId, u64>,
}

const COLUMNS: [&str; 5] = ["trace_id", "span_id", "route", "color", RECEIVED_AT];
const RECEIVED_AT: &str = "received_at";

impl Order {
    /// Reads the columns of `inputs`.
    pub fn of(rules: &Rules<'_>, inputs: &[Input<'_>]) -> Result<Self, Failure> {
        let mut met = Met::default();
        for (nth, input) in inputs.iter().enumerate() {
            let at = |error| Failure::of(nth, error);
            let mut from = 0;
            let wants = |name: &str| COLUMNS.contains(&name) || name == time_column(rules.table);
            for rows in input.read(wants, None).map_err(at)? {
                let rows = rows.map_err(|error| at(error.into()))?;
                met.take(rules, input.file.lsn_max, &rows, (nth as u32, from))
                    .map_err(|error| at(error.into()))?;
                from += rows.num_rows() as u32;
            }
        }
        Ok(met.in_order())
    }
}

impl Met {
    fn in_order(self) -> Order {
        let mut order = Order {
            patched: self.patched,
            replaced: self.replaced,
            ..Order::default()
        };
        let ranks = self.routes.ranks();
        for (color, mut place) in self.rows {
            let Some(color) = color else {
                order.dropped += 1;
                continue;
            };
            place.route = ranks.get(place.route as usize).copied().unwrap_or(NO_ROUTE);
            order.places.entry(color).or_default().push(place);
        }
        for places in order.places.values_mut() {
            places.sort_unstable();
        }
        order
    }

    /// Takes rows of the file `input`, in which they begin at row `from`.
    fn take(
        &mut self,
        rules: &Rules<'_>,
        lsn_max: u64,
        rows: &RecordBatch,
        (input, from): (u32, u32),
    ) -> Result<(), ArrowError> {
        let patched = RefCell::new(&mut self.patched);
        let mark_of = |id: &TraceId| {
            let mark = rules.marks.get(id)?;
            patched.borrow_mut().insert(*id);
            Some(Arc::clone(mark))
        };
        let rows = &overlay::apply_marks(rules.table, rows, Depth::Spans, &mark_of)?;
        let ids = |name: &str| rows.column_by_name(name).and_then(|ids| ids.as_string_opt::<i32>());
        let (traces, span_ids) = (ids("trace_id"), ids("span_id"));
        let starts = times(rows, time_column(rules.table))
            .ok_or_else(|| ArrowError::SchemaError(format!("{} without a time", rules.table.as_str())))?;
        let received = times(rows, RECEIVED_AT);
        let colors = colors(rows)?;
        let routes = match rules.table {
            Table::Evals => vec![NO_ROUTE; rows.num_rows()],
            _ => self.routes.codes(rows)?,
        };
        for row in 0..rows.num_rows() {
            let trace = text(traces, row).and_then(overlay::trace_id);
            let stays = match (rules.table, trace) {
                (Table::Spans, Some(trace)) => {
                    let span = text(span_ids, row).and_then(overlay::span_id);
                    let received = received.map_or(i64::MAX, |times| times.value(row));
                    span.is_none_or(|span| self.is_first(trace, span, received))
                }
                (Table::Traces, Some(trace)) => {
                    let stands = rules.replaced.get(&trace).is_none_or(|from| lsn_max >= *from);
                    if !stands {
                        self.replaced.insert(trace);
                    }
                    stands
                }
                _ => true,
            };
            let place = Place {
                route: routes[row],
                start: starts.value(row),
                input,
                row: from + row as u32,
            };
            self.rows.push((stays.then_some(colors[row]), place));
        }
        Ok(())
    }

    /// Of several rows of one span the one that came first was counted, so that one stays.
    fn is_first(&mut self, trace: TraceId, span: u64, received: i64) -> bool {
        let this = (received, self.rows.len());
        match self.spans.entry((trace, span)) {
            Entry::Vacant(entry) => {
                entry.insert(this);
                true
            }
            Entry::Occupied(entry) if entry.get().0 <= received => false,
            Entry::Occupied(mut entry) => {
                let (_, later) = entry.insert(this);
                self.rows[later].0 = None;
                true
            }
        }
    }
}

fn text(ids: Option<&StringArray>, row: usize) -> Option<&str> {
    Some(ids.filter(|ids| ids.is_valid(row))?.value(row))
}

fn times<'a>(rows: &'a RecordBatch, name: &str) -> Option<&'a TimestampNanosecondArray> {
    rows.column_by_name(name)?.as_primitive_opt::<TimestampNanosecondType>()
}

const NO_ROUTE: u32 = u32::MAX;

fn colors(rows: &RecordBatch) -> Result<Vec<Color>, ArrowError> {
    let column = rows.column_by_name("color").and_then(as_words);
    let column = column.ok_or_else(|| ArrowError::SchemaError("rows without a color".to_owned()))?;
    let words = column.values().as_string::<i32>();
    let of_word: Vec<Color> = words
        .iter()
        .map(|word| word.and_then(Color::parse).unwrap_or_default())
        .collect();
    let of_row = |row| column.key(row).and_then(|key| of_word.get(key).copied());
    Ok((0..rows.num_rows())
        .map(|row| of_row(row).unwrap_or_default())
        .collect())
}

/// Names of routes, numbered as they come.
#[derive(Debug, Default)]
struct Routes(HashMap<String, u32, ahash::RandomState>);

impl Routes {
    /// Number of the route of every row.
    fn codes(&mut self, rows: &RecordBatch) -> Result<Vec<u32>, ArrowError> {
        let Some(column) = rows.column_by_name("route") else {
            return Ok(vec![NO_ROUTE; rows.num_rows()]);
        };
        let column = as_words(column).ok_or_else(|| ArrowError::SchemaError("routes are no words".to_owned()))?;
        let of_word: Vec<u32> = column
            .values()
            .as_string::<i32>()
            .iter()
            .map(|word| {
                let Some(word) = word else { return NO_ROUTE };
                let next = self.0.len() as u32;
                match self.0.get(word) {
                    Some(code) => *code,
                    None => *self.0.entry(word.to_owned()).or_insert(next),
                }
            })
            .collect();
        let of_row = |row| column.key(row).and_then(|key| of_word.get(key).copied());
        Ok((0..rows.num_rows())
            .map(|row| of_row(row).unwrap_or(NO_ROUTE))
            .collect())
    }

    /// Place of every number in alphabetical order.
    fn ranks(self) -> Vec<u32> {
        let mut names: Vec<(String, u32)> = self.0.into_iter().collect();
        names.sort_unstable();
        let mut ranks = vec![0; names.len()];
        for (rank, (_, code)) in names.into_iter().enumerate() {
            ranks[code as usize] = rank as u32;
        }
        ranks
    }
}

impl From<ArrowError> for Failure {
    fn from(error: ArrowError) -> Self {
        Self::Other(StoreError::from(error))
    }
}
