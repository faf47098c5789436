//! What the pipeline counts. Plain atomics: the metrics page reads them.

use crate::{assemble::Counts, read::ReadCounts};
use std::{
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

/// Durations in buckets that double: bucket `i` holds those below `2^i` us (and at or above half of that).
#[derive(Debug, Default)]
pub struct Durations {
    buckets: [AtomicU64; Self::BUCKETS],
    sum_us: AtomicU64,
}

impl Durations {
    /// Buckets; the last also holds everything longer.
    pub const BUCKETS: usize = 26;

    pub(crate) fn record(&self, took: Duration) {
        let us = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        let bucket = (64 - us.leading_zeros() as usize).min(Self::BUCKETS - 1);
        self.buckets[bucket].fetch_add(1, Relaxed);
        self.sum_us.fetch_add(us, Relaxed);
    }

    /// Upper edge of every bucket in us, with its count.
    pub fn buckets(&self) -> impl Iterator<Item = (u64, u64)> + '_ {
        self.buckets
            .iter()
            .enumerate()
            .map(|(i, count)| (1 << i, count.load(Relaxed)))
    }

    /// How many, and their sum in us.
    #[must_use]
    pub fn total(&self) -> (u64, u64) {
        (
            self.buckets.iter().map(|b| b.load(Relaxed)).sum(),
            self.sum_us.load(Relaxed),
        )
    }
}

/// Totals since start, and gauges.
#[derive(Debug, Default)]
pub struct Counters {
    /// Requests acknowledged (those sent again included).
    pub requests_acked: AtomicU64,
    /// Requests that had come before, by digest.
    pub requests_duplicate: AtomicU64,
    /// Requests that were no readable OTLP.
    pub requests_malformed: AtomicU64,
    /// Requests refused because the journal could not take them.
    pub requests_refused: AtomicU64,
    /// Spans and log records acknowledged.
    pub accepted: AtomicU64,
    /// Spans and log records rejected alone.
    pub rejected: AtomicU64,
    /// Records written.
    pub groups: AtomicU64,
    /// Bytes written to the journal.
    pub journal_bytes: AtomicU64,
    /// Time of append and fdatasync of a record.
    pub journal_time: Durations,
    /// Time of the fdatasync in it.
    pub fsync_time: Durations,
    /// Requests that were read and are not at the journal yet.
    pub lane_depth: AtomicU64,
    /// Groups and ticks that wait for the journal.
    pub journal_depth: AtomicU64,
    /// Batches and ticks that wait for the engine.
    pub engine_depth: AtomicU64,
    /// Last record that is on disk.
    pub durable_lsn: AtomicU64,
    /// Last record that was published.
    pub published_lsn: AtomicU64,
    /// Snapshots published.
    pub publications: AtomicU64,
    /// Unsealed rows.
    pub live_rows: AtomicU64,
    /// Seals done.
    pub seals: AtomicU64,
    /// Seals that failed and were put off.
    pub seal_failures: AtomicU64,
    /// Time of a seal.
    pub seal_time: Durations,
    /// Bytes of the files and commit records that seals wrote.
    pub seal_bytes: AtomicU64,
    /// Last record that is sealed.
    pub sealed_lsn: AtomicU64,
    /// Rewrites of sealed files: joined, or long texts left out.
    pub compactions: AtomicU64,
    /// Files they read.
    pub compacted_files: AtomicU64,
    /// Rows they left out: doubles, and former rows of traces.
    pub compacted_rows_dropped: AtomicU64,
    /// Files whose long texts were left out for their age.
    pub texts_expired_files: AtomicU64,
    /// Files removed for their age or for want of room.
    pub expired_files: AtomicU64,
    /// Their bytes.
    pub expired_bytes: AtomicU64,
    /// Steps of upkeep that failed and are tried again.
    pub upkeep_failures: AtomicU64,
    /// Time of a step of upkeep.
    pub upkeep_time: Durations,
    /// Sealed files that are set aside now.
    pub quarantined_files: AtomicU64,
    /// Time of a look-up of late spans and evaluations.
    pub lookup_time: Durations,
    /// Look-ups that failed because a file could not be read.
    pub lookup_failures: AtomicU64,
    published: Mutex<Option<Instant>>,
    assembly: Mutex<Counts>,
    reading: Mutex<ReadCounts>,
}

pub(super) fn add(counter: &AtomicU64, n: u64) {
    counter.fetch_add(n, Relaxed);
}

pub(super) fn sub(counter: &AtomicU64, n: u64) {
    counter.fetch_sub(n, Relaxed);
}

impl Counters {
    /// Time since the last publication; `None` before the pipeline runs.
    #[must_use]
    pub fn snapshot_age(&self) -> Option<Duration> {
        let published = *self.published.lock().unwrap_or_else(PoisonError::into_inner);
        published.map(|at| at.elapsed())
    }

    pub(super) fn set_published(&self, at: Instant) {
        *self.published.lock().unwrap_or_else(PoisonError::into_inner) = Some(at);
    }

    /// What assembly counted and holds.
    #[must_use]
    pub fn assembly(&self) -> Counts {
        *self.assembly.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the reader left out, and models without a price.
    #[must_use]
    pub fn reading(&self) -> ReadCounts {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn set_reading(&self, counts: &ReadCounts) {
        self.reading
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone_from(counts);
    }

    pub(super) fn set_assembly(&self, counts: Counts) {
        *self.assembly.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}
