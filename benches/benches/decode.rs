//! Decoding spans: prost's structs against the reader's Arrow rows, of the same bytes, in one run.
//!
//! Promise: rows at least three times as fast as prost's decode alone. `small` is 512 spans of about 600 B with 15
//! attributes; `captured` is every captured trace request as one, and `scaled` is that
//! eight times over: what a batch costs however small it is counts less. Elements are spans.
#![allow(missing_docs, clippy::unwrap_used)]

use benches::captures;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use ingest::read::{ReadConfig, Reader};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, any_value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status},
};
use prost::Message;
use proto::Nanos;
use std::{hint::black_box, path::Path, sync::Arc};

const SPANS: u64 = 512;
/// How often the captured requests stand in `scaled`: about as many spans as a busy lane gathers for one batch.
const SCALE: usize = 8;

fn attribute(key: &str, value: any_value::Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    attribute(key, any_value::Value::StringValue(value.into()))
}

fn int(key: &str, value: u64) -> KeyValue {
    attribute(key, any_value::Value::IntValue(value.cast_signed()))
}

fn small_span(n: u64) -> Span {
    let reasons = ArrayValue {
        values: vec![AnyValue {
            value: Some(any_value::Value::StringValue("stop".to_owned())),
        }],
    };
    let start = 1_795_183_385_000_000_000 + n * 1_000_003;
    Span {
        trace_id: [
            n.to_be_bytes(),
            (n / 4 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_be_bytes(),
        ]
        .concat(),
        span_id: (n + 1).wrapping_mul(0x2545_f491_4f6c_dd1d).to_be_bytes().to_vec(),
        parent_span_id: n.wrapping_mul(0x5851_f42d_4c95_7f2d).to_be_bytes().to_vec(),
        name: "chat gpt-4o-mini".to_owned(),
        kind: 3,
        start_time_unix_nano: start,
        end_time_unix_nano: start + 800_000_000 + n * 1_000,
        attributes: vec![
            text("gen_ai.operation.name", "chat"),
            text("gen_ai.provider.name", "openai"),
            text("gen_ai.request.model", "gpt-4o-mini"),
            text("gen_ai.response.model", "gpt-4o-mini-2024-07-18"),
            text("gen_ai.response.id", format!("chatcmpl-{n:024}")),
            text("gen_ai.conversation.id", format!("conv-{}", n / 8)),
            attribute("gen_ai.response.finish_reasons", any_value::Value::ArrayValue(reasons)),
            attribute("gen_ai.request.temperature", any_value::Value::DoubleValue(0.2)),
            int("gen_ai.usage.input_tokens", 1_200 + n % 97),
            int("gen_ai.usage.output_tokens", 18 + n % 61),
            int("gen_ai.usage.cache_read.input_tokens", 1_024),
            text("server.address", "api.openai.com"),
            int("server.port", 443),
            text(
                "gateway.route.color",
                if n.is_multiple_of(2) { "blue" } else { "green" },
            ),
            text("customer.tier", ["free", "pro", "enterprise"][(n % 3) as usize]),
        ],
        status: Some(Status::default()),
        ..Span::default()
    }
}

fn small() -> Vec<u8> {
    let resource = vec![
        text("service.name", "support-agent"),
        text("service.version", "2026.11.1"),
        text("deployment.environment.name", "production"),
        text("telemetry.sdk.language", "python"),
        text("gateway.route.name", "support-chat"),
        text("gateway.route.version", "2026.11.1"),
    ];
    let scope = InstrumentationScope {
        name: "opentelemetry.instrumentation.openai".to_owned(),
        ..Default::default()
    };
    let spans: Vec<Span> = (0..SPANS).map(small_span).collect();
    let scope_spans = vec![ScopeSpans {
        scope: Some(scope),
        spans,
        ..ScopeSpans::default()
    }];
    let resource = Some(Resource {
        attributes: resource,
        ..Resource::default()
    });
    let request = ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource,
            scope_spans,
            ..ResourceSpans::default()
        }],
    };
    request.encode_to_vec()
}

fn captured() -> Vec<u8> {
    captures::traces(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/captures")).unwrap()
}

fn spans_of(body: &[u8]) -> u64 {
    let request = ExportTraceServiceRequest::decode(body).unwrap();
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    scopes.map(|scope| scope.spans.len() as u64).sum()
}

fn decode(criterion: &mut Criterion) {
    let scaled = captured().repeat(SCALE);
    for (name, body) in [("small", small()), ("captured", captured()), ("scaled", scaled)] {
        let spans = spans_of(&body);
        let mut group = criterion.benchmark_group(format!("decode/{name}/{}B", body.len() as u64 / spans));
        group.throughput(Throughput::Elements(spans));
        group.bench_function("prost", |bench| {
            bench.iter(|| black_box(ExportTraceServiceRequest::decode(black_box(body.as_slice())).unwrap()));
        });
        let mut reader = Reader::new(Arc::new(ReadConfig::default()));
        group.bench_function("rows", |bench| {
            bench.iter(|| {
                let accepted = reader.read_traces(black_box(&body), Nanos(1)).unwrap();
                assert_eq!(accepted.accepted, spans);
                black_box(reader.take())
            });
        });
        group.finish();
    }
}

criterion_group!(benches, decode);
criterion_main!(benches);
