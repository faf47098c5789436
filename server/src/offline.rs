//! SQL over the data directory of a server that need not run: sealed files and the journal behind them.

use crate::cli::Format;
use arrow::error::ArrowError;
use gates::ledger::{Ledger, LedgerError};
use miette::Diagnostic;
use query::{
    Bounds, Engine, EngineOptions, LedgerTables, QueryError, View,
    output::{self, encode},
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use store::{Snapshot, Store, StoreError};

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
    /// Releases, decisions or deliveries, which one process reads at a time.
    #[error(transparent)]
    #[diagnostic(help("while a server runs on the directory ask it instead: leave --data-dir out"))]
    Ledger(#[from] LedgerError),
    /// They cannot be shown as tables.
    #[error("the ledger cannot be shown as a table: {0}")]
    Rows(#[from] ArrowError),
}

/// The files of a data directory, opened for reading.
pub struct Files {
    ledger: PathBuf,
    snapshot: Arc<Snapshot>,
    engine: Engine,
}

impl Files {
    /// Reads what is sealed and the journal behind it.
    ///
    /// # Errors
    /// [`OfflineError`].
    pub fn open(dir: &Path) -> Result<Self, OfflineError> {
        if !dir.join(proto::layout::JOURNAL).is_dir() {
            return Err(OfflineError::NotThere { path: dir.to_owned() });
        }
        Ok(Self {
            ledger: dir.join(proto::layout::LEDGER),
            snapshot: Arc::new(Store::open_read_only(dir)?),
            engine: Engine::new(EngineOptions::new(dir))?,
        })
    }

    /// Answers one question. The ledger is opened only for one that names what is in it.
    ///
    /// # Errors
    /// [`OfflineError`].
    pub async fn answer(&self, sql: &str, format: Format) -> Result<Vec<u8>, OfflineError> {
        use futures::TryStreamExt;
        let view = View {
            snapshot: Arc::clone(&self.snapshot),
            ledger: self.ledger_tables(sql)?,
        };
        let answer = self.engine.run(view, sql).await?;
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
}

impl Files {
    fn ledger_tables(&self, sql: &str) -> Result<LedgerTables, OfflineError> {
        let is_named = |table: &str| sql.to_ascii_lowercase().contains(table);
        if !["releases", "decisions", "deliveries"].into_iter().any(is_named) || !self.ledger.is_file() {
            return Ok(LedgerTables::default());
        }
        crate::http::ledger_tables(&Ledger::open(&self.ledger)?, sql)
    }
}

/// Answers one question from files alone.
///
/// # Errors
/// [`OfflineError`].
pub async fn sql(dir: &Path, sql: &str, format: Format) -> Result<Vec<u8>, OfflineError> {
    Files::open(dir)?.answer(sql, format).await
}
