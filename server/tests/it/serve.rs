//! The instance in this process: `App::start` on free ports.

use crate::otlp::{client, eventually, export, sql, trace};
use serde_json::{Value, json};
use server::{config::Config, wall_clock, wire::App};
use std::{path::Path, time::Duration};

async fn start(dir: &Path) -> App {
    App::start(Config::on_free_ports(dir.join("data")), wall_clock())
        .await
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_span_is_in_sql_within_a_second_with_color_tokens_and_cost() {
    let dir = tempfile::tempdir().unwrap();
    let app = start(dir.path()).await;
    let (client, at) = (client(), app.addresses);
    assert!(export(&client, at.otlp_http, trace(1, "green")).await);
    let question =
        "SELECT role, route, color, version, request_model, prompt_tokens, cost_usd FROM spans WHERE role = 'call'";
    let expected = json!([["call", "chat", "green", "7", "gpt-4o-mini", 1000, 0.00021]]);
    eventually(&client, at.http, question, expected, Duration::from_secs(1)).await;
    app.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_sealed_at_shutdown_is_there_again_and_readable_without_a_server() {
    let dir = tempfile::tempdir().unwrap();
    let app = start(dir.path()).await;
    let client = client();
    for n in 0..20 {
        assert!(
            export(
                &client,
                app.addresses.otlp_http,
                trace(n, if n % 2 == 0 { "blue" } else { "green" })
            )
            .await
        );
    }
    app.shutdown().await.unwrap();
    let green = dir.path().join("data/spans/color=green");
    assert!(green.is_dir(), "sealed by color");
    let app = start(dir.path()).await;
    let rows = sql(
        &client,
        app.addresses.http,
        "SELECT color, count(*) FROM spans GROUP BY color ORDER BY color",
    )
    .await;
    assert_eq!(rows, json!([["blue", 20], ["green", 20]]));
    app.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn sql_answers_in_the_format_asked_for_and_errors_in_one_form() {
    let dir = tempfile::tempdir().unwrap();
    let app = start(dir.path()).await;
    let (client, url) = (client(), format!("http://{}/api/v1/sql", app.addresses.http));
    let ask = |accept: &'static str, sql: &str| {
        client
            .post(&url)
            .header("accept", accept)
            .json(&json!({ "sql": sql }))
            .send()
    };
    let csv = ask("text/csv", "SELECT 1 AS one, 'a' AS letter").await.unwrap();
    assert!(csv.headers()["content-type"].to_str().unwrap().starts_with("text/csv"));
    assert_eq!(csv.text().await.unwrap().replace("\r\n", "\n"), "one,letter\n1,a\n");
    let table = ask("text/plain", "SELECT 1 AS one")
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(table.contains("one"), "{table}");
    let arrow = ask("application/vnd.apache.arrow.stream", "SELECT 1 AS one")
        .await
        .unwrap()
        .bytes()
        .await
        .unwrap();
    let mut batches = arrow::ipc::reader::StreamReader::try_new(&arrow[..], None).unwrap();
    assert_eq!(batches.next().unwrap().unwrap().num_rows(), 1);
    for (sql, status, says) in [
        ("SELECT nothing FROM spans", 400, "nothing"),
        ("DROP TABLE spans", 403, "read-only"),
        ("SELEC 1", 400, "SELEC"),
    ] {
        let answer = ask("application/json", sql).await.unwrap();
        assert_eq!(answer.status(), status, "{sql}");
        let error: Value = answer.json().await.unwrap();
        assert!(error["error"].as_str().unwrap().contains(says), "{sql}: {error}");
    }
    let answer = client.post(&url).body("SELECT 1").send().await.unwrap();
    assert_eq!(answer.status(), 400);
    app.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_name_that_resolves_here_is_not_enough_to_be_answered() {
    let dir = tempfile::tempdir().unwrap();
    let app = start(dir.path()).await;
    let (client, url) = (client(), format!("http://{}/readyz", app.addresses.http));
    assert_eq!(client.get(&url).send().await.unwrap().status(), 200);
    assert_eq!(
        client
            .get(&url)
            .header("host", "rebound.example")
            .send()
            .await
            .unwrap()
            .status(),
        421
    );
    assert_eq!(
        client
            .get(&url)
            .header("origin", "https://rebound.example")
            .send()
            .await
            .unwrap()
            .status(),
        403
    );
    app.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn metrics_count_what_came() {
    let dir = tempfile::tempdir().unwrap();
    let app = start(dir.path()).await;
    let client = client();
    let body = trace(1, "blue");
    for _ in 0..2 {
        assert!(export(&client, app.addresses.otlp_http, body.clone()).await);
    }
    assert!(!export(&client, app.addresses.otlp_http, b"no protobuf".to_vec()).await);
    let page = client
        .get(format!("http://{}/metrics", app.addresses.http))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    for line in [
        "tracegate_accepted_total 2",
        "tracegate_requests_duplicate_total 1",
        "tracegate_requests_refused_total{cause=\"malformed\"} 1",
        "tracegate_journal_records_total 1",
        "# EOF",
    ] {
        assert!(page.lines().any(|l| l == line), "{line} is not in\n{page}");
    }
    app.shutdown().await.unwrap();
}
