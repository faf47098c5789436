//! One `[[release]]`: its keys, what it inherits, and the rules that make it refusable.

use super::{
    criterion,
    walk::{At, Fields, listed},
};
use proto::release::{
    Approval, BreakerSpec, Manifest, Match, Mode, NoData, OnFail, Quota, ReleaseSpec, Step, Unit,
    WebhookSpec,
};
use std::{collections::BTreeMap, ops::Range, time::Duration};

/// Keys of `[defaults]`: every scalar of a release.
pub(super) const INHERITED: &[&str] = &[
    "mode",
    "unit",
    "cohort",
    "baseline",
    "warmup",
    "min_traces",
    "horizon",
    "approval",
    "alpha",
    "alpha_promote",
    "no_data",
    "timeout",
    "grace",
];
const OWN: &[&str] = &[
    "route", "id", "steps", "blue", "green", "quota", "breaker", "gate", "webhook",
];
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
    "host",
    "prompt_version",
    "shadow_groups",
];
/// Longest release id and route, bytes.
const NAME_BYTES_MAX: usize = 200;
/// Most steps of a ramp.
const STEPS_MAX: usize = 32;

type Seen = BTreeMap<String, Range<usize>>;

/// Reads one release; `None` if anything is wrong with it (which has been said).
pub(super) fn read(
    mut fields: Fields<'_>,
    defaults: Option<&Fields<'_>>,
    ids: &mut Seen,
    routes: &mut Seen,
) -> Option<ReleaseSpec> {
    let id = fields.text("id");
    if let Some(id) = &id {
        fields.called = format!("release `{}`", id.value);
    }
    let known: Vec<&str> = OWN.iter().chain(INHERITED).copied().collect();
    fields.only(&known);
    let route = fields.text("route");
    let lacking: Vec<&str> = ["route", "id", "steps", "gate"]
        .into_iter()
        .filter(|k| !fields.has(k))
        .collect();
    fields.missing(
        &lacking,
        "a release names its route and id, the steps of its ramp and its gates ([[release.gate]])",
    );
    names(&fields, id.as_ref(), route.as_ref(), ids, routes);

    let inherit = |key: &str| match defaults {
        Some(d) if !fields.has(key) && d.has(key) => d.clone(),
        _ => fields.clone(),
    };
    let duration = |key: &str, default: u64, positive: bool| {
        let from = inherit(key);
        let read = from.duration(key);
        if let Some(d) = &read
            && positive
            && d.value.is_zero()
        {
            fields.notes.say(
                d.span.clone(),
                format!("`{key}` of {} is zero", fields.called),
                format!("give `{key}` a length, such as \"{default}s\""),
            );
        }
        let span = from.at(key);
        At {
            value: read.map_or(Duration::from_secs(default), |d| d.value),
            span,
        }
    };
    let share = |key: &str, default: f64| {
        let Some(at) = inherit(key).number(key) else {
            return default;
        };
        if at.value > 0.0 && at.value <= 0.5 {
            return at.value;
        }
        fields.notes.say(
            at.span,
            format!(
                "`{key}` of {} is {}, not in (0, 0.5]",
                fields.called, at.value
            ),
            format!("`{key}` is a chance of being wrong; {default} is usual"),
        );
        default
    };

    let mode = inherit("mode")
        .choice(
            "mode",
            &[
                ("observe", Mode::Observe),
                ("advise", Mode::Advise),
                ("act", Mode::Act),
            ],
        )
        .map_or(Mode::Advise, |at| at.value);
    unit(&inherit("unit"));
    let approval = inherit("approval")
        .choice(
            "approval",
            &[("none", Approval::None), ("promote", Approval::Promote)],
        )
        .map_or(Approval::None, |at| at.value);
    let no_data = inherit("no_data")
        .choice(
            "no_data",
            &[
                ("hold", NoData::Hold),
                ("fail", NoData::Fail),
                ("extend", NoData::Extend),
            ],
        )
        .map_or(NoData::Hold, |at| at.value);
    let baseline = duration("baseline", 86_400, true).value;
    let warmup = duration("warmup", 300, false).value;
    let timeout = duration("timeout", 60, true).value;
    let grace = duration("grace", 10, false).value;
    let horizon = duration("horizon", 7 * 86_400, true);
    let cohort = inherit("cohort").text("cohort").map(|at| at.value);
    let alpha = share("alpha", 0.01);
    let alpha_promote = share("alpha_promote", 0.05);
    let min_traces = inherit("min_traces")
        .whole("min_traces")
        .map_or(500, |at| at.value);

    let steps = steps(&fields);
    let ramp: Duration = steps.iter().map(|s| s.min).sum();
    let least = warmup + timeout + grace + ramp;
    if !horizon.value.is_zero() && horizon.value <= least {
        fields.notes.say(
            horizon.span,
            format!(
                "the no-data policy of {} comes too early: the horizon of {} is over before its warm-up, steps, timeout and grace ({})",
                fields.called,
                humantime::format_duration(horizon.value),
                humantime::format_duration(least)
            ),
            "make `horizon` longer than all of them together",
        );
    }

    let blue = manifest(&fields, "blue");
    let green = manifest(&fields, "green");
    if let (Some(b), Some(g)) = (&blue, &green)
        && b.version == g.version
    {
        fields.notes.say(
            fields.sub("green", "").map_or(0..0, |g| g.at("version")),
            format!("blue and green of {} are the same version", fields.called),
            "give green a `version` of its own: versions are identities, colors are roles",
        );
    }
    let quota = quota(&fields);
    let breaker = breaker(&fields);
    let gates = criterion::read_all(&fields, cohort.is_some());
    if fields.has("gate") && !gates.iter().any(|g| g.on_fail == OnFail::Rollback) {
        fields.notes.say(
            fields.at("gate"),
            format!("{} has no rollback rule", fields.called),
            "let at least one [[release.gate]] say on_fail = \"rollback\"",
        );
    }
    let webhook = webhook(&fields);
    if mode == Mode::Act && !fields.has("webhook") {
        fields.notes.say(
            inherit("mode").at("mode"),
            format!("{} acts, but has no webhook", fields.called),
            "add [release.webhook] with `url` and `secret_env`, or let mode be \"advise\"",
        );
    }

    let spec = ReleaseSpec {
        route: route?.value,
        id: id?.value,
        mode,
        unit: Unit::Trace,
        cohort,
        baseline,
        steps,
        warmup,
        min_traces,
        horizon: horizon.value,
        approval,
        alpha,
        alpha_promote,
        no_data,
        timeout,
        grace,
        blue: blue?,
        green: green?,
        quota,
        breaker,
        gates,
        webhook,
    };
    Some(spec)
}

fn names(
    fields: &Fields<'_>,
    id: Option<&At<String>>,
    route: Option<&At<String>>,
    ids: &mut Seen,
    routes: &mut Seen,
) {
    if let Some(id) = id {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if id.value.len() > NAME_BYTES_MAX
            || !id.value.chars().all(plain)
            || id.value.starts_with('.')
        {
            fields.notes.say(
                id.span.clone(),
                "a release id holds letters, digits, `-`, `_` and `.` only",
                "it becomes part of addresses, such as /api/v1/releases/support-chat-42",
            );
        }
        if ids.insert(id.value.clone(), id.span.clone()).is_some() {
            fields.notes.say(
                id.span.clone(),
                format!("the release id `{}` is taken", id.value),
                "a release id names one trial for ever: choose a new one",
            );
        }
    }
    if let Some(route) = route {
        if route.value.len() > NAME_BYTES_MAX || route.value.chars().any(char::is_control) {
            fields.notes.say(
                route.span.clone(),
                format!("a route has at most {NAME_BYTES_MAX} bytes and no control characters"),
                "use the name that the gateway puts on its spans",
            );
        }
        if routes
            .insert(route.value.clone(), route.span.clone())
            .is_some()
        {
            fields.notes.say(
                route.span.clone(),
                format!("the route `{}` already has a release", route.value),
                "one release at a time runs on a route: remove the one that is over",
            );
        }
    }
}

fn unit(from: &Fields<'_>) {
    let read = from.choice(
        "unit",
        &[
            ("trace", Unit::Trace),
            ("session", Unit::Session),
            ("user", Unit::User),
        ],
    );
    if let Some(at) = read
        && at.value != Unit::Trace
    {
        from.notes.say(
            at.span,
            "only unit = \"trace\" is judged; \"session\" and \"user\" are not supported yet",
            "randomise by trace, or wait: sticky routing judged by trace would be wrong",
        );
    }
}

fn steps(fields: &Fields<'_>) -> Vec<Step> {
    let mut out: Vec<Step> = Vec::new();
    let called = format!("step of {}", fields.called);
    let all = fields.subs("steps", &called);
    if fields.is_list("steps") && (all.is_empty() || all.len() > STEPS_MAX) {
        fields.notes.say(
            fields.at("steps"),
            format!("{} has {} steps, not 1 to {STEPS_MAX}", fields.called, all.len()),
            "write steps = [{ green = 0.05, min = \"30m\" }, { green = 1.0 }]; mirroring without steps is not supported yet",
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
                format!(
                    "step {} of {} is {}, not in (0, 1]",
                    i + 1,
                    fields.called,
                    green.value
                ),
                "a step is green's share of the route: 0.05 is 5 %",
            );
        } else if green.value <= before {
            fields.notes.say(
                green.span.clone(),
                format!(
                    "step {} of {} does not rise above {before}",
                    i + 1,
                    fields.called
                ),
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
    {
        fields.notes.say(
            fields.at("steps"),
            format!("{} has no step below 1.0", fields.called),
            "both colors must serve side by side to be compared: begin with { green = 0.05, min = \"30m\" }",
        );
    }
    out
}

fn manifest(fields: &Fields<'_>, side: &str) -> Option<Manifest> {
    let called = format!("{side} of {}", fields.called);
    let Some(table) = fields.sub(side, called.clone()) else {
        if !fields.has(side) {
            fields.missing(
                &[side],
                &format!(
                    "add [release.{side}] with the complete path: {}",
                    listed(MANIFEST)
                ),
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

fn quota(fields: &Fields<'_>) -> Quota {
    let Some(table) = fields.sub("quota", format!("quota of {}", fields.called)) else {
        return Quota::default();
    };
    table.only(&["requests_per_minute", "tokens_per_minute"]);
    Quota {
        requests_per_minute: table.whole("requests_per_minute").map(|at| at.value),
        tokens_per_minute: table.whole("tokens_per_minute").map(|at| at.value),
    }
}

fn breaker(fields: &Fields<'_>) -> BreakerSpec {
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

fn webhook(fields: &Fields<'_>) -> Option<WebhookSpec> {
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
        table.notes.say(
            url.span,
            why,
            "write url = \"https://gateway.example/hooks/tracegate\"",
        );
        return None;
    }
    Some(WebhookSpec {
        url: url.value,
        secret_env: table.text("secret_env").map(|at| at.value),
        secret_file: table.text("secret_file").map(|at| at.value),
    })
}

/// The release as a file says it, for declarations that come as values.
pub(super) fn written(spec: &ReleaseSpec) -> String {
    let mut value = serde_json::to_value(spec).unwrap_or_default();
    criterion::unfold(&mut value);
    as_file(value)
}

/// One release in JSON as the text of a file; what TOML cannot say becomes an empty file with an empty release.
pub(super) fn as_file(mut release: serde_json::Value) -> String {
    #[derive(serde::Serialize)]
    struct File {
        release: [serde_json::Value; 1],
    }
    strip_nulls(&mut release);
    toml::to_string(&File { release: [release] }).unwrap_or_else(|_| "[[release]]\n".to_owned())
}

fn strip_nulls(value: &mut serde_json::Value) {
    match value {
        serde_json::Value::Object(map) => {
            map.retain(|_, v| !v.is_null());
            map.values_mut().for_each(strip_nulls);
        }
        serde_json::Value::Array(items) => items.iter_mut().for_each(strip_nulls),
        _ => {}
    }
}
