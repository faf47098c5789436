//! The rules of others on the same traffic as ours.

use crate::{
    exact::median,
    judged::{Draws, EQUAL, Green, Trace},
    logs::{CostLogs, EventLogs},
    medians::RHO,
    nulls::{ALPHA, BEFORE, margin},
    run::Scale,
    table::{Table, grouped, middle, percent},
    traffic::{COST_SPREAD, FAILURES, PER_MINUTE, costs, frozen_p99},
    walk::{Late, Plain},
};
use gates::{
    peers::{AmountLimit, PeerArm, PeerConfig, PeerMinute, replay},
    stats::{Side, log_space::ln},
};
use rand_chacha::ChaCha8Rng;

/// What is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Measure {
    /// Failed traces.
    Failures,
    /// p99 latency.
    Slow,
    /// Mean cost.
    Cost,
}

/// One rule on one measure.
#[derive(Debug, Clone)]
pub struct Versus {
    /// On what.
    pub measure: Measure,
    /// Whose.
    pub rule: &'static str,
    /// Traces of each color when an equal green was rolled back, run by run.
    pub equal: Vec<Option<u64>>,
    /// The same for a worse one.
    pub worse: Vec<Option<u64>>,
}

/// Names of ours.
pub const PLAIN: &str = "tracegate, one gate, plain";
/// See [`PLAIN`].
pub const LATE: &str = "tracegate, one gate, late starts";

/// The fixed threshold on failures: between 3 and 6 %.
const FAILURES_MAX: f64 = 0.05;
/// The fixed threshold on p99, over blue's frozen one: half of what the worse green adds.
const SLOW_MAX: f64 = 1.15;

impl Measure {
    const ALL: [Self; 3] = [Self::Failures, Self::Slow, Self::Cost];

    const fn name(self) -> &'static str {
        match self {
            Self::Failures => "failures 3 > 6 %",
            Self::Slow => "p99 +30 %",
            Self::Cost => "cost +20 %",
        }
    }

    const fn worse(self) -> Green {
        let equal = EQUAL;
        match self {
            Self::Failures => Green {
                failures: 2.0 * FAILURES,
                ..equal
            },
            Self::Slow => Green { latency: 1.3, ..equal },
            Self::Cost => Green { cost: 1.2, ..equal },
        }
    }

    /// Whether a rule has a say in it: a test of means has none in a p99.
    fn applies(self, rule: &str) -> bool {
        match self {
            Self::Failures => !rule.starts_with("Welch"),
            Self::Slow => !rule.starts_with("Welch") && !rule.starts_with("z-test"),
            Self::Cost => !rule.starts_with("z-test"),
        }
    }

    /// What the rules of others are told, from blue's frozen p99.
    fn config(self, t: u64) -> PeerConfig {
        PeerConfig {
            failure_max: (self == Self::Failures).then_some(FAILURES_MAX),
            amount_max: (self == Self::Slow).then_some(AmountLimit {
                quantile: 0.99,
                max: (SLOW_MAX * t as f64) as u64,
            }),
            alpha: ALPHA,
            ..PeerConfig::default()
        }
    }
}

/// Every rule on every measure, ours first.
pub fn study(scale: &Scale) -> Vec<Versus> {
    let minutes = minutes(scale);
    let of_measure = |measure: Measure| {
        let [equal, worse] = [("equal", EQUAL), ("worse", measure.worse())].map(|(which, green)| {
            let title = format!("rules of others, {}, {which} green", measure.name());
            let (blue, dearer) = (costs(1.0, COST_SPREAD), costs(green.cost, COST_SPREAD));
            let logs = CostLogs::new(&blue, &dearer, margin(1.0, &blue), RHO, Side::Gt);
            let draws = Draws::new(green, RHO);
            scale.map(&title, scale.runs, |rng| run(measure, &draws, &logs, minutes, rng))
        });
        let rules = equal.first().map_or(0, Vec::len);
        (0..rules).map(move |i| Versus {
            measure,
            rule: equal[0][i].0,
            equal: equal.iter().map(|run| run[i].1).collect(),
            worse: worse.iter().map(|run| run[i].1).collect(),
        })
    };
    Measure::ALL.into_iter().flat_map(of_measure).collect()
}

/// A fiftieth of the traces of the search for false rollbacks, and enough for Kayenta's first judgement.
fn minutes(scale: &Scale) -> u64 {
    (scale.arm / 25 / PER_MINUTE).max(40)
}

/// Traces of each color that every rule looks at.
pub fn arm(scale: &Scale) -> u64 {
    minutes(scale) * PER_MINUTE / 2
}

/// As a table.
pub fn table(rows: &[Versus], scale: &Scale) -> Table {
    let arm = arm(scale);
    let head = [
        "measure",
        "rule",
        "equal green rolled back",
        "worse green rolled back",
        "median traces an arm to that",
    ];
    let mut table = Table::new(format!("Rules of others, over {} traces of each color", grouped(arm)), &head).says(format!(
        "The rules are those of `gates::peers`. Thresholds on green alone: failures above {:.0} %, or a p99 more than \
         {:.0} % above blue's frozen one, checked every minute; Flagger style rolls back at the fifth failed check, Argo \
         Rollouts style at the first. Ours are looked at after every event. A rule that fires sooner on a worse green is \
         worth what the column before says of an equal one.",
        100.0 * FAILURES_MAX,
        100.0 * (SLOW_MAX - 1.0)
    ));
    for row in rows {
        let share = |runs: &[Option<u64>]| percent(runs.iter().flatten().count() as f64 / runs.len() as f64);
        table.row([
            row.measure.name().to_owned(),
            row.rule.to_owned(),
            share(&row.equal),
            share(&row.worse),
            middle(median(&row.worse)),
        ]);
    }
    table
}

/// Traces of each color after which a rule rolls back.
type Rollback = (&'static str, Option<u64>);

/// One green, before every rule that applies to the measure.
fn run(measure: Measure, draws: &Draws, costs: &CostLogs, minutes: u64, rng: &mut ChaCha8Rng) -> Vec<Rollback> {
    let t = if measure == Measure::Slow {
        frozen_p99(BEFORE, rng)
    } else {
        0
    };
    let mut ours = Ours::new(measure, costs, t);
    let seen: Vec<PeerMinute> = (0..minutes)
        .map(|minute| {
            ours.late.open(minute);
            let mut counts = PeerMinute {
                at: minute as i64 * 60,
                ..PeerMinute::default()
            };
            for _ in 0..PER_MINUTE {
                let trace = draws.next(rng);
                ours.trace(&trace);
                let arm = if trace.green {
                    &mut counts.green
                } else {
                    &mut counts.blue
                };
                count(measure, arm, &trace);
            }
            ours.late.close();
            counts
        })
        .collect();
    let others = replay(&measure.config(t), &seen);
    let others = others.into_iter().filter(|o| measure.applies(o.name));
    let arm_at = |at: i64| (at.unsigned_abs() / 60 + 1) * PER_MINUTE / 2;
    let others = others.map(|o| (o.name, o.rollback.map(|(at, _)| arm_at(at))));
    let [plain, late] = ours.crossed.map(|served: Option<u64>| served.map(|n| n.div_ceil(2)));
    [(PLAIN, plain), (LATE, late)].into_iter().chain(others).collect()
}

fn count(measure: Measure, arm: &mut PeerArm, trace: &Trace) {
    arm.n += 1;
    match measure {
        Measure::Failures => arm.failures += i64::from(trace.failed),
        Measure::Slow => arm.amount.record(trace.latency, 1),
        Measure::Cost => arm.amount.record(trace.cost, 1),
    }
}

/// Our statistic on one measure, after every event.
struct Ours<'a> {
    measure: Measure,
    t: u64,
    events: EventLogs,
    costs: &'a CostLogs,
    plain: Plain,
    late: Late,
    served: u64,
    crossed: [Option<u64>; 2],
}

impl<'a> Ours<'a> {
    fn new(measure: Measure, costs: &'a CostLogs, t: u64) -> Self {
        Self {
            measure,
            t,
            events: EventLogs::new(RHO, 1.0, Side::Gt),
            costs,
            plain: Plain::new(ALPHA),
            late: Late::new(1.0 / ALPHA),
            served: 0,
            crossed: [None; 2],
        }
    }

    fn trace(&mut self, trace: &Trace) {
        self.served += 1;
        let logs = match self.measure {
            Measure::Failures if trace.failed => self.events.of(trace.green),
            Measure::Slow if trace.latency > self.t => self.events.of(trace.green),
            Measure::Cost => self.costs.of(trace.green, trace.cost_index),
            Measure::Failures | Measure::Slow => return,
        };
        let now = [
            self.plain.earn(logs),
            self.late.earn(logs) && self.late.log_e() >= ln(1.0 / ALPHA),
        ];
        for (crossed, now) in self.crossed.iter_mut().zip(now) {
            if now {
                crossed.get_or_insert(self.served);
            }
        }
    }
}
