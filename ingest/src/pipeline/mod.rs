//! Three threads in a row, and two beside them.
//!
//! ```text
//! Intake --requests--> lane --groups, ticks--> journal --durable batches, ticks--> engine --Arc<Snapshot>--> readers
//!                       ^                        |  |                                ^ |
//!                       +------- done -----------+  +--> acks                results | | captures   answers | | asks
//!                                                                                    seal                   lookup
//! ```
//!
//! While nothing is to be sealed, the seal thread looks after sealed files ([`store::upkeep`]).
//!
//! Every channel is bounded, so whoever is slow pushes back to the doors. Ticks go through the same queues as batches:
//! what a replay sees is what the engine saw. Nothing reaches the engine before it is on disk.

mod config;
mod counters;
mod digests;
mod engine;
mod error;
mod fold;
mod journal;
mod lane;
mod lookup;
mod replay;
mod rows;
mod seal;
mod state;
mod suspects;

pub use config::PipelineConfig;
pub use counters::{Counters, Durations};
pub use error::PipelineError;
pub use suspects::Suspects;

use crate::{
    intake::Intake,
    read::{ReadConfig, Reader},
};
use crossbeam_channel::{Sender, bounded};
use digests::{Known, Requests};
use engine::Engine;
use fold::Fold;
use journal::JournalThread;
use lane::{Lane, LaneOrder};
use lookup::LookupThread;
use proto::{clock::Clock, release::ReleaseBook};
use replay::replay;
use seal::SealThread;
use std::{
    fmt::Display,
    sync::{Arc, atomic::AtomicBool},
    thread::JoinHandle,
    time::{Duration, Instant},
};
use store::{Recovered, Snapshot, Store};
use tokio::sync::watch;

/// Groups and ticks between lane and journal.
const ENTRIES_MAX: usize = 8;
/// Batches and ticks between journal and engine.
const EVENTS_MAX: usize = 8;

/// What of a pipeline can change while it runs. The journal holds rows that were read already, so a replay gives the same
/// rows whatever stands here by then.
#[derive(Debug, Clone)]
pub struct Settings {
    /// How requests are read, from the next group on.
    pub read: Arc<ReadConfig>,
    /// Unsealed rows are sealed at this age.
    pub seal_age: Duration,
}

/// Where a thread says that it cannot go on. The first reason stays.
#[derive(Debug, Clone)]
struct Fault(Arc<watch::Sender<Option<Arc<str>>>>);

impl Fault {
    fn raise(&self, reason: &dyn Display) {
        tracing::error!(%reason, "ingest stops");
        let reason: Arc<str> = reason.to_string().into();
        self.0.send_if_modified(|raised| {
            let first = raised.is_none();
            raised.get_or_insert(reason);
            first
        });
    }
}

/// A running pipeline. Dropping it stops the threads as a kill would: nothing is sealed, nothing more is acked.
#[derive(Debug)]
pub struct Pipeline {
    /// Where doors hand requests in; clones may outlive the pipeline, and are then refused.
    pub intake: Intake,
    /// The latest snapshot; changes with every publication.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// What was counted.
    pub counters: Arc<Counters>,
    /// What can change while it runs; send another value and it holds within a tick or a group.
    pub settings: watch::Sender<Settings>,
    /// Why it stopped by itself, if it did: the process should end and start again.
    pub failed: watch::Receiver<Option<Arc<str>>>,
    /// Where files are named that could not be read.
    pub suspects: Suspects,
    /// Gone with the pipeline: then a seal that keeps failing holds nobody up.
    seal_now: Option<Sender<()>>,
    orders: Option<Sender<LaneOrder>>,
    threads: Vec<JoinHandle<()>>,
}

/// Replays the journal, publishes, and starts the threads: when this returns, everything acked is visible and requests
/// may come. It blocks for as long as the replay takes. `ages` says to what time the age of sealed files counts.
///
/// # Errors
/// If a record or the state of the newest commit cannot be read, or a thread cannot be started.
pub fn start(
    mut store: Store,
    recovered: Recovered,
    config: PipelineConfig,
    read: Arc<ReadConfig>,
    mut book: watch::Receiver<Arc<ReleaseBook>>,
    clock: Clock,
    ages: Clock,
) -> Result<Pipeline, PipelineError> {
    let journal = store.journal().ok_or(PipelineError::JournalTaken)?;
    let counters = Arc::new(Counters::default());
    let sealing = SealThread::new(store.sealer(), Arc::clone(&counters))?;
    let (suspects, named) = Suspects::new();
    let looking = LookupThread {
        suspects: suspects.clone(),
        root: store.sealer().dir().to_owned(),
        counters: Arc::clone(&counters),
    };
    let first_book = Arc::clone(&book.borrow_and_update());
    let go_on = Arc::new(AtomicBool::new(true));
    let (fault_out, failed) = watch::channel(None);
    let fault = Fault(Arc::new(fault_out));
    let (work_in, work) = bounded(1);
    let (results_in, results) = bounded(1);
    let called_off = Arc::clone(&go_on);
    let seal = spawn("seal", &fault, move || sealing.run(work, results_in, called_off))?;
    let replayed = replay(recovered, &config, first_book, &work_in, &results);
    let (mut fold, sealing) = match replayed {
        Ok(replayed) => replayed,
        Err(error) => {
            // Whoever opens the directory again must find nobody in it.
            drop((work_in, results));
            _ = seal.join();
            return Err(error);
        }
    };
    let last = fold.now();
    let requests = requests_of(&fold, &config);

    let (snapshot_out, snapshots) = watch::channel(fold.publish());
    counters.set_assembly(fold.counts());
    counters.set_published(Instant::now());
    let (settings_in, settings) = watch::channel(Settings {
        read: Arc::clone(&read),
        seal_age: config.seal_age,
    });
    let (intake, envelopes) = Intake::new(config.queued_requests_max);
    let (entries_in, entries) = bounded(ENTRIES_MAX);
    let (events_in, events) = bounded(EVENTS_MAX);
    let (done_in, done) = bounded(ENTRIES_MAX);
    let (seal_now, seal_asked) = bounded(1);
    let (lookups_in, lookups) = bounded(1);
    let (answers_in, answers) = bounded(1);
    let (orders_in, orders) = bounded(1);

    let engine = Engine {
        fold,
        sealing,
        publish_window: config.publish_window,
        seal_retry: config.seal_retry,
        book,
        settings: settings.clone(),
        events,
        seal_now: seal_asked,
        work: work_in,
        results,
        go_on,
        suspects: named,
        upkeep_every: config.upkeep_every,
        ages,
        lookups: lookups_in,
        answers,
        snapshots: snapshot_out,
        counters: Arc::clone(&counters),
        fault: fault.clone(),
    };
    let journal = JournalThread {
        journal,
        entries,
        done: done_in,
        events: events_in,
        counters: Arc::clone(&counters),
        fault: fault.clone(),
    };
    let lane = Lane {
        reader: Reader::new(read),
        settings,
        requests,
        clock,
        intake: envelopes,
        orders,
        entries: entries_in,
        done,
        counters: Arc::clone(&counters),
        open: lane::Open::default(),
        time: lane::Onward::from(last),
        config,
    };
    let closing = intake.clone();
    let threads = vec![
        spawn("lane", &fault, move || {
            lane.run();
            closing.close();
        })?,
        spawn("journal", &fault, move || journal.run())?,
        spawn("engine", &fault, move || engine.run())?,
        seal,
        spawn("lookup", &fault, move || looking.run(lookups, answers_in))?,
    ];
    Ok(Pipeline {
        intake,
        snapshots,
        counters,
        settings: settings_in,
        failed,
        suspects,
        seal_now: Some(seal_now),
        orders: Some(orders_in),
        threads,
    })
}

/// Raises the fault if its thread panics: the neighbours then stop, and somebody must be told why.
struct Alarm {
    name: &'static str,
    fault: Fault,
}

impl Drop for Alarm {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.fault
                .raise(&format_args!("thread {} panicked, see the log", self.name));
        }
    }
}

fn spawn(
    name: &'static str,
    fault: &Fault,
    run: impl FnOnce() + Send + 'static,
) -> Result<JoinHandle<()>, PipelineError> {
    let alarm = Alarm {
        name,
        fault: fault.clone(),
    };
    std::thread::Builder::new()
        .name(name.to_owned())
        .spawn(move || {
            let _alarm = alarm;
            run();
        })
        .map_err(|source| PipelineError::Thread { name, source })
}

fn requests_of(fold: &Fold, config: &PipelineConfig) -> Requests {
    let mut requests = Requests::new(config.digest_age, config.digests_max);
    for (at, digests) in fold.digests() {
        for &digest in digests.iter() {
            requests.insert(*at, digest, Known { group: 0, rejected: 0 });
        }
    }
    requests
}

impl Pipeline {
    /// Asks for everything to be sealed now; returns at once.
    pub fn seal_now(&self) {
        _ = self.seal_now.as_ref().map(|asked| asked.try_send(()));
    }

    /// Takes what waits, acks it, seals everything and stops.
    ///
    /// # Errors
    /// Why it stopped before, if it did.
    pub fn shutdown(mut self) -> Result<(), PipelineError> {
        if let Some(orders) = &self.orders {
            _ = orders.send(LaneOrder::Drain);
        }
        self.join();
        match self.failed.borrow().as_deref() {
            Some(reason) => Err(PipelineError::Stopped(reason.to_owned())),
            None => Ok(()),
        }
    }

    fn join(&mut self) {
        for thread in self.threads.drain(..) {
            _ = thread.join();
        }
        self.orders = None;
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        (self.orders, self.seal_now) = (None, None);
        self.join();
    }
}
