//! Asks the rows what cells cannot say, again and again, and hands the answers to the gates.
//!
//! Mirrored pairs, sessions and SQL gates are questions to the query engine; so is which paths serve a route at all. They
//! are asked over one snapshot at a time, at a pace that leaves the engine to people: after a round that took a while, a
//! rest of several times as long.

use super::looks::{LIVE_LOOKED_AT, PathLooks, SPANS_LOOKED_AT};
use gates::desk::DeskHandle;
use proto::{
    Nanos,
    cell::{Minute, Minutes},
    clock::Clock,
    measure::{Measured, SeenPath},
};
use query::{
    Engine, View,
    measure::{SqlMemory, measure, seen},
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, Instant},
};
use store::Snapshot;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Shortest rest between two rounds.
const REST_MIN: Duration = Duration::from_secs(1);
/// A rest is this many times as long as the round before it.
const REST_TIMES: u32 = 4;
/// The latest answers.
#[derive(Debug, Clone, Default)]
pub(super) struct Findings {
    /// By release.
    pub measured: Arc<BTreeMap<String, Arc<Measured>>>,
    /// Paths that served lately.
    pub seen: Option<Arc<Vec<SeenPath>>>,
}

/// What asks.
pub(super) struct Measurer {
    pub engine: Arc<Engine>,
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    pub desk: DeskHandle,
    pub clock: Clock,
    pub findings: watch::Sender<Findings>,
}

impl Measurer {
    /// Until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut memories: BTreeMap<String, SqlMemory> = BTreeMap::new();
        let mut looks = PathLooks::default();
        loop {
            let begun = Instant::now();
            let round = async {
                self.measure(&mut memories).await;
                if looks.are_due(self.snapshots.borrow().lsn) {
                    self.look(&mut looks).await;
                }
            };
            tokio::select! {
                () = stop.cancelled() => return,
                () = round => {}
            }
            let rest = REST_MIN.max(begun.elapsed() * REST_TIMES);
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(rest) => {}
            }
        }
    }

    fn view(&mut self) -> View {
        View {
            snapshot: Arc::clone(&self.snapshots.borrow_and_update()),
            ..View::default()
        }
    }

    async fn measure(&mut self, memories: &mut BTreeMap<String, SqlMemory>) {
        let plans = self.desk.plans();
        memories.retain(|release, _| plans.iter().any(|p| *p.release == **release));
        let mut measured = BTreeMap::new();
        for plan in plans {
            let memory = memories.entry(plan.release.to_string()).or_default();
            let (view, now) = (self.view(), (self.clock)());
            let mut found = measure(&self.engine, view, &plan, now, memory).await;
            if let Some(known) = self.findings.borrow().measured.get(&*plan.release) {
                found.minutes = Arc::new(kept(&known.minutes, &found.minutes));
            }
            measured.insert(plan.release.to_string(), Arc::new(found));
        }
        self.findings.send_if_modified(|findings| {
            let same = findings.measured.len() == measured.len()
                && measured.iter().all(|(release, found)| {
                    let known = findings.measured.get(release);
                    known.is_some_and(|known| is_same(known, found))
                });
            if !same {
                findings.measured = Arc::new(measured);
            }
            !same
        });
    }

    /// Which paths serve.
    async fn look(&mut self, looks: &mut PathLooks) {
        let (mut view, now) = (self.view(), (self.clock)());
        let lsn = view.snapshot.lsn;
        let live: usize = view.snapshot.spans.iter().map(|batch| batch.rows.num_rows()).sum();
        let mut until = Nanos(i64::MAX);
        if live > LIVE_LOOKED_AT {
            // What served since then may be in no file.
            until = view.snapshot.unsealed_from().unwrap_or(until);
            view.snapshot = Arc::new(view.snapshot.sealed());
        }
        let (begun, since) = (Instant::now(), looks.since(now));
        let found = seen(&self.engine, view, since, SPANS_LOOKED_AT).await;
        looks.took(begun.elapsed(), lsn);
        match found {
            Ok(paths) => {
                let paths = Arc::new(looks.merge(paths, since..until, now));
                self.findings.send_modify(|findings| findings.seen = Some(paths));
            }
            Err(error) => tracing::warn!(%error, "cannot see which paths serve"),
        }
    }
}

/// The new minutes, where they say the same as before as the very same values: what has not changed is not turned again.
fn kept(known: &Minutes, new: &Minutes) -> Minutes {
    let same = |at: &i64, minute: &Arc<Minute>| known.get(at).filter(|known| *known == minute).map(Arc::clone);
    new.iter()
        .map(|(at, minute)| (*at, same(at, minute).unwrap_or_else(|| Arc::clone(minute))))
        .collect()
}

/// Whether two answers say the same, whenever they were asked for.
fn is_same(a: &Measured, b: &Measured) -> bool {
    let timeless = |m: &Measured| Measured {
        at: Nanos::ZERO,
        ..m.clone()
    };
    timeless(a) == timeless(b)
}
