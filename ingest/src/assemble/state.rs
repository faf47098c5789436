//! Assembly over a restart: what is captured, written, read, and taken up again.

use super::{
    Counts, Limits,
    assembly::Assembly,
    evals::Unsettled,
    facts::Relabeled,
    hold::{Asleep, Captured, record},
    late::Late,
    names::Names,
    tally::Tally,
    trace::Trace,
};
use postcard::{Serializer, ser_flavors::Flavor};
use proto::{Nanos, release::ReleaseBook};
use serde::{Deserialize, Serialize};
use std::{cmp::Reverse, collections::BTreeMap, sync::Arc};
use store::TraceId;

/// What a restart needs of assembly. Capturing copies pointers; writing it is the slow part and happens elsewhere.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct AssemblyState {
    now: Nanos,
    /// Written behind all the rest, one by one.
    #[serde(skip)]
    traces: Captured,
    waiting: BTreeMap<i64, Tally>,
    names: Names,
    counts: Counts,
    pub(super) unsettled: Unsettled,
    pub(super) late: Late,
}

impl AssemblyState {
    /// Writes it and lets go of every trace that is written: until then it keeps in memory what assembly may have
    /// forgotten since.
    ///
    /// # Errors
    /// Those of the flavor that takes the bytes.
    pub fn write<F: Flavor>(mut self, to: &mut Serializer<F>) -> postcard::Result<()> {
        let traces = std::mem::take(&mut self.traces);
        self.serialize(&mut *to)?;
        record::write(traces, to)
    }

    /// Reads what [`AssemblyState::write`] wrote, and says what comes after it.
    ///
    /// # Errors
    /// If it is not whole, or of another version.
    pub fn read(bytes: &[u8]) -> postcard::Result<(Self, &[u8])> {
        let (mut state, rest) = postcard::take_from_bytes::<Self>(bytes)?;
        let (traces, rest) = record::read(rest)?;
        state.traces = traces;
        Ok((state, rest))
    }
}

impl Assembly {
    /// As it was when `state` was captured, after record `captured_lsn`. What slept goes on sleeping.
    #[must_use]
    pub fn restore(limits: Limits, mut state: AssemblyState, captured_lsn: u64, book: Arc<ReleaseBook>) -> Self {
        let mut this = Self::new(limits);
        this.set_book(book);
        this.restore_late(&mut state);
        (this.now, this.captured_lsn) = (state.now, captured_lsn);
        (this.waiting, this.names, this.counts) = (state.waiting, state.names, state.counts);
        this.counts.open = 0;
        let mut closed = Vec::new();
        let mut relabeled = Relabeled::default();
        for (id, mut held) in state.traces {
            Arc::make_mut(&mut held).relabel(|labels| relabeled.find(labels, &mut this.labels));
            let Some(mut trace) = held.wake() else {
                tracing::error!("a trace of another version cannot be read; it is forgotten");
                continue;
            };
            match trace.closed {
                Some((at, _)) => closed.push((at, id)),
                None => this.counts.open += 1,
            }
            this.traces.note_root(id, trace.rooted);
            if let Some(view) = trace.view(&this.book) {
                let (subject, member) = trace.member(&view);
                this.links.note(id, &subject, &member);
            }
            this.take_up(id, trace, held);
        }
        closed.sort_unstable();
        this.counts.recent = closed.len() as u64;
        this.recent = closed.into();
        this
    }

    /// Holds a trace as it was held, and looks at it when that was to be, unless it is due before by now.
    fn take_up(&mut self, id: TraceId, mut trace: Trace, held: Arc<Asleep>) {
        match (trace.due(&self.limits), trace.queued) {
            (None, _) => self.traces.take_up(id, held),
            (Some(due), Some(queued)) if queued <= due => {
                self.queue.push(Reverse((queued, id)));
                self.traces.take_up(id, held);
            }
            _ => {
                trace.queued = None;
                self.traces.insert(id, trace);
                self.enqueue(id);
                self.traces.settle(self.limits.awake_max);
            }
        }
    }

    /// What [`Assembly::restore`] takes.
    #[must_use]
    pub fn capture(&self) -> AssemblyState {
        AssemblyState {
            now: self.now,
            traces: self.traces.capture(),
            waiting: self.waiting.clone(),
            names: self.names.clone(),
            counts: self.counts,
            unsettled: self.unsettled.clone(),
            late: self.late.clone(),
        }
    }
}
