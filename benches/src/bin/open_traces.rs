//! Memory of traces that do not end: spans whose root never comes, each of a trace of its own, through the reader and
//! the assembly. Printed is what the kernel says of this process, so the reader and the batch in flight are included.
#![allow(clippy::print_stdout)]

use benches::resident::resident;
use clap::Parser;
use ingest::{
    assemble::{Assembly, Limits},
    read::{ReadConfig, Reader},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, KeyValue, any_value::Value},
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;
use proto::Nanos;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{error::Error, sync::Arc};
use store::MicroBatch;

/// As in the server.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Debug, Parser)]
#[command(
    about = "Memory of open traces",
    after_help = "Example:\n  open_traces --traces 1000000 --spans 2"
)]
struct Args {
    /// Traces that stay open
    #[arg(long, default_value_t = 1_000_000)]
    traces: usize,
    /// Spans of each, a call and tools
    #[arg(long, default_value_t = 1)]
    spans: usize,
    /// Seed of ids
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// Traces a request.
const BATCH: usize = 512;
/// First moment, ns.
const T0: i64 = 1_800_000_000_000_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut rng = ChaCha8Rng::seed_from_u64(args.seed);
    let mut reader = Reader::new(Arc::new(ReadConfig::default()));
    let mut assembly = Assembly::new(Limits::default());
    let before = resident("VmRSS:")?;
    let (mut opened, mut lsn) = (0, 0);
    while opened < args.traces {
        let traces = BATCH.min(args.traces - opened);
        lsn += 1;
        // a second for 100,000 traces: well below the time after which a trace without a root closes
        let now = Nanos(T0 + (opened as i64) * 10_000);
        reader.read_traces(&request(&mut rng, traces, args.spans, now), now)?;
        let effects = assembly.apply(&MicroBatch {
            lsn,
            received_at: now,
            digests: Vec::new(),
            sections: reader.take(),
        })?;
        drop(effects);
        opened += traces;
    }
    let counts = assembly.counts();
    println!("seed {}", args.seed);
    println!("open traces          {}", counts.open);
    println!("evicted              {}", counts.evicted);
    println!("estimated            {} MiB", counts.bytes >> 20);
    println!("resident, before     {} MiB", before >> 10);
    println!("resident, peak       {} MiB", resident("VmHWM:")? >> 10);
    Ok(())
}

fn request(rng: &mut ChaCha8Rng, traces: usize, spans: usize, now: Nanos) -> Vec<u8> {
    let text = |key: &str, value: &str| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue {
            value: Some(Value::StringValue(value.to_owned())),
        }),
        ..KeyValue::default()
    };
    let mut rows = Vec::with_capacity(traces * spans);
    for _ in 0..traces {
        let trace_id = (rng.next_u64().to_be_bytes(), rng.next_u64().to_be_bytes());
        let trace_id = [trace_id.0, trace_id.1].concat();
        for n in 0..spans {
            let end = now.0.cast_unsigned();
            rows.push(Span {
                trace_id: trace_id.clone(),
                span_id: rng.next_u64().to_be_bytes().to_vec(),
                parent_span_id: rng.next_u64().to_be_bytes().to_vec(),
                name: "chat gpt-4o-mini".to_owned(),
                start_time_unix_nano: end - 750_000_000,
                end_time_unix_nano: end,
                attributes: vec![
                    text("gen_ai.operation.name", ["chat", "execute_tool"][n.min(1)]),
                    text("gateway.route.name", "support-chat"),
                    text("gateway.route.color", "green"),
                    text("gen_ai.request.model", "gpt-4o-mini"),
                    text("gen_ai.usage.input_tokens", "1200"),
                    text("gen_ai.usage.output_tokens", "18"),
                    text(
                        "gen_ai.conversation.id",
                        &format!("conversation-{:016x}", rng.next_u64()),
                    ),
                ],
                ..Span::default()
            });
        }
    }
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans: vec![ScopeSpans {
                spans: rows,
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }],
    }
    .encode_to_vec()
}
