//! From cells to a judgement: every gate's verdict, and what follows from all of them together.
//!
//! ```text
//! release + frozen baseline + order of pairs + admitted cells  --judge-->  Judgement
//! ```
//!
//! A judgement is a pure function of its input, sums in a fixed order, and takes its exponentials from `libm`: the same
//! evidence gives the same bits anywhere. [`Judge`] remembers how it turned the minutes that have not changed; that
//! makes it fast and changes nothing else. What a decision then *does* (latches, phases, minimum traces and times) is
//! not decided here.

pub mod baseline;
pub mod breaker;
mod column;
mod columns;
mod conclude;
pub(crate) mod expected;
mod measure;
pub mod order;
mod plan;
pub mod units;

pub use baseline::{Baseline, GateBaseline, freeze};
pub use breaker::{Breaker, BreakerReading, breaker};
pub use order::{PAIRS_MAX, PairKey, new_pairs};

use crate::stats::{
    log_space::ln,
    many,
    sample_ratio::{self, UnitStratum, sample_ratio},
};
use columns::{BLUE, Columns, GREEN, PairId};
use conclude::{Pair, Ratio, conclude};
use measure::{Calendar, Context, Measure, Sums, measure, unit_strata};
use plan::Plan;
use proto::{
    Metric, Nanos,
    cell::{Minutes, PPM},
    decision::{GateReport, Verdict},
    release::{GateSpec, ReleaseSpec},
};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// Everything a judgement depends on.
#[derive(Debug, Clone, Copy)]
pub struct JudgeInput<'a> {
    /// The release as declared.
    pub spec: &'a ReleaseSpec,
    /// Its frozen constants; without them every gate is inconclusive.
    pub baseline: Option<&'a Baseline>,
    /// Pairs in order of appearance; [`new_pairs`] says which to append first.
    pub order: &'a [PairKey],
    /// Cells of the release's scope. Only admitted ones are counted.
    pub minutes: &'a Minutes,
    /// Start of the first counted minute (the first after the warm-up), unix seconds.
    pub counted_from: i64,
    /// Width of a minute, seconds: the resolution of the cells.
    pub minute_secs: i64,
    /// Green serves all: its minutes at split 1 are held against the frozen baseline, for rollback only. Otherwise
    /// they are left out, as minutes at split 0 always are.
    pub watching: bool,
    /// Time of the judgement; stamped, nothing else.
    pub now: Nanos,
}

/// Counts of one stratum of one pair, as they stand in the evidence.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StratumCounts {
    /// Gate; null for the traces themselves.
    pub gate: Option<String>,
    /// Cohort; null for all.
    pub cohort: Option<String>,
    /// Split in ppm; null if unknown.
    pub split_ppm: Option<u32>,
    /// Blue units.
    pub n_blue: i64,
    /// Green units.
    pub n_green: i64,
    /// Blue events (rates; exceedances of the threshold for quantiles; 0 for means).
    pub events_blue: i64,
    /// Green events.
    pub events_green: i64,
}

/// The outcome for one release at one time. All e-values are natural logs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// When.
    pub judged_at: Nanos,
    /// Fail if rollback, pass if everything passes.
    pub verdict: Verdict,
    /// Why, in words.
    pub reason: String,
    /// One per pair, in their order: overall gates first.
    pub reports: Vec<GateReport>,
    /// Weighted sum over the rollback pairs.
    pub log_e_sum: f64,
    /// Value of `log_e_sum` at which the release rolls back.
    pub threshold_sum: f64,
    /// Evidence that the split is not the declared one.
    pub log_e_sample_ratio: f64,
    /// While true neither rollback nor promotion is said.
    pub sample_ratio_suspended: bool,
    /// The split is wrong; the caller latches this.
    pub sample_ratio_fired: bool,
    /// Culprits, if the release must roll back.
    pub rollback: Option<Vec<PairKey>>,
    /// Pairs whose cohort must fall back to blue.
    pub fallbacks: Vec<PairKey>,
    /// Pairs that say: stay.
    pub holds: Vec<PairKey>,
    /// Every overall gate passes at `alpha_promote` and no pair vetoes. Minimum traces and times are not included.
    pub passes: bool,
    /// Blue traces compared.
    pub n_blue: i64,
    /// Green traces compared.
    pub n_green: i64,
    /// No split was known, so the arms are taken as iid.
    pub iid_assumed: bool,
    /// Counts that all of the above were computed from.
    pub strata: Vec<StratumCounts>,
}

/// Judges once. Same as a fresh [`Judge`].
#[must_use]
pub fn judge(input: &JudgeInput<'_>) -> Judgement {
    Judge::default().judge(input)
}

/// Judges one release again and again: remembers minutes that did not change.
#[derive(Debug, Default)]
pub struct Judge {
    basis: Option<Basis>,
    plans: Vec<Result<Plan, String>>,
    columns: Columns,
}

/// What the columns were turned for; if it changes they are turned anew.
#[derive(Debug, PartialEq)]
struct Basis {
    spec: ReleaseSpec,
    baseline: Option<Baseline>,
    counted_from: i64,
    minute_secs: i64,
    watching: bool,
    randomised: bool,
}

impl Judge {
    /// Judges the input; equal bit for bit to what a fresh judge says.
    pub fn judge(&mut self, input: &JudgeInput<'_>) -> Judgement {
        let units = self.follow(input);
        let iid_assumed = !measure::any_randomised(&units);
        let compared: Vec<Sums> = units
            .iter()
            .copied()
            .filter(|s| iid_assumed || columns::is_randomised(s.split))
            .collect();
        let ratio = self.sample_ratio(input, &compared, iid_assumed);
        let alpha_gates = input.spec.alpha * (1.0 - input.spec.breaker.alpha_share);
        let pairs: Vec<Pair<'_>> = input
            .order
            .iter()
            .enumerate()
            .filter_map(|(i, key)| self.pair(input, key, i + 1, alpha_gates))
            .collect();
        conclude(input, pairs, &ratio, &compared, alpha_gates, iid_assumed)
    }

    /// Same as the free [`new_pairs`], without reading minutes that did not change.
    pub fn new_pairs(&mut self, input: &JudgeInput<'_>) -> Vec<PairKey> {
        self.follow(input);
        let cohorts = self.columns.cohorts();
        order::append(input.spec, cohorts.iter().map(|c| &**c), input.order)
    }

    /// Brings plans and columns up to date; returns the units per split.
    fn follow(&mut self, input: &JudgeInput<'_>) -> Vec<Sums> {
        let stale = self.basis.as_ref().is_none_or(|b| {
            b.counted_from != input.counted_from
                || b.minute_secs != input.minute_secs
                || b.watching != input.watching
                || b.baseline.as_ref() != input.baseline
                || b.spec != *input.spec
        });
        if stale {
            self.turn_anew(input, false);
        }
        let mut units = self.turn(input);
        let randomised = measure::any_randomised(&units);
        if self.basis.as_ref().is_some_and(|b| b.randomised != randomised) {
            self.turn_anew(input, randomised);
            units = self.turn(input);
        }
        units
    }

    fn turn_anew(&mut self, input: &JudgeInput<'_>, randomised: bool) {
        self.columns = Columns::default();
        self.plans = input
            .spec
            .gates
            .iter()
            .map(|gate| Plan::new(gate, input.baseline, randomised))
            .collect();
        self.basis = Some(Basis {
            spec: input.spec.clone(),
            baseline: input.baseline.cloned(),
            counted_from: input.counted_from,
            minute_secs: input.minute_secs,
            watching: input.watching,
            randomised,
        });
    }

    fn turn(&mut self, input: &JudgeInput<'_>) -> Vec<Sums> {
        self.columns.follow(&self.plans, input.minutes, input.counted_from);
        unit_strata(self.columns.units(None))
    }

    fn sample_ratio(&self, input: &JudgeInput<'_>, strata: &[Sums], iid: bool) -> Ratio {
        let units: Vec<UnitStratum> = strata
            .iter()
            .filter(|_| !iid)
            .map(|s| UnitStratum {
                rho: f64::from(s.split) / f64::from(PPM),
                blue: s.n[BLUE],
                green: s.n[GREEN],
            })
            .collect();
        let log_e = sample_ratio(&units);
        // Decided by blue's history alone, so that the data at hand cannot choose the level.
        let frequent = input.baseline.is_some_and(|b| {
            let rates = b.gates.values().filter_map(|g| g.p_hist);
            rates.fold(0.0, f64::max) > sample_ratio::FREQUENT
        });
        let alpha = if frequent {
            sample_ratio::ALPHA_FREQUENT
        } else {
            sample_ratio::ALPHA
        };
        Ratio {
            log_e,
            suspended: log_e >= ln(sample_ratio::SUSPENDS_AT),
            fired: log_e >= ln(1.0 / alpha),
        }
    }

    fn pair<'a>(&mut self, input: &JudgeInput<'a>, key: &'a PairKey, k: usize, alpha_gates: f64) -> Option<Pair<'a>> {
        let at = input.spec.gates.iter().position(|g| g.name == key.gate)?;
        let gate = &input.spec.gates[at];
        let cohort: Option<Arc<str>> = key.cohort.as_deref().map(Arc::from);
        let threshold_fail = ln(1.0 / alpha_gates) - many::ln_weight(k);
        let mut pair = Pair {
            key,
            gate,
            k,
            threshold_fail,
            measure: Measure::default(),
            obstacle: None,
            assumes: "",
        };
        match &self.plans[at] {
            Err(why) => pair.obstacle = Some(why.clone()),
            Ok(plan) => {
                let id: PairId = (at, cohort.clone());
                pair.assumes = if input.watching && plan.randomised && !plan.one_arm {
                    plan::IID_ALONE
                } else {
                    plan.assumes
                };
                pair.measure = measure(plan, gate.margin, &id, &mut self.columns, context(input));
                pair.obstacle =
                    obstacle(gate, plan, &pair.measure).or_else(|| self.coverage(gate, plan, &pair.measure, cohort));
            }
        }
        Some(pair)
    }

    /// Says so if too few traces of either color were evaluated.
    fn coverage(&self, gate: &GateSpec, plan: &Plan, measure: &Measure, cohort: Option<Arc<str>>) -> Option<String> {
        let least = gate.min_coverage?;
        if !matches!(gate.metric, Metric::EvalFail(_)) {
            return None;
        }
        let mut units = [0; 2];
        for row in self.columns.units(cohort) {
            if columns::uses(plan, row.split) {
                units[BLUE] += row.n[BLUE];
                units[GREEN] += row.n[GREEN];
            }
        }
        [(BLUE, "blue"), (GREEN, "green")]
            .into_iter()
            .filter(|&(arm, _)| arm == GREEN || !plan.one_arm)
            .map(|(arm, color)| (measure.n[arm] as f64 / units[arm].max(1) as f64, color))
            .find(|&(share, _)| share < least)
            .map(|(share, color)| {
                format!(
                    "coverage: {:.1} % of {color} traces are evaluated, {:.1} % needed",
                    100.0 * share,
                    100.0 * least
                )
            })
    }
}

fn context(input: &JudgeInput<'_>) -> Context {
    let width = input.minute_secs.max(1);
    let origin = input.counted_from;
    Context {
        calendar: Calendar {
            origin: origin + (-origin).rem_euclid(width),
            width,
        },
        watching: input.watching,
        alpha: input.spec.alpha,
    }
}

fn obstacle(gate: &GateSpec, plan: &Plan, measure: &Measure) -> Option<String> {
    let what = match gate.metric {
        Metric::EvalFail(_) => "evaluated traces",
        Metric::AttemptError | Metric::RateLimited | Metric::Ttft => "calls",
        _ => "traces",
    };
    match measure.n {
        [0, 0] => Some(format!("no data: no {what} admitted yet")),
        [_, 0] => Some(format!("one-sided: no green {what} admitted yet")),
        [0, _] if !plan.one_arm => Some(format!("one-sided: no blue {what} admitted yet")),
        _ => None,
    }
}
