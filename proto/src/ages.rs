//! The time to which ages count: what is removed for its age must not go because the clock leapt.
//!
//! It follows the wall clock. What the wall clock is ahead of it by more than [`LEAP_MAX`], beyond the time that really
//! passed, is a leap: a fault of the clock, or a stop. Ages then go on from where they were, at the pace of real time, until
//! the wall clock has kept its new place for [`CONFIRMED_AFTER`]. Backward it follows at once: that removes nothing.

use crate::Nanos;
use std::time::Duration;

/// The wall clock may be ahead by this much and is followed.
pub const LEAP_MAX: Duration = Duration::from_secs(3_600);
/// A leap is believed after this much running time.
pub const CONFIRMED_AFTER: Duration = Duration::from_secs(24 * 3_600);

/// The time to which ages count. It is told two clocks: the wall's, and one that only goes forward at the pace of real time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ages {
    to: Nanos,
    told: Duration,
    leap: Option<Leap>,
}

/// A leap that nobody has confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Leap {
    /// When it was seen, by the clock that only goes forward.
    seen: Duration,
    /// The wall clock then.
    wall: Nanos,
    /// How far the wall clock was ahead when last told.
    ahead: Duration,
}

impl Ages {
    /// From the time to which ages counted when `running` was read.
    #[must_use]
    pub const fn new(to: Nanos, running: Duration) -> Self {
        Self {
            to,
            told: running,
            leap: None,
        }
    }

    /// Takes both clocks and says to what time ages count now.
    pub fn tell(&mut self, wall: Nanos, running: Duration) -> Nanos {
        let walked = self.to.plus(running.saturating_sub(self.told));
        self.told = running;
        let ahead = wall.since(walked);
        self.leap = (ahead > LEAP_MAX)
            .then(|| self.leap.filter(|leap| leap.is_kept(wall, running)))
            .map(|same| {
                same.map_or(
                    Leap {
                        seen: running,
                        wall,
                        ahead,
                    },
                    |leap| Leap { ahead, ..leap },
                )
            })
            .filter(|leap| running.saturating_sub(leap.seen) < CONFIRMED_AFTER);
        self.to = if self.leap.is_some() { walked } else { wall };
        self.to
    }

    /// The time to which ages count.
    #[must_use]
    pub const fn to(&self) -> Nanos {
        self.to
    }

    /// How far the wall clock is ahead, while that is not confirmed; else zero.
    #[must_use]
    pub fn ahead(&self) -> Duration {
        self.leap.map_or(Duration::ZERO, |leap| leap.ahead)
    }
}

impl Leap {
    /// Whether the wall clock has gone on from its new place as real time did.
    fn is_kept(&self, wall: Nanos, running: Duration) -> bool {
        let expected = self.wall.plus(running.saturating_sub(self.seen));
        wall.since(expected).max(expected.since(wall)) <= LEAP_MAX
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3_600);
    const YEAR: Duration = Duration::from_secs(365 * 24 * 3_600);
    const T0: Nanos = Nanos::from_secs(1_800_000_000);

    /// Tells every minute from `from` on, for `hours`; the wall is ahead of real time by `ahead`.
    fn run(ages: &mut Ages, from: Duration, hours: u32, ahead: Duration) -> Duration {
        for minute in 1..=hours * 60 {
            let running = from + Duration::from_secs(u64::from(minute) * 60);
            ages.tell(T0.plus(running + ahead), running);
        }
        from + hours * HOUR
    }

    #[test]
    fn they_follow_the_wall_clock_also_where_nothing_comes() {
        let mut ages = Ages::new(T0, Duration::ZERO);
        let now = run(&mut ages, Duration::ZERO, 50, Duration::ZERO);
        assert_eq!((ages.to(), ages.ahead()), (T0.plus(now), Duration::ZERO));
        // A process that nobody asked for a week has run all the while.
        assert_eq!(
            ages.tell(T0.plus(now + 168 * HOUR), now + 168 * HOUR),
            T0.plus(now + 168 * HOUR)
        );
        let next = now + 169 * HOUR;
        assert_eq!(
            ages.tell(T0.plus(next + HOUR), next),
            T0.plus(next + HOUR),
            "an hour is no leap"
        );
    }

    #[test]
    fn a_leap_of_years_counts_only_after_a_day_and_until_then_real_time_goes_on() {
        let mut ages = Ages::new(T0, Duration::ZERO);
        let now = run(&mut ages, Duration::ZERO, 1, Duration::ZERO);
        let now = run(&mut ages, now, 24, 5 * YEAR);
        assert_eq!((ages.to(), ages.ahead()), (T0.plus(now), 5 * YEAR));
        let now = run(&mut ages, now, 1, 5 * YEAR);
        assert_eq!((ages.to(), ages.ahead()), (T0.plus(now + 5 * YEAR), Duration::ZERO));
    }

    #[test]
    fn a_clock_that_is_put_right_or_leaps_again_confirms_nothing() {
        let mut ages = Ages::new(T0, Duration::ZERO);
        let now = run(&mut ages, Duration::ZERO, 23, YEAR);
        let now = run(&mut ages, now, 1, Duration::ZERO);
        assert_eq!((ages.to(), ages.ahead()), (T0.plus(now), Duration::ZERO));
        let mut now = now;
        for years in 1..=5 {
            now = run(&mut ages, now, 20, years * YEAR);
            assert_eq!(ages.to(), T0.plus(now), "year {years}");
        }
        let now = run(&mut ages, now, 5, 5 * YEAR);
        assert_eq!(ages.to(), T0.plus(now + 5 * YEAR));
    }

    #[test]
    fn a_stop_is_a_leap_too_and_a_step_back_is_followed_at_once() {
        let mut ages = Ages::new(T0, Duration::ZERO);
        let stopped = 48 * HOUR;
        assert_eq!(ages.tell(T0.plus(stopped), Duration::ZERO), T0);
        let now = run(&mut ages, Duration::ZERO, 25, stopped);
        assert_eq!(ages.to(), T0.plus(stopped + now));
        assert_eq!(ages.tell(T0, now), T0);
        assert_eq!(ages.ahead(), Duration::ZERO);
    }
}
