//! OTLP/JSON against the mapping of the opentelemetry-proto crate, and against what only the wire shows.

use super::*;
use crate::door::json::transcode;
use opentelemetry_proto::tonic::collector::logs::v1::ExportLogsServiceRequest;
use opentelemetry_proto::tonic::common::v1::{ArrayValue, InstrumentationScope, KeyValueList};
use opentelemetry_proto::tonic::logs::v1::{LogRecord, ResourceLogs, ScopeLogs};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{Status, span};
use prost::Message;

fn value(value: Value) -> AnyValue {
    AnyValue { value: Some(value) }
}

fn attributes() -> Vec<KeyValue> {
    let list = KeyValueList {
        values: vec![text("inner", "ä\"\\\u{1F600}")],
    };
    let array = ArrayValue {
        values: vec![value(Value::IntValue(-1)), value(Value::BoolValue(false))],
    };
    [
        Value::StringValue(String::new()),
        Value::BoolValue(true),
        Value::IntValue(i64::MIN),
        Value::DoubleValue(-0.25),
        Value::ArrayValue(array),
        Value::KvlistValue(list),
        Value::BytesValue(vec![0, 255, 128]),
    ]
    .into_iter()
    .map(|v| KeyValue {
        key: "k".to_owned(),
        value: Some(value(v)),
        ..KeyValue::default()
    })
    .collect()
}

#[test]
fn every_field_of_a_span_survives_the_mapping_of_the_oracle() {
    let event = span::Event {
        time_unix_nano: 5,
        name: "e".to_owned(),
        attributes: attributes(),
        dropped_attributes_count: 1,
    };
    let link = span::Link {
        trace_id: vec![0xab; 16],
        span_id: vec![0xcd; 8],
        trace_state: "a=b".to_owned(),
        attributes: attributes(),
        dropped_attributes_count: 2,
        flags: 257,
    };
    let span = Span {
        trace_id: vec![0x5b; 16],
        span_id: vec![0xee; 8],
        trace_state: "ot=th:8".to_owned(),
        parent_span_id: vec![0x0f; 8],
        flags: 0x301,
        name: "chat gpt".to_owned(),
        kind: 3,
        start_time_unix_nano: 1_763_000_000_000_000_001,
        end_time_unix_nano: u64::MAX,
        attributes: attributes(),
        dropped_attributes_count: 3,
        events: vec![event],
        dropped_events_count: 4,
        links: vec![link],
        dropped_links_count: 5,
        status: Some(Status {
            message: "bad".to_owned(),
            code: 2,
        }),
    };
    let scope = InstrumentationScope {
        name: "s".to_owned(),
        version: "1".to_owned(),
        attributes: attributes(),
        dropped_attributes_count: 6,
    };
    let sent = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: attributes(),
                dropped_attributes_count: 7,
                ..Resource::default()
            }),
            scope_spans: vec![ScopeSpans {
                scope: Some(scope),
                spans: vec![span],
                schema_url: "u".to_owned(),
            }],
            schema_url: "v".to_owned(),
        }],
    };
    let message = transcode(Export::Traces, &serde_json::to_vec(&sent).unwrap()).unwrap();
    assert_eq!(ExportTraceServiceRequest::decode(&message[..]).unwrap(), sent);
}

#[test]
fn every_field_of_a_log_record_survives_the_mapping_of_the_oracle() {
    let record = LogRecord {
        time_unix_nano: 1,
        observed_time_unix_nano: 2,
        severity_number: 9,
        severity_text: "INFO".to_owned(),
        body: Some(value(Value::StringValue("b".to_owned()))),
        attributes: attributes(),
        dropped_attributes_count: 1,
        flags: 1,
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        event_name: "gen_ai.evaluation.result".to_owned(),
    };
    let scope_logs = vec![ScopeLogs {
        log_records: vec![record],
        ..ScopeLogs::default()
    }];
    let sent = ExportLogsServiceRequest {
        resource_logs: vec![ResourceLogs {
            scope_logs,
            ..ResourceLogs::default()
        }],
    };
    let message = transcode(Export::Logs, &serde_json::to_vec(&sent).unwrap()).unwrap();
    assert_eq!(ExportLogsServiceRequest::decode(&message[..]).unwrap(), sent);
}

fn span_of(fields: &str) -> Result<Span, serde_json::Error> {
    let json = format!(r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{{{fields}}}]}}]}}]}}"#);
    let message = transcode(Export::Traces, json.as_bytes())?;
    let request = ExportTraceServiceRequest::decode(&message[..]).unwrap();
    Ok(request.resource_spans[0].scope_spans[0].spans[0].clone())
}

#[test]
fn numbers_may_be_strings_or_numbers_nulls_are_absent_and_unknown_keys_are_ignored() {
    let span = span_of(
        r#""traceId":"5B8EFFF798038103D269B633813FC60C","startTimeUnixNano":1763000000000000001,
           "endTimeUnixNano":"1763000000000000002","parentSpanId":"","status":null,"kind":"2",
           "future":{"deep":[1,{"x":null}]},
           "attributes":[{"key":"a","value":{"intValue":"7"}},{"key":"b","value":{"intValue":8}},
                         {"key":"c","value":{"intValue":9e0}},{"key":"d","value":{"doubleValue":"NaN"}},
                         {"key":"e","value":{"doubleValue":1}},{"key":"f","value":{"what":1}},{"key":"g","value":null}]"#,
    )
    .unwrap();
    assert_eq!(span.trace_id[..3], [0x5b, 0x8e, 0xff]);
    assert_eq!(
        (span.start_time_unix_nano, span.end_time_unix_nano),
        (1_763_000_000_000_000_001, 1_763_000_000_000_000_002)
    );
    assert_eq!((span.kind, span.status, span.parent_span_id), (2, None, vec![]));
    let values: Vec<Option<Value>> = span
        .attributes
        .into_iter()
        .map(|kv| kv.value.and_then(|v| v.value))
        .collect();
    assert_eq!(
        values[..3],
        [
            Some(Value::IntValue(7)),
            Some(Value::IntValue(8)),
            Some(Value::IntValue(9))
        ]
    );
    assert!(matches!(values[3], Some(Value::DoubleValue(x)) if x.is_nan()));
    assert_eq!(values[4..], [Some(Value::DoubleValue(1.0)), None, None]);
}

#[test]
fn bytes_come_in_either_alphabet_with_or_without_padding() {
    for text in ["-_-_", "+/+/"] {
        assert_eq!(bytes_of(text).unwrap(), [0xfb, 0xff, 0xbf], "{text}");
    }
    for text in ["_w==", "_w", "/w==", "/w"] {
        assert_eq!(bytes_of(text).unwrap(), [0xff], "{text}");
    }
    for text in ["+_+_", "/", "/w==="] {
        assert!(bytes_of(text).is_err(), "{text}");
    }
}

fn bytes_of(text: &str) -> Result<Vec<u8>, serde_json::Error> {
    let span = span_of(&format!(r#""attributes":[{{"value":{{"bytesValue":"{text}"}}}}]"#))?;
    match span.attributes.into_iter().next().and_then(|kv| kv.value?.value) {
        Some(Value::BytesValue(bytes)) => Ok(bytes),
        other => panic!("{other:?}"),
    }
}

#[test]
fn half_a_character_is_replaced_and_what_is_no_text_is_refused() {
    let cut = span_of(
        r#""name":"ok \ud83d","traceState":"\ude00\ud83dx\ud83d\ude00\ud83d","status":{"message":null},
           "\ud83d":"\ud83d","attributes":[{"key":"\udead","value":{"stringValue":"\ud7ff\ue000"}}]"#,
    )
    .unwrap();
    assert_eq!(cut.name, "ok \u{fffd}");
    assert_eq!(cut.trace_state, "\u{fffd}\u{fffd}x\u{1f600}\u{fffd}");
    assert_eq!(cut.attributes, [text("\u{fffd}", "\u{d7ff}\u{e000}")]);
    for raw in [&b"\xff"[..], b"\xed\xa0\xbd", b"\xc3"] {
        for key in ["name", "unknown"] {
            let json = [br#"{"resourceSpans":[{""#, key.as_bytes(), br#"":""#, raw, br#""}]}"#].concat();
            let error = transcode(Export::Traces, &json).unwrap_err().to_string();
            assert!(error.starts_with("the JSON is not UTF-8: "), "{error}");
        }
    }
}

#[test]
fn values_that_do_not_fit_are_refused_with_their_place() {
    for (fields, says) in [
        (r#""traceId":"xyz""#, "is not hex"),
        (r#""traceId":5"#, "5 does not fit \"traceId\""),
        (r#""startTimeUnixNano":-1"#, "-1 does not fit"),
        (r#""startTimeUnixNano":1.5"#, "1.5 does not fit"),
        (r#""kind":"SPAN_KIND_CLIENT""#, "does not fit \"kind\""),
        (r#""name":{}"#, "expected a value of \"name\""),
        (r#""name":["x"]"#, "an array does not fit \"name\""),
        (r#""name":7"#, "expected a value of \"name\""),
        (r#""attributes":[{"key":"k","value":{"bytesValue":"!"}}]"#, "not base64"),
    ] {
        let error = span_of(fields).unwrap_err().to_string();
        assert!(error.contains(says) && error.contains("line 1 column"), "{error}");
    }
}

#[test]
fn depth_is_a_clean_error_and_emptiness_does_not_grow() {
    let attribute = r#"{"resourceSpans":[{"resource":{"attributes":[{"value":"#;
    let deep = attribute.to_owned() + &r#"{"arrayValue":{"values":["#.repeat(100_000);
    assert!(
        transcode(Export::Traces, deep.as_bytes())
            .unwrap_err()
            .to_string()
            .contains("recursion limit")
    );
    let empty = format!(
        r#"{{"resourceSpans":[{{"scopeSpans":[{{"spans":[{}{{}}]}}]}}]}}"#,
        "{},".repeat(300_000)
    );
    let message = transcode(Export::Traces, empty.as_bytes()).unwrap();
    assert!(message.len() < empty.len() && message.capacity() <= empty.len());
    assert_eq!(
        ExportTraceServiceRequest::decode(&message[..]).unwrap().resource_spans[0].scope_spans[0]
            .spans
            .len(),
        300_001
    );
}
