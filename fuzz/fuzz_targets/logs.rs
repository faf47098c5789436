//! OTLP protobuf logs from anywhere.
#![no_main]

use ingest::intake::Signal;

libfuzzer_sys::fuzz_target!(|body: &[u8]| fuzz::read(Signal::Logs, body));
