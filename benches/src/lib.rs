//! What several benches share: a release to judge, and requests to send.
#![cfg_attr(test, allow(clippy::unwrap_used))]

#[cfg(feature = "wire")]
pub mod captures;
#[cfg(feature = "wire")]
pub mod payload;
pub mod release;
pub mod resident;
