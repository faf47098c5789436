//! `tracegate check`: says everything that is wrong with a file before traffic moves, and how long its gates will take.

use super::{
    OutputError, ServerArgs,
    ask::Asker,
    forecast::{self, Assumptions},
};
use crate::config::Config;
use clap::Args;
use gates::predict::false_rollbacks_a_year;
use proto::release::ReleaseSpec;
use std::{io::Write, path::PathBuf};

/// Which file, and whose traffic.
#[derive(Debug, Args)]
#[command(
    after_help = "With --server or --data-dir it predicts from blue's traffic when each gate can decide.\n\n\
    Examples:\n  tracegate check releases/support-chat-42.toml\n  \
    tracegate check --server http://127.0.0.1:4320 releases/support-chat-42.toml\n  \
    tracegate check --traces-per-minute 200 --failure-rate 0.03 releases/support-chat-42.toml"
)]
pub struct CheckArgs {
    /// Predict from the traffic that this server has seen
    #[arg(long, value_name = "URL")]
    server: Option<String>,
    /// Predict from the traffic in this data directory
    #[arg(long, value_name = "DIR", conflicts_with = "server")]
    data_dir: Option<PathBuf>,
    #[command(flatten)]
    assumptions: Assumptions,
    /// Configuration or release file, TOML
    #[arg(value_name = "FILE")]
    file: PathBuf,
}

pub(super) async fn run(args: CheckArgs, out: &mut (dyn Write + Send)) -> miette::Result<()> {
    let config = Config::load(&args.file)?;
    let mut text = format!("{}: no problems\n", args.file.display());
    let schemas = config.read.schemas.len();
    if schemas > 0 {
        text.push_str(&format!("  answers of {schemas} routes are checked against a schema\n"));
    }
    let asker = match (args.server, &args.data_dir) {
        (None, None) => None,
        (server, dir) => {
            let server = server.unwrap_or_default();
            Some(Asker::new(&ServerArgs { server }, dir.as_deref())?)
        }
    };
    for release in &config.releases {
        text.push_str(&headline(release));
        text.push_str(&forecast::describe(release, asker.as_ref(), &args.assumptions).await?);
    }
    if !config.releases.is_empty() {
        let year = false_rollbacks_a_year(&config.releases);
        text.push_str(&forecast::false_rollbacks(year));
    }
    out.write_all(text.as_bytes()).map_err(OutputError)?;
    Ok(())
}

fn headline(release: &ReleaseSpec) -> String {
    let steps: Vec<String> = release.steps.iter().map(|s| format!("{} %", s.green * 100.0)).collect();
    let ramp = if steps.is_empty() {
        "mirrored only".to_owned()
    } else {
        steps.join(", ")
    };
    format!(
        "  release {} on route {}: {} -> {}, {} gates, green at {ramp}\n",
        release.id,
        release.route,
        release.blue.version,
        release.green.version,
        release.gates.len()
    )
}
