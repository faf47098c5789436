//! History as gates count it: what single traces added to cells.

use crate::judge::units::natural_grain;
use proto::{Color, Grain, Metric, Nanos, metric::MetricKind, release::ReleaseSpec};
use std::sync::Arc;

/// One thing seen of a trace: an event that did or did not happen, or a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    /// Position of the metric in [`History::metrics`].
    pub metric: u16,
    /// Color to which it is charged: of an attempt, the one attempted.
    pub color: Color,
    /// 1 if the event of a rate happened, else 0; or the amount in its integer unit.
    pub value: u64,
    /// Seconds from the trace's start until it was known; 0: with the trace itself. Evaluations come later.
    pub known_after: u32,
}

/// One trace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// Trace id.
    pub trace: u128,
    /// When it started.
    pub start: Nanos,
    /// How long it took, us.
    pub duration_us: u64,
    /// Color of the trace.
    pub color: Color,
    /// Cohort.
    pub cohort: Option<Arc<str>>,
    /// Probability with which it went green, ppm; `None` if nobody recorded it.
    pub split_ppm: Option<u32>,
    /// What it adds to cells, [`Metric::Traces`] included.
    pub seen: Vec<Seen>,
}

/// Traces of one route.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct History {
    /// What was looked for.
    pub metrics: Vec<Metric>,
    /// In ascending order of start.
    pub units: Vec<Unit>,
}

impl History {
    /// Position of a metric.
    #[must_use]
    pub fn metric(&self, metric: &Metric) -> Option<u16> {
        let at = self.metrics.iter().position(|m| m == metric)?;
        u16::try_from(at).ok()
    }

    /// Puts units into the order that a replay needs.
    pub fn sort(&mut self) {
        self.units.sort_by_key(|u| (u.start, u.trace));
    }

    /// Traces of one color that started in `[from, to)`.
    #[must_use]
    pub fn count(&self, color: Color, from: Nanos, to: Nanos) -> i64 {
        let within = self.units.iter().filter(|u| from <= u.start && u.start < to);
        i64::try_from(within.filter(|u| u.color == color).count()).unwrap_or(i64::MAX)
    }
}

/// Metrics that judging `specs` reads: their gates', and what the breaker, the checks and the quota look at.
#[must_use]
pub fn metrics_of<'a>(specs: impl IntoIterator<Item = &'a ReleaseSpec>) -> Vec<Metric> {
    let mut out = vec![
        Metric::Traces,
        Metric::AttemptError,
        Metric::AttemptSeconds,
        Metric::MixedManifest,
        Metric::Sampled,
    ];
    for spec in specs {
        out.extend(spec.gates.iter().filter(|g| is_replayed(g)).map(|g| g.metric.clone()));
        if spec.quota.tokens_per_minute.is_some() {
            out.extend([Metric::PromptTokens, Metric::CompletionTokens]);
        }
    }
    out.sort_unstable();
    out.dedup();
    out
}

/// Whether a gate reads cells of single traces.
pub(super) const fn is_replayed(gate: &proto::release::GateSpec) -> bool {
    gate.sql.is_none() && !gate.paired
}

/// Whether a metric is a share of units.
pub(super) const fn is_rate(metric: &Metric) -> bool {
    matches!(metric.kind(), MetricKind::Rate)
}

/// The grain at which gates read a metric.
pub(super) const fn grain(metric: &Metric) -> Grain {
    match metric {
        Metric::AttemptSeconds => Grain::Attempt,
        other => natural_grain(other),
    }
}
