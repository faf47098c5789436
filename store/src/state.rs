//! What the engine needs at a restart, in a file of its own: written while it is made, so that it never stands in memory
//! as a whole, and named by every commit record for which it holds.
//!
//! ```text
//! DATA/commits/<seq of the seal that wrote it, 20 digits>.state:   frame( LZ4 block with its length )*
//! ```

use crate::{
    disk::{Disk, is_harm},
    error::{At, StoreError},
    frame,
};
use proto::layout;
use serde::{Deserialize, Serialize};
use std::{
    fmt, fs,
    io::{self, Write},
    path::{Path, PathBuf},
};

const MAGIC: [u8; 4] = *b"TGS1";
/// Bytes that are compressed together.
const BLOCK_BYTES: usize = 1 << 20;

/// What the engine needs at a restart.
pub trait State: fmt::Debug + Send + Sync {
    /// Writes it; the same bytes are handed back by [`crate::Recovered`]. What is written can be let go of at once.
    ///
    /// # Errors
    /// Those of `out`, and whatever keeps it from being written.
    fn write(self: Box<Self>, out: &mut dyn Write) -> io::Result<()>;
}

impl State for Vec<u8> {
    fn write(self: Box<Self>, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(&self)
    }
}

/// Which file holds it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct StateFile {
    /// Seal that wrote it; 0 for none.
    pub(crate) seq: u64,
    /// Its size.
    pub(crate) bytes: u64,
}

fn path(root: &Path, seq: u64) -> PathBuf {
    root.join(layout::COMMITS).join(format!("{seq:020}.state"))
}

/// Compresses block by block.
struct Blocks<'a> {
    out: &'a mut dyn Write,
    block: Vec<u8>,
    framed: Vec<u8>,
    bytes: u64,
}

impl Blocks<'_> {
    fn close_block(&mut self) -> io::Result<()> {
        if self.block.is_empty() {
            return Ok(());
        }
        self.framed.clear();
        let at = frame::begin(&mut self.framed);
        self.framed
            .extend_from_slice(&lz4_flex::block::compress_prepend_size(&self.block));
        if !frame::finish(&mut self.framed, at, MAGIC) {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        self.out.write_all(&self.framed)?;
        self.bytes += self.framed.len() as u64;
        self.block.clear();
        Ok(())
    }
}

impl Write for Blocks<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.block.len() + bytes.len() > BLOCK_BYTES {
            self.close_block()?;
        }
        let taken = &bytes[..bytes.len().min(BLOCK_BYTES)];
        self.block.extend_from_slice(taken);
        Ok(taken.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes the state of seal `seq` and syncs it; its name is durable once the folder is synced.
pub(crate) fn write(disk: &dyn Disk, root: &Path, seq: u64, state: Box<dyn State>) -> Result<StateFile, StoreError> {
    let path = path(root, seq);
    let written = || -> Result<u64, StoreError> {
        let mut file = disk.create(&path).at("create", &path)?;
        let mut blocks = Blocks {
            out: &mut *file,
            block: Vec::with_capacity(BLOCK_BYTES),
            framed: Vec::new(),
            bytes: 0,
        };
        state
            .write(&mut blocks)
            .and_then(|()| blocks.close_block())
            .at("write to", &path)?;
        let bytes = blocks.bytes;
        file.sync().synced(&path)?;
        Ok(bytes)
    };
    Ok(StateFile { seq, bytes: written()? })
}

/// The state that a commit record names; `None` if it is not whole, or the disk says that it is harmed.
pub(crate) fn read(root: &Path, file: StateFile) -> Result<Option<Vec<u8>>, StoreError> {
    let mut state = Vec::new();
    if file.seq == 0 {
        return Ok(Some(state));
    }
    let path = path(root, file.seq);
    let bytes = match fs::read(&path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) if is_harm(&error) => {
            tracing::warn!(path = %path.display(), %error, "state cannot be read");
            return Ok(None);
        }
        read => read.at("read", &path)?,
    };
    if bytes.len() as u64 != file.bytes {
        return Ok(None);
    }
    let mut rest = bytes.as_slice();
    while !rest.is_empty() {
        let block = frame::open(rest, MAGIC).and_then(|block| {
            rest = rest.get(frame::HEADER + block.len()..)?;
            let (bytes, packed) = lz4_flex::block::uncompressed_size(block).ok()?;
            if bytes > BLOCK_BYTES {
                return None;
            }
            lz4_flex::block::decompress(packed, bytes).ok()
        });
        let Some(block) = block else { return Ok(None) };
        state.extend_from_slice(&block);
    }
    Ok(Some(state))
}

/// Removes states that no kept commit record names: all but those of the given seals. What stays is tried again next time.
pub(crate) fn drop_old(disk: &dyn Disk, root: &Path, kept: [u64; 2]) -> Result<(), StoreError> {
    let dir = root.join(layout::COMMITS);
    for entry in fs::read_dir(&dir).at("list", &dir)? {
        let found = entry.at("list", &dir)?.path();
        let seq = found
            .file_name()
            .and_then(|name| name.to_str())
            .and_then(|name| name.strip_suffix(".state")?.parse::<u64>().ok());
        if seq.is_some_and(|seq| !kept.contains(&seq)) {
            disk.remove(&found).at("remove", &found)?;
        }
    }
    Ok(())
}

/// Removes the state of a seal that failed.
pub(crate) fn remove(disk: &dyn Disk, root: &Path, seq: u64) {
    _ = disk.remove(&path(root, seq));
}
