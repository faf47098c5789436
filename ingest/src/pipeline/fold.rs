//! All that the engine holds, as a value: records and ticks go in, snapshots and captures for sealing come out. No
//! threads, no IO; a restart feeds it the journal's records and gets where it was.

use super::{
    config::PipelineConfig,
    error::PipelineError,
    rows::{Live, after, without},
    state::{Digests, EngineState},
};
use crate::assemble::{Answer, Asks, Assembly, Counts, Effects, EvalRow, Tally, evals_to_batch, rows_to_batch};
use ahash::RandomState;
use hashbrown::{HashMap, HashSet};
use proto::{CellTable, Nanos, layout::Table, release::ReleaseBook};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};
use store::{LiveBatch, Mark, Marks, MicroBatch, Patch, SealInput, Sealed, Snapshot, State, TraceId, Upkeep, Upkept};

/// What is being sealed, until it is known whether that worked.
#[derive(Debug)]
struct InFlight {
    live: Live,
    cells: CellTable,
    /// Last version of `traces` rows in this seal.
    row_version: u64,
    /// Replacements whose older rows are all in this seal: the file will not hold those, so they can go.
    settled: HashSet<TraceId, RandomState>,
    /// It leaves its commit record to a later one.
    deferred: bool,
    /// When it was captured.
    at: Nanos,
}

/// The engine's state.
#[derive(Debug)]
pub(super) struct Fold {
    config: PipelineConfig,
    assembly: Assembly,
    digests: VecDeque<Digests>,
    digest_count: usize,
    live: Live,
    /// Evaluations that wait for their trace, by chunk: visible, and not sealed before they are settled.
    pending: BTreeMap<u64, LiveBatch>,
    /// Since the last publication.
    pending_changed: bool,
    in_flight: Option<InFlight>,
    /// The next publication, but for its rows.
    view: Snapshot,
    /// Marks made since the last capture: those that stay when it is committed.
    marks_since: Marks,
    /// Changes of cells since the last flush into `view.cells` and `cells_since`.
    tally: Tally,
    cells_since: CellTable,
    /// Traces with unsealed rows only that have replacements.
    replaced_live: HashSet<TraceId, RandomState>,
    /// Version of the last rows of `traces`, see [`Fold::next_row_version`].
    row_version: u64,
    sealed_lsn: u64,
    /// Last record whose rows are in files for sure.
    filed_lsn: u64,
    /// When the oldest change that is not being sealed came.
    dirty_since: Option<Nanos>,
    /// State of the last commit record.
    committed_at: Nanos,
    /// Seals since then that left theirs to a later one.
    deferred: u32,
}

impl Fold {
    /// From a commit (or nothing).
    pub fn new(
        config: PipelineConfig,
        base: Snapshot,
        state: Option<&[u8]>,
        book: Arc<ReleaseBook>,
    ) -> Result<Self, PipelineError> {
        let lsn = base.lsn;
        let (assembly, digests, row_version) = match state.filter(|bytes| !bytes.is_empty()) {
            Some(bytes) => {
                let state = EngineState::decode(bytes)?;
                (
                    Assembly::restore(config.assembly.clone(), state.assembly, lsn, book),
                    state.digests,
                    state.row_version,
                )
            }
            None => {
                let mut assembly = Assembly::new(config.assembly.clone());
                assembly.set_book(book);
                (assembly, VecDeque::new(), 0)
            }
        };
        let mut fold = Self {
            config,
            assembly,
            digest_count: digests.iter().map(|(_, ids)| ids.len()).sum(),
            digests,
            live: Live::default(),
            pending: BTreeMap::new(),
            pending_changed: false,
            in_flight: None,
            view: base,
            marks_since: Marks::default(),
            tally: Tally::default(),
            cells_since: CellTable::default(),
            replaced_live: HashSet::default(),
            row_version,
            sealed_lsn: lsn,
            filed_lsn: lsn,
            dirty_since: None,
            committed_at: Nanos::ZERO,
            deferred: 0,
        };
        fold.committed_at = fold.now();
        fold.show_pending()?;
        Ok(fold)
    }

    /// Takes another book.
    pub fn set_book(&mut self, book: Arc<ReleaseBook>) {
        self.assembly.set_book(book);
    }

    /// Takes a record that is on disk.
    pub fn apply(&mut self, batch: MicroBatch) -> Result<(), PipelineError> {
        self.tick(batch.received_at)?;
        let effects = self.assembly.apply(&batch)?;
        let (lsn, received_at) = (batch.lsn, batch.received_at);
        for section in batch.sections {
            let drop = match section.table {
                Table::Spans => &effects.drop_spans,
                Table::Evals => &effects.drop_evals,
                Table::Traces | Table::Cells => continue,
            };
            let rows = without(section.rows, drop)?;
            if rows.num_rows() > 0 {
                self.live.push(section.table, lsn, rows, &self.view.replaced)?;
            }
        }
        self.view.lsn = lsn;
        self.dirty_since.get_or_insert(received_at);
        if !batch.digests.is_empty() {
            self.digest_count += batch.digests.len();
            self.digests.push_back((received_at, batch.digests.into()));
        }
        self.forget_digests();
        self.absorb(effects, lsn)
    }

    /// Lets time pass. True if that changed anything.
    pub fn tick(&mut self, now: Nanos) -> Result<bool, PipelineError> {
        let effects = self.assembly.tick(now, self.view.lsn);
        self.show_pending()?;
        let idle = effects.rows.is_empty()
            && effects.evals.is_empty()
            && effects.cells.is_empty()
            && effects.marks.is_empty()
            && effects.patches.is_empty();
        if idle {
            return Ok(std::mem::take(&mut self.pending_changed));
        }
        self.dirty_since.get_or_insert(now);
        self.absorb(effects, self.view.lsn)?;
        Ok(true)
    }

    /// What is to be looked up, and in which snapshot: one without the rows that wait for the answer.
    pub fn asks(&mut self) -> Option<(Asks, Arc<Snapshot>)> {
        let asks = self.assembly.asks(self.view.lsn);
        (!asks.is_empty()).then(|| (asks, self.snapshot(false)))
    }

    /// Takes the answer.
    pub fn answer(&mut self, answer: Answer) -> Result<(), PipelineError> {
        let lsn = self.view.lsn;
        let effects = self.assembly.answer(answer, lsn)?;
        self.dirty_since.get_or_insert(self.assembly.now());
        self.absorb(effects, lsn)
    }

    /// Makes the rows of evaluations that wait anew where they changed.
    fn show_pending(&mut self) -> Result<(), PipelineError> {
        for (chunk, rows) in self.assembly.take_pending_rows() {
            self.pending_changed = true;
            if rows.is_empty() {
                self.pending.remove(&chunk);
                continue;
            }
            let rows = evals_to_batch(&rows)?;
            self.pending.insert(
                chunk,
                LiveBatch {
                    lsn: self.view.lsn,
                    rows,
                },
            );
        }
        Ok(())
    }

    /// Rows of `traces` are told apart by when they were made: by the record, and within a record by a number, because
    /// time and answers change traces between two records too. Versions grow over restarts, and beyond those that were
    /// plain record numbers.
    fn next_row_version(&mut self, lsn: u64) -> u64 {
        const NUMBER_BITS: u32 = 20;
        self.row_version = (self.row_version + 1).max(lsn << NUMBER_BITS);
        self.row_version
    }

    fn absorb(&mut self, effects: Effects, lsn: u64) -> Result<(), PipelineError> {
        if !effects.repeated.is_empty() {
            let unsealed = effects.repeated.iter().filter(|(_, _, lsn)| *lsn > self.sealed_lsn);
            self.live
                .drop_newest(unsealed.map(|(trace, span, _)| (*trace, *span)))?;
        }
        if !effects.evals.is_empty() {
            let rows = evals_to_batch::<'_>(&effects.evals as &[EvalRow])?;
            self.live.push(Table::Evals, lsn, rows, &self.view.replaced)?;
        }
        self.show_pending()?;
        let replaced: Vec<_> = effects
            .rows
            .iter()
            .filter_map(|row| Some((row.trace_id, row.replaces?)))
            .collect();
        for &(id, earlier) in &replaced {
            let known = self.view.replaced.get(&id).is_some() && !self.replaced_live.contains(&id);
            if earlier > self.sealed_lsn && !known {
                self.replaced_live.insert(id);
            } else {
                self.replaced_live.remove(&id);
            }
        }
        let version = if effects.rows.is_empty() {
            self.row_version
        } else {
            self.next_row_version(lsn)
        };
        self.view.replaced.push(replaced.iter().map(|&(id, _)| (id, version)));
        let rows = rows_to_batch(&effects.rows)?;
        if rows.num_rows() > 0 {
            self.live.push(Table::Traces, version, rows, &self.view.replaced)?;
        }
        self.marks_since.push(effects.marks.iter().cloned());
        self.view.marks.push(effects.marks);
        self.add_patches(effects.patches);
        self.tally.merge(effects.cells);
        Ok(())
    }

    /// A trace that was forgotten for good and goes on under its id has one patch: for its former rows too, unless it says
    /// otherwise now.
    fn add_patches(&mut self, mut patches: Vec<(TraceId, Patch)>) {
        let says = |mark: &Mark| (mark.color, mark.version.clone(), mark.release.clone());
        for (id, patch) in &mut patches {
            let before = self.view.patches.get(id);
            if let Some(before) = before.filter(|before| says(&before.mark) == says(&patch.mark)) {
                patch.first_lsn = patch.first_lsn.min(before.first_lsn);
            }
        }
        self.view.patches.push(patches);
    }

    fn flush_cells(&mut self) {
        let tally = std::mem::take(&mut self.tally);
        tally.apply_to(&mut self.view.cells);
        tally.apply_to(&mut self.cells_since);
    }

    fn forget_digests(&mut self) {
        while let Some((at, ids)) = self.digests.front() {
            let expired = at.plus(self.config.digest_age) <= self.assembly.now();
            if !expired && self.digest_count <= self.config.digests_max {
                break;
            }
            self.digest_count -= ids.len();
            self.digests.pop_front();
        }
    }

    /// Requests that are known, oldest first.
    pub fn digests(&self) -> &VecDeque<Digests> {
        &self.digests
    }

    /// What the next reader shall see.
    pub fn publish(&mut self) -> Arc<Snapshot> {
        self.flush_cells();
        self.view.seq += 1;
        self.pending_changed = false;
        self.snapshot(true)
    }

    fn snapshot(&self, with_pending: bool) -> Arc<Snapshot> {
        let mut next = self.view.clone();
        let none = Live::default();
        let sealing = self.in_flight.as_ref().map_or(&none, |f| &f.live);
        next.spans = after(&sealing.spans, &self.live.spans);
        next.evals = after(&sealing.evals, &self.live.evals);
        next.traces = after(&sealing.traces, &self.live.traces);
        if with_pending {
            next.evals.extend(self.pending.values().cloned());
        }
        Arc::new(next)
    }

    /// Whether enough came together, or is old enough, to be sealed.
    pub fn wants_seal(&self) -> bool {
        let old = |since: Nanos| self.now().since(since) >= self.config.seal_age;
        let is_old = self.dirty_since.is_some_and(old) || (self.has_deferred() && old(self.committed_at));
        self.in_flight.is_none() && (self.wants_seal_for_size() || is_old)
    }

    /// Whether files wait for their commit record.
    pub const fn has_deferred(&self) -> bool {
        self.deferred > 0
    }

    /// Whether the next seal may leave its commit record to a later one, if it only makes room.
    pub fn may_defer(&self) -> bool {
        self.deferred < self.config.deferred_seals_max
            && self.now().since(self.committed_at) < self.config.commit_age
            && self.wants_seal_for_size()
    }

    /// Another age at which rows are sealed, from now on.
    pub const fn set_seal_age(&mut self, seal_age: Duration) {
        self.config.seal_age = seal_age;
    }

    /// The same without regard to age: during a replay everything is old.
    pub fn wants_seal_for_size(&self) -> bool {
        self.live.rows >= self.config.seal_rows || self.live.bytes >= self.config.seal_bytes
    }

    /// Time of the last record or tick.
    pub fn now(&self) -> Nanos {
        self.assembly.now()
    }

    /// Takes everything that is not sealed for a seal; `None` while another one runs, or if there is nothing.
    pub fn capture(&mut self, deferred: bool) -> Option<SealInput> {
        let nothing = self.dirty_since.is_none() && (deferred || !self.has_deferred());
        if self.in_flight.is_some() || nothing {
            return None;
        }
        self.flush_cells();
        self.dirty_since = None;
        let lsn = self.view.lsn;
        // A mark that may still be corrected is not folded into the rows for good: it goes along as a patch, and the
        // rows are sealed as if nothing were known.
        let provisional = self.assembly.provisional(self.filed_lsn, lsn);
        let mut marks = self.view.marks.clone();
        let unknown = Arc::new(Mark::default());
        marks.push(provisional.iter().map(|(id, _)| (*id, Arc::clone(&unknown))));
        self.add_patches(provisional);
        let live = std::mem::take(&mut self.live);
        let cells = std::mem::take(&mut self.cells_since);
        self.marks_since = Marks::default();
        self.assembly.captured(lsn);
        let state = (!deferred).then(|| EngineState {
            assembly: self.assembly.capture(),
            row_version: self.row_version,
            digests: self.digests.clone(),
        });
        let input = SealInput {
            lsn,
            sealed_at: self.assembly.now(),
            spans: live.spans.clone(),
            evals: live.evals.clone(),
            traces: live.traces.clone(),
            marks,
            cell_deltas: cells.clone(),
            patches: self.view.patches.clone(),
            replaced: self.view.replaced.clone(),
            state: state.map(|state| Box::new(state) as Box<dyn State>),
            deferred,
        };
        let settled = std::mem::take(&mut self.replaced_live);
        self.sealed_lsn = lsn;
        self.in_flight = Some(InFlight {
            live,
            cells,
            row_version: self.row_version,
            settled,
            deferred,
            at: self.now(),
        });
        Some(input)
    }

    /// What came of a seal: whether its rows are in files now. After an error the process must stop.
    pub fn settle(&mut self, result: Result<Sealed, PipelineError>) -> Result<bool, PipelineError> {
        match result {
            Ok(sealed) => {
                self.sealed(&sealed);
                Ok(true)
            }
            Err(error) if error.is_fatal() => Err(error),
            Err(error) => {
                tracing::warn!(%error, "sealing failed; rows stay live and in the journal, and it is tried again");
                self.seal_failed()?;
                Ok(false)
            }
        }
    }

    /// The captured rows are in files now.
    pub fn sealed(&mut self, sealed: &Sealed) {
        let Some(in_flight) = self.in_flight.take() else {
            return;
        };
        self.view.files = Arc::clone(&sealed.files);
        if in_flight.deferred {
            self.deferred += 1;
        } else {
            (self.deferred, self.committed_at) = (0, in_flight.at);
        }
        self.filed_lsn = sealed.lsn;
        self.view.marks = self.marks_since.clone();
        if !in_flight.settled.is_empty() {
            let gone = |id: &TraceId, from: u64| from <= in_flight.row_version && in_flight.settled.contains(id);
            self.view.replaced = self.view.replaced.retained(|id, from| !gone(id, *from));
        }
    }

    /// What the next step of upkeep shall look at, where ages count to `aged_to` at most.
    pub fn upkeep(&self, aged_to: Nanos) -> Upkeep {
        let assembly = &self.assembly;
        Upkeep {
            now: assembly.now(),
            aged_to: aged_to.min(assembly.now()),
            retention: self.config.retention.clone(),
            // What assembly holds may still learn another color.
            settled: self.view.patches.retained(|id, _| !assembly.holds(id)),
            ..Upkeep::default()
        }
    }

    /// Sealed files were looked after.
    pub fn upkept(&mut self, done: &Upkept) {
        self.flush_cells();
        self.view.files = Arc::clone(&done.files);
        for (key, cell) in done.cells_gone.iter() {
            self.view.cells.apply(&key, cell, -1);
        }
        // What was said since then stays.
        if !done.patches_gone.is_empty() {
            let gone: HashMap<&TraceId, &Patch, RandomState> =
                done.patches_gone.iter().map(|(id, patch)| (id, patch)).collect();
            let stays = |id: &TraceId, patch: &Patch| gone.get(id).is_none_or(|gone| *gone != patch);
            self.view.patches = self.view.patches.retained(stays);
        }
        if !done.replaced_gone.is_empty() {
            let gone: HashSet<(TraceId, u64), RandomState> = done.replaced_gone.iter().copied().collect();
            let stays = |id: &TraceId, from: &u64| !gone.contains(&(*id, *from));
            self.view.replaced = self.view.replaced.retained(stays);
        }
    }

    /// They are not: they stay live, and the next capture takes them again.
    fn seal_failed(&mut self) -> Result<(), PipelineError> {
        let Some(in_flight) = self.in_flight.take() else {
            return Ok(());
        };
        let newer = std::mem::replace(&mut self.live, in_flight.live);
        for (table, batches) in [
            (Table::Spans, newer.spans),
            (Table::Evals, newer.evals),
            (Table::Traces, newer.traces),
        ] {
            for batch in batches {
                self.live.push(table, batch.lsn, batch.rows, &self.view.replaced)?;
            }
        }
        self.replaced_live.extend(in_flight.settled);
        self.sealed_lsn = self.filed_lsn;
        self.cells_since.merge(&in_flight.cells);
        self.dirty_since.get_or_insert(self.assembly.now());
        Ok(())
    }

    /// Whether what came since the last capture is already as much as two seals: too much to wait for an answer.
    pub fn overfull(&self) -> bool {
        self.live.bytes >= 2 * self.config.seal_bytes || self.live.rows >= 2 * self.config.seal_rows
    }

    /// What assembly counted and holds.
    pub fn counts(&self) -> Counts {
        self.assembly.counts()
    }

    /// Unsealed rows, those being sealed left out.
    pub fn live_rows(&self) -> usize {
        self.live.rows
    }
}
