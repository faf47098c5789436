//! One process writes to a data directory at a time.

use crate::error::{At, StoreError};
use proto::layout;
use std::{
    fs::{File, OpenOptions},
    path::Path,
};

/// Held as long as anything may write; the kernel lets go of it when the process ends, however it ends.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Lock {
    pub(crate) fn take(dir: &Path) -> Result<Self, StoreError> {
        let path = dir.join(layout::LOCK);
        let file = OpenOptions::new()
            .create(true)
            .write(true)
            .truncate(false)
            .open(&path)
            .at("open", &path)?;
        match rustix::fs::flock(&file, rustix::fs::FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(StoreError::Locked { path: dir.to_owned() }),
            Err(e) => Err(std::io::Error::from(e)).at("lock", &path),
        }
    }
}
