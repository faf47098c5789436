//! One `[[release]]`: its keys, what it inherits, and the rules that make it refusable.

use super::{
    criterion, tables,
    walk::{At, Fields},
};
use proto::release::{Approval, GateSpec, Mode, NoData, OnFail, ReleaseSpec, Step, Unit};
use std::{collections::BTreeMap, ops::Range, time::Duration};

/// Keys of `[defaults]`: every scalar of a release.
pub(super) const INHERITED: &[&str] = &[
    "mode",
    "unit",
    "cohort",
    "baseline",
    "warmup",
    "min_traces",
    "min_duration",
    "mirror",
    "cool_down",
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
/// Longest release id and route, bytes.
const NAME_BYTES_MAX: usize = 200;
type Seen = BTreeMap<String, Range<usize>>;

/// Reads one release; `None` if what it must have is not there. Whatever is wrong with it has been said.
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
    names(&fields, id.as_ref(), route.as_ref(), ids, routes);

    let plain = Plain { own: &fields, defaults };
    let mirror = plain.mirror();
    let lacking: Vec<&str> = ["route", "id", "steps", "gate"]
        .into_iter()
        .filter(|k| !fields.has(k))
        .filter(|k| *k != "steps" || mirror.is_none())
        .collect();
    fields.missing(
        &lacking,
        "a release names its route and id, the steps of its ramp and its gates ([[release.gate]])",
    );
    let mode = plain.mode();
    let unit = plain.unit();
    let steps = tables::steps(&fields, mirror.is_some());
    let cohort = plain.from("cohort").text("cohort").map(|at| at.value);
    let min_traces = plain.from("min_traces").whole("min_traces");
    let around = criterion::Around {
        has_cohort: cohort.is_some(),
        unit,
    };
    let gates = criterion::read_all(&fields, around);
    rules(&fields, &gates);
    if mirror.is_some() {
        mirrored_only(&fields, &gates, &steps);
    }
    let warmup = plain.duration("warmup", 300, false).value;
    let timeout = plain.duration("timeout", 60, true).value;
    let grace = plain.duration("grace", 10, false).value;
    let min_duration = plain.duration("min_duration", 0, false).value;
    let cool_down = plain.duration("cool_down", 0, false).value;
    let horizon = plain.horizon(&Before {
        warmup,
        mirror: mirror.unwrap_or_default(),
        steps: steps.iter().map(|s| s.min).sum(),
        min_duration,
        timeout,
        grace,
        lateness: gates
            .iter()
            .filter(|g| !g.dry_run)
            .map(|g| g.lateness)
            .max()
            .unwrap_or_default(),
    });

    let blue = tables::manifest(&fields, "blue");
    let green = tables::manifest(&fields, "green");
    if let (Some(b), Some(g)) = (&blue, &green)
        && b.version == g.version
    {
        fields.notes.say(
            fields.sub("green", "").map_or(0..0, |g| g.at("version")),
            format!("blue and green of {} are the same version", fields.called),
            "give green a `version` of its own: versions are identities, colors are roles",
        );
    }
    if mode == Mode::Act && !fields.has("webhook") {
        fields.notes.say(
            plain.from("mode").at("mode"),
            format!("{} acts, but has no webhook", fields.called),
            "add [release.webhook] with `url` and `secret_env`, or let mode be \"advise\"",
        );
    }
    let quota = tables::quota(&fields);
    let breaker = tables::breaker(&fields);
    let webhook = tables::webhook(&fields);
    let (alpha, alpha_promote) = (plain.chance("alpha", 0.01), plain.chance("alpha_promote", 0.05));
    let baseline = plain.duration("baseline", 86_400, true).value;
    let (approval, no_data) = (plain.approval(), plain.no_data());
    Some(ReleaseSpec {
        route: route?.value,
        id: id?.value,
        mode,
        unit,
        cohort,
        baseline,
        steps,
        warmup,
        min_traces: min_traces.map_or(500, |at| at.value),
        min_duration,
        mirror,
        cool_down,
        horizon,
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
    })
}

/// What the gates together must be able to do.
fn rules(fields: &Fields<'_>, gates: &[GateSpec]) {
    let rolls_back = |g: &GateSpec| g.on_fail == OnFail::Rollback && !g.dry_run;
    if fields.has("gate") && !gates.iter().any(rolls_back) {
        fields.notes.say(
            fields.at("gate"),
            format!("{} has no rollback rule", fields.called),
            "let at least one [[release.gate]] that is no dry run say on_fail = \"rollback\"",
        );
    }
}

/// Without a step below 1.0, a gate on served traffic would wait for green for ever.
fn mirrored_only(fields: &Fields<'_>, gates: &[GateSpec], steps: &[Step]) {
    let declared = fields.subs("steps", &format!("step of {}", fields.called)).len();
    if declared != steps.len() || steps.iter().any(|s| s.green < 1.0) {
        return;
    }
    for blind in gates.iter().filter(|g| !g.dry_run && !g.paired && g.sql.is_none()) {
        fields.notes.say(
            criterion::place(fields, &blind.name),
            format!(
                "gate `{}` compares what both colors serve, but before its promotion {} only mirrors",
                blind.name, fields.called
            ),
            "let it be paired = true or dry_run = true, or add a step below 1.0",
        );
    }
}

/// All that comes before the earliest end of a release.
struct Before {
    warmup: Duration,
    mirror: Duration,
    steps: Duration,
    min_duration: Duration,
    timeout: Duration,
    grace: Duration,
    lateness: Duration,
}

impl Before {
    /// Its parts by name, without those of no length. `min_duration` runs beside mirroring and steps.
    fn parts(&self) -> Vec<(&'static str, Duration)> {
        let ramp = self.mirror + self.steps;
        let rest = self.min_duration.saturating_sub(ramp);
        let parts = [
            ("warm-up", self.warmup),
            ("mirroring", self.mirror),
            ("steps", self.steps),
            ("the rest of min_duration", rest),
            ("lateness", self.lateness),
            ("timeout", self.timeout),
            ("grace", self.grace),
        ];
        parts.into_iter().filter(|(_, d)| !d.is_zero()).collect()
    }
}

/// `warm-up, steps and grace`.
fn and(words: &[&str]) -> String {
    match words.split_last() {
        Some((last, rest)) if !rest.is_empty() => format!("{} and {last}", rest.join(", ")),
        _ => words.concat(),
    }
}

/// The scalars of a release, each its own or inherited.
struct Plain<'a, 't> {
    own: &'a Fields<'t>,
    defaults: Option<&'a Fields<'t>>,
}

impl<'t> Plain<'_, 't> {
    /// The table that says `key`.
    fn from(&self, key: &str) -> Fields<'t> {
        match self.defaults {
            Some(d) if !self.own.has(key) && d.has(key) => d.clone(),
            _ => self.own.clone(),
        }
    }

    fn choice<T: Copy>(&self, key: &str, words: &[(&str, T)], default: T) -> T {
        let read = self.from(key).choice(key, words);
        read.map_or(default, |at| at.value)
    }

    fn mode(&self) -> Mode {
        let words = [("observe", Mode::Observe), ("advise", Mode::Advise), ("act", Mode::Act)];
        self.choice("mode", &words, Mode::Advise)
    }

    fn approval(&self) -> Approval {
        let words = [("none", Approval::None), ("promote", Approval::Promote)];
        self.choice("approval", &words, Approval::None)
    }

    fn no_data(&self) -> NoData {
        let words = [
            ("hold", NoData::Hold),
            ("fail", NoData::Fail),
            ("extend", NoData::Extend),
        ];
        self.choice("no_data", &words, NoData::Hold)
    }

    fn unit(&self) -> Unit {
        let words = [("trace", Unit::Trace), ("session", Unit::Session), ("user", Unit::User)];
        self.choice("unit", &words, Unit::Trace)
    }

    /// How long green only answers mirrored requests; a paired gate needs such a phase, however short.
    fn mirror(&self) -> Option<Duration> {
        let from = self.from("mirror");
        let declared = from.duration("mirror").map(|at| at.value);
        let implied = (from.has("mirror") || criterion::any_paired(self.own)).then_some(Duration::ZERO);
        declared.or(implied)
    }

    /// A duration, `default` in seconds.
    fn duration(&self, key: &str, default: u64, positive: bool) -> At<Duration> {
        let from = self.from(key);
        let read = from.duration(key);
        if let Some(d) = &read
            && positive
            && d.value.is_zero()
        {
            from.notes.say(
                d.span.clone(),
                format!("`{key}` of {} is zero", self.own.called),
                format!("give `{key}` a length, such as \"{default}s\""),
            );
        }
        At {
            value: read.map_or(Duration::from_secs(default), |d| d.value),
            span: from.at(key),
        }
    }

    /// The no-data policy is reachable only if the horizon leaves time to judge.
    fn horizon(&self, before: &Before) -> Duration {
        let horizon = self.duration("horizon", 7 * 86_400, true);
        let parts = before.parts();
        let least: Duration = parts.iter().map(|(_, d)| *d).sum();
        if !horizon.value.is_zero() && horizon.value <= least {
            let names: Vec<&str> = parts.iter().map(|(name, _)| *name).collect();
            self.from("horizon").notes.say(
                horizon.span,
                format!(
                    "the no-data policy of {} comes too early: the horizon of {} is over before its {} ({})",
                    self.own.called,
                    humantime::format_duration(horizon.value),
                    and(&names),
                    humantime::format_duration(least)
                ),
                "make `horizon` longer than all of them together",
            );
        }
        horizon.value
    }

    /// A chance of being wrong.
    fn chance(&self, key: &str, default: f64) -> f64 {
        let from = self.from(key);
        let Some(at) = from.number(key) else {
            return default;
        };
        if at.value > 0.0 && at.value <= 0.5 {
            return at.value;
        }
        from.notes.say(
            at.span,
            format!("`{key}` of {} is {}, not in (0, 0.5]", self.own.called, at.value),
            format!("`{key}` is a chance of being wrong; {default} is usual"),
        );
        default
    }
}

fn names(fields: &Fields<'_>, id: Option<&At<String>>, route: Option<&At<String>>, ids: &mut Seen, routes: &mut Seen) {
    if let Some(id) = id {
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
        if id.value.len() > NAME_BYTES_MAX || !id.value.chars().all(plain) || id.value.starts_with('.') {
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
        if routes.insert(route.value.clone(), route.span.clone()).is_some() {
            fields.notes.say(
                route.span.clone(),
                format!("the route `{}` already has a release", route.value),
                "one release at a time runs on a route: remove the one that is over",
            );
        }
    }
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
