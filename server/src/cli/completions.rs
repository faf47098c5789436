//! `tracegate completions`: what a shell needs to complete commands and flags.

use super::{Cli, OutputError};
use clap::{Args, CommandFactory};
use clap_complete::{Shell, generate};
use std::io::Write;

/// Which shell.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tracegate completions bash > /etc/bash_completion.d/tracegate")]
pub struct CompletionsArgs {
    /// Shell to complete for
    pub shell: Shell,
}

pub(super) fn run(args: &CompletionsArgs, out: &mut (dyn Write + Send)) -> miette::Result<()> {
    let mut script = Vec::new();
    generate(args.shell, &mut Cli::command(), "tracegate", &mut script);
    out.write_all(&script).map_err(OutputError)?;
    Ok(())
}
