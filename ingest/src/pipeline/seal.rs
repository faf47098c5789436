//! The sealing thread: one seal or one step of upkeep at a time, on a small pool of its own, while the engine goes on.

use super::{
    counters::{Counters, add},
    error::PipelineError,
};
use crossbeam_channel::{Receiver, Sender};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Instant,
};
use store::{SealInput, Sealed, Sealer, Upkeep, Upkept, disk};

/// Threads that write Parquet.
const SEAL_THREADS: usize = 2;
/// How far these stand behind all others where cores are few: an ack must not wait for a file.
const SEAL_NICE: i32 = 5;

pub(super) struct SealThread {
    pool: rayon::ThreadPool,
    sealer: Sealer,
    counters: Arc<Counters>,
}

impl SealThread {
    pub fn new(sealer: Sealer, counters: Arc<Counters>) -> Result<Self, PipelineError> {
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(SEAL_THREADS)
            .thread_name(|i| format!("seal-{i}"))
            // On Linux this is about the calling thread alone; where it is refused, all are equal as before.
            .start_handler(|_| _ = rustix::process::nice(SEAL_NICE))
            .build()
            .map_err(|e| PipelineError::Thread {
                name: "seal",
                source: std::io::Error::other(e),
            })?;
        counters.quarantined_files.store(sealer.quarantined()?, Relaxed);
        Ok(Self { pool, sealer, counters })
    }

    /// Writes state, files and commit record.
    pub fn seal(&self, input: SealInput) -> Result<Sealed, PipelineError> {
        let began = Instant::now();
        let sealed = self.pool.install(|| Ok(self.sealer.seal(input)?));
        match &sealed {
            Ok(sealed) => {
                let bytes: u64 = sealed.added.iter().map(|file| file.bytes).sum();
                add(&self.counters.seal_bytes, bytes + sealed.commit_bytes);
                self.counters.seal_time.record(began.elapsed());
                self.counters.sealed_lsn.store(sealed.lsn, Relaxed);
                add(&self.counters.seals, 1);
            }
            Err(_) => add(&self.counters.seal_failures, 1),
        }
        sealed
    }

    /// Looks after sealed files, one step; gives a rewrite up once `go_on` says no.
    fn upkeep(&self, mut task: Upkeep, go_on: &AtomicBool) -> Result<Upkept, PipelineError> {
        let began = Instant::now();
        task.space = disk::space(self.sealer.dir())
            .inspect_err(|error| tracing::warn!(%error, "nobody knows how full the disk is"))
            .ok();
        let done = self.sealer.upkeep(&task, &|| go_on.load(Relaxed));
        let counters = &self.counters;
        match &done {
            Ok(done) => {
                counters.upkeep_time.record(began.elapsed());
                add(&counters.compactions, u64::from(done.rewritten > 0));
                add(&counters.compacted_files, done.rewritten);
                add(&counters.compacted_rows_dropped, done.rows_dropped);
                add(&counters.texts_expired_files, done.blanked);
                add(&counters.expired_files, done.removed);
                add(&counters.expired_bytes, done.removed_bytes);
                counters.quarantined_files.store(done.quarantined_now, Relaxed);
            }
            Err(_) => add(&counters.upkeep_failures, 1),
        }
        Ok(done?)
    }

    /// Does what comes until nobody sends or listens any more.
    pub fn run(self, work: Receiver<Work>, results: Sender<Done>, go_on: Arc<AtomicBool>) {
        for work in &work {
            let done = match work {
                Work::Seal(capture) => Done::Sealed(self.seal(*capture)),
                Work::Upkeep(task) => Done::Upkept(self.upkeep(*task, &go_on)),
            };
            if results.send(done).is_err() {
                return;
            }
        }
    }
}

/// What the engine asks for.
pub(super) enum Work {
    Seal(Box<SealInput>),
    Upkeep(Box<Upkeep>),
}

/// What came of it.
pub(super) enum Done {
    Sealed(Result<Sealed, PipelineError>),
    Upkept(Result<Upkept, PipelineError>),
}
