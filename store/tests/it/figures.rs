//! Bytes per small span, for whoever changes an encoding.

use crate::{
    journal::options,
    rows::{T0, batch, rng, times, words},
};
use arrow::array::{ArrayRef, Decimal128Array, Float64Array, Int64Array, StringArray, StringViewArray};
use parquet::file::reader::{FileReader, SerializedFileReader};
use proto::{Nanos, layout::Table};
use rand::{Rng, RngExt};
use std::{fs::File, sync::Arc};
use store::{LiveBatch, MicroBatch, SealInput, Section, Store, live};
use tempfile::TempDir;

#[test]
#[ignore = "prints figures: cargo test -p store --test it -- --ignored --nocapture figures"]
fn figures() {
    let (mut rng, rows_a_batch, batches) = (rng(1), 512usize, 256u64);
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path(), options()).unwrap();
    let mut journal = store.journal().unwrap();
    let mut input = SealInput {
        lsn: batches,
        sealed_at: Nanos(T0),
        ..SealInput::default()
    };
    let mut journal_bytes = 0;
    for lsn in 1..=batches {
        let n = rows_a_batch;
        let received = T0 + lsn as i64 * 50_000_000;
        let ids: Vec<String> = (0..n / 4).map(|_| format!("{:032x}", rng.random::<u128>())).collect();
        let starts: Vec<i64> = (0..n)
            .map(|_| received - 1_000_000_000 + rng.random_range(0..900_000_000))
            .collect();
        let took: Vec<i64> = (0..n).map(|_| rng.random_range(20_000_000..900_000_000)).collect();
        let span_ids: Vec<String> = (0..n).map(|_| format!("{:016x}", rng.next_u64())).collect();
        let word = |options: &[&str]| words((0..n).map(|i| Some(options[(i / 4 * 7) % options.len()])));
        let tokens: Vec<i64> = (0..n).map(|_| rng.random_range(50..4_000)).collect();
        let money = Decimal128Array::from_iter_values(tokens.iter().map(|t| i128::from(t * 150)));
        let columns: Vec<(&str, ArrayRef)> = vec![
            (
                "trace_id",
                Arc::new(StringArray::from_iter_values((0..n).map(|i| &ids[i / 4]))),
            ),
            (
                "parent_span_id",
                Arc::new(
                    (0..n)
                        .map(|i| (i % 4 > 0).then(|| &span_ids[i - i % 4]))
                        .collect::<StringArray>(),
                ),
            ),
            ("span_id", Arc::new(StringArray::from_iter_values(&span_ids))),
            ("start_time", times(starts.iter().copied())),
            ("end_time", times(starts.iter().zip(&took).map(|(s, t)| s + t))),
            (
                "duration_ms",
                Arc::new(Float64Array::from_iter_values(took.iter().map(|t| *t as f64 / 1e6))),
            ),
            (
                "name",
                word(&["chat gpt-4o-mini", "POST /chat", "retrieve", "tool search"]),
            ),
            ("kind", word(&["client", "server", "internal"])),
            ("role", word(&["call", "server", "retriever", "tool"])),
            ("scope", word(&["openai", "http"])),
            ("service_name", word(&["gateway"])),
            ("route", word(&["support-chat", "checkout"])),
            ("color", word(&["blue", "green"])),
            ("version", word(&["41", "42"])),
            ("release", word(&["support-chat-42"])),
            ("cohort", word(&["gold", "silver", "free"])),
            ("split", Arc::new(Float64Array::from(vec![0.25; n]))),
            (
                "session_id",
                Arc::new(StringViewArray::from_iter_values(
                    (0..n).map(|i| format!("session-{}", (i / 4) % 37)),
                )),
            ),
            ("provider", word(&["openai"])),
            ("request_model", word(&["gpt-4o-mini"])),
            ("response_model", word(&["gpt-4o-mini-2024-07-18"])),
            ("prompt_tokens", Arc::new(Int64Array::from(tokens.clone()))),
            (
                "completion_tokens",
                Arc::new(Int64Array::from_iter_values(tokens.iter().map(|t| t % 500))),
            ),
            ("cost_usd", Arc::new(money.with_precision_and_scale(18, 9).unwrap())),
            ("price_version", word(&["2026-11"])),
            ("status", word(&["UNSET", "OK", "OK", "ERROR"])),
            ("finish_reason", word(&["stop", "length"])),
            ("received_at", times(std::iter::repeat_n(received, n))),
        ];
        let rows = batch(Table::Spans, columns);
        let record = MicroBatch {
            lsn,
            received_at: Nanos(received),
            digests: vec![1; 4],
            sections: vec![Section {
                table: Table::Spans,
                rows: rows.clone(),
            }],
        };
        journal_bytes += journal.append(&record).unwrap();
        live::push(Table::Spans, &mut input.spans, LiveBatch { lsn, rows }).unwrap();
    }
    journal.sync().unwrap();
    let rows = batches as usize * rows_a_batch;
    let started = std::time::Instant::now();
    let sealed = store.sealer().seal(input).unwrap();
    let parquet: u64 = sealed.files.iter().map(|f| f.bytes).sum();
    eprintln!(
        "{rows} spans: journal {:.1} B, parquet {:.1} B a span in {} files; seal took {:?} (this build)",
        journal_bytes as f64 / rows as f64,
        parquet as f64 / rows as f64,
        sealed.files.len(),
        started.elapsed(),
    );
    let mut by_column = std::collections::BTreeMap::<String, i64>::new();
    let mut filters = 0;
    for file in sealed.files.iter() {
        let reader = SerializedFileReader::new(File::open(dir.path().join(&file.path)).unwrap()).unwrap();
        for column in reader.metadata().row_groups().iter().flat_map(|g| g.columns()) {
            *by_column.entry(column.column_path().string()).or_default() += column.compressed_size();
            filters += column.bloom_filter_length().unwrap_or(0);
        }
    }
    for (name, bytes) in by_column.iter().filter(|(_, b)| **b as usize > rows / 20) {
        eprintln!("  {name:20} {:.2}", *bytes as f64 / rows as f64);
    }
    eprintln!("  bloom filters        {:.2}", f64::from(filters) / rows as f64);
}
