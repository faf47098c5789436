//! Sealing: live rows become Parquet, and one commit record says so.
//!
//! ```text
//! rows + marks -> tmp/x.parquet, fdatasync -> rename into its folder -> sync folders -> commit record -> trim journal
//! ```
//!
//! A kill before the commit record leaves files that no commit names: they are removed at the next start, and the
//! journal still has the rows. After it, the rows are in the files and replay starts behind them. The journal is
//! trimmed only up to the commit *before* the newest, so that a newest record that cannot be read costs nothing.
//!
//! A seal may leave its commit record to a later one ([`SealInput::deferred`]): its files answer queries at once, and until
//! that later record the journal has their rows as well.

pub(crate) mod file;
pub(crate) mod out;
pub(crate) mod plan;

use crate::{
    Layers, LiveBatch, Marks, Patch, SealedFile, TraceId,
    cells::cells_to_batch,
    commit::{self, Commit},
    disk::{self, Disk},
    error::{At, StoreError},
    journal::{self, Reserve},
    lock::Lock,
    state::{self, State, StateFile},
    upkeep::Search,
};
use arrow::array::RecordBatch;
use hashbrown::HashMap;
use out::Out;
use plan::{Plan, Row};
use proto::{
    CellTable, Color, Nanos,
    layout::{self, Table},
};
use rayon::prelude::*;
use std::{
    collections::BTreeSet,
    hash::{BuildHasher, RandomState},
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex, MutexGuard, TryLockError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

/// Rows put together at a time while a file is written.
pub(crate) const CHUNK_ROWS: usize = 4_096;
/// A file that was replaced stays at least this long, for readers of other processes, which hold nothing: a query of
/// theirs takes less.
const RETIRED_FOR: Duration = Duration::from_secs(60);

/// What one seal takes: everything that became known in journal records up to `lsn` and is not sealed yet.
#[derive(Debug, Default)]
pub struct SealInput {
    /// Last journal record whose effects are inside. It must have been synced.
    pub lsn: u64,
    /// Now. `traces`, `evals` and `cells` have no time of receipt of their own, so their folder is that of this hour;
    /// the folder of a span is that of its `received_at`.
    pub sealed_at: Nanos,
    /// Live span rows.
    pub spans: Vec<LiveBatch>,
    /// Live evaluation rows.
    pub evals: Vec<LiveBatch>,
    /// Live rows of closed traces.
    pub traces: Vec<LiveBatch>,
    /// Marks of these rows, folded in.
    pub marks: Marks,
    /// What changed in the cells since the commit before.
    pub cell_deltas: CellTable,
    /// All patches that hold from now on.
    pub patches: Layers<TraceId, Patch>,
    /// All replacements of trace rows that hold from now on.
    pub replaced: Layers<TraceId, u64>,
    /// What the engine needs at a restart; not needed by a deferred seal.
    pub state: Option<Box<dyn State>>,
    /// Leave the commit record to a later seal: files only, to make room in memory. A kill before that seal takes them
    /// back, and the journal still has their rows.
    pub deferred: bool,
}

/// A finished seal.
#[derive(Debug, Clone)]
pub struct Sealed {
    /// Sequence number of the newest commit.
    pub seq: u64,
    /// As in the input.
    pub lsn: u64,
    /// All files, in commit order, those that wait for their commit last: what the next snapshot names.
    pub files: Arc<Vec<SealedFile>>,
    /// Those of this seal.
    pub added: Vec<SealedFile>,
    /// Size of the commit record and of the state that it names, bytes; 0 if it was left to a later seal.
    pub commit_bytes: u64,
    /// Journal segments removed.
    pub segments_removed: u64,
}

/// Seals into one data directory; clones share it. One call at a time.
#[derive(Debug, Clone)]
pub struct Sealer {
    inner: Arc<Inner>,
}

#[derive(Debug)]
pub(crate) struct Inner {
    pub(crate) root: PathBuf,
    pub(crate) disk: Arc<dyn Disk>,
    /// Random half of file names, new in every process.
    boot: u64,
    names: AtomicU64,
    head: Mutex<Head>,
    /// Room that the journal leaves, by what is written here.
    pub(crate) reserve: Arc<Reserve>,
    _lock: Arc<Lock>,
}

/// Where the commits stand.
#[derive(Debug)]
pub(crate) struct Head {
    pub(crate) seq: u64,
    pub(crate) lsn: u64,
    pub(crate) files: Arc<Vec<SealedFile>>,
    pub(crate) quarantined: Vec<SealedFile>,
    /// Files that wait for the next commit record, and the last journal record inside.
    pub(crate) waiting: Vec<SealedFile>,
    pub(crate) sealed_lsn: u64,
    /// Seals that wrote the states of the newest commit record and of the one before.
    pub(crate) states: [u64; 2],
    /// Files that are named no more, and still there.
    pub(crate) retired: Vec<Retired>,
    /// Of files that this process rewrote: patches whose records overlap theirs and are no reason to do it again.
    pub(crate) folded: HashMap<String, usize>,
    /// Files that could not be read or rewritten, and when that was.
    pub(crate) left_out: HashMap<String, Nanos>,
    /// For rows that replacements may hide.
    pub(crate) search: Search,
    /// A sync failed.
    pub(crate) poisoned: bool,
}

/// A file that the newest commit does not name.
#[derive(Debug)]
pub(crate) struct Retired {
    pub(crate) file: SealedFile,
    /// First commit that does not name it. While the one before is kept it may be needed again.
    pub(crate) seq: u64,
    /// Time of that commit.
    pub(crate) at: Nanos,
}

/// A file to be written.
enum Job<'a> {
    Rows(&'a Plan, Color, i64, &'a [Row]),
    Cells(RecordBatch),
}

impl Sealer {
    pub(crate) fn new(root: PathBuf, disk: Arc<dyn Disk>, head: Head, reserve: Arc<Reserve>, lock: Arc<Lock>) -> Self {
        Self {
            inner: Arc::new(Inner {
                root,
                disk,
                boot: RandomState::new().hash_one(head.seq),
                names: AtomicU64::new(0),
                head: Mutex::new(head),
                reserve,
                _lock: lock,
            }),
        }
    }

    /// The data directory.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.inner.root
    }

    /// Writes the files and, unless that is deferred, the commit record, then trims the journal. Works on the calling thread and, if that
    /// belongs to a rayon pool, on its siblings.
    ///
    /// # Errors
    /// After an error that is not fatal nothing has changed, and the same input (or a later one) may be sealed again.
    /// After a fatal one ([`StoreError::is_fatal`]) every call fails.
    pub fn seal(&self, input: SealInput) -> Result<Sealed, StoreError> {
        let inner = &*self.inner;
        let mut head = self.head()?;
        if input.lsn < head.sealed_lsn {
            return Err(StoreError::OutOfTurn {
                expected: head.sealed_lsn,
                got: input.lsn,
            });
        }
        let (sealed_at, deferred) = (input.sealed_at, input.deferred);
        let mut sealed = inner.seal(&head, input).inspect_err(|error| {
            head.poisoned = error.is_fatal();
            if !head.poisoned {
                // Its state, if it came that far: on a full disk every byte counts.
                state::remove(inner.disk.as_ref(), &inner.root, head.seq + 1);
            }
        })?;
        head.sealed_lsn = sealed.lsn;
        if deferred {
            head.waiting.extend(sealed.added.iter().cloned());
            return Ok(sealed);
        }
        let previous_lsn = std::mem::replace(&mut head.lsn, sealed.lsn);
        head.seq = sealed.seq;
        inner.reserve.committed(sealed.commit_bytes);
        head.states = [sealed.seq, head.states[0]];
        head.files = Arc::clone(&sealed.files);
        head.waiting.clear();
        sealed.segments_removed = inner.drop_old(previous_lsn, head.states);
        inner.sweep(&mut head, sealed_at);
        Ok(sealed)
    }

    /// Where the commits stand, for one writer at a time.
    pub(crate) fn head(&self) -> Result<MutexGuard<'_, Head>, StoreError> {
        // Waiting here could wait for oneself: a rayon worker takes up other work while its files are written.
        let head = match self.inner.head.try_lock() {
            Ok(head) => head,
            Err(TryLockError::Poisoned(head)) => head.into_inner(),
            Err(TryLockError::WouldBlock) => return Err(StoreError::Busy),
        };
        if head.poisoned {
            return Err(StoreError::Poisoned);
        }
        Ok(head)
    }

    pub(crate) fn inner(&self) -> &Inner {
        &self.inner
    }
}

impl Inner {
    fn seal(&self, head: &Head, mut input: SealInput) -> Result<Sealed, StoreError> {
        let SealInput {
            lsn,
            sealed_at,
            deferred,
            ..
        } = input;
        // First: until it is written, it keeps in memory what the engine forgets.
        let state = match input.state.take() {
            Some(state) if !deferred => state::write(self.disk.as_ref(), &self.root, head.seq + 1, state)?,
            _ => StateFile::default(),
        };
        let plan = |table, live: &[LiveBatch]| {
            Plan::new(table, live, &input.marks, &input.replaced, sealed_at).map(|plan| (table, plan))
        };
        let plans = [
            plan(Table::Spans, &input.spans)?,
            plan(Table::Traces, &input.traces)?,
            plan(Table::Evals, &input.evals)?,
        ];
        let mut jobs: Vec<(Table, Job<'_>)> = Vec::new();
        for (table, plan) in &plans {
            for (&(color, hour), rows) in &plan.files {
                jobs.push((*table, Job::Rows(plan, color, hour, rows)));
            }
        }
        if !input.cell_deltas.is_empty() {
            jobs.push((Table::Cells, Job::Cells(cells_to_batch(&input.cell_deltas)?)));
        }
        let lsns = |table| match table {
            // Replacements compare with what the rows themselves say.
            Table::Traces => input
                .traces
                .iter()
                .fold((u64::MAX, 0), |(min, max), b| (min.min(b.lsn), max.max(b.lsn))),
            _ => (head.sealed_lsn.min(lsn.saturating_sub(1)) + 1, lsn),
        };
        let written: Vec<Result<(SealedFile, PathBuf), StoreError>> = jobs
            .par_iter()
            .map(|(table, job)| self.write(*table, job, lsns(*table), sealed_at))
            .collect();
        let added = self.land(written)?;
        let files: Vec<SealedFile> = head.files.iter().chain(&head.waiting).chain(&added).cloned().collect();
        if deferred {
            return Ok(Sealed {
                seq: head.seq,
                lsn,
                files: Arc::new(files),
                added,
                commit_bytes: 0,
                segments_removed: 0,
            });
        }
        let mut commit = Commit {
            seq: head.seq + 1,
            lsn,
            sealed_at,
            files,
            quarantined: head.quarantined.clone(),
            patches: input.patches.iter().map(|(id, p)| (*id, p.clone())).collect(),
            replaced: input.replaced.iter().map(|(id, from)| (*id, *from)).collect(),
            state,
        };
        commit.patches.sort_unstable_by_key(|(id, _)| *id);
        commit.replaced.sort_unstable_by_key(|(id, _)| *id);
        let commit_bytes = commit.write(self.disk.as_ref(), &self.root).inspect_err(|e| {
            // After a failed sync the record may be there, and then its files must be.
            if !e.is_fatal() {
                self.discard(added.iter().map(|file| self.root.join(&file.path)));
            }
        })?;
        Ok(Sealed {
            seq: commit.seq,
            lsn,
            files: Arc::new(commit.files),
            added,
            commit_bytes: commit_bytes + state.bytes,
            segments_removed: 0,
        })
    }

    /// Writes one file under `tmp`, synced.
    fn write(
        &self,
        table: Table,
        job: &Job<'_>,
        lsns: (u64, u64),
        sealed_at: Nanos,
    ) -> Result<(SealedFile, PathBuf), StoreError> {
        let name = self.name(sealed_at);
        let tmp = self.root.join(layout::TMP).join(&name);
        let written = || {
            let (color, received, rows, absent) = match job {
                Job::Rows(plan, color, hour, rows) => (Some(*color), Nanos(*hour), rows.len(), plan.absent()),
                Job::Cells(cells) => (None, sealed_at, cells.num_rows(), Vec::new()),
            };
            let mut out = Out::begin(self.disk.as_ref(), tmp.clone(), table, rows, lsns, &absent)?;
            match job {
                Job::Rows(plan, _, _, rows) => {
                    for chunk in rows.chunks(CHUNK_ROWS) {
                        out.write(&plan.rows(chunk)?)?;
                    }
                }
                Job::Cells(cells) => out.write(cells)?,
            }
            out.finish(format!("{}/{name}", layout::partition(table, color, received)), color)
        };
        written().inspect_err(|_| _ = self.disk.remove(&tmp))
    }

    /// Moves files that were written into their folders: all of them, or none stays.
    pub(crate) fn land(
        &self,
        written: Vec<Result<(SealedFile, PathBuf), StoreError>>,
    ) -> Result<Vec<SealedFile>, StoreError> {
        let mut added = Vec::with_capacity(written.len());
        let mut failed = None;
        for file in written {
            match file {
                Ok(file) if failed.is_none() => added.push(file),
                Ok((_, tmp)) => _ = self.disk.remove(&tmp),
                Err(e) => failed = failed.or(Some(e)),
            }
        }
        let moved = match failed {
            Some(e) => Err(e),
            None => self.move_in(&added, &mut BTreeSet::new()),
        };
        if let Err(e) = moved {
            self.discard(
                added
                    .iter()
                    .flat_map(|(file, tmp)| [tmp.clone(), self.root.join(&file.path)]),
            );
            return Err(e);
        }
        Ok(added.into_iter().map(|(file, _)| file).collect())
    }

    /// Moves finished files into their folders and makes the names durable.
    fn move_in(&self, files: &[(SealedFile, PathBuf)], folders: &mut BTreeSet<PathBuf>) -> Result<(), StoreError> {
        for (file, tmp) in files {
            let folder = Path::new(&file.path).parent().and_then(Path::to_str).unwrap_or("");
            disk::create_dirs(self.disk.as_ref(), &self.root, folder, folders)?;
            let path = self.root.join(&file.path);
            self.disk.rename(tmp, &path).at("rename to", &path)?;
        }
        disk::sync_dirs(self.disk.as_ref(), folders)
    }

    /// Removes what a failed seal left. What cannot be removed now is an orphan, and goes at the next start.
    pub(crate) fn discard(&self, paths: impl Iterator<Item = PathBuf>) {
        for path in paths {
            _ = self.disk.remove(&path);
        }
    }

    /// Removes commit records and journal segments that no restart needs any more. What stays is tried again next time.
    pub(crate) fn drop_old(&self, previous_lsn: u64, states: [u64; 2]) -> u64 {
        let journal = self.root.join(layout::JOURNAL);
        commit::drop_old(self.disk.as_ref(), &self.root)
            .and_then(|()| state::drop_old(self.disk.as_ref(), &self.root, states))
            .and_then(|()| journal::trim(self.disk.as_ref(), &journal, previous_lsn))
            .unwrap_or_else(|reason| {
                tracing::warn!(%reason, "old commit records or journal segments could not be removed");
                0
            })
    }

    /// Removes files that no kept commit names and nobody holds. What stays is tried again next time.
    pub(crate) fn sweep(&self, head: &mut Head, now: Nanos) {
        let seq = head.seq;
        head.retired.retain(|retired| {
            let waits = seq < retired.seq + commit::KEPT as u64 - 1 || now.since(retired.at) < RETIRED_FOR;
            if waits || Arc::strong_count(&retired.file.held) > 1 {
                return true;
            }
            let path = self.root.join(&retired.file.path);
            match self.disk.remove(&path) {
                Err(reason) if path.exists() => {
                    tracing::warn!(path = %path.display(), %reason, "a file that is named no more could not be removed");
                    true
                }
                _ => {
                    disk::remove_empty(self.disk.as_ref(), &self.root, &path);
                    false
                }
            }
        });
    }

    pub(crate) fn name(&self, sealed_at: Nanos) -> String {
        let count = self.names.fetch_add(1, Ordering::Relaxed);
        let random = u128::from(self.boot) << 32 | u128::from(count & 0xffff_ffff);
        let ms = u64::try_from(sealed_at.unix_ms()).unwrap_or(0);
        format!(
            "{}.parquet",
            ulid::Ulid::from_parts(ms, random & ((1 << 80) - 1))
                .to_string()
                .to_lowercase()
        )
    }
}
