//! What several benches share: a release to judge, and requests to send.

#[cfg(feature = "wire")]
pub mod payload;
pub mod release;
