//! How far green may be worse: one margin a gate, of the kind its metric can be held against.

use super::{
    super::walk::{At, Fields, listed},
    metric::Measured,
};
use proto::{
    Metric,
    metric::MetricKind,
    release::{Margin, OnFail},
};

const MARGINS: &[&str] = &["max_ratio", "max_increase", "max", "min"];

pub(super) fn quantile(gate: &Fields<'_>, metric: Option<&Metric>) -> Option<f64> {
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

/// The margin of a gate that compares arms, or one arm with a limit.
pub(super) fn read(gate: &Fields<'_>, measured: Option<Measured>, on_fail: Option<OnFail>) -> Option<Margin> {
    let key = only_one(
        gate,
        "max_ratio",
        "say how far green may be worse: max_ratio = 1.2, max_increase, max or min",
    )?;
    value(gate, key, measured, on_fail)
}

/// The margin of a gate on mirrored pairs: what is compared within a pair leaves little choice.
pub(super) fn paired(gate: &Fields<'_>, measured: Option<Measured>, on_fail: Option<OnFail>) -> Option<Margin> {
    let (fits, help): (&[&str], &str) = match measured {
        Some(Measured::Share) => (
            &["max_increase"],
            "pairs compare shares by difference: max_increase = 0.01 lets one more of a hundred requests fail",
        ),
        Some(Measured::Mean) => (
            &["max_ratio"],
            "pairs compare means by ratio: max_ratio = 1.15 allows 15 % more; a `quantile` may have max_increase",
        ),
        Some(Measured::Quantile) => (
            &["max_ratio", "max_increase"],
            "pairs compare quantiles by max_ratio = 1.2 (20 % more) or by max_increase, in the metric's own unit",
        ),
        // the metric is wrong already: any margin of pairs will do
        None => (
            &["max_ratio", "max_increase"],
            "a paired gate has max_ratio or max_increase",
        ),
    };
    let key = only_one(gate, fits[0], help)?;
    if !fits.contains(&key) {
        gate.notes.say(
            gate.at(key),
            format!("`{key}` of {} does not go with paired = true", gate.called),
            help,
        );
        return None;
    }
    value(gate, key, measured, on_fail)
}

fn only_one(gate: &Fields<'_>, usual: &str, help: &str) -> Option<&'static str> {
    let given: Vec<&'static str> = MARGINS.iter().copied().filter(|k| gate.has(k)).collect();
    match given.as_slice() {
        [] => {
            gate.missing(&[usual], help);
            None
        }
        [one] => Some(one),
        several => {
            gate.notes.say(
                gate.at(several[1]),
                format!("{} has {}, and one gate has one margin", gate.called, listed(several)),
                "make a second gate of the other",
            );
            None
        }
    }
}

fn value(gate: &Fields<'_>, key: &str, measured: Option<Measured>, on_fail: Option<OnFail>) -> Option<Margin> {
    let At { value: v, span } = gate.number(key)?;
    if let Some((what, help)) = complaint(key, v, measured, on_fail) {
        gate.notes
            .say(span, format!("`{key}` of {} is {v}: it {what}", gate.called), help);
        return None;
    }
    Some(match key {
        "max_ratio" => Margin::MaxRatio(v),
        "max_increase" => Margin::MaxIncrease(v),
        "max" => Margin::Max(v),
        _ => Margin::Min(v),
    })
}

fn complaint(
    key: &str,
    v: f64,
    measured: Option<Measured>,
    on_fail: Option<OnFail>,
) -> Option<(&'static str, &'static str)> {
    let share = matches!(measured, None | Some(Measured::Share));
    let too_large = measured == Some(Measured::Share) && v >= 1.0;
    let range = if share { "is not in (0, 1)" } else { "is not above 0" };
    match key {
        "max_ratio" if v <= 0.0 => Some((
            "is not above 0",
            "green may be at most this many times blue: 1.2 allows 20 % more",
        )),
        "max_ratio" if v <= 1.0 && on_fail == Some(OnFail::Rollback) => Some((
            "is not above 1, so an equal green would be rolled back",
            "green may be at most this many times blue: 1.2 allows 20 % more",
        )),
        "max_increase" if v <= 0.0 => Some((
            "is not above 0",
            "green may exceed blue by this much, in the metric's own unit (a share, USD, ms, tokens)",
        )),
        "max_increase" if too_large => Some((
            "is not below 1, so a share can never exceed it",
            "0.02 allows two percentage points more",
        )),
        "max" if v <= 0.0 || too_large => Some((
            range,
            "a limit on green alone: a share such as 0.02, or an amount in the metric's own unit",
        )),
        "min" if v <= 0.0 || too_large => Some((
            range,
            "a floor on green alone: a share such as 0.3, or an amount in the metric's own unit",
        )),
        _ => None,
    }
}
