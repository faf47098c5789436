//! One pair measured: both e-values, what it looks like, and how sure we are of that.

use super::{
    column::{Column, Row},
    columns::{BLUE, Columns, EventColumn, EventRow, GREEN, MeanColumn, PairId, is_randomised, uses},
    plan::{Counting, Plan, Test, Worse},
    units::per_display_unit,
};
use crate::stats::{
    BETS, G6, LateStarts, RateStratum, ShareBet, Side,
    asymptotic::{self, Moments, N_STAR},
    bern,
    joint::{self, Arms, Boundary, Prior},
    late::joint_late,
    log_space::{ln, mean_exp},
    quantile,
    rates::{self, RateBets},
};
use proto::{Histogram, cell::PPM, release::Margin};

/// Minutes of a release, counted from its first.
#[derive(Debug, Clone, Copy)]
pub(super) struct Calendar {
    /// Start of the first counted minute, unix seconds.
    pub origin: i64,
    /// Width of a minute, seconds.
    pub width: i64,
}

impl Calendar {
    fn index(self, minute: i64) -> u64 {
        u64::try_from((minute - self.origin).div_euclid(self.width)).unwrap_or(0)
    }
}

/// What surrounds one measurement.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context {
    pub calendar: Calendar,
    /// Green serves all: its minutes at split 1 are held against the frozen baseline.
    pub watching: bool,
    /// Level of each displayed bound.
    pub alpha: f64,
}

/// Counts of one pair in one stratum.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Sums {
    pub split: u32,
    pub n: [i64; 2],
    pub events: [i64; 2],
}

/// One pair, measured. Values in the metric's unit of display.
#[derive(Debug, Clone, Default)]
pub(super) struct Measure {
    pub log_e_fail: f64,
    pub log_e_pass: f64,
    pub blue: Option<f64>,
    pub green: Option<f64>,
    pub effect: Option<f64>,
    pub low: Option<f64>,
    pub high: Option<f64>,
    pub n: [i64; 2],
    pub strata: Vec<Sums>,
}

pub(super) fn measure(plan: &Plan, margin: Margin, id: &PairId, columns: &mut Columns, context: Context) -> Measure {
    let mut out = match plan.counting {
        Counting::Event | Counting::Above { .. } => {
            let mut none = EventColumn::default();
            events(plan, columns.events(id).unwrap_or(&mut none), margin, context)
        }
        Counting::Value => {
            let mut none = MeanColumn::default();
            means(plan, columns.means(id).unwrap_or(&mut none), margin, context)
        }
    };
    if let Some(q) = plan.quantile {
        show_quantiles(&mut out, plan, q, margin, columns.values(id), context.alpha);
    }
    for value in [&mut out.effect, &mut out.low, &mut out.high] {
        *value = value.filter(|v| v.is_finite());
    }
    out
}

/// Walks the rows minute by minute; `earn` adds what a row earns to the log of each bet.
fn late<R: Row>(
    column: &mut Column<R, LateStarts>,
    calendar: Calendar,
    mut earn: impl FnMut(&R, &mut [f64; BETS]),
) -> LateStarts {
    column.walk(|late, minute| {
        let mut earned = [0.0; BETS];
        for row in minute {
            earn(row, &mut earned);
        }
        late.push(calendar.index(minute[0].place().0), &earned);
    })
}

fn sums(plan: &Plan, rows: impl Iterator<Item = (u32, [i64; 2], [i64; 2])>) -> Vec<Sums> {
    let mut out: Vec<Sums> = Vec::new();
    for (split, n, events) in rows.filter(|(split, ..)| uses(plan, *split)) {
        let at = out.binary_search_by_key(&split, |s| s.split).unwrap_or_else(|at| {
            let empty = Sums {
                split,
                n: [0; 2],
                events: [0; 2],
            };
            out.insert(at, empty);
            at
        });
        for arm in [BLUE, GREEN] {
            out[at].n[arm] += n[arm];
            out[at].events[arm] += events[arm];
        }
    }
    out
}

fn total(strata: &[Sums], pick: impl Fn(&Sums) -> [i64; 2]) -> [i64; 2] {
    strata
        .iter()
        .map(pick)
        .fold([0; 2], |sum, x| [sum[BLUE] + x[BLUE], sum[GREEN] + x[GREEN]])
}

fn rho(split: u32) -> f64 {
    f64::from(split) / f64::from(PPM)
}

fn events(plan: &Plan, column: &mut EventColumn, margin: Margin, context: Context) -> Measure {
    let strata = sums(plan, column.rows().iter().map(|r| (r.split, r.n, r.events)));
    let n = total(&strata, |s| s.n);
    let seen = total(&strata, |s| s.events);
    let share = |arm: usize| (n[arm] > 0).then(|| seen[arm] as f64 / n[arm] as f64);
    let mut out = Measure {
        blue: share(BLUE),
        green: share(GREEN),
        n,
        ..Measure::default()
    };
    match plan.test {
        Test::Rates { r, beside } => {
            let events: Vec<RateStratum> = strata
                .iter()
                .map(|s| RateStratum {
                    rho: rho(s.split),
                    blue: s.events[BLUE],
                    green: s.events[GREEN],
                })
                .collect();
            let bets: Vec<(u32, RateBets)> = strata
                .iter()
                .map(|s| (s.split, RateBets::new(rho(s.split), r)))
                .collect();
            let frozen = beside.filter(|_| context.watching).map(ShareBet::above);
            let late = late(column, context.calendar, |row, logs| {
                if let Some((_, bets)) = bets.iter().find(|(split, _)| *split == row.split) {
                    bets.gt.add(row.events[GREEN], row.events[BLUE], logs);
                } else if let (PPM, Some(bet)) = (row.split, &frozen) {
                    bet.add(row.events[GREEN], row.n[GREEN] - row.events[GREEN], logs);
                }
            });
            out.log_e_fail = late.log_e();
            out.log_e_pass = rates::log_e(&events, r, Side::Lt);
            if plan.quantile.is_none() {
                out.effect = match events.as_slice() {
                    [_] => ratio(out.green, out.blue),
                    several => rates::ratio_estimate(several),
                };
                (out.low, out.high) = rates::ratio_bounds(&events, context.alpha);
            }
        }
        Test::Joint { boundary, prior } => {
            joint_events(&mut out, plan, column.rows(), boundary, prior, context);
        }
        Test::Share { limit, worse } => {
            let (above, below) = (ShareBet::above(limit), ShareBet::above(1.0 - limit));
            let without = |n: i64, events: i64| n - events;
            let late = late(column, context.calendar, |row, logs| {
                let (s, f) = (row.events[GREEN], without(row.n[GREEN], row.events[GREEN]));
                match worse {
                    Worse::Above => above.add(s, f, logs),
                    Worse::Below => below.add(f, s, logs),
                }
            });
            let (s, f) = (seen[GREEN], without(n[GREEN], seen[GREEN]));
            out.log_e_fail = late.log_e();
            out.log_e_pass = match worse {
                Worse::Above => below.log_e(f, s),
                Worse::Below => above.log_e(s, f),
            };
            if plan.quantile.is_none() {
                out.effect = out.green;
                (out.low, out.high) = share_bounds(s as f64, f as f64, context.alpha);
            }
        }
        Test::Means(_) | Test::Mean { .. } => {}
    }
    debug_assert!(plan.one_arm == matches!(margin, Margin::Max(_) | Margin::Min(_)));
    out.strata = strata;
    out
}

fn joint_events(out: &mut Measure, plan: &Plan, rows: &[EventRow], boundary: Boundary, prior: Prior, context: Context) {
    // Strata are never pooled; each has an e-value of its own, and e-values of separate data multiply.
    let mut strata: Vec<(u32, Vec<(u64, Arms)>)> = Vec::new();
    let mut all = Arms::default();
    for row in rows.iter().filter(|r| uses(plan, r.split)) {
        let stratum = if plan.randomised { row.split } else { 0 };
        let i = strata.iter().position(|(s, _)| *s == stratum).unwrap_or_else(|| {
            strata.push((stratum, Vec::new()));
            strata.len() - 1
        });
        let minutes = &mut strata[i].1;
        let at = context.calendar.index(row.minute);
        if minutes.last().is_none_or(|(last, _)| *last != at) {
            minutes.push((at, Arms::default()));
        }
        let Some((_, arms)) = minutes.last_mut() else {
            continue;
        };
        for arms in [arms, &mut all] {
            count(arms, row);
        }
    }
    strata.sort_by_key(|(split, _)| *split);
    for (_, minutes) in &strata {
        let mut sum = Arms::default();
        for (_, arms) in minutes {
            sum.s_b += arms.s_b;
            sum.f_b += arms.f_b;
            sum.s_g += arms.s_g;
            sum.f_g += arms.f_g;
        }
        out.log_e_fail += joint_late(minutes, boundary, prior);
        out.log_e_pass += joint::log_e(&sum, boundary, prior, Side::Lt);
    }
    if plan.quantile.is_none() {
        match boundary {
            Boundary::Ratio(_) => {
                out.effect = ratio(out.green, out.blue);
                (out.low, out.high) = joint::ratio_bounds(&all, prior, context.alpha);
            }
            Boundary::Difference(_) => {
                out.effect = out.green.zip(out.blue).map(|(g, b)| g - b);
                (out.low, out.high) = joint::difference_bounds(&all, prior, context.alpha);
            }
        }
    }
}

fn count(arms: &mut Arms, row: &EventRow) {
    arms.s_b += row.events[BLUE] as f64;
    arms.f_b += (row.n[BLUE] - row.events[BLUE]) as f64;
    arms.s_g += row.events[GREEN] as f64;
    arms.f_g += (row.n[GREEN] - row.events[GREEN]) as f64;
}

/// Confidence sequence of one arm's share.
fn share_bounds(s: f64, f: f64, alpha: f64) -> (Option<f64>, Option<f64>) {
    let threshold = ln(1.0 / alpha);
    (
        rates::last_true(0.0, 1.0, |p| bern(s, f, p, &G6) >= threshold),
        rates::last_true(1.0, 0.0, |p| bern(f, s, 1.0 - p, &G6) >= threshold),
    )
}

fn ratio(green: Option<f64>, blue: Option<f64>) -> Option<f64> {
    green.zip(blue).map(|(g, b)| g / b)
}

fn means(plan: &Plan, column: &mut MeanColumn, margin: Margin, context: Context) -> Measure {
    let rows = column.rows();
    let strata = sums(plan, rows.iter().map(|r| (r.split, r.n, [0; 2])));
    let n = total(&strata, |s| s.n);
    let unit = per_display_unit(&plan.metric);
    let mut moments = [Moments::default(); 2];
    let mut lt = [0.0; BETS];
    for row in rows.iter().filter(|r| uses(plan, r.split)) {
        for (log, earned) in lt.iter_mut().zip(&row.lt) {
            *log += earned;
        }
        for (arm, m) in moments.iter_mut().enumerate() {
            m.n += row.n[arm] as f64;
            m.sum += row.sum[arm] / unit;
            m.sum_sq += row.sum_sq[arm] / (unit * unit);
        }
    }
    let late = late(column, context.calendar, |row, logs| {
        if uses(plan, row.split) || (row.split == PPM && context.watching) {
            for (log, earned) in logs.iter_mut().zip(&row.gt) {
                *log += earned;
            }
        }
    });
    let [blue, green] = moments.map(|m| (m.n > 0.0).then(|| m.mean()));
    let two_sided = 2.0 * context.alpha;
    let [m_b, m_g] = &moments;
    let (effect, (low, high)) = match margin {
        Margin::MaxRatio(_) => (
            ratio(green, blue),
            asymptotic::ratio_bounds(m_b, m_g, two_sided, N_STAR),
        ),
        Margin::MaxIncrease(_) => {
            let band = asymptotic::band(m_b, m_g, 1.0, two_sided, N_STAR);
            (
                band.map(|b| b.difference),
                (
                    band.map(|b| b.difference - b.half_width),
                    band.map(|b| b.difference + b.half_width),
                ),
            )
        }
        Margin::Max(_) | Margin::Min(_) => (green, (None, None)),
    };
    Measure {
        log_e_fail: late.log_e(),
        log_e_pass: mean_exp(&lt),
        blue,
        green,
        effect,
        low,
        high,
        n,
        strata,
    }
}

/// A quantile gate counts exceedances but shows quantiles, and the interval of C1.
fn show_quantiles(out: &mut Measure, plan: &Plan, q: f64, margin: Margin, values: Option<&[Histogram; 2]>, alpha: f64) {
    let Some(values) = values else {
        (out.blue, out.green) = (None, None);
        return;
    };
    let unit = per_display_unit(&plan.metric);
    let [blue, green] = [BLUE, GREEN].map(|arm| values[arm].quantile(q).map(|v| v as f64 / unit));
    (out.blue, out.green) = (blue, green);
    if plan.one_arm {
        out.effect = green;
        return;
    }
    let [b, g] = [BLUE, GREEN].map(|arm| quantile::coarse(&values[arm]));
    let (low, high) = quantile::ratio_bounds(&b, &g, q, alpha);
    if matches!(margin, Margin::MaxIncrease(_)) {
        // As a difference, with blue where it was observed.
        let plus = |r: Option<f64>| r.zip(blue).map(|(r, b)| (r - 1.0) * b);
        out.effect = green.zip(blue).map(|(g, b)| g - b);
        (out.low, out.high) = (plus(low), plus(high));
    } else {
        out.effect = ratio(green, blue);
        (out.low, out.high) = (low, high);
    }
}

/// Units of one pair in the randomised strata, for the sample-ratio check.
pub(super) fn unit_strata(rows: &[EventRow]) -> Vec<Sums> {
    let mut out: Vec<Sums> = Vec::new();
    for row in rows {
        match out.binary_search_by_key(&row.split, |s| s.split) {
            Ok(i) => {
                for arm in [BLUE, GREEN] {
                    out[i].n[arm] += row.n[arm];
                }
            }
            Err(i) => out.insert(
                i,
                Sums {
                    split: row.split,
                    n: row.n,
                    events: [0; 2],
                },
            ),
        }
    }
    out
}

/// Whether any stratum randomises.
pub(super) fn any_randomised(strata: &[Sums]) -> bool {
    strata
        .iter()
        .any(|s| is_randomised(s.split) && s.n[BLUE] + s.n[GREEN] > 0)
}
