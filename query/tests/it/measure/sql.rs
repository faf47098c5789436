//! SQL gates: counts at moments of a grid, kept true while the past changes, and every way to get a statement wrong.

use super::{
    name, plan,
    story::{Told, Trace},
};
use crate::{
    view,
    world::{self, Held, SECOND, START},
};
use proto::{
    Cell, Color, Grain, Metric, Nanos,
    cell::Series,
    measure::{MeasurePlan, Measured, SqlPlan},
};
use query::{
    Engine, EngineOptions,
    measure::{SqlMemory, measure},
};
use rand::RngExt;
use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};
use store::Snapshot;

/// Failed traces, counted from their start on.
const FAILURES: &str = "SELECT
  count(*) FILTER (WHERE assigned_color = 'blue' AND error) AS blue_events,
  count(*) FILTER (WHERE assigned_color = 'blue') AS blue_n,
  count(*) FILTER (WHERE assigned_color = 'green' AND error) AS green_events,
  count(*) FILTER (WHERE assigned_color = 'green') AS green_n
FROM traces WHERE release = $release AND start_time < $admitted_before";
const MINUTE: i64 = 60 * SECOND;
/// Time between start and admission in these tests.
const WAIT: i64 = 70 * SECOND;

fn asking(sql: &str) -> MeasurePlan {
    MeasurePlan {
        from: Nanos(START),
        sql: vec![SqlPlan {
            gate: name("refunds"),
            sql: sql.to_owned(),
        }],
        ..plan()
    }
}

/// A trace a second, every third failed, colors in turn.
fn steady(seconds: i64) -> Vec<Trace> {
    (0..seconds)
        .map(|s| Trace {
            n: s as usize + 1,
            start: START + s * SECOND + 1,
            us: 1_000,
            color: [Color::Blue, Color::Green][s as usize % 2],
            release: Some("r'1"),
            error: s % 3 == 0,
            ..Trace::default()
        })
        .collect()
}

/// An instance whose rows may be replaced.
struct Desk {
    dir: tempfile::TempDir,
    engine: Engine,
    memory: SqlMemory,
}

impl Desk {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        Self {
            engine: engine(dir.path(), Duration::from_secs(30)),
            memory: SqlMemory::default(),
            dir,
        }
    }

    fn rows(&self, traces: &[Trace], held: Held) -> Arc<Snapshot> {
        let _ = std::fs::remove_dir_all(self.dir.path().join("journal"));
        let _ = std::fs::remove_dir_all(self.dir.path().join("commits"));
        world::write(&Told(traces.to_vec()), self.dir.path(), held)
    }

    /// Measures at a moment, s after the start.
    async fn ask(&mut self, snapshot: &Arc<Snapshot>, plan: &MeasurePlan, at: i64) -> Measured {
        let now = Nanos(START + at * SECOND);
        measure(&self.engine, view(snapshot), plan, now, &mut self.memory).await
    }

    /// Measures until nothing is left to catch up; the last answer and how many it took.
    async fn settle(&mut self, snapshot: &Arc<Snapshot>, plan: &MeasurePlan, at: i64) -> (Measured, usize) {
        for calls in 1..200 {
            let measured = self.ask(snapshot, plan, at).await;
            let follows = |why: &String| why.contains("read again") || why.contains("the rest follows");
            if !measured.obstacles.values().any(follows) {
                return (measured, calls);
            }
        }
        panic!("it never settles");
    }
}

fn engine(dir: &Path, timeout: Duration) -> Engine {
    let mut options = EngineOptions::new(dir);
    options.memory_bytes = 256 << 20;
    options.timeout = timeout;
    Engine::new(options).unwrap()
}

type Counted = BTreeMap<(i64, Option<u32>, Color), (i64, i64)>;

/// Events and units by minute (from the start), split and color.
fn counted(measured: &Measured) -> Counted {
    let mut out = Counted::new();
    for (minute, cells) in measured.minutes.iter() {
        for (series, cell) in cells.iter() {
            let expected = Series {
                metric: Metric::Sql(name("refunds")),
                grain: Grain::Trace,
                cohort: None,
                split_ppm: series.split_ppm,
                color: series.color,
                admitted: true,
            };
            assert_eq!(*series, expected);
            let of_rate = Cell {
                n: cell.n,
                events: cell.events,
                ..Cell::default()
            };
            assert_eq!(**cell, of_rate);
            out.insert(
                (minute / 60 - START / MINUTE, series.split_ppm, series.color),
                (cell.events, cell.n),
            );
        }
    }
    out
}

/// The same counted by a loop; `moments` cut the time, `split` says what is in force.
fn looped(traces: &[Trace], moments: &[i64], split: impl Fn(i64) -> Option<u32>) -> Counted {
    let mut out = Counted::new();
    for stretch in moments.windows(2) {
        let inside = traces.iter().filter(|t| (stretch[0]..stretch[1]).contains(&t.start));
        for trace in inside {
            let minute = (stretch[0] - START).div_euclid(MINUTE);
            let cell = out.entry((minute, split(stretch[0]), trace.color)).or_default();
            *cell = (cell.0 + i64::from(trace.error), cell.1 + 1);
        }
    }
    out
}

fn minutes(upto: i64) -> Vec<i64> {
    (0..=upto).map(|k| START + k * MINUTE).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn counts_of_minutes_are_those_of_a_loop_wherever_rows_lie() {
    let traces = steady(900);
    let plan = asking(FAILURES);
    for held in Held::ALL {
        let mut desk = Desk::new();
        let snapshot = desk.rows(&traces, held);
        // 8 minutes and 30 s are admitted: 8 minutes are whole.
        let measured = desk.ask(&snapshot, &plan, 8 * 60 + 30 + WAIT / SECOND).await;
        assert_eq!(measured.obstacles, BTreeMap::new());
        assert_eq!(counted(&measured), looped(&traces, &minutes(8), |_| None), "{held:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_of_the_split_is_a_moment_and_unknown_splits_stay_unknown() {
    let traces = steady(600);
    let [first, gone, second] = [0, 130, 200].map(|s| Nanos(START + s * SECOND));
    let plan = MeasurePlan {
        splits: vec![(first, Some(50_000)), (gone, None), (second, Some(250_000))],
        ..asking(FAILURES)
    };
    let mut desk = Desk::new();
    let snapshot = desk.rows(&traces, Held::Half);
    let measured = desk.ask(&snapshot, &plan, 300 + WAIT / SECOND).await;
    let mut moments = minutes(5);
    moments.extend([gone.0, second.0]);
    moments.sort_unstable();
    let split = |at: i64| match at {
        at if at < gone.0 => Some(50_000),
        at if at < second.0 => None,
        _ => Some(250_000),
    };
    assert_eq!(counted(&measured), looped(&traces, &moments, split));
    assert!(counted(&measured).contains_key(&(2, Some(50_000), Color::Blue)));
    assert!(counted(&measured).contains_key(&(2, None, Color::Blue)));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_before_the_first_moment_is_not_counted() {
    let traces = steady(400);
    let plan = MeasurePlan {
        from: Nanos(START + 2 * MINUTE),
        ..asking(FAILURES)
    };
    let mut desk = Desk::new();
    let snapshot = desk.rows(&traces, Held::Live);
    let measured = desk.ask(&snapshot, &plan, 240 + WAIT / SECOND).await;
    assert_eq!(counted(&measured), looped(&traces, &minutes(4)[2..], |_| None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_long_past_is_caught_up_over_several_calls_on_a_grid_that_thins_out() {
    let traces: Vec<Trace> = steady(700)
        .into_iter()
        .map(|t| Trace {
            start: START + (t.start - START) * 60,
            ..t
        })
        .collect();
    let mut desk = Desk::new();
    let snapshot = desk.rows(&traces, Held::Live);
    let plan = asking(FAILURES);
    let at = 600 * 60 + WAIT / SECOND;
    let first = desk.ask(&snapshot, &plan, at).await;
    assert!(
        first.obstacles["refunds"].contains("64 of 518 moments"),
        "{:?}",
        first.obstacles
    );
    assert_eq!(counted(&first), looped(&traces, &minutes(63), |_| None), "a beginning");
    let (measured, calls) = desk.settle(&snapshot, &plan, at).await;
    assert_eq!(measured.obstacles, BTreeMap::new());
    assert_eq!(calls, 8, "63 more each, one statement to look back");
    let mut moments = minutes(512);
    moments.extend((1..=5).map(|i| START + (512 + 16 * i) * MINUTE));
    assert_eq!(counted(&measured), looped(&traces, &moments, |_| None));
}

#[tokio::test(flavor = "multi_thread")]
async fn short_minutes_are_not_asked_about_one_by_one() {
    let traces = steady(120);
    let plan = MeasurePlan {
        minute_secs: 1,
        admitted_after_secs: 3,
        ..asking(FAILURES)
    };
    let mut desk = Desk::new();
    let snapshot = desk.rows(&traces, Held::Live);
    let measured = desk.ask(&snapshot, &plan, 67).await;
    assert_eq!(measured.obstacles, BTreeMap::new());
    let starts: Vec<i64> = measured.minutes.keys().map(|minute| minute - START / SECOND).collect();
    assert_eq!(starts, [0, 10, 20, 30, 40, 50]);
}

#[tokio::test(flavor = "multi_thread")]
async fn late_data_change_the_minute_and_the_split_that_they_belong_to() {
    let traces = steady(1_200);
    let plan = MeasurePlan {
        splits: vec![(Nanos(START), Some(50_000)), (Nanos(START + 6 * MINUTE), Some(500_000))],
        ..asking(FAILURES)
    };
    let split = |at: i64| Some(if at < START + 6 * MINUTE { 50_000 } else { 500_000 });
    let mut desk = Desk::new();
    let before = desk.rows(&traces, Held::Live);
    let (measured, _) = desk.settle(&before, &plan, 600 + WAIT / SECOND).await;
    assert_eq!(counted(&measured), looped(&traces, &minutes(10), split));

    // A trace of the third minute turns out failed, one of the fifth never was, and the eighth gets one more.
    let mut changed = traces.clone();
    changed[2 * 60 + 1].error = true;
    changed[4 * 60].error = false;
    changed.push(Trace {
        n: 5_000,
        start: START + 7 * MINUTE + 5,
        error: true,
        color: Color::Green,
        ..traces[0].clone()
    });
    assert!(!traces[2 * 60 + 1].error && traces[4 * 60].error);
    let after = desk.rows(&changed, Held::Live);
    // Nothing new to count: the past is not looked at.
    let same = desk.ask(&after, &plan, 600 + WAIT / SECOND).await;
    assert_eq!(counted(&same), looped(&traces, &minutes(10), split));
    let (measured, calls) = desk.settle(&after, &plan, 660 + WAIT / SECOND).await;
    assert_eq!(measured.obstacles, BTreeMap::new());
    assert_eq!(counted(&measured), looped(&changed, &minutes(11), split));
    assert_eq!(calls, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn any_late_traces_and_failures_end_where_a_loop_ends() {
    for seed in [41, 42, 43] {
        let mut rng = super::story::rng(seed);
        let mut traces: Vec<Trace> = Vec::new();
        let changes = [120, 400, 430, 900].map(|s| Nanos(START + s * SECOND));
        let plan = MeasurePlan {
            splits: changes
                .iter()
                .zip([Some(1), None, Some(2), Some(3)])
                .map(|(at, ppm)| (*at, ppm))
                .collect(),
            ..asking(FAILURES)
        };
        let split = |at: i64| {
            let before = plan.splits.iter().rev().find(|(since, _)| since.0 <= at);
            before.and_then(|(_, split)| *split)
        };
        let mut desk = Desk::new();
        for step in 1..=8 {
            let admitted = step * 150 + rng.random_range(0..60);
            for trace in &mut traces {
                trace.error |= rng.random_bool(0.02);
            }
            for _ in 0..rng.random_range(20..80) {
                traces.push(Trace {
                    n: traces.len() + 1,
                    start: START + rng.random_range(-60 * SECOND..admitted * SECOND),
                    color: [Color::Blue, Color::Green][rng.random_range(0..2)],
                    release: Some("r'1"),
                    error: rng.random_bool(0.2),
                    ..Trace::default()
                });
            }
            let snapshot = desk.rows(&traces, Held::Live);
            let (measured, _) = desk.settle(&snapshot, &plan, admitted + WAIT / SECOND).await;
            assert_eq!(measured.obstacles, BTreeMap::new(), "seed {seed}, step {step}");
            let mut moments = minutes(admitted / 60);
            moments.extend(
                changes
                    .iter()
                    .map(|at| at.0)
                    .filter(|at| *at <= START + admitted * SECOND),
            );
            moments.sort_unstable();
            moments.dedup();
            assert_eq!(
                counted(&measured),
                looped(&traces, &moments, split),
                "seed {seed}, step {step}"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_past_that_changed_everywhere_is_read_again_over_several_calls() {
    let traces = steady(9_000);
    let plan = asking(FAILURES);
    let mut desk = Desk::new();
    let at = 140 * 60 + WAIT / SECOND;
    let before = desk.rows(&traces, Held::Live);
    desk.settle(&before, &plan, at).await;
    let changed: Vec<Trace> = traces
        .iter()
        .map(|t| Trace {
            error: t.error || t.n % 50 == 2,
            ..t.clone()
        })
        .collect();
    let after = desk.rows(&changed, Held::Live);
    let first = desk.ask(&after, &plan, at + 60).await;
    assert!(
        first.obstacles["refunds"].contains("being read again"),
        "{:?}",
        first.obstacles
    );
    let (measured, calls) = desk.settle(&after, &plan, at + 60).await;
    assert_eq!(measured.obstacles, BTreeMap::new());
    assert_eq!(counted(&measured), looped(&changed, &minutes(141), |_| None));
    assert!(calls > 1, "{calls}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_that_does_not_count_cumulatively_is_told_so_and_may_be_mended() {
    // Only the last two minutes: counts rise and fall.
    let window = format!("{FAILURES} AND start_time >= $admitted_before - INTERVAL '2 minutes'");
    let traces = steady(250);
    let mut desk = Desk::new();
    let snapshot = desk.rows(&traces, Held::Half);
    let measured = desk.ask(&snapshot, &asking(&window), 420 + WAIT / SECOND).await;
    let why = &measured.obstacles["refunds"];
    assert!(
        why.starts_with("counts fell: blue_events fell from 20 to 12 between") && why.contains("cumulatively"),
        "{why}"
    );
    let mended = desk.ask(&snapshot, &asking(FAILURES), 420 + WAIT / SECOND).await;
    assert_eq!(mended.obstacles, BTreeMap::new());
    assert_eq!(counted(&mended), looped(&traces, &minutes(7), |_| None));
}

#[tokio::test(flavor = "multi_thread")]
async fn values_are_bound_and_never_become_sql() {
    let hostile = [
        "r'1",
        "x' OR '1'='1",
        "'; DROP TABLE traces; --",
        "$admitted_before",
        "\\' OR 1=1 --",
        "\"release\"",
        "x\0y",
        "${release}",
        "ünï 🟢 '' ",
    ];
    let traces: Vec<Trace> = steady(180)
        .into_iter()
        .map(|t| Trace {
            release: Some(hostile[t.n % hostile.len()]),
            ..t
        })
        .collect();
    for release in hostile {
        let mut desk = Desk::new();
        let snapshot = desk.rows(&traces, Held::Half);
        // In comments and in quotes a parameter is text; as an argument of a table function it is a value.
        let sql = format!(
            "{FAILURES} -- not $this\n AND name_is_not('$that') AND $release IS NOT NULL
             AND (SELECT count(*) FROM worst_traces($release)) >= 0"
        )
        .replace("name_is_not('$that')", "'$that' <> '$release'");
        let plan = MeasurePlan {
            release: release.into(),
            ..asking(&sql)
        };
        let measured = desk.ask(&snapshot, &plan, 180 + WAIT / SECOND).await;
        assert_eq!(measured.obstacles, BTreeMap::new(), "{release}");
        let own: Vec<Trace> = traces.iter().filter(|t| t.release == Some(release)).cloned().collect();
        assert_eq!(counted(&measured), looped(&own, &minutes(3), |_| None), "{release}");
    }
}

/// A statement, and what the obstacle says. `{}` is a condition that uses both parameters.
const WRONG: &[(&str, &str)] = &[
    (
        "SELECT 0 AS a, 1 AS b, 2 AS c, 3 AS d WHERE $release <> ''",
        "does not use $admitted_before",
    ),
    (
        "SELECT 0 AS a, 1 AS b, 2 AS c, 3 AS d WHERE $admitted_before IS NOT NULL",
        "does not use $release",
    ),
    (
        "SELECT 0, 1, 2, $other WHERE {}",
        "$other has no value; use $release and $admitted_before",
    ),
    ("SELECT $1, 1, 2, 3 WHERE {}", "$1 has no value"),
    ("DROP TABLE traces", "not allowed"),
    ("INSERT INTO traces SELECT * FROM traces WHERE {}", "not allowed"),
    ("COPY (SELECT 1 WHERE {}) TO 'x.csv'", "not allowed"),
    ("SELECT 1; SELECT 2", "2 statements"),
    ("SELECT * FROM 'secret.csv' WHERE {}", "could not be run"),
    ("SELEC 1", "could not be run"),
    ("SELECT 0, 1, 2, 3 FROM nothing_here WHERE {}", "not found"),
    ("SELECT 0, 1, 2 WHERE {}", "gives 3 columns"),
    ("SELECT 0, 1, 2, 3, 4 WHERE {}", "gives 5 columns"),
    ("SELECT 0, 0 WHERE {}", "unique expression names"),
    (
        "SELECT 0, 2, 3, 4 FROM traces WHERE false AND {}",
        "not one row but none",
    ),
    ("SELECT 1, 2, 3, 4 FROM traces WHERE {}", "not one row but several"),
    ("SELECT 3, 2, 0, 1 WHERE {}", "3 blue_events of blue_n = 2"),
    ("SELECT 0, 2, 1, -1 WHERE {}", "counts are not negative"),
    ("SELECT 0, 2, -2, 1 WHERE {}", "counts are not negative"),
    ("SELECT 0, 2, NULL, 1 WHERE {}", "green_events is NULL; use count(*)"),
    (
        "SELECT sum(calls) FILTER (WHERE false), 2, 0, 1 FROM traces WHERE {}",
        "blue_events is NULL",
    ),
    (
        "SELECT 0, 2, 'three', 1 WHERE {}",
        "green_events is Utf8, not an integer",
    ),
    ("SELECT 0, 2.5, 1, 3 WHERE {}", "blue_n is Float64, not an integer"),
    (
        "SELECT 0, 2, true, 1 WHERE {}",
        "green_events is Boolean, not an integer",
    ),
    (
        "SELECT 0, 18446744073709551615, 1, 2 WHERE {}",
        "blue_n is no 64-bit integer",
    ),
    ("SELECT count(*), count(*) / 0, 0, 1 FROM traces WHERE {}", "ivide"),
    ("EXPLAIN SELECT 1 WHERE {}", "not one row but several"),
];

#[tokio::test(flavor = "multi_thread")]
async fn every_mistake_is_an_obstacle_that_says_what_to_do() {
    let mut desk = Desk::new();
    let snapshot = desk.rows(&steady(60), Held::Live);
    for (sql, why) in WRONG {
        let sql = sql.replace("{}", "$release <> '' AND $admitted_before IS NOT NULL");
        let measured = desk.ask(&snapshot, &asking(&sql), 60 + WAIT / SECOND).await;
        let said = measured
            .obstacles
            .get("refunds")
            .unwrap_or_else(|| panic!("{sql}: no obstacle"));
        assert!(said.contains(why), "{sql}: {said}");
        assert!(measured.minutes.is_empty(), "{sql}");
    }
    assert!(!Path::new("x.csv").exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_statement_ends_and_says_so() {
    let mut desk = Desk::new();
    desk.engine = engine(desk.dir.path(), Duration::from_millis(300));
    let snapshot = desk.rows(&steady(60), Held::Live);
    let slow = "SELECT count(*) AS a, count(*) AS b, 0 AS c, 0 AS d FROM traces a, traces b, traces c, traces d, traces e, traces f
                WHERE a.release = $release AND b.start_time < $admitted_before AND a.calls + f.calls <> 7";
    let measured = desk.ask(&snapshot, &asking(slow), 60 + WAIT / SECOND).await;
    let why = &measured.obstacles["refunds"];
    assert!(why.contains("stopped after 0.3 s"), "{why}");
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_known_by_name_else_by_order_and_gates_do_not_mix() {
    let traces = steady(120);
    let mut desk = Desk::new();
    let snapshot = desk.rows(&traces, Held::Live);
    let by_order = "SELECT 0 AS a, 0 AS b, 0 AS c, count(*) FROM traces WHERE release = $release AND start_time < $admitted_before";
    let by_name = "SELECT count(*) AS green_n, 0 AS green_events, 0 AS blue_n, 0 AS blue_events, 'x' AS note
                   FROM traces WHERE release = $release AND start_time < $admitted_before";
    let gate = |gate: &str, sql: &str| SqlPlan {
        gate: name(gate),
        sql: sql.to_owned(),
    };
    let plan = MeasurePlan {
        sql: vec![gate("a", by_order), gate("b", by_name), gate("c", "SELECT")],
        ..asking("")
    };
    let measured = desk.ask(&snapshot, &plan, 120 + WAIT / SECOND).await;
    assert_eq!(measured.obstacles.keys().collect::<Vec<_>>(), ["c"]);
    for gate in ["a", "b"] {
        let metric = Metric::Sql(name(gate));
        let cells = measured.minutes.values().flat_map(|cells| cells.iter());
        let n: Vec<i64> = cells
            .filter(|(series, _)| series.metric == metric && series.color == Color::Green)
            .map(|(_, cell)| cell.n)
            .collect();
        assert_eq!(n, [60, 60], "{gate}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_example_of_the_docs_counts() {
    let docs = include_str!("../../../../docs/metrics.md");
    let (_, sql) = docs.split_once("sql = \"\"\"").unwrap();
    let (sql, _) = sql.split_once("\"\"\"").unwrap();
    let mut desk = Desk::new();
    let traces = steady(180);
    let snapshot = desk.rows(&traces, Held::Half);
    let measured = desk.ask(&snapshot, &asking(sql), 180 + WAIT / SECOND).await;
    assert_eq!(measured.obstacles, BTreeMap::new());
    let none_refunded: Vec<Trace> = traces.into_iter().map(|t| Trace { error: false, ..t }).collect();
    assert_eq!(counted(&measured), looped(&none_refunded, &minutes(3), |_| None));
}
