//! The whole loop without ingest: cells in, notices at a real receiver, traffic that follows them, proof of effect.

use super::{
    life::spec,
    receiver::{Receiver, SECRET, secrets, wall_clock},
};
use gates::{
    desk::{DeskConfig, DeskError, DeskHandle, GateInput, Verified, start, verify_bundle},
    life::Command,
};
use proto::{
    Cell, CellKey, CellTable, Color, Grain, Metric, Nanos,
    cell::{Scope, Series},
    decision::{Action, Phase, Verdict},
    release::{Mode, ReleaseSpec},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const RATE: i64 = 200;

/// A route whose gateway does what the last notice says, and traces that arrive as cells.
struct Route {
    spec: ReleaseSpec,
    desk: DeskHandle,
    receiver: Receiver,
    inputs: watch::Sender<Arc<GateInput>>,
    now: Arc<AtomicI64>,
    cells: CellTable,
    /// Contributions of traces that are not admitted yet, by slot.
    young: Vec<(i64, Vec<(CellKey, Cell)>)>,
    rng: ChaCha8Rng,
    shutdown: CancellationToken,
    /// How much slower green is.
    slower: f64,
    /// Whether the gateway obeys.
    obeys: bool,
    green: f64,
    /// When the latest cells were published.
    published: Instant,
}

fn rules(receiver: &Receiver) -> ReleaseSpec {
    let mut spec = spec(Mode::Act);
    spec.webhook = Some(receiver.spec());
    spec.steps[0].green = 0.3;
    spec.steps[1].green = 0.5;
    spec.gates.retain(|g| g.name == "p99 latency");
    spec.gates[0].quantile = Some(0.9);
    spec.gates[0].margin = proto::release::Margin::MaxRatio(1.5);
    spec.warmup = Duration::from_secs(5);
    spec
}

pub(crate) fn desk(
    dir: &Path,
    now: &Arc<AtomicI64>,
    inputs: watch::Receiver<Arc<GateInput>>,
    shutdown: &CancellationToken,
) -> DeskHandle {
    let mut config = DeskConfig::new(dir.join("ledger.redb"), "http://127.0.0.1:4320".into());
    config.resolution = Duration::from_secs(1);
    config.webhook_allow = vec!["127.0.0.0/8".parse().unwrap()];
    config.cycle_max = Duration::from_millis(2);
    let now = Arc::clone(now);
    start(
        config,
        inputs,
        Arc::new(move || Nanos(now.load(Ordering::SeqCst))),
        secrets(),
        shutdown.clone(),
    )
    .unwrap()
}

impl Route {
    async fn open(dir: &Path, slower: f64) -> Self {
        let receiver = Receiver::start(&[]).await;
        let (inputs, rx) = watch::channel(Arc::new(GateInput::default()));
        // near the wall clock, which the reference library holds timestamps against
        let start = wall_clock()().0 / 1_000_000_000 - 60;
        let now = Arc::new(AtomicI64::new(start * 1_000_000_000));
        let shutdown = CancellationToken::new();
        let desk = desk(dir, &now, rx, &shutdown);
        let mut spec = rules(&receiver);
        if slower > 1.0 {
            spec.steps[0].min = Duration::from_secs(300);
        }
        desk.declare(spec.clone(), "test").await.unwrap();
        Self {
            spec,
            desk,
            receiver,
            inputs,
            now,
            cells: CellTable::default(),
            young: Vec::new(),
            rng: ChaCha8Rng::seed_from_u64(7),
            shutdown,
            slower,
            obeys: true,
            green: 0.0,
            published: Instant::now(),
        }
    }

    fn secs(&self) -> i64 {
        self.now.load(Ordering::SeqCst) / 1_000_000_000
    }

    /// One second of traffic, routed as the gateway was last told, booked as ingest would.
    async fn second(&mut self) {
        let at = self.secs();
        if self.obeys
            && let Some(last) = self.receiver.got().last()
        {
            self.green = last.body.data.weights[&Color::Green];
        }
        let book = Arc::clone(&self.desk.book().borrow());
        // in the middle of the second: after what was decided at its beginning
        let start = Nanos::from_secs(at).plus(Duration::from_millis(500));
        let entry = book.in_force(&self.spec.route, start);
        let scope = Scope {
            route: self.spec.route.as_str().into(),
            release: entry.map(|e| Arc::clone(&e.id)),
        };
        let split = entry.and_then(|e| e.split_at(start));
        let mut made = Vec::new();
        for _ in 0..RATE {
            let green = self.rng.random_bool(self.green);
            let tier = ["free", "team", "enterprise"][self.rng.random_range(0..3)];
            let base = 200_000.0 * (1.0 + self.rng.random::<f64>().powi(4) * 3.0);
            let latency = if green { base * self.slower } else { base };
            let mut add = |metric, grain, cell| {
                let series = Series {
                    metric,
                    grain,
                    cohort: Some(tier.into()),
                    split_ppm: split,
                    color: if green { Color::Green } else { Color::Blue },
                    admitted: false,
                };
                let key = CellKey {
                    scope: scope.clone(),
                    minute: at,
                    series,
                };
                made.push((key, cell));
            };
            add(Metric::Traces, Grain::Trace, Cell::unit(true));
            add(Metric::Latency, Grain::Trace, Cell::amount(latency as u64));
            add(Metric::AttemptError, Grain::Attempt, Cell::unit(false));
        }
        for (key, cell) in &made {
            self.cells.apply(key, cell, 1);
        }
        self.young.push((at, made));
        self.now.fetch_add(1_000_000_000, Ordering::SeqCst);
        let admitted = self.secs() - 3;
        while self.young.first().is_some_and(|(at, _)| *at < admitted) {
            for (mut key, cell) in self.young.remove(0).1 {
                self.cells.apply(&key, &cell, -1);
                key.series.admitted = true;
                self.cells.apply(&key, &cell, 1);
            }
        }
        self.publish().await;
    }

    async fn publish(&mut self) {
        self.published = Instant::now();
        self.inputs.send_replace(Arc::new(GateInput {
            cells: self.cells.clone(),
            ready: true,
            ..GateInput::default()
        }));
        // a cycle that was under way may have read the input before this one: the second to end has not
        for _ in 0..2 {
            let after = Nanos(self.now.fetch_add(1_000, Ordering::SeqCst) + 1_000);
            let mut view = self.desk.view();
            let done = view.wait_for(|v| v.last_judged >= Some(after));
            tokio::time::timeout(Duration::from_secs(10), done)
                .await
                .unwrap()
                .unwrap();
        }
    }

    async fn until(&mut self, secs: usize, enough: impl Fn(&Self) -> bool) {
        for _ in 0..secs {
            if enough(self) {
                return;
            }
            self.second().await;
            // as long as a notice takes on loopback, so that the gateway has heard before the next second begins
            tokio::time::sleep(Duration::from_millis(15)).await;
        }
        panic!(
            "not within {secs} s: {:?} {:?}",
            self.desk.verdict(&self.spec.id),
            self.desk.releases()
        );
    }

    fn phase(&self) -> Phase {
        self.desk.verdict(&self.spec.id).unwrap().phase
    }

    fn actions(&self) -> Vec<Action> {
        self.receiver.got().iter().map(|g| g.action()).collect()
    }

    async fn close(self) {
        self.shutdown.cancel();
        self.desk.stopped().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_green_is_rolled_back_by_a_signed_notice_and_its_evidence_recomputes() {
    let dir = tempfile::tempdir().unwrap();
    let mut route = Route::open(dir.path(), 2.5).await;
    route.until(60, |r| r.phase() == Phase::Canary).await;
    route.until(120, |r| r.actions().contains(&Action::Rollback)).await;
    let told = route.receiver.got().last().unwrap().at;
    let took = told.saturating_duration_since(route.published);
    assert!(took < Duration::from_secs(1), "evidence to webhook: {took:?}");
    let verdict = route.desk.verdict(&route.spec.id).unwrap();
    assert_eq!(verdict.verdict, Verdict::Fail);
    assert_eq!(verdict.active_color, Color::Blue);
    route.until(30, |r| r.phase() == Phase::RolledBack).await;
    let got = route.receiver.wait_for(3).await;
    assert!(got.iter().all(|g| g.verified));
    let seqs: Vec<i64> = got.iter().map(|g| g.body.data.decision_seq).collect();
    assert!(seqs.is_sorted_by(|a, b| a < b), "{seqs:?}");
    assert_eq!(route.actions(), [Action::Advance, Action::Rollback, Action::Settle]);
    let rollback = &got[1].body.data;
    assert_eq!(rollback.to.manifest, route.spec.blue);
    assert_eq!(rollback.weights[&Color::Blue], 1.0);
    assert!(rollback.gates[0].log_e_fail > 4.0);
    let (row, evidence) = route.desk.decision(&rollback.decision_id).await.unwrap().unwrap();
    assert_eq!(row.culprits, ["p99 latency"]);
    assert_eq!(verify_bundle(&evidence), Ok(Verified::Same));
    let forged = evidence.replacen("\"alpha\":0.02", "\"alpha\":0.03", 1);
    assert!(verify_bundle(&forged).is_err());
    assert_eq!(route.desk.verify_chain().await.unwrap().unwrap().decisions, 3);
    let desired = route.desk.desired(&route.spec.route).unwrap();
    assert_eq!(desired.decision_seq, rollback.decision_seq);
    assert_eq!(desired.color, Color::Blue);
    route.close().await;
    let stored = std::fs::read(dir.path().join("ledger.redb")).unwrap();
    let canary = SECRET.trim_start_matches("whsec_").as_bytes();
    assert!(
        !stored.windows(canary.len()).any(|w| w == canary),
        "the secret is stored"
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_equal_green_is_promoted_and_settles() {
    let dir = tempfile::tempdir().unwrap();
    let mut route = Route::open(dir.path(), 1.0).await;
    route.until(200, |r| r.phase() == Phase::Settled).await;
    route.receiver.wait_for(4).await;
    assert_eq!(
        route.actions(),
        [Action::Advance, Action::Advance, Action::Promote, Action::Settle]
    );
    let desired = route.desk.desired(&route.spec.route).unwrap();
    assert_eq!(desired.manifest, route.spec.green);
    let book = Arc::clone(&route.desk.book().borrow());
    assert_eq!(book.settled_version(&route.spec.route, Nanos(i64::MAX)), Some("42"));
    route.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_the_backlog_is_judged_before_anything_is_sent() {
    let dir = tempfile::tempdir().unwrap();
    let mut route = Route::open(dir.path(), 2.5).await;
    route.until(60, |r| r.phase() == Phase::Canary).await;
    // the gateway is down when the evidence comes in
    route.receiver.will_answer(&[500; 40]);
    route.until(120, |r| r.actions().contains(&Action::Rollback)).await;
    let tried = route.receiver.got().last().unwrap().clone();
    route.shutdown.cancel();
    route.desk.stopped().await;
    tokio::time::sleep(Duration::from_millis(200)).await;
    route.receiver.will_answer(&[]);
    let before = route.receiver.got().len();

    route.shutdown = CancellationToken::new();
    let (inputs, rx) = watch::channel(Arc::new(GateInput::default()));
    route.inputs = inputs;
    let released = async {
        loop {
            // the lanes of the last process let go of the file when they end
            let path = dir.path().join("ledger.redb");
            if gates::ledger::Ledger::open(&path).is_ok() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    drop(take_handle(&mut route));
    tokio::time::timeout(Duration::from_secs(5), released).await.unwrap();
    route.desk = desk(dir.path(), &route.now, rx, &route.shutdown);
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(route.receiver.got().len(), before, "sent before it had judged");
    // past every retry wait
    route.now.fetch_add(20_000_000_000, Ordering::SeqCst);
    route.young.clear();
    route.publish().await;
    let got = route.receiver.wait_for(before + 1).await;
    assert_eq!(got[before].id, tried.id);
    assert_eq!(got[before].answered, 200);
    // declared again from the config file: known, and nothing starts over
    route.desk.declare(route.spec.clone(), "config").await.unwrap();
    let mut other = route.spec.clone();
    other.min_traces += 1;
    let refused = route.desk.declare(other, "config").await.unwrap_err();
    assert!(matches!(refused, DeskError::RulesChanged(_)), "{refused}");
    route.close().await;
}

/// Takes the old handle out of the route so that it can be dropped.
fn take_handle(route: &mut Route) -> DeskHandle {
    let dir = tempfile::tempdir().unwrap();
    let (_, rx) = watch::channel(Arc::new(GateInput::default()));
    let unused = desk(dir.path(), &route.now, rx, &route.shutdown);
    std::mem::replace(&mut route.desk, unused)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn people_decide_and_are_answered() {
    let dir = tempfile::tempdir().unwrap();
    let mut route = Route::open(dir.path(), 1.0).await;
    route.until(60, |r| r.phase() == Phase::Canary).await;
    let id = route.spec.id.clone();
    // a hold calls back what the gateway has not accepted, and that it did is heard a moment later
    let accepted = |r: &Route| {
        r.desk
            .release(&r.spec.id)
            .is_some_and(|row| row.state.effect.as_ref().is_none_or(|e| e.acked_at.is_some()))
    };
    route.until(10, accepted).await;
    let unknown = route.desk.command("nope", Command::Hold, "ada", "x").await;
    assert!(matches!(unknown, Err(DeskError::UnknownRelease(_))));
    let held = route
        .desk
        .command(&id, Command::Hold, "ada", "lunch")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(held.action, Action::Hold);
    for _ in 0..20 {
        route.second().await;
    }
    assert_eq!(route.desk.releases()[0].step, Some(1), "held on its step");
    let answer = route.desk.command(&id, Command::Resume, "ada", "back").await.unwrap();
    assert_eq!(answer, None);
    route.until(60, |r| r.desk.releases()[0].step == Some(2)).await;
    let now = route.desk.desired(&route.spec.route).unwrap();
    let waiting = route.desk.clone();
    let name = route.spec.route.clone();
    let poll = tokio::spawn(async move {
        waiting
            .desired_after(&name, Some(now.decision_seq), Duration::from_secs(10))
            .await
    });
    let back = route
        .desk
        .command(&id, Command::Rollback, "ada", "I do not like it")
        .await
        .unwrap()
        .unwrap();
    assert_eq!(poll.await.unwrap().unwrap().decision_seq, back.seq);
    let again = route.desk.command(&id, Command::Promote, "bob", "x").await;
    assert!(matches!(again, Err(DeskError::Refused(_))), "{again:?}");
    let people = &route.desk.release(&id).unwrap().people;
    assert_eq!(people.len(), 3, "a refused command is not an act");
    route.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hold_reaches_a_gateway_that_was_down_and_the_movement_before_it_does_not() {
    let dir = tempfile::tempdir().unwrap();
    let mut route = Route::open(dir.path(), 1.0).await;
    let id = route.spec.id.clone();
    route.receiver.will_answer(&[503; 40]);
    route.until(60, |r| r.actions() == [Action::Advance]).await;
    let advance = route.receiver.wait_for(1).await[0].body.data.decision_seq;
    assert!(route.desk.desired(&route.spec.route).unwrap().weights[&Color::Green] > 0.0);
    let held = route.desk.command(&id, Command::Hold, "ada", "not today").await;
    let held = held.unwrap().unwrap();
    let desired = route.desk.desired(&route.spec.route).unwrap();
    assert_eq!((desired.decision_seq, desired.weights[&Color::Green]), (held.seq, 0.0));
    route.receiver.will_answer(&[]);
    route.now.fetch_add(20_000_000_000, Ordering::SeqCst);
    route.publish().await;
    route.receiver.took(held.seq).await;
    let again = route.desk.command(&id, Command::Resume, "ada", "go on").await;
    let again = again.unwrap().unwrap();
    assert_eq!(again.action, Action::Advance);
    route.receiver.took(again.seq).await;
    let taken = route.receiver.got().into_iter().filter(|g| g.answered == 200);
    let taken: Vec<i64> = taken.map(|g| g.body.data.decision_seq).collect();
    assert_eq!(taken, [held.seq, again.seq], "the first advance was {advance}");
    route.close().await;
}
