//! One command for every habit: `cargo xtask test` before a commit is shared, `cargo xtask quick` all day.
#![allow(clippy::print_stdout, clippy::print_stderr)]
#![cfg_attr(test, allow(clippy::unwrap_used))]

mod bench;
mod changed;
mod clients;
mod layers;
mod peer;
mod soak;
mod steps;
mod tally;

use clap::{Parser, Subcommand};
use std::process::ExitCode;
use steps::{Steps, cargo};

#[derive(Parser)]
#[command(
    name = "cargo xtask",
    about = "One command for every habit of this repository",
    after_help = "Examples:\n  \
        cargo xtask test                 everything that .ci/run checks\n  \
        cargo xtask quick                format, lints and unit tests of what you changed\n  \
        cargo xtask e2e -- -k gRPC       one end-to-end test with the real Python clients\n  \
        cargo xtask bench --seconds 30   micro benches, then load on a release server\n  \
        cargo xtask soak overload        two minutes of more than the machine can take\n  \
        cargo xtask simulate --quick     the study behind the guarantee of the gates, in small"
)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Everything: format, lints, layers, all tests, doc tests, end to end with real Python clients
    #[command(after_help = "Example:\n  cargo xtask test\n\nThe closing line is the sum: N passed, N failed.")]
    Test,
    /// The part to run all day: format, lints, layers, unit tests of the crates that changed
    #[command(after_help = "Examples:\n  cargo xtask quick\n  cargo xtask quick ingest store")]
    Quick {
        /// Crates to test; by default those that differ from the last commit
        crates: Vec<String>,
    },
    /// Format, clippy with warnings denied, layers, and cargo deny where it is installed
    #[command(after_help = "Example:\n  cargo xtask lint")]
    Lint,
    /// The end-to-end tests alone: builds the server, prepares the Python clients, runs pytest
    #[command(after_help = "Examples:\n  cargo xtask e2e\n  cargo xtask e2e -- -k kill -x")]
    E2e {
        /// Passed on to pytest
        #[arg(last = true)]
        pytest: Vec<String>,
    },
    /// Criterion benches, then the load generator against a release server
    #[command(
        after_help = "Examples:\n  cargo xtask bench\n  cargo xtask bench --micro\n  cargo xtask bench --load --seconds 30\n  \
        cargo xtask bench --peer --rounds 5\n  cargo xtask bench --views"
    )]
    Bench {
        /// Only the criterion benches
        #[arg(long, conflicts_with_all = ["load", "peer", "views"])]
        micro: bool,
        /// Only the load generator
        #[arg(long, conflicts_with_all = ["peer", "views"])]
        load: bool,
        /// Only decoding beside another crate's views into Arrow, which takes long to build
        #[arg(long, conflicts_with = "peer")]
        views: bool,
        /// Only durable ingest beside an agent that keeps nothing, server on one core and client on the other
        #[arg(long)]
        peer: bool,
        /// With --peer: how often each is measured, in turns
        #[arg(long, default_value_t = 3)]
        rounds: u32,
        /// How long each load runs, seconds
        #[arg(long, default_value_t = 10)]
        seconds: u32,
    },
    /// What takes hours on purpose: many kills, power cuts, orders of arrival, changed bytes, a long overload
    #[command(after_help = "Examples:\n  cargo xtask soak\n  cargo xtask soak kill overload\n\n\
        Parts: kill, power, order, bytes, life, overload, scale. Every failure prints the seed that repeats it.")]
    Soak {
        /// Which parts; all by default
        #[arg(value_enum)]
        parts: Vec<soak::Part>,
    },
    /// Rerun the study behind the guarantee of the gates; fails if false rollbacks exceed alpha beyond chance
    #[command(after_help = "Examples:\n  cargo xtask simulate\n  cargo xtask simulate --quick\n  \
        cargo xtask simulate --runs 500 --seed 7\n  cargo xtask simulate --write\n\n\
        The whole study takes some tens of minutes on two cores; the same seed gives the same figures on any number of \
        threads.")]
    Simulate {
        /// Runs of every part, more or fewer where a run costs little or much; 2000 if not given
        #[arg(long, conflicts_with = "quick")]
        runs: Option<u64>,
        /// Seed of all streams; 1 if not given
        #[arg(long)]
        seed: Option<u64>,
        /// Threads; two if not given
        #[arg(long)]
        threads: Option<usize>,
        /// Few runs over little traffic: seconds, and figures that say little
        #[arg(long)]
        quick: bool,
        /// Write the tables into docs/statistics.md and the plot beside it
        #[arg(long, conflicts_with = "quick")]
        write: bool,
    },
}

fn main() -> ExitCode {
    let mut steps = Steps::new();
    match Args::parse().command {
        Command::Test => {
            lints(&mut steps, true);
            steps.counted("tests", cargo(["test", "--workspace", "--no-fail-fast"]));
            // The tests have built the server, with the same features as themselves.
            clients::run(&mut steps, &[]);
        }
        Command::Quick { crates } => {
            lints(&mut steps, false);
            changed::test(&mut steps, crates);
        }
        Command::Lint => {
            lints(&mut steps, true);
            if steps::is_there("cargo", &["deny", "--version"]) {
                steps.run("licences, duplicates, sources", cargo(["deny", "check"]));
            }
        }
        Command::E2e { pytest } => {
            if steps.run("build tracegate", cargo(["build", "--package", "server"])) {
                clients::run(&mut steps, &pytest);
            }
        }
        Command::Bench {
            peer: true,
            rounds,
            seconds,
            ..
        } => peer::run(&mut steps, rounds, seconds),
        Command::Bench { views: true, .. } => bench::views(&mut steps),
        Command::Bench {
            micro, load, seconds, ..
        } => {
            if !load {
                steps.run("micro benches", cargo(["bench", "--package", "benches", "--benches"]));
            }
            if !micro {
                bench::load(&mut steps, seconds);
            }
        }
        Command::Soak { parts } => soak::run(&mut steps, &parts),
        Command::Simulate {
            runs,
            seed,
            threads,
            quick,
            write,
        } => {
            let threads = threads.map(|n| n as u64);
            let numbers = [("--runs", runs), ("--seed", seed), ("--threads", threads)];
            let mut options: Vec<String> = numbers
                .into_iter()
                .filter_map(|(name, n)| Some(format!("{name}={}", n?)))
                .collect();
            let flags = [("--quick", quick), ("--write", write)];
            options.extend(flags.iter().filter(|(_, set)| *set).map(|(name, _)| (*name).to_owned()));
            bench::simulate(&mut steps, &options);
        }
    }
    steps.close()
}

/// What is checked without running anything. `all` adds the lints of test code.
fn lints(steps: &mut Steps, all: bool) {
    steps::components(&["rustfmt", "clippy"]);
    steps::make();
    steps.run(
        "format (cargo fmt --all)",
        cargo(["fmt", "--all", "--", "--check", "--files-with-diff"]),
    );
    let mut clippy = cargo(["clippy", "--workspace", "--quiet"]);
    if all {
        clippy.arg("--all-targets");
    }
    clippy.args(["--", "--deny", "warnings"]);
    steps.run("clippy", clippy);
    steps.check("layers", || layers::check(&steps::root()));
}
