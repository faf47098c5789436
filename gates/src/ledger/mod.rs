//! The ledger: releases, decisions and what is still to be delivered, in one redb file, fsynced on every commit.
//!
//! A decision, the release state it led to, and the delivery it asks for are written in **one** transaction, before
//! anything is sent. So after a kill at any point either none of them happened, or all did and the outbox goes on with
//! the same id. Decisions are append-only and chained: each evidence bundle names the hash of the one before. What is old
//! goes (see `expire`), and the chain says where.
//!
//! Everything here blocks on the disk: call it from a thread that may.

mod expire;
mod line;
mod packed;
mod rows;

use expire::AGES;
pub use expire::{Chain, Expired};
use line::enqueue;
pub use packed::Packed;
pub use rows::{Actor, DecisionRow, DeliveryRow, DeliveryState, Freeze, PersonAct, ReleaseRow};

use proto::{
    Nanos,
    decision::{Desired, next_decision_seq},
};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use std::{collections::BTreeMap, path::Path};

const RELEASES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("releases");
const DECISIONS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("decisions");
const DECISION_IDS: TableDefinition<'_, &str, u64> = TableDefinition::new("decision_ids");
const EVIDENCE: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("evidence");
const ROUTES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("routes");
const DELIVERIES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("deliveries");
/// Ids of deliveries that are still to be made, by route and number, so that a start need not read them all.
const PENDING: TableDefinition<'_, (&str, i64), &str> = TableDefinition::new("pending");
/// The freezes, as one list under [`ALL_FREEZES`].
const FREEZES: TableDefinition<'_, &str, &[u8]> = TableDefinition::new("freezes");
const ALL_FREEZES: &str = "all";
/// Receivers that answered 410.
const GONE: TableDefinition<'_, &str, i64> = TableDefinition::new("gone");

/// Why the ledger could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    /// Another process has it.
    #[error("the ledger {0} is in use by another process: stop it, or choose another data directory")]
    InUse(String),
    /// Disk or format.
    #[error("the ledger cannot be read or written: {0}")]
    Disk(String),
    /// A row that this version cannot read.
    #[error("the ledger holds a {0} that this version cannot read: {1}")]
    Row(&'static str, serde_json::Error),
}

macro_rules! disk_errors {
    ($($kind:ty),*) => {$(
        impl From<$kind> for LedgerError {
            fn from(e: $kind) -> Self {
                Self::Disk(e.to_string())
            }
        }
    )*};
}
disk_errors!(
    redb::TransactionError,
    redb::TableError,
    redb::StorageError,
    redb::CommitError,
    redb::DatabaseError
);

/// Where the next decision goes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// Place in the ledger.
    pub ordinal: u64,
    /// Number on the route.
    pub seq: i64,
    /// Hash of the evidence before.
    pub previous_hash: Option<String>,
}

/// A decision that is to be written.
#[derive(Debug, Clone)]
pub struct Entry {
    /// The row; `evidence_hash` is filled in by the ledger.
    pub decision: DecisionRow,
    /// The bundle, JSON text.
    pub evidence: Packed,
    /// The notice, if the gateway is told.
    pub delivery: Option<DeliveryRow>,
    /// What the route should now be on, if that changes.
    pub desired: Option<Desired>,
    /// Whether it calls back an advance or promotion that is still on its way.
    pub calls_back: bool,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
struct RouteRow {
    last_seq: Option<i64>,
    desired: Option<Desired>,
}

/// The open ledger.
pub struct Ledger {
    db: Database,
}

impl Ledger {
    /// Opens `path`, making it if it is not there.
    ///
    /// # Errors
    /// If it is in use, damaged, or the disk fails.
    pub fn open(path: &Path) -> Result<Self, LedgerError> {
        let db = match Database::create(path) {
            Ok(db) => db,
            Err(redb::DatabaseError::DatabaseAlreadyOpen) => {
                return Err(LedgerError::InUse(path.display().to_string()));
            }
            Err(e) => return Err(e.into()),
        };
        let txn = db.begin_write()?;
        txn.open_table(RELEASES)?;
        txn.open_table(DECISIONS)?;
        txn.open_table(DECISION_IDS)?;
        txn.open_table(EVIDENCE)?;
        txn.open_table(ROUTES)?;
        txn.open_table(DELIVERIES)?;
        txn.open_table(PENDING)?;
        txn.open_table(GONE)?;
        txn.open_table(FREEZES)?;
        txn.open_table(AGES)?;
        txn.commit()?;
        Ok(Self { db })
    }

    /// Every release, by id.
    ///
    /// # Errors
    /// If the disk fails or a row cannot be read.
    pub fn releases(&self) -> Result<Vec<ReleaseRow>, LedgerError> {
        let table = self.db.begin_read()?.open_table(RELEASES)?;
        let mut out = Vec::new();
        for row in table.iter()? {
            out.push(read("release", row?.1.value())?);
        }
        Ok(out)
    }

    /// Freezes that have not ended.
    ///
    /// # Errors
    /// If the disk fails or they cannot be read.
    pub fn freezes(&self) -> Result<Vec<Freeze>, LedgerError> {
        match self.db.begin_read()?.open_table(FREEZES)?.get(ALL_FREEZES)? {
            Some(bytes) => read("freeze", bytes.value()),
            None => Ok(Vec::new()),
        }
    }

    /// Replaces the list of freezes.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn put_freezes(&self, freezes: &Vec<Freeze>) -> Result<(), LedgerError> {
        let txn = self.db.begin_write()?;
        txn.open_table(FREEZES)?
            .insert(ALL_FREEZES, write(freezes).as_slice())?;
        Ok(txn.commit()?)
    }

    /// Writes a release whose state changed without a decision.
    ///
    /// # Errors
    /// If the disk fails.
    pub fn put_release(&self, row: &ReleaseRow) -> Result<(), LedgerError> {
        let txn = self.db.begin_write()?;
        txn.open_table(RELEASES)?
            .insert(row.spec.id.as_str(), write(row).as_slice())?;
        Ok(txn.commit()?)
    }

    /// Writes a release and the decisions that led to its state, in one transaction. `build` is called once per
    /// decision with its place, in order; it returns what to write there. A movement makes older undelivered notices of
    /// the route void (see `line`).
    ///
    /// # Errors
    /// If the disk fails; then nothing was written.
    pub fn decide(
        &self,
        row: &mut ReleaseRow,
        count: usize,
        now: Nanos,
        mut build: impl FnMut(&mut ReleaseRow, usize, &Place) -> Entry,
    ) -> Result<Vec<Entry>, LedgerError> {
        let txn = self.db.begin_write()?;
        let mut written = Vec::with_capacity(count);
        {
            let mut decisions = txn.open_table(DECISIONS)?;
            let mut ids = txn.open_table(DECISION_IDS)?;
            let mut evidence = txn.open_table(EVIDENCE)?;
            let mut routes = txn.open_table(ROUTES)?;
            let mut deliveries = txn.open_table(DELIVERIES)?;
            let mut pending = txn.open_table(PENDING)?;
            let gone = txn.open_table(GONE)?;
            let route = row.spec.route.clone();
            let mut on_route: RouteRow = match routes.get(route.as_str())? {
                Some(bytes) => read("route", bytes.value())?,
                None => RouteRow::default(),
            };
            let (mut ordinal, mut previous) = match decisions.last()? {
                Some((at, bytes)) => {
                    let last: DecisionRow = read("decision", bytes.value())?;
                    (at.value() + 1, Some(last.evidence_hash))
                }
                None => (0, None),
            };
            for i in 0..count {
                let place = Place {
                    ordinal,
                    seq: next_decision_seq(on_route.last_seq, now),
                    previous_hash: previous.take(),
                };
                let mut entry = build(row, i, &place);
                entry.decision.evidence_hash = entry.evidence.hash().to_owned();
                decisions.insert(ordinal, write(&entry.decision).as_slice())?;
                ids.insert(entry.decision.id.as_str(), ordinal)?;
                evidence.insert(entry.decision.id.as_str(), entry.evidence.bytes())?;
                if let Some(delivery) = &mut entry.delivery {
                    let gone_at = gone.get(delivery.webhook.url.as_str())?.map(|at| at.value());
                    enqueue(delivery, entry.calls_back, gone_at, &mut pending, &mut deliveries)?;
                }
                if let Some(desired) = &entry.desired {
                    on_route.desired = Some(desired.clone());
                }
                on_route.last_seq = Some(place.seq);
                previous = Some(entry.decision.evidence_hash.clone());
                ordinal += 1;
                written.push(entry);
            }
            routes.insert(route.as_str(), write(&on_route).as_slice())?;
            txn.open_table(RELEASES)?
                .insert(row.spec.id.as_str(), write(row).as_slice())?;
        }
        txn.commit()?;
        Ok(written)
    }

    /// The newest `limit` decisions, newest first.
    ///
    /// # Errors
    /// If the disk fails or a row cannot be read.
    pub fn decisions(&self, limit: usize) -> Result<Vec<DecisionRow>, LedgerError> {
        let table = self.db.begin_read()?.open_table(DECISIONS)?;
        let mut out = Vec::new();
        for row in table.iter()?.rev().take(limit) {
            out.push(read("decision", row?.1.value())?);
        }
        Ok(out)
    }

    /// One decision with its evidence bundle, exactly as it was hashed.
    ///
    /// # Errors
    /// If the disk fails or a row cannot be read.
    pub fn decision(&self, id: &str) -> Result<Option<(DecisionRow, String)>, LedgerError> {
        let txn = self.db.begin_read()?;
        let Some(ordinal) = txn.open_table(DECISION_IDS)?.get(id)?.map(|o| o.value()) else {
            return Ok(None);
        };
        let Some(row) = txn.open_table(DECISIONS)?.get(ordinal)? else {
            return Ok(None);
        };
        let evidence = match txn.open_table(EVIDENCE)?.get(id)? {
            Some(bytes) => packed::text(bytes.value())
                .map_err(|e| LedgerError::Disk(format!("the evidence of {id} is damaged: {e}")))?,
            None => String::new(),
        };
        Ok(Some((read("decision", row.value())?, evidence)))
    }

    /// What each route should be on.
    ///
    /// # Errors
    /// If the disk fails or a row cannot be read.
    pub fn desired(&self) -> Result<BTreeMap<String, Desired>, LedgerError> {
        let table = self.db.begin_read()?.open_table(ROUTES)?;
        let mut out = BTreeMap::new();
        for row in table.iter()? {
            let (route, bytes) = row?;
            let row: RouteRow = read("route", bytes.value())?;
            if let Some(desired) = row.desired {
                out.insert(route.value().to_owned(), desired);
            }
        }
        Ok(out)
    }

    /// Deliveries, newest first (ids sort by time).
    ///
    /// # Errors
    /// If the disk fails or a row cannot be read.
    pub fn deliveries(&self, limit: usize) -> Result<Vec<DeliveryRow>, LedgerError> {
        let table = self.db.begin_read()?.open_table(DELIVERIES)?;
        let mut out = Vec::new();
        for row in table.iter()?.rev().take(limit) {
            out.push(read("delivery", row?.1.value())?);
        }
        Ok(out)
    }

    /// One delivery.
    ///
    /// # Errors
    /// If the disk fails or the row cannot be read.
    pub fn delivery(&self, id: &str) -> Result<Option<DeliveryRow>, LedgerError> {
        get_delivery(&self.db.begin_read()?.open_table(DELIVERIES)?, id)
    }

    /// Deliveries still to be made, by route and then by number.
    ///
    /// # Errors
    /// If the disk fails or a row cannot be read.
    pub fn pending(&self) -> Result<Vec<DeliveryRow>, LedgerError> {
        let txn = self.db.begin_read()?;
        let pending = txn.open_table(PENDING)?;
        let deliveries = txn.open_table(DELIVERIES)?;
        let mut out = Vec::new();
        for row in pending.iter()? {
            if let Some(delivery) = get_delivery(&deliveries, row?.1.value())? {
                out.push(delivery);
            }
        }
        Ok(out)
    }

    /// The oldest delivery of `route` that is still to be made.
    ///
    /// # Errors
    /// If the disk fails or a row cannot be read.
    pub fn oldest_pending(&self, route: &str) -> Result<Option<DeliveryRow>, LedgerError> {
        let txn = self.db.begin_read()?;
        let pending = txn.open_table(PENDING)?;
        let first = pending.range((route, i64::MIN)..(route, i64::MAX))?.next();
        match first {
            Some(row) => get_delivery(&txn.open_table(DELIVERIES)?, row?.1.value()),
            None => Ok(None),
        }
    }

    /// Writes what became of an attempt. `apply` sees the row as it stands and may change it; a row that is no longer
    /// pending (superseded while the attempt ran) is left alone unless a receiver had accepted it.
    ///
    /// # Errors
    /// If the disk fails or the row cannot be read.
    pub fn record_attempt(
        &self,
        id: &str,
        apply: impl FnOnce(&mut DeliveryRow),
    ) -> Result<Option<DeliveryRow>, LedgerError> {
        let txn = self.db.begin_write()?;
        let row = {
            let mut deliveries = txn.open_table(DELIVERIES)?;
            let Some(mut row) = get_delivery(&deliveries, id)? else {
                return Ok(None);
            };
            let before = row.state;
            apply(&mut row);
            if before == DeliveryState::Superseded && row.state != DeliveryState::Delivered {
                row.state = before;
            }
            if row.state != DeliveryState::Pending {
                txn.open_table(PENDING)?
                    .remove((row.route.as_str(), row.decision_seq))?;
            }
            deliveries.insert(id, write(&row).as_slice())?;
            row
        };
        txn.commit()?;
        Ok(Some(row))
    }

    /// Marks a receiver as gone (410).
    ///
    /// # Errors
    /// If the disk fails.
    pub fn disable(&self, url: &str, now: Nanos) -> Result<(), LedgerError> {
        let txn = self.db.begin_write()?;
        txn.open_table(GONE)?.insert(url, now.0)?;
        Ok(txn.commit()?)
    }

    /// Makes a dead delivery pending again and its receiver trusted again. `None` if there is no such delivery, or if a
    /// newer notice of the route has been made since, so that this one would say what no longer holds.
    ///
    /// # Errors
    /// If the disk fails or a row cannot be read.
    pub fn replay(&self, id: &str, now: Nanos) -> Result<Option<DeliveryRow>, LedgerError> {
        let txn = self.db.begin_write()?;
        let row = {
            let mut deliveries = txn.open_table(DELIVERIES)?;
            let Some(mut row) = get_delivery(&deliveries, id)? else {
                return Ok(None);
            };
            let last: RouteRow = match txn.open_table(ROUTES)?.get(row.route.as_str())? {
                Some(bytes) => read("route", bytes.value())?,
                None => RouteRow::default(),
            };
            let newest = last.desired.map(|d| d.decision_seq);
            if row.state != DeliveryState::Dead || newest.is_some_and(|seq| seq > row.decision_seq) {
                return Ok(None);
            }
            row.state = DeliveryState::Pending;
            row.created_at = now;
            row.next_attempt_at = now;
            row.attempts = 0;
            txn.open_table(GONE)?.remove(row.webhook.url.as_str())?;
            txn.open_table(PENDING)?
                .insert((row.route.as_str(), row.decision_seq), row.id.as_str())?;
            deliveries.insert(id, write(&row).as_slice())?;
            row
        };
        txn.commit()?;
        Ok(Some(row))
    }
}

fn get_delivery(
    table: &impl ReadableTable<&'static str, &'static [u8]>,
    id: &str,
) -> Result<Option<DeliveryRow>, LedgerError> {
    match table.get(id)? {
        Some(bytes) => Ok(Some(read("delivery", bytes.value())?)),
        None => Ok(None),
    }
}

fn read<T: DeserializeOwned>(what: &'static str, bytes: &[u8]) -> Result<T, LedgerError> {
    serde_json::from_slice(bytes).map_err(|e| LedgerError::Row(what, e))
}

fn write<T: Serialize>(row: &T) -> Vec<u8> {
    // rows are plain structs with text keys, which always serialise
    serde_json::to_vec(row).unwrap_or_default()
}
