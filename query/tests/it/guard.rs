//! Nothing but one read-only statement gets through, and nothing reads or writes a file of its choice.

use crate::{error, rows};
use query::{Engine, EngineOptions, QueryError, View};

/// `{dir}` is a folder outside the data directory that holds `secret.csv`, `secret.parquet` and `secret.json`.
const FORBIDDEN: &[&str] = &[
    "",
    ";",
    "-- only a comment",
    "SELECT 1; SELECT 2",
    "SELECT 1; DROP TABLE spans",
    "CREATE TABLE t (a INT)",
    "CREATE TABLE t AS SELECT * FROM spans",
    "CREATE TEMPORARY TABLE t AS SELECT 1",
    "CREATE OR REPLACE TABLE spans AS SELECT 1",
    "CREATE VIEW v AS SELECT * FROM spans",
    "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{dir}/secret.csv'",
    "CREATE EXTERNAL TABLE t STORED AS PARQUET LOCATION '{dir}/secret.parquet'",
    "CREATE UNBOUNDED EXTERNAL TABLE t (a INT) STORED AS CSV LOCATION '{dir}/out'",
    "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION 'http://127.0.0.1:1/x.csv'",
    "CREATE SCHEMA s",
    "CREATE DATABASE d",
    "CREATE INDEX i ON spans (trace_id)",
    "CREATE FUNCTION f(INT) RETURNS INT RETURN $1 + 1",
    "DROP TABLE spans",
    "DROP TABLE IF EXISTS nothing",
    "DROP VIEW latency_p99",
    "DROP SCHEMA public CASCADE",
    "DROP FUNCTION upper",
    "ALTER TABLE spans ADD COLUMN a INT",
    "TRUNCATE TABLE spans",
    "INSERT INTO spans SELECT * FROM spans",
    "INSERT INTO spans VALUES (1)",
    "INSERT OVERWRITE spans SELECT * FROM spans",
    "UPDATE spans SET color = 'blue'",
    "DELETE FROM spans",
    "MERGE INTO spans USING traces ON true WHEN MATCHED THEN DELETE",
    "COPY spans TO '{dir}/out.csv'",
    "COPY (SELECT 1) TO '{dir}/out.parquet' STORED AS PARQUET",
    "COPY spans FROM '{dir}/secret.csv'",
    "SET datafusion.execution.batch_size = 1",
    "SET datafusion.catalog.location = '{dir}'",
    "RESET datafusion.execution.batch_size",
    "SET TIME ZONE 'UTC'",
    "BEGIN",
    "START TRANSACTION",
    "COMMIT",
    "ROLLBACK",
    "SAVEPOINT a",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "DEALLOCATE p",
    "GRANT SELECT ON spans TO x",
    "CALL f()",
    "USE public",
    "KILL 1",
    "ANALYZE TABLE spans COMPUTE STATISTICS",
    "LOAD DATA INPATH '{dir}/secret.csv' INTO TABLE spans",
    "ATTACH DATABASE '{dir}/x.db' AS x",
    "EXPLAIN CREATE TABLE t (a INT)",
    "EXPLAIN ANALYZE INSERT INTO spans SELECT * FROM spans",
    "EXPLAIN COPY spans TO '{dir}/out.csv'",
    "EXPLAIN ANALYZE COPY (SELECT 1) TO '{dir}/out.csv'",
    "WITH x AS (INSERT INTO spans VALUES (1) RETURNING *) SELECT * FROM x",
    "WITH x AS (DELETE FROM spans RETURNING *) SELECT * FROM x",
    "SELECT * INTO t FROM spans",
    "SELECT * FROM spans FOR UPDATE",
    "SELECT * FROM '{dir}/secret.csv'",
    "SELECT * FROM '{dir}/secret.parquet'",
    "SELECT * FROM \"{dir}/secret.json\"",
    "SELECT * FROM 'file://{dir}/secret.csv'",
    "SELECT * FROM 'sealed://data/spans'",
    "SELECT * FROM '/etc/passwd'",
    "SELECT * FROM '../../etc/passwd'",
    "SELECT * FROM read_csv('{dir}/secret.csv')",
    "SELECT * FROM read_parquet('{dir}/secret.parquet')",
    "SELECT * FROM parquet_metadata('{dir}/secret.parquet')",
    "SELECT * FROM glob('{dir}/*')",
    "SELECT pg_read_file('{dir}/secret.csv')",
    "SELECT (SELECT count(*) FROM '{dir}/secret.csv')",
    "SELECT * FROM spans WHERE trace_id IN (SELECT a FROM '{dir}/secret.csv')",
    "WITH x AS (SELECT * FROM '{dir}/secret.csv') SELECT * FROM x",
    "SELECT * FROM nosuch.public.spans",
    "SELECT repeat('x', 2000000000)",
];

const ALLOWED: &[&str] = &[
    "SELECT 1",
    "SELECT 1;",
    "/* who */ SELECT 1 -- why",
    "VALUES (1)",
    "WITH x AS (SELECT 1 AS a) SELECT a FROM x UNION ALL SELECT 2",
    "SELECT * FROM spans LIMIT 0",
    "SELECT * FROM tracegate.public.spans LIMIT 0",
    "EXPLAIN SELECT * FROM spans",
    "EXPLAIN ANALYZE SELECT count(*) FROM spans",
    "EXPLAIN FORMAT TREE SELECT * FROM spans",
    "DESCRIBE spans",
    "DESC latency_p99",
    "SHOW TABLES",
    "SHOW COLUMNS FROM spans",
    "SELECT table_name FROM information_schema.tables",
];

fn outside() -> (tempfile::TempDir, tempfile::TempDir, Engine) {
    let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["secret.csv", "secret.json", "secret.parquet"] {
        std::fs::write(other.path().join(name), "a\ntop-secret\n").unwrap();
    }
    let engine = Engine::new(EngineOptions::new(data.path())).unwrap();
    (data, other, engine)
}

#[tokio::test]
async fn what_is_not_one_read_is_refused() {
    let (_data, other, engine) = outside();
    assert!(FORBIDDEN.len() >= 40);
    for sql in FORBIDDEN {
        let sql = sql.replace("{dir}", other.path().to_str().unwrap());
        let refused = error(&engine, View::default(), &sql).await;
        assert!(
            matches!(refused, QueryError::Forbidden(_) | QueryError::Invalid(_)),
            "{sql}: {refused:?}"
        );
        assert!(!refused.to_string().contains("top-secret"), "{sql}: {refused}");
    }
    let mut left: Vec<_> = std::fs::read_dir(other.path())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    assert_eq!(left, ["secret.csv", "secret.json", "secret.parquet"]);
    assert_eq!(
        rows(&engine, View::default(), "SELECT count(*) FROM spans").await,
        [[0]]
    );
}

#[tokio::test]
async fn plain_reads_pass() {
    let (_data, _other, engine) = outside();
    for sql in ALLOWED {
        rows(&engine, View::default(), sql).await;
    }
}

#[tokio::test]
async fn hostile_text_is_an_error_and_never_a_panic() {
    let (_data, _other, engine) = outside();
    let deep = format!("SELECT {}1{}", "(".repeat(10_000), ")".repeat(10_000));
    let wide = format!("SELECT {}", "1+".repeat(200_000));
    let just = format!("SELECT {}1", "1+".repeat(100_000));
    let ors = format!("SELECT 1 WHERE {} true", "true OR ".repeat(25_000));
    let unions = format!("SELECT 1 {}", "UNION ALL SELECT 1 ".repeat(10_000));
    let cases = format!(
        "SELECT {} 1 {}",
        "CASE WHEN true THEN ".repeat(5_000),
        "END ".repeat(5_000)
    );
    let not = format!("SELECT {} true", "NOT ".repeat(20_000));
    for sql in [
        &*deep,
        &*wide,
        &*not,
        "SELECT '",
        "SELECT \"",
        "\0",
        "SELECT \u{202e}",
        "(",
        "WITH",
    ] {
        error(&engine, View::default(), sql).await;
    }
    for sql in [just, ors, unions, cases] {
        let refused = error(&engine, View::default(), &sql).await;
        assert!(
            matches!(refused, QueryError::TooLong { .. } | QueryError::Invalid(_)),
            "{refused}"
        );
    }
    // As deep as allowed: an answer or an error, but no crash.
    for sql in [
        format!("SELECT {}1", "1+".repeat(998)),
        format!("SELECT * FROM spans WHERE {} false", "duration_ms = 1 OR ".repeat(330)),
        format!("SELECT * FROM spans WHERE {} true", "route <> 'x' AND ".repeat(330)),
        format!("SELECT 'a' {}", "|| color".repeat(990)),
        format!("SELECT 1 {}", "UNION ALL SELECT 1 ".repeat(330)),
        format!("SELECT {} 1 {}", "CASE WHEN true THEN ".repeat(40), "END ".repeat(40)),
        format!("SELECT * FROM spans WHERE trace_id IN ({}'')", "'a',".repeat(50_000)),
    ] {
        let _ = engine.run(View::default(), &sql).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_window_over_more_columns_than_can_be_planned_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let engine = Engine::new(EngineOptions::new(dir.path())).unwrap();
    let window = |columns: &str| {
        format!("SELECT * FROM (SELECT count(*) OVER (PARTITION BY {columns}) AS n FROM spans) WHERE n > 0")
    };
    let six = "route, version, release, cohort, name, kind";
    assert!(rows(&engine, View::default(), &window(six)).await.is_empty());
    let eight = format!("{six}, scope, agent");
    let refused = error(&engine, View::default(), &window(&eight)).await;
    assert!(
        matches!(&refused, QueryError::Invalid(why) if why.contains("8 columns") && why.contains("concat_ws")),
        "{refused}"
    );
}
