//! What the desk shows: one immutable value, swapped after every change.

use super::reading::Reading;
use crate::{
    ledger::{DecisionRow, DeliveryRow, Freeze, ReleaseRow},
    life::{Course, ReleaseState},
};
use proto::{
    Color, Nanos,
    decision::{Desired, GateReport, Phase, Verdict, VerdictReport},
    release::Mode,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// One line about a release, as lists show it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseSummary {
    /// Release id.
    pub id: String,
    /// Route.
    pub route: String,
    /// How far it may go by itself.
    pub mode: Mode,
    /// Phase.
    pub phase: Phase,
    /// Where the judging is heading.
    pub course: Course,
    /// Verdict, latches considered.
    pub verdict: Verdict,
    /// What stands in the way of a decision; empty if nothing.
    pub reason: String,
    /// Color that should carry the route.
    pub active_color: Color,
    /// Share by color that the route should be on.
    pub weights: BTreeMap<Color, f64>,
    /// Version of blue.
    pub blue: String,
    /// Version of green.
    pub green: String,
    /// Step in force, from 1; null while blue alone serves.
    pub step: Option<usize>,
    /// Number of steps.
    pub steps: usize,
    /// Who holds it, if a person does.
    pub latched_by: Option<String>,
    /// RFC 3339.
    pub opened: String,
    /// RFC 3339; null while it runs.
    pub settled: Option<String>,
    /// Who won.
    pub winner: Option<Color>,
    /// SHA-256 of the rules.
    pub rules_hash: String,
    /// Who declared it.
    pub declared_by: String,
}

/// Everything that can be read without asking the desk.
#[derive(Debug, Clone, Default)]
pub struct DeskView {
    /// Releases by id, as they are stored.
    pub releases: BTreeMap<String, Arc<ReleaseRow>>,
    /// Their verdicts.
    pub verdicts: BTreeMap<String, Arc<VerdictReport>>,
    /// What each route should be on.
    pub desired: BTreeMap<String, Desired>,
    /// When anything was last judged: a dead man's switch.
    pub last_judged: Option<Nanos>,
    /// Freezes in force, or still to come.
    pub freezes: Vec<Freeze>,
    /// How often each invariant was found broken.
    pub violations: BTreeMap<&'static str, u64>,
    /// What becomes of what is old.
    pub aging: Aging,
}

/// To what time ages count, and what was removed for its age since the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Aging {
    /// Ages count to here.
    pub to: Nanos,
    /// How far the wall clock is ahead of it, while nothing confirms that it leapt for good; else zero.
    pub ahead: Duration,
    /// Decisions removed, each with its evidence.
    pub decisions: u64,
    /// Notices removed.
    pub deliveries: u64,
}

/// What happens at the desk, for terminals and dashboards.
#[derive(Debug, Clone)]
pub enum DeskEvent {
    /// A release was judged, and something about it changed.
    Judged(Arc<VerdictReport>),
    /// A decision stands in the ledger.
    Decided(Arc<DecisionRow>),
    /// An attempt to deliver a notice was made.
    Delivered(Arc<DeliveryRow>),
}

pub(super) fn summary(row: &ReleaseRow, report: Option<&VerdictReport>) -> ReleaseSummary {
    let state = &row.state;
    ReleaseSummary {
        id: row.spec.id.clone(),
        route: row.spec.route.clone(),
        mode: row.spec.mode,
        phase: state.phase,
        course: state.course,
        verdict: report.map_or(Verdict::Inconclusive, |r| r.verdict),
        reason: report.map_or_else(String::new, |r| r.reason.clone()),
        active_color: state.active_color(),
        weights: ReleaseState::weights(state.green_ppm),
        blue: row.spec.blue.version.clone(),
        green: row.spec.green.version.clone(),
        step: state.step.map(|s| s + 1),
        steps: row.spec.steps.len(),
        latched_by: state.latch.as_ref().map(|l| l.actor.clone()),
        opened: state.opened.rfc3339(),
        settled: state.settled.map(Nanos::rfc3339),
        winner: state.winner,
        rules_hash: row.rules_hash.clone(),
        declared_by: row.declared_by.clone(),
    }
}

/// The answer of the verdict endpoint: every key, and no number that JSON cannot hold.
pub(super) fn report(row: &ReleaseRow, reading: Option<&Reading>, verdict: Verdict, waiting: &str) -> VerdictReport {
    let judgement = reading.map(|r| &r.judgement);
    let threshold = -(row.spec.alpha * (1.0 - row.spec.breaker.alpha_share)).ln();
    VerdictReport {
        release: row.spec.id.clone(),
        route: row.spec.route.clone(),
        verdict,
        phase: row.state.phase,
        active_color: row.state.active_color(),
        decision_id: row.state.last_decision.as_ref().map(|(id, _)| id.clone()),
        decision_seq: row.state.last_decision.as_ref().map(|(_, seq)| *seq),
        n_blue: judgement.map_or(0, |j| j.n_blue),
        n_green: judgement.map_or(0, |j| j.n_green),
        gates: judgement.map_or_else(Vec::new, |j| gates(&j.reports)),
        log_e_sum: judgement.map_or(0.0, |j| finite(j.log_e_sum)),
        threshold_sum: judgement.map_or(threshold, |j| finite(j.threshold_sum)),
        log_e_sample_ratio: judgement.map_or(0.0, |j| finite(j.log_e_sample_ratio)),
        reason: waiting.to_owned(),
        headroom: reading.map_or_else(Vec::new, |r| r.headroom.clone()),
        n_pairs: judgement.map_or(0, |j| j.n_pairs),
        shadow_cost_usd: reading
            .and_then(|r| r.measured.shadow_cost_nano)
            .map(|nano| nano as f64 / 1e9),
    }
}

/// Gate reports with numbers that JSON can hold.
pub(super) fn gates(reports: &[GateReport]) -> Vec<GateReport> {
    let known = |x: Option<f64>| x.filter(|x| x.is_finite());
    reports
        .iter()
        .map(|g| GateReport {
            blue: known(g.blue),
            green: known(g.green),
            effect: known(g.effect),
            low: known(g.low),
            high: known(g.high),
            margin: finite(g.margin),
            log_e_fail: finite(g.log_e_fail),
            log_e_pass: finite(g.log_e_pass),
            threshold_fail: finite(g.threshold_fail),
            threshold_pass: finite(g.threshold_pass),
            ..g.clone()
        })
        .collect()
}

/// JSON has no infinity, and a missing key would be an error for those who read it.
fn finite(x: f64) -> f64 {
    if x.is_nan() { 0.0 } else { x.clamp(-1e9, 1e9) }
}
