//! More than a machine can take, and clients that take their time: refused in order, within bounded memory, and nothing
//! that was acknowledged is missing.
//!
//! `OVERLOAD_SECONDS=n` keeps the load up for longer.

use crate::{
    kill::Served,
    otlp::{client, eventually, export, sql, trace},
    running::RELEASE,
};
use reqwest::{StatusCode, header};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use serde_json::{Value, json};
use std::{
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::Mutex};

/// Clients that send without a pause, and what one request holds.
const SENDERS: u64 = 160;
const TRACES: u64 = 128;
/// Spans of [`trace`].
const SPANS_A_TRACE: u64 = 2;
/// Peak memory under any load, KiB.
const RSS_KIB_MAX: u64 = 512 << 10;
/// What idle connections and slow senders may cost together, KiB.
const IDLE_KIB_MAX: u64 = 64 << 10;

/// Held by tests that press the whole machine: beside each other they would measure each other.
static ALONE: Mutex<()> = Mutex::const_new(());

fn seconds() -> u64 {
    std::env::var("OVERLOAD_SECONDS").map_or(4, |text| text.parse().unwrap())
}

/// A line of the process's status, KiB.
fn kib(served: &Served, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", served.pid())).unwrap();
    let value = status.lines().find_map(|l| l.strip_prefix(line)).unwrap();
    value.trim().trim_end_matches(" kB").parse().unwrap()
}

fn small_budget(dir: &Path) -> Served {
    fs::write(dir.join("tracegate.toml"), "[server]\ningest_bytes_max = \"2MiB\"\n").unwrap();
    Served::start(dir)
}

/// One request of many traces; requests of one encoding joined are one request.
fn request(number: u64) -> Vec<u8> {
    (0..TRACES).flat_map(|n| trace(number * TRACES + n, "blue")).collect()
}

#[derive(Default)]
struct Seen {
    acked: AtomicU64,
    refused: AtomicU64,
    next: AtomicU64,
}

/// Sends until `until`; what was refused is sent again, sooner than asked for.
async fn send(to: SocketAddr, seen: Arc<Seen>, until: Instant) {
    let client = client();
    let url = format!("http://{to}/v1/traces");
    while Instant::now() < until {
        let body = request(seen.next.fetch_add(1, Relaxed));
        loop {
            let post = client.post(&url).header(header::CONTENT_TYPE, "application/x-protobuf");
            let answer = post.body(body.clone()).send().await.unwrap();
            match answer.status() {
                StatusCode::OK => {
                    seen.acked.fetch_add(1, Relaxed);
                    break;
                }
                StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
                    assert!(answer.headers().contains_key(header::RETRY_AFTER), "{answer:?}");
                    seen.refused.fetch_add(1, Relaxed);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
                other => panic!("{other}: {}", answer.text().await.unwrap()),
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_too_much_is_refused_with_a_time_and_nothing_acked_is_missing() {
    let _alone = ALONE.lock().await;
    let dir = tempfile::tempdir().unwrap();
    let served = small_budget(dir.path());
    let release = RELEASE.replace("warmup = \"5m\"", "warmup = \"1s\"");
    let releases = format!("http://{}/api/v1/releases", served.http);
    let declare = client()
        .post(&releases)
        .header(header::CONTENT_TYPE, "application/toml");
    assert_eq!(
        declare.body(release).send().await.unwrap().status(),
        StatusCode::CREATED
    );
    let seen = Arc::new(Seen::default());
    let until = Instant::now() + Duration::from_secs(seconds());
    let senders: Vec<_> = (0..SENDERS)
        .map(|_| tokio::spawn(send(served.otlp_http, Arc::clone(&seen), until)))
        .collect();
    for sender in senders {
        sender.await.unwrap();
    }
    let (acked, refused) = (seen.acked.load(Relaxed), seen.refused.load(Relaxed));
    assert_eq!(
        acked,
        seen.next.load(Relaxed),
        "every request was acknowledged in the end"
    );
    assert!(refused > 0, "{acked} acked, and the budget was never full");
    let spans = json!([[acked * TRACES * SPANS_A_TRACE]]);
    eventually(
        &client(),
        served.http,
        "SELECT count(*) FROM spans",
        spans,
        Duration::from_secs(60),
    )
    .await;
    // Whose rows were refused is not known, so nothing is concluded from those that were not.
    let asked = Instant::now();
    loop {
        let answer = client().get(format!("{releases}/chat-8/verdict")).send().await.unwrap();
        let verdict: Value = answer.json().await.unwrap();
        assert_eq!(verdict["verdict"], "inconclusive", "{verdict}");
        if verdict.to_string().contains("shed: ") {
            break;
        }
        assert!(asked.elapsed() < Duration::from_secs(30), "{verdict}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let peak = kib(&served, "VmHWM:");
    assert!(peak <= RSS_KIB_MAX, "{acked} acked, {refused} refused, peak {peak} KiB");
    eprintln!("{acked} requests acked, {refused} refused, peak {} MiB", peak >> 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn idle_connections_and_slow_senders_cost_little_and_keep_nobody_out() {
    let dir = tempfile::tempdir().unwrap();
    let limit = getrlimit(Resource::Nofile);
    let files = limit.maximum.unwrap_or(65_536).min(65_536);
    let wider = Rlimit {
        current: Some(files),
        ..limit
    };
    setrlimit(Resource::Nofile, wider).unwrap();
    let idle = usize::try_from(files / 4).unwrap().min(2_000);
    let served = Served::start(dir.path());
    let http = client();
    assert!(export(&http, served.otlp_http, request(0)).await);
    let before = kib(&served, "VmRSS:");
    let mut held = Vec::new();
    for _ in 0..idle {
        held.push(TcpStream::connect(served.otlp_http).await.unwrap());
    }
    // they promise much, something, or nothing, and send little
    let lengths = [
        "content-length: 33554432",
        "content-length: 100000",
        "transfer-encoding: chunked",
    ];
    for (socket, length) in held.iter_mut().take(200).zip(lengths.iter().cycle()) {
        let head =
            format!("POST /v1/traces HTTP/1.1\r\nhost: a\r\ncontent-type: application/x-protobuf\r\n{length}\r\n\r\n");
        let first = if length.contains("chunked") {
            "1\r\n\n\r\n"
        } else {
            "\n"
        };
        socket.write_all(format!("{head}{first}").as_bytes()).await.unwrap();
    }
    assert!(export(&http, served.otlp_http, request(1)).await, "with {idle} others");
    let cost = kib(&served, "VmRSS:").saturating_sub(before);
    assert!(cost <= IDLE_KIB_MAX, "{idle} connections cost {cost} KiB");
    eprintln!("{idle} connections cost {} MiB", cost >> 10);
    for number in 2..10 {
        assert!(
            export(&http, served.otlp_http, request(number)).await,
            "with {idle} others"
        );
    }
}

/// A full scan that reads most columns, by color.
const SCAN: &str = "SELECT color, count(*), count(DISTINCT span_id), sum(duration_ms), max(name), sum(prompt_tokens), \
    sum(cardinality(map_keys(attributes))), max(received_at) FROM spans GROUP BY color ORDER BY color";

/// Scans until told to stop; how often. Of what is sealed every scan sees all, whatever is sent meanwhile.
async fn scan(api: SocketAddr, sealed: u64, scans: Arc<AtomicU64>, over: Arc<AtomicBool>) {
    let client = client();
    while !over.load(Relaxed) {
        let rows = sql(&client, api, SCAN).await;
        let [blue, rest @ ..] = &rows.as_array().unwrap()[..] else {
            panic!("no rows");
        };
        assert_eq!(
            (&blue[0], &blue[1], &blue[2]),
            (&json!("blue"), &json!(sealed), &json!(sealed))
        );
        assert!(rest.len() <= 1 && rest.iter().all(|row| row[0] == "green"), "{rows}");
        scans.fetch_add(1, Relaxed);
    }
}

/// How long an ack takes beside scans is a figure of `loadgen --scans`; here, that nobody is refused and nothing missing.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn four_full_scans_keep_no_request_out() {
    const SCANNERS: u64 = 4;
    const SEALED: u64 = 20;
    let _alone = ALONE.lock().await;
    let (dir, http) = (tempfile::tempdir().unwrap(), client());
    let mut first = Served::start(dir.path());
    for number in 0..SEALED {
        assert!(export(&http, first.otlp_http, request(number)).await);
    }
    first.signal(rustix::process::Signal::INT);
    assert!(first.ended_well(), "what was there is sealed");
    let served = Served::start(dir.path());
    let sealed = SEALED * TRACES * SPANS_A_TRACE;
    let (scans, over) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(false)));
    let scanners: Vec<_> = (0..SCANNERS)
        .map(|_| tokio::spawn(scan(served.http, sealed, Arc::clone(&scans), Arc::clone(&over))))
        .collect();
    let mut sent = 0;
    while sent < 60 || scans.load(Relaxed) < 3 * SCANNERS {
        assert!(scanners.iter().all(|scanner| !scanner.is_finished()), "a scan failed");
        let body: Vec<u8> = (0..10)
            .flat_map(|n| trace(1_000_000 + sent * 10 + n, "green"))
            .collect();
        let post = http
            .post(format!("http://{}/v1/traces", served.otlp_http))
            .header(header::CONTENT_TYPE, "application/x-protobuf");
        let answer = post.body(body).send().await.unwrap();
        let status = answer.status();
        assert_eq!(
            status,
            StatusCode::OK,
            "request {sent}: {}",
            answer.text().await.unwrap()
        );
        sent += 1;
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    over.store(true, Relaxed);
    for scanner in scanners {
        scanner.await.unwrap();
    }
    let green = json!([["blue", sealed], ["green", sent * 10 * SPANS_A_TRACE]]);
    let question = "SELECT color, count(*) FROM spans GROUP BY color ORDER BY color";
    eventually(&http, served.http, question, green, Duration::from_secs(30)).await;
    eprintln!("{sent} requests beside {} scans", scans.load(Relaxed));
}
