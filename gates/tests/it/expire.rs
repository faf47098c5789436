//! What is old leaves the ledger, what says where things stand does not, and the chain of hashes says where it begins.

use super::{
    desk::desk,
    outbox::{decide_at, release},
    receiver::Receiver,
};
use gates::{
    desk::{DeskHandle, GateInput},
    ledger::{Chain, DeliveryState, Entry, Expired, Ledger, ReleaseRow},
};
use proto::{
    Nanos,
    decision::{Action, Phase},
    release::WebhookSpec,
};
use redb::{Database, TableDefinition};
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const DAY: Duration = Duration::from_secs(24 * 3_600);
const KEPT: Duration = Duration::from_secs(400 * 24 * 3_600);
const T0: Nanos = Nanos::from_secs(1_800_000_000);

fn day(days: u32) -> Nanos {
    T0.plus(days * DAY)
}

fn open(dir: &Path) -> Ledger {
    Ledger::open(&dir.join("ledger.redb")).unwrap()
}

fn row(route: &str, number: u32, phase: Phase, webhook: &WebhookSpec) -> ReleaseRow {
    let mut row = release(route, webhook.clone());
    row.spec.id = format!("{route}-{number}");
    row.state.phase = phase;
    row
}

fn deliver(ledger: &Ledger, entry: &Entry) {
    let id = &entry.delivery.as_ref().unwrap().id;
    ledger
        .record_attempt(id, |row| row.state = DeliveryState::Delivered)
        .unwrap();
}

fn places(ledger: &Ledger) -> Vec<u64> {
    ledger
        .decisions(100_000)
        .unwrap()
        .iter()
        .rev()
        .map(|row| row.ordinal)
        .collect()
}

/// Nine decisions of four releases on three routes, at days 0 to 8; the notice of the fifth is still to be delivered.
fn history(ledger: &Ledger, webhook: &WebhookSpec) -> Vec<Entry> {
    use Action::{Advance, Hold, Promote, Rollback, Settle};
    let mut first = row("a", 1, Phase::Settled, webhook);
    let mut open = row("b", 1, Phase::Canary, webhook);
    let mut waits = row("c", 1, Phase::RolledBack, webhook);
    let mut second = row("a", 2, Phase::RolledBack, webhook);
    let mut written = Vec::new();
    for (row, actions) in [
        (&mut first, [Advance, Promote, Settle].as_slice()),
        (&mut open, &[Advance]),
        (&mut waits, &[Advance, Hold]),
        (&mut second, &[Advance, Rollback, Settle]),
    ] {
        for action in actions {
            let at = day(written.len() as u32);
            let entry = decide_at(ledger, row, &[*action], at).remove(0);
            if written.len() != 4 {
                deliver(ledger, &entry);
            }
            written.push(entry);
        }
    }
    written
}

#[tokio::test]
async fn what_is_old_and_settled_goes_and_the_chain_says_where_it_begins() {
    let dir = tempfile::tempdir().unwrap();
    let webhook = Receiver::start(&[]).await.spec();
    let ledger = open(dir.path());
    let written = history(&ledger, &webhook);
    let id = |at: usize| written[at].decision.id.clone();
    assert_eq!(ledger.aged_to().unwrap(), None);
    assert_eq!(ledger.expire(day(399), KEPT).unwrap(), Expired::default());
    assert_eq!(ledger.verify_chain().unwrap().unwrap().begins, Vec::<String>::new());
    let two = Expired {
        decisions: 2,
        deliveries: 2,
        more: false,
    };
    assert_eq!(ledger.expire(day(401), KEPT).unwrap(), two);
    drop(ledger);

    let ledger = open(dir.path());
    assert_eq!(ledger.aged_to().unwrap(), Some(day(401)));
    assert_eq!(places(&ledger), [2, 3, 4, 5, 6, 7, 8]);
    for gone in &written[..2] {
        assert!(ledger.decision(&gone.decision.id).unwrap().is_none());
        let notice = &gone.delivery.as_ref().unwrap().id;
        assert!(ledger.delivery(notice).unwrap().is_none());
    }
    assert_eq!(
        ledger.verify_chain().unwrap().unwrap(),
        Chain {
            decisions: 7,
            begins: vec![id(2)]
        }
    );
    // Of what is left only the advance of the second release is needed by nobody: the others are the newest of their
    // release, of one that runs, have a notice to be delivered, or say where route `a` stands.
    assert_eq!(ledger.expire(day(5_000), KEPT).unwrap().decisions, 1);
    assert_eq!(ledger.expire(day(5_000), KEPT).unwrap().decisions, 0);
    assert_eq!(places(&ledger), [2, 3, 4, 5, 7, 8]);
    let chain = ledger.verify_chain().unwrap().unwrap();
    assert_eq!(chain.begins, [id(2), id(7)]);
    assert_eq!(ledger.pending().unwrap().len(), 1);
    let (kept, evidence) = ledger.decision(&id(7)).unwrap().unwrap();
    assert_eq!(
        (kept.before_expired, evidence.as_str()),
        (Some(day(5_000)), "{\"ordinal\":7}")
    );

    // Once it is delivered it goes; numbers and hashes go on from the newest.
    deliver(&ledger, &written[4]);
    assert_eq!(ledger.expire(day(5_000), KEPT).unwrap().decisions, 1);
    let mut third = row("a", 3, Phase::Canary, &webhook);
    let next = decide_at(&ledger, &mut third, &[Action::Advance], day(8))
        .remove(0)
        .decision;
    assert_eq!(next.ordinal, 9);
    assert!(next.seq > written[8].decision.seq);
    assert_eq!(next.previous_hash, Some(written[8].decision.evidence_hash.clone()));
    assert_eq!(ledger.verify_chain().unwrap().unwrap().begins, [id(2), id(5), id(7)]);
}

#[tokio::test]
async fn a_decision_that_somebody_took_out_is_missed() {
    let dir = tempfile::tempdir().unwrap();
    let webhook = Receiver::start(&[]).await.spec();
    let ledger = open(dir.path());
    let written = history(&ledger, &webhook);
    ledger.expire(day(401), KEPT).unwrap();
    drop(ledger);
    let file = Database::open(dir.path().join("ledger.redb")).unwrap();
    let txn = file.begin_write().unwrap();
    let table: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("decisions");
    txn.open_table(table).unwrap().remove(3).unwrap();
    txn.commit().unwrap();
    drop(file);
    let found = open(dir.path()).verify_chain().unwrap();
    assert_eq!(found, Err(written[4].decision.id.clone()));
}

#[tokio::test]
async fn many_go_in_bounded_steps() {
    let dir = tempfile::tempdir().unwrap();
    let webhook = Receiver::start(&[]).await.spec();
    let ledger = open(dir.path());
    let mut row = row("a", 1, Phase::Settled, &webhook);
    let written = decide_at(&ledger, &mut row, &[Action::Rollback; 1_500], T0);
    deliver(&ledger, written.last().unwrap());
    let first = ledger.expire(day(500), KEPT).unwrap();
    assert_eq!((first.decisions, first.more), (1_000, true));
    assert_eq!(
        ledger.verify_chain().unwrap().unwrap().begins,
        [written[1_000].decision.id.clone()]
    );
    let second = ledger.expire(day(500), KEPT).unwrap();
    assert_eq!((second.decisions, second.more), (499, false));
    assert_eq!(places(&ledger), [1_499]);
}

async fn started(dir: &Path, now: &Arc<AtomicI64>) -> (DeskHandle, watch::Sender<Arc<GateInput>>, CancellationToken) {
    let (inputs, rx) = watch::channel(Arc::new(GateInput::default()));
    let shutdown = CancellationToken::new();
    (desk(dir, now, rx, &shutdown), inputs, shutdown)
}

async fn eventually(mut holds: impl FnMut() -> bool) {
    tokio::time::timeout(Duration::from_secs(30), async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await
    .unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_desk_forgets_what_is_old_but_not_because_the_clock_leapt() {
    let dir = tempfile::tempdir().unwrap();
    let webhook = Receiver::start(&[]).await.spec();
    let ledger = open(dir.path());
    let mut old = row("a", 1, Phase::Settled, &webhook);
    let mut young = row("b", 1, Phase::Settled, &webhook);
    for (row, at) in [(&mut old, day(0)), (&mut young, day(450))] {
        for entry in decide_at(&ledger, row, &[Action::Rollback, Action::Hold, Action::Settle], at) {
            deliver(&ledger, &entry);
        }
    }
    drop(ledger);
    let now = Arc::new(AtomicI64::new(day(500).0));
    let (desk, _inputs, shutdown) = started(dir.path(), &now).await;
    let aging = desk.aging();
    assert_eq!((aging.to, aging.decisions, aging.ahead), (day(500), 1, Duration::ZERO));
    // five years in the blink of an eye
    now.store(day(500 + 5 * 365).0, Ordering::SeqCst);
    eventually(|| desk.aging().ahead > 4 * 365 * DAY).await;
    assert!(desk.aging().to < day(501));
    shutdown.cancel();
    desk.stopped().await;
    drop(desk);

    // the same for one that starts with such a clock
    eventually(|| Ledger::open(&dir.path().join("ledger.redb")).is_ok()).await;
    let (desk, _inputs, shutdown) = started(dir.path(), &now).await;
    assert!(desk.aging().ahead > 4 * 365 * DAY);
    assert_eq!(desk.decisions().await.unwrap().len(), 5);
    now.store(day(501).0 - 1, Ordering::SeqCst);
    eventually(|| desk.aging().to < day(501)).await;
    shutdown.cancel();
    desk.stopped().await;
}
