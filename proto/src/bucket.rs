//! Sparse integer histograms on HdrHistogram's log-linear scheme at three significant digits.
//!
//! Values are non-negative integers (microseconds, nano-USD, tokens). Below 2,048 every value has a bucket of its own;
//! above, each power of two is cut into 1,024 equal buckets, so a bucket is never wider than 1/1,024 of its value
//! (<= 0.1 %). Bucket `b` covers the half-open interval `(lo - 1, hi]` of integers. The scheme is that of
//! `hdrhistogram::Histogram::new_with_bounds(1, _, 3)`, which is the oracle of the tests; only the storage is sparse,
//! because a dense one to an hour in microseconds weighs 184 KiB.

use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

const SUB_BITS: u32 = 11;
const HALF: u64 = 1 << (SUB_BITS - 1);

/// Index of the bucket that holds `value`.
#[must_use]
pub const fn index_of(value: u64) -> u32 {
    let magnitude = 63 - (value | 1).leading_zeros();
    if magnitude < SUB_BITS {
        return value as u32;
    }
    let shift = magnitude - (SUB_BITS - 1);
    (shift + 1) * (HALF as u32) + ((value >> shift) - HALF) as u32
}

/// Lowest and highest integer that fall into `bucket`, both inclusive.
#[must_use]
pub const fn range_of(bucket: u32) -> (u64, u64) {
    let bucket = bucket as u64;
    if bucket < 2 * HALF {
        return (bucket, bucket);
    }
    let shift = bucket / HALF - 1;
    let sub = bucket % HALF + HALF;
    (sub << shift, (sub << shift) + ((1 << shift) - 1))
}

/// Upper edge of the bucket that holds `value`: what a threshold snaps outward to.
#[must_use]
pub const fn upper_edge(value: u64) -> u64 {
    range_of(index_of(value)).1
}

/// Bucket counts. Counts are signed because late data take back what earlier data put in; a sum over all deltas is never negative.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Histogram(BTreeMap<u32, i64>);

impl Histogram {
    /// Adds `count` (which may be negative) observations of `value`.
    pub fn record(&mut self, value: u64, count: i64) {
        self.add_bucket(index_of(value), count);
    }

    /// Adds `count` to `bucket`; a bucket that comes to zero is dropped, so equal histograms are equal values.
    pub fn add_bucket(&mut self, bucket: u32, count: i64) {
        let slot = self.0.entry(bucket).or_insert(0);
        *slot += count;
        if *slot == 0 {
            self.0.remove(&bucket);
        }
    }

    /// Adds every bucket of `other`, `sign` times (1 or -1).
    pub fn merge(&mut self, other: &Self, sign: i64) {
        for (&bucket, &count) in &other.0 {
            self.add_bucket(bucket, sign * count);
        }
    }

    /// Nonempty buckets in ascending order.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (u32, i64)> + '_ {
        self.0.iter().map(|(&b, &c)| (b, c))
    }

    /// True if nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Number of observations.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.0.values().sum()
    }

    /// Observations in buckets wholly above `edge`. Exact when `edge` is a bucket's upper edge ([`upper_edge`]).
    #[must_use]
    pub fn count_above(&self, edge: u64) -> i64 {
        self.0
            .range(index_of(edge)..)
            .filter(|&(&b, _)| range_of(b).0 > edge)
            .map(|(_, &c)| c)
            .sum()
    }

    /// The smallest bucket upper edge at or below which a share `q` in [0, 1] of the observations lies
    /// (HdrHistogram's `value_at_quantile`); `None` if empty.
    #[must_use]
    pub fn quantile(&self, q: f64) -> Option<u64> {
        let total = self.total();
        if total <= 0 {
            return None;
        }
        let rank = ((q.clamp(0.0, 1.0) * total as f64).ceil() as i64).clamp(1, total);
        let mut seen = 0;
        for (&bucket, &count) in &self.0 {
            seen += count;
            if seen >= rank {
                return Some(range_of(bucket).1);
            }
        }
        None
    }

    /// Largest bucket's upper edge, or `None` if empty.
    #[must_use]
    pub fn max(&self) -> Option<u64> {
        self.0.keys().next_back().map(|&b| range_of(b).1)
    }
}

impl FromIterator<(u32, i64)> for Histogram {
    fn from_iter<I: IntoIterator<Item = (u32, i64)>>(buckets: I) -> Self {
        let mut h = Self::default();
        for (bucket, count) in buckets {
            h.add_bucket(bucket, count);
        }
        h
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn buckets_tile_the_integers() {
        let mut next = 0;
        for b in 0..60_000u32 {
            let (lo, hi) = range_of(b);
            if hi == u64::MAX {
                break;
            }
            assert_eq!(lo, next, "bucket {b}");
            assert_eq!((index_of(lo), index_of(hi)), (b, b));
            assert!(
                (hi - lo) as f64 <= lo as f64 / 1024.0 + 1e-9,
                "bucket {b} is wider than 0.1 %"
            );
            next = match hi.checked_add(1) {
                Some(n) => n,
                None => break,
            };
        }
        assert_eq!(range_of(index_of(u64::MAX)).1, u64::MAX);
    }

    proptest! {
        #[test]
        fn quantiles_equal_hdrhistogram(values in prop::collection::vec(0u64..5_000_000_000, 1..400), q in 0.0f64..=1.0) {
            let mut ours = Histogram::default();
            let mut oracle = hdrhistogram::Histogram::<u64>::new_with_bounds(1, u64::MAX / 2, 3).unwrap();
            for &v in &values {
                ours.record(v, 1);
                oracle.record(v).unwrap();
            }
            prop_assert_eq!(ours.quantile(q).unwrap(), oracle.value_at_quantile(q));
        }

        #[test]
        fn deltas_cancel(values in prop::collection::vec(0u64..u64::MAX, 0..100)) {
            let h: Histogram = values.iter().map(|&v| (index_of(v), 1)).collect();
            let mut sum = h.clone();
            sum.merge(&h, -1);
            prop_assert!(sum.is_empty());
        }
    }
}
