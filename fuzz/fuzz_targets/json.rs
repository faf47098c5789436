//! OTLP/JSON from anywhere: what becomes protobuf must be a request that can be read or is refused.
#![no_main]

use ingest::{door::from_json, intake::Signal};

libfuzzer_sys::fuzz_target!(|body: &[u8]| {
    for signal in [Signal::Traces, Signal::Logs] {
        if let Ok(request) = from_json(signal, body) {
            fuzz::read(signal, &request);
        }
    }
});
