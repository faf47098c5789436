//! The bet on a share: from successes and failures, is the share above `p0`?
//!
//! Every statistic on counts is made of it: limits (one arm), the conditional test of two rates (green's share of the
//! events), the sample ratio (green's share of the units), McNemar (green's share of the discordant pairs).
//! Source: Wald's sequential likelihood ratio with the odds multiplied by `d`, mixed over a fixed grid; Howard et al.,
//! Ann. Stat. 49(2) 2021.

use super::{
    BETS, G6,
    log_space::{ln, ln_1p, mean_exp},
};

/// `log E` against `P(success) <= p0`, from `s` successes and `f` failures, mixed over the odds factors `grid`.
/// `p0` in [0, 1]; no data give 0.
#[must_use]
pub fn bern(s: f64, f: f64, p0: f64, grid: &[f64]) -> f64 {
    let logs: Vec<f64> = grid
        .iter()
        .map(|&d| s * ln(d) - (s + f) * ln_1p(p0 * (d - 1.0)))
        .collect();
    mean_exp(&logs)
}

/// The bets of [`bern()`] over [`G6`] with the logs taken once: what a minute's counts add to each bet is then two
/// products.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ShareBet {
    on_success: [f64; BETS],
    on_any: [f64; BETS],
}

impl ShareBet {
    /// Bets that the share of successes is above `p0`, in [0, 1].
    #[must_use]
    pub fn above(p0: f64) -> Self {
        Self {
            on_success: G6.map(ln),
            on_any: G6.map(|d| ln_1p(p0 * (d - 1.0))),
        }
    }

    /// Adds what `s` successes and `f` failures earn, to the running log of each bet.
    pub fn add(&self, s: i64, f: i64, logs: &mut [f64; BETS]) {
        let (s, all) = (s as f64, (s + f) as f64);
        for (i, log) in logs.iter_mut().enumerate() {
            *log += s * self.on_success[i] - all * self.on_any[i];
        }
    }

    /// `log E` of these counts alone.
    #[must_use]
    pub fn log_e(&self, s: i64, f: i64) -> f64 {
        let mut logs = [0.0; BETS];
        self.add(s, f, &mut logs);
        mean_exp(&logs)
    }
}

/// The same over any grid, for the many counts of a quantile walk.
pub(super) struct GridBet {
    bets: Vec<(f64, f64)>,
}

impl GridBet {
    pub(super) fn above(p0: f64, grid: &[f64]) -> Self {
        Self {
            bets: grid.iter().map(|&d| (ln(d), ln_1p(p0 * (d - 1.0)))).collect(),
        }
    }

    pub(super) fn log_e(&self, s: f64, f: f64) -> f64 {
        let top = self
            .bets
            .iter()
            .map(|(a, b)| s * a - (s + f) * b)
            .fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = self
            .bets
            .iter()
            .map(|(a, b)| super::log_space::exp(s * a - (s + f) * b - top))
            .sum();
        top + ln(sum) - ln(self.bets.len() as f64)
    }
}
