//! From snapshots to the desk: cells as they change, and whether they can be trusted.

use super::{impairment::Impairment, measurer::Findings};
use gates::desk::{GateInput, Provenance, Whence};
use ingest::{door::Door, pipeline::Counters};
use proto::{Nanos, clock::Clock};
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};
use store::Snapshot;
use tokio::{
    sync::watch,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;

/// How often the doors are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// What the feed reads.
pub(super) struct Feed {
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    pub failed: watch::Receiver<Option<Arc<str>>>,
    pub door: Arc<Door>,
    pub pipeline: Arc<Counters>,
    pub impairment: Impairment,
    pub clock: Clock,
    pub inputs: watch::Sender<Arc<GateInput>>,
    /// What rows were asked for.
    pub findings: watch::Receiver<Findings>,
}

/// Files that a decision names at most.
const FILES_MAX: usize = 1_000;

/// Tells what of the time from a point on is visible in a snapshot. Rows are not needed for that and not kept alive.
fn whence(snapshot: &Snapshot) -> Whence {
    let (seq, journal_lsn, files) = (snapshot.seq, snapshot.lsn, Arc::clone(&snapshot.files));
    Whence::new(move |from: Nanos| {
        let judged = || files.iter().filter(|f| f.start_max >= from);
        Provenance {
            snapshot: seq,
            journal_lsn,
            files: judged().take(FILES_MAX).map(|f| f.path.clone()).collect(),
            files_total: judged().count(),
        }
    })
}

impl Feed {
    /// Until `stop`, or until nobody publishes any more.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut look = interval(LOOK_EVERY);
        look.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut impaired = self.impaired();
        self.publish(&impaired);
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                changed = self.snapshots.changed() => {
                    if changed.is_err() {
                        impaired = Some("ingest has stopped".to_owned());
                        self.publish(&impaired);
                        return;
                    }
                    self.publish(&impaired);
                }
                changed = self.findings.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.publish(&impaired);
                }
                _ = look.tick() => {
                    let now = self.impaired();
                    if now != impaired {
                        impaired = now;
                        self.publish(&impaired);
                    }
                }
            }
        }
    }

    fn impaired(&mut self) -> Option<String> {
        if let Some(reason) = &*self.failed.borrow() {
            return Some(format!("ingest has stopped: {reason}"));
        }
        let counters = self.door.counters();
        let quarantined = self.pipeline.quarantined_files.load(Relaxed);
        self.impairment
            .observe((self.clock)(), counters.came(), counters.shed(), quarantined)
    }

    fn publish(&mut self, impaired: &Option<String>) {
        let snapshot = Arc::clone(&self.snapshots.borrow_and_update());
        let findings = self.findings.borrow_and_update().clone();
        self.inputs.send_replace(Arc::new(GateInput {
            cells: snapshot.cells.clone(),
            ready: true,
            impaired: impaired.clone(),
            measured: findings.measured,
            seen: findings.seen,
            whence: whence(&snapshot),
        }));
    }
}
