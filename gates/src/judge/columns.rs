//! Cells turned round: per pair, one row for each minute and split, so that a judgement is one walk along an array.
//!
//! A table of cells changes in few minutes from one judgement to the next. [`Columns::follow`] compares the minutes by
//! identity and turns only those that changed; what it holds is a pure function of the cells either way.

use super::{
    column::{Column, Row, changed, put},
    plan::{Counting, Plan, Test, Worse},
};
use crate::stats::{
    BETS, KAPPA, LateStarts, Side,
    mean::{LimitBets, MeanBets, add},
};
use proto::{
    Cell, Color, Grain, Histogram, Metric, bucket,
    cell::{Minute, Minutes, PPM, Series},
};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Split of a row whose cells had none.
pub(super) const NO_SPLIT: u32 = u32::MAX;
/// Column of the units themselves (the sample-ratio check and coverage).
pub(super) const UNITS: usize = usize::MAX;
/// Logs kept of bets on single buckets.
const LOGS_MAX: usize = 200_000;

/// A gate (by position) and a cohort; `None` for all traces.
pub(super) type PairId = (usize, Option<Arc<str>>);

/// Whether the split of a row randomises.
pub(super) const fn is_randomised(split: u32) -> bool {
    split > 0 && split < PPM
}

/// Blue and green, as indices of a row's arrays.
pub(super) const BLUE: usize = 0;
/// See [`BLUE`].
pub(super) const GREEN: usize = 1;

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

/// One minute, turned round.
#[derive(Debug, Default)]
struct Turned {
    events: BTreeMap<PairId, Vec<EventRow>>,
    means: BTreeMap<PairId, Vec<MeanRow>>,
    values: BTreeMap<PairId, [Histogram; 2]>,
}

type BucketLogs = HashMap<(usize, usize, u32, u32), [[f64; BETS]; 2]>;

/// Rows of a gate that counts events.
pub(super) type EventColumn = Column<EventRow, LateStarts>;
/// Rows of a gate that compares means.
pub(super) type MeanColumn = Column<MeanRow, LateStarts>;

/// Every pair's rows in order of time.
#[derive(Debug, Default)]
pub(super) struct Columns {
    minutes: BTreeMap<i64, Arc<Minute>>,
    events: BTreeMap<PairId, EventColumn>,
    means: BTreeMap<PairId, MeanColumn>,
    /// Values of quantile gates, all minutes together.
    values: BTreeMap<PairId, [Histogram; 2]>,
    logs: BucketLogs,
}

impl Columns {
    pub fn events(&mut self, id: &PairId) -> Option<&mut EventColumn> {
        self.events.get_mut(id)
    }

    pub fn means(&mut self, id: &PairId) -> Option<&mut MeanColumn> {
        self.means.get_mut(id)
    }

    pub fn values(&self, id: &PairId) -> Option<&[Histogram; 2]> {
        self.values.get(id)
    }

    /// The units of one cohort; `None` for all.
    pub fn units(&self, cohort: Option<Arc<str>>) -> &[EventRow] {
        self.events.get(&(UNITS, cohort)).map_or(&[], Column::rows)
    }

    /// Cohorts in order of their first admitted trace, then by name.
    pub fn cohorts(&self) -> Vec<Arc<str>> {
        let from = (UNITS, None);
        let mut out: Vec<(i64, &Arc<str>)> = self
            .events
            .range(from..)
            .filter_map(|((_, cohort), column)| Some((column.rows().first()?.minute, cohort.as_ref()?)))
            .collect();
        out.sort_unstable();
        out.into_iter().map(|(_, c)| Arc::clone(c)).collect()
    }

    /// Brings the columns to what `minutes` hold from `counted_from` on.
    pub fn follow(&mut self, plans: &[Result<Plan, String>], minutes: &Minutes, counted_from: i64) {
        for (minute, cells) in changed(&self.minutes, minutes, counted_from) {
            self.turn(plans, minute, cells);
        }
    }

    fn turn(&mut self, plans: &[Result<Plan, String>], minute: i64, cells: Option<Arc<Minute>>) {
        if self.logs.len() > LOGS_MAX {
            self.logs.clear();
        }
        if let Some(old) = self.minutes.remove(&minute) {
            let old = turn_minute(plans, minute, &old, &mut self.logs);
            merge_values(&mut self.values, old.values, -1);
        }
        let mut new = cells
            .as_ref()
            .map(|cells| turn_minute(plans, minute, cells, &mut self.logs))
            .unwrap_or_default();
        for (id, column) in &mut self.events {
            column.replace(minute, new.events.remove(id).unwrap_or_default());
        }
        for (id, column) in &mut self.means {
            column.replace(minute, new.means.remove(id).unwrap_or_default());
        }
        // Columns that begin here.
        for (id, rows) in new.events {
            self.events.entry(id).or_default().replace(minute, rows);
        }
        for (id, rows) in new.means {
            self.means.entry(id).or_default().replace(minute, rows);
        }
        merge_values(&mut self.values, new.values, 1);
        if let Some(cells) = cells {
            self.minutes.insert(minute, cells);
        }
    }
}

fn merge_values(into: &mut BTreeMap<PairId, [Histogram; 2]>, values: BTreeMap<PairId, [Histogram; 2]>, sign: i64) {
    for (id, arms) in values {
        let sums = into.entry(id).or_default();
        sums[BLUE].merge(&arms[BLUE], sign);
        sums[GREEN].merge(&arms[GREEN], sign);
    }
}

fn turn_minute(plans: &[Result<Plan, String>], minute: i64, cells: &Minute, logs: &mut BucketLogs) -> Turned {
    let mut out = Turned::default();
    let counted = cells.iter().filter(|(s, _)| s.admitted && s.color.is_marked());
    for (series, cell) in counted {
        let arm = if series.color == Color::Blue { BLUE } else { GREEN };
        let split = series.split_ppm.unwrap_or(NO_SPLIT);
        if series.metric == Metric::Traces && series.grain == Grain::Trace {
            let row = event_row(minute, split, arm, cell.n, 0);
            for id in ids(UNITS, true, series) {
                put(out.events.entry(id).or_default(), row);
            }
        }
        for (gate, plan) in plans.iter().enumerate() {
            let Ok(plan) = plan else { continue };
            if plan.metric != series.metric || plan.grain != series.grain {
                continue;
            }
            match plan.counting {
                Counting::Event | Counting::Above { .. } => {
                    let row = count(plan, minute, split, arm, cell);
                    for id in ids(gate, plan.by_cohort, series) {
                        if plan.quantile.is_some() && uses(plan, split) {
                            out.values.entry(id.clone()).or_default()[arm].merge(&cell.hdr, 1);
                        }
                        put(out.events.entry(id).or_default(), row);
                    }
                }
                Counting::Value => {
                    let row = bet(plan, gate, minute, split, arm, cell, logs);
                    for id in ids(gate, plan.by_cohort, series) {
                        put(out.means.entry(id).or_default(), row);
                    }
                }
            }
        }
    }
    out
}

/// Whether rows of this split take part in the gate's comparison.
pub(super) const fn uses(plan: &Plan, split: u32) -> bool {
    match plan.test {
        Test::Rates { .. } | Test::Means(_) => is_randomised(split),
        Test::Joint { .. } => !plan.randomised || is_randomised(split),
        Test::Share { .. } | Test::Mean { .. } => true,
    }
}

/// The overall pair, and the cohort's if it is judged.
fn ids(gate: usize, by_cohort: bool, series: &Series) -> impl Iterator<Item = PairId> {
    let cohort = series.cohort.clone().filter(|_| by_cohort);
    std::iter::once((gate, None)).chain(cohort.map(|c| (gate, Some(c))))
}

const fn event_row(minute: i64, split: u32, arm: usize, n: i64, events: i64) -> EventRow {
    let mut row = EventRow {
        minute,
        split,
        n: [0; 2],
        events: [0; 2],
    };
    row.n[arm] = n;
    row.events[arm] = events;
    row
}

fn count(plan: &Plan, minute: i64, split: u32, arm: usize, cell: &Cell) -> EventRow {
    let events = match plan.counting {
        Counting::Above { blue, green } => cell.hdr.count_above(if arm == BLUE { blue } else { green }),
        Counting::Event | Counting::Value => cell.events,
    };
    event_row(minute, split, arm, cell.n, events)
}

/// Turns an amount cell into what it adds to every bet.
fn bet(plan: &Plan, gate: usize, minute: i64, split: u32, arm: usize, cell: &Cell, logs: &mut BucketLogs) -> MeanRow {
    let mut row = MeanRow {
        minute,
        split,
        n: [0; 2],
        sum: [0.0; 2],
        sum_sq: [0.0; 2],
        gt: [0.0; BETS],
        lt: [0.0; BETS],
    };
    let bets = Bets::new(plan, split);
    let cap = bets.cap;
    row.n[arm] = cell.n;
    for (index, count) in cell.hdr.iter() {
        let (low, high) = bucket::range_of(index);
        let (low, high) = (low as f64, high as f64);
        let [gt, lt] = logs
            .entry((gate, arm, split, index))
            .or_insert_with(|| [Side::Gt, Side::Lt].map(|side| bets.logs(arm, low, high, side)));
        add(&mut row.gt, count, gt);
        add(&mut row.lt, count, lt);
        let value = f64::midpoint(low, high).min(cap);
        row.sum[arm] += count as f64 * value;
        row.sum_sq[arm] += count as f64 * value * value;
    }
    if cell.hdr.max().is_none_or(|max| max as f64 <= cap) {
        // Nothing was capped: the exact sum is known.
        row.sum[arm] = cell.sum as f64;
    }
    row
}

/// The bets that a mean plan lays in rows of one split.
struct Bets {
    split: Option<MeanBets>,
    limit: Option<(LimitBets, Worse)>,
    cap: f64,
}

impl Bets {
    fn new(plan: &Plan, split: u32) -> Self {
        match plan.test {
            Test::Means(margin) if is_randomised(split) => Self {
                split: MeanBets::new(margin, f64::from(split) / f64::from(PPM)),
                limit: None,
                cap: margin.cap,
            },
            // Where only green is left, its mean is held against the frozen one.
            Test::Means(margin) => Self {
                split: None,
                limit: plan
                    .alone
                    .and_then(|limit| LimitBets::new(limit, margin.cap))
                    .map(|bets| (bets, Worse::Above)),
                cap: margin.cap,
            },
            Test::Mean { bets, worse } => Self {
                split: None,
                limit: Some((bets, worse)),
                cap: bets.cap,
            },
            Test::Rates { .. } | Test::Joint { .. } | Test::Share { .. } => Self {
                split: None,
                limit: None,
                cap: f64::INFINITY,
            },
        }
    }

    fn logs(&self, arm: usize, low: f64, high: f64, side: Side) -> [f64; BETS] {
        match (&self.split, &self.limit) {
            (Some(bets), _) if arm == BLUE => bets.blue(low, high, side, &KAPPA),
            (Some(bets), _) => bets.green(low, high, side, &KAPPA),
            (None, Some((bets, worse))) if arm == GREEN => match (side, worse) {
                (Side::Gt, Worse::Above) | (Side::Lt, Worse::Below) => bets.above(low),
                (Side::Gt, Worse::Below) | (Side::Lt, Worse::Above) => bets.below(high),
            },
            _ => [0.0; BETS],
        }
    }
}
