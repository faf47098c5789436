//! Requests of the shape that LiteLLM's gateway exports: a captured one, with all that no two calls have in common made anew.
//!
//! Ids, times, token counts, costs and texts are replaced; attributes, errors and stack traces stay as they were captured.
//! What is shorter there than outside a test (response ids, users, texts) is made longer once, before it is encoded.

use super::slots::{Fill, Slot, mix};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::{DecodeError, Message};
use std::{iter::once, ops::Range};

const CAPTURED: &[u8] = include_bytes!("../../../testdata/captures/litellm-otel/01.traces.otlp.pb");
/// What stands in a text where something is made anew: a run of one of these.
const WORD: char = '\u{1}';
const NUMBER: char = '\u{2}';
const QUESTION: char = '\u{3}';
const ANSWER: char = '\u{4}';
/// Characters of ids and users beyond their prefix, about as services make them.
const ID_CHARS: usize = 29;
const USER_CHARS: usize = 8;
/// A number in a usage object stands behind this and a quote.
const TOKENS: &[u8] = b"_tokens";
/// Amounts within `hidden_params`.
const AMOUNTS: [&[u8]; 2] = [b"\"response_cost\": ", b"\"litellm_overhead_time_ms\": "];

/// Bytes, number of spans, and what to fill.
pub(super) fn template(spans: usize, text_bytes: usize) -> Result<(Vec<u8>, usize, Vec<Slot>), DecodeError> {
    let mut request = ExportTraceServiceRequest::decode(CAPTURED)?;
    let into = &mut request.resource_spans[0].scope_spans[0].spans;
    let captured = traces(&std::mem::take(into));
    for (number, trace) in captured.iter().cycle().enumerate() {
        if into.len() >= spans {
            break;
        }
        let first = into.len();
        into.extend(trace.iter().cloned());
        number_ids(&mut into[first..], number, first);
        into[first..].iter_mut().for_each(|span| widen(span, text_bytes));
    }
    let spans = into.len();
    let bytes = request.encode_to_vec();
    let newest = captured.iter().flatten().map(|span| span.end_time_unix_nano).max();
    let mut walk = Walk {
        bytes: &bytes,
        newest: newest.unwrap_or(0),
        trace: 0,
        slots: Vec::new(),
    };
    for scope in walk.inner(walk.inner(once(0..bytes.len()), 1), 2) {
        for span in walk.inner([scope], 2) {
            walk.span(span);
        }
    }
    let slots = walk.slots;
    Ok((bytes, spans, slots))
}

/// Spans by trace, in the order of their first.
fn traces(spans: &[Span]) -> Vec<Vec<Span>> {
    let mut traces: Vec<Vec<Span>> = Vec::new();
    for span in spans {
        match traces.iter_mut().find(|trace| trace[0].trace_id == span.trace_id) {
            Some(trace) => trace.push(span.clone()),
            None => traces.push(vec![span.clone()]),
        }
    }
    traces
}

/// Puts numbers where the ids of one trace are, for the walk to find; `first` is the number of its first span.
fn number_ids(trace: &mut [Span], number: usize, first: usize) {
    let captured: Vec<Vec<u8>> = trace.iter().map(|span| span.span_id.clone()).collect();
    let numbered = |id: &[u8]| {
        let place = captured.iter().position(|known| known == id);
        place.map_or_else(Vec::new, |place| ((first + place) as u64).to_be_bytes().to_vec())
    };
    for span in trace {
        span.trace_id = (number as u128).to_be_bytes().to_vec();
        span.span_id = numbered(&span.span_id);
        span.parent_span_id = numbered(&span.parent_span_id);
    }
}

/// Makes room for ids, users and texts as they are outside a test.
fn widen(span: &mut Span, text_bytes: usize) {
    let of_events = span.events.iter_mut().flat_map(|event| &mut event.attributes);
    for KeyValue { key, value, .. } in span.attributes.iter_mut().chain(of_events) {
        match value.as_mut().and_then(|value| value.value.as_mut()) {
            Some(Value::StringValue(text)) if key.ends_with(".user") => {
                *text = format!("u-{}", run(NUMBER, USER_CHARS))
            }
            Some(Value::StringValue(text)) => {
                for prefix in ["chatcmpl-", "call_", "req_"] {
                    *text = with_digits(text, prefix, |_| run(WORD, ID_CHARS));
                }
                for quote in ["_tokens': ", "_tokens\": "] {
                    *text = with_digits(text, quote, |digits| {
                        of_two_bytes(digits.parse().unwrap_or(0)).to_string()
                    });
                }
                let room = |captured: usize| if text_bytes > 0 { text_bytes } else { captured };
                *text = with_passage(text, "#ll", "]]", |captured| run(QUESTION, room(captured)));
                *text = with_passage(text, "Your order", "Friday.", |captured| run(ANSWER, room(captured)));
            }
            Some(Value::IntValue(count)) => *count = of_two_bytes(count.cast_unsigned()).cast_signed(),
            _ => {}
        }
    }
}

fn run(of: char, chars: usize) -> String {
    of.to_string().repeat(chars)
}

/// Numbers of three digits take two bytes as varints, from 128 on.
const fn of_two_bytes(number: u64) -> u64 {
    if number >= 100 && number < 128 {
        number + 100
    } else {
        number
    }
}

/// `text` with other digits behind every `prefix` that digits follow.
fn with_digits(text: &str, prefix: &str, other: impl Fn(&str) -> String) -> String {
    let mut parts = text.split(prefix);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        let rest = part.trim_start_matches(|c: char| c.is_ascii_digit());
        let digits = &part[..part.len() - rest.len()];
        out.push_str(prefix);
        if !digits.is_empty() {
            out.push_str(&other(digits));
        }
        out.push_str(rest);
    }
    out
}

/// `text` with another passage for each that begins and ends so; `other` is told how long it was.
fn with_passage(text: &str, begins: &str, ends: &str, other: impl Fn(usize) -> String) -> String {
    let mut parts = text.split(begins);
    let mut out = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        match part.split_once(ends) {
            Some((within, rest)) => {
                out.push_str(&other(begins.len() + within.len() + ends.len()));
                out.push_str(rest);
            }
            None => out.extend([begins, part]),
        }
    }
    out
}

/// Finds what is to be filled in the encoded request.
struct Walk<'a> {
    bytes: &'a [u8],
    /// When the last captured span ended.
    newest: u64,
    /// Number of the trace whose span is walked.
    trace: u64,
    slots: Vec<Slot>,
}

impl Walk<'_> {
    /// The fields of a message and where their values stand.
    fn fields(&self, message: Range<usize>) -> Vec<(u64, Range<usize>)> {
        let (mut fields, mut at) = (Vec::new(), message.start);
        while at < message.end {
            let tag = self.varint(&mut at);
            let from = at;
            match tag & 7 {
                0 => _ = self.varint(&mut at),
                1 => at += 8,
                5 => at += 4,
                _ => {
                    let len = self.varint(&mut at) as usize;
                    fields.push((tag >> 3, at..at + len));
                    at += len;
                    continue;
                }
            }
            fields.push((tag >> 3, from..at));
        }
        fields
    }

    fn varint(&self, at: &mut usize) -> u64 {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = self.bytes[*at];
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    }

    /// The values of one field in messages.
    fn inner(&self, messages: impl IntoIterator<Item = Range<usize>>, field: u64) -> Vec<Range<usize>> {
        let fields = messages.into_iter().flat_map(|message| self.fields(message));
        fields
            .filter(|(number, _)| *number == field)
            .map(|(_, value)| value)
            .collect()
    }

    fn slot(&mut self, place: Range<usize>, fill: Fill) {
        let (at, len) = (place.start, place.len());
        self.slots.push(Slot { at, len, fill });
    }

    /// Tells what is filled alike in this trace from everything else.
    fn key(&self, what: &[u8]) -> u64 {
        what.iter()
            .fold(mix(!self.trace), |key, byte| mix(key ^ u64::from(*byte)))
    }

    fn time(&mut self, place: Range<usize>) {
        let time = self.bytes[place.clone()]
            .iter()
            .rev()
            .fold(0, |time, byte| time << 8 | u64::from(*byte));
        self.slot(place, Fill::Ago(self.newest.saturating_sub(time)));
    }

    fn span(&mut self, span: Range<usize>) {
        for (field, place) in self.fields(span) {
            let number = |of: &[u8]| {
                of[of.len().saturating_sub(4)..]
                    .iter()
                    .fold(0, |n, byte| n << 8 | u32::from(*byte))
            };
            let number = number(&self.bytes[place.clone()]);
            match field {
                1 => {
                    self.trace = u64::from(number);
                    self.slot(place, Fill::Trace(number));
                }
                2 | 4 if !place.is_empty() => self.slot(place, Fill::Span(number)),
                7 | 8 => self.time(place),
                9 => self.attribute(place),
                11 => {
                    for (field, place) in self.fields(place) {
                        match field {
                            1 => self.time(place),
                            3 => self.attribute(place),
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
    }

    fn attribute(&mut self, attribute: Range<usize>) {
        let bytes = self.bytes;
        let key = self
            .inner([attribute.clone()], 1)
            .pop()
            .map_or(&[][..], |key| &bytes[key]);
        for value in self.inner([attribute], 2) {
            for (kind, place) in self.fields(value) {
                let raw = &bytes[place.clone()];
                match kind {
                    1 => self.text(place),
                    3 if key.starts_with(b"gen_ai.usage.") => {
                        let digits = self.varint(&mut place.start.clone()).to_string();
                        self.slot(place, Fill::Varint(self.key(digits.as_bytes()), digits.len() as u32));
                    }
                    4 if key.starts_with(b"gen_ai.cost.") && raw.iter().any(|byte| *byte > 0) => {
                        self.slot(place, Fill::Amount(self.key(raw)));
                    }
                    _ => {}
                }
            }
        }
    }

    fn text(&mut self, place: Range<usize>) {
        let bytes = self.bytes;
        let mut at = place.start;
        while at < place.end {
            let rest = &bytes[at..place.end];
            let while_ = |is: &dyn Fn(u8) -> bool| rest.iter().take_while(|byte| is(**byte)).count();
            let mark = char::from(rest[0]);
            let len = while_(&|byte| byte == rest[0]);
            match mark {
                WORD => self.slot(at..at + len, Fill::Word(self.key(&bytes[at - 4..at]))),
                NUMBER => self.slot(at..at + len, Fill::Number(self.key(b"user"))),
                QUESTION | ANSWER => self.slot(at..at + len, Fill::Text(self.key(&rest[..1]))),
                _ if is_uuid(rest) => {
                    self.slot(at..at + UUID_CHARS, Fill::Hex(self.key(&rest[..UUID_CHARS])));
                    at += UUID_CHARS;
                    continue;
                }
                _ => {
                    at += self.number(at, rest);
                    continue;
                }
            }
            at += len;
        }
    }

    /// A count or an amount that begins here; how far to go on.
    fn number(&mut self, at: usize, rest: &[u8]) -> usize {
        let digits_from = |from: usize| rest[from..].iter().take_while(|byte| byte.is_ascii_digit()).count();
        // a quote, a colon and a blank stand between
        let from = TOKENS.len() + 3;
        if rest.starts_with(TOKENS) && rest.len() > from && !rest[from..].starts_with(b"0") {
            let len = digits_from(from);
            if len > 0 {
                self.slot(
                    at + from..at + from + len,
                    Fill::Number(self.key(&rest[from..from + len])),
                );
            }
            return from + len;
        }
        let Some(name) = AMOUNTS.iter().find(|name| rest.starts_with(name)) else {
            return 1;
        };
        let point = name.len() + digits_from(name.len());
        if rest.get(point) != Some(&b'.') {
            return point;
        }
        let zeros = rest[point + 1..].iter().take_while(|byte| **byte == b'0').count();
        let from = point + 1 + zeros;
        let len = digits_from(from);
        if len > 0 {
            self.slot(at + from..at + from + len, Fill::Digits(self.key(name)));
        }
        from + len
    }
}

const UUID_CHARS: usize = 36;

fn is_uuid(text: &[u8]) -> bool {
    let Some(text) = text.get(..UUID_CHARS) else {
        return false;
    };
    let is_dash = |at: usize| matches!(at, 8 | 13 | 18 | 23);
    text.iter().enumerate().all(|(at, byte)| {
        if is_dash(at) {
            *byte == b'-'
        } else {
            byte.is_ascii_hexdigit()
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::payload::Payload;
    use std::collections::HashSet;

    /// Every text of a span's attributes and events.
    fn texts(span: &Span) -> Vec<(&str, &str)> {
        let of_events = span.events.iter().flat_map(|event| &event.attributes);
        let all = span.attributes.iter().chain(of_events);
        all.filter_map(|pair| match pair.value.as_ref()?.value.as_ref()? {
            Value::StringValue(text) => Some((pair.key.as_str(), text.as_str())),
            _ => None,
        })
        .collect()
    }

    fn int(span: &Span, key: &str) -> Option<i64> {
        let pair = span.attributes.iter().find(|pair| pair.key == key)?;
        match pair.value.as_ref()?.value.as_ref()? {
            Value::IntValue(value) => Some(*value),
            _ => None,
        }
    }

    #[test]
    fn every_request_is_a_captured_one_with_calls_of_its_own() {
        let payload = Payload::litellm(60, 300).unwrap();
        assert!(payload.spans() >= 60);
        let (mut ids, mut calls, mut questions) = (HashSet::new(), HashSet::new(), HashSet::new());
        let captured = ExportTraceServiceRequest::decode(CAPTURED).unwrap();
        let keys = |span: &Span| span.attributes.iter().map(|pair| pair.key.clone()).collect::<Vec<_>>();
        let shapes: HashSet<Vec<String>> = captured.resource_spans[0].scope_spans[0]
            .spans
            .iter()
            .map(keys)
            .collect();
        for number in 0..20 {
            let request = ExportTraceServiceRequest::decode(payload.request(7, number)).unwrap();
            assert_eq!(request.resource_spans[0].resource, captured.resource_spans[0].resource);
            let spans = &request.resource_spans[0].scope_spans[0].spans;
            assert_eq!(spans.len(), payload.spans());
            for trace in traces(spans) {
                let root = trace.iter().find(|span| span.parent_span_id.is_empty()).unwrap();
                for span in &trace {
                    assert!(
                        ids.insert((span.trace_id.clone(), span.span_id.clone())),
                        "an id came twice"
                    );
                    assert!(span.parent_span_id.is_empty() || span.parent_span_id == root.span_id);
                    assert!(span.end_time_unix_nano >= span.start_time_unix_nano);
                    assert!(shapes.contains(&keys(span)));
                    for (key, text) in texts(span) {
                        assert!(
                            !text.contains(['\u{1}', '\u{2}', '\u{3}', '\u{4}']),
                            "{key} is not filled"
                        );
                        if key == "litellm.call_id" {
                            assert!(calls.insert(text.to_owned()), "{text} came twice");
                        }
                        if key == "gen_ai.input.messages" {
                            assert!(text.len() > 300 && questions.insert(text.to_owned()));
                        }
                    }
                }
                // What stands twice in a trace is the same in both places.
                let find = |key: &str| {
                    trace
                        .iter()
                        .flat_map(texts)
                        .find(|(name, _)| *name == key)
                        .map(|(_, text)| text)
                };
                if let (Some(id), Some(raw)) = (find("gen_ai.response.id"), find("llm.openai.id")) {
                    assert_eq!(id, raw);
                    assert_eq!(id.len(), "chatcmpl-".len() + ID_CHARS);
                }
                if let (Some(tokens), Some(usage)) =
                    (int(root, "gen_ai.usage.input_tokens"), find("metadata.usage_object"))
                {
                    assert!(
                        usage.contains(&format!("'prompt_tokens': {tokens},")),
                        "{tokens}: {usage}"
                    );
                }
            }
        }
    }
}
