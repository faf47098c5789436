//! What a gate measures, and which metrics no gate may compare.

use super::super::walk::{At, Fields, did_you_mean, listed};
use proto::{
    Metric,
    metric::{MetricKind, normalise_eval_name},
    release::Unit,
};

/// What kind of number a margin is held against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Measured {
    /// A share of units.
    Share,
    /// The mean of an amount.
    Mean,
    /// A quantile of an amount.
    Quantile,
}

impl Measured {
    pub const fn of(metric: &Metric, has_quantile: bool) -> Self {
        match (metric.kind(), has_quantile) {
            (MetricKind::Rate, _) => Self::Share,
            (MetricKind::Amount, false) => Self::Mean,
            (MetricKind::Amount, true) => Self::Quantile,
        }
    }
}

pub(super) fn read(gate: &Fields<'_>, unit: Unit, paired: bool) -> Option<Metric> {
    if !gate.has("metric") {
        gate.missing(&["metric"], "say what is measured, such as metric = \"latency\"");
        return None;
    }
    let at = gate.text("metric")?;
    let eval = gate.text("eval");
    if at.value == "eval_fail" {
        return evaluation(gate, eval);
    }
    if let Some(eval) = eval {
        gate.notes.say(
            eval.span,
            format!("`eval` of {} goes with metric = \"eval_fail\" only", gate.called),
            "remove it, or change the metric",
        );
    }
    let known = Metric::PLAIN.iter().find(|m| m.to_string() == at.value);
    let Some(metric) = known else {
        unknown(gate, &at);
        return None;
    };
    if let Some((why, help)) = refusal(metric) {
        gate.notes.say(at.span, format!("`{metric}` {why}"), help);
        return None;
    }
    let per_call = matches!(metric, Metric::AttemptError | Metric::RateLimited | Metric::Ttft);
    let word = match unit {
        Unit::Trace => None,
        Unit::Session => Some("session"),
        Unit::User => Some("user"),
    };
    if per_call && let Some(word) = word {
        gate.notes.say(
            at.span,
            format!(
                "{} compares single calls, but unit = \"{word}\" is judged by the {word}",
                gate.called
            ),
            "calls of one unit are not independent: measure traces (error, timeout, latency), or let unit be \"trace\"",
        );
        return None;
    }
    if per_call && paired {
        gate.notes.say(
            at.span,
            format!("{} compares single calls, and a pair is two traces", gate.called),
            "pair a metric of traces, such as error, latency or cost",
        );
        return None;
    }
    Some(metric.clone())
}

fn evaluation(gate: &Fields<'_>, eval: Option<At<String>>) -> Option<Metric> {
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
    Some(Metric::EvalFail(name.into()))
}

/// Why no gate may compare it.
const fn refusal(metric: &Metric) -> Option<(&'static str, &'static str)> {
    match metric {
        Metric::Traces | Metric::Unmarked => Some((
            "belongs to no color, so no gate can compare it",
            "unmarked traffic blocks promotion by itself; remove the gate",
        )),
        Metric::Sampled => Some((
            "says whether the numbers can be trusted, so no gate can compare it",
            "unequal sampling makes every gate inconclusive by itself; remove the gate",
        )),
        Metric::SessionSame => Some((
            "says whether sessions stick to a color, so no gate can compare it",
            "sticky sessions judged by trace are inconclusive by themselves; remove the gate",
        )),
        Metric::AttemptSeconds => Some((
            "is what the breaker reads, so no gate can compare it",
            "measure attempt_error, or set the limit of [release.breaker]; remove the gate",
        )),
        _ => None,
    }
}

fn unknown(gate: &Fields<'_>, at: &At<String>) {
    let names: Vec<String> = Metric::PLAIN
        .iter()
        .filter(|m| refusal(m).is_none())
        .map(ToString::to_string)
        .chain(["eval_fail".to_owned()])
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    gate.notes.say(
        at.span.clone(),
        format!("unknown metric `{}` in {}", at.value, gate.called),
        did_you_mean(&at.value, &names, &format!("the metrics are {}", listed(&names))),
    );
}
