//! Whether the answer of a trace came along the path that the manifest of its version declares.

use super::{
    shape::Shape,
    span::{Span, Word},
};
use proto::release::Manifest;

/// Whether the path of `answer`, the call that answered, contradicts `declared`; `None` if nothing on it can be
/// compared. A component that the span does not name, nor any span above it, contradicts nothing; nor does a model of
/// the fallback chain.
#[must_use]
pub fn is_off(declared: &Manifest, spans: &[Span], shape: &Shape, answer: usize) -> Option<bool> {
    let around = |word: Word| {
        let above = std::iter::successors(Some(answer), |&at| shape.above(at));
        above.take(DEPTH_MAX).find_map(|i| spans[i].labels.text(word))
    };
    let model = spans[answer].labels.text(Word::RequestModel).map(|model| {
        let matches = &declared.matches;
        is_model(&declared.model, model)
            || declared.fallback.iter().any(|fallback| is_model(fallback, model))
            || matches
                .deployment
                .iter()
                .chain(&matches.response_model)
                .any(|other| other == model)
    });
    let prompt = match (around(Word::PromptName), around(Word::PromptVersion)) {
        (Some(name), Some(version)) => Some(declared.prompt.split_once('@') == Some((name, version))),
        (None, Some(version)) => Some(declared.prompt.rsplit('@').next() == Some(version)),
        _ => None,
    };
    let same = |declared: &str, word: Word| {
        // a hash of what was captured cannot be compared with a name
        let seen = around(word).filter(|seen| !seen.starts_with(HASHED) || declared.starts_with(HASHED))?;
        Some(seen == declared)
    };
    [
        model,
        prompt,
        same(&declared.tools, Word::Tools),
        same(&declared.guardrails, Word::Guardrails),
        same(&declared.cache, Word::Cache),
        same(&declared.policy, Word::Policy),
    ]
    .into_iter()
    .flatten()
    .reduce(|all, fits| all && fits)
    .map(|fits| !fits)
}

/// How far up stamps are looked for.
const DEPTH_MAX: usize = 64;
/// How a version that the reader made of captured definitions starts.
const HASHED: &str = "sha256:";

/// Whether a span's model is the declared one: as written, or but for the provider before it or the date behind it.
fn is_model(declared: &str, seen: &str) -> bool {
    let bare = |model: &str| undated(model.rsplit('/').next().unwrap_or(model)).to_owned();
    declared == seen || bare(declared) == bare(seen)
}

/// `gpt-4o-mini` of `gpt-4o-mini-2024-07-18`, `claude` of `claude-20250219` and of `claude@20250219`.
fn undated(model: &str) -> &str {
    let is_date = |tail: &str| {
        let digits = tail.bytes().filter(u8::is_ascii_digit).count();
        digits == 8 && tail.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-')
    };
    [8, 10]
        .iter()
        .filter_map(|len| model.split_at_checked(model.len().checked_sub(len + 1)?))
        .find(|(_, tail)| tail.starts_with(['-', '@']) && is_date(&tail[1..]))
        .map_or(model, |(name, _)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_model_is_the_declared_one_but_for_provider_and_date() {
        assert!(is_model("gpt-4o-mini", "gpt-4o-mini-2024-07-18"));
        assert!(is_model("gpt-4o-mini", "openai/gpt-4o-mini"));
        assert!(is_model("claude-sonnet-4", "claude-sonnet-4@20250514"));
        assert!(!is_model("gpt-4o-mini", "gpt-4o"));
        assert!(!is_model("gpt-4o", "gpt-4o-mini"));
        assert_eq!(undated("gpt-4-32k"), "gpt-4-32k");
        assert_eq!(undated("x-1234-5678"), "x-1234-5678");
    }
}
