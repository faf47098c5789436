//! What a trace says of a metric, by the definitions, from what its rows were made of.

use super::story::{Call, CallKind, Eval, Trace};
use proto::{
    Cell, Color, Grain, Metric, Nanos,
    cell::{Minutes, Series},
    metric::MetricKind,
};
use std::{collections::BTreeMap, sync::Arc};

/// Whether an evaluation of these names failed; `None` if there is none that counts.
fn told(trace: &Trace, names: &[&str]) -> Option<bool> {
    let counts = |e: &&Eval| {
        let about_another = e.of_judge || (e.of_mirror && !trace.shadow);
        names.contains(&e.name) && !e.broke && !about_another
    };
    let passed = trace.evals.iter().filter(counts).filter_map(|e| e.passed);
    passed.map(|passed| !passed).reduce(|a, b| a || b)
}

/// A metric of a trace; events are 0 or 1. `calls` are those that count.
fn value_of<'a>(trace: &Trace, metric: &Metric, calls: impl Iterator<Item = &'a Call> + Clone) -> Option<i64> {
    let event = match metric {
        Metric::Traces => Some(false),
        Metric::Error => Some(trace.error),
        Metric::Timeout => Some(trace.timed_out || (trace.shadow && trace.error && calls.clone().any(|c| c.timed_out))),
        Metric::Retry => trace.retries.map(|n| n > 0),
        Metric::Fallback => trace.fallback,
        Metric::CacheHit => trace.cache_hit,
        Metric::JsonInvalid => Trace::json_valid(calls.clone()).map(|valid| !valid),
        Metric::ToolError => trace.tools_failed.map(|n| n > 0),
        Metric::ToolArgsInvalid => calls
            .clone()
            .filter_map(|c| c.args_valid)
            .reduce(|a, b| a && b)
            .map(|valid| !valid),
        Metric::GuardrailBlock => Some(trace.guardrail_blocks > 0),
        Metric::ThumbsDown => told(trace, &["thumbs_down", "user_feedback"]),
        Metric::Escalation => Some(told(trace, &["escalation"]).unwrap_or(false)),
        Metric::Abandoned => Some(told(trace, &["abandoned"]).unwrap_or(false)),
        Metric::Override => Some(told(trace, &["override"]).unwrap_or(false)),
        Metric::EvalFail(name) => told(trace, &[name]),
        Metric::Unmarked => Some(!trace.color.is_marked()),
        Metric::ColorConflict => Some(trace.conflict),
        Metric::MixedManifest => trace.mixed,
        Metric::Sampled => trace.sampling.map(|p| p < 1.0),
        Metric::Latency => return Some(trace.us),
        Metric::Cost => {
            let all = calls.clone().all(|c| c.cost.is_some());
            return Trace::sum(calls, |c| c.cost).filter(|_| all);
        }
        Metric::PromptTokens => return Trace::sum(calls, |c| c.prompt),
        Metric::CompletionTokens => return Trace::sum(calls, |c| c.completion),
        other => panic!("{other} is no metric of traces"),
    };
    event.map(i64::from)
}

/// As its cells say it.
pub fn value(trace: &Trace, metric: &Metric) -> Option<i64> {
    value_of(trace, metric, trace.own().collect::<Vec<_>>().into_iter())
}

/// As one side of a pair.
pub fn side(trace: &Trace, metric: &Metric) -> Option<i64> {
    value_of(trace, metric, trace.served().collect::<Vec<_>>().into_iter())
}

/// A part of a unit's sum that is not known, where a trace had calls.
pub fn is_unpriced(trace: &Trace) -> bool {
    trace.own().any(|call| call.cost.is_none())
}

/// Answering call and cost of one side of a trace with mirrored calls inside; `None` if it cannot be told from rows.
pub fn within(trace: &Trace, metric: &Metric) -> Option<([i64; 2], Nanos)> {
    let clean = trace
        .calls
        .iter()
        .all(|c| matches!(c.kind, CallKind::Own | CallKind::Mirrored));
    let other = match trace.color {
        Color::Blue => Color::Green,
        Color::Green => Color::Blue,
        Color::Unmarked => return None,
    };
    let own: Vec<&Call> = trace.own().collect();
    let mirrored: Vec<&Call> = trace
        .calls
        .iter()
        .filter(|c| c.kind == CallKind::Mirrored && c.color == other)
        .collect();
    if !clean || trace.shadow || trace.mirror_key.is_some() || trace.superseded {
        return None;
    }
    let answer = |calls: &[&Call]| -> Option<Call> {
        let last = |of: &dyn Fn(&&&Call) -> bool| {
            calls
                .iter()
                .filter(|c| of(c))
                .max_by_key(|c| (c.end(), c.id))
                .map(|c| (**c).clone())
        };
        last(&|c| !c.error).or_else(|| last(&|_| true))
    };
    let (a, b) = (answer(&own)?, answer(&mirrored)?);
    let cost = |calls: &[&Call]| calls.iter().map(|c| c.cost).sum::<Option<i64>>();
    let [a_value, b_value] = match metric {
        Metric::Cost => [cost(&own)?, cost(&mirrored)?],
        Metric::Latency => [a.us, b.us],
        Metric::Error => [i64::from(a.error), i64::from(b.error)],
        _ => return None,
    };
    let values = if trace.color == Color::Blue {
        [a_value, b_value]
    } else {
        [b_value, a_value]
    };
    Some((values, Nanos(a.start.max(b.start))))
}

/// Cells by what distinguishes them.
#[derive(Default)]
pub struct Cells(BTreeMap<(i64, Series), Cell>);

impl Cells {
    pub fn add(&mut self, at: Nanos, series: Series, cell: &Cell) {
        let minute = at.0.div_euclid(60_000_000_000) * 60;
        self.0.entry((minute, series)).or_default().merge(cell, 1);
    }

    pub fn minutes(self) -> Minutes {
        let mut minutes: BTreeMap<i64, BTreeMap<Series, Arc<Cell>>> = BTreeMap::new();
        for ((minute, series), cell) in self.0 {
            minutes.entry(minute).or_default().insert(series, Arc::new(cell));
        }
        minutes.into_iter().map(|(at, cells)| (at, Arc::new(cells))).collect()
    }
}

pub fn series(metric: &Metric, grain: Grain, cohort: Option<&str>, split_ppm: Option<u32>, color: Color) -> Series {
    Series {
        metric: metric.clone(),
        grain,
        cohort: cohort.map(Into::into),
        split_ppm,
        color,
        admitted: true,
    }
}

/// One unit with this value.
pub fn unit(metric: &Metric, value: i64) -> Cell {
    match metric.kind() {
        MetricKind::Rate => Cell::unit(value != 0),
        MetricKind::Amount => Cell::amount(value as u64),
    }
}
