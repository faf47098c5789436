//! Evaluations that stand in a span's attributes: OpenInference annotations, inline or on an evaluator span that links
//! to what it judged, and traceAI's `gen_ai.evaluation.*` with the id of the span that was judged.

use super::{
    ReadError, Reader,
    evaluation::{Judged, Place},
    stamps::Flag,
    value::Value,
};
use proto::Nanos;

/// What one span says about evaluations, gathered while it is read.
#[derive(Default)]
pub(super) struct Found<'a> {
    /// Events that are evaluations of the span.
    pub(super) events: Vec<&'a [u8]>,
    /// Attributes that are parts of evaluations.
    pub(super) attributes: Vec<(&'a [u8], Value<'a>)>,
    /// The declared feature flag that the span tells of.
    pub(super) flag: Option<Flag<'a>>,
    /// What the span's first link points to.
    pub(super) target: Option<Place<'a>>,
}

impl Found<'_> {
    pub(super) fn is_empty(&self) -> bool {
        self.events.is_empty() && self.attributes.is_empty()
    }
}

/// What an annotation is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Scope {
    Span,
    Trace,
    Session,
}

/// One part of an evaluation: which evaluation of the span, and which of its fields.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part<'k> {
    scope: Scope,
    /// Everything before the field: equal in all parts of one evaluation.
    of: &'k [u8],
    field: &'k [u8],
}

const TRACEAI: &[u8] = b"gen_ai.evaluation.";

/// Takes a key apart: `{,trace.,session.}{annotations,evaluations}.N.{annotation,evaluation}.field`, or traceAI's.
pub(super) fn part(key: &[u8]) -> Option<Part<'_>> {
    if let Some(field) = key.strip_prefix(TRACEAI) {
        return Some(Part {
            scope: Scope::Span,
            of: TRACEAI,
            field,
        });
    }
    let (scope, list) = if let Some(rest) = key.strip_prefix(b"trace.") {
        (Scope::Trace, rest)
    } else if let Some(rest) = key.strip_prefix(b"session.") {
        (Scope::Session, rest)
    } else {
        (Scope::Span, key)
    };
    let rest = list
        .strip_prefix(b"annotations.")
        .or_else(|| list.strip_prefix(b"evaluations."))?;
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    let inner = rest[digits..].strip_prefix(b".")?;
    let field = inner
        .strip_prefix(b"annotation.")
        .or_else(|| inner.strip_prefix(b"evaluation."))?;
    (digits > 0).then(|| Part {
        scope,
        of: &key[..key.len() - field.len()],
        field,
    })
}

/// Evaluations read from one span's attributes.
const OF_SPAN_MAX: usize = 64;

impl Reader {
    /// Makes rows of what a span says about evaluations. `own` is the span itself, and what is judged unless the span
    /// carries evaluations of another (`is_carrier`); `end` is when it ended, ns.
    pub(super) fn read_found(
        &mut self,
        found: &Found<'_>,
        own: Place<'_>,
        is_carrier: bool,
        end: u64,
        received: Nanos,
    ) -> Result<(), ReadError> {
        for event in &found.events {
            self.read_span_evaluation(event, own, received)?;
        }
        let mut judged: Vec<(Part<'_>, Judged<'_>, Option<[u8; 8]>)> = Vec::new();
        for &(key, value) in &found.attributes {
            let Some(part) = part(key) else { continue };
            let at = match judged.iter().position(|(first, ..)| first.of == part.of) {
                Some(at) => at,
                None if judged.len() == OF_SPAN_MAX => continue,
                None => {
                    judged.push((Part { ..part }, Judged::default(), None));
                    judged.len() - 1
                }
            };
            if part.field == b"target_span_id" {
                judged[at].2 = value.text().and_then(span_id);
            }
            judged[at].1.take_field(part.field, value);
        }
        for (part, judged, target) in &judged {
            let about = found.target.filter(|_| is_carrier).unwrap_or(own);
            let (place, source): (Place<'_>, &str) = match (part.scope, target) {
                // the judged span is usually in another trace: assembly looks its id up
                (_, Some(span_id)) => (Place { trace_id: &[], span_id }, "traceai"),
                (Scope::Span, None) => (about, if part.of == TRACEAI { "traceai" } else { "openinference" }),
                (Scope::Trace, None) => (Place { span_id: &[], ..about }, "openinference"),
                (Scope::Session, None) => (Place::default(), "openinference"),
            };
            self.push_evaluation(judged, place, [end, 0], source, received)?;
        }
        Ok(())
    }
}

/// A span id from its hex digits.
fn span_id(text: &[u8]) -> Option<[u8; 8]> {
    let mut id = [0; 8];
    hex::decode_to_slice(text.trim_ascii(), &mut id).ok()?;
    Some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_apart() {
        let taken = |key: &'static str| part(key.as_bytes()).map(|p| (p.scope, str::from_utf8(p.field).unwrap()));
        assert_eq!(
            taken("trace.annotations.0.annotation.label"),
            Some((Scope::Trace, "label"))
        );
        assert_eq!(taken("evaluations.12.evaluation.name"), Some((Scope::Span, "name")));
        assert_eq!(
            taken("session.annotations.3.annotation.score"),
            Some((Scope::Session, "score"))
        );
        assert_eq!(
            taken("gen_ai.evaluation.target_span_id"),
            Some((Scope::Span, "target_span_id"))
        );
        for other in [
            "annotations.x.annotation.name",
            "annotations..annotation.name",
            "annotations.0.name",
            "session.id",
        ] {
            assert_eq!(taken(other), None, "{other}");
        }
    }
}
