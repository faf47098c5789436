//! `tracegate import`: recorded OTLP, from files or a pipe, through the same door as what comes live.
//!
//! ```text
//! files --read (a thread)--> requests --bounded--> sender, so many at a time --OTLP/HTTP--> a server, or this process
//! ```

mod local;
mod report;
mod send;
mod source;
#[cfg(test)]
mod tests;

use super::{OutputError, http_client};
use clap::Args;
use local::Local;
use report::Report;
use send::{Answer, Sender, Stop};
use source::{Found, Source};
use std::{io::Write, path::PathBuf, process::ExitCode, sync::Arc, time::Duration};
use tokio::{sync::mpsc, task::JoinSet};

/// Where the server takes OTLP over HTTP by default.
const SERVER_DEFAULT: &str = "http://127.0.0.1:4318";
/// Requests that are read ahead of those under way.
const READ_AHEAD: usize = 2;
/// Longest time for one answer: a server waits up to 30 s for its disk.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);
/// Most requests at a time that may be asked for.
const CONCURRENCY_MAX: usize = 64;

/// What to import, and where to.
#[derive(Debug, Args)]
#[command(
    after_help = "FILE holds lines of OTLP/JSON as the Collector's file exporter writes them, one OTLP/JSON object, or one\n\
    captured OTLP/protobuf request (*.pb); each may be packed by gzip or zstd. `-` reads stdin.\n\n\
    Requests that were taken are recognised for 24 hours, so an import that broke off can be run again as it is.\n\n\
    Examples:\n  tracegate import traces.jsonl\n  tracegate import --server http://127.0.0.1:4318 captures/*.otlp.pb\n  \
    zcat old.jsonl.gz | tracegate import --data-dir ./tracegate-data -"
)]
pub struct ImportArgs {
    /// Where the server takes OTLP over HTTP
    #[arg(long, value_name = "URL", default_value = SERVER_DEFAULT)]
    server: String,
    /// Write into this data directory, of which no server is running, instead of sending to one
    #[arg(long, value_name = "DIR", conflicts_with = "server")]
    data_dir: Option<PathBuf>,
    /// With --data-dir: the server's configuration, TOML [default: ./tracegate.toml if it is there]
    #[arg(long, value_name = "FILE", requires = "data_dir")]
    config: Option<PathBuf>,
    /// Requests under way at a time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=CONCURRENCY_MAX as u64))]
    concurrency: usize,
    /// Files, or `-` for stdin
    #[arg(value_name = "FILE", required = true)]
    files: Vec<PathBuf>,
}

pub(super) async fn run(args: ImportArgs, out: &mut (dyn Write + Send)) -> miette::Result<ExitCode> {
    let local = match &args.data_dir {
        Some(dir) => Some(Local::open(dir, args.config.as_deref()).await?),
        None => None,
    };
    let server = local.as_ref().map_or_else(|| args.server.clone(), Local::url);
    let sender = Sender::new(&server, http_client(ANSWER_TIMEOUT)?)?;
    let interrupted = async { _ = tokio::signal::ctrl_c().await };
    let report = import(args.files, sender, args.concurrency, interrupted).await;
    if let Some(local) = local {
        local.close(report.stopped.is_none()).await?;
    }
    out.write_all(report.summary().as_bytes()).map_err(OutputError)?;
    Ok(if report.is_complete() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    })
}

/// Sends everything in `files`, until the end, something that makes going on useless, or `interrupted`.
async fn import(
    files: Vec<PathBuf>,
    sender: Sender,
    concurrency: usize,
    interrupted: impl Future<Output = ()>,
) -> Report {
    let (found_in, mut found) = mpsc::channel(READ_AHEAD);
    // A read from a pipe cannot be called off: this thread may outlive the import, and ends with the process.
    std::thread::spawn(move || Source::new(files).read(&mut |found: Found| found_in.blocking_send(found).is_ok()));
    let sender = Arc::new(sender);
    let (mut report, mut under_way) = (Report::new(), JoinSet::<Answer>::new());
    tokio::pin!(interrupted);
    while report.stopped.is_none() {
        tokio::select! {
            biased;
            () = &mut interrupted => report.stop(Stop::Interrupted),
            Some(answer) = under_way.join_next() => report.answered(answer),
            next = found.recv(), if under_way.len() < concurrency => match next {
                Some(Found::Request(request)) => {
                    let sender = Arc::clone(&sender);
                    report.begun(&request);
                    under_way.spawn(async move { sender.send(request).await });
                }
                Some(Found::Bad(place, why)) => report.bad(&place, &why),
                Some(Found::Unkept) => report.unkept(),
                None if under_way.is_empty() => break,
                None => {
                    let answer = under_way.join_next().await;
                    answer.into_iter().for_each(|answer| report.answered(answer));
                }
            },
        }
    }
    // What is under way is heard out, unless it is asked to stop once more.
    loop {
        tokio::select! {
            answer = under_way.join_next() => match answer {
                Some(answer) => report.answered(answer),
                None => break,
            },
            _ = tokio::signal::ctrl_c(), if report.stopped.is_some() => break,
        }
    }
    report.finish();
    report
}
