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
    array::{Array, AsArray, RecordBatch, StringArray},
    datatypes::TimestampNanosecondType,
    error::ArrowError,
};
use hashbrown::{HashMap, HashSet};
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

/// What decides about rows.
pub(super) struct Rules<'a> {
    pub table: Table,
    pub marks: &'a Marks,
    pub replaced: &'a Layers<TraceId, u64>,
}

const COLUMNS: [&str; 4] = ["trace_id", "span_id", "route", "color"];

impl Order {
    /// Reads the columns of `inputs`, in commit order: of two rows of one span the first stays, as it is the one that
    /// was counted.
    pub fn of(rules: &Rules<'_>, inputs: &[Input<'_>]) -> Result<Self, Failure> {
        let mut order = Self::default();
        let mut routes = Routes::default();
        let mut spans = HashSet::default();
        for (nth, input) in inputs.iter().enumerate() {
            let at = |error| Failure::of(nth, error);
            let mut from = 0;
            let wants = |name: &str| COLUMNS.contains(&name) || name == time_column(rules.table);
            for rows in input.read(wants, None).map_err(at)? {
                let rows = rows.map_err(|error| at(error.into()))?;
                order
                    .take(
                        rules,
                        input.file.lsn_max,
                        &rows,
                        (nth as u32, from),
                        &mut routes,
                        &mut spans,
                    )
                    .map_err(|error| at(error.into()))?;
                from += rows.num_rows() as u32;
            }
        }
        let ranks = routes.ranks();
        for places in order.places.values_mut() {
            for place in places.iter_mut() {
                place.route = ranks.get(place.route as usize).copied().unwrap_or(u32::MAX);
            }
            places.sort_unstable();
        }
        Ok(order)
    }

    fn take(
        &mut self,
        rules: &Rules<'_>,
        lsn_max: u64,
        rows: &RecordBatch,
        (input, from): (u32, u32),
        routes: &mut Routes,
        spans: &mut HashSet<(TraceId, TraceSpan), ahash::RandomState>,
    ) -> Result<(), ArrowError> {
        let met = RefCell::new(&mut self.patched);
        let mark_of = |id: &TraceId| {
            let mark = rules.marks.get(id)?;
            met.borrow_mut().insert(*id);
            Some(Arc::clone(mark))
        };
        let rows = overlay::apply_marks(rules.table, rows, Depth::Spans, &mark_of)?;
        let ids = |name: &str| rows.column_by_name(name).and_then(|ids| ids.as_string_opt::<i32>());
        let (traces, span_ids) = (ids("trace_id"), ids("span_id"));
        let starts = rows
            .column_by_name(time_column(rules.table))
            .and_then(|times| times.as_primitive_opt::<TimestampNanosecondType>())
            .ok_or_else(|| ArrowError::SchemaError(format!("{} without a time", rules.table.as_str())))?;
        let colors = colors(&rows)?;
        let routes = match rules.table {
            Table::Evals => vec![NO_ROUTE; rows.num_rows()],
            _ => routes.codes(&rows)?,
        };
        let id = |ids: Option<&StringArray>, row: usize| {
            ids.filter(|ids| ids.is_valid(row)).map(|ids| ids.value(row).to_owned())
        };
        for row in 0..rows.num_rows() {
            let trace = id(traces, row).and_then(|id| overlay::trace_id(&id));
            let span = id(span_ids, row).and_then(|id| overlay::span_id(&id));
            let stays = match (rules.table, trace, span) {
                (Table::Spans, Some(trace), Some(span)) => spans.insert((trace, span)),
                (Table::Traces, Some(trace), _) => {
                    let stands = rules.replaced.get(&trace).is_none_or(|from| lsn_max >= *from);
                    if !stands {
                        self.replaced.insert(trace);
                    }
                    stands
                }
                _ => true,
            };
            if !stays {
                self.dropped += 1;
                continue;
            }
            self.places.entry(colors[row]).or_default().push(Place {
                route: routes[row],
                start: starts.value(row),
                input,
                row: from + row as u32,
            });
        }
        Ok(())
    }
}

type TraceSpan = u64;

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
