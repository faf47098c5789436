//! What became known after rows were sealed, laid over them while they are read.
//!
//! Rows of spans and evaluations take their trace's patch, spans also what it says of them alone; rows of `traces` that a later row replaced are left out.
//! Live rows go through the same functions of [`store::overlay`] in `live.rs`.

use super::reading::Reading;
use arrow::{
    array::{AsArray, RecordBatch},
    compute::{concat_batches, partition},
    datatypes::{Int64Type, SchemaRef},
};
use datafusion::{
    common::tree_node::TreeNodeRecursion,
    error::{DataFusionError, Result},
    execution::{SendableRecordBatchStream, TaskContext},
    physical_expr::{EquivalenceProperties, PhysicalExpr},
    physical_plan::{
        DisplayAs, DisplayFormatType, ExecutionPlan, Partitioning, PlanProperties, ReplaceChildrenOptions,
        stream::RecordBatchStreamAdapter,
    },
};
use futures::StreamExt;
use proto::layout::Table;
use std::{fmt, sync::Arc};
use store::{
    declared,
    overlay::{self, Depth},
};

/// Constant column of a sealed file: the largest record inside. Only inside plans, never in an answer.
pub const LSN_COLUMN: &str = "__lsn_max";

/// Columns to read of sealed rows of `table`, as positions in its schema, the wanted ones first.
pub fn columns_for(table: Table, columns: &[usize], depth: Depth) -> Vec<usize> {
    let mut columns = overlay::columns_for(table, columns, depth);
    if table == Table::Traces
        && let Ok(id) = declared(table).index_of("trace_id")
        && !columns.contains(&id)
    {
        columns.push(id);
    }
    columns
}

fn brought_up_to_date(table: Table, reading: &Reading, depth: Depth, rows: &RecordBatch) -> Result<RecordBatch> {
    let snapshot = &reading.snapshot;
    if table != Table::Traces {
        let patch_of = |id: &_| snapshot.patches.get(id).map(|patch| Arc::clone(&patch.mark));
        return Ok(overlay::apply_marks(table, rows, depth, &patch_of)?);
    }
    let Some(lsns) = rows.column_by_name(LSN_COLUMN) else {
        return Err(DataFusionError::Internal(format!("{LSN_COLUMN} was not read")));
    };
    // A batch is of one file, unless an operator below joined batches.
    let runs = partition(&[Arc::clone(lsns)])?.ranges();
    let lsns = lsns.as_primitive::<Int64Type>();
    let current = runs
        .into_iter()
        .map(|run| {
            let lsn = u64::try_from(lsns.value(run.start)).unwrap_or(0);
            let rows = rows.slice(run.start, run.len());
            overlay::current(&rows, lsn, &snapshot.replaced)
        })
        .collect::<Result<Vec<_>, _>>()?;
    match current.as_slice() {
        [only] => Ok(only.clone()),
        several => Ok(concat_batches(rows.schema_ref(), several)?),
    }
}

/// Lays patches (or replacements) over what its input reads, and passes on only the wanted columns.
///
/// Filters are not pushed through: a patch may change what a filter sees. What is safe to filter below was already
/// given to the Parquet source.
#[derive(Debug, Clone)]
pub struct OverlayExec {
    table: Table,
    reading: Arc<Reading>,
    depth: Depth,
    input: Arc<dyn ExecutionPlan>,
    properties: Arc<PlanProperties>,
}

impl OverlayExec {
    pub fn new(
        table: Table,
        reading: Arc<Reading>,
        depth: Depth,
        input: Arc<dyn ExecutionPlan>,
        wanted: SchemaRef,
    ) -> Self {
        let below = input.properties();
        let properties = PlanProperties::new(
            EquivalenceProperties::new(wanted),
            Partitioning::UnknownPartitioning(below.output_partitioning().partition_count()),
            below.emission_type,
            below.boundedness,
        )
        .with_scheduling_type(below.scheduling_type);
        Self {
            table,
            reading,
            depth,
            input,
            properties: Arc::new(properties),
        }
    }
}

impl DisplayAs for OverlayExec {
    fn fmt_as(&self, _: DisplayFormatType, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OverlayExec: {}", self.table.as_str())
    }
}

impl ExecutionPlan for OverlayExec {
    fn name(&self) -> &'static str {
        "OverlayExec"
    }

    fn properties(&self) -> &Arc<PlanProperties> {
        &self.properties
    }

    fn children(&self) -> Vec<&Arc<dyn ExecutionPlan>> {
        vec![&self.input]
    }

    /// Laying patches over is cheaper than moving rows to another thread.
    fn benefits_from_input_partitioning(&self) -> Vec<bool> {
        vec![false]
    }

    fn apply_expressions(
        &self,
        _: &mut dyn FnMut(&Arc<dyn PhysicalExpr>) -> Result<TreeNodeRecursion>,
    ) -> Result<TreeNodeRecursion> {
        Ok(TreeNodeRecursion::Continue)
    }

    fn replace_children(
        self: Arc<Self>,
        mut children: Vec<Arc<dyn ExecutionPlan>>,
        _: ReplaceChildrenOptions,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        match (children.pop(), children.is_empty()) {
            (Some(input), true) => Ok(Arc::new(Self::new(
                self.table,
                Arc::clone(&self.reading),
                self.depth,
                input,
                self.schema(),
            ))),
            _ => Err(DataFusionError::Internal("OverlayExec has one input".to_owned())),
        }
    }

    fn with_new_children(self: Arc<Self>, children: Vec<Arc<dyn ExecutionPlan>>) -> Result<Arc<dyn ExecutionPlan>> {
        use datafusion::physical_plan::ChildrenPropertiesMode::Recompute;
        self.replace_children(children, ReplaceChildrenOptions::new(Recompute))
    }

    fn execute(&self, partition: usize, context: Arc<TaskContext>) -> Result<SendableRecordBatchStream> {
        let (table, depth, reading) = (self.table, self.depth, Arc::clone(&self.reading));
        // The wanted columns come first.
        let wanted: Vec<usize> = (0..self.schema().fields().len()).collect();
        let rows = self.input.execute(partition, context)?.map(move |rows| {
            let rows = brought_up_to_date(table, &reading, depth, &rows?)?;
            Ok(rows.project(&wanted)?)
        });
        Ok(Box::pin(RecordBatchStreamAdapter::new(self.schema(), rows)))
    }
}
