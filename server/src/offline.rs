//! SQL over the data directory of a server that need not run: sealed files and the journal behind them.

use crate::cli::Format;
use miette::Diagnostic;
use query::{
    Bounds, Engine, EngineOptions, QueryError, View,
    output::{self, encode},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use store::{Store, StoreError};

/// Why files gave no answer.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum OfflineError {
    /// Not a data directory.
    #[error("{} is no data directory of tracegate", path.display())]
    #[diagnostic(help(
        "name the directory that `serve --data-dir` was given, or leave --data-dir out to ask a running server"
    ))]
    NotThere {
        /// What was named.
        path: PathBuf,
    },
    /// It cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The question.
    #[error(transparent)]
    Query(#[from] QueryError),
}

/// Answers one question from files alone. Releases and decisions are empty then: the ledger is read through its server.
///
/// # Errors
/// [`OfflineError`].
pub async fn sql(dir: &Path, sql: &str, format: Format) -> Result<Vec<u8>, OfflineError> {
    use futures::TryStreamExt;
    if !dir.join(proto::layout::JOURNAL).is_dir() {
        return Err(OfflineError::NotThere { path: dir.to_owned() });
    }
    let snapshot = Arc::new(Store::open_read_only(dir)?);
    let engine = Engine::new(EngineOptions::new(dir))?;
    let answer = engine
        .run(
            View {
                snapshot,
                ..View::default()
            },
            sql,
        )
        .await?;
    let format = match format {
        Format::Table => {
            let rows = answer.collect(Bounds::default()).await?;
            return Ok(output::table(&rows)?.into_bytes());
        }
        Format::Json => output::Format::Json,
        Format::Csv => output::Format::Csv,
        Format::Arrow => output::Format::Arrow,
    };
    let chunks: Vec<_> = encode(answer, format).try_collect().await?;
    Ok(chunks.concat())
}
