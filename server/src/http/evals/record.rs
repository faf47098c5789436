//! Entries as an OTLP request of log records.

use super::entry::{Evaluation, Kind};
use opentelemetry_proto::tonic::{
    collector::logs::v1::ExportLogsServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
};

/// Name of the event, by the convention.
const EVENT: &str = "gen_ai.evaluation.result";
/// Scope of the records.
const SCOPE: &str = "tracegate.api";

pub fn request(evaluations: Vec<Evaluation>, kind: Kind) -> ExportLogsServiceRequest {
    let scope_logs = ScopeLogs {
        scope: Some(InstrumentationScope {
            name: SCOPE.to_owned(),
            ..InstrumentationScope::default()
        }),
        log_records: evaluations.into_iter().map(|e| record(e, kind)).collect(),
        ..ScopeLogs::default()
    };
    ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs: vec![scope_logs],
            ..ResourceLogs::default()
        }],
    }
}

fn record(evaluation: Evaluation, kind: Kind) -> LogRecord {
    let source = match kind {
        Kind::Evaluation => "api",
        Kind::Feedback => "feedback",
    };
    let text = |text: Option<String>| text.map(Value::StringValue);
    let attributes = [
        ("gen_ai.evaluation.name", text(Some(evaluation.name))),
        (
            "gen_ai.evaluation.score.value",
            evaluation.score.map(Value::DoubleValue),
        ),
        ("gen_ai.evaluation.score.label", text(evaluation.label)),
        ("gen_ai.evaluation.explanation", text(evaluation.explanation)),
        ("gen_ai.response.id", text(evaluation.response_id)),
        ("tracegate.eval.source", text(Some(source.to_owned()))),
        ("tracegate.eval.passed", evaluation.passed.map(Value::BoolValue)),
        ("tracegate.eval.identifier", text(evaluation.identifier)),
    ];
    LogRecord {
        time_unix_nano: u64::try_from(evaluation.time.0).unwrap_or(0),
        event_name: EVENT.to_owned(),
        trace_id: evaluation.trace_id.map_or_else(Vec::new, |id| id.to_vec()),
        span_id: evaluation.span_id.map_or_else(Vec::new, |id| id.to_vec()),
        attributes: attributes
            .into_iter()
            .filter_map(|(key, value)| {
                Some(KeyValue {
                    key: key.to_owned(),
                    value: Some(AnyValue { value: Some(value?) }),
                    ..KeyValue::default()
                })
            })
            .collect(),
        ..LogRecord::default()
    }
}
