//! A data directory opened in this process: store and pipeline behind an OTLP door on loopback, and nothing else. No
//! release is judged and no notice is sent; the releases of the ledger say what colors mean.

use crate::{
    clock,
    config::{Config, LoadError},
};
use gates::ledger::{Ledger, LedgerError};
use ingest::{
    door::{self, Door},
    pipeline::{self, Pipeline, PipelineError},
};
use miette::Diagnostic;
use proto::{Nanos, layout, release::ReleaseBook};
use std::{
    io,
    net::SocketAddr,
    path::Path,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use store::{Store, StoreError, StoreOptions};
use tokio::{
    net::TcpListener,
    sync::watch,
    task::{JoinHandle, spawn_blocking},
};
use tokio_util::sync::CancellationToken;

/// How often it is asked whether all traces have closed.
const LOOK: Duration = Duration::from_millis(100);
/// Beyond the quiet time after which traces close.
const SLACK: Duration = Duration::from_secs(2);

/// Why a data directory could not be imported into.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum LocalError {
    /// The configuration.
    #[error(transparent)]
    #[diagnostic(transparent)]
    Config(#[from] LoadError),
    /// The data directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal's replay, or the last seal.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The releases.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// No port, or no threads.
    #[error("cannot open a door on loopback: {0}")]
    Door(#[from] io::Error),
    /// A fault of ours.
    #[error("the import broke off: {0}; please report this")]
    Panicked(#[from] tokio::task::JoinError),
}

/// An opened data directory.
pub struct Local {
    address: SocketAddr,
    pipeline: Pipeline,
    door: JoinHandle<()>,
    stop: CancellationToken,
    /// Until the last traces close by themselves.
    settles_in: Duration,
    /// Colors stay as they were resolved.
    _book: watch::Sender<Arc<ReleaseBook>>,
}

impl Local {
    pub async fn open(dir: &Path, config: Option<&Path>) -> Result<Self, LocalError> {
        let mut config = Config::load_or_default(config)?;
        config.data_dir = dir.to_owned();
        let listener = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let limits = &config.pipeline.assembly;
        let settles_in = limits.quiet.max(limits.orphan_quiet) + SLACK;
        let doors = config.doors.clone();
        let (pipeline, book) = spawn_blocking(move || start(&config)).await??;
        let stop = CancellationToken::new();
        let door = Door::new(doors, pipeline.intake.clone())?;
        let door = tokio::spawn(door::serve_http(listener, door, stop.clone().cancelled_owned()));
        Ok(Self {
            address,
            pipeline,
            door,
            stop,
            settles_in,
            _book: book,
        })
    }

    /// Where its door is.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Whether everything acknowledged is assembled, and every trace closed.
    fn is_settled(&self) -> bool {
        let counters = &self.pipeline.counters;
        let durable = counters.durable_lsn.load(Relaxed);
        counters.published_lsn.load(Relaxed) >= durable && counters.assembly().open == 0
    }

    /// Waits until the traces have closed, if they shall, and seals everything.
    pub async fn close(self, settle: bool) -> Result<(), LocalError> {
        let begun = Instant::now();
        while settle && !self.is_settled() && begun.elapsed() < self.settles_in {
            tokio::time::sleep(LOOK).await;
        }
        self.stop.cancel();
        self.door.await?;
        let pipeline = self.pipeline;
        spawn_blocking(move || pipeline.shutdown()).await??;
        Ok(())
    }
}

fn start(config: &Config) -> Result<(Pipeline, watch::Sender<Arc<ReleaseBook>>), LocalError> {
    let options = StoreOptions {
        recovery: config.recovery,
        ..StoreOptions::default()
    };
    let (store, recovered) = Store::open(&config.data_dir, options)?;
    let (releases, aged_to) = known(&config.data_dir.join(layout::LEDGER))?;
    let (sender, book) = watch::channel(Arc::new(releases));
    let (limits, read) = (config.pipeline.clone(), Arc::new(config.read.clone()));
    // nobody watches the clock here: what the last server would have kept stays
    let ages = Arc::new(move || aged_to);
    let pipeline = pipeline::start(store, recovered, limits, read, book, clock::wall(), ages)?;
    Ok((pipeline, sender))
}

/// The releases of the ledger, and to what time ages counted, if there is one.
fn known(ledger: &Path) -> Result<(ReleaseBook, Nanos), LocalError> {
    if !ledger.exists() {
        return Ok((ReleaseBook::default(), Nanos::ZERO));
    }
    let ledger = Ledger::open(ledger)?;
    let aged_to = ledger.aged_to()?.unwrap_or_default();
    let rows = ledger.releases()?;
    let mut entries: Vec<_> = rows.iter().map(|row| row.state.book_entry(&row.spec)).collect();
    entries.sort_by(|a, b| (a.opened, &a.id).cmp(&(b.opened, &b.id)));
    Ok((ReleaseBook { entries }, aged_to))
}
