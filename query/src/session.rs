//! One session a query: the shared functions and rules, over tables and views of one snapshot.

use crate::{
    QueryError, View,
    functions::{self, AMPLIFIERS},
    guard, metrics,
    tables::{self, Opened},
    views::VIEWS,
};
use datafusion::{
    catalog::{
        CatalogProvider, CatalogProviderList, MemoryCatalogProvider, MemoryCatalogProviderList, MemorySchemaProvider,
        SchemaProvider, view::ViewTable,
    },
    execution::{
        SendableRecordBatchStream, SessionState, SessionStateBuilder, SessionStateDefaults, runtime_env::RuntimeEnv,
    },
    logical_expr::LogicalPlan,
    physical_plan::execute_stream,
    prelude::SessionConfig,
    sql::parser::Statement,
};
use std::{collections::HashMap, sync::Arc};

const CATALOG: &str = "tracegate";
const SCHEMA: &str = "public";

/// What every session starts from. No file format, table factory or function that reads a file is registered.
pub fn base(runtime: Arc<RuntimeEnv>, partitions: usize) -> SessionState {
    let mut config = SessionConfig::new()
        .with_target_partitions(partitions)
        .with_information_schema(true)
        .with_create_default_catalog_and_schema(false)
        .with_default_catalog_and_schema(CATALOG, SCHEMA);
    // With `min(a), max(b)` DataFusion 55 lets the reader skip rows that beat neither value so far, although it has none
    // yet for a column that was null up to here.
    config.options_mut().optimizer.enable_aggregate_dynamic_filter_pushdown = false;
    let parquet = &mut config.options_mut().execution.parquet;
    parquet.pushdown_filters = true;
    parquet.reorder_filters = true;
    let scalar = SessionStateDefaults::default_scalar_functions()
        .into_iter()
        .filter(|f| !AMPLIFIERS.contains(&f.name()))
        .chain(functions::scalar())
        .collect();
    let aggregate = SessionStateDefaults::default_aggregate_functions()
        .into_iter()
        .chain(functions::aggregate())
        .collect();
    let table_functions = SessionStateDefaults::default_table_functions()
        .into_iter()
        .chain(functions::table())
        .map(|f| (f.name().to_owned(), f))
        .collect::<HashMap<_, _>>();
    SessionStateBuilder::new()
        .with_config(config)
        .with_runtime_env(runtime)
        .with_expr_planners(SessionStateDefaults::default_expr_planners())
        .with_scalar_functions(scalar)
        .with_higher_order_functions(SessionStateDefaults::default_higher_order_functions())
        .with_aggregate_functions(aggregate)
        .with_window_functions(SessionStateDefaults::default_window_functions())
        .with_table_functions(table_functions)
        .build()
}

/// Plans `statement` over `view` and starts it; the files it opens are noted in `opened`.
pub async fn open(
    base: &SessionState,
    view: &View,
    statement: Statement,
    opened: &Arc<Opened>,
) -> Result<SendableRecordBatchStream, QueryError> {
    let partitions = base.config().target_partitions();
    let schema = tables::register(view, partitions, opened).map_err(QueryError::planning)?;
    let state = over(base, &schema)?;
    add_views(&state, &schema, &statement).await?;
    let plan = state.statement_to_plan(statement).await.map_err(QueryError::planning)?;
    guard::check_plan(&plan)?;
    let plan = state.optimize(&plan).map_err(QueryError::planning)?;
    let plan = state
        .query_planner()
        .create_physical_plan(&plan, &state)
        .await
        .map_err(QueryError::planning)?;
    execute_stream(plan, state.task_ctx()).map_err(QueryError::from)
}

fn over(base: &SessionState, schema: &Arc<MemorySchemaProvider>) -> Result<SessionState, QueryError> {
    let catalog = MemoryCatalogProvider::new();
    catalog
        .register_schema(SCHEMA, Arc::clone(schema) as _)
        .map_err(QueryError::planning)?;
    let catalogs = MemoryCatalogProviderList::new();
    catalogs.register_catalog(CATALOG.to_owned(), Arc::new(catalog));
    let mut state = SessionStateBuilder::new_from_existing(base.clone())
        .with_catalog_list(Arc::new(catalogs))
        .build();
    state.mark_start_execution();
    Ok(state)
}

/// Plans the views that `statement` names, or all of them if it asks what there is.
async fn add_views(
    state: &SessionState,
    schema: &MemorySchemaProvider,
    statement: &Statement,
) -> Result<(), QueryError> {
    let named = state
        .resolve_table_references(statement)
        .map_err(QueryError::planning)?;
    let lists_all = named.iter().any(|name| name.schema() == Some("information_schema"));
    for view in VIEWS.iter().chain(metrics::views()) {
        if !lists_all && !named.iter().any(|name| name.table() == view.name) {
            continue;
        }
        let plan = plan_of(state, view.sql).await?;
        let table = ViewTable::new(plan, Some(view.sql.trim().to_owned()));
        schema
            .register_table(view.name.to_owned(), Arc::new(table))
            .map_err(QueryError::planning)?;
    }
    Ok(())
}

async fn plan_of(state: &SessionState, sql: &str) -> Result<LogicalPlan, QueryError> {
    state.create_logical_plan(sql).await.map_err(QueryError::planning)
}
