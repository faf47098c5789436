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
    AssemblyState, Effects,
    assembly::Assembly,
    evals::{Ask, Key},
    facts::FactsError,
    revive::Revived,
    span::Span,
};
use arrow::array::RecordBatch;
use hashbrown::{HashMap, hash_map::Entry};
use proto::Nanos;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, VecDeque};
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
pub(super) struct Parked {
    /// With the record they came with, sorted by id.
    pub(super) spans: Vec<(Span, u64)>,
    /// The last record of the snapshot that is searched.
    pub(super) asked: Option<u64>,
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

    /// Whether a trace waits for an answer.
    pub fn wants(&self, id: &TraceId) -> bool {
        self.wanted.contains_key(id)
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

    /// What a restart needs of the late.
    pub(super) fn restore_late(&mut self, state: &mut AssemblyState) {
        self.late = std::mem::take(&mut state.late).restored();
        self.unsettled = std::mem::take(&mut state.unsettled).restored();
    }
}
