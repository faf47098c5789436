//! `tracegate serve`: one instance in the foreground, until Ctrl-C or SIGTERM.

use crate::{
    clock,
    config::{self, Config, Door, address},
    logs,
    wire::App,
};
use clap::{Args, ValueEnum};
use miette::IntoDiagnostic;
use std::{net::SocketAddr, path::PathBuf, process::ExitCode};
use tokio::signal::unix::{SignalKind, signal};

/// Flags of `serve`; each wins over the file.
#[derive(Debug, Args)]
#[command(after_help = "Without --config, ./tracegate.toml is read if it is there.\n\n\
    Examples:\n  tracegate serve\n  tracegate serve --config /etc/tracegate.toml --data-dir /var/lib/tracegate\n\n\
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
    /// File first, flags over it.
    fn config(self) -> Result<Config, config::LoadError> {
        let mut config = Config::load_or_default(self.config.as_deref())?;
        if let Some(dir) = self.data_dir {
            config.data_dir = dir;
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
        Ok(config)
    }
}

pub(super) async fn run(args: ServeArgs) -> miette::Result<ExitCode> {
    logs::start("info");
    let config = args.config()?;
    // Before anything is open: a signal during recovery must not be lost.
    let mut terminate = signal(SignalKind::terminate()).into_diagnostic()?;
    let mut interrupt = signal(SignalKind::interrupt()).into_diagnostic()?;
    let data_dir = config.data_dir.clone();
    let app = App::start(config, clock::wall()).await?;
    tracing::info!(
        "OTLP gRPC {}, OTLP HTTP {}",
        app.addresses.otlp_grpc,
        app.addresses.otlp_http
    );
    tracing::info!("API http://{}, data in {}", app.addresses.http, data_dir.display());
    let reason = tokio::select! {
        _ = interrupt.recv() => "Ctrl-C",
        _ = terminate.recv() => "SIGTERM",
        () = app.failed() => {
            app.shutdown().await?;
            return Ok(ExitCode::FAILURE);
        }
    };
    tracing::info!("{reason}: closing doors, sealing");
    tokio::select! {
        stopped = app.shutdown() => stopped?,
        _ = interrupt.recv() => {
            tracing::warn!("Ctrl-C again: leaving the rest to the journal");
            return Ok(ExitCode::FAILURE);
        }
    }
    tracing::info!("stopped");
    Ok(ExitCode::SUCCESS)
}
