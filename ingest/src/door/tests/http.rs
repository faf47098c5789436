//! OTLP/HTTP: statuses, codings, patience.

use super::*;
use prost::Message;
use std::io::Write;

pub(super) const PROTOBUF: &str = "content-type: application/x-protobuf\r\n";
const JSON: &str = "content-type: application/json\r\n";

pub(super) fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

fn deflate(plain: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::ZlibEncoder::new(Vec::new(), flate2::Compression::fast());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

#[tokio::test]
async fn every_coding_and_path_brings_the_same_message() {
    let rig = Rig::taking().await;
    let plain = one_span(5_000).encode_to_vec();
    let packed = [
        ("identity", plain.clone()),
        ("gzip", gzip(&plain)),
        ("deflate", deflate(&plain)),
        ("zstd", zstd::encode_all(&plain[..], 1).unwrap()),
    ];
    for (coding, body) in &packed {
        for path in ["/v1/traces", "/tracer/v1/traces"] {
            let headers = format!("{PROTOBUF}content-encoding: {coding}\r\n");
            let (status, head, answer) = rig.post(path, &headers, body).await;
            assert_eq!((status, answer.len()), (200, 0), "{coding} {head}");
            assert!(head.contains("content-type: application/x-protobuf"), "{head}");
            assert_eq!(rig.came.recv().unwrap(), (Signal::Traces, plain.clone().into()));
        }
    }
    assert_eq!(rig.door.budget_bytes_used(), 0);
}

#[tokio::test]
async fn chunked_gzip_from_javascript_is_read() {
    let rig = Rig::taking().await;
    let plain = one_span(200_000).encode_to_vec();
    let mut request = format!(
        "POST /v1/traces HTTP/1.1\r\nhost: x\r\nconnection: close\r\n{PROTOBUF}\
         content-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n"
    )
    .into_bytes();
    for chunk in gzip(&plain).chunks(77) {
        request.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
        request.extend_from_slice(chunk);
        request.extend_from_slice(b"\r\n");
    }
    request.extend_from_slice(b"0\r\n\r\n");
    assert_eq!(rig.raw(&request).await.0, 200);
    assert_eq!(rig.came.recv().unwrap().1, plain);
}

#[tokio::test]
async fn errors_come_as_status_in_the_type_of_the_request() {
    let rig = Rig::new(DoorConfig::default(), || Err(Refusal::Malformed("field 0".to_owned()))).await;
    let (status, head, body) = rig.post("/v1/traces", PROTOBUF, b"junk").await;
    assert_eq!(status, 400);
    assert!(head.contains("content-type: application/x-protobuf"));
    let detail = refused::Status::decode(&body[..]).unwrap();
    assert_eq!((detail.code, detail.message.ends_with("field 0")), (3, true));

    let (status, head, body) = rig.post("/v1/logs", JSON, br#"{"resourceLogs":[}"#).await;
    assert_eq!(status, 400);
    assert!(head.contains("content-type: application/json"));
    let detail: serde_json::Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(detail["code"], 3);
    assert!(
        detail["message"].as_str().unwrap().contains("line 1 column 18"),
        "{detail}"
    );
}

#[tokio::test]
async fn what_does_not_fit_has_its_own_status() {
    let rig = Rig::taking().await;
    assert_eq!(rig.post("/v1/trace", PROTOBUF, b"").await.0, 404);
    assert_eq!(
        rig.post("/v1/traces", "content-type: text/plain\r\n", b"x").await.0,
        415
    );
    assert_eq!(rig.post("/v1/traces", "", b"x").await.0, 415);
    let (status, head, _) = rig
        .post("/v1/traces", &format!("{PROTOBUF}content-encoding: br\r\n"), b"x")
        .await;
    assert_eq!(status, 415);
    assert!(
        head.contains("accept-encoding: identity, gzip, deflate, zstd"),
        "{head}"
    );
    let (status, head, _) = rig
        .raw(b"GET /v1/traces HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        .await;
    assert_eq!((status, head.contains("allow: post")), (405, true));
    assert_eq!(
        rig.post("/v1/traces", &format!("{PROTOBUF}content-encoding: gzip\r\n"), b"x")
            .await
            .0,
        400
    );
}

#[tokio::test]
async fn empty_requests_and_metrics_are_fine_and_reach_no_lane() {
    let rig = Rig::taking().await;
    assert_eq!(rig.post("/v1/traces", PROTOBUF, b"").await.0, 200);
    assert_eq!(rig.post("/v1/logs", JSON, b"{}").await.2, b"{}");
    assert_eq!(
        rig.post("/v1/metrics", JSON, br#"{"resourceMetrics":[{"a":[1]}]}"#)
            .await
            .0,
        200
    );
    assert!(rig.came.try_recv().is_err());
}

#[tokio::test]
async fn waiting_to_be_unfolded_is_waiting_for_the_answer() {
    const WAIT: Duration = Duration::from_millis(300);
    let config = DoorConfig {
        inflate_threads: 1,
        ..DoorConfig::default()
    };
    let rig = Rig::new(config, || Ok(Accepted::default())).await;
    rig.door.inflaters.spawn(|| std::thread::sleep(WAIT));
    let headers = format!("{PROTOBUF}content-encoding: gzip\r\n");
    let body = gzip(&one_span(100).encode_to_vec());
    assert_eq!(rig.post("/v1/traces", &headers, &body).await.0, 200);
    let (answers, sum_us) = rig.door.counters().ack_time.total();
    assert_eq!(answers, 1);
    assert!(sum_us > 250_000, "{sum_us} us");
}

#[tokio::test]
async fn metrics_that_are_none_are_refused_in_either_format() {
    let rig = Rig::taking().await;
    for (format, body) in [
        (PROTOBUF, &b"junk"[..]),
        (PROTOBUF, b"\x0a\x03\x12\x02\x0a"),
        (JSON, b"junk"),
    ] {
        let (status, head, _) = rig.post("/v1/metrics", format, body).await;
        assert_eq!(status, 400, "{head}");
    }
    let counters = rig.door.counters();
    assert!(
        counters.refused().contains(&("malformed", 3)),
        "{:?}",
        counters.refused()
    );
    assert_eq!(counters.metrics_requests.load(Relaxed), 0);
}

#[tokio::test]
async fn partial_success_in_json_counts_in_a_string() {
    let partial = || {
        Ok(Accepted {
            accepted: 1,
            rejected: 2,
            message: "why".to_owned(),
        })
    };
    let rig = Rig::new(DoorConfig::default(), partial).await;
    let body = br#"{"resourceLogs":[{}]}"#;
    let answer: serde_json::Value = serde_json::from_slice(&rig.post("/v1/logs", JSON, body).await.2).unwrap();
    assert_eq!(
        answer,
        serde_json::json!({"partialSuccess": {"rejectedLogRecords": "2", "errorMessage": "why"}})
    );
}

#[tokio::test]
async fn full_is_429_and_stopping_is_503_both_with_retry_after() {
    let (intake, lane) = Intake::new(0);
    let rig = Rig::before(DoorConfig::default(), intake, mpsc::channel().1).await;
    let (status, head, _) = rig.post("/v1/traces", PROTOBUF, b"x").await;
    assert_eq!((status, head.contains("retry-after: 1")), (429, true), "{head}");
    drop(lane);
    let (status, head, _) = rig.post("/v1/traces", PROTOBUF, b"x").await;
    assert_eq!((status, head.contains("retry-after: 1")), (503, true), "{head}");
}

#[tokio::test]
async fn oversize_is_413_even_for_a_client_that_sends_on() {
    let config = DoorConfig {
        body_bytes_max: 64 * KIB,
        ..DoorConfig::default()
    };
    let rig = Rig::new(config, || Ok(Accepted::default())).await;
    assert_eq!(rig.post("/v1/traces", PROTOBUF, &vec![0; 64 * KIB]).await.0, 200);
    let (status, head, _) = rig.post("/v1/traces", PROTOBUF, &vec![0; 8 * MIB]).await;
    assert_eq!((status, head.contains("retry-after")), (413, false));
}

#[tokio::test]
async fn bombs_cost_no_more_than_they_are_allowed() {
    let rig = Rig::taking().await;
    let zeros = vec![0; 80 * MIB];
    let bombs = [
        ("zstd", zstd::encode_all(&zeros[..], 1).unwrap()),
        ("gzip", gzip(&zeros)),
    ];
    for (coding, bomb) in bombs {
        let headers = format!("{PROTOBUF}content-encoding: {coding}\r\n");
        let (status, ..) = rig.post("/v1/traces", &headers, &bomb).await;
        assert_eq!(status, 413, "{coding}");
    }
    assert_eq!(rig.door.budget_bytes_used(), 0);
    assert!(rig.came.try_recv().is_err());
}

#[tokio::test]
async fn one_connection_too_many_is_closed_and_a_freed_place_is_given_again() {
    let config = DoorConfig {
        connections_max: 2,
        ..DoorConfig::default()
    };
    let rig = Rig::new(config, || Ok(Accepted::default())).await;
    let first = TcpStream::connect(rig.address).await.unwrap();
    let _second = TcpStream::connect(rig.address).await.unwrap();
    let mut third = TcpStream::connect(rig.address).await.unwrap();
    assert_eq!(third.read(&mut [0]).await.unwrap_or(0), 0);
    let counters = rig.door.counters();
    assert_eq!(counters.connections_refused.load(Relaxed), 1);
    assert_eq!(
        (counters.came(), counters.shed()),
        (1, 1),
        "what it would have sent is missing"
    );
    drop(first);
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(rig.post("/v1/traces", PROTOBUF, b"").await.0, 200);
}

#[tokio::test]
async fn a_request_in_flight_at_shutdown_still_gets_its_answer() {
    let (intake, lane) = Intake::new(8);
    let mut rig = Rig::before(DoorConfig::default(), intake, mpsc::channel().1).await;
    let mut socket = TcpStream::connect(rig.address).await.unwrap();
    let request = format!("POST /v1/traces HTTP/1.1\r\nhost: x\r\n{PROTOBUF}content-length: 1\r\n\r\nx");
    socket.write_all(request.as_bytes()).await.unwrap();
    let envelope = tokio::task::spawn_blocking(move || lane.recv().unwrap()).await.unwrap();
    rig.stop.take().unwrap().send(()).unwrap();
    tokio::time::sleep(Duration::from_millis(100)).await;
    envelope.reply.send(Ok(Accepted::default())).unwrap();
    assert_eq!(answer(&mut socket).await.0, 200);
    rig.served.await.unwrap();
    assert!(TcpStream::connect(rig.address).await.is_err());
}
