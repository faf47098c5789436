//! Two rates without a randomised split, or with an absolute margin: iid within each arm is assumed.
//!
//! The numerator is what a Beta mixture gives to the data of both arms, the denominator the best that the null can do
//! (universal inference). Source: Wasserman, Ramdas & Balakrishnan; Lindon, Sanden & Shirikian (arXiv 2205.14762).

use super::{
    Side,
    log_space::{ln, ln_beta, x_ln_y},
};

/// Successes (events) and failures of both arms. Counts, as floats.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct Arms {
    /// Blue units with the event.
    pub s_b: f64,
    /// Blue units without it.
    pub f_b: f64,
    /// Green units with the event.
    pub s_g: f64,
    /// Green units without it.
    pub f_g: f64,
}

/// What separates the null from its alternative.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Boundary {
    /// `p_g = r p_b`, with `r > 0`.
    Ratio(f64),
    /// `p_g = p_b + delta`, with `delta` in (-1, 1).
    Difference(f64),
}

/// Parameters of the Beta mixture, frozen before the release.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Prior {
    /// First parameter; 1.
    pub a: f64,
    /// Second parameter; one over the historic rate, so that the mixture looks where the rate has been.
    pub b: f64,
}

impl Prior {
    /// (1, 1 / p_hist).
    #[must_use]
    pub fn from_rate(p_hist: f64) -> Self {
        Self {
            a: 1.0,
            b: 1.0 / p_hist,
        }
    }
}

/// `log E` that green's rate is above (`Gt`) or below (`Lt`) the boundary.
#[must_use]
pub fn log_e(arms: &Arms, boundary: Boundary, prior: Prior, side: Side) -> f64 {
    let Prior { a, b } = prior;
    ln_beta(a + arms.s_b, b + arms.f_b) + ln_beta(a + arms.s_g, b + arms.f_g)
        - 2.0 * ln_beta(a, b)
        - best_under_null(arms, boundary, side)
}

/// Greatest binomial log-likelihood over the null of `side`.
fn best_under_null(arms: &Arms, boundary: Boundary, side: Side) -> f64 {
    let n_b = arms.s_b + arms.f_b;
    let n_g = arms.s_g + arms.f_g;
    let free_b = if n_b > 0.0 { arms.s_b / n_b } else { 0.5 };
    let free_g = if n_g > 0.0 { arms.s_g / n_g } else { 0.5 };
    let limit = match boundary {
        Boundary::Ratio(r) => r * free_b,
        Boundary::Difference(delta) => free_b + delta,
    };
    let free_is_null = n_b == 0.0
        || n_g == 0.0
        || match side {
            Side::Gt => free_g <= limit,
            Side::Lt => free_g >= limit,
        };
    let (p_b, p_g) = if free_is_null {
        (free_b, free_g)
    } else {
        on_boundary(arms, boundary)
    };
    x_ln_y(arms.s_b, p_b) + x_ln_y(arms.f_b, 1.0 - p_b) + x_ln_y(arms.s_g, p_g) + x_ln_y(arms.f_g, 1.0 - p_g)
}

/// The most likely pair of rates on the boundary, from at least one unit in each arm.
fn on_boundary(arms: &Arms, boundary: Boundary) -> (f64, f64) {
    let Arms { s_b, f_b, s_g, f_g } = *arms;
    match boundary {
        Boundary::Ratio(r) => {
            let s = s_b + s_g;
            let a = r * (s + f_b + f_g);
            let minus_b = s * (1.0 + r) + f_b + r * f_g;
            let root = (minus_b * minus_b - 4.0 * a * s).max(0.0).sqrt();
            // The smaller root, written so that nothing cancels. Neither rate can pass 1.
            let p = (2.0 * s / (minus_b + root)).min(1.0).min(1.0 / r);
            (p, (r * p).min(1.0))
        }
        Boundary::Difference(delta) => {
            let score = |p: f64| {
                let term = |count: f64, p: f64| if count == 0.0 { 0.0 } else { count / p };
                term(s_b, p) - term(f_b, 1.0 - p) + term(s_g, p + delta) - term(f_g, 1.0 - p - delta)
            };
            let slope = |p: f64| {
                let term = |count: f64, p: f64| if count == 0.0 { 0.0 } else { count / (p * p) };
                -term(s_b, p) - term(f_b, 1.0 - p) - term(s_g, p + delta) - term(f_g, 1.0 - p - delta)
            };
            let p = falling_root((-delta).max(0.0), (1.0 - delta).min(1.0), score, slope);
            (p, p + delta)
        }
    }
}

/// Where a falling `f` crosses zero between `low` and `high`: Newton's steps, and a halving wherever one would leave the
/// bracket. The ends themselves are never tried, since `f` may be infinite there.
fn falling_root(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64, slope: impl Fn(f64) -> f64) -> f64 {
    const STEPS: usize = 100;
    let mut p = low + (high - low) / 2.0;
    for _ in 0..STEPS {
        let value = f(p);
        if value > 0.0 {
            low = p;
        } else {
            high = p;
        }
        let newton = p - value / slope(p);
        let next = if newton > low && newton < high {
            newton
        } else {
            low + (high - low) / 2.0
        };
        if (next - p).abs() <= 1e-15 * p.abs().max(f64::MIN_POSITIVE) || next <= low || next >= high {
            return next;
        }
        p = next;
    }
    p
}

/// Confidence sequence of green's rate minus blue's: (lower, upper), each at `alpha` (not halved). `None` where the
/// data set no bound.
#[must_use]
pub fn difference_bounds(arms: &Arms, prior: Prior, alpha: f64) -> (Option<f64>, Option<f64>) {
    let threshold = ln(1.0 / alpha);
    bounds(-1.0 + 1e-9, 1.0 - 1e-9, 40, |delta, side| {
        log_e(arms, Boundary::Difference(delta), prior, side) >= threshold
    })
}

/// Confidence sequence of green's rate over blue's, as [`difference_bounds`].
#[must_use]
pub fn ratio_bounds(arms: &Arms, prior: Prior, alpha: f64) -> (Option<f64>, Option<f64>) {
    let threshold = ln(1.0 / alpha);
    let (low, high) = bounds(-20.0, 20.0, 40, |ln_r, side| {
        let r = super::log_space::exp(ln_r);
        log_e(arms, Boundary::Ratio(r), prior, side) >= threshold
    });
    let exp = super::log_space::exp;
    (low.map(exp), high.map(exp))
}

/// Bisects `steps` times for the greatest value rejected from below and the least rejected from above.
fn bounds(min: f64, max: f64, steps: usize, rejects: impl Fn(f64, Side) -> bool) -> (Option<f64>, Option<f64>) {
    let search = |from: f64, to: f64, side| {
        rejects(from, side).then(|| {
            let (mut yes, mut no) = (from, to);
            for _ in 0..steps {
                let mid = yes + (no - yes) / 2.0;
                if rejects(mid, side) {
                    yes = mid;
                } else {
                    no = mid;
                }
            }
            yes
        })
    };
    (search(min, max, Side::Gt), search(max, min, Side::Lt))
}
