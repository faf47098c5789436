//! Memory of cells: traces of one call on one route, blue and green, minute after minute, through the reader and the
//! assembly. What a day more takes is what cells take: nothing else is kept for so long.
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
use proto::{CellTable, Nanos};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, LogNormal};
use std::{error::Error, sync::Arc};
use store::MicroBatch;

/// As in the server.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

#[derive(Debug, Parser)]
#[command(
    about = "Memory of cells",
    after_help = "Example:\n  cells --minutes 1440 --per-minute 60"
)]
struct Args {
    /// Minutes of traffic
    #[arg(long, default_value_t = 1_440)]
    minutes: i64,
    /// Traces a minute, half of them green
    #[arg(long, default_value_t = 60)]
    per_minute: usize,
    /// Seed of ids, durations and tokens
    #[arg(long, default_value_t = 1)]
    seed: u64,
}

/// First moment, s.
const T0: i64 = 1_800_000_000;

fn main() -> Result<(), Box<dyn Error>> {
    let args = Args::parse();
    let mut rng = ChaCha8Rng::seed_from_u64(args.seed);
    let mut reader = Reader::new(Arc::new(ReadConfig::default()));
    let mut assembly = Assembly::new(Limits::default());
    let mut cells = CellTable::default();
    for minute in 0..args.minutes {
        let now = Nanos::from_secs(T0 + 60 * minute);
        reader.read_traces(&request(&mut rng, args.per_minute, now)?, now)?;
        let batch = MicroBatch {
            lsn: minute.cast_unsigned() + 1,
            received_at: now,
            digests: Vec::new(),
            sections: reader.take(),
        };
        assembly.tick(now, minute.cast_unsigned()).cells.apply_to(&mut cells);
        assembly.apply(&batch)?.cells.apply_to(&mut cells);
    }
    let (mut count, mut buckets) = (0, 0);
    for (_, cell) in cells.iter() {
        count += 1;
        buckets += cell.hdr.iter().count();
    }
    println!(
        "seed {}, {} minutes, {} traces a minute",
        args.seed, args.minutes, args.per_minute
    );
    println!("cells                {count}, with {buckets} buckets");
    println!("resident, at the end {} KiB", resident("VmRSS:")?);
    Ok(())
}

fn request(rng: &mut ChaCha8Rng, traces: usize, now: Nanos) -> Result<Vec<u8>, Box<dyn Error>> {
    let value = |key: &str, value: Value| KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    };
    let text = |key, word: &str| value(key, Value::StringValue(word.to_owned()));
    let seconds = LogNormal::new(0.0, 0.6)?;
    let tokens = LogNormal::new(6.0, 0.8)?;
    let mut spans = Vec::with_capacity(traces);
    for n in 0..traces {
        let end = now.0.cast_unsigned() - rng.random_range(0..20_000_000_000);
        let duration = (seconds.sample(rng) * 1e9) as u64;
        spans.push(Span {
            trace_id: [rng.next_u64().to_be_bytes(), rng.next_u64().to_be_bytes()].concat(),
            span_id: rng.next_u64().to_be_bytes().to_vec(),
            name: "chat gpt-4o-mini".to_owned(),
            start_time_unix_nano: end - duration,
            end_time_unix_nano: end,
            attributes: vec![
                text("gen_ai.operation.name", "chat"),
                text("gateway.route.name", "support-chat"),
                text("gateway.route.color", ["blue", "green"][n % 2]),
                text("gen_ai.request.model", "gpt-4o-mini"),
                text("gen_ai.response.model", "gpt-4o-mini"),
                value("gen_ai.usage.input_tokens", Value::IntValue(tokens.sample(rng) as i64)),
                value("gen_ai.usage.output_tokens", Value::IntValue(tokens.sample(rng) as i64)),
                value(
                    "gen_ai.response.time_to_first_chunk",
                    Value::DoubleValue(seconds.sample(rng) / 4.0),
                ),
            ],
            ..Span::default()
        });
    }
    let resource_spans = vec![ResourceSpans {
        scope_spans: vec![ScopeSpans {
            spans,
            ..ScopeSpans::default()
        }],
        ..ResourceSpans::default()
    }];
    Ok(ExportTraceServiceRequest { resource_spans }.encode_to_vec())
}
