//! A second, straightforward reading: from prost's structs, one linear search an attribute, one map a row.
//! It shares the lists of sources with the reader, and no code.

use super::{
    super::{
        ContentPolicy, ExtraKeys, ReadConfig, Reader,
        content_keys::{
            CONTENT_EVENTS, CONTENT_KEYS, CONTENT_PREFIXES, CONTENT_WORDS, ERROR_TEXT_KEYS, RAW_CONTENT_FIELDS,
        },
        slot::{Place, Slot},
        sources::{COHORT_PREFIXES, FIRST_TOKEN_EVENTS, FLAG_ATTRIBUTE, FLAG_EVENTS, SOURCES},
    },
    cells,
    messages::{Dice, REQUEST, request, shuffled},
};
use crate::price::{PriceTable, Usage};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    trace::v1::Span,
};
use prost::Message;
use proto::{Color, Nanos};
use serde_json::{Map, Value, json};
use std::{
    path::Path,
    sync::{Arc, LazyLock},
};

const VALUE_BYTES_MAX: usize = 700;
const ATTRIBUTES_MAX: usize = 12;

/// Declared feature flags, the most trusted first.
const FLAGS: [&str; 2] = ["support-chat", "checkout"];

type Row = Map<String, Value>;

pub(super) fn config(content: ContentPolicy) -> ReadConfig {
    let mut keys = ExtraKeys::default();
    for (column, key) in [
        ("route", "app.route"),
        ("cohort", "customer.tier"),
        ("request_model", "acme.model"),
        ("feature_flag", FLAGS[0]),
        ("feature_flag", FLAGS[1]),
    ] {
        keys.add(column, key).unwrap();
    }
    ReadConfig {
        keys,
        content: content.into(),
        value_bytes_max: VALUE_BYTES_MAX,
        text_bytes_max: 900,
        attributes_max: ATTRIBUTES_MAX,
        ..ReadConfig::default()
    }
}

/// Copies of cohort keys, one key after the other.
static COHORT_COPIES: LazyLock<Vec<String>> = LazyLock::new(|| {
    let keys = ["release.cohort", "customer.tier"];
    let copies = |key| COHORT_PREFIXES.map(|prefix| format!("{prefix}{key}"));
    keys.into_iter().flat_map(copies).collect()
});

fn source(slot: Slot) -> (Vec<&'static str>, Vec<&'static str>, Place) {
    let found = SOURCES.iter().find(|source| source.slot == slot).unwrap();
    let (mut keys, mut late) = (found.keys.to_vec(), found.late.to_vec());
    match slot {
        Slot::Route => keys.push("app.route"),
        Slot::Cohort => {
            keys.push("customer.tier");
            late.extend(COHORT_COPIES.iter().map(String::as_str));
        }
        Slot::RequestModel => keys.push("acme.model"),
        _ => {}
    }
    (keys, late, found.place)
}

fn first<'t>(attributes: &'t [KeyValue], keys: &[&'static str]) -> Option<(&'static str, &'t Any)> {
    keys.iter().find_map(|&key| {
        let of_key = attributes.iter().filter(|attribute| attribute.key == key);
        let mut values = of_key.filter_map(|attribute| attribute.value.as_ref()?.value.as_ref());
        Some((
            key,
            values.find(|value| !matches!(value, Any::StringValue(text) if text.is_empty()))?,
        ))
    })
}

/// What is known of one span, before it becomes cells.
struct Around<'t> {
    span: &'t Span,
    resource: &'t [KeyValue],
    /// Of the JSON text in the resource's `metadata`.
    metadata: &'t [KeyValue],
}

fn metadata(resource: &[KeyValue]) -> Vec<KeyValue> {
    let json = first(resource, &["metadata"]).and_then(|(_, value)| text(value));
    let Some(Value::Object(stamps)) = json.and_then(|json| serde_json::from_str(json).ok()) else {
        return Vec::new();
    };
    let stamp = |(key, value): (String, Value)| {
        let value = Some(AnyValue {
            value: Some(Any::StringValue(value.as_str()?.to_owned())),
        });
        Some(KeyValue {
            key,
            value,
            ..KeyValue::default()
        })
    };
    stamps.into_iter().filter_map(stamp).collect()
}

impl<'t> Around<'t> {
    fn find(&self, slot: Slot) -> Option<(&'static str, &'t Any)> {
        let (keys, late, place) = source(slot);
        let on_span = || {
            if place == Place::Resource {
                None
            } else {
                first(&self.span.attributes, &keys)
            }
        };
        let on_resource = || {
            if place == Place::Span {
                None
            } else {
                first(self.resource, &keys)
            }
        };
        let is_stamp = matches!(slot, Slot::Route | Slot::Color | Slot::Version | Slot::Cohort);
        let in_metadata = || {
            if is_stamp { first(self.metadata, &keys) } else { None }
        };
        on_span()
            .or_else(on_resource)
            .or_else(in_metadata)
            .or_else(|| first(&self.span.attributes, &late))
    }

    /// The most trusted declared feature flag that says a variant, and the variant.
    fn flag(&self) -> Option<(&'static str, &'t Any)> {
        const VARIANT: [&str; 2] = ["feature_flag.result.variant", "feature_flag.variant"];
        let told = |attributes: &'t [KeyValue], flag: &str| {
            let (_, key) = first(attributes, &["feature_flag.key"])?;
            (text(key)? == flag).then(|| first(attributes, &VARIANT)).flatten()
        };
        FLAGS.into_iter().find_map(|flag| {
            let events = self
                .span
                .events
                .iter()
                .filter(|event| FLAG_EVENTS.contains(&event.name.as_str()));
            let (_, variant) = events
                .map(|event| &event.attributes[..])
                .chain([&self.span.attributes[..]])
                .find_map(|attributes| told(attributes, flag))?;
            Some((flag, variant))
        })
    }

    fn text(&self, slot: Slot) -> Option<&'t str> {
        text(self.find(slot)?.1)
    }

    fn in_events(&self, key: &'static str) -> Option<&'t Any> {
        self.span
            .events
            .iter()
            .find_map(|event| first(&event.attributes, &[key]))
            .map(|(_, value)| value)
    }
}

fn text(value: &Any) -> Option<&str> {
    match value {
        Any::StringValue(text) => Some(text),
        _ => None,
    }
}

fn double(value: &Any) -> Option<f64> {
    let number = match value {
        Any::DoubleValue(number) => *number,
        Any::IntValue(number) => *number as f64,
        Any::StringValue(text) => text.trim().parse().ok()?,
        _ => return None,
    };
    number.is_finite().then_some(number)
}

fn count(value: &Any) -> Option<i64> {
    let number = match value {
        Any::IntValue(number) => *number,
        Any::StringValue(text) if text.trim().parse::<i64>().is_ok() => text.trim().parse().unwrap(),
        other => {
            let number = double(other)?;
            (number.fract() == 0.0 && number.abs() <= 9e15).then_some(number as i64)?
        }
    };
    (number >= 0).then_some(number)
}

fn flag(value: &Any) -> Option<bool> {
    match value {
        Any::BoolValue(flag) => Some(*flag),
        Any::IntValue(number @ (0 | 1)) => Some(*number == 1),
        Any::StringValue(text) => match text.to_ascii_lowercase().as_str() {
            "true" | "1" => Some(true),
            "false" | "0" => Some(false),
            _ => None,
        },
        _ => None,
    }
}

fn number_text(number: f64) -> String {
    match serde_json::Number::from_f64(number) {
        Some(number) => number.to_string().replace("e+", "e"),
        None if number.is_nan() => "NaN".to_owned(),
        None => if number > 0.0 { "inf" } else { "-inf" }.to_owned(),
    }
}

fn base64(bytes: &[u8]) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(bytes)
}

fn json_text(value: &AnyValue) -> String {
    match &value.value {
        None => "null".to_owned(),
        Some(Any::StringValue(text)) => serde_json::to_string(text).unwrap(),
        Some(Any::BytesValue(bytes)) => format!("\"{}\"", base64(bytes)),
        Some(Any::DoubleValue(number)) if !number.is_finite() => "null".to_owned(),
        Some(Any::ArrayValue(array)) => {
            format!("[{}]", array.values.iter().map(json_text).collect::<Vec<_>>().join(","))
        }
        Some(Any::KvlistValue(pairs)) => {
            let pair = |pair: &KeyValue| {
                let value = pair.value.clone().unwrap_or_default();
                format!("{}:{}", serde_json::to_string(&pair.key).unwrap(), json_text(&value))
            };
            format!("{{{}}}", pairs.values.iter().map(pair).collect::<Vec<_>>().join(","))
        }
        Some(scalar) => plain_text(scalar),
    }
}

fn plain_text(value: &Any) -> String {
    match value {
        Any::StringValue(text) => text.clone(),
        Any::BoolValue(flag) => flag.to_string(),
        Any::IntValue(number) => number.to_string(),
        Any::DoubleValue(number) => number_text(*number),
        Any::BytesValue(bytes) => base64(bytes),
        nested => json_text(&AnyValue {
            value: Some(nested.clone()),
        }),
    }
}

fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

fn is_content(key: &str, value: Option<&Any>, on: On) -> bool {
    let is_source = SOURCES.iter().any(|s| s.keys.contains(&key) || s.late.contains(&key));
    let is_configured =
        ["app.route", "customer.tier", "acme.model"].contains(&key) || COHORT_COPIES.iter().any(|copy| copy == key);
    let raw = key.strip_prefix("llm.").and_then(|rest| rest.split('.').nth(1));
    let last = key
        .rsplit(['.', '_', '-'])
        .find(|word| word.parse::<u64>().is_err() && !word.is_empty());
    let is_word = last.is_some_and(|last| CONTENT_WORDS.contains(&last.to_ascii_lowercase().as_str()));
    let is_nothing_else = !is_source && !is_configured;
    CONTENT_KEYS.contains(&key)
        || ERROR_TEXT_KEYS.contains(&key)
        || is_nothing_else && CONTENT_PREFIXES.iter().any(|prefix| key.starts_with(prefix))
        || is_nothing_else && raw.is_some_and(|field| RAW_CONTENT_FIELDS.contains(&field))
        || is_nothing_else
            && on == On::Span
            && is_word
            && !matches!(
                value,
                None | Some(Any::BoolValue(_) | Any::IntValue(_) | Any::DoubleValue(_))
            )
}

fn hashed(text: &str) -> String {
    use sha2::Digest as _;
    format!("sha256:{}", hex::encode(&sha2::Sha256::digest(text)[..16]))
}

/// Where attributes stand.
#[derive(Clone, Copy, PartialEq, Eq)]
enum On {
    /// On a span, a link or an event.
    Span,
    /// On an event that is content as a whole.
    ContentEvent,
    Resource,
}

/// Entries of a map column.
fn entries(attributes: &[KeyValue], on: On, content: ContentPolicy) -> Vec<Value> {
    let mut kept = Vec::new();
    for attribute in attributes {
        let value = attribute.value.as_ref().and_then(|value| value.value.as_ref());
        let is_content = on == On::ContentEvent || is_content(&attribute.key, value, on);
        if kept.len() == ATTRIBUTES_MAX || is_content && content == ContentPolicy::Drop {
            continue;
        }
        let text = value.map(plain_text).map(|text| match content {
            ContentPolicy::Hash if is_content => hashed(&text),
            _ => cut(&text, VALUE_BYTES_MAX).to_owned(),
        });
        kept.push(json!([attribute.key, text]));
    }
    kept
}

fn role(around: &Around<'_>) -> &'static str {
    let is_aggregate = around.text(Slot::AiOperation).is_some_and(|operation| {
        let ends = [".doGenerate", ".doStream", ".doEmbed"];
        operation != "ai.toolCall" && !ends.iter().any(|end| operation.ends_with(end))
    });
    match stated_role(around) {
        "call" if is_aggregate => "agent",
        role => role,
    }
}

fn stated_role(around: &Around<'_>) -> &'static str {
    let Some(word) = around.text(Slot::Role) else {
        return if around.span.kind == 2 { "server" } else { "other" };
    };
    match word.to_ascii_lowercase().as_str() {
        "chat" | "text_completion" | "generate_content" | "embeddings" | "embedding" | "completion" | "llm" => "call",
        "invoke_agent" | "create_agent" | "invoke_workflow" | "agent_step" | "agent" | "workflow" => "agent",
        "execute_tool" | "tool" | "ai.toolcall" => "tool",
        "retrieval" | "retriever" | "reranker" => "retriever",
        "guardrail" => "guardrail",
        "evaluator" => "evaluator",
        _ if word.ends_with(".doGenerate") || word.ends_with(".doStream") || word.ends_with(".doEmbed") => "call",
        _ if word.starts_with("ai.") => "agent",
        _ => "other",
    }
}

/// The text between quotes after `"name": ` in one of the generator's JSON texts.
fn quoted(json: &str, name: &str) -> Option<String> {
    let parsed: Value = serde_json::from_str(json).ok()?;
    Some(parsed.get(name)?.as_str()?.to_owned())
}

fn models(around: &Around<'_>, error: bool) -> (Option<String>, Option<String>) {
    let own = |slot| around.text(slot).map(str::to_owned);
    let of_parameters = around.text(Slot::Parameters).and_then(|json| quoted(json, "model"));
    let (general, genai) = (own(Slot::RequestModel), own(Slot::GenAiRequestModel));
    let llm = own(Slot::LlmModelName);
    let stated = around.find(Slot::ResponseModel);
    if around.find(Slot::TraceAiKind).is_some() {
        return (of_parameters.or(general), own(Slot::ResponseModel).or(genai));
    }
    let request = genai.or(general).or(of_parameters);
    if error {
        return (request.or(llm), own(Slot::ResponseModel));
    }
    let response = match stated {
        Some(("ai.response.model", _)) if llm.is_some() => llm,
        _ => own(Slot::ResponseModel).or(llm),
    };
    (request, response)
}

fn finish_reason(value: &Any) -> Option<String> {
    let reason = match value {
        Any::StringValue(text) if text.starts_with('[') => {
            let reasons: Vec<String> = serde_json::from_str(text).ok()?;
            reasons.into_iter().next()?
        }
        Any::StringValue(text) => text.clone(),
        Any::ArrayValue(array) => text(array.values.first()?.value.as_ref()?)?.to_owned(),
        _ => return None,
    };
    Some(match reason.to_ascii_lowercase().as_str() {
        "tool_call" | "tool_calls" | "tool-calls" | "tool_use" => "tool_calls".to_owned(),
        "stop" | "end_turn" => "stop".to_owned(),
        _ => reason,
    })
}

fn tokens(around: &Around<'_>, slot: Slot) -> Option<i64> {
    match around.find(slot)? {
        ("metadata.usage_object", value) => {
            let name = if slot == Slot::CacheReadTokens {
                "cached_tokens"
            } else {
                "reasoning_tokens"
            };
            let (_, after) = text(value)?.split_once(&format!("'{name}': "))?;
            after.split([',', '}']).next()?.parse().ok()
        }
        (_, value) => count(value),
    }
}

fn emitter_cost(around: &Around<'_>) -> Option<i64> {
    let json_number = |value: &Any, name: &str| {
        let parsed: Value = serde_json::from_str(text(value)?).ok()?;
        parsed.get(name)?.as_f64()
    };
    let usd = match around.find(Slot::EmitterCost) {
        Some(("langfuse.observation.cost_details", value)) => json_number(value, "total")?,
        Some((_, value)) => double(value)?,
        None => json_number(around.find(Slot::HiddenParams)?.1, "response_cost")?,
    };
    let nano = (usd * 1e9).round();
    (usd >= 0.0 && nano < 999_999_999_999_999_999.0).then_some(nano as i64)
}

fn provider(around: &Around<'_>) -> Option<String> {
    let (key, value) = around.find(Slot::Provider)?;
    let provider = text(value)?;
    let is_vercel = around.find(Slot::AiOperation).is_some() && ["gen_ai.system", "ai.model.provider"].contains(&key);
    Some(
        if is_vercel {
            provider.split('.').next().unwrap()
        } else {
            provider
        }
        .to_owned(),
    )
}

fn ttft(around: &Around<'_>) -> Option<f64> {
    let start = i64::try_from(around.span.start_time_unix_nano).ok()?;
    let since = |time: i64| (time >= start).then(|| (time - start) as f64 / 1e6);
    let amount = |value: &Any| double(value).filter(|&number| number >= 0.0);
    let (keys, ..) = source(Slot::Ttft);
    let event = || {
        around
            .span
            .events
            .iter()
            .find(|e| FIRST_TOKEN_EVENTS.contains(&e.name.as_str()))
    };
    for key in keys {
        if key.starts_with("(event)") {
            match event() {
                Some(event) => return since(event.time_unix_nano as i64),
                None => continue,
            }
        }
        let Some((_, value)) = first(&around.span.attributes, &[key]) else {
            continue;
        };
        return match key {
            "ai.response.msToFirstChunk" => amount(value),
            "langfuse.observation.completion_start_time" => match text(value)? {
                "\"2026-11-20T14:03:05.120Z\"" => since(1_795_183_385_120_000_000),
                _ => None,
            },
            _ => amount(value).map(|seconds| seconds * 1e3),
        };
    }
    None
}

fn price(prices: &PriceTable, around: &Around<'_>, names: [Option<&str>; 3], usage: &Usage) -> Option<i64> {
    let [provider, request, response] = names;
    let really = around.text(Slot::PricedModel).and_then(|model| {
        let provider = if model.contains('/') { None } else { provider };
        prices.price(provider, model)
    });
    let by_name = |model: Option<&str>| prices.price(provider, model?);
    really
        .or_else(|| by_name(response))
        .or_else(|| by_name(request))?
        .cost(usage)
}

fn is_error_like(words: &[&str], text: Option<&str>) -> bool {
    text.is_some_and(|text| words.iter().any(|word| text.to_ascii_lowercase().contains(word)))
}

fn errors(around: &Around<'_>, error: bool, row: &mut Row) {
    let stated = around
        .find(Slot::HttpStatus)
        .and_then(|(_, value)| i32::try_from(count(value)?).ok());
    let said = || error_code(text(around.in_events("exception.message")?)?);
    let in_status = || error_code(&around.span.status.as_ref()?.message);
    let status = stated.or_else(said).or_else(in_status);
    set(row, "http_status", status);
    if !error {
        return;
    }
    let on_span = |key| first(&around.span.attributes, &[key]).map(|(_, value)| value);
    let value = on_span("error.type")
        .or_else(|| around.in_events("exception.type"))
        .or_else(|| on_span("error.code"));
    let stated = value.and_then(text);
    let code = match value {
        Some(Any::IntValue(code)) => Some(*code),
        _ => stated.and_then(|text| text.trim().parse().ok()),
    };
    let is = |statuses: &[i64]| {
        [code, status.map(i64::from)]
            .into_iter()
            .flatten()
            .any(|status| statuses.contains(&status))
    };
    let rate_limited = is_error_like(&["ratelimit"], stated) || is(&[429]);
    let timed_out = !rate_limited && (is_error_like(&["timeout"], stated) || is(&[408, 504]));
    let error_type = if rate_limited {
        Some("rate_limited")
    } else if timed_out {
        Some("timed_out")
    } else {
        stated
    };
    word(row, "error_type", error_type);
    if error_type.is_some() || status.is_some() {
        row.insert("timed_out".into(), timed_out.into());
        row.insert("rate_limited".into(), rate_limited.into());
    }
}

fn error_code(message: &str) -> Option<i32> {
    ["Error code: ", "status_code: "].iter().find_map(|before| {
        let (_, code) = message.split_once(before)?;
        let code = code.get(..3)?.parse::<i32>().ok();
        code.filter(|code| (100..600).contains(code))
    })
}

fn set(row: &mut Row, column: &str, value: Option<impl Into<Value>>) {
    if let Some(value) = value {
        row.insert(column.to_owned(), value.into());
    }
}

fn word(row: &mut Row, column: &str, text: Option<&str>) {
    set(row, column, text.filter(|text| !text.is_empty() && text.len() <= 1_024));
}

fn hex_id(id: &[u8], len: usize) -> Option<String> {
    (id.len() == len && id.iter().any(|&byte| byte != 0)).then(|| hex::encode(id))
}

fn plain_columns(around: &Around<'_>, row: &mut Row) {
    for (column, slot) in [
        ("service_name", Slot::Service),
        ("route", Slot::Route),
        ("agent", Slot::Agent),
        ("workflow", Slot::Workflow),
        ("mirror_kind", Slot::MirrorKind),
        ("host", Slot::Host),
        ("tool_name", Slot::ToolName),
        ("prompt_name", Slot::PromptName),
        ("guardrail_name", Slot::GuardrailName),
        ("guardrail_result", Slot::GuardrailResult),
        ("fallback_reason", Slot::FallbackReason),
    ] {
        word(row, column, around.text(slot));
    }
    for (column, slot, doubles_too) in [
        ("version", Slot::Version, true),
        ("cohort", Slot::Cohort, true),
        ("prompt_version", Slot::PromptVersion, true),
        ("tools_version", Slot::ToolsVersion, true),
        ("guardrails_version", Slot::GuardrailsVersion, true),
        ("cache_version", Slot::CacheVersion, true),
        ("fallback_version", Slot::FallbackVersion, true),
        ("policy_version", Slot::PolicyVersion, true),
        ("variant", Slot::Variant, true),
        ("session_id", Slot::Session, false),
        ("user_id", Slot::User, false),
        ("response_id", Slot::ResponseId, false),
        ("mirror_key", Slot::MirrorKey, false),
        ("request_id", Slot::RequestId, false),
    ] {
        let value = if slot == Slot::Variant {
            around.flag().map(|(_, variant)| variant)
        } else {
            around.find(slot).map(|(_, value)| value)
        };
        let value = value.and_then(|value| match value {
            Any::StringValue(text) => Some(text.clone()),
            Any::ArrayValue(array) if !doubles_too => Some(text(array.values.first()?.value.as_ref()?)?.to_owned()),
            Any::IntValue(number) => Some(number.to_string()),
            Any::BoolValue(_) | Any::DoubleValue(_) if doubles_too => Some(plain_text(value)),
            _ => None,
        });
        word(row, column, value.as_deref());
    }
    for (column, slot) in [
        ("shadow", Slot::Shadow),
        ("cache_hit", Slot::CacheHit),
        ("fallback", Slot::Fallback),
    ] {
        set(row, column, around.find(slot).and_then(|(_, value)| flag(value)));
    }
    let counted = |slot| around.find(slot).and_then(|(_, value)| count(value));
    set(
        row,
        "retries",
        counted(Slot::Retries).filter(|&n| i32::try_from(n).is_ok()),
    );
    set(row, "ratelimit_remaining", counted(Slot::RatelimitRemaining));
    let number = |slot| around.find(slot).and_then(|(_, value)| double(value));
    set(row, "guardrail_score", number(Slot::GuardrailScore));
    set(
        row,
        "split",
        number(Slot::Split).filter(|split| (0.0..=1.0).contains(split)),
    );
    let flagged = around.flag().and_then(|(_, variant)| Color::parse(text(variant)?));
    let on_span = first(&around.span.attributes, &["gateway.route.color", "release.color"]).is_some();
    let color = match flagged {
        Some(color) if !on_span => Some(color),
        _ => around.text(Slot::Color).and_then(Color::parse),
    };
    set(row, "color", color.map(Color::as_str));
    let sampling = match around.span.trace_state.as_str() {
        "ot=th:c" => Some(0.25),
        "a=b, ot=rv:1;th:08" => Some(1.0 - 8.0 / 256.0),
        _ => None,
    };
    set(row, "sampling", sampling);
    let reason = around
        .find(Slot::FinishReason)
        .and_then(|(_, value)| finish_reason(value));
    word(row, "finish_reason", reason.as_deref());
}

/// The row of a span, `None` if it must be rejected.
fn row_of(around: &Around<'_>, scope: &str, content: ContentPolicy, prices: &PriceTable) -> Option<Row> {
    let span = around.span;
    let start = i64::try_from(span.start_time_unix_nano)
        .ok()
        .filter(|&start| start > 0)?;
    let end = i64::try_from(span.end_time_unix_nano)
        .ok()
        .filter(|&end| end >= start)?;
    let mut row = Row::new();
    row.insert("trace_id".into(), hex_id(&span.trace_id, 16)?.into());
    row.insert("span_id".into(), hex_id(&span.span_id, 8)?.into());
    set(&mut row, "parent_span_id", hex_id(&span.parent_span_id, 8));
    row.insert("start_time".into(), start.into());
    row.insert("end_time".into(), end.into());
    row.insert("duration_ms".into(), ((end - start) as f64 / 1e6).into());
    row.insert("received_at".into(), 77.into());
    word(&mut row, "name", Some(&span.name));
    word(&mut row, "scope", Some(scope));
    let kinds = [
        None,
        Some("internal"),
        Some("server"),
        Some("client"),
        Some("producer"),
        Some("consumer"),
    ];
    set(
        &mut row,
        "kind",
        kinds.get(usize::try_from(span.kind).unwrap()).copied().flatten(),
    );
    let code = span.status.as_ref().map_or(0, |status| status.code);
    let status = ["unset", "ok", "error"]
        .get(usize::try_from(code).unwrap())
        .copied()
        .unwrap_or("unset");
    row.insert("status".into(), status.into());
    let role = role(around);
    row.insert("role".into(), role.into());
    plain_columns(around, &mut row);
    errors(around, code == 2, &mut row);
    set(&mut row, "ttft_ms", ttft(around));
    let (request, response) = models(around, code == 2);
    let provider = provider(around);
    word(&mut row, "provider", provider.as_deref());
    word(&mut row, "request_model", request.as_deref());
    word(&mut row, "response_model", response.as_deref());
    let hidden = around
        .text(Slot::HiddenParams)
        .and_then(|json| quoted(json, "model_id"));
    word(
        &mut row,
        "deployment",
        around.text(Slot::Deployment).or(hidden.as_deref()),
    );
    if role == "call" {
        let usage = Usage {
            prompt: tokens(around, Slot::PromptTokens),
            completion: tokens(around, Slot::CompletionTokens),
            cache_read: tokens(around, Slot::CacheReadTokens),
            cache_write: tokens(around, Slot::CacheWriteTokens),
            reasoning: tokens(around, Slot::ReasoningTokens),
        };
        set(&mut row, "prompt_tokens", usage.prompt);
        set(&mut row, "completion_tokens", usage.completion);
        set(&mut row, "cache_read_tokens", usage.cache_read);
        set(&mut row, "cache_write_tokens", usage.cache_write);
        set(&mut row, "reasoning_tokens", usage.reasoning);
        let is_used = usage.prompt.is_some() || usage.completion.is_some();
        set(
            &mut row,
            "emitter_cost_usd",
            emitter_cost(around).filter(|&nano| nano > 0 || is_used),
        );
        let names = [provider.as_deref(), request.as_deref(), response.as_deref()];
        if let Some(nano) = price(prices, around, names, &usage).filter(|_| is_used) {
            row.insert("cost_usd".into(), nano.into());
            row.insert("price_version".into(), prices.version().into());
        }
    }
    if content != ContentPolicy::Drop {
        for (column, slot) in [("input", Slot::Input), ("output", Slot::Output)] {
            let kept = around.find(slot).map(|(_, value)| value);
            let kept = kept.filter(|v| matches!(v, Any::StringValue(_) | Any::ArrayValue(_) | Any::KvlistValue(_)));
            set(
                &mut row,
                column,
                kept.map(|value| match content {
                    ContentPolicy::Hash => hashed(&plain_text(value)),
                    _ => cut(&plain_text(value), 900).to_owned(),
                }),
            );
        }
    }
    nested_columns(around, content, &mut row);
    Some(row)
}

fn nested_columns(around: &Around<'_>, content: ContentPolicy, row: &mut Row) {
    let span = around.span;
    let some = |list: Vec<Value>| (!list.is_empty()).then_some(list);
    let texts = |pairs: [(&str, Option<&str>); 2]| {
        let pair = |(key, text): (&str, Option<&str>)| {
            KeyValue {
                key: key.to_owned(),
                value: Some(AnyValue {
                    value: Some(Any::StringValue(text?.to_owned())),
                }),
                ..KeyValue::default()
            }
            .into()
        };
        pairs.into_iter().filter_map(pair).collect::<Vec<KeyValue>>()
    };
    let status = span.status.as_ref().map(|status| status.message.as_str());
    let own = texts([
        ("otel.status_description", status.filter(|message| !message.is_empty())),
        (FLAG_ATTRIBUTE, around.flag().map(|(flag, _)| flag)),
    ]);
    let attributes = entries(&[&span.attributes[..], &own].concat(), On::Span, content);
    set(row, "attributes", some(attributes));
    set(row, "resource", some(entries(around.resource, On::Resource, content)));
    let events = span.events.iter().map(|event| {
        let on = if CONTENT_EVENTS.contains(&event.name.as_str()) {
            On::ContentEvent
        } else {
            On::Span
        };
        json!([
            event.time_unix_nano,
            event.name,
            some(entries(&event.attributes, on, content))
        ])
    });
    set(row, "events", some(events.collect()));
    let hex = |id: &[u8], len| (id.len() == len).then(|| hex::encode(id));
    let links = span.links.iter().map(|link| {
        json!([
            hex(&link.trace_id, 16),
            hex(&link.span_id, 8),
            some(entries(&link.attributes, On::Span, content))
        ])
    });
    set(row, "links", some(links.collect()));
}

fn expected(request: &ExportTraceServiceRequest, content: ContentPolicy) -> (Vec<Row>, u64) {
    let prices = PriceTable::shipped();
    let (mut rows, mut rejected) = (Vec::new(), 0);
    for resource_spans in &request.resource_spans {
        let resource = resource_spans
            .resource
            .as_ref()
            .map_or(&[][..], |resource| &resource.attributes);
        let metadata = metadata(resource);
        for scope_spans in &resource_spans.scope_spans {
            let scope = scope_spans.scope.as_ref().map_or("", |scope| &scope.name);
            for span in &scope_spans.spans {
                match row_of(
                    &Around {
                        span,
                        resource,
                        metadata: &metadata,
                    },
                    scope,
                    content,
                    &prices,
                ) {
                    Some(row) => rows.push(row),
                    None => rejected += 1,
                }
            }
        }
    }
    (rows, rejected)
}

pub(super) fn compare(
    body: &[u8],
    request: &ExportTraceServiceRequest,
    reader: &mut Reader,
    content: ContentPolicy,
    what: &str,
) {
    let (rows, rejected) = expected(request, content);
    let accepted = reader
        .read_traces(body, Nanos(77))
        .unwrap_or_else(|e| panic!("{what}: {e}"));
    assert_eq!(
        (accepted.accepted, accepted.rejected),
        (rows.len() as u64, rejected),
        "{what}"
    );
    assert_eq!(reader.rows() - reader.evals.rows, rows.len(), "{what}");
    let sections = reader.take();
    let found = sections.iter().find(|s| s.table == proto::layout::Table::Spans);
    let found = found.map(|section| cells::rows(&section.rows)).unwrap_or_default();
    for (at, (found, expected)) in found.iter().zip(&rows).enumerate() {
        let names: std::collections::BTreeSet<&String> = found.keys().chain(expected.keys()).collect();
        for name in names {
            // what is read out of messages and definitions has tests of its own, in `read::check`
            let of_checks = match name.as_str() {
                "json_checks" | "tool_args_valid" => true,
                "tool_name" | "tools_version" => !expected.contains_key(name),
                _ => false,
            };
            if of_checks {
                continue;
            }
            assert_eq!(
                found.get(name),
                expected.get(name),
                "{what}: row {at}, column {name} of {expected:#?}"
            );
        }
    }
    assert_eq!(found.len(), rows.len(), "{what}");
}

#[test]
fn any_request_in_any_wire_order_gives_the_rows_that_prost_gives() {
    for content in [ContentPolicy::Drop, ContentPolicy::Hash, ContentPolicy::Keep] {
        let mut reader = Reader::new(Arc::new(config(content)));
        for seed in 0..250 {
            let mut dice = Dice(seed);
            let request = request(&mut dice);
            let body = request.encode_to_vec();
            compare(
                &body,
                &request,
                &mut reader,
                content,
                &format!("seed {seed}, {content:?}"),
            );
            let shuffled = shuffled(&body, REQUEST, &mut dice);
            let again = ExportTraceServiceRequest::decode(shuffled.as_slice()).unwrap();
            compare(
                &shuffled,
                &again,
                &mut reader,
                content,
                &format!("seed {seed} shuffled, {content:?}"),
            );
        }
    }
}

#[test]
fn captured_requests_give_the_rows_that_prost_gives() {
    let captures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/captures");
    let mut reader = Reader::new(Arc::new(config(ContentPolicy::Drop)));
    let mut files = 0;
    for client in std::fs::read_dir(captures)
        .unwrap()
        .map(|c| c.unwrap().path())
        .filter(|c| c.is_dir())
    {
        for file in std::fs::read_dir(client).unwrap().map(|file| file.unwrap().path()) {
            let name = file.to_string_lossy().into_owned();
            if name.ends_with(".traces.otlp.pb") {
                let body = std::fs::read(&file).unwrap();
                let request = ExportTraceServiceRequest::decode(body.as_slice()).unwrap();
                compare(&body, &request, &mut reader, ContentPolicy::Drop, &name);
                files += 1;
            }
        }
    }
    assert!(files > 90, "{files}");
}
