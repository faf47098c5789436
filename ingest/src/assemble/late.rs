//! Late by days: a span or an evaluation of a trace that assembly has forgotten must not open a second trace.
//!
//! ```text
//! span of an unknown trace --candidate?--no--> a new trace
//!        | yes                                              candidate: its id was forgotten lately, or it started
//!     parked --asks--> files and live rows (another thread) before the oldest forgetting that is still remembered
//!        |                  |
//!        +---- answer ------+--nothing--> a new trace
//!                           +--rows-----> the trace as it was: its outcome is computed again and must give the very
//!                                         `traces` row that was written; then late rows change it by signed deltas
//! ```
//!
//! An outcome is a pure function of rows and book, so what cells hold of a forgotten trace is computed, not stored. If
//! the row that comes out is not the one that was written (the book was rewritten, rows were left out), nothing is
//! touched: late rows stay rows, and are counted as refused. What waits for an answer is part of [`Late`], so a restart
//! asks again. A span that starts long after its forgotten trace ended opens a new one: nothing tells it from others.

use super::{
    AssemblyState, ClosedBy, Effects, TraceRow,
    assembly::Assembly,
    evals::{Ask, Key},
    facts::{EvalFacts, FactsError, SpanFacts},
    row::rows_to_batch,
    span::{Eval, Span},
    trace::Trace,
};
use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::Int32Type,
    util::display::{ArrayFormatter, FormatOptions},
};
use hashbrown::{HashMap, hash_map::Entry};
use proto::Nanos;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
};
use store::TraceId;

/// Limits of what is late.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LateLimits {
    /// Forgotten traces that are remembered by id; of older ones only the time is known.
    pub forgotten_max: usize,
    /// Traces that wait for an answer; spans of further ones open new traces.
    pub wanted_max: usize,
    /// Spans that wait for one; further ones are rows only.
    pub parked_spans_max: usize,
}

impl Default for LateLimits {
    fn default() -> Self {
        Self {
            forgotten_max: 100_000,
            wanted_max: 10_000,
            parked_spans_max: 100_000,
        }
    }
}

/// Record of a row that may be in a file already: it stays hidden for good once it is replaced.
const WRITTEN_LONG_AGO: u64 = 0;
/// Traces that are asked for in one go.
const ASKED_MAX: usize = 500;

/// What is to be looked up in files and live rows.
#[derive(Debug, Clone, Default)]
pub struct Asks {
    /// Keys whose traces are looked for.
    pub keys: Vec<Ask>,
    /// Traces whose rows are looked for.
    pub traces: Vec<TraceId>,
}

impl Asks {
    /// True if nothing is asked.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty() && self.traces.is_empty()
    }
}

/// Rows of a trace that lie together.
#[derive(Debug, Clone)]
pub struct FoundRows {
    /// Smallest journal record they may have come with.
    pub lsn_min: u64,
    /// The rows.
    pub rows: RecordBatch,
}

/// All rows of one trace.
#[derive(Debug, Clone, Default)]
pub struct FoundTrace {
    /// Of `spans`.
    pub spans: Vec<FoundRows>,
    /// Of `evals`.
    pub evals: Vec<FoundRows>,
    /// Of `traces`: the one that stands, if any.
    pub traces: Vec<FoundRows>,
    /// There were more rows than are read.
    pub cut: bool,
}

/// The answer to [`Asks`].
#[derive(Debug, Default)]
pub struct Answer {
    /// Traces of every key that was asked for; fewer or none where nothing was found.
    pub keys: Vec<(Ask, Vec<TraceId>)>,
    /// Rows of every trace that was asked for; `None` if they could not be read.
    pub traces: Vec<(TraceId, Option<FoundTrace>)>,
}

/// Spans of a trace that is looked up.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct Parked {
    /// With the record they came with, sorted by id.
    spans: Vec<(Span, u64)>,
    /// The last record of the snapshot that is searched.
    asked: Option<u64>,
    /// It is not asked for before.
    not_before: Nanos,
}

/// What was forgotten, and what waits to be brought back.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Late {
    /// Hash of the id and last arrival of forgotten traces, oldest first.
    forgotten: VecDeque<(u64, Nanos)>,
    /// How often an id stands there.
    #[serde(skip)]
    forgotten_ids: HashMap<u64, u32, ahash::RandomState>,
    /// Traces that ended by then may have been forgotten without a trace.
    before: Option<Nanos>,
    wanted: BTreeMap<TraceId, Parked>,
    parked_spans: usize,
}

fn short(id: &TraceId) -> u64 {
    xxhash_rust::xxh3::xxh3_64(id)
}

impl Late {
    /// What a restored value does not carry along.
    pub fn restored(mut self) -> Self {
        for (id, _) in &self.forgotten {
            *self.forgotten_ids.entry(*id).or_default() += 1;
        }
        for parked in self.wanted.values_mut() {
            parked.asked = None;
        }
        self
    }

    /// Traces that wait for an answer.
    pub fn wanted_len(&self) -> usize {
        self.wanted.len()
    }

    /// A trace whose last span came at `touched` is no longer in memory.
    pub fn forgot(&mut self, id: &TraceId, touched: Nanos, forgotten_max: usize) {
        self.forgotten.push_back((short(id), touched));
        *self.forgotten_ids.entry(short(id)).or_default() += 1;
        while self.forgotten.len() > forgotten_max
            && let Some((id, touched)) = self.forgotten.pop_front()
        {
            if let Entry::Occupied(mut times) = self.forgotten_ids.entry(id) {
                *times.get_mut() -= 1;
                if *times.get() == 0 {
                    times.remove();
                }
            }
            self.before = self.before.max(Some(touched));
        }
    }

    fn is_candidate(&self, id: &TraceId, start: Nanos) -> bool {
        self.before.is_some_and(|before| start <= before) || self.forgotten_ids.contains_key(&short(id))
    }
}

/// What becomes of a span of a trace that is not in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Arrival {
    /// It opens a trace.
    New,
    /// It waits for an answer.
    Parked,
    /// It waits already.
    Repeats,
}

impl Assembly {
    /// Whether rows of this trace, which is not in memory, may belong to one that was forgotten.
    pub(super) fn may_be_late(&self, id: &TraceId, start: Nanos) -> bool {
        self.late.wanted.contains_key(id) || self.late.is_candidate(id, start)
    }

    /// Parks a span for which [`Assembly::may_be_late`] holds.
    pub(super) fn park(&mut self, id: TraceId, span: Span, lsn: u64) -> Arrival {
        let limits = &self.limits.late;
        let is_full = self.late.parked_spans >= limits.parked_spans_max;
        if !self.late.wanted.contains_key(&id) && (is_full || self.late.wanted.len() >= limits.wanted_max) {
            self.counts.late_over_limit += 1;
            return Arrival::New;
        }
        let parked = self.late.wanted.entry(id).or_default();
        match parked.spans.binary_search_by_key(&span.id, |(known, _)| known.id) {
            Ok(_) => {
                self.counts.duplicate_spans += 1;
                Arrival::Repeats
            }
            Err(_) if is_full => {
                self.counts.late_over_limit += 1;
                Arrival::Parked
            }
            Err(at) => {
                parked.spans.insert(at, (span, lsn));
                self.late.parked_spans += 1;
                Arrival::Parked
            }
        }
    }

    /// The rows of a trace that is not in memory are needed.
    pub(super) fn want(&mut self, id: TraceId) {
        if self.late.wanted.len() < self.limits.late.wanted_max || self.late.wanted.contains_key(&id) {
            self.late.wanted.entry(id).or_default();
        } else {
            self.counts.late_over_limit += 1;
            self.looked_everywhere(Key::Trace(id));
            self.give_up_trace(id);
        }
    }

    /// What is to be looked up now, in a snapshot that has every record up to `lsn`. It counts as asked from then on:
    /// ask again only after the answer.
    pub fn asks(&mut self, lsn: u64) -> Asks {
        let keys = self.keys_to_ask();
        let now = self.now;
        let is_due = |parked: &Parked| parked.asked.is_none() && parked.not_before <= now;
        let due = self.late.wanted.iter_mut().filter(|(_, parked)| is_due(parked));
        let traces = due.take(ASKED_MAX).map(|(id, parked)| {
            parked.asked = Some(lsn);
            *id
        });
        Asks {
            traces: traces.collect(),
            keys,
        }
    }

    /// Takes the answer to [`Assembly::asks`]. `lsn` is the last record that was applied.
    ///
    /// # Errors
    /// Rows that are not of the declared shape.
    pub fn answer(&mut self, answer: Answer, lsn: u64) -> Result<Effects, FactsError> {
        let mut effects = Effects::default();
        let mut touched = Vec::new();
        for (ask, traces) in &answer.keys {
            self.key_answered(ask, traces);
        }
        for (id, found) in answer.traces {
            let Some(parked) = self.late.wanted.remove(&id) else {
                continue;
            };
            self.late.parked_spans -= parked.spans.len();
            self.take_back(id, parked, found, lsn, &mut touched, &mut effects)?;
            if !self.late.wanted.contains_key(&id) {
                self.looked_everywhere(Key::Trace(id));
            }
        }
        self.finish(touched, lsn, &mut effects);
        Ok(effects)
    }

    fn take_back(
        &mut self,
        id: TraceId,
        parked: Parked,
        found: Option<FoundTrace>,
        lsn: u64,
        touched: &mut Vec<TraceId>,
        effects: &mut Effects,
    ) -> Result<(), FactsError> {
        let revived = match found {
            Some(found) => self.revive(id, &parked, &found, lsn, effects)?,
            None => Revived::Refused,
        };
        match revived {
            Revived::Nothing if parked.spans.is_empty() => {
                self.give_up_trace(id);
                return Ok(());
            }
            Revived::Nothing => {
                let first_lsn = parked.spans.iter().map(|(_, lsn)| *lsn).min().unwrap_or(lsn);
                self.trace(id, first_lsn);
            }
            Revived::Refused => {
                self.counts.revive_refused += 1;
                self.give_up_trace(id);
                return Ok(());
            }
            Revived::Later(not_before) => {
                self.late.parked_spans += parked.spans.len();
                let again = Parked {
                    asked: None,
                    not_before,
                    ..parked
                };
                self.late.wanted.insert(id, again);
                return Ok(());
            }
            Revived::Done => self.counts.revived += 1,
        }
        let (now, spans_max) = (self.now, self.limits.trace_spans_max);
        let mut came = Vec::new();
        if let Some(trace) = self.traces.get_mut(&id) {
            let trace = Arc::make_mut(trace);
            trace.touched = now;
            for (span, lsn) in parked.spans {
                match trace.spans.binary_search_by_key(&span.id, |known| known.id) {
                    Ok(_) => {
                        self.counts.duplicate_spans += 1;
                        effects.repeated.push((id, span.id, lsn));
                    }
                    Err(_) if trace.spans.len() >= spans_max => self.counts.spans_over_limit += 1,
                    Err(at) => {
                        came.push((span.id, span.response_key()));
                        trace.insert(at, span);
                    }
                }
            }
        }
        for (span, response) in came {
            self.met_span(id, span, response);
        }
        self.came_back(id);
        touched.push(id);
        Ok(())
    }

    /// Makes the trace of its rows, as it was when it was forgotten, with what cells hold of it.
    fn revive(
        &mut self,
        id: TraceId,
        parked: &Parked,
        found: &FoundTrace,
        lsn: u64,
        effects: &mut Effects,
    ) -> Result<Revived, FactsError> {
        let mut trace = Trace::new(self.now, lsn);
        let mut seen: BTreeMap<u64, (u32, Span)> = BTreeMap::new();
        for part in &found.spans {
            let facts = SpanFacts::new(&part.rows)?;
            let labels = self.labels_of(&facts);
            for (row, labels) in labels.into_iter().enumerate() {
                if let (Some(of), Some(span)) = (facts.trace_id(row), facts.span_id(row))
                    && of == id
                {
                    trace.first_lsn = trace.first_lsn.min(part.lsn_min);
                    seen.entry(span).or_insert_with(|| (0, facts.span(row, span, labels))).0 += 1;
                }
            }
        }
        // Rows of the late spans themselves are among them, once each, if they came before the snapshot.
        for (span, lsn) in &parked.spans {
            if parked.asked.is_some_and(|asked| *lsn <= asked)
                && let Some((times, _)) = seen.get_mut(&span.id)
            {
                *times -= 1;
            }
        }
        for (_, span) in seen.into_values().filter(|(times, _)| *times > 0) {
            trace.insert(trace.spans.len(), span);
        }
        if trace.spans.is_empty() {
            return Ok(Revived::Nothing);
        }
        for part in &found.evals {
            let facts = EvalFacts::new(&part.rows)?;
            for row in (0..facts.len()).filter(|row| facts.trace_id(*row) == Some(id)) {
                Eval::put(&mut trace.evals, &facts.eval(row), self.limits.trace_evals_max);
            }
        }
        trace.evals.extend(self.evals_counted_in(id));
        let written = found.traces.last();
        let closed_by = written
            .and_then(|row| closed_by(&row.rows))
            .unwrap_or(ClosedBy::RootEnded);
        if found.cut || trace.spans.len() > self.limits.trace_spans_max {
            return Ok(Revived::Refused);
        }
        Ok(self.recount(id, trace, closed_by, written, lsn, effects))
    }

    /// Puts a trace in memory and has it counted; then takes out of `effects` what that counted, because cells hold it
    /// already. Refused unless the row that comes out is the one that was written.
    fn recount(
        &mut self,
        id: TraceId,
        mut trace: Trace,
        closed_by: ClosedBy,
        written: Option<&FoundRows>,
        lsn: u64,
        effects: &mut Effects,
    ) -> Revived {
        trace.closed = Some((self.now, closed_by));
        trace.admitted = true;
        trace.row_lsn = written.map(|_| WRITTEN_LONG_AGO);
        self.traces.insert(id, Arc::new(trace));
        self.recent.push_back((self.now, id));
        self.counts.recent += 1;
        let late_before = self.counts.changed_late;
        self.review(id, lsn, effects);
        self.counts.changed_late = late_before;
        effects.patches.retain(|(patched, _)| *patched != id);
        let row = effects
            .rows
            .iter()
            .rposition(|row| row.trace_id == id)
            .map(|at| effects.rows.remove(at));
        let Some(trace) = self.traces.get_mut(&id).map(Arc::make_mut) else {
            return Revived::Refused;
        };
        trace.row_lsn = written.map(|_| WRITTEN_LONG_AGO);
        if let Some(charged) = &trace.charged {
            effects.cells.add(charged, true, -1);
        }
        if !is_as_written(row.as_ref(), written) {
            self.counts.recent -= 1;
            self.recent.pop_back();
            self.forget(id);
            return Revived::Refused;
        }
        // Forgotten early, for want of room: its counts wait to be admitted, and now it waits itself.
        if let (Some(charged), Some(at)) = (&trace.charged, trace.admit_at)
            && let second = Self::admission_second(at)
            && let Some(waiting) = self.waiting.get_mut(&second)
        {
            if at <= self.now {
                // admitted before it was forgotten, or with the others of this second? A moment later both are the same
                self.counts.recent -= 1;
                self.recent.pop_back();
                self.forget(id);
                return Revived::Later(Nanos::from_secs(second));
            }
            waiting.add(charged, false, -1);
            trace.admitted = false;
        }
        Revived::Done
    }

    /// What a restart needs of the late.
    pub(super) fn restore_late(&mut self, state: &mut AssemblyState) {
        self.late = std::mem::take(&mut state.late).restored();
        self.unsettled = std::mem::take(&mut state.unsettled).restored();
    }
}

/// What became of a forgotten trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Revived {
    /// It was never there.
    Nothing,
    /// It was, and cannot be counted anew.
    Refused,
    /// It is asked for again at that time.
    Later(Nanos),
    /// It is in memory again.
    Done,
}

fn closed_by(rows: &RecordBatch) -> Option<ClosedBy> {
    let words = rows.column_by_name("closed_by")?.as_dictionary_opt::<Int32Type>()?;
    let values = words.values().as_string_opt::<i32>()?;
    ClosedBy::parse(values.value(words.key(rows.num_rows().checked_sub(1)?)?))
}

/// Whether the row that was computed says what the row that was written says, in all columns that it had then.
fn is_as_written(computed: Option<&TraceRow>, written: Option<&FoundRows>) -> bool {
    let computed = computed.filter(|row| row.outcome.is_some());
    let (computed, written) = match (computed, written) {
        (None, None) => return true,
        (Some(computed), Some(written)) => (computed, &written.rows),
        _ => return false,
    };
    let Ok(computed) = rows_to_batch(std::slice::from_ref(computed)) else {
        return false;
    };
    let Some(last) = written.num_rows().checked_sub(1) else {
        return false;
    };
    let text = |column: &dyn Array, row: usize| {
        let format = FormatOptions::new().with_null("\0");
        let shown = ArrayFormatter::try_new(column, &format).ok()?;
        shown.value(row).try_to_string().ok()
    };
    written
        .schema_ref()
        .fields()
        .iter()
        .zip(written.columns())
        .all(|(field, column)| {
            computed
                .column_by_name(field.name())
                .is_some_and(|ours| text(ours.as_ref(), 0) == text(column.as_ref(), last))
        })
}
