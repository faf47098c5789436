//! Models without a price, from the span to the page of metrics and to `tracegate prices`; answers against a schema.

use crate::{
    kill::tracegate,
    otlp::{client, eventually},
};
use ingest::read::AnswerSchemas;
use serde_json::{Value, json};
use server::{config::Config, wall_clock, wire::App};
use std::{
    path::Path,
    process::Output,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

fn run(dir: &Path, args: &[&str]) -> (bool, String, String) {
    let Output { status, stdout, stderr } = tracegate(dir).args(args).env("COLUMNS", "140").output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.success(), text(stdout), text(stderr))
}

/// A call of a model that nobody sells, answered with `answer`.
fn call(n: u32, model: &str, answer: &str) -> Value {
    let end = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let text = |key: &str, value: &str| json!({"key": key, "value": {"stringValue": value}});
    json!({"resourceSpans": [{"scopeSpans": [{"spans": [{
        "traceId": format!("{:032x}", n + 1), "spanId": format!("{:016x}", n + 1), "name": "chat",
        "startTimeUnixNano": (end - 1_000_000).to_string(), "endTimeUnixNano": end.to_string(),
        "attributes": [
            text("gen_ai.operation.name", "chat"),
            text("gen_ai.provider.name", "openai"),
            text("gen_ai.request.model", model),
            text("gateway.route.name", "chat"),
            text("gen_ai.completion.0.content", answer),
            {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "1000"}},
            {"key": "gen_ai.usage.output_tokens", "value": {"intValue": "100"}},
            {"key": "gen_ai.usage.cost", "value": {"doubleValue": 0.25}},
        ],
    }]}]}]})
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_without_a_price_is_counted_listed_and_given_one() {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::on_free_ports(dir.path().join("data"));
    let mut schemas = AnswerSchemas::default();
    schemas.declare("chat", r#"{"type": "object"}"#).unwrap();
    config.read.schemas = Arc::new(schemas);
    let app = App::start(config, wall_clock()).await.unwrap();
    let (client, at) = (client(), app.addresses);
    for (n, model, answer) in [(0, "house", "{}"), (1, "house", "no"), (2, "gpt-4o-mini", "{}")] {
        let url = format!("http://{}/v1/traces", at.otlp_http);
        let sent = client.post(url).json(&call(n, model, answer)).send().await.unwrap();
        assert!(sent.status().is_success());
    }
    let question = "SELECT request_model, json_checks, cost_usd FROM spans ORDER BY trace_id";
    let expected = json!([
        ["house", "chat=ok", null],
        ["house", "chat=invalid", null],
        ["gpt-4o-mini", "chat=ok", 0.00021]
    ]);
    eventually(&client, at.http, question, expected, Duration::from_secs(5)).await;
    let page = client
        .get(format!("http://{}/metrics", at.http))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    let line = "tracegate_unpriced_calls_total{model=\"house\"} 2";
    assert!(page.lines().any(|l| l == line), "{page}");
    assert!(!page.contains("gpt-4o-mini"), "{page}");

    let server = format!("http://{}", at.http);
    let (ok, listed, err) = run(dir.path(), &["prices", "unpriced", "--server", &server]);
    assert!(ok, "{err}");
    let row: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert_eq!(row, ["openai", "house", "2", "2000", "200", "0.500"], "{listed}");
    app.shutdown().await.unwrap();
    let (_, offline, _) = run(dir.path(), &["prices", "unpriced", "--data-dir", "data"]);
    assert_eq!(offline, listed);
}

#[test]
fn a_price_that_was_added_is_listed_and_the_file_is_good() {
    let dir = tempfile::tempdir().unwrap();
    let add = |more: &[&str]| {
        run(
            dir.path(),
            &[&["prices", "add", "openai/house", "--input", "0.15"], more].concat(),
        )
    };
    let (ok, said, err) = add(&["--output", "0.6", "--cache-read", "0.0125", "--request", "0.005"]);
    assert!(ok && said.contains("added to tracegate.toml"), "{said}{err}");
    let text = std::fs::read_to_string(dir.path().join("tracegate.toml")).unwrap();
    assert_eq!(
        text,
        "[prices.provider.openai]\nhouse = { input = 150, output = 600, cache_read = 12.5, request = 5000000 }\n"
    );
    let (ok, listed, _) = run(dir.path(), &["prices", "house"]);
    let row: Vec<&str> = listed.lines().nth(1).unwrap().split_whitespace().collect();
    assert!(ok, "{listed}");
    assert_eq!(
        row,
        [
            "openai", "house", "0.15", "0.6", "0.0125", "0.15", "0.6", "0.005", "added"
        ]
    );
    let (ok, said, _) = add(&["--output", "0.7"]);
    assert!(ok && said.contains("replaced in"), "{said}");
    assert!(run(dir.path(), &["check", "tracegate.toml"]).0);
    let (_, _, _) = run(
        dir.path(),
        &["prices", "add", "openai/gpt-4o-mini", "--input", "1", "--output", "2"],
    );
    let (_, listed, _) = run(dir.path(), &["prices", "gpt-4o-mini"]);
    assert_eq!(listed.matches("overridden").count(), 1, "{listed}");
}

#[test]
fn nonsense_is_refused_and_the_file_stays_as_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tracegate.toml");
    std::fs::write(&file, "# mine\n").unwrap();
    for (name, args) in [
        ("no_slash", vec!["house", "--input", "1", "--output", "1"]),
        ("negative", vec!["openai/house", "--input", "-1", "--output", "1"]),
        ("nan", vec!["openai/house", "--input", "1", "--output", "nan"]),
        ("dear", vec!["openai/house", "--input", "1", "--output", "1e7"]),
        ("no_output", vec!["openai/house", "--input", "1"]),
        (
            "no_file",
            vec![
                "openai/house",
                "--input",
                "1",
                "--output",
                "1",
                "--config",
                "nowhere.toml",
            ],
        ),
    ] {
        let (ok, out, err) = run(dir.path(), &[vec!["prices", "add"], args].concat());
        assert!(!ok && out.is_empty(), "{name}");
        insta::assert_snapshot!(format!("prices_add_{name}"), err);
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "# mine\n", "{name}");
    }
    std::fs::write(&file, "[prices]\nprovider = 7\n").unwrap();
    let (ok, _, err) = run(
        dir.path(),
        &["prices", "add", "openai/house", "--input", "1", "--output", "1"],
    );
    assert!(!ok && err.contains("`provider` is not a"), "{err}");
    assert_eq!(
        std::fs::read_dir(dir.path()).unwrap().count(),
        1,
        "nothing is left beside it"
    );
}

#[test]
fn both_have_help_with_an_example() {
    let dir = tempfile::tempdir().unwrap();
    for command in ["add", "unpriced"] {
        let (ok, help, _) = run(dir.path(), &["prices", command, "--help"]);
        assert!(ok && help.contains("Example"), "{help}");
        insta::assert_snapshot!(format!("help_prices_{command}"), help);
    }
}
