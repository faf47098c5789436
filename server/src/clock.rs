//! The one place that reads the wall clock.

use proto::clock::{Clock, Nanos};
use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

/// The wall clock, UTC.
#[must_use]
pub fn wall() -> Clock {
    Arc::new(|| {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Nanos::ZERO.plus(since)
    })
}
