//! What compaction, retention and quarantine did to sealed files.

use super::{Desk, Ingest, counter, durations, gauge, get};
use prometheus_client::encoding::DescriptorEncoder;
use std::fmt;

impl Ingest {
    pub(super) fn upkeep(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let disk = &self.pipeline;
        counter(
            out,
            "compactions",
            "rewrites of sealed files, to join them or to leave old texts out",
            get(&disk.compactions),
        )?;
        counter(
            out,
            "compacted_files",
            "sealed files that were rewritten",
            get(&disk.compacted_files),
        )?;
        counter(
            out,
            "compacted_rows_dropped",
            "doubled rows, and replaced rows of traces, that a rewrite left out",
            get(&disk.compacted_rows_dropped),
        )?;
        counter(
            out,
            "texts_expired_files",
            "sealed files whose long texts were left out for their age",
            get(&disk.texts_expired_files),
        )?;
        counter(
            out,
            "expired_files",
            "sealed files removed for their age or for want of room",
            get(&disk.expired_files),
        )?;
        counter(out, "expired_bytes", "their bytes", get(&disk.expired_bytes))?;
        counter(
            out,
            "upkeep_failures",
            "steps of compaction and retention that failed and are tried again",
            get(&disk.upkeep_failures),
        )?;
        gauge(
            out,
            "quarantined_files",
            "sealed files set aside because they are missing or damaged",
            get(&disk.quarantined_files),
        )?;
        durations(
            out,
            "upkeep_seconds",
            "time of a step of compaction and retention",
            &disk.upkeep_time,
        )
    }
}

impl Desk {
    pub(super) fn aging(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let aging = self.0.aging();
        counter(
            out,
            "expired_decisions",
            "decisions removed from the ledger for their age, with their evidence",
            aging.decisions,
        )?;
        counter(
            out,
            "expired_deliveries",
            "their notices, delivered, dead or superseded",
            aging.deliveries,
        )?;
        gauge(
            out,
            "ages_held_back_seconds",
            "how far the wall clock is ahead of the time to which ages count, after a stop or leap that a day has not confirmed",
            aging.ahead.as_secs(),
        )
    }
}
