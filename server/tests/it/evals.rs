//! `POST /api/v1/evals` and `/api/v1/feedback` over a real socket.

use crate::otlp::{client, eventually, export, sql, trace};
use serde_json::{Value, json};
use server::{config::Config, wall_clock, wire::App};
use std::{net::SocketAddr, path::Path, time::Duration};

/// Hex id of [`trace`] `n`.
fn id(n: u64) -> String {
    format!("{:032x}", u128::from(n) + (1 << 100))
}

async fn start(dir: &Path) -> App {
    App::start(Config::on_free_ports(dir.join("data")), wall_clock())
        .await
        .unwrap()
}

async fn post(api: SocketAddr, path: &str, body: &Value) -> (u16, Value) {
    let sent = client().post(format!("http://{api}/api/v1/{path}")).json(body).send();
    let answer = sent.await.unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn evaluations_and_feedback_are_rows_of_their_trace_and_survive_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let app = start(dir.path()).await;
    let (client, at) = (client(), app.addresses);
    assert!(export(&client, at.otlp_http, trace(1, "green")).await);
    let evals = json!([
        { "trace_id": id(1), "name": "TaskCompletion", "score": 0.25, "passed": false, "time": "2026-11-20T14:00:00Z",
          "identifier": "judge-2", "explanation": "asked twice" },
        { "trace_id": id(1).to_uppercase(), "span_id": "0000000000000003", "name": "groundedness", "label": "pass" },
    ]);
    assert_eq!(post(at.http, "evals", &evals).await, (200, json!({ "accepted": 2 })));
    // The very same request again is no second evaluation.
    assert_eq!(post(at.http, "evals", &evals).await.0, 200);
    let thumb = json!({ "trace_id": id(1), "name": "thumbs_down" });
    assert_eq!(post(at.http, "feedback", &thumb).await, (200, json!({ "accepted": 1 })));
    let question = "SELECT name, source, passed, score, label, identifier, explanation, color FROM evals ORDER BY name";
    let expected = json!([
        ["groundedness", "api", true, null, "pass", null, null, "green"],
        [
            "task_completion",
            "api",
            false,
            0.25,
            null,
            "judge-2",
            "asked twice",
            "green"
        ],
        ["thumbs_down", "feedback", false, null, null, null, null, "green"],
    ]);
    eventually(&client, at.http, question, expected.clone(), Duration::from_secs(10)).await;
    let at_14 = "SELECT count(*) FROM evals WHERE time = '2026-11-20T14:00:00Z'";
    assert_eq!(sql(&client, at.http, at_14).await, json!([[1]]));
    // As a kill: nothing is sealed.
    drop(app);
    let app = restarted(dir.path()).await;
    eventually(&client, app.addresses.http, question, expected, Duration::from_secs(10)).await;
    app.shutdown().await.unwrap();
}

/// Starts again as soon as what was dropped has let go of the directory.
async fn restarted(dir: &Path) -> App {
    loop {
        match App::start(Config::on_free_ports(dir.join("data")), wall_clock()).await {
            Ok(app) => return app,
            Err(error) => assert!(error.to_string().contains("another"), "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_request_with_one_wrong_entry_brings_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let app = start(dir.path()).await;
    let at = app.addresses;
    let good = json!({ "trace_id": id(1), "name": "a", "passed": true });
    let wrong = json!({ "trace_id": id(1), "name": "a", "sore": 0.5 });
    let (status, said) = post(at.http, "evals", &json!([good, wrong])).await;
    let said = said["error"].as_str().unwrap();
    assert!(
        status == 400 && said.starts_with("entry 1") && said.contains("unknown field `sore`"),
        "{status} {said}"
    );
    let (status, said) = post(at.http, "feedback", &good).await;
    assert!(
        status == 400 && said["error"].as_str().unwrap().contains("thumbs_down"),
        "{status} {said}"
    );
    let huge = json!([{ "trace_id": id(1), "name": "a", "explanation": "x".repeat(2 << 20) }]);
    assert_eq!(post(at.http, "evals", &huge).await.0, 413);
    let client = client();
    let get = client
        .get(format!("http://{}/api/v1/evals", at.http))
        .send()
        .await
        .unwrap();
    assert_eq!(get.status(), 405);
    assert_eq!(post(at.http, "evals", &good).await.0, 200);
    eventually(
        &client,
        at.http,
        "SELECT count(*) FROM evals",
        json!([[1]]),
        Duration::from_secs(10),
    )
    .await;
    app.shutdown().await.unwrap();
}
