//! `tracegate check`: says everything that is wrong with a file before traffic moves.

use super::OutputError;
use crate::config::Config;
use clap::Args;
use std::{io::Write, path::PathBuf};

/// Which file.
#[derive(Debug, Args)]
#[command(after_help = "Example:\n  tracegate check releases/support-chat-42.toml")]
pub struct CheckArgs {
    /// Configuration or release file, TOML
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
}

pub(super) fn run(args: &CheckArgs, out: &mut (dyn Write + Send)) -> miette::Result<()> {
    let config = Config::load(&args.file)?;
    let mut text = format!("{}: no problems\n", args.file.display());
    let schemas = config.read.schemas.len();
    if schemas > 0 {
        text.push_str(&format!("  answers of {schemas} routes are checked against a schema\n"));
    }
    for release in &config.releases {
        let steps: Vec<String> = release.steps.iter().map(|s| format!("{} %", s.green * 100.0)).collect();
        let ramp = if steps.is_empty() {
            "mirrored only".to_owned()
        } else {
            steps.join(", ")
        };
        text.push_str(&format!(
            "  release {} on route {}: {} -> {}, {} gates, green at {ramp}\n",
            release.id,
            release.route,
            release.blue.version,
            release.green.version,
            release.gates.len()
        ));
    }
    out.write_all(text.as_bytes()).map_err(OutputError)?;
    Ok(())
}
