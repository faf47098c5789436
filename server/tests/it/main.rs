//! One binary for all that needs a running server: in this process, or as a child that can be killed.
#![allow(clippy::unwrap_used, clippy::print_stderr, missing_docs)]

mod backtest;
mod captures;
mod cli;
mod drain;
mod evals;
mod exporters;
mod full;
mod fuzzed;
mod import;
mod kill;
mod metrics;
mod observed;
mod operations;
mod otlp;
mod overload;
mod people;
mod prices;
mod releases;
mod reload;
mod running;
mod serve;
mod sqlgate;
mod top;
