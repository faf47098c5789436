//! Requests: traces of a made-up route in awkward pieces, and what real clients sent.

use super::bench::T0;
use bytes::Bytes;
use ingest::intake::Signal;
use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, KeyValue, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;
use std::{fs, path::Path};

#[derive(Debug, Clone)]
pub struct Request {
    pub signal: Signal,
    pub body: Bytes,
}

fn attributes(pairs: &[(&str, &str)]) -> Vec<KeyValue> {
    let value = |text: &str| AnyValue {
        value: Some(Value::StringValue(text.to_owned())),
    };
    pairs
        .iter()
        .map(|(key, text)| KeyValue {
            key: (*key).to_owned(),
            value: Some(value(text)),
            ..KeyValue::default()
        })
        .collect()
}

fn resource() -> Option<Resource> {
    Some(Resource {
        attributes: attributes(&[("service.name", "front")]),
        ..Resource::default()
    })
}

pub fn traces(spans: Vec<Span>) -> Request {
    let scope_spans = vec![ScopeSpans {
        spans,
        ..ScopeSpans::default()
    }];
    let resource_spans = vec![ResourceSpans {
        resource: resource(),
        scope_spans,
        ..ResourceSpans::default()
    }];
    Request {
        signal: Signal::Traces,
        body: ExportTraceServiceRequest { resource_spans }.encode_to_vec().into(),
    }
}

fn evaluation(trace: u64, label: &str) -> Request {
    judged(
        Some(trace),
        None,
        5.0,
        &[
            ("gen_ai.evaluation.name", "TaskCompletion"),
            ("gen_ai.evaluation.score.label", label),
        ],
    )
}

/// An evaluation of a trace, of a span, or of what `pairs` say, made `seconds` after the first moment.
pub fn judged(trace: Option<u64>, span: Option<u64>, seconds: f64, pairs: &[(&str, &str)]) -> Request {
    let record = LogRecord {
        time_unix_nano: ((T0 + seconds) * 1e9) as u64,
        trace_id: trace
            .map(|id| u128::from(id).to_be_bytes().to_vec())
            .unwrap_or_default(),
        span_id: span.map(|id| id.to_be_bytes().to_vec()).unwrap_or_default(),
        event_name: "gen_ai.evaluation.result".to_owned(),
        attributes: attributes(pairs),
        ..LogRecord::default()
    };
    let scope_logs = vec![ScopeLogs {
        log_records: vec![record],
        ..ScopeLogs::default()
    }];
    let resource_logs = vec![ResourceLogs {
        resource: resource(),
        scope_logs,
        ..ResourceLogs::default()
    }];
    Request {
        signal: Signal::Logs,
        body: ExportLogsServiceRequest { resource_logs }.encode_to_vec().into(),
    }
}

pub fn span(trace: u64, id: u64, parent: Option<u64>, pairs: &[(&str, &str)]) -> Span {
    let start = ((T0 + trace as f64 * 0.1) * 1e9) as u64 + id * 1_000_000;
    Span {
        trace_id: u128::from(trace).to_be_bytes().to_vec(),
        span_id: (trace * 100 + id).to_be_bytes().to_vec(),
        parent_span_id: parent
            .map(|p| (trace * 100 + p).to_be_bytes().to_vec())
            .unwrap_or_default(),
        name: "work".to_owned(),
        start_time_unix_nano: start,
        end_time_unix_nano: start + 1_000_000 * (1 + trace % 7),
        attributes: attributes(pairs),
        ..Span::default()
    }
}

/// Traces of three spans: two children first, which know nothing, then a root that knows the color; every fifth root
/// comes long after its children, and every third trace is evaluated, sometimes before its root is there.
pub fn chat(count: u64) -> Vec<Request> {
    let mut requests = Vec::new();
    let mut late = Vec::new();
    for trace in 1..=count {
        let call = [
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.request.model", "gpt-4o-mini"),
            ("gen_ai.response.model", "gpt-4o-mini"),
            ("gen_ai.usage.input_tokens", "120"),
            ("gen_ai.usage.output_tokens", "30"),
        ];
        requests.push(traces(vec![
            span(trace, 2, Some(1), &call),
            span(trace, 3, Some(1), &call),
        ]));
        if trace % 3 == 0 {
            requests.push(evaluation(trace, if trace % 2 == 0 { "fail" } else { "pass" }));
        }
        let version = if trace % 2 == 0 { "42" } else { "41" };
        let tier = ["gold", "silver", "free"][trace as usize % 3];
        let root = [
            ("gateway.route.name", "chat"),
            ("gateway.route.version", version),
            ("tier", tier),
        ];
        let root = traces(vec![span(trace, 1, None, &root)]);
        if trace % 5 == 0 {
            late.push(root)
        } else {
            requests.push(root)
        }
    }
    requests.extend(late);
    requests
}

/// Every request of every captured client; bodies that bring no rows are left out.
pub fn captured() -> Vec<Request> {
    captured_of("traces")
}

/// Every request of one signal, `traces` or `logs`.
pub fn captured_of(signal: &str) -> Vec<Request> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/captures");
    let mut files: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|client| client.unwrap().path())
        .filter(|path| path.is_dir())
        .flat_map(|client| fs::read_dir(client).unwrap().map(|file| file.unwrap().path()))
        .filter(|path| path.to_string_lossy().ends_with(&format!(".{signal}.otlp.pb")))
        .collect();
    files.sort();
    let request = |path| Request {
        signal: if signal == "logs" { Signal::Logs } else { Signal::Traces },
        body: fs::read(path).unwrap().into(),
    };
    files.into_iter().map(request).collect()
}
