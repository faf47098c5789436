//! Functions that SQL gets beyond DataFusion's own.

mod draw_of;
mod hdr_quantile;
mod narrowed;

use datafusion::{
    catalog::TableFunction,
    logical_expr::{AggregateUDF, ScalarUDF},
};
use std::sync::Arc;

/// Aggregate functions.
pub fn aggregate() -> Vec<Arc<AggregateUDF>> {
    vec![Arc::new(AggregateUDF::from(hdr_quantile::HdrQuantile::new()))]
}

/// Scalar functions.
pub fn scalar() -> Vec<Arc<ScalarUDF>> {
    vec![Arc::new(ScalarUDF::from(draw_of::DrawOf::new()))]
}

/// Table functions.
pub fn table() -> impl Iterator<Item = Arc<TableFunction>> {
    narrowed::all().into_iter().map(Arc::new)
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
