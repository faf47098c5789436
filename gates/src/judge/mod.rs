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
pub mod guards;
mod measure;
pub mod order;
mod plan;
mod turn;
pub mod units;

pub use baseline::{Baseline, GateBaseline, freeze};
pub use breaker::{Breaker, BreakerReading, breaker};
pub use order::{PAIRS_MAX, PairKey, new_pairs};
pub use plan::pair_plans;

use crate::stats::{
    log_space::ln,
    many,
    sample_ratio::{self, UnitStratum, sample_ratio},
};
use columns::{ALL, BLUE, Columns, GREEN, Sums, is_randomised};
use conclude::{Pair, Ratio, conclude};
use measure::{Calendar, Context, Measure};
use plan::{Plan, Source, unit_grain};
use proto::{
    Metric, Nanos,
    cell::{Minutes, PPM},
    decision::{GateReport, Verdict},
    measure::EVERY_GATE,
    release::{GateSpec, ReleaseSpec, Unit},
};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, HashMap};
use turn::Frame;

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
    /// Cells that rows were asked for (see [`proto::measure`]): pairs, sessions, SQL.
    pub measured: &'a Minutes,
    /// First minute of `measured` that counts, unix seconds: mirroring begins before green serves.
    pub measured_from: i64,
    /// Gates that could not be measured from rows, and why.
    pub obstacles: &'a BTreeMap<String, String>,
    /// Gates that a person has muted: shown, and left out of every rollback, fallback and hold.
    pub muted: &'a [String],
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

/// Nothing was asked of rows.
static NO_MINUTES: Minutes = Minutes::new();
static NO_OBSTACLES: BTreeMap<String, String> = BTreeMap::new();

impl<'a> JudgeInput<'a> {
    /// Cells of single traces alone, in minutes of 60 s, all of them counted: no baseline and no pairs yet, nothing asked
    /// of rows, nobody muted anything.
    #[must_use]
    pub const fn of_cells(spec: &'a ReleaseSpec, minutes: &'a Minutes) -> Self {
        Self {
            spec,
            baseline: None,
            order: &[],
            minutes,
            measured: &NO_MINUTES,
            measured_from: 0,
            obstacles: &NO_OBSTACLES,
            muted: &[],
            counted_from: 0,
            minute_secs: 60,
            watching: false,
            now: Nanos::ZERO,
        }
    }
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
    /// Why nothing may be judged, in words: what spoils the comparison (see [`guards`]).
    #[serde(default)]
    pub refused: Option<String>,
    /// What forbids promotion beside the gates, in words.
    #[serde(default)]
    pub blocked: Option<String>,
    /// Mirrored pairs read by the paired gate that has most.
    #[serde(default)]
    pub n_pairs: i64,
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
#[derive(Debug)]
pub struct Judge {
    basis: Option<Basis>,
    plans: Vec<Result<Plan, String>>,
    cells: Columns,
    rows: Columns,
    measures: Measures,
}

impl Default for Judge {
    fn default() -> Self {
        Self {
            basis: None,
            plans: Vec::new(),
            cells: Columns::new(Source::Cells, 0),
            rows: Columns::new(Source::Rows, 0),
            measures: Measures::default(),
        }
    }
}

/// Pairs whose column has not changed measure the same: (gate, cohort) to the column's version and what came out.
type Measures = HashMap<(usize, u32), (u64, Measure)>;

/// What the columns were turned for; if it changes they are turned anew.
#[derive(Debug, PartialEq)]
struct Basis {
    spec: ReleaseSpec,
    baseline: Option<Baseline>,
    counted_from: i64,
    measured_from: i64,
    minute_secs: i64,
    watching: bool,
    randomised: bool,
}

impl Judge {
    /// Judges the input; equal bit for bit to what a fresh judge says.
    pub fn judge(&mut self, input: &JudgeInput<'_>) -> Judgement {
        let units = self.follow(input);
        let iid_assumed = !any_randomised(&units);
        let compared: Vec<Sums> = units
            .iter()
            .copied()
            .filter(|s| iid_assumed || is_randomised(s.split))
            .collect();
        let settled: Vec<Sums> = self.settled_units(input.spec.unit);
        let settled: Vec<Sums> = settled.into_iter().filter(|s| is_randomised(s.split)).collect();
        let ratio = sample_ratio_of(input, &settled, iid_assumed);
        let alpha_gates = input.spec.alpha * (1.0 - input.spec.breaker.alpha_share);
        let guarded = conclude::Guards {
            refused: self.cells.guarded.refused(input.spec.unit, &self.rows.guarded),
            // where sessions cannot be counted nobody knows whether they stick: no reason to keep a bad green
            blocked: self
                .cells
                .guarded
                .blocked()
                .or_else(|| input.obstacles.get(EVERY_GATE).cloned()),
        };
        let pairs: Vec<Pair<'_>> = input
            .order
            .iter()
            .enumerate()
            .filter_map(|(i, key)| self.pair(input, key, i + 1, alpha_gates))
            .collect();
        conclude(input, pairs, &ratio, guarded, &compared, alpha_gates, iid_assumed)
    }

    /// Same as the free [`new_pairs`], without reading minutes that did not change.
    pub fn new_pairs(&mut self, input: &JudgeInput<'_>) -> Vec<PairKey> {
        self.follow(input);
        let cohorts = self.of(Source::of_units(unit_grain(input.spec.unit))).in_order();
        order::append(input.spec, cohorts.iter().map(|c| &**c), input.order)
    }

    const fn of(&self, source: Source) -> &Columns {
        match source {
            Source::Cells => &self.cells,
            Source::Rows => &self.rows,
        }
    }

    /// Brings plans and columns up to date; returns the units per split.
    fn follow(&mut self, input: &JudgeInput<'_>) -> Vec<Sums> {
        let stale = self.basis.as_ref().is_none_or(|b| {
            b.counted_from != input.counted_from
                || b.measured_from != input.measured_from
                || b.minute_secs != input.minute_secs
                || b.watching != input.watching
                || b.baseline.as_ref() != input.baseline
                || b.spec != *input.spec
        });
        if stale {
            self.turn_anew(input, false);
        }
        let mut units = self.turn(input);
        let randomised = any_randomised(&units);
        if self.basis.as_ref().is_some_and(|b| b.randomised != randomised) {
            self.turn_anew(input, randomised);
            units = self.turn(input);
        }
        units
    }

    fn turn_anew(&mut self, input: &JudgeInput<'_>, randomised: bool) {
        let gates = input.spec.gates.len();
        self.cells = Columns::new(Source::Cells, gates);
        self.rows = Columns::new(Source::Rows, gates);
        self.measures.clear();
        self.plans = input
            .spec
            .gates
            .iter()
            .map(|gate| Plan::new(input.spec, gate, input.baseline, randomised))
            .collect();
        self.basis = Some(Basis {
            spec: input.spec.clone(),
            baseline: input.baseline.cloned(),
            counted_from: input.counted_from,
            measured_from: input.measured_from,
            minute_secs: input.minute_secs,
            watching: input.watching,
            randomised,
        });
    }

    fn turn(&mut self, input: &JudgeInput<'_>) -> Vec<Sums> {
        let frame = Frame {
            grain: unit_grain(input.spec.unit),
        };
        let from = input.counted_from;
        self.cells.follow(&self.plans, &frame, input.minutes, from);
        self.rows
            .follow(&self.plans, &frame, input.measured, input.measured_from);
        let units = self.of(Source::of_units(frame.grain)).units(ALL);
        units.map(|u| u.sums.clone()).unwrap_or_default()
    }

    /// Units per split up to the last minute in which both colors came. What follows may be a silence, which is no news
    /// about the split until it is over; an e-value at an earlier time is as good as one of now.
    fn settled_units(&self, unit: Unit) -> Vec<Sums> {
        let Some(units) = self.of(Source::of_units(unit_grain(unit))).units(ALL) else {
            return Vec::new();
        };
        let mut sums = units.sums.clone();
        for minute in units.rows.rows().chunk_by(|a, b| a.minute == b.minute).rev() {
            let came = |arm: usize| minute.iter().any(|row| row.n[arm] > 0);
            if came(BLUE) && came(GREEN) {
                break;
            }
            minute.iter().for_each(|row| columns::add_up(&mut sums, row, -1));
        }
        sums
    }

    fn pair<'a>(&mut self, input: &JudgeInput<'a>, key: &'a PairKey, k: usize, alpha_gates: f64) -> Option<Pair<'a>> {
        let at = input.spec.gates.iter().position(|g| g.name == key.gate)?;
        let gate = &input.spec.gates[at];
        let mut pair = Pair {
            key,
            gate,
            k,
            threshold_fail: ln(1.0 / alpha_gates) - many::ln_weight(k),
            muted: input.muted.contains(&gate.name),
            measure: Measure::default(),
            obstacle: input.obstacles.get(&gate.name).cloned(),
            assumes: "",
        };
        let plan = match &self.plans[at] {
            Ok(plan) => plan,
            Err(why) => {
                pair.obstacle = Some(why.clone());
                return Some(pair);
            }
        };
        pair.assumes = if input.watching && plan.randomised && !plan.one_arm && plan.source == Source::Cells {
            plan::IID_ALONE
        } else {
            plan.assumes
        };
        if plan.source == Source::of_units(plan.grain) && plan.source == Source::Rows {
            pair.obstacle = pair.obstacle.or_else(|| input.obstacles.get(EVERY_GATE).cloned());
        }
        let context = context(input, plan.source);
        let columns = match plan.source {
            Source::Cells => &mut self.cells,
            Source::Rows => &mut self.rows,
        };
        if let Some(cohort) = columns.cohorts.known(key.cohort.as_deref()) {
            pair.measure = remembered(&mut self.measures, plan, gate, (at, cohort), columns, context);
        }
        pair.obstacle = pair
            .obstacle
            .or_else(|| obstacle(gate, plan, &pair.measure))
            .or_else(|| self.coverage(gate, at, &pair.measure, key.cohort.as_deref(), context));
        Some(pair)
    }

    /// Says so if too few units of either color were evaluated.
    fn coverage(
        &self,
        gate: &GateSpec,
        at: usize,
        measure: &Measure,
        cohort: Option<&str>,
        context: Context,
    ) -> Option<String> {
        let least = gate.min_coverage?;
        let Some(Ok(plan)) = self.plans.get(at) else {
            return None;
        };
        if gate.paired || !matches!(gate.metric, Metric::EvalFail(_)) {
            return None;
        }
        let columns = self.of(Source::of_units(plan.grain));
        let units = columns.cohorts.known(cohort).and_then(|c| columns.units(c));
        let mut n = [0; 2];
        for row in units.map_or(&[][..], |u| u.rows.rows_until(context.until(plan))) {
            if columns::uses(plan, row.split) {
                n[BLUE] += row.n[BLUE];
                n[GREEN] += row.n[GREEN];
            }
        }
        [(BLUE, "blue"), (GREEN, "green")]
            .into_iter()
            .filter(|&(arm, _)| arm == GREEN || !plan.one_arm)
            .map(|(arm, color)| (measure.n[arm] as f64 / n[arm].max(1) as f64, color))
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

/// Measures a pair, unless its column is what it was.
fn remembered(
    measures: &mut Measures,
    plan: &Plan,
    gate: &GateSpec,
    id: (usize, u32),
    columns: &mut Columns,
    context: Context,
) -> Measure {
    let version = match plan.counts_events() {
        true => columns.events(id.0, id.1).map(|c| c.version),
        false => columns.means(id.0, id.1).map(|c| c.version),
    };
    let Some(version) = version else {
        return Measure::default();
    };
    // what waits for late evaluations changes with time alone
    if plan.lateness_secs == 0
        && let Some((of, measure)) = measures.get(&id)
        && *of == version
    {
        return measure.clone();
    }
    let measure = if plan.counts_events() {
        let column = columns.events(id.0, id.1);
        column.map(|c| measure::of_events(plan, gate.margin, c, context))
    } else {
        let column = columns.means(id.0, id.1);
        column.map(|c| measure::of_means(plan, gate.margin, c, context))
    };
    let measure = measure.unwrap_or_default();
    measures.insert(id, (version, measure.clone()));
    measure
}

/// Whether any stratum randomises.
fn any_randomised(strata: &[Sums]) -> bool {
    strata
        .iter()
        .any(|s| is_randomised(s.split) && s.n[BLUE] + s.n[GREEN] > 0)
}

fn sample_ratio_of(input: &JudgeInput<'_>, strata: &[Sums], iid: bool) -> Ratio {
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

fn context(input: &JudgeInput<'_>, source: Source) -> Context {
    let width = input.minute_secs.max(1);
    let origin = match source {
        Source::Cells => input.counted_from,
        Source::Rows => input.measured_from,
    };
    Context {
        calendar: Calendar {
            origin: origin + (-origin).rem_euclid(width),
            width,
        },
        watching: input.watching,
        alpha: input.spec.alpha,
        now: input.now.0.div_euclid(1_000_000_000),
    }
}

fn obstacle(gate: &GateSpec, plan: &Plan, measure: &Measure) -> Option<String> {
    let what = match &gate.metric {
        _ if gate.paired => "mirrored pairs",
        Metric::EvalFail(_) => "evaluated traces",
        Metric::AttemptError | Metric::RateLimited | Metric::Ttft => "calls",
        Metric::Sql(_) => "units of its statement",
        _ => "traces",
    };
    match measure.n {
        [0, 0] => Some(format!("no data: no {what} admitted yet")),
        [_, 0] => Some(format!("one-sided: no green {what} admitted yet")),
        [0, _] if !plan.one_arm => Some(format!("one-sided: no blue {what} admitted yet")),
        _ => None,
    }
}
