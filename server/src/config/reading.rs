//! `[attributes]` and `[content]`: which attributes mean what, and what becomes of prompts and outputs.

use super::section::{Findings, Section};
use ingest::read::{ContentConfig, ContentPolicy, ContentRule, ExtraKeys};
use serde::Deserialize;
use std::ops::Range;
use toml::{
    Spanned,
    de::{DeValue, ValueDeserializer},
};

/// Most `[[content.rule]]` of a configuration.
const CONTENT_RULES_MAX: usize = 1_000;
const POLICIES: &str = "policies are \"drop\", \"hash\" and \"keep\"";

/// Attribute keys beside the built-in ones, by column; declared feature flags; more content.
pub fn attributes(mut section: Section<'_>, keys: &mut ExtraKeys, findings: &mut Findings) {
    for name in ExtraKeys::names() {
        let Some(list) = section.read::<Vec<Spanned<String>>>(name, findings) else {
            continue;
        };
        for key in list {
            if let Err(error) = keys.add(name, key.get_ref()) {
                findings.add(Some(key.span()), error.to_string(), None);
            }
        }
    }
    section.finish(findings);
}

/// What becomes of content: everywhere, and by service and route.
pub fn content(mut section: Section<'_>, content: &mut ContentConfig, findings: &mut Findings) {
    if let Some(policy) = section.parse("policy", findings, policy) {
        content.policy = policy;
    }
    if let Some(error_text) = section.parse("error_text", findings, policy) {
        content.error_text = Some(error_text);
    }
    if let Some(rules) = section.take("rule") {
        let span = rules.span();
        match rules.into_inner() {
            DeValue::Array(rules) => {
                if rules.len() > CONTENT_RULES_MAX {
                    let message = format!("{} content rules are more than {CONTENT_RULES_MAX}", rules.len());
                    findings.add(Some(span), message, None);
                }
                let rules = rules.into_iter().take(CONTENT_RULES_MAX);
                content.rules = rules.filter_map(|found| rule(found, findings)).collect();
            }
            other => {
                let help = "write `[[content.rule]]` on a line of its own, and its keys below".to_owned();
                let message = format!("`rule` is a list of tables, not a {}", other.type_str());
                findings.add(Some(span), message, Some(help));
            }
        }
    }
    section.finish(findings);
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    service: Option<String>,
    route: Option<String>,
    policy: Spanned<String>,
}

/// Every rule by itself, so that one wrong rule does not hide the next.
fn rule(found: Spanned<DeValue<'_>>, findings: &mut Findings) -> Option<ContentRule> {
    let span = found.span();
    let mut refuse = |span: Range<usize>, message: String, help: &str| {
        findings.add(Some(span), message, Some(help.to_owned()));
    };
    let text = match RuleText::deserialize(ValueDeserializer::from(found)) {
        Ok(text) => text,
        Err(error) => {
            let at = error.span().unwrap_or(span);
            refuse(
                at,
                format!("[[content.rule]]: {}", error.message()),
                "a rule has service, route or both, and policy",
            );
            return None;
        }
    };
    if text.service.is_none() && text.route.is_none() {
        let help = "give service, route or both; `policy` in [content] is about all others";
        refuse(span, "a content rule is about no service and no route".to_owned(), help);
        return None;
    }
    match policy(text.policy.get_ref()) {
        Ok(policy) => Some(ContentRule {
            service: text.service,
            route: text.route,
            policy,
        }),
        Err(message) => {
            refuse(text.policy.span(), format!("`policy`: {message}"), POLICIES);
            None
        }
    }
}

fn policy(text: &str) -> Result<ContentPolicy, String> {
    match text {
        "drop" => Ok(ContentPolicy::Drop),
        "hash" => Ok(ContentPolicy::Hash),
        "keep" => Ok(ContentPolicy::Keep),
        other => Err(format!("`{other}` is no policy; {POLICIES}")),
    }
}
