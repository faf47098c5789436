//! The commit record: what is sealed, up to which journal record, and what a restart needs.
//!
//! `DATA/commits/<seq, 20 digits>.commit`, written whole beside and renamed into place. The last two are kept: if the
//! newest cannot be read, the one before it counts, and the journal still holds every record after that one.
//!
//! ```text
//! frame( version u8 | zstd( body, by postcard ) )
//! ```

use crate::{
    Patch, SealedFile, TraceId,
    disk::{Disk, is_harm},
    error::{At, StoreError},
    frame,
    state::{self, StateFile},
};
use proto::{Nanos, layout};
use serde::{Deserialize, Serialize};
use std::{
    fs,
    path::{Path, PathBuf},
};

const MAGIC: [u8; 4] = *b"TGC1";
const VERSION: u8 = 3;
const ZSTD_LEVEL: i32 = 1;
/// Commit records that stay.
pub(crate) const KEPT: usize = 2;

/// What one commit says.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub(crate) struct Commit {
    pub(crate) seq: u64,
    /// Every record up to here is in the files, or without rows.
    pub(crate) lsn: u64,
    pub(crate) sealed_at: Nanos,
    /// All files, in commit order.
    pub(crate) files: Vec<SealedFile>,
    /// Files that were found missing or damaged. Kept by name, not read.
    pub(crate) quarantined: Vec<SealedFile>,
    /// Sorted by trace id, so that equal commits are equal bytes.
    pub(crate) patches: Vec<(TraceId, Patch)>,
    pub(crate) replaced: Vec<(TraceId, u64)>,
    /// What a restart needs.
    pub(crate) state: StateFile,
}

fn unreadable(reason: impl ToString) -> StoreError {
    StoreError::Format {
        what: "a commit record".into(),
        reason: reason.to_string(),
    }
}

impl Commit {
    fn encode(&self) -> Result<Vec<u8>, StoreError> {
        let body = postcard::to_stdvec(self).map_err(unreadable)?;
        let packed = zstd::encode_all(body.as_slice(), ZSTD_LEVEL).map_err(unreadable)?;
        let mut out = Vec::with_capacity(frame::HEADER + 1 + packed.len());
        let at = frame::begin(&mut out);
        out.push(VERSION);
        out.extend_from_slice(&packed);
        if frame::finish(&mut out, at, MAGIC) {
            return Ok(out);
        }
        Err(StoreError::TooLarge {
            bytes: out.len() as u64,
            limit: frame::PAYLOAD_BYTES_MAX as u64,
        })
    }

    /// `None` if the bytes are harmed. A whole record of another version is an error instead: falling back past it
    /// would take its files for orphans.
    fn decode(bytes: &[u8]) -> Result<Option<Self>, StoreError> {
        let Some(payload) = frame::open(bytes, MAGIC) else {
            return Ok(None);
        };
        let [VERSION, packed @ ..] = payload else {
            return Err(unreadable("unknown version"));
        };
        let body = zstd::decode_all(packed).map_err(unreadable)?;
        postcard::from_bytes(&body).map(Some).map_err(unreadable)
    }

    /// Writes the record so that after a cut it is there as a whole or not at all; returns its size in bytes.
    pub(crate) fn write(&self, disk: &dyn Disk, root: &Path) -> Result<u64, StoreError> {
        let bytes = self.encode()?;
        let dir = root.join(layout::COMMITS);
        let name = format!("{:020}.commit", self.seq);
        let (tmp, path) = (root.join(layout::TMP).join(&name), dir.join(&name));
        let written = || -> Result<(), StoreError> {
            let mut file = disk.create(&tmp).at("create", &tmp)?;
            file.write_all(&bytes).at("write to", &tmp)?;
            file.sync().synced(&tmp)?;
            // The state that it names lies in the same folder, and must be there before it.
            disk.sync_dir(&dir).synced(&dir)?;
            disk.rename(&tmp, &path).at("rename to", &path)
        };
        written().inspect_err(|_| _ = disk.remove(&tmp))?;
        disk.sync_dir(&dir).synced(&dir)?;
        Ok(bytes.len() as u64)
    }
}

/// Sequence number and path of every commit record, oldest first.
fn list(root: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let dir = root.join(layout::COMMITS);
    let mut found = Vec::new();
    for entry in fs::read_dir(&dir).at("list", &dir)? {
        let path = entry.at("list", &dir)?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        if let Some(seq) = name.strip_suffix(".commit").and_then(|n| n.parse().ok()) {
            found.push((seq, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Removes all but the last records.
pub(crate) fn drop_old(disk: &dyn Disk, root: &Path) -> Result<(), StoreError> {
    let records = list(root)?;
    for (_, path) in records.iter().take(records.len().saturating_sub(KEPT)) {
        disk.remove(path).at("remove", path)?;
    }
    Ok(())
}

/// The record with this number.
pub(crate) fn read(root: &Path, seq: u64) -> Result<Commit, StoreError> {
    let path = root.join(layout::COMMITS).join(format!("{seq:020}.commit"));
    let bytes = fs::read(&path).at("read", &path)?;
    Commit::decode(&bytes)?.ok_or_else(|| unreadable("it is damaged"))
}

/// What [`load`] found.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    /// The newest record that can be read; the empty one in a new data directory.
    pub(crate) newest: Commit,
    /// False in a new data directory.
    pub(crate) found: bool,
    /// Size of that record and of the state that it names.
    pub(crate) bytes: u64,
    /// What the newest names.
    pub(crate) state: Vec<u8>,
    /// Files of the record before it: needed if the newest cannot be read the next time.
    pub(crate) previous_files: Vec<SealedFile>,
    /// Seal that wrote the state of that record.
    pub(crate) previous_state: u64,
    /// Newer records that cannot be read.
    pub(crate) damaged: Vec<PathBuf>,
}

/// Reads the newest commit record that can be read; `with_state`, the newest whose state can be read as well.
pub(crate) fn load(root: &Path, with_state: bool) -> Result<Loaded, StoreError> {
    let records = list(root)?;
    let mut loaded = Loaded::default();
    for (_, path) in records.iter().rev() {
        let bytes = match fs::read(path) {
            // The one before it is as good, since the journal goes back to that: no reason to stand still.
            Err(error) if is_harm(&error) => {
                tracing::warn!(path = %path.display(), %error, "commit record cannot be read");
                Vec::new()
            }
            read => read.at("read", path)?,
        };
        let commit = Commit::decode(&bytes)?;
        if loaded.found {
            if let Some(commit) = commit {
                loaded.previous_state = commit.state.seq;
                loaded.previous_files = commit.files;
                loaded.previous_files.extend(commit.quarantined);
            }
            break;
        }
        let state = match &commit {
            Some(commit) if with_state => state::read(root, commit.state)?,
            _ => Some(Vec::new()),
        };
        match commit.zip(state) {
            Some((commit, state)) => {
                loaded.bytes = bytes.len() as u64 + commit.state.bytes;
                (loaded.newest, loaded.state) = (commit, state);
                loaded.found = true;
            }
            None => {
                tracing::warn!(path = %path.display(), "commit record is damaged");
                loaded.damaged.push(path.clone());
            }
        }
    }
    // Before the very first commit stands the empty data directory, and the journal holds everything since.
    let first_only = matches!(records.as_slice(), [(1, _)]);
    if loaded.found || loaded.damaged.is_empty() || first_only {
        return Ok(loaded);
    }
    Err(StoreError::NoCommit {
        path: root.join(layout::COMMITS),
    })
}
