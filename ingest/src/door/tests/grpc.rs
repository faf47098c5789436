//! OTLP/gRPC with the tonic client that every Rust exporter uses.

use super::*;
use crate::door::refused::{RetryInfo, Status};
use ::http::{HeaderMap, Request};
use http_body_util::{BodyExt, Full};
use opentelemetry_proto::tonic::collector::{
    logs::v1::{ExportLogsServiceRequest, logs_service_client::LogsServiceClient},
    metrics::v1::{ExportMetricsServiceRequest, metrics_service_client::MetricsServiceClient},
    trace::v1::trace_service_client::TraceServiceClient,
};
use prost::Message;
use tonic::Code;
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt;

pub(super) async fn channel(rig: &Rig) -> Channel {
    Endpoint::new(format!("http://{}", rig.address))
        .unwrap()
        .connect()
        .await
        .unwrap()
}

/// Calls Export with a hand-made frame; status and the answer's headers or trailers.
async fn call(rig: &Rig, path: &str, encoding: &str, flag: u8, message: &[u8]) -> (i32, HeaderMap) {
    let mut frame = vec![flag];
    frame.extend_from_slice(&u32::try_from(message.len()).unwrap().to_be_bytes());
    frame.extend_from_slice(message);
    let request = Request::post(format!("http://{}{path}", rig.address))
        .header("content-type", "application/grpc")
        .header("grpc-encoding", encoding)
        .header("te", "trailers")
        .body(tonic::body::Body::new(Full::from(frame)))
        .unwrap();
    let answer = channel(rig).await.oneshot(request).await.unwrap();
    let headers = answer.headers().clone();
    let trailers = answer.into_body().collect().await.unwrap().trailers().cloned();
    let found = trailers
        .filter(|map| map.contains_key("grpc-status"))
        .unwrap_or(headers);
    (found["grpc-status"].to_str().unwrap().parse().unwrap(), found)
}

pub(super) const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

#[tokio::test]
async fn traces_and_logs_arrive_as_sent_and_metrics_are_only_counted() {
    let rig = Rig::taking().await;
    let channel = channel(&rig).await;
    let sent = one_span(100);
    let answer = TraceServiceClient::new(channel.clone())
        .export(sent.clone())
        .await
        .unwrap()
        .into_inner();
    assert_eq!(answer.partial_success, None);
    assert_eq!(rig.came.recv().unwrap(), (Signal::Traces, sent.encode_to_vec().into()));

    let logs = ExportLogsServiceRequest {
        resource_logs: vec![Default::default()],
    };
    LogsServiceClient::new(channel.clone())
        .export(logs.clone())
        .await
        .unwrap();
    assert_eq!(rig.came.recv().unwrap(), (Signal::Logs, logs.encode_to_vec().into()));

    let metrics = ExportMetricsServiceRequest {
        resource_metrics: vec![Default::default()],
    };
    MetricsServiceClient::new(channel).export(metrics).await.unwrap();
    assert!(rig.came.try_recv().is_err());
    assert_eq!(rig.door.counters().metrics_requests.load(Relaxed), 1);
    assert_eq!(rig.door.budget_bytes_used(), 0);
}

#[tokio::test]
async fn a_message_of_many_frames_is_joined() {
    let rig = Rig::taking().await;
    let sent = one_span(3 * MIB);
    TraceServiceClient::new(channel(&rig).await)
        .export(sent.clone())
        .await
        .unwrap();
    assert_eq!(rig.came.recv().unwrap().1, sent.encode_to_vec());
}

#[tokio::test]
async fn partial_success_names_what_was_rejected() {
    let partial = || {
        Ok(Accepted {
            accepted: 1,
            rejected: 2,
            message: "end before start".to_owned(),
        })
    };
    let rig = Rig::new(DoorConfig::default(), partial).await;
    let answer = TraceServiceClient::new(channel(&rig).await)
        .export(one_span(1))
        .await
        .unwrap()
        .into_inner();
    let partial = answer.partial_success.unwrap();
    assert_eq!(
        (partial.rejected_spans, partial.error_message.as_str()),
        (2, "end before start")
    );
}

#[tokio::test]
async fn an_unreadable_message_is_invalid_argument() {
    let rig = Rig::new(DoorConfig::default(), || Err(Refusal::Malformed("field 0".to_owned()))).await;
    let status = TraceServiceClient::new(channel(&rig).await)
        .export(one_span(1))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::InvalidArgument);
    assert_eq!(status.message(), "the request is not a readable OTLP message: field 0");
    assert_eq!(call(&rig, TRACES, "identity", 7, b"x").await.0, 3);
}

#[tokio::test]
async fn sixty_four_mebibytes_pass_and_one_byte_more_is_refused_for_good() {
    let rig = Rig::taking().await;
    let mut client = TraceServiceClient::new(channel(&rig).await);
    client.export(sized(64 * MIB)).await.unwrap();
    assert_eq!(rig.came.recv().unwrap().1.len(), 64 * MIB);
    let status = client.export(sized(64 * MIB + 1)).await.unwrap_err();
    assert_eq!(status.code(), Code::ResourceExhausted);
    assert!(
        status.details().is_empty(),
        "RetryInfo would make the client send it again"
    );
}

#[tokio::test]
async fn a_full_queue_says_when_to_come_back() {
    let (intake, _lane) = Intake::new(0);
    let rig = Rig::before(DoorConfig::default(), intake, mpsc::channel().1).await;
    let status = TraceServiceClient::new(channel(&rig).await)
        .export(one_span(1))
        .await
        .unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert_eq!(retry_in(status.details()), 1);
    assert_eq!(rig.door.counters().shed_requests.load(Relaxed), 1);
}

/// What a refusal that may be sent again says of when, in whole seconds.
pub(super) fn retry_in(details: &[u8]) -> i64 {
    let details = Status::decode(details).unwrap().details;
    assert_eq!(details[0].type_url, "type.googleapis.com/google.rpc.RetryInfo");
    let wait = RetryInfo::decode(details[0].value.as_slice()).unwrap();
    wait.retry_delay.unwrap().seconds
}

#[tokio::test]
async fn bytes_stay_charged_until_the_lane_lets_go_of_them_though_the_client_left() {
    let (intake, lane) = Intake::new(8);
    let config = DoorConfig {
        budget_bytes: 64 * KIB,
        ..DoorConfig::default()
    };
    let rig = Rig::before(config, intake, mpsc::channel().1).await;
    let mut client = TraceServiceClient::new(channel(&rig).await);
    let mut impatient = client.clone();
    for _ in 0..3 {
        let _ = tokio::time::timeout(Duration::from_millis(200), impatient.export(sized(16 * KIB))).await;
    }
    assert_eq!(lane.len(), 3);
    assert_eq!(rig.door.budget_bytes_used(), 3 * (16 + 2) * KIB);
    let status = client.export(sized(16 * KIB)).await.unwrap_err();
    assert_eq!(status.code(), Code::Unavailable);
    assert!(status.message().contains("bytes in flight"), "{status}");
    let too_large = client.export(sized(16 * KIB + 1)).await.unwrap_err();
    assert_eq!(
        too_large.code(),
        Code::ResourceExhausted,
        "more than a quarter of the budget never passes"
    );
    for envelope in lane.try_iter() {
        drop(envelope.body);
    }
    assert_eq!(rig.door.budget_bytes_used(), 0);
}

#[tokio::test]
async fn compressed_messages_are_read_and_unknown_codings_are_unimplemented() {
    let rig = Rig::taking().await;
    let plain = one_span(1_000).encode_to_vec();
    for (name, packed) in [
        ("gzip", http::gzip(&plain)),
        ("zstd", zstd::encode_all(&plain[..], 1).unwrap()),
    ] {
        assert_eq!(call(&rig, TRACES, name, 1, &packed).await.0, 0, "{name}");
        assert_eq!(rig.came.recv().unwrap().1, plain);
    }
    let (status, headers) = call(&rig, TRACES, "snappy", 1, &plain).await;
    assert_eq!(
        (status, headers["grpc-accept-encoding"].to_str().unwrap()),
        (12, "identity, gzip, deflate, zstd")
    );
    assert_eq!(call(&rig, TRACES, "gzip", 1, &plain).await.0, 3);
    assert_eq!(
        call(&rig, "/some.other.Service/Export", "identity", 0, &plain).await.0,
        12
    );
}
