//! What time does to traces: it closes them, admits them, and lets them be forgotten.

use super::{Effects, assembly::Assembly, trace::ClosedBy};
use proto::Nanos;
use std::cmp::Reverse;
use store::TraceId;

/// Entries of the queue beyond two a trace before it is searched for those of traces that are gone.
const QUEUE_SPARE: usize = 1_024;

impl Assembly {
    /// Lets time pass: closes, admits and forgets what is due. `lsn` is the last record that was applied.
    pub fn tick(&mut self, now: Nanos, lsn: u64) -> Effects {
        self.now = self.now.max(now);
        let mut effects = Effects::default();
        if std::mem::take(&mut self.rebooked) {
            let mut open: Vec<TraceId> = Vec::new();
            self.traces
                .each(|id, trace| open.extend(trace.closed.is_none().then_some(id)));
            open.sort_unstable();
            for id in open {
                self.review(id, lsn, &mut effects);
                self.enqueue(id);
                // All of them awake at once would be more than there is room for.
                self.traces.settle(self.limits.awake_max);
            }
        }
        let mut due = Vec::new();
        while let Some(Reverse((_, id))) = self.queue.peek().copied().filter(|Reverse((at, _))| *at <= self.now) {
            self.queue.pop();
            let Some(trace) = self.traces.get_mut(&id) else {
                continue;
            };
            let Some(real) = trace.due(&self.limits) else {
                continue;
            };
            trace.queued = None;
            if real <= self.now {
                due.push((real, id));
            } else {
                self.enqueue(id);
            }
        }
        due.sort_unstable();
        due.dedup();
        for (_, id) in due {
            self.advance(id, lsn, &mut effects);
        }
        let mut touched = Vec::new();
        self.tick_evals(lsn, &mut effects, &mut touched);
        self.finish(touched, lsn, &mut effects);
        self.forget_old(lsn, &mut effects);
        while let Some(entry) = self
            .waiting
            .first_entry()
            .filter(|e| Nanos::from_secs(*e.key()) <= self.now)
        {
            effects.cells.admit(entry.remove());
        }
        self.traces.settle(self.limits.awake_max);
        self.drop_stale();
        effects
    }

    /// Traces are forgotten before they are due, and others are due anew: what the queue still says of them would stand
    /// there for minutes.
    fn drop_stale(&mut self) {
        if self.queue.len() > 2 * self.traces.len() + QUEUE_SPARE {
            let traces = &self.traces;
            self.queue.retain(|Reverse((_, id))| traces.contains(id));
            self.queue.shrink_to(2 * self.traces.len() + QUEUE_SPARE);
        }
    }

    /// Closes and admits one trace if its time has come.
    fn advance(&mut self, id: TraceId, lsn: u64, effects: &mut Effects) {
        let Some(trace) = self.traces.get_mut(&id) else {
            return;
        };
        let (closes_at, by) = trace.closes(&self.limits);
        if trace.closed.is_none() && closes_at <= self.now {
            if trace.spans.is_empty() {
                self.forget(id);
                self.counts.open -= 1;
                return;
            }
            trace.closed = Some((closes_at, by));
            self.recent.push_back((closes_at, id));
            self.counts.open -= 1;
            self.counts.recent += 1;
            self.counts.closed += 1;
            self.counts.closed_at_deadline += u64::from(by == ClosedBy::Deadline);
            self.counts.closed_quiet += u64::from(by == ClosedBy::Quiet);
            self.charge(id, lsn, effects);
        }
        let Some(trace) = self.traces.get_mut(&id) else {
            return;
        };
        if !trace.admitted && trace.admit_at.is_some_and(|at| at <= self.now) {
            if let Some(charged) = &trace.charged {
                effects.cells.add(charged, false, -1);
                effects.cells.add(charged, true, 1);
            }
            trace.admitted = true;
            if trace.closed.is_none() {
                self.charge(id, lsn, effects);
            }
        }
        self.enqueue(id);
    }

    fn forget_old(&mut self, lsn: u64, effects: &mut Effects) {
        while let Some(&(closed_at, id)) = self.recent.front() {
            let expired = closed_at.plus(self.limits.recent_age) <= self.now;
            if !expired && self.recent.len() <= self.limits.recent_traces_max {
                break;
            }
            self.forget_closed(id);
        }
        self.make_room(lsn, effects);
    }

    /// Keeps within the limits: first the oldest closed traces go, then the oldest open ones.
    pub(super) fn make_room(&mut self, lsn: u64, effects: &mut Effects) {
        while self.traces.bytes() > self.limits.bytes_max as u64
            && let Some(&(_, id)) = self.recent.front()
        {
            self.forget_closed(id);
        }
        let is_full = |this: &Self, parts: u64| {
            let of = |max: usize| max as u64 - max as u64 / 64 * parts;
            this.counts.open > of(this.limits.open_traces_max) || this.traces.bytes() > of(this.limits.bytes_max)
        };
        if !is_full(self, 0) {
            return;
        }
        // a little more than needed, so that this is not done for every row; those that wait for their admission stay
        let mut waiting = Vec::new();
        while is_full(self, 1)
            && let Some(Reverse((at, id))) = self.queue.pop()
        {
            let Some(trace) = self.traces.get_mut(&id) else {
                continue;
            };
            if trace.queued == Some(at) {
                trace.queued = None;
            }
            if trace.closed.is_some() {
                waiting.push(id);
                continue;
            }
            trace.closed = Some((self.now, ClosedBy::Evicted));
            self.counts.evicted += 1;
            self.counts.closed += 1;
            self.counts.open -= 1;
            self.charge(id, lsn, effects);
            self.forget(id);
        }
        for id in waiting {
            self.enqueue(id);
        }
    }

    fn forget_closed(&mut self, id: TraceId) {
        self.recent.pop_front();
        self.counts.recent -= 1;
        self.forget(id);
    }

    /// Forgets a trace; what it still has to have admitted waits as plain counts.
    pub(super) fn forget(&mut self, id: TraceId) {
        let Some(parting) = self.traces.remove(&id) else {
            return;
        };
        self.links.forget(id);
        self.late.forgot(&id, parting.touched, self.limits.late.forgotten_max);
        if let Some((at, charged)) = parting.waits {
            let second = Self::admission_second(at);
            self.waiting.entry(second).or_default().add(&charged, false, 1);
        }
    }

    /// Second (unix) at which the counts of a forgotten trace are admitted.
    pub(super) fn admission_second(at: Nanos) -> i64 {
        at.0.div_euclid(1_000_000_000) + 1
    }
}
