//! Table functions that narrow a view to one release: `release_compare('id')`, `worst_traces('id', 'latency')`.

use crate::views::WORST_BY;
use datafusion::{
    catalog::{TableFunctionArgs, TableFunctionImpl, TableProvider, view::ViewTable},
    common::{ScalarValue, plan_err},
    error::Result,
    execution::SessionState,
    logical_expr::{Expr, LogicalPlan, LogicalPlanBuilder, col, lit},
};
use std::sync::Arc;

/// Rows that `worst_traces(id, metric)` gives.
const WORST_ROWS: usize = 20;

/// Registers the function that narrows view `name`, if there is one.
pub fn register(state: &mut SessionState, name: &str, view: &LogicalPlan) {
    let function: Arc<dyn TableFunctionImpl> = match name {
        "release_compare" => Arc::new(ReleaseCompare(view.clone())),
        "worst_traces" => Arc::new(WorstTraces(view.clone())),
        _ => return,
    };
    state.register_udtf(name, function);
}

#[derive(Debug)]
struct ReleaseCompare(LogicalPlan);

impl TableFunctionImpl for ReleaseCompare {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let texts = texts_of(args.exprs());
        let [Some(release)] = texts.as_slice() else {
            return plan_err!("release_compare takes one text: release_compare('release id')");
        };
        let plan = LogicalPlanBuilder::from(self.0.clone())
            .filter(col("release").eq(lit(release.as_str())))?
            .build()?;
        Ok(Arc::new(ViewTable::new(plan, None)))
    }
}

#[derive(Debug)]
struct WorstTraces(LogicalPlan);

impl TableFunctionImpl for WorstTraces {
    fn call_with_args(&self, args: TableFunctionArgs) -> Result<Arc<dyn TableProvider>> {
        let texts = texts_of(args.exprs());
        let (release, metric) = match texts.as_slice() {
            [Some(release)] => (release, None),
            [Some(release), Some(metric)] => (release, Some(metric)),
            _ => {
                return plan_err!(
                    "worst_traces takes one or two texts: worst_traces('release id', 'latency')"
                );
            }
        };
        let of_release = col("release").eq(lit(release.as_str()));
        let plan = LogicalPlanBuilder::from(self.0.clone()).filter(of_release)?;
        let plan = match metric {
            None => plan,
            Some(metric) => {
                let column = worst_by(metric)?;
                plan.sort_with_limit([col(column).sort(false, false)], Some(WORST_ROWS))?
            }
        };
        Ok(Arc::new(ViewTable::new(plan.build()?, None)))
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
                ScalarValue::Utf8(Some(text))
                | ScalarValue::Utf8View(Some(text))
                | ScalarValue::LargeUtf8(Some(text)),
                _,
            ) => Some(text.clone()),
            _ => None,
        })
        .collect()
}
