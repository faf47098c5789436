//! Two rates under a randomised split: relative margin, robust to any common drift.
//!
//! Of the events (failed traces, slow traces) of a stratum, the share that fell on green is at most
//! `theta = rho r / (rho r + 1 - rho)` while green's rate is at most `r` times blue's, *whatever both rates do over
//! time*. Traces without the event contribute nothing. Source: conditional (binomial) test of two Poisson or Bernoulli
//! rates; Lindon & Malek (arXiv 2011.03567).

use super::{
    BETS, ShareBet, Side,
    log_space::{exp, ln, mean_exp},
};
use serde::{Deserialize, Serialize};

/// Events of one stratum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RateStratum {
    /// Probability that a unit goes green, in (0, 1).
    pub rho: f64,
    /// Events in blue.
    pub blue: i64,
    /// Events in green.
    pub green: i64,
}

/// The bets of one stratum for a margin `r > 0`: feed `gt` with (green, blue) events, `lt` with (blue, green).
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct RateBets {
    /// Bets that green's share of the events is above theta.
    pub gt: ShareBet,
    /// Bets that blue's share of the events is above 1 - theta.
    pub lt: ShareBet,
}

impl RateBets {
    /// For a split `rho` in (0, 1) and a ratio `r > 0`.
    #[must_use]
    pub fn new(rho: f64, r: f64) -> Self {
        let whole = rho * r + (1.0 - rho);
        Self {
            gt: ShareBet::above(rho * r / whole),
            lt: ShareBet::above((1.0 - rho) / whole),
        }
    }
}

/// `log E` that green's rate is above (`Gt`) or below (`Lt`) `r` times blue's.
#[must_use]
pub fn log_e(strata: &[RateStratum], r: f64, side: Side) -> f64 {
    let mut logs = [0.0; BETS];
    for stratum in strata {
        let whole = stratum.rho * r + (1.0 - stratum.rho);
        match side {
            Side::Gt => ShareBet::above(stratum.rho * r / whole).add(stratum.green, stratum.blue, &mut logs),
            Side::Lt => ShareBet::above((1.0 - stratum.rho) / whole).add(stratum.blue, stratum.green, &mut logs),
        }
    }
    mean_exp(&logs)
}

/// Confidence sequence of green's rate over blue's: (lower, upper), each valid on its own at `alpha` (not halved), at
/// all times at once. `None` where the data set no bound.
#[must_use]
pub fn ratio_bounds(strata: &[RateStratum], alpha: f64) -> (Option<f64>, Option<f64>) {
    let threshold = ln(1.0 / alpha);
    let rejects = |ln_r: f64, side| log_e(strata, exp(ln_r), side) >= threshold;
    (
        last_true(-LN_RATIO_MAX, LN_RATIO_MAX, |x| rejects(x, Side::Gt)).map(exp),
        last_true(LN_RATIO_MAX, -LN_RATIO_MAX, |x| rejects(x, Side::Lt)).map(exp),
    )
}

/// The ratio that the events of all strata together speak for: the conditional maximum likelihood estimate. With one
/// stratum it is `green (1 - rho) / (blue rho)`. `None` unless both colors have events.
#[must_use]
pub fn ratio_estimate(strata: &[RateStratum]) -> Option<f64> {
    let green: i64 = strata.iter().map(|s| s.green).sum();
    let blue: i64 = strata.iter().map(|s| s.blue).sum();
    if green <= 0 || blue <= 0 {
        return None;
    }
    let too_low = |ln_r: f64| {
        let r = exp(ln_r);
        let expected: f64 = strata
            .iter()
            .map(|s| (s.green + s.blue) as f64 * s.rho * r / (s.rho * r + 1.0 - s.rho))
            .sum();
        expected <= green as f64
    };
    last_true(-LN_RATIO_MAX, LN_RATIO_MAX, too_low).map(exp)
}

/// Ratios are searched in `exp(-40) ..= exp(40)`.
const LN_RATIO_MAX: f64 = 40.0;

/// Enough for a ratio searched in `exp(-40) ..= exp(40)`: the last step moves it by less than 1e-13 of itself.
const HALVINGS: usize = 50;

/// Bisects from `from` (where `holds` must hold, else `None`) towards `to` for the place where it stops holding.
/// Ends after [`HALVINGS`] steps or when the interval no longer shrinks; `to` itself if it holds there too.
pub(crate) fn last_true(from: f64, to: f64, holds: impl Fn(f64) -> bool) -> Option<f64> {
    if !holds(from) {
        return None;
    }
    if holds(to) {
        return Some(to);
    }
    let (mut yes, mut no) = (from, to);
    for _ in 0..HALVINGS {
        let mid = yes + (no - yes) / 2.0;
        if mid == yes || mid == no {
            break;
        }
        if holds(mid) {
            yes = mid;
        } else {
            no = mid;
        }
    }
    Some(yes)
}
