//! When a notice is tried again. A rollback cannot wait for the usual five minutes of a webhook's third attempt.

use std::time::Duration;

/// Waits before the first attempts.
const FIRST: [Duration; 7] = [
    Duration::ZERO,
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(4),
    Duration::from_secs(8),
    Duration::from_secs(15),
];
/// Then this, give or take [`JITTER`], until [`EAGER`] after the decision.
const OFTEN: Duration = Duration::from_secs(12);
const JITTER: f64 = 0.2;
const EAGER: Duration = Duration::from_secs(2 * 3600);
/// Then this, until [`GIVE_UP`].
const SELDOM: Duration = Duration::from_secs(300);
/// After this the notice is dead, and a person may replay it.
pub const GIVE_UP: Duration = Duration::from_secs(24 * 3600);

/// The wait from the start of the last attempt to the next one, or `None` when it is time to give up. `attempts` have
/// been made, the notice is `age` old, `chance` in [0, 1) spreads the load.
#[must_use]
pub fn wait(attempts: u32, age: Duration, chance: f64) -> Option<Duration> {
    if age >= GIVE_UP {
        return None;
    }
    if let Some(first) = FIRST.get(attempts as usize) {
        return Some(*first);
    }
    if age >= EAGER {
        return Some(SELDOM);
    }
    Some(OFTEN.mul_f64(1.0 - JITTER + 2.0 * JITTER * chance.clamp(0.0, 1.0)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_receiver_that_comes_back_within_two_hours_hears_within_fifteen_seconds() {
        for attempts in 0..700 {
            let age = Duration::from_secs(u64::from(attempts) * 10);
            if age < EAGER {
                assert!(wait(attempts, age, 0.999).unwrap() <= Duration::from_secs(15));
            }
        }
        assert_eq!(wait(0, Duration::ZERO, 0.5), Some(Duration::ZERO));
        assert_eq!(wait(1, Duration::ZERO, 0.5), Some(Duration::from_millis(500)));
        assert_eq!(wait(700, EAGER, 0.5), Some(SELDOM));
        assert_eq!(wait(1_000, GIVE_UP, 0.5), None);
    }
}
