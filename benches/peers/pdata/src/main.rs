//! From the bytes of an export request to Arrow: the reader beside the peer's views, and prost's structs, which are no Arrow.
//!
//! All of them take the same bytes in one process, in turns, and are timed by the CPU clock of this thread, so that a shared
//! machine disturbs all alike. What comes out is not the same: the reader makes rows with meaning (models, tokens, cost, what
//! becomes of texts), the peer the tables of the OTAP protocol.
#![allow(missing_docs)]

#[path = "../../../src/captures.rs"]
mod captures;
// other benches use more of it
#[allow(dead_code)]
#[path = "../../../src/payload/mod.rs"]
mod payload;

use ingest::read::{ContentPolicy, ReadConfig, Reader};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use otel_arrow_dfe_pdata::{encode::encode_spans_otap_batch, views::otlp::bytes::traces::RawTraceData};
use payload::Payload;
use prost::Message;
use proto::Nanos;
use rustix::time::{ClockId, clock_gettime};
use std::{error::Error, hint::black_box, path::Path, sync::Arc};

/// As in the server.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

/// Spans of a small request.
const SPANS: usize = 512;
/// How often the captured requests stand in one: about as many spans as a busy lane gathers for one batch.
const SCALE: usize = 8;
/// CPU that one side takes in one round, seconds.
const TURN_S: f64 = 0.2;
const ROUNDS_DEFAULT: usize = 15;

type Failure = Box<dyn Error>;
/// Reads a request and says how many spans it held.
type Side = Box<dyn FnMut(&[u8]) -> Result<usize, Failure>>;

fn main() -> Result<(), Failure> {
    let rounds = match std::env::args().nth(1) {
        Some(rounds) => rounds
            .parse()
            .map_err(|_| format!("`{rounds}` is no number of rounds"))?,
        None => ROUNDS_DEFAULT,
    };
    let captured = captures::traces(&Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../testdata/captures"))?;
    println!("{rounds} rounds; medians of spans a CPU-second, and of the ratio of the reader to each within a round\n");
    println!("| request | side | spans a CPU-second | reader / side |\n| --- | --- | --- | --- |");
    for (name, body) in [
        ("small, 512 spans", Payload::new(SPANS, 0).request(1, 0).to_vec()),
        ("captured, once", captured.clone()),
        ("captured, eight times over", captured.repeat(SCALE)),
    ] {
        measure(name, &body, rounds)?;
    }
    Ok(())
}

fn measure(name: &str, body: &[u8], rounds: usize) -> Result<(), Failure> {
    let mut sides: [(&str, Side); 5] = [
        ("reader", reader(ContentPolicy::Drop)),
        ("reader, texts kept", reader(ContentPolicy::Keep)),
        ("views into Arrow", Box::new(|body| views(RawTraceData::new(body)))),
        (
            "views into Arrow, framing checked first",
            Box::new(|body| views(RawTraceData::try_new(body)?)),
        ),
        ("prost structs", Box::new(structs)),
    ];
    let spans = sides[4].1(body)?;
    let mut times = Vec::new();
    for (side, read) in &mut sides {
        if read(body)? != spans {
            return Err(format!("{side} does not find {spans} spans").into());
        }
        let begun = cpu_s();
        read(body)?;
        times.push((((TURN_S / (cpu_s() - begun)) as usize).max(1), Vec::new()));
    }
    for _ in 0..rounds {
        for ((_, read), (repeats, rates)) in sides.iter_mut().zip(&mut times) {
            let begun = cpu_s();
            for _ in 0..*repeats {
                black_box(read(black_box(body))?);
            }
            rates.push((*repeats * spans) as f64 / (cpu_s() - begun));
        }
    }
    let ours = times[0].1.clone();
    for ((side, _), (_, rates)) in sides.iter().zip(times) {
        let ratios = ours.iter().zip(&rates).map(|(ours, rate)| ours / rate).collect();
        let bytes = body.len() / spans;
        println!(
            "| {name}, {bytes} B a span | {side} | {:.0} | {:.2} |",
            median(rates),
            median(ratios)
        );
    }
    Ok(())
}

fn reader(policy: ContentPolicy) -> Side {
    let config = ReadConfig {
        content: policy.into(),
        ..ReadConfig::default()
    };
    let mut reader = Reader::new(Arc::new(config));
    Box::new(move |body| {
        let accepted = reader.read_traces(body, Nanos(1))?;
        black_box(reader.take());
        Ok(usize::try_from(accepted.accepted)?)
    })
}

fn views(data: RawTraceData<'_>) -> Result<usize, Failure> {
    let records = encode_spans_otap_batch(&data)?;
    Ok(black_box(records).num_items())
}

fn structs(body: &[u8]) -> Result<usize, Failure> {
    let request = black_box(ExportTraceServiceRequest::decode(body)?);
    let scopes = request.resource_spans.iter().flat_map(|resource| &resource.scope_spans);
    Ok(scopes.map(|scope| scope.spans.len()).sum())
}

fn median(mut of: Vec<f64>) -> f64 {
    of.sort_by(f64::total_cmp);
    of.get(of.len() / 2).copied().unwrap_or(f64::NAN)
}

/// CPU of this thread so far, seconds.
fn cpu_s() -> f64 {
    let now = clock_gettime(ClockId::ThreadCPUTime);
    now.tv_sec as f64 + now.tv_nsec as f64 / 1e9
}
