//! From OTLP bytes to rows, traces and cells.
//!
//! ```text
//! door --Envelope--> lane: read --MicroBatch--> journal, fdatasync, ack --> engine: assemble, fold, publish, seal
//! ```
//!
//! Reading, normalising, assembling and folding are pure: they take bytes, rows and times and return values.
//! Only `door` and `pipeline` do IO. Nothing here knows SQL, rules or webhooks.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod assemble;
pub mod door;
pub mod intake;
pub mod pipeline;
pub mod price;
pub mod read;
