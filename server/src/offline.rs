//! SQL over the data directory of a server that need not run.

use crate::cli::Format;
use std::path::Path;

/// Answers one question from files alone.
pub async fn sql(_dir: &Path, _sql: &str, _format: Format) -> miette::Result<Vec<u8>> {
    std::future::pending().await
}
