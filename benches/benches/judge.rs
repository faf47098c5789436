//! One gate measurement from cells: the time a judgement takes, whatever the number of spans behind it.
//!
//! `fresh` reads every minute of the release; `next` is what the running service does: judge again after one minute
//! changed. Overall pairs (p99 latency, cost, evaluation failures by ratio and by difference), 100 traces a minute and
//! color; then 10,000 pairs of a thousand cohorts.
#![allow(clippy::unwrap_used, clippy::print_stdout, missing_docs)]

use benches::release::{gate, scope, spec};
use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use gates::judge::{Baseline, Judge, JudgeInput, PairKey, freeze, new_pairs};
use proto::{Cell, CellKey, CellTable, Color, Grain, Metric, Nanos, cell::Series, release::ReleaseSpec};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use std::sync::Arc;

const PER_MINUTE: usize = 100;

/// Adds units of one metric.
fn put(table: &mut CellTable, minute: i64, cohort: Option<&Arc<str>>, color: Color, (metric, cell): (Metric, &Cell)) {
    let series = Series {
        metric,
        grain: Grain::Trace,
        cohort: cohort.cloned(),
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
}

/// Latency (us) and cost (nano-USD) of one trace.
fn amounts(rng: &mut ChaCha8Rng) -> [Cell; 2] {
    let tail = -(1.0 - rng.random::<f64>()).ln();
    [300_000.0 + 500_000.0 * tail, 100_000.0 + 300_000.0 * tail].map(|value| Cell::amount(value as u64))
}

fn evaluated(rng: &mut ChaCha8Rng) -> Cell {
    Cell::unit(rng.random::<f64>() < 0.03)
}

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
            let [latency, cost] = amounts(rng);
            let units = [Cell::unit(false), latency, cost, evaluated(rng)];
            for ((_, cell), unit) in cells.iter_mut().zip(&units) {
                cell.merge(unit, 1);
            }
        }
        for (metric, cell) in cells {
            put(table, minute, None, color, (metric, &cell));
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
        ("eval_fail by difference", {
            let mut gate = gate("task completion by difference", "eval_fail:task_completion", None, 0.01);
            gate["margin"] = json!({"max_increase": 0.01});
            gate
        }),
    ];
    for minutes in [1_440, 10_080] {
        let mut rng = ChaCha8Rng::seed_from_u64(42);
        let mut table = CellTable::default();
        for minute in 0..minutes {
            fill(&mut table, &mut rng, minute);
        }
        let mut later = table.clone();
        fill(&mut later, &mut rng, minutes - 1);
        let all = ("first three", gates[..3].iter().map(|g| g.1.clone()).collect());
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

/// One trace of a cohort: ten metrics.
fn trace(table: &mut CellTable, rng: &mut ChaCha8Rng, minute: i64, cohort: &Arc<str>, color: Color) {
    let [latency, cost] = amounts(rng);
    let mut put = |metric, cell| put(table, minute, Some(cohort), color, (metric, &cell));
    put(Metric::Traces, Cell::unit(false));
    put(Metric::Latency, latency);
    put(Metric::Cost, cost);
    for evaluator in 0..GATES - 2 {
        put(Metric::EvalFail(format!("rubric_{evaluator}").into()), evaluated(rng));
    }
}

/// The cells of one minute: every trace in a cohort of its own choice.
fn fill_many(table: &mut CellTable, rng: &mut ChaCha8Rng, minute: i64, cohorts: &[Arc<str>]) {
    for _ in 0..MANY_PER_MINUTE {
        let cohort = &cohorts[rng.random_range(0..COHORTS)];
        let color = if rng.random::<bool>() {
            Color::Green
        } else {
            Color::Blue
        };
        trace(table, rng, minute, cohort, color);
    }
}

/// One trace of each color in every cohort.
fn fill_all(table: &mut CellTable, rng: &mut ChaCha8Rng, minute: i64, cohorts: &[Arc<str>]) {
    for cohort in cohorts {
        for color in [Color::Blue, Color::Green] {
            trace(table, rng, minute, cohort, color);
        }
    }
}

/// 10,000 (gate, cohort) pairs over a week of minutes. `fresh` is the first judgement after a start, `next` what the
/// running service does every cycle, here after 200 traces in one minute; `all` the cycle in which every pair changed.
fn many_pairs(c: &mut Criterion) {
    let minutes = 10_080;
    let cohorts: Vec<Arc<str>> = (0..COHORTS).map(|i| format!("customer-{i:04}").into()).collect();
    let mut rng = ChaCha8Rng::seed_from_u64(7);
    let mut table = CellTable::default();
    for minute in 0..minutes {
        fill_many(&mut table, &mut rng, minute, &cohorts);
    }
    let (mut later, mut all) = (table.clone(), table.clone());
    fill_many(&mut later, &mut rng, minutes - 1, &cohorts);
    fill_all(&mut all, &mut rng, minutes - 1, &cohorts);
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
    let mut group = c.benchmark_group("judge/10,000 pairs");
    group.sample_size(10);
    group.bench_function("fresh", |b| b.iter(|| Judge::default().judge(&before)));
    let mut judge = Judge::default();
    judge.judge(&before);
    for (name, after) in [("next", &later), ("all", &all)] {
        let after = input(&spec, &baseline, &order, after);
        let mut flip = false;
        group.bench_function(name, |b| {
            b.iter(|| {
                flip = !flip;
                judge.judge(if flip { &after } else { &before })
            });
        });
    }
    group.finish();
}

criterion_group!(benches, judging, many_pairs);
criterion_main!(benches);
