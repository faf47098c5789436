//! What is frozen from blue before green is counted: thresholds, caps and prior rates.
//!
//! While blue runs beside green any constant is valid for a threshold, a cap or a prior; a bad one costs power, never
//! alpha. That is why cells that are not admitted yet may be passed too, and why a small sample is enough. Once green
//! serves alone it is held against blue's past: then the upper bound of the estimate counts, and "iid" is assumed.

use super::{
    plan::{grain_of, unit_grain},
    units::{natural_grain, per_display_unit},
};
use crate::stats::quantile::snap;
use proto::{
    Cell, Color, Grain, Histogram, Metric, Nanos,
    bucket::range_of,
    cell::Series,
    metric::MetricKind,
    release::{GateSpec, Margin, ReleaseSpec},
};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Blue units needed to freeze a mean.
pub const MEAN_UNITS_MIN: i64 = 30;
/// Blue units needed beyond a quantile to freeze it: 200 in all for a p99.
pub const TAIL_UNITS_MIN: f64 = 2.0;
/// Blue traces after which a gate whose metric never appeared is left without a baseline.
pub const TRACES_MIN: i64 = 30;
/// A capped mean counts values up to this many times the historic mean.
pub const CAP_MEANS: f64 = 10.0;
/// Least failure limit of a breaker that declares none.
pub const BREAKER_MAX_MIN: f64 = 0.05;
/// A breaker that declares no limit takes this many times blue's failure rate.
pub const BREAKER_TIMES: f64 = 5.0;

/// Constants of one release, frozen before its first counted minute. Part of the evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Baseline {
    /// By gate name.
    pub gates: BTreeMap<String, GateBaseline>,
    /// Share of blue's attempts that failed; null without attempts.
    pub attempt_error: Option<f64>,
    /// When it was frozen.
    pub frozen_at: Nanos,
    /// Where it comes from, in words.
    pub source: String,
}

/// Constants of one gate. What the gate does not use, or blue's history does not hold, is null.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct GateBaseline {
    /// Blue's quantile, snapped outward to a bucket edge; integer units of the metric.
    pub t: Option<u64>,
    /// The same times (or plus) the margin, snapped likewise: what green is counted against.
    pub t_margin: Option<u64>,
    /// Values count as at most this; integer units.
    pub cap: Option<u64>,
    /// Blue's mean; integer units.
    pub mean: Option<f64>,
    /// Blue's rate.
    pub p_hist: Option<f64>,
    /// The rate, the share above `t`, or the mean, three standard errors up: what green is held against once it serves
    /// alone, so that an error of this sample is not charged to green.
    pub upper: Option<f64>,
    /// Blue units it was taken from.
    pub n: i64,
}

/// Standard errors between an estimate and its `upper`.
const UPPER_ERRORS: f64 = 3.0;

/// Freezes what the gates of `spec` need, from trace and attempt cells of any scope before the first counted minute;
/// only blue ones are read. `source` says in words where they are from.
///
/// # Errors
/// In words, which gate needs how many more blue units; ask again later.
pub fn freeze<'a>(
    spec: &ReleaseSpec,
    cells: impl IntoIterator<Item = (&'a Series, &'a Cell)>,
    frozen_at: Nanos,
    source: String,
) -> Result<Baseline, String> {
    let mut sums: BTreeMap<(Metric, Grain), Cell> = BTreeMap::new();
    for (series, cell) in cells {
        if series.color == Color::Blue {
            let key = (series.metric.clone(), series.grain);
            sums.entry(key).or_default().merge(cell, 1);
        }
    }
    let sum = |metric: &Metric, grain: Grain| sums.get(&(metric.clone(), grain));
    let traces = sum(&Metric::Traces, unit_grain(spec.unit)).map_or(0, |c| c.n);
    let mut gates = BTreeMap::new();
    let mut missing = Vec::new();
    for gate in &spec.gates {
        let cell = sum(&gate.metric, grain_of(spec, gate)).cloned().unwrap_or_default();
        let needed = units_needed(gate);
        let absent = cell.n == 0 && traces >= TRACES_MIN;
        if cell.n < needed && !absent {
            missing.push(format!("`{}` has {} of {needed} blue units", gate.name, cell.n));
        }
        gates.insert(gate.name.clone(), gate_baseline(gate, &cell));
    }
    if missing.is_empty() {
        let attempts = sum(&Metric::AttemptError, natural_grain(&Metric::AttemptError));
        Ok(Baseline {
            gates,
            attempt_error: attempts.filter(|c| c.n > 0).map(share),
            frozen_at,
            source,
        })
    } else {
        Err(format!("no baseline yet: {}", missing.join(", ")))
    }
}

/// Blue units without which this gate cannot be frozen.
fn units_needed(gate: &GateSpec) -> i64 {
    match (gate.metric.kind(), gate.quantile, gate.margin) {
        (MetricKind::Rate, ..) | (_, _, Margin::Max(_) | Margin::Min(_)) => 0,
        (MetricKind::Amount, Some(q), _) => (TAIL_UNITS_MIN / (1.0 - q)).round() as i64,
        (MetricKind::Amount, None, _) => MEAN_UNITS_MIN,
    }
}

fn gate_baseline(gate: &GateSpec, cell: &Cell) -> GateBaseline {
    let mut out = GateBaseline {
        n: cell.n,
        ..GateBaseline::default()
    };
    if cell.n <= 0 {
        return out;
    }
    match (gate.metric.kind(), gate.quantile) {
        (MetricKind::Rate, _) => {
            out.p_hist = Some(share(cell));
            out.upper = Some(share_upper(share(cell), cell.n));
        }
        (MetricKind::Amount, Some(q)) => {
            out.upper = Some(share_upper(1.0 - q, cell.n));
            out.t = cell.hdr.quantile(q);
            out.t_margin = out.t.and_then(|t| {
                let t = t as f64;
                match gate.margin {
                    Margin::MaxRatio(r) => Some(snap(r * t)),
                    Margin::MaxIncrease(by) => Some(snap(t + by * per_display_unit(&gate.metric))),
                    Margin::Max(_) | Margin::Min(_) => None,
                }
            });
        }
        (MetricKind::Amount, None) => {
            let mean = mean(cell);
            out.mean = Some(mean);
            out.upper = Some(mean_upper(mean, cell));
            out.cap = Some(snap(CAP_MEANS * mean));
        }
    }
    out
}

/// Rate, kept off 0 and 1 so that a prior exists.
fn share(cell: &Cell) -> f64 {
    (cell.events as f64 + 0.5) / (cell.n as f64 + 1.0)
}

fn share_upper(p: f64, n: i64) -> f64 {
    (p + UPPER_ERRORS * (p * (1.0 - p) / n as f64).sqrt()).min(1.0)
}

fn mean_upper(mean: f64, cell: &Cell) -> f64 {
    let spread: f64 = cell
        .hdr
        .iter()
        .map(|(bucket, count)| count as f64 * (range_of(bucket).1 as f64 - mean).powi(2))
        .sum();
    mean + UPPER_ERRORS * (spread / cell.n as f64 / cell.n as f64).sqrt()
}

fn mean(cell: &Cell) -> f64 {
    let Cell { n, sum, hdr, .. } = cell;
    debug_assert_eq!(*n, Histogram::total(hdr), "an amount's n is its histogram's");
    *sum as f64 / *n as f64
}
