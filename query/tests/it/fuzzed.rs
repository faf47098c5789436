//! SQL text from anywhere, and statements made of what is forbidden: an answer or an error in words, never a broken engine,
//! and nothing written or opened outside of the data directory.
//!
//! `FUZZ_ROUNDS` asks for more.

use crate::rows;
use query::{Bounds, Engine, EngineOptions, QueryError, View};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use std::{collections::BTreeSet, path::Path};

/// Rounds of every test here.
const ROUNDS: u64 = 600;

/// What begins a statement that is no plain read, with what may follow.
const WRITES: [&str; 22] = [
    "INSERT INTO spans VALUES (1)",
    "INSERT OVERWRITE spans SELECT * FROM spans",
    "UPDATE spans SET color = 'blue'",
    "DELETE FROM spans",
    "MERGE INTO spans USING traces ON true WHEN MATCHED THEN DELETE",
    "CREATE TABLE t AS SELECT 1",
    "CREATE OR REPLACE VIEW spans AS SELECT 1",
    "CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '{dir}/secret.csv'",
    "CREATE FUNCTION f(INT) RETURNS INT RETURN $1",
    "DROP TABLE spans",
    "DROP SCHEMA public CASCADE",
    "ALTER TABLE spans ADD COLUMN a INT",
    "TRUNCATE TABLE spans",
    "COPY spans TO '{dir}/out.csv'",
    "COPY (SELECT 1) TO '{dir}/out.parquet' STORED AS PARQUET",
    "SET datafusion.execution.batch_size = 1",
    "RESET datafusion.execution.batch_size",
    "PREPARE p AS SELECT 1",
    "EXECUTE p",
    "GRANT SELECT ON spans TO x",
    "CALL f()",
    "START TRANSACTION",
];
/// What stands around a statement; `{}` is it.
const AROUND: [&str; 14] = [
    "{}",
    "{};",
    "/* SELECT 1 */ {}",
    // without a space, which could become the end of the line
    "--SELECT*FROM/spans\n{}",
    "EXPLAIN {}",
    "EXPLAIN ANALYZE {}",
    "EXPLAIN VERBOSE {}",
    "SELECT 1; {}",
    "{}; SELECT 1",
    "WITH x AS ({}) SELECT * FROM x",
    "WITH x AS (SELECT 1), y AS ({} RETURNING *) SELECT * FROM x, y",
    "SELECT * FROM ({}) AS x",
    "SELECT (WITH x AS ({}) SELECT 1)",
    "SELECT 1 UNION ALL ({})",
];
/// Words of the language, and some that nobody expects.
const WORDS: [&str; 60] = [
    "SELECT",
    "FROM",
    "WHERE",
    "GROUP BY",
    "ORDER BY",
    "LIMIT",
    "OFFSET",
    "WITH",
    "RECURSIVE",
    "AS",
    "UNION ALL",
    "EXCEPT",
    "JOIN",
    "LEFT JOIN",
    "ON",
    "USING",
    "LATERAL",
    "UNNEST",
    "CASE",
    "WHEN",
    "THEN",
    "END",
    "CAST(",
    "AS BIGINT)",
    "OVER (",
    "PARTITION BY",
    "FILTER (WHERE",
    "EXISTS",
    "IN",
    "BETWEEN",
    "NULL",
    "NOT",
    "INTERVAL '1 day'",
    "DATE '2026-11-29'",
    "spans",
    "traces",
    "evals",
    "cells",
    "decisions",
    "information_schema.tables",
    "count(*)",
    "sum(duration_ms)",
    "attributes['k']",
    "now()",
    "$1",
    "$release",
    "*",
    "(",
    ")",
    ",",
    ".",
    "=",
    "||",
    "'a'",
    "\"b\"",
    "1",
    "-1e999",
    "9223372036854775808",
    ";",
    "\u{1f9ea}",
];

fn each_round() -> impl Iterator<Item = (ChaCha8Rng, String)> {
    let seed = rand::random::<u64>();
    eprintln!("seed {seed}");
    let rounds = std::env::var("FUZZ_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    (0..rounds).map(move |round| {
        let dice = ChaCha8Rng::seed_from_u64(seed.wrapping_add(round));
        (dice, format!("seed {seed} round {round}"))
    })
}

fn names(folder: &Path) -> BTreeSet<String> {
    let entries = std::fs::read_dir(folder).unwrap();
    entries
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect()
}

async fn asked(engine: &Engine, sql: &str) -> Result<usize, QueryError> {
    let bounds = Bounds {
        rows: 1_000,
        bytes: 1 << 20,
    };
    let answer = engine.run(View::default(), sql).await?;
    Ok(answer.collect(bounds).await?.rows())
}

/// The engine's own word for a panic.
fn broke_off(error: &QueryError) -> bool {
    error.to_string().contains("broke off")
}

#[tokio::test]
async fn what_writes_is_refused_wherever_it_stands() {
    let (data, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    std::fs::write(other.path().join("secret.csv"), "a\ntop-secret\n").unwrap();
    let engine = Engine::new(EngineOptions::new(data.path())).unwrap();
    for (mut dice, what) in each_round() {
        let mut sql = (*WRITES.choose(&mut dice).unwrap()).to_owned();
        for _ in 0..dice.random_range(1..=3) {
            sql = AROUND.choose(&mut dice).unwrap().replace("{}", &sql);
        }
        let sql = sql.replace("{dir}", other.path().to_str().unwrap());
        let sql = respelled(&sql, &mut dice);
        let refused = match asked(&engine, &sql).await {
            Ok(rows) => panic!("{what}: {sql}: gave {rows} rows"),
            Err(refused) => refused,
        };
        assert!(
            matches!(refused, QueryError::Forbidden(_) | QueryError::Invalid(_)),
            "{what}: {sql}: {refused:?}"
        );
        assert!(!refused.to_string().contains("top-secret"), "{what}: {sql}");
    }
    assert_eq!(names(other.path()), BTreeSet::from(["secret.csv".to_owned()]));
    assert_eq!(
        rows(&engine, View::default(), "SELECT count(*) FROM spans").await,
        [[0]]
    );
}

/// Other space and other case outside of quotes: to a parser the same.
fn respelled(sql: &str, dice: &mut ChaCha8Rng) -> String {
    let mut quoted = false;
    let mut out = String::new();
    for letter in sql.chars() {
        quoted ^= letter == '\'';
        match letter {
            ' ' if !quoted && dice.random_bool(0.3) => {
                out.push_str([" ", "\t", "\n", "\r\n", " /* */ "].choose(dice).unwrap());
            }
            letter if !quoted && dice.random_bool(0.3) => out.extend(letter.to_lowercase()),
            letter => out.push(letter),
        }
    }
    out
}

#[tokio::test]
async fn text_from_anywhere_is_answered_or_refused_in_words() {
    let data = tempfile::tempdir().unwrap();
    let engine = Engine::new(EngineOptions::new(data.path())).unwrap();
    let mut answered = 0;
    for (mut dice, what) in each_round() {
        let sql = match dice.random_range(0..3) {
            0 => words(&mut dice),
            1 => format!("SELECT {}", words(&mut dice)),
            _ => changed(&mut dice),
        };
        match asked(&engine, &sql).await {
            Ok(_) => answered += 1,
            Err(error) => assert!(!broke_off(&error), "{what}: {sql}"),
        }
    }
    assert!(answered > 0);
    assert_eq!(
        rows(&engine, View::default(), "SELECT count(*) FROM spans").await,
        [[0]]
    );
}

fn words(dice: &mut ChaCha8Rng) -> String {
    let words: Vec<&str> = (0..dice.random_range(0..14))
        .map(|_| *WORDS.choose(dice).unwrap())
        .collect();
    words.join(" ")
}

/// A good statement with a piece taken out, doubled, or put elsewhere.
fn changed(dice: &mut ChaCha8Rng) -> String {
    let good = [
        "SELECT color, count(*) AS n FROM spans WHERE start_time > now() - INTERVAL '1 day' GROUP BY color ORDER BY n DESC LIMIT 5",
        "WITH x AS (SELECT trace_id, max(duration_ms) OVER (PARTITION BY route) AS m FROM spans) SELECT x.m FROM x JOIN traces USING (trace_id)",
        "SELECT CASE WHEN error THEN 1 ELSE 0 END, CAST(cost_usd AS DOUBLE) / nullif(calls, 0) FROM traces WHERE route IN ('a', 'b')",
    ];
    let mut words: Vec<&str> = good.choose(dice).unwrap().split(' ').collect();
    for _ in 0..dice.random_range(1..=3) {
        let (at, from) = (dice.random_range(0..words.len()), dice.random_range(0..words.len()));
        match dice.random_range(0..4) {
            0 if words.len() > 1 => drop(words.remove(at)),
            1 => words.insert(at, words[from]),
            2 => words.swap(at, from),
            _ => words[at] = WORDS.choose(dice).unwrap(),
        }
    }
    words.join(" ")
}
