//! Arithmetic on natural logs, the same on every machine.

/// Natural logarithm.
#[must_use]
pub fn ln(x: f64) -> f64 {
    libm::log(x)
}

/// `ln(1 + x)`, exact near 0.
#[must_use]
pub fn ln_1p(x: f64) -> f64 {
    libm::log1p(x)
}

/// `e^x`.
#[must_use]
pub fn exp(x: f64) -> f64 {
    libm::exp(x)
}

/// `ln(sum_i exp(x_i))`, without overflow; negative infinity for an empty sum.
#[must_use]
pub fn lse(xs: &[f64]) -> f64 {
    let top = xs.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    if top == f64::NEG_INFINITY {
        return top;
    }
    top + ln(xs.iter().map(|&x| exp(x - top)).sum())
}

/// `ln` of the mean of `exp(x_i)`: equal stakes on every bet.
#[must_use]
pub fn mean_exp(xs: &[f64]) -> f64 {
    lse(xs) - ln(xs.len() as f64)
}

/// `ln B(a, b)`, for `a, b > 0`.
#[must_use]
pub fn ln_beta(a: f64, b: f64) -> f64 {
    libm::lgamma(a) + libm::lgamma(b) - libm::lgamma(a + b)
}

/// `x ln y`, with `0 ln 0 = 0`.
#[must_use]
pub fn x_ln_y(x: f64, y: f64) -> f64 {
    if x == 0.0 { 0.0 } else { x * ln(y) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sums_of_logs_do_not_overflow() {
        assert_eq!(lse(&[]), f64::NEG_INFINITY);
        assert!((lse(&[1_000.0, 1_000.0]) - (1_000.0 + 2f64.ln())).abs() < 1e-12);
        assert!((mean_exp(&[-2_000.0, -2_000.0]) + 2_000.0).abs() < 1e-12);
    }
}
