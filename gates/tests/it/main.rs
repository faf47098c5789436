//! Tests of the gates through their public API.
#![allow(clippy::unwrap_used, missing_docs)]

mod check;
mod desk;
mod life;
mod receiver;
mod outbox;
mod judging;
mod stream;
mod vectors;
