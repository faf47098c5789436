//! One pair measured: both e-values, what it looks like, and how sure we are of that.

use super::{
    column::{Column, Row},
    columns::{BLUE, EventColumn, EventRow, GREEN, MeanColumn, MeanRow, MeanSums, Sums, add_up, uses},
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
    mean::add,
    paired::Pairs,
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
    /// Time of the judgement, unix seconds.
    pub now: i64,
}

impl Context {
    /// Minutes from here on are too young for a gate that waits for late evaluations; the rest is admitted already.
    pub fn until(&self, plan: &Plan) -> i64 {
        match plan.lateness_secs {
            0 => i64::MAX,
            late => {
                self.now
                    .saturating_sub(late + plan.admitted_after_secs + self.calendar.width)
                    + 1
            }
        }
    }
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

/// Finishes what both kinds of gates measure.
fn finite(mut out: Measure) -> Measure {
    for value in [&mut out.effect, &mut out.low, &mut out.high] {
        *value = value.filter(|v| v.is_finite());
    }
    out
}

/// Measures a pair that counts events.
pub(super) fn of_events(plan: &Plan, margin: Margin, column: &mut EventColumn, context: Context) -> Measure {
    let mut out = match plan.test {
        Test::Discordant(_) => pairs(plan, margin, column, context),
        _ => events(plan, column, margin, context),
    };
    if let Some(q) = plan.quantile
        && plan.counting != Counting::PairEvent
    {
        show_quantiles(&mut out, plan, q, margin, &column.values, context.alpha);
    }
    finite(out)
}

/// Measures a pair that compares means.
pub(super) fn of_means(plan: &Plan, margin: Margin, column: &mut MeanColumn, context: Context) -> Measure {
    finite(means(plan, &mut column.rows, margin, context))
}

/// Walks the rows minute by minute; `earn` adds what a row earns to the log of each bet.
fn late<R: Row>(
    column: &mut Column<R, LateStarts>,
    calendar: Calendar,
    until: i64,
    mut earn: impl FnMut(&R, &mut [f64; BETS]),
) -> LateStarts {
    column.walk(until, |late, minute| {
        let mut earned = [0.0; BETS];
        for row in minute {
            earn(row, &mut earned);
        }
        late.push(calendar.index(minute[0].place().0), &earned);
    })
}

/// The sums of the rows that take part, by split.
fn sums(plan: &Plan, column: &EventColumn, until: i64) -> Vec<Sums> {
    let mut out = Vec::new();
    if until == i64::MAX {
        out.clone_from(&column.sums);
    } else {
        for row in column.rows.rows_until(until) {
            add_up(&mut out, row, 1);
        }
    }
    out.retain(|s| uses(plan, s.split));
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
    let until = context.until(plan);
    let strata = sums(plan, column, until);
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
            let late = late(&mut column.rows, context.calendar, until, |row, logs| {
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
        Test::Joint {
            boundary,
            prior,
            beside,
        } => {
            let rows = column.rows.rows_until(until);
            joint_events(&mut out, plan, rows, boundary, prior, context);
            if let Some(limit) = beside.filter(|_| context.watching) {
                // data of their own again, held against a constant
                let bet = ShareBet::above(limit);
                let late = late(&mut column.rows, context.calendar, until, |row, logs| {
                    if row.split == PPM {
                        bet.add(row.events[GREEN], row.n[GREEN] - row.events[GREEN], logs);
                    }
                });
                out.log_e_fail += late.log_e();
            }
        }
        Test::Share { limit, worse } => {
            let (above, below) = (ShareBet::above(limit), ShareBet::above(1.0 - limit));
            let without = |n: i64, events: i64| n - events;
            let late = late(&mut column.rows, context.calendar, until, |row, logs| {
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
        Test::Means(_) | Test::Mean { .. } | Test::Discordant(_) | Test::PairedMean(_) => {}
    }
    debug_assert!(plan.one_arm == matches!(margin, Margin::Max(_) | Margin::Min(_)));
    out.strata = strata;
    out
}

/// Mirrored pairs: `n` counts pairs, `events` those in which only this color had the event.
fn pairs(plan: &Plan, margin: Margin, column: &mut EventColumn, context: Context) -> Measure {
    let Test::Discordant(bets) = &plan.test else {
        return Measure::default();
    };
    let until = context.until(plan);
    let strata = sums(plan, column, until);
    let n = total(&strata, |s| s.n);
    let only = total(&strata, |s| s.events);
    let counted = |n: [i64; 2], events: [i64; 2]| Pairs {
        green_only: events[GREEN],
        blue_only: events[BLUE],
        same: n[GREEN] - events[GREEN] - events[BLUE],
    };
    let late = late(&mut column.rows, context.calendar, until, |row, logs| {
        bets.gt.add(counted(row.n, row.events), logs);
    });
    let share = |arm: usize| (n[arm] > 0).then(|| only[arm] as f64 / n[arm] as f64);
    let (blue, green) = (share(BLUE), share(GREEN));
    Measure {
        log_e_fail: late.log_e(),
        log_e_pass: bets.lt.log_e(counted(n, only)),
        blue,
        green,
        effect: match margin {
            Margin::MaxIncrease(_) if plan.quantile.is_none() => green.zip(blue).map(|(g, b)| g - b),
            _ => ratio(green, blue),
        },
        n,
        strata,
        ..Measure::default()
    }
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

fn means(plan: &Plan, column: &mut Column<MeanRow, MeanSums>, margin: Margin, context: Context) -> Measure {
    let sums = column.walk(i64::MAX, |sums, minute| {
        let mut earned = [0.0; BETS];
        for row in minute {
            let compared = uses(plan, row.split);
            if compared || (row.split == PPM && context.watching) {
                add(&mut earned, 1, &row.gt);
            }
            if compared {
                sum_up(sums, row);
            }
        }
        sums.late.push(context.calendar.index(minute[0].place().0), &earned);
    });
    let MeanSums {
        late,
        lt,
        moments,
        strata,
    } = sums;
    let n = total(&strata, |s| s.n);
    let unit = per_display_unit(&plan.shown);
    let moments = moments.map(|m| Moments {
        n: m.n,
        sum: m.sum / unit,
        sum_sq: m.sum_sq / (unit * unit),
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

/// Adds a compared row.
fn sum_up(sums: &mut MeanSums, row: &MeanRow) {
    add(&mut sums.lt, 1, &row.lt);
    for (arm, m) in sums.moments.iter_mut().enumerate() {
        m.n += row.n[arm] as f64;
        m.sum += row.sum[arm];
        m.sum_sq += row.sum_sq[arm];
    }
    let counted = EventRow {
        minute: row.minute,
        split: row.split,
        n: row.n,
        events: [0; 2],
    };
    add_up(&mut sums.strata, &counted, 1);
}

/// A quantile gate counts exceedances but shows quantiles, and the interval of C1.
fn show_quantiles(out: &mut Measure, plan: &Plan, q: f64, margin: Margin, values: &[Histogram; 2], alpha: f64) {
    let unit = per_display_unit(&plan.shown);
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
