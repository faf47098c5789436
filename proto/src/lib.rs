//! The contracts of tracegate: words, table schemas, cells, releases, decisions, signatures.
//!
//! Every other crate depends on this one and siblings meet only here. Nothing in this crate does IO,
//! reads a clock or knows a wire format other than JSON.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod ages;
pub mod bucket;
pub mod cell;
pub mod clock;
pub mod color;
pub mod decision;
pub mod histogram;
pub mod layout;
pub mod measure;
pub mod metric;
pub mod release;
pub mod schema;
pub mod signature;

pub use ages::Ages;
pub use cell::{Cell, CellKey, CellTable};
pub use clock::Nanos;
pub use color::Color;
pub use histogram::Histogram;
pub use metric::{Grain, Metric};
