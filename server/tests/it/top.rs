//! `tracegate top` as people and scripts run it, against a running server.

use crate::{
    otlp::{eventually, export, trace},
    running::{RELEASE, Running},
};
use serde_json::json;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test(flavor = "multi_thread")]
async fn one_frame_shows_what_was_taken_and_the_release_on_trial() {
    let running = Running::start().await;
    let at = running.app.addresses;
    assert_eq!(running.declare("application/toml", RELEASE.to_owned()).await.0, 201);
    for n in 0..5 {
        assert!(export(&running.client, at.otlp_http, trace(n, "blue")).await);
    }
    assert!(!export(&running.client, at.otlp_http, b"no protobuf".to_vec()).await);
    eventually(
        &running.client,
        at.http,
        "SELECT count(*) FROM spans",
        json!([[10]]),
        PATIENCE,
    )
    .await;
    // With --once, and without: the output is no terminal.
    for args in [
        vec!["top", "--once", "--interval", "100ms"],
        vec!["top", "--interval", "100ms"],
    ] {
        let (ok, out, err) = running.cli(&args).await;
        assert!(ok && err.is_empty(), "{err}");
        assert!(!out.contains('\u{1b}'), "no orders to a terminal that is none: {out}");
        for words in [
            "spans 10",
            "requests 1 (malformed 1)",
            "live rows 10",
            "intake 0",
            "in force",
            "p99 ",
        ] {
            assert!(out.contains(words), "{words} is not in\n{out}");
        }
        let release = out.lines().find(|line| line.starts_with("chat-8")).unwrap();
        assert!(
            release.contains("chat") && release.contains("inconclusive"),
            "{release}"
        );
    }
}
