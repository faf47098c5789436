//! The sealing thread: one seal at a time, on a small pool of its own, while the engine goes on.

use super::{
    counters::{Counters, add},
    error::PipelineError,
    fold::Capture,
};
use crossbeam_channel::{Receiver, Sender};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};
use store::{Sealed, Sealer};

/// Threads that write Parquet.
const SEAL_THREADS: usize = 2;

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
            .build()
            .map_err(|e| PipelineError::Thread {
                name: "seal",
                source: std::io::Error::other(e),
            })?;
        Ok(Self { pool, sealer, counters })
    }

    /// Encodes the state, writes files and commit record.
    pub fn seal(&self, capture: Capture) -> Result<Sealed, PipelineError> {
        let began = Instant::now();
        let Capture { mut input, state } = capture;
        let sealed = self.pool.install(|| {
            input.state = state.encode()?;
            drop(state);
            Ok(self.sealer.seal(input)?)
        });
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

    /// Seals what comes until nobody sends or listens any more.
    pub fn run(self, captures: Receiver<Capture>, results: Sender<Result<Sealed, PipelineError>>) {
        for capture in &captures {
            if results.send(self.seal(capture)).is_err() {
                return;
            }
        }
    }
}
