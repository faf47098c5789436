//! Buckets of integers on HdrHistogram's log-linear scheme at three significant digits.
//!
//! Values are non-negative integers (microseconds, nano-USD, tokens). Below 2,048 every value has a bucket of its own;
//! above, each power of two is cut into 1,024 equal buckets, so a bucket is never wider than 1/1,024 of its value
//! (<= 0.1 %). Bucket `b` covers the half-open interval `(lo - 1, hi]` of integers. The scheme is that of
//! `hdrhistogram::Histogram::new_with_bounds(1, _, 3)`, which is the oracle of the tests; only the storage is sparse,
//! because a dense one to an hour in microseconds weighs 184 KiB.

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

#[cfg(test)]
mod tests {
    use super::*;

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
}
