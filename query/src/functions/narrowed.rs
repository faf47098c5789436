//! Table functions that narrow a view to one release: `release_compare('id')`, `worst_traces('id', 'latency')`; or to what
//! one evaluator has not judged: `evals_wanted('TaskCompletion')`.

use crate::views::{self, WORST_BY};
use datafusion::{
    catalog::{Session, TableFunction, TableFunctionArgs, TableFunctionImpl, TableProvider, view::ViewTable},
    common::{ScalarValue, plan_err},
    error::{DataFusionError, Result},
    execution::SessionState,
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, col, lit},
};
use futures::FutureExt;
use std::sync::Arc;

/// All of them.
pub fn all() -> [TableFunction; 3] {
    [
        TableFunction::new("release_compare".to_owned(), Arc::new(ReleaseCompare)),
        TableFunction::new("worst_traces".to_owned(), Arc::new(WorstTraces)),
        TableFunction::new("evals_wanted".to_owned(), Arc::new(EvalsWanted)),
    ]
}

#[derive(Debug)]
struct ReleaseCompare;

impl TableFunctionImpl for ReleaseCompare {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        match texts_of(args.exprs()).as_slice() {
            [Some(release)] => of_release(args.session(), views::RELEASE_COMPARE, release),
            _ => plan_err!("release_compare takes one text: release_compare('release id')"),
        }
    }
}

#[derive(Debug)]
struct WorstTraces;

impl TableFunctionImpl for WorstTraces {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        match texts_of(args.exprs()).as_slice() {
            [Some(release)] => of_release(args.session(), views::WORST_TRACES, release),
            [Some(release), Some(metric)] => {
                let sql = views::worst_traces_by(worst_by(metric)?);
                of_release(args.session(), &sql, release)
            }
            _ => plan_err!("worst_traces takes one or two texts: worst_traces('release id', 'latency')"),
        }
    }
}

#[derive(Debug)]
struct EvalsWanted;

impl TableFunctionImpl for EvalsWanted {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        match texts_of(args.exprs()).as_slice() {
            [Some(evaluation)] => {
                let plan = plan_of(args.session(), &views::evals_wanted_by(evaluation))?;
                Ok(Arc::new(ViewTable::new(plan, None)))
            }
            _ => plan_err!("evals_wanted takes one text: evals_wanted('evaluation name')"),
        }
    }
}

/// The rows of `sql` that belong to `release`.
fn of_release(session: &dyn Session, sql: &str, release: &str) -> Result<Arc<dyn TableProvider>> {
    let plan = LogicalPlanBuilder::from(plan_of(session, sql)?)
        .filter(col("release").eq(lit(release)))?
        .build()?;
    Ok(Arc::new(ViewTable::new(plan, None)))
}

fn plan_of(session: &dyn Session, sql: &str) -> Result<LogicalPlan> {
    let Some(state) = session.as_any().downcast_ref::<SessionState>() else {
        return plan_err!("table functions need a session of this engine");
    };
    // Tables are in memory, so planning never waits.
    match state.create_logical_plan(sql).now_or_never() {
        Some(plan) => plan,
        None => Err(DataFusionError::Internal("planning a view waited".to_owned())),
    }
}

fn worst_by(metric: &str) -> Result<&'static str> {
    let base = metric.split(':').next().unwrap_or(metric);
    match WORST_BY.iter().find(|(name, _)| *name == base) {
        Some((_, column)) => Ok(column),
        None => {
            let names: Vec<&str> = WORST_BY.iter().map(|(name, _)| *name).collect();
            plan_err!(
                "worst_traces knows no metric '{metric}'; take one of {}",
                names.join(", ")
            )
        }
    }
}

/// Literal texts among the arguments; `None` for anything else.
fn texts_of(args: &[Expr]) -> Vec<Option<String>> {
    args.iter()
        .map(|arg| match arg {
            Expr::Literal(
                ScalarValue::Utf8(Some(text)) | ScalarValue::Utf8View(Some(text)) | ScalarValue::LargeUtf8(Some(text)),
                _,
            ) => Some(text.clone()),
            _ => None,
        })
        .collect()
}
