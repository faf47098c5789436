//! A snapshot becomes SQL. The only crate that knows DataFusion.
//!
//! ```text
//! sql --guard--> one read-only statement --plan over one Snapshot--> batches --output--> JSON, CSV, Arrow, text
//!                                            |
//!          live rows (completed, marks applied) + sealed Parquet (pruned, patched) + cells + ledger tables
//! ```
//!
//! ```no_run
//! # async fn example() -> Result<(), query::QueryError> {
//! let engine = query::Engine::new(query::EngineOptions::new("data"))?;
//! let answer = engine.run(query::View::default(), "SELECT count(*) AS n FROM spans").await?;
//! let batches = answer.collect(query::Bounds::default()).await?;
//! assert_eq!(batches.rows(), 1);
//! # Ok(())
//! # }
//! ```
//!
//! A query sees one `Arc<Snapshot>` from beginning to end: no row twice, none missing. Nothing that SQL says can
//! write, or name a file: there is no statement, function or object store that could.

mod answer;
mod engine;
mod error;
mod functions;
mod guard;
mod limits;
pub mod measure;
pub mod metrics;
pub mod output;
mod parameters;
mod session;
mod tables;
mod view;
pub mod views;

pub use answer::{Answer, Batches, Bounds, Rows};
pub use engine::{Engine, EngineOptions};
pub use error::QueryError;
pub use measure::measure;
pub use view::{LedgerTables, View};
