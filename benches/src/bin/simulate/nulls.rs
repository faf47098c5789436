//! How often an equal green is rolled back when one looks after every event: the guarantee itself.
//!
//! The margin is a ratio of 1, the very edge of the null, where a false rollback is most likely.

use crate::{
    exact,
    logs::{CostLogs, EventLogs},
    run::Scale,
    table::{Table, grouped, percent},
    traffic::{COST_SPREAD, Draw, Gaps, Kind, SHORT, World, costs, exceeds, frozen_p99},
    walk::{Late, Plain, Sum},
};
use gates::{
    judge::baseline::CAP_MEANS,
    stats::{Side, log_space::ln, mean::MeanMargin, quantile::snap},
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;

/// Level of one gate by itself.
pub const ALPHA: f64 = 0.01;
/// Level of the gates together, after the breaker's fifth.
pub const ALPHA_GATES: f64 = 0.008;
/// Blue traces before the release, from which T is frozen.
pub const BEFORE: u64 = 10_000;

/// Traces served, both colors together, when a look first said roll back.
pub type Crossed = Option<u64>;

/// One statistic in one kind of traffic.
#[derive(Debug, Clone)]
pub struct Null {
    /// What was looked at.
    pub statistic: &'static str,
    /// Traffic in words.
    pub traffic: &'static str,
    /// Level it is held to.
    pub alpha: f64,
    /// Every run.
    pub crossed: Vec<Crossed>,
}

impl Null {
    fn hits(&self) -> u64 {
        self.crossed.iter().flatten().count() as u64
    }

    /// Whether chance alone does not explain so many rollbacks at this level.
    pub fn is_broken(&self) -> bool {
        is_broken(self.hits(), self.crossed.len() as u64, self.alpha)
    }
}

/// The lower Clopper-Pearson bound is above alpha.
const fn beyond(bounds: (f64, f64), alpha: f64) -> bool {
    bounds.0 > alpha
}

fn is_broken(hits: u64, runs: u64, alpha: f64) -> bool {
    beyond(exact::bounds(hits, runs), alpha)
}

/// All of them.
pub fn study(scale: &Scale) -> Vec<Null> {
    let mut out = Vec::new();
    for kind in [Kind::Steady, Kind::RampAndDrift] {
        let world = World::new(kind, scale.arm, scale.day);
        let traffic = world.name();
        let mut add = |statistic, alpha, crossed| {
            out.push(Null {
                statistic,
                traffic,
                alpha,
                crossed,
            });
        };
        let title = |what: &str| format!("equal green, {what}: {traffic}");
        let runs = scale.map(&title("failures"), scale.events, |rng| failures(&world, rng));
        add("(a) failures, plain", ALPHA, runs.iter().map(|r| r[0]).collect());
        add("(a) failures, late starts", ALPHA, runs.iter().map(|r| r[1]).collect());
        let runs = scale.map(&title("p99"), scale.events, |rng| slow(&world, rng));
        add("(c) C2, p99, plain", ALPHA, runs.iter().map(|r| r[0]).collect());
        add("(c) C2, p99, late starts", ALPHA, runs.iter().map(|r| r[1]).collect());
        let table = CostTable::new();
        let runs = scale.map(&title("cost"), scale.runs, |rng| table.late(&world, rng));
        add("(b) cost, late starts", ALPHA, runs);
        let runs = scale.map(&title("three gates"), scale.runs, |rng| table.three(&world, rng));
        add("weighted sum of three gates, late starts", ALPHA_GATES, runs);
    }
    out
}

/// As a table.
pub fn table(nulls: &[Null], arm: u64) -> Table {
    let head = [
        "statistic",
        "traffic",
        "runs",
        "rolled back",
        "share",
        "99 % bounds",
        "alpha",
        "held",
    ];
    let mut table = Table::new(
        format!(
            "An equal green over {} traces of each color, looked at after every event",
            grouped(arm)
        ),
        &head,
    );
    for null in nulls {
        let (hits, runs) = (null.hits(), null.crossed.len() as u64);
        let (low, high) = exact::bounds(hits, runs);
        table.row([
            null.statistic.to_owned(),
            null.traffic.to_owned(),
            grouped(runs),
            hits.to_string(),
            percent(hits as f64 / runs as f64),
            format!("{} to {}", percent(low), percent(high)),
            percent(null.alpha),
            if null.is_broken() { "**no**" } else { "yes" }.to_owned(),
        ]);
    }
    table
}

/// (a) on failed traces, plain and with late starts, on the same stream.
fn failures(world: &World, rng: &mut ChaCha8Rng) -> [Crossed; 2] {
    events(world, |minute| world.failures(minute), rng)
}

/// (c) C2: traces above T, frozen from a baseline of its own in every run.
fn slow(world: &World, rng: &mut ChaCha8Rng) -> [Crossed; 2] {
    let t = frozen_p99(BEFORE, rng) as f64;
    events(world, |minute| exceeds(t, world.slowness(minute)), rng)
}

/// Only traces with the event are visited: the others add nothing to any bet.
fn events(world: &World, rate: impl Fn(u64) -> f64, rng: &mut ChaCha8Rng) -> [Crossed; 2] {
    let logs = World::STRATA.map(|rho| EventLogs::new(rho, 1.0, Side::Gt));
    let (mut plain, mut late) = (Plain::new(ALPHA), Late::new(1.0 / ALPHA));
    let threshold = ln(1.0 / ALPHA);
    let mut crossed: [Crossed; 2] = [None; 2];
    let mut served = 0;
    for minute in 0..world.minutes {
        let (logs, rho) = (&logs[world.stratum(minute)], world.rho(minute));
        let traces = world.traces(minute);
        let gaps = Gaps::new(rate(minute));
        late.open(minute);
        let mut at = gaps.next(rng);
        while at < traces {
            let logs = logs.of(rng.random::<f64>() < rho);
            let now = Some(served + at + 1);
            if plain.earn(logs) {
                crossed[0] = crossed[0].or(now);
            }
            if late.earn(logs) && late.log_e() >= threshold {
                crossed[1] = crossed[1].or(now);
            }
            if crossed.iter().all(Option::is_some) {
                return crossed;
            }
            at += 1 + gaps.next(rng);
        }
        late.close();
        served += traces;
    }
    crossed
}

/// Costs and their bets, per split.
struct CostTable {
    logs: [CostLogs; 3],
}

/// Chance that a trace with a short or a long prompt is slow, where nothing drifts.
const SLOW: [f64; 2] = [0.005, 0.02];
/// A slow trace fails so many times as often: gates that depend on each other.
const SLOW_FAILS: f64 = 4.0;

impl CostTable {
    fn new() -> Self {
        let costs = costs(1.0, COST_SPREAD);
        let margin = margin(1.0, &costs);
        Self {
            logs: World::STRATA.map(|rho| CostLogs::new(&costs, &costs, margin, rho, Side::Gt)),
        }
    }

    /// (b) on costs, after every trace.
    fn late(&self, world: &World, rng: &mut ChaCha8Rng) -> Crossed {
        let mut late = Late::new(1.0 / ALPHA);
        let threshold = ln(1.0 / ALPHA);
        let mut served = 0;
        for minute in 0..world.minutes {
            let logs = &self.logs[world.stratum(minute)];
            let draw = Draw::new(world.rho(minute), world.long_prompts(minute));
            late.open(minute);
            for _ in 0..world.traces(minute) {
                served += 1;
                let (green, cost) = draw.next(rng);
                if late.earn(logs.of(green, cost)) && late.log_e() >= threshold {
                    return Some(served);
                }
            }
            late.close();
        }
        None
    }

    /// The weighted sum over failures, p99 and cost, after every trace; slow traces cost more and fail more often.
    fn three(&self, world: &World, rng: &mut ChaCha8Rng) -> Crossed {
        let rates = World::STRATA.map(|rho| EventLogs::new(rho, 1.0, Side::Gt));
        let mut sum = Sum::<3>::new(ALPHA_GATES);
        let mut served = 0;
        for minute in 0..world.minutes {
            let stratum = world.stratum(minute);
            let (cost_logs, event_logs) = (&self.logs[stratum], &rates[stratum]);
            let draw = Draw::new(world.rho(minute), world.long_prompts(minute));
            let slow = SLOW.map(|p| p * world.slowness(minute).powi(4));
            let fails = world.failures(minute);
            sum.open(minute);
            for _ in 0..world.traces(minute) {
                served += 1;
                let (green, cost) = draw.next(rng);
                let is_slow = rng.random::<f64>() < slow[usize::from(cost >= SHORT)];
                let has_failed = rng.random::<f64>() < if is_slow { SLOW_FAILS * fails } else { fails };
                let mut may = sum.earn(2, cost_logs.of(green, cost));
                if is_slow {
                    may |= sum.earn(1, event_logs.of(green));
                }
                if has_failed {
                    may |= sum.earn(0, event_logs.of(green));
                }
                if may && sum.crossed() {
                    return Some(served);
                }
            }
            sum.close();
        }
        None
    }
}

/// What is asked of a mean: frozen center and cap are those of `costs` with three tenths of long prompts.
pub fn margin(r: f64, costs: &[u64]) -> MeanMargin {
    let mean = |costs: &[u64]| costs.iter().sum::<u64>() as f64 / costs.len() as f64;
    let (short, long) = costs.split_at(SHORT);
    let center = 0.7 * mean(short) + 0.3 * mean(long);
    MeanMargin {
        r,
        center,
        cap: snap(CAP_MEANS * center) as f64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_study_fails_when_chance_does_not_explain_it_and_only_then() {
        assert!(!is_broken(20, 2_000, 0.01));
        assert!(!is_broken(31, 2_000, 0.01), "1.55 % may still be chance");
        assert!(is_broken(34, 2_000, 0.01));
        assert!(is_broken(28, 2_000, 0.008) && !is_broken(0, 40, 0.01) && is_broken(4, 40, 0.01));
    }
}
