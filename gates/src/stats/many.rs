//! Many gates and cohorts judged at once: valid under any dependence between them.
//!
//! Sources: a weighted mean of e-values is an e-value; Wang & Ramdas, false discovery rate control with e-values (e-BH).

use super::log_space::{ln, lse};

/// Stands for the log of 0 where a number must be written to JSON.
pub const LOG_ZERO: f64 = -745.0;

/// `ln w_k` of the `k`-th pair, counted from 1: `w_k = 1 / (k (k + 1))`, which sums to 1 however many pairs come.
#[must_use]
pub fn ln_weight(k: usize) -> f64 {
    let k = k as f64;
    -ln(k * (k + 1.0))
}

/// `ln sum_k w_k E_k`, from `(k, log E_k)`; [`LOG_ZERO`] if there is none.
#[must_use]
pub fn weighted_sum(pairs: &[(usize, f64)]) -> f64 {
    let logs: Vec<f64> = pairs.iter().map(|&(k, log_e)| ln_weight(k) + log_e).collect();
    lse(&logs).max(LOG_ZERO)
}

/// Positions of the culprits, strongest first: the largest `k` with `E_(k) >= K / (k alpha)` of `K` e-values. For
/// display: the decision is the weighted sum's.
#[must_use]
pub fn e_bh(log_e: &[f64], alpha: f64) -> Vec<usize> {
    let mut order: Vec<usize> = (0..log_e.len()).collect();
    // Ties keep the order of the pairs.
    order.sort_by(|&a, &b| log_e[b].total_cmp(&log_e[a]));
    let all = log_e.len() as f64;
    let rejected = (1..=order.len())
        .rev()
        .find(|&k| log_e[order[k - 1]] >= ln(all / (k as f64 * alpha)))
        .unwrap_or(0);
    order.truncate(rejected);
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_the_frozen_ones() {
        for (k, w) in [(1, 1.0 / 2.0), (2, 1.0 / 6.0), (3, 1.0 / 12.0), (20, 1.0 / 420.0)] {
            assert!((ln_weight(k) - f64::ln(w)).abs() < 1e-12);
        }
        let one = [(1, 3.0), (2, 5.0)];
        let swapped = [(1, 5.0), (2, 3.0)];
        assert!((weighted_sum(&one) - (3f64.exp() / 2.0 + 5f64.exp() / 6.0).ln()).abs() < 1e-12);
        assert!(
            (weighted_sum(&one) - weighted_sum(&swapped)).abs() > 0.1,
            "the order in which pairs appeared decides"
        );
        assert_eq!(weighted_sum(&[]), LOG_ZERO);
    }

    #[test]
    fn culprits_are_those_that_e_bh_rejects() {
        let strong = (4.0f64 / 0.01).ln();
        assert_eq!(e_bh(&[0.0, strong + 0.1, -3.0, 1.0], 0.01), [1]);
        // The third of four needs only 4 / (3 alpha) once two others are beyond it.
        let third = (4.0f64 / 0.03).ln() + 0.01;
        assert_eq!(e_bh(&[third, third + 1.0, 0.0, third + 2.0], 0.01), [3, 1, 0]);
        assert!(e_bh(&[1.0, 2.0], 0.01).is_empty());
    }
}
