//! Logs go to stderr, one compact line each; stdout belongs to answers.

use std::io::{self, IsTerminal};
use tracing_subscriber::EnvFilter;

/// Environment variable with the filter, `debug` or `server=debug,ingest=trace`.
pub const FILTER_ENV: &str = "TRACEGATE_LOG";

/// Starts logging; `default` is the filter if the environment names none.
pub fn start(default: &str) {
    let filter = EnvFilter::try_from_env(FILTER_ENV).unwrap_or_else(|_| EnvFilter::new(default));
    let _ = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::stderr().is_terminal())
        .with_target(false)
        .compact()
        .try_init();
}
