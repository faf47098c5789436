//! The micro-batch: what one group commit closes. It is at once the journal's record and the live rows.

use arrow::array::RecordBatch;
use proto::{Nanos, layout::Table};

/// Rows of one table inside a micro-batch. The batch holds a subset of the declared columns of `table` (a column that
/// no row used is left out), in declared order, and is never empty.
#[derive(Debug, Clone, PartialEq)]
pub struct Section {
    /// `spans` or `evals`; nothing else arrives from outside.
    pub table: Table,
    /// The rows.
    pub rows: RecordBatch,
}

/// Rows and request digests of one group commit.
#[derive(Debug, Clone, PartialEq)]
pub struct MicroBatch {
    /// Log sequence number: 1, 2, 3, ... without a gap over the life of a data directory.
    pub lsn: u64,
    /// When the group was closed; never less than that of the record before.
    pub received_at: Nanos,
    /// XXH3-128 of every request in the group, so that a request sent again after a kill is known.
    pub digests: Vec<u128>,
    /// Rows, at most one section a table.
    pub sections: Vec<Section>,
}
