//! The desk: cells in, decisions into the ledger, notices out.
//!
//! ```text
//! GateInput (watch) --pace--> docket thread: judge > life > ledger (fsync) > book, outbox, view, events
//!                                  ^ declare, command                     <--reports-- outbox lanes
//! ```
//!
//! One thread owns every release and takes one message at a time, so nothing is judged while it changes. The async side
//! only forwards. A decision is in the ledger before the book changes, and the book has changed before the gateway hears
//! of it.

mod docket;
mod error;
mod evidence;
mod input;
mod notice;
mod observed;
mod plan;
pub(crate) mod reading;
mod recount;
mod tally;
mod view;

pub use crate::ledger::Freeze;
pub use error::DeskError;
pub use evidence::{ALGORITHM, Verified, verify_bundle};
pub use input::{GateInput, Provenance, Whence};
pub use recount::Statement;
pub use view::{Aging, DeskEvent, DeskView, ReleaseSummary};

use crate::{
    check::check_spec,
    ledger::{Chain, DecisionRow, DeliveryRow, Ledger, LedgerError, ReleaseRow},
    life::Command,
    outbox::Outbox,
    webhook::{SecretSource, Sender, address::Guard},
};
use docket::{Docket, Message, Outlets, pace};
use ipnet::IpNet;
use proto::{
    Nanos,
    clock::Clock,
    decision::{Desired, VerdictReport},
    measure::MeasurePlan,
    release::{ReleaseBook, ReleaseSpec},
};
use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::{broadcast, mpsc, oneshot, watch},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Messages that may wait for the desk.
const MESSAGES_MAX: usize = 256;
/// Events a slow listener may lag behind before it loses some.
const EVENTS_MAX: usize = 1_024;
/// How long decisions are kept if nothing else is said.
pub const DECISIONS_KEPT: Duration = Duration::from_secs(400 * 24 * 3_600);
/// Rows that one list answer holds.
pub const ROWS_MAX: usize = 1_000;

/// How the desk works.
#[derive(Debug, Clone)]
pub struct DeskConfig {
    /// The ledger's file.
    pub ledger_path: PathBuf,
    /// Width of a cell's minute, whole seconds.
    pub resolution: Duration,
    /// Base of the addresses in notices, `http://127.0.0.1:4320`.
    pub public_url: String,
    /// Networks of `[webhooks] allow`.
    pub webhook_allow: Vec<IpNet>,
    /// Longest time between two judgements.
    pub cycle_max: Duration,
    /// How long a movement may take to show in new spans before people are told; `None`: a minute or five slots,
    /// whichever is longer, and the release's timeout.
    pub effect_deadline: Option<Duration>,
    /// How long decisions of settled releases are kept, with their evidence.
    pub decisions_kept: Duration,
}

impl DeskConfig {
    /// A desk with the usual times.
    #[must_use]
    pub fn new(ledger_path: PathBuf, public_url: String) -> Self {
        Self {
            ledger_path,
            resolution: Duration::from_secs(60),
            public_url,
            webhook_allow: Vec::new(),
            cycle_max: Duration::from_millis(250),
            effect_deadline: None,
            decisions_kept: DECISIONS_KEPT,
        }
    }

    fn effect_deadline(&self, timeout: Duration) -> Duration {
        self.effect_deadline
            .unwrap_or_else(|| Duration::from_secs(60).max(self.resolution * 5) + timeout)
    }

    /// An address below `public_url`, its segments encoded.
    fn address(&self, segments: &[&str]) -> String {
        let Ok(mut url) = url::Url::parse(&self.public_url) else {
            return format!("{}/{}", self.public_url, segments.join("/"));
        };
        if let Ok(mut path) = url.path_segments_mut() {
            path.pop_if_empty().extend(segments);
        }
        url.into()
    }
}

/// The way to speak with a running desk.
#[derive(Clone)]
pub struct DeskHandle {
    messages: mpsc::Sender<Message>,
    ledger: Arc<Ledger>,
    outbox: Outbox,
    book: watch::Receiver<Arc<ReleaseBook>>,
    view: watch::Receiver<Arc<DeskView>>,
    events: broadcast::Sender<DeskEvent>,
    clock: Clock,
    resolution: Duration,
    guard: Guard,
    stopped: CancellationToken,
}

/// Opens the ledger and starts the desk. Must be called within a tokio runtime. Undelivered notices of the last process
/// are sent once `inputs` is ready and has been judged.
///
/// # Errors
/// If the ledger cannot be opened or no HTTP client can be built.
pub fn start(
    config: DeskConfig,
    inputs: watch::Receiver<Arc<GateInput>>,
    clock: Clock,
    secrets: SecretSource,
    shutdown: CancellationToken,
) -> Result<DeskHandle, DeskError> {
    let ledger = Arc::new(Ledger::open(&config.ledger_path)?);
    let guard = Guard::new(config.webhook_allow.clone());
    let sender = Sender::new(guard.clone()).map_err(DeskError::Webhook)?;
    let (messages, inbox) = mpsc::channel(MESSAGES_MAX);
    let (reports, attempted) = mpsc::channel(MESSAGES_MAX);
    let outbox = Outbox::new(
        Arc::clone(&ledger),
        sender,
        secrets,
        Arc::clone(&clock),
        reports,
        shutdown.clone(),
    );
    let (book_out, book) = watch::channel(Arc::default());
    let (view_out, view) = watch::channel(Arc::default());
    let (events, _) = broadcast::channel(EVENTS_MAX);
    let cost_us = Arc::new(AtomicU64::new(0));
    let cycle_max = config.cycle_max;
    let resolution = config.resolution;
    let docket = Docket::open(
        config,
        Arc::clone(&ledger),
        inputs.clone(),
        Arc::clone(&clock),
        Outlets {
            outbox: outbox.clone(),
            book: book_out,
            view: view_out,
            events: events.clone(),
            cost_us: Arc::clone(&cost_us),
        },
    )?;
    let stopped = CancellationToken::new();
    let done = stopped.clone().drop_guard();
    std::thread::Builder::new()
        .name("desk".to_owned())
        .spawn(move || {
            docket.run(inbox);
            drop(done);
        })
        .map_err(DeskError::Thread)?;
    tokio::spawn(forward(
        messages.clone(),
        inputs,
        attempted,
        cost_us,
        cycle_max,
        shutdown,
    ));
    Ok(DeskHandle {
        messages,
        ledger,
        outbox,
        book,
        view,
        events,
        clock,
        resolution,
        guard,
        stopped,
    })
}

/// Wakes the desk for changed inputs, at a pace it can keep, and at least every `cycle_max`.
async fn forward(
    messages: mpsc::Sender<Message>,
    mut inputs: watch::Receiver<Arc<GateInput>>,
    mut attempted: mpsc::Receiver<DeliveryRow>,
    cost_us: Arc<AtomicU64>,
    cycle_max: Duration,
    shutdown: CancellationToken,
) {
    let mut last = Instant::now();
    let mut changed = true;
    loop {
        let gap = if changed {
            pace(Duration::from_micros(cost_us.load(Ordering::Relaxed)), cycle_max)
        } else {
            cycle_max
        };
        tokio::select! {
            () = shutdown.cancelled() => break,
            Some(row) = attempted.recv() => {
                if messages.send(Message::Attempted(Box::new(row))).await.is_err() {
                    return;
                }
            }
            got = inputs.changed(), if !changed => {
                if got.is_err() {
                    break;
                }
                changed = true;
            }
            () = tokio::time::sleep_until(last + gap) => {
                changed = false;
                last = Instant::now();
                inputs.mark_unchanged();
                if messages.send(Message::Wake).await.is_err() {
                    return;
                }
            }
        }
    }
    // the thread may have ended by itself
    let _ = messages.send(Message::Stop).await;
}

impl DeskHandle {
    /// The book of releases, for ingest.
    #[must_use]
    pub fn book(&self) -> watch::Receiver<Arc<ReleaseBook>> {
        self.book.clone()
    }

    /// Everything that can be read without asking; also wakes those who wait for a new `desired`.
    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<DeskView>> {
        self.view.clone()
    }

    /// What happens from now on.
    #[must_use]
    pub fn events(&self) -> broadcast::Receiver<DeskEvent> {
        self.events.subscribe()
    }

    /// Declares a release. Known by id and unchanged it is left alone.
    ///
    /// # Errors
    /// If its rules are not acceptable, differ from those it was first declared with, or its route is taken.
    pub async fn declare(&self, spec: ReleaseSpec, actor: &str) -> Result<(), DeskError> {
        check_spec(&spec).map_err(DeskError::Rules)?;
        let (reply, answer) = oneshot::channel();
        let message = Message::Declare {
            spec: Box::new(spec),
            actor: actor.to_owned(),
            reply,
        };
        self.ask(message, answer).await?
    }

    /// Carries out what a person decided and returns the decision, if it made one (`resume` does not).
    ///
    /// # Errors
    /// If there is no such release, or the state it is in does not allow it.
    pub async fn command(
        &self,
        release: &str,
        command: Command,
        actor: &str,
        reason: &str,
    ) -> Result<Option<DecisionRow>, DeskError> {
        let (reply, answer) = oneshot::channel();
        let message = Message::Command {
            release: release.to_owned(),
            command,
            actor: actor.to_owned(),
            reason: reason.to_owned(),
            reply,
        };
        self.ask(message, answer).await?
    }

    async fn ask<T>(&self, message: Message, answer: oneshot::Receiver<T>) -> Result<T, DeskError> {
        self.messages.send(message).await.map_err(|_| DeskError::Closed)?;
        answer.await.map_err(|_| DeskError::Closed)
    }

    /// Forbids promotions (and advances) on one route or all, from now on until `until` or until it is lifted. Rollbacks are
    /// never held up.
    ///
    /// # Errors
    /// If the ledger cannot be written.
    pub async fn freeze(&self, freeze: Freeze) -> Result<(), DeskError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Message::Freeze { freeze, reply }, answer).await?
    }

    /// Lifts the freezes of one route, or those of all routes. True if there was any.
    ///
    /// # Errors
    /// If the ledger cannot be written.
    pub async fn thaw(&self, route: Option<String>) -> Result<bool, DeskError> {
        let (reply, answer) = oneshot::channel();
        self.ask(Message::Thaw { route, reply }, answer).await?
    }

    /// Freezes in force, or still to come.
    #[must_use]
    pub fn freezes(&self) -> Vec<Freeze> {
        self.view.borrow().freezes.clone()
    }

    /// What running releases ask of the rows; the answers come back in [`GateInput::measured`].
    #[must_use]
    pub fn plans(&self) -> Vec<MeasurePlan> {
        let view = Arc::clone(&self.view.borrow());
        let running = view.releases.values().filter(|r| !r.state.phase.is_over());
        running.map(|row| plan::of(row, self.resolution)).collect()
    }

    /// How often each invariant of a release's life was found broken; all zero unless there is a fault in tracegate.
    #[must_use]
    pub fn violations(&self) -> BTreeMap<&'static str, u64> {
        self.view.borrow().violations.clone()
    }

    /// The verdict of a release; `None` if there is no such release.
    #[must_use]
    pub fn verdict(&self, release: &str) -> Option<VerdictReport> {
        let view = self.view.borrow();
        view.verdicts.get(release).map(|r| (**r).clone())
    }

    /// All releases, by id.
    #[must_use]
    pub fn releases(&self) -> Vec<ReleaseSummary> {
        let view = Arc::clone(&self.view.borrow());
        view.releases
            .iter()
            .map(|(id, row)| view::summary(row, view.verdicts.get(id).map(|r| &**r)))
            .collect()
    }

    /// One release in full: rules, state, what people did.
    #[must_use]
    pub fn release(&self, id: &str) -> Option<Arc<ReleaseRow>> {
        self.view.borrow().releases.get(id).cloned()
    }

    /// Networks that notices may go to from now on, beside public addresses.
    pub fn allow_webhooks(&self, networks: Vec<IpNet>) {
        self.guard.set_allow(networks);
    }

    /// The release in force on a route, or the last one.
    #[must_use]
    pub fn release_of_route(&self, route: &str) -> Option<String> {
        let view = Arc::clone(&self.view.borrow());
        view.releases
            .values()
            .filter(|r| r.spec.route == route)
            .max_by_key(|r| (!r.state.phase.is_over(), r.state.opened))
            .map(|r| r.spec.id.clone())
    }

    /// What a route should be on; `None` before the first movement was decided.
    #[must_use]
    pub fn desired(&self, route: &str) -> Option<Desired> {
        self.view.borrow().desired.get(route).cloned()
    }

    /// Waits until the decision of `route` is newer than `after`, or `wait` is over; then what it should be on.
    pub async fn desired_after(&self, route: &str, after: Option<i64>, wait: Duration) -> Option<Desired> {
        let mut view = self.view.clone();
        let newer = view.wait_for(|v| {
            v.desired
                .get(route)
                .is_some_and(|d| after.is_none_or(|seq| d.decision_seq > seq))
        });
        // a timeout and a closed desk both answer with what is known
        let _ = tokio::time::timeout(wait, newer).await;
        self.desired(route)
    }

    /// When anything was last judged.
    #[must_use]
    pub fn last_judged(&self) -> Option<Nanos> {
        self.view.borrow().last_judged
    }

    /// The newest decisions first, [`ROWS_MAX`] at most.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn decisions(&self) -> Result<Vec<DecisionRow>, DeskError> {
        self.read(|ledger| ledger.decisions(ROWS_MAX)).await
    }

    /// One decision and its evidence bundle (JSON text, exactly as hashed); `None` if there is none.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn decision(&self, id: &str) -> Result<Option<(DecisionRow, String)>, DeskError> {
        let id = id.to_owned();
        self.read(move |ledger| ledger.decision(&id)).await
    }

    /// The newest deliveries first, [`ROWS_MAX`] at most.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn deliveries(&self) -> Result<Vec<DeliveryRow>, DeskError> {
        self.read(|ledger| ledger.deliveries(ROWS_MAX)).await
    }

    /// Sends a dead notice again.
    ///
    /// # Errors
    /// [`DeskError::NoReplay`] if there is no such delivery or a newer decision replaced it.
    pub async fn replay(&self, delivery: &str) -> Result<DeliveryRow, DeskError> {
        let id = delivery.to_owned();
        let now = (self.clock)();
        let row = self
            .read(move |ledger| ledger.replay(&id, now))
            .await?
            .ok_or_else(|| DeskError::NoReplay(delivery.to_owned()))?;
        self.outbox.wake(&row.route);
        Ok(row)
    }

    /// What becomes of what is old: see [`proto::ages`] for the time to which ages count.
    #[must_use]
    pub fn aging(&self) -> Aging {
        self.view.borrow().aging
    }

    /// Recomputes the hash chain of all decisions: how many and where it begins, or the id of the first that was changed.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub async fn verify_chain(&self) -> Result<Result<Chain, String>, DeskError> {
        self.read(Ledger::verify_chain).await
    }

    /// Returns when the desk's thread has ended.
    pub async fn stopped(&self) {
        self.stopped.cancelled().await;
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Ledger) -> Result<T, LedgerError> + Send + 'static,
    ) -> Result<T, DeskError> {
        let ledger = Arc::clone(&self.ledger);
        match tokio::task::spawn_blocking(move || work(&ledger)).await {
            Ok(result) => Ok(result?),
            Err(_) => Err(DeskError::Closed),
        }
    }
}
