//! Anytime-valid statistics: pure functions from integer counts to the natural log of an e-value.
//!
//! An e-value bets against a null hypothesis. By Ville's inequality the chance that it *ever* reaches `1 / alpha` while
//! the null holds is at most `alpha`, so it may be looked at after every trace. Everything here is kept as a natural
//! log (`log_e`); a threshold is `ln(1 / alpha)`.
//!
//! Two directions run through the module. **gt** is evidence that green is *worse* than the margin (for rollback),
//! **lt** that it is *better* (for promotion). A **stratum** is the time during which one split was in force; evidence
//! of strata adds up in the log, counts of different strata are never pooled (Simpson's paradox).
//!
//! | question | module | needs |
//! | --- | --- | --- |
//! | is green's rate more than `r` times blue's? | [`rates`] | a randomised split; any common drift |
//! | the same, or more than `delta` above it? | [`joint`] | iid within each arm |
//! | is green's mean more than `r` times blue's? | [`mean`] | a randomised split, values capped |
//! | is a share above a limit? | [`bern()`] | one arm |
//! | by how much do two quantiles differ? | [`quantile`] | iid within each arm; display only |
//! | mirrored requests, both colors answered | [`paired`] | pairs |
//! | many gates at once | [`many`] | nothing: any dependence |
//! | a regression that starts late | [`late`] | one of the above, per minute |
//! | does the split do what it says? | [`sample_ratio()`] | a declared split |
//!
//! `exp`, `ln` and `lgamma` come from the `libm` crate: the C library's differ in the last bit between machines (with
//! and without fused multiply-add), and a stored decision must recompute bit for bit anywhere.

pub mod asymptotic;
pub mod bern;
pub mod joint;
pub mod late;
pub mod log_space;
pub mod many;
pub mod mean;
pub mod paired;
pub mod quantile;
pub mod rates;
pub mod sample_ratio;

pub use bern::{ShareBet, bern};
pub use late::LateStarts;
pub use log_space::{lse, mean_exp};
pub use rates::RateStratum;
pub use sample_ratio::{UnitStratum, sample_ratio};

/// Number of alternatives in [`G6`] and of fractions in [`KAPPA`]: how many bets run side by side.
pub const BETS: usize = 6;

/// Alternatives `d` of the bets on shares: odds against the null.
pub const G6: [f64; BETS] = [1.1, 1.25, 1.5, 2.0, 3.0, 6.0];

/// [`G6`] and one far alternative, for the quantile walk.
pub const G7: [f64; 7] = [1.1, 1.25, 1.5, 2.0, 3.0, 6.0, 20.0];

/// Fractions of the largest admissible stake, for bets on means.
pub const KAPPA: [f64; BETS] = [0.01, 0.03, 0.1, 0.25, 0.5, 0.9];

/// Which way the evidence points.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    /// Green is worse than the margin: evidence for rollback.
    Gt,
    /// Green is better than the margin: evidence for promotion.
    Lt,
}
