//! The outbox: takes notices from the ledger to their gateways, in order, until each is accepted or given up.
//!
//! One lane per route. A lane holds nothing in memory: it reads the oldest undelivered notice of its route from the
//! ledger, makes an attempt, writes down what came of it, and begins again. So a restart goes on where the last process
//! stopped, with the same id and body, and a slow receiver delays no other route. A newer movement makes older notices
//! void in the ledger; the lane then drops the attempt it is in.

pub mod schedule;

use crate::{
    ledger::{DeliveryRow, DeliveryState, Ledger, LedgerError},
    webhook::{Envelope, Outcome, SecretSource, Sender},
};
use proto::clock::Clock;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{Notify, mpsc},
};
use tokio_util::sync::CancellationToken;

/// Longest sleep between two looks at the ledger, so that a stepped clock cannot put a notice off for long.
const SLEEP_MAX: Duration = Duration::from_secs(300);
/// Pause after the ledger itself failed.
const DISK_PAUSE: Duration = Duration::from_secs(1);

/// What a lane needs.
struct Shared {
    ledger: Arc<Ledger>,
    sender: Sender,
    secrets: SecretSource,
    clock: Clock,
    reports: mpsc::Sender<DeliveryRow>,
    shutdown: CancellationToken,
}

/// Wakes lanes; cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    shared: Arc<Shared>,
    lanes: Arc<Mutex<BTreeMap<String, Arc<Notify>>>>,
    runtime: Handle,
}

impl Outbox {
    /// An outbox over `ledger`; every attempt's row goes to `reports`. Must be called within a tokio runtime. Nothing is
    /// sent before [`Outbox::wake`] names a route.
    #[must_use]
    pub fn new(
        ledger: Arc<Ledger>,
        sender: Sender,
        secrets: SecretSource,
        clock: Clock,
        reports: mpsc::Sender<DeliveryRow>,
        shutdown: CancellationToken,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                ledger,
                sender,
                secrets,
                clock,
                reports,
                shutdown,
            }),
            lanes: Arc::default(),
            runtime: Handle::current(),
        }
    }

    /// Something about the notices of `route` has changed in the ledger.
    pub fn wake(&self, route: &str) {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(lane) = lanes.get(route) {
            lane.notify_one();
            return;
        }
        let lane = Arc::new(Notify::new());
        lanes.insert(route.to_owned(), Arc::clone(&lane));
        let shared = Arc::clone(&self.shared);
        let route = route.to_owned();
        self.runtime.spawn(async move { run(&shared, &route, &lane).await });
    }
}

async fn run(shared: &Arc<Shared>, route: &str, woken: &Notify) {
    while !shared.shutdown.is_cancelled() {
        let next = match oldest(shared, route).await {
            Ok(next) => next,
            Err(e) => {
                tracing::error!(route, error = %e, "outbox cannot read the ledger");
                pause(shared, woken, DISK_PAUSE).await;
                continue;
            }
        };
        let Some(row) = next else {
            tokio::select! {
                () = woken.notified() => {}
                () = shared.shutdown.cancelled() => {}
            }
            continue;
        };
        let wait = row.next_attempt_at.since((shared.clock)()).min(SLEEP_MAX);
        if !wait.is_zero() && pause(shared, woken, wait).await {
            continue;
        }
        if shared.shutdown.is_cancelled() {
            return;
        }
        attempt(shared, route, woken, row).await;
    }
}

/// Sleeps; true if woken (or shut down) before the time was over.
async fn pause(shared: &Shared, woken: &Notify, wait: Duration) -> bool {
    tokio::select! {
        () = tokio::time::sleep(wait) => false,
        () = woken.notified() => true,
        () = shared.shutdown.cancelled() => true,
    }
}

async fn attempt(shared: &Arc<Shared>, route: &str, woken: &Notify, row: DeliveryRow) {
    let started = (shared.clock)();
    let envelope = Envelope {
        id: row.id.clone(),
        url: row.webhook.url.clone(),
        body: row.body.clone(),
    };
    let sending = async {
        match secrets(shared, &row).await {
            Ok(keys) => shared.sender.attempt(&envelope, &keys, started).await,
            Err(error) => Outcome::Failed {
                status: None,
                error,
                retry_after: None,
            },
        }
    };
    tokio::pin!(sending);
    let outcome = loop {
        tokio::select! {
            outcome = &mut sending => break outcome,
            () = shared.shutdown.cancelled() => return,
            () = woken.notified() => {
                let still = oldest(shared, route).await;
                if still.is_ok_and(|next| next.is_none_or(|next| next.id != row.id)) {
                    tracing::info!(route, id = row.id, "notice superseded while it was being sent");
                    woken.notify_one();
                    return;
                }
            }
        }
    };
    let gone = matches!(outcome, Outcome::Gone);
    let clock = Arc::clone(&shared.clock);
    let ledger = Arc::clone(&shared.ledger);
    let id = row.id.clone();
    let url = row.webhook.url.clone();
    let written = blocking(move || {
        let now = clock();
        if gone {
            ledger.disable(&url, now)?;
        }
        ledger.record_attempt(&id, |row| apply(row, &outcome, started, now))
    })
    .await;
    match written {
        Ok(Some(row)) => {
            match row.state {
                DeliveryState::Delivered => {
                    tracing::info!(route, id = row.id, attempts = row.attempts, "notice accepted");
                }
                _ => tracing::warn!(
                    route,
                    id = row.id,
                    attempts = row.attempts,
                    error = row.last_error.as_deref().unwrap_or_default(),
                    "notice not accepted"
                ),
            }
            // the desk may be gone at shutdown
            let _ = shared.reports.send(row).await;
        }
        Ok(None) => {}
        Err(e) => {
            tracing::error!(route, error = %e, "outbox cannot write to the ledger; the notice will be sent again");
            pause(shared, woken, DISK_PAUSE).await;
        }
    }
}

fn apply(row: &mut DeliveryRow, outcome: &Outcome, started: proto::Nanos, now: proto::Nanos) {
    row.attempts += 1;
    match outcome {
        Outcome::Accepted(status) => {
            row.state = DeliveryState::Delivered;
            row.last_status = Some(*status);
            row.last_error = None;
            row.delivered_at = Some(now);
        }
        Outcome::Gone => {
            row.state = DeliveryState::Dead;
            row.last_status = Some(410);
            row.last_error = Some("answered 410 Gone: nothing more is sent there".to_owned());
        }
        Outcome::Failed {
            status,
            error,
            retry_after,
        } => {
            row.last_status = *status;
            row.last_error = Some(error.clone());
            let age = now.since(row.created_at);
            match schedule::wait(row.attempts, age, rand::random()) {
                Some(wait) => {
                    let asked = now.plus(retry_after.unwrap_or_default());
                    row.next_attempt_at = started.plus(wait).max(asked);
                }
                None => row.state = DeliveryState::Dead,
            }
        }
    }
}

async fn secrets(shared: &Arc<Shared>, row: &DeliveryRow) -> Result<Vec<proto::signature::Secret>, String> {
    let source = Arc::clone(&shared.secrets);
    let webhook = row.webhook.clone();
    // it may read a file
    let found = tokio::task::spawn_blocking(move || source(&webhook)).await;
    match found {
        Ok(Ok(keys)) if keys.is_empty() => Err("no webhook secret is set".to_owned()),
        Ok(keys) => keys,
        Err(e) => Err(format!("the webhook secret could not be read: {e}")),
    }
}

async fn oldest(shared: &Arc<Shared>, route: &str) -> Result<Option<DeliveryRow>, LedgerError> {
    let ledger = Arc::clone(&shared.ledger);
    let route = route.to_owned();
    blocking(move || ledger.oldest_pending(&route)).await
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, LedgerError> + Send + 'static,
) -> Result<T, LedgerError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(result) => result,
        Err(e) => Err(LedgerError::Disk(format!("interrupted: {e}"))),
    }
}
