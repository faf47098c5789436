//! Figures about the instance itself: how full its queues are, how long disks and acks take, how old what people see is,
//! which configuration holds, and what memory the process has.

use super::{Watched, counter, durations, family, gauge, get};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, gauge::ConstGauge},
};
use std::{fmt, fs, path::Path};

/// Bytes of what the kernel calls kB.
const KIB: u64 = 1 << 10;

/// Queues, times, ages, configuration.
#[derive(Debug)]
pub(super) struct Runtime(pub(super) Watched);

impl Collector for Runtime {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        self.queues(&mut out)?;
        self.times(&mut out)?;
        self.configuration(&mut out)
    }
}

impl Runtime {
    fn queues(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Watched { door, pipeline, .. } = &self.0;
        let depths = [
            ("intake", door.waiting_requests() as u64),
            ("lane", get(&pipeline.lane_depth)),
            ("journal", get(&pipeline.journal_depth)),
            ("engine", get(&pipeline.engine_depth)),
        ];
        let help = "what waits: requests for the lane, read requests for a group, groups for the journal, batches for the engine";
        let mut queues = out.encode_descriptor("queue_depth", help, None, MetricType::Gauge)?;
        for (queue, depth) in depths {
            let depth = ConstGauge::new(i64::try_from(depth).unwrap_or(i64::MAX));
            depth.encode(queues.encode_family(&[("queue", queue)])?)?;
        }
        gauge(
            out,
            "inflight_bytes_max",
            "bytes that requests may hold, see ingest_bytes_max",
            door.budget_bytes_max() as u64,
        )?;
        gauge(
            out,
            "journal_disk_bytes",
            "size of the journal's segments on disk",
            journal_bytes(&self.0.journal),
        )
    }

    fn times(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let Watched { door, pipeline, .. } = &self.0;
        let door = door.counters();
        counter(
            out,
            "requests_partial",
            "requests acknowledged as a partial success: some of their spans or log records were rejected alone",
            get(&door.partial_requests),
        )?;
        durations(
            out,
            "ack_seconds",
            "time from a whole request to its ack",
            &door.ack_time,
        )?;
        durations(
            out,
            "journal_fsync_seconds",
            "fdatasync of a journal record",
            &pipeline.fsync_time,
        )?;
        counter(
            out,
            "seal_bytes",
            "bytes of the files and commit records that seals wrote",
            get(&pipeline.seal_bytes),
        )?;
        let age = pipeline.snapshot_age().unwrap_or_default();
        let help = "time since a snapshot was published; it grows while nothing comes";
        let age = ConstGauge::new(age.as_secs_f64());
        age.encode(out.encode_descriptor("snapshot_age_seconds", help, None, MetricType::Gauge)?)
    }

    fn configuration(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let reloads = &self.0.reloads;
        family(
            out,
            "config_reloads",
            "configurations read while running, by outcome",
            "outcome",
            &reloads.counts(),
        )?;
        gauge(
            out,
            "config_refused",
            "1 while the files hold a configuration that was refused and an older one runs, else 0",
            u64::from(reloads.is_refused()),
        )?;
        gauge(
            out,
            "config_waiting",
            "keys that wait for a restart and releases that were refused, of the configuration read last",
            reloads.waiting(),
        )
    }
}

/// Segments come and go while this looks: what is gone counts nothing.
fn journal_bytes(folder: &Path) -> u64 {
    let Ok(entries) = fs::read_dir(folder) else {
        return 0;
    };
    entries
        .flatten()
        .filter_map(|e| e.metadata().ok())
        .map(|m| m.len())
        .sum()
}

/// The process, under the names that every Prometheus client uses.
#[derive(Debug)]
pub(super) struct Process;

impl Collector for Process {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        // Only Linux tells it this cheaply; elsewhere the line is not there, which is not the same as 0.
        match resident_bytes() {
            Some(bytes) => gauge(
                &mut out,
                "process_resident_memory_bytes",
                "memory of the process that is in RAM",
                bytes,
            ),
            None => Ok(()),
        }
    }
}

fn resident_bytes() -> Option<u64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * KIB)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_journal_is_as_large_as_its_files() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(journal_bytes(&dir.path().join("nowhere")), 0);
        fs::write(dir.path().join("a.seg"), [0; 100]).unwrap();
        fs::write(dir.path().join("b.seg"), [0; 23]).unwrap();
        assert_eq!(journal_bytes(dir.path()), 123);
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_process_is_larger_than_a_megabyte() {
        assert!(resident_bytes().unwrap() > 1 << 20);
    }
}
