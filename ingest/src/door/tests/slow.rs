//! Bodies that take their time: let go in the end, and nobody else waits for them.

use super::grpc::{TRACES, channel, retry_in};
use super::http::PROTOBUF;
use super::*;
use ::http::Request;
use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use hyper::body::{Body, Frame};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use prost::Message;
use std::pin::Pin;
use std::task::{Context, Poll};
use tokio::task::JoinSet;
use tonic::transport::Channel;
use tower::ServiceExt;

/// A body of which only the beginning comes.
struct Unfinished(Option<Bytes>);

impl Unfinished {
    fn after(first: &'static [u8]) -> Self {
        Self(Some(Bytes::from_static(first)))
    }
}

impl Body for Unfinished {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.0.take() {
            Some(first) => Poll::Ready(Some(Ok(Frame::data(first)))),
            None => Poll::Pending,
        }
    }
}

/// A gRPC call whose body stays unfinished.
fn unfinished(rig: &Rig, first: &'static [u8]) -> Request<tonic::body::Body> {
    Request::post(format!("http://{}{TRACES}", rig.address))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(tonic::body::Body::new(Unfinished::after(first)))
        .unwrap()
}

#[tokio::test]
async fn who_sends_too_slowly_is_let_go() {
    let config = DoorConfig {
        body_pause_ms_max: 100,
        idle_ms_max: 400,
        header_ms_max: 200,
        ..DoorConfig::default()
    };
    let rig = Rig::new(config, || Ok(Accepted::default())).await;
    let head = format!("POST /v1/traces HTTP/1.1\r\nhost: x\r\n{PROTOBUF}content-length: 100\r\n\r\nhalf");
    let (status, answer, _) = rig.raw(head.as_bytes()).await;
    assert_eq!((status, answer.contains("retry-after: 1")), (503, true), "{answer}");
    let counters = rig.door.counters();
    assert!(counters.refused().contains(&("slow", 1)), "{:?}", counters.refused());
    assert_eq!(counters.shed_requests.load(Relaxed), 1, "it may be sent again");
    assert_eq!(rig.door.budget_bytes_used(), 0);
    for silent in ["", "PRI", "POST /v1/traces HTTP/1.1\r\nhos"] {
        let mut socket = TcpStream::connect(rig.address).await.unwrap();
        socket.write_all(silent.as_bytes()).await.unwrap();
        let closed = tokio::time::timeout(Duration::from_secs(5), socket.read_to_end(&mut Vec::new())).await;
        assert!(closed.is_ok(), "{silent:?} holds its connection");
    }
}

#[tokio::test]
async fn a_body_that_comes_too_slowly_may_be_sent_again() {
    let config = DoorConfig {
        body_pause_ms_max: 100,
        ..DoorConfig::default()
    };
    let rig = Rig::new(config, || Ok(Accepted::default())).await;
    let request = unfinished(&rig, &[0, 0, 0, 0, 9, 1]);
    let answer = channel(&rig).await.oneshot(request).await.unwrap();
    assert_eq!(answer.headers()["grpc-status"], "14", "UNAVAILABLE");
    let details = &answer.headers()["grpc-status-details-bin"];
    assert_eq!(retry_in(&STANDARD_NO_PAD.decode(details).unwrap()), 1);
    assert_eq!(rig.door.counters().shed_requests.load(Relaxed), 1);
}

/// Who sends slowly, at a time.
const SLOW: usize = 120;
/// What each of them announces, bytes; together much more than [`BUDGET_BYTES`].
const ANNOUNCED_BYTES: usize = 100_000;
const BUDGET_BYTES: usize = MIB;

async fn small() -> Rig {
    let config = DoorConfig {
        budget_bytes: BUDGET_BYTES,
        ..DoorConfig::default()
    };
    Rig::new(config, || Ok(Accepted::default())).await
}

/// Opens requests that say `head`, and send the rest a byte at a time.
async fn trickle(rig: &Rig, head: &str) -> JoinSet<()> {
    let mut senders = JoinSet::new();
    for _ in 0..SLOW {
        let mut socket = TcpStream::connect(rig.address).await.unwrap();
        let request = format!("POST /v1/traces HTTP/1.1\r\nhost: x\r\n{PROTOBUF}{head}");
        socket.write_all(request.as_bytes()).await.unwrap();
        let chunked = head.contains("chunked");
        senders.spawn(async move {
            while socket
                .write_all(if chunked { b"1\r\nx\r\n" } else { b"x" })
                .await
                .is_ok()
            {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        });
    }
    while came(rig) < SLOW {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    senders
}

fn came(rig: &Rig) -> usize {
    usize::try_from(rig.door.counters().came()).unwrap()
}

/// Normal exports pass for a while.
async fn others_are_served(rig: &Rig) {
    let mut client = TraceServiceClient::new(channel(rig).await);
    for _ in 0..20 {
        client.export(sized(60_000)).await.unwrap();
        let (status, head, _) = rig.post("/v1/traces", PROTOBUF, &sized(200_000).encode_to_vec()).await;
        assert_eq!(status, 200, "{head}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let counters = rig.door.counters();
    assert_eq!(counters.shed(), 0, "{:?}", counters.refused());
    assert!(
        rig.door.budget_bytes_used() >= SLOW * budget::REQUEST_BYTES,
        "the slow ones are still there"
    );
}

#[tokio::test]
async fn who_announces_much_and_sends_little_keeps_nobody_out() {
    let rig = small().await;
    let mut senders = trickle(&rig, &format!("content-length: {ANNOUNCED_BYTES}\r\n\r\n")).await;
    others_are_served(&rig).await;
    assert!(senders.try_join_next().is_none(), "one was let go");
}

#[tokio::test]
async fn who_sends_slowly_without_a_length_keeps_nobody_out() {
    let rig = small().await;
    let mut senders = trickle(&rig, "transfer-encoding: chunked\r\n\r\n").await;
    others_are_served(&rig).await;
    assert!(senders.try_join_next().is_none(), "one was let go");
}

#[tokio::test]
async fn many_slow_streams_of_one_connection_keep_nobody_out() {
    let rig = small().await;
    let channel: Channel = channel(&rig).await;
    // 100,000 bytes are announced, eight come; or not even so much is said
    let firsts: [&[u8]; 2] = [&[0, 0, 1, 0x86, 0xa0, 1, 2, 3, 4, 5, 6, 7, 8], &[0]];
    let mut calls = JoinSet::new();
    for first in firsts.into_iter().cycle().take(SLOW) {
        calls.spawn(channel.clone().oneshot(unfinished(&rig, first)));
    }
    while rig.door.budget_bytes_used() < SLOW * budget::REQUEST_BYTES {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    others_are_served(&rig).await;
    assert!(calls.try_join_next().is_none(), "one was answered");
}
