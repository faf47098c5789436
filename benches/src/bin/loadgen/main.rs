//! Load on one server over loopback: every request is new bytes, every answer is timed, the server's CPU is counted.
//!
//! Identical payloads would be answered from the table of digests, so trace and span ids and times are patched into
//! pre-encoded bytes for every request. What is reported: spans a second, spans a CPU-second *of the server*, ack
//! latency, peak memory of the server, and the bare fdatasync latency of the same folder beside it.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod measure;
mod scans;
mod served;
mod wire;

use benches::payload::Payload;
use clap::{Parser, ValueEnum};
use measure::{Usage, fdatasync, us_since};
use scans::{Acks, Scanners, Scans};
use served::Served;
use std::error::Error;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use wire::{Sender, Sent};

type Failure = Box<dyn Error + Send + Sync>;

/// What refusals ask for.
const RETRY_AFTER: Duration = Duration::from_secs(1);

#[derive(Debug, Parser)]
#[command(
    name = "loadgen",
    about = "Load on one server over loopback",
    after_help = "Examples:\n  \
        loadgen --serve target/release/tracegate --spans 512 --seconds 30\n  \
        loadgen --grpc 127.0.0.1:4317 --pid $(pidof tracegate) --spans 64 --connections 8\n  \
        loadgen --http 127.0.0.1:4318 --requests 1000\n  \
        loadgen --serve target/release/tracegate --rate 20000 --seconds 60 --scans 4"
)]
struct Args {
    /// Start this binary on free ports and a folder of its own, and stop it at the end
    #[arg(long, value_name = "BINARY", conflicts_with_all = ["grpc", "http", "pid"])]
    serve: Option<PathBuf>,
    /// Where a running server takes OTLP/gRPC
    #[arg(
        long,
        value_name = "ADDRESS",
        default_value = "127.0.0.1:4317",
        conflicts_with = "http"
    )]
    grpc: SocketAddr,
    /// Send OTLP/HTTP to this address instead
    #[arg(long, value_name = "ADDRESS")]
    http: Option<SocketAddr>,
    /// With --serve or --rotel: send OTLP/HTTP
    #[arg(long, conflicts_with_all = ["grpc", "http"])]
    over_http: bool,
    /// With --serve: its configuration file
    #[arg(long, value_name = "FILE", requires = "serve")]
    config: Option<PathBuf>,
    /// Start this agent of the peer `rotel`, which takes everything and keeps nothing
    #[arg(long, value_name = "BINARY", conflicts_with_all = ["serve", "grpc", "http", "pid"])]
    rotel: Option<PathBuf>,
    /// Core on which the started process runs, alone
    #[arg(long, value_name = "CORE")]
    server_cpu: Option<usize>,
    /// What requests look like
    #[arg(long, value_enum, default_value_t = Shape::Small)]
    payload: Shape,
    /// Text in every span, bytes; with `--payload litellm` in every prompt and answer
    #[arg(long, default_value_t = 0)]
    text: usize,
    /// With gRPC: compress requests
    #[arg(long, value_enum)]
    compress: Option<Compress>,
    /// Process of a running server, for its CPU and memory
    #[arg(long)]
    pid: Option<u32>,
    /// Spans a request; with `--payload litellm` at least, as traces stay whole
    #[arg(long, default_value_t = 512)]
    spans: usize,
    /// Connections, each with one request at a time
    #[arg(long, default_value_t = 8)]
    connections: usize,
    /// How long to measure, seconds
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Stop after this many requests
    #[arg(long)]
    requests: Option<u64>,
    /// Not measured at the start, seconds
    #[arg(long, default_value_t = 2)]
    warmup: u64,
    /// Spans a second to offer; as many as possible by default
    #[arg(long)]
    rate: Option<u64>,
    /// Where the folder of a started server goes, and where fdatasync is timed
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// Seed of all ids
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// With --serve: so many full scans by SQL at a time, in every second stretch
    #[arg(long, value_name = "N", default_value_t = 0, requires = "serve")]
    scans: usize,
    /// With --scans: how long a stretch with and one without scans take, seconds each
    #[arg(long, value_name = "SECONDS", default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..))]
    stretch: u64,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Shape {
    /// Four spans of 600 B a trace
    Small,
    /// A request that LiteLLM's gateway sent, with calls of its own
    Litellm,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Compress {
    Gzip,
    Zstd,
}

/// What one connection saw.
struct Seen {
    acks: Acks,
    acked: u64,
    refused: u64,
}

/// What all connections share.
struct Plan {
    next: AtomicU64,
    requests_max: u64,
    measured_from: Instant,
    until: Instant,
    /// Pause between the requests of one connection, if a rate is asked for.
    pace: Option<Duration>,
    seed: u64,
    acked_in_all: AtomicU64,
    refused_in_all: AtomicU64,
    scans: Arc<Scans>,
}

fn main() -> Result<(), Failure> {
    let args = Args::parse();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    runtime.block_on(run(args))
}

async fn run(args: Args) -> Result<(), Failure> {
    let served = match (&args.serve, &args.rotel) {
        (Some(binary), _) => Some(Served::tracegate(
            binary,
            args.config.as_deref(),
            &args.dir,
            args.server_cpu,
        )?),
        (None, Some(binary)) => Some(Served::rotel(binary, &args.dir, args.server_cpu)?),
        (None, None) => None,
    };
    let pid = served.as_ref().map_or(args.pid, |served| Some(served.pid()));
    let (address, http) = match (&served, args.http) {
        (Some(served), _) if args.over_http => (served.http, true),
        (Some(served), _) => (served.grpc, false),
        (None, Some(address)) => (address, true),
        (None, None) => (args.grpc, false),
    };
    if !address.ip().is_loopback() {
        return Err(format!("{address} is not loopback: this loads a machine of one's own").into());
    }
    let payload = Arc::new(match args.payload {
        Shape::Small => Payload::new(args.spans, args.text),
        Shape::Litellm => Payload::litellm(args.spans, args.text)?,
    });
    let spans_per_request = payload.spans();
    println!(
        "seed {}, {} B a span, {spans_per_request} spans and {} B a request",
        args.seed,
        payload.bytes() / spans_per_request,
        payload.bytes()
    );

    let disk = fdatasync(&args.dir, payload.bytes())?;
    let measured_from = Instant::now() + Duration::from_secs(args.warmup);
    let per_connection = |rate: u64| spans_per_request as f64 * args.connections as f64 / rate as f64;
    let plan = Arc::new(Plan {
        next: AtomicU64::new(0),
        requests_max: args.requests.unwrap_or(u64::MAX),
        measured_from,
        until: measured_from + Duration::from_secs(args.seconds),
        pace: args.rate.map(|rate| Duration::from_secs_f64(per_connection(rate))),
        seed: args.seed,
        acked_in_all: AtomicU64::new(0),
        refused_in_all: AtomicU64::new(0),
        scans: Arc::new(Scans::new(args.scans, measured_from, Duration::from_secs(args.stretch))),
    });
    let api = served.as_ref().and_then(|served| served.api);
    let scanners = api.map(|api| Scanners::start(&plan.scans, api));
    let mut connections = Vec::new();
    for n in 0..args.connections {
        let sender = Sender::connect(address, http, args.compress).await?;
        // Spread over one pause: clients don't send all at once.
        let first = plan.pace.unwrap_or_default() * n as u32 / args.connections as u32;
        connections.push(tokio::spawn(connection(
            sender,
            Arc::clone(&payload),
            Arc::clone(&plan),
            first,
        )));
    }
    tokio::time::sleep_until(measured_from.into()).await;
    let before = pid.map(Usage::of).transpose()?;
    let began = Instant::now();
    let mut acks = Acks::new()?;
    let (mut acked, mut refused) = (0, 0);
    for connection in connections {
        let seen = connection.await??;
        acks.add(&seen.acks)?;
        acked += seen.acked;
        refused += seen.refused;
    }
    let took = began.elapsed().as_secs_f64();
    let after = pid.map(Usage::of).transpose()?;
    let scan_us = scanners.map(|scanners| scanners.end(&plan.scans)).transpose()?;
    let cpu_s = before.zip(after).map(|(before, after)| after.cpu_s - before.cpu_s);
    let stored = match &served {
        Some(served) => served.count_spans()?,
        None => None,
    };
    let acked_in_all = plan.acked_in_all.load(Ordering::Relaxed) * spans_per_request as u64;
    let spans = (acked * spans_per_request as u64) as f64;
    let ms = |us: u64| us as f64 / 1_000.0;
    let mut report = serde_json::json!({
        "transport": if http { "http" } else { "grpc" },
        "spans_per_request": spans_per_request,
        "bytes_per_span": payload.bytes() / spans_per_request,
        "connections": args.connections,
        "seconds": round(took),
        "requests_acked": acked,
        "requests_refused": refused,
        "spans_per_s": round(spans / took),
        "server_cpu_s": cpu_s.map(round),
        "spans_per_server_cpu_s": cpu_s.filter(|cpu| *cpu > 0.0).map(|cpu| round(spans / cpu)),
        "ack_p50_ms": ms(acks.all.value_at_quantile(0.5)),
        "ack_p99_ms": ms(acks.all.value_at_quantile(0.99)),
        "server_rss_peak_mib": after.map(|after| round(after.rss_peak_kib as f64 / 1024.0)),
        "fdatasync_p50_ms": ms(disk.value_at_quantile(0.5)),
        "fdatasync_p99_ms": ms(disk.value_at_quantile(0.99)),
        "spans_acked_with_warmup": acked_in_all,
        "spans_stored": stored,
    });
    if let Some(scan_us) = scan_us.filter(|_| args.scans > 0) {
        acks.report(&scan_us, &mut report);
    }
    for (name, value) in report.as_object().into_iter().flatten() {
        println!("{name:>26}  {value}");
    }
    println!("{report}");
    // A refused request may be stored all the same: its answer came too late, or was lost.
    let any_refused = plan.refused_in_all.load(Ordering::Relaxed) > 0;
    if let Some(stored) = stored
        && (stored < acked_in_all || (stored > acked_in_all && !any_refused))
    {
        return Err(format!("{acked_in_all} spans were acknowledged and {stored} are stored").into());
    }
    Ok(())
}

fn round(value: f64) -> f64 {
    if value.abs() >= 100.0 {
        value.round()
    } else {
        (value * 100.0).round() / 100.0
    }
}

async fn connection(
    mut sender: Sender,
    payload: Arc<Payload>,
    plan: Arc<Plan>,
    first: Duration,
) -> Result<Seen, Failure> {
    let mut seen = Seen {
        acks: Acks::new()?,
        acked: 0,
        refused: 0,
    };
    let mut due = Instant::now() + first;
    while Instant::now() < plan.until {
        let number = plan.next.fetch_add(1, Ordering::Relaxed);
        if number >= plan.requests_max {
            break;
        }
        if let Some(pace) = plan.pace {
            tokio::time::sleep_until(due.into()).await;
            due += pace;
        }
        let body = payload.request(plan.seed, number);
        let beside = plan.scans.beside();
        let began = Instant::now();
        let sent = sender.send(body).await?;
        let measured = began >= plan.measured_from;
        match sent {
            Sent::Acked => {
                plan.acked_in_all.fetch_add(1, Ordering::Relaxed);
                if measured {
                    seen.acked += 1;
                    seen.acks.record(us_since(began), beside);
                }
            }
            Sent::Refused => {
                plan.refused_in_all.fetch_add(1, Ordering::Relaxed);
                seen.refused += u64::from(measured);
                tokio::time::sleep(RETRY_AFTER).await;
            }
        }
    }
    Ok(seen)
}
