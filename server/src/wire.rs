//! The composition root: one running instance, made of store, doors, pipeline, gates and query.

mod error;
mod ports;

pub use error::{StartError, StopError};
pub use ports::Addresses;

use crate::{
    config::Config,
    http::{self, Api, Hosts, Metrics},
};
use ingest::{
    door::{self, Door},
    pipeline::{self, Pipeline},
};
use proto::{clock::Clock, release::ReleaseBook};
use query::{Engine, EngineOptions};
use std::{
    sync::Arc,
    time::Duration,
};
use store::{Recovered, Snapshot, Store, StoreOptions};
use tokio::{sync::watch, task::spawn_blocking, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// The last seal may take this long; after that the journal has what is left.
const SEAL_WAIT: Duration = Duration::from_secs(7);

/// One running instance. Dropping it stops everything as a kill would; [`App::shutdown`] seals first.
pub struct App {
    /// Where it listens; with port 0 asked for, the port that was found.
    pub addresses: Addresses,
    snapshots: watch::Receiver<Arc<Snapshot>>,
    failed: watch::Receiver<Option<Arc<str>>>,
    pipeline: Pipeline,
    /// Doors and API; cancelled first.
    doors: CancellationToken,
    tasks: TaskTracker,
    book: watch::Sender<Arc<ReleaseBook>>,
}

impl App {
    /// Binds every door, opens the data directory, recovers, and starts judging. Returns once requests are served.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        // Ports first: a taken one is the likeliest mistake, and nothing has been touched yet.
        let ports = ports::bind(&config).await?;
        let addresses = ports.addresses;
        let (store, recovered) = open(&config).await?;
        let engine = Engine::new(EngineOptions::new(&config.data_dir))?;

        let (book_out, book) = watch::channel(Arc::new(ReleaseBook::default()));
        let (read, pipeline_config, lane_clock) = (Arc::new(config.read.clone()), config.pipeline.clone(), Arc::clone(&clock));
        let pipeline = blocking(move || pipeline::start(store, recovered, pipeline_config, read, book, lane_clock)).await??;

        let doors = CancellationToken::new();
        let tasks = TaskTracker::new();
        let door = Door::new(config.doors.clone(), pipeline.intake.clone()).map_err(StartError::Threads)?;
        tasks.spawn(door::serve_grpc(ports.otlp_grpc, Arc::clone(&door), doors.clone().cancelled_owned()));
        tasks.spawn(door::serve_http(ports.otlp_http, Arc::clone(&door), doors.clone().cancelled_owned()));
        let api = Arc::new(Api {
            hosts: Hosts::new(config.hosts.iter().cloned().chain(config.public_host())),
            engine,
            snapshots: pipeline.snapshots.clone(),
            failed: pipeline.failed.clone(),
            metrics: Metrics::new(Arc::clone(&door), Arc::clone(&pipeline.counters)),
            stopping: doors.clone(),
            clock,
        });
        tasks.spawn(http::serve(ports.http, http::router(api), doors.clone()));
        tasks.close();
        Ok(Self {
            addresses,
            snapshots: pipeline.snapshots.clone(),
            failed: pipeline.failed.clone(),
            pipeline,
            doors,
            tasks,
            book: book_out,
        })
    }

    /// The latest snapshot of rows and cells.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.snapshots.clone()
    }

    /// Resolves when ingest cannot go on by itself: the instance should be shut down then.
    pub async fn failed(&self) {
        let mut failed = self.failed.clone();
        if failed.wait_for(Option::is_some).await.is_err() {
            tracing::error!("ingest has stopped");
        }
    }

    /// Closes the doors, finishes what was begun, seals. Takes less than 10 s.
    ///
    /// # Errors
    /// If not everything could be sealed; what was acknowledged is in the journal all the same.
    pub async fn shutdown(self) -> Result<(), StopError> {
        self.doors.cancel();
        self.tasks.wait().await;
        let pipeline = self.pipeline;
        match timeout(SEAL_WAIT, spawn_blocking(move || pipeline.shutdown())).await {
            Ok(Ok(sealed)) => Ok(sealed?),
            Ok(Err(panic)) => Err(StopError::Panicked(panic.to_string())),
            Err(_) => Err(StopError::SealTooSlow(SEAL_WAIT)),
        }
    }
}

async fn open(config: &Config) -> Result<(Store, Recovered), StartError> {
    let (dir, recovery) = (config.data_dir.clone(), config.recovery);
    let (store, recovered) =
        blocking(move || Store::open(&dir, StoreOptions { recovery, ..StoreOptions::default() })).await??;
    let report = &recovered.report;
    tracing::info!(
        commit = report.commit_seq, records = report.records, torn_bytes = report.truncated_bytes,
        "data directory {} opened", config.data_dir.display()
    );
    if report.lost_records > 0 || !report.quarantined.is_empty() {
        tracing::warn!(
            lost_records = report.lost_records, skipped_bytes = report.skipped_bytes, quarantined = ?report.quarantined,
            "acknowledged data could not be read and are left out"
        );
    }
    Ok((store, recovered))
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StartError> {
    spawn_blocking(work).await.map_err(|panic| StartError::Panicked(panic.to_string()))
}
