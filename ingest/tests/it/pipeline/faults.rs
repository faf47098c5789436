//! When the disk fails or is full.

use super::{
    bench::{Bench, T0},
    traffic::chat,
};
use ingest::intake::Refusal;
use std::{
    fmt,
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
};
use store::{
    StoreOptions,
    disk::{Disk, DiskFile, LocalDisk},
};

const WELL: u8 = 0;
const SYNC_FAILS: u8 = 1;
const FULL: u8 = 2;

/// The local disk, until the switch says otherwise.
#[derive(Clone, Default)]
struct Faulty(Arc<AtomicU8>);

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

struct FaultyFile(Box<dyn DiskFile>, Faulty);

impl Write for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.1.0.load(SeqCst) == FULL {
            return Err(io::ErrorKind::StorageFull.into());
        }
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl DiskFile for FaultyFile {
    fn sync(&mut self) -> io::Result<()> {
        if self.1.0.load(SeqCst) == SYNC_FAILS {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.0.sync()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.0.truncate(len)
    }
}

impl Disk for Faulty {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(FaultyFile(LocalDisk.create(path)?, self.clone())))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(Box::new(FaultyFile(LocalDisk.append(path)?, self.clone())))
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

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        LocalDisk.sync_dir(path)
    }
}

fn on(disk: &Faulty) -> StoreOptions {
    StoreOptions {
        disk: Arc::new(disk.clone()),
        ..StoreOptions::default()
    }
}

#[test]
fn after_a_failed_sync_nothing_is_acked_and_a_restart_has_all_that_was() {
    let disk = Faulty::default();
    let mut bench = Bench::open_on(Bench::config(), on(&disk));
    let requests = chat(4);
    bench.at(T0 + 1.0);
    bench.send(&requests[0]);
    disk.0.store(SYNC_FAILS, SeqCst);
    assert!(matches!(bench.try_send(&requests[1]), Err(Refusal::Unavailable(_))));
    assert!(bench.wait_for_failure().contains("sync"));
    disk.0.store(WELL, SeqCst);
    assert!(
        matches!(bench.try_send(&requests[2]), Err(Refusal::Unavailable(_))),
        "it does not try again by itself"
    );

    bench.use_disk(StoreOptions::default());
    bench.reopen();
    for request in &requests[1..] {
        bench.send(request);
    }
    assert_eq!(bench.settle().trace_ids, 4);
}

#[test]
fn a_full_disk_refuses_to_be_retried_and_ingest_goes_on_when_there_is_room() {
    let disk = Faulty::default();
    let mut bench = Bench::open_on(Bench::config(), on(&disk));
    let requests = chat(4);
    bench.at(T0 + 1.0);
    bench.send(&requests[0]);
    disk.0.store(FULL, SeqCst);
    assert!(matches!(bench.try_send(&requests[1]), Err(Refusal::Busy { .. })));
    disk.0.store(WELL, SeqCst);
    for request in &requests[1..] {
        assert!(bench.send(request).accepted > 0, "a refused request is not known");
    }
    let picture = bench.settle();
    assert_eq!((picture.trace_ids, picture.span_rows), (4, 12));
}

#[test]
fn a_seal_that_fails_leaves_rows_live_and_is_tried_again() {
    let disk = Faulty::default();
    let mut config = Bench::config();
    config.seal_retry = std::time::Duration::from_millis(50);
    let mut bench = Bench::open_on(config, on(&disk));
    bench.at(T0 + 1.0);
    for request in &chat(4) {
        bench.send(request);
    }
    disk.0.store(FULL, SeqCst);
    bench.pipeline().seal_now();
    let failures = || bench.pipeline().counters.seal_failures.load(SeqCst);
    let began = std::time::Instant::now();
    while failures() == 0 {
        assert!(began.elapsed().as_secs() < 60);
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    disk.0.store(WELL, SeqCst);
    std::thread::sleep(std::time::Duration::from_millis(100));
    bench.seal();
    let picture = bench.settle();
    assert_eq!(
        (picture.trace_ids, picture.span_rows, picture.live_spans.len()),
        (4, 12, 0)
    );
}
