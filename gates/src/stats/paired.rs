//! Mirrored traffic: both colors answered the same request, so only the pairs that differ speak.
//!
//! Source: McNemar's test as a bet; betting on paired differences, Waudby-Smith & Ramdas (arXiv 2010.09686).

use super::{
    BETS, G6, KAPPA,
    bern::bern,
    log_space::{ln, ln_1p, mean_exp},
};

/// Fractions of the largest stake for [`difference`].
pub const LAMBDA: [f64; BETS] = [0.02, 0.05, 0.1, 0.2, 0.4, 0.8];

/// Pairs by outcome.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Pairs {
    /// Green failed and blue didn't.
    pub green_only: i64,
    /// Blue failed and green didn't.
    pub blue_only: i64,
    /// Both or neither failed.
    pub same: i64,
}

/// `log E` that green fails more often than blue.
#[must_use]
pub fn mcnemar(pairs: Pairs) -> f64 {
    bern(pairs.green_only as f64, pairs.blue_only as f64, 0.5, &G6)
}

/// `log E` that green's failure rate is more than `delta` above blue's; `delta` in [0, 1), `lambda` usually [`LAMBDA`].
#[must_use]
pub fn difference(pairs: Pairs, delta: f64, lambda: &[f64]) -> f64 {
    let logs: Vec<f64> = lambda
        .iter()
        .map(|fraction| {
            let l = fraction / (1.0 + delta);
            pairs.green_only as f64 * ln_1p(l * (1.0 - delta))
                + pairs.blue_only as f64 * ln_1p(-l * (1.0 + delta))
                + pairs.same as f64 * ln_1p(-l * delta)
        })
        .collect();
    mean_exp(&logs)
}

/// The bets on discordant pairs for a margin `delta`, with the logs taken once: what one pair adds to each.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct DiscordBets {
    green_only: [f64; BETS],
    blue_only: [f64; BETS],
    same: [f64; BETS],
}

impl DiscordBets {
    /// Bets that green fails more often than blue by more than `delta` in [0, 1), as [`difference`]; with `delta` 0 and
    /// no pair of the same outcome counted, McNemar's question over other stakes.
    #[must_use]
    pub fn gt(delta: f64) -> Self {
        let l = LAMBDA.map(|fraction| fraction / (1.0 + delta));
        Self {
            green_only: l.map(|l| ln_1p(l * (1.0 - delta))),
            blue_only: l.map(|l| ln_1p(-l * (1.0 + delta))),
            same: l.map(|l| ln_1p(-l * delta)),
        }
    }

    /// Bets that it fails more often by less than `delta`, or not at all: the same stakes the other way round.
    #[must_use]
    pub fn lt(delta: f64) -> Self {
        let l = LAMBDA.map(|fraction| fraction / (1.0 + delta));
        Self {
            green_only: l.map(|l| ln_1p(-l * (1.0 - delta))),
            blue_only: l.map(|l| ln_1p(l * (1.0 + delta))),
            same: l.map(|l| ln_1p(l * delta)),
        }
    }

    /// McNemar: bets that green's share of the discordant pairs is above one half; [`DiscordBets::mirrored`] bets that it
    /// is below.
    #[must_use]
    pub fn mcnemar() -> Self {
        Self {
            green_only: G6.map(|d| ln(d) - ln_1p(0.5 * (d - 1.0))),
            blue_only: G6.map(|d| -ln_1p(0.5 * (d - 1.0))),
            same: [0.0; BETS],
        }
    }

    /// The same bets with the colors exchanged.
    #[must_use]
    pub const fn mirrored(self) -> Self {
        Self {
            green_only: self.blue_only,
            blue_only: self.green_only,
            same: self.same,
        }
    }

    /// Adds what these pairs earn to the running log of each bet.
    pub fn add(&self, pairs: Pairs, logs: &mut [f64; BETS]) {
        for (i, log) in logs.iter_mut().enumerate() {
            *log += pairs.green_only as f64 * self.green_only[i]
                + pairs.blue_only as f64 * self.blue_only[i]
                + pairs.same as f64 * self.same[i];
        }
    }

    /// `log E` of these pairs alone.
    #[must_use]
    pub fn log_e(&self, pairs: Pairs) -> f64 {
        let mut logs = [0.0; BETS];
        self.add(pairs, &mut logs);
        mean_exp(&logs)
    }
}

/// Bets on paired amounts, from `v = min(y_green, cap) - r min(y_blue, cap) + r cap`: an amount from 0 to `(1 + r) cap`
/// whose mean is at most `r cap` while green's mean is at most `r` times blue's.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ValueBets {
    /// Green's mean over blue's, at the margin.
    pub r: f64,
    /// Values count as at most this, in the amount's own unit.
    pub cap: f64,
}

impl ValueBets {
    /// `None` unless `r > 0` and `cap > 0`.
    #[must_use]
    pub fn new(r: f64, cap: f64) -> Option<Self> {
        (r > 0.0 && cap > 0.0).then_some(Self { r, cap })
    }

    /// What one pair with `v` of at least `low` adds to the bets that green is dearer than the margin.
    #[must_use]
    pub fn gt(&self, low: f64) -> [f64; BETS] {
        let gain = (low.max(0.0) - self.r * self.cap) / (self.r * self.cap);
        KAPPA.map(|kappa| ln_1p(kappa * gain))
    }

    /// The same for one of at most `high`, and the bets that it is cheaper.
    #[must_use]
    pub fn lt(&self, high: f64) -> [f64; BETS] {
        let gain = (self.r * self.cap - high.min((1.0 + self.r) * self.cap)) / self.cap;
        KAPPA.map(|kappa| ln_1p(kappa * gain))
    }
}

/// `log E` that green's mean amount is more than `r` times blue's, from pairs `(blue, green)`, each at most `cap`.
#[must_use]
pub fn cost(pairs: impl IntoIterator<Item = (f64, f64)>, r: f64, cap: f64) -> f64 {
    let bets = ValueBets { r, cap };
    let mut logs = [0.0; BETS];
    for (blue, green) in pairs {
        let earned = bets.gt(green.min(cap) - r * blue.min(cap) + r * cap);
        for (log, earned) in logs.iter_mut().zip(earned) {
            *log += earned;
        }
    }
    mean_exp(&logs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn running_bets_say_what_the_formulas_say() {
        let pairs = Pairs {
            green_only: 31,
            blue_only: 12,
            same: 900,
        };
        let close = |a: f64, b: f64| assert!((a - b).abs() < 1e-9 * b.abs().max(1.0), "{a} {b}");
        close(DiscordBets::mcnemar().log_e(pairs), mcnemar(pairs));
        let swapped = Pairs {
            green_only: 12,
            blue_only: 31,
            ..pairs
        };
        close(DiscordBets::mcnemar().mirrored().log_e(pairs), mcnemar(swapped));
        for delta in [0.0, 0.01, 0.2] {
            close(DiscordBets::gt(delta).log_e(pairs), difference(pairs, delta, &LAMBDA));
        }
        // far within the margin, and far beyond it
        assert!(DiscordBets::lt(0.10).log_e(pairs) > 3.0);
        assert!(DiscordBets::lt(0.001).log_e(pairs) < 0.0);
    }

    #[test]
    fn equal_pairs_speak_against_a_dearer_green() {
        assert!(cost((0..500).map(|_| (1.0, 1.0)), 1.2, 10.0) < -0.5);
        assert!(cost((0..500).map(|_| (1.0, 2.0)), 1.2, 10.0) > 5.0);
    }
}
