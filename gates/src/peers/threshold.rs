//! Fixed thresholds, as Flagger and Argo Rollouts lay them on green.

use super::{AmountLimit, Looks, Peer, PeerArm, PeerConfig, PeerMinute};

/// Fixed thresholds on green alone, checked every interval; rolls back at so many failed checks. A check without green
/// traces neither passes nor fails.
#[derive(Debug)]
pub struct Flagger {
    name: &'static str,
    looks: Looks,
    failure_max: Option<f64>,
    amount_max: Option<AmountLimit>,
    threshold: u32,
    failed: u32,
    green: PeerArm,
}

impl Flagger {
    /// Rolls back at the `threshold`-th failed check.
    #[must_use]
    pub fn new(name: &'static str, config: &PeerConfig, threshold: u32) -> Self {
        Self {
            name,
            looks: Looks::new(config.minute_secs, config.interval_secs),
            failure_max: config.failure_max,
            amount_max: config.amount_max,
            threshold,
            failed: 0,
            green: PeerArm::default(),
        }
    }

    /// Why the traces of one interval fail the check.
    fn complaint(&self, green: &PeerArm) -> Option<String> {
        let rate = green.failure_rate();
        let failures = self.failure_max.filter(|max| green.n > 0 && rate > *max);
        if let Some(max) = failures {
            // to the hundredth, so that no 9.879999 is shown
            let (rate, max) = (100.0 * rate, (1e4 * max).round() / 100.0);
            return Some(format!("{rate:.1} % of green failed, more than {max} %"));
        }
        let limit = self.amount_max?;
        let value = green.amount.quantile(limit.quantile).filter(|v| *v > limit.max)?;
        let (q, max) = (100.0 * limit.quantile, limit.max);
        Some(format!("green's p{q} is {value}, more than {max}"))
    }
}

impl Peer for Flagger {
    fn name(&self) -> &'static str {
        self.name
    }

    fn minute(&mut self, minute: &PeerMinute) -> Option<String> {
        self.green.merge(&minute.green);
        if !self.looks.due(minute.at) {
            return None;
        }
        let green = std::mem::take(&mut self.green);
        let complaint = self.complaint(&green)?;
        self.failed += 1;
        let failed = self.failed;
        (failed >= self.threshold).then(|| format!("{complaint} (failed check {failed})"))
    }
}
