//! One entry of a request, as it came and as it is meant.

use ingest::read::{VALUE_BYTES_MAX, WORD_BYTES_MAX};
use proto::{Nanos, metric::normalise_eval_name};
use serde::Deserialize;
use serde_json::Value;

/// Which path an entry came by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Evaluation,
    Feedback,
}

/// Names of feedback, as they are kept.
const FEEDBACK: [&str; 6] = [
    "thumbs_down",
    THUMBS_UP,
    "escalation",
    "abandoned",
    "override",
    "user_feedback",
];
/// Kept as `thumbs_down` with this label: a thumb that did not go down. So the two are one rate.
const THUMBS_UP: &str = "thumbs_up";

/// As it came. Values are looked at one by one, so that what is wrong can be said with its key.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    name: Option<Value>,
    trace_id: Option<Value>,
    span_id: Option<Value>,
    response_id: Option<Value>,
    score: Option<Value>,
    label: Option<Value>,
    passed: Option<Value>,
    time: Option<Value>,
    identifier: Option<Value>,
    explanation: Option<Value>,
}

/// As it is meant.
#[derive(Debug, PartialEq)]
pub struct Evaluation {
    pub name: String,
    pub trace_id: Option<[u8; 16]>,
    pub span_id: Option<[u8; 8]>,
    pub response_id: Option<String>,
    pub score: Option<f64>,
    pub label: Option<String>,
    pub passed: Option<bool>,
    pub time: Nanos,
    pub identifier: Option<String>,
    pub explanation: Option<String>,
}

impl Entry {
    /// The evaluation, judged `now` if it does not say when; or what is wrong.
    pub fn check(self, kind: Kind, now: Nanos) -> Result<Evaluation, String> {
        if self.trace_id.is_none() && self.span_id.is_none() && self.response_id.is_none() {
            return Err("name what was judged: at least one of trace_id, span_id and response_id".to_owned());
        }
        let given = text("name", self.name, WORD_BYTES_MAX)?.ok_or("name is missing")?;
        let name = normalise_eval_name(&given);
        if name.is_empty() {
            return Err("name must have letters or digits".to_owned());
        }
        let label = text("label", self.label, WORD_BYTES_MAX)?;
        let (name, label) = match kind {
            Kind::Evaluation => (name, label),
            Kind::Feedback => feedback(name, label)?,
        };
        let id = |key, value| text(key, value, WORD_BYTES_MAX);
        let mistyped = |key: &str, value: &Value, kind: &str| format!("{key} must be {kind}, not {value}");
        Ok(Evaluation {
            name,
            trace_id: id("trace_id", self.trace_id)?
                .map(|id| id_of("trace_id", &id))
                .transpose()?,
            span_id: id("span_id", self.span_id)?
                .map(|id| id_of("span_id", &id))
                .transpose()?,
            response_id: id("response_id", self.response_id)?,
            score: self
                .score
                .map(|score| score.as_f64().ok_or_else(|| mistyped("score", &score, "a number")))
                .transpose()?,
            label,
            passed: self
                .passed
                .map(|passed| {
                    passed
                        .as_bool()
                        .ok_or_else(|| mistyped("passed", &passed, "true or false"))
                })
                .transpose()?,
            time: self.time.map_or(Ok(now), |time| time_of(&time))?,
            identifier: id("identifier", self.identifier)?,
            explanation: text("explanation", self.explanation, VALUE_BYTES_MAX)?,
        })
    }
}

/// A text of 1 to `bytes_max` bytes, if there is any.
fn text(key: &str, value: Option<Value>, bytes_max: usize) -> Result<Option<String>, String> {
    match value {
        None => Ok(None),
        Some(Value::String(text)) if (1..=bytes_max).contains(&text.len()) => Ok(Some(text)),
        Some(_) => Err(format!(
            "{key} must be a text of 1 to {bytes_max} bytes; leave it out if there is none"
        )),
    }
}

/// Name and label under which feedback is kept.
fn feedback(name: String, label: Option<String>) -> Result<(String, Option<String>), String> {
    if !FEEDBACK.contains(&name.as_str()) {
        return Err(format!(
            "`{name}` is no feedback; name is one of {}",
            FEEDBACK.join(", ")
        ));
    }
    if name != THUMBS_UP {
        return Ok((name, label));
    }
    match label.as_deref() {
        None | Some(THUMBS_UP) => Ok(("thumbs_down".to_owned(), Some(THUMBS_UP.to_owned()))),
        Some(other) => Err(format!("label `{other}` beside thumbs_up; leave the label out")),
    }
}

/// An id of N bytes in hex digits, not all of them zero.
fn id_of<const N: usize>(key: &str, text: &str) -> Result<[u8; N], String> {
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let digits: Option<Vec<u8>> = text.bytes().map(digit).collect();
    let mut id = [0; N];
    match digits {
        Some(digits) if digits.len() == 2 * N && digits.iter().any(|digit| *digit != 0) => {
            for (byte, pair) in id.iter_mut().zip(digits.chunks_exact(2)) {
                *byte = pair[0] << 4 | pair[1];
            }
            Ok(id)
        }
        _ => Err(format!("{key} must be {} hex digits, not all of them 0", 2 * N)),
    }
}

/// RFC 3339, or seconds since 1970.
fn time_of(value: &Value) -> Result<Nanos, String> {
    let nanos = match value {
        Value::String(text) => chrono::DateTime::parse_from_rfc3339(text)
            .ok()
            .and_then(|time| time.timestamp_nanos_opt()),
        Value::Number(secs) => match (secs.as_i64(), secs.as_f64()) {
            (Some(secs), _) => secs.checked_mul(1_000_000_000),
            // Microseconds are as much as the number holds.
            (None, Some(secs)) if secs < 9.2e9 => ((secs * 1e6).round() as i64).checked_mul(1_000),
            _ => None,
        },
        _ => None,
    };
    nanos.filter(|nanos| *nanos > 0).map(Nanos).ok_or_else(|| {
        format!(
            "time {value} is neither RFC 3339 (\"2026-11-20T14:00:00Z\") nor seconds since 1970, or past the year 2262"
        )
    })
}
