//! How long a release will need: before traffic moves, from what blue is like and how much traffic there is.
//!
//! For every step of the ramp and every gate two questions: when does a green that is *equal* to blue pass, and when is
//! one that is worse by twice what the gate allows rolled back? The answer is the time at which the gate's own test
//! crosses its own threshold on expected counts; half of all releases are faster. Each step is looked at as if the release
//! stayed there: evidence of several steps adds up, so a ramp is a little faster than its last step alone.

use crate::{
    judge::{
        Baseline,
        expected::{Expectation, Expected},
        freeze,
        units::{natural_grain, per_display_unit},
    },
    stats::{log_space::ln, many::ln_weight},
};
use proto::{
    Cell, Color, Metric, Nanos,
    cell::{PPM, Series},
    metric::MetricKind,
    release::{GateSpec, Margin, Mode, ReleaseSpec, Step, Unit},
};
use std::{collections::BTreeMap, time::Duration};

/// A green that is worse has this much of the margin's excess over blue.
const EXCESS_TIMES: f64 = 2.0;
/// The same where the margin allows no excess: green over blue.
const NO_EXCESS_TIMES: f64 = 1.5;
/// Where blue's usual value is next to nothing, green's is no more than this many times as high.
const TIMES_MAX: f64 = 1e6;
/// Releases a year at one a week.
const WEEKS_A_YEAR: f64 = 365.25 / 7.0;
const SECS_A_YEAR: f64 = 365.25 * 86_400.0;

/// What is known or assumed of a route's traffic.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Traffic {
    /// Traces of the whole route a minute.
    pub traces_per_minute: f64,
    /// Blue's cells by metric, with [`Metric::Traces`] among them: what a trace is like.
    pub blue: BTreeMap<Metric, Cell>,
}

/// When something happens, counted from the first trace on the step; `None`: not within the horizon.
pub type When = Option<Duration>;

/// One gate at one step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GatePrediction {
    /// Name of the gate.
    pub gate: String,
    /// When an equal green passes.
    pub passes: When,
    /// Which worse green is meant, in words: `1.4x`.
    pub worse: String,
    /// When that is rolled back (or held, or sent back).
    pub caught: When,
}

/// One step of the ramp.
#[derive(Debug, Clone, PartialEq)]
pub struct StepPrediction {
    /// Green's share.
    pub green: f64,
    /// When each arm has `min_traces`.
    pub enough_traces: When,
    /// By gate, in order; in words why a gate cannot be predicted.
    pub gates: Vec<Result<GatePrediction, (String, String)>>,
}

/// A whole release.
#[derive(Debug, Clone, PartialEq)]
pub struct Prediction {
    /// Steps below 1.0; from 1.0 on nothing is compared.
    pub steps: Vec<StepPrediction>,
    /// When an equal green is promoted, from the declaration on: warm-up, steps, and the slowest gate of the last.
    pub promotes: When,
}

/// Predicts one release.
///
/// # Errors
/// In words, why nothing can be predicted: no traffic, too little of blue's past, another unit than traces.
pub fn predict(spec: &ReleaseSpec, traffic: &Traffic) -> Result<Prediction, String> {
    let rate = traffic.traces_per_minute;
    if !(rate.is_finite() && rate > 0.0) {
        return Err("no traffic".to_owned());
    }
    if spec.unit != Unit::Trace {
        return Err("sessions and users are randomised, and how many traces they have is not in the cells".to_owned());
    }
    let series = traffic.blue.iter().map(|(metric, cell)| (of_blue(metric), cell));
    let series: Vec<(Series, &Cell)> = series.collect();
    let cells = series.iter().map(|(series, cell)| (series, *cell));
    let baseline = freeze(spec, cells, Nanos::ZERO, "prediction".to_owned())?;
    let steps: Vec<&Step> = spec.steps.iter().filter(|s| s.ppm() < PPM).collect();
    let steps: Vec<StepPrediction> = steps
        .iter()
        .map(|step| at_step(spec, traffic, &baseline, step))
        .collect();
    Ok(Prediction {
        promotes: promotes(spec, &steps),
        steps,
    })
}

fn of_blue(metric: &Metric) -> Series {
    Series {
        metric: metric.clone(),
        grain: natural_grain(metric),
        cohort: None,
        split_ppm: None,
        color: Color::Blue,
        admitted: true,
    }
}

fn at_step(spec: &ReleaseSpec, traffic: &Traffic, baseline: &Baseline, step: &Step) -> StepPrediction {
    let smaller = step.green.min(1.0 - step.green);
    let enough = spec.min_traces as f64 / (traffic.traces_per_minute * smaller);
    let admission = spec.timeout + spec.grace;
    let gates = spec.gates.iter().enumerate().map(|(i, gate)| {
        let late = admission + gate.lateness;
        gate_at_step(spec, traffic, baseline, step.ppm(), (i + 1, gate))
            .map(|mut p| {
                for when in [&mut p.passes, &mut p.caught] {
                    *when = when.map(|d| d + late).filter(|d| *d <= spec.horizon);
                }
                p
            })
            .map_err(|why| (gate.name.clone(), why))
    });
    StepPrediction {
        green: step.green,
        enough_traces: Some(Duration::from_secs_f64((60.0 * enough).min(1e12)) + admission)
            .filter(|d| *d <= spec.horizon),
        gates: gates.collect(),
    }
}

fn gate_at_step(
    spec: &ReleaseSpec,
    traffic: &Traffic,
    baseline: &Baseline,
    split: u32,
    (k, gate): (usize, &GateSpec),
) -> Result<GatePrediction, String> {
    if gate.sql.is_some() || gate.paired {
        return Err("what it counts is not in the cells of blue's traffic".to_owned());
    }
    let none = Cell::default();
    let blue = traffic.blue.get(&gate.metric).unwrap_or(&none);
    let traces = traffic.blue.get(&Metric::Traces).map_or(0, |c| c.n).max(1);
    let expected = |times: f64| {
        Expected::new(
            spec,
            gate,
            Expectation {
                baseline,
                blue,
                units: traffic.traces_per_minute * blue.n as f64 / traces as f64,
                split,
                times,
            },
        )
    };
    let (times, worse) = alternative(gate, blue);
    let minutes_max = spec.horizon.as_secs() / 60;
    let pass = ln(1.0 / spec.alpha_promote);
    let fail = ln(1.0 / (spec.alpha * (1.0 - spec.breaker.alpha_share))) - ln_weight(k);
    let (equal, worst) = (expected(1.0)?, expected(times)?);
    let minutes = |n: u64| Duration::from_secs(60 * n);
    Ok(GatePrediction {
        gate: gate.name.clone(),
        passes: first_minute(minutes_max, |n| equal.log_e_pass(n) >= pass).map(minutes),
        worse,
        caught: first_minute(minutes_max, |n| worst.log_e_fail(n) >= fail).map(minutes),
    })
}

/// Smallest number of minutes, at most `max`, at which `crossed` holds: doubled until it does, then bisected.
fn first_minute(max: u64, crossed: impl Fn(u64) -> bool) -> Option<u64> {
    let (mut no, mut yes) = (0, 1);
    while !crossed(yes.min(max)) {
        if yes >= max {
            return None;
        }
        (no, yes) = (yes, yes * 2);
    }
    yes = yes.min(max);
    while yes - no > 1 {
        let mid = no + (yes - no) / 2;
        if crossed(mid) { yes = mid } else { no = mid }
    }
    Some(yes)
}

/// A green with twice the allowed excess: its rate or its amounts over blue's, and how to say it.
fn alternative(gate: &GateSpec, blue: &Cell) -> (f64, String) {
    let unit = per_display_unit(&gate.metric);
    let usual = match (gate.metric.kind(), gate.quantile) {
        (MetricKind::Rate, _) => (blue.events as f64 + 0.5) / (blue.n as f64 + 1.0),
        (MetricKind::Amount, Some(q)) => blue.hdr.quantile(q).unwrap_or(1) as f64 / unit,
        (MetricKind::Amount, None) => blue.sum as f64 / blue.n.max(1) as f64 / unit,
    };
    let usual = usual.max(f64::MIN_POSITIVE);
    let (excess, least_is_best) = match gate.margin {
        Margin::MaxRatio(r) => ((r - 1.0) * usual, true),
        Margin::MaxIncrease(by) => (by, true),
        Margin::Max(limit) => (limit - usual, true),
        Margin::Min(limit) => (usual - limit, false),
    };
    // of a limit that blue itself is at, nothing is left
    let times = if excess <= 0.0 {
        if least_is_best {
            NO_EXCESS_TIMES
        } else {
            1.0 / NO_EXCESS_TIMES
        }
    } else if least_is_best {
        (1.0 + EXCESS_TIMES * excess / usual).min(TIMES_MAX)
    } else {
        (1.0 - EXCESS_TIMES * excess / usual).max(1.0 / TIMES_MAX)
    };
    let words = match gate.margin {
        Margin::MaxRatio(_) => format!("{}x", rounded(times)),
        _ => shown(&gate.metric, usual * times),
    };
    (times, words)
}

/// A value of a metric with its unit.
fn shown(metric: &Metric, value: f64) -> String {
    match metric {
        Metric::Latency | Metric::Ttft => format!("{} ms", rounded(value)),
        Metric::Cost => format!("{} USD", rounded(value)),
        Metric::PromptTokens | Metric::CompletionTokens => format!("{} tokens", rounded(value)),
        _ => format!("{} %", rounded(100.0 * value.min(1.0))),
    }
}

/// Three digits.
fn rounded(x: f64) -> f64 {
    let digits = 2 - x.abs().max(f64::MIN_POSITIVE).log10().floor() as i32;
    let scale = 10f64.powi(digits);
    (x * scale).round() / scale
}

fn promotes(spec: &ReleaseSpec, steps: &[StepPrediction]) -> When {
    let last = steps.last()?;
    let below = || spec.steps.iter().filter(|s| s.ppm() < PPM);
    let earlier: Duration = below().take(steps.len() - 1).map(|s| s.min).sum();
    let own = below().next_back().map_or(Duration::ZERO, |s| s.min);
    let mut slowest = own.max(last.enough_traces?).max(spec.min_duration);
    for gate in &last.gates {
        slowest = slowest.max(gate.as_ref().ok()?.passes?);
    }
    Some(spec.warmup + earlier + slowest).filter(|d| *d <= spec.horizon)
}

/// Good releases that are rolled back in a year, at most, on average.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct FalseRollbacks {
    /// If on every route one release follows another at once and each takes its whole horizon.
    pub back_to_back: f64,
    /// At one release a week on every route.
    pub weekly: f64,
}

/// What `alpha` comes to over a year, if every green were as good as its blue. Releases that only observe roll nothing
/// back.
#[must_use]
pub fn false_rollbacks_a_year(specs: &[ReleaseSpec]) -> FalseRollbacks {
    let deciding = || specs.iter().filter(|s| s.mode != Mode::Observe);
    FalseRollbacks {
        back_to_back: deciding()
            .map(|s| s.alpha * SECS_A_YEAR / s.horizon.as_secs_f64().max(1.0))
            .sum(),
        weekly: deciding().map(|s| s.alpha * WEEKS_A_YEAR).sum(),
    }
}
