//! The store on real files: cut tails, power cuts at any step, round trips.
#![allow(clippy::unwrap_used, missing_docs, clippy::print_stderr)]

mod faults;
mod fuzzed;
mod journal;
mod lookup;
mod overlay;
mod power;
mod rows;
mod seal;
mod start;
mod upkeep;
