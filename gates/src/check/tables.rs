//! The tables below a release: steps, manifests, quota, breaker, webhook.

use super::walk::{Fields, listed};
use proto::release::{BreakerSpec, Manifest, Match, Quota, Step, WebhookSpec};
use std::time::Duration;

const MANIFEST: &[&str] = &[
    "version",
    "provider",
    "model",
    "prompt",
    "tools",
    "guardrails",
    "cache",
    "fallback",
    "policy",
    "logging",
    "pii",
];
const MATCH: &[&str] = &[
    "deployment",
    "variant",
    "response_model",
    "request_model",
    "tools",
    "host",
    "prompt_version",
    "shadow_groups",
];
/// Most steps of a ramp.
const STEPS_MAX: usize = 32;

/// The ramp. One that mirrors first may have none, or go from there to all of the route at once.
pub(super) fn steps(fields: &Fields<'_>, mirrors: bool) -> Vec<Step> {
    let mut out: Vec<Step> = Vec::new();
    let called = format!("step of {}", fields.called);
    let all = fields.subs("steps", &called);
    if fields.is_list("steps") && ((all.is_empty() && !mirrors) || all.len() > STEPS_MAX) {
        fields.notes.say(
            fields.at("steps"),
            format!("{} has {} steps, not 1 to {STEPS_MAX}", fields.called, all.len()),
            "write steps = [{ green = 0.05, min = \"30m\" }, { green = 1.0 }]; only mirrored traffic (mirror = \"30m\") needs none",
        );
    }
    for (i, step) in all.iter().enumerate() {
        step.only(&["green", "min"]);
        let min = step.duration("min").map_or(Duration::ZERO, |at| at.value);
        let Some(green) = step.number("green") else {
            if !step.has("green") {
                step.missing(&["green"], "a step says which share goes green, in (0, 1]");
            }
            continue;
        };
        let before = out.last().map_or(0.0, |s| s.green);
        let ppm = green.value * f64::from(proto::cell::PPM);
        if !(ppm >= 1.0 && green.value <= 1.0) {
            fields.notes.say(
                green.span.clone(),
                format!("step {} of {} is {}, not in (0, 1]", i + 1, fields.called, green.value),
                "a step is green's share of the route: 0.05 is 5 %",
            );
        } else if green.value <= before {
            fields.notes.say(
                green.span.clone(),
                format!("step {} of {} does not rise above {before}", i + 1, fields.called),
                "steps ascend: { green = 0.05 }, { green = 0.25 }, { green = 1.0 }",
            );
        } else {
            out.push(Step {
                green: green.value,
                min,
            });
        }
    }
    if let Some(first) = out.first()
        && first.green >= 1.0
        && !mirrors
    {
        fields.notes.say(
            fields.at("steps"),
            format!("{} has no step below 1.0", fields.called),
            "both colors must serve side by side to be compared: begin with { green = 0.05, min = \"30m\" }",
        );
    }
    out
}

pub(super) fn manifest(fields: &Fields<'_>, side: &str) -> Option<Manifest> {
    let called = format!("{side} of {}", fields.called);
    let Some(table) = fields.sub(side, called.clone()) else {
        if !fields.has(side) {
            fields.missing(
                &[side],
                &format!("add [release.{side}] with the complete path: {}", listed(MANIFEST)),
            );
        }
        return None;
    };
    let known: Vec<&str> = MANIFEST.iter().copied().chain(["match"]).collect();
    table.only(&known);
    let lacking: Vec<&str> = MANIFEST.iter().copied().filter(|k| !table.has(k)).collect();
    table.missing(
        &lacking,
        "a manifest is complete: a route is rolled back as a whole, never the model alone",
    );
    let text = |key: &str| table.text(key).map(|at| at.value);
    let prompt = table.text("prompt");
    if let Some(p) = &prompt
        && p.value
            .rsplit_once('@')
            .is_none_or(|(n, v)| n.is_empty() || v.is_empty())
    {
        table.notes.say(
            p.span.clone(),
            format!("the prompt of {called} is not `name@version`"),
            "write prompt = \"support@12\"",
        );
    }
    let matches = table.sub("match", format!("match of {called}"));
    let matches = matches.map_or_else(Match::default, |m| {
        m.only(MATCH);
        let list = |key: &str| m.texts(key).unwrap_or_default();
        Match {
            deployment: list("deployment"),
            variant: list("variant"),
            response_model: list("response_model"),
            request_model: list("request_model"),
            tools: list("tools"),
            host: list("host"),
            prompt_version: list("prompt_version"),
            shadow_groups: list("shadow_groups"),
        }
    });
    Some(Manifest {
        version: text("version")?,
        provider: text("provider")?,
        model: text("model")?,
        prompt: prompt?.value,
        tools: text("tools")?,
        guardrails: text("guardrails")?,
        cache: text("cache")?,
        fallback: table.texts("fallback")?,
        policy: text("policy")?,
        logging: text("logging")?,
        pii: text("pii")?,
        matches,
    })
}

pub(super) fn quota(fields: &Fields<'_>) -> Quota {
    let Some(table) = fields.sub("quota", format!("quota of {}", fields.called)) else {
        return Quota::default();
    };
    table.only(&["requests_per_minute", "tokens_per_minute"]);
    Quota {
        requests_per_minute: table.whole("requests_per_minute").map(|at| at.value),
        tokens_per_minute: table.whole("tokens_per_minute").map(|at| at.value),
    }
}

pub(super) fn breaker(fields: &Fields<'_>) -> BreakerSpec {
    let mut out = BreakerSpec {
        max: None,
        alpha_share: 0.2,
    };
    let Some(table) = fields.sub("breaker", format!("breaker of {}", fields.called)) else {
        return out;
    };
    table.only(&["max", "alpha_share"]);
    for (key, help) in [
        (
            "max",
            "`max` is the highest tolerable share of failed attempts, such as 0.2",
        ),
        (
            "alpha_share",
            "`alpha_share` is the breaker's part of `alpha`, such as 0.2",
        ),
    ] {
        let Some(at) = table.number(key) else {
            continue;
        };
        if !(at.value > 0.0 && at.value < 1.0) {
            table.notes.say(
                at.span,
                format!("`{key}` of {} is {}, not in (0, 1)", table.called, at.value),
                help,
            );
        } else if key == "max" {
            out.max = Some(at.value);
        } else {
            out.alpha_share = at.value;
        }
    }
    out
}

pub(super) fn webhook(fields: &Fields<'_>) -> Option<WebhookSpec> {
    let table = fields.sub("webhook", format!("webhook of {}", fields.called))?;
    table.only(&["url", "secret_env", "secret_file"]);
    if !table.has("url") {
        table.missing(
            &["url"],
            "say where notices go: url = \"https://gateway.example/hooks/tracegate\"",
        );
    }
    match (table.has("secret_env"), table.has("secret_file")) {
        (false, false) => table.notes.say(
            table.span.clone(),
            format!("{} has no secret", table.called),
            "name the environment variable (secret_env) or the file (secret_file) that holds whsec_...",
        ),
        (true, true) => table.notes.say(
            table.at("secret_file"),
            format!("{} has both secret_env and secret_file", table.called),
            "keep one of them",
        ),
        _ => {}
    }
    let url = table.text("url")?;
    if let Err(why) = crate::webhook::parse_url(&url.value) {
        table
            .notes
            .say(url.span, why, "write url = \"https://gateway.example/hooks/tracegate\"");
        return None;
    }
    Some(WebhookSpec {
        url: url.value,
        secret_env: table.text("secret_env").map(|at| at.value),
        secret_file: table.text("secret_file").map(|at| at.value),
    })
}
