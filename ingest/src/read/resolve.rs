//! What attributes mean once their span is complete: roles, models, finish reasons, errors, tokens in odd texts.
//! Pure functions over values; no builder is touched here.

use super::{
    slot::Slot,
    slots::Slots,
    sources::{GUARDRAIL_SPAN, RAW_REQUEST_SPAN, SOURCES},
    value::{Value, first_text},
};
use memchr::memmem;
use std::sync::LazyLock;

/// What a span is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Call,
    Agent,
    Tool,
    Retriever,
    Guardrail,
    Evaluator,
    Server,
    Other,
}

impl Role {
    pub(super) const fn word(self) -> &'static [u8] {
        match self {
            Self::Call => b"call",
            Self::Agent => b"agent",
            Self::Tool => b"tool",
            Self::Retriever => b"retriever",
            Self::Guardrail => b"guardrail",
            Self::Evaluator => b"evaluator",
            Self::Server => b"server",
            Self::Other => b"other",
        }
    }
}

const ROLES: &[(&str, Role)] = &[
    ("chat", Role::Call),
    ("text_completion", Role::Call),
    ("generate_content", Role::Call),
    ("embeddings", Role::Call),
    ("embedding", Role::Call),
    ("completion", Role::Call),
    ("chat.completions", Role::Call),
    ("chat.streaming_completions", Role::Call),
    ("text.completions", Role::Call),
    ("text.streaming_completions", Role::Call),
    ("generation", Role::Call),
    ("llm", Role::Call),
    ("invoke_agent", Role::Agent),
    ("create_agent", Role::Agent),
    ("invoke_workflow", Role::Agent),
    ("agent_step", Role::Agent),
    ("agent", Role::Agent),
    ("workflow", Role::Agent),
    ("execute_tool", Role::Tool),
    ("tool", Role::Tool),
    ("ai.toolcall", Role::Tool),
    ("retrieval", Role::Retriever),
    ("retriever", Role::Retriever),
    ("reranker", Role::Retriever),
    ("guardrail", Role::Guardrail),
    ("evaluator", Role::Evaluator),
];

/// OTLP's `SPAN_KIND_SERVER`.
const SERVER_KIND: u64 = 2;

/// Role from its best source; usage never makes a span a call, and what a span around calls repeats is not one either.
pub(super) fn role(slots: &Slots<'_>, name: &[u8], kind: u64) -> Role {
    match stated_role(slots, name, kind) {
        Role::Call if name == RAW_REQUEST_SPAN.as_bytes() => Role::Other,
        Role::Call if slots.text(Slot::AiOperation).is_some_and(is_aggregate) => Role::Agent,
        role => role,
    }
}

/// Whether an operation of the Vercel AI SDK goes round the calls and sums their usage.
fn is_aggregate(operation: &[u8]) -> bool {
    const CALLS: [&[u8]; 3] = [b".doGenerate", b".doStream", b".doEmbed"];
    !CALLS.iter().any(|call| ends(operation, call)) && !operation.eq_ignore_ascii_case(b"ai.toolCall")
}

fn ends(word: &[u8], end: &[u8]) -> bool {
    word.len() > end.len() && word[word.len() - end.len()..].eq_ignore_ascii_case(end)
}

fn stated_role(slots: &Slots<'_>, name: &[u8], kind: u64) -> Role {
    let Some(word) = slots.text(Slot::Role) else {
        return if name == GUARDRAIL_SPAN.as_bytes() && slots.has(Slot::GuardrailName) {
            Role::Guardrail
        } else if kind == SERVER_KIND {
            Role::Server
        } else {
            Role::Other
        };
    };
    if let Some((_, role)) = ROLES
        .iter()
        .find(|(known, _)| word.eq_ignore_ascii_case(known.as_bytes()))
    {
        return *role;
    }
    if !word.starts_with(b"ai.") {
        Role::Other
    } else if is_aggregate(word) {
        Role::Agent
    } else {
        Role::Call
    }
}

pub(super) const fn kind_word(kind: u64) -> Option<&'static [u8]> {
    match kind {
        1 => Some(b"internal"),
        2 => Some(b"server"),
        3 => Some(b"client"),
        4 => Some(b"producer"),
        5 => Some(b"consumer"),
        _ => None,
    }
}

/// OTLP's `STATUS_CODE_ERROR`.
pub(super) const ERROR: u64 = 2;

pub(super) const fn status_word(code: u64) -> &'static [u8] {
    match code {
        1 => b"ok",
        ERROR => b"error",
        _ => b"unset",
    }
}

/// Provider. On Vercel AI spans `gen_ai.system` and `ai.model.provider` are `openai.chat`: cut at the point there, and
/// nowhere else (`aws.bedrock`).
pub(super) fn provider<'a>(slots: &Slots<'a>) -> Option<&'a [u8]> {
    let provider = slots.text(Slot::Provider)?;
    if !slots.has(Slot::AiOperation) {
        return Some(provider);
    }
    let source = source_of(Slot::Provider, slots.rank(Slot::Provider));
    match provider.iter().position(|&byte| byte == b'.') {
        Some(point) if point > 0 && matches!(source, Some("gen_ai.system" | "ai.model.provider")) => {
            Some(&provider[..point])
        }
        _ => Some(provider),
    }
}

/// The built-in key that stands at a rank of a slot.
fn source_of(slot: Slot, rank: u8) -> Option<&'static str> {
    SOURCES
        .iter()
        .find(|source| source.slot == slot)?
        .keys
        .get(usize::from(rank))
        .copied()
}

/// Request and response model.
pub(super) fn models<'a>(slots: &Slots<'a>, error: bool) -> (Option<&'a [u8]>, Option<&'a [u8]>) {
    const AI_RESPONSE_MODEL: u8 = 2;
    let stated = slots.text(Slot::ResponseModel);
    let llm = slots.text(Slot::LlmModelName);
    let in_parameters = || slots.text(Slot::Parameters).and_then(|json| json_text(json, "model"));
    if slots.has(Slot::TraceAiKind) {
        // traceAI overwrites the request model with the response's
        return (
            in_parameters().or(slots.text(Slot::RequestModel)),
            stated.or(slots.text(Slot::GenAiRequestModel)),
        );
    }
    let request = slots
        .text(Slot::GenAiRequestModel)
        .or(slots.text(Slot::RequestModel))
        .or_else(in_parameters);
    if error {
        return (request.or(llm), stated);
    }
    let response = match (stated, llm) {
        (Some(_), Some(llm)) if slots.rank(Slot::ResponseModel) >= AI_RESPONSE_MODEL => Some(llm),
        (stated, llm) => stated.or(llm),
    };
    (request, response)
}

/// The first finish reason, with the spellings of one reason folded.
pub(super) fn finish_reason<'a>(value: &Value<'a>) -> Option<&'a [u8]> {
    let reason = match value {
        Value::Text(json) if json.starts_with(b"[") => json.split(|&byte| byte == b'"').nth(1)?,
        Value::Text(reason) => reason,
        Value::Array(reasons) => first_text(reasons).ok()??,
        _ => return None,
    };
    if reason.is_empty() {
        return None;
    }
    const TOOL_CALLS: [&str; 4] = ["tool_call", "tool_calls", "tool-calls", "tool_use"];
    const STOP: [&str; 2] = ["stop", "end_turn"];
    let is_one_of = |spellings: &[&str]| spellings.iter().any(|s| reason.eq_ignore_ascii_case(s.as_bytes()));
    Some(if is_one_of(&TOOL_CALLS) {
        b"tool_calls"
    } else if is_one_of(&STOP) {
        b"stop"
    } else {
        reason
    })
}

/// What is known of a failed span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Failure<'a> {
    pub(super) error_type: Option<&'a [u8]>,
    pub(super) timed_out: bool,
    pub(super) rate_limited: bool,
}

/// HTTP statuses that say that time ran out.
const TIMEOUT_STATUSES: [i32; 2] = [408, 504];

/// Folds the error types of rate limits and timeouts; an HTTP status decides where no type says it.
pub(super) fn failure<'a>(error_type: Option<Value<'a>>, http_status: Option<i32>) -> Failure<'a> {
    let (text, code) = match error_type {
        Some(Value::Text(text)) => (
            Some(text),
            std::str::from_utf8(text).ok().and_then(|t| t.trim().parse().ok()),
        ),
        Some(Value::Int(code)) => (None, i32::try_from(code).ok()),
        _ => (None, None),
    };
    let lower = text.map(|text| text[..text.len().min(ERROR_TEXT_LOOKED_AT)].to_ascii_lowercase());
    let says = |words: &[&str]| {
        let lower = lower.as_deref().unwrap_or_default();
        words.iter().any(|word| memmem::find(lower, word.as_bytes()).is_some())
    };
    let is = |status: Option<i32>, of: &[i32]| status.is_some_and(|status| of.contains(&status));
    let rate_limited = says(&[
        "ratelimit",
        "rate_limit",
        "rate limit",
        "too_many_requests",
        "toomanyrequests",
    ]) || is(code, &[429])
        || is(http_status, &[429]);
    let timed_out = !rate_limited
        && (says(&[
            "timeout",
            "timed_out",
            "timedout",
            "timed out",
            "deadline_exceeded",
            "deadlineexceeded",
        ]) || is(code, &TIMEOUT_STATUSES)
            || is(http_status, &TIMEOUT_STATUSES));
    let error_type = match (rate_limited, timed_out) {
        (true, _) => Some(&b"rate_limited"[..]),
        (_, true) => Some(&b"timed_out"[..]),
        _ => text,
    };
    Failure {
        error_type,
        timed_out,
        rate_limited,
    }
}

/// How much of an error's text is looked at, bytes: stack traces follow.
const ERROR_TEXT_LOOKED_AT: usize = 1 << 10;

/// The number in `Error code: NNN`, as OpenAI's client writes it, or in `status_code: NNN`, as pydantic-ai does.
pub(super) fn error_code(text: &[u8]) -> Option<i32> {
    static BEFORE: LazyLock<[memmem::Finder<'static>; 2]> =
        LazyLock::new(|| ["Error code: ", "status_code: "].map(memmem::Finder::new));
    if text.is_empty() {
        return None;
    }
    let text = &text[..text.len().min(ERROR_TEXT_LOOKED_AT)];
    let code = |before: &memmem::Finder<'_>| {
        let at = before.find(text)? + before.needle().len();
        let digits = text
            .get(at..at + 3)
            .filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
        let code: i32 = std::str::from_utf8(digits).ok()?.parse().ok()?;
        (100..600).contains(&code).then_some(code)
    };
    BEFORE.iter().find_map(code)
}

/// A whole number in LiteLLM's usage, a Python repr: `'cached_tokens': 1024`.
pub(super) fn usage_number(repr: &[u8], name: &str) -> Option<Value<'static>> {
    let after = after_name(repr, name)?;
    let digits = after.iter().take_while(|byte| byte.is_ascii_digit()).count();
    std::str::from_utf8(&after[..digits]).ok()?.parse().ok().map(Value::Int)
}

/// A number in a JSON text: `"total": 0.0001`.
pub(super) fn json_number(json: &[u8], name: &str) -> Option<Value<'static>> {
    let after = after_name(json, name)?;
    let end = after
        .iter()
        .take_while(|byte| byte.is_ascii_digit() || b"+-.eE".contains(byte))
        .count();
    std::str::from_utf8(&after[..end]).ok()?.parse().ok().map(Value::Double)
}

/// A text in a JSON text, as long as it needs no unescaping: `"model": "gpt-4o"`.
pub(super) fn json_text<'a>(json: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let after = after_name(json, name)?.strip_prefix(b"\"")?;
    let end = after.iter().position(|&byte| byte == b'"' || byte == b'\\')?;
    (end > 0 && after[end] == b'"').then(|| &after[..end])
}

/// What stands behind `"name":`, in either quotes, at any depth; the first such name counts.
fn after_name<'a>(text: &'a [u8], name: &str) -> Option<&'a [u8]> {
    let name = name.as_bytes();
    let quoted = |at: usize| {
        let quote = text[at];
        (quote == b'"' || quote == b'\'') && text.get(at + 1 + name.len()) == Some(&quote)
    };
    let mut from = 0;
    while let Some(found) = memmem::find(text.get(from..)?, name) {
        let at = from + found;
        if at > 0 && quoted(at - 1) {
            let after = text[at + name.len() + 1..].trim_ascii_start();
            if let Some(after) = after.strip_prefix(b":") {
                return Some(after.trim_ascii_start());
            }
        }
        from = at + name.len();
    }
    None
}
