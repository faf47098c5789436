//! Confidence sequence of a difference of means, for display only: valid as the sample grows, not at every size.
//!
//! Source: Waudby-Smith et al., time-uniform central limit theory (arXiv 2103.06476).

use super::log_space::ln;
use serde::{Deserialize, Serialize};

/// Sample size at which the sequence is tightest.
pub const N_STAR: f64 = 5_000.0;

/// Count, sum and sum of squares of one arm.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Moments {
    /// Units.
    pub n: f64,
    /// Sum of their values.
    pub sum: f64,
    /// Sum of the squares.
    pub sum_sq: f64,
}

impl Moments {
    /// Mean; 0 without units.
    #[must_use]
    pub fn mean(&self) -> f64 {
        if self.n > 0.0 { self.sum / self.n } else { 0.0 }
    }

    /// Sample variance (divides by n - 1); 0 below two units.
    #[must_use]
    pub fn variance(&self) -> f64 {
        if self.n < 2.0 {
            return 0.0;
        }
        ((self.sum_sq - self.sum * self.sum / self.n) / (self.n - 1.0)).max(0.0)
    }
}

/// `mean_g - r mean_b`, with its half-width.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Band {
    /// Observed difference.
    pub difference: f64,
    /// Half-width of the sequence around it.
    pub half_width: f64,
    /// Tuning parameter, as it follows from `n_star` and alpha.
    pub rho2: f64,
}

/// The band at `alpha_two_sided` (twice the alpha of each side), tightest at `n_star` units; `None` below two units an arm.
#[must_use]
pub fn band(blue: &Moments, green: &Moments, r: f64, alpha_two_sided: f64, n_star: f64) -> Option<Band> {
    if blue.n < 2.0 || green.n < 2.0 {
        return None;
    }
    let rho2 = rho2(alpha_two_sided, n_star);
    let v = green.variance() / green.n + r * r * blue.variance() / blue.n;
    Some(Band {
        difference: green.mean() - r * blue.mean(),
        half_width: v.sqrt() * widening(blue.n + green.n, alpha_two_sided, rho2),
        rho2,
    })
}

/// Bounds of mean_g / mean_b: every `r` whose band holds 0 (Fieller). `None` where the data set no bound.
#[must_use]
pub fn ratio_bounds(blue: &Moments, green: &Moments, alpha_two_sided: f64, n_star: f64) -> (Option<f64>, Option<f64>) {
    let (m_b, m_g) = (blue.mean(), green.mean());
    if blue.n < 2.0 || green.n < 2.0 || m_b <= 0.0 {
        return (None, None);
    }
    let k = widening(blue.n + green.n, alpha_two_sided, rho2(alpha_two_sided, n_star));
    let (k_b, k_g) = (k * k * blue.variance() / blue.n, k * k * green.variance() / green.n);
    let a = m_b * m_b - k_b;
    let root = (m_g * m_g * k_b + m_b * m_b * k_g - k_b * k_g).max(0.0).sqrt();
    let low = (m_g * m_b - root) / a;
    if a <= 0.0 {
        return (None, None);
    }
    ((low > 0.0).then_some(low), Some((m_g * m_b + root) / a))
}

fn rho2(alpha: f64, n_star: f64) -> f64 {
    (-2.0 * ln(alpha) + ln(1.0 - 2.0 * ln(alpha))) / n_star
}

/// Half-width over the standard error.
fn widening(n: f64, alpha: f64, rho2: f64) -> f64 {
    let m = n * rho2 + 1.0;
    n.sqrt() * (2.0 * m / (n * n * rho2) * ln(m.sqrt() / alpha)).sqrt()
}
