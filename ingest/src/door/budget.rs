//! Bytes as a resource: taken before memory is, given back when the memory is.
//!
//! Memory is one limit, patience the other. A queue that fits into memory and takes longer to work off than clients
//! wait is work for nothing: they give up, send again, and the queue never empties. So the share of the budget that may
//! be in use shrinks by what was answered late and grows by what was answered in time; it settles where the wait is
//! [`WAIT_MS_GOAL`], whatever the speed of the machine.

use super::refused::Refused;
use super::retry_after;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// What a request costs beside its body, bytes: its task, headers and answer.
pub(crate) const REQUEST_BYTES: usize = 2 * super::KIB;

/// The wait for an answer that the door aims at under overload, ms.
const WAIT_MS_GOAL: u64 = 250;
/// Below this use the wait does not matter: the pipeline must never run dry, bytes.
const USE_BYTES_MIN: usize = 8 * super::MIB;

/// A fixed amount of bytes that requests share.
#[derive(Debug)]
pub(crate) struct Budget {
    /// Can change while requests come: those that have passed stay.
    bytes_max: AtomicUsize,
    used: AtomicUsize,
    /// What may be in use now, of `bytes_max`.
    allowed: AtomicUsize,
}

impl Budget {
    pub(crate) const fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max: AtomicUsize::new(bytes_max),
            used: AtomicUsize::new(0),
            // Until the speed of this machine is known.
            allowed: AtomicUsize::new(bytes_max / 8),
        }
    }

    /// All there is.
    pub(crate) fn bytes_max(&self) -> usize {
        self.bytes_max.load(Ordering::Relaxed)
    }

    /// Another amount from now on. Less than is in use refuses until enough was given back.
    pub(crate) fn set_bytes_max(&self, bytes_max: usize) {
        self.bytes_max.store(bytes_max, Ordering::Relaxed);
        // More must be earned by answers in time; less holds at once.
        self.allowed.fetch_min(bytes_max, Ordering::Relaxed);
    }

    /// The largest body that passes: what is configured, and never above a quarter, so that a request can pass alone.
    pub(crate) fn body_bytes_max(&self, configured: usize) -> usize {
        configured.min(self.bytes_max() / 4)
    }

    /// Times the wait for one answer. Who hangs up has waited too.
    pub(crate) fn wait(self: &Arc<Self>, bytes: usize) -> Wait {
        Wait {
            budget: Arc::clone(self),
            bytes,
            began: Instant::now(),
        }
    }

    fn answered(&self, bytes: usize, in_time: bool) {
        let step = |allowed: usize| {
            Some(if in_time {
                allowed.saturating_add(bytes).min(self.bytes_max())
            } else {
                allowed.saturating_sub(bytes)
            })
        };
        let _ = self.allowed.fetch_update(Ordering::Relaxed, Ordering::Relaxed, step);
    }

    fn admits(&self, used: usize, own: usize, more: usize) -> Result<usize, &'static str> {
        let sum = used.saturating_add(more);
        if sum > self.bytes_max() {
            return Err("bytes in flight");
        }
        // A request alone is never late because of itself.
        if used - own > USE_BYTES_MIN && sum > self.allowed.load(Ordering::Relaxed) {
            return Err("wait for an answer");
        }
        Ok(sum)
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes `bytes` and the fixed cost of a request.
    pub(crate) fn charge(self: &Arc<Self>, bytes: usize) -> Result<Charge, Refused> {
        let mut charge = Charge {
            budget: Arc::clone(self),
            bytes: 0,
        };
        charge.grow(bytes.saturating_add(REQUEST_BYTES))?;
        Ok(charge)
    }
}

/// A wait under way; it ends on drop.
pub(crate) struct Wait {
    budget: Arc<Budget>,
    bytes: usize,
    began: Instant,
}

impl Drop for Wait {
    fn drop(&mut self) {
        let in_time = self.began.elapsed() < Duration::from_millis(WAIT_MS_GOAL);
        self.budget.answered(self.bytes, in_time);
    }
}

/// Bytes taken from a [`Budget`], given back on drop.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    /// Takes more; on refusal nothing changes.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), Refused> {
        let (mut refused, own) = ("", self.bytes);
        let room = |used: usize| {
            let sum = self.budget.admits(used, own, more);
            sum.map_err(|cause| refused = cause).ok()
        };
        match self
            .budget
            .used
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, room)
        {
            Ok(_) => {
                self.bytes += more;
                Ok(())
            }
            Err(_) => Err(Refused::Busy {
                cause: refused,
                retry_after: retry_after(),
            }),
        }
    }

    /// Gives back what is held beyond `bytes` and the fixed cost.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let spare = self.bytes.saturating_sub(bytes.saturating_add(REQUEST_BYTES));
        self.bytes -= spare;
        self.budget.used.fetch_sub(spare, Ordering::Relaxed);
    }

    /// Ties the charge to the memory it pays for.
    pub(crate) fn carry(self, body: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Charged { body, _charge: self })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.budget.used.fetch_sub(self.bytes, Ordering::Relaxed);
    }
}

struct Charged<T> {
    body: T,
    _charge: Charge,
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Charged<T> {
    fn as_ref(&self) -> &[u8] {
        self.body.as_ref()
    }
}

#[cfg(test)]
mod tests {
    use super::super::MIB;
    use super::*;

    #[test]
    fn late_answers_shrink_what_may_wait_and_timely_ones_give_it_back() {
        let budget = Arc::new(Budget::new(64 * MIB));
        budget.answered(64 * MIB, true);
        let charges: Vec<Charge> = (0..6).map(|_| budget.charge(5 * MIB).unwrap()).collect();
        for _ in 0..8 {
            budget.answered(5 * MIB, false);
        }
        let refused = budget.charge(5 * MIB).unwrap_err();
        assert!(refused.to_string().contains("wait for an answer"), "{refused}");
        drop(charges);
        let whole = budget.charge(60 * MIB);
        assert!(whole.is_ok(), "one request alone always passes");
        drop(whole);
        for _ in 0..8 {
            budget.answered(5 * MIB, true);
        }
        let _most = budget.charge(50 * MIB).unwrap();
        budget.charge(10 * MIB).unwrap();
        assert!(budget.charge(20 * MIB).is_err(), "memory is the last word");
    }

    #[test]
    fn another_budget_holds_at_once() {
        let budget = Arc::new(Budget::new(64 * MIB));
        assert_eq!(budget.body_bytes_max(64 * MIB), 16 * MIB);
        let taken = budget.charge(12 * MIB).unwrap();
        budget.set_bytes_max(8 * MIB);
        assert_eq!(budget.body_bytes_max(64 * MIB), 2 * MIB);
        assert!(budget.charge(MIB).is_err(), "more is in use than there is now");
        drop(taken);
        budget.charge(MIB).unwrap();
        budget.set_bytes_max(256 * MIB);
        let _large = budget.charge(100 * MIB).unwrap();
        assert_eq!(budget.body_bytes_max(MIB), MIB);
    }
}
