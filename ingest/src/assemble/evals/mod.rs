//! Evaluations whose trace is not at hand: they wait here until it is settled which trace they are about.
//!
//! ```text
//! row of evals --trace in memory--> counts at once, row is live at once
//!       |
//!       +--else--> Pending --key--> Target: trace id | span id | response id
//!                     |               found: traces that have it (at most two are kept)
//!                     |               memory is scanned once, spans that come are compared, sealed files are asked once
//!                     +--one trace--> counts there, shown linked        (taken back if a second trace has it too)
//!                     +--age--> settled: the row is written as it is then
//! ```
//!
//! A pending row can be queried all the while (a batch of its own in the snapshot), and is written to files only when
//! it is settled, so no row is ever changed after it was written. Cells and `traces` rows are a function of the set of
//! spans and evaluations: what an evaluation counts for depends on which traces have its key, not on what came first.
//!
//! - Order of trust: the trace id it names; the span id it names, if one trace has that span; the response id, if one
//!   trace has a call with that response in memory and in all files together.
//! - Memory is scanned, because an index of every span would cost more than all evaluations; but not more often than
//!   [`EvalLimits::scan_every`].
//! - What is asked of files is answered later, by a thread of its own: see `late`. What a restart needs is all of
//!   [`Unsettled`]; what was asked and not answered is asked again.

mod dedup;
mod linking;
mod row;

pub use linking::Ask;
pub use row::{EvalRow, LinkedBy, evals_to_batch};

use super::span::Eval;
use proto::Nanos;
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    num::NonZeroU64,
    sync::Arc,
    time::Duration,
};
use store::{Mark, TraceId};

/// Times and limits of evaluations that wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EvalLimits {
    /// For how long an evaluation waits for its trace, and may be taken back if its response id has two.
    pub settle_after: Duration,
    /// Traces in memory are searched for new keys at most this often.
    pub scan_every: Duration,
    /// The more traces there are, the longer a scan takes and the rarer it is: a pause of this for each of them, about
    /// ten times what it takes to unpack one.
    pub scan_pause_per_trace: Duration,
    /// Spans may still come for this long before files are asked.
    pub ask_after: Duration,
    /// Evaluations that wait; beyond, the oldest are settled.
    pub pending_max: usize,
    /// Estimated memory of these, bytes.
    pub pending_bytes_max: usize,
}

impl Default for EvalLimits {
    fn default() -> Self {
        Self {
            settle_after: Duration::from_secs(600),
            scan_every: Duration::from_millis(250),
            scan_pause_per_trace: Duration::from_micros(20),
            ask_after: Duration::from_secs(2),
            pending_max: 100_000,
            pending_bytes_max: 64 << 20,
        }
    }
}

/// By what an evaluation finds its trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Key {
    /// The trace itself, which is not in memory.
    Trace(TraceId),
    /// A span of it.
    Span(u64),
    /// The response id of one of its calls, hashed.
    Response(NonZeroU64),
}

/// Traces that are kept of one key: two are as many as matter.
const FOUND_MAX: usize = 2;

/// What is known of a key.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Target {
    /// Traces that have it.
    found: Vec<TraceId>,
    looked: Looked,
    /// The response id.
    text: Option<Arc<str>>,
    /// Evaluations that wait for it, by number.
    users: Vec<u64>,
}

/// Where a key has been looked for. Spans that come are compared in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
enum Looked {
    /// Nowhere; since.
    New(Nanos),
    /// In memory.
    Memory(Nanos),
    /// Files were asked.
    Asked(Nanos),
    /// Everywhere.
    Everywhere,
}

/// An evaluation that waits.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Pending {
    /// As it came, with the mark of its trace.
    row: EvalRow,
    eval: Eval,
    keys: Vec<Key>,
    since: Nanos,
    /// The trace that counts it.
    counted_in: Option<TraceId>,
    /// Its trace is on disk and could not be counted anew.
    given_up: bool,
}

/// Rows of the snapshot that are made anew together.
const CHUNK: u64 = 512;

/// Evaluations that wait, and what they wait for. Captures share the rows.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Unsettled {
    /// By number; numbers grow, so the oldest is first.
    pending: BTreeMap<u64, Arc<Pending>>,
    targets: BTreeMap<Key, Target>,
    next: u64,
    bytes: usize,
    scanned_at: Nanos,
    /// Evaluations whose trace is to be found out again.
    #[serde(skip)]
    moved: BTreeSet<u64>,
    /// Evaluations that named their trace, which is there now.
    #[serde(skip)]
    certain: Vec<u64>,
    #[serde(skip)]
    to_scan: Vec<Key>,
    #[serde(skip)]
    to_ask: VecDeque<Key>,
    #[serde(skip)]
    changed_chunks: BTreeSet<u64>,
    /// Evaluations that may be about a trace, or are counted in it; some may be no longer.
    #[serde(skip)]
    near: BTreeMap<TraceId, BTreeSet<u64>>,
}

/// What became of an evaluation that was to wait.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Added {
    /// It waits.
    Waits,
    /// The same one waits already.
    Repeats,
}

impl Unsettled {
    /// What a restored value does not carry along.
    pub fn restored(mut self) -> Self {
        for (key, target) in &mut self.targets {
            match target.looked {
                Looked::New(_) => self.to_scan.push(*key),
                Looked::Memory(since) | Looked::Asked(since) => {
                    target.looked = Looked::Memory(since);
                    self.to_ask.push_back(*key);
                }
                Looked::Everywhere => {}
            }
        }
        let targets = &self.targets;
        let since = |key: &Key| match targets[key].looked {
            Looked::Memory(since) => since,
            _ => Nanos::ZERO,
        };
        self.to_ask.make_contiguous().sort_by_key(|key| (since(key), *key));
        for target in self.targets.values() {
            for trace in &target.found {
                self.near.entry(*trace).or_default().extend(&target.users);
            }
        }
        for (number, pending) in &self.pending {
            if let Some(trace) = pending.counted_in {
                self.near.entry(trace).or_default().insert(*number);
            }
        }
        self.changed_chunks = self.pending.keys().map(|number| number / CHUNK).collect();
        self.moved = self.pending.keys().copied().collect();
        self
    }

    pub fn len(&self) -> usize {
        self.pending.len()
    }

    pub fn is_empty(&self) -> bool {
        self.pending.is_empty()
    }

    /// Lets an evaluation wait for the first of `keys` that answers.
    pub fn add(&mut self, row: EvalRow, eval: Eval, keys: Vec<Key>, now: Nanos) -> Added {
        if let Some(target) = keys.first().and_then(|key| self.targets.get(key)) {
            for number in &target.users {
                let Some(known) = self.pending.get_mut(number) else {
                    continue;
                };
                if known.keys == keys && known.eval.repeats(&eval) {
                    let wider = known.eval.widened(&eval);
                    if wider != known.eval {
                        Arc::make_mut(known).eval = wider;
                        self.moved.insert(*number);
                    }
                    return Added::Repeats;
                }
            }
        }
        self.next += 1;
        let number = self.next;
        for key in &keys {
            let target = self.targets.entry(*key).or_insert_with(|| {
                // a trace id needs no search: it is not in memory, or nobody would wait
                let is_trace = matches!(key, Key::Trace(_));
                if is_trace {
                    self.to_ask.push_back(*key);
                } else {
                    self.to_scan.push(*key);
                }
                Target {
                    found: Vec::new(),
                    looked: if is_trace {
                        Looked::Memory(now)
                    } else {
                        Looked::New(now)
                    },
                    text: match key {
                        Key::Response(_) => row.response_id.clone(),
                        _ => None,
                    },
                    users: Vec::new(),
                }
            });
            target.users.push(number);
            for trace in &target.found {
                self.near.entry(*trace).or_default().insert(number);
            }
        }
        self.bytes += row.bytes() + size_of::<Pending>();
        self.moved.insert(number);
        self.changed_chunks.insert(number / CHUNK);
        let pending = Pending {
            row,
            eval: Eval { origin: number, ..eval },
            keys,
            since: now,
            counted_in: None,
            given_up: false,
        };
        self.pending.insert(number, Arc::new(pending));
        Added::Waits
    }

    /// `trace` has `key`.
    pub fn meet(&mut self, key: Key, trace: TraceId) {
        let Some(target) = self.targets.get_mut(&key) else {
            return;
        };
        if let Err(at) = target.found.binary_search(&trace) {
            target.found.insert(at, trace);
            target.found.truncate(FOUND_MAX);
            self.moved.extend(&target.users);
            self.near.entry(trace).or_default().extend(&target.users);
        }
    }

    /// Evaluations that are about a trace, by what is known now, or counted in it.
    fn concerned(&self, id: TraceId) -> Vec<u64> {
        let is_concerned = |number: &&u64| {
            self.pending.get(number).is_some_and(|pending| {
                pending.counted_in == Some(id) || self.target(pending).is_some_and(|(target, _)| target == id)
            })
        };
        let near = self.near.get(&id).into_iter().flatten();
        near.filter(is_concerned).copied().collect()
    }

    /// The trace that an evaluation is about, by what is known now.
    fn target(&self, pending: &Pending) -> Option<(TraceId, LinkedBy)> {
        if pending.given_up {
            return None;
        }
        for key in &pending.keys {
            let target = self.targets.get(key)?;
            let by = match key {
                Key::Trace(_) if pending.row.span_id.is_some() => LinkedBy::Span,
                Key::Trace(_) => LinkedBy::Trace,
                Key::Span(_) => LinkedBy::TargetSpan,
                Key::Response(_) => LinkedBy::ResponseId,
            };
            match (target.found.as_slice(), target.looked) {
                // another trace on disk may have the same response
                ([_], looked) if by == LinkedBy::ResponseId && looked != Looked::Everywhere => return None,
                ([one], _) => return Some((*one, by)),
                ([], Looked::Everywhere) => {}
                _ => return None,
            }
        }
        None
    }

    /// Whether nothing is under way that could still tell the trace of an evaluation.
    fn is_known(&self, pending: &Pending) -> bool {
        let target = self.target(pending).map(|(trace, _)| trace);
        let looked = |key: &Key| {
            self.targets.get(key).is_none_or(|target| {
                target.looked == Looked::Everywhere || (!target.found.is_empty() && !matches!(key, Key::Response(_)))
            })
        };
        target == pending.counted_in && (target.is_some() || pending.given_up || pending.keys.iter().all(looked))
    }

    /// Forgets an evaluation and the keys that only it waited for.
    fn remove(&mut self, number: u64) {
        let Some(pending) = self.pending.remove(&number) else {
            return;
        };
        self.bytes = self.bytes.saturating_sub(pending.row.bytes() + size_of::<Pending>());
        self.changed_chunks.insert(number / CHUNK);
        let found = pending.keys.iter().filter_map(|key| self.targets.get(key));
        let traces: Vec<TraceId> = found
            .flat_map(|target| target.found.iter().copied())
            .chain(pending.counted_in)
            .collect();
        for trace in traces {
            if let Some(near) = self.near.get_mut(&trace) {
                near.remove(&number);
                if near.is_empty() {
                    self.near.remove(&trace);
                }
            }
        }
        for key in &pending.keys {
            if let Some(target) = self.targets.get_mut(key) {
                target.users.retain(|user| *user != number);
                if target.users.is_empty() {
                    self.targets.remove(key);
                }
            }
        }
    }

    /// The row as it is to be shown now.
    fn shown(&self, pending: &Pending) -> EvalRow {
        let mut row = pending.row.clone();
        if let Some((trace, by)) = self.target(pending)
            && pending.counted_in == Some(trace)
        {
            (row.trace_id, row.linked_by) = (Some(trace), Some(by));
        } else {
            row.mark = None;
        }
        row
    }

    /// Chunks of rows that changed since this was asked last, with their rows now.
    pub fn take_changed_rows(&mut self) -> Vec<(u64, Vec<EvalRow>)> {
        let chunks = std::mem::take(&mut self.changed_chunks);
        let rows = |chunk: u64| {
            let of_chunk = self.pending.range(chunk * CHUNK..(chunk + 1) * CHUNK);
            of_chunk.map(|(_, pending)| self.shown(pending)).collect()
        };
        chunks.into_iter().map(|chunk| (chunk, rows(chunk))).collect()
    }

    /// The mark of a trace that counts the evaluations of these numbers.
    pub fn set_mark(&mut self, numbers: impl Iterator<Item = u64>, mark: &Arc<Mark>) {
        for number in numbers {
            if let Some(pending) = self.pending.get_mut(&number)
                && pending.row.mark.as_ref() != Some(mark)
            {
                Arc::make_mut(pending).row.mark = Some(Arc::clone(mark));
                self.changed_chunks.insert(number / CHUNK);
            }
        }
    }
}
