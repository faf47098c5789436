//! What people keep tracegate from doing, and a decision that anyone can compute again: freezes, mutes, verify.

use crate::{
    kill::tracegate,
    otlp::{client, trace},
};
use serde_json::{Value, json};
use server::{config::Config, wall_clock, wire::App};
use std::{path::Path, process::Output};

const RELEASE: &str = include_str!("release.toml");

struct Running {
    app: App,
    client: reqwest::Client,
    dir: tempfile::TempDir,
}

impl Running {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let app = App::start(Config::on_free_ports(dir.path().join("data")), wall_clock())
            .await
            .unwrap();
        let it = Self {
            app,
            client: client(),
            dir,
        };
        let declared = it.client.post(it.url("/api/v1/releases")).body(RELEASE).send().await;
        assert_eq!(declared.unwrap().status(), 201);
        it
    }

    fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.addresses.http)
    }

    async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let answer = self.client.post(self.url(path)).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    async fn get(&self, path: &str) -> Value {
        self.client
            .get(self.url(path))
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap()
    }

    /// A command against this server, as a person runs it.
    async fn cli(&self, args: &[&str]) -> (bool, String, String) {
        let server = self.url("");
        let mut all: Vec<String> = args.iter().map(ToString::to_string).collect();
        all.extend(["--server".to_owned(), server]);
        run(self.dir.path(), all).await
    }
}

async fn run(dir: &Path, args: Vec<String>) -> (bool, String, String) {
    let mut command = tracegate(dir);
    command.args(args).env("COLUMNS", "120");
    let output: Output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.success(), text(output.stdout), text(output.stderr))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_holds_promotions_and_no_rollback() {
    let it = Running::start().await;
    let (ok, out, err) = it
        .cli(&["freeze", "--route", "chat", "--until", "2h", "--reason", "holiday sale"])
        .await;
    assert!(ok && out.contains("holiday sale") && out.contains("chat"), "{out}{err}");
    let (status, refused) = it
        .post(
            "/api/v1/releases/chat-8/advance",
            json!({ "actor": "ann", "reason": "go" }),
        )
        .await;
    assert_eq!(status, 409);
    assert!(refused["error"].as_str().unwrap().contains("holiday sale"), "{refused}");
    let path = "/api/v1/releases/chat-8/rollback";
    let (status, rolled) = it
        .post(path, json!({ "actor": "ann", "reason": "wrong refunds" }))
        .await;
    assert_eq!(status, 200, "{rolled}");

    let (ok, out, _) = it
        .cli(&["freeze", "--lift", "--route", "chat", "--reason", "over"])
        .await;
    assert!(ok && out.contains("nothing is frozen"), "{out}");
    let (ok, _, err) = it.cli(&["freeze", "--lift", "--reason", "again"]).await;
    assert!(!ok && err.contains("nothing is frozen there"), "{err}");
    for wrong in [
        json!({ "reason": " " }),
        json!({ "reason": "x", "until": "yesterday" }),
        json!({ "reason": "x", "until": "2020-01-01T00:00:00Z" }),
        json!({ "reason": "x", "forever": true }),
    ] {
        assert_eq!(it.post("/api/v1/freeze", wrong.clone()).await.0, 400, "{wrong}");
    }
    it.app.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_is_muted_for_a_while_and_what_was_told_is_acknowledged() {
    let it = Running::start().await;
    let (ok, out, err) = it
        .cli(&[
            "mute",
            "p99 latency",
            "--until",
            "1h",
            "--reason",
            "slow hours announced",
        ])
        .await;
    assert!(ok && out.contains("muted until"), "{out}{err}");
    let release = it.get("/api/v1/releases/chat-8").await;
    assert_eq!(release["muted"][0]["gate"], "p99 latency");
    assert_eq!(release["muted"][0]["reason"], "slow hours announced");
    let (ok, _, err) = it.cli(&["mute", "p98", "--until", "1h", "--reason", "x"]).await;
    assert!(!ok && err.contains("0 running releases have a gate `p98`"), "{err}");
    let (ok, _, err) = it
        .cli(&["mute", "p99 latency", "--until", "soon", "--reason", "x"])
        .await;
    assert!(!ok && err.contains("--until 2h"), "{err}");
    let (ok, out, _) = it.cli(&["mute", "p99 latency", "--off", "--reason", "over"]).await;
    assert!(ok && out.contains("counts again"), "{out}");
    assert_eq!(it.get("/api/v1/releases/chat-8").await["muted"], json!([]));
    let (ok, out, err) = it.cli(&["ack", "chat", "--reason", "looking into it"]).await;
    assert!(ok, "{out}{err}");
    let people = it.get("/api/v1/releases/chat-8").await["people"].clone();
    let what: Vec<&str> = people
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["what"].as_str().unwrap())
        .collect();
    assert_eq!(what, ["mute", "unmute", "ack"]);
    it.app.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_decision_is_verified_from_its_bundle_with_or_without_a_server() {
    let it = Running::start().await;
    for n in 0..20 {
        let otlp = it.app.addresses.otlp_http;
        assert!(crate::otlp::export(&it.client, otlp, trace(n, "blue")).await);
    }
    let (status, _) = it
        .post(
            "/api/v1/releases/chat-8/advance",
            json!({ "actor": "ann", "reason": "start" }),
        )
        .await;
    assert_eq!(status, 200);
    let path = "/api/v1/releases/chat-8/rollback";
    let (_, rolled) = it
        .post(path, json!({ "actor": "ann", "reason": "wrong refunds" }))
        .await;
    let id = rolled["decision_id"].as_str().unwrap();
    let (ok, out, err) = it.cli(&["verify", id, "--from-data"]).await;
    assert!(ok, "{out}{err}");
    assert!(out.contains("chain ") && out.contains("verdict "), "{out}");
    let (ok, explained, err) = it.cli(&["explain", id]).await;
    assert!(
        ok && explained.contains("blue -> green: ") && explained.contains("rules "),
        "{explained}{err}"
    );

    // a bundle that was changed is found out, wherever it was changed
    let bundle = it.get(&format!("/api/v1/decisions/{id}")).await;
    let text = bundle.to_string();
    for (i, forged) in [
        text.replacen("wrong refunds", "wrong refundz", 1),
        text.replace("\"action\":\"rollback\"", "\"action\":\"promote\""),
        text.replace("\"max_ratio\":1.2", "\"max_ratio\":1.9"),
    ]
    .into_iter()
    .enumerate()
    {
        assert_ne!(forged, text, "{i}");
        let file = it.dir.path().join(format!("forged-{i}.json"));
        std::fs::write(&file, &forged).unwrap();
        let args = vec!["verify".to_owned(), file.display().to_string()];
        let (ok, out, err) = run(it.dir.path(), args).await;
        assert!(!ok && err.contains("cannot be confirmed"), "{i}: {out}{err}");
    }
    let page = it.client.get(it.url("/metrics")).send().await.unwrap();
    let page = page.text().await.unwrap();
    assert!(
        page.contains("tracegate_invariant_violations_total{invariant=\"L1\"} 0"),
        "{page}"
    );

    let data = it.dir.path().join("data").display().to_string();
    it.app.shutdown().await.unwrap();
    let offline = ["verify", id, "--from-data", "--data-dir", &data]
        .map(str::to_owned)
        .to_vec();
    let (ok, out, err) = run(it.dir.path(), offline).await;
    assert!(ok && out.contains("chain "), "{out}{err}");
}
