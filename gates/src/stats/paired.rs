//! Mirrored traffic: both colors answered the same request, so only the pairs that differ speak.
//!
//! Source: McNemar's test as a bet; betting on paired differences, Waudby-Smith & Ramdas (arXiv 2010.09686).

use super::{
    BETS, G6, KAPPA,
    bern::bern,
    log_space::{ln_1p, mean_exp},
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

/// `log E` that green's mean amount is more than `r` times blue's, from pairs `(blue, green)`, each at most `cap`.
#[must_use]
pub fn cost(pairs: impl IntoIterator<Item = (f64, f64)>, r: f64, cap: f64) -> f64 {
    let mut logs = [0.0; BETS];
    for (blue, green) in pairs {
        let gain = (green.min(cap) - r * blue.min(cap)) / (r * cap);
        for (log, kappa) in logs.iter_mut().zip(KAPPA) {
            *log += ln_1p(kappa * gain);
        }
    }
    mean_exp(&logs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_pairs_speak_against_a_dearer_green() {
        assert!(cost((0..500).map(|_| (1.0, 1.0)), 1.2, 10.0) < -0.5);
        assert!(cost((0..500).map(|_| (1.0, 2.0)), 1.2, 10.0) > 5.0);
    }
}
