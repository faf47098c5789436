//! What stops a pipeline.

use crate::assemble::FactsError;
use arrow::error::ArrowError;
use store::StoreError;

/// A pipeline that cannot start or go on.
#[derive(Debug, thiserror::Error)]
pub enum PipelineError {
    /// The journal, a seal or a recovered record.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A record of another shape.
    #[error(transparent)]
    Facts(#[from] FactsError),
    /// Rows that do not fit together.
    #[error("rows: {0}")]
    Rows(#[from] ArrowError),
    /// The engine's part of a commit record.
    #[error("the state in the newest commit record cannot be read ({0}); start the version that wrote it")]
    State(String),
    /// The store's journal was taken by someone else.
    #[error("the journal of this store is already in use: open the store again")]
    JournalTaken,
    /// A thread could not be started.
    #[error("cannot start thread {name}: {source}")]
    Thread {
        /// Its name.
        name: &'static str,
        /// The answer.
        source: std::io::Error,
    },
    /// It stopped before; the reason was given then.
    #[error("ingest has stopped: {0}")]
    Stopped(String),
}

impl PipelineError {
    /// True if the process must stop.
    pub(super) fn is_fatal(&self) -> bool {
        match self {
            Self::Store(error) => error.is_fatal(),
            _ => true,
        }
    }
}
