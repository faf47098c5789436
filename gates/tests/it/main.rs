//! Tests of the gates through their public API.
#![allow(clippy::unwrap_used, missing_docs)]

mod backtest;
mod check;
mod courses;
mod desk;
mod expire;
mod fuzzed;
mod invariants;
mod judging;
mod life;
mod measured;
mod model;
mod mutations;
mod outbox;
mod predict;
mod receiver;
mod restraint;
mod stream;
mod vectors;
