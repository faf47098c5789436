//! What is judged from rows, and what keeps judgement from being made: pairs, sessions, SQL, guards, mutes, dry runs.
#![allow(clippy::print_stdout)]

use crate::stream::{HEALTHY, Stream, Trial, demo_gates, eval_fail, gate, p99, spec};
use gates::{
    judge::{JudgeInput, Judgement, PairKey, freeze, judge, new_pairs, pair_plans},
    stats::{bern, paired},
};
use proto::{
    Cell, CellKey, CellTable, Color, Grain, Histogram, Metric, Nanos,
    cell::{Minutes, PPM, Series},
    decision::Verdict,
    measure::PairRead,
    release::{GateSpec, Margin, OnFail, ReleaseSpec, Unit},
};
use rand::{RngExt, SeedableRng};
use std::{collections::BTreeMap, time::Duration};

const FROM: i64 = 5;

/// Cells as rows answer them.
#[derive(Default)]
struct Rows(CellTable);

impl Rows {
    fn put(&mut self, minute: i64, metric: Metric, grain: Grain, split: Option<u32>, color: Color, cell: &Cell) {
        let key = CellKey {
            scope: crate::stream::scope(),
            minute,
            series: Series {
                metric,
                grain,
                cohort: None,
                split_ppm: split,
                color,
                admitted: true,
            },
        };
        self.0.apply(&key, cell, 1);
    }

    fn minutes(&self) -> Minutes {
        self.0.minutes(&crate::stream::scope()).cloned().unwrap_or_default()
    }
}

fn counted(n: i64, events: i64) -> Cell {
    Cell {
        n,
        events,
        ..Cell::default()
    }
}

struct Bench {
    trial: Trial,
    cells: Stream,
    rows: Minutes,
    obstacles: BTreeMap<String, String>,
    muted: Vec<String>,
    now: i64,
}

impl Bench {
    /// Half of the traffic each, everything healthy, for `secs` seconds.
    fn new(spec: ReleaseSpec, secs: i64) -> Self {
        let mut cells = Stream::new(1);
        cells.blue_only(0, FROM, 300);
        let trial = Trial::new(spec, cells.minutes(), FROM);
        for t in 0..secs {
            cells.second(FROM + t, 300, |_| HEALTHY);
        }
        Self {
            trial,
            cells,
            rows: Minutes::new(),
            obstacles: BTreeMap::new(),
            muted: vec![],
            now: FROM + secs + 100,
        }
    }

    fn judge(&self) -> Judgement {
        let spec = &self.trial.spec;
        let units = match spec.unit {
            Unit::Trace => self.cells.minutes(),
            _ => &self.rows,
        };
        let order: Vec<PairKey> = new_pairs(spec, units, FROM, &[]);
        judge(&JudgeInput {
            baseline: Some(&self.trial.baseline),
            order: &order,
            measured: &self.rows,
            measured_from: FROM,
            obstacles: &self.obstacles,
            muted: &self.muted,
            counted_from: FROM,
            minute_secs: 1,
            now: Nanos::from_secs(self.now),
            ..JudgeInput::of_cells(spec, self.cells.minutes())
        })
    }
}

fn plain(gate: GateSpec) -> GateSpec {
    GateSpec {
        by_cohort: false,
        ..gate
    }
}

fn paired_gate(name: &str, metric: Metric, margin: Margin) -> GateSpec {
    GateSpec {
        paired: true,
        ..plain(gate(name, metric, margin))
    }
}

#[test]
fn pairs_that_differ_are_judged_by_the_bets_on_pairs() {
    let gates = vec![
        paired_gate("json", Metric::JsonInvalid, Margin::MaxIncrease(0.02)),
        GateSpec {
            quantile: Some(0.99),
            ..paired_gate("slow", Metric::Latency, Margin::MaxRatio(1.5))
        },
    ];
    let mut bench = Bench::new(spec(gates), 3);
    let plans = pair_plans(&bench.trial.spec, Some(&bench.trial.baseline));
    assert_eq!(plans[0].read, PairRead::Event);
    assert!(matches!(plans[1].read, PairRead::Above { blue, green } if green > blue));

    let mut rows = Rows::default();
    let put = |rows: &mut Rows, at: i64, gate: &str, blue_only: i64, green_only: i64| {
        let metric = || Metric::Paired(gate.into());
        rows.put(at, metric(), Grain::Trace, None, Color::Blue, &counted(500, blue_only));
        rows.put(
            at,
            metric(),
            Grain::Trace,
            None,
            Color::Green,
            &counted(500, green_only),
        );
    };
    for at in FROM..FROM + 4 {
        put(&mut rows, at, "json", 10, 9);
    }
    put(&mut rows, FROM, "slow", 30, 12);
    bench.rows = rows.minutes();
    let judgement = bench.judge();
    assert_eq!(judgement.n_pairs, 2_000);
    let [json, slow] = &judgement.reports[..] else {
        panic!("{judgement:?}")
    };
    let pairs = paired::Pairs {
        green_only: 36,
        blue_only: 40,
        same: 1_924,
    };
    assert_eq!(json.log_e_pass, paired::DiscordBets::lt(0.02).log_e(pairs));
    assert_eq!(json.verdict, Verdict::Pass, "{json:?}");
    // swapped roles of McNemar: blue alone was slow in 30 of 42
    assert!((slow.log_e_pass - bern(30.0, 12.0, 0.5, &gates::stats::G6)).abs() < 1e-12);
    assert!(slow.reason.contains("mirrored pairs"), "{}", slow.reason);

    for at in FROM + 4..FROM + 9 {
        put(&mut rows, at, "json", 5, 60);
    }
    bench.rows = rows.minutes();
    let judgement = bench.judge();
    assert_eq!(judgement.verdict, Verdict::Fail, "{}", judgement.reason);
    assert_eq!(judgement.rollback.unwrap()[0].gate, "json");
}

#[test]
fn paired_costs_are_judged_by_their_differences() {
    let bench = |times: f64| {
        let gates = vec![paired_gate("cost", Metric::Cost, Margin::MaxRatio(1.2))];
        let mut bench = Bench::new(spec(gates), 3);
        let plans = pair_plans(&bench.trial.spec, Some(&bench.trial.baseline));
        let PairRead::Value { r, cap } = plans[0].read else {
            panic!("{plans:?}")
        };
        assert_eq!(r, 1.2);
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(3);
        let mut hdr: [Histogram; 3] = Default::default();
        let mut sum = [0; 3];
        for _ in 0..2_000 {
            let blue = (300_000.0 + 200_000.0 * rng.random::<f64>()) as u64;
            let green = (blue as f64 * times * (0.9 + 0.2 * rng.random::<f64>())) as u64;
            let difference = green.min(cap) as f64 - r * blue.min(cap) as f64 + r * cap as f64;
            for (i, v) in [blue, green, difference as u64].into_iter().enumerate() {
                hdr[i].record(v, 1);
                sum[i] += v as i64;
            }
        }
        let mut rows = Rows::default();
        for (i, color) in [Color::Blue, Color::Green, Color::Unmarked].into_iter().enumerate() {
            let cell = Cell {
                n: 2_000,
                sum: sum[i],
                hdr: hdr[i].clone(),
                ..Cell::default()
            };
            rows.put(FROM, Metric::Paired("cost".into()), Grain::Trace, None, color, &cell);
        }
        bench.rows = rows.minutes();
        bench.judge()
    };
    let equal = bench(1.0);
    assert_eq!(equal.verdict, Verdict::Pass, "{:?}", equal.reports);
    assert!((equal.reports[0].effect.unwrap() - 1.0).abs() < 0.02);
    let dear = bench(1.5);
    assert_eq!(dear.verdict, Verdict::Fail, "{:?}", dear.reports);
}

#[test]
fn a_statement_counts_like_any_rate_and_its_obstacles_are_said() {
    let sql = |margin| GateSpec {
        sql: Some("SELECT 1".into()),
        ..plain(gate("refunds", Metric::Sql("refunds".into()), margin))
    };
    let mut rows = Rows::default();
    for t in 0..10 {
        for (color, events) in [(Color::Blue, 2), (Color::Green, 12)] {
            let metric = Metric::Sql("refunds".into());
            rows.put(
                FROM + t,
                metric,
                Grain::Trace,
                Some(PPM / 2),
                color,
                &counted(150, events),
            );
        }
    }
    for margin in [Margin::Max(0.02), Margin::MaxRatio(1.5), Margin::MaxIncrease(0.01)] {
        let mut bench = Bench::new(spec(vec![sql(margin)]), 10);
        assert!(bench.judge().reason.contains("no data"));
        bench.rows = rows.minutes();
        let judgement = bench.judge();
        assert_eq!(judgement.verdict, Verdict::Fail, "{margin:?} {:?}", judgement.reports);
        bench.obstacles.insert("refunds".into(), "counts fell".into());
        let judgement = bench.judge();
        assert_eq!(judgement.verdict, Verdict::Inconclusive);
        assert!(judgement.reason.contains("counts fell"), "{}", judgement.reason);
    }
}

#[test]
fn sessions_are_judged_as_units_of_their_own() {
    let mut rules = spec(vec![plain(gate("errors", Metric::Error, Margin::MaxRatio(1.5)))]);
    rules.unit = Unit::Session;
    let mut bench = Bench::new(rules, 3);
    let mut rows = Rows::default();
    for t in 0..20 {
        for (color, failed) in [(Color::Blue, 2), (Color::Green, 9)] {
            for (metric, events) in [(Metric::Traces, 0), (Metric::Error, failed)] {
                let cell = counted(60, events);
                rows.put(FROM + t, metric, Grain::Session, Some(PPM / 2), color, &cell);
            }
        }
    }
    bench.rows = rows.minutes();
    let judgement = bench.judge();
    assert_eq!((judgement.n_blue, judgement.n_green), (1_200, 1_200));
    assert_eq!(judgement.verdict, Verdict::Fail, "{:?}", judgement.reports);
    assert_eq!(judgement.reports[0].n_green, 1_200);
}

#[test]
fn thresholds_of_sessions_come_from_sessions() {
    let mut rules = spec(vec![plain(gate("cost", Metric::Cost, Margin::MaxRatio(1.2)))]);
    rules.unit = Unit::Session;
    let mut rows = Rows::default();
    for i in 0..100 {
        let mut cost = Cell::amount(20_000 + i);
        cost.n = 1;
        rows.put(FROM, Metric::Cost, Grain::Session, Some(0), Color::Blue, &cost);
        rows.put(
            FROM,
            Metric::Cost,
            Grain::Trace,
            Some(0),
            Color::Blue,
            &Cell::amount(1_000),
        );
    }
    let minutes = rows.minutes();
    let cells = minutes.values().flat_map(|m| m.iter().map(|(s, c)| (s, &**c)));
    let frozen = freeze(&rules, cells, Nanos::ZERO, "test".into()).unwrap();
    let mean = frozen.gates["cost"].mean.unwrap();
    assert!((20_000.0..20_200.0).contains(&mean), "{mean}");
}

#[test]
fn what_spoils_a_comparison_refuses_judgement() {
    let worse = || {
        let mut bench = Bench::new(spec(vec![plain(eval_fail(Margin::MaxRatio(1.5)))]), 3);
        for t in 0..30 {
            bench.cells.second(FROM + 3 + t, 300, |_| crate::stream::Behavior {
                eval_fail: 0.5,
                ..HEALTHY
            });
        }
        bench
    };
    assert!(worse().judge().rollback.is_some());
    let spoil = |metric: Metric, color: Color, n: i64, events: i64| {
        let mut bench = worse();
        let cell = counted(n, events);
        bench.cells.put(FROM + 1, metric, Some(PPM / 2), color, None, &cell);
        bench.judge()
    };
    for (metric, events, word) in [
        (Metric::MixedManifest, 60, "mixed_manifest"),
        (Metric::Sampled, 600, "sampled"),
    ] {
        let judgement = spoil(metric.clone(), Color::Green, 1_000, events);
        assert!(judgement.rollback.is_none() && judgement.refused.is_some(), "{metric}");
        assert_eq!(judgement.verdict, Verdict::Inconclusive);
        assert!(
            judgement.reports.iter().all(|r| r.reason.starts_with(word)),
            "{:?}",
            judgement.reports
        );
        // a few are no reason yet
        assert!(spoil(metric, Color::Green, 10_000, 2).rollback.is_some());
    }
    let conflict = spoil(Metric::ColorConflict, Color::Green, 1_000, 80);
    assert!(
        conflict.rollback.is_some(),
        "conflicts hold up promotions, not rollbacks"
    );
    assert!(conflict.blocked.unwrap().starts_with("color_conflict: 8.0 %"));
    let unmarked = spoil(Metric::Unmarked, Color::Unmarked, 1_000, 80);
    assert!(unmarked.blocked.unwrap().starts_with("unmarked: 8.0 %"));
}

#[test]
fn sessions_that_stick_are_told_from_those_that_cross() {
    let seed = 20_261_128;
    println!("seed {seed}");
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
    for (sticky, unit) in [(false, Unit::Trace), (true, Unit::Trace), (true, Unit::Session)] {
        let mut rules = spec(vec![plain(gate("errors", Metric::Error, Margin::MaxRatio(1.5)))]);
        rules.unit = unit;
        let mut bench = Bench::new(rules, 3);
        let mut rows = Rows::default();
        for _ in 0..400 {
            let green = |rng: &mut rand_chacha::ChaCha8Rng| rng.random::<f64>() < 0.25;
            let first = green(&mut rng);
            let second = if sticky { first } else { green(&mut rng) };
            let color = if first { Color::Green } else { Color::Blue };
            let cell = counted(1, i64::from(first == second));
            rows.put(FROM, Metric::SessionSame, Grain::Trace, Some(PPM / 4), color, &cell);
        }
        bench.rows = rows.minutes();
        let refused = bench.judge().refused;
        let expected = sticky && unit == Unit::Trace;
        assert_eq!(
            refused.is_some_and(|why| why.starts_with("sticky_sessions")),
            expected,
            "{sticky} {unit:?}"
        );
    }
}

#[test]
fn muted_and_dry_gates_are_shown_and_change_nothing() {
    let worse = crate::stream::Behavior {
        eval_fail: 0.6,
        ..HEALTHY
    };
    let run = |dry_run: bool, muted: bool, on_fail: OnFail| {
        let mut gates: Vec<GateSpec> = demo_gates().into_iter().map(plain).collect();
        gates[2].dry_run = dry_run;
        gates[2].on_fail = on_fail;
        let mut bench = Bench::new(spec(gates), 2);
        for t in 0..20 {
            bench.cells.second(FROM + 2 + t, 300, |_| worse);
        }
        if muted {
            bench.muted.push("task completion".into());
        }
        bench.judge()
    };
    assert!(run(false, false, OnFail::Rollback).rollback.is_some());
    for on_fail in [OnFail::Rollback, OnFail::Fallback, OnFail::Hold] {
        let dry = run(true, false, on_fail);
        assert!(dry.rollback.is_none() && dry.fallbacks.is_empty() && dry.holds.is_empty());
        let report = dry.reports.iter().find(|r| r.name == "task completion").unwrap();
        assert_eq!(report.verdict, Verdict::Fail);
        assert!(
            report.dry_run && report.reason.starts_with("dry run: "),
            "{}",
            report.reason
        );
        assert!(
            dry.passes,
            "the others pass, and a dry run does not stand in the way: {}",
            dry.reason
        );

        let muted = run(false, true, on_fail);
        assert!(muted.rollback.is_none() && muted.fallbacks.is_empty() && muted.holds.is_empty());
        assert!(!muted.passes, "silence is no consent");
    }
}

#[test]
fn late_evaluations_are_waited_for_in_both_colors_alike() {
    let mut gates = vec![plain(eval_fail(Margin::MaxRatio(1.5)))];
    gates[0].lateness = Duration::from_secs(10);
    gates[0].min_coverage = Some(0.8);
    let mut bench = Bench::new(spec(gates), 30);
    // timeout and grace are 3 s: what started in the last 13 s is not counted yet
    bench.now = FROM + 30;
    let waiting = bench.judge();
    bench.now = FROM + 100;
    let all = bench.judge();
    let n = |j: &Judgement| j.reports[0].n_blue + j.reports[0].n_green;
    assert_eq!(n(&all), 30 * 300);
    assert_eq!(n(&waiting), 17 * 300, "seconds 0 to 16");
    // traces of the last seconds without evaluations do not lower the coverage before their time
    for _ in 0..2_000 {
        let unit = Cell::unit(false);
        for color in [Color::Blue, Color::Green] {
            bench
                .cells
                .put(FROM + 29, Metric::Traces, Some(PPM / 2), color, Some("pro"), &unit);
        }
    }
    bench.now = FROM + 30;
    assert!(!bench.judge().reports[0].reason.contains("coverage"));
    bench.now = FROM + 100;
    assert!(bench.judge().reports[0].reason.contains("coverage"));
}

#[test]
fn a_quantile_gate_that_also_looks_on_takes_no_weight_from_those_that_act() {
    let mut gates = demo_gates();
    gates.insert(
        0,
        GateSpec {
            dry_run: true,
            name: "looks on".into(),
            ..p99(Margin::MaxRatio(1.1))
        },
    );
    let bench = Bench::new(spec(gates), 3);
    let judgement = bench.judge();
    let names: Vec<&str> = judgement.reports[..4].iter().map(|r| r.name.as_str()).collect();
    assert_eq!(names, ["p99 latency", "cost per trace", "task completion", "looks on"]);
}
