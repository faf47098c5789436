//! What the ledger forgets with age: decisions of settled releases, with their evidence and finished notices.
//!
//! What says where a release or a route stands never goes: the newest decision of each, and the one that a route's
//! `desired` names. A decision whose predecessor went is marked, so that the chain of hashes says itself where it begins,
//! and a decision that is missing without a mark is found.

use super::{
    DECISION_IDS, DECISIONS, DELIVERIES, DecisionRow, DeliveryState, EVIDENCE, Ledger, LedgerError, RELEASES, ROUTES,
    ReleaseRow, RouteRow, get_delivery, read, write,
};
use proto::Nanos;
use redb::{ReadableDatabase, ReadableTable, TableDefinition, WriteTransaction};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

/// Decisions removed in one transaction at most.
const EXPIRE_MAX: usize = 1_000;

/// The time to which ages counted last, under [`TO`].
pub(super) const AGES: TableDefinition<'_, &str, i64> = TableDefinition::new("ages");
const TO: &str = "to";

/// What was removed for its age.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Expired {
    /// Decisions, each with its evidence.
    pub decisions: u64,
    /// Their notices.
    pub deliveries: u64,
    /// There is more that is old.
    pub more: bool,
}

/// The chain of hashes, where it is whole.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Chain {
    /// Decisions that the ledger holds.
    pub decisions: u64,
    /// Ids of those before which others were removed for their age: the chain begins anew with each.
    pub begins: Vec<String>,
}

impl Ledger {
    /// The time to which ages counted when it was last written down; `None` before the first time.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn aged_to(&self) -> Result<Option<Nanos>, LedgerError> {
        let table = self.db.begin_read()?.open_table(AGES)?;
        Ok(table.get(TO)?.map(|to| Nanos(to.value())))
    }

    /// Writes down that ages count to `to`, and removes decisions that were made `kept` before it or earlier, with evidence
    /// and notice, at most 1,000, in the same transaction. Those of a release that is not over stay, and so do the newest of
    /// a release or route, the one that a route's `desired` names, and one whose notice is still to be delivered.
    ///
    /// # Errors
    /// If the disk fails or a row cannot be read; then nothing was removed.
    pub fn expire(&self, to: Nanos, kept: Duration) -> Result<Expired, LedgerError> {
        let txn = self.db.begin_write()?;
        txn.open_table(AGES)?.insert(TO, to.0)?;
        let old = old(&txn, to.minus(kept))?;
        let mut expired = Expired {
            more: old.len() > EXPIRE_MAX,
            ..Expired::default()
        };
        for row in old.iter().take(EXPIRE_MAX) {
            expired.decisions += 1;
            expired.deliveries += u64::from(remove(&txn, row)?);
        }
        for row in old.iter().take(EXPIRE_MAX) {
            mark_next(&txn, row.ordinal, to)?;
        }
        txn.commit()?;
        Ok(expired)
    }

    /// Recomputes the hash chain over all decisions.
    ///
    /// # Errors
    /// If the disk fails or a row cannot be read. The inner result names the first decision whose bundle or link was
    /// changed, or before which one is missing that was not removed for its age.
    pub fn verify_chain(&self) -> Result<Result<Chain, String>, LedgerError> {
        let txn = self.db.begin_read()?;
        let decisions = txn.open_table(DECISIONS)?;
        let evidence = txn.open_table(EVIDENCE)?;
        let mut before: Option<DecisionRow> = None;
        let mut chain = Chain::default();
        for row in decisions.iter()? {
            let row: DecisionRow = read("decision", row?.1.value())?;
            let hash = evidence
                .get(row.id.as_str())?
                .and_then(|bytes| super::packed::hash_of(bytes.value()));
            let is_next = row.ordinal == before.as_ref().map_or(0, |before| before.ordinal + 1);
            let is_linked = is_next && row.previous_hash == before.map(|before| before.evidence_hash);
            if hash.as_ref() != Some(&row.evidence_hash) || !(is_linked || row.before_expired.is_some()) {
                return Ok(Err(row.id));
            }
            if row.before_expired.is_some() {
                chain.begins.push(row.id.clone());
            }
            chain.decisions += 1;
            before = Some(row);
        }
        Ok(Ok(chain))
    }
}

/// Decisions made at `until` or before that nothing needs any more, oldest first.
fn old(txn: &WriteTransaction, until: Nanos) -> Result<Vec<DecisionRow>, LedgerError> {
    let mut over = HashSet::new();
    for row in txn.open_table(RELEASES)?.iter()? {
        let row: ReleaseRow = read("release", row?.1.value())?;
        if row.state.phase.is_over() {
            over.insert(row.spec.id);
        }
    }
    let mut in_force = HashSet::new();
    for row in txn.open_table(ROUTES)?.iter()? {
        let row: RouteRow = read("route", row?.1.value())?;
        in_force.extend(row.desired.map(|desired| (desired.route, desired.decision_seq)));
    }
    let (mut of_release, mut of_route, mut old) = (HashMap::new(), HashMap::new(), Vec::new());
    for row in txn.open_table(DECISIONS)?.iter()? {
        let row: DecisionRow = read("decision", row?.1.value())?;
        of_release.insert(row.release.clone(), row.ordinal);
        of_route.insert(row.route.clone(), row.ordinal);
        if row.decided_at <= until && over.contains(&row.release) {
            old.push(row);
        }
    }
    let deliveries = txn.open_table(DELIVERIES)?;
    let mut gone = Vec::new();
    for row in old {
        let is_newest = [of_release.get(&row.release), of_route.get(&row.route)].contains(&Some(&row.ordinal));
        let notice = get_delivery(&deliveries, &notice_of(&row))?;
        let waits = notice.is_some_and(|notice| notice.state == DeliveryState::Pending);
        if !is_newest && !waits && !in_force.contains(&(row.route.clone(), row.seq)) {
            gone.push(row);
        }
    }
    Ok(gone)
}

/// Removes a decision and what hangs on it; true if it had a notice.
fn remove(txn: &WriteTransaction, row: &DecisionRow) -> Result<bool, LedgerError> {
    txn.open_table(DECISIONS)?.remove(row.ordinal)?;
    txn.open_table(DECISION_IDS)?.remove(row.id.as_str())?;
    txn.open_table(EVIDENCE)?.remove(row.id.as_str())?;
    let had_notice = txn.open_table(DELIVERIES)?.remove(notice_of(row).as_str())?.is_some();
    Ok(had_notice)
}

/// The decision after the one that went at `ordinal`, if it stayed, is where the chain begins.
fn mark_next(txn: &WriteTransaction, ordinal: u64, at: Nanos) -> Result<(), LedgerError> {
    let mut decisions = txn.open_table(DECISIONS)?;
    let next: Option<DecisionRow> = match decisions.get(ordinal + 1)? {
        Some(bytes) => Some(read("decision", bytes.value())?),
        None => None,
    };
    if let Some(mut next) = next {
        next.before_expired = Some(at);
        decisions.insert(next.ordinal, write(&next).as_slice())?;
    }
    Ok(())
}

/// Id of a decision's notice.
fn notice_of(row: &DecisionRow) -> String {
    format!("msg_{}", row.id.trim_start_matches("dec_"))
}
