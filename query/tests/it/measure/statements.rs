//! Paths that were seen, and the statements of evidence.

use super::story::{Call, CallKind, Told, Trace};
use crate::{
    engine, rows, view,
    world::{self, Held, SECOND, START, World},
};
use proto::{
    Cell, CellKey, CellTable, Color, Grain, Metric, Nanos,
    cell::{Scope, Series},
    layout::Table,
    measure::SeenPath,
};
use query::measure::{PATHS_MAX, seen};
use std::{collections::BTreeMap, sync::Arc};
use store::Snapshot;

/// More spans than there are.
const ALL: u64 = u64::MAX;

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_those_of_calls_that_served_somebody() {
    let told = Told::drawn(31, 800);
    let since = START + 300 * SECOND;
    // Version, tools: traces, first, last.
    type Path = (Option<String>, Option<String>);
    let mut expected: BTreeMap<Path, (i64, i64, i64)> = BTreeMap::new();
    for trace in &told.0 {
        // Calls of a mirrored trace reached nobody; those of judges are no path of the route.
        let own = trace
            .calls
            .iter()
            .filter(|call| call.kind == CallKind::Own && !trace.shadow);
        let starts: Vec<i64> = own.map(|call| call.start).filter(|start| *start >= since).collect();
        let (Some(first), Some(last)) = (starts.iter().min(), starts.iter().max()) else {
            continue;
        };
        let version = trace.color.is_marked().then(|| trace.color.as_str().to_owned());
        let tools = (trace.n % 2 == 0).then(|| "tools@7".to_owned());
        let path = expected.entry((version, tools)).or_insert((0, i64::MAX, 0));
        *path = (path.0 + 1, path.1.min(*first), path.2.max(*last));
    }
    assert_eq!(expected.len(), 6);
    for held in Held::ALL {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = world::write(&told, dir.path(), held);
        let paths = seen(&engine(dir.path()), view(&snapshot), Nanos(since), ALL)
            .await
            .unwrap();
        assert!(paths.windows(2).all(|two| two[0].traces >= two[1].traces));
        assert_eq!(paths.len(), expected.len(), "{held:?}");
        for path in paths {
            let (traces, first, last) = expected[&(path.version.clone(), path.tools.clone())];
            let known = SeenPath {
                route: "chat".to_owned(),
                version: path.version.clone(),
                provider: Some("openai".to_owned()),
                model: Some("m".to_owned()),
                tools: path.tools.clone(),
                traces,
                first_seen: Nanos(first),
                last_seen: Nanos(last),
                ..SeenPath::default()
            };
            assert_eq!(path, known, "{held:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_many_spans_a_share_of_the_traces_tells_the_paths() {
    let told = Told::drawn(32, 4_000);
    let dir = tempfile::tempdir().unwrap();
    let snapshot = world::write(&told, dir.path(), Held::Half);
    let all = seen(&engine(dir.path()), view(&snapshot), Nanos(START), ALL)
        .await
        .unwrap();
    let rows = snapshot
        .files
        .iter()
        .filter(|f| f.table == Table::Spans)
        .map(|f| f.rows);
    let rows = rows.sum::<u64>() + snapshot.spans.iter().map(|b| b.rows.num_rows() as u64).sum::<u64>();
    // One digit: every sixteenth trace.
    let some = seen(&engine(dir.path()), view(&snapshot), Nanos(START), rows / 16)
        .await
        .unwrap();
    // Ids are numbers here, and what a path says hangs on them: even ones have tools.
    let is_known = |path: &SeenPath| {
        all.iter()
            .any(|p| (&p.version, &p.tools) == (&path.version, &path.tools))
    };
    assert!(!some.is_empty() && some.iter().all(is_known));
    let total = |paths: &[SeenPath]| paths.iter().map(|path| path.traces).sum::<i64>();
    assert!(some.iter().all(|path| path.traces % 16 == 0));
    let (some, all) = (total(&some), total(&all));
    assert!((all / 2..all * 2).contains(&some), "{some} of {all}");
}

#[tokio::test(flavor = "multi_thread")]
async fn paths_are_bounded_and_those_with_most_traces_stay() {
    let call = Call {
        us: 1_000,
        ..Call::default()
    };
    let trace = |n: usize, version: usize| Trace {
        n,
        start: START,
        us: 1_000,
        version: Some(format!("v{version:04}")),
        calls: vec![Call {
            id: n as u64,
            start: START,
            ..call.clone()
        }],
        ..Trace::default()
    };
    // The last version serves twice.
    let versions = PATHS_MAX + 10;
    let mut told = Told((1..=versions).map(|n| trace(n, n)).collect());
    told.0.push(trace(versions + 2, versions));
    let dir = tempfile::tempdir().unwrap();
    let snapshot = world::write(&told, dir.path(), Held::Live);
    let paths = seen(&engine(dir.path()), view(&snapshot), Nanos(START), ALL)
        .await
        .unwrap();
    assert_eq!(paths.len(), PATHS_MAX);
    assert_eq!(
        (paths[0].version.as_deref(), paths[0].traces),
        (Some(&*format!("v{versions:04}")), 2)
    );
    assert_eq!(paths[1].version.as_deref(), Some("v0001"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_prompt_is_its_name_and_version() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = World { traces: 60 }.write(dir.path(), Held::Half);
    let paths = seen(&engine(dir.path()), view(&snapshot), Nanos(START), ALL)
        .await
        .unwrap();
    let mut prompts: Vec<&str> = paths.iter().filter_map(|path| path.prompt.as_deref()).collect();
    prompts.sort_unstable();
    prompts.dedup();
    assert_eq!(prompts, ["support@12", "support@13"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn calls_by_the_second_are_no_metric_to_show() {
    let mut cells = CellTable::default();
    for (metric, grain) in [
        (Metric::AttemptSeconds, Grain::Attempt),
        (Metric::AttemptError, Grain::Attempt),
    ] {
        let key = CellKey {
            scope: Scope {
                route: "chat".into(),
                release: Some("r1".into()),
            },
            minute: START / SECOND,
            series: Series {
                metric,
                grain,
                cohort: None,
                split_ppm: None,
                color: Color::Blue,
                admitted: true,
            },
        };
        cells.apply(&key, &Cell::unit(true), 1);
    }
    let snapshot = Arc::new(Snapshot {
        cells,
        ..Snapshot::default()
    });
    let dir = tempfile::tempdir().unwrap();
    let shown = rows(
        &engine(dir.path()),
        view(&snapshot),
        "SELECT metric FROM release_compare('r1')",
    )
    .await;
    assert_eq!(shown, [["attempt_error"]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_only_a_mirror_saw_is_no_traffic() {
    let told = Told::drawn(33, 500);
    let dir = tempfile::tempdir().unwrap();
    let snapshot = world::write(&told, dir.path(), Held::Patched);
    let served = told.0.iter().filter(|t| !t.shadow).count();
    assert!(served < told.0.len());
    let engine = engine(dir.path());
    for sql in [
        "SELECT sum(n) FROM latency_p99",
        "SELECT sum(n) FROM token_cost_per_trace",
        "SELECT sum(n) FROM route_health",
        "SELECT sum(traces) FROM user_impact",
    ] {
        assert_eq!(rows(&engine, view(&snapshot), sql).await, [[served]], "{sql}");
    }
}
