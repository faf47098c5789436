//! Regressions that start late: evidence summed over every possible start.
//!
//! A cumulative test is blind after long health, because every healthy event bets against the alarm. So the e-value is
//! the mixture over start minutes `E = sum_j w_j E^(j) + (weight of starts to come)`, where `E^(j)` sees only minutes
//! from `j` on and `w_j = 1 / ((j + 1)(j + 2))`. A mixture of e-processes is an e-process, so alpha holds. Source: Shin,
//! Ramdas & Rinaldo, e-detectors (arXiv 2203.03532).
//!
//! For bets whose logs add up over minutes, with `S(t)` the running sum of one bet and `A(t) = lse_{j <= t}(ln w_j -
//! S(j - 1))`, `E(t) = mean over bets of exp(S(t) + A(t)) + 1 / (t + 2)`: one pass, one exponential per bet and minute.

use super::{
    BETS, Side,
    joint::{self, Arms, Boundary, Prior},
    log_space::{exp, ln, lse, mean_exp},
};

/// Running mixture over start minutes, for [`BETS`] bets whose logs add up over minutes. Minutes count from 0, the
/// release's first.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct LateStarts {
    /// S(t) of each bet.
    sum: [f64; BETS],
    /// A(t) = scale + ln(mass), kept so that no exponential overflows.
    scale: [f64; BETS],
    mass: [f64; BETS],
    /// The minute after the last pushed one.
    next: u64,
}

impl Default for LateStarts {
    fn default() -> Self {
        Self {
            sum: [0.0; BETS],
            scale: [f64::NEG_INFINITY; BETS],
            mass: [0.0; BETS],
            next: 0,
        }
    }
}

impl LateStarts {
    /// Adds what minute `at` earned in each bet. Minutes ascend; those left out earned nothing.
    pub fn push(&mut self, at: u64, earned: &[f64; BETS]) {
        debug_assert!(at >= self.next, "minutes must ascend");
        // Starts since the last pushed minute all saw the same sum; their weights telescope.
        let (from, to) = ((self.next + 1) as f64, (at + 2) as f64);
        let weight = (at + 1).saturating_sub(self.next) as f64 / (from * to);
        for (i, earned) in earned.iter().enumerate() {
            let level = -self.sum[i];
            if level > self.scale[i] {
                self.mass[i] = self.mass[i] * exp(self.scale[i] - level) + weight;
                self.scale[i] = level;
            } else {
                self.mass[i] += weight * exp(level - self.scale[i]);
            }
            self.sum[i] += earned;
        }
        self.next = at + 1;
    }

    /// `log E` now.
    #[must_use]
    pub fn log_e(&self) -> f64 {
        let to_come = -ln((self.next + 1) as f64);
        if self.next == 0 {
            return to_come;
        }
        lse(&[mean_exp(&self.bets()), to_come])
    }

    /// Log of each bet, summed over the starts so far; starts to come are in [`Self::log_e`] alone.
    #[must_use]
    pub fn bets(&self) -> [f64; BETS] {
        let mut logs = [0.0; BETS];
        for (i, log) in logs.iter_mut().enumerate() {
            *log = self.sum[i] + self.scale[i] + ln(self.mass[i]);
        }
        logs
    }

    /// `log E` of the plain test: one start, at the beginning.
    #[must_use]
    pub fn plain(&self) -> f64 {
        mean_exp(&self.sum)
    }
}

/// Every minute below this is a possible start of [`joint_late`] ...
const DENSE: u64 = 512;
/// ... and one in so many above.
const STRIDE: u64 = 16;

/// The last possible start at or before minute `at`.
const fn start_before(at: u64) -> u64 {
    if at < DENSE { at } else { at / STRIDE * STRIDE }
}

/// The mixture for the joint test of two rates, whose logs do not add up: evidence that green's rate is above the
/// boundary, from `(minute, arms)` in ascending order.
///
/// Each start costs one evaluation, so old releases start in one minute of 16 only; the weight of the minutes left out
/// goes to the start after them. Any fixed weights that sum to 1 keep alpha.
#[must_use]
pub fn joint_late(minutes: &[(u64, Arms)], boundary: Boundary, prior: Prior) -> f64 {
    let weight_after = |start: u64| 1.0 / (start + 2) as f64;
    let Some(&(last, _)) = minutes.last() else {
        return 0.0;
    };
    let mut logs = vec![ln(weight_after(start_before(last)))];
    let mut suffix = Arms::default();
    for (i, (at, arms)) in minutes.iter().enumerate().rev() {
        suffix.s_b += arms.s_b;
        suffix.f_b += arms.f_b;
        suffix.s_g += arms.s_g;
        suffix.f_g += arms.f_g;
        // All starts after the previous minute with data see this suffix.
        let before = i
            .checked_sub(1)
            .map_or(1.0, |i| weight_after(start_before(minutes[i].0)));
        let weight = before - weight_after(start_before(*at));
        if weight > 0.0 {
            logs.push(ln(weight) + joint::log_e(&suffix, boundary, prior, Side::Gt));
        }
    }
    lse(&logs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stats::ShareBet;

    /// The definition, start by start.
    fn by_definition(minutes: &[(u64, [f64; BETS])]) -> f64 {
        let Some(&(last, _)) = minutes.last() else {
            return 0.0;
        };
        let mut logs = vec![-ln((last + 2) as f64)];
        for j in 0..=last {
            let mut sums = [0.0; BETS];
            for (_, earned) in minutes.iter().filter(|(at, _)| *at >= j) {
                for (sum, e) in sums.iter_mut().zip(earned) {
                    *sum += e;
                }
            }
            logs.push(mean_exp(&sums) - ln(((j + 1) * (j + 2)) as f64));
        }
        lse(&logs)
    }

    fn run(minutes: &[(u64, [f64; BETS])]) -> LateStarts {
        let mut late = LateStarts::default();
        for (at, earned) in minutes {
            late.push(*at, earned);
        }
        late
    }

    #[test]
    fn one_pass_equals_the_definition_with_gaps_too() {
        let bet = ShareBet::above(0.5);
        let minutes: Vec<_> = (0..200u64)
            .filter(|at| at % 7 != 3 && !(50..80).contains(at))
            .map(|at| {
                let mut earned = [0.0; BETS];
                let green = if at > 150 { 12 } else { 3 };
                bet.add(green + (at % 3) as i64, 4, &mut earned);
                (at, earned)
            })
            .collect();
        let (fast, slow) = (run(&minutes).log_e(), by_definition(&minutes));
        assert!((fast - slow).abs() < 1e-9 * slow.abs(), "{fast} {slow}");
        assert_eq!(LateStarts::default().log_e(), 0.0);
    }

    #[test]
    fn a_late_regression_is_seen_through_long_health() {
        let bet = ShareBet::above(0.55);
        let minutes: Vec<_> = (0..10_000u64)
            .map(|at| {
                let mut earned = [0.0; BETS];
                let green = if at >= 9_960 { 9 } else { 3 };
                bet.add(green, 3, &mut earned);
                (at, earned)
            })
            .collect();
        let late = run(&minutes);
        assert!(late.log_e() > ln(100.0), "{}", late.log_e());
        assert!(late.plain() < -100.0, "the plain test is blind: {}", late.plain());
    }

    #[test]
    fn the_joint_mixture_equals_its_definition_while_every_minute_is_a_start() {
        let minutes: Vec<_> = (0..60u64)
            .filter(|at| at % 5 != 1)
            .map(|at| {
                let bad = if at > 40 { 20.0 } else { 3.0 };
                let arms = Arms {
                    s_b: 3.0,
                    f_b: 97.0,
                    s_g: bad,
                    f_g: 100.0 - bad,
                };
                (at, arms)
            })
            .collect();
        let (boundary, prior) = (Boundary::Difference(0.02), Prior::from_rate(0.03));
        let mut logs = vec![-ln(61.0)];
        for j in 0..60u64 {
            let mut sum = Arms::default();
            for (_, arms) in minutes.iter().filter(|(at, _)| *at >= j) {
                sum.s_b += arms.s_b;
                sum.f_b += arms.f_b;
                sum.s_g += arms.s_g;
                sum.f_g += arms.f_g;
            }
            let log_e = joint::log_e(&sum, boundary, prior, Side::Gt);
            logs.push(log_e - ln(((j + 1) * (j + 2)) as f64));
        }
        let (fast, slow) = (joint_late(&minutes, boundary, prior), lse(&logs));
        assert!((fast - slow).abs() < 1e-9 * slow.abs(), "{fast} {slow}");
        assert!(fast > ln(1_000.0), "{fast}");
    }
}
