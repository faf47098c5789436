//! How two quantiles compare, from bucket counts. The trigger and the reported interval are different tests.
//!
//! **The trigger (C2)** freezes a threshold T (blue's quantile before the release), counts blue units above T and green
//! units above (1 + m) T as events, and is then [`super::rates`] with r = 1: the margin is in the threshold. Counting is
//! `Histogram::count_above` of an edge that [`snap`] moved outward.
//!
//! **The interval (C1)** walks over all thresholds at once: if green's quantile were at most `r` times blue's, then at
//! some threshold either blue exceeds it too often or green too seldom, and both would be lost bets. iid in each arm is
//! assumed. It needs about three times the data of C2 and never triggers. Source: Howard & Ramdas, Bernoulli 28(3) 2022.

use super::{G7, Side, bern::GridBet, log_space::ln};
use proto::{Histogram, bucket};

/// Moves a threshold outward, to the upper edge of the bucket that holds it. Integer units of the amount; a fraction is
/// rounded up first.
#[must_use]
pub fn snap(threshold: f64) -> u64 {
    bucket::upper_edge(threshold.ceil().max(0.0) as u64)
}

/// One nonempty bucket `(low, high]`.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Bucket {
    /// Lower edge, exclusive.
    pub low: f64,
    /// Upper edge, inclusive.
    pub high: f64,
    /// Units.
    pub count: i64,
}

/// Nonempty buckets of a histogram in ascending order, sixteen to one: at most 1.6 % wide, so that a walk over a month
/// takes no longer than one over an hour. Coarser buckets only widen the interval.
#[must_use]
pub fn coarse(h: &Histogram) -> Vec<Bucket> {
    let mut out: Vec<Bucket> = Vec::new();
    for (index, count) in h.iter().filter(|&(_, count)| count > 0) {
        let (low, high) = coarse_range(bucket::range_of(index).0);
        match out.last_mut() {
            Some(last) if last.high == high => last.count += count,
            _ => out.push(Bucket { low, high, count }),
        }
    }
    out
}

/// Sub-buckets of a power of two that a walk tells apart.
const COARSE: u64 = 64;

fn coarse_range(value: u64) -> (f64, f64) {
    let magnitude = 63 - (value | 1).leading_zeros();
    let width = (1u64 << magnitude).max(COARSE) / COARSE;
    let low = value / width * width;
    (low.saturating_sub(1) as f64, (low + (width - 1)) as f64)
}

/// `log E` that green's `tau` quantile is above (`Gt`) or below (`Lt`) `r` times blue's. Buckets ascending; `tau` in (0, 1).
#[must_use]
pub fn log_e(blue: &[Bucket], green: &[Bucket], r: f64, tau: f64, side: Side, grid: &[f64]) -> f64 {
    let (below, above) = (GridBet::above(tau, grid), GridBet::above(1.0 - tau, grid));
    // The arm that a threshold is laid on, and the one that must exceed it.
    let (base, other) = match side {
        Side::Gt => (blue, green),
        Side::Lt => (green, blue),
    };
    let (n_base, n_other) = (total(base), total(other));
    let bet = |c: f64, d: f64| below.log_e(n_base - c, c) + above.log_e(d, n_other - d);
    let mut least = bet(0.0, 0.0);
    let mut c = n_base;
    for k in base {
        let threshold = match side {
            Side::Gt => r * k.high,
            Side::Lt => k.high / r,
        };
        let first = other.partition_point(|j| j.low < threshold);
        least = least.min(bet(c, total(&other[first..])));
        c -= k.count as f64;
    }
    least
}

fn total(buckets: &[Bucket]) -> f64 {
    buckets.iter().map(|b| b.count).sum::<i64>() as f64
}

/// Confidence sequence of green's quantile over blue's: (lower, upper), each at `alpha` (not halved). `None` where the
/// data set no bound. One pass over both arms: every bound is a ratio of two edges.
#[must_use]
pub fn ratio_bounds(blue: &[Bucket], green: &[Bucket], tau: f64, alpha: f64) -> (Option<f64>, Option<f64>) {
    let lower = least_ratio(blue, green, tau, alpha);
    // Swapping the arms turns green / blue into blue / green.
    let upper = least_ratio(green, blue, tau, alpha).map(|r| 1.0 / r);
    (lower, upper)
}

/// Largest `r` at which "other's quantile is at most r times base's" is still rejected.
///
/// A base bucket `k` with `c` units at or above it wins `below(n - c, c)`; it is rejected with `d` other units above
/// `r high_k` as long as `above(d, ..)` makes up the rest. Evidence grows with `d`, so the largest admissible `r` per
/// `k` is where the last sufficient suffix of `other` begins; as `k` rises less is needed, so one pointer suffices.
fn least_ratio(base: &[Bucket], other: &[Bucket], tau: f64, alpha: f64) -> Option<f64> {
    let (below, above) = (GridBet::above(tau, &G7), GridBet::above(1.0 - tau, &G7));
    let (n_base, n_other) = (total(base), total(other));
    let threshold = ln(1.0 / alpha);
    let nothing_above = above.log_e(0.0, n_other);
    if below.log_e(n_base, 0.0) + nothing_above < threshold {
        return None;
    }
    let mut left = n_other;
    let suffixes: Vec<(f64, f64)> = other
        .iter()
        .map(|j| {
            let log_e = above.log_e(left, n_other - left);
            left -= j.count as f64;
            (j.low, log_e)
        })
        .collect();
    let (mut least, mut c, mut j) = (f64::INFINITY, n_base, 0);
    for k in base {
        let needed = threshold - below.log_e(n_base - c, c);
        c -= k.count as f64;
        if nothing_above >= needed {
            continue;
        }
        while j < suffixes.len() && suffixes[j].1 >= needed {
            j += 1;
        }
        let (low, _) = suffixes[j.checked_sub(1)?];
        least = least.min(low / k.high);
    }
    (least.is_finite() && least > 0.0).then_some(least)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rand::{RngExt, SeedableRng};

    #[test]
    fn coarse_buckets_hold_what_fell_into_them() {
        for value in (0..5_000).chain([1 << 20, (1 << 40) + 12_345, u64::MAX / 4]) {
            let (lo, hi) = bucket::range_of(bucket::index_of(value));
            let (low, high) = coarse_range(lo);
            assert!(low <= lo as f64 && high >= hi as f64 * (1.0 - 1e-15), "{value}");
            assert!(high - low <= 1.0 + high / 63.0, "{value}: ({low}, {high}]");
        }
    }

    /// The walk with its end term left out: what must never be built.
    fn without_end_term(blue: &[Bucket], green: &[Bucket], tau: f64) -> f64 {
        let (below, above) = (GridBet::above(tau, &G7), GridBet::above(1.0 - tau, &G7));
        let (n_blue, n_green) = (total(blue), total(green));
        let (mut least, mut c) = (f64::INFINITY, n_blue);
        for k in blue {
            let d = total(&green[green.partition_point(|j| j.low < k.high)..]);
            least = least.min(below.log_e(n_blue - c, c) + above.log_e(d, n_green - d));
            c -= k.count as f64;
        }
        least
    }

    #[test]
    #[allow(clippy::print_stdout)]
    fn a_walk_without_its_end_term_gives_false_alarms() {
        const RUNS: u64 = 40;
        let threshold = ln(100.0);
        let (mut right, mut wrong) = (0, 0);
        for seed in 0..RUNS {
            let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
            let mut arms = [Histogram::default(), Histogram::default()];
            let mut fired = [false; 2];
            for step in 1..=1_200u32 {
                for arm in &mut arms {
                    // Both colors alike: an exponential tail, mean 20 ms.
                    let y = -20_000.0 * f64::ln(rng.random_range(f64::MIN_POSITIVE..1.0));
                    arm.record(y as u64, 1);
                }
                if step % 16 == 0 {
                    let [blue, green] = [coarse(&arms[0]), coarse(&arms[1])];
                    fired[0] |= log_e(&blue, &green, 1.0, 0.99, Side::Gt, &G7) >= threshold;
                    fired[1] |= without_end_term(&blue, &green, 0.99) >= threshold;
                }
            }
            right += u32::from(fired[0]);
            wrong += u32::from(fired[1]);
        }
        println!("false alarms of {RUNS} (seeds 0..): {right} with the end term, {wrong} without");
        // Four or more of 40 have a chance below 0.1 % at alpha 1 %.
        assert!(right < 4 && wrong >= 4, "{right} {wrong}");
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(40))]

        #[test]
        fn bounds_are_where_the_walk_stops_rejecting(
            blue in prop::collection::vec(1_000u64..60_000, 200..900),
            green in prop::collection::vec(1_000u64..90_000, 200..900),
            tau in 0.3f64..0.95,
        ) {
            let hist = |values: &[u64]| coarse(&values.iter().map(|&v| (bucket::index_of(v), 1)).collect());
            let (blue, green) = (hist(&blue), hist(&green));
            let threshold = ln(1.0 / 0.05);
            let rejects = |r: f64, side| log_e(&blue, &green, r, tau, side, &G7) >= threshold;
            let (low, high) = ratio_bounds(&blue, &green, tau, 0.05);
            if let Some(low) = low {
                prop_assert!(rejects(low * (1.0 - 1e-9), Side::Gt));
                prop_assert!(!rejects(low * (1.0 + 1e-9), Side::Gt));
            }
            if let Some(high) = high {
                prop_assert!(rejects(high * (1.0 + 1e-9), Side::Lt));
                prop_assert!(!rejects(high * (1.0 - 1e-9), Side::Lt));
            }
        }
    }
}
