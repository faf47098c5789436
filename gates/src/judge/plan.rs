//! Which test a gate is: chosen from its spec, the frozen baseline and whether a split is known.

use super::{
    baseline::{Baseline, CAP_MEANS, GateBaseline},
    units::{natural_grain, per_display_unit},
};
use crate::stats::{
    joint::{Boundary, Prior},
    mean::{LimitBets, MeanMargin},
    paired::{DiscordBets, ValueBets},
    quantile::snap,
};
use proto::{
    Grain, Metric,
    measure::{PairPlan, PairRead},
    metric::MetricKind,
    release::{GateSpec, Margin, ReleaseSpec, Unit},
};

/// Where a gate's cells come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// From ingest: counted as traces close.
    Cells,
    /// From rows, by questions: pairs, sessions, users, SQL (see [`proto::measure`]).
    Rows,
}

impl Source {
    /// Where units of this grain are counted.
    pub const fn of_units(grain: Grain) -> Self {
        match grain {
            Grain::Session | Grain::User => Self::Rows,
            Grain::Attempt | Grain::Request | Grain::Trace => Self::Cells,
        }
    }
}

/// The grain of a randomised unit.
pub(super) const fn unit_grain(unit: Unit) -> Grain {
    match unit {
        Unit::Trace => Grain::Trace,
        Unit::Session => Grain::Session,
        Unit::User => Grain::User,
    }
}

/// Rate that the mixture of two iid arms looks at first, where blue's history says nothing. Frozen by being a constant.
const P_HIST_DEFAULT: f64 = 0.05;

/// The grain at which a gate of a release is judged: what is said of traces is said of the randomised units.
pub(super) const fn grain_of(spec: &ReleaseSpec, gate: &GateSpec) -> Grain {
    match natural_grain(&gate.metric) {
        Grain::Trace if !gate.paired && gate.sql.is_none() => unit_grain(spec.unit),
        natural => natural,
    }
}

/// What is counted of a unit.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Counting {
    /// Whether it had the event.
    Event,
    /// Whether its value lies above its color's threshold (integer units, a bucket edge).
    Above { blue: u64, green: u64 },
    /// Its value.
    Value,
    /// Whether only this color's trace of a pair had the event.
    PairEvent,
    /// The difference within a pair.
    PairValue,
}

/// On which side of a limit green is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Worse {
    Above,
    Below,
}

/// The test of a gate.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Test {
    /// Two rates under a split; `beside` is green's highest rate at the margin where only a frozen baseline is left.
    Rates { r: f64, beside: Option<f64> },
    /// Two rates, iid in each arm; `beside` as for [`Test::Rates`].
    Joint {
        boundary: Boundary,
        prior: Prior,
        beside: Option<f64>,
    },
    /// Green's share against a limit.
    Share { limit: f64, worse: Worse },
    /// Two capped means under a split.
    Means(MeanMargin),
    /// Green's capped mean against a limit: declared, or the frozen mean at the margin.
    Mean { bets: LimitBets, worse: Worse },
    /// Pairs of which one had the event.
    Discordant(Box<Discordant>),
    /// Differences within pairs.
    PairedMean(ValueBets),
}

/// Bets on discordant pairs, for and against.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Discordant {
    pub gt: DiscordBets,
    pub lt: DiscordBets,
}

/// One gate, compiled.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Plan {
    pub source: Source,
    /// Metric of the cells it reads.
    pub metric: Metric,
    pub grain: Grain,
    /// Metric as declared, for units of display.
    pub shown: Metric,
    /// How old units must be beyond their admission, seconds.
    pub lateness_secs: i64,
    /// Timeout and grace, seconds.
    pub admitted_after_secs: i64,
    pub by_cohort: bool,
    pub quantile: Option<f64>,
    pub counting: Counting,
    pub test: Test,
    /// Declared limit: green alone is judged.
    pub one_arm: bool,
    /// A split is known: only rows of a randomised split are compared.
    pub randomised: bool,
    /// Green's highest mean at the margin where only a frozen baseline is left; integer units.
    pub alone: Option<f64>,
    /// What must be said of the assumptions; empty for a randomised comparison.
    pub assumes: &'static str,
}

/// Where a split is unknown.
const IID: &str = "iid assumed";
/// Where pairs are compared.
const PAIRED: &str = "mirrored pairs, iid assumed";
/// Where green serves alone.
pub(super) const IID_ALONE: &str = "green alone, iid assumed against the frozen baseline";
/// Where green's mean is compared with a constant because no split is known.
const IID_FROZEN: &str = "iid assumed, against the frozen blue mean";

impl Plan {
    /// Compiles `gate`; `randomised` says whether a split is known.
    ///
    /// # Errors
    /// In words, why it cannot be judged (yet).
    pub fn new(
        spec: &ReleaseSpec,
        gate: &GateSpec,
        baseline: Option<&Baseline>,
        randomised: bool,
    ) -> Result<Self, String> {
        if baseline.is_none() {
            return Err("no frozen baseline yet".to_owned());
        }
        let none = GateBaseline::default();
        let frozen = baseline.and_then(|b| b.gates.get(&gate.name)).unwrap_or(&none);
        let (counting, test) = match (gate.metric.kind(), gate.quantile) {
            _ if gate.paired => paired(gate, frozen)?,
            (MetricKind::Rate, _) => rate(gate, frozen, randomised),
            (MetricKind::Amount, Some(q)) => quantile(gate, q, frozen, randomised)?,
            (MetricKind::Amount, None) => mean(gate, frozen, randomised)?,
        };
        let one_arm = matches!(gate.margin, Margin::Max(_) | Margin::Min(_));
        let grain = grain_of(spec, gate);
        let source = match gate.sql {
            Some(_) => Source::Rows,
            None if gate.paired => Source::Rows,
            None => Source::of_units(grain),
        };
        let alone = match &test {
            Test::Means(margin) => frozen.upper.map(|upper| margin.r * upper),
            _ => None,
        };
        let assumes = match &test {
            Test::Joint { .. } if !randomised => IID,
            Test::Discordant(_) | Test::PairedMean(_) => PAIRED,
            Test::Mean { .. } if !one_arm => IID_FROZEN,
            _ => "",
        };
        Ok(Self {
            source,
            metric: match gate.paired {
                true => Metric::Paired(gate.name.as_str().into()),
                false => gate.metric.clone(),
            },
            grain,
            shown: gate.metric.clone(),
            lateness_secs: i64::try_from(gate.lateness.as_secs()).unwrap_or(i64::MAX / 4),
            admitted_after_secs: i64::try_from((spec.timeout + spec.grace).as_secs()).unwrap_or(i64::MAX / 4),
            by_cohort: gate.by_cohort,
            quantile: gate.quantile,
            counting,
            test,
            one_arm,
            randomised,
            alone,
            assumes,
        })
    }
}

/// Both colors answered the same request, so only what differs within a pair speaks.
fn paired(gate: &GateSpec, frozen: &GateBaseline) -> Result<(Counting, Test), String> {
    let read = pair_read(gate, frozen)?;
    Ok(match read {
        PairRead::Event => {
            let delta = match gate.margin {
                Margin::MaxIncrease(delta) => delta,
                Margin::MaxRatio(_) | Margin::Max(_) | Margin::Min(_) => 0.0,
            };
            let (gt, lt) = (DiscordBets::gt(delta), DiscordBets::lt(delta));
            (Counting::PairEvent, Test::Discordant(Box::new(Discordant { gt, lt })))
        }
        PairRead::Above { .. } => {
            let gt = DiscordBets::mcnemar();
            let lt = gt.mirrored();
            (Counting::PairEvent, Test::Discordant(Box::new(Discordant { gt, lt })))
        }
        PairRead::Value { r, cap } => {
            let bets = ValueBets::new(r, cap as f64).ok_or_else(|| no_history(gate))?;
            (Counting::PairValue, Test::PairedMean(bets))
        }
    })
}

/// What must be read of each pair of a paired gate.
fn pair_read(gate: &GateSpec, frozen: &GateBaseline) -> Result<PairRead, String> {
    match (gate.metric.kind(), gate.quantile) {
        (MetricKind::Rate, _) => Ok(PairRead::Event),
        (MetricKind::Amount, Some(_)) => match (frozen.t, frozen.t_margin) {
            (Some(blue), Some(green)) => Ok(PairRead::Above { blue, green }),
            _ => Err(no_history(gate)),
        },
        (MetricKind::Amount, None) => match (frozen.mean, frozen.cap, gate.margin) {
            (Some(_), Some(cap), Margin::MaxRatio(r)) => Ok(PairRead::Value { r, cap }),
            (Some(mean), Some(cap), Margin::MaxIncrease(by)) => Ok(PairRead::Value {
                r: 1.0 + by * per_display_unit(&gate.metric) / mean,
                cap,
            }),
            _ => Err(no_history(gate)),
        },
    }
}

/// What the paired gates of a release ask of the rows; nothing before the baseline is frozen.
#[must_use]
pub fn pair_plans(spec: &ReleaseSpec, baseline: Option<&Baseline>) -> Vec<PairPlan> {
    let Some(baseline) = baseline else {
        return Vec::new();
    };
    let paired = spec.gates.iter().filter(|gate| gate.paired);
    paired
        .filter_map(|gate| {
            let frozen = baseline.gates.get(&gate.name)?;
            Some(PairPlan {
                gate: gate.name.as_str().into(),
                metric: gate.metric.clone(),
                read: pair_read(gate, frozen).ok()?,
                by_cohort: gate.by_cohort,
            })
        })
        .collect()
}

fn rate(gate: &GateSpec, frozen: &GateBaseline, randomised: bool) -> (Counting, Test) {
    let prior = Prior::from_rate(frozen.p_hist.unwrap_or(P_HIST_DEFAULT));
    let test = match gate.margin {
        Margin::MaxRatio(r) if randomised => Test::Rates {
            r,
            beside: frozen.upper.map(|p| (r * p).min(1.0)),
        },
        Margin::MaxRatio(r) => Test::Joint {
            boundary: Boundary::Ratio(r),
            prior,
            beside: None,
        },
        Margin::MaxIncrease(delta) => Test::Joint {
            boundary: Boundary::Difference(delta),
            prior,
            // without a split green's minutes alone are among the compared ones
            beside: frozen.upper.filter(|_| randomised).map(|p| (p + delta).clamp(0.0, 1.0)),
        },
        Margin::Max(limit) => share(limit, Worse::Above),
        Margin::Min(limit) => share(limit, Worse::Below),
    };
    (Counting::Event, test)
}

const fn share(limit: f64, worse: Worse) -> Test {
    Test::Share { limit, worse }
}

/// The margin is in green's threshold, so the rates of exceedance are compared one to one.
fn quantile(gate: &GateSpec, q: f64, frozen: &GateBaseline, randomised: bool) -> Result<(Counting, Test), String> {
    let worse = match gate.margin {
        Margin::Max(_) => Worse::Above,
        Margin::Min(_) => Worse::Below,
        Margin::MaxRatio(_) | Margin::MaxIncrease(_) => {
            let (Some(blue), Some(green)) = (frozen.t, frozen.t_margin) else {
                return Err(no_history(gate));
            };
            let test = if randomised {
                Test::Rates {
                    r: 1.0,
                    beside: frozen.upper,
                }
            } else {
                Test::Joint {
                    boundary: Boundary::Ratio(1.0),
                    prior: Prior::from_rate(1.0 - q),
                    beside: None,
                }
            };
            return Ok((Counting::Above { blue, green }, test));
        }
    };
    let (Margin::Max(limit) | Margin::Min(limit)) = gate.margin else {
        return Err(no_history(gate));
    };
    let edge = snap(limit * per_display_unit(&gate.metric));
    let counting = Counting::Above {
        blue: edge,
        green: edge,
    };
    Ok((counting, share(1.0 - q, worse)))
}

fn mean(gate: &GateSpec, frozen: &GateBaseline, randomised: bool) -> Result<(Counting, Test), String> {
    let unit = per_display_unit(&gate.metric);
    let limit = |limit: f64, cap: f64, worse| {
        LimitBets::new(limit, cap)
            .map(|bets| (Counting::Value, Test::Mean { bets, worse }))
            .ok_or_else(|| "the limit must be above 0".to_owned())
    };
    match gate.margin {
        Margin::Max(max) => limit(max * unit, CAP_MEANS * max * unit, Worse::Above),
        Margin::Min(min) => limit(min * unit, CAP_MEANS * min * unit, Worse::Below),
        Margin::MaxRatio(_) | Margin::MaxIncrease(_) => {
            let (Some(center), Some(cap)) = (frozen.mean, frozen.cap) else {
                return Err(no_history(gate));
            };
            let r = match gate.margin {
                Margin::MaxIncrease(by) => 1.0 + by * unit / center,
                Margin::MaxRatio(r) | Margin::Max(r) | Margin::Min(r) => r,
            };
            let margin = MeanMargin {
                r,
                center,
                cap: cap as f64,
            };
            if !margin.is_valid() {
                return Err(format!(
                    "the margin reaches beyond the cap of {CAP_MEANS} times blue's mean"
                ));
            }
            if randomised {
                Ok((Counting::Value, Test::Means(margin)))
            } else {
                limit(r * center, margin.cap, Worse::Above)
            }
        }
    }
}

fn no_history(gate: &GateSpec) -> String {
    format!("no frozen baseline: blue's history held no {}", gate.metric)
}
