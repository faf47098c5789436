//! From ledger to receiver: the same id on every attempt, over kills, and nothing older after something newer.

use super::{
    life::spec,
    receiver::{Receiver, secrets, wall_clock},
};
use gates::{
    check::rules_hash,
    ledger::{Actor, DecisionRow, DeliveryRow, DeliveryState, Entry, Ledger, Packed, Place, ReleaseRow},
    life::ReleaseState,
    outbox::Outbox,
    webhook::{self, Sender, address::Guard},
};
use proto::{
    Color, Nanos,
    decision::{Action, Desired, Notice, Side},
    release::{Mode, WebhookSpec},
};
use std::{path::Path, sync::Arc, time::Duration};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

pub(crate) fn release(route: &str, webhook: WebhookSpec) -> ReleaseRow {
    let mut spec = spec(Mode::Act);
    spec.route = route.into();
    spec.id = format!("{route}-1");
    spec.webhook = Some(webhook);
    let now = wall_clock()();
    ReleaseRow {
        state: ReleaseState::open(&spec, now, Duration::from_secs(1), None),
        rules_hash: rules_hash(&spec),
        declared_at: now,
        declared_by: "test".into(),
        people: Vec::new(),
        spec,
    }
}

fn decide(ledger: &Ledger, row: &mut ReleaseRow, action: Action) -> Entry {
    decide_at(ledger, row, &[action], wall_clock()()).remove(0)
}

/// Several decisions at a time; a settling one moves nothing.
pub(crate) fn decide_at(ledger: &Ledger, row: &mut ReleaseRow, actions: &[Action], now: Nanos) -> Vec<Entry> {
    let built = |row: &mut ReleaseRow, at: usize, place: &Place| {
        let action = actions[at];
        let id = format!("dec_{:020}_{}", place.ordinal, row.spec.route);
        let side = |color| Side {
            color,
            version: "1".into(),
            manifest: row.spec.blue.clone(),
        };
        let decision = DecisionRow {
            id: id.clone(),
            seq: place.seq,
            ordinal: place.ordinal,
            release: row.spec.id.clone(),
            route: row.spec.route.clone(),
            action,
            cohort: None,
            reason: "test".into(),
            actor: Actor::Engine,
            culprits: Vec::new(),
            green_ppm: 0,
            rules_hash: row.rules_hash.clone(),
            decided_at: now,
            notified: true,
            evidence_hash: String::new(),
            previous_hash: place.previous_hash.clone(),
            before_expired: None,
        };
        let notice = Notice {
            decision_id: id.clone(),
            decision_seq: place.seq,
            release: row.spec.id.clone(),
            route: row.spec.route.clone(),
            action,
            cohort: None,
            weights: ReleaseState::weights(0),
            cohorts_on_blue: vec![],
            from: side(Color::Green),
            to: side(Color::Blue),
            gates: Vec::new(),
            rules_hash: row.rules_hash.clone(),
            evidence_url: String::new(),
            desired_url: String::new(),
            decided_at: now.rfc3339(),
        };
        Entry {
            calls_back: action == Action::Hold && row.state.is_called_back(),
            evidence: Packed::write(|to| write!(to, "{{\"ordinal\":{}}}", place.ordinal)).unwrap(),
            delivery: Some(DeliveryRow {
                id: id.replace("dec_", "msg_"),
                decision_id: id,
                decision_seq: place.seq,
                action,
                release: row.spec.id.clone(),
                route: row.spec.route.clone(),
                webhook: row.spec.webhook.clone().unwrap(),
                body: webhook::body(&notice),
                state: DeliveryState::Pending,
                created_at: now,
                attempts: 0,
                next_attempt_at: now,
                last_status: None,
                last_error: None,
                delivered_at: None,
            }),
            desired: (action != Action::Settle).then(|| Desired {
                route: row.spec.route.clone(),
                release: row.spec.id.clone(),
                decision_seq: place.seq,
                color: Color::Blue,
                weights: ReleaseState::weights(0),
                manifest: row.spec.blue.clone(),
                cohorts_on_blue: Vec::new(),
            }),
            decision,
        }
    };
    ledger.decide(row, actions.len(), now, built).unwrap()
}

struct Post {
    outbox: Outbox,
    reports: mpsc::Receiver<DeliveryRow>,
    shutdown: CancellationToken,
}

fn post(ledger: &Arc<Ledger>) -> Post {
    let (tx, reports) = mpsc::channel(64);
    let shutdown = CancellationToken::new();
    let guard = Guard::new(vec!["127.0.0.0/8".parse().unwrap()]);
    let outbox = Outbox::new(
        Arc::clone(ledger),
        Sender::new(guard).unwrap(),
        secrets(),
        wall_clock(),
        tx,
        shutdown.clone(),
    );
    Post {
        outbox,
        reports,
        shutdown,
    }
}

impl Post {
    async fn report(&mut self) -> DeliveryRow {
        tokio::time::timeout(Duration::from_secs(30), self.reports.recv())
            .await
            .unwrap()
            .unwrap()
    }
}

fn open(dir: &Path) -> Arc<Ledger> {
    Arc::new(Ledger::open(&dir.join("ledger.redb")).unwrap())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failures_are_tried_again_with_the_same_id_and_a_fresh_signature() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let receiver = Receiver::start(&[500, 302, 503]).await;
    let mut post = post(&ledger);
    let mut row = release("chat", receiver.spec());
    let entry = decide(&ledger, &mut row, Action::Rollback);
    post.outbox.wake("chat");
    let got = receiver.wait_for(4).await;
    assert!(got.iter().all(|g| g.verified), "{got:?}");
    assert!(got.iter().all(|g| g.id == entry.delivery.as_ref().unwrap().id));
    assert!(got[3].timestamp > got[0].timestamp, "each attempt is stamped anew");
    assert_eq!(got.iter().map(|g| g.answered).collect::<Vec<_>>(), [500, 302, 503, 200]);
    for state in [DeliveryState::Pending; 3] {
        assert_eq!(post.report().await.state, state);
    }
    let last = post.report().await;
    assert_eq!(last.state, DeliveryState::Delivered);
    assert_eq!((last.attempts, last.last_status), (4, Some(200)));
    assert!(ledger.pending().unwrap().is_empty());
    post.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_between_decision_and_sending_loses_nothing_and_sends_no_second_id() {
    let dir = tempfile::tempdir().unwrap();
    let receiver = Receiver::start(&[]).await;
    let ledger = open(dir.path());
    let mut row = release("chat", receiver.spec());
    let entry = decide(&ledger, &mut row, Action::Rollback);
    let id = entry.delivery.unwrap().id;
    // the disk as a kill would leave it: copied while the ledger is open, never closed
    let after_kill = tempfile::tempdir().unwrap();
    std::fs::copy(dir.path().join("ledger.redb"), after_kill.path().join("ledger.redb")).unwrap();
    std::mem::forget(ledger);

    let ledger = open(after_kill.path());
    assert_eq!(ledger.releases().unwrap(), [row.clone()]);
    assert_eq!(ledger.verify_chain().unwrap().unwrap().decisions, 1);
    let mut first = post(&ledger);
    for pending in ledger.pending().unwrap() {
        first.outbox.wake(&pending.route);
    }
    assert_eq!(first.report().await.state, DeliveryState::Delivered);
    first.shutdown.cancel();
    // killed again, after the 2xx was written down: nothing more is sent
    let again = tempfile::tempdir().unwrap();
    std::fs::copy(after_kill.path().join("ledger.redb"), again.path().join("ledger.redb")).unwrap();
    let ledger = open(again.path());
    assert!(ledger.pending().unwrap().is_empty());
    let second = post(&ledger);
    second.outbox.wake("chat");
    tokio::time::sleep(Duration::from_millis(200)).await;
    let got = receiver.got();
    assert_eq!(got.len(), 1);
    assert_eq!(got[0].id, id);
    // and the next number is larger, as the chain is longer
    let next = decide(&ledger, &mut row, Action::Hold);
    assert!(next.decision.seq > entry.decision.seq);
    assert_eq!(next.decision.previous_hash, Some(entry.decision.evidence_hash));
    assert_eq!(ledger.verify_chain().unwrap().unwrap().decisions, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newer_movement_makes_older_notices_void_even_while_one_is_being_sent() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let receiver = Receiver::start(&[]).await;
    receiver.slow(Duration::from_secs(8));
    let mut post = post(&ledger);
    let mut row = release("chat", receiver.spec());
    let old = decide(&ledger, &mut row, Action::Advance).delivery.unwrap().id;
    post.outbox.wake("chat");
    tokio::time::sleep(Duration::from_millis(300)).await;
    receiver.slow(Duration::ZERO);
    let new = decide(&ledger, &mut row, Action::Rollback);
    let begun = std::time::Instant::now();
    post.outbox.wake("chat");
    let delivered = post.report().await;
    assert!(begun.elapsed() < Duration::from_secs(5), "waited for the slow attempt");
    assert_eq!(delivered.decision_id, new.decision.id);
    assert_eq!(ledger.delivery(&old).unwrap().unwrap().state, DeliveryState::Superseded);
    assert!(ledger.pending().unwrap().is_empty());
    post.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_moves_nothing_waits_behind_an_undelivered_rollback() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let receiver = Receiver::start(&[500, 500]).await;
    let post = post(&ledger);
    let mut row = release("chat", receiver.spec());
    decide(&ledger, &mut row, Action::Rollback);
    decide(&ledger, &mut row, Action::Escalate);
    post.outbox.wake("chat");
    let got = receiver.wait_for(4).await;
    let actions: Vec<Action> = got.iter().map(|g| g.action()).collect();
    assert_eq!(
        actions,
        [Action::Rollback, Action::Rollback, Action::Rollback, Action::Escalate]
    );
    assert!(got[3].body.data.decision_seq > got[2].body.data.decision_seq);
    post.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_slow_receiver_delays_no_other_route() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let slow = Receiver::start(&[]).await;
    slow.slow(Duration::from_secs(20));
    let quick = Receiver::start(&[]).await;
    let post = post(&ledger);
    for i in 0..20 {
        let mut row = release(&format!("slow-{i}"), slow.spec());
        decide(&ledger, &mut row, Action::Rollback);
        post.outbox.wake(&row.spec.route);
    }
    let begun = std::time::Instant::now();
    let mut row = release("quick", quick.spec());
    decide(&ledger, &mut row, Action::Rollback);
    post.outbox.wake("quick");
    quick.wait_for(1).await;
    assert!(begun.elapsed() < Duration::from_secs(2));
    post.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn gone_means_no_more_until_a_person_replays() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let receiver = Receiver::start(&[410]).await;
    let mut post = post(&ledger);
    let mut row = release("chat", receiver.spec());
    decide(&ledger, &mut row, Action::Advance);
    post.outbox.wake("chat");
    assert_eq!(post.report().await.state, DeliveryState::Dead);
    let second = decide(&ledger, &mut row, Action::Rollback).delivery.unwrap();
    assert_eq!(second.state, DeliveryState::Dead);
    assert!(second.last_error.unwrap().contains("410"));
    post.outbox.wake("chat");
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert_eq!(receiver.got().len(), 1);
    let now = wall_clock()();
    let void = format!("msg_{:020}_chat", 0);
    assert_eq!(ledger.replay(&void, now).unwrap(), None, "an older notice is void");
    ledger.replay(&second.id, now).unwrap().unwrap();
    post.outbox.wake("chat");
    let delivered = post.report().await;
    assert_eq!((delivered.id, delivered.state), (second.id, DeliveryState::Delivered));
    post.shutdown.cancel();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_secret_is_an_error_that_is_tried_again_and_an_allow_list_is_obeyed() {
    let dir = tempfile::tempdir().unwrap();
    let ledger = open(dir.path());
    let receiver = Receiver::start(&[]).await;
    let (tx, mut reports) = mpsc::channel(64);
    let shutdown = CancellationToken::new();
    let outbox = |guard, source, tx| {
        Outbox::new(
            Arc::clone(&ledger),
            Sender::new(guard).unwrap(),
            source,
            wall_clock(),
            tx,
            shutdown.clone(),
        )
    };
    let allowed = Guard::new(vec!["127.0.0.0/8".parse().unwrap()]);
    let nothing: webhook::SecretSource =
        Arc::new(|spec| Err(format!("set {}", spec.secret_env.clone().unwrap_or_default())));
    let mut row = release("one", receiver.spec());
    decide(&ledger, &mut row, Action::Rollback);
    let first = outbox(allowed, nothing, tx.clone());
    first.wake("one");
    let tried = reports.recv().await.unwrap();
    assert_eq!(tried.last_error.as_deref(), Some("set SECRET"));

    let mut row = release("two", receiver.spec());
    decide(&ledger, &mut row, Action::Rollback);
    let guard = Guard::default();
    let second = outbox(guard.clone(), secrets(), tx);
    second.wake("two");
    let refused = loop {
        let row = reports.recv().await.unwrap();
        if row.route == "two" {
            break row;
        }
    };
    assert!(refused.last_error.unwrap().contains("[webhooks] allow"));
    assert!(receiver.got().is_empty());
    guard.set_allow(vec!["127.0.0.0/8".parse().unwrap()]);
    assert!(
        receiver.wait_for(1).await[0].verified,
        "the next attempt goes by the new list"
    );
    shutdown.cancel();
}

#[test]
fn a_second_process_is_told_that_the_ledger_is_in_use() {
    let dir = tempfile::tempdir().unwrap();
    let _first = open(dir.path());
    let second = Ledger::open(&dir.path().join("ledger.redb")).err().unwrap();
    assert!(second.to_string().contains("in use by another process"), "{second}");
}
