//! What gates ask of the rows, because cells cannot say it: mirrored pairs, sessions, and counts by a statement of the
//! user's own. The answers come back as cells, so that judging, evidence and replay know one currency.
//!
//! ```text
//! gates: release + frozen baseline -> MeasurePlan      query: MeasurePlan over one snapshot -> Measured
//! ```
//!
//! | asked for | cells that come back, all `admitted` |
//! | --- | --- |
//! | SQL gate | `sql:<gate>` at grain `trace`, a rate, by minute, split and color; cohort null |
//! | paired gate on a rate, or on exceedances of a quantile | `paired:<gate>` at grain `trace`: `n` pairs in the cells of both colors, `events` = pairs in which only this color had the event |
//! | paired gate on an amount | `paired:<gate>` at grain `trace`: blue and green hold their values' histograms, not capped; `unmarked` holds that of `min(y_green, cap) - r min(y_blue, cap) + r cap`, rounded down to an integer from 0 to `(1 + r) cap`: what is in a bucket from `low` to `high` lies in `[low, high + 1)` |
//! | unit session or user | `traces` (the units themselves) and every trace metric of the gates, at grain `session` or `user`, by the unit's first trace: a rate has its event if any trace had it; cost and tokens are summed (cost is unknown if any part is), latency is the slowest trace's |
//! | sessions that stick | `session_same` at grain `session`, by minute and split of the session's first trace; color is that of the first trace. Its second trace is the next at that same split |
//!
//! Pairs have no split (both colors answered), and a cohort (blue's, else green's) only where `by_cohort` asks; each is in
//! one cell of a color, so all cohorts together are all pairs. Their minute is that in which the later side started.

use crate::{Color, Metric, Nanos, cell::Minutes, release::Unit};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// What is compared within a pair.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PairRead {
    /// Whether a trace had the event of a rate.
    Event,
    /// Whether its amount lies above its color's threshold, integer units of the metric.
    Above {
        /// Blue's.
        blue: u64,
        /// Green's.
        green: u64,
    },
    /// The amounts themselves, capped, integer units.
    Value {
        /// Green's mean over blue's, at the margin.
        r: f64,
        /// Values count as at most this.
        cap: u64,
    },
}

/// One paired gate.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PairPlan {
    /// Its name.
    pub gate: Arc<str>,
    /// What is measured of a trace.
    pub metric: Metric,
    /// How.
    pub read: PairRead,
    /// Also by cohort.
    pub by_cohort: bool,
}

/// One SQL gate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SqlPlan {
    /// Its name.
    pub gate: Arc<str>,
    /// Statement with `$release` and `$admitted_before`.
    pub sql: String,
}

/// Everything that one release asks of the rows.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MeasurePlan {
    /// Release.
    pub release: Arc<str>,
    /// Its route.
    pub route: Arc<str>,
    /// First counted moment, a minute's start.
    pub from: Nanos,
    /// First moment from which pairs count: mirroring comes before green serves.
    pub pairs_from: Nanos,
    /// Width of a minute, seconds.
    pub minute_secs: i64,
    /// Timeout and grace, seconds: what started less than this before `now` is not counted yet.
    pub admitted_after_secs: i64,
    /// Declared split over time, as in the book of releases.
    pub splits: Vec<(Nanos, Option<u32>)>,
    /// Paired gates.
    pub pairs: Vec<PairPlan>,
    /// SQL gates.
    pub sql: Vec<SqlPlan>,
    /// What is randomised; other than traces, `metrics` are asked for at that grain.
    pub unit: Unit,
    /// Metrics of the gates, for units other than traces.
    pub metrics: Vec<Metric>,
}

/// In place of a gate's name: units or sessions could not be counted, so no gate can be judged. No gate is called so.
pub const EVERY_GATE: &str = "";

/// What came back.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Measured {
    /// When it was asked.
    pub at: Nanos,
    /// Cells as the table above says.
    pub minutes: Arc<Minutes>,
    /// Gates that could not be measured, and why; under [`EVERY_GATE`] what concerns all of them.
    pub obstacles: BTreeMap<String, String>,
    /// What mirrored calls of the release cost, nano-USD; null if none was priced.
    pub shadow_cost_nano: Option<i64>,
    /// The worst traces of either color, worst first; a few.
    pub worst: Vec<WorstTrace>,
}

/// A trace worth looking at.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WorstTrace {
    /// Color.
    pub color: Color,
    /// Trace id, hex.
    pub trace_id: String,
    /// What is bad about it, in words: `error, 3 failed evaluations, 4.2 s`.
    pub what: String,
}

/// A complete path that was seen serving a route, from the rows: what observed releases are found by.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SeenPath {
    /// Route.
    pub route: String,
    /// Version; null where nobody says one.
    pub version: Option<String>,
    /// Provider.
    pub provider: Option<String>,
    /// Model as requested.
    pub model: Option<String>,
    /// Prompt as `name@version`.
    pub prompt: Option<String>,
    /// Tool schema, by version or hash.
    pub tools: Option<String>,
    /// Guardrails.
    pub guardrails: Option<String>,
    /// Cache.
    pub cache: Option<String>,
    /// Fallback chain.
    pub fallback: Option<String>,
    /// Policy.
    pub policy: Option<String>,
    /// Traces it served.
    pub traces: i64,
    /// First of them.
    pub first_seen: Nanos,
    /// Last of them.
    pub last_seen: Nanos,
}
