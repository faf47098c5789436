//! One `[[release.gate]]`: which comparisons make sense for which metric.

use super::walk::{Fields, did_you_mean, listed};
use proto::{
    Metric,
    metric::{MetricKind, normalise_eval_name},
    release::{GateSpec, Margin, OnFail},
};
use std::collections::BTreeSet;

const KEYS: &[&str] = &[
    "name",
    "metric",
    "eval",
    "quantile",
    "max_ratio",
    "max_increase",
    "max",
    "min",
    "by",
    "min_coverage",
    "on_fail",
    "paired",
    "sql",
];
const MARGINS: &[&str] = &["max_ratio", "max_increase", "max", "min"];
/// Most gates of one release.
const GATES_MAX: usize = 64;

pub(super) fn read_all(release: &Fields<'_>, has_cohort: bool) -> Vec<GateSpec> {
    let mut names = BTreeSet::new();
    let mut out = Vec::new();
    let called = format!("gate of {}", release.called);
    let all = release.subs("gate", &called);
    if release.is_list("gate") && (all.is_empty() || all.len() > GATES_MAX) {
        release.notes.say(
            release.at("gate"),
            format!("{} has {} gates, not 1 to {GATES_MAX}", release.called, all.len()),
            "declare each criterion as [[release.gate]]",
        );
    }
    for mut gate in all {
        let name = gate.text("name");
        match &name {
            Some(at) => {
                gate.called = format!("gate `{}`", at.value);
                if !names.insert(at.value.clone()) {
                    gate.notes.say(
                        at.span.clone(),
                        format!("the gate name `{}` is taken", at.value),
                        "gates are named uniquely within a release",
                    );
                }
            }
            None if !gate.has("name") => gate.missing(&["name"], "give the gate a name"),
            None => {}
        }
        if let (Some(spec), Some(name)) = (read(&gate, has_cohort), name) {
            out.push(GateSpec {
                name: name.value,
                ..spec
            });
        }
    }
    out
}

fn read(gate: &Fields<'_>, has_cohort: bool) -> Option<GateSpec> {
    gate.only(KEYS);
    for (key, why) in [
        ("sql", "gates written in SQL are not supported yet"),
        (
            "paired",
            "paired gates need mirrored traffic, which is not supported yet",
        ),
    ] {
        if gate.has(key) {
            gate.notes.say(
                gate.at(key),
                why,
                "use a metric with max_ratio, max_increase, max or min",
            );
        }
    }
    let on_fail = gate.choice(
        "on_fail",
        &[
            ("rollback", OnFail::Rollback),
            ("fallback", OnFail::Fallback),
            ("hold", OnFail::Hold),
        ],
    );
    if !gate.has("on_fail") {
        gate.missing(
            &["on_fail"],
            "say what failing does: \"rollback\", \"fallback\" or \"hold\"",
        );
    }
    let by_cohort = by_cohort(gate, has_cohort, on_fail.as_ref().map(|at| at.value));
    if gate.has("sql") {
        return None;
    }
    let metric = metric(gate);
    let quantile = quantile(gate, metric.as_ref());
    let margin = margin(gate, metric.as_ref(), on_fail.as_ref().map(|at| at.value));
    let min_coverage = coverage(gate, metric.as_ref());
    Some(GateSpec {
        name: String::new(),
        metric: metric?,
        quantile,
        margin: margin?,
        by_cohort,
        min_coverage,
        lateness: std::time::Duration::ZERO,
        paired: false,
        sql: None,
        dry_run: false,
        on_fail: on_fail?.value,
    })
}

fn by_cohort(gate: &Fields<'_>, has_cohort: bool, on_fail: Option<OnFail>) -> bool {
    let by = gate.choice("by", &[("cohort", ())]);
    if let Some(at) = &by
        && !has_cohort
    {
        gate.notes.say(
            at.span.clone(),
            format!("{} is judged by cohort, but the release names no cohort", gate.called),
            "add cohort = \"customer.tier\" (an attribute of the traces) to the release",
        );
    }
    if on_fail == Some(OnFail::Fallback) && !gate.has("by") {
        gate.notes.say(
            gate.at("on_fail"),
            format!("{} falls back a cohort, but is not judged by cohort", gate.called),
            "add by = \"cohort\", or let on_fail be \"rollback\"",
        );
    }
    by.is_some()
}

fn metric(gate: &Fields<'_>) -> Option<Metric> {
    if !gate.has("metric") {
        if !gate.has("paired") {
            gate.missing(&["metric"], "say what is measured, such as metric = \"latency\"");
        }
        return None;
    }
    let at = gate.text("metric")?;
    let eval = gate.text("eval");
    if at.value == "eval_fail" {
        let Some(eval) = eval else {
            if !gate.has("eval") {
                gate.missing(&["eval"], "`eval_fail` names its evaluator: eval = \"TaskCompletion\"");
            }
            return None;
        };
        let name = normalise_eval_name(&eval.value);
        if name.is_empty() {
            gate.notes.say(
                eval.span,
                format!("`eval` of {} has neither letters nor digits", gate.called),
                "write eval = \"TaskCompletion\"",
            );
            return None;
        }
        return Some(Metric::EvalFail(name.into()));
    }
    if let Some(eval) = eval {
        gate.notes.say(
            eval.span,
            format!("`eval` of {} goes with metric = \"eval_fail\" only", gate.called),
            "remove it, or change the metric",
        );
    }
    let parsed = at.value.parse::<Metric>().ok();
    if let Some(m) = parsed
        && !matches!(m, Metric::EvalFail(_))
    {
        if matches!(m, Metric::Traces | Metric::Unmarked) {
            gate.notes.say(
                at.span,
                format!("`{m}` belongs to no color, so no gate can compare it"),
                "unmarked traffic blocks promotion by itself; remove the gate",
            );
            return None;
        }
        return Some(m);
    }
    let names: Vec<String> = Metric::PLAIN
        .iter()
        .filter(|m| !matches!(m, Metric::Traces | Metric::Unmarked))
        .map(ToString::to_string)
        .chain(["eval_fail".to_owned()])
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    gate.notes.say(
        at.span,
        format!("unknown metric `{}` in {}", at.value, gate.called),
        did_you_mean(&at.value, &names, &format!("the metrics are {}", listed(&names))),
    );
    None
}

fn quantile(gate: &Fields<'_>, metric: Option<&Metric>) -> Option<f64> {
    let at = gate.number("quantile")?;
    if !(at.value > 0.0 && at.value < 1.0) {
        gate.notes.say(
            at.span,
            format!("`quantile` of {} is {}, not in (0, 1)", gate.called, at.value),
            "the 99th percentile is quantile = 0.99",
        );
        return None;
    }
    if metric.is_some_and(|m| m.kind() == MetricKind::Rate) {
        gate.notes.say(
            at.span,
            format!("{} measures a share, which has no quantile", gate.called),
            "remove `quantile`; amounts such as latency, ttft, cost and tokens have one",
        );
        return None;
    }
    Some(at.value)
}

fn margin(gate: &Fields<'_>, metric: Option<&Metric>, on_fail: Option<OnFail>) -> Option<Margin> {
    let given: Vec<&str> = MARGINS.iter().copied().filter(|k| gate.has(k)).collect();
    let key = match given.as_slice() {
        [] if gate.has("paired") => return None,
        [] => {
            gate.missing(
                &["max_ratio"],
                "say how far green may be worse: max_ratio = 1.2, max_increase, max or min",
            );
            return None;
        }
        [one] => *one,
        several => {
            gate.notes.say(
                gate.at(several[1]),
                format!("{} has {}, and one gate has one margin", gate.called, listed(several)),
                "make a second gate of the other",
            );
            return None;
        }
    };
    let at = gate.number(key)?;
    let v = at.value;
    let rate = metric.is_none_or(|m| m.kind() == MetricKind::Rate);
    let known = metric.is_some();
    let complaint = match key {
        "max_ratio" if v <= 0.0 => Some((
            "is not above 0".to_owned(),
            "green may be at most this many times blue: 1.2 allows 20 % more",
        )),
        "max_ratio" if v <= 1.0 && on_fail == Some(OnFail::Rollback) => Some((
            "is not above 1, so an equal green would be rolled back".to_owned(),
            "green may be at most this many times blue: 1.2 allows 20 % more",
        )),
        "max_increase" if v <= 0.0 => Some((
            "is not above 0".to_owned(),
            "green may exceed blue by this much, in the metric's own unit (a share, USD, ms, tokens)",
        )),
        "max_increase" if known && rate && v >= 1.0 => Some((
            "is not below 1, so a share can never exceed it".to_owned(),
            "0.02 allows two percentage points more",
        )),
        "max" if v <= 0.0 || (known && rate && v >= 1.0) => Some((
            if rate { "is not in (0, 1)" } else { "is not above 0" }.to_owned(),
            "a limit on green alone: a share such as 0.02, or an amount in the metric's own unit",
        )),
        "min" if v <= 0.0 || (known && rate && v >= 1.0) => Some((
            if rate { "is not in (0, 1)" } else { "is not above 0" }.to_owned(),
            "a floor on green alone: a share such as 0.3, or an amount in the metric's own unit",
        )),
        _ => None,
    };
    if let Some((what, help)) = complaint {
        gate.notes
            .say(at.span, format!("`{key}` of {} is {v}: it {what}", gate.called), help);
        return None;
    }
    Some(match key {
        "max_ratio" => Margin::MaxRatio(v),
        "max_increase" => Margin::MaxIncrease(v),
        "max" => Margin::Max(v),
        _ => Margin::Min(v),
    })
}

fn coverage(gate: &Fields<'_>, metric: Option<&Metric>) -> Option<f64> {
    let at = gate.number("min_coverage")?;
    if !(at.value > 0.0 && at.value <= 1.0) {
        gate.notes.say(
            at.span,
            format!("`min_coverage` of {} is {}, not in (0, 1]", gate.called, at.value),
            "0.8 wants four of five traces to carry the evaluation",
        );
        return None;
    }
    if metric.is_some_and(|m| !matches!(m, Metric::EvalFail(_))) {
        gate.notes.say(
            at.span,
            format!("`min_coverage` of {} goes with evaluations only", gate.called),
            "remove it, or use metric = \"eval_fail\"",
        );
        return None;
    }
    Some(at.value)
}

/// Turns a stored gate back into the keys of a file, in place.
pub(super) fn unfold(release: &mut serde_json::Value) {
    let gates = release.get_mut("gate").and_then(|g| g.as_array_mut());
    for gate in gates.into_iter().flatten().filter_map(|g| g.as_object_mut()) {
        if let Some(serde_json::Value::Object(margin)) = gate.remove("margin") {
            gate.extend(margin);
        }
        if gate.remove("by_cohort") == Some(true.into()) {
            gate.insert("by".into(), "cohort".into());
        }
        let metric = gate.get("metric").and_then(|m| m.as_str()).map(str::to_owned);
        if let Some(eval) = metric.as_deref().and_then(|m| m.strip_prefix("eval_fail:")) {
            gate.insert("eval".into(), eval.into());
            gate.insert("metric".into(), "eval_fail".into());
        }
    }
}
