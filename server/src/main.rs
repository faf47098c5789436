//! The `tracegate` binary.

use clap::Parser;
use server::cli::{self, Cli};
use std::{io, process::ExitCode};

/// Rows and traces are made on one thread and dropped on another all the time, which costs less in jemalloc.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    let cli = Cli::parse();
    let runtime = match tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .thread_name("tracegate")
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => return cli::fail(&miette::miette!("cannot start threads: {error}")),
    };
    let code = match runtime.block_on(cli::run(cli, &mut io::stdout())) {
        Ok(code) => code,
        Err(report) => cli::fail(&report),
    };
    // A seal that outlived its deadline must not hold the process: the journal has what it was sealing.
    runtime.shutdown_background();
    code
}
