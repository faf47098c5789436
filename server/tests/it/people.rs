//! What people keep tracegate from doing, and a decision that anyone can compute again: freezes, mutes, verify.

use crate::{
    otlp::trace,
    running::{RELEASE, Running},
};
use gates::{desk::DECISIONS_KEPT, ledger::Ledger};
use proto::{decision::Phase, layout};
use serde_json::json;
use std::path::Path;

/// An instance with `chat-8` declared.
async fn declared() -> Running {
    let it = Running::start().await;
    assert_eq!(it.declare("application/toml", RELEASE.to_owned()).await.0, 201);
    it
}

#[tokio::test(flavor = "multi_thread")]
async fn a_freeze_holds_promotions_and_no_rollback() {
    let it = declared().await;
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
    let it = declared().await;
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
    let (_, release) = it.get("/api/v1/releases/chat-8").await;
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
    assert_eq!(it.get("/api/v1/releases/chat-8").await.1["muted"], json!([]));
    let (ok, out, err) = it.cli(&["ack", "chat", "--reason", "looking into it"]).await;
    assert!(ok, "{out}{err}");
    let people = it.get("/api/v1/releases/chat-8").await.1["people"].clone();
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
    let it = declared().await;
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
    let text = it.text(&format!("/api/v1/decisions/{id}")).await;
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
        let (ok, out, err) = it.run(&["verify", &file.display().to_string()]).await;
        assert!(!ok && err.contains("cannot be confirmed"), "{i}: {out}{err}");
    }
    let page = it.text("/metrics").await;
    assert!(
        page.contains("tracegate_invariant_violations_total{invariant=\"L1\"} 0"),
        "{page}"
    );

    // the ledger alone, once nobody holds it
    let question = "SELECT d.action, r.phase, d.evidence LIKE '%wrong refunds%' AS told, count(n.delivery_id) AS notices \
                    FROM decisions d JOIN releases r ON r.id = d.release LEFT JOIN deliveries n USING (decision_id) \
                    GROUP BY ALL ORDER BY d.action";
    let alone = ["sql", "--format", "csv", "--data-dir", "data", question];
    let (ok, _, err) = it.run(&alone).await;
    assert!(!ok && err.contains("ask it instead"), "{err}");
    let dir = it.dir;
    it.app.shutdown().await.unwrap();
    let (ok, out) = verified_alone(dir.path(), id).await;
    assert!(ok && out.contains("names the one before it"), "{out}");
    let (ok, out) = alone_in(dir.path(), &alone).await;
    assert!(ok, "{out}");
    assert_eq!(
        out.lines().collect::<Vec<_>>(),
        [
            "action,phase,told,notices",
            "advance,canary,false,1",
            "rollback,canary,true,1"
        ]
    );

    // the advance before it is too old one day
    let ledger = Ledger::open(&dir.path().join("data").join(layout::LEDGER)).unwrap();
    let mut release = ledger.releases().unwrap().remove(0);
    release.state.phase = Phase::RolledBack;
    ledger.put_release(&release).unwrap();
    let all = ledger.decisions(10).unwrap();
    let advance = all.last().unwrap();
    let expired = ledger
        .expire(advance.decided_at.plus(DECISIONS_KEPT), DECISIONS_KEPT)
        .unwrap();
    assert_eq!((all.len(), expired.decisions), (2, 1));
    drop(ledger);
    let (ok, out) = verified_alone(dir.path(), id).await;
    assert!(
        ok && out.contains("the chain begins here") && out.contains("removed for its age at 20"),
        "{out}"
    );
    let (ok, out) = verified_alone(dir.path(), &advance.id).await;
    assert!(!ok && out.contains("there is no decision"), "{out}");
}

/// `verify` on a data directory without a server: whether it was confirmed, and all that was said.
async fn verified_alone(dir: &Path, id: &str) -> (bool, String) {
    alone_in(dir, &["verify", id, "--from-data", "--data-dir", "data"]).await
}

/// A command on a data directory without a server, whatever server the environment names.
async fn alone_in(dir: &Path, args: &[&str]) -> (bool, String) {
    let mut command = crate::kill::tracegate(dir);
    command.args(args).env("TRACEGATE_SERVER", "http://127.0.0.1:1");
    let output = tokio::task::spawn_blocking(move || command.output().unwrap())
        .await
        .unwrap();
    let said = [output.stdout, output.stderr].concat();
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}
