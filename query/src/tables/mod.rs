//! The base tables, all built from one snapshot.
//!
//! `spans`, `traces` and `evals` are the union of live rows and sealed files ([`snapshot_table`]); `cells` are the
//! snapshot's own (the sealed `cells` files are deltas for restarts, and would count twice); the ledger's tables are
//! handed over ready.

mod cells;
mod live;
mod opened;
mod overlay;
mod prune;
mod reading;
mod sealed;
mod snapshot_table;

pub use opened::Opened;

use crate::View;
use datafusion::{
    catalog::{MemorySchemaProvider, SchemaProvider, TableProvider},
    datasource::MemTable,
    error::Result,
};
use proto::layout::Table;
use reading::Reading;
use snapshot_table::SnapshotTable;
use std::sync::Arc;

/// A schema with every base table over `view`, whose files are noted in `opened`.
pub fn register(view: &View, partitions: usize, opened: &Arc<Opened>) -> Result<Arc<MemorySchemaProvider>> {
    let schema = Arc::new(MemorySchemaProvider::new());
    let reading = Arc::new(Reading::new(Arc::clone(&view.snapshot), Arc::clone(opened)));
    for table in [Table::Spans, Table::Traces, Table::Evals] {
        let provider = SnapshotTable::new(table, Arc::clone(&reading), partitions);
        schema.register_table(table.as_str().to_owned(), Arc::new(provider))?;
    }
    let cells: Arc<dyn TableProvider> = Arc::new(cells::CellsTable::new(Arc::clone(&view.snapshot)));
    schema.register_table(Table::Cells.as_str().to_owned(), cells)?;
    let ledger = &view.ledger;
    for (name, rows) in [
        ("releases", &ledger.releases),
        ("decisions", &ledger.decisions),
        ("deliveries", &ledger.deliveries),
    ] {
        let table = MemTable::try_new(rows.schema(), vec![vec![rows.clone()]])?;
        schema.register_table(name.to_owned(), Arc::new(table))?;
    }
    Ok(schema)
}
