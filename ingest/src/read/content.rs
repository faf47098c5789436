//! What becomes of content (prompts, outputs, tool arguments) and of error texts: by service and route, decided before
//! anything of a span is copied.

use super::{
    ReadError, Reader,
    columns::write_hex,
    keys::Content,
    messages::Side,
    slot::Slot,
    slots::Slots,
    span::Fields,
    value::{Value, Written, cut, key_value, utf8, write_json},
    wire::Cursor,
};
use sha2::{Digest as _, Sha256};

/// What to do with prompts, outputs and tool arguments. The strictest comes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub enum ContentPolicy {
    /// They are never written anywhere.
    #[default]
    Drop,
    /// Only their hash is written: `sha256:` and 32 hex digits. Equal texts are seen to be equal, and a short text can be
    /// guessed.
    Hash,
    /// They are kept: `input`, `output`, and the attributes as sent.
    Keep,
}

/// The policy of spans of one service, one route, or both.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ContentRule {
    /// `service.name` it is about; `None`: any.
    pub service: Option<String>,
    /// Route it is about; `None`: any.
    pub route: Option<String>,
    /// What it says.
    pub policy: ContentPolicy,
}

/// Policies of content.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ContentConfig {
    /// Where no rule applies.
    pub policy: ContentPolicy,
    /// The first rule that applies decides. While a span's service or route is unknown, all that could apply do: then the
    /// strictest decides.
    pub rules: Vec<ContentRule>,
    /// Policy of error texts (exception messages, stack traces, status messages), which may quote content; `None`: as
    /// content.
    pub error_text: Option<ContentPolicy>,
}

impl From<ContentPolicy> for ContentConfig {
    fn from(policy: ContentPolicy) -> Self {
        Self {
            policy,
            ..Self::default()
        }
    }
}

/// Whether a rule is about a span.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Applies {
    No,
    Perhaps,
    Yes,
}

impl ContentRule {
    fn applies(&self, service: Option<&[u8]>, route: Option<&[u8]>) -> Applies {
        let is = |wanted: &Option<String>, known: Option<&[u8]>| match (wanted, known) {
            (None, _) => Applies::Yes,
            (Some(_), None) => Applies::Perhaps,
            (Some(wanted), Some(known)) if wanted.as_bytes() == known => Applies::Yes,
            _ => Applies::No,
        };
        is(&self.service, service).min(is(&self.route, route))
    }
}

impl ContentConfig {
    fn policy_of(&self, service: Option<&[u8]>, route: Option<&[u8]>) -> ContentPolicy {
        let mut strictest: Option<ContentPolicy> = None;
        for rule in &self.rules {
            let applies = rule.applies(service, route);
            if applies != Applies::No {
                strictest = Some(strictest.map_or(rule.policy, |known| known.min(rule.policy)));
            }
            if applies == Applies::Yes {
                return strictest.unwrap_or(rule.policy);
            }
        }
        strictest.map_or(self.policy, |known| known.min(self.policy))
    }

    /// What holds for a span of which this much is known.
    pub(super) fn of(&self, service: Option<&[u8]>, route: Option<&[u8]>) -> Policies {
        let content = self.policy_of(service, route);
        Policies {
            content,
            error_text: self.error_text.unwrap_or(content),
        }
    }
}

/// What holds for the span being read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Policies {
    pub(super) content: ContentPolicy,
    pub(super) error_text: ContentPolicy,
}

impl Policies {
    /// What becomes of one attribute.
    #[inline]
    pub(super) fn of(self, content: Content, value: &Value<'_>) -> ContentPolicy {
        match content {
            Content::No => ContentPolicy::Keep,
            Content::Yes => self.content,
            Content::Perhaps => match value {
                Value::Text(_) | Value::Array(_) | Value::Pairs(_) | Value::Bytes(_) => self.content,
                Value::Empty | Value::Bool(_) | Value::Int(_) | Value::Double(_) => ContentPolicy::Keep,
            },
            Content::ErrorText => self.error_text,
        }
    }
}

impl Reader {
    /// What holds for a resource: the strictest of what could hold for its spans.
    pub(super) fn policies_of_resource(&mut self, resource_spans: &[u8]) -> Result<Policies, ReadError> {
        let mut service = Slots::new();
        let mut resources = Cursor::new(resource_spans);
        while let Some(resource) = resources.next_len(1)? {
            let mut attributes = Cursor::new(resource);
            while let Some(attribute) = attributes.next_len(1)? {
                let (key, value) = key_value(attribute)?;
                for &of in self.resource_keys.meaning(key).uses() {
                    service.offer(of, value);
                }
            }
        }
        Ok(self.config.content.of(service.text(Slot::Service), None))
    }

    /// What holds for a span, by its route: asked before anything of the span is copied, since attributes come in any
    /// order. Only needed where there are rules.
    pub(super) fn policies_of_span(&mut self, span: &[u8], resource: &Slots<'_>) -> Result<Policies, ReadError> {
        let on_resource = resource.get(Slot::Route);
        let mut route = on_resource.map(|value| (resource.rank(Slot::Route), value));
        let mut attributes = Cursor::new(span);
        while let Some(attribute) = attributes.next_len(9)? {
            let (key, value) = key_value(attribute)?;
            for of in self.span_keys.meaning(key).uses() {
                let is_better = route.is_none_or(|(rank, _)| of.rank < rank);
                if of.slot == Slot::Route && is_better && value.says_something() {
                    route = Some((of.rank, value));
                }
            }
        }
        let route = route.and_then(|(_, value)| value.text());
        Ok(self.config.content.of(resource.text(Slot::Service), route))
    }

    /// Columns `input` and `output`: the best whole value, else the messages that came in pieces.
    pub(super) fn set_content(&mut self, row: usize, fields: &Fields<'_>, slots: &Slots<'_>) -> Result<(), ReadError> {
        if self.policies.content == ContentPolicy::Drop {
            return Ok(());
        }
        let max = self.config.text_bytes_max;
        for (slot, side, column) in [
            (Slot::Input, Side::Input, &mut self.spans.input),
            (Slot::Output, Side::Output, &mut self.spans.output),
        ] {
            let pieces;
            let mut json = Vec::new();
            let text: &[u8] = match slots.get(slot) {
                Some(Value::Text(text)) => text,
                Some(nested @ (Value::Array(_) | Value::Pairs(_))) => {
                    if write_json(nested, &mut json, usize::MAX)? == Written::TooDeep {
                        self.counts.values_too_deep += 1;
                        continue;
                    }
                    &json
                }
                _ => {
                    pieces = fields.messages.json(side)?;
                    match &pieces {
                        Some(json) => json,
                        None => continue,
                    }
                }
            };
            let text = utf8(text)?;
            if self.policies.content == ContentPolicy::Hash {
                let mut hash = Vec::new();
                write_hash(text.as_bytes(), &mut hash);
                column.set(row, &hash);
            } else {
                let kept = cut(text, max);
                self.counts.values_cut += u64::from(kept.len() < text.len());
                column.set(row, kept.as_bytes());
            }
        }
        Ok(())
    }
}

/// Bytes of a hash that are written: enough that no two texts share one by chance.
const HASH_BYTES: usize = 16;

/// Writes the hash that stands for a text.
pub(super) fn write_hash(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"sha256:");
    write_hex(&Sha256::digest(text)[..HASH_BYTES], out);
}

#[cfg(test)]
mod tests {
    use super::{ContentPolicy::*, *};

    fn rule(service: &str, route: &str, policy: ContentPolicy) -> ContentRule {
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        ContentRule {
            service: some(service),
            route: some(route),
            policy,
        }
    }

    #[test]
    fn the_first_rule_that_applies_decides() {
        let config = ContentConfig {
            policy: Drop,
            rules: vec![rule("a", "r", Hash), rule("a", "", Keep), rule("", "q", Keep)],
            error_text: None,
        };
        let of = |service: &str, route: &str| config.policy_of(Some(service.as_bytes()), Some(route.as_bytes()));
        assert_eq!(
            [of("a", "r"), of("a", "x"), of("b", "q"), of("b", "r")],
            [Hash, Keep, Keep, Drop]
        );
    }

    #[test]
    fn what_is_unknown_makes_the_strictest_of_all_that_could_apply() {
        let config = ContentConfig {
            policy: Keep,
            rules: vec![rule("a", "r", Hash), rule("b", "r", Drop), rule("c", "", Hash)],
            error_text: None,
        };
        assert_eq!(config.policy_of(Some(b"a"), None), Hash);
        assert_eq!(config.policy_of(Some(b"b"), None), Drop);
        assert_eq!(config.policy_of(Some(b"d"), None), Keep);
        assert_eq!(config.policy_of(None, Some(b"r")), Drop);
        assert_eq!(config.policy_of(None, Some(b"q")), Hash);
        assert_eq!(config.policy_of(None, None), Drop);
    }

    #[test]
    fn a_hash_is_the_start_of_sha256() {
        let mut out = Vec::new();
        write_hash(b"abc", &mut out);
        assert_eq!(out, b"sha256:ba7816bf8f01cfea414140de5dae2223");
    }
}
