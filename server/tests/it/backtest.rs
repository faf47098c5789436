//! `tracegate backtest` and the forecast of `tracegate check`, over an imported history of a route.

use crate::{
    kill::tracegate,
    otlp::{client, sql},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value, json};
use server::{config::Config, wall_clock, wire::App};
use std::{
    fs,
    path::Path,
    process::Output,
    time::{Duration, Instant},
};

/// Friday 2026-11-20 12:00 UTC: green begins. Blue has served for 90 minutes.
const OPENED: i64 = 1_795_176_000;
const BLUE_MINUTES: i64 = 90;
const MINUTES: i64 = 180;
const PER_MINUTE: i64 = 16;
/// Traces in one request.
const AT_A_TIME: usize = 400;

/// How green differs, and how anybody knows.
#[derive(Clone, Copy)]
struct Story {
    seed: u64,
    /// Minute from which green's answers take three times as long.
    slow_from: i64,
    /// What the spans say.
    known_by: KnownBy,
    /// Minutes of blue alone, and of both.
    minutes: (i64, i64),
}

#[derive(Clone, Copy, PartialEq)]
enum KnownBy {
    Version,
    Stamp,
    /// The model asked for, as the release's `match` says.
    Model,
}

fn text(key: &str, value: &str) -> Value {
    json!({ "key": key, "value": { "stringValue": value } })
}

fn int(key: &str, value: i64) -> Value {
    json!({ "key": key, "value": { "intValue": value.to_string() } })
}

/// One trace: a server span with an evaluation, and a model call below it.
fn trace(rng: &mut ChaCha8Rng, story: Story, at: i64, minute: i64) -> [Value; 2] {
    let is_green = minute >= 0 && rng.random::<bool>();
    let slow = if is_green && minute >= story.slow_from {
        3.0
    } else {
        1.0
    };
    let deviate: f64 = rand_distr::Distribution::sample(&rand_distr::StandardNormal, rng);
    let start = at * 1_000_000_000 + rng.random_range(0..1_000_000_000_i64);
    let end = start + (700e6 * (0.4 * deviate).exp() * slow) as i64;
    let (trace_id, id) = (format!("{:032x}", rng.random::<u128>()), rng.random::<u64>() | 1);
    let span = |n: u64| format!("{:016x}", id.wrapping_add(n << 1));
    let mut root = vec![
        text("gateway.route.name", "chat"),
        text("customer.tier", if rng.random::<bool>() { "free" } else { "pro" }),
    ];
    match story.known_by {
        KnownBy::Version => root.push(text("gateway.route.version", if is_green { "8" } else { "7" })),
        KnownBy::Stamp => root.push(text("gateway.route.color", if is_green { "green" } else { "blue" })),
        KnownBy::Model => {}
    }
    let by_model = is_green && story.known_by == KnownBy::Model;
    let model = if by_model {
        "gpt-4o-mini-2024-07-18"
    } else {
        "gpt-4o-mini"
    };
    let label = if rng.random_range(0..10) == 0 { "fail" } else { "pass" };
    let failed = rng.random_range(0..40) == 0;
    let evaluation = json!({
        "name": "gen_ai.evaluation.result", "timeUnixNano": (end + 40_000_000_000).to_string(),
        "attributes": [text("gen_ai.evaluation.name", "TaskCompletion"), text("gen_ai.evaluation.score.label", label)],
    });
    let call = [
        text("gen_ai.operation.name", "chat"),
        text("gen_ai.provider.name", "openai"),
        text("gen_ai.request.model", model),
        int("gen_ai.usage.input_tokens", rng.random_range(500..1_500)),
        int("gen_ai.usage.output_tokens", rng.random_range(50..300)),
    ];
    let retried = rng.random_range(0..30) == 0;
    let status = json!({ "code": if failed { 2 } else { 0 } });
    [
        json!({
            "traceId": trace_id, "spanId": span(0), "name": "POST /chat", "kind": 2, "status": status,
            "startTimeUnixNano": start.to_string(), "endTimeUnixNano": end.to_string(),
            "attributes": root, "events": [evaluation],
        }),
        json!({
            "traceId": trace_id, "spanId": span(1), "parentSpanId": span(0), "name": "chat gpt-4o-mini", "kind": 3,
            "startTimeUnixNano": (start + 1_000_000).to_string(), "endTimeUnixNano": (end - 1_000_000).to_string(),
            "attributes": call, "status": { "code": if retried { 2 } else { 0 } },
        }),
    ]
}

/// The history as a Collector would have written it: one request a line.
fn write(path: &Path, story: Story) {
    let mut rng = ChaCha8Rng::seed_from_u64(story.seed);
    let mut spans = Vec::new();
    for minute in -story.minutes.0..story.minutes.1 {
        for i in 0..PER_MINUTE {
            let at = OPENED + 60 * minute + i * 60 / PER_MINUTE;
            spans.extend(trace(&mut rng, story, at, minute));
        }
    }
    let lines: Vec<String> = spans
        .chunks(2 * AT_A_TIME)
        .map(|spans| {
            let scope = json!({ "scope": { "name": "it" }, "spans": spans });
            json!({ "resourceSpans": [{ "resource": { "attributes": [text("service.name", "gateway")] }, "scopeSpans": [scope] }] })
                .to_string()
        })
        .collect();
    fs::write(path, lines.join("\n")).unwrap();
}

/// A release file with the given gate on latency.
fn rules(dir: &Path, name: &str, max_ratio: f64) -> String {
    let release = include_str!("release.toml")
        .replace("max_ratio = 1.2", &format!("max_ratio = {max_ratio}"))
        .replace("chat-8", name);
    let more = "
[[release.gate]]
name = \"task completion\"
metric = \"eval_fail\"
eval = \"TaskCompletion\"
max_ratio = 3.0
by = \"cohort\"
on_fail = \"rollback\"

[[release.gate]]
name = \"errors\"
metric = \"error\"
max_increase = 0.1
on_fail = \"rollback\"

[[release.gate]]
name = \"failed calls\"
metric = \"attempt_error\"
max_increase = 0.15
on_fail = \"rollback\"

[[release.gate]]
name = \"cost per trace\"
metric = \"cost\"
max_ratio = 1.5
on_fail = \"rollback\"
";
    let file = format!("{name}.toml");
    fs::write(dir.join(&file), format!("{release}{more}")).unwrap();
    file
}

fn run(dir: &Path, args: &[&str]) -> Output {
    tracegate(dir).args(args).env("COLUMNS", "200").output().unwrap()
}

fn said(output: &Output) -> String {
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout.clone()).unwrap()
}

async fn import(dir: &Path, app: &App, story: Story) {
    write(&dir.join("history.jsonl"), story);
    let server = format!("http://{}", app.addresses.otlp_http);
    let done = run(dir, &["import", "--server", &server, "history.jsonl"]);
    said(&done);
    let all = (BLUE_MINUTES + MINUTES) * PER_MINUTE;
    let begun = Instant::now();
    while sql(&client(), app.addresses.http, "SELECT count(*) FROM traces").await != json!([[all]]) {
        assert!(begun.elapsed() < Duration::from_secs(60), "not all traces have closed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_imported_history_with_a_late_regression_is_rolled_back_and_looser_rules_are_compared() {
    let dir = tempfile::tempdir().unwrap();
    let app = App::start(Config::on_free_ports(dir.path().join("data")), wall_clock())
        .await
        .unwrap();
    let story = Story {
        seed: 1,
        slow_from: 60,
        known_by: KnownBy::Version,
        minutes: (BLUE_MINUTES, MINUTES),
    };
    import(dir.path(), &app, story).await;
    let api = format!("http://{}", app.addresses.http);
    let (strict, loose) = (rules(dir.path(), "strict", 1.3), rules(dir.path(), "loose", 8.0));
    let args = [
        "backtest",
        "--server",
        &api,
        "--release",
        &strict,
        "--against",
        &loose,
        "--peers",
        "--aa",
        "3",
        "--json",
    ];
    let answer: Value = serde_json::from_str(&said(&run(dir.path(), &args))).unwrap();
    let result = &answer["backtest"];
    eprintln!("seed {}: {}", story.seed, answer["difference"]);
    assert_eq!(result["from"], "2026-11-20T12:00:00Z");
    assert_eq!(result["verdict"], "fail", "{result}");
    assert_eq!(result["iid_assumed"], true);
    assert_eq!(result["baseline"], "blue in the 1day before the release");
    let back = &result["decisions"][0];
    assert_eq!(back["action"], "rollback", "{back}");
    assert!(back["reason"].as_str().unwrap().contains("p99 latency"), "{back}");
    let after = back["after_secs"].as_i64().unwrap();
    assert!((3_600..3_600 + 2_400).contains(&after), "{after}");
    let difference = answer["difference"].as_str().unwrap();
    assert!(
        difference.starts_with("strict.toml rolled back at 2026-11-20T13:"),
        "{difference}"
    );
    assert!(
        difference.contains("; loose.toml promoted at 2026-11-20T1"),
        "{difference}"
    );

    let aa = &answer["aa"];
    assert_eq!((&aa["splits"], &aa["rolled_back"]), (&json!(3), &json!([])), "{aa}");
    assert_eq!(aa["peers"]["Argo Rollouts style"], 3, "{aa}");
    let peers = result["peers"].as_array().unwrap();
    assert!(
        peers
            .iter()
            .any(|p| p["name"] == "Flagger style" && p["rolled_back_at"].is_string())
    );

    let forecast = said(&run(dir.path(), &["check", "--server", &api, &strict]));
    assert!(forecast.contains("16.0 traces a minute"), "{forecast}");
    assert!(forecast.contains("none of them blue"), "{forecast}");
    assert!(forecast.contains("1.6x: after about"), "{forecast}");
    // a seal that takes too long leaves the rest in the journal
    let _ = app.shutdown().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_healthy_history_is_promoted_and_counts_what_cells_count() {
    let dir = tempfile::tempdir().unwrap();
    let app = App::start(Config::on_free_ports(dir.path().join("data")), wall_clock())
        .await
        .unwrap();
    let story = Story {
        seed: 2,
        slow_from: i64::MAX,
        known_by: KnownBy::Stamp,
        minutes: (BLUE_MINUTES, MINUTES),
    };
    import(dir.path(), &app, story).await;
    let file = rules(dir.path(), "healthy", 2.5);
    let api = format!("http://{}", app.addresses.http);
    let online = said(&run(
        dir.path(),
        &["backtest", "--server", &api, "--release", &file, "--json"],
    ));
    let answer: Value = serde_json::from_str(&online).unwrap();
    let result = &answer["backtest"];
    assert_eq!(result["verdict"], "pass", "{result}");
    assert_eq!(result["decisions"][0]["action"], "promote");
    assert_eq!(result["decisions"].as_array().unwrap().len(), 1);

    let gates = result["gates"].as_array().unwrap();
    let cohorts = gates.iter().filter(|g| g["last"]["name"] == "task completion");
    let cohorts: Vec<&Value> = cohorts.map(|g| &g["last"]["cohort"]).collect();
    assert_eq!(
        cohorts,
        [&Value::Null, &json!("free"), &json!("pro")],
        "as `customer.tier` says"
    );

    // the last report of every gate against the cells that ingest filled
    let counted = OPENED + 300;
    let question = format!(
        "SELECT metric, color, CAST(sum(n) AS BIGINT), CAST(sum(events) AS BIGINT), CAST(sum(\"sum\") AS BIGINT), \
         hdr_quantile(hdr, 0.99) FROM cells WHERE admitted AND grain IN ('trace', 'attempt') AND color <> 'unmarked' \
         AND minute >= to_timestamp({counted}) \
         AND metric IN ('latency', 'cost', 'error', 'attempt_error', 'eval_fail:task_completion') GROUP BY metric, color, grain"
    );
    let cells = sql(&client(), app.addresses.http, &question).await;
    let cells = cells.as_array().unwrap();
    assert_eq!(cells.len(), 10, "{cells:?}");
    for cell in cells {
        let [n, events, sum] = [2, 3, 4].map(|i| cell[i].as_i64().unwrap());
        let p99 = cell[5].as_f64();
        let (gate, value) = match cell[0].as_str().unwrap() {
            "latency" => ("p99 latency", p99.unwrap() / 1e3),
            "cost" => ("cost per trace", sum as f64 / n as f64 / 1e9),
            "error" => ("errors", events as f64 / n as f64),
            "attempt_error" => ("failed calls", events as f64 / n as f64),
            _ => ("task completion", events as f64 / n as f64),
        };
        let report = &gates.iter().find(|g| g["last"]["name"] == gate).unwrap()["last"];
        let color = cell[1].as_str().unwrap();
        assert_eq!(report[format!("n_{color}")], n, "{gate} {color}");
        let shown = report[color].as_f64().unwrap();
        assert!((shown - value).abs() <= 1e-9 * value, "{gate} {color}: {shown} {value}");
    }
    // on a busy machine the seal goes on behind a shutdown that could not wait for it
    let _ = app.shutdown().await;
    let args = ["backtest", "--data-dir", "data", "--release", &file];
    let begun = Instant::now();
    let done = loop {
        let done = run(dir.path(), &args);
        if done.status.success() || begun.elapsed() > Duration::from_secs(60) {
            break done;
        }
        tokio::time::sleep(Duration::from_millis(250)).await;
    };
    let shown = said(&done);
    assert!(shown.contains("these rules: promoted at 2026-11-20T1"), "{shown}");
    assert!(shown.contains("iid assumed: no split was recorded"), "{shown}");
    let late = [
        "backtest",
        "--data-dir",
        "data",
        "--release",
        &file,
        "--from",
        "2026-11-20T14:59:00Z",
    ];
    let shown = said(&run(dir.path(), &late));
    assert!(shown.contains("these rules: undecided at the end"), "{shown}");
    let forecast = said(&run(dir.path(), &["check", "--data-dir", "data", &file]));
    assert!(forecast.contains("of them blue\n"), "{forecast}");
}

#[test]
fn spans_that_nobody_stamped_are_known_by_what_the_release_matches() {
    let dir = tempfile::tempdir().unwrap();
    let story = Story {
        seed: 3,
        slow_from: i64::MAX,
        known_by: KnownBy::Model,
        minutes: (20, 20),
    };
    write(&dir.path().join("history.jsonl"), story);
    said(&run(dir.path(), &["import", "--data-dir", "data", "history.jsonl"]));
    let file = rules(dir.path(), "matched", 2.5);
    let ask = || {
        let args = ["backtest", "--data-dir", "data", "--release", &file, "--json"];
        run(dir.path(), &args)
    };
    let none = String::from_utf8(ask().stderr).unwrap();
    assert!(none.contains("no green trace in this history"), "{none}");
    let path = dir.path().join(&file);
    let matched = "
[release.blue.match]
request_model = [\"gpt-4o-mini\"]

[release.green.match]
request_model = [\"gpt-4o-mini-2024-07-18\"]
";
    fs::write(&path, format!("{}{matched}", fs::read_to_string(&path).unwrap())).unwrap();
    let answer: Value = serde_json::from_str(&said(&ask())).unwrap();
    assert_eq!(
        (&answer["unmarked"], &answer["late_evaluations"]),
        (&json!(0), &json!(0))
    );
    let result = &answer["backtest"];
    assert_eq!(result["from"], "2026-11-20T12:00:00Z");
    let [blue, green] = ["n_blue", "n_green"].map(|n| result[n].as_i64().unwrap());
    assert_eq!(blue + green, 20 * PER_MINUTE, "seed {}", story.seed);
    assert!(green > 7 * PER_MINUTE && blue > 7 * PER_MINUTE, "{blue} {green}");
}

#[test]
fn what_is_missing_is_said() {
    let dir = tempfile::tempdir().unwrap();
    let file = rules(dir.path(), "healthy", 2.5);
    fs::write(dir.path().join("nothing.jsonl"), "").unwrap();
    run(dir.path(), &["import", "--data-dir", "data", "nothing.jsonl"]);
    let said = |args: &[&str]| {
        let output = run(dir.path(), args);
        assert!(!output.status.success());
        String::from_utf8(output.stderr).unwrap()
    };
    let none = said(&["backtest", "--data-dir", "data", "--release", &file]);
    assert!(none.contains("there are no traces of route `chat`"), "{none}");
    let never = ["--from", "2026-11-21T00:00:00Z", "--to", "2026-11-20T00:00:00Z"];
    let order = said(&[&["backtest", "--data-dir", "data", "--release", &file], &never[..]].concat());
    assert!(order.contains("--from is not before --to"), "{order}");
    let time = said(&["backtest", "--release", &file, "--from", "yesterday"]);
    assert!(time.contains("2026-11-20T14:00:00Z"), "{time}");
    let check = run(dir.path(), &["check", "--data-dir", "data", &file]);
    let check = String::from_utf8(check.stdout).unwrap();
    assert!(check.contains("no traffic was seen on route chat"), "{check}");
}
