//! What one query sees: a snapshot of the store, and the ledger's tables as of the same moment.

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use std::sync::Arc;
use store::Snapshot;

/// Rows of the decision ledger and the outbox, in the schemas of `proto::schema`.
#[derive(Debug, Clone, PartialEq)]
pub struct LedgerTables {
    /// [`proto::schema::RELEASES`].
    pub releases: RecordBatch,
    /// [`proto::schema::DECISIONS`].
    pub decisions: RecordBatch,
    /// [`proto::schema::DELIVERIES`].
    pub deliveries: RecordBatch,
}

impl Default for LedgerTables {
    /// No rows.
    fn default() -> Self {
        let empty = |schema: &SchemaRef| RecordBatch::new_empty(Arc::clone(schema));
        Self {
            releases: empty(&proto::schema::RELEASES),
            decisions: empty(&proto::schema::DECISIONS),
            deliveries: empty(&proto::schema::DELIVERIES),
        }
    }
}

/// One consistent view. Cloning copies pointers.
#[derive(Debug, Clone, Default)]
pub struct View {
    /// Spans, traces, evaluations, cells.
    pub snapshot: Arc<Snapshot>,
    /// Releases, decisions, deliveries.
    pub ledger: LedgerTables,
}
