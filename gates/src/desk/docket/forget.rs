//! What the desk forgets with age, and to what time ages count.

use super::Docket;
use crate::{desk::Aging, ledger::Expired};
use std::time::{Duration, Instant};

/// How often old decisions are looked for, and how old the time to which ages count may be after a kill.
const LOOK_EVERY: Duration = Duration::from_secs(3_600);

impl Docket {
    /// Lets ages go on, and now and then removes decisions that are too old.
    pub(super) fn forget(&mut self) {
        let was_ahead = self.ages.ahead();
        let (wall, now) = ((self.clock)(), Instant::now());
        let to = self.ages.tell(wall, now.duration_since(self.begun));
        let ahead = self.ages.ahead();
        self.aging = Aging {
            to,
            ahead,
            ..self.aging
        };
        if was_ahead.is_zero() && !ahead.is_zero() {
            tracing::warn!(
                counted_to = to.rfc3339(),
                "the clock is {} s ahead of the time known last, after a stop or a leap: ages count on from there until it has \
                 stayed so for a day",
                ahead.as_secs()
            );
        }
        if self.look_at.is_some_and(|at| now < at) {
            return;
        }
        self.look_at = Some(now + LOOK_EVERY);
        match self.ledger.expire(to, self.config.decisions_kept) {
            Ok(expired) => self.forgot(expired),
            Err(e) => tracing::error!(error = %e, "old decisions cannot be removed; it is tried again"),
        }
    }

    fn forgot(&mut self, expired: Expired) {
        self.aging.decisions += expired.decisions;
        self.aging.deliveries += expired.deliveries;
        if expired.more {
            self.look_at = None;
        }
        if expired.decisions > 0 {
            let (decisions, deliveries) = (expired.decisions, expired.deliveries);
            tracing::info!(decisions, deliveries, "old decisions are removed");
        }
    }
}
