//! Where the CPU of ingest goes, by thread: the pipeline alone in this process, without doors and queries, fed with new
//! requests as fast as it acks them. Made to be profiled; what a user gets is measured by `loadgen` on a whole server.
#![allow(clippy::print_stdout)]

use benches::payload::Payload;
use clap::Parser;
use ingest::{
    intake::Signal,
    pipeline::{self, PipelineConfig},
    read::ReadConfig,
};
use proto::{Nanos, clock::Clock, release::ReleaseBook};
use std::{
    collections::BTreeMap,
    error::Error,
    fs,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};
use store::{Store, StoreOptions};
use tokio::{runtime::Builder, sync::watch};

/// As in the server.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Debug, Parser)]
#[command(
    about = "CPU of ingest by thread",
    after_help = "Example:\n  ingest_cpu --spans 512 --seconds 20 --dir target"
)]
struct Args {
    /// Spans a request
    #[arg(long, default_value_t = 512)]
    spans: usize,
    /// Requests on their way at a time
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// For how long
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Where the data directory is made, and removed afterwards
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// Unsealed rows are sealed at about so many MiB of memory; as configured, if not given
    #[arg(long)]
    seal_mib: Option<usize>,
    /// Seed of all ids
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Clock ticks a second in /proc; 100 on every Linux.
const TICKS_PER_S: f64 = 100.0;
/// The thread that makes requests: no cost of ingest.
const GENERATOR: &str = "ingest_cpu";

type Failure = Box<dyn Error + Send + Sync>;

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let dir = tempfile::tempdir_in(&args.dir)?;
    let (store, recovered) = Store::open(dir.path(), StoreOptions::default())?;
    let (_keep, book) = watch::channel(Arc::new(ReleaseBook::default()));
    let clock: Clock = Arc::new(|| {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Nanos(i64::try_from(now.as_nanos()).unwrap_or(i64::MAX))
    });
    let read = Arc::new(ReadConfig::default());
    let mut config = PipelineConfig::default();
    if let Some(mib) = args.seal_mib {
        config.seal_bytes = mib << 20;
    }
    let pipeline = pipeline::start(store, recovered, config, read, book, Arc::clone(&clock), clock)?;
    let acked = Arc::new(AtomicU64::new(0));
    let began = Instant::now();
    let until = began + Duration::from_secs(args.seconds);
    let runtime = Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let payload = Arc::new(Payload::new(args.spans, 0));
        let next = Arc::new(AtomicU64::new(0));
        let senders: Vec<_> = (0..args.connections)
            .map(|_| {
                let (intake, payload) = (pipeline.intake.clone(), Arc::clone(&payload));
                let (next, acked, seed) = (Arc::clone(&next), Arc::clone(&acked), args.seed);
                tokio::spawn(async move {
                    while Instant::now() < until {
                        let body = payload.request(seed, next.fetch_add(1, Ordering::Relaxed));
                        match intake.submit(Signal::Traces, body).await {
                            Ok(took) => _ = acked.fetch_add(took.accepted, Ordering::Relaxed),
                            Err(_) => tokio::time::sleep(Duration::from_millis(5)).await,
                        }
                    }
                })
            })
            .collect();
        for sender in senders {
            sender.await?;
        }
        Ok::<_, Failure>(())
    })?;
    let wall = began.elapsed().as_secs_f64();
    let spans = acked.load(Ordering::Relaxed) as f64;
    let threads = cpu_by_thread()?;
    println!("seed {}, {} spans acked in {wall:.1} s", args.seed, spans);
    let mut cost = 0.0;
    for (name, seconds) in &threads {
        let us = 1e6 * seconds / spans;
        println!("{name:<16} {us:>7.3} us a span");
        cost += if name == GENERATOR { 0.0 } else { us };
    }
    println!(
        "ingest           {cost:>7.3} us a span, {:.0} spans a CPU-second",
        1e6 / cost
    );
    let (seals, bytes) = (&pipeline.counters.seals, &pipeline.counters.seal_bytes);
    println!(
        "{} seals, {:.0} MiB written by them, peak {} MiB resident",
        seals.load(Ordering::Relaxed),
        bytes.load(Ordering::Relaxed) as f64 / f64::from(1 << 20),
        peak_resident()? >> 10,
    );
    let held = pipeline.counters.assembly();
    println!(
        "{} traces open, {} closed and remembered: {} MiB by their own estimate",
        held.open,
        held.recent,
        held.bytes >> 20
    );
    drop(pipeline);
    Ok(())
}

/// The most memory that this process had, KiB, as the kernel counts.
fn peak_resident() -> Result<u64, Failure> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let number = line.and_then(|line| line.trim().strip_suffix(" kB"));
    Ok(number.ok_or("/proc/self/status has no VmHWM")?.trim().parse()?)
}

/// User and system time of the threads of this process so far, seconds.
fn cpu_by_thread() -> Result<BTreeMap<String, f64>, Failure> {
    let mut out = BTreeMap::new();
    for task in fs::read_dir("/proc/self/task")? {
        let stat = fs::read_to_string(task?.path().join("stat"))?;
        let (head, rest) = stat
            .rsplit_once(") ")
            .ok_or("/proc/self/task/*/stat has another form")?;
        let name = head.split_once('(').map_or("", |(_, name)| name);
        let ticks: Result<Vec<f64>, _> = rest.split(' ').skip(11).take(2).map(str::parse).collect();
        *out.entry(name.to_owned()).or_default() += ticks?.iter().sum::<f64>() / TICKS_PER_S;
    }
    Ok(out)
}
