//! The journal: what was acked is here, in order, until it is sealed.
//!
//! Segments lie at `DATA/journal/<first lsn, 20 digits>.seg`, records back to back. An ack may leave after [`Journal::sync`]
//! returned, not before. A new segment is made only once all of the old one is on disk, so the name of a segment
//! proves every record before it. A sync that failed is never repeated: the kernel may have dropped the pages and
//! would answer "well" the second time, so the journal refuses everything from then on.

pub(crate) mod record;
pub(crate) mod replay;

pub use replay::{JournalRecovery, Replay};

use crate::{
    MicroBatch,
    disk::{Disk, DiskFile},
    error::{At, StoreError},
    lock::Lock,
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

/// The writing end, owned by one thread.
pub struct Journal {
    disk: Arc<dyn Disk>,
    dir: PathBuf,
    segment_bytes_max: u64,
    active: Option<Active>,
    next_lsn: u64,
    durable_lsn: u64,
    poisoned: bool,
    buffer: Vec<u8>,
    plain: Vec<u8>,
    reserve: Arc<Reserve>,
    _lock: Arc<Lock>,
}

struct Active {
    file: Box<dyn DiskFile>,
    path: PathBuf,
    bytes: u64,
}

impl std::fmt::Debug for Journal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Journal")
            .field("dir", &self.dir)
            .field("next_lsn", &self.next_lsn)
            .finish_non_exhaustive()
    }
}

/// Path of the segment whose first record is `lsn`.
pub(crate) fn segment_path(dir: &Path, lsn: u64) -> PathBuf {
    dir.join(format!("{lsn:020}.seg"))
}

impl Journal {
    /// Goes on after `last_lsn`; `tail` is the segment to append to and its length, every byte of it on disk.
    pub(crate) fn resume(
        disk: Arc<dyn Disk>,
        dir: PathBuf,
        segment_bytes_max: u64,
        last_lsn: u64,
        tail: Option<(PathBuf, u64)>,
        reserve: Arc<Reserve>,
        lock: Arc<Lock>,
    ) -> Result<Self, StoreError> {
        let active = match tail {
            Some((path, bytes)) => Some(Active {
                file: disk.append(&path).at("open", &path)?,
                path,
                bytes,
            }),
            None => None,
        };
        Ok(Self {
            disk,
            dir,
            segment_bytes_max,
            active,
            next_lsn: last_lsn + 1,
            durable_lsn: last_lsn,
            poisoned: false,
            buffer: Vec::new(),
            plain: Vec::new(),
            reserve,
            _lock: lock,
        })
    }

    /// The log sequence number that the next record must have.
    #[must_use]
    pub const fn next_lsn(&self) -> u64 {
        self.next_lsn
    }

    /// Writes `batch` as the next record and returns its size in bytes. Not durable before [`Self::sync`].
    ///
    /// # Errors
    /// A full disk leaves the journal as it was, and the same record may be tried again. After a fatal error
    /// ([`StoreError::is_fatal`]) nothing is accepted any more.
    pub fn append(&mut self, batch: &MicroBatch) -> Result<u64, StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        if batch.lsn != self.next_lsn {
            return Err(StoreError::OutOfTurn {
                expected: self.next_lsn,
                got: batch.lsn,
            });
        }
        let mut buffer = std::mem::take(&mut self.buffer);
        buffer.clear();
        let written = record::encode(batch, self.durable_lsn, &mut self.plain, &mut buffer)
            .and_then(|()| self.keep_reserve(buffer.len() as u64))
            .and_then(|()| self.write(&buffer));
        let bytes = buffer.len() as u64;
        self.buffer = buffer;
        for kept in [&mut self.buffer, &mut self.plain] {
            kept.clear();
            kept.shrink_to(BUFFER_BYTES_KEPT);
        }
        written?;
        self.next_lsn += 1;
        Ok(bytes)
    }

    /// Refuses what would use up the room that seals and decisions need.
    fn keep_reserve(&self, bytes: u64) -> Result<(), StoreError> {
        // a file system that does not tell is written to until it refuses
        match self.disk.space(&self.dir) {
            Ok(space) if space.free() < self.reserve.bytes() + bytes => {
                Err(io::Error::from(io::ErrorKind::StorageFull)).at("keep the reserve beside", &self.dir)
            }
            _ => Ok(()),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), StoreError> {
        if self
            .active
            .as_ref()
            .is_none_or(|active| active.bytes >= self.segment_bytes_max)
        {
            self.roll()?;
        }
        let Some(active) = &mut self.active else {
            return Err(StoreError::Poisoned);
        };
        if let Err(source) = active.file.write_all(bytes) {
            // Half a record must not stand before the next one.
            if let Err(source) = active.file.truncate(active.bytes) {
                self.poisoned = true;
                return Err(source).at("truncate", &active.path);
            }
            return Err(source).at("write to", &active.path);
        }
        active.bytes += bytes.len() as u64;
        Ok(())
    }

    fn roll(&mut self) -> Result<(), StoreError> {
        self.sync()?;
        let path = segment_path(&self.dir, self.next_lsn);
        let file = self.disk.create(&path).at("create", &path)?;
        self.disk
            .sync_dir(&self.dir)
            .synced(&self.dir)
            .inspect_err(|_| self.poisoned = true)?;
        self.active = Some(Active { file, path, bytes: 0 });
        Ok(())
    }

    /// Returns once every record appended so far is on stable storage.
    ///
    /// # Errors
    /// Any error is fatal: the journal refuses everything from then on.
    pub fn sync(&mut self) -> Result<(), StoreError> {
        if self.poisoned {
            return Err(StoreError::Poisoned);
        }
        if self.durable_lsn + 1 == self.next_lsn {
            return Ok(());
        }
        if let Some(active) = &mut self.active {
            active
                .file
                .sync()
                .synced(&active.path)
                .inspect_err(|_| self.poisoned = true)?;
        }
        self.durable_lsn = self.next_lsn - 1;
        Ok(())
    }

    /// Removes segments whose records are all at or below `upto_lsn`. [`crate::Sealer::seal`] does this itself.
    ///
    /// # Errors
    /// A segment could not be removed; the next call tries again.
    pub fn trim(&self, upto_lsn: u64) -> Result<u64, StoreError> {
        trim(self.disk.as_ref(), &self.dir, upto_lsn)
    }
}

/// Left free by the journal at least, bytes: when requests have filled the disk, rows can still be sealed (which gives
/// room back), and decisions and notices still be written.
pub const RESERVE_BYTES: u64 = 64 << 20;
/// Of that, for the files of a seal and whatever is written beside them: 32 MiB.
const SEAL_BYTES: u64 = 32 << 20;

/// What the journal leaves free: enough for the next seal also where much has to be written with each, as all open traces are.
#[derive(Debug, Default)]
pub(crate) struct Reserve {
    /// Size of the newest commit record and the state that it names.
    commit_bytes: AtomicU64,
}

impl Reserve {
    pub(crate) fn committed(&self, bytes: u64) {
        self.commit_bytes.store(bytes, Ordering::Relaxed);
    }

    fn bytes(&self) -> u64 {
        // the next commit may be larger
        let commit = self.commit_bytes.load(Ordering::Relaxed).saturating_mul(2);
        RESERVE_BYTES.max(commit.saturating_add(SEAL_BYTES))
    }
}

/// Either encoding buffer is kept between records up to this size: 8 MiB.
const BUFFER_BYTES_KEPT: usize = 8 << 20;

/// Removes, oldest first, the segments that a later segment shows to hold nothing above `upto_lsn`; returns how many.
/// The newest always stays, so this is safe beside the thread that appends.
pub(crate) fn trim(disk: &dyn Disk, dir: &Path, upto_lsn: u64) -> Result<u64, StoreError> {
    let segments = replay::segments(dir)?;
    let mut removed = 0;
    for pair in segments.windows(2) {
        if pair[1].0 > upto_lsn + 1 {
            break;
        }
        disk.remove(&pair[0].1).at("remove", &pair[0].1)?;
        removed += 1;
    }
    Ok(removed)
}
