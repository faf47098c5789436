//! One gate measurement from cells: the time a judgement takes, whatever the number of spans behind it.
//!
//! `fresh` reads every minute of the release; `next` is what the running service does: judge again after one minute
//! changed. Three overall pairs (p99 latency, cost, evaluation failures), 100 traces a minute and color.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use benches::release::{gate, scope, spec};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gates::judge::{Baseline, Judge, JudgeInput, PairKey, freeze, new_pairs};
use proto::{Cell, CellKey, CellTable, Color, Grain, Metric, Nanos, cell::Series, release::ReleaseSpec};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

const PER_MINUTE: usize = 100;

/// The cells of one minute.
fn fill(table: &mut CellTable, rng: &mut ChaCha8Rng, minute: i64) {
    for color in [Color::Blue, Color::Green] {
        let mut cells = [
            (Metric::Traces, Cell::default()),
            (Metric::Latency, Cell::default()),
            (Metric::Cost, Cell::default()),
            (Metric::EvalFail("task_completion".into()), Cell::default()),
        ];
        for _ in 0..PER_MINUTE {
            let tail = -(1.0 - rng.random::<f64>()).ln();
            let units = [
                Cell::unit(false),
                Cell::amount((300_000.0 + 500_000.0 * tail) as u64),
                Cell::amount((100_000.0 + 300_000.0 * tail) as u64),
                Cell::unit(rng.random::<f64>() < 0.03),
            ];
            for ((_, cell), unit) in cells.iter_mut().zip(&units) {
                cell.merge(unit, 1);
            }
        }
        for (metric, cell) in cells {
            let series = Series {
                metric,
                grain: Grain::Trace,
                cohort: None,
                split_ppm: Some(500_000),
                color,
                admitted: true,
            };
            let key = CellKey {
                scope: scope(),
                minute: minute * 60,
                series,
            };
            table.apply(&key, &cell, 1);
        }
    }
}

fn input<'a>(
    spec: &'a ReleaseSpec,
    baseline: &'a Baseline,
    order: &'a [PairKey],
    table: &'a CellTable,
) -> JudgeInput<'a> {
    JudgeInput {
        baseline: Some(baseline),
        order,
        ..JudgeInput::of_cells(spec, table.minutes(&scope()).unwrap())
    }
}

fn judging(c: &mut Criterion) {
    let gates = [
        ("p99", gate("p99 latency", "latency", Some(0.99), 1.25)),
        ("cost", gate("cost per trace", "cost", None, 1.25)),
        (
            "eval_fail",
            gate("task completion", "eval_fail:task_completion", None, 1.25),
        ),
    ];
    for minutes in [1_440, 10_080] {
        let mut rng = ChaCha8Rng::seed_from_u64(42);
        let mut table = CellTable::default();
        for minute in 0..minutes {
            fill(&mut table, &mut rng, minute);
        }
        let mut later = table.clone();
        fill(&mut later, &mut rng, minutes - 1);
        let all = ("all three", gates.iter().map(|g| g.1.clone()).collect());
        let each = gates.iter().map(|(name, g)| (*name, vec![g.clone()]));
        let cases: Vec<(&str, Vec<Value>)> = each.chain([all]).collect();
        for (name, gates) in cases {
            let spec = spec(&gates);
            let cells = table.minutes(&scope()).unwrap();
            let flat = cells.values().take(60).flat_map(|m| m.iter());
            let flat = flat.map(|(series, cell)| (series, &**cell));
            let baseline = freeze(&spec, flat, Nanos::ZERO, "bench".into()).unwrap();
            let order = new_pairs(&spec, cells, 0, &[]);
            let before = input(&spec, &baseline, &order, &table);
            let after = input(&spec, &baseline, &order, &later);
            let mut group = c.benchmark_group(format!("judge/{name}"));
            group.sample_size(10);
            group.bench_function(BenchmarkId::new("fresh", minutes), |b| {
                b.iter(|| Judge::default().judge(&before));
            });
            let mut judge = Judge::default();
            judge.judge(&before);
            let mut flip = false;
            group.bench_function(BenchmarkId::new("next", minutes), |b| {
                b.iter(|| {
                    flip = !flip;
                    judge.judge(if flip { &after } else { &before })
                });
            });
            group.finish();
        }
    }
}

/// Cohorts and gates of the many pairs.
const COHORTS: usize = 1_000;
const GATES: usize = 10;
/// Traces of both colors a minute, over all cohorts.
const MANY_PER_MINUTE: usize = 200;

/// The cells of one minute: every trace in a cohort of its own choice, ten metrics each.
fn fill_many(table: &mut CellTable, rng: &mut ChaCha8Rng, minute: i64) {
    let cohorts: Vec<std::sync::Arc<str>> = (0..COHORTS).map(|i| format!("customer-{i:04}").into()).collect();
    for _ in 0..MANY_PER_MINUTE {
        let cohort = &cohorts[rng.random_range(0..COHORTS)];
        let color = if rng.random::<bool>() {
            Color::Green
        } else {
            Color::Blue
        };
        let tail = -(1.0 - rng.random::<f64>()).ln();
        let mut put = |metric: Metric, cell: &Cell| {
            let series = Series {
                metric,
                grain: Grain::Trace,
                cohort: Some(std::sync::Arc::clone(cohort)),
                split_ppm: Some(500_000),
                color,
                admitted: true,
            };
            let key = CellKey {
                scope: scope(),
                minute: minute * 60,
                series,
            };
            table.apply(&key, cell, 1);
        };
        put(Metric::Traces, &Cell::unit(false));
        put(Metric::Latency, &Cell::amount((300_000.0 + 500_000.0 * tail) as u64));
        put(Metric::Cost, &Cell::amount((100_000.0 + 300_000.0 * tail) as u64));
        for evaluator in 0..GATES - 2 {
            let failed = rng.random::<f64>() < 0.03;
            put(
                Metric::EvalFail(format!("rubric_{evaluator}").into()),
                &Cell::unit(failed),
            );
        }
    }
}

/// 10,000 (gate, cohort) pairs over a week of minutes. `fresh` is the first judgement after a start, `next` what the
/// running service does every cycle.
fn many_pairs(c: &mut Criterion) {
    let minutes = 10_080;
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut table = CellTable::default();
    for minute in 0..minutes {
        fill_many(&mut table, &mut rng, minute);
    }
    let mut later = table.clone();
    fill_many(&mut later, &mut rng, minutes - 1);
    let mut gates = vec![
        gate("p99 latency", "latency", Some(0.99), 1.25),
        gate("cost per trace", "cost", None, 1.25),
    ];
    gates.extend((0..GATES - 2).map(|i| gate(&format!("rubric {i}"), &format!("eval_fail:rubric_{i}"), None, 1.25)));
    for gate in &mut gates {
        gate["by_cohort"] = Value::Bool(true);
    }
    let spec = spec(&gates);
    let cells = table.minutes(&scope()).unwrap();
    let flat = cells.values().take(600).flat_map(|m| m.iter());
    let baseline = freeze(&spec, flat.map(|(s, c)| (s, &**c)), Nanos::ZERO, "bench".into()).unwrap();
    let order = new_pairs(&spec, cells, 0, &[]);
    println!("{} pairs", order.len());
    let before = input(&spec, &baseline, &order, &table);
    let after = input(&spec, &baseline, &order, &later);
    let mut group = c.benchmark_group("judge/10,000 pairs");
    group.sample_size(10);
    group.bench_function("fresh", |b| b.iter(|| Judge::default().judge(&before)));
    let mut judge = Judge::default();
    judge.judge(&before);
    let mut flip = false;
    group.bench_function("next", |b| {
        b.iter(|| {
            flip = !flip;
            judge.judge(if flip { &after } else { &before })
        });
    });
    group.finish();
}

criterion_group!(benches, judging, many_pairs);
criterion_main!(benches);
