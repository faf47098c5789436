//! `tracegate serve`: one instance in the foreground, until Ctrl-C or SIGTERM. SIGHUP, or a change of its files, gives it
//! another configuration.

mod files;

use crate::{
    clock,
    config::{Config, Door, address},
    logs,
    wire::{App, STOP_MAX},
};
use clap::{Args, ValueEnum};
use files::Files;
use miette::IntoDiagnostic;
use std::{net::SocketAddr, path::PathBuf, process::ExitCode};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::timeout,
};

/// Flags of `serve`; each wins over the file.
#[derive(Debug, Args)]
#[command(after_help = "Without --config, ./tracegate.toml is read if it is there.\n\n\
    Examples:\n  tracegate serve\n  tracegate serve --config /etc/tracegate.toml --data-dir /var/lib/tracegate\n\n\
    SIGHUP, or a change of the file or of what it includes, reloads the configuration; SIGTERM and Ctrl-C drain and stop.\n    \
    TRACEGATE_LOG sets what is logged to stderr (info; debug; ingest=debug,server=info).")]
pub struct ServeArgs {
    /// Configuration, TOML
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Where everything is kept [default: tracegate-data]
    #[arg(long, value_name = "DIR")]
    pub data_dir: Option<PathBuf>,
    /// Where to receive OTLP over gRPC; port 0 takes a free one [default: 127.0.0.1:4317]
    #[arg(long, value_name = "HOST:PORT", value_parser = address::parse)]
    pub otlp_grpc: Option<SocketAddr>,
    /// Where to receive OTLP over HTTP [default: 127.0.0.1:4318]
    #[arg(long, value_name = "HOST:PORT", value_parser = address::parse)]
    pub otlp_http: Option<SocketAddr>,
    /// Where to serve the API [default: 127.0.0.1:4320]
    #[arg(long, value_name = "HOST:PORT", value_parser = address::parse)]
    pub http: Option<SocketAddr>,
    /// Listen beyond this machine although nobody has to show a credential
    #[arg(long)]
    pub insecure: bool,
    /// What to do with an unreadable record in the middle of the journal
    #[arg(long, value_enum, default_value_t = JournalRecovery::Strict)]
    pub journal_recovery: JournalRecovery,
}

/// What to do with an unreadable record in the middle of the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum JournalRecovery {
    /// Refuse to start
    Strict,
    /// Leave it out, count it, and go on
    Skip,
}

impl ServeArgs {
    /// Flags over the file.
    fn over(&self, mut config: Config) -> Config {
        if let Some(dir) = &self.data_dir {
            config.data_dir.clone_from(dir);
        }
        for (door, address) in [
            (Door::OtlpGrpc, self.otlp_grpc),
            (Door::OtlpHttp, self.otlp_http),
            (Door::Http, self.http),
        ] {
            if let Some(address) = address {
                config.listen(door, address);
            }
        }
        config.insecure |= self.insecure;
        config.recovery = match self.journal_recovery {
            JournalRecovery::Strict => store::JournalRecovery::Strict,
            JournalRecovery::Skip => store::JournalRecovery::Skip,
        };
        config
    }
}

/// The signals that end the process: the first closes the doors, the second leaves at once.
struct Ends {
    terminate: Signal,
    interrupt: Signal,
}

impl Ends {
    fn listen() -> miette::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).into_diagnostic()?,
            interrupt: signal(SignalKind::interrupt()).into_diagnostic()?,
        })
    }

    /// Waits for the next one.
    async fn next(&mut self) -> &'static str {
        tokio::select! {
            _ = self.interrupt.recv() => "Ctrl-C",
            _ = self.terminate.recv() => "SIGTERM",
        }
    }
}

pub(super) async fn run(args: ServeArgs) -> miette::Result<ExitCode> {
    logs::start("info");
    let (files, config) = Files::open(args)?;
    // Before anything is open: a signal during recovery must not be lost.
    let hangup = signal(SignalKind::hangup()).into_diagnostic()?;
    let mut ends = Ends::listen()?;
    let data_dir = config.data_dir.clone();
    let app = tokio::select! {
        app = App::start(config, clock::wall()) => app?,
        reason = ends.next() => {
            tracing::info!("{reason} while starting: nothing was taken yet, the journal is as it was");
            return Ok(ExitCode::SUCCESS);
        }
    };
    tracing::info!(
        "OTLP gRPC {}, OTLP HTTP {}",
        app.addresses.otlp_grpc,
        app.addresses.otlp_http
    );
    tracing::info!("API http://{}, data in {}", app.addresses.http, data_dir.display());
    let code = tokio::select! {
        reason = ends.next() => {
            tracing::info!("{reason}: closing doors, sealing");
            ExitCode::SUCCESS
        }
        () = app.failed() => ExitCode::FAILURE,
        () = files.watch(hangup, app.reloader()) => {
            // Serving goes on without it.
            std::future::pending().await
        }
    };
    stop(app, &mut ends).await?;
    tracing::info!("stopped");
    Ok(code)
}

/// Stops within [`STOP_MAX`], or at the next signal at once. What was acknowledged is in the journal whatever happens.
async fn stop(app: App, ends: &mut Ends) -> miette::Result<()> {
    tokio::select! {
        stopped = timeout(STOP_MAX, app.shutdown()) => {
            if let Ok(stopped) = stopped {
                return Ok(stopped?);
            }
            tracing::error!("not stopped within {} s: leaving the rest to the journal", STOP_MAX.as_secs());
        }
        reason = ends.next() => tracing::warn!("{reason} again: leaving the rest to the journal"),
    }
    // Not by returning: what is dropped on the way would wait for a seal.
    std::process::exit(1)
}
