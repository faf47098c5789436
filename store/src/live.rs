//! Live rows: small neighbouring batches are joined, so that a minute of live data is tens of batches, not thousands.

use crate::{LiveBatch, words};
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
/// joined batch has the union. In a joined batch of `traces`, a trace's newest row stands alone, because the rows
/// share one lsn and `Snapshot.replaced` could not tell them apart.
///
/// # Errors
/// Columns of one name that differ in type; `batches` is then unchanged.
pub fn push(table: Table, batches: &mut Vec<LiveBatch>, batch: LiveBatch) -> Result<(), ArrowError> {
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
    let parts: Vec<&RecordBatch> = batches[from..].iter().chain([&batch]).map(|part| &part.rows).collect();
    let mut joined = words::concat(table, &parts)?;
    if table == Table::Traces {
        joined = newest_of_each(&joined)?;
    }
    let lsn = batches[from..].iter().map(|part| part.lsn).fold(batch.lsn, u64::max);
    batches.truncate(from);
    batches.push(LiveBatch { lsn, rows: joined });
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
