//! Upkeep: what becomes of sealed files after their seal. One step at a time, on the thread that seals.
//!
//! ```text
//! suspects --CRC--> quarantined        old files --> named no more        small files, or long texts past their age
//!      \                                 |                                  |
//!       \                                |            read in order, patches folded in, doubles and replaced rows out
//!        \                               |                                  |
//!         \                              |            tmp/x.parquet, fdatasync -> rename into its folder -> sync folders
//!          +-----------------------------+----------------------------------+--> one commit record
//!                                                     later: files that no kept commit names and nobody reads are removed
//! ```
//!
//! A kill before the commit record leaves the old files in force and the new ones as orphans; after it, the other way
//! round. The commit before names the old files, so they stay while that one is kept.

mod choose;
mod input;
mod leftover;
mod old;
mod order;
mod pending;
mod ranges;
mod rewrite;
mod verify;

pub(crate) use leftover::Search;
pub(crate) use verify::damage;

use crate::{
    Layers, Marks, Patch, SealedFile, Sealer, TraceId,
    commit::{self, Commit},
    error::StoreError,
    seal::{Head, Inner, Retired},
    store::add_cells,
};
use choose::Group;
use hashbrown::HashSet;
use leftover::{Leftover, Look};
use pending::Pending;
use proto::{CellTable, Nanos, layout::Table};
use rewrite::{Failure, Rewritten};
use std::{sync::Arc, time::Duration};

/// How long what is kept, by time of receipt. Whole files go once their youngest row may be as old.
#[derive(Debug, Clone, PartialEq)]
pub struct Retention {
    /// Long texts of spans ([`proto::schema::LONG_TEXTS`]).
    pub texts: Duration,
    /// Rows of `spans`, `traces` and `evals`.
    pub rows: Duration,
    /// Cells.
    pub cells: Duration,
    /// Share of the file system above which the oldest rows go early.
    pub disk_max: f64,
}

/// For as long a root that comes late changes what rows of its trace say, also if their file is rewritten: marks made
/// without it are not folded in before.
const ROOT_AWAITED: Duration = DAY;

/// A file that could not be opened (no permission, too many open files), or not be rewritten, is left out of rewrites for
/// so long: the same files give the same choice, and it must not stand before all others.
const TRIED_AGAIN_AFTER: Duration = Duration::from_secs(3_600);

const DAY: Duration = Duration::from_secs(24 * 3_600);

impl Default for Retention {
    fn default() -> Self {
        Self {
            texts: 7 * DAY,
            rows: 30 * DAY,
            cells: 400 * DAY,
            disk_max: 0.8,
        }
    }
}

/// Room of a file system, bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// Taken, by whomever.
    pub used: u64,
    /// Taken or free.
    pub total: u64,
}

/// What one step is to look at.
#[derive(Debug, Clone, Default)]
pub struct Upkeep {
    /// Now.
    pub now: Nanos,
    /// Ages of what is removed for its age count to here: not to a clock that leapt.
    pub aged_to: Nanos,
    /// What is kept.
    pub retention: Retention,
    /// Room where the data directory lies; `None` if nobody knows.
    pub space: Option<Space>,
    /// Patches that nobody will correct any more: only these are folded into rows.
    pub settled: Layers<TraceId, Patch>,
    /// Paths of files that somebody could not read.
    pub suspects: Vec<String>,
}

/// What one step did.
#[derive(Debug, Clone, Default)]
pub struct Upkept {
    /// All files from now on, in commit order, those that wait for their commit last: what the next snapshot names.
    pub files: Arc<Vec<SealedFile>>,
    /// Patches that no row needs any more.
    pub patches_gone: Vec<(TraceId, Patch)>,
    /// Replacements that hide no row any more.
    pub replaced_gone: Vec<(TraceId, u64)>,
    /// Cells that went with their files.
    pub cells_gone: CellTable,
    /// Files that were read and written anew, or joined.
    pub rewritten: u64,
    /// Files they became.
    pub written: u64,
    /// Rows that were left out of these: doubles, and former rows of traces.
    pub rows_dropped: u64,
    /// Files whose long texts went.
    pub blanked: u64,
    /// Files removed for their age or for want of room.
    pub removed: u64,
    /// Their bytes.
    pub removed_bytes: u64,
    /// Paths of files that were set aside.
    pub quarantined: Vec<String>,
    /// Files that are set aside by now.
    pub quarantined_now: u64,
    /// Another step would find work at once.
    pub more: bool,
}

/// Files as they will be, and what is to be said about it.
struct Step {
    files: Vec<SealedFile>,
    quarantined: Vec<SealedFile>,
    retired: Vec<SealedFile>,
    /// New files, in their folders, not committed.
    added: Vec<SealedFile>,
    rewritten: Option<Rewritten>,
    /// Files that were to be rewritten and cannot be.
    left_out: Vec<String>,
    done: Upkept,
}

impl Sealer {
    /// Does one bounded step of upkeep. Between two chunks of a rewrite it asks `go_on`; a no gives that rewrite up.
    /// While files of deferred seals wait for their commit record, it only removes and sets aside: that makes the room
    /// which that record may be waiting for.
    ///
    /// # Errors
    /// As [`Sealer::seal`]: after one that is not fatal nothing has changed.
    pub fn upkeep(&self, task: &Upkeep, go_on: &dyn Fn() -> bool) -> Result<Upkept, StoreError> {
        let mut head = self.head()?;
        let done = self.inner().upkeep(&mut head, task, go_on);
        if let Err(e) = &done {
            head.poisoned = e.is_fatal();
        }
        done
    }

    /// Files that are set aside.
    ///
    /// # Errors
    /// While another call is under way, and after a fatal error.
    pub fn quarantined(&self) -> Result<u64, StoreError> {
        Ok(self.head()?.quarantined.len() as u64)
    }
}

impl Inner {
    fn upkeep(&self, head: &mut Head, task: &Upkeep, go_on: &dyn Fn() -> bool) -> Result<Upkept, StoreError> {
        self.sweep(head, task.now);
        let mut step = Step {
            files: head.files.to_vec(),
            quarantined: head.quarantined.clone(),
            retired: Vec::new(),
            added: Vec::new(),
            rewritten: None,
            left_out: Vec::new(),
            done: Upkept::default(),
        };
        if head.seq > 0 {
            self.set_suspects_aside(&mut step, task);
            self.remove_old(&mut step, head, task);
            let is_held_back = head.holds_back(task.now);
            let group = self.group(&mut step, head, task);
            if group.is_some() || is_held_back || step.has_changed() {
                let base = commit::read(&self.root, head.seq)?;
                if let Some(group) = group {
                    let rewritten = self.rewrite(&mut step, group, &base, task, go_on);
                    let failed = step.left_out.drain(..);
                    head.left_out.extend(failed.map(|path| (path, task.now)));
                    match rewritten {
                        // A full disk must not keep files that were replaced before from being removed.
                        Err(error) if is_held_back && !error.is_fatal() => {
                            tracing::warn!(%error, "files could not be rewritten");
                        }
                        rewritten => rewritten?,
                    }
                }
                if is_held_back || step.has_changed() {
                    self.commit_step(head, &mut step, base, task, go_on)?;
                }
            }
        }
        step.done.files = head.all_files();
        step.done.quarantined_now = head.quarantined.len() as u64;
        Ok(step.done)
    }

    /// What is to be rewritten in this step: nothing beside what needs a commit record of its own, or may need it soon.
    fn group(&self, step: &mut Step, head: &mut Head, task: &Upkeep) -> Option<Group> {
        if !head.waiting.is_empty() {
            // What their rows still need is not known before they are committed.
            return None;
        }
        if step.has_changed() {
            // It takes little room, and a rewrite much: on a full disk the one must not fail with the other.
            step.done.more = true;
            return None;
        }
        head.left_out.retain(|_, at| task.now.since(*at) < TRIED_AGAIN_AFTER);
        let pending = Pending::of(task.settled.iter());
        let has_patches = |file: &SealedFile| pending.are_due(file, task, &head.folded);
        let is_readable = |file: &SealedFile| !head.left_out.contains_key(&file.path);
        let texts_until = task.aged_to.minus(task.retention.texts);
        choose::choose(&step.files, task.now, texts_until, is_readable, has_patches)
    }

    fn set_suspects_aside(&self, step: &mut Step, task: &Upkeep) {
        for path in &task.suspects {
            let Some(at) = step.files.iter().position(|file| file.path == *path) else {
                continue;
            };
            match damage(&self.root, &step.files[at]) {
                Ok(Some(reason)) => step.set_aside(at, &reason),
                Ok(None) => tracing::info!(path, "a file that could not be read is whole; it stays"),
                // Whoever needs it suspects it again.
                Err(error) => tracing::warn!(path, %error, "nobody knows whether a file is whole; it stays"),
            }
        }
    }

    /// Takes old files out, quarantined ones too: they need not be repaired any more.
    fn remove_old(&self, step: &mut Step, head: &Head, task: &Upkeep) {
        let freed = head.retired.iter().map(|retired| retired.file.bytes).sum();
        let removed = old::take(&mut step.files, task, freed);
        let forgotten = old::take(
            &mut step.quarantined,
            &Upkeep {
                space: None,
                ..task.clone()
            },
            0,
        );
        for file in removed.iter().filter(|file| file.table == Table::Cells) {
            if let Err(error) = add_cells(&self.root.join(&file.path), &mut step.done.cells_gone) {
                tracing::warn!(path = file.path, %error, "its cells stay until the next start");
            }
        }
        if !removed.is_empty() {
            let (rows, bytes) = removed
                .iter()
                .fold((0, 0), |(r, b), file| (r + file.rows, b + file.bytes));
            tracing::info!(
                files = removed.len(),
                rows,
                bytes,
                first = removed[0].path,
                "old files are removed"
            );
            step.done.removed += removed.len() as u64;
            step.done.removed_bytes += bytes;
        }
        step.retired.extend(removed.into_iter().chain(forgotten));
    }

    fn rewrite(
        &self,
        step: &mut Step,
        mut group: Group,
        base: &Commit,
        task: &Upkeep,
        go_on: &dyn Fn() -> bool,
    ) -> Result<(), StoreError> {
        // A file that is damaged must not pass for a whole one by being copied.
        for at in group.files.clone().into_iter().rev() {
            match damage(&self.root, &step.files[at]) {
                Ok(None) => {}
                Ok(Some(reason)) => {
                    step.set_aside(at, &reason);
                    group.lost(at);
                }
                Err(error) => {
                    step.leave(at, &error);
                    group.leave(at);
                }
            }
        }
        if !group.is_worth_it() {
            step.done.more = true;
            return Ok(());
        }
        let inputs: Vec<SealedFile> = group.files.iter().map(|at| step.files[*at].clone()).collect();
        let received = inputs.iter().map(|file| file.received().1).max().unwrap_or_default();
        let marks = foldable(base, task, received);
        let rewritten = match rewrite::rewrite(self, &group, &inputs, &marks, base, task.now, go_on) {
            Ok(Some(rewritten)) => rewritten,
            Ok(None) => return Ok(()),
            Err(Failure::Input(nth, error)) => {
                let at = group.files[nth];
                step.set_aside(at, &error.to_string());
                step.done.more = true;
                return Ok(());
            }
            Err(Failure::Other(error)) => {
                if !error.is_full() {
                    step.left_out.extend(inputs.into_iter().map(|file| file.path));
                }
                // A full disk must not keep damaged files from being set aside.
                if step.has_changed() && !error.is_fatal() {
                    tracing::warn!(%error, "files could not be rewritten");
                    return Ok(());
                }
                return Err(error);
            }
        };
        step.take_over(&group, rewritten);
        Ok(())
    }

    fn commit_step(
        &self,
        head: &mut Head,
        step: &mut Step,
        base: Commit,
        task: &Upkeep,
        go_on: &dyn Fn() -> bool,
    ) -> Result<(), StoreError> {
        let is_settled = |id: &TraceId, patch: &Patch| task.settled.get(id) == Some(patch);
        let mut leftover = Leftover::default();
        // Else it is found by a later step.
        if head.waiting.is_empty() {
            let look = Look {
                root: &self.root,
                base: &base,
                go_on,
            };
            leftover = Leftover::of(&look, step, std::mem::take(&mut head.search), is_settled);
            head.search = std::mem::take(&mut leftover.search);
        }
        let mut commit = Commit {
            seq: head.seq + 1,
            sealed_at: task.now,
            files: step.files.clone(),
            quarantined: step.quarantined.clone(),
            ..base
        };
        let gone: HashSet<TraceId> = leftover.patches.iter().map(|(id, _)| *id).collect();
        commit.patches.retain(|(id, _)| !gone.contains(id));
        let gone: HashSet<TraceId> = leftover.replaced.iter().map(|(id, _)| *id).collect();
        commit.replaced.retain(|(id, _)| !gone.contains(id));
        let bytes = commit.write(self.disk.as_ref(), &self.root).inspect_err(|e| {
            head.search.ask_again(&leftover.replaced);
            // After a failed sync the record may be there, and then its files must be.
            if !e.is_fatal() {
                self.discard(step.added.iter().map(|file| self.root.join(&file.path)));
            }
        })?;
        self.reserve.committed(bytes + commit.state.bytes);
        head.seq = commit.seq;
        head.files = Arc::new(commit.files);
        head.quarantined = commit.quarantined;
        head.retired.extend(step.retired.drain(..).map(|file| Retired {
            file,
            seq: commit.seq,
            at: task.now,
        }));
        (step.files, step.quarantined) = (Vec::new(), Vec::new());
        if !step.added.is_empty() {
            let gone: HashSet<TraceId> = leftover.patches.iter().map(|(id, _)| *id).collect();
            let named: HashSet<&str> = head.files.iter().map(|file| file.path.as_str()).collect();
            head.folded.retain(|path, _| named.contains(path.as_str()));
            for file in &step.added {
                let is_late = is_late(file.received().1, task);
                let folded = task
                    .settled
                    .iter()
                    .filter(|(id, patch)| !gone.contains(*id) && (is_late || patch.rooted));
                head.folded.insert(file.path.clone(), Pending::of(folded).over(file));
            }
        }
        step.done.patches_gone = leftover.patches;
        step.done.replaced_gone = leftover.replaced;
        head.states = [head.states[0]; 2];
        self.drop_old(head.lsn, head.states);
        self.sweep(head, task.now);
        Ok(())
    }
}

impl Head {
    /// Files that answer queries: what the next snapshot names.
    fn all_files(&self) -> Arc<Vec<SealedFile>> {
        if self.waiting.is_empty() {
            return Arc::clone(&self.files);
        }
        Arc::new(self.files.iter().chain(&self.waiting).cloned().collect())
    }

    /// Files wait only for one more commit before they can be removed.
    fn holds_back(&self, now: Nanos) -> bool {
        let waits = |retired: &Retired| retired.seq == self.seq && now > retired.at;
        self.retired.iter().any(waits)
    }
}

impl Step {
    fn has_changed(&self) -> bool {
        !self.retired.is_empty() || !self.added.is_empty() || !self.done.quarantined.is_empty()
    }

    /// `at` is a place in `files`; those behind it move up.
    fn set_aside(&mut self, at: usize, reason: &str) {
        let file = self.files.remove(at);
        tracing::warn!(path = file.path, rows = file.rows, reason, "sealed file is set aside");
        self.done.quarantined.push(file.path.clone());
        self.quarantined.push(file);
    }

    /// The file at `at` cannot be read now, and nobody knows whether it is damaged.
    fn leave(&mut self, at: usize, error: &StoreError) {
        let path = &self.files[at].path;
        tracing::warn!(path, %error, "a file cannot be read; it stays as it is for now");
        self.left_out.push(path.clone());
    }

    /// Puts the new files where the first of the old ones stood.
    fn take_over(&mut self, group: &Group, mut rewritten: Rewritten) {
        let added = std::mem::take(&mut rewritten.files);
        let first = group.files.first().copied().unwrap_or(0);
        for at in group.files.iter().rev() {
            self.retired.push(self.files.remove(*at));
        }
        let sum = |files: &[SealedFile]| files.iter().map(|file| file.bytes).sum::<u64>();
        let (read, written) = (self.retired.len(), added.len());
        tracing::info!(
            table = group.table.as_str(),
            read,
            written,
            bytes_read = sum(&self.retired),
            bytes_written = sum(&added),
            rows_dropped = rewritten.rows_dropped,
            texts_dropped = group.blank,
            "files are rewritten"
        );
        self.done.rewritten += group.files.len() as u64;
        self.done.written += added.len() as u64;
        self.done.rows_dropped += rewritten.rows_dropped;
        self.done.blanked += if group.blank { group.files.len() as u64 } else { 0 };
        self.done.more = true;
        self.files.splice(first..first, added.iter().cloned());
        self.added = added;
        self.rewritten = Some(rewritten);
    }
}

/// Marks that may be folded for good into rows received before `received`: of patches that are committed, and that will
/// not change.
fn foldable(base: &Commit, task: &Upkeep, received: Nanos) -> Marks {
    let mut marks = Marks::default();
    let is_late = is_late(received, task);
    let settled = base.patches.iter().filter(|(id, patch)| {
        let is_final = is_late || patch.rooted;
        is_final && task.settled.get(id) == Some(patch)
    });
    marks.push(settled.map(|(id, patch)| (*id, Arc::clone(&patch.mark))));
    marks
}

/// Whether no root is awaited any more for rows received before `received`.
fn is_late(received: Nanos, task: &Upkeep) -> bool {
    received.plus(ROOT_AWAITED) <= task.now
}
