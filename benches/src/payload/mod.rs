//! Pre-encoded requests whose ids and times are patched: encoding costs nothing while the clock runs.

mod litellm;
mod slots;

use bytes::Bytes;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::resource::v1::Resource;
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use prost::{DecodeError, Message};
use slots::{Fill, Slot, mix};
use std::time::{SystemTime, UNIX_EPOCH};

/// Spans of one trace: a root that knows its color, an agent, a call and a tool below it.
const SPANS_A_TRACE: usize = 4;
/// Marks of what is patched; each is followed by the number of its span.
const TRACE_MARK: [u8; 12] = *b"\xfetrace-mark-";
const SPAN_MARK: [u8; 4] = *b"\xfes-\xfe";
const START_MARK: [u8; 4] = *b"\xfeb-\xfe";
const END_MARK: [u8; 4] = *b"\xfee-\xfe";
/// A call takes this long, ns.
const DURATION_NS: u64 = 750_000_000;

/// One request as bytes, and the places that are different in every request.
pub struct Payload {
    bytes: Vec<u8>,
    spans: usize,
    slots: Vec<Slot>,
}

impl Payload {
    /// Requests of so many spans, each with so many bytes of text (messages) beside its attributes.
    #[must_use]
    pub fn new(spans: usize, text_bytes: usize) -> Self {
        let bytes = request(spans, text_bytes).encode_to_vec();
        let mut slots = Vec::new();
        for at in 0..bytes.len() {
            let rest = &bytes[at..];
            let number = |skip: usize| {
                rest.get(skip..skip + 4)
                    .and_then(|n| n.try_into().ok())
                    .map_or(0, u32::from_be_bytes)
            };
            let (len, fill) = if rest.starts_with(&TRACE_MARK) {
                (16, Fill::Trace(number(TRACE_MARK.len())))
            } else if rest.starts_with(&SPAN_MARK) {
                (8, Fill::Span(number(SPAN_MARK.len())))
            } else if rest.starts_with(&START_MARK) {
                (8, Fill::Ago(DURATION_NS))
            } else if rest.starts_with(&END_MARK) {
                (8, Fill::Ago(0))
            } else {
                continue;
            };
            slots.push(Slot { at, len, fill });
        }
        Self { bytes, spans, slots }
    }

    /// Requests as LiteLLM's gateway exports them, of whole traces with at least so many spans together; prompts and answers
    /// have so many bytes of text, or as many as in the capture if that is 0.
    ///
    /// # Errors
    /// If the captured request cannot be read.
    pub fn litellm(spans: usize, text_bytes: usize) -> Result<Self, DecodeError> {
        let (bytes, spans, slots) = litellm::template(spans, text_bytes)?;
        Ok(Self { bytes, spans, slots })
    }

    /// Bytes of a request.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// Spans of a request.
    #[must_use]
    pub const fn spans(&self) -> usize {
        self.spans
    }

    /// The `number`th request of a seed: ids that no other has, times of now.
    #[must_use]
    pub fn request(&self, seed: u64, number: u64) -> Bytes {
        let mut bytes = self.bytes.clone();
        let id = |low: u64| mix(mix(seed).wrapping_add(number).wrapping_mul(0x1_0000_0001)).wrapping_add(low);
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |now| now.as_nanos() as u64);
        for slot in &self.slots {
            slot.fill(&mut bytes, id, now);
        }
        bytes.into()
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue {
        value: Some(Value::StringValue(value.to_owned())),
    });
    KeyValue {
        key: key.to_owned(),
        value,
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

fn id(mark: &[u8], number: usize) -> Vec<u8> {
    [mark, &(number as u32).to_be_bytes()].concat()
}

/// A time that is found again: fixed64 is little endian.
fn time(mark: [u8; 4]) -> u64 {
    u64::from_le_bytes([mark[0], mark[1], mark[2], mark[3], 0, 0, 0, 0])
}

fn span(number: usize, text_bytes: usize) -> Span {
    let place = number % SPANS_A_TRACE;
    let root = number - place;
    let trace = root / SPANS_A_TRACE;
    let (color, version) = [("blue", "41"), ("green", "42")][trace % 2];
    let (name, operation) = [
        ("POST /v1/chat/completions", "other"),
        ("invoke_agent support", "invoke_agent"),
        ("chat gpt-4o-mini", "chat"),
        ("execute_tool search_orders", "execute_tool"),
    ][place];
    let mut attributes = vec![
        text("gen_ai.operation.name", operation),
        text("gen_ai.conversation.id", "conv-5f1c9a0e"),
        text("gen_ai.agent.name", "support"),
        text("customer.tier", ["gold", "silver", "bronze"][trace % 3]),
        text("gen_ai.provider.name", "openai"),
        text("gen_ai.request.model", "gpt-4o-mini"),
        text("gen_ai.response.model", "gpt-4o-mini-2024-07-18"),
        text("gen_ai.response.id", "chatcmpl-9xYzAbCdEfGhIjKl"),
        text("server.address", "api.openai.com"),
        int("server.port", 443),
        int("gen_ai.request.max_tokens", 1024),
        text("gen_ai.request.temperature", "0.2"),
    ];
    if place == 2 {
        attributes.push(int("gen_ai.usage.input_tokens", 1200 + trace as i64 % 7));
        attributes.push(int("gen_ai.usage.output_tokens", 300));
        attributes.push(int("gen_ai.usage.cache_read.input_tokens", 200));
    } else {
        attributes.push(text("gateway.route.name", "support-chat"));
        attributes.push(text("gateway.route.color", color));
        attributes.push(text("gateway.route.version", version));
    }
    if text_bytes > 0 {
        attributes.push(text("gen_ai.input.messages", &messages(text_bytes)));
    }
    Span {
        trace_id: id(&TRACE_MARK, trace),
        span_id: id(&SPAN_MARK, number),
        parent_span_id: if place == 0 { vec![] } else { id(&SPAN_MARK, root) },
        name: name.to_owned(),
        kind: if place == 0 { 2 } else { 3 },
        start_time_unix_nano: time(START_MARK),
        end_time_unix_nano: time(END_MARK),
        attributes,
        ..Span::default()
    }
}

/// One message of about so many bytes, in words: it compresses as text does.
fn messages(bytes: usize) -> String {
    let mut content = String::with_capacity(bytes);
    let mut state = 1;
    while content.len() < bytes {
        state = mix(state);
        content.push_str(WORDS[state as usize % WORDS.len()]);
        content.push(' ');
    }
    format!(r#"[{{"role":"user","parts":[{{"type":"text","content":"{content}"}}]}}]"#)
}

const WORDS: [&str; 16] = [
    "order",
    "refund",
    "the",
    "customer",
    "of",
    "shipment",
    "please",
    "invoice",
    "and",
    "address",
    "because",
    "to",
    "yesterday",
    "delivered",
    "a",
    "twice",
];

fn request(spans: usize, text_bytes: usize) -> ExportTraceServiceRequest {
    let scope = InstrumentationScope {
        name: "loadgen".to_owned(),
        ..InstrumentationScope::default()
    };
    let scope_spans = vec![ScopeSpans {
        scope: Some(scope),
        spans: (0..spans).map(|number| span(number, text_bytes)).collect(),
        ..ScopeSpans::default()
    }];
    let resource = Resource {
        attributes: vec![text("service.name", "shop")],
        ..Resource::default()
    };
    let resource_spans = vec![ResourceSpans {
        resource: Some(resource),
        scope_spans,
        ..ResourceSpans::default()
    }];
    ExportTraceServiceRequest { resource_spans }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_request_has_ids_of_its_own_and_parents_within_its_traces() {
        let payload = Payload::new(64, 0);
        assert!(
            (550..=650).contains(&(payload.bytes() / 64)),
            "{} B a span",
            payload.bytes() / 64
        );
        let (mut traces, mut ids) = (HashSet::new(), HashSet::new());
        for number in 0..50 {
            let request = ExportTraceServiceRequest::decode(payload.request(7, number)).unwrap();
            let spans = &request.resource_spans[0].scope_spans[0].spans;
            for four in spans.chunks(SPANS_A_TRACE) {
                assert!(traces.insert(four[0].trace_id.clone()), "a trace id came twice");
                assert!(
                    four.iter()
                        .all(|span| span.trace_id == four[0].trace_id && span.attributes.len() == 15)
                );
                assert!(four[1..].iter().all(|span| span.parent_span_id == four[0].span_id));
                assert!(
                    four.iter().all(|span| ids.insert(span.span_id.clone())),
                    "a span id came twice"
                );
                assert!(
                    four.iter()
                        .all(|s| s.end_time_unix_nano - s.start_time_unix_nano == DURATION_NS)
                );
            }
        }
    }
}
