//! Whole judgements: simulated cells through the judge that the server runs.

use crate::{
    exact::median,
    medians::{ALL, ALPHA_PROMOTE, ARM, LONG, RHO},
    nulls::BEFORE,
    run::Scale,
    table::{Table, Target, grouped, middle, percent},
    traffic::{COST_SPREAD, Draw, FAILURES, PER_MINUTE, costs, latency, ppm},
};
use benches::release::{gate, scope, spec};
use gates::judge::{Baseline, Judge, JudgeInput, Judgement, PairKey, freeze, new_pairs};
use proto::{
    Cell, CellKey, CellTable, Color, Grain, Metric, Nanos,
    cell::{Minutes, Series},
    release::ReleaseSpec,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Traces between two looks; they divide a minute's.
const LOOK: u64 = 20;
/// Traces between two looks while a promotion is waited for.
const PROMOTION_LOOK: u64 = 100;
/// Traces after which a run is given up.
const LIMIT: u64 = 60_000;
/// Minutes after an onset at which a run is given up.
const PATIENCE: u64 = 300;
/// Seconds a minute.
const MINUTE: i64 = 60;
/// Margins of a release that asks whether green is worse at all.
const NO_MARGIN: [f64; 3] = [1.0; 3];
/// Margins of a release that may promote: failures, p99, cost.
const MARGINS: [f64; 3] = [1.5, 1.5, 1.2];

/// What green does to its traces; blue is [`EQUAL`].
#[derive(Debug, Clone, Copy)]
pub struct Green {
    /// Share that fails.
    pub failures: f64,
    /// Factor on latency.
    pub latency: f64,
    /// Factor on cost.
    pub cost: f64,
}

/// As good as blue.
pub const EQUAL: Green = Green {
    failures: FAILURES,
    latency: 1.0,
    cost: 1.0,
};

/// One trace.
#[derive(Debug, Clone, Copy)]
pub struct Trace {
    /// Its color.
    pub green: bool,
    /// Whether it failed.
    pub failed: bool,
    /// us.
    pub latency: u64,
    /// nano-USD.
    pub cost: u64,
    /// Which of its color's costs that is.
    pub cost_index: usize,
}

/// Draws traces on one split.
pub struct Draws {
    draw: Draw,
    costs: [Vec<u64>; 2],
    green: Green,
}

impl Draws {
    /// Of a green on the split `rho` in (0, 1).
    pub fn new(green: Green, rho: f64) -> Self {
        Self {
            draw: Draw::new(rho, LONG),
            costs: [costs(1.0, COST_SPREAD), costs(green.cost, COST_SPREAD)],
            green,
        }
    }

    /// The next one.
    pub fn next(&self, rng: &mut ChaCha8Rng) -> Trace {
        let (green, cost_index) = self.draw.next(rng);
        let what = if green { self.green } else { EQUAL };
        Trace {
            green,
            failed: rng.random::<f64>() < what.failures,
            latency: (what.latency * latency(rng)) as u64,
            cost: self.costs[usize::from(green)][cost_index],
            cost_index,
        }
    }
}

/// Cells of some traces of one minute, per color.
#[derive(Debug, Default)]
struct Block([[Cell; 4]; 2]);

impl Block {
    fn add(&mut self, t: Trace) {
        let units = [
            Cell::unit(false),
            Cell::unit(t.failed),
            Cell::amount(t.latency),
            Cell::amount(t.cost),
        ];
        for (cell, unit) in self.0[usize::from(t.green)].iter_mut().zip(&units) {
            cell.merge(unit, 1);
        }
    }

    fn put(&self, table: &mut CellTable, minute: u64, rho: f64) {
        let metrics = || [Metric::Traces, Metric::Error, Metric::Latency, Metric::Cost];
        for (color, cells) in [Color::Blue, Color::Green].into_iter().zip(&self.0) {
            for (metric, cell) in metrics().into_iter().zip(cells).filter(|(_, c)| !c.is_zero()) {
                let key = CellKey {
                    scope: scope(),
                    minute: minute as i64 * MINUTE,
                    series: Series {
                        metric,
                        grain: Grain::Trace,
                        cohort: None,
                        split_ppm: Some(ppm(rho)),
                        color,
                        admitted: true,
                    },
                };
                table.apply(&key, cell, 1);
            }
        }
    }
}

/// A release under judgement.
pub struct Trial {
    /// Its frozen constants.
    pub baseline: Baseline,
    spec: ReleaseSpec,
    order: Vec<PairKey>,
    table: CellTable,
    judge: Judge,
}

impl Trial {
    /// A release with gates on failures, p99 and cost, in this order, and a baseline of its own.
    pub fn new(ratios: [f64; 3], rng: &mut ChaCha8Rng) -> Self {
        let spec = spec(&[
            gate("failures", "error", None, ratios[0]),
            gate("p99 latency", "latency", Some(0.99), ratios[1]),
            gate("cost per trace", "cost", None, ratios[2]),
        ]);
        let draws = Draws::new(EQUAL, RHO);
        let (mut before, mut block) = (CellTable::default(), Block::default());
        for _ in 0..BEFORE {
            let trace = draws.next(rng);
            block.add(Trace { green: false, ..trace });
        }
        block.put(&mut before, 0, 0.0);
        let cells = before.minutes(&scope()).into_iter().flat_map(Minutes::values);
        let cells = cells.flat_map(|m| m.iter()).map(|(series, cell)| (series, &**cell));
        let baseline = freeze(&spec, cells, Nanos::ZERO, "simulated".to_owned()).expect("enough blue traces");
        Self {
            order: new_pairs(&spec, &Minutes::new(), 0, &[]),
            baseline,
            spec,
            table: CellTable::default(),
            judge: Judge::default(),
        }
    }

    /// Serves traces of one minute on one split.
    pub fn serve(&mut self, minute: u64, rho: f64, traces: impl IntoIterator<Item = Trace>) {
        let mut block = Block::default();
        for trace in traces {
            block.add(trace);
        }
        block.put(&mut self.table, minute, rho);
    }

    /// Looks.
    pub fn judge(&mut self) -> Judgement {
        let none = Minutes::new();
        self.judge.judge(&JudgeInput {
            baseline: Some(&self.baseline),
            order: &self.order,
            minute_secs: MINUTE,
            ..JudgeInput::of_cells(&self.spec, self.table.minutes(&scope()).unwrap_or(&none))
        })
    }

    /// Serves half and half, looks every `look` traces until `done` says something, at most [`LIMIT`] traces.
    fn until<T>(
        &mut self,
        green: Green,
        look: u64,
        rng: &mut ChaCha8Rng,
        done: impl Fn(u64, &Judgement) -> Option<T>,
    ) -> Option<T> {
        let draws = Draws::new(green, RHO);
        (0..LIMIT / look).find_map(|i| {
            self.serve(i * look / PER_MINUTE, RHO, (0..look).map(|_| draws.next(rng)));
            let judgement = self.judge();
            done((i + 1) * look, &judgement)
        })
    }
}

/// Traces in all until the whole engine rolls back.
fn until_rollback(green: Green, rng: &mut ChaCha8Rng) -> Option<u64> {
    let mut trial = Trial::new(NO_MARGIN, rng);
    trial.until(green, LOOK, rng, |served, j| j.rollback.is_some().then_some(served))
}

/// Minutes from the end of `health` healthy minutes to the rollback; the outer `None` if one stands at that end.
fn after_health(health: u64, green: Green, rng: &mut ChaCha8Rng) -> Option<Option<u64>> {
    let mut trial = Trial::new(NO_MARGIN, rng);
    let healthy = Draws::new(EQUAL, RHO);
    for minute in 0..health {
        trial.serve(minute, RHO, (0..PER_MINUTE).map(|_| healthy.next(rng)));
    }
    if trial.judge().rollback.is_some() {
        return None;
    }
    let worse = Draws::new(green, RHO);
    Some((1..=PATIENCE).find(|minute| {
        trial.serve(health + minute - 1, RHO, (0..PER_MINUTE).map(|_| worse.next(rng)));
        trial.judge().rollback.is_some()
    }))
}

/// Medians of the whole engine, as goals.
pub fn study(scale: &Scale) -> Vec<Target> {
    let worse = |failures, latency, cost| Green {
        failures,
        latency,
        cost,
    };
    let cases = [
        ("failures 3 > 6 %", worse(0.06, 1.0, 1.0), 1_300, ARM),
        ("failures 3 > 12 %", worse(0.12, 1.0, 1.0), 260, ARM),
        ("p99 of 4 s, +30 %", worse(FAILURES, 1.3, 1.0), 1_100, ARM),
        ("cost +20 %", worse(FAILURES, 1.0, 1.2), 2_900, ALL),
    ];
    let mut out: Vec<Target> = cases
        .into_iter()
        .map(|(what, green, at_most, unit)| {
            let runs = scale.map(&format!("engine, {what}"), scale.judged, |rng| {
                until_rollback(green, rng)
            });
            let all = median(&runs);
            let measured = if unit == ARM { all.map(|n| n.div_ceil(2)) } else { all };
            Target {
                what: format!("whole engine, three gates: {what}"),
                at_most,
                measured,
                unit,
            }
        })
        .collect();
    let runs = scale.map("engine, after 3 healthy days", scale.long, |rng| {
        after_health(3 * scale.day, worse(0.06, 1.0, 1.0), rng)
    });
    let kept: Vec<Option<u64>> = runs.into_iter().flatten().collect();
    out.push(Target {
        what: "whole engine after 3 healthy days: failures 3 > 6 %".to_owned(),
        at_most: 45,
        measured: median(&kept),
        unit: "minutes",
    });
    out
}

/// What became of an equal green.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum End {
    RolledBack,
    Promoted(u64),
}

/// The whole verdict on an equal green, as the state machine takes it: a rollback is latched, a promotion waits for the
/// minimum of traces.
pub fn verdicts(scale: &Scale) -> Table {
    let runs = scale.map("engine, promotion of an equal green", scale.judged, |rng| {
        let mut trial = Trial::new(MARGINS, rng);
        let least = trial.spec.min_traces;
        trial.until(EQUAL, PROMOTION_LOOK, rng, |served, j| {
            let enough = j.n_green.unsigned_abs() >= least;
            let promoted = (j.passes && enough).then_some(End::Promoted(served));
            if j.rollback.is_some() {
                Some(End::RolledBack)
            } else {
                promoted
            }
        })
    });
    let promoted: Vec<Option<u64>> = runs
        .iter()
        .map(|end| match end {
            Some(End::Promoted(served)) => Some(*served),
            _ => None,
        })
        .collect();
    let share = |n: usize| percent(n as f64 / runs.len() as f64);
    let rolled_back = runs.iter().filter(|end| **end == Some(End::RolledBack)).count();
    let head = [
        "runs",
        "rolled back",
        "promoted",
        "median traces in all to the promotion",
    ];
    let mut table = Table::new("The whole verdict on an equal green", &head).says(format!(
        "Gates on failures (margin {}), p99 ({}) and cost ({}), alpha 1 %, alpha_promote {}, a look every \
         {PROMOTION_LOOK} traces until {}.",
        MARGINS[0],
        MARGINS[1],
        MARGINS[2],
        percent(ALPHA_PROMOTE),
        grouped(LIMIT)
    ));
    table.row([
        grouped(runs.len() as u64),
        share(rolled_back),
        share(promoted.iter().flatten().count()),
        middle(median(&promoted)),
    ]);
    table
}

#[cfg(test)]
#[allow(clippy::print_stdout)]
mod tests {
    use super::*;
    use crate::{
        logs::{CostLogs, EventLogs},
        walk::Sum,
    };
    use gates::stats::{Side, mean::MeanMargin};
    use rand::SeedableRng;

    const SEED: u64 = 17;

    /// The walk of this study and the judge of the server, on the same traces: minute by minute, through a ramp, with
    /// minutes left out, into a regression.
    #[test]
    fn the_walk_says_minute_by_minute_what_the_judge_says() {
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let mut trial = Trial::new([1.1, 1.2, 1.05], &mut rng);
        let frozen = |name: &str| trial.baseline.gates[name].clone();
        let (p99, cost) = (frozen("p99 latency"), frozen("cost per trace"));
        let margin = MeanMargin {
            r: 1.05,
            center: cost.mean.unwrap(),
            cap: cost.cap.unwrap() as f64,
        };
        let worse = Green {
            failures: 0.12,
            latency: 1.4,
            cost: 1.3,
        };
        let mut sum = Sum::<3>::new(0.008);
        let (mut apart, mut seen) = (0.0f64, [0.0; 3]);
        for minute in (0..90).filter(|m| m % 11 != 4) {
            let rho = if minute < 30 { 0.05 } else { 0.5 };
            let draws = Draws::new(if minute < 50 { EQUAL } else { worse }, rho);
            let logs = EventLogs::new(rho, 1.1, Side::Gt);
            let slow = EventLogs::new(rho, 1.0, Side::Gt);
            let traces: Vec<Trace> = (0..80).map(|_| draws.next(&mut rng)).collect();
            sum.open(minute);
            for t in &traces {
                let edge = if t.green { p99.t_margin } else { p99.t };
                if t.failed {
                    sum.earn(0, logs.of(t.green));
                }
                if t.latency > edge.unwrap() {
                    sum.earn(1, slow.of(t.green));
                }
                let cost = CostLogs::new(&[t.cost], &[t.cost], margin, rho, Side::Gt);
                sum.earn(2, cost.of(t.green, 0));
            }
            trial.serve(minute, rho, traces);
            let judgement = trial.judge();
            let each = judgement.reports.iter().map(|r| r.log_e_fail);
            let said = each.chain([judgement.log_e_sum]);
            for (walked, said) in sum.each().into_iter().chain([sum.log_e()]).zip(said) {
                apart = apart.max((walked - said).abs() / said.abs().max(1.0));
            }
            seen = sum.each();
            sum.close();
        }
        println!("seed {SEED}: at most {apart:e} apart, log E {seen:?} at the end");
        assert!(apart < 1e-9, "seed {SEED}: {apart:e}");
        assert!(seen.iter().all(|log_e| *log_e > 2.0), "seed {SEED}: {seen:?}");
    }
}
