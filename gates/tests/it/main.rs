//! Tests of the gates through their public API.
#![allow(clippy::unwrap_used, missing_docs)]

mod check;
mod desk;
mod judging;
mod life;
mod mutations;
mod outbox;
mod receiver;
mod stream;
mod vectors;
