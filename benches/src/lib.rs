//! What several benches share: a release to judge.

pub mod release;
