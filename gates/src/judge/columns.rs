//! Cells turned round: per pair, one row for each minute and split, so that a judgement is one walk along an array.
//!
//! A table of cells changes in few minutes from one judgement to the next. [`Columns::follow`] compares the minutes by
//! identity and turns only those that changed; what it holds is a pure function of the cells either way. Cohorts are
//! numbered as they come, so that a row finds its column without comparing texts.

use super::{
    column::{Column, Row, changed},
    guards::Guarded,
    plan::{Counting, Plan, Source, Test},
    turn::{self, Turned},
};
use crate::stats::{BETS, LateStarts, asymptotic::Moments, mean::add};
use proto::{
    Histogram,
    cell::{Minute, Minutes, PPM},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Split of a row whose cells had none.
pub(super) const NO_SPLIT: u32 = u32::MAX;
/// Number of the column for all cohorts together.
pub(super) const ALL: u32 = 0;
/// Blue and green, as indices of a row's arrays.
pub(super) const BLUE: usize = 0;
/// See [`BLUE`].
pub(super) const GREEN: usize = 1;
/// Logs kept of bets on single buckets.
const LOGS_MAX: usize = 200_000;

/// Whether the split of a row randomises.
pub(super) const fn is_randomised(split: u32) -> bool {
    split > 0 && split < PPM
}

/// Counts of one minute and split.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct EventRow {
    pub minute: i64,
    pub split: u32,
    pub n: [i64; 2],
    pub events: [i64; 2],
}

/// Amounts of one minute and split, and what they add to the log of each bet.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct MeanRow {
    pub minute: i64,
    pub split: u32,
    pub n: [i64; 2],
    pub sum: [f64; 2],
    pub sum_sq: [f64; 2],
    pub gt: [f64; BETS],
    pub lt: [f64; BETS],
}

impl Row for EventRow {
    fn place(&self) -> (i64, u32) {
        (self.minute, self.split)
    }

    fn absorb(&mut self, other: &Self) {
        for arm in [BLUE, GREEN] {
            self.n[arm] += other.n[arm];
            self.events[arm] += other.events[arm];
        }
    }
}

impl Row for MeanRow {
    fn place(&self) -> (i64, u32) {
        (self.minute, self.split)
    }

    fn absorb(&mut self, other: &Self) {
        for arm in [BLUE, GREEN] {
            self.n[arm] += other.n[arm];
            self.sum[arm] += other.sum[arm];
            self.sum_sq[arm] += other.sum_sq[arm];
        }
        add(&mut self.gt, 1, &other.gt);
        add(&mut self.lt, 1, &other.lt);
    }
}

/// Counts of one pair in one stratum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sums {
    pub split: u32,
    pub n: [i64; 2],
    pub events: [i64; 2],
}

/// Adds a row, `sign` times, to sums that stand in ascending order of split.
pub(super) fn add_up(sums: &mut Vec<Sums>, row: &EventRow, sign: i64) {
    let at = sums.binary_search_by_key(&row.split, |s| s.split).unwrap_or_else(|at| {
        let empty = Sums {
            split: row.split,
            n: [0; 2],
            events: [0; 2],
        };
        sums.insert(at, empty);
        at
    });
    for arm in [BLUE, GREEN] {
        sums[at].n[arm] += sign * row.n[arm];
        sums[at].events[arm] += sign * row.events[arm];
    }
    if sums[at].n == [0; 2] && sums[at].events == [0; 2] {
        sums.remove(at);
    }
}

/// A pair that counts events. Where rows without an event earn nothing only their sums are kept.
#[derive(Debug, Default)]
pub(super) struct EventColumn {
    pub rows: Column<EventRow, LateStarts>,
    /// All rows together, kept or not, by split.
    pub sums: Vec<Sums>,
    /// Values of a quantile gate, all minutes together.
    pub values: [Histogram; 2],
    /// Grows with every change.
    pub version: u64,
}

/// What a walk over rows of amounts sums up.
#[derive(Debug, Clone, Default)]
pub(super) struct MeanSums {
    /// Bets for rollback.
    pub late: LateStarts,
    /// Log of each bet for promotion.
    pub lt: [f64; BETS],
    /// Of the compared units, in integer units of the metric.
    pub moments: [Moments; 2],
    /// The compared units by split.
    pub strata: Vec<Sums>,
}

/// A pair that compares means.
#[derive(Debug, Default)]
pub(super) struct MeanColumn {
    pub rows: Column<MeanRow, MeanSums>,
    /// Grows with every change.
    pub version: u64,
}

/// Columns of one gate by number of the cohort.
#[derive(Debug)]
pub(super) struct Family<T>(Vec<Option<Box<T>>>);

impl<T: Default> Family<T> {
    pub fn get(&self, cohort: u32) -> Option<&T> {
        self.0.get(cohort as usize)?.as_deref()
    }

    pub fn get_mut(&mut self, cohort: u32) -> Option<&mut T> {
        self.0.get_mut(cohort as usize)?.as_deref_mut()
    }

    fn ensure(&mut self, cohort: u32) -> &mut T {
        let at = cohort as usize;
        if self.0.len() <= at {
            self.0.resize_with(at + 1, || None);
        }
        self.0[at].get_or_insert_default()
    }
}

impl<T> Default for Family<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

/// Numbers of cohorts, in the order in which this process met them; [`ALL`] is none of them.
#[derive(Debug, Default)]
pub(super) struct Cohorts {
    numbers: HashMap<Arc<str>, u32>,
    names: Vec<Arc<str>>,
}

impl Cohorts {
    pub fn number(&mut self, name: &Arc<str>) -> u32 {
        if let Some(&known) = self.numbers.get(name) {
            return known;
        }
        self.names.push(Arc::clone(name));
        let number = u32::try_from(self.names.len()).unwrap_or(ALL);
        self.numbers.insert(Arc::clone(name), number);
        number
    }

    pub fn known(&self, name: Option<&str>) -> Option<u32> {
        name.map_or(Some(ALL), |name| self.numbers.get(name).copied())
    }

    fn name(&self, number: u32) -> Option<&Arc<str>> {
        self.names.get(number.checked_sub(1)? as usize)
    }
}

/// Logs of bets on single buckets: (gate, arm, split, bucket) to what one unit adds, for and against.
pub(super) type BucketLogs = HashMap<(usize, usize, u32, u32), [[f64; BETS]; 2]>;

/// Every pair's rows in order of time, from one source of cells.
#[derive(Debug)]
pub(super) struct Columns {
    source: Source,
    minutes: BTreeMap<i64, Arc<Minute>>,
    pub cohorts: Cohorts,
    events: Vec<Family<EventColumn>>,
    means: Vec<Family<MeanColumn>>,
    /// The units themselves: for the sample ratio, coverage, and the order of cohorts.
    units: Family<EventColumn>,
    pub guarded: Guarded,
    logs: BucketLogs,
}

impl Columns {
    pub fn new(source: Source, gates: usize) -> Self {
        Self {
            source,
            minutes: BTreeMap::new(),
            cohorts: Cohorts::default(),
            events: std::iter::repeat_with(Family::default).take(gates).collect(),
            means: std::iter::repeat_with(Family::default).take(gates).collect(),
            units: Family::default(),
            guarded: Guarded::default(),
            logs: BucketLogs::new(),
        }
    }

    pub fn events(&mut self, gate: usize, cohort: u32) -> Option<&mut EventColumn> {
        self.events.get_mut(gate)?.get_mut(cohort)
    }

    pub fn means(&mut self, gate: usize, cohort: u32) -> Option<&mut MeanColumn> {
        self.means.get_mut(gate)?.get_mut(cohort)
    }

    /// The units of one cohort.
    pub fn units(&self, cohort: u32) -> Option<&EventColumn> {
        self.units.get(cohort)
    }

    /// Cohorts in order of their first admitted unit, then by name.
    pub fn in_order(&self) -> Vec<Arc<str>> {
        let mut out: Vec<(i64, &Arc<str>)> = (1..self.units.0.len())
            .filter_map(|at| {
                let number = u32::try_from(at).ok()?;
                let first = self.units.get(number)?.rows.rows().first()?.minute;
                Some((first, self.cohorts.name(number)?))
            })
            .collect();
        out.sort_unstable();
        out.into_iter().map(|(_, c)| Arc::clone(c)).collect()
    }

    /// Brings the columns to what `minutes` hold from `counted_from` on.
    pub fn follow(
        &mut self,
        plans: &[Result<Plan, String>],
        frame: &turn::Frame,
        minutes: &Minutes,
        counted_from: i64,
    ) {
        for (minute, cells) in changed(&self.minutes, minutes, counted_from) {
            if self.logs.len() > LOGS_MAX {
                self.logs.clear();
            }
            let mut turn = |cells: &Minute| {
                let turner = turn::Turner::new(plans, frame, self.source, &mut self.cohorts, &mut self.logs);
                turner.minute(minute, cells)
            };
            let old = self.minutes.remove(&minute).map(|old| turn(&old));
            let new = cells.as_ref().map(|cells| turn(cells)).unwrap_or_default();
            self.put(plans, minute, &old.unwrap_or_default(), new);
            if let Some(cells) = cells {
                self.minutes.insert(minute, cells);
            }
        }
    }

    fn put(&mut self, plans: &[Result<Plan, String>], minute: i64, old: &Turned, new: Turned) {
        self.guarded.add(&old.guarded, -1);
        self.guarded.add(&new.guarded, 1);
        for (sign, values) in [(-1, &old.values), (1, &new.values)] {
            for ((gate, cohort), arms) in values {
                let column = self.events[*gate].ensure(*cohort);
                column.values[BLUE].merge(&arms[BLUE], sign);
                column.values[GREEN].merge(&arms[GREEN], sign);
            }
        }
        let keeps = |gate: usize, row: &EventRow| match plans.get(gate) {
            Some(Ok(plan)) => plan.keeps(row.split, row.events),
            _ => true,
        };
        for ((gate, cohort), old, new) in turn::side_by_side(&old.events, &new.events) {
            let family = match gate {
                turn::UNITS => &mut self.units,
                gate => &mut self.events[gate],
            };
            let column = family.ensure(cohort);
            for (sign, rows) in [(-1, old), (1, new)] {
                rows.iter().for_each(|(_, row)| add_up(&mut column.sums, row, sign));
            }
            let kept: Vec<EventRow> = new.iter().map(|(_, row)| *row).filter(|row| keeps(gate, row)).collect();
            column.rows.replace(minute, minute + 1, kept.into_iter());
            column.version += 1;
        }
        for ((gate, cohort), _, new) in turn::side_by_side(&old.means, &new.means) {
            let column = self.means[gate].ensure(cohort);
            column.rows.replace(minute, minute + 1, new.iter().map(|(_, row)| *row));
            column.version += 1;
        }
    }
}

/// Whether rows of this split take part in the gate's comparison.
pub(super) const fn uses(plan: &Plan, split: u32) -> bool {
    match plan.test {
        Test::Rates { .. } | Test::Means(_) => is_randomised(split),
        Test::Joint { .. } => !plan.randomised || is_randomised(split),
        Test::Share { .. } | Test::Mean { .. } => true,
        Test::Discordant(_) | Test::PairedMean(_) => true,
    }
}

impl Plan {
    /// Whether a row must be kept, not only its sums: where it earns nothing it need not.
    const fn keeps(&self, split: u32, events: [i64; 2]) -> bool {
        match self.test {
            Test::Rates { .. } if self.lateness_secs == 0 => events[BLUE] != 0 || events[GREEN] != 0 || split == PPM,
            _ => true,
        }
    }

    /// Whether the gate walks rows of events rather than of means.
    pub(super) const fn counts_events(&self) -> bool {
        !matches!(self.counting, Counting::Value | Counting::PairValue)
    }
}
