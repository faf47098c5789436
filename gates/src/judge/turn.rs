//! One minute of cells, turned into rows: which gate and cohort each cell belongs to, and what it earns.

use super::{
    column::Row,
    columns::{ALL, BLUE, BucketLogs, Cohorts, EventRow, GREEN, MeanRow, NO_SPLIT, is_randomised, uses},
    guards::Guarded,
    plan::{Counting, Plan, Source, Test, Worse},
};
use crate::stats::{
    BETS, KAPPA, Side,
    mean::{LimitBets, MeanBets, add},
    paired::ValueBets,
};
use proto::{
    Cell, Color, Grain, Histogram, Metric, bucket,
    cell::{Minute, PPM, Series},
};
use std::collections::BTreeMap;

/// In place of a gate: the units themselves.
pub(super) const UNITS: usize = usize::MAX;
/// The difference of a pair, as an index of bucket logs beside [`BLUE`] and [`GREEN`].
const DIFFERENCE: usize = 2;

/// A gate (by position) and the number of a cohort.
pub(super) type PairAt = (usize, u32);

/// One minute, turned round; rows in ascending order of pair and split.
#[derive(Debug, Default)]
pub(super) struct Turned {
    pub events: Vec<(PairAt, EventRow)>,
    pub means: Vec<(PairAt, MeanRow)>,
    pub values: BTreeMap<PairAt, [Histogram; 2]>,
    pub guarded: Guarded,
}

/// What a release randomises, and at which grain its units are counted.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Frame {
    pub grain: Grain,
}

pub(super) struct Turner<'a> {
    plans: &'a [Result<Plan, String>],
    frame: &'a Frame,
    source: Source,
    cohorts: &'a mut Cohorts,
    logs: &'a mut BucketLogs,
    out: Turned,
}

impl<'a> Turner<'a> {
    pub fn new(
        plans: &'a [Result<Plan, String>],
        frame: &'a Frame,
        source: Source,
        cohorts: &'a mut Cohorts,
        logs: &'a mut BucketLogs,
    ) -> Self {
        Self {
            plans,
            frame,
            source,
            cohorts,
            logs,
            out: Turned::default(),
        }
    }

    pub fn minute(mut self, minute: i64, cells: &Minute) -> Turned {
        // series of one metric stand together
        let mut gates: Vec<usize> = Vec::new();
        let mut of: Option<(&Metric, Grain)> = None;
        for (series, cell) in cells {
            if !series.admitted {
                continue;
            }
            if of != Some((&series.metric, series.grain)) {
                of = Some((&series.metric, series.grain));
                self.gates_of(series, &mut gates);
            }
            self.out.guarded.see(series, cell);
            let is_unit = series.metric == Metric::Traces
                && series.grain == self.frame.grain
                && series.color.is_marked()
                && self.source == Source::of_units(self.frame.grain);
            if gates.is_empty() && !is_unit {
                continue;
            }
            let cohort = series.cohort.as_ref().map(|c| self.cohorts.number(c));
            let split = series.split_ppm.unwrap_or(NO_SPLIT);
            if is_unit {
                let row = event_row(minute, split, arm(series.color), cell.n, 0);
                for cohort in [Some(ALL), cohort].into_iter().flatten() {
                    self.out.events.push(((UNITS, cohort), row));
                }
            }
            for &gate in &gates {
                self.gate(gate, minute, split, cohort, series, cell);
            }
        }
        merge(&mut self.out.events);
        merge(&mut self.out.means);
        self.out
    }

    fn gates_of(&self, series: &Series, out: &mut Vec<usize>) {
        out.clear();
        out.extend(self.plans.iter().enumerate().filter_map(|(gate, plan)| {
            let plan = plan.as_ref().ok()?;
            let fits = plan.source == self.source && plan.metric == series.metric && plan.grain == series.grain;
            fits.then_some(gate)
        }));
    }

    fn gate(&mut self, gate: usize, minute: i64, split: u32, cohort: Option<u32>, series: &Series, cell: &Cell) {
        let plans = self.plans;
        let Some(Ok(plan)) = plans.get(gate) else {
            return;
        };
        if !series.color.is_marked() && plan.counting != Counting::PairValue {
            return;
        }
        let cohorts = [Some(ALL), cohort.filter(|_| plan.by_cohort)];
        let pairs = cohorts.into_iter().flatten().map(|cohort| (gate, cohort));
        if plan.counts_events() {
            let row = count(plan, minute, split, arm(series.color), cell);
            for id in pairs {
                if plan.quantile.is_some() && uses(plan, split) && plan.counting != Counting::PairEvent {
                    self.out.values.entry(id).or_default()[arm(series.color)].merge(&cell.hdr, 1);
                }
                self.out.events.push((id, row));
            }
        } else {
            let row = self.bet(plan, gate, minute, split, series.color, cell);
            for id in pairs {
                self.out.means.push((id, row));
            }
        }
    }

    /// Turns an amount cell into what it adds to every bet.
    fn bet(&mut self, plan: &Plan, gate: usize, minute: i64, split: u32, color: Color, cell: &Cell) -> MeanRow {
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
        let arm = if color.is_marked() { arm(color) } else { DIFFERENCE };
        for (index, count) in cell.hdr.iter() {
            let (low, high) = bucket::range_of(index);
            let (low, high) = (low as f64, high as f64);
            let [gt, lt] = self
                .logs
                .entry((gate, arm, split, index))
                .or_insert_with(|| [Side::Gt, Side::Lt].map(|side| bets.logs(arm, low, high, side)));
            add(&mut row.gt, count, gt);
            add(&mut row.lt, count, lt);
            if arm != DIFFERENCE {
                let value = f64::midpoint(low, high).min(bets.cap);
                row.sum[arm] += count as f64 * value;
                row.sum_sq[arm] += count as f64 * value * value;
            }
        }
        if arm != DIFFERENCE {
            row.n[arm] = cell.n;
            if cell.hdr.max().is_none_or(|max| max as f64 <= bets.cap) {
                // Nothing was capped: the exact sum is known.
                row.sum[arm] = cell.sum as f64;
            }
        }
        row
    }
}

const fn arm(color: Color) -> usize {
    match color {
        Color::Blue => BLUE,
        _ => GREEN,
    }
}

/// Sorts rows by pair and split and joins those of one place. Cells come in key order, so the sums do too.
fn merge<R: Row + Clone>(rows: &mut Vec<(PairAt, R)>) {
    rows.sort_by_key(|(id, row)| (*id, row.place().1));
    rows.dedup_by(|(id, row), (into, sum)| {
        let same = id == into && row.place() == sum.place();
        if same {
            sum.absorb(row);
        }
        same
    });
}

/// Rows of one pair, as they were and as they are.
pub(super) type OldAndNew<'a, R> = (PairAt, &'a [(PairAt, R)], &'a [(PairAt, R)]);

/// Walks two sorted lists by pair.
pub(super) fn side_by_side<'a, R>(
    mut old: &'a [(PairAt, R)],
    mut new: &'a [(PairAt, R)],
) -> impl Iterator<Item = OldAndNew<'a, R>> {
    std::iter::from_fn(move || {
        let next = [old.first(), new.first()]
            .into_iter()
            .flatten()
            .map(|(id, _)| *id)
            .min()?;
        let of = |rows: &[(PairAt, R)]| rows.partition_point(|(id, _)| *id == next);
        let (was, old_rest) = old.split_at(of(old));
        let (is, new_rest) = new.split_at(of(new));
        (old, new) = (old_rest, new_rest);
        Some((next, was, is))
    })
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
        Counting::Event | Counting::Value | Counting::PairEvent | Counting::PairValue => cell.events,
    };
    event_row(minute, split, arm, cell.n, events)
}

/// The bets that a mean plan lays in rows of one split.
struct Bets {
    split: Option<MeanBets>,
    limit: Option<(LimitBets, Worse)>,
    paired: Option<ValueBets>,
    cap: f64,
}

impl Bets {
    fn new(plan: &Plan, split: u32) -> Self {
        let none = Self {
            split: None,
            limit: None,
            paired: None,
            cap: f64::INFINITY,
        };
        match plan.test {
            Test::Means(margin) if is_randomised(split) => Self {
                split: MeanBets::new(margin, f64::from(split) / f64::from(PPM)),
                cap: margin.cap,
                ..none
            },
            // Where only green is left, its mean is held against the frozen one.
            Test::Means(margin) => Self {
                limit: plan
                    .alone
                    .and_then(|limit| LimitBets::new(limit, margin.cap))
                    .map(|bets| (bets, Worse::Above)),
                cap: margin.cap,
                ..none
            },
            Test::Mean { bets, worse } => Self {
                limit: Some((bets, worse)),
                cap: bets.cap,
                ..none
            },
            Test::PairedMean(bets) => Self {
                paired: Some(bets),
                cap: bets.cap,
                ..none
            },
            Test::Rates { .. } | Test::Joint { .. } | Test::Share { .. } | Test::Discordant(_) => none,
        }
    }

    fn logs(&self, arm: usize, low: f64, high: f64, side: Side) -> [f64; BETS] {
        match (&self.split, &self.limit, &self.paired) {
            (_, _, Some(bets)) if arm == DIFFERENCE => match side {
                Side::Gt => bets.gt(low),
                // differences were rounded down
                Side::Lt => bets.lt(high + 1.0),
            },
            (Some(bets), ..) if arm == BLUE => bets.blue(low, high, side, &KAPPA),
            (Some(bets), ..) => bets.green(low, high, side, &KAPPA),
            (None, Some((bets, worse)), _) if arm == GREEN => match (side, worse) {
                (Side::Gt, Worse::Above) | (Side::Lt, Worse::Below) => bets.above(low),
                (Side::Gt, Worse::Below) | (Side::Lt, Worse::Above) => bets.below(high),
            },
            _ => [0.0; BETS],
        }
    }
}
