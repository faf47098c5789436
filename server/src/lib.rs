//! The composition root: configuration, command line, HTTP API, and the wiring of store, ingest, query and gates.
//!
//! ```text
//! config --> wire::App --> doors > pipeline > snapshot --> query engine --> http, cli
//!                                              +--> gates desk --> release book --> pipeline
//! ```
//!
//! Only this crate reads the wall clock, prints, and knows every other crate.
#![cfg_attr(test, allow(clippy::unwrap_used))]

pub mod cli;
pub mod clock;
pub mod config;
pub mod http;
pub mod logs;
mod offline;
mod secrets;
pub mod wire;

pub use clock::wall as wall_clock;
