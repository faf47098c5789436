//! The command line. Answers go to stdout, everything else to stderr; a failure says what to do and exits non-zero.

mod ask;
mod backtest;
mod check;
mod client;
mod completions;
mod decisions;
pub mod demo;
mod forecast;
mod import;
mod init;
mod people;
mod prices;
mod releases;
mod serve;
mod sql;
mod text;
mod top;
mod verify;

use clap::{Parser, Subcommand};
use std::{
    io::{self, Write},
    process::ExitCode,
};

pub use client::{Client, ClientError, ServerArgs, http_client};
pub use sql::Format;

/// Blue/green releases of LLM routes: takes your traces, compares, decides, tells the gateway.
#[derive(Debug, Parser)]
#[command(name = "tracegate", version, disable_help_subcommand = true, max_term_width = 100)]
#[command(
    after_help = "Start with `tracegate demo`; then `tracegate serve`, and send OTLP to 127.0.0.1:4317 or :4318."
)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Every command.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the server: receive traces, answer SQL, judge releases
    Serve(serve::ServeArgs),
    /// Watch a bad release being caught: server, gateway and traffic on this machine, in about a minute
    Demo(demo::DemoArgs),
    /// Check a configuration or release file: every problem at its line, and when its gates can decide
    Check(check::CheckArgs),
    /// Ask a running server, or a data directory, a question in SQL
    Sql(sql::SqlArgs),
    /// Show every release: phase, verdict, and how far each gate is from a decision
    Status(releases::StatusArgs),
    /// Watch a running server: what it takes, what waits, and how far each release is
    Top(top::TopArgs),
    /// Make green the new blue
    #[command(
        after_help = "It is kept in the ledger with its reason.\n\nExample:\n  tracegate promote support-chat --reason \"reviewed by the support team\""
    )]
    Promote(releases::ActArgs),
    /// Go to the next step of the ramp
    #[command(
        after_help = "It is kept in the ledger with its reason.\n\nExample:\n  tracegate advance support-chat --reason \"quiet night, go on\""
    )]
    Advance(releases::ActArgs),
    /// Send the whole route back to blue
    #[command(
        after_help = "It is kept in the ledger with its reason.\n\nExample:\n  tracegate rollback support-chat --reason \"customers report wrong refunds\""
    )]
    Rollback(releases::ActArgs),
    /// Leave the split as it is until `resume`
    #[command(
        after_help = "It is kept in the ledger with its reason.\n\nExample:\n  tracegate hold support-chat --reason \"marketing campaign until Friday\""
    )]
    Hold(releases::ActArgs),
    /// Let the gates decide again after `hold`
    #[command(
        after_help = "It is kept in the ledger with its reason.\n\nExample:\n  tracegate resume support-chat --reason \"campaign is over\""
    )]
    Resume(releases::ActArgs),
    /// Keep a gate from rolling anything back until a time
    Mute(people::MuteArgs),
    /// Forbid promotions for a while, on one route or all; rollbacks go on
    Freeze(people::FreezeArgs),
    /// Say that you have seen what you were told, so that it is not repeated
    #[command(
        after_help = "It is kept in the ledger with its reason.\n\nExample:\n  tracegate ack support-chat --reason \"looking into it\""
    )]
    Ack(releases::ActArgs),
    /// Write a release file from two paths that are live on a route
    Init(init::InitArgs),
    /// List decisions, newest first
    Decisions(decisions::DecisionsArgs),
    /// Show why a decision was taken: its gates, counts and evidence
    Explain(decisions::ExplainArgs),
    /// Compute a decision again from its evidence, bit for bit
    Verify(verify::VerifyArgs),
    /// Take recorded OTLP from files: Collector JSON lines, captured requests
    Import(import::ImportArgs),
    /// Try a release file on recorded traffic: what it would have decided, and when
    Backtest(backtest::BacktestArgs),
    /// List the prices that costs are computed from
    Prices(prices::PricesArgs),
    /// Print a completion script for a shell
    Completions(completions::CompletionsArgs),
}

/// Runs one command.
///
/// # Errors
/// What went wrong and what to do about it.
pub async fn run(cli: Cli, out: &mut (dyn Write + Send)) -> miette::Result<ExitCode> {
    let done = match cli.command {
        Command::Serve(args) => return serve::run(args).await,
        Command::Demo(args) => return demo::run(&args).await,
        Command::Import(args) => return import::run(args, out).await,
        Command::Verify(args) => return verify::run(args, out).await,
        Command::Check(args) => check::run(args, out).await,
        Command::Sql(args) => sql::run(args, out).await,
        Command::Status(args) => releases::status(args, out).await,
        Command::Top(args) => top::run(args, out).await,
        Command::Promote(args) => releases::act("promote", args, out).await,
        Command::Advance(args) => releases::act("advance", args, out).await,
        Command::Rollback(args) => releases::act("rollback", args, out).await,
        Command::Hold(args) => releases::act("hold", args, out).await,
        Command::Resume(args) => releases::act("resume", args, out).await,
        Command::Mute(args) => people::mute(args, out).await,
        Command::Freeze(args) => people::freeze(args, out).await,
        Command::Ack(args) => releases::act("ack", args, out).await,
        Command::Init(args) => init::run(args, out).await,
        Command::Decisions(args) => decisions::list(args, out).await,
        Command::Explain(args) => decisions::explain(args, out).await,
        Command::Backtest(args) => backtest::run(args, out).await,
        Command::Prices(args) => prices::run(args, out).await,
        Command::Completions(args) => completions::run(&args, out),
    };
    match done {
        Err(report) if is_closed_pipe(&report) => Ok(ExitCode::SUCCESS),
        other => other.map(|()| ExitCode::SUCCESS),
    }
}

/// Output could not be written.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
#[error("cannot write the answer: {0}")]
pub struct OutputError(#[from] pub io::Error);

/// `tracegate decisions | head -1` is no failure.
fn is_closed_pipe(report: &miette::Report) -> bool {
    report
        .downcast_ref::<OutputError>()
        .is_some_and(|e| e.0.kind() == io::ErrorKind::BrokenPipe)
}

/// Says on stderr what went wrong, and gives the exit code for it.
pub fn fail(report: &miette::Report) -> ExitCode {
    let _ = writeln!(io::stderr(), "{report:?}");
    ExitCode::FAILURE
}
