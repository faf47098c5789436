//! How assembly brings pending evaluations and traces together.

use super::{
    super::{
        Effects,
        assembly::Assembly,
        facts::EvalFacts,
        span::{Eval, response_hash},
    },
    Added, EvalLimits, EvalRow, Key, Looked,
    dedup::Put,
};
use hashbrown::HashSet;
use std::{sync::Arc, time::Duration};
use store::TraceId;

/// Keys that are asked of files in one go.
const ASKED_MAX: usize = 10_000;

/// A key that is looked for in files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ask {
    /// Traces with this span.
    Span(u64),
    /// Traces with a call of this response id.
    Response(Arc<str>),
}

impl Ask {
    fn key(&self) -> Key {
        match self {
            Self::Span(id) => Key::Span(*id),
            Self::Response(text) => Key::Response(response_hash(text)),
        }
    }
}

impl Assembly {
    /// Takes one row of `evals`. True if the row goes on as it is, false if it is not needed or waits here.
    pub(in crate::assemble) fn take_eval(
        &mut self,
        facts: &EvalFacts<'_>,
        row: usize,
        lsn: u64,
        touched: &mut Vec<TraceId>,
    ) -> bool {
        let eval = facts.eval(row);
        if let Some(id) = facts.trace_id(row) {
            if self.traces.contains(&id) {
                return self.take_direct(id, eval, lsn, touched);
            }
            return self.let_wait(facts.row(row), eval, vec![Key::Trace(id)]);
        }
        let mut keys: Vec<Key> = eval.span.map(Key::Span).into_iter().collect();
        keys.extend(facts.response_id(row).map(|text| Key::Response(response_hash(text))));
        if keys.is_empty() {
            self.counts.evals_unplaced += 1;
            return true;
        }
        self.let_wait(facts.row(row), eval, keys)
    }

    fn take_direct(&mut self, id: TraceId, eval: Eval, lsn: u64, touched: &mut Vec<TraceId>) -> bool {
        let evals_max = self.limits.trace_evals_max;
        let Some(trace) = self.traces.get_mut(&id) else {
            return true;
        };
        trace.last_lsn = trace.last_lsn.max(lsn);
        match Eval::put(&mut trace.evals, &eval, evals_max) {
            Put::Added => touched.push(id),
            Put::Full => self.counts.evals_unplaced += 1,
            Put::Repeats => {
                // it may join two that were too far apart
                touched.push(id);
                self.counts.duplicate_evals += 1;
                return false;
            }
        }
        true
    }

    fn let_wait(&mut self, row: EvalRow, eval: Eval, keys: Vec<Key>) -> bool {
        if self.unsettled.add(row, eval, keys, self.now) == Added::Repeats {
            self.counts.duplicate_evals += 1;
        }
        false
    }

    /// Counts every evaluation where it belongs by what is known now; `touched` are the traces that this changed.
    pub(in crate::assemble) fn relink(&mut self, touched: &mut Vec<TraceId>) {
        for number in std::mem::take(&mut self.unsettled.moved) {
            let Some(pending) = self.unsettled.pending.get(&number) else {
                continue;
            };
            let (eval, counted_in) = (pending.eval.clone(), pending.counted_in);
            let is_certain = matches!(pending.keys.first(), Some(Key::Trace(_)));
            let target = self.unsettled.target(pending).map(|(trace, _)| trace);
            if let Some(old) = counted_in {
                let Some(trace) = self.traces.get_mut(&old) else {
                    if target != Some(old) {
                        self.want(old);
                    }
                    continue;
                };
                let before = trace.evals.len();
                trace
                    .evals
                    .retain(|known| known.origin != number || (target == Some(old) && *known == eval));
                if trace.evals.len() == before && target == Some(old) {
                    continue;
                }
                touched.push(old);
                self.set_counted(number, None);
            }
            let Some(target) = target else {
                continue;
            };
            let evals_max = self.limits.trace_evals_max;
            match self.traces.get_mut(&target) {
                Some(trace) if trace.evals.len() < evals_max => {
                    trace.evals.push(eval);
                    if let Some((mark, _)) = trace.mark.clone() {
                        self.unsettled.set_mark(std::iter::once(number), &mark);
                    }
                    touched.push(target);
                    self.set_counted(number, Some(target));
                    if is_certain {
                        self.unsettled.certain.push(number);
                    }
                }
                Some(_) => self.give_up(number),
                None => self.want(target),
            }
        }
    }

    fn set_counted(&mut self, number: u64, trace: Option<TraceId>) {
        if let Some(pending) = self.unsettled.pending.get_mut(&number) {
            Arc::make_mut(pending).counted_in = trace;
            if let Some(trace) = trace {
                self.unsettled.near.entry(trace).or_default().insert(number);
            }
            self.unsettled.changed_chunks.insert(number / super::CHUNK);
        }
    }

    fn give_up(&mut self, number: u64) {
        if let Some(pending) = self.unsettled.pending.get_mut(&number) {
            Arc::make_mut(pending).given_up = true;
            self.unsettled.changed_chunks.insert(number / super::CHUNK);
        }
    }

    /// Evaluations that wait for a trace that could not be brought back count nowhere.
    pub(in crate::assemble) fn give_up_trace(&mut self, id: TraceId) {
        for number in self.unsettled.concerned(id) {
            self.set_counted(number, None);
            self.give_up(number);
        }
    }

    /// Evaluations that `id` counted when it was forgotten.
    pub(in crate::assemble) fn evals_counted_in(&self, id: TraceId) -> Vec<Eval> {
        let near = self.unsettled.near.get(&id).into_iter().flatten();
        let pending = near.filter_map(|number| self.unsettled.pending.get(number));
        let counted = pending.filter(|pending| pending.counted_in == Some(id));
        counted.map(|pending| pending.eval.clone()).collect()
    }

    /// Everything that waits for `id` is looked at again: it is in memory now.
    pub(in crate::assemble) fn came_back(&mut self, id: TraceId) {
        self.unsettled.meet(Key::Trace(id), id);
        let concerned = self.unsettled.concerned(id);
        self.unsettled.moved.extend(concerned);
    }

    /// A span came into memory.
    pub(in crate::assemble) fn met_span(&mut self, id: TraceId, span: u64, response: Option<Key>) {
        if self.unsettled.is_empty() {
            return;
        }
        self.unsettled.meet(Key::Trace(id), id);
        self.unsettled.meet(Key::Span(span), id);
        if let Some(key) = response {
            self.unsettled.meet(key, id);
        }
    }

    /// Searches memory for new keys, lets keys that are due be asked of files, and settles what waited long enough.
    pub(in crate::assemble) fn tick_evals(&mut self, lsn: u64, effects: &mut Effects, touched: &mut Vec<TraceId>) {
        if self.unsettled.is_empty() {
            return;
        }
        let limits = self.limits.evals.clone();
        let traces = u32::try_from(self.counts.open + self.counts.recent).unwrap_or(u32::MAX);
        let scan_every = limits.scan_every.max(limits.scan_pause_per_trace * traces);
        if !self.unsettled.to_scan.is_empty() && self.unsettled.scanned_at.plus(scan_every) <= self.now {
            self.unsettled.scanned_at = self.now;
            self.scan();
        }
        self.relink(touched);
        self.settle(&limits, lsn, effects);
    }

    fn scan(&mut self) {
        let mut wanted: HashSet<Key, ahash::RandomState> = HashSet::default();
        for key in std::mem::take(&mut self.unsettled.to_scan) {
            let Some(target) = self.unsettled.targets.get_mut(&key) else {
                continue;
            };
            if let Looked::New(since) = target.looked {
                target.looked = Looked::Memory(since);
                self.unsettled.to_ask.push_back(key);
            }
            wanted.insert(key);
        }
        let mut met = Vec::new();
        self.traces.each(|id, trace| {
            for span in trace.spans.iter() {
                let keys = [Some(Key::Span(span.id)), span.response_key()];
                met.extend(
                    keys.into_iter()
                        .flatten()
                        .filter(|key| wanted.contains(key))
                        .map(|key| (key, id)),
                );
            }
        });
        met.sort_unstable();
        for (key, id) in met {
            self.unsettled.meet(key, id);
        }
    }

    fn settle(&mut self, limits: &EvalLimits, lsn: u64, effects: &mut Effects) {
        while let Some((&number, pending)) = self.unsettled.pending.first_key_value() {
            let is_over =
                self.unsettled.pending.len() > limits.pending_max || self.unsettled.bytes > limits.pending_bytes_max;
            let is_due = pending.since.plus(limits.settle_after) <= self.now && self.unsettled.is_known(pending);
            if !is_over && !is_due {
                return;
            }
            self.settle_one(number, lsn, effects);
        }
    }

    /// Evaluations that named their trace need not wait once it is there.
    pub(in crate::assemble) fn settle_certain(&mut self, lsn: u64, effects: &mut Effects) {
        for number in std::mem::take(&mut self.unsettled.certain) {
            self.settle_one(number, lsn, effects);
        }
    }

    /// Writes an evaluation as it is known now; its row stands behind record `lsn`.
    fn settle_one(&mut self, number: u64, lsn: u64, effects: &mut Effects) {
        let Some(pending) = self.unsettled.pending.get(&number) else {
            return;
        };
        let (mut row, counted_in) = (self.unsettled.shown(pending), pending.counted_in);
        self.unsettled.remove(number);
        if counted_in.is_none() {
            self.counts.evals_unplaced += 1;
        }
        if let Some(id) = counted_in
            && let Some(trace) = self.traces.get_mut(&id)
        {
            if Eval::settle(&mut trace.evals, number) {
                self.counts.duplicate_evals += 1;
                return;
            }
            trace.last_lsn = trace.last_lsn.max(lsn);
            if let Some((mark, _)) = &trace.mark {
                // What is written stays, and this trace may yet come to know better: its mark fills the row.
                row.mark = None;
                effects.marks.push((id, Arc::clone(mark)));
            }
        }
        effects.evals.push(row);
    }

    /// Keys that are to be looked for in files now, and from then on count as asked.
    pub(in crate::assemble) fn keys_to_ask(&mut self) -> Vec<Ask> {
        let mut asks = Vec::new();
        for key in std::mem::take(&mut self.unsettled.to_ask) {
            let Some(target) = self.unsettled.targets.get_mut(&key) else {
                continue;
            };
            let Looked::Memory(since) = target.looked else {
                continue;
            };
            let wait = match key {
                Key::Response(_) => Duration::ZERO,
                _ => self.limits.evals.ask_after,
            };
            if asks.len() == ASKED_MAX || since.plus(wait) > self.now {
                self.unsettled.to_ask.push_back(key);
                continue;
            }
            target.looked = Looked::Asked(since);
            match key {
                // a span id is in one trace, a response id may be in more
                Key::Trace(_) | Key::Span(_) if !target.found.is_empty() => target.looked = Looked::Everywhere,
                Key::Trace(id) => self.want(id),
                Key::Span(id) => asks.push(Ask::Span(id)),
                Key::Response(_) => asks.extend(target.text.clone().map(Ask::Response)),
            }
        }
        asks
    }

    /// Files were searched for a key.
    pub(in crate::assemble) fn key_answered(&mut self, ask: &Ask, traces: &[TraceId]) {
        let key = ask.key();
        for id in traces {
            self.unsettled.meet(key, *id);
        }
        self.looked_everywhere(key);
    }

    /// No more can become known of a key, but by spans that come.
    pub(in crate::assemble) fn looked_everywhere(&mut self, key: Key) {
        if let Some(target) = self.unsettled.targets.get_mut(&key) {
            target.looked = Looked::Everywhere;
            self.unsettled.moved.extend(&target.users);
        }
    }
}
