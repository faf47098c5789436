//! The look-up thread: searches files and live rows for what assembly has forgotten, while the engine goes on. One job
//! at a time; what is asked meanwhile goes along with the next, so every file is opened once for all of it.

use super::{
    counters::{Counters, add},
    suspects::Suspects,
};
use crate::assemble::{Answer, Ask, Asks, FoundRows, FoundTrace};
use ahash::RandomState;
use arrow::{
    array::{AsArray, RecordBatch, UInt32Array},
    compute::take_record_batch,
    datatypes::Int32Type,
};
use crossbeam_channel::{Receiver, Sender};
use hashbrown::{HashMap, HashSet};
use proto::layout::Table;
use std::{path::PathBuf, sync::Arc, time::Instant};
use store::{
    Snapshot, StoreError, TraceId, declared,
    lookup::{self, IdColumn, Matches, Search},
    overlay::trace_id,
};

/// Rows that are read for the traces of one job; a trace with more of its own is not brought back.
const TRACE_ROWS_MAX: usize = 50_000;
/// Rows that are read for the keys of one job.
const KEY_ROWS_MAX: usize = 1_000_000;
/// Long texts, and lists that assembly does not use.
const LEFT_OUT: [&str; 5] = ["input", "output", "events", "links", "explanation"];

/// Something to look up, in one snapshot.
#[derive(Debug)]
pub(super) struct Job {
    pub asks: Asks,
    pub snapshot: Arc<Snapshot>,
}

pub(super) struct LookupThread {
    pub root: PathBuf,
    pub suspects: Suspects,
    pub counters: Arc<Counters>,
}

type Values = HashSet<String, RandomState>;

impl LookupThread {
    /// Looks up what comes until nobody asks or listens any more.
    pub fn run(self, jobs: Receiver<Job>, answers: Sender<Answer>) {
        for job in &jobs {
            let began = Instant::now();
            let answer = self.answer(&job);
            self.counters.lookup_time.record(began.elapsed());
            if answers.send(answer).is_err() {
                return;
            }
        }
    }

    fn answer(&self, job: &Job) -> Answer {
        let mut answer = Answer::default();
        let mut by_key: HashMap<(IdColumn, String), Vec<TraceId>, RandomState> = HashMap::default();
        let keys = job.asks.keys.iter().map(|ask| (ask, key_of(ask)));
        let keys: Vec<(&Ask, (IdColumn, String))> = keys.collect();
        for column in [IdColumn::Span, IdColumn::Response] {
            let values: Values = keys
                .iter()
                .filter(|(_, (of, _))| *of == column)
                .map(|(_, (_, value))| value.clone())
                .collect();
            match self.traces_with(job, column, &values) {
                Ok(found) => found
                    .into_iter()
                    .for_each(|(value, traces)| _ = by_key.insert((column, value), traces)),
                Err(error) => self.failed(&error),
            }
        }
        for (ask, key) in keys {
            answer.keys.push((ask.clone(), by_key.remove(&key).unwrap_or_default()));
        }
        answer.traces = match self.rows_of(job, &job.asks.traces) {
            Ok(found) if found.iter().any(|(_, found)| found.cut) && found.len() > 1 => {
                let alone = |id: &TraceId| (*id, self.rows_of_one(job, *id));
                job.asks.traces.iter().map(alone).collect()
            }
            Ok(found) => found.into_iter().map(|(id, found)| (id, Some(found))).collect(),
            Err(error) => {
                self.failed(&error);
                job.asks.traces.iter().map(|id| (*id, None)).collect()
            }
        };
        answer
    }

    fn failed(&self, error: &StoreError) {
        add(&self.counters.lookup_failures, 1);
        if let StoreError::Sealed { path, .. } = error {
            self.suspects.name(path);
        }
        tracing::warn!(%error, "sealed files cannot be searched: late spans and evaluations stay rows, without effect on cells");
    }

    /// Traces of the spans (of the calls, for responses) that have one of `values`.
    fn traces_with(
        &self,
        job: &Job,
        column: IdColumn,
        values: &Values,
    ) -> Result<HashMap<String, Vec<TraceId>, RandomState>, StoreError> {
        let search = Search {
            table: Table::Spans,
            column,
            values,
            columns: Some(&["trace_id", column.name(), "role"]),
            rows_max: KEY_ROWS_MAX,
        };
        let mut traces: HashMap<String, Vec<TraceId>, RandomState> = HashMap::default();
        for part in lookup::find(&self.root, &job.snapshot, &search)?.found {
            let rows = &part.rows;
            let (Some(ids), Some(of)) = (texts(rows, column.name()), texts(rows, "trace_id")) else {
                continue;
            };
            for row in 0..rows.num_rows() {
                if column == IdColumn::Response && !is_call(rows, row) {
                    continue;
                }
                if let (Some(id), Some(trace)) = (ids[row], of[row].and_then(trace_id)) {
                    let found = traces.entry(id.to_owned()).or_default();
                    if !found.contains(&trace) && found.len() < 2 {
                        found.push(trace);
                    }
                }
            }
        }
        Ok(traces)
    }

    fn rows_of_one(&self, job: &Job, id: TraceId) -> Option<FoundTrace> {
        let found = self.rows_of(job, &[id]).inspect_err(|error| self.failed(error));
        found.ok()?.pop().map(|(_, found)| found)
    }

    /// All rows of some traces.
    fn rows_of(&self, job: &Job, ids: &[TraceId]) -> Result<Vec<(TraceId, FoundTrace)>, StoreError> {
        let values: Values = ids.iter().map(hex::encode).collect();
        let mut found: HashMap<TraceId, FoundTrace, RandomState> = HashMap::default();
        let mut cut = false;
        for table in [Table::Spans, Table::Evals, Table::Traces] {
            let fields = declared(table).fields().iter().map(|field| field.name().as_str());
            let columns: Vec<&str> = fields.filter(|name| !LEFT_OUT.contains(name)).collect();
            let search = Search {
                table,
                column: IdColumn::Trace,
                values: &values,
                columns: Some(&columns),
                rows_max: TRACE_ROWS_MAX,
            };
            let matches = lookup::find(&self.root, &job.snapshot, &search)?;
            cut |= matches.cut;
            split(&matches, |id, part| {
                let of = found.entry(id).or_default();
                match table {
                    Table::Spans => of.spans.push(part),
                    Table::Evals => of.evals.push(part),
                    Table::Traces | Table::Cells => of.traces.push(part),
                }
            })?;
        }
        let of = |id: &TraceId| {
            let mut of = found.remove(id).unwrap_or_default();
            of.cut = cut;
            (*id, of)
        };
        Ok(ids.iter().map(of).collect())
    }
}

fn key_of(ask: &Ask) -> (IdColumn, String) {
    match ask {
        Ask::Span(id) => (IdColumn::Span, format!("{id:016x}")),
        Ask::Response(text) => (IdColumn::Response, text.to_string()),
    }
}

/// Hands out the rows of every match, trace by trace.
fn split(matches: &Matches, mut take: impl FnMut(TraceId, FoundRows)) -> Result<(), StoreError> {
    for part in &matches.found {
        let Some(ids) = texts(&part.rows, "trace_id") else {
            continue;
        };
        let mut rows: HashMap<&str, Vec<u32>, RandomState> = HashMap::default();
        for (row, id) in ids.iter().enumerate() {
            if let Some(id) = id {
                rows.entry(id).or_default().push(row as u32);
            }
        }
        for (id, rows) in rows {
            if let Some(id) = trace_id(id) {
                let found = FoundRows {
                    lsn_min: part.lsn_min,
                    rows: take_record_batch(&part.rows, &UInt32Array::from(rows))?,
                };
                take(id, found);
            }
        }
    }
    Ok(())
}

fn texts<'a>(rows: &'a RecordBatch, column: &str) -> Option<Vec<Option<&'a str>>> {
    let column = rows.column_by_name(column)?;
    match (column.as_string_opt::<i32>(), column.as_string_view_opt()) {
        (Some(texts), _) => Some(texts.iter().collect()),
        (_, Some(texts)) => Some(texts.iter().collect()),
        _ => None,
    }
}

fn is_call(rows: &RecordBatch, row: usize) -> bool {
    let Some(words) = rows
        .column_by_name("role")
        .and_then(|c| c.as_dictionary_opt::<Int32Type>())
    else {
        return false;
    };
    let values = words.values().as_string_opt::<i32>();
    match (values, words.key(row)) {
        (Some(values), Some(key)) => values.value(key) == "call",
        _ => false,
    }
}
