//! Tests of the gates through their public API.
#![allow(clippy::unwrap_used, missing_docs)]

mod backtest;
mod check;
mod desk;
mod judging;
mod life;
mod outbox;
mod predict;
mod receiver;
mod stream;
mod vectors;
