//! Requests as the exporters of Go and Java make them, through the real doors: what they write that others do not (flags,
//! schema URLs, dropped counts, links, lists, empty texts as values of no kind), their headers, and how they compress.

use crate::otlp::{eventually, sql};
use crate::running::Running;
use flate2::{Compression, write::GzEncoder};
use http_body_util::{BodyExt, Full};
use opentelemetry_proto::tonic::{
    collector::trace::v1::{ExportTraceServiceRequest, ExportTraceServiceResponse},
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, Link, SpanKind},
        status::StatusCode,
    },
};
use prost::Message;
use serde_json::json;
use std::{
    io::Write,
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use tonic::transport::Endpoint;
use tower::ServiceExt;

/// Flags of a span: whether its parent was in another process is known, and it was.
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;
/// The trace flag that Java writes beside them, and Go does not.
const SAMPLED: u32 = 1;
const SCHEMA: &str = "https://opentelemetry.io/schemas/1.37.0";

/// An attribute; `None` is what Java writes for an empty text: a value of no kind.
fn attribute(key: &str, value: Option<Value>) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value }),
        ..KeyValue::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Some(Value::StringValue(value.to_owned())))
}

fn int(key: &str, value: i64) -> KeyValue {
    attribute(key, Some(Value::IntValue(value)))
}

fn list(key: &str, values: impl IntoIterator<Item = Value>) -> KeyValue {
    let values = values.into_iter().map(|value| AnyValue { value: Some(value) });
    let values = ArrayValue {
        values: values.collect(),
    };
    attribute(key, Some(Value::ArrayValue(values)))
}

/// What differs between the two.
struct Exporter {
    language: &'static str,
    agent: &'static str,
    flags: u32,
    resource: Vec<KeyValue>,
    scope: InstrumentationScope,
    /// Schema of resource and scope.
    schemas: [&'static str; 2],
    /// Attributes of the call.
    more: Vec<KeyValue>,
}

fn go() -> Exporter {
    Exporter {
        language: "go",
        agent: "OTel OTLP Exporter Go/1.38.0",
        flags: HAS_IS_REMOTE,
        resource: vec![
            text("telemetry.sdk.name", "opentelemetry"),
            text("telemetry.sdk.version", "1.38.0"),
        ],
        scope: InstrumentationScope {
            name: "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp".to_owned(),
            version: "0.63.0".to_owned(),
            attributes: vec![text("scope.kind", "http")],
            dropped_attributes_count: 0,
        },
        schemas: [SCHEMA, SCHEMA],
        more: vec![
            list("go.sizes", [Value::IntValue(1), Value::IntValue(-2)]),
            list("go.on", [Value::BoolValue(true), Value::BoolValue(false)]),
            list("go.none", []),
        ],
    }
}

fn java() -> Exporter {
    Exporter {
        language: "java",
        agent: "OTel-OTLP-Exporter-Java/1.54.1",
        flags: HAS_IS_REMOTE | SAMPLED,
        resource: vec![
            text("telemetry.distro.name", "opentelemetry-java-instrumentation"),
            int("process.pid", 4_711),
            list(
                "process.command_args",
                ["/opt/java/bin/java", "-jar", "gateway.jar"].map(|arg| Value::StringValue(arg.to_owned())),
            ),
        ],
        scope: InstrumentationScope {
            name: "io.opentelemetry.openai-java-1.1".to_owned(),
            version: "2.20.1-alpha".to_owned(),
            ..InstrumentationScope::default()
        },
        schemas: ["", SCHEMA],
        more: vec![
            text("thread.name", "http-nio-8080-exec-1"),
            int("thread.id", 31),
            attribute("java.empty", None),
            list(
                "java.stops",
                ["\u{e9}", "\"\n"].map(|stop| Value::StringValue(stop.to_owned())),
            ),
        ],
    }
}

impl Exporter {
    /// A server span whose parent is elsewhere, and a model call below it that fails after a retry.
    fn request(&self, trace: u8) -> Vec<u8> {
        let now = u64::try_from(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos()).unwrap();
        let start = now - 300_000_000;
        let id = |low: u8| vec![self.language.len() as u8, 0, 0, 0, 0, 0, trace, low];
        let trace_id = [id(0), id(0)].concat();
        let root = Span {
            trace_id: trace_id.clone(),
            span_id: id(1),
            trace_state: "vendor=a:1,other=2".to_owned(),
            parent_span_id: id(99),
            flags: self.flags | IS_REMOTE,
            name: "POST /chat".to_owned(),
            kind: SpanKind::Server as i32,
            start_time_unix_nano: start,
            end_time_unix_nano: now,
            attributes: vec![
                text("gateway.route.name", "chat"),
                text("gateway.route.color", "green"),
                text("gateway.route.version", "8"),
                int("http.response.status_code", 200),
            ],
            status: Some(Status::default()),
            ..Span::default()
        };
        let call = Span {
            trace_id: trace_id.clone(),
            span_id: id(2),
            parent_span_id: id(1),
            flags: self.flags,
            name: "chat gpt-4o-mini".to_owned(),
            kind: SpanKind::Client as i32,
            start_time_unix_nano: start + 1_000_000,
            end_time_unix_nano: now - 1_000_000,
            attributes: [
                vec![
                    text("gen_ai.operation.name", "chat"),
                    text("gen_ai.provider.name", "openai"),
                    text("gen_ai.request.model", "gpt-4o-mini"),
                    list(
                        "gen_ai.response.finish_reasons",
                        [Value::StringValue("stop".to_owned())],
                    ),
                    int("gen_ai.usage.input_tokens", 1_000),
                    int("gen_ai.usage.output_tokens", 100),
                ],
                self.more.clone(),
            ]
            .concat(),
            dropped_attributes_count: 3,
            events: vec![Event {
                time_unix_nano: start + 2_000_000,
                name: "retry".to_owned(),
                attributes: vec![int("attempt", 1)],
                dropped_attributes_count: 1,
            }],
            dropped_events_count: 2,
            links: vec![Link {
                trace_id: trace_id.iter().rev().copied().collect(),
                span_id: id(3),
                trace_state: "vendor=b".to_owned(),
                attributes: vec![text("why", "batch")],
                flags: self.flags,
                ..Link::default()
            }],
            dropped_links_count: 1,
            status: Some(Status {
                code: StatusCode::Error as i32,
                message: "upstream".to_owned(),
            }),
            ..Span::default()
        };
        let mut resource = vec![
            text("service.name", &format!("{}-gateway", self.language)),
            text("telemetry.sdk.language", self.language),
        ];
        resource.extend(self.resource.clone());
        let request = ExportTraceServiceRequest {
            resource_spans: vec![ResourceSpans {
                resource: Some(Resource {
                    attributes: resource,
                    ..Resource::default()
                }),
                scope_spans: vec![ScopeSpans {
                    scope: Some(self.scope.clone()),
                    // an exporter sends spans as they end: the child first
                    spans: vec![call, root],
                    schema_url: self.schemas[1].to_owned(),
                }],
                schema_url: self.schemas[0].to_owned(),
            }],
        };
        request.encode_to_vec()
    }
}

fn gzip(plain: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(plain).unwrap();
    encoder.finish().unwrap()
}

/// The status and the message of a call, as the wire has them.
async fn call(it: &Running, agent: &str, plain: &[u8], packed: bool) -> (String, Vec<u8>) {
    let message = if packed { gzip(plain) } else { plain.to_vec() };
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    let frame = [&[u8::from(packed)], &length[..], &message].concat();
    let mut request = http::Request::post(format!(
        "http://{}/opentelemetry.proto.collector.trace.v1.TraceService/Export",
        it.app.addresses.otlp_grpc
    ))
    .header("content-type", "application/grpc")
    .header("user-agent", agent)
    .header("grpc-accept-encoding", "gzip")
    .header("grpc-timeout", "10000m")
    .header("te", "trailers");
    if packed {
        request = request.header("grpc-encoding", "gzip");
    }
    let request = request.body(tonic::body::Body::new(Full::from(frame))).unwrap();
    let endpoint = Endpoint::new(format!("http://{}", it.app.addresses.otlp_grpc)).unwrap();
    let answer = endpoint.connect_lazy().oneshot(request).await.unwrap();
    let headers = answer.headers().clone();
    let answer = answer.into_body().collect().await.unwrap();
    let trailers = answer.trailers().unwrap_or(&headers);
    let status = trailers["grpc-status"].to_str().unwrap().to_owned();
    let message = answer.to_bytes();
    assert_eq!(message[0], 0, "an answer in plain, as both may ask for");
    (status, message[5..].to_vec())
}

async fn post(it: &Running, agent: &str, plain: &[u8], packed: bool) -> (u16, Vec<u8>) {
    let mut post = it
        .client
        .post(format!("http://{}/v1/traces", it.app.addresses.otlp_http))
        .header("content-type", "application/x-protobuf")
        .header("user-agent", agent);
    if packed {
        post = post.header("content-encoding", "gzip");
    }
    let body = if packed { gzip(plain) } else { plain.to_vec() };
    let answer = post.body(body).send().await.unwrap();
    assert_eq!(answer.headers()["content-type"], "application/x-protobuf");
    (answer.status().as_u16(), answer.bytes().await.unwrap().to_vec())
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_of_go_and_java_are_read_alike_by_every_door() {
    let it = Running::start().await;
    for exporter in [go(), java()] {
        let grpc = format!("{} grpc/1.75.0", exporter.agent);
        let (mut trace, whole) = (0, ExportTraceServiceResponse::default());
        for packed in [false, true] {
            trace += 1;
            let (status, answer) = call(&it, &grpc, &exporter.request(trace), packed).await;
            let answer = ExportTraceServiceResponse::decode(&answer[..]).unwrap();
            assert_eq!((status.as_str(), &answer), ("0", &whole), "{}", exporter.agent);
            trace += 1;
            let (status, answer) = post(&it, exporter.agent, &exporter.request(trace), packed).await;
            let answer = ExportTraceServiceResponse::decode(&answer[..]).unwrap();
            assert_eq!((status, &answer), (200, &whole), "{}", exporter.agent);
        }
    }
    let http = it.app.addresses.http;
    let count = "SELECT service_name, count(*), count(DISTINCT trace_id), count(DISTINCT span_id) FROM spans \
                 GROUP BY service_name ORDER BY service_name";
    let all = json!([["go-gateway", 8, 4, 8], ["java-gateway", 8, 4, 8]]);
    eventually(&it.client, http, count, all, Duration::from_secs(30)).await;

    let calls = "SELECT DISTINCT service_name, scope, role, kind, color, version, route, request_model, prompt_tokens, \
                 completion_tokens, finish_reason, status FROM spans WHERE role = 'call' ORDER BY service_name";
    let call = |service: &str, scope: &str| {
        let read = json!([
            "call",
            "client",
            "green",
            "8",
            "chat",
            "gpt-4o-mini",
            1_000,
            100,
            "stop",
            "error"
        ]);
        [vec![json!(service), json!(scope)], read.as_array().unwrap().clone()].concat()
    };
    let expected = json!([
        call("go-gateway", &go().scope.name),
        call("java-gateway", &java().scope.name)
    ]);
    assert_eq!(sql(&it.client, http, calls).await, expected);
    let roots = "SELECT DISTINCT service_name, name, kind, role, status, http_status, parent_span_id IS NOT NULL FROM spans \
                 WHERE role <> 'call' ORDER BY service_name";
    let roots_read = ["go-gateway", "java-gateway"]
        .map(|service| json!([service, "POST /chat", "server", "server", "unset", 200, true]));
    assert_eq!(sql(&it.client, http, roots).await, json!(roots_read));
    let lists = "SELECT DISTINCT service_name, attributes['go.sizes'], attributes['go.on'], attributes['go.none'], \
                 attributes['java.stops'], attributes['java.empty'], attributes['thread.id'] FROM spans WHERE role = 'call' \
                 ORDER BY service_name";
    let lists_read = json!([
        ["go-gateway", "[1,-2]", "[true,false]", "[]", null, null, null],
        ["java-gateway", null, null, null, "[\"\u{e9}\",\"\\\"\\n\"]", null, "31"],
    ]);
    assert_eq!(sql(&it.client, http, lists).await, lists_read);
    let around = "SELECT DISTINCT service_name, events[1]['name'], events[1]['attributes']['attempt'], \
                  links[1]['attributes']['why'], array_length(links) FROM spans WHERE role = 'call' ORDER BY service_name";
    let around_read = ["go-gateway", "java-gateway"].map(|service| json!([service, "retry", "1", "batch", 1]));
    assert_eq!(sql(&it.client, http, around).await, json!(around_read));
    it.app.shutdown().await.unwrap();
}
