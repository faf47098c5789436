//! The spans a gateway emits for one request: the request itself, the model call and a tool call below it.
//! Only the request's span carries color, version and cohort; what lies below must inherit them.

use super::traffic::{Answer, COHORTS, Visit};
use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind},
};
use proto::{Color, Nanos};

/// Name of the demo's route.
pub const ROUTE: &str = "support-chat";
/// Model of both colors: the release changes the prompt.
pub const MODEL: &str = "gpt-4o-mini";
/// Versions of blue and green.
pub const VERSIONS: [&str; 2] = ["41", "42"];

/// A request that has been answered.
#[derive(Debug, Clone)]
pub struct Served {
    /// As drawn.
    pub visit: Visit,
    /// Path it took.
    pub color: Color,
    /// Green's share when it was chosen.
    pub split: f64,
    /// When it came in.
    pub start: Nanos,
    /// What came back.
    pub answer: Answer,
}

impl Served {
    /// When the answer was complete.
    #[must_use]
    pub fn end(&self) -> Nanos {
        self.start.plus(self.answer.latency)
    }

    fn spans(&self) -> [Span; 3] {
        let version = VERSIONS[usize::from(self.color == Color::Green)];
        let prompt_version = if self.color == Color::Green { "13" } else { "12" };
        let took = self.answer.latency;
        let end = self.end();
        let [root, call, tool] = self.visit.span_ids;
        [
            self.span(
                root,
                None,
                "POST /v1/chat",
                SpanKind::Server,
                self.start,
                end,
                vec![
                    text("gateway.route.name", ROUTE),
                    text("gateway.route.color", self.color.as_str()),
                    text("gateway.route.version", version),
                    double("gateway.route.split", self.split),
                    text("customer.tier", COHORTS[self.visit.cohort]),
                    text("http.request.method", "POST"),
                    int("http.response.status_code", 200),
                ],
            ),
            self.span(
                call,
                Some(root),
                "chat gpt-4o-mini",
                SpanKind::Client,
                self.start.plus(took / 20),
                end.minus(took / 20),
                vec![
                    text("gen_ai.operation.name", "chat"),
                    text("gen_ai.provider.name", "openai"),
                    text("gen_ai.request.model", MODEL),
                    text("gen_ai.response.model", "gpt-4o-mini-2024-07-18"),
                    text("gen_ai.prompt.name", "support"),
                    text("gen_ai.prompt.version", prompt_version),
                    int("gen_ai.usage.input_tokens", self.answer.prompt_tokens),
                    int("gen_ai.usage.output_tokens", self.answer.completion_tokens),
                    double("gen_ai.response.time_to_first_chunk", took.as_secs_f64() * 0.3),
                ],
            ),
            self.span(
                tool,
                Some(root),
                "execute_tool lookup_order",
                SpanKind::Internal,
                self.start.plus(took / 10),
                self.start.plus(took / 5),
                vec![
                    text("gen_ai.operation.name", "execute_tool"),
                    text("gen_ai.tool.name", "lookup_order"),
                ],
            ),
        ]
    }

    #[allow(clippy::too_many_arguments)] // one argument a field of the wire message
    fn span(
        &self,
        id: [u8; 8],
        parent: Option<[u8; 8]>,
        name: &str,
        kind: SpanKind,
        start: Nanos,
        end: Nanos,
        attributes: Vec<KeyValue>,
    ) -> Span {
        Span {
            trace_id: self.visit.trace_id.to_vec(),
            span_id: id.to_vec(),
            parent_span_id: parent.map(|p| p.to_vec()).unwrap_or_default(),
            name: name.to_owned(),
            kind: kind.into(),
            start_time_unix_nano: start.0.unsigned_abs(),
            end_time_unix_nano: end.0.unsigned_abs(),
            attributes,
            status: Some(Status::default()),
            ..Span::default()
        }
    }

    fn evaluation(&self, now: Nanos) -> LogRecord {
        let (score, label) = if self.answer.eval_failed {
            (0.2, "fail")
        } else {
            (0.9, "pass")
        };
        LogRecord {
            time_unix_nano: now.0.unsigned_abs(),
            observed_time_unix_nano: now.0.unsigned_abs(),
            event_name: "gen_ai.evaluation.result".to_owned(),
            trace_id: self.visit.trace_id.to_vec(),
            span_id: self.visit.span_ids[1].to_vec(),
            attributes: vec![
                text("gen_ai.evaluation.name", "TaskCompletion"),
                double("gen_ai.evaluation.score.value", score),
                text("gen_ai.evaluation.score.label", label),
            ],
            ..LogRecord::default()
        }
    }
}

/// Requests of a batch as one export, children before their root.
#[must_use]
pub fn export_spans(batch: &[Served]) -> ExportTraceServiceRequest {
    let spans = batch.iter().flat_map(|s| s.spans().into_iter().rev()).collect();
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(resource("llm-gateway")),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope("demo-gateway")),
                spans,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
}

/// Evaluations of a batch as one export.
#[must_use]
pub fn export_evaluations(batch: &[Served], now: Nanos) -> ExportLogsServiceRequest {
    let log_records = batch.iter().map(|s| s.evaluation(now)).collect();
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            resource: Some(resource("evaluator")),
            scope_logs: vec![ScopeLogs {
                scope: Some(scope("demo-evaluator")),
                log_records,
                ..ScopeLogs::default()
            }],
            ..ResourceLogs::default()
        }],
    }
}

fn resource(service: &str) -> Resource {
    Resource {
        attributes: vec![text("service.name", service)],
        ..Resource::default()
    }
}

fn scope(name: &str) -> InstrumentationScope {
    InstrumentationScope {
        name: name.to_owned(),
        ..InstrumentationScope::default()
    }
}

fn attribute(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    attribute(key, Value::StringValue(value.to_owned()))
}

fn int(key: &str, value: i64) -> KeyValue {
    attribute(key, Value::IntValue(value))
}

fn double(key: &str, value: f64) -> KeyValue {
    attribute(key, Value::DoubleValue(value))
}
