//! Paired gates.

use super::{
    assert_same, listed, name, normalised, now,
    oracle::{self, Cells, series},
    plan,
    story::{Told, Trace},
    until,
};
use crate::{
    engine, view,
    world::{self, Held},
};
use proto::{
    Cell, Color, Grain, Metric,
    cell::Minutes,
    measure::{MeasurePlan, PairPlan, PairRead},
};
use query::measure::{SqlMemory, measure};
use std::collections::BTreeMap;

const EVENTS: [&str; 19] = [
    "error",
    "timeout",
    "retry",
    "fallback",
    "cache_hit",
    "json_invalid",
    "tool_error",
    "tool_args_invalid",
    "guardrail_block",
    "thumbs_down",
    "escalation",
    "abandoned",
    "override",
    "color_conflict",
    "mixed_manifest",
    "sampled",
    "eval_fail:task_completion",
    "eval_fail:Groundedness",
    "eval_fail:never_made",
];
const AMOUNTS: [&str; 4] = ["latency", "cost", "prompt_tokens", "completion_tokens"];

fn pair(gate: &str, metric: &str, read: PairRead, by_cohort: bool) -> PairPlan {
    PairPlan {
        gate: name(gate),
        metric: normalised(metric),
        read,
        by_cohort,
    }
}

fn every_pair() -> Vec<PairPlan> {
    let events = EVENTS
        .iter()
        .enumerate()
        .map(|(i, metric)| pair(metric, metric, PairRead::Event, i % 2 == 0));
    let values = AMOUNTS.iter().map(|metric| {
        let read = PairRead::Value {
            r: 1.15,
            cap: 3_000_000,
        };
        pair(&format!("{metric}: mean"), metric, read, false)
    });
    let above = AMOUNTS.iter().map(|metric| {
        let read = PairRead::Above {
            blue: 1_500_000,
            green: 1_800_000,
        };
        pair(&format!("{metric} p99"), metric, read, true)
    });
    events.chain(values).chain(above).collect()
}

/// Counts one pair of a gate.
fn count(cells: &mut Cells, gate: &PairPlan, at: proto::Nanos, cohort: Option<&str>, [blue, green]: [i64; 2]) {
    let metric = Metric::Paired(gate.gate.clone());
    let mut add = |color, cell: Cell| {
        let cohort = cohort.filter(|_| gate.by_cohort);
        cells.add(at, series(&metric, Grain::Trace, cohort, None, color), &cell);
    };
    let (b, g) = match gate.read {
        PairRead::Event => (blue == 1, green == 1),
        PairRead::Above {
            blue: of_blue,
            green: of_green,
        } => (blue > of_blue as i64, green > of_green as i64),
        PairRead::Value { r, cap } => {
            let cap = cap as f64;
            let difference = (green as f64).min(cap) + r * (cap - (blue as f64).min(cap));
            add(Color::Blue, Cell::amount(blue as u64));
            add(Color::Green, Cell::amount(green as u64));
            add(Color::Unmarked, Cell::amount(difference.floor() as u64));
            return;
        }
    };
    add(Color::Blue, Cell::unit(b && !g));
    add(Color::Green, Cell::unit(g && !b));
}

fn expected(told: &Told, plan: &MeasurePlan) -> Minutes {
    let mut cells = Cells::default();
    let mut counted: Vec<&Trace> = told
        .0
        .iter()
        .filter(|t| t.release == Some("r'1") && t.start() >= plan.from && t.start() <= until() && !t.superseded)
        .collect();
    counted.sort_by_key(|t| (t.start, t.hex()));
    let mut sides: BTreeMap<&str, [Option<&Trace>; 2]> = BTreeMap::new();
    for trace in &counted {
        let side = match trace.color {
            Color::Blue => 0,
            Color::Green => 1,
            Color::Unmarked => continue,
        };
        if let Some(key) = &trace.mirror_key {
            sides.entry(key).or_default()[side].get_or_insert(trace);
        }
    }
    for gate in &plan.pairs {
        for pair in sides.values() {
            let [Some(blue), Some(green)] = pair else { continue };
            if let (Some(b), Some(g)) = (oracle::side(blue, &gate.metric), oracle::side(green, &gate.metric)) {
                let at = blue.start().max(green.start());
                count(&mut cells, gate, at, blue.cohort.or(green.cohort), [b, g]);
            }
        }
        for trace in &counted {
            if let Some((values, at)) = oracle::within(trace, &gate.metric) {
                count(&mut cells, gate, at, trace.cohort, values);
            }
        }
    }
    cells.minutes()
}

#[tokio::test(flavor = "multi_thread")]
async fn pairs_are_those_of_a_plain_loop_wherever_rows_lie() {
    let told = Told::drawn(11, 3_000);
    let plan = MeasurePlan {
        pairs: every_pair(),
        ..plan()
    };
    let of_pairs = |metric: &Metric| matches!(metric, Metric::Paired(_));
    let expected = listed(&expected(&told, &plan), of_pairs);
    for held in Held::ALL {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = world::write(&told, dir.path(), held);
        let engine = engine(dir.path());
        let measured = measure(&engine, view(&snapshot), &plan, now(), &mut SqlMemory::default()).await;
        assert_eq!(measured.obstacles, BTreeMap::new(), "{held:?}");
        assert_same(&listed(&measured.minutes, of_pairs), &expected, &format!("{held:?}"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn every_kind_of_pair_is_in_the_story() {
    let told = Told::drawn(11, 3_000);
    let plan = MeasurePlan {
        pairs: every_pair(),
        ..plan()
    };
    let expected = expected(&told, &plan);
    for gate in plan.pairs.iter().filter(|gate| !gate.gate.contains("never_made")) {
        let metric = Metric::Paired(gate.gate.clone());
        let cells = expected.values().flat_map(|cells| cells.iter());
        let pairs: i64 = cells
            .filter(|(series, _)| series.metric == metric && series.color == Color::Green)
            .map(|(_, cell)| cell.n)
            .sum();
        assert!(pairs > 3, "{}: {pairs} pairs", gate.gate);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_compared_within_pairs_is_an_obstacle() {
    let told = Told::drawn(12, 100);
    let dir = tempfile::tempdir().unwrap();
    let snapshot = world::write(&told, dir.path(), Held::Live);
    let plan = MeasurePlan {
        pairs: vec![
            pair("first token", "ttft", PairRead::Value { r: 1.0, cap: 10 }, false),
            pair("wrongly read", "error", PairRead::Value { r: 1.0, cap: 10 }, false),
            pair("errors", "error", PairRead::Event, false),
        ],
        ..plan()
    };
    let measured = measure(
        &engine(dir.path()),
        view(&snapshot),
        &plan,
        now(),
        &mut SqlMemory::default(),
    )
    .await;
    let gates: Vec<&String> = measured.obstacles.keys().collect();
    assert_eq!(gates, ["first token", "wrongly read"]);
    assert!(measured.obstacles["first token"].contains("such as error"));
    assert!(!listed(&measured.minutes, |metric| *metric == Metric::Paired(name("errors"))).is_empty());
}
