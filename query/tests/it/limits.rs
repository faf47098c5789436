//! Time, memory, turns and size: every limit is an answer with a name.

use crate::{error, rows};
use query::{Bounds, Engine, EngineOptions, QueryError, View};
use std::time::{Duration, Instant};

const ENDLESS: &str = "SELECT count(*) FROM generate_series(1, 1000000000) a, generate_series(1, 1000000000) b";
const LONG: &str = "SELECT * FROM generate_series(1, 1000000000)";

fn limited(change: impl FnOnce(&mut EngineOptions)) -> (tempfile::TempDir, Engine) {
    let dir = tempfile::tempdir().unwrap();
    let mut options = EngineOptions::new(dir.path());
    change(&mut options);
    let engine = Engine::new(options).unwrap();
    (dir, engine)
}

#[tokio::test]
async fn a_query_stops_at_its_deadline() {
    let limit = Duration::from_millis(200);
    let (_dir, engine) = limited(|o| o.timeout = limit);
    let start = Instant::now();
    assert_eq!(
        error(&engine, View::default(), ENDLESS).await,
        QueryError::Timeout(limit)
    );
    assert!(start.elapsed() < Duration::from_millis(1_500), "{:?}", start.elapsed());
    // Also when rows are already flowing.
    assert!(matches!(
        engine
            .run(View::default(), LONG)
            .await
            .unwrap()
            .collect(Bounds {
                rows: usize::MAX,
                bytes: usize::MAX
            })
            .await,
        Err(QueryError::Timeout(_))
    ));
}

#[tokio::test]
async fn dropping_the_answer_stops_the_query_and_frees_its_turn() {
    let (_dir, engine) = limited(|o| {
        o.concurrent_max = 1;
        o.queue_wait = Duration::from_millis(1_000);
    });
    let answer = engine.run(View::default(), LONG).await.unwrap();
    let busy = engine.run(View::default(), "SELECT 1").await.unwrap_err();
    assert_eq!(busy, QueryError::Busy(1));
    assert!(busy.is_retryable());
    drop(answer);
    assert_eq!(rows(&engine, View::default(), "SELECT 1").await, [[1]]);
}

#[tokio::test]
async fn a_query_nobody_waits_for_any_more_stops() {
    let (_dir, engine) = limited(|o| o.concurrent_max = 1);
    let gone = tokio::time::timeout(Duration::from_millis(100), engine.run(View::default(), ENDLESS)).await;
    assert!(gone.is_err());
    let start = Instant::now();
    assert_eq!(rows(&engine, View::default(), "SELECT 1").await, [[1]]);
    assert!(start.elapsed() < Duration::from_secs(1));
}

#[tokio::test]
async fn memory_and_spill_are_bounded() {
    let (_dir, engine) = limited(|o| {
        o.memory_bytes = 4 << 20;
        o.spill_bytes = 1 << 20;
    });
    let sql =
        "SELECT value AS v, count(*) AS n FROM generate_series(1, 2000000) GROUP BY value ORDER BY n, v LIMIT 1000000";
    let refused = error(&engine, View::default(), sql).await;
    assert!(matches!(refused, QueryError::Memory(_)), "{refused}");
    assert_eq!(rows(&engine, View::default(), "SELECT 1").await, [[1]]);
}

#[tokio::test]
async fn an_answer_too_large_to_hold_is_refused() {
    let (_dir, engine) = limited(|_| ());
    let answer = engine.run(View::default(), LONG).await.unwrap();
    let bounds = Bounds {
        rows: 10_000,
        bytes: 1 << 20,
    };
    assert_eq!(
        answer.collect(bounds).await.unwrap_err(),
        QueryError::TooLarge {
            limit: 10_000,
            unit: "rows"
        }
    );
}

#[tokio::test]
async fn errors_say_what_to_do() {
    let (_dir, engine) = limited(|_| ());
    let said = async |sql: &str| error(&engine, View::default(), sql).await.to_string();
    let column = said("SELECT trace_idd FROM spans").await;
    assert!(column.contains("trace_idd") && column.contains("trace_id"), "{column}");
    let table = said("SELECT * FROM span").await;
    assert!(table.contains("span") && table.contains("SHOW TABLES"), "{table}");
    let syntax = said("SELEKT 1").await;
    assert!(syntax.contains("cannot parse") && syntax.contains("SELEKT"), "{syntax}");
    let function = said("SELECT hdr_quantil(hdr, 0.9) FROM cells").await;
    assert!(function.contains("hdr_quantile"), "{function}");
    let metric = said("SELECT * FROM worst_traces('r', 'beauty')").await;
    assert!(metric.contains("latency"), "{metric}");
    let share = said("SELECT hdr_quantile(hdr, 2) FROM cells").await;
    assert!(share.contains("from 0 to 1"), "{share}");
    let value = error(&engine, View::default(), "SELECT CAST('x' AS INT)").await;
    assert!(value.is_callers(), "{value}");
    for text in [column, table, syntax, function, metric, share] {
        assert!(text.lines().count() == 1 && text.len() < 4_000, "{text}");
    }
}
