//! Sessions and users as units, sessions that stick, and what is only shown.

use super::{
    assert_same, listed, name, normalised, now,
    oracle::{self, Cells, is_unpriced, series, unit},
    plan,
    story::{CallKind, Told, Trace},
    until,
};
use crate::{
    engine, rows, view,
    world::{self, Held, SECOND, START},
};
use proto::{
    Cell, Color, Grain, Metric, Nanos,
    cell::{Minutes, PPM},
    measure::{EVERY_GATE, MeasurePlan, PairPlan, PairRead},
    metric::MetricKind,
    release::Unit,
};
use query::{
    Engine, EngineOptions,
    measure::{SqlMemory, measure},
};
use std::collections::BTreeMap;

const METRICS: [&str; 22] = [
    "latency",
    "cost",
    "prompt_tokens",
    "completion_tokens",
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
    "unmarked",
    "color_conflict",
    "mixed_manifest",
    "sampled",
    "eval_fail:task_completion",
];

/// Traces that count, by start.
fn counted(told: &Told) -> Vec<&Trace> {
    let from = plan().from;
    let mut counted: Vec<&Trace> = told
        .0
        .iter()
        .filter(|t| t.release == Some("r'1") && t.start() >= from && t.start() <= until())
        .filter(|t| !t.superseded && !t.shadow)
        .collect();
    counted.sort_by_key(|t| (t.start, t.hex()));
    counted
}

fn joined(traces: &[&Trace], metric: &Metric) -> Option<i64> {
    let values = || traces.iter().filter_map(|t| oracle::value(t, metric));
    match metric {
        Metric::Cost if traces.iter().any(|t| is_unpriced(t)) => None,
        Metric::Cost | Metric::PromptTokens | Metric::CompletionTokens => values().reduce(|a, b| a + b),
        _ => values().max(),
    }
}

fn expected_units(told: &Told, grain: Grain) -> Minutes {
    let mut units: BTreeMap<String, Vec<&Trace>> = BTreeMap::new();
    for trace in counted(told) {
        let id = if grain == Grain::Session {
            &trace.session
        } else {
            &trace.user
        };
        let key = id.clone().unwrap_or_else(|| trace.hex());
        units.entry(key).or_default().push(trace);
    }
    let mut cells = Cells::default();
    let metrics: Vec<Metric> = METRICS.iter().map(|m| normalised(m)).chain([Metric::Traces]).collect();
    for traces in units.values() {
        let first = traces[0];
        for metric in &metrics {
            if let Some(value) = joined(traces, metric) {
                let color = if *metric == Metric::Unmarked {
                    Color::Unmarked
                } else {
                    first.color
                };
                let series = series(metric, grain, first.cohort, first.split, color);
                cells.add(first.start(), series, &unit(metric, value));
            }
        }
    }
    cells.minutes()
}

#[tokio::test(flavor = "multi_thread")]
async fn units_are_those_of_a_plain_loop_wherever_rows_lie() {
    let told = Told::drawn(21, 2_000);
    for (unit, grain) in [(Unit::Session, Grain::Session), (Unit::User, Grain::User)] {
        let of_units = |metric: &Metric| *metric != Metric::SessionSame;
        let expected = listed(&expected_units(&told, grain), of_units);
        let plan = MeasurePlan {
            unit,
            metrics: METRICS
                .iter()
                .map(|m| normalised(m))
                .chain([normalised("ttft"), normalised("sql:x")])
                .collect(),
            ..plan()
        };
        for held in Held::ALL {
            let dir = tempfile::tempdir().unwrap();
            let snapshot = world::write(&told, dir.path(), held);
            let measured = measure(
                &engine(dir.path()),
                view(&snapshot),
                &plan,
                now(),
                &mut SqlMemory::default(),
            )
            .await;
            assert_eq!(measured.obstacles, BTreeMap::new(), "{held:?}");
            assert_same(
                &listed(&measured.minutes, of_units),
                &expected,
                &format!("{unit:?} {held:?}"),
            );
        }
        assert!(expected.iter().any(|line| line.contains("Cost")));
    }
    assert_eq!(normalised("cost").kind(), MetricKind::Amount);
}

fn expected_sessions(told: &Told) -> Minutes {
    let mut sessions: BTreeMap<&str, Vec<&Trace>> = BTreeMap::new();
    for trace in counted(told) {
        let randomised = trace.split.is_some_and(|split| split > 0 && split < PPM);
        if let Some(session) = trace
            .session
            .as_deref()
            .filter(|_| randomised && trace.color.is_marked())
        {
            sessions.entry(session).or_default().push(trace);
        }
    }
    let mut cells = Cells::default();
    for traces in sessions.values() {
        let first = traces[0];
        if let Some(second) = traces[1..].iter().find(|t| t.split == first.split) {
            let series = series(&Metric::SessionSame, Grain::Session, None, first.split, first.color);
            cells.add(first.start(), series, &Cell::unit(first.color == second.color));
        }
    }
    cells.minutes()
}

#[tokio::test(flavor = "multi_thread")]
async fn sessions_costs_and_the_worst_come_without_being_asked_for() {
    let told = Told::drawn(22, 2_000);
    let expected = listed(&expected_sessions(&told), |_| true);
    let mirrored: i64 = told
        .0
        .iter()
        .filter(|t| t.release == Some("r'1"))
        .flat_map(|t| t.calls.iter().map(move |call| (t, call)))
        .filter(|(t, call)| match call.kind {
            CallKind::Own => t.shadow,
            CallKind::Mirrored | CallKind::BelowMirror => true,
            CallKind::Judged => false,
        })
        .filter_map(|(_, call)| call.cost)
        .sum();
    let mut worst: Vec<&Trace> = counted(&told);
    let failed = |t: &Trace| t.evals.iter().filter(|e| e.passed == Some(false)).count();
    let attempts = |t: &Trace| t.own().filter(|call| call.error).count();
    worst.sort_by_key(|t| std::cmp::Reverse((t.error, failed(t), t.timed_out, attempts(t), t.us)));
    let mut left = BTreeMap::from([(Color::Blue, 10), (Color::Green, 10)]);
    worst.retain(|t| {
        left.get_mut(&t.color).is_some_and(|left| {
            *left -= 1;
            *left >= 0
        })
    });
    for held in Held::ALL {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = world::write(&told, dir.path(), held);
        let measured = measure(
            &engine(dir.path()),
            view(&snapshot),
            &plan(),
            now(),
            &mut SqlMemory::default(),
        )
        .await;
        assert_eq!(measured.obstacles, BTreeMap::new());
        assert_same(&listed(&measured.minutes, |_| true), &expected, &format!("{held:?}"));
        assert_eq!(measured.shadow_cost_nano, Some(mirrored), "{held:?}");
        let found: Vec<(Color, &str)> = measured.worst.iter().map(|w| (w.color, w.trace_id.as_str())).collect();
        let ids: Vec<String> = worst.iter().map(|t| t.hex()).collect();
        let known: Vec<(Color, &str)> = worst.iter().zip(&ids).map(|(t, id)| (t.color, id.as_str())).collect();
        assert_eq!(found, known, "{held:?}");
        let (first, what) = (worst[0], &measured.worst[0].what);
        assert!(first.error && what.starts_with("error, "), "{what}");
        assert_eq!(what.contains("timed out"), first.timed_out, "{what}");
        let evaluations = match failed(first) {
            0 => String::new(),
            1 => "1 failed evaluation,".to_owned(),
            n => format!("{n} failed evaluations,"),
        };
        assert!(what.contains(&evaluations), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_view_of_sessions_says_what_is_measured() {
    let told = Told::drawn(23, 1_000);
    let dir = tempfile::tempdir().unwrap();
    let snapshot = world::write(&told, dir.path(), Held::Half);
    let engine = engine(dir.path());
    let all = MeasurePlan {
        from: Nanos(START),
        ..plan()
    };
    let later = Nanos(START + 10_000 * SECOND);
    let measured = measure(&engine, view(&snapshot), &all, later, &mut SqlMemory::default()).await;
    let mut cells: Vec<[i64; 4]> = Vec::new();
    for (minute, of_minute) in measured.minutes.iter() {
        cells.extend(of_minute.iter().map(|(series, cell)| {
            let is_green = i64::from(series.color == Color::Green);
            [*minute, is_green, cell.events, cell.n]
        }));
    }
    let sql = "SELECT CAST(date_trunc('minute', start_time) AS BIGINT) / 1000000000 AS minute, CAST(color = 'green' AS BIGINT),
                      count(*) FILTER (WHERE event), count(*)
               FROM metric_session_same WHERE release = 'r''1' GROUP BY 1, 2, split ORDER BY 1, split, 2";
    let of_view: Vec<[i64; 4]> = rows(&engine, view(&snapshot), sql)
        .await
        .iter()
        .map(|row| std::array::from_fn(|i| row[i].as_i64().unwrap()))
        .collect();
    assert!(of_view.len() > 20);
    assert_eq!(of_view, cells);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_release_without_rows_measures_nothing() {
    let told = Told(Vec::new());
    let dir = tempfile::tempdir().unwrap();
    let snapshot = world::write(&told, dir.path(), Held::Live);
    let plan = MeasurePlan {
        unit: Unit::Session,
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
    assert!(measured.minutes.is_empty() && measured.obstacles.is_empty() && measured.worst.is_empty());
    assert_eq!((measured.at, measured.shadow_cost_nano), (now(), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_breaks_off_leaves_no_cells_and_says_why() {
    let told = Told::drawn(24, 3_000);
    let dir = tempfile::tempdir().unwrap();
    let snapshot = world::write(&told, dir.path(), Held::Live);
    let mut options = EngineOptions::new(dir.path());
    (options.memory_bytes, options.spill_bytes) = (60_000, 0);
    let engine = Engine::new(options).unwrap();
    let plan = MeasurePlan {
        unit: Unit::Session,
        metrics: vec![normalised("latency")],
        pairs: vec![PairPlan {
            gate: name("errors"),
            metric: normalised("error"),
            read: PairRead::Event,
            by_cohort: false,
        }],
        ..plan()
    };
    let measured = measure(&engine, view(&snapshot), &plan, now(), &mut SqlMemory::default()).await;
    assert_eq!(measured.obstacles.keys().collect::<Vec<_>>(), [EVERY_GATE, "errors"]);
    assert!(measured.obstacles["errors"].contains("raise the query memory"));
    assert!(measured.obstacles[EVERY_GATE].contains("raise the query memory"));
    assert!(measured.minutes.is_empty(), "{:?}", measured.minutes);
}
