//! Verdicts, decisions and the notices that carry them: the JSON that gateways, controllers and people read.

use crate::{Color, Nanos, release::Manifest};
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What a gate says.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// Evidence that green is within the margin.
    Pass,
    /// Evidence that green is beyond the margin.
    Fail,
    /// Neither, with a reason.
    Inconclusive,
}

impl Verdict {
    /// The JSON word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Pass => "pass",
            Self::Fail => "fail",
            Self::Inconclusive => "inconclusive",
        }
    }
}

/// What is done about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Action {
    /// Green becomes blue.
    Promote,
    /// The next step of the ramp.
    Advance,
    /// Everything back to blue.
    Rollback,
    /// One cohort back to blue.
    Fallback,
    /// Stay.
    Hold,
    /// The release is over.
    Settle,
    /// A person must look.
    Escalate,
}

impl Action {
    /// The decision's own word, as in `data.action`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Advance => "advance",
            Self::Rollback => "rollback",
            Self::Fallback => "fallback",
            Self::Hold => "hold",
            Self::Settle => "settle",
            Self::Escalate => "escalate",
        }
    }

    /// Type of the webhook: `release.rollback`.
    #[must_use]
    pub const fn event_type(self) -> &'static str {
        match self {
            Self::Promote => "release.promote",
            Self::Advance => "release.advance",
            Self::Rollback => "release.rollback",
            Self::Fallback => "release.fallback",
            Self::Hold => "release.hold",
            Self::Settle => "release.settled",
            Self::Escalate => "release.escalated",
        }
    }
}

/// Where a release stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Opened by itself, without a file; never acts.
    Observed,
    /// Declared; blue alone serves (warm-up, baseline).
    Declared,
    /// Green answers mirrored requests.
    Mirroring,
    /// On a step of the ramp.
    Canary,
    /// Promotion sent, traffic moving.
    Cutover,
    /// Green serves all; late regressions are still watched for.
    Watching,
    /// Over: green won.
    Settled,
    /// Over: blue stayed.
    RolledBack,
}

impl Phase {
    /// The JSON word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Observed => "observed",
            Self::Declared => "declared",
            Self::Mirroring => "mirroring",
            Self::Canary => "canary",
            Self::Cutover => "cutover",
            Self::Watching => "watching",
            Self::Settled => "settled",
            Self::RolledBack => "rolled_back",
        }
    }

    /// Whether the release is over.
    #[must_use]
    pub const fn is_over(self) -> bool {
        matches!(self, Self::Settled | Self::RolledBack)
    }
}

/// One gate (and cohort), as the verdict endpoint and the webhook show it. Every key is always present.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateReport {
    /// Gate name.
    pub name: String,
    /// Cohort, or null for the overall pair.
    pub cohort: Option<String>,
    /// Its verdict.
    pub verdict: Verdict,
    /// Why, in words.
    pub reason: String,
    /// Blue's value in the metric's display unit (ms, USD, share); null without data.
    pub blue: Option<f64>,
    /// Green's value.
    pub green: Option<f64>,
    /// Blue units counted.
    pub n_blue: i64,
    /// Green units counted.
    pub n_green: i64,
    /// Observed green / blue (or difference, or green alone for limits).
    pub effect: Option<f64>,
    /// Lower bound of the effect's confidence sequence.
    pub low: Option<f64>,
    /// Upper bound.
    pub high: Option<f64>,
    /// The declared margin.
    pub margin: f64,
    /// Natural log of the e-value for rollback.
    pub log_e_fail: f64,
    /// Natural log of the e-value for promotion.
    pub log_e_pass: f64,
    /// `log_e_fail` at which this pair alone would fail.
    pub threshold_fail: f64,
    /// `log_e_pass` at which it passes.
    pub threshold_pass: f64,
    /// Measured and shown only: a dry run, or muted by a person.
    #[serde(default)]
    pub dry_run: bool,
}

/// What green would need of its provider at full traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Headroom {
    /// `requests` or `tokens`, a minute.
    pub what: String,
    /// What green used at its share over the last minutes, a minute; refused calls included.
    pub used: f64,
    /// What the whole route would need.
    pub needed: f64,
    /// What the release declares; null if it declares none.
    pub limit: Option<f64>,
    /// Share of green's calls that a rate limit refused.
    pub rate_limited: f64,
}

/// Answer of `GET /api/v1/releases/{id}/verdict`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VerdictReport {
    /// Release id.
    pub release: String,
    /// Route.
    pub route: String,
    /// Overall verdict.
    pub verdict: Verdict,
    /// Phase.
    pub phase: Phase,
    /// Color that should carry the route.
    pub active_color: Color,
    /// Latest decision, if any.
    pub decision_id: Option<String>,
    /// Its number.
    pub decision_seq: Option<i64>,
    /// Admitted blue traces.
    pub n_blue: i64,
    /// Admitted green traces.
    pub n_green: i64,
    /// Gates, overall pairs first.
    pub gates: Vec<GateReport>,
    /// Natural log of the weighted sum over all rollback pairs, and the value at which the release rolls back.
    pub log_e_sum: f64,
    /// `ln(1 / alpha_gates)`.
    pub threshold_sum: f64,
    /// Natural log of the sample-ratio e-value.
    pub log_e_sample_ratio: f64,
    /// What stands in the way of a decision, in words; empty if nothing.
    pub reason: String,
    /// Cutover headroom, once green serves.
    #[serde(default)]
    pub headroom: Vec<Headroom>,
    /// Mirrored pairs that paired gates have read.
    #[serde(default)]
    pub n_pairs: i64,
    /// What green's mirrored calls have cost, USD; null if nothing was mirrored or priced.
    #[serde(default)]
    pub shadow_cost_usd: Option<f64>,
}

/// One end of a movement of traffic.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Side {
    /// Color.
    pub color: Color,
    /// Version.
    pub version: String,
    /// The complete path.
    pub manifest: Manifest,
}

/// `data` of a notice.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Notice {
    /// Decision.
    pub decision_id: String,
    /// Monotonic per route; a newer one supersedes.
    pub decision_seq: i64,
    /// Release.
    pub release: String,
    /// Route.
    pub route: String,
    /// What is decided.
    pub action: Action,
    /// Affected segment of a fallback; null otherwise.
    pub cohort: Option<String>,
    /// Share by color that should now be served.
    pub weights: BTreeMap<Color, f64>,
    /// Cohorts that stay on blue whatever the weights say.
    #[serde(default)]
    pub cohorts_on_blue: Vec<String>,
    /// Where the traffic was.
    pub from: Side,
    /// Where it goes.
    pub to: Side,
    /// The gates at that moment.
    pub gates: Vec<GateReport>,
    /// SHA-256 of the rules, hex.
    pub rules_hash: String,
    /// `GET` gives the evidence bundle.
    pub evidence_url: String,
    /// `GET` gives what the route should now be on.
    pub desired_url: String,
    /// RFC 3339.
    pub decided_at: String,
}

/// Largest webhook body, bytes: gates are cut from the end of the list until it fits.
pub const NOTICE_BYTES_MAX: usize = 20_000;

/// Body of a webhook.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WebhookBody {
    /// `release.rollback` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// RFC 3339, of the decision.
    pub timestamp: String,
    /// The notice.
    pub data: Notice,
}

/// What a route should be on: `GET /api/v1/routes/{route}/desired`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Desired {
    /// Route.
    pub route: String,
    /// Release that said so.
    pub release: String,
    /// Number of the decision; act only when it is new.
    pub decision_seq: i64,
    /// Color that carries the route.
    pub color: Color,
    /// Share by color.
    pub weights: BTreeMap<Color, f64>,
    /// The complete path of `color`.
    pub manifest: Manifest,
    /// Cohorts that are held on blue while the rest stays.
    pub cohorts_on_blue: Vec<String>,
}

/// `decision_seq = max(last + 1, unix_ms)`: grows even if the ledger was lost.
#[must_use]
pub const fn next_decision_seq(last: Option<i64>, now: Nanos) -> i64 {
    let now = now.unix_ms();
    match last {
        Some(last) if last >= now => last + 1,
        _ => now,
    }
}
