//! A release over the API: declared, looked at, moved by a person, followed by a gateway.

use crate::{
    otlp::client,
    running::{RELEASE, Running},
};
use serde_json::{Value, json};
use server::{config::Config, wall_clock, wire::App};
use std::time::{Duration, Instant};

#[tokio::test(flavor = "multi_thread")]
async fn a_declared_release_has_a_verdict_with_every_key() {
    let it = Running::start().await;
    assert_eq!(it.get("/api/v1/releases").await, (200, json!([])));
    assert_eq!(it.get("/api/v1/releases/chat-8/verdict").await.0, 404);
    assert_eq!(it.declare("application/toml", RELEASE.to_owned()).await.0, 201);
    assert_eq!(
        it.declare("application/toml", RELEASE.to_owned()).await.0,
        200,
        "the same again"
    );
    let changed = RELEASE.replace("max_ratio = 1.2", "max_ratio = 1.3");
    let (status, error) = it.declare("application/toml", changed).await;
    assert_eq!(status, 409);
    assert!(error["error"].as_str().unwrap().contains("declare a new id"), "{error}");

    let (status, verdict) = it.get("/api/v1/releases/chat-8/verdict").await;
    assert_eq!(status, 200);
    let keys = "release route verdict phase active_color decision_id decision_seq n_blue n_green gates";
    for key in keys.split(' ') {
        assert!(verdict.get(key).is_some(), "{key} is missing in {verdict}");
    }
    assert_eq!(
        (&verdict["verdict"], &verdict["phase"]),
        (&json!("inconclusive"), &json!("declared"))
    );
    let (status, release) = it.get("/api/v1/releases/chat-8").await;
    assert_eq!(
        (status, &release["rules"]["gate"][0]["name"]),
        (200, &json!("p99 latency"))
    );
    it.app.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_wrong_release_is_refused_with_every_problem_at_its_line() {
    let it = Running::start().await;
    let wrong = RELEASE
        .replace("max_ratio = 1.2", "max_ratio = -1")
        .replace("metric = \"latency\"", "metric = \"latencies\"");
    let (status, error) = it.declare("application/toml", wrong).await;
    assert_eq!(status, 400);
    let problems = error["problems"].as_array().unwrap();
    assert!(
        problems.len() >= 2 && problems.iter().all(|p| p["line"].as_u64().unwrap() > 1),
        "{error}"
    );
    assert_eq!(it.declare("application/json", "[".to_owned()).await.0, 400);
    it.app.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_person_moves_the_route_and_a_gateway_that_waits_hears_of_it() {
    let it = Running::start().await;
    let toml: toml::Table = toml::from_str(RELEASE).unwrap();
    let json = serde_json::to_string(&toml["release"][0]).unwrap();
    assert_eq!(it.declare("application/json", json).await.0, 201);
    let desired = it.url("/api/v1/routes/chat/desired");
    assert_eq!(
        it.get("/api/v1/routes/chat/desired").await.0,
        404,
        "nothing decided yet: keep the route as it is"
    );

    assert_eq!(it.order("advance", " ").await.0, 400, "a reason is needed");
    assert_eq!(it.order("explode", "why not").await.0, 404);
    let (status, advanced) = it.order("advance", "start the canary").await;
    assert_eq!(status, 200, "{advanced}");
    let first = it.client.get(&desired).send().await.unwrap();
    let tag = first.headers()["etag"].to_str().unwrap().to_owned();
    let first: Value = first.json().await.unwrap();
    assert_eq!(first["decision_seq"], advanced["decision_seq"]);
    assert_eq!(first["weights"], json!({ "blue": 0.5, "green": 0.5 }));

    let unchanged = it
        .client
        .get(&desired)
        .header("if-none-match", &tag)
        .send()
        .await
        .unwrap();
    assert_eq!(unchanged.status(), 304);
    let poll = it
        .client
        .get(format!("{desired}?wait=10s"))
        .header("if-none-match", &tag)
        .send();
    let poll = tokio::spawn(poll);
    tokio::time::sleep(Duration::from_millis(100)).await;
    let begun = Instant::now();
    let (status, rolled) = it.order("rollback", "customers report wrong refunds").await;
    assert_eq!(status, 200, "{rolled}");
    let moved: Value = poll.await.unwrap().unwrap().json().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5));
    assert_eq!(
        (&moved["color"], &moved["decision_seq"]),
        (&json!("blue"), &rolled["decision_seq"])
    );
    assert_eq!(it.get("/api/v1/desired").await.1[0], moved);
    assert_eq!(it.order("promote", "too late").await.0, 409);

    let (_, decisions) = it.get("/api/v1/decisions").await;
    assert_eq!(decisions.as_array().unwrap().len(), 2);
    assert_eq!(
        (&decisions[0]["action"], &decisions[0]["actor"]),
        (&json!("rollback"), &json!("ann"))
    );
    let id = decisions[0]["decision_id"].as_str().unwrap();
    let (_, bundle) = it.get(&format!("/api/v1/decisions/{id}")).await;
    assert_eq!(bundle["decision"]["reason"], json!("customers report wrong refunds"));
    let question = "SELECT r.active_color, d.action, d.actor, d.evidence LIKE '%refunds%' FROM releases r JOIN decisions d ON d.release = r.id ORDER BY decision_seq DESC LIMIT 1";
    let rows = crate::otlp::sql(&it.client, it.app.addresses.http, question).await;
    assert_eq!(rows, json!([["blue", "rollback", "ann", true]]));
    let page = it
        .client
        .get(it.url("/metrics"))
        .send()
        .await
        .unwrap()
        .text()
        .await
        .unwrap();
    assert!(
        page.contains("tracegate_decisions_total{action=\"rollback\"} 1"),
        "{page}"
    );
    it.app.shutdown().await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_waiting_gateway_does_not_hold_up_the_end() {
    let it = Running::start().await;
    let poll = tokio::spawn(it.client.get(it.url("/api/v1/routes/chat/desired?wait=30s")).send());
    tokio::time::sleep(Duration::from_millis(200)).await;
    let begun = Instant::now();
    it.app.shutdown().await.unwrap();
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert_eq!(poll.await.unwrap().unwrap().status(), 404);
}

#[tokio::test(flavor = "multi_thread")]
async fn releases_of_the_configuration_are_declared_at_start_and_stay_over_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("tracegate.toml");
    let server = format!(
        "[server]\ndata_dir = {:?}\notlp_grpc = \"127.0.0.1:0\"\notlp_http = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n\n",
        dir.path().join("data")
    );
    for expect_error in [false, false, true] {
        let rules = if expect_error {
            RELEASE.replace("max_ratio = 1.2", "max_ratio = 1.9")
        } else {
            RELEASE.to_owned()
        };
        std::fs::write(&file, format!("{server}{rules}")).unwrap();
        let started = App::start(Config::load(&file).unwrap(), wall_clock()).await;
        match started {
            Ok(app) => {
                assert!(!expect_error);
                let releases = client()
                    .get(format!("http://{}/api/v1/releases", app.addresses.http))
                    .send()
                    .await
                    .unwrap();
                let releases: Value = releases.json().await.unwrap();
                assert_eq!(
                    (&releases[0]["id"], &releases[0]["declared_by"]),
                    (&json!("chat-8"), &json!("config"))
                );
                app.shutdown().await.unwrap();
            }
            Err(error) => assert!(
                expect_error && error.to_string().contains("declare a new id"),
                "{error}"
            ),
        }
    }
}
