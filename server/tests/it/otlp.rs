//! OTLP requests as a gateway would send them, and the shortest way to ask SQL.

use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind},
};
use prost::Message;
use std::{
    net::SocketAddr,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

fn text(key: &str, value: &str) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    }
}

fn int(key: &str, value: i64) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::IntValue(value)),
        }),
        ..KeyValue::default()
    }
}

/// A request of one trace: a server span that carries route and color, and a model call below that carries neither.
pub fn trace(n: u64, color: &str) -> Vec<u8> {
    let end = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
    let start = end - 200_000_000;
    let trace_id = (u128::from(n) + (1 << 100)).to_be_bytes().to_vec();
    let span = |id: u64, parent: Option<u64>, name: &str, kind: SpanKind, attributes: Vec<KeyValue>| Span {
        trace_id: trace_id.clone(),
        span_id: (n * 2 + id + 1).to_be_bytes().to_vec(),
        parent_span_id: parent.map_or_else(Vec::new, |id| (n * 2 + id + 1).to_be_bytes().to_vec()),
        name: name.to_owned(),
        kind: kind as i32,
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        attributes,
        status: Some(Status::default()),
        ..Span::default()
    };
    let root = vec![
        text("gateway.route.name", "chat"),
        text("gateway.route.color", color),
        text("gateway.route.version", "7"),
    ];
    let call = vec![
        text("gen_ai.operation.name", "chat"),
        text("gen_ai.provider.name", "openai"),
        text("gen_ai.request.model", "gpt-4o-mini"),
        int("gen_ai.usage.input_tokens", 1_000),
        int("gen_ai.usage.output_tokens", 100),
    ];
    let spans = vec![
        span(0, None, "POST /chat", SpanKind::Server, root),
        span(1, Some(0), "chat gpt-4o-mini", SpanKind::Client, call),
    ];
    let scope = InstrumentationScope {
        name: "it".to_owned(),
        ..InstrumentationScope::default()
    };
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", "gateway")],
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    };
    request.encode_to_vec()
}

pub fn client() -> reqwest::Client {
    server::cli::http_client(Duration::from_secs(20)).unwrap()
}

/// Sends a request; true if it was acknowledged.
pub async fn export(client: &reqwest::Client, to: SocketAddr, body: Vec<u8>) -> bool {
    let request = client
        .post(format!("http://{to}/v1/traces"))
        .header("content-type", "application/x-protobuf");
    request
        .body(body)
        .send()
        .await
        .is_ok_and(|answer| answer.status() == 200)
}

/// Rows of an answer.
pub async fn sql(client: &reqwest::Client, api: SocketAddr, sql: &str) -> serde_json::Value {
    let request = client
        .post(format!("http://{api}/api/v1/sql"))
        .json(&serde_json::json!({ "sql": sql }));
    let answer = request.send().await.unwrap();
    let status = answer.status();
    let answer: serde_json::Value = answer.json().await.unwrap();
    assert_eq!(status, 200, "{answer}");
    answer["rows"].clone()
}

/// Asks until the answer is the expected one, for at most `within`.
pub async fn eventually(
    client: &reqwest::Client,
    api: SocketAddr,
    question: &str,
    expected: serde_json::Value,
    within: Duration,
) {
    let begun = Instant::now();
    loop {
        let rows = sql(client, api, question).await;
        if rows == expected {
            return;
        }
        assert!(begun.elapsed() < within, "{question}: {rows}, expected {expected}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
