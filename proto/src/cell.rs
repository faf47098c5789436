//! Cells: the only numbers a gate reads. They add up, in any order, and late data change them by signed deltas.

use crate::{Color, Grain, Histogram, Metric};
pub use minutes::Minutes;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

mod minutes;

/// Parts per million: the unit of a split (the probability that a unit goes green) inside cells.
pub const PPM: u32 = 1_000_000;

/// Counts of one metric for one group of units.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Cell {
    /// Units observed (those with a known value, for amounts).
    pub n: i64,
    /// Units with the event (rates).
    pub events: i64,
    /// Sum of the integer values (amounts): us, nano-USD or tokens.
    pub sum: i64,
    /// Their histogram (amounts).
    pub hdr: Histogram,
}

impl Cell {
    /// One unit of a rate.
    #[must_use]
    pub fn unit(event: bool) -> Self {
        Self {
            n: 1,
            events: i64::from(event),
            ..Self::default()
        }
    }

    /// One unit of an amount.
    #[must_use]
    pub fn amount(value: u64) -> Self {
        let mut hdr = Histogram::default();
        hdr.record(value, 1);
        Self {
            n: 1,
            events: 0,
            sum: i64::try_from(value).unwrap_or(i64::MAX),
            hdr,
        }
    }

    /// Adds `other`, `sign` times (1 or -1).
    pub fn merge(&mut self, other: &Self, sign: i64) {
        self.n += sign * other.n;
        self.events += sign * other.events;
        self.sum = self.sum.saturating_add(sign.saturating_mul(other.sum));
        self.hdr.merge(&other.hdr, sign);
    }

    /// True if nothing is left.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.n == 0 && self.events == 0 && self.sum == 0 && self.hdr.is_empty()
    }
}

/// Route and release a cell belongs to; `release` is `None` outside any release.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Scope {
    /// Gateway path.
    pub route: Arc<str>,
    /// Release in force at the trace's start.
    pub release: Option<Arc<str>>,
}

/// What distinguishes the cells of one scope and minute.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Series {
    /// Metric.
    pub metric: Metric,
    /// Attempt, request or trace.
    pub grain: Grain,
    /// Cohort value; `None` where the trace had none.
    pub cohort: Option<Arc<str>>,
    /// Split in force at the trace's start, ppm; `None` if unknown.
    pub split_ppm: Option<u32>,
    /// Color.
    pub color: Color,
    /// Whether the units are old enough (start + timeout + grace) for a gate to count them.
    pub admitted: bool,
}

/// Full key of a cell.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct CellKey {
    /// Route and release.
    pub scope: Scope,
    /// Start of the minute (or of the configured resolution) the unit started in, unix seconds.
    pub minute: i64,
    /// The rest.
    pub series: Series,
}

/// The cells of one minute, in key order.
pub type Minute = BTreeMap<Series, Arc<Cell>>;

/// All cells, shared structurally: cloning copies pointers, and a later change copies only what it touches, so a
/// snapshot stays what it was. Iteration order is the key order, so every sum over it is reproducible.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CellTable {
    scopes: BTreeMap<Scope, Arc<Minutes>>,
}

impl CellTable {
    /// Adds `delta` (`sign` 1 or -1) to the cell at `key`; a cell that comes to nothing is dropped.
    pub fn apply(&mut self, key: &CellKey, delta: &Cell, sign: i64) {
        let minutes = Arc::make_mut(self.scopes.entry(key.scope.clone()).or_default());
        let minute = minutes.minute_mut(key.minute);
        let cell = minute.entry(key.series.clone()).or_default();
        let inner = Arc::make_mut(cell);
        inner.merge(delta, sign);
        // It stays for months.
        inner.hdr.pack();
        if inner.is_zero() {
            minute.remove(&key.series);
            if minute.is_empty() {
                minutes.remove(&key.minute);
                if minutes.is_empty() {
                    self.scopes.remove(&key.scope);
                }
            }
        }
    }

    /// Adds every cell of `other`.
    pub fn merge(&mut self, other: &Self) {
        for (key, cell) in other.iter() {
            self.apply(&key, cell, 1);
        }
    }

    /// The minutes of one scope.
    #[must_use]
    pub fn minutes(&self, scope: &Scope) -> Option<&Minutes> {
        self.scopes.get(scope).map(Arc::as_ref)
    }

    /// Scopes that hold any cell.
    pub fn scopes(&self) -> impl Iterator<Item = &Scope> {
        self.scopes.keys()
    }

    /// Every cell, in key order.
    pub fn iter(&self) -> impl Iterator<Item = (CellKey, &Arc<Cell>)> {
        self.scopes.iter().flat_map(|(scope, minutes)| {
            minutes.iter().flat_map(move |(&minute, cells)| {
                cells.iter().map(move |(series, cell)| {
                    (
                        CellKey {
                            scope: scope.clone(),
                            minute,
                            series: series.clone(),
                        },
                        cell,
                    )
                })
            })
        })
    }

    /// True if there is no cell.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.scopes.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(minute: i64) -> CellKey {
        CellKey {
            scope: Scope {
                route: "chat".into(),
                release: None,
            },
            minute,
            series: Series {
                metric: Metric::Latency,
                grain: Grain::Trace,
                cohort: None,
                split_ppm: Some(500_000),
                color: Color::Green,
                admitted: true,
            },
        }
    }

    #[test]
    fn a_snapshot_is_not_changed_by_later_deltas() {
        let mut table = CellTable::default();
        table.apply(&key(60), &Cell::amount(1_000), 1);
        let before = table.clone();
        table.apply(&key(60), &Cell::amount(2_000), 1);
        assert_eq!(before.iter().next().unwrap().1.n, 1);
        assert_eq!(table.iter().next().unwrap().1.n, 2);
    }

    #[test]
    fn what_is_taken_back_leaves_no_trace() {
        let mut table = CellTable::default();
        table.apply(&key(60), &Cell::amount(1_000), 1);
        table.apply(&key(60), &Cell::amount(1_000), -1);
        assert!(table.is_empty());
    }

    #[test]
    fn a_later_delta_copies_no_minutes_but_those_around_it() {
        let mut table = CellTable::default();
        for minute in 0..3 * 1_440 {
            table.apply(&key(minute * 60), &Cell::unit(false), 1);
        }
        let before = table.clone();
        table.apply(&key(1_000 * 60), &Cell::unit(true), 1);
        let of = |table: &CellTable| table.minutes(&key(0).scope).unwrap().clone();
        let (before, after) = (of(&before), of(&table));
        let copied = after.parts_not_of(&before);
        assert_eq!(copied.len(), 1);
        assert!(copied[0] <= 1_440, "{copied:?} minutes are copied");
        let changed = before.iter().zip(after.iter()).filter(|(a, b)| !Arc::ptr_eq(a.1, b.1));
        assert_eq!(changed.map(|(a, _)| *a.0).collect::<Vec<_>>(), [1_000 * 60]);
    }
}
