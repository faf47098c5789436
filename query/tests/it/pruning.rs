//! Files that cannot hold a match are not opened; the proof is that they are gone.

use crate::{
    engine, rows, view,
    world::{Held, World},
};
use proto::{Color, layout::Table};
use std::{fs, sync::Arc};
use store::{Mark, Patch};

#[tokio::test(flavor = "multi_thread")]
async fn a_filter_on_color_or_time_opens_only_files_that_may_match() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = World { traces: 60 }.write(dir.path(), Held::Sealed);
    let engine = engine(dir.path());
    let count = async |sql: &str| rows(&engine, view(&snapshot), sql).await[0][0].as_i64().unwrap();
    let green = count("SELECT count(*) FROM spans WHERE color = 'green'").await;
    // Two spans of every green trace, and the second record of every twinned call.
    assert_eq!(green, 40 + 15);
    for file in snapshot.files.iter() {
        if file.table == Table::Spans && file.color != Some(Color::Green) {
            fs::remove_file(dir.path().join(&file.path)).unwrap();
        }
    }
    for sql in [
        "SELECT count(*) FROM spans WHERE color = 'green'",
        "SELECT count(*) FROM spans WHERE color = 'green' AND duration_ms > 0",
        "SELECT count(*) FROM spans WHERE 'green' = color AND route IS NOT NULL",
        "SELECT count(*) FROM spans WHERE color IN ('green')",
        "SELECT count(*) FROM spans WHERE color NOT IN ('blue', 'unmarked')",
        "SELECT count(*) FROM spans WHERE upper(route) <> 'X' AND color = 'green'",
    ] {
        assert_eq!(count(sql).await, green, "{sql}");
    }
    for sql in [
        "SELECT count(*) FROM spans WHERE start_time > TIMESTAMP '2026-11-21T00:00:00Z'",
        "SELECT count(*) FROM spans WHERE start_time < '2026-11-20T13:59:59Z'",
        "SELECT count(*) FROM spans WHERE start_time > to_timestamp('2026-11-21T00:00:00Z')",
        "SELECT count(*) FROM spans WHERE start_time > now() + INTERVAL '1000000 hours'",
        "SELECT count(*) FROM spans WHERE color IS NULL",
    ] {
        assert_eq!(count(sql).await, 0, "{sql}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_file_of_unmarked_rows_is_opened_for_another_color_once_patched() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = World { traces: 60 }.write(dir.path(), Held::Patched);
    let sealed = snapshot.files.iter().filter(|f| f.table == Table::Spans);
    assert!(sealed.clone().any(|f| f.color == Some(Color::Unmarked)));
    let engine = engine(dir.path());
    let sql = "SELECT count(*) FROM spans WHERE color = 'green' AND release = 'r1' AND role = 'call'";
    assert_eq!(rows(&engine, view(&snapshot), sql).await, [[20]]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_mark_of_a_span_may_change_is_not_filtered_below_it() {
    let filters = [
        "role = 'call'",
        "role = 'other'",
        "prompt_tokens > 100",
        "completion_tokens IS NOT NULL",
        "cost_usd = 0.000000007 OR ttft_ms = 1.5",
        "response_model = 'm-2026-01-01'",
        "response_model = 'm'",
        "repeats_span_id IS NULL",
        "repeats_span_id = '0000000000000003'",
        "version = '43' AND color = 'green'",
        "price_version IS NULL AND emitter_cost_usd IS NULL AND role <> 'call'",
    ];
    let mut expected: Vec<Vec<Vec<serde_json::Value>>> = Vec::new();
    for held in Held::ALL {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = World { traces: 60 }.write(dir.path(), held);
        let engine = engine(dir.path());
        for (i, filter) in filters.iter().enumerate() {
            let sql = format!("SELECT span_id FROM spans WHERE {filter} ORDER BY span_id");
            let rows = rows(&engine, view(&snapshot), &sql).await;
            assert!(!rows.is_empty(), "{held:?} {filter}");
            match expected.get(i) {
                None => expected.push(rows),
                Some(expected) => assert_eq!(expected, &rows, "{held:?} {filter}"),
            }
        }
    }
    assert_eq!((expected[0].len(), expected[1].len(), expected[8].len()), (60, 15, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn files_without_marks_of_spans_are_read_as_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = World { traces: 60 }.write(dir.path(), Held::Patched);
    let sql = "SELECT sum(prompt_tokens) FROM spans WHERE role = 'call'";
    let engine = engine(dir.path());
    assert!(plan(&engine, view(&snapshot), sql).await.contains("OverlayExec"));
    let mut plain = (*snapshot).clone();
    let patches: Vec<_> = snapshot
        .patches
        .iter()
        .map(|(id, patch)| (*id, patch.clone()))
        .collect();
    plain.patches.push(patches.into_iter().map(|(id, patch)| {
        let mark = Mark {
            spans: None,
            ..(*patch.mark).clone()
        };
        (
            id,
            Patch {
                mark: Arc::new(mark),
                ..patch
            },
        )
    }));
    let plan = plan(&engine, view(&Arc::new(plain)), sql).await;
    assert!(!plan.contains("OverlayExec"), "{plan}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_quarantined_file_is_an_error_with_its_name() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = World { traces: 20 }.write(dir.path(), Held::Sealed);
    let file = snapshot.files.iter().find(|f| f.table == Table::Spans).unwrap();
    fs::remove_file(dir.path().join(&file.path)).unwrap();
    let engine = engine(dir.path());
    let failed = crate::error(&engine, view(&snapshot), "SELECT count(duration_ms) FROM spans").await;
    assert!(failed.to_string().contains(".parquet"), "{failed}");
    assert!(!failed.is_callers());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_that_fails_on_a_damaged_file_says_which_it_may_have_been() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = World { traces: 20 }.write(dir.path(), Held::Sealed);
    let engine = engine(dir.path());
    let suspects = engine.suspects();
    let sql = "SELECT count(DISTINCT name), sum(duration_ms), max(span_id), max(start_time) FROM spans";
    rows(&engine, view(&snapshot), sql).await;
    crate::error(&engine, view(&snapshot), "SELECT 1 / 0 FROM cells").await;
    assert!(suspects.borrow().is_empty(), "no file is behind these");
    let file = snapshot.files.iter().find(|f| f.table == Table::Spans).unwrap();
    let path = dir.path().join(&file.path);
    let mut bytes = fs::read(&path).unwrap();
    let middle = 4..bytes.len() / 2;
    bytes[middle].fill(0xa5);
    fs::write(&path, bytes).unwrap();
    crate::error(&engine, view(&snapshot), sql).await;
    let named = suspects.borrow().clone();
    assert!(named.contains(&file.path), "{named:?}");
    assert!(named.iter().all(|path| path.starts_with("spans/")), "only what it read");
}

/// The physical plan of `sql`.
async fn plan(engine: &query::Engine, view: query::View, sql: &str) -> String {
    let explained = rows(engine, view, &format!("EXPLAIN FORMAT INDENT {sql}")).await;
    explained.last().unwrap()[1].as_str().unwrap().to_owned()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_parquet_reader_filters_where_rows_are_final() {
    let dir = tempfile::tempdir().unwrap();
    let snapshot = World { traces: 60 }.write(dir.path(), Held::Sealed);
    let sql = "SELECT span_id FROM spans WHERE color = 'green' AND duration_ms > 110";
    let sealed = plan(&engine(dir.path()), view(&snapshot), sql).await;
    assert!(!sealed.contains("FilterExec"), "{sealed}");
    assert!(
        sealed.contains("predicate=color@12 = green AND duration_ms@5 > 110"),
        "{sealed}"
    );
    let dir = tempfile::tempdir().unwrap();
    let snapshot = World { traces: 60 }.write(dir.path(), Held::Half);
    let mixed = plan(&engine(dir.path()), view(&snapshot), sql).await;
    let overlaid = mixed.split("OverlayExec").nth(1).unwrap();
    assert!(overlaid.contains("predicate=duration_ms@5 > 110"), "{mixed}");
    assert!(!overlaid.contains("color@12 ="), "{mixed}");
}
