//! A data directory whose journal holds one segment of given bytes, opened as a start would.

use std::{
    fs, io, panic,
    path::Path,
    sync::{Arc, Once},
};
use store::{
    JournalRecovery, Store, StoreOptions,
    disk::{Disk, DiskFile, LocalDisk},
};
use tempfile::TempDir;

/// Longest payload of a made-up record, bytes.
const PAYLOAD_BYTES_MAX: usize = 4_096;

thread_local! {
    static DIR: TempDir = TempDir::new().expect("there is room for a folder");
}

/// Replays the bytes as the only segment, strictly and passing over what is damaged: records come in order, and what is
/// refused is left as it was.
///
/// # Panics
/// If that does not hold.
pub fn replay(bytes: &[u8]) {
    // The fuzzer ends with every panic; the store turns those of Arrow's reader into errors. Others still end it.
    static HOOK: Once = Once::new();
    HOOK.call_once(|| drop(panic::take_hook()));
    DIR.with(|dir| {
        let folder = dir.path().join("journal");
        let segment = folder.join("00000000000000000001.seg");
        fs::create_dir_all(&folder).expect("a folder");
        for recovery in [JournalRecovery::Strict, JournalRecovery::Skip] {
            fs::write(&segment, bytes).expect("room for the bytes");
            let options = StoreOptions {
                recovery,
                disk: Arc::new(Unsynced),
                ..StoreOptions::default()
            };
            match Store::open(dir.path(), options) {
                Ok((_store, found)) => {
                    let mut before = 0;
                    for record in found.records.map_while(Result::ok) {
                        assert!(record.lsn > before, "records out of turn");
                        before = record.lsn;
                    }
                }
                Err(error) => {
                    assert_eq!(recovery, JournalRecovery::Strict, "{error}");
                    assert!(fs::read(&segment).is_ok_and(|left| left == bytes), "{error}");
                }
            }
        }
    });
}

/// The bytes as payloads of records, with checksums that are right: a length in two bytes before each. `None` if there is
/// no payload in them.
#[must_use]
pub fn framed(mut bytes: &[u8]) -> Option<Vec<u8>> {
    let (mut out, mut lsn) = (Vec::new(), 1_u64);
    while let Some(([low, high], rest)) = bytes.split_first_chunk() {
        let length = usize::from(u16::from_le_bytes([*low, *high])) % PAYLOAD_BYTES_MAX;
        let (inner, rest) = rest.split_at(length.min(rest.len()));
        // version, its turn in the order, nothing known to be on disk
        let payload = [&[1], &lsn.to_le_bytes()[..], &0_u64.to_le_bytes(), inner].concat();
        let length = (payload.len() as u32).to_le_bytes();
        let sum = crc32c::crc32c_append(crc32c::crc32c(&length), &payload).to_le_bytes();
        out.extend([b"TGJ1", &length[..], &sum, &payload].concat());
        (bytes, lsn) = (rest, lsn + 1);
    }
    (!out.is_empty()).then_some(out)
}

/// The local disk without its syncs: no power is lost here.
#[derive(Debug)]
struct Unsynced;

struct UnsyncedFile(Box<dyn DiskFile>);

impl io::Write for UnsyncedFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl DiskFile for UnsyncedFile {
    fn sync(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
}

impl Disk for Unsynced {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(UnsyncedFile(LocalDisk.create(path)?)))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(UnsyncedFile(LocalDisk.append(path)?)))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        LocalDisk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        LocalDisk.remove(path)
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        LocalDisk.create_dir(path)
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }
}
