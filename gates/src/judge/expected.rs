//! The tests of a judgement on counts as they are expected, not as they came: fractions of units, every minute alike.
//!
//! The log of an e-value grows with the counts, so what it is on expected counts is near its median over many releases;
//! a prediction asks when that crosses a threshold.

use super::{
    baseline::Baseline,
    columns::{BLUE, GREEN},
    plan::{Counting, Plan, Test, Worse},
};
use crate::stats::{
    BETS, KAPPA, LateStarts, ShareBet, Side,
    joint::{self, Arms, Boundary, Prior},
    late::joint_late,
    mean::MeanBets,
    mean_exp,
    rates::RateBets,
};
use proto::{
    Cell,
    bucket::range_of,
    cell::PPM,
    release::{GateSpec, ReleaseSpec},
};

/// What of a release is expected in one minute.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Expectation<'a> {
    /// Frozen constants.
    pub baseline: &'a Baseline,
    /// Blue's units of the gate's metric in the past: what both colors are expected to be like.
    pub blue: &'a Cell,
    /// Units of both colors a minute.
    pub units: f64,
    /// Green's share of them, ppm, in (0, [`PPM`]).
    pub split: u32,
    /// Green's rate over blue's, or its amounts over blue's.
    pub times: f64,
}

/// What one gate earns.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Expected {
    /// What a minute adds to the log of each bet, for rollback and for promotion.
    Bets { fail: [f64; BETS], pass: [f64; BETS] },
    /// Units of a minute, for a test whose log does not add up.
    Joint {
        minute: Arms,
        boundary: Boundary,
        prior: Prior,
    },
}

impl Expected {
    /// What `gate` earns of `expectation`.
    ///
    /// # Errors
    /// In words, why the gate cannot be judged from cells of traces.
    pub fn new(spec: &ReleaseSpec, gate: &GateSpec, expectation: Expectation<'_>) -> Result<Self, String> {
        let plan = Plan::new(spec, gate, Some(expectation.baseline), true)?;
        if expectation.blue.n <= 0 {
            return Err(format!("blue showed no {}", gate.metric));
        }
        let rho = f64::from(expectation.split) / f64::from(PPM);
        let units = [expectation.units * (1.0 - rho), expectation.units * rho];
        let [p_b, p_g] = chances(gate, &plan, expectation);
        let (s_b, s_g) = (units[BLUE] * p_b, units[GREEN] * p_g);
        let (f_b, f_g) = (units[BLUE] - s_b, units[GREEN] - s_g);
        Ok(match plan.test {
            Test::Means(margin) => {
                let bets =
                    MeanBets::new(margin, rho).ok_or_else(|| "its margin allows no bet at this split".to_owned())?;
                amounts(expectation, |arm, low, high, side| match arm {
                    BLUE => bets.blue(low, high, side, &KAPPA),
                    _ => bets.green(low, high, side, &KAPPA),
                })
            }
            Test::Mean { bets, worse } => amounts(expectation, |arm, low, high, side| match (arm, side, worse) {
                (BLUE, ..) => [0.0; BETS],
                (_, Side::Gt, Worse::Above) | (_, Side::Lt, Worse::Below) => bets.above(low),
                (_, Side::Gt, Worse::Below) | (_, Side::Lt, Worse::Above) => bets.below(high),
            }),
            Test::Rates { r, .. } => {
                let bets = RateBets::new(rho, r);
                Self::Bets {
                    fail: earned(&bets.gt, s_g, s_b),
                    pass: earned(&bets.lt, s_b, s_g),
                }
            }
            Test::Joint { boundary, prior, .. } => Self::Joint {
                minute: Arms { s_b, f_b, s_g, f_g },
                boundary,
                prior,
            },
            Test::Share { limit, worse } => {
                let above = earned(&ShareBet::above(limit), s_g, f_g);
                let below = earned(&ShareBet::above(1.0 - limit), f_g, s_g);
                let (fail, pass) = match worse {
                    Worse::Above => (above, below),
                    Worse::Below => (below, above),
                };
                Self::Bets { fail, pass }
            }
            Test::Discordant(_) | Test::PairedMean(_) => {
                return Err("mirrored pairs are not expected from cells".to_owned());
            }
        })
    }

    /// `log E` for promotion after so many minutes.
    pub fn log_e_pass(&self, minutes: u64) -> f64 {
        let minutes = minutes as f64;
        match self {
            Self::Bets { pass, .. } => mean_exp(&pass.map(|earned| earned * minutes)),
            Self::Joint {
                minute,
                boundary,
                prior,
            } => joint::log_e(&times(minute, minutes), *boundary, *prior, Side::Lt),
        }
    }

    /// `log E` for rollback after so many minutes, all of them bad.
    pub fn log_e_fail(&self, minutes: u64) -> f64 {
        match self {
            Self::Bets { fail, .. } => {
                let mut late = LateStarts::default();
                for at in 0..minutes {
                    late.push(at, fail);
                }
                late.log_e()
            }
            Self::Joint {
                minute,
                boundary,
                prior,
            } => {
                let minutes: Vec<(u64, Arms)> = (0..minutes).map(|at| (at, *minute)).collect();
                joint_late(&minutes, *boundary, *prior)
            }
        }
    }
}

fn times(arms: &Arms, by: f64) -> Arms {
    Arms {
        s_b: arms.s_b * by,
        f_b: arms.f_b * by,
        s_g: arms.s_g * by,
        f_g: arms.f_g * by,
    }
}

/// `[blue, green]` chances that a unit has the event, kept off 0.
fn chances(gate: &GateSpec, plan: &Plan, expectation: Expectation<'_>) -> [f64; 2] {
    let Expectation {
        baseline, blue, times, ..
    } = expectation;
    let share = |events: i64| (events as f64 + 0.5) / (blue.n as f64 + 1.0);
    match plan.counting {
        Counting::Above { blue: t, green } => {
            // green's amounts lie `times` as high, so its threshold is passed by those above a lower one
            let lower = (green as f64 / times) as u64;
            [t, lower].map(|edge| share(blue.hdr.count_above(edge)))
        }
        Counting::Event | Counting::Value | Counting::PairEvent | Counting::PairValue => {
            let frozen = baseline.gates.get(&gate.name).and_then(|g| g.p_hist);
            let p = frozen.unwrap_or_else(|| share(blue.events));
            [p, (p * times).min(1.0)]
        }
    }
}

/// What so many successes and failures, fractions of them too, add to the log of each bet.
fn earned(bet: &ShareBet, successes: f64, failures: f64) -> [f64; BETS] {
    let (mut success, mut failure) = ([0.0; BETS], [0.0; BETS]);
    bet.add(1, 0, &mut success);
    bet.add(0, 1, &mut failure);
    std::array::from_fn(|i| successes * success[i] + failures * failure[i])
}

/// Every unit of blue's past is laid down as often as a minute has of each color; `log` says what a unit between two
/// values adds to the bets.
fn amounts(expectation: Expectation<'_>, log: impl Fn(usize, f64, f64, Side) -> [f64; BETS]) -> Expected {
    let Expectation {
        blue,
        units,
        split,
        times,
        ..
    } = expectation;
    let rho = f64::from(split) / f64::from(PPM);
    let mut sums = [[0.0; BETS]; 2];
    for (bucket, count) in blue.hdr.iter() {
        let (low, high) = range_of(bucket);
        let (low, high) = (low as f64, high as f64);
        let each = units * count as f64 / blue.n as f64;
        for (arm, share, times) in [(BLUE, 1.0 - rho, 1.0), (GREEN, rho, times)] {
            for (sum, side) in sums.iter_mut().zip([Side::Gt, Side::Lt]) {
                let unit = log(arm, low * times, high * times, side);
                for (sum, log) in sum.iter_mut().zip(unit) {
                    *sum += each * share * log;
                }
            }
        }
    }
    let [fail, pass] = sums;
    Expected::Bets { fail, pass }
}
