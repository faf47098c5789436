//! When the disk fails or is full.

use super::{
    bench::{Bench, T0},
    traffic::chat,
};
use ingest::{intake::Refusal, pipeline::Counters};
use std::{
    fmt,
    io::{self, Write},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU8, AtomicU64, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use store::{
    Snapshot, StoreOptions,
    disk::{Disk, DiskFile, LocalDisk},
};

const WELL: u8 = 0;
const SYNC_FAILS: u8 = 1;
const FULL: u8 = 2;
/// There is room for the journal, and none for files.
const FULL_OF_FILES: u8 = 3;

/// The local disk, until the switch says otherwise.
#[derive(Clone, Default)]
struct Faulty(Arc<AtomicU8>);

impl fmt::Debug for Faulty {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Faulty")
    }
}

/// The file, and what the disk says of it instead of its own answer: nothing while it is well.
struct FaultyFile {
    file: Box<dyn DiskFile>,
    disk: Faulty,
    is_journal: bool,
}

impl FaultyFile {
    fn of(file: Box<dyn DiskFile>, disk: &Faulty, path: &Path) -> Box<dyn DiskFile> {
        Box::new(Self {
            file,
            disk: disk.clone(),
            is_journal: path.extension().is_some_and(|name| name == "seg"),
        })
    }
}

impl Write for FaultyFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self.disk.0.load(SeqCst) {
            FULL => Err(io::ErrorKind::StorageFull.into()),
            FULL_OF_FILES if !self.is_journal => Err(io::ErrorKind::StorageFull.into()),
            _ => self.file.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

impl DiskFile for FaultyFile {
    fn sync(&mut self) -> io::Result<()> {
        if self.disk.0.load(SeqCst) == SYNC_FAILS {
            return Err(io::Error::from_raw_os_error(5));
        }
        self.file.sync()
    }

    fn truncate(&mut self, len: u64) -> io::Result<()> {
        self.file.truncate(len)
    }
}

impl Disk for Faulty {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(FaultyFile::of(LocalDisk.create(path)?, self, path))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        Ok(FaultyFile::of(LocalDisk.append(path)?, self, path))
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
    config.seal_retry = Duration::from_millis(50);
    let mut bench = Bench::open_on(config, on(&disk));
    bench.at(T0 + 1.0);
    for request in &chat(4) {
        bench.send(request);
    }
    disk.0.store(FULL, SeqCst);
    bench.pipeline().seal_now();
    wait_for_one(&bench, |counters| &counters.seal_failures);
    disk.0.store(WELL, SeqCst);
    std::thread::sleep(Duration::from_millis(100));
    bench.seal();
    let picture = bench.settle();
    assert_eq!(
        (picture.trace_ids, picture.span_rows, picture.live_spans.len()),
        (4, 12, 0)
    );
}

/// Waits for the first of what a counter counts.
fn wait_for_one(bench: &Bench, counter: fn(&Counters) -> &AtomicU64) {
    let began = Instant::now();
    while counter(&bench.pipeline().counters).load(SeqCst) == 0 {
        assert!(began.elapsed().as_secs() < 60, "it must come");
        std::thread::sleep(Duration::from_millis(5));
    }
}

#[test]
fn rows_that_pile_up_because_seals_fail_are_sealed_once_there_is_room_though_nobody_asks() {
    let disk = Faulty::default();
    let mut config = Bench::config();
    (config.seal_rows, config.seal_retry) = (4, Duration::from_millis(50));
    let mut bench = Bench::open_on(config, on(&disk));
    bench.at(T0 + 1.0);
    disk.0.store(FULL_OF_FILES, SeqCst);
    for request in &chat(4) {
        assert!(bench.send(request).accepted > 0, "the journal has room");
    }
    wait_for_one(&bench, |counters| &counters.seal_failures);
    // Every queue is full of ticks by now.
    std::thread::sleep(Duration::from_millis(300));
    disk.0.store(WELL, SeqCst);
    let picture = bench.settle();
    assert_eq!((picture.trace_ids, picture.span_rows), (4, 12));
    wait_for_one(&bench, |counters| &counters.seals);
}

#[test]
fn a_start_on_a_disk_that_is_full_answers_and_seals_once_there_is_room() {
    let disk = Faulty::default();
    let mut bench = Bench::open_on(Bench::config(), on(&disk));
    bench.at(T0 + 1.0);
    for request in &chat(4) {
        bench.send(request);
    }
    bench.configure(|config| (config.seal_rows, config.seal_retry) = (4, Duration::from_millis(50)));
    disk.0.store(FULL_OF_FILES, SeqCst);
    bench.reopen();
    wait_for_one(&bench, |counters| &counters.seal_failures);
    let spans = |snapshot: &Snapshot| snapshot.spans.iter().map(|batch| batch.rows.num_rows()).sum::<usize>();
    assert_eq!(spans(&bench.snapshot()), 12, "all rows are there");
    disk.0.store(WELL, SeqCst);
    let picture = bench.settle();
    assert_eq!((picture.trace_ids, picture.span_rows), (4, 12));
    wait_for_one(&bench, |counters| &counters.seals);
}
