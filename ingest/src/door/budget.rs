//! Bytes as a resource: taken before memory is, given back when the memory is.
//!
//! Memory is one limit, patience the other. A queue that fits into memory and takes longer to work off than clients
//! wait is work for nothing: they give up, send again, and the queue never empties. So the share of the budget that may
//! be in use shrinks by what was answered late and grows by what was answered in time; it settles where the wait is
//! [`WAIT_MS_GOAL`], whatever the speed of the machine.
//!
//! A body that is only announced must not keep others out, and one that is refused at its end was sent for nothing. So a
//! body pays for what has come, and once a part of it has come for the rest too (`door::body`). One that is not whole
//! within a second is slow: it pays for what has come, and is not part of the queue that the wait is about.

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
    /// Of `used`, what slow bodies hold that are still coming.
    slow: AtomicUsize,
    /// What may be in use now, of `bytes_max`.
    allowed: AtomicUsize,
}

impl Budget {
    pub(crate) const fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max: AtomicUsize::new(bytes_max),
            used: AtomicUsize::new(0),
            slow: AtomicUsize::new(0),
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
        let slow = self.slow.load(Ordering::Relaxed);
        // A request alone is never late because of itself.
        let others = used.saturating_sub(own).saturating_sub(slow);
        if others > USE_BYTES_MIN && sum.saturating_sub(slow) > self.allowed.load(Ordering::Relaxed) {
            return Err("wait for an answer");
        }
        Ok(sum)
    }

    pub(crate) fn used(&self) -> usize {
        self.used.load(Ordering::Relaxed)
    }

    /// Takes the fixed cost of a request.
    pub(crate) fn charge(self: &Arc<Self>) -> Result<Charge, Refused> {
        let mut charge = Charge {
            budget: Arc::clone(self),
            bytes: 0,
            slow: false,
        };
        charge.grow(REQUEST_BYTES)?;
        Ok(charge)
    }
}

fn busy(cause: &'static str) -> Refused {
    Refused::Busy {
        cause,
        retry_after: retry_after(),
    }
}

/// A wait under way; it ends on drop.
pub(crate) struct Wait {
    budget: Arc<Budget>,
    bytes: usize,
    began: Instant,
}

impl Wait {
    /// Since when, and now for a message of so many bytes: it was unfolded meanwhile.
    pub(crate) fn on(&mut self, bytes: usize) -> Instant {
        self.bytes = bytes;
        self.began
    }

    /// It was answered without any work: that says nothing about the wait.
    pub(crate) fn forget(mut self) {
        self.bytes = 0;
    }
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
    /// It is for a body that is slow, and still coming.
    slow: bool,
}

impl Charge {
    /// Takes what is missing to hold `bytes` and the fixed cost.
    pub(crate) fn grow_to(&mut self, bytes: usize) -> Result<(), Refused> {
        self.grow(bytes.saturating_add(REQUEST_BYTES).saturating_sub(self.bytes))
    }

    /// The body turns out to be slow: from now on it pays for the `bytes` that have come.
    pub(crate) fn turn_slow(&mut self, bytes: usize) {
        self.shrink_to(bytes);
        self.slow = true;
        self.budget.slow.fetch_add(self.bytes, Ordering::Relaxed);
    }

    /// The body is there as a whole, in `bytes` bytes.
    pub(crate) fn finish(&mut self, bytes: usize) {
        self.shrink_to(bytes);
        if std::mem::take(&mut self.slow) {
            self.budget.slow.fetch_sub(self.bytes, Ordering::Relaxed);
        }
    }

    /// What of the queue is this request itself: all, if it is slow and part of no queue.
    const fn own(&self) -> usize {
        if self.slow { usize::MAX } else { self.bytes }
    }

    /// Whether there is room for so much more now; nothing is taken.
    pub(crate) fn has_room(&self, more: usize) -> Result<(), Refused> {
        let room = self.budget.admits(self.budget.used(), self.own(), more);
        room.map(drop).map_err(busy)
    }

    /// Takes more; on refusal nothing changes.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), Refused> {
        let (mut refused, own) = ("", self.own());
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
                if self.slow {
                    self.budget.slow.fetch_add(more, Ordering::Relaxed);
                }
                Ok(())
            }
            Err(_) => Err(busy(refused)),
        }
    }

    /// Gives back what is held beyond `bytes` and the fixed cost.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        self.give_back(self.bytes.saturating_sub(bytes.saturating_add(REQUEST_BYTES)));
    }

    fn give_back(&mut self, bytes: usize) {
        self.bytes -= bytes;
        if self.slow {
            self.budget.slow.fetch_sub(bytes, Ordering::Relaxed);
        }
        self.budget.used.fetch_sub(bytes, Ordering::Relaxed);
    }

    /// Ties the charge to the memory it pays for.
    pub(crate) fn carry(self, body: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Charged { body, _charge: self })
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.give_back(self.bytes);
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

    fn charge(budget: &Arc<Budget>, bytes: usize) -> Result<Charge, Refused> {
        let mut charge = budget.charge()?;
        charge.grow(bytes)?;
        Ok(charge)
    }

    fn has_room(budget: &Arc<Budget>, bytes: usize) -> Result<(), Refused> {
        budget.charge()?.has_room(bytes)
    }

    #[test]
    fn slow_bodies_hold_memory_and_are_no_queue() {
        let budget = Arc::new(Budget::new(256 * MIB));
        // 32 MiB may wait at first
        let mut coming: Vec<Charge> = (0..30).map(|_| charge(&budget, MIB).unwrap()).collect();
        let refused = has_room(&budget, 4 * MIB).unwrap_err();
        assert!(refused.to_string().contains("wait for an answer"), "{refused}");
        coming.iter_mut().for_each(|charge| charge.turn_slow(MIB / 2));
        assert!(budget.used() < 16 * MIB, "what has not come is given back");
        let waiting = charge(&budget, 30 * MIB).unwrap();
        assert!(has_room(&budget, 4 * MIB).is_err());
        for charge in &mut coming {
            charge.grow(MIB / 2).unwrap();
        }
        drop(waiting);
        has_room(&budget, 31 * MIB).unwrap();
        coming.iter_mut().for_each(|charge| charge.finish(MIB));
        assert!(has_room(&budget, 4 * MIB).is_err(), "now they wait");
        let refused = has_room(&budget, 240 * MIB).unwrap_err();
        assert!(refused.to_string().contains("bytes in flight"), "{refused}");
        drop(coming);
        assert_eq!((budget.used(), budget.slow.load(Ordering::Relaxed)), (0, 0));
    }

    #[test]
    fn late_answers_shrink_what_may_wait_and_timely_ones_give_it_back() {
        let budget = Arc::new(Budget::new(64 * MIB));
        budget.answered(64 * MIB, true);
        let charges: Vec<Charge> = (0..6).map(|_| charge(&budget, 5 * MIB).unwrap()).collect();
        for _ in 0..8 {
            budget.answered(5 * MIB, false);
        }
        let refused = has_room(&budget, 5 * MIB).unwrap_err();
        assert!(refused.to_string().contains("wait for an answer"), "{refused}");
        drop(charges);
        let alone = charge(&budget, 60 * MIB);
        assert!(alone.is_ok(), "one request alone always passes");
        drop(alone);
        for _ in 0..8 {
            budget.answered(5 * MIB, true);
        }
        let _most = charge(&budget, 50 * MIB).unwrap();
        charge(&budget, 10 * MIB).unwrap();
        assert!(charge(&budget, 20 * MIB).is_err(), "memory is the last word");
    }

    #[test]
    fn another_budget_holds_at_once() {
        let budget = Arc::new(Budget::new(64 * MIB));
        assert_eq!(budget.body_bytes_max(64 * MIB), 16 * MIB);
        let taken = charge(&budget, 12 * MIB).unwrap();
        budget.set_bytes_max(8 * MIB);
        assert_eq!(budget.body_bytes_max(64 * MIB), 2 * MIB);
        assert!(charge(&budget, MIB).is_err(), "more is in use than there is now");
        drop(taken);
        charge(&budget, MIB).unwrap();
        budget.set_bytes_max(256 * MIB);
        let _large = charge(&budget, 100 * MIB).unwrap();
        assert_eq!(budget.body_bytes_max(MIB), MIB);
    }
}
