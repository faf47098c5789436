//! A gate that counts by a statement of its own, and the statement fails while it runs: nothing is concluded from what was
//! counted before, nothing is done, people read which gate and why; and once it runs again, it judges.

use crate::{
    kill::Served,
    otlp::{client, eventually},
    running::RELEASE,
};
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// It divides by zero while the number of spans called `switch` is even.
const GATE: &str = r#"
[[release.gate]]
name = "refunds"
sql = """
SELECT count(*) FILTER (WHERE color = 'blue' AND cohort = 'refunded') AS blue_events,
       count(*) FILTER (WHERE color = 'blue') AS blue_n,
       count(*) FILTER (WHERE color = 'green' AND cohort = 'refunded') AS green_events,
       count(*) FILTER (WHERE color = 'green') AS green_n
FROM traces
WHERE release = $release AND start_time < $admitted_before
  AND 1 / (SELECT count(*) % 2 FROM spans WHERE name = 'switch') > 0"""
max_increase = 0.05
on_fail = "rollback"
"#;
/// Longest wait for anything here; a moment is counted every 10 s.
const PATIENCE: Duration = Duration::from_secs(120);

/// The release of the other tests with this gate alone, and no time to wait.
fn release() -> String {
    let (before, rest) = RELEASE.split_once("[[release.gate]]").unwrap();
    let (_, webhook) = rest.split_once("[release.webhook]").unwrap();
    let rules = before
        .replace("warmup = \"5m\"", "warmup = \"1s\"\ntimeout = \"1s\"\ngrace = \"0s\"")
        .replace("min = \"5m\"", "min = \"2s\"")
        .replace("min_traces = 500", "min_traces = 50");
    format!("{rules}{GATE}\n[release.webhook]{webhook}")
}

fn span(n: u64, name: &str, color: &str) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
    let text = |key: &str, value: &str| json!({ "key": key, "value": { "stringValue": value } });
    let (version, cohort) = if color == "green" {
        ("8", "refunded")
    } else {
        ("7", "kept")
    };
    json!({
        "traceId": format!("{n:032x}"), "spanId": format!("{n:016x}"), "name": name, "kind": 3,
        "startTimeUnixNano": (now - 50_000_000).to_string(), "endTimeUnixNano": now.to_string(),
        "attributes": [
            text("gateway.route.name", "chat"), text("gateway.route.color", color), text("gateway.route.version", version),
            text("customer.tier", cohort), text("gen_ai.operation.name", "chat"), text("gen_ai.provider.name", "openai"),
            text("gen_ai.request.model", "gpt-4o-mini"),
        ],
    })
}

/// A server under traffic of both colors: every green trace counts as an event, no blue one does.
struct Story {
    otlp_http: SocketAddr,
    http: SocketAddr,
    client: reqwest::Client,
    next: AtomicU64,
    over: AtomicBool,
}

impl Story {
    async fn send(&self, spans: Vec<Value>) {
        let body = json!({ "resourceSpans": [{ "resource": {}, "scopeSpans": [{ "scope": {}, "spans": spans }] }] });
        let post = self.client.post(format!("http://{}/v1/traces", self.otlp_http));
        assert_eq!(post.json(&body).send().await.unwrap().status(), 200);
    }

    async fn traffic(self: Arc<Self>) {
        while !self.over.load(Relaxed) {
            let first = self.next.fetch_add(8, Relaxed);
            let spans = (0..8).map(|i| span(first + i, "chat", ["blue", "green"][i as usize % 2]));
            self.send(spans.collect()).await;
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
    }

    /// A span that belongs to no route: the statement runs from here on, or fails.
    async fn switch(&self, times: u64) {
        let mut spans = span(1 << 40 | times, "switch", "blue");
        spans["attributes"] = json!([]);
        self.send(vec![spans]).await;
        let count = "SELECT count(*) FROM spans WHERE name = 'switch'";
        eventually(&self.client, self.http, count, json!([[times]]), PATIENCE).await;
    }

    async fn get(&self, path: &str) -> Value {
        let answer = self.client.get(format!("http://{}{path}", self.http));
        answer.send().await.unwrap().json().await.unwrap()
    }

    async fn verdict(&self) -> Value {
        self.get("/api/v1/releases/chat-8/verdict").await
    }

    async fn rolled_back(&self) -> bool {
        let decisions = self.get("/api/v1/decisions").await;
        decisions
            .as_array()
            .unwrap()
            .iter()
            .any(|one| one["action"] == "rollback")
    }

    /// Waits for a verdict that looks like this; until then, and so long after, none but `inconclusive`.
    async fn holds(&self, looks: impl Fn(&Value) -> bool, after: Duration) -> Value {
        let (begun, mut seen) = (Instant::now(), None);
        loop {
            let verdict = self.verdict().await;
            assert_eq!(verdict["verdict"], "inconclusive", "{verdict}");
            assert!(!self.rolled_back().await, "{verdict}");
            if seen.is_none() && looks(&verdict) {
                seen = Some(Instant::now());
            }
            if seen.is_some_and(|at| at.elapsed() > after) {
                return verdict;
            }
            assert!(begun.elapsed() < PATIENCE, "{verdict}");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gate_whose_query_fails_is_inconclusive_until_it_runs_again() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::write(
        dir.path().join("tracegate.toml"),
        "[server]\ncell_resolution = \"1s\"\n",
    )
    .unwrap();
    let served = Served::start(dir.path());
    let client = client();
    let declare = client
        .post(format!("http://{}/api/v1/releases", served.http))
        .header("content-type", "application/toml");
    let answer = declare.body(release()).send().await.unwrap();
    assert_eq!(answer.status(), 201, "{}", answer.text().await.unwrap());
    let story = Arc::new(Story {
        otlp_http: served.otlp_http,
        http: served.http,
        client,
        next: AtomicU64::new(1),
        over: AtomicBool::new(false),
    });
    let traffic = tokio::spawn(Arc::clone(&story).traffic());

    // green is beyond any margin, and the statement cannot tell
    let fails = |verdict: &Value| {
        let gate = &verdict["gates"][0];
        let why = gate["reason"].as_str().unwrap_or_default().to_lowercase();
        gate["name"] == "refunds" && why.contains("could not be run") && why.contains("divide by zero")
    };
    let verdict = story.holds(fails, Duration::from_secs(12)).await;
    assert!(fails(&verdict), "{verdict}");
    assert_eq!(verdict["gates"][0]["verdict"], "inconclusive", "{verdict}");
    assert!(verdict["reason"].as_str().unwrap().contains("refunds"), "{verdict}");

    // it runs: what it counted of the same traces is beyond the margin
    story.switch(1).await;
    let begun = Instant::now();
    while !story.rolled_back().await {
        assert!(begun.elapsed() < PATIENCE, "{}", story.verdict().await);
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    story.over.store(true, Relaxed);
    traffic.await.unwrap();
}
