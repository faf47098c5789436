//! Functions that SQL gets beyond DataFusion's own.

mod eval_name;
mod hdr_quantile;
pub mod narrowed;

use datafusion::logical_expr::{AggregateUDF, ScalarUDF};
use std::sync::Arc;

/// Scalar functions.
pub fn scalar() -> Vec<Arc<ScalarUDF>> {
    vec![Arc::new(ScalarUDF::from(eval_name::EvalName::new()))]
}

/// Aggregate functions.
pub fn aggregate() -> Vec<Arc<AggregateUDF>> {
    vec![Arc::new(AggregateUDF::from(
        hdr_quantile::HdrQuantile::new(),
    ))]
}

/// DataFusion's functions that make megabytes out of a few bytes of SQL, outside of any memory pool; they are taken out.
pub const AMPLIFIERS: [&str; 7] = [
    "repeat",
    "lpad",
    "rpad",
    "array_repeat",
    "array_resize",
    "range",
    "generate_series",
];
