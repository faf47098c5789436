//! Exact arithmetic on results: how sure a share of runs is, and the middle of what they measured.

/// Confidence of a bound on a share, one-sided.
pub const CONFIDENCE: f64 = 0.99;

/// Clopper-Pearson bounds of a share, each at [`CONFIDENCE`] by itself, from `hits` of `runs`.
pub fn bounds(hits: u64, runs: u64) -> (f64, f64) {
    let miss = 1.0 - CONFIDENCE;
    let low = if hits == 0 {
        0.0
    } else {
        // the least p at which so many hits or more are not yet too rare
        bisect(|p| 1.0 - below(hits, runs, p) < miss)
    };
    let high = if hits == runs {
        1.0
    } else {
        bisect(|p| below(hits + 1, runs, p) > miss)
    };
    (low, high)
}

/// P(X < hits) for X binomial.
fn below(hits: u64, runs: u64, p: f64) -> f64 {
    if p <= 0.0 {
        return 1.0;
    }
    if p >= 1.0 {
        return 0.0;
    }
    let n = runs as f64;
    let ln_term = |k: f64| {
        let choose = libm::lgamma(n + 1.0) - libm::lgamma(k + 1.0) - libm::lgamma(n - k + 1.0);
        choose + k * p.ln() + (n - k) * (-p).ln_1p()
    };
    (0..hits).map(|k| ln_term(k as f64).exp()).sum()
}

/// Where `holds`, true at 0, stops being true on the way to 1.
fn bisect(holds: impl Fn(f64) -> bool) -> f64 {
    let (mut yes, mut no) = (0.0, 1.0);
    for _ in 0..60 {
        let mid = f64::midpoint(yes, no);
        if holds(mid) { yes = mid } else { no = mid }
    }
    yes
}

/// The middle of what the runs measured, with those that measured nothing standing last; `None` if that is the middle.
pub fn median<T: Copy + Ord>(measured: &[Option<T>]) -> Option<T> {
    let mut sorted: Vec<T> = measured.iter().flatten().copied().collect();
    sorted.sort_unstable();
    sorted.get(measured.len() / 2).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_those_of_the_tables() {
        // 0 of 100: 1 - 0.01^(1/100). 1 of 10: the roots of p^10 and (1 - p)^10 + 10 p (1 - p)^9.
        let (low, high) = bounds(0, 100);
        assert!(low == 0.0 && (high - 0.045_007).abs() < 1e-6, "{high}");
        let (low, high) = bounds(30, 2_000);
        assert!(
            (low - 0.009_395_4).abs() < 1e-6 && (high - 0.022_612_9).abs() < 1e-6,
            "{low} {high}"
        );
        let (low, high) = bounds(1, 10);
        assert!(
            (low - 0.001_004_5).abs() < 1e-6 && (high - 0.504_352_7).abs() < 1e-6,
            "{low} {high}"
        );
        assert_eq!(bounds(7, 7).1, 1.0);
    }

    #[test]
    fn runs_that_saw_nothing_stand_last() {
        assert_eq!(median(&[Some(3), None, Some(1)]), Some(3));
        assert_eq!(median(&[None, Some(1), None]), None);
        assert_eq!(median::<u64>(&[]), None);
    }
}
