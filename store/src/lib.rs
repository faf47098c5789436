//! What is kept and how: the journal, live micro-batches, sealed Parquet, the commit record, the snapshot.
//!
//! ```text
//! MicroBatch --append, fdatasync--> journal --in order--> engine --publish--> Snapshot (live rows, marks, cells)
//!                                                          |
//!                                                          +--seal--> Parquet by color --> commit record --> Snapshot
//!                                                                         ^      |
//!                                                                         +------+ upkeep: joined, thinned, set aside
//! ```
//!
//! The store knows tables, rows and trace ids. It does not know OTLP, releases or SQL, and it never reads a clock.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod batch;
pub mod cells;
mod commit;
pub mod disk;
pub mod error;
mod frame;
pub mod journal;
pub mod layers;
pub mod live;
mod lock;
pub mod lookup;
pub mod overlay;
pub mod seal;
pub mod snapshot;
pub mod state;
pub mod store;
mod unnamed;
pub mod upkeep;
mod words;

pub use batch::{MicroBatch, Section};
pub use cells::{batch_to_cells, cells_to_batch};
pub use error::StoreError;
pub use journal::{Journal, JournalRecovery, Replay};
pub use layers::Layers;
pub use seal::{SealInput, Sealed, Sealer};
pub use snapshot::{Filling, LiveBatch, Mark, Marks, Patch, SealedFile, Snapshot, SpanMark, TraceId, Twin};
pub use state::State;
pub use store::{Recovered, RecoveryReport, Store, StoreOptions};
pub use upkeep::{Retention, Space, Upkeep, Upkept};
pub use words::declared;
