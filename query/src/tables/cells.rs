//! `cells`: the snapshot's own cell table as rows, built when a query first scans it.

use arrow::{array::RecordBatch, datatypes::SchemaRef};
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    datasource::memory::MemorySourceConfig,
    error::{DataFusionError, Result},
    logical_expr::{Expr, TableType},
    physical_plan::ExecutionPlan,
};
use proto::schema;
use std::sync::{Arc, OnceLock};
use store::{Snapshot, cells_to_batch};

/// The cells of one snapshot.
#[derive(Debug)]
pub struct CellsTable {
    snapshot: Arc<Snapshot>,
    rows: OnceLock<RecordBatch>,
}

impl CellsTable {
    pub const fn new(snapshot: Arc<Snapshot>) -> Self {
        Self {
            snapshot,
            rows: OnceLock::new(),
        }
    }

    fn rows(&self) -> Result<RecordBatch> {
        if let Some(rows) = self.rows.get() {
            return Ok(rows.clone());
        }
        let rows = cells_to_batch(&self.snapshot.cells).map_err(|e| DataFusionError::External(Box::new(e)))?;
        Ok(self.rows.get_or_init(|| rows).clone())
    }
}

#[async_trait]
impl TableProvider for CellsTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&schema::CELLS)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    async fn scan(
        &self,
        _state: &dyn Session,
        projection: Option<&Vec<usize>>,
        _filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let plan = MemorySourceConfig::try_new_exec(&[vec![self.rows()?]], self.schema(), projection.cloned())?;
        Ok(plan)
    }
}
