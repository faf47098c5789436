//! Live rows: small neighbouring batches are joined, so that a minute of live data is tens of batches, not thousands.

use crate::{Layers, LiveBatch, TraceId, overlay::current, words};
use arrow::{
    array::{Array, AsArray, BooleanArray, RecordBatch},
    compute::filter_record_batch,
    error::ArrowError,
};
use hashbrown::HashSet;
use proto::layout::Table;

/// A batch with fewer rows is small.
pub const SMALL_ROWS: usize = 2_048;

/// Adds `batch` at the end of `batches`, joined with the small ones before it where that keeps copying low: a batch is
/// joined only with what is at most twice its size, so a row is copied O(log n) times. Column subsets may differ; the
/// joined batch has the union. The rows of a joined batch share one lsn, so `Snapshot.replaced` could not tell them apart
/// any more: of `traces`, rows that `replaced` hides by then are left out, and a trace's newest row stands alone.
///
/// # Errors
/// Columns of one name that differ in type; `batches` is then unchanged.
pub fn push(table: Table, batches: &mut Vec<LiveBatch>, batch: LiveBatch) -> Result<(), ArrowError> {
    join(table, batches, batch, &Layers::default())
}

/// [`push`] for rows of `traces`, with all replacements so far. The rows of a joined batch share one lsn, so `replaced`
/// could not tell them apart any more: rows that it hides by then are left out, and a trace's newest row stands alone.
///
/// # Errors
/// As [`push`].
pub fn push_traces(
    batches: &mut Vec<LiveBatch>,
    batch: LiveBatch,
    replaced: &Layers<TraceId, u64>,
) -> Result<(), ArrowError> {
    join(Table::Traces, batches, batch, replaced)
}

fn join(
    table: Table,
    batches: &mut Vec<LiveBatch>,
    batch: LiveBatch,
    replaced: &Layers<TraceId, u64>,
) -> Result<(), ArrowError> {
    let (mut from, mut rows) = (batches.len(), batch.rows.num_rows());
    if rows == 0 {
        return Ok(());
    }
    while let Some(last) = from.checked_sub(1).and_then(|i| batches.get(i)) {
        let before = last.rows.num_rows();
        if rows >= SMALL_ROWS || before >= SMALL_ROWS || before > 2 * rows {
            break;
        }
        rows += before;
        from -= 1;
    }
    if from == batches.len() {
        batches.push(batch);
        return Ok(());
    }
    let parts = batches[from..].iter().chain([&batch]);
    let joined = if table == Table::Traces {
        let standing: Vec<RecordBatch> = parts
            .map(|part| current(&part.rows, part.lsn, replaced))
            .collect::<Result<_, _>>()?;
        newest_of_each(&words::concat(table, &standing.iter().collect::<Vec<_>>())?)?
    } else {
        words::concat(table, &parts.map(|part| &part.rows).collect::<Vec<_>>())?
    };
    let lsn = batches[from..].iter().map(|part| part.lsn).fold(batch.lsn, u64::max);
    batches.truncate(from);
    if joined.num_rows() > 0 {
        batches.push(LiveBatch { lsn, rows: joined });
    }
    Ok(())
}

/// Keeps the last row of every trace_id.
fn newest_of_each(rows: &RecordBatch) -> Result<RecordBatch, ArrowError> {
    let Some(ids) = rows
        .column_by_name("trace_id")
        .and_then(|ids| ids.as_string_opt::<i32>())
    else {
        return Ok(rows.clone());
    };
    let mut seen = HashSet::with_capacity_and_hasher(ids.len(), ahash::RandomState::new());
    let mut keep = vec![false; ids.len()];
    for row in (0..ids.len()).rev() {
        keep[row] = seen.insert(ids.value(row));
    }
    if seen.len() == ids.len() {
        return Ok(rows.clone());
    }
    filter_record_batch(rows, &BooleanArray::from(keep))
}
