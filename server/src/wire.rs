//! The composition root: one running instance, made of store, doors, pipeline, gates and query.
//!
//! ```text
//! doors > pipeline > snapshots --feed--> desk > book > pipeline
//!                       +--> query engine --> API <-- desk
//! ```

mod error;
mod feed;
mod impairment;
mod looks;
mod measurer;
mod ports;
mod reload;

pub use error::{StartError, StopError};
pub use ports::Addresses;
pub use reload::Reloader;

use crate::{
    config::{Config, DRAIN_MAX, Reloads},
    http::{self, Api, Metrics, Watched},
    secrets,
};
use feed::Feed;
use gates::desk::{self, DeskConfig, DeskError, DeskHandle, GateInput};
use impairment::Impairment;
use ingest::{
    door::{self, Door},
    pipeline::{self, Pipeline, Suspects},
};
use measurer::{Findings, Measurer};
use proto::{clock::Clock, layout, release::ReleaseSpec};
use query::{Engine, EngineOptions};
use std::{sync::Arc, time::Duration};
use store::{Recovered, Snapshot, Store, StoreOptions};
use tokio::{sync::watch, task::spawn_blocking, time::timeout};
use tokio_util::{
    sync::{CancellationToken, DropGuard},
    task::TaskTracker,
};

/// An instance stops within this time: open requests first, then the desk, then the last seal.
pub const STOP_MAX: Duration = Duration::from_secs(10);
/// The desk may finish a decision it has begun.
const DESK_WAIT: Duration = Duration::from_secs(1);
/// The last seal may take this long; after that the journal has what is left.
const SEAL_WAIT: Duration = Duration::from_secs(6);
const _: () = assert!(DRAIN_MAX.as_millis() + DESK_WAIT.as_millis() + SEAL_WAIT.as_millis() < STOP_MAX.as_millis());

/// One running instance. Dropping it stops everything as a kill would; [`App::shutdown`] seals first.
pub struct App {
    /// Where it listens; with port 0 asked for, the port that was found.
    pub addresses: Addresses,
    desk: DeskHandle,
    pipeline: Pipeline,
    tasks: TaskTracker,
    reloader: Reloader,
    /// Doors and API: stopped first.
    doors: CancellationToken,
    /// Feed, desk and outbox: stopped when nothing comes in any more.
    gates: CancellationToken,
    _guards: [DropGuard; 2],
}

impl App {
    /// Binds every door, opens the data directory, recovers, and starts judging. Returns once requests are served.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start(config: Config, clock: Clock) -> Result<Self, StartError> {
        // Ports first: a taken one is the likeliest mistake, and nothing has been touched yet.
        let ports = ports::bind(&config).await?;
        // Whatever fails below, the guards stop what was started before it.
        let (gates, doors) = (CancellationToken::new(), CancellationToken::new());
        let guards = [doors.clone().drop_guard(), gates.clone().drop_guard()];
        let addresses = ports.addresses;
        let (store, recovered) = open(&config).await?;
        let impairment = Impairment::new(&recovered.report);
        let engine = Arc::new(Engine::new(EngineOptions::new(&config.data_dir))?);

        let (inputs_out, inputs) = watch::channel(Arc::new(GateInput::default()));
        let (desk_config, desk_clock, desk_stop) = (desk_config(&config, addresses), Arc::clone(&clock), gates.clone());
        let desk =
            blocking(move || desk::start(desk_config, inputs, desk_clock, secrets::source(), desk_stop)).await??;
        for release in &config.releases {
            match desk.declare(release.clone(), reload::CONFIG_ACTOR).await {
                // Ingest must not be down because a route is still on trial.
                Err(taken @ DeskError::RouteTaken { .. }) => tracing::error!("{} is not declared: {taken}", release.id),
                declared => declared?,
            }
            warn_of_missing_secret(release);
        }

        let (read, limits) = (Arc::new(config.read.clone()), config.pipeline.clone());
        let (book, lane_clock) = (desk.book(), Arc::clone(&clock));
        let view = desk.view();
        let ages: Clock = Arc::new(move || view.borrow().aging.to);
        let started = move || pipeline::start(store, recovered, limits, read, book, lane_clock, ages);
        let pipeline = blocking(started).await??;

        let tasks = TaskTracker::new();
        let door = Door::new(config.doors.clone(), pipeline.intake.clone()).map_err(StartError::Threads)?;
        let (findings_out, findings) = watch::channel(Findings::default());
        let measurer = Measurer {
            engine: Arc::clone(&engine),
            snapshots: pipeline.snapshots.clone(),
            desk: desk.clone(),
            clock: Arc::clone(&clock),
            findings: findings_out,
        };
        tokio::spawn(measurer.run(gates.clone()));
        let feed = Feed {
            findings,
            snapshots: pipeline.snapshots.clone(),
            failed: pipeline.failed.clone(),
            door: Arc::clone(&door),
            pipeline: Arc::clone(&pipeline.counters),
            impairment,
            clock: Arc::clone(&clock),
            inputs: inputs_out,
        };
        tokio::spawn(feed.run(gates.clone()));
        tokio::spawn(name_suspects(
            engine.suspects(),
            pipeline.suspects.clone(),
            gates.clone(),
        ));
        let reloads = Arc::new(Reloads::default());
        let metrics = Metrics::new(Watched {
            door: Arc::clone(&door),
            pipeline: Arc::clone(&pipeline.counters),
            desk: desk.clone(),
            reloads: Arc::clone(&reloads),
            journal: config.data_dir.join(layout::JOURNAL),
        });
        tokio::spawn(metrics.count_events(desk.events(), gates.clone()));
        let (hosts_out, hosts) = watch::channel(reload::hosts(&config));
        let api = Arc::new(Api {
            hosts,
            engine,
            desk: desk.clone(),
            intake: pipeline.intake.clone(),
            clock: Arc::clone(&clock),
            snapshots: pipeline.snapshots.clone(),
            failed: pipeline.failed.clone(),
            metrics,
            stopping: doors.clone(),
        });
        tasks.spawn(door::serve_grpc(
            ports.otlp_grpc,
            Arc::clone(&door),
            doors.clone().cancelled_owned(),
        ));
        tasks.spawn(door::serve_http(
            ports.otlp_http,
            Arc::clone(&door),
            doors.clone().cancelled_owned(),
        ));
        tasks.spawn(http::serve(ports.http, http::router(api), doors.clone()));
        tasks.close();
        let reloader = Reloader::new(
            config,
            pipeline.settings.clone(),
            hosts_out,
            door,
            desk.clone(),
            reloads,
        );
        Ok(Self {
            addresses,
            reloader,
            desk,
            pipeline,
            tasks,
            doors,
            gates,
            _guards: guards,
        })
    }

    /// Where another configuration is handed in.
    #[must_use]
    pub fn reloader(&self) -> Reloader {
        self.reloader.clone()
    }

    /// Releases, verdicts, decisions.
    #[must_use]
    pub const fn desk(&self) -> &DeskHandle {
        &self.desk
    }

    /// The latest snapshot of rows and cells.
    #[must_use]
    pub fn snapshots(&self) -> watch::Receiver<Arc<Snapshot>> {
        self.pipeline.snapshots.clone()
    }

    /// Resolves when ingest cannot go on by itself: the instance should be shut down then.
    pub async fn failed(&self) {
        let mut failed = self.pipeline.failed.clone();
        if failed.wait_for(Option::is_some).await.is_err() {
            tracing::error!("ingest has stopped");
        }
    }

    /// Closes the doors, finishes what was begun, seals. Takes less than [`STOP_MAX`].
    ///
    /// # Errors
    /// If not everything could be sealed; what was acknowledged is in the journal all the same.
    pub async fn shutdown(self) -> Result<(), StopError> {
        self.doors.cancel();
        self.tasks.wait().await;
        self.gates.cancel();
        if timeout(DESK_WAIT, self.desk.stopped()).await.is_err() {
            tracing::warn!("the desk is still writing; the ledger is whole either way");
        }
        let pipeline = self.pipeline;
        match timeout(SEAL_WAIT, spawn_blocking(move || pipeline.shutdown())).await {
            Ok(Ok(sealed)) => Ok(sealed?),
            Ok(Err(panic)) => Err(StopError::Panicked(panic.to_string())),
            Err(_) => Err(StopError::SealTooSlow(SEAL_WAIT)),
        }
    }
}

/// Tells the pipeline, which looks after files, what a failed query had opened. Until `stop`.
async fn name_suspects(mut failed: watch::Receiver<Vec<String>>, suspects: Suspects, stop: CancellationToken) {
    loop {
        let changed = tokio::select! {
            () = stop.cancelled() => return,
            changed = failed.changed() => changed,
        };
        if changed.is_err() {
            return;
        }
        for path in &*failed.borrow_and_update() {
            suspects.name(path);
        }
    }
}

/// A notice that cannot be signed cannot be sent: better known now than when a rollback must go out.
fn warn_of_missing_secret(release: &ReleaseSpec) {
    if let Some(webhook) = &release.webhook
        && let Err(error) = secrets::source()(webhook)
    {
        tracing::warn!(release = release.id, "its notices cannot be signed: {error}");
    }
}

fn desk_config(config: &Config, addresses: Addresses) -> DeskConfig {
    let public_url = config
        .public_url
        .clone()
        .unwrap_or_else(|| format!("http://{}", addresses.http));
    DeskConfig {
        resolution: config.pipeline.assembly.resolution,
        webhook_allow: config.webhooks_allow.clone(),
        decisions_kept: config.decisions_kept,
        ..DeskConfig::new(config.data_dir.join(layout::LEDGER), public_url)
    }
}

async fn open(config: &Config) -> Result<(Store, Recovered), StartError> {
    let (dir, recovery) = (config.data_dir.clone(), config.recovery);
    let (store, recovered) = blocking(move || {
        Store::open(
            &dir,
            StoreOptions {
                recovery,
                ..StoreOptions::default()
            },
        )
    })
    .await??;
    let report = &recovered.report;
    tracing::info!(
        commit = report.commit_seq,
        records = report.records,
        torn_bytes = report.truncated_bytes,
        "data directory {} opened",
        config.data_dir.display()
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
    spawn_blocking(work)
        .await
        .map_err(|panic| StartError::Panicked(panic.to_string()))
}
