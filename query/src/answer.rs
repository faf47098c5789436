//! The answer to a query: a schema, and batches as they come.

use crate::QueryError;
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use futures::{Stream, StreamExt};
use std::pin::Pin;

/// Batches as they come. Dropping the stream stops the query.
pub type Batches = Pin<Box<dyn Stream<Item = Result<RecordBatch, QueryError>> + Send>>;

/// What a query gives.
pub struct Answer {
    /// Columns of every batch.
    pub schema: SchemaRef,
    /// The rows. Dropping it stops the query.
    pub stream: Batches,
}

impl std::fmt::Debug for Answer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Answer")
            .field("schema", &self.schema)
            .finish_non_exhaustive()
    }
}

/// How much of an answer to hold at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bounds {
    /// Most rows.
    pub rows: usize,
    /// Most bytes of Arrow memory.
    pub bytes: usize,
}

impl Default for Bounds {
    /// 100,000 rows, 64 MiB.
    fn default() -> Self {
        Self {
            rows: 100_000,
            bytes: 64 << 20,
        }
    }
}

/// A whole answer in memory.
#[derive(Debug, Clone, PartialEq)]
pub struct Rows {
    /// Columns.
    pub schema: SchemaRef,
    /// The rows.
    pub batches: Vec<RecordBatch>,
}

impl Rows {
    /// Number of rows.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.batches.iter().map(RecordBatch::num_rows).sum()
    }
}

impl Answer {
    /// Takes the whole answer.
    ///
    /// # Errors
    /// [`QueryError::TooLarge`] as soon as `bounds` are passed, and whatever the query itself fails with.
    pub async fn collect(mut self, bounds: Bounds) -> Result<Rows, QueryError> {
        let (mut rows, mut bytes, mut batches) = (0, 0, Vec::new());
        while let Some(batch) = self.stream.next().await {
            let batch = batch?;
            rows += batch.num_rows();
            bytes += batch.get_array_memory_size();
            if rows > bounds.rows {
                return Err(too_large(bounds.rows, "rows"));
            }
            if bytes > bounds.bytes {
                return Err(too_large(bounds.bytes, "bytes"));
            }
            batches.push(batch);
        }
        Ok(Rows {
            schema: self.schema,
            batches,
        })
    }
}

const fn too_large(limit: usize, unit: &'static str) -> QueryError {
    QueryError::TooLarge {
        limit: limit as u64,
        unit,
    }
}
