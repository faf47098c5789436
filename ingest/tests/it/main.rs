//! Integration tests of the ingest crate: one binary, one module a subject.
#![allow(clippy::unwrap_used, missing_docs)]

mod canary;
mod fuzzed;
mod pipeline;
mod reader;
mod twins;
