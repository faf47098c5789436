//! Captured requests as values: cut into smaller ones, and written again so that their bytes differ.

use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    logs::v1::{ResourceLogs, ScopeLogs},
    trace::v1::{ResourceSpans, ScopeSpans},
};
use prost::Message as _;
use serde_json::Value;
use std::{
    fs,
    path::{Path, PathBuf},
};

/// How finely a request is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    Whole,
    Resource,
    Scope,
    /// One span or log record a request.
    Record,
}

/// One export request.
#[derive(Debug, Clone, PartialEq)]
pub enum Message {
    Traces(ExportTraceServiceRequest),
    Logs(ExportLogsServiceRequest),
}

/// Where the captures are.
pub fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/captures")
}

/// The truth: what the provider served, and what of it stands on the wire.
pub fn manifest() -> Value {
    serde_json::from_slice(&fs::read(folder().join("MANIFEST.json")).unwrap()).unwrap()
}

/// Every captured request of a client, in the order it was sent.
pub fn of_client(client: &str) -> Vec<Message> {
    let mut files: Vec<PathBuf> = fs::read_dir(folder().join(client))
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    files.iter().map(|file| read(file)).collect()
}

/// Every captured request, client by client.
pub fn all() -> Vec<Message> {
    let manifest = manifest();
    let clients = manifest["clients"].as_object().unwrap();
    clients.keys().flat_map(|client| of_client(client)).collect()
}

fn read(file: &Path) -> Message {
    let body = fs::read(file).unwrap();
    let name = file.file_name().unwrap().to_str().unwrap();
    match (name.contains(".logs."), name.ends_with(".json")) {
        (false, false) => Message::Traces(ExportTraceServiceRequest::decode(&body[..]).unwrap()),
        (false, true) => Message::Traces(serde_json::from_slice(&body).unwrap()),
        (true, false) => Message::Logs(ExportLogsServiceRequest::decode(&body[..]).unwrap()),
        (true, true) => Message::Logs(serde_json::from_slice(&body).unwrap()),
    }
}

fn cut_traces(request: ExportTraceServiceRequest, cut: Cut) -> Vec<Message> {
    let mut parts = Vec::new();
    for of_resource in request.resource_spans {
        if cut == Cut::Resource {
            parts.push(of_resource);
            continue;
        }
        let envelope = ResourceSpans {
            scope_spans: Vec::new(),
            ..of_resource.clone()
        };
        for of_scope in of_resource.scope_spans {
            let slices: Vec<ScopeSpans> = match cut {
                Cut::Record => {
                    let one = |span| ScopeSpans {
                        spans: vec![span],
                        ..of_scope.clone()
                    };
                    of_scope.spans.iter().cloned().map(one).collect()
                }
                _ => vec![of_scope],
            };
            parts.extend(slices.into_iter().map(|slice| ResourceSpans {
                scope_spans: vec![slice],
                ..envelope.clone()
            }));
        }
    }
    let request = |part| {
        Message::Traces(ExportTraceServiceRequest {
            resource_spans: vec![part],
        })
    };
    parts.into_iter().map(request).collect()
}

fn cut_logs(request: ExportLogsServiceRequest, cut: Cut) -> Vec<Message> {
    let mut parts = Vec::new();
    for of_resource in request.resource_logs {
        if cut == Cut::Resource {
            parts.push(of_resource);
            continue;
        }
        let envelope = ResourceLogs {
            scope_logs: Vec::new(),
            ..of_resource.clone()
        };
        for of_scope in of_resource.scope_logs {
            let slices: Vec<ScopeLogs> = match cut {
                Cut::Record => {
                    let one = |record| ScopeLogs {
                        log_records: vec![record],
                        ..of_scope.clone()
                    };
                    of_scope.log_records.iter().cloned().map(one).collect()
                }
                _ => vec![of_scope],
            };
            parts.extend(slices.into_iter().map(|slice| ResourceLogs {
                scope_logs: vec![slice],
                ..envelope.clone()
            }));
        }
    }
    let request = |part| {
        Message::Logs(ExportLogsServiceRequest {
            resource_logs: vec![part],
        })
    };
    parts.into_iter().map(request).collect()
}

impl Message {
    /// The same records in smaller requests.
    pub fn cut(self, cut: Cut) -> Vec<Self> {
        match self {
            whole if cut == Cut::Whole => vec![whole],
            Self::Traces(request) => cut_traces(request, cut),
            Self::Logs(request) => cut_logs(request, cut),
        }
    }

    /// The same records written otherwise: attributes and records in reverse, a schema that says nothing new. No digest
    /// of the bytes is what it was.
    pub fn rewritten(&self) -> Self {
        const SCHEMA: &str = "https://opentelemetry.io/schemas/1.0.0";
        let mut other = self.clone();
        match &mut other {
            Self::Traces(request) => {
                for of_resource in &mut request.resource_spans {
                    SCHEMA.clone_into(&mut of_resource.schema_url);
                    for of_scope in &mut of_resource.scope_spans {
                        of_scope.spans.reverse();
                        of_scope.spans.iter_mut().for_each(|span| span.attributes.reverse());
                    }
                }
            }
            Self::Logs(request) => {
                for of_resource in &mut request.resource_logs {
                    SCHEMA.clone_into(&mut of_resource.schema_url);
                    for of_scope in &mut of_resource.scope_logs {
                        of_scope.log_records.reverse();
                        of_scope.log_records.iter_mut().for_each(|log| log.attributes.reverse());
                    }
                }
            }
        }
        assert_ne!(other.protobuf(), self.protobuf());
        other
    }

    pub fn protobuf(&self) -> Vec<u8> {
        match self {
            Self::Traces(request) => request.encode_to_vec(),
            Self::Logs(request) => request.encode_to_vec(),
        }
    }

    /// OTLP/JSON. `numeric` writes 64-bit integers as numbers, as exporters of JavaScript do, instead of as strings.
    pub fn json(&self, numeric: bool) -> Vec<u8> {
        let mut value = match self {
            Self::Traces(request) => serde_json::to_value(request),
            Self::Logs(request) => serde_json::to_value(request),
        }
        .unwrap();
        if numeric {
            integers_as_numbers(&mut value);
        }
        serde_json::to_vec(&value).unwrap()
    }

    /// `traces` or `logs`.
    pub const fn signal(&self) -> &'static str {
        match self {
            Self::Traces(_) => "traces",
            Self::Logs(_) => "logs",
        }
    }
}

fn integers_as_numbers(value: &mut Value) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                match field.as_str().and_then(|text| text.parse::<i64>().ok()) {
                    Some(number) if name == "intValue" => *field = number.into(),
                    _ => integers_as_numbers(field),
                }
            }
        }
        Value::Array(items) => items.iter_mut().for_each(integers_as_numbers),
        _ => {}
    }
}
