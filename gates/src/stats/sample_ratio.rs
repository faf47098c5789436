//! Does the split do what it says? A wrong split makes every conditional test bet on a false premise.

use super::{
    BETS, ShareBet,
    log_space::{ln, lse, mean_exp},
};
use serde::{Deserialize, Serialize};

/// Alpha at which the check fires.
pub const ALPHA: f64 = 0.001;
/// The same where failures exceed [`FREQUENT`]: frequent events reach a false rollback sooner.
pub const ALPHA_FREQUENT: f64 = 0.01;
/// Failure rate above which events are frequent.
pub const FREQUENT: f64 = 0.10;
/// From this e-value on, rollback and promotion are suspended.
pub const SUSPENDS_AT: f64 = 3.0;

/// Randomised units of one stratum.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct UnitStratum {
    /// Declared probability that a unit goes green, in (0, 1).
    pub rho: f64,
    /// Units that went blue.
    pub blue: i64,
    /// Units that went green.
    pub green: i64,
}

/// `log E` that green's share of the units is not what was declared, in either direction.
#[must_use]
pub fn sample_ratio(strata: &[UnitStratum]) -> f64 {
    let mut more = [0.0; BETS];
    let mut fewer = [0.0; BETS];
    for s in strata {
        ShareBet::above(s.rho).add(s.green, s.blue, &mut more);
        ShareBet::above(1.0 - s.rho).add(s.blue, s.green, &mut fewer);
    }
    lse(&[mean_exp(&more), mean_exp(&fewer)]) - ln(2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_split_that_is_not_kept_is_seen_and_one_that_is_kept_is_not() {
        let at = |rho, blue, green| sample_ratio(&[UnitStratum { rho, blue, green }]);
        assert!(at(0.5, 5_000, 5_050) < 0.0);
        assert!(at(0.5, 4_500, 5_500) > ln(1.0 / ALPHA));
        assert!(at(0.5, 5_500, 4_500) > ln(1.0 / ALPHA));
        assert!(at(0.05, 9_500, 500) < 0.0);
    }
}
