//! The demo's users: who asks what, when, and how the model would answer. Pure and seeded: the same seed gives the
//! same requests in the same order, whatever the wall clock does.

use proto::Color;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, Exp, LogNormal};
use std::time::Duration;

/// Arrivals a second, on average (a Poisson stream).
pub const TRACES_PER_SEC: f64 = 300.0;
/// Customer tiers, equally likely. The first is the one that a bad green hurts.
pub const COHORTS: [&str; 3] = ["enterprise", "pro", "free"];
/// Share of answers that the evaluator fails, on either color while all is well.
pub const EVAL_FAIL_BASE: f64 = 0.15;
/// Median of a healthy answer.
const LATENCY_MS_MEDIAN: f64 = 220.0;
/// Spread of the log of a healthy answer: p99 is about 2.5 medians.
const LATENCY_SIGMA: f64 = 0.4;

/// How green gets worse for the first cohort once the regression is injected.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Regression {
    /// Factor on latency.
    pub slower: f64,
    /// Factor on tokens, so on cost.
    pub dearer: f64,
    /// Share of failed evaluations.
    pub eval_fail: f64,
}

impl Regression {
    /// Nothing changes.
    pub const NONE: Self = Self {
        slower: 1.0,
        dearer: 1.0,
        eval_fail: EVAL_FAIL_BASE,
    };
    /// Slower, dearer and worse at once: what a careless prompt change does.
    pub const ALL: Self = Self {
        slower: 2.2,
        dearer: 1.8,
        eval_fail: 0.45,
    };
}

/// One request as drawn, before the gateway has chosen a path for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Visit {
    /// Offset from the start of the demo.
    pub at: Duration,
    /// Trace id.
    pub trace_id: [u8; 16],
    /// Span ids of the request, the model call and the tool call.
    pub span_ids: [[u8; 8]; 3],
    /// Index into [`COHORTS`].
    pub cohort: usize,
    /// Green if below the gateway's share.
    pub toss: f64,
    latency_ms: f64,
    prompt_tokens: f64,
    completion_tokens: f64,
    judged: f64,
}

/// The answer on the chosen path.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Answer {
    /// From request to answer.
    pub latency: Duration,
    /// Tokens in.
    pub prompt_tokens: i64,
    /// Tokens out.
    pub completion_tokens: i64,
    /// Whether the evaluator fails it.
    pub eval_failed: bool,
}

impl Visit {
    /// What the path of `color` makes of this request under `regression`.
    #[must_use]
    pub fn answer(&self, color: Color, regression: Regression) -> Answer {
        let r = if color == Color::Green && self.cohort == 0 {
            regression
        } else {
            Regression::NONE
        };
        Answer {
            latency: Duration::from_secs_f64(self.latency_ms * r.slower / 1_000.0),
            prompt_tokens: (self.prompt_tokens * r.dearer).round() as i64,
            completion_tokens: (self.completion_tokens * r.dearer).round() as i64,
            eval_failed: self.judged < r.eval_fail,
        }
    }
}

/// The endless stream of visits of one seed.
#[derive(Debug)]
pub struct Traffic {
    rng: ChaCha8Rng,
    at: Duration,
    gap: Exp<f64>,
    latency_ms: LogNormal<f64>,
    prompt_tokens: LogNormal<f64>,
    completion_tokens: LogNormal<f64>,
}

impl Traffic {
    /// # Errors
    /// Never with the constants of this file; the distributions check their parameters.
    pub fn new(seed: u64) -> Result<Self, rand_distr::NormalError> {
        Ok(Self {
            rng: ChaCha8Rng::seed_from_u64(seed),
            at: Duration::ZERO,
            gap: Exp::new(TRACES_PER_SEC).map_err(|_| rand_distr::NormalError::BadVariance)?,
            latency_ms: LogNormal::new(LATENCY_MS_MEDIAN.ln(), LATENCY_SIGMA)?,
            prompt_tokens: LogNormal::new(900f64.ln(), 0.35)?,
            completion_tokens: LogNormal::new(140f64.ln(), 0.35)?,
        })
    }
}

impl Iterator for Traffic {
    type Item = Visit;

    fn next(&mut self) -> Option<Visit> {
        let rng = &mut self.rng;
        self.at += Duration::from_secs_f64(self.gap.sample(rng));
        let mut trace_id = [0; 16];
        rng.fill_bytes(&mut trace_id);
        let mut span_ids = [[0; 8]; 3];
        span_ids.iter_mut().for_each(|id| rng.fill_bytes(id));
        Some(Visit {
            at: self.at,
            trace_id,
            span_ids,
            cohort: rng.random_range(0..COHORTS.len()),
            toss: rng.random(),
            latency_ms: self.latency_ms.sample(rng),
            prompt_tokens: self.prompt_tokens.sample(rng),
            completion_tokens: self.completion_tokens.sample(rng),
            judged: rng.random(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_traffic() {
        let first: Vec<_> = Traffic::new(7).unwrap().take(500).collect();
        assert_eq!(first, Traffic::new(7).unwrap().take(500).collect::<Vec<_>>());
        assert_ne!(first, Traffic::new(8).unwrap().take(500).collect::<Vec<_>>());
    }

    #[test]
    fn only_green_in_one_cohort_gets_worse() {
        let visits: Vec<_> = Traffic::new(1).unwrap().take(2_000).collect();
        for v in &visits {
            let healthy = v.answer(Color::Blue, Regression::ALL);
            let green = v.answer(Color::Green, Regression::ALL);
            assert_eq!(
                green == healthy,
                v.cohort != 0 || (green.latency == healthy.latency),
                "cohort {}",
                v.cohort
            );
        }
        let last = visits.last().unwrap().at.as_secs_f64();
        assert!(
            (2_000.0 / last - TRACES_PER_SEC).abs() < 30.0,
            "rate {}",
            2_000.0 / last
        );
    }
}
