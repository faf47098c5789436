//! One binary for all that needs a running server: in this process, or as a child that can be killed.
#![allow(clippy::unwrap_used, missing_docs)]

mod cli;
mod kill;
mod otlp;
mod prices;
mod releases;
mod serve;
