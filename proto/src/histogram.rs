//! Sparse integer histograms over the buckets of [`crate::bucket`].
//!
//! A cell is written for some minutes and then kept for months, so a histogram has two forms: counts by bucket in a map
//! while it is built, and bytes once it stands in a table of cells. A bucket takes some 19 bytes in the one, one or two in
//! the other. Both are the same value: they compare, sum and serialize alike.

use crate::bucket::{index_of, range_of};
use serde::{Deserialize, Deserializer, Serialize, Serializer, ser::SerializeMap};
use std::{
    collections::{BTreeMap, btree_map},
    iter::Peekable,
};

/// Bucket counts. Counts are signed because late data take back what earlier data put in; a sum over all deltas is never negative.
#[derive(Debug, Clone)]
pub struct Histogram(Form);

#[derive(Debug, Clone)]
enum Form {
    Open(BTreeMap<u32, i64>),
    /// Buckets in ascending order, none with zero, see [`push`].
    Packed(Box<[u8]>),
}

impl Default for Histogram {
    fn default() -> Self {
        Self(Form::Open(BTreeMap::new()))
    }
}

impl Histogram {
    /// Adds `count` (which may be negative) observations of `value`.
    pub fn record(&mut self, value: u64, count: i64) {
        self.add_bucket(index_of(value), count);
    }

    /// Adds `count` to `bucket`; a bucket that comes to zero is dropped, so equal histograms are equal values.
    pub fn add_bucket(&mut self, bucket: u32, count: i64) {
        let counts = self.open();
        let slot = counts.entry(bucket).or_insert(0);
        *slot += count;
        if *slot == 0 {
            counts.remove(&bucket);
        }
    }

    /// Adds every bucket of `other`, `sign` times (1 or -1). What is packed stays so.
    pub fn merge(&mut self, other: &Self, sign: i64) {
        if other.is_empty() {
            return;
        }
        if matches!(self.0, Form::Packed(_)) {
            let both = Merged {
                left: self.iter().peekable(),
                right: other.iter().peekable(),
                sign,
            };
            let packed = pack(both);
            self.0 = Form::Packed(packed);
            return;
        }
        for (bucket, count) in other.iter() {
            self.add_bucket(bucket, sign * count);
        }
    }

    /// Takes little memory from now on. Adding single observations would undo that.
    pub fn pack(&mut self) {
        if matches!(&self.0, Form::Open(counts) if !counts.is_empty()) {
            self.0 = Form::Packed(pack(self.iter()));
        }
    }

    fn open(&mut self) -> &mut BTreeMap<u32, i64> {
        if let Form::Packed(_) = self.0 {
            self.0 = Form::Open(self.iter().collect());
        }
        match &mut self.0 {
            Form::Open(counts) => counts,
            Form::Packed(_) => unreachable!("it was just opened"),
        }
    }

    /// Nonempty buckets in ascending order.
    #[must_use]
    pub fn iter(&self) -> Iter<'_> {
        match &self.0 {
            Form::Open(counts) => Iter::Open(counts.iter()),
            Form::Packed(bytes) => Iter::Packed { bytes, next: 0 },
        }
    }

    /// True if nothing was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        match &self.0 {
            Form::Open(counts) => counts.is_empty(),
            Form::Packed(bytes) => bytes.is_empty(),
        }
    }

    /// Number of observations.
    #[must_use]
    pub fn total(&self) -> i64 {
        self.iter().map(|(_, count)| count).sum()
    }

    /// Observations in buckets wholly above `edge`. Exact when `edge` is a bucket's upper edge
    /// ([`upper_edge`](crate::bucket::upper_edge)).
    #[must_use]
    pub fn count_above(&self, edge: u64) -> i64 {
        let first = index_of(edge);
        let above = |&(bucket, _): &(u32, i64)| bucket >= first && range_of(bucket).0 > edge;
        match &self.0 {
            Form::Open(counts) => counts
                .range(first..)
                .map(|(&b, &c)| (b, c))
                .filter(above)
                .map(|(_, c)| c)
                .sum(),
            Form::Packed(_) => self.iter().filter(above).map(|(_, count)| count).sum(),
        }
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
        for (bucket, count) in self.iter() {
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
        self.iter().last().map(|(bucket, _)| range_of(bucket).1)
    }
}

impl PartialEq for Histogram {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Form::Open(one), Form::Open(other)) => one == other,
            (Form::Packed(one), Form::Packed(other)) => one == other,
            _ => self.iter().eq(other.iter()),
        }
    }
}

impl Eq for Histogram {}

impl FromIterator<(u32, i64)> for Histogram {
    fn from_iter<I: IntoIterator<Item = (u32, i64)>>(buckets: I) -> Self {
        let mut h = Self::default();
        for (bucket, count) in buckets {
            h.add_bucket(bucket, count);
        }
        h
    }
}

/// A map of buckets and counts, whichever form it has.
impl Serialize for Histogram {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut map = to.serialize_map(Some(self.iter().count()))?;
        for (bucket, count) in self.iter() {
            map.serialize_entry(&bucket, &count)?;
        }
        map.end()
    }
}

impl<'de> Deserialize<'de> for Histogram {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        BTreeMap::deserialize(from).map(|counts| Self(Form::Open(counts)))
    }
}

/// Buckets and counts, ascending by bucket.
#[derive(Debug, Clone)]
pub enum Iter<'a> {
    /// Of a map.
    Open(btree_map::Iter<'a, u32, i64>),
    /// Of bytes.
    Packed {
        /// What is left.
        bytes: &'a [u8],
        /// The lowest bucket that may come.
        next: u32,
    },
}

impl Iterator for Iter<'_> {
    type Item = (u32, i64);

    fn next(&mut self) -> Option<(u32, i64)> {
        match self {
            Self::Open(counts) => counts.next().map(|(&bucket, &count)| (bucket, count)),
            Self::Packed { bytes, next } => {
                let head = varint(bytes)?;
                let bucket = next.wrapping_add((head >> 1) as u32);
                *next = bucket.wrapping_add(1);
                let count = if head & 1 == 0 { 1 } else { unzigzag(varint(bytes)?) };
                Some((bucket, count))
            }
        }
    }
}

/// Two histograms as one, the right one `sign` times; what comes to zero is left out.
struct Merged<'a> {
    left: Peekable<Iter<'a>>,
    right: Peekable<Iter<'a>>,
    sign: i64,
}

impl Iterator for Merged<'_> {
    type Item = (u32, i64);

    fn next(&mut self) -> Option<(u32, i64)> {
        loop {
            let (left, right) = (self.left.peek().copied(), self.right.peek().copied());
            let (bucket, count) = match (left, right) {
                (None, None) => return None,
                (Some((at, count)), Some((other, _))) if at < other => (at, count),
                (Some((at, count)), Some((other, more))) if at == other => (at, count + self.sign * more),
                (_, Some((at, count))) => (at, self.sign * count),
                (Some(only), None) => only,
            };
            self.left.next_if(|(at, _)| *at == bucket);
            self.right.next_if(|(at, _)| *at == bucket);
            if count != 0 {
                return Some((bucket, count));
            }
        }
    }
}

fn pack(buckets: impl Iterator<Item = (u32, i64)>) -> Box<[u8]> {
    let (mut bytes, mut next) = (Vec::new(), 0);
    for (bucket, count) in buckets {
        push(&mut bytes, bucket - next, count);
        next = bucket.wrapping_add(1);
    }
    bytes.into()
}

/// Buckets passed over, times two, as a varint; plus one, and then the count as a zigzag varint, unless that is 1.
fn push(bytes: &mut Vec<u8>, passed: u32, count: i64) {
    let head = u64::from(passed) << 1;
    if count == 1 {
        push_varint(bytes, head);
    } else {
        push_varint(bytes, head | 1);
        push_varint(bytes, zigzag(count));
    }
}

fn push_varint(bytes: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
}

fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let (mut value, mut shift) = (0, 0);
    loop {
        let (byte, rest) = bytes.split_first()?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
        shift += 7;
    }
}

const fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

const fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -((value & 1).cast_signed())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

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

        /// Every form of two histograms, merged in every form, against one map of all counts.
        #[test]
        fn what_is_packed_is_the_same_value(
            one in prop::collection::vec((0u32..60_000, -3i64..4), 0..200),
            other in prop::collection::vec((0u32..60_000, prop::num::i64::ANY.prop_map(|c| c >> 20)), 0..200),
            edge in 0u64..u64::MAX,
            q in 0.0f64..=1.0,
        ) {
            let of = |buckets: &[(u32, i64)]| -> Histogram { buckets.iter().copied().collect() };
            let packed = |mut h: Histogram| { h.pack(); h };
            let (a, b) = (of(&one), of(&other));
            let mut oracle: BTreeMap<u32, i64> = BTreeMap::new();
            for (bucket, count) in a.iter().chain(b.iter().map(|(at, count)| (at, -count))) {
                *oracle.entry(bucket).or_default() += count;
            }
            oracle.retain(|_, count| *count != 0);
            for mut sum in [a.clone(), packed(a.clone())] {
                for other in [b.clone(), packed(b.clone())] {
                    let mut sum = sum.clone();
                    sum.merge(&other, -1);
                    prop_assert_eq!(sum.iter().collect::<Vec<_>>(), oracle.clone().into_iter().collect::<Vec<_>>());
                    prop_assert_eq!(&sum, &packed(sum.clone()));
                    prop_assert_eq!(sum.is_empty(), oracle.is_empty());
                    let json = serde_json::to_string(&sum).unwrap();
                    prop_assert_eq!(&json, &serde_json::to_string(&packed(sum.clone())).unwrap());
                    prop_assert_eq!(&serde_json::from_str::<Histogram>(&json).unwrap(), &sum);
                    prop_assert_eq!(sum.count_above(edge), packed(sum.clone()).count_above(edge));
                    prop_assert_eq!(sum.quantile(q), packed(sum.clone()).quantile(q));
                    prop_assert_eq!(sum.max(), packed(sum).max());
                }
                let opened = packed(sum.clone());
                sum.add_bucket(7, 5);
                let mut opened = opened;
                opened.add_bucket(7, 5);
                prop_assert_eq!(sum, opened);
            }
        }
    }

    #[test]
    fn a_packed_bucket_takes_a_byte_or_two() {
        // a minute of 1,200 calls around a second
        let mut h: Histogram = (0..1_200_u64).map(|n| (index_of(200_000 + n * 1_777), 1)).collect();
        let buckets = h.iter().count();
        h.pack();
        let Form::Packed(bytes) = &h.0 else {
            panic!("it is packed");
        };
        assert!(
            bytes.len() <= 2 * buckets,
            "{} bytes for {buckets} buckets",
            bytes.len()
        );
    }
}
