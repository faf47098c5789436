//! What is kept and how: the journal, live micro-batches, sealed Parquet, the commit record, the snapshot.
//!
//! ```text
//! MicroBatch --append, fdatasync--> journal --in order--> engine --publish--> Snapshot (live rows, marks, cells)
//!                                                          |
//!                                                          +--seal--> Parquet by color --> commit record --> Snapshot
//! ```
//!
//! The store knows tables, rows and trace ids. It does not know OTLP, releases or SQL, and it never reads a clock.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod batch;
pub mod layers;
pub mod snapshot;

pub use batch::{MicroBatch, Section};
pub use layers::Layers;
pub use snapshot::{Mark, Patch, SealedFile, Snapshot, TraceId};
