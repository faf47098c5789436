//! One `[[release.gate]]`: which comparisons make sense for which metric.

mod margin;
mod metric;
mod statement;

use super::walk::Fields;
use metric::Measured;
use proto::{
    Metric,
    release::{GateSpec, OnFail, Unit},
};
use std::{collections::BTreeSet, ops::Range, time::Duration};

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
    "lateness",
    "on_fail",
    "paired",
    "sql",
    "dry_run",
];
/// Most gates of one release.
const GATES_MAX: usize = 64;

/// What a gate must know of its release.
#[derive(Debug, Clone, Copy)]
pub(super) struct Around {
    pub has_cohort: bool,
    pub unit: Unit,
}

/// Every gate that is well formed.
pub(super) fn read_all(release: &Fields<'_>, around: Around) -> Vec<GateSpec> {
    let mut names = BTreeSet::new();
    let mut out = Vec::new();
    let all = tables(release);
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
        let name = name.map(|at| at.value);
        // a nameless gate is read for its other mistakes
        let spec = read(&gate, name.as_deref().unwrap_or("?"), around);
        if name.is_some() {
            out.extend(spec);
        }
    }
    out
}

/// Whether any gate, well formed or not, asks for mirrored pairs.
pub(super) fn any_paired(release: &Fields<'_>) -> bool {
    tables(release).iter().any(|gate| gate.is_true("paired"))
}

/// Where the gate of this name stands.
pub(super) fn place(release: &Fields<'_>, name: &str) -> Range<usize> {
    let named = |gate: &Fields<'_>| gate.text("name").is_some_and(|at| at.value == name);
    tables(release)
        .into_iter()
        .find(named)
        .map_or_else(|| release.at("gate"), |gate| gate.span)
}

fn tables<'t>(release: &Fields<'t>) -> Vec<Fields<'t>> {
    release.subs("gate", &format!("gate of {}", release.called))
}

fn read(gate: &Fields<'_>, name: &str, around: Around) -> Option<GateSpec> {
    gate.only(KEYS);
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
    let on_fail = on_fail.map(|at| at.value);
    let dry_run = gate.flag("dry_run").is_some_and(|at| at.value);
    if gate.has("sql") {
        let sql = statement::read(gate, on_fail);
        let margin = margin::read(gate, Some(Measured::Share), on_fail);
        return Some(GateSpec {
            name: name.to_owned(),
            metric: Metric::Sql(name.into()),
            quantile: None,
            margin: margin?,
            by_cohort: false,
            min_coverage: None,
            lateness: Duration::ZERO,
            paired: false,
            sql: Some(sql?),
            dry_run,
            on_fail: on_fail?,
        });
    }
    let by_cohort = by_cohort(gate, around.has_cohort, on_fail);
    let paired = gate.flag("paired").is_some_and(|at| at.value);
    let metric = metric::read(gate, around.unit, paired);
    let quantile = margin::quantile(gate, metric.as_ref());
    let measured = metric
        .as_ref()
        .map(|m| Measured::of(m, quantile.is_some() || gate.has("quantile")));
    let margin = if paired {
        margin::paired(gate, measured, on_fail)
    } else {
        margin::read(gate, measured, on_fail)
    };
    let min_coverage = coverage(gate, metric.as_ref());
    let lateness = lateness(gate, metric.as_ref());
    Some(GateSpec {
        name: name.to_owned(),
        metric: metric?,
        quantile,
        margin: margin?,
        by_cohort,
        min_coverage,
        lateness,
        paired,
        sql: None,
        dry_run,
        on_fail: on_fail?,
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

fn lateness(gate: &Fields<'_>, metric: Option<&Metric>) -> Duration {
    let Some(at) = gate.duration("lateness") else {
        return Duration::ZERO;
    };
    if metric.is_some_and(|m| !matches!(m, Metric::EvalFail(_))) {
        gate.notes.say(
            at.span,
            format!("`lateness` of {} goes with evaluations only", gate.called),
            "remove it: everything else is known when timeout and grace have passed",
        );
    }
    at.value
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
        if gate.contains_key("sql") {
            gate.remove("metric");
            continue;
        }
        let metric = gate.get("metric").and_then(|m| m.as_str()).map(str::to_owned);
        if let Some(eval) = metric.as_deref().and_then(|m| m.strip_prefix("eval_fail:")) {
            gate.insert("eval".into(), eval.into());
            gate.insert("metric".into(), "eval_fail".into());
        }
    }
}
