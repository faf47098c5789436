//! Full scans by SQL beside the load, in every other stretch of it: what they cost an ack is seen in one run, over the same
//! rows, on the same disk.

use crate::{
    Failure,
    measure::{latencies_us, us_since},
    served::ask,
};
use hdrhistogram::Histogram;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Reads most columns of every row of `spans`, sealed and live.
const SCAN: &str = "SELECT color, count(*), count(DISTINCT span_id), sum(duration_ms), max(name), max(scope), \
    sum(prompt_tokens), sum(completion_tokens), sum(cardinality(map_keys(attributes))), max(received_at) \
    FROM spans GROUP BY color";
/// How often a scanner that rests looks whether it is its turn.
const LOOK: Duration = Duration::from_millis(5);

/// What runs beside a request when it is sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Beside {
    Nothing,
    /// As many scans as were asked for.
    Scans,
    /// Some: a stretch is just beginning or ending.
    Some,
}

/// When scans run, and how many do.
#[derive(Debug)]
pub(crate) struct Scans {
    wanted: usize,
    running: AtomicUsize,
    over: AtomicBool,
    from: Instant,
    stretch: Duration,
}

impl Scans {
    /// `wanted` scans at a time in every second stretch after `from`.
    pub(crate) fn new(wanted: usize, from: Instant, stretch: Duration) -> Self {
        Self {
            wanted,
            running: AtomicUsize::new(0),
            over: AtomicBool::new(false),
            from,
            stretch,
        }
    }

    pub(crate) fn beside(&self) -> Beside {
        match self.running.load(Ordering::Relaxed) {
            0 => Beside::Nothing,
            all if all == self.wanted => Beside::Scans,
            _ => Beside::Some,
        }
    }

    fn is_turn(&self) -> bool {
        let stretches = Instant::now().checked_duration_since(self.from);
        stretches.is_some_and(|since| since.as_nanos() / self.stretch.as_nanos().max(1) % 2 == 1)
    }
}

/// Threads that scan; each gives back how long its scans took.
pub(crate) struct Scanners(Vec<JoinHandle<Result<Histogram<u64>, Failure>>>);

impl Scanners {
    pub(crate) fn start(scans: &Arc<Scans>, api: SocketAddr) -> Self {
        let scanner = || {
            let scans = Arc::clone(scans);
            std::thread::spawn(move || scan(&scans, api))
        };
        Self((0..scans.wanted).map(|_| scanner()).collect())
    }

    /// Ends them; how long each scan took, microseconds.
    pub(crate) fn end(self, scans: &Scans) -> Result<Histogram<u64>, Failure> {
        scans.over.store(true, Ordering::Relaxed);
        let mut took_us = latencies_us()?;
        for scanner in self.0 {
            took_us.add(scanner.join().map_err(|_| "a scanner panicked")??)?;
        }
        Ok(took_us)
    }
}

fn scan(scans: &Scans, api: SocketAddr) -> Result<Histogram<u64>, Failure> {
    let body = serde_json::json!({ "sql": SCAN }).to_string();
    let mut took_us = latencies_us()?;
    while !scans.over.load(Ordering::Relaxed) {
        if !scans.is_turn() {
            std::thread::sleep(LOOK);
            continue;
        }
        let began = Instant::now();
        scans.running.fetch_add(1, Ordering::Relaxed);
        let answer = ask(api, "POST", "/api/v1/sql", &body);
        scans.running.fetch_sub(1, Ordering::Relaxed);
        let answer = answer?;
        if !answer.starts_with("HTTP/1.0 200") {
            return Err(format!("a scan was refused: {answer}").into());
        }
        took_us.saturating_record(us_since(began));
    }
    Ok(took_us)
}

/// Latency of acks, microseconds: of all, of those sent while nothing was scanned, and while every scanner was at it.
pub(crate) struct Acks {
    pub(crate) all: Histogram<u64>,
    quiet: Histogram<u64>,
    beside_scans: Histogram<u64>,
}

impl Acks {
    pub(crate) fn new() -> Result<Self, Failure> {
        Ok(Self {
            all: latencies_us()?,
            quiet: latencies_us()?,
            beside_scans: latencies_us()?,
        })
    }

    pub(crate) fn record(&mut self, us: u64, beside: Beside) {
        self.all.saturating_record(us);
        match beside {
            Beside::Nothing => self.quiet.saturating_record(us),
            Beside::Scans => self.beside_scans.saturating_record(us),
            Beside::Some => {}
        }
    }

    pub(crate) fn add(&mut self, more: &Self) -> Result<(), Failure> {
        self.all.add(&more.all)?;
        self.quiet.add(&more.quiet)?;
        self.beside_scans.add(&more.beside_scans)?;
        Ok(())
    }

    /// Adds what scans cost, and took, to a report.
    pub(crate) fn report(&self, scans: &Histogram<u64>, report: &mut serde_json::Value) {
        let ms = |us: &Histogram<u64>, quantile| us.value_at_quantile(quantile) as f64 / 1_000.0;
        report["scans"] = scans.len().into();
        for (what, us) in [
            ("scan", scans),
            ("quiet_ack", &self.quiet),
            ("scanned_ack", &self.beside_scans),
        ] {
            report[format!("{what}_p50_ms")] = ms(us, 0.5).into();
            report[format!("{what}_p99_ms")] = ms(us, 0.99).into();
        }
        report["quiet_acks"] = self.quiet.len().into();
        report["scanned_acks"] = self.beside_scans.len().into();
        let ratio = ms(&self.beside_scans, 0.99) / ms(&self.quiet, 0.99);
        report["scanned_ack_p99_ratio"] = ((ratio * 100.0).round() / 100.0).into();
    }
}
