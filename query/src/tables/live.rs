//! Live rows as a streaming source: each micro-batch is cut, completed and brought up to date when it is read, and
//! only in the columns that the query wants.

use super::reading::Reading;
use arrow::{array::RecordBatch, datatypes::SchemaRef, error::ArrowError};
use datafusion::{
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_plan::{
        ExecutionPlan,
        stream::RecordBatchStreamAdapter,
        streaming::{PartitionStream, StreamingTableExec},
    },
};
use futures::stream;
use proto::layout::Table;
use std::sync::Arc;
use store::{LiveBatch, declared, overlay};

/// Live rows of `table` with the columns at `columns`, or `None` if there are none.
pub fn scan(
    table: Table,
    reading: &Arc<Reading>,
    columns: &[usize],
    wanted: &SchemaRef,
    partitions: usize,
) -> Result<Option<Arc<dyn ExecutionPlan>>> {
    let batches = reading.live(table);
    if batches.is_empty() {
        return Ok(None);
    }
    let share = batches.len().div_ceil(partitions.max(1));
    let parts: Vec<Arc<dyn PartitionStream>> = batches
        .chunks(share)
        .map(|batches| {
            Arc::new(LivePart {
                table,
                reading: Arc::clone(reading),
                batches: batches.to_vec(),
                columns: Arc::from(columns),
                wanted: Arc::clone(wanted),
            }) as _
        })
        .collect();
    let plan = StreamingTableExec::try_new(Arc::clone(wanted), parts, None, None, false, None)?;
    Ok(Some(Arc::new(plan)))
}

/// A run of live batches, read as one partition.
#[derive(Debug)]
struct LivePart {
    table: Table,
    reading: Arc<Reading>,
    batches: Vec<LiveBatch>,
    columns: Arc<[usize]>,
    wanted: SchemaRef,
}

impl PartitionStream for LivePart {
    fn schema(&self) -> &SchemaRef {
        &self.wanted
    }

    fn execute(&self, context: Arc<TaskContext>) -> SendableRecordBatchStream {
        let rows_max = context.session_config().batch_size();
        let slices: Vec<LiveBatch> = self
            .batches
            .iter()
            .flat_map(|batch| {
                let rows = batch.rows.num_rows();
                (0..rows).step_by(rows_max).map(move |from| LiveBatch {
                    lsn: batch.lsn,
                    rows: batch.rows.slice(from, rows_max.min(rows - from)),
                })
            })
            .collect();
        let (table, reading) = (self.table, Arc::clone(&self.reading));
        let columns = Arc::clone(&self.columns);
        let rows = slices
            .into_iter()
            .map(move |batch| read(table, &reading, &columns, &batch).map_err(DataFusionError::from));
        Box::pin(RecordBatchStreamAdapter::new(
            Arc::clone(&self.wanted),
            stream::iter(rows),
        ))
    }
}

fn read(table: Table, reading: &Reading, columns: &[usize], batch: &LiveBatch) -> Result<RecordBatch, ArrowError> {
    let snapshot = &reading.snapshot;
    if table != Table::Traces {
        let mark_of = |id: &_| snapshot.marks.get(id).cloned();
        return overlay::marked(table, &batch.rows, Some(columns), snapshot.marks.depth(), &mark_of);
    }
    let rows = if reading.may_be_replaced(batch.lsn) {
        overlay::current(&batch.rows, batch.lsn, &snapshot.replaced)?
    } else {
        batch.rows.clone()
    };
    overlay::complete(&rows, declared(table), Some(columns))
}
