//! The end of a server that is in use: what was acknowledged is on disk, and nobody who waits or listens holds it up.

use crate::{
    kill::{Served, tracegate},
    otlp::{client, eventually, export, trace},
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, trace_service_client::TraceServiceClient,
};
use prost::Message;
use rustix::process::Signal;
use serde_json::json;
use std::{
    collections::BTreeSet,
    io::{Read, Write},
    net::TcpStream,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Senders of each protocol.
const SENDERS: u64 = 4;
/// Acks before the signal comes.
const ACKS_BEFORE: u64 = 200;
/// Longest wait for them on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// Sends trace after trace until one is not acknowledged; the numbers of those that were.
async fn send_http(served: std::net::SocketAddr, sender: u64, acks: Arc<AtomicU64>) -> Vec<u64> {
    let client = client();
    let mut acked = Vec::new();
    for n in (0..).map(|n| n * 100 + sender) {
        if !export(&client, served, trace(n, "blue")).await {
            return acked;
        }
        acked.push(n);
        acks.fetch_add(1, Relaxed);
    }
    acked
}

async fn send_grpc(served: std::net::SocketAddr, sender: u64, acks: Arc<AtomicU64>) -> Vec<u64> {
    let mut client = TraceServiceClient::connect(format!("http://{served}")).await.unwrap();
    let mut acked = Vec::new();
    for n in (0..).map(|n| n * 100 + 50 + sender) {
        let request = ExportTraceServiceRequest::decode(&trace(n, "green")[..]).unwrap();
        if client.export(request).await.is_err() {
            return acked;
        }
        acked.push(n);
        acks.fetch_add(1, Relaxed);
    }
    acked
}

/// A query over HTTP whose answer has no end worth waiting for, and of which only the first bytes are read.
fn open_answer(http: std::net::SocketAddr) -> TcpStream {
    let body =
        r#"{"sql": "SELECT a.value FROM generate_series(1, 1000000) a CROSS JOIN generate_series(1, 1000000) b"}"#;
    let mut socket = TcpStream::connect(http).unwrap();
    let head = format!(
        "POST /api/v1/sql HTTP/1.1\r\nhost: {http}\r\naccept: text/csv\r\ncontent-length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(format!("{head}{body}").as_bytes()).unwrap();
    let mut first = [0; 15];
    socket.read_exact(&mut first).unwrap();
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    socket
}

/// Trace ids in the data directory, read without a server.
fn on_disk(dir: &Path) -> BTreeSet<String> {
    let question = "SELECT DISTINCT trace_id FROM spans";
    let answer = tracegate(dir)
        .args(["sql", "--data-dir", "tracegate-data", "--format", "csv", question])
        .output()
        .unwrap();
    let text = String::from_utf8(answer.stdout).unwrap();
    text.lines().skip(1).map(|line| line.trim().to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_ack_before_and_while_it_drains_is_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let mut served = Served::start(dir.path());
    let acks = Arc::new(AtomicU64::new(0));
    let mut senders = Vec::new();
    for sender in 0..SENDERS {
        senders.push(tokio::spawn(send_http(served.otlp_http, sender, Arc::clone(&acks))));
        senders.push(tokio::spawn(send_grpc(served.otlp_grpc, sender, Arc::clone(&acks))));
    }
    let patient = server::cli::http_client(2 * PATIENCE).unwrap();
    let poll = patient.get(format!("http://{}/api/v1/routes/chat/desired?wait=60s", served.http));
    let poll = tokio::spawn(poll.send());
    let answer = open_answer(served.http);
    let begun = Instant::now();
    while acks.load(Relaxed) < ACKS_BEFORE {
        assert!(begun.elapsed() < PATIENCE, "{} acks", acks.load(Relaxed));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    served.signal(Signal::TERM);
    let mut acked = BTreeSet::new();
    for sender in senders {
        acked.extend(sender.await.unwrap());
    }
    // The status is 0 only within the limit of a stop, see STOP_MAX.
    assert!(served.ended_well());
    drop(answer);
    assert_eq!(
        poll.await.unwrap().unwrap().status(),
        404,
        "a long poll is answered before the end"
    );
    // Everything is sealed: nothing is missing without the journal.
    for segment in std::fs::read_dir(dir.path().join("tracegate-data/journal")).unwrap() {
        std::fs::remove_file(segment.unwrap().path()).unwrap();
    }
    let kept = on_disk(dir.path());
    let id = |n: &u64| format!("{:032x}", u128::from(*n) + (1 << 100));
    let lost: Vec<u64> = acked.iter().copied().filter(|n| !kept.contains(&id(n))).collect();
    assert!(lost.is_empty(), "{} acknowledged, lost {lost:?}", acked.len());
    assert!(acked.len() as u64 >= ACKS_BEFORE);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_signal_leaves_at_once_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let client = client();
    let mut served = Served::start(dir.path());
    assert!(export(&client, served.otlp_http, trace(1, "green")).await);
    // A request that never becomes whole keeps the doors draining.
    let mut slow = TcpStream::connect(served.otlp_http).unwrap();
    let head =
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\ncontent-type: application/x-protobuf\r\ncontent-length: 100\r\n\r\n";
    slow.write_all(head.as_bytes()).unwrap();
    slow.write_all(b"half").unwrap();
    eventually(
        &client,
        served.http,
        "SELECT count(*) FROM spans",
        json!([[2]]),
        PATIENCE,
    )
    .await;
    served.signal(Signal::TERM);
    served.said("SIGTERM: closing doors");
    served.signal(Signal::TERM);
    served.said("SIGTERM again: leaving the rest to the journal");
    assert!(!served.ended_well());
    assert_eq!(on_disk(dir.path()).len(), 1);
}
