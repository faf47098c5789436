//! Bytes that no client should send: no panic, no half-read request, no unbounded work.

use super::{
    super::{ContentPolicy, ReadConfig, ReadError, Reader},
    cells,
    messages::Dice,
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value as Any},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;
use proto::Nanos;
use std::{path::Path, sync::Arc, time::Instant};

pub(super) const NOW: Nanos = Nanos(77);

pub(super) fn reader() -> Reader {
    Reader::new(Arc::new(ReadConfig::default()))
}

fn capture(name: &str) -> Vec<u8> {
    std::fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../testdata/captures")
            .join(name),
    )
    .unwrap()
}

pub(super) fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue {
        value: Some(Any::StringValue(value.to_owned())),
    });
    KeyValue {
        key: key.to_owned(),
        value,
        ..KeyValue::default()
    }
}

pub(super) fn good_span(attributes: Vec<KeyValue>) -> Span {
    Span {
        trace_id: vec![7; 16],
        span_id: vec![9; 8],
        start_time_unix_nano: 1_000,
        end_time_unix_nano: 2_000,
        attributes,
        ..Span::default()
    }
}

pub(super) fn request(spans: Vec<Span>, resource: Vec<KeyValue>) -> Vec<u8> {
    let resource_spans = ResourceSpans {
        resource: Some(Resource {
            attributes: resource,
            ..Resource::default()
        }),
        scope_spans: vec![ScopeSpans {
            spans,
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    };
    ExportTraceServiceRequest {
        resource_spans: vec![resource_spans],
    }
    .encode_to_vec()
}

/// Wraps `message` as field `number`.
fn field(number: u32, message: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    prost::encoding::encode_varint(u64::from(number << 3 | 2), &mut out);
    prost::encoding::encode_varint(message.len() as u64, &mut out);
    out.extend_from_slice(message);
    out
}

#[test]
fn a_request_cut_anywhere_is_refused_whole_or_read() {
    let good = capture("otel-genai-openai-latest/04.traces.otlp.pb");
    for name in [
        "openinference-openai/02.traces.otlp.pb",
        "traceai-openai/02.traces.otlp.pb",
        "evals-hand/03.logs.otlp.pb",
    ] {
        let body = capture(name);
        let mut reader = reader();
        reader.read_traces(&good, NOW).unwrap();
        let before = reader.rows();
        let mut refused = 0;
        for len in 0..body.len() {
            let rows = reader.rows();
            let is_logs = name.contains("logs");
            let read = if is_logs {
                reader.read_logs(&body[..len], NOW)
            } else {
                reader.read_traces(&body[..len], NOW)
            };
            if read.is_err() {
                assert_eq!(reader.rows(), rows, "{name} cut at {len}");
                refused += 1;
            }
        }
        assert!(refused > 100, "{name}");
        assert!(reader.rows() >= before);
        reader.take();
        assert_eq!(reader.rows(), 0);
    }
}

#[test]
fn flipped_bits_never_panic_and_never_leave_a_mixed_batch() {
    let body = capture("pydantic-ai/01.traces.otlp.pb");
    let mut reader = reader();
    for seed in 0..600 {
        let mut dice = Dice(seed);
        let mut flipped = body.clone();
        for _ in 0..1 + dice.below(4) {
            let at = dice.below(flipped.len());
            flipped[at] ^= 1 << dice.below(8);
        }
        let _ = reader.read_traces(&flipped, NOW);
        let _ = reader.read_logs(&flipped, NOW);
        if dice.one_in(8) {
            let rows = reader.rows();
            let sections = reader.take();
            let taken: usize = sections.iter().map(|section| section.rows.num_rows()).sum();
            assert_eq!(taken, rows, "seed {seed}");
        }
    }
}

#[test]
fn a_refused_request_leaves_the_rows_of_others_as_they_were() {
    let good = capture("openinference-langchain/01.traces.otlp.pb");
    let mut bad = good.clone();
    bad.extend(field(1, &field(2, &field(2, &field(5, b"\xff\xfe")))));
    let rows = |bad_ones: usize| {
        let mut reader = reader();
        for _ in 0..bad_ones {
            assert_eq!(
                reader.read_traces(&bad[..bad.len() - 1], NOW),
                Err(ReadError::Truncated)
            );
        }
        reader.read_traces(&good, NOW).unwrap();
        for _ in 0..bad_ones {
            assert!(reader.read_traces(&bad[..bad.len() - 1], NOW).is_err());
        }
        reader.read_traces(&good, NOW).unwrap();
        cells::rows(&reader.take()[0].rows)
    };
    assert_eq!(rows(0), rows(2));
}

#[test]
fn text_that_is_not_utf8_is_refused_wherever_it_stands() {
    let good = request(
        vec![good_span(vec![
            text("custom.key", "VALUE"),
            text("input.value", "DROPPED"),
        ])],
        vec![text("host.name", "RESOURCE")],
    );
    assert!(reader().read_traces(&good, NOW).is_ok());
    for word in ["VALUE", "DROPPED", "RESOURCE", "custom.key", "input.value", "host.name"] {
        let mut bad = good.clone();
        let at = bad
            .windows(word.len())
            .position(|window| window == word.as_bytes())
            .unwrap();
        bad[at] = 0xff;
        let mut reader = reader();
        assert_eq!(reader.read_traces(&bad, NOW), Err(ReadError::Utf8), "{word}");
        assert_eq!(reader.rows(), 0);
    }
    // two halves of one character in neighbouring values are no text, though together they are
    let mut split = good_span(vec![text("a", "xy"), text("b", "yz")]);
    split.name = "n".to_owned();
    let mut body = request(vec![split], vec![]);
    for (from, to) in [(&b"xy"[..], [b'x', 0xc3]), (b"yz", [0xa9, b'z'])] {
        let at = body.windows(2).position(|window| window == from).unwrap();
        body[at..at + 2].copy_from_slice(&to);
    }
    assert_eq!(reader().read_traces(&body, NOW), Err(ReadError::Utf8));
}

#[test]
fn values_nested_a_hundred_thousand_deep_are_null_and_counted() {
    // AnyValue { array_value: ArrayValue { values: [AnyValue ..] } }, written from its end
    let mut backwards: Vec<u8> = field(1, b"deep").into_iter().rev().collect();
    for number in [1, 5].into_iter().cycle().take(200_000) {
        let mut header = vec![number << 3 | 2];
        prost::encoding::encode_varint(backwards.len() as u64, &mut header);
        backwards.extend(header.into_iter().rev());
    }
    let value: Vec<u8> = backwards.into_iter().rev().collect();
    let deep = |key: &[u8]| {
        let attribute = [field(1, key), field(2, &value)].concat();
        let mut span = good_span(vec![]).encode_to_vec();
        span.extend(field(9, &attribute));
        field(1, &field(2, &field(2, &span)))
    };
    // content that is dropped is only checked to be text
    for (policy, key, counted) in [
        (ContentPolicy::Drop, "custom", 1),
        (ContentPolicy::Drop, "gen_ai.input.messages", 0),
        (ContentPolicy::Hash, "gen_ai.input.messages", 2),
        (ContentPolicy::Keep, "gen_ai.input.messages", 2),
        (ContentPolicy::Keep, "gen_ai.prompt.0.content", 1),
    ] {
        let mut reader = Reader::new(Arc::new(ReadConfig {
            content: policy.into(),
            ..ReadConfig::default()
        }));
        assert_eq!(reader.read_traces(&deep(key.as_bytes()), NOW).unwrap().accepted, 1);
        let row = cells::rows(&reader.take()[0].rows).remove(0);
        let expected = (counted > 0).then(|| serde_json::json!([[key, null]]));
        assert_eq!(row.get("attributes"), expected.as_ref(), "{policy:?} {key}");
        assert_eq!(reader.counts().values_too_deep, counted, "{policy:?} {key}");
    }
}

#[test]
fn nesting_up_to_the_limit_is_kept_as_json() {
    let mut value = Any::StringValue("end".to_owned());
    for _ in 0..super::super::value::NESTING_MAX {
        value = Any::ArrayValue(ArrayValue {
            values: vec![AnyValue { value: Some(value) }],
        });
    }
    let mut attribute = text("custom", "");
    attribute.value = Some(AnyValue { value: Some(value) });
    let mut reader = reader();
    reader
        .read_traces(&request(vec![good_span(vec![attribute])], vec![]), NOW)
        .unwrap();
    let rows = cells::rows(&reader.take()[0].rows);
    let json = rows[0]["attributes"][0][1].as_str().unwrap().to_owned();
    assert_eq!(json, format!("{}\"end\"{}", "[".repeat(64), "]".repeat(64)));
}

#[test]
fn a_million_attributes_are_capped_and_the_last_one_still_counts() {
    let mut attributes: Vec<KeyValue> = (0..1_000_000).map(|n| text(&format!("key.{n}"), "value")).collect();
    attributes.push(text("gateway.route.name", "late"));
    let body = request(vec![good_span(attributes)], vec![]);
    let mut reader = reader();
    let began = Instant::now();
    reader.read_traces(&body, NOW).unwrap();
    let took = began.elapsed();
    let rows = cells::rows(&reader.take()[0].rows);
    assert_eq!(rows[0]["attributes"].as_array().unwrap().len(), 256);
    assert_eq!(rows[0]["route"], "late");
    assert_eq!(reader.counts().attributes_over_max, 1_000_001 - 256);
    assert!(took.as_secs() < 2 || cfg!(debug_assertions), "{took:?}");
}

#[test]
fn a_fat_resource_is_not_copied_without_end() {
    let resource = (0..256)
        .map(|n| text(&format!("key.{n}"), &"x".repeat(4_000)))
        .collect();
    let body = request(vec![good_span(vec![]); 2_000], resource);
    let mut reader = reader();
    reader.read_traces(&body, NOW).unwrap();
    assert!(
        reader.bytes() < 12 * body.len() + (2 << 20),
        "{} from {}",
        reader.bytes(),
        body.len()
    );
    assert!(reader.counts().resources_left_out > 1_900);
    assert_eq!(reader.take()[0].rows.num_rows(), 2_000);
}

#[test]
fn spans_that_cannot_be_placed_are_rejected_alone_and_counted() {
    let good = good_span(vec![text("a", "b")]);
    let spans = vec![
        Span {
            trace_id: vec![0; 16],
            ..good.clone()
        },
        good.clone(),
        Span {
            trace_id: vec![1; 15],
            ..good.clone()
        },
        Span {
            span_id: vec![],
            ..good.clone()
        },
        Span {
            start_time_unix_nano: 0,
            ..good.clone()
        },
        Span {
            start_time_unix_nano: u64::MAX,
            end_time_unix_nano: u64::MAX,
            ..good.clone()
        },
        Span {
            end_time_unix_nano: 999,
            ..good.clone()
        },
        Span {
            end_time_unix_nano: u64::MAX,
            ..good.clone()
        },
        good,
    ];
    let mut reader = reader();
    let accepted = reader.read_traces(&request(spans, vec![]), NOW).unwrap();
    assert_eq!((accepted.accepted, accepted.rejected), (2, 7));
    assert_eq!(
        accepted.message,
        "2 rejected: trace_id must be 16 bytes, not all zero; 1 rejected: span_id must be 8 bytes, not all zero; \
         2 rejected: start_time_unix_nano must be set and before the year 2262; \
         2 rejected: end_time_unix_nano must not be before the start, and before the year 2262"
    );
    assert_eq!(reader.counts().rejected, [2, 1, 2, 2, 0]);
    let rows = cells::rows(&reader.take()[0].rows);
    assert_eq!(rows.len(), 2);
    assert!(rows.iter().all(|row| row["attributes"].as_array().unwrap().len() == 1));
}

#[test]
fn wire_faults_have_their_names() {
    for (bytes, error) in [
        (&b"\x0a"[..], ReadError::Truncated),
        (b"\x0a\x05abc", ReadError::Truncated),
        (b"\x0b", ReadError::Truncated),
        (b"\x0c", ReadError::WireType),
        (b"\x0b\x14", ReadError::WireType),
        (b"\x0b\x0f\x0c", ReadError::WireType),
        (&[0x0b; 200], ReadError::WireType),
        (b"\x0e", ReadError::WireType),
        (b"\x02\x00", ReadError::WireType),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\x02", ReadError::Varint),
        (b"\xff\xff\xff\xff\x7f", ReadError::Varint),
        (b"\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", ReadError::Truncated),
    ] {
        assert_eq!(reader().read_traces(bytes, NOW), Err(error), "{bytes:x?}");
    }
    let deep = [[0x0b; 100], [0x0c; 100]].concat();
    for bytes in [&b""[..], b"\x0b\x0c", b"\x0b\x13\x0a\x01x\x14\x08\x05\x0c", &deep] {
        assert_eq!(reader().read_traces(bytes, NOW).unwrap().accepted, 0, "{bytes:x?}");
    }
    assert!(reader().take().is_empty());
}

#[test]
fn a_small_batch_after_a_large_one_does_not_keep_its_room() {
    let one = request(vec![good_span(vec![text("a", "b")])], vec![text("service.name", "s")]);
    let many = request(
        vec![good_span(vec![text("a", "b")]); 5_000],
        vec![text("service.name", "s")],
    );
    let mut reader = reader();
    reader.read_traces(&many, NOW).unwrap();
    let large = reader.take()[0].rows.get_array_memory_size();
    reader.read_traces(&one, NOW).unwrap();
    let small = reader.take()[0].rows.get_array_memory_size();
    assert!(small < large / 50, "{small} after {large}");
}
