//! Rules that others roll back by, as state machines over minutes: what a backtest or a simulation holds ours against.
//!
//! | rule | looks | rolls back when | source |
//! | --- | --- | --- | --- |
//! | [`Flagger`] style | every interval, at that interval's green traces | so many checks failed, consecutive or not | `pkg/controller/scheduler.go` of fluxcd/flagger: `FailedChecks >= threshold` |
//! | [`Flagger`] with one check: Argo Rollouts style | the same | one measurement failed | `docs/features/analysis.md` of argoproj/argo-rollouts: a web metric whose `failureLimit` is left at 0 |
//! | [`Kayenta`] style | every half hour, at everything so far | the interval of the shift by the Mann-Whitney U test at 98 % lies above a quarter of the shift | `MannWhitneyClassifier.scala` of spinnaker/kayenta, as `NetflixACAJudge` calls it |
//! | [`ZTest`], peeked | every interval, at everything so far | p < alpha, one-sided, as if it were the only look | two proportions, pooled |
//! | [`Welch`], peeked | the same | the same | two means, unequal variances |
//!
//! They read the same counts as a gate and act on green being worse only. None of them keeps the chance of a false
//! rollback below a level when it is looked at again and again; that is what the comparison is for. Rules that look at
//! green alone know nothing of blue, so a common outage is green's fault to them.

mod peeked;
mod threshold;

pub use peeked::{Kayenta, Welch, ZTest};
pub use threshold::Flagger;

use proto::Histogram;

/// Traces of one color in one minute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerArm {
    /// Traces.
    pub n: i64,
    /// Those that failed.
    pub failures: i64,
    /// An amount of theirs (latency, cost), in its integer unit; empty if only failures are compared.
    pub amount: Histogram,
}

impl PeerArm {
    /// Adds what `other` counted.
    pub fn merge(&mut self, other: &Self) {
        self.n += other.n;
        self.failures += other.failures;
        self.amount.merge(&other.amount, 1);
    }

    fn failure_rate(&self) -> f64 {
        self.failures as f64 / self.n.max(1) as f64
    }
}

/// Both colors in one minute.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct PeerMinute {
    /// Its start, unix seconds.
    pub at: i64,
    /// Blue's traces.
    pub blue: PeerArm,
    /// Green's.
    pub green: PeerArm,
}

/// Highest tolerated quantile of green's amount.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AmountLimit {
    /// Which quantile, in (0, 1).
    pub quantile: f64,
    /// Its highest tolerated value, integer unit of the amount.
    pub max: u64,
}

/// How the rules are set. The default is what their documentation shows, where it shows anything.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct PeerConfig {
    /// Width of a minute, seconds.
    pub minute_secs: i64,
    /// Seconds between two checks of a threshold, or two looks of a peeked test.
    pub interval_secs: i64,
    /// Highest tolerated share of failed green traces in one check; `None` if no threshold is laid on it.
    pub failure_max: Option<f64>,
    /// Highest tolerated quantile of green's amount in one check.
    pub amount_max: Option<AmountLimit>,
    /// Failed checks at which the Flagger style rolls back.
    pub failed_checks: u32,
    /// Seconds between two Kayenta judgements.
    pub judge_secs: i64,
    /// Kayenta's confidence level, two-sided, in (0, 1).
    pub confidence: f64,
    /// Level of a peeked test, one-sided, in (0, 1).
    pub alpha: f64,
}

impl Default for PeerConfig {
    fn default() -> Self {
        Self {
            minute_secs: 60,
            interval_secs: 60,
            failure_max: Some(0.05),
            amount_max: None,
            failed_checks: 5,
            judge_secs: 1_800,
            confidence: 0.98,
            alpha: 0.01,
        }
    }
}

/// A rule at work on one release.
pub trait Peer: Send {
    /// What it is called in tables.
    fn name(&self) -> &'static str;

    /// Takes the next minute, later than all before; says why it rolls back, if now it does. What it says after that
    /// has no meaning.
    fn minute(&mut self, minute: &PeerMinute) -> Option<String>;
}

/// Every rule. The two that need a threshold are left out if `config` has none.
#[must_use]
pub fn all(config: &PeerConfig) -> Vec<Box<dyn Peer>> {
    let mut rules: Vec<Box<dyn Peer>> = Vec::new();
    if config.failure_max.is_some() || config.amount_max.is_some() {
        rules.push(Box::new(Flagger::new("Flagger style", config, config.failed_checks)));
        rules.push(Box::new(Flagger::new("Argo Rollouts style", config, 1)));
    }
    rules.push(Box::new(Kayenta::new(config)));
    rules.push(Box::new(ZTest::new(config)));
    rules.push(Box::new(Welch::new(config)));
    rules
}

/// What a rule would have done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PeerOutcome {
    /// Name of the rule.
    pub name: &'static str,
    /// Start of the minute in which it would have rolled back (unix seconds), and why; `None` if it would not.
    pub rollback: Option<(i64, String)>,
}

/// Runs every rule over minutes in ascending order.
#[must_use]
pub fn replay<'a>(
    config: &PeerConfig,
    minutes: impl IntoIterator<Item = &'a PeerMinute, IntoIter: Clone>,
) -> Vec<PeerOutcome> {
    let minutes = minutes.into_iter();
    let outcome = |mut rule: Box<dyn Peer>| PeerOutcome {
        name: rule.name(),
        rollback: minutes.clone().find_map(|m| rule.minute(m).map(|why| (m.at, why))),
    };
    all(config).into_iter().map(outcome).collect()
}

/// Says when a look is due: every so many seconds from the first minute on.
#[derive(Debug)]
struct Looks {
    minute_secs: i64,
    every: i64,
    due: Option<i64>,
}

impl Looks {
    const fn new(minute_secs: i64, every: i64) -> Self {
        Self {
            minute_secs,
            every,
            due: None,
        }
    }

    /// Whether a look falls on the end of the minute that starts at `at`.
    fn due(&mut self, at: i64) -> bool {
        let due = self.due.get_or_insert(at + self.every);
        let end = at + self.minute_secs;
        let is_due = end >= *due;
        if is_due {
            *due = end + self.every;
        }
        is_due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::bucket;
    use std::collections::BTreeMap;

    /// 100 traces of each color, of which so many failed; every amount is 1,000.
    fn minute(at: i64, blue: i64, green: i64) -> PeerMinute {
        let arm = |failures| PeerArm {
            n: 100,
            failures,
            amount: [(bucket::index_of(1_000), 100)].into_iter().collect(),
        };
        PeerMinute {
            at: 60 * at,
            blue: arm(blue),
            green: arm(green),
        }
    }

    fn outcomes(config: &PeerConfig, minutes: &[PeerMinute]) -> BTreeMap<&'static str, Option<i64>> {
        let at = |o: PeerOutcome| (o.name, o.rollback.map(|(at, _)| at / 60));
        replay(config, minutes).into_iter().map(at).collect()
    }

    #[test]
    fn a_threshold_counts_failed_checks_and_knows_nothing_of_blue() {
        // Both colors fail alike; the minutes above 5 % are 1, 3, 4, 6, 9.
        let failures = [3, 6, 5, 7, 6, 2, 8, 0, 5, 6, 9];
        let minutes: Vec<_> = (0..).zip(failures).map(|(at, f)| minute(at, f, f)).collect();
        let outcomes = outcomes(&PeerConfig::default(), &minutes);
        assert_eq!(outcomes["Argo Rollouts style"], Some(1));
        assert_eq!(outcomes["Flagger style"], Some(9));
        assert_eq!(outcomes["z-test, peeked"], None);
        assert_eq!(outcomes["Kayenta style"], None);
    }

    #[test]
    fn a_check_reads_its_own_interval_alone() {
        let config = PeerConfig {
            interval_secs: 180,
            failed_checks: 2,
            ..PeerConfig::default()
        };
        // Means of three minutes: 5, 6, then nothing at all, then 8.
        let failures = [3, 6, 6, 7, 6, 5, 8, 8, 8];
        let mut minutes: Vec<_> = (0..).zip(failures).map(|(at, f)| minute(at, f, f)).collect();
        for late in &mut minutes[6..] {
            late.at += 600;
        }
        let outcomes = outcomes(&config, &minutes);
        assert_eq!(outcomes["Argo Rollouts style"], Some(5));
        assert_eq!(outcomes["Flagger style"], Some(16));
    }

    #[test]
    fn a_quantile_has_a_threshold_of_its_own() {
        let limited = |max| PeerConfig {
            failure_max: None,
            amount_max: Some(AmountLimit { quantile: 0.99, max }),
            ..PeerConfig::default()
        };
        let minutes: Vec<_> = (0..5).map(|at| minute(at, 0, 50)).collect();
        assert_eq!(outcomes(&limited(999), &minutes)["Flagger style"], Some(4));
        assert_eq!(outcomes(&limited(1_000), &minutes)["Flagger style"], None);
        let neither = PeerConfig {
            amount_max: None,
            ..limited(1)
        };
        assert_eq!(all(&neither).len(), 3);
    }

    #[test]
    fn tests_see_a_worse_green_and_say_why() {
        let mut minutes: Vec<_> = (0..60).map(|at| minute(at, 3, 6)).collect();
        let at = outcomes(&PeerConfig::default(), &minutes);
        // 15 of 500 and 30 of 500: z = 2.29; one minute later 2.51.
        assert_eq!(at["z-test, peeked"], Some(5));
        assert_eq!(at["Kayenta style"], Some(29));
        assert_eq!(at["Welch's t-test, peeked"], None);
        for m in &mut minutes {
            m.green.failures = 3;
            (m.blue.amount, m.green.amount) = Default::default();
            for value in 0..40 {
                m.blue.amount.record(1_000 + 10 * value, 1);
                m.green.amount.record(1_050 + 10 * value, 1);
            }
        }
        let outcomes = replay(&PeerConfig::default(), &minutes);
        let why = |name| {
            let outcome = outcomes.iter().find(|o| o.name == name).unwrap();
            outcome.rollback.clone().unwrap()
        };
        assert_eq!(why("Kayenta style").0, 29 * 60);
        assert!(why("Kayenta style").1.contains("amounts rank higher"));
        assert!(
            why("Welch's t-test, peeked")
                .1
                .contains("green's mean is 1245 and blue's 1195")
        );
    }
}
