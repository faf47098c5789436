//! Bytes as a resource: taken before memory is, given back when the memory is.

use super::refused::Refused;
use super::retry_after;
use bytes::Bytes;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// What a request costs beside its body, bytes: its task, headers and answer.
pub(crate) const REQUEST_BYTES: usize = 2 * super::KIB;

/// A fixed amount of bytes that requests share.
#[derive(Debug)]
pub(crate) struct Budget {
    bytes_max: usize,
    used: AtomicUsize,
}

impl Budget {
    pub(crate) const fn new(bytes_max: usize) -> Self {
        Self {
            bytes_max,
            used: AtomicUsize::new(0),
        }
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

/// Bytes taken from a [`Budget`], given back on drop.
#[derive(Debug)]
pub(crate) struct Charge {
    budget: Arc<Budget>,
    bytes: usize,
}

impl Charge {
    /// Takes more; on refusal nothing changes.
    pub(crate) fn grow(&mut self, more: usize) -> Result<(), Refused> {
        let room = |used: usize| {
            used.checked_add(more)
                .filter(|sum| *sum <= self.budget.bytes_max)
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
                cause: "bytes in flight",
                retry_after: retry_after(),
            }),
        }
    }

    /// Gives back what is held beyond `bytes` and the fixed cost.
    pub(crate) fn shrink_to(&mut self, bytes: usize) {
        let spare = self
            .bytes
            .saturating_sub(bytes.saturating_add(REQUEST_BYTES));
        self.bytes -= spare;
        self.budget.used.fetch_sub(spare, Ordering::Relaxed);
    }

    /// Ties the charge to the memory it pays for.
    pub(crate) fn carry(self, body: impl AsRef<[u8]> + Send + 'static) -> Bytes {
        Bytes::from_owner(Charged {
            body,
            _charge: self,
        })
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
