//! Simulated traffic, through the same cells that real traffic goes through.

use gates::judge::{Baseline, Judge, JudgeInput, Judgement, PairKey, freeze, new_pairs};
use proto::{
    Cell, CellKey, CellTable, Color, Grain, Metric, Nanos,
    cell::{Minutes, PPM, Scope, Series},
    release::{Approval, BreakerSpec, GateSpec, Manifest, Margin, Match, Mode, NoData, Quota, ReleaseSpec, Unit},
};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

pub fn manifest(version: &str) -> Manifest {
    Manifest {
        version: version.into(),
        provider: "openai".into(),
        model: "gpt-4o-mini".into(),
        prompt: "support@12".into(),
        tools: "tools@7".into(),
        guardrails: "g@3".into(),
        cache: "semantic@1".into(),
        fallback: vec![],
        policy: "p@2".into(),
        logging: "default".into(),
        pii: "mask@1".into(),
        matches: Match::default(),
    }
}

pub fn gate(name: &str, metric: Metric, margin: Margin) -> GateSpec {
    GateSpec {
        by_cohort: true,
        ..GateSpec::new(name, metric, margin)
    }
}

pub fn p99(margin: Margin) -> GateSpec {
    GateSpec {
        quantile: Some(0.99),
        ..gate("p99 latency", Metric::Latency, margin)
    }
}

pub fn eval_fail(margin: Margin) -> GateSpec {
    gate("task completion", Metric::EvalFail("task_completion".into()), margin)
}

pub fn spec(gates: Vec<GateSpec>) -> ReleaseSpec {
    ReleaseSpec {
        route: "support-chat".into(),
        id: "support-chat-42".into(),
        mode: Mode::Act,
        unit: Unit::Trace,
        cohort: Some("customer.tier".into()),
        baseline: Duration::from_secs(86_400),
        steps: vec![],
        warmup: Duration::ZERO,
        min_traces: 500,
        min_duration: Duration::ZERO,
        mirror: None,
        cool_down: Duration::ZERO,
        horizon: Duration::from_secs(7 * 86_400),
        approval: Approval::None,
        alpha: 0.01,
        alpha_promote: 0.05,
        no_data: NoData::Hold,
        timeout: Duration::from_secs(2),
        grace: Duration::from_secs(1),
        blue: manifest("41"),
        green: manifest("42"),
        quota: Quota::default(),
        breaker: BreakerSpec {
            max: None,
            alpha_share: 0.2,
        },
        gates,
        webhook: None,
    }
}

/// The gates of the demo.
pub fn demo_gates() -> Vec<GateSpec> {
    vec![
        p99(Margin::MaxRatio(1.5)),
        gate("cost per trace", Metric::Cost, Margin::MaxRatio(1.2)),
        eval_fail(Margin::MaxRatio(1.5)),
    ]
}

/// What one color does to one unit.
#[derive(Clone, Copy)]
pub struct Behavior {
    pub latency_times: f64,
    pub cost_times: f64,
    pub eval_fail: f64,
}

pub const HEALTHY: Behavior = Behavior {
    latency_times: 1.0,
    cost_times: 1.0,
    eval_fail: 0.15,
};

pub const COHORTS: [&str; 3] = ["free", "pro", "team"];

pub fn scope() -> Scope {
    Scope {
        route: "support-chat".into(),
        release: Some("support-chat-42".into()),
    }
}

/// A normal deviate (Box-Muller).
pub fn normal(rng: &mut impl Rng) -> f64 {
    let u: f64 = rng.random_range(f64::MIN_POSITIVE..1.0);
    let v: f64 = rng.random();
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

pub struct Stream {
    pub rng: ChaCha8Rng,
    pub table: CellTable,
}

impl Stream {
    pub fn new(seed: u64) -> Self {
        Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            table: CellTable::default(),
        }
    }

    /// One admitted trace of `minute`, with every metric of the demo.
    pub fn trace(&mut self, minute: i64, split: Option<u32>, color: Color, cohort: &str, what: Behavior) {
        // Log-normal latency around 700 ms (p99 about 3.4 times the median), cost around 0.0004 USD.
        let latency = 700_000.0 * (0.53 * normal(&mut self.rng)).exp() * what.latency_times;
        let cost = 400_000.0 * (0.4 * normal(&mut self.rng)).exp() * what.cost_times;
        let failed = self.rng.random::<f64>() < what.eval_fail;
        let cells = [
            (Metric::Traces, Cell::unit(false)),
            (Metric::Latency, Cell::amount(latency as u64)),
            (Metric::Cost, Cell::amount(cost as u64)),
            (Metric::EvalFail("task_completion".into()), Cell::unit(failed)),
        ];
        for (metric, cell) in cells {
            self.put(minute, metric, split, color, Some(cohort), &cell);
        }
    }

    pub fn put(
        &mut self,
        minute: i64,
        metric: Metric,
        split_ppm: Option<u32>,
        color: Color,
        cohort: Option<&str>,
        cell: &Cell,
    ) {
        let key = CellKey {
            scope: scope(),
            minute,
            series: Series {
                metric,
                grain: Grain::Trace,
                cohort: cohort.map(Into::into),
                split_ppm,
                color,
                admitted: true,
            },
        };
        self.table.apply(&key, cell, 1);
    }

    /// `n` traces in one second, a third in each cohort, split in half; green behaves in each cohort as said.
    pub fn second(&mut self, minute: i64, n: usize, green: impl Fn(&str) -> Behavior) {
        for _ in 0..n {
            let cohort = COHORTS[self.rng.random_range(0..COHORTS.len())];
            let color = if self.rng.random::<bool>() {
                Color::Green
            } else {
                Color::Blue
            };
            let what = if color == Color::Green { green(cohort) } else { HEALTHY };
            self.trace(minute, Some(PPM / 2), color, cohort, what);
        }
    }

    /// `secs` of blue alone, from minute `from` on.
    pub fn blue_only(&mut self, from: i64, secs: i64, n: usize) {
        for minute in from..from + secs {
            for i in 0..n {
                self.trace(minute, Some(0), Color::Blue, COHORTS[i % 3], HEALTHY);
            }
        }
    }

    pub fn minutes(&self) -> &Minutes {
        self.table.minutes(&scope()).unwrap()
    }
}

/// A release under judgement: what the caller of the judge keeps.
pub struct Trial {
    pub spec: ReleaseSpec,
    pub baseline: Baseline,
    pub order: Vec<PairKey>,
    pub counted_from: i64,
    pub minute_secs: i64,
    pub judge: Judge,
}

impl Trial {
    pub fn new(spec: ReleaseSpec, minutes: &Minutes, counted_from: i64) -> Self {
        let before = minutes.range(..counted_from);
        let cells = before.flat_map(|(_, m)| m.iter().map(|(s, c)| (s, &**c)));
        let baseline = freeze(&spec, cells, Nanos::ZERO, "test".into()).unwrap();
        Self {
            spec,
            baseline,
            order: vec![],
            counted_from,
            minute_secs: 1,
            judge: Judge::default(),
        }
    }

    pub fn judge(&mut self, minutes: &Minutes) -> Judgement {
        let order = std::mem::take(&mut self.order);
        let mut input = JudgeInput {
            baseline: Some(&self.baseline),
            order: &order,
            counted_from: self.counted_from,
            measured_from: self.counted_from,
            minute_secs: self.minute_secs,
            ..JudgeInput::of_cells(&self.spec, minutes)
        };
        let new = self.judge.new_pairs(&input);
        assert_eq!(new, new_pairs(&self.spec, minutes, self.counted_from, &order));
        let order = [order.as_slice(), &new].concat();
        input.order = &order;
        let judgement = self.judge.judge(&input);
        self.order = order;
        judgement
    }
}
