//! Rows that are not sealed yet.

use super::error::PipelineError;
use ahash::RandomState;
use arrow::{
    array::{AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
};
use hashbrown::HashSet;
use proto::layout::Table;
use store::{Layers, LiveBatch, TraceId, live};

/// Unsealed rows.
#[derive(Debug, Default)]
pub(super) struct Live {
    pub spans: Vec<LiveBatch>,
    pub evals: Vec<LiveBatch>,
    pub traces: Vec<LiveBatch>,
    pub rows: usize,
    pub bytes: usize,
}

impl Live {
    /// Adds rows. `replaced` are all replacements of rows of `traces` so far.
    pub fn push(
        &mut self,
        table: Table,
        lsn: u64,
        rows: RecordBatch,
        replaced: &Layers<TraceId, u64>,
    ) -> Result<(), PipelineError> {
        self.rows += rows.num_rows();
        self.bytes += memory_of(&rows);
        let batch = LiveBatch { lsn, rows };
        match table {
            Table::Spans => live::push(table, &mut self.spans, batch)?,
            Table::Evals => live::push(table, &mut self.evals, batch)?,
            Table::Traces => live::push_traces(&mut self.traces, batch, replaced)?,
            Table::Cells => {}
        }
        Ok(())
    }

    /// Removes the newest row of every one of these spans.
    pub fn drop_newest(&mut self, spans: impl Iterator<Item = (TraceId, u64)>) -> Result<(), PipelineError> {
        let mut gone: HashSet<(String, String), RandomState> = spans
            .map(|(trace, span)| (hex::encode(trace), format!("{span:016x}")))
            .collect();
        for batch in self.spans.iter_mut().rev() {
            let ids = |name| batch.rows.column_by_name(name).and_then(|c| c.as_string_opt::<i32>());
            let (Some(traces), Some(spans)) = (ids("trace_id"), ids("span_id")) else {
                continue;
            };
            let found = (0..batch.rows.num_rows())
                .rev()
                .filter(|&row| gone.remove(&(traces.value(row).to_owned(), spans.value(row).to_owned())));
            let found: Vec<usize> = found.collect();
            if !found.is_empty() {
                batch.rows = without(batch.rows.clone(), &found)?;
                self.rows -= found.len();
            }
            if gone.is_empty() {
                break;
            }
        }
        self.spans.retain(|batch| batch.rows.num_rows() > 0);
        Ok(())
    }
}

/// Memory of rows, about, bytes. Columns that come back from the journal are all slices of one buffer, which each of them
/// would count as a whole.
fn memory_of(rows: &RecordBatch) -> usize {
    let columns = rows.columns().iter();
    let bytes = columns.map(|column| {
        let slice = column.to_data().get_slice_memory_size();
        slice.unwrap_or_else(|_| column.get_array_memory_size())
    });
    bytes.sum()
}

pub(super) fn after(first: &[LiveBatch], then: &[LiveBatch]) -> Vec<LiveBatch> {
    [first, then].concat()
}

/// `rows` without those at the given indices.
pub(super) fn without(rows: RecordBatch, drop: &[usize]) -> Result<RecordBatch, PipelineError> {
    if drop.is_empty() {
        return Ok(rows);
    }
    let mut keep = vec![true; rows.num_rows()];
    for &row in drop {
        keep[row] = false;
    }
    Ok(filter_record_batch(&rows, &BooleanArray::from(keep))?)
}
