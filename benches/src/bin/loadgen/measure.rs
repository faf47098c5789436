//! What the kernel knows: CPU time and peak memory of the server, and how long this disk takes to be sure.

use crate::Failure;
use hdrhistogram::Histogram;
use std::fs;
use std::io::Write;
use std::path::Path;
use std::time::Instant;

/// Clock ticks a second in /proc; 100 on every Linux.
const TICKS_PER_S: f64 = 100.0;
/// How often fdatasync is timed, and the most it writes each time, bytes.
const SYNCS: usize = 100;
const SYNC_BYTES_MAX: usize = 256 << 10;

/// An empty histogram of latencies, microseconds up to an hour. Of fixed range: one that grows by itself does not grow
/// for saturating records.
pub(crate) fn latencies_us() -> Result<Histogram<u64>, Failure> {
    Ok(Histogram::new_with_bounds(1, 3_600_000_000, 3)?)
}

/// Use of a process so far.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Usage {
    /// User and system time, seconds.
    pub(crate) cpu_s: f64,
    /// Peak resident memory, KiB.
    pub(crate) rss_peak_kib: u64,
}

impl Usage {
    pub(crate) fn of(pid: u32) -> Result<Self, Failure> {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat"))?;
        // The name in parentheses may hold anything; utime and stime are the 12th and 13th after it.
        let after_name = stat.rsplit_once(") ").ok_or("/proc/PID/stat has another form")?.1;
        let ticks: Vec<f64> = after_name
            .split(' ')
            .skip(11)
            .take(2)
            .map(str::parse)
            .collect::<Result<_, _>>()?;
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let peak = status
            .lines()
            .find_map(|line| line.strip_prefix("VmHWM:"))
            .ok_or("no VmHWM in /proc/PID/status")?;
        let rss_peak_kib = peak.trim().trim_end_matches("kB").trim().parse()?;
        Ok(Self {
            cpu_s: ticks.iter().sum::<f64>() / TICKS_PER_S,
            rss_peak_kib,
        })
    }
}

/// Microseconds since, at least one.
pub(crate) fn us_since(began: Instant) -> u64 {
    u64::try_from(began.elapsed().as_micros()).map_or(u64::MAX, |us| us.max(1))
}

/// Latency of bare append + fdatasync in `folder`, microseconds.
pub(crate) fn fdatasync(folder: &Path, bytes: usize) -> Result<Histogram<u64>, Failure> {
    let path = folder.join(format!("loadgen-{}.sync", std::process::id()));
    let mut file = fs::File::create(&path)?;
    let block = vec![0x5a; bytes.min(SYNC_BYTES_MAX)];
    let mut latency = latencies_us()?;
    for _ in 0..SYNCS {
        file.write_all(&block)?;
        let began = Instant::now();
        file.sync_data()?;
        latency.saturating_record(us_since(began));
    }
    fs::remove_file(path)?;
    Ok(latency)
}
