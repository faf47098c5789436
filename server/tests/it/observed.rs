//! A newcomer's own traffic, compared without any file: two versions on one route open an observed release, and
//! `tracegate init` turns it into a file that passes the check.

use crate::{
    kill::tracegate,
    otlp::{client, eventually},
};
use serde_json::{Value, json};
use server::{config::Config, wall_clock, wire::App};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// One request of `n` traces of a version, that started `ago` before now.
fn traces(first: u64, n: u64, model: &str, ago: Duration) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let start = (now - ago).as_nanos();
    let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let int = |key: &str, value: u64| json!({ "key": key, "value": { "intValue": value } });
    let spans: Vec<Value> = (first..first + n)
        .map(|i| {
            let start = start + u128::from(i) * 1_000_000;
            json!({
                "traceId": format!("{:032x}", i + 1), "spanId": format!("{:016x}", i + 1), "name": "chat", "kind": 3,
                "startTimeUnixNano": start.to_string(), "endTimeUnixNano": (start + 300_000_000).to_string(),
                "attributes": [
                    text("gateway.route.name", "helpdesk"),
                    text("gen_ai.operation.name", "chat"), text("gen_ai.provider.name", "openai"),
                    text("gen_ai.request.model", model),
                    int("gen_ai.usage.input_tokens", 900), int("gen_ai.usage.output_tokens", 100),
                ],
            })
        })
        .collect();
    json!({ "resourceSpans": [{ "resource": {}, "scopeSpans": [{ "scope": { "name": "it" }, "spans": spans }] }] })
}

#[tokio::test(flavor = "multi_thread")]
async fn two_models_on_a_route_are_compared_and_written_down_as_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let app = App::start(Config::on_free_ports(dir.path().join("data")), wall_clock())
        .await
        .unwrap();
    let (client, api) = (client(), app.addresses.http);
    let send = |body: Value| {
        let request = client
            .post(format!("http://{}/v1/traces", app.addresses.otlp_http))
            .json(&body);
        async move { assert_eq!(request.send().await.unwrap().status(), 200) }
    };
    let secs = Duration::from_secs;
    send(traces(0, 60, "gpt-4o-mini", secs(600))).await;
    send(traces(100, 60, "gpt-4.1-mini", secs(300))).await;
    let observed = async {
        loop {
            let answer = client
                .get(format!("http://{api}/api/v1/releases"))
                .send()
                .await
                .unwrap();
            let releases: Value = answer.json().await.unwrap();
            if let Some(one) = releases.as_array().unwrap().first() {
                return one.clone();
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    let release = tokio::time::timeout(secs(60), observed).await.unwrap();
    assert_eq!(
        (&release["phase"], &release["mode"]),
        (&json!("observed"), &json!("observe"))
    );
    let id = release["id"].as_str().unwrap();
    assert_eq!(id, "observed.helpdesk.model.gpt-4o-mini.gpt-4-1-mini");

    // from then on both are colored, though nobody stamps them
    send(traces(200, 50, "gpt-4o-mini", secs(100))).await;
    send(traces(300, 40, "gpt-4.1-mini", secs(100))).await;
    let question = format!(
        "SELECT color, count(*) FROM traces WHERE release = '{id}' AND start_time > now() - INTERVAL '200 seconds' \
         GROUP BY color ORDER BY color"
    );
    eventually(&client, api, &question, json!([["blue", 50], ["green", 40]]), secs(30)).await;

    // it never acts: people are told to declare it
    let order = client.post(format!("http://{api}/api/v1/releases/{id}/promote"));
    let refused = order.json(&json!({ "reason": "go" })).send().await.unwrap();
    assert_eq!(refused.status(), 409);
    let refused: Value = refused.json().await.unwrap();
    assert!(
        refused["error"].as_str().unwrap().contains("tracegate init"),
        "{refused}"
    );

    let file = dir.path().join("helpdesk.toml");
    let run = |args: Vec<String>| {
        let mut command = tracegate(dir.path());
        command.args(args);
        tokio::task::spawn_blocking(move || command.output().unwrap())
    };
    let server = format!("http://{api}");
    let shown = file.display().to_string();
    let init = ["init", "--route", "helpdesk", "--out", &shown, "--server", &server];
    let output = run(init.map(str::to_owned).to_vec()).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let written = std::fs::read_to_string(&file).unwrap();
    assert!(written.contains("request_model = [\"gpt-4.1-mini\"]"), "{written}");
    let output = run(vec!["check".to_owned(), shown.clone()]).await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let again = run(init.map(str::to_owned).to_vec()).await.unwrap();
    assert!(!again.status.success(), "a file that is there is left alone");

    // a declared release takes the route; the observed one is over
    let declared = client
        .post(format!("{server}/api/v1/releases"))
        .body(written)
        .send()
        .await
        .unwrap();
    assert_eq!(declared.status(), 201, "{}", declared.text().await.unwrap());
    let begun = Instant::now();
    loop {
        let answer = client
            .get(format!("{server}/api/v1/releases/{id}"))
            .send()
            .await
            .unwrap();
        let one: Value = answer.json().await.unwrap();
        if one["phase"] == "settled" && one["winner"].is_null() {
            break;
        }
        assert!(begun.elapsed() < secs(20), "{one}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    app.shutdown().await.unwrap();
}
