//! Means of a capped amount (token cost per trace): nonasymptotic, robust to drift under a randomised split.
//!
//! The estimand is the mean of `min(y, cap)`. Each unit is a bet whose stake is weighted by the inverse of the chance
//! that it went where it did, so blue and green drift together without harm; `center` (blue's frozen mean) only affects
//! power. A bucket counts with the edge that works *against* rejection. Source: betting confidence sequences,
//! Waudby-Smith & Ramdas (arXiv 2010.09686), with inverse-probability weights.
//!
//! Where no split is known, or no blue runs beside green, [`LimitBets`] compare one arm with a constant.

use super::{
    BETS, KAPPA, Side,
    log_space::{ln_1p, mean_exp},
};
use serde::{Deserialize, Serialize};

/// What is asked of the mean, in the amount's own unit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct MeanMargin {
    /// Green's mean over blue's, at the margin.
    pub r: f64,
    /// Constant near blue's mean, frozen before the release.
    pub center: f64,
    /// Values count as at most this.
    pub cap: f64,
}

impl MeanMargin {
    /// Whether a bet exists: `0 < center < cap` and `0 < r center < cap`.
    #[must_use]
    pub fn is_valid(&self) -> bool {
        let goal = self.r * self.center;
        self.center > 0.0 && self.center < self.cap && goal > 0.0 && goal < self.cap
    }
}

/// The bets of one stratum. Stakes are `kappa` times the largest that cannot ruin.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct MeanBets {
    margin: MeanMargin,
    rho: f64,
    /// Largest stake for rollback evidence.
    pub lambda_max_gt: f64,
    /// Largest stake for promotion evidence.
    pub lambda_max_lt: f64,
}

impl MeanBets {
    /// For a split `rho` in (0, 1); `None` if the margin is not valid.
    #[must_use]
    pub fn new(margin: MeanMargin, rho: f64) -> Option<Self> {
        let MeanMargin { r, center, cap } = margin;
        (margin.is_valid() && rho > 0.0 && rho < 1.0).then(|| Self {
            margin,
            rho,
            lambda_max_gt: (rho / (r * center)).min((1.0 - rho) / (r * (cap - center))),
            lambda_max_lt: (rho / (cap - r * center)).min((1.0 - rho) / (r * center)),
        })
    }

    /// What one green unit with value in `[low, high]` adds to the log of each bet.
    #[must_use]
    pub fn green(&self, low: f64, high: f64, side: Side, kappa: &[f64; BETS]) -> [f64; BETS] {
        let MeanMargin { r, center, cap } = self.margin;
        match side {
            Side::Gt => self.logs(side, kappa, (low.min(cap) - r * center) / self.rho),
            Side::Lt => self.logs(side, kappa, -(high.min(cap) - r * center) / self.rho),
        }
    }

    /// The same for one blue unit.
    #[must_use]
    pub fn blue(&self, low: f64, high: f64, side: Side, kappa: &[f64; BETS]) -> [f64; BETS] {
        let MeanMargin { r, center, cap } = self.margin;
        let rest = 1.0 - self.rho;
        match side {
            Side::Gt => self.logs(side, kappa, -r * (high.min(cap) - center) / rest),
            Side::Lt => self.logs(side, kappa, r * (low.min(cap) - center) / rest),
        }
    }

    fn logs(&self, side: Side, kappa: &[f64; BETS], gain: f64) -> [f64; BETS] {
        let stake = match side {
            Side::Gt => self.lambda_max_gt,
            Side::Lt => self.lambda_max_lt,
        };
        kappa.map(|k| ln_1p(k * stake * gain))
    }
}

/// Bets on one arm's capped mean against a constant `limit`, with `0 < limit < cap`. iid within the arm is assumed, or
/// at least a mean that never crosses the limit.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct LimitBets {
    /// The constant.
    pub limit: f64,
    /// Values count as at most this.
    pub cap: f64,
}

impl LimitBets {
    /// `None` unless `0 < limit < cap`.
    #[must_use]
    pub fn new(limit: f64, cap: f64) -> Option<Self> {
        (limit > 0.0 && limit < cap).then_some(Self { limit, cap })
    }

    /// What one unit with value in `[low, high]` adds to the bets that the mean is above the limit.
    #[must_use]
    pub fn above(&self, low: f64) -> [f64; BETS] {
        let gain = (low.min(self.cap) - self.limit) / self.limit;
        KAPPA.map(|k| ln_1p(k * gain))
    }

    /// The same for the bets that it is below.
    #[must_use]
    pub fn below(&self, high: f64) -> [f64; BETS] {
        let gain = (self.limit - high.min(self.cap)) / (self.cap - self.limit);
        KAPPA.map(|k| ln_1p(k * gain))
    }
}

/// A bucket: its edges and how many units fell into it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Weighed {
    /// Lowest value it may hold.
    pub low: f64,
    /// Highest value.
    pub high: f64,
    /// Units.
    pub count: i64,
}

/// Units of one stratum.
#[derive(Debug, Clone, PartialEq)]
pub struct MeanStratum {
    /// Probability that a unit goes green, in (0, 1).
    pub rho: f64,
    /// Blue units.
    pub blue: Vec<Weighed>,
    /// Green units.
    pub green: Vec<Weighed>,
}

/// `log E` that green's capped mean is above (`Gt`) or below (`Lt`) `r` times blue's; `None` if the margin allows no
/// bet. Buckets are taken in the order given.
#[must_use]
pub fn log_e(strata: &[MeanStratum], margin: MeanMargin, side: Side, kappa: &[f64; BETS]) -> Option<f64> {
    let mut logs = [0.0; BETS];
    for stratum in strata {
        let bets = MeanBets::new(margin, stratum.rho)?;
        for b in &stratum.green {
            add(&mut logs, b.count, &bets.green(b.low, b.high, side, kappa));
        }
        for b in &stratum.blue {
            add(&mut logs, b.count, &bets.blue(b.low, b.high, side, kappa));
        }
    }
    Some(mean_exp(&logs))
}

/// Adds `count` times `unit` to the running logs.
pub fn add(logs: &mut [f64; BETS], count: i64, unit: &[f64; BETS]) {
    for (log, u) in logs.iter_mut().zip(unit) {
        *log += count as f64 * u;
    }
}
