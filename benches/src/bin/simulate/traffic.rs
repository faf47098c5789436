//! Simulated traffic: how much, on which split, how good; and the draws that fill it.

use proto::{bucket, cell::PPM};
use rand::{Rng, RngExt};
use std::{
    f64::consts::{FRAC_1_SQRT_2, TAU},
    sync::LazyLock,
};

/// Traces a minute, both colors together.
pub const PER_MINUTE: u64 = 200;
/// Share of failed traces where nothing drifts.
pub const FAILURES: f64 = 0.03;

/// Median latency, us: a p99 of 4 s.
pub const LATENCY: f64 = 1_250_000.0;
/// Standard deviation of log latency.
pub const LATENCY_SPREAD: f64 = 0.5;
/// Median cost of a trace, nano-USD.
pub const COST: f64 = 400_000.0;
/// Standard deviation of log cost, within short prompts and within long ones: all together vary by 1.06 times their mean.
pub const COST_SPREAD: f64 = 0.8;

/// One split for good, or the steps of a ramp.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Half to each color, every rate constant.
    Steady,
    /// A day at 5 % green, a day at 25 %, then 50 %; volume, rates and amounts drift over the day and from day to day.
    RampAndDrift,
}

/// Traffic of one release, minute by minute.
#[derive(Debug, Clone, Copy)]
pub struct World {
    /// What moves.
    pub kind: Kind,
    /// Minutes a day.
    pub day: u64,
    /// Minutes until both colors are expected to have their traces.
    pub minutes: u64,
}

impl World {
    /// Traffic until both colors are expected to have served `arm` traces.
    pub fn new(kind: Kind, arm: u64, day: u64) -> Self {
        let mut world = Self { kind, day, minutes: 0 };
        let mut served = [0.0; 2];
        while served[0] < arm as f64 || served[1] < arm as f64 {
            let (n, rho) = (world.traces(world.minutes) as f64, world.rho(world.minutes));
            served[0] += n * (1.0 - rho);
            served[1] += n * rho;
            world.minutes += 1;
        }
        world
    }

    /// In words.
    pub const fn name(&self) -> &'static str {
        match self.kind {
            Kind::Steady => "steady, half to each",
            Kind::RampAndDrift => "ramp 5 > 25 > 50 %, drift 2 > 3 > 6 %",
        }
    }

    /// Splits that occur, and in [`Self::stratum`] their numbers.
    pub const STRATA: [f64; 3] = [0.5, 0.25, 0.05];

    /// Number of the split in force.
    pub const fn stratum(&self, minute: u64) -> usize {
        match (self.kind, minute / self.day) {
            (Kind::RampAndDrift, 0) => 2,
            (Kind::RampAndDrift, 1) => 1,
            _ => 0,
        }
    }

    /// Probability that a trace goes green.
    pub const fn rho(&self, minute: u64) -> f64 {
        Self::STRATA[self.stratum(minute)]
    }

    /// Traces of both colors.
    pub fn traces(&self, minute: u64) -> u64 {
        let factor = match self.kind {
            Kind::Steady => 1.0,
            Kind::RampAndDrift => 1.0 + 0.5 * self.wave(minute),
        };
        (PER_MINUTE as f64 * factor).round() as u64
    }

    /// Share of traces that fail, of either color.
    pub fn failures(&self, minute: u64) -> f64 {
        match self.kind {
            Kind::Steady => FAILURES,
            Kind::RampAndDrift => [0.02, 0.03, 0.06][self.of_three(minute)] * (1.0 + 0.4 * self.wave(minute)),
        }
    }

    /// Factor on the latency of either color.
    pub fn slowness(&self, minute: u64) -> f64 {
        match self.kind {
            Kind::Steady => 1.0,
            Kind::RampAndDrift => [0.9, 1.0, 1.15][self.of_three(minute)] * (1.0 + 0.1 * self.wave(minute)),
        }
    }

    /// Share of traces with a long prompt, of either color.
    pub fn long_prompts(&self, minute: u64) -> f64 {
        match self.kind {
            Kind::Steady => 0.3,
            Kind::RampAndDrift => [0.2, 0.3, 0.5][self.of_three(minute)] * (1.0 + 0.5 * self.wave(minute)),
        }
    }

    fn wave(&self, minute: u64) -> f64 {
        (TAU * minute as f64 / self.day as f64).sin()
    }

    const fn of_three(&self, minute: u64) -> usize {
        (minute / self.day % 3) as usize
    }
}

/// Traces without the event before the next one with it; `p` in (0, 1).
pub struct Gaps(f64);

impl Gaps {
    /// For events of probability `p` in (0, 1).
    pub fn new(p: f64) -> Self {
        Self(1.0 / (-p).ln_1p())
    }

    /// How many traces pass before the next event.
    pub fn next(&self, rng: &mut impl Rng) -> u64 {
        ((1.0 - rng.random::<f64>()).ln() * self.0) as u64
    }
}

/// A normal deviate (Box-Muller).
pub fn normal(rng: &mut impl Rng) -> f64 {
    let u: f64 = 1.0 - rng.random::<f64>();
    let v: f64 = rng.random();
    (-2.0 * u.ln()).sqrt() * (TAU * v).cos()
}

/// A latency, us.
pub fn latency(rng: &mut impl Rng) -> f64 {
    LATENCY * (LATENCY_SPREAD * normal(rng)).exp()
}

/// Chance that a latency, `times` as long as usual, is above `t` us.
pub fn exceeds(t: f64, times: f64) -> f64 {
    tail((t / times / LATENCY).ln() / LATENCY_SPREAD)
}

/// P(normal deviate > z).
fn tail(z: f64) -> f64 {
    0.5 * libm::erfc(z * FRAC_1_SQRT_2)
}

/// Costs of short prompts.
pub const SHORT: usize = 2_048;
/// A long prompt costs so many times a short one.
const LONG_TIMES: f64 = 2.0;

/// Costs that a trace may have, nano-USD, times `times`: the first [`SHORT`], equally likely among themselves, are those
/// of short prompts, as many more those of long ones. `spread` is usually [`COST_SPREAD`].
pub fn costs(times: f64, spread: f64) -> Vec<u64> {
    let short: Vec<f64> = DEVIATES.iter().map(|z| COST * (spread * z).exp()).collect();
    let long = short.iter().map(|c| LONG_TIMES * c);
    short.iter().copied().chain(long).map(|c| (times * c) as u64).collect()
}

/// Normal deviates that are equally likely.
static DEVIATES: LazyLock<Vec<f64>> = LazyLock::new(|| {
    let middle = |i: usize| (i as f64 + 0.5) / SHORT as f64;
    (0..SHORT).map(|i| deviate(middle(i))).collect()
});

/// The normal deviate below which a share `p` lies.
fn deviate(p: f64) -> f64 {
    let (mut low, mut high) = (-9.0, 9.0);
    for _ in 0..60 {
        let mid = f64::midpoint(low, high);
        if 1.0 - tail(mid) < p { low = mid } else { high = mid }
    }
    low
}

/// One draw of a trace: its color and which of [`costs`] it has.
#[derive(Debug, Clone, Copy)]
pub struct Draw {
    green: u64,
    long: u64,
}

impl Draw {
    /// For a split and a share of long prompts, both in (0, 1).
    pub fn new(rho: f64, long: f64) -> Self {
        let scaled = |p: f64, bits: u32| (p * (1u64 << bits) as f64).round() as u64;
        Self {
            green: scaled(rho, 32),
            long: scaled(long, 20),
        }
    }

    /// `(green, index of its cost)`.
    pub fn next(&self, rng: &mut impl Rng) -> (bool, usize) {
        let bits = rng.next_u64();
        let long = usize::from((bits >> 12 & 0xf_ffff) < self.long);
        ((bits >> 32) < self.green, long * SHORT + (bits as usize & (SHORT - 1)))
    }
}

/// Blue's frozen p99, us, from so many traces before the release, snapped as a baseline is.
pub fn frozen_p99(traces: u64, rng: &mut impl Rng) -> u64 {
    let mut seen: Vec<u64> = (0..traces).map(|_| latency(rng) as u64).collect();
    let rank = (0.99 * traces as f64).ceil() as usize;
    let (_, at, _) = seen.select_nth_unstable(rank.saturating_sub(1));
    bucket::upper_edge(*at)
}

/// `split` in the unit of a cell.
pub fn ppm(rho: f64) -> u32 {
    (rho * f64::from(PPM)).round() as u32
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn both_colors_get_their_traces() {
        for kind in [Kind::Steady, Kind::RampAndDrift] {
            let world = World::new(kind, 100_000, 144);
            let rhos: Vec<f64> = (0..world.minutes).map(|m| world.rho(m)).collect();
            let served = |share: fn(f64) -> f64| -> f64 {
                let of = |(m, rho): (usize, &f64)| world.traces(m as u64) as f64 * share(*rho);
                rhos.iter().enumerate().map(of).sum()
            };
            let (blue, green) = (served(|rho| 1.0 - rho), served(|rho| rho));
            assert!(
                blue.min(green) >= 100_000.0 && blue.min(green) < 100_300.0,
                "{blue} {green}"
            );
            let rates = (0..world.minutes).map(|m| world.failures(m) + world.long_prompts(m));
            assert!(rates.clone().all(|r| r > 0.0 && r < 1.0));
        }
    }

    #[test]
    fn draws_have_the_shares_they_should() {
        const SEED: u64 = 3;
        let mut rng = ChaCha8Rng::seed_from_u64(SEED);
        let n = 400_000;
        let draw = Draw::new(0.05, 0.3);
        let (mut green, mut long, mut gone) = (0, 0, 0);
        let gaps = Gaps::new(0.03);
        for _ in 0..n {
            let (is_green, cost) = draw.next(&mut rng);
            green += usize::from(is_green);
            long += usize::from(cost >= SHORT);
            gone += gaps.next(&mut rng);
        }
        let share = |n_hit: usize| n_hit as f64 / f64::from(n);
        assert!(
            (share(green) - 0.05).abs() < 0.002 && (share(long) - 0.3).abs() < 0.004,
            "seed {SEED}"
        );
        // A gap is 0.97 / 0.03 on average.
        assert!((gone as f64 / f64::from(n) - 32.333).abs() < 0.3, "seed {SEED}: {gone}");
        let t = frozen_p99(100_000, &mut rng);
        assert!((exceeds(t as f64, 1.0) - 0.01).abs() < 0.001, "seed {SEED}: {t}");
        assert!((exceeds(LATENCY, 1.0) - 0.5).abs() < 1e-12 && (deviate(0.975) - 1.959_964).abs() < 1e-6);
    }
}
