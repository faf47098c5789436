//! Random requests from a seed, and the same request in other bytes: fields in another order, unknown fields between.

use super::super::{
    content_keys::{CONTENT_KEYS, CONTENT_PREFIXES, CONTENT_WORDS, ERROR_TEXT_KEYS},
    slot::Place,
    sources::{FIRST_TOKEN_EVENTS, FLAG_EVENTS, SOURCES},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, ArrayValue, InstrumentationScope, KeyValue, KeyValueList, any_value::Value as Any},
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, Link},
    },
};

/// SplitMix64: a test needs no better one, and its seed is one number.
pub(super) struct Dice(pub(super) u64);

impl Dice {
    pub(super) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From 0 to `sides - 1`.
    pub(super) fn below(&mut self, sides: usize) -> usize {
        usize::try_from(self.roll() % sides as u64).unwrap()
    }

    pub(super) fn one_in(&mut self, sides: usize) -> bool {
        self.below(sides) == 0
    }

    pub(super) fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        &from[self.below(from.len())]
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.roll().to_le_bytes()[0]).collect()
    }
}

const TEXTS: &[&str] = &[
    "",
    "chat",
    "CHAT",
    "invoke_agent",
    "execute_tool",
    "TOOL",
    "LLM",
    "EMBEDDING",
    "RERANKER",
    "GUARDRAIL",
    "EVALUATOR",
    "CHAIN",
    "ai.generateText",
    "ai.generateText.doGenerate",
    "ai.streamText.doStream",
    "ai.toolCall",
    "completion",
    "openai",
    "openai.chat",
    "aws.bedrock",
    "azure.ai.openai",
    "gpt-4o-mini",
    "gpt-4o-mini-2024-07-18",
    "text-embedding-3-small",
    "openai/gpt-4o-mini",
    "blue",
    " Green ",
    "purple",
    "true",
    "False",
    "1200",
    " 18 ",
    "17.0",
    "0.25",
    "-5",
    "NaN",
    "inf",
    "1e400",
    "RateLimitError",
    "openai.APITimeoutError",
    "429",
    "ValueError",
    "Error code: 500 - no",
    "Error code: 42",
    "[\"tool_calls\"]",
    "tool_use",
    "checkout",
    "support-chat",
    "end_turn",
    "length",
    "{\"model\": \"gpt-4.1-mini\", \"temperature\": 0}",
    "{'prompt_tokens_details': {'cached_tokens': 7}}",
    "{'completion_tokens_details': {'reasoning_tokens': 3}}",
    "{\"total\": 0.00123, \"input\": 1}",
    "{\"model_id\": \"dep-green\", \"response_cost\": 1.5e-05}",
    "\"2026-11-20T14:03:05.120Z\"",
    "größer 漢字 🎈",
    "tab\tquote\"back\\slash\nbell\u{7}\u{8}\u{c}",
];

fn text(dice: &mut Dice) -> String {
    if dice.one_in(40) {
        return "漢🎈x".repeat(dice.below(900));
    }
    (*dice.pick(TEXTS)).to_owned()
}

fn any(dice: &mut Dice, depth: usize) -> AnyValue {
    let number = *dice.pick(&[0, 1, 2, 18, 1_200, -3, i64::MAX, i64::MIN, 429]);
    let double = *dice.pick(&[
        0.0,
        0.2,
        1.0,
        1e-7,
        1e300,
        -1.5,
        42.0,
        f64::NAN,
        f64::INFINITY,
        f64::NEG_INFINITY,
    ]);
    let value = match dice.below(if depth < 4 { 16 } else { 12 }) {
        0..=6 => Some(Any::StringValue(text(dice))),
        7 => Some(Any::BoolValue(dice.one_in(2))),
        8 => Some(Any::IntValue(number)),
        9 => Some(Any::DoubleValue(double)),
        10 => Some(Any::BytesValue(dice.bytes(5))),
        11 => None,
        12 | 13 => {
            let values = (0..dice.below(4)).map(|_| any(dice, depth + 1)).collect();
            Some(Any::ArrayValue(ArrayValue { values }))
        }
        _ => {
            let values = (0..dice.below(4))
                .map(|_| pair(text(dice), any(dice, depth + 1)))
                .collect();
            Some(Any::KvlistValue(KeyValueList { values }))
        }
    };
    AnyValue { value }
}

fn pair(key: String, value: AnyValue) -> KeyValue {
    KeyValue {
        key,
        value: Some(value),
        ..KeyValue::default()
    }
}

fn attributes(dice: &mut Dice, of_resource: bool, max: usize) -> Vec<KeyValue> {
    let count = dice.below(max);
    let mut list = Vec::new();
    for _ in 0..count {
        let key = match dice.below(10) {
            0..=5 => loop {
                let source = dice.pick(SOURCES);
                if of_resource == (source.place == Place::Span) && !dice.one_in(8) {
                    continue;
                }
                let keys: Vec<&str> = source.keys.iter().chain(source.late).copied().collect();
                if keys.is_empty() {
                    continue;
                }
                let key = *dice.pick(&keys);
                // on spans these come from events only, so that the order on the wire decides nothing
                if !key.starts_with("exception.") {
                    break key.to_owned();
                }
            },
            6 => (*dice.pick(CONTENT_KEYS)).to_owned(),
            7 => match dice.below(4) {
                0 => format!("custom.{}", dice.pick(CONTENT_WORDS)),
                1 => format!("custom_{}.{}", dice.pick(CONTENT_WORDS), dice.below(3)),
                2 => (*dice.pick(ERROR_TEXT_KEYS)).replace("exception.", "error."),
                _ => format!("{}x", dice.pick(CONTENT_PREFIXES)),
            },
            8 => (*dice.pick(&[
                "app.route",
                "customer.tier",
                "baggage.customer.tier",
                "traceloop.association.properties.release.cohort",
                "acme.model",
                "llm.openai.messages",
            ]))
            .to_owned(),
            _ => format!("custom.{}", dice.below(50)),
        };
        let value = any(dice, 0);
        list.push(pair(key, value));
    }
    if dice.one_in(30) {
        list.push(KeyValue {
            key: "no.value".to_owned(),
            ..KeyValue::default()
        });
    }
    list
}

fn id(dice: &mut Dice, len: usize) -> Vec<u8> {
    match dice.below(40) {
        0 => vec![0; len],
        1 => dice.bytes(len - 1),
        2 => Vec::new(),
        _ => dice.bytes(len),
    }
}

fn event(dice: &mut Dice, start: u64) -> Event {
    let mut list = attributes(dice, false, 4);
    let name = match dice.below(6) {
        0 => (*dice.pick(FIRST_TOKEN_EVENTS)).to_owned(),
        1 => "gen_ai.user.message".to_owned(),
        3 if dice.one_in(2) => {
            for (key, values) in [
                ("feature_flag.key", &["checkout", "support-chat", "other"][..]),
                (
                    *dice.pick(&["feature_flag.result.variant", "feature_flag.variant"]),
                    &["green", "b", ""],
                ),
            ] {
                let value = Some(Any::StringValue((*dice.pick(values)).to_owned()));
                list.push(pair(key.to_owned(), AnyValue { value }));
            }
            (*dice.pick(FLAG_EVENTS)).to_owned()
        }
        2 => text(dice),
        _ => {
            for key in ["exception.type", "exception.message"] {
                list.push(pair(
                    key.to_owned(),
                    AnyValue {
                        value: Some(Any::StringValue(text(dice))),
                    },
                ));
            }
            "exception".to_owned()
        }
    };
    Event {
        time_unix_nano: start.wrapping_add(dice.roll() % 1_000_000),
        name,
        attributes: list,
        ..Event::default()
    }
}

fn span(dice: &mut Dice) -> Span {
    let start = match dice.below(60) {
        0 => 0,
        1 => u64::MAX,
        _ => 1_795_183_385_000_000_000 + dice.roll() % 1_000_000_000,
    };
    let end = match dice.below(40) {
        0 => start.wrapping_sub(1),
        1 => u64::MAX - 1,
        2 => start,
        _ => start.wrapping_add(dice.roll() % 1_000_000_000),
    };
    let events = (0..dice.below(4).saturating_sub(1))
        .map(|_| event(dice, start))
        .collect();
    let links = (0..dice.below(4).saturating_sub(2))
        .map(|_| Link {
            trace_id: id(dice, 16),
            span_id: id(dice, 8),
            attributes: attributes(dice, false, 3),
            ..Link::default()
        })
        .collect();
    let status = (!dice.one_in(3)).then(|| Status {
        code: *dice.pick(&[0, 1, 2, 2, 7]),
        message: if dice.one_in(2) { text(dice) } else { String::new() },
    });
    Span {
        trace_id: id(dice, 16),
        span_id: id(dice, 8),
        parent_span_id: id(dice, 8),
        name: text(dice),
        kind: *dice.pick(&[0, 1, 2, 3, 4, 5, 9]),
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        attributes: attributes(dice, false, 24),
        events,
        links,
        status,
        trace_state: (*dice.pick(&["", "", "ot=th:c", "a=b, ot=rv:1;th:08", "ot=th:x", "ot=p:8"])).to_owned(),
        dropped_attributes_count: 3,
        flags: 257,
        ..Span::default()
    }
}

/// A request of a few resources, scopes and spans.
pub(super) fn request(dice: &mut Dice) -> ExportTraceServiceRequest {
    let mut request = ExportTraceServiceRequest::default();
    for _ in 0..1 + dice.below(2) {
        let mut resource_spans = ResourceSpans {
            schema_url: "https://example".to_owned(),
            ..ResourceSpans::default()
        };
        if !dice.one_in(5) {
            resource_spans.resource = Some(Resource {
                attributes: attributes(dice, true, 8),
                ..Resource::default()
            });
        }
        for _ in 0..1 + dice.below(2) {
            let scope = InstrumentationScope {
                name: text(dice),
                attributes: attributes(dice, false, 2),
                ..Default::default()
            };
            resource_spans.scope_spans.push(ScopeSpans {
                scope: (!dice.one_in(4)).then_some(scope),
                spans: (0..dice.below(5)).map(|_| span(dice)).collect(),
                ..ScopeSpans::default()
            });
        }
        request.resource_spans.push(resource_spans);
    }
    request
}

/// Messages of the trace signal, by the numbers of the fields that hold messages again.
#[derive(Clone, Copy)]
pub(super) struct Shape(pub(super) &'static [(u32, &'static Shape)]);

pub(super) static ANY: Shape = Shape(&[(5, &ARRAY), (6, &PAIRS)]);
static ARRAY: Shape = Shape(&[(1, &ANY)]);
static PAIRS: Shape = Shape(&[(1, &PAIR)]);
pub(super) static PAIR: Shape = Shape(&[(2, &ANY)]);
static RESOURCE: Shape = Shape(&[(1, &PAIR)]);
pub(super) static SCOPE: Shape = Shape(&[(3, &PAIR)]);
pub(super) static EVENT: Shape = Shape(&[(3, &PAIR)]);
static LINK: Shape = Shape(&[(4, &PAIR)]);
static STATUS: Shape = Shape(&[]);
pub(super) static SPAN: Shape = Shape(&[(9, &PAIR), (11, &EVENT), (13, &LINK), (15, &STATUS)]);
pub(super) static SCOPE_SPANS: Shape = Shape(&[(1, &SCOPE), (2, &SPAN)]);
pub(super) static RESOURCE_SPANS: Shape = Shape(&[(1, &RESOURCE), (2, &SCOPE_SPANS)]);
pub(super) static REQUEST: Shape = Shape(&[(1, &RESOURCE_SPANS)]);

pub(super) fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

pub(super) fn take_varint(rest: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..).step_by(7) {
        let (&byte, after) = rest.split_first().unwrap();
        *rest = after;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            break;
        }
    }
    value
}

/// The same message in other bytes. Fields of one number keep their order: that is what a repeated field means.
pub(super) fn shuffled(message: &[u8], shape: Shape, dice: &mut Dice) -> Vec<u8> {
    let mut by_number: Vec<(u64, Vec<Vec<u8>>)> = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let key = take_varint(&mut rest);
        let mut field = Vec::new();
        varint(key, &mut field);
        match key & 7 {
            0 => varint(take_varint(&mut rest), &mut field),
            1 => field.extend(rest.split_off(..8).unwrap()),
            2 => {
                let len = usize::try_from(take_varint(&mut rest)).unwrap();
                let inner = rest.split_off(..len).unwrap();
                let inner_shape = shape.0.iter().find(|(number, _)| u64::from(*number) == key >> 3);
                let inner = inner_shape.map_or_else(|| inner.to_vec(), |(_, shape)| shuffled(inner, **shape, dice));
                varint(inner.len() as u64, &mut field);
                field.extend(inner);
            }
            5 => field.extend(rest.split_off(..4).unwrap()),
            other => panic!("wire type {other}"),
        }
        match by_number.iter_mut().find(|(known, _)| *known == key >> 3) {
            Some((_, fields)) => fields.push(field),
            None => by_number.push((key >> 3, vec![field])),
        }
    }
    by_number.iter_mut().for_each(|(_, fields)| fields.reverse());
    if dice.one_in(4) {
        by_number.push((0, vec![unknown_field(dice)]));
    }
    let mut out = Vec::new();
    while !by_number.is_empty() {
        let at = dice.below(by_number.len());
        let (_, fields) = &mut by_number[at];
        out.extend(fields.pop().unwrap());
        if fields.is_empty() {
            by_number.swap_remove(at);
        }
    }
    out
}

fn unknown_field(dice: &mut Dice) -> Vec<u8> {
    let mut field = Vec::new();
    let number = 100 + dice.roll() % 10_000;
    let wire_type = *dice.pick(&[0, 1, 2, 3, 5]);
    varint(number << 3 | wire_type, &mut field);
    match wire_type {
        0 => varint(dice.roll(), &mut field),
        1 => field.extend(dice.bytes(8)),
        2 => {
            let bytes = dice.bytes(3);
            field.push(3);
            field.extend(bytes);
        }
        3 => {
            (0..dice.below(3)).for_each(|_| field.extend(unknown_field(dice)));
            varint(number << 3 | 4, &mut field);
        }
        _ => field.extend(dice.bytes(4)),
    }
    field
}
