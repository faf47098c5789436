//! The state machine of traces: open, quiet, closed, admitted, forgotten.

use super::{
    Counts, Effects, Limits,
    evals::{EvalRow, Unsettled},
    facts::{EvalFacts, FactsError, LabelPool, SpanFacts},
    hold::Traces,
    late::{Arrival, Late},
    link::Links,
    marks::MarkPool,
    names::Names,
    outcome::Trial,
    resolve::{Colors, MODEL_GROUP, has_shadow_groups, resolve},
    row::TraceRow,
    span::Labels,
    tally::{Tally, minute_of},
    trace::Trace,
};
use proto::{Nanos, layout::Table, release::ReleaseBook};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BinaryHeap, VecDeque},
    sync::Arc,
};
use store::{MicroBatch, Patch, TraceId};

/// Open and recently closed traces.
#[derive(Debug)]
pub struct Assembly {
    pub(super) limits: Limits,
    pub(super) book: Arc<ReleaseBook>,
    /// Attributes that releases ask for.
    asked: Vec<Arc<str>>,
    /// The book changed; open traces are to be resolved again.
    pub(super) rebooked: bool,
    pub(super) now: Nanos,
    /// Rows up to this record are sealed or being sealed, with the marks of that time.
    pub(super) captured_lsn: u64,
    pub(super) traces: Traces,
    /// Times to look at a trace. Never later than its due time; often earlier, because arrivals move that on.
    pub(super) queue: BinaryHeap<Reverse<(Nanos, TraceId)>>,
    /// In order of closing.
    pub(super) recent: VecDeque<(Nanos, TraceId)>,
    /// Counts of traces that were forgotten before they were admitted, by the second (unix) they will be.
    pub(super) waiting: BTreeMap<i64, Tally>,
    pub(super) labels: LabelPool,
    marks: MarkPool,
    pub(super) links: Links,
    pub(super) names: Names,
    pub(super) counts: Counts,
    /// Evaluations whose trace is not settled.
    pub(super) unsettled: Unsettled,
    /// Traces that were forgotten, and rows of such.
    pub(super) late: Late,
}

impl Assembly {
    /// Empty.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            book: Arc::default(),
            asked: Vec::new(),
            rebooked: false,
            now: Nanos::ZERO,
            captured_lsn: 0,
            traces: Traces::default(),
            queue: BinaryHeap::new(),
            recent: VecDeque::new(),
            waiting: BTreeMap::new(),
            labels: LabelPool::default(),
            marks: MarkPool::default(),
            links: Links::default(),
            names: Names::default(),
            counts: Counts::default(),
            unsettled: Unsettled::default(),
            late: Late::default(),
        }
    }

    /// Marks of traces whose root has not been seen, as patches for rows up to record `lsn`; of traces that had rows
    /// after record `since`.
    #[must_use]
    pub fn provisional(&self, since: u64, lsn: u64) -> Vec<(TraceId, Patch)> {
        let patch = |mark, first_lsn| Patch {
            mark,
            first_lsn,
            last_lsn: lsn,
            rooted: false,
        };
        let marks = self.traces.provisional(since);
        marks
            .map(|(id, mark, first_lsn)| (id, patch(mark, first_lsn)))
            .collect()
    }

    /// Whether a trace is held, or asked for, so that what is known of it may change.
    #[must_use]
    pub fn holds(&self, id: &TraceId) -> bool {
        self.traces.contains(id) || self.late.wants(id)
    }

    /// Rows up to `lsn` are being sealed: later changes of their marks become patches.
    pub fn captured(&mut self, lsn: u64) {
        self.captured_lsn = lsn;
    }

    /// Takes another book; open traces are resolved again at the next tick.
    pub fn set_book(&mut self, book: Arc<ReleaseBook>) {
        let groups = book
            .entries
            .iter()
            .filter(|e| has_shadow_groups(e))
            .map(|_| MODEL_GROUP.into());
        let mut keys: Vec<Arc<str>> = book
            .entries
            .iter()
            .filter_map(|e| e.cohort_key.clone())
            .chain(groups)
            .collect();
        keys.sort_unstable();
        keys.dedup();
        self.asked = keys;
        self.rebooked |= *book != *self.book;
        self.book = book;
    }

    /// What was counted.
    #[must_use]
    pub fn counts(&self) -> Counts {
        Counts {
            bytes: self.traces.bytes(),
            ..self.counts
        }
    }

    /// Time of the last batch or tick.
    #[must_use]
    pub fn now(&self) -> Nanos {
        self.now
    }

    /// Takes the rows of a record. The caller ticks to the record's `received_at` first.
    ///
    /// # Errors
    /// If the rows are not of the declared shape.
    pub fn apply(&mut self, batch: &MicroBatch) -> Result<Effects, FactsError> {
        self.now = self.now.max(batch.received_at);
        let mut effects = Effects::default();
        let mut touched = Vec::new();
        for section in &batch.sections {
            match section.table {
                Table::Spans => {
                    let facts = SpanFacts::new(&section.rows)?;
                    self.take_spans(&facts, batch.lsn, &mut touched, &mut effects);
                }
                Table::Evals => {
                    let facts = EvalFacts::new(&section.rows)?;
                    for row in 0..facts.len() {
                        if !self.take_eval(&facts, row, batch.lsn, &mut touched) {
                            effects.drop_evals.push(row);
                        }
                    }
                }
                Table::Traces | Table::Cells => {}
            }
        }
        self.finish(touched, batch.lsn, &mut effects);
        self.make_room(batch.lsn, &mut effects);
        self.traces.settle(self.limits.awake_max);
        Ok(effects)
    }

    /// Brings evaluations to their traces, and looks at every trace that changed.
    pub(super) fn finish(&mut self, mut touched: Vec<TraceId>, lsn: u64, effects: &mut Effects) {
        self.relink(&mut touched);
        touched.sort_unstable();
        touched.dedup();
        for id in touched {
            self.review(id, lsn, effects);
            self.enqueue(id);
        }
        self.settle_certain(lsn, effects);
        self.counts.evals_pending = self.unsettled.len() as u64;
        self.counts.late_wanted = self.late.wanted_len() as u64;
    }

    /// Labels of rows.
    pub(super) fn labels_of(&mut self, facts: &SpanFacts<'_>) -> Vec<Arc<Labels>> {
        self.labels.of_rows(facts, &self.asked)
    }

    /// Rows of evaluations that wait, by chunk: those chunks that changed since the last call.
    pub fn take_pending_rows(&mut self) -> Vec<(u64, Vec<EvalRow>)> {
        self.unsettled.take_changed_rows()
    }

    fn take_spans(&mut self, facts: &SpanFacts<'_>, lsn: u64, touched: &mut Vec<TraceId>, effects: &mut Effects) {
        let labels = self.labels.of_rows(facts, &self.asked);
        for (row, labels) in labels.into_iter().enumerate() {
            let (Some(trace_id), Some(id)) = (facts.trace_id(row), facts.span_id(row)) else {
                continue;
            };
            let now = self.now;
            let spans_max = self.limits.trace_spans_max;
            if !self.traces.contains(&trace_id) && self.may_be_late(&trace_id, facts.start(row)) {
                let span = facts.span(row, id, Arc::clone(&labels));
                let response = span.response_key();
                match self.park(trace_id, span, lsn) {
                    Arrival::New => {}
                    Arrival::Parked => {
                        // whichever trace it will be, it has this id
                        self.met_span(trace_id, id, response);
                        continue;
                    }
                    Arrival::Repeats => {
                        effects.drop_spans.push(row);
                        continue;
                    }
                }
            }
            let trace = self.trace(trace_id, lsn);
            match trace.spans.binary_search_by_key(&id, |s| s.id) {
                Ok(_) => {
                    effects.drop_spans.push(row);
                    self.counts.duplicate_spans += 1;
                }
                Err(_) if trace.spans.len() >= spans_max => self.counts.spans_over_limit += 1,
                Err(at) => {
                    let span = facts.span(row, id, labels);
                    let response = span.response_key();
                    trace.insert(at, span);
                    (trace.touched, trace.last_lsn) = (now, lsn);
                    if touched.last() != Some(&trace_id) {
                        touched.push(trace_id);
                    }
                    self.met_span(trace_id, id, response);
                }
            }
        }
    }

    pub(super) fn trace(&mut self, id: TraceId, lsn: u64) -> &mut Trace {
        if !self.traces.contains(&id) {
            self.traces.insert(id, Trace::new(self.now, lsn));
            self.counts.open += 1;
        }
        self.traces.get_mut(&id).expect("it was just put there")
    }

    /// Looks at a trace again after its spans, its evaluations or the book changed.
    pub(super) fn review(&mut self, id: TraceId, lsn: u64, effects: &mut Effects) {
        let book = Arc::clone(&self.book);
        self.traces.reweigh(&id);
        let Some(trace) = self.traces.get_mut(&id) else {
            return;
        };
        let Some(view) = trace.view(&book) else {
            return;
        };
        let mut resolved = resolve(&trace.spans, &view.shape, view.start, &book);
        let colors = Colors::of(&trace.spans, &view.shape, view.entry, &resolved.mark);
        resolved.mark.spans = colors.marks(&trace.spans, &resolved.mark, &view.twins);
        trace.conflict = resolved.conflict;
        let (timeout, grace) = view.patience(&self.limits);
        let latest = trace.opened.plus(self.limits.started_ahead_max);
        trace.admit_at = Some(view.start.min(latest).plus(timeout + grace));

        let changed = trace.mark.as_ref().is_none_or(|(mark, _)| **mark != resolved.mark);
        let mark = match &trace.mark {
            Some((mark, _)) if !changed => Arc::clone(mark),
            _ => self.marks.share(resolved.mark),
        };
        if changed
            || trace
                .mark
                .as_ref()
                .is_none_or(|(_, emitted)| *emitted <= self.captured_lsn)
        {
            effects.marks.push((id, Arc::clone(&mark)));
            trace.mark = Some((Arc::clone(&mark), lsn));
        }
        if changed && trace.first_lsn <= self.captured_lsn {
            let patch = Patch {
                mark: Arc::clone(&mark),
                first_lsn: trace.first_lsn,
                last_lsn: self.captured_lsn,
                rooted: trace.rooted,
            };
            effects.patches.push((id, patch));
        }
        let waiting = trace.evals.iter().map(|eval| eval.origin).filter(|origin| *origin != 0);
        self.unsettled.set_mark(waiting, &mark);
        let (subject, member) = trace.member(&view);
        let (is_counted, rooted) = (trace.closed.is_some() || trace.admitted, trace.rooted);
        self.traces.note_root(id, rooted);
        let tied = self.links.note(id, &subject, &member);
        if is_counted && !tied.contains(&id) {
            self.charge(id, lsn, effects);
        }
        for other in tied {
            self.tie(other, lsn, effects);
        }
    }

    /// Brings the tie of a trace to what is known now, and counts it anew.
    fn tie(&mut self, id: TraceId, lsn: u64, effects: &mut Effects) {
        let link = self.links.link(id);
        let Some(before) = self.traces.get_mut(&id).map(|trace| trace.link.clone()) else {
            return;
        };
        // what was tied to a trace that is forgotten stays so
        let is_lost = link.is_none() && before.as_ref().is_some_and(|tie| !self.traces.contains(&tie.other));
        let Some(trace) = self.traces.get_mut(&id) else {
            return;
        };
        if before != link && !is_lost {
            trace.link = link;
        }
        if trace.closed.is_some() || trace.admitted {
            self.charge(id, lsn, effects);
        }
    }

    /// Makes sure that the trace is looked at when it is due.
    pub(super) fn enqueue(&mut self, id: TraceId) {
        let Some(trace) = self.traces.get_mut(&id) else {
            return;
        };
        let Some(due) = trace.due(&self.limits) else {
            return;
        };
        if trace.queued.is_none_or(|queued| due < queued) {
            trace.queued = Some(due);
            self.queue.push(Reverse((due, id)));
        }
    }

    /// Brings cells (and the row, once closed) to what the trace is now.
    pub(super) fn charge(&mut self, id: TraceId, lsn: u64, effects: &mut Effects) {
        let book = Arc::clone(&self.book);
        let Some(trace) = self.traces.get_mut(&id) else {
            return;
        };
        let (Some(view), Some((mark, _))) = (trace.view(&book), &trace.mark) else {
            return;
        };
        let (timeout, grace) = view.patience(&self.limits);
        let outcome = Trial {
            spans: &trace.spans,
            evals: &trace.evals,
            shape: &view.shape,
            twins: &view.twins,
            colors: &Colors::of(&trace.spans, &view.shape, view.entry, mark),
            mark,
            link: trace.link.as_ref(),
            counted_as: self.names.counted_as(mark, self.limits.names_max),
            minute: minute_of(view.start, self.limits.resolution),
            conflict: trace.conflict,
            entry: view.entry,
            timeout,
            running_for: (trace.closed.is_none() && !trace.rooted).then_some(timeout + grace),
        }
        .outcome()
        .map(|mut outcome| {
            let (opened, limits) = (trace.opened, &self.limits);
            outcome.visible &= view.start <= opened.plus(limits.started_ahead_max)
                && opened <= view.start.plus(limits.started_ago_max);
            let names_max = self.limits.names_max;
            let declared = view.entry.and_then(|entry| entry.split_at(view.start));
            outcome.verdicts = self.names.verdicts(&outcome.route, outcome.verdicts, names_max);
            outcome.split_ppm = self.names.split(outcome.split_ppm, declared, names_max);
            Arc::new(outcome)
        });
        let changed = trace.charged != outcome;
        if changed {
            if let Some(before) = &trace.charged {
                effects.cells.add(before, trace.admitted, -1);
            }
            if let Some(after) = &outcome {
                effects.cells.add(after, trace.admitted, 1);
            }
            trace.charged.clone_from(&outcome);
        }
        let rooted = trace.rooted;
        if let Some((_, closed_by)) = trace.closed
            && (changed || trace.row_lsn.is_none())
            && (outcome.is_some() || trace.row_lsn.is_some())
        {
            let replaces = trace.row_lsn.replace(lsn);
            self.counts.changed_late += u64::from(replaces.is_some());
            effects.rows.push(TraceRow {
                trace_id: id,
                outcome,
                closed_by,
                replaces,
            });
        }
        self.traces.note_root(id, rooted);
    }
}
