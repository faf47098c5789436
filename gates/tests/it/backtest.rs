//! Rules over generated history. What is random prints its seed.
#![allow(clippy::print_stdout)]

use crate::stream::{eval_fail, gate, normal, p99, scope, spec};
use gates::{
    backtest::{Backtest, History, Options, Seen, Unit, backtest, halves, metrics_of},
    judge::{JudgeInput, freeze, judge, new_pairs, units::natural_grain},
    life::slot_after,
};
use proto::{
    Cell, CellKey, CellTable, Color, Metric, Nanos,
    cell::{Minutes, Scope, Series},
    decision::{Action, Verdict},
    release::{Margin, ReleaseSpec},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::time::Duration;

const MINUTE: i64 = 60;
/// Green begins; blue has served since 0.
const OPENED: i64 = 120 * MINUTE;

fn rules() -> ReleaseSpec {
    let mut rules = spec(vec![
        p99(Margin::MaxRatio(1.3)),
        gate("cost per trace", Metric::Cost, Margin::MaxRatio(1.2)),
        eval_fail(Margin::MaxRatio(1.5)),
    ]);
    (rules.timeout, rules.grace) = (Duration::from_secs(60), Duration::from_secs(10));
    rules.warmup = Duration::from_secs(300);
    rules
}

/// `minutes` of the release at 60 traces a minute, half of them green; green is slower from minute `bad_from` on.
fn history(rules: &ReleaseSpec, seed: u64, minutes: i64, bad_from: i64, split: Option<u32>) -> History {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut out = History {
        metrics: metrics_of([rules]),
        units: Vec::new(),
    };
    let at = |metric: &Metric| out.metric(metric).unwrap();
    let [traces, attempts, latency, cost, evals] = [
        Metric::Traces,
        Metric::AttemptError,
        Metric::Latency,
        Metric::Cost,
        Metric::EvalFail("task_completion".into()),
    ]
    .map(|m| at(&m));
    for i in 0..(OPENED / MINUTE + minutes) * 60 {
        let start = Nanos(i * 1_000_000_000 + rng.random_range(0..1_000_000_000));
        let minute = i / 60 - OPENED / MINUTE;
        let color = if minute >= 0 && rng.random::<bool>() {
            Color::Green
        } else {
            Color::Blue
        };
        let slow = if color == Color::Green && minute >= bad_from {
            2.0
        } else {
            1.0
        };
        let duration_us = (700_000.0 * (0.5 * normal(&mut rng)).exp() * slow) as u64;
        let seen = |metric, value, known_after| Seen {
            metric,
            color,
            value,
            known_after,
        };
        let paid = (400_000.0 * (0.4 * normal(&mut rng)).exp()) as u64;
        out.units.push(Unit {
            trace: rng.random(),
            start,
            duration_us,
            color,
            cohort: Some(["free", "pro"][rng.random_range(0..2)].into()),
            split_ppm: split.map(|ppm| if minute >= 0 { ppm } else { 0 }),
            seen: vec![
                seen(traces, 0, 0),
                seen(attempts, 0, 0),
                seen(latency, duration_us, 0),
                seen(cost, paid, 0),
                // judged at once, within the grace, or ten minutes later
                seen(
                    evals,
                    u64::from(rng.random::<f64>() < 0.1),
                    [0, 30, 600][rng.random_range(0..3)],
                ),
            ],
        });
    }
    out.sort();
    out
}

fn options() -> Options {
    Options {
        from: None,
        resolution: Duration::from_secs(60),
        peers: true,
    }
}

fn run(rules: &ReleaseSpec, history: &History) -> Backtest {
    backtest(rules, history, options(), &mut |_| {}).unwrap()
}

/// Cells as they stood at `now`, counted trace by trace.
fn cells_at(history: &History, now: Nanos, admission: Duration) -> CellTable {
    let mut table = CellTable::default();
    for unit in history.units.iter().filter(|u| u.start.plus(admission) <= now) {
        for seen in &unit.seen {
            if unit.start.plus(Duration::from_secs(u64::from(seen.known_after))) > now {
                continue;
            }
            let metric = &history.metrics[usize::from(seen.metric)];
            let cell = match metric {
                Metric::Latency | Metric::Cost => Cell::amount(seen.value),
                _ => Cell::unit(seen.value > 0),
            };
            let inside = unit.start >= Nanos::from_secs(OPENED);
            let key = CellKey {
                scope: if inside {
                    scope()
                } else {
                    Scope {
                        release: None,
                        ..scope()
                    }
                },
                minute: unit.start.0.div_euclid(60_000_000_000) * MINUTE,
                series: Series {
                    metric: metric.clone(),
                    grain: natural_grain(metric),
                    cohort: unit.cohort.clone(),
                    split_ppm: unit.split_ppm,
                    color: seen.color,
                    admitted: true,
                },
            };
            table.apply(&key, &cell, 1);
        }
    }
    table
}

#[test]
fn a_replay_says_bit_for_bit_what_judging_the_same_cells_live_says() {
    for (seed, split) in [(1, Some(500_000)), (2, None)] {
        let rules = rules();
        let history = history(&rules, seed, 170, 90, split);
        let replayed = run(&rules, &history);
        println!("seed {seed}, split {split:?}: {}", replayed.outcome());
        assert!(!replayed.decisions.is_empty());
        assert_eq!(replayed.iid_assumed, split.is_none());
        let admission = rules.timeout + rules.grace;
        let opened = Nanos::from_secs(OPENED);
        // blue that had ended when the release was opened froze it, admitted or not
        let ended = |u: &&Unit| u.start.plus(Duration::from_micros(u.duration_us)) <= opened;
        let past = History {
            metrics: history.metrics.clone(),
            units: history.units.iter().filter(ended).cloned().collect(),
        };
        let past_cells = cells_at(&past, opened, Duration::ZERO);
        let series: Vec<_> = past_cells.iter().map(|(key, cell)| (key.series, cell)).collect();
        let cells = series.iter().map(|(s, c)| (s, &***c));
        let baseline = freeze(&rules, cells, opened, replayed.baseline.clone().unwrap()).unwrap();
        for decision in &replayed.decisions {
            let table = cells_at(&history, decision.at, admission);
            let minutes: &Minutes = table.minutes(&scope()).unwrap();
            let counted_from = slot_after(opened.plus(rules.warmup), Duration::from_secs(60));
            let order = new_pairs(&rules, minutes, counted_from, &[]);
            let live = judge(&JudgeInput {
                baseline: Some(&baseline),
                order: &order,
                counted_from,
                measured_from: counted_from,
                minute_secs: MINUTE,
                now: decision.at,
                ..JudgeInput::of_cells(&rules, minutes)
            });
            assert_eq!(live.reports.len(), decision.gates.len());
            for (live, replayed) in live.reports.iter().zip(&decision.gates) {
                assert_eq!(live, replayed);
                let bits = |r: &proto::decision::GateReport| (r.log_e_fail.to_bits(), r.log_e_pass.to_bits());
                assert_eq!(bits(live), bits(replayed));
            }
        }
    }
}

#[test]
fn a_healthy_green_is_promoted_and_a_late_regression_rolled_back() {
    let rules = rules();
    let healthy = run(&rules, &history(&rules, 3, 150, 10_000, Some(500_000)));
    assert_eq!(healthy.verdict, Verdict::Pass, "{}", healthy.outcome());
    let decided: Vec<Action> = healthy.decisions.iter().map(|d| d.action).collect();
    assert_eq!(decided, [Action::Promote]);
    assert!(healthy.gates.iter().all(|g| g.failed_after_secs.is_none()));

    let mut slow = rules.clone();
    slow.min_traces = 100_000;
    let late = run(&slow, &history(&rules, 3, 200, 120, Some(500_000)));
    println!("late regression: {}", late.outcome());
    assert_eq!(late.verdict, Verdict::Fail);
    let back = late.decisions.last().unwrap();
    assert!((120 * 60..180 * 60).contains(&back.after_secs), "{}", back.after_secs);
    assert!(back.reason.contains("p99 latency"), "{}", back.reason);
    let p99 = late.gates.iter().find(|g| g.last.name == "p99 latency").unwrap();
    assert_eq!(p99.failed_after_secs, Some(back.after_secs));
    // promoted before it turned bad: both are said
    let both = run(&rules, &history(&rules, 3, 200, 120, Some(500_000)));
    assert_eq!(both.decisions.len(), 2);
    assert!(
        both.outcome().starts_with("promoted at 1970-01-01T0"),
        "{}",
        both.outcome()
    );
    assert!(both.outcome().contains(", and rolled back at "), "{}", both.outcome());
}

#[test]
fn blue_against_itself_is_rolled_back_by_thresholds_and_not_by_gates() {
    const SPLITS: u64 = 4;
    let rules = rules();
    let history = history(&rules, 4, 120, 10_000, None);
    let halves = halves(&rules, &history, options(), SPLITS, &mut |_| {}).unwrap();
    println!("{halves:?} (history of seed 4)");
    assert_eq!(halves.rolled_back, [], "at alpha 1 % one of four has a chance of 4 %");
    assert_eq!(halves.peers["Argo Rollouts style"], SPLITS);
    let blue = history.units.iter().filter(|u| u.color == Color::Blue).count();
    assert!(halves.traces > 0 && halves.traces < i64::try_from(blue).unwrap());
}

#[test]
fn what_cannot_be_replayed_is_said() {
    let rules = rules();
    let mut alone = history(&rules, 5, 0, 0, None);
    let refused = backtest(&rules, &alone, options(), &mut |_| {}).unwrap_err();
    assert!(refused.contains("no green trace"), "{refused}");
    let from = Options {
        from: Some(Nanos::from_secs(60 * MINUTE + 7)),
        ..options()
    };
    let undecided = backtest(&rules, &alone, from, &mut |_| {}).unwrap();
    assert_eq!(undecided.from, Nanos::from_secs(60 * MINUTE));
    assert_eq!(undecided.n_green, 0);
    assert!(undecided.outcome().starts_with("undecided"), "{}", undecided.outcome());

    let mut paired = rules.clone();
    paired.gates[0].paired = true;
    alone.units.retain(|u| u.start < Nanos::from_secs(600));
    let said = backtest(&paired, &alone, from, &mut |_| {}).unwrap().assumptions;
    assert!(
        said.iter().any(|s| s.contains("gate `p99 latency` is left out")),
        "{said:?}"
    );
    paired.gates.truncate(1);
    assert!(backtest(&paired, &alone, from, &mut |_| {}).is_err());
}
