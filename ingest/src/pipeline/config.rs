//! Times and limits of the pipeline, all named.

use crate::assemble::Limits;
use std::time::Duration;
use store::Retention;

/// How requests are grouped, published and sealed.
#[derive(Debug, Clone, PartialEq)]
pub struct PipelineConfig {
    /// Times and limits of trace assembly, and the width of a cell's minute.
    pub assembly: Limits,
    /// Requests that wait for the lane; one more is refused as busy.
    pub queued_requests_max: usize,
    /// While more requests wait, a group is kept open for at most this long.
    pub commit_window: Duration,
    /// A group is closed at this many rows.
    pub commit_rows: usize,
    /// A group is closed at about this many bytes of rows.
    pub commit_bytes: usize,
    /// How often time is told to the engine.
    pub tick: Duration,
    /// While records come without a pause, a snapshot is published this often.
    pub publish_window: Duration,
    /// Unsealed rows are sealed at this number.
    pub seal_rows: usize,
    /// Unsealed rows are sealed at about this many bytes of memory.
    pub seal_bytes: usize,
    /// Unsealed rows are sealed at this age.
    pub seal_age: Duration,
    /// A seal that only makes room leaves its commit record, which holds all open and recent traces, to a later one, until
    /// the last record is as old as this.
    pub commit_age: Duration,
    /// The same, by number of seals: what a kill makes the next start read again.
    pub deferred_seals_max: u32,
    /// After a seal failed, wait this long.
    pub seal_retry: Duration,
    /// While nothing is sealed, sealed files are looked after this often.
    pub upkeep_every: Duration,
    /// How long sealed files are kept.
    pub retention: Retention,
    /// How long a request is known by its digest.
    pub digest_age: Duration,
    /// Requests known by their digests; beyond, the oldest are forgotten.
    pub digests_max: usize,
}

impl Default for PipelineConfig {
    fn default() -> Self {
        Self {
            assembly: Limits::default(),
            queued_requests_max: 1_024,
            commit_window: Duration::from_millis(5),
            commit_rows: 16_384,
            commit_bytes: 2 << 20,
            tick: Duration::from_millis(20),
            publish_window: Duration::from_millis(10),
            seal_rows: 1_000_000,
            seal_bytes: 20 << 20,
            seal_age: Duration::from_secs(60),
            commit_age: Duration::from_secs(10),
            deferred_seals_max: 15,
            seal_retry: Duration::from_secs(2),
            upkeep_every: Duration::from_secs(30),
            retention: Retention::default(),
            digest_age: Duration::from_secs(24 * 3_600),
            digests_max: 1_000_000,
        }
    }
}
