//! `spans`, `traces` and `evals`: live rows and sealed files as one table.

use super::{live, reading::Reading, sealed};
use crate::limits::sealed_url;
use arrow::datatypes::SchemaRef;
use async_trait::async_trait;
use datafusion::{
    catalog::{Session, TableProvider},
    common::{DFSchema, config::TableParquetOptions},
    error::Result,
    logical_expr::{Expr, TableProviderFilterPushDown, TableType, utils::conjunction},
    physical_plan::{ExecutionPlan, empty::EmptyExec, union::UnionExec},
};
use proto::layout::Table;
use std::sync::Arc;
use store::declared;

/// One table of a snapshot.
#[derive(Debug)]
pub struct SnapshotTable {
    table: Table,
    reading: Arc<Reading>,
    schema: SchemaRef,
    partitions: usize,
}

impl SnapshotTable {
    pub fn new(table: Table, reading: Arc<Reading>, partitions: usize) -> Self {
        Self {
            table,
            reading,
            schema: Arc::clone(declared(table)),
            partitions,
        }
    }
}

#[async_trait]
impl TableProvider for SnapshotTable {
    fn schema(&self) -> SchemaRef {
        Arc::clone(&self.schema)
    }

    fn table_type(&self) -> TableType {
        TableType::Base
    }

    /// Inexact: files are pruned with every filter, and the optimizer then moves the filter into the Parquet reader
    /// where rows are final, and above the rest.
    fn supports_filters_pushdown(&self, filters: &[&Expr]) -> Result<Vec<TableProviderFilterPushDown>> {
        Ok(vec![TableProviderFilterPushDown::Inexact; filters.len()])
    }

    async fn scan(
        &self,
        state: &dyn Session,
        projection: Option<&Vec<usize>>,
        filters: &[Expr],
        _limit: Option<usize>,
    ) -> Result<Arc<dyn ExecutionPlan>> {
        let all: Vec<usize>;
        let columns: &[usize] = match projection {
            Some(columns) => columns,
            None => {
                all = (0..self.schema.fields().len()).collect();
                &all
            }
        };
        let wanted = Arc::new(self.schema.project(columns)?);
        let predicate = match conjunction(filters.iter().cloned()) {
            Some(filter) => {
                let schema = DFSchema::try_from(Arc::clone(&self.schema))?;
                Some(state.create_physical_expr(filter, &schema)?)
            }
            None => None,
        };
        let request = sealed::Request {
            table: self.table,
            declared: &self.schema,
            columns,
            wanted: &wanted,
            predicate,
            parquet: TableParquetOptions {
                global: state.config_options().execution.parquet.clone(),
                ..TableParquetOptions::default()
            },
            partitions: self.partitions,
            files: state.runtime_env().object_store(sealed_url()?)?,
        };
        let mut plans = sealed::scan(&self.reading, &request)?;
        plans.extend(live::scan(
            self.table,
            &self.reading,
            columns,
            &wanted,
            self.partitions,
        )?);
        match plans.len() {
            0 => Ok(Arc::new(EmptyExec::new(wanted))),
            1 => Ok(plans.remove(0)),
            _ => UnionExec::try_new(plans),
        }
    }
}
