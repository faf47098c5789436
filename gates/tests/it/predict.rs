//! Predictions beside simulated releases. Times are printed with their seeds.
#![allow(clippy::print_stdout)]

use crate::stream::{Behavior, HEALTHY, Stream, Trial, eval_fail, gate, p99, spec};
use gates::{
    judge::Judgement,
    predict::{GatePrediction, Prediction, Traffic, false_rollbacks_a_year, predict},
};
use proto::{
    Cell, Color, Metric,
    cell::PPM,
    release::{GateSpec, Margin, Mode, ReleaseSpec, Step},
};
use rand::RngExt;
use std::{collections::BTreeMap, time::Duration};

const SEEDS: u64 = 21;
const PER_MINUTE: usize = 100;

fn trial_spec(gate: GateSpec, green: f64) -> ReleaseSpec {
    let mut spec = spec(vec![GateSpec {
        by_cohort: false,
        ..gate
    }]);
    spec.steps = vec![Step {
        green,
        min: Duration::ZERO,
    }];
    (spec.timeout, spec.grace) = (Duration::ZERO, Duration::ZERO);
    spec
}

/// Blue's history of `n` traces.
fn past(n: i64) -> Stream {
    let mut stream = Stream::new(7);
    stream.blue_only(0, n / 100, 100);
    stream
}

fn traffic(stream: &Stream) -> Traffic {
    let mut blue: BTreeMap<Metric, Cell> = BTreeMap::new();
    for (key, cell) in stream.table.iter() {
        blue.entry(key.series.metric).or_default().merge(cell, 1);
    }
    Traffic {
        traces_per_minute: PER_MINUTE as f64,
        blue,
    }
}

fn only(prediction: &Prediction) -> GatePrediction {
    prediction.steps[0].gates[0].clone().unwrap()
}

/// Median minutes until `done`, over the seeds.
fn median(spec: &ReleaseSpec, worse: Behavior, limit: i64, done: impl Fn(&Judgement) -> bool) -> f64 {
    let split = spec.steps[0].ppm();
    let past = past(10_000);
    let mut times: Vec<i64> = (0..SEEDS)
        .map(|seed| {
            let mut stream = Stream::new(seed);
            let mut trial = Trial::new(spec.clone(), past.minutes(), 100_000);
            (trial.counted_from, trial.minute_secs) = (0, 60);
            (1..=limit)
                .find(|minute| {
                    for _ in 0..PER_MINUTE {
                        let green = stream.rng.random_range(0..PPM) < split;
                        let (color, what) = if green {
                            (Color::Green, worse)
                        } else {
                            (Color::Blue, HEALTHY)
                        };
                        stream.trace(60 * (minute - 1), Some(split), color, "pro", what);
                    }
                    done(&trial.judge(stream.minutes()))
                })
                .unwrap_or(limit * 2)
        })
        .collect();
    times.sort_unstable();
    times[times.len() / 2] as f64
}

fn minutes(when: Option<Duration>) -> f64 {
    when.unwrap().as_secs_f64() / 60.0
}

#[test]
fn predicted_times_are_near_the_medians_of_simulated_releases() {
    let worse = |latency_times, cost_times, eval_fail| Behavior {
        latency_times,
        cost_times,
        eval_fail,
    };
    let cases = [
        (p99(Margin::MaxRatio(1.5)), 0.5, worse(2.0, 1.0, 0.15)),
        (
            gate("cost", Metric::Cost, Margin::MaxRatio(1.2)),
            0.5,
            worse(1.0, 1.4, 0.15),
        ),
        (
            gate("cost", Metric::Cost, Margin::MaxRatio(1.2)),
            0.25,
            worse(1.0, 1.4, 0.15),
        ),
        (eval_fail(Margin::MaxRatio(1.5)), 0.5, worse(1.0, 1.0, 0.3)),
        (eval_fail(Margin::MaxRatio(1.5)), 0.25, worse(1.0, 1.0, 0.3)),
        (eval_fail(Margin::MaxIncrease(0.1)), 0.5, worse(1.0, 1.0, 0.35)),
        (eval_fail(Margin::Max(0.2)), 0.5, worse(1.0, 1.0, 0.25)),
    ];
    let past = traffic(&past(10_000));
    for (gate, green, worse) in cases {
        let name = format!("{} {:?} at {green}", gate.name, gate.margin);
        let spec = trial_spec(gate, green);
        let predicted = only(&predict(&spec, &past).unwrap());
        let passes = median(&spec, HEALTHY, 400, |j| j.passes);
        let caught = median(&spec, worse, 400, |j| j.rollback.is_some());
        println!(
            "{name}: passes in {} (simulated {passes}), {} is caught in {} ({caught}); seeds 0..{SEEDS}",
            minutes(predicted.passes),
            predicted.worse,
            minutes(predicted.caught)
        );
        for (predicted, simulated) in [(predicted.passes, passes), (predicted.caught, caught)] {
            let predicted = minutes(predicted);
            let near = simulated / 1.5 - 1.0..=simulated * 1.5 + 1.0;
            assert!(near.contains(&predicted), "{name}: {predicted} for {simulated}");
        }
    }
}

#[test]
fn smaller_steps_take_longer_and_what_never_comes_is_said() {
    let past = traffic(&past(10_000));
    let mut spec = trial_spec(p99(Margin::MaxRatio(1.2)), 0.01);
    spec.steps = [0.01, 0.25, 1.0]
        .map(|green| Step {
            green,
            min: Duration::from_secs(1_800),
        })
        .to_vec();
    (spec.timeout, spec.grace) = (Duration::from_secs(60), Duration::from_secs(10));
    let prediction = predict(&spec, &past).unwrap();
    assert_eq!(prediction.steps.len(), 2, "nothing is compared at 1.0");
    let [small, large] = [0, 1].map(|i| prediction.steps[i].gates[0].clone().unwrap());
    assert_eq!(large.worse, "1.4x");
    assert!(large.passes < small.passes && large.caught < small.caught);
    assert_eq!(
        prediction.promotes,
        large.passes.map(|d| d + Duration::from_secs(1_800))
    );
    // 500 traces at 1 % of 100 a minute: 500 minutes, and 70 s until the last is admitted
    assert_eq!(
        prediction.steps[0].enough_traces,
        Some(Duration::from_secs(500 * 60 + 70))
    );

    spec.horizon = Duration::from_secs(3_600);
    let hasty = predict(&spec, &past).unwrap();
    assert_eq!(hasty.steps[0].gates[0].clone().unwrap().passes, None);
    assert_eq!(hasty.promotes, None);
    let none = Traffic::default();
    assert_eq!(predict(&spec, &none).unwrap_err(), "no traffic");
    let few = Traffic {
        traces_per_minute: 1.0,
        ..none
    };
    assert!(predict(&spec, &few).unwrap_err().contains("has 0 of 200 blue units"));
    spec.gates[0].paired = true;
    assert!(predict(&spec, &past).unwrap().steps[0].gates[0].is_err());
}

#[test]
fn false_rollbacks_add_up_over_routes_that_decide() {
    let week = trial_spec(p99(Margin::MaxRatio(1.2)), 0.5);
    let mut day = week.clone();
    (day.horizon, day.alpha) = (Duration::from_secs(86_400), 0.001);
    let mut observed = week.clone();
    observed.mode = Mode::Observe;
    let year = false_rollbacks_a_year(&[week, day, observed]);
    assert!((year.back_to_back - (0.01 * 365.25 / 7.0 + 0.001 * 365.25)).abs() < 1e-9);
    assert!((year.weekly - 0.011 * 365.25 / 7.0).abs() < 1e-9);
}
