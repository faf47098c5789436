//! Answers and tool calls in every dialect, from captures and re-wrapped; and what no client should send.

mod captures;
mod dialects;
mod hostile;

use super::super::{ReadConfig, Reader, tests::cells};
use crate::read::AnswerSchemas;
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value as Any},
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status},
};
use prost::Message;
use proto::Nanos;
use serde_json::{Map, Value, json};
use std::sync::Arc;

type Row = Map<String, Value>;

/// The answer has an integer `order_id`, and nothing else.
const ORDER: &str = r#"{
    "type": "object",
    "properties": {"order_id": {"type": "integer"}},
    "required": ["order_id"],
    "additionalProperties": false
}"#;

fn any(value: &Value) -> AnyValue {
    let value = match value {
        Value::Null => None,
        Value::String(text) => Some(Any::StringValue(text.clone())),
        Value::Bool(flag) => Some(Any::BoolValue(*flag)),
        Value::Number(number) if number.is_i64() => Some(Any::IntValue(number.as_i64().unwrap())),
        Value::Number(number) => Some(Any::DoubleValue(number.as_f64().unwrap())),
        Value::Array(items) => Some(Any::ArrayValue(ArrayValue {
            values: items.iter().map(any).collect(),
        })),
        Value::Object(_) => Some(Any::KvlistValue(KeyValueList {
            values: attributes(value),
        })),
    };
    AnyValue { value }
}

fn attributes(of: &Value) -> Vec<KeyValue> {
    let pair = |(key, value): (&String, &Value)| KeyValue {
        key: key.clone(),
        value: Some(any(value)),
        ..KeyValue::default()
    };
    of.as_object().unwrap().iter().map(pair).collect()
}

fn request(of: &Value, code: i32) -> Vec<u8> {
    let span = Span {
        trace_id: vec![7; 16],
        span_id: vec![9; 8],
        start_time_unix_nano: 1_000_000,
        end_time_unix_nano: 2_000_000,
        attributes: attributes(of),
        status: Some(Status {
            code,
            ..Status::default()
        }),
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans {
        spans: vec![span],
        ..ScopeSpans::default()
    }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans,
            ..ResourceSpans::default()
        }],
    }
    .encode_to_vec()
}

/// A reader that checks the answers of these routes.
fn reader(schemas: &[(&str, &str)]) -> Reader {
    let mut declared = AnswerSchemas::default();
    for (route, schema) in schemas {
        declared.declare(route, schema).unwrap();
    }
    Reader::new(Arc::new(ReadConfig {
        schemas: Arc::new(declared),
        ..ReadConfig::default()
    }))
}

fn read_with(reader: &mut Reader, of: &Value, code: i32) -> Row {
    reader.read_traces(&request(of, code), Nanos(77)).unwrap();
    cells::rows(&reader.take()[0].rows).remove(0)
}

/// The row of a call with these attributes, read with [`ORDER`] declared for `orders`.
fn call(of: &Value) -> Row {
    let mut of = of.clone();
    of["gen_ai.operation.name"] = json!("chat");
    read_with(&mut reader(&[("orders", ORDER)]), &of, 0)
}

#[track_caller]
fn check(row: &Row, expected: &Value) {
    for (column, value) in expected.as_object().unwrap() {
        assert_eq!(row.get(column).unwrap_or(&Value::Null), value, "{column} of {row:#?}");
    }
}
