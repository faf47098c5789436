//! Opening a data directory: what was there, what a kill left half done, and what is to be replayed.

use crate::{
    Journal, JournalRecovery, Layers, LiveBatch, Replay, SealedFile, Sealer, Snapshot,
    cells::add_batch_to_cells,
    commit::{self, Commit, Loaded},
    disk::{self, Disk, LocalDisk},
    error::{At, StoreError},
    journal::{
        Reserve,
        replay::{self, Scan},
    },
    live,
    lock::Lock,
    seal::{Head, Retired},
    state,
    unnamed::Unnamed,
    upkeep::{Search, damage},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proto::{
    CellTable,
    layout::{self, Table},
};
use std::{
    collections::HashSet,
    fs::{self, File},
    path::{Path, PathBuf},
    sync::Arc,
};

/// How to open a data directory.
#[derive(Debug, Clone)]
pub struct StoreOptions {
    /// What to do about acked records that cannot be read.
    pub recovery: JournalRecovery,
    /// A journal segment ends with the record that reaches this size, bytes.
    pub segment_bytes_max: u64,
    /// Where writes go; tests put faults here.
    pub disk: Arc<dyn Disk>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            recovery: JournalRecovery::Strict,
            segment_bytes_max: 64 << 20,
            disk: Arc::new(LocalDisk),
        }
    }
}

/// What [`Store::open`] found.
#[derive(Debug)]
pub struct Recovered {
    /// The newest commit: files, patches, replacements, cells; no live rows yet.
    pub base: Snapshot,
    /// The engine's own bytes of that commit; `None` in a new data directory.
    pub state: Option<Vec<u8>>,
    /// Position of that commit: `records` start behind it.
    pub lsn: u64,
    /// Journal records to replay, in order.
    pub records: Replay,
    /// What was found on the way.
    pub report: RecoveryReport,
}

/// What a start found and cleaned up.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RecoveryReport {
    /// Sequence number of the commit, 0 in a new data directory.
    pub commit_seq: u64,
    /// Journal records to replay.
    pub records: u64,
    /// Bytes of a torn tail, cut off: nobody had an ack for them.
    pub truncated_bytes: u64,
    /// Bytes of damaged records passed over ([`JournalRecovery::Skip`] only).
    pub skipped_bytes: u64,
    /// Acked records lost with them.
    pub lost_records: u64,
    /// Files that no commit names, removed.
    pub orphans_removed: u64,
    /// Sealed files that no commit names, moved below [`layout::ORPHANS`], because they may hold rows of lost records.
    pub orphans_kept: u64,
    /// Sealed files that are missing or damaged, by path. They are kept out of queries, and verdicts that
    /// need them are not to be trusted.
    pub quarantined: Vec<String>,
    /// Damaged commit records that were passed over for an older one.
    pub commits_damaged: u64,
}

/// An open data directory, locked for this process until the store, its journal and its sealers are gone.
#[derive(Debug)]
pub struct Store {
    journal: Option<Journal>,
    sealer: Sealer,
}

impl Store {
    /// Opens `dir`, which is made if it is not there, and cleans up what a kill left.
    ///
    /// # Errors
    /// Another process uses it; acked records are damaged; no commit record can be read, or none is there that names the
    /// sealed files; the disk refuses.
    pub fn open(dir: &Path, options: StoreOptions) -> Result<(Self, Recovered), StoreError> {
        let disk = Arc::clone(&options.disk);
        disk::create_root(disk.as_ref(), dir)?;
        let lock = Arc::new(Lock::take(dir)?);
        for folder in [layout::JOURNAL, layout::COMMITS, layout::TMP] {
            let folder = dir.join(folder);
            disk.create_dir(&folder).at("create folder", &folder)?;
        }
        disk.sync_dir(dir).synced(dir)?;
        let loaded = commit::load(dir, true)?;
        let mut report = RecoveryReport {
            commit_seq: loaded.newest.seq,
            ..RecoveryReport::default()
        };
        let (files, quarantined, cells) = read_sealed(dir, &loaded.newest, &mut report);
        let journal_dir = dir.join(layout::JOURNAL);
        let unnamed = Unnamed::find(dir, &loaded)?;
        unnamed.refuse_if_lost(&loaded, replay::begins_with_the_first(&journal_dir)?)?;
        let scan = replay::scan(&journal_dir, loaded.newest.lsn, options.recovery)?;
        unnamed.refuse_if_lost(&loaded, scan.lost_records == 0)?;
        // Nothing was changed up to here: whoever refuses to start leaves everything as it was.
        let tail = cut_tail(disk.as_ref(), &journal_dir, &scan, options.segment_bytes_max)?;
        report.truncated_bytes = scan.torn_bytes;
        report.skipped_bytes = scan.skipped_bytes;
        report.lost_records = scan.lost_records;
        report.records = scan.replay.records_left();
        set_aside(disk.as_ref(), &loaded, &mut report)?;
        state::drop_old(disk.as_ref(), dir, [loaded.newest.state.seq, loaded.previous_state])?;
        unnamed.clear(disk.as_ref(), &mut report)?;
        let reserve = Arc::new(Reserve::default());
        reserve.committed(loaded.bytes);
        let journal = Journal::resume(
            Arc::clone(&disk),
            journal_dir,
            options.segment_bytes_max,
            scan.last_lsn,
            tail,
            Arc::clone(&reserve),
            Arc::clone(&lock),
        )?;
        let files = Arc::new(files);
        let head = Head {
            seq: loaded.newest.seq,
            lsn: loaded.newest.lsn,
            files: Arc::clone(&files),
            quarantined,
            waiting: Vec::new(),
            sealed_lsn: loaded.newest.lsn,
            states: [loaded.newest.state.seq, loaded.previous_state],
            retired: retired(&loaded),
            folded: hashbrown::HashMap::new(),
            left_out: hashbrown::HashMap::new(),
            search: Search::default(),
            poisoned: false,
        };
        let base = snapshot_of(&loaded.newest, files, cells);
        let recovered = Recovered {
            lsn: base.lsn,
            base,
            state: loaded.found.then_some(loaded.state),
            records: scan.replay,
            report,
        };
        let sealer = Sealer::new(dir.to_owned(), disk, head, reserve, lock);
        let journal = Some(journal);
        Ok((Self { journal, sealer }, recovered))
    }

    /// The journal; `None` after the first call, since it has one writer.
    pub fn journal(&mut self) -> Option<Journal> {
        self.journal.take()
    }

    /// The sealer; clones share it.
    #[must_use]
    pub fn sealer(&self) -> Sealer {
        self.sealer.clone()
    }

    /// What is in `dir` without locking or changing anything, also while a server writes to it: the files of the newest
    /// commit, and the rows of the journal behind it as they came (no marks, no traces, no cells of theirs).
    ///
    /// # Errors
    /// As [`Self::open`], and if `dir` is no data directory.
    pub fn open_read_only(dir: &Path) -> Result<Snapshot, StoreError> {
        // A server may commit and trim between the two reads; then the second finds a gap.
        let mut turn = 0;
        loop {
            turn += 1;
            let read = read_only(dir);
            let moved_on = || commit::load(dir, false).map(|now| now.newest.seq);
            match read {
                Ok((snapshot, seq)) if turn == READ_ONLY_TURNS || moved_on().is_ok_and(|now| now == seq) => {
                    return Ok(snapshot);
                }
                Err(e) if turn == READ_ONLY_TURNS => return Err(e),
                _ => {}
            }
        }
    }
}

/// Attempts to read a data directory that a server is committing to.
const READ_ONLY_TURNS: u32 = 5;

fn read_only(dir: &Path) -> Result<(Snapshot, u64), StoreError> {
    let loaded = commit::load(dir, false)?;
    let journal = dir.join(layout::JOURNAL);
    if !loaded.found {
        Unnamed::find(dir, &loaded)?.refuse_if_lost(&loaded, replay::begins_with_the_first(&journal)?)?;
    }
    let mut report = RecoveryReport::default();
    let (files, _, cells) = read_sealed(dir, &loaded.newest, &mut report);
    let mut snapshot = snapshot_of(&loaded.newest, Arc::new(files), cells);
    let scan = replay::scan(&journal, snapshot.lsn, JournalRecovery::Skip)?;
    for record in scan.replay {
        let record = record?;
        snapshot.lsn = record.lsn;
        for section in record.sections {
            let batches = match section.table {
                Table::Spans => &mut snapshot.spans,
                Table::Evals => &mut snapshot.evals,
                Table::Traces | Table::Cells => continue,
            };
            let batch = LiveBatch {
                lsn: record.lsn,
                rows: section.rows,
            };
            live::push(section.table, batches, batch)?;
        }
    }
    Ok((snapshot, loaded.newest.seq))
}

fn snapshot_of(commit: &Commit, files: Arc<Vec<SealedFile>>, cells: CellTable) -> Snapshot {
    let mut snapshot = Snapshot {
        lsn: commit.lsn,
        files,
        cells,
        ..Snapshot::default()
    };
    let (mut patches, mut replaced) = (Layers::default(), Layers::default());
    patches.push(commit.patches.iter().cloned());
    replaced.push(commit.replaced.iter().copied());
    (snapshot.patches, snapshot.replaced) = (patches, replaced);
    snapshot
}

/// Splits the commit's files into those that are there and those that are not, and adds up the sealed cells. A file that
/// was set aside counts again once its bytes are those that were written: somebody brought it back.
fn read_sealed(
    dir: &Path,
    commit: &Commit,
    report: &mut RecoveryReport,
) -> (Vec<SealedFile>, Vec<SealedFile>, CellTable) {
    let mut cells = CellTable::default();
    let all = commit.files.iter().map(|file| (file, false));
    let all = all.chain(commit.quarantined.iter().map(|file| (file, true)));
    let (mut files, mut quarantined) = (Vec::new(), Vec::new());
    for (file, is_quarantined) in all {
        let path = dir.join(&file.path);
        let whole = match is_quarantined {
            false => fs::metadata(&path).is_ok_and(|found| found.len() == file.bytes),
            true => damage(dir, file).is_ok_and(|damage| damage.is_none()),
        };
        let read = match file.table {
            Table::Cells if whole => add_cells(&path, &mut cells),
            _ => Ok(()),
        };
        if whole && read.is_ok() {
            files.push(file.clone());
        } else {
            let reason = read
                .err()
                .map_or_else(|| "missing, cut or damaged".into(), |e| e.to_string());
            tracing::warn!(path = %path.display(), reason, "sealed file is set aside");
            quarantined.push(file.clone());
        }
    }
    report.quarantined = quarantined.iter().map(|file| file.path.clone()).collect();
    (files, quarantined, cells)
}

/// Adds the cells of a file, all or none.
pub(crate) fn add_cells(path: &Path, cells: &mut CellTable) -> Result<(), StoreError> {
    let file = File::open(path).at("open", path)?;
    // Apart first: a file that ends early must not leave half of its cells behind.
    let mut of_file = CellTable::default();
    for rows in ParquetRecordBatchReaderBuilder::try_new(file)?.build()? {
        add_batch_to_cells(&rows?, &mut of_file)?;
    }
    cells.merge(&of_file);
    Ok(())
}

/// Cuts the torn tail off, and makes sure that what was read is on disk before anything is written behind it.
fn cut_tail(
    disk: &dyn Disk,
    journal: &Path,
    scan: &Scan,
    segment_bytes_max: u64,
) -> Result<Option<(PathBuf, u64)>, StoreError> {
    let Some((path, bytes)) = &scan.tail else {
        return Ok(None);
    };
    let mut file = disk.append(path).at("open", path)?;
    file.truncate(*bytes).at("truncate", path)?;
    file.sync().synced(path)?;
    disk.sync_dir(journal).synced(journal)?;
    // Records of a segment follow each other: not so if it ends before the commit's position, or has holes.
    let goes_on = scan.tail_next == scan.last_lsn + 1 && scan.skipped_bytes == 0 && *bytes < segment_bytes_max;
    Ok(goes_on.then(|| (path.clone(), *bytes)))
}

/// Renames damaged commit records, so that the next commit does not overwrite the evidence.
fn set_aside(disk: &dyn Disk, loaded: &Loaded, report: &mut RecoveryReport) -> Result<(), StoreError> {
    for path in &loaded.damaged {
        disk.rename(path, &path.with_extension("commit.damaged"))
            .at("rename", path)?;
        report.commits_damaged += 1;
    }
    Ok(())
}

/// Files that only the commit before the newest names.
fn retired(loaded: &Loaded) -> Vec<Retired> {
    let commit = &loaded.newest;
    let named: HashSet<&str> = commit
        .files
        .iter()
        .chain(&commit.quarantined)
        .map(|file| file.path.as_str())
        .collect();
    let retired = loaded.previous_files.iter();
    let retired = retired.filter(|file| !named.contains(file.path.as_str()));
    retired
        .map(|file| Retired {
            file: file.clone(),
            seq: commit.seq,
            at: commit.sealed_at,
        })
        .collect()
}
