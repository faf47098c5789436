//! What can go wrong with what is kept, and what to do about it.

use arrow::error::ArrowError;
use parquet::errors::ParquetError;
use std::{io, path::PathBuf};

/// An error of the store.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The disk refused; `source` says why. A full disk is of this kind and may be tried again.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done.
        action: &'static str,
        /// To which file or folder.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// A sync failed: nobody knows what reached the disk.
    #[error("sync of {} failed ({source}): stop the process and start it again, what was acked is safe", path.display())]
    Sync {
        /// The file or folder.
        path: PathBuf,
        /// The answer.
        source: io::Error,
    },
    /// An earlier sync failed; nothing more is accepted.
    #[error("an earlier sync failed: stop the process and start it again, what was acked is safe")]
    Poisoned,
    /// Another process writes here.
    #[error("another tracegate is using this data directory ({}): stop it, or choose another with --data-dir", path.display())]
    Locked {
        /// The data directory.
        path: PathBuf,
    },
    /// Acked records cannot be read.
    #[error(
        "journal segment {} is damaged at byte {offset}: record {lsn} was acked and cannot be read; \
         restore the file, or start with --journal-recovery=skip to go on without what is lost",
        path.display()
    )]
    Damaged {
        /// The segment.
        path: PathBuf,
        /// Where the first bad byte may be.
        offset: u64,
        /// The record expected there.
        lsn: u64,
    },
    /// Whole segments are missing.
    #[error(
        "journal records {from} to {to} are missing from {}; restore the files, or start with \
         --journal-recovery=skip to go on without them",
        path.display()
    )]
    Gap {
        /// The journal.
        path: PathBuf,
        /// First missing record.
        from: u64,
        /// Last missing record.
        to: u64,
    },
    /// There are commit records and none is whole, or there is none, and sealed files need one.
    #[error(
        "no commit record in {} can be read, and only those name the sealed files that count: restore the folder from a \
         backup; to go on without everything that was sealed, move it and spans, traces, evals and cells elsewhere, and \
         start with --journal-recovery=skip",
        path.display()
    )]
    NoCommit {
        /// The folder.
        path: PathBuf,
    },
    /// A record, commit record or cells file is whole, but not of a form this version knows.
    #[error("{what} is not readable by this version of tracegate: {reason}")]
    Format {
        /// Which.
        what: String,
        /// Why.
        reason: String,
    },
    /// A sealed file cannot be read.
    #[error("sealed file {path} cannot be read: {source}")]
    Sealed {
        /// Its path under the data directory.
        path: String,
        /// Why.
        source: Box<Self>,
    },
    /// Two seals at once.
    #[error("a seal is under way: wait for it")]
    Busy,
    /// A record out of turn: a mistake of the caller.
    #[error("journal record {got} is out of turn, {expected} comes next")]
    OutOfTurn {
        /// The next log sequence number.
        expected: u64,
        /// The one given.
        got: u64,
    },
    /// A record of this size is refused.
    #[error("a journal record of {bytes} bytes is more than the limit of {limit}")]
    TooLarge {
        /// Its size.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Columns do not fit each other.
    #[error("rows: {0}")]
    Arrow(#[from] ArrowError),
    /// A Parquet file could not be written or read.
    #[error("parquet: {0}")]
    Parquet(#[from] ParquetError),
}

impl StoreError {
    /// True if the process must stop: what is on disk is unknown until it is read again.
    #[must_use]
    pub const fn is_fatal(&self) -> bool {
        matches!(self, Self::Sync { .. } | Self::Poisoned)
    }

    /// True if the disk was full: the same call may succeed later.
    #[must_use]
    pub fn is_full(&self) -> bool {
        let cause = match self {
            Self::Io { source, .. } => Some(source),
            Self::Parquet(ParquetError::External(source)) => source.downcast_ref::<io::Error>(),
            _ => None,
        };
        cause.is_some_and(|cause| matches!(cause.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
    }
}

/// Adds the action and the path to an IO error.
pub(crate) trait At<T> {
    fn at(self, action: &'static str, path: &std::path::Path) -> Result<T, StoreError>;
    fn synced(self, path: &std::path::Path) -> Result<T, StoreError>;
}

impl<T> At<T> for io::Result<T> {
    fn at(self, action: &'static str, path: &std::path::Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Io {
            action,
            path: path.to_owned(),
            source,
        })
    }

    fn synced(self, path: &std::path::Path) -> Result<T, StoreError> {
        self.map_err(|source| StoreError::Sync {
            path: path.to_owned(),
            source,
        })
    }
}
