//! Tests made for one look, looked at again and again.

use super::{Looks, Peer, PeerArm, PeerConfig, PeerMinute};
use crate::stats::{asymptotic::Moments, rates::last_true};
use proto::bucket;
use std::collections::BTreeMap;

/// Kayenta counts a shift only if its interval begins above this share of the estimated shift.
const KAYENTA_TOLERANCE: f64 = 0.25;

/// The Mann-Whitney U test on the amounts of all traces so far, and on whether they failed. Kayenta proper compares
/// points of a time series and adds scores of many metrics; here one worse metric is enough, and the points are traces.
#[derive(Debug)]
pub struct Kayenta {
    looks: Looks,
    z_min: f64,
    blue: PeerArm,
    green: PeerArm,
}

impl Kayenta {
    /// At the confidence and interval of `config`.
    #[must_use]
    pub fn new(config: &PeerConfig) -> Self {
        // With D the shift and s its standard error, D - z s > D / 4 is D / s > z / (1 - 1/4).
        let z = upper_quantile((1.0 - config.confidence) / 2.0);
        Self {
            looks: Looks::new(config.minute_secs, config.judge_secs),
            z_min: z / (1.0 - KAYENTA_TOLERANCE),
            blue: PeerArm::default(),
            green: PeerArm::default(),
        }
    }
}

impl Peer for Kayenta {
    fn name(&self) -> &'static str {
        "Kayenta style"
    }

    fn minute(&mut self, minute: &PeerMinute) -> Option<String> {
        self.blue.merge(&minute.blue);
        self.green.merge(&minute.green);
        if !self.looks.due(minute.at) {
            return None;
        }
        let passed = |arm: &PeerArm| arm.n - arm.failures;
        let outcomes = [
            [passed(&self.blue), passed(&self.green)],
            [self.blue.failures, self.green.failures],
        ];
        let mut amounts: BTreeMap<u32, [i64; 2]> = BTreeMap::new();
        for (arm, side) in [&self.blue, &self.green].into_iter().enumerate() {
            for (bucket, count) in side.amount.iter() {
                amounts.entry(bucket).or_default()[arm] += count;
            }
        }
        let of_failures = mann_whitney(outcomes).map(|z| (z, "failures"));
        let of_amounts = mann_whitney(amounts.into_values()).map(|z| (z, "amounts"));
        let (z, what) = of_failures
            .into_iter()
            .chain(of_amounts)
            .find(|(z, _)| *z > self.z_min)?;
        let z_min = self.z_min;
        Some(format!("green's {what} rank higher: z = {z:.2}, more than {z_min:.2}"))
    }
}

/// z of the Mann-Whitney U test that green ranks higher, from `[blue, green]` counts of equal values in ascending order,
/// with the correction for ties; `None` if nothing differs.
fn mann_whitney(groups: impl IntoIterator<Item = [i64; 2]>) -> Option<f64> {
    let (mut blue, mut green, mut u, mut ties) = (0.0, 0.0, 0.0, 0.0);
    for [b, g] in groups {
        let (b, g) = (b as f64, g as f64);
        u += g * (blue + b / 2.0);
        blue += b;
        green += g;
        let t = b + g;
        ties += t * t * t - t;
    }
    let n = blue + green;
    let variance = blue * green / 12.0 * (n + 1.0 - ties / (n * (n - 1.0)));
    (variance > 0.0).then(|| (u - blue * green / 2.0) / variance.sqrt())
}

/// Failures in both colors together from which on the normal approximation of a proportion is taken.
const FAILURES_MIN: i64 = 10;

/// The z-test of two proportions, looked at again and again at its nominal level.
#[derive(Debug)]
pub struct ZTest {
    looks: Looks,
    z_min: f64,
    blue: (i64, i64),
    green: (i64, i64),
}

impl ZTest {
    /// At the level and interval of `config`.
    #[must_use]
    pub fn new(config: &PeerConfig) -> Self {
        Self {
            looks: Looks::new(config.minute_secs, config.interval_secs),
            z_min: upper_quantile(config.alpha),
            blue: (0, 0),
            green: (0, 0),
        }
    }
}

impl Peer for ZTest {
    fn name(&self) -> &'static str {
        "z-test, peeked"
    }

    fn minute(&mut self, minute: &PeerMinute) -> Option<String> {
        for (sum, arm) in [(&mut self.blue, &minute.blue), (&mut self.green, &minute.green)] {
            *sum = (sum.0 + arm.n, sum.1 + arm.failures);
        }
        let ((n_b, f_b), (n_g, f_g)) = (self.blue, self.green);
        if !self.looks.due(minute.at) || n_b == 0 || n_g == 0 || f_b + f_g < FAILURES_MIN {
            return None;
        }
        let share = |f: i64, n: i64| f as f64 / n as f64;
        let p = share(f_b + f_g, n_b + n_g);
        let error = (p * (1.0 - p) * (1.0 / n_b as f64 + 1.0 / n_g as f64)).sqrt();
        let (blue, green) = (share(f_b, n_b), share(f_g, n_g));
        let z = (green - blue) / error;
        let (green, blue) = (100.0 * green, 100.0 * blue);
        (z > self.z_min).then(|| format!("{green:.1} % of green failed and {blue:.1} % of blue: z = {z:.2}"))
    }
}

/// Traces of each color from which on t is taken for normal: there the 99th percentiles differ by 2 %.
const WELCH_MIN: f64 = 100.0;

/// Welch's t-test of the mean amounts, looked at again and again at its nominal level. A bucket counts at its middle.
#[derive(Debug)]
pub struct Welch {
    looks: Looks,
    z_min: f64,
    blue: Moments,
    green: Moments,
}

impl Welch {
    /// At the level and interval of `config`.
    #[must_use]
    pub fn new(config: &PeerConfig) -> Self {
        Self {
            looks: Looks::new(config.minute_secs, config.interval_secs),
            z_min: upper_quantile(config.alpha),
            blue: Moments::default(),
            green: Moments::default(),
        }
    }
}

impl Peer for Welch {
    fn name(&self) -> &'static str {
        "Welch's t-test, peeked"
    }

    fn minute(&mut self, minute: &PeerMinute) -> Option<String> {
        for (sum, arm) in [(&mut self.blue, &minute.blue), (&mut self.green, &minute.green)] {
            for (index, count) in arm.amount.iter() {
                let (low, high) = bucket::range_of(index);
                let (value, count) = (f64::midpoint(low as f64, high as f64), count as f64);
                sum.n += count;
                sum.sum += count * value;
                sum.sum_sq += count * value * value;
            }
        }
        let (b, g) = (&self.blue, &self.green);
        if !self.looks.due(minute.at) || b.n < WELCH_MIN || g.n < WELCH_MIN {
            return None;
        }
        let t = (g.mean() - b.mean()) / (b.variance() / b.n + g.variance() / g.n).sqrt();
        let (blue, green) = (b.mean(), g.mean());
        (t > self.z_min).then(|| format!("green's mean is {green:.0} and blue's {blue:.0}: t = {t:.2}"))
    }
}

/// The normal deviate that is exceeded with chance `p`, in (0, 1/2].
fn upper_quantile(p: f64) -> f64 {
    let tail = |z: f64| 0.5 * libm::erfc(z * std::f64::consts::FRAC_1_SQRT_2);
    last_true(0.0, 40.0, |z| tail(z) >= p).unwrap_or(0.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_and_ranks_are_the_textbook_ones() {
        for (p, z) in [(0.5, 0.0), (0.025, 1.959_964), (0.01, 2.326_348), (0.001, 3.090_232)] {
            assert!((upper_quantile(p) - z).abs() < 1e-6, "{p}");
        }
        // blue 1 2 2 4, green 2 3 5 5 5: green wins 16 of 20 comparisons and draws 2; two values are tied threefold.
        let groups = [[1, 0], [2, 1], [0, 1], [1, 0], [0, 3]];
        let (u, variance) = (17.0, 20.0 / 12.0 * (10.0 - 48.0 / 72.0));
        let z = mann_whitney(groups).unwrap();
        assert!((z - (u - 10.0) / f64::sqrt(variance)).abs() < 1e-12, "{z}");
        assert_eq!(mann_whitney([[5, 5]]), None);
    }
}
