//! What a sealed file holds, and how it is written.

use crate::{
    journal::options,
    overlay::{expected, random_marks, seen},
    rows::{T0, column_text, evals, read_parquet, rng, spans, text, trace_hex, traces},
};
use arrow::{array::RecordBatch, compute::concat_batches};
use parquet::{
    basic::{Compression, Encoding},
    file::reader::{FileReader, SerializedFileReader},
};
use proto::{Color, Nanos, layout::Table};
use std::{fs::File, sync::Arc};
use store::{Layers, LiveBatch, SealInput, Sealed, Store, TraceId, declared, live, overlay};
use tempfile::TempDir;

const HOUR: i64 = 3_600_000_000_000;

fn sealed(input: SealInput) -> (TempDir, Sealed) {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    let sealed = store.sealer().seal(input).unwrap();
    (dir, sealed)
}

fn rows_of(dir: &TempDir, sealed: &Sealed, table: Table) -> Vec<RecordBatch> {
    let files = sealed.files.iter().filter(|f| f.table == table);
    files
        .flat_map(|f| read_parquet(&dir.path().join(&f.path)))
        .collect()
}

#[test]
fn sealed_rows_equal_live_rows_with_their_marks() {
    for seed in 0..4 {
        let (mut rng, mut next) = (rng(seed), 0);
        let marks = random_marks(&mut rng, 40);
        let (mut input, mut rows) = (
            SealInput {
                lsn: 30,
                sealed_at: Nanos(T0),
                ..SealInput::default()
            },
            vec![],
        );
        for lsn in 1..=30u64 {
            let received = Nanos(T0 + lsn as i64 * HOUR / 12);
            let batch = spans(&mut rng, 90, 40, &mut next, received);
            rows.push((Table::Spans, batch.clone()));
            live::push(
                Table::Spans,
                &mut input.spans,
                LiveBatch { lsn, rows: batch },
            )
            .unwrap();
            let batch = evals(&mut rng, 5, 40);
            rows.push((Table::Evals, batch.clone()));
            live::push(
                Table::Evals,
                &mut input.evals,
                LiveBatch { lsn, rows: batch },
            )
            .unwrap();
        }
        input
            .marks
            .push(marks.iter().map(|(id, mark)| (*id, Arc::clone(mark))));
        let (dir, sealed) = sealed(input);
        let lookup = |id: &TraceId| marks.get(id).cloned();
        for table in [Table::Spans, Table::Evals] {
            let mut want: Vec<String> = rows
                .iter()
                .filter(|(t, _)| *t == table)
                .flat_map(|(t, rows)| text(*t, &overlay::marked(*t, rows, None, &lookup).unwrap()))
                .collect();
            let files = rows_of(&dir, &sealed, table);
            let mut got: Vec<String> = files.iter().flat_map(|rows| text(table, rows)).collect();
            assert_eq!(
                got.len() as u64,
                sealed
                    .files
                    .iter()
                    .filter(|f| f.table == table)
                    .map(|f| f.rows)
                    .sum::<u64>()
            );
            want.sort();
            got.sort();
            assert!(want == got, "seed {seed} {table:?}");
            for rows in &files {
                assert_eq!(
                    rows.schema_ref().fields(),
                    declared(table).fields(),
                    "types as declared"
                );
                assert_eq!(seen(table, rows), expected(table, rows, &marks));
            }
        }
        for file in sealed.files.iter() {
            let rows = read_parquet(&dir.path().join(&file.path));
            let rows = concat_batches(&rows[0].schema(), &rows).unwrap();
            let color = file.color.unwrap().to_string();
            assert!(
                column_text(&rows, "color")
                    .iter()
                    .all(|c| c.as_deref() == Some(color.as_str()))
            );
            assert!(file.path.starts_with(&format!(
                "{}/color={color}/date=2026-11-20/hour=1",
                file.table.as_str()
            )));
            assert_eq!((file.lsn_min, file.lsn_max), (1, 30));
            if file.table == Table::Spans {
                let hour = |time: &str| Nanos(time.parse().unwrap()).rfc3339()[11..13].to_owned();
                let folder = file.path.split("hour=").nth(1).unwrap()[..2].to_owned();
                assert!(
                    column_text(&rows, "received_at")
                        .iter()
                        .all(|t| hour(t.as_deref().unwrap()) == folder)
                );
                // A null route sorts last.
                let keys: Vec<_> = column_text(&rows, "route")
                    .into_iter()
                    .map(|r| r.unwrap_or("\u{10ffff}".into()))
                    .zip(column_text(&rows, "start_time"))
                    .collect();
                assert!(keys.is_sorted(), "by route, then start");
            }
        }
        assert!(
            sealed
                .files
                .iter()
                .map(|f| &f.path[..f.path.rfind('/').unwrap()])
                .collect::<std::collections::BTreeSet<_>>()
                .len()
                >= 9
        );
    }
}

#[test]
fn statistics_stand_where_they_prune_and_filters_on_ids() {
    let mut input = SealInput {
        lsn: 1,
        sealed_at: Nanos(T0),
        ..SealInput::default()
    };
    let rows = loop {
        let rows = spans(&mut rng(next_seed()), 5_000, 900, &mut 0, Nanos(T0));
        if ["attributes", "prompt_tokens", "route"]
            .iter()
            .all(|c| rows.column_by_name(c).is_some())
        {
            break rows;
        }
    };
    input.spans.push(LiveBatch { lsn: 1, rows });
    let (dir, sealed) = sealed(input);
    for file in sealed.files.iter() {
        let reader =
            SerializedFileReader::new(File::open(dir.path().join(&file.path)).unwrap()).unwrap();
        let meta = reader.metadata();
        for group in meta.row_groups() {
            let sorting = group.sorting_columns().unwrap();
            let name = |i: i32| group.column(i as usize).column_path().string();
            assert_eq!(
                sorting
                    .iter()
                    .map(|s| name(s.column_idx))
                    .collect::<Vec<_>>(),
                ["route", "start_time"]
            );
            for column in group.columns() {
                let path = column.column_path().string();
                let statistics = column.statistics().is_some();
                assert_eq!(
                    statistics,
                    matches!(path.as_str(), "route" | "start_time"),
                    "{path}"
                );
                let filter = column.bloom_filter_offset().is_some();
                assert_eq!(
                    filter,
                    matches!(path.as_str(), "trace_id" | "span_id" | "response_id"),
                    "{path}"
                );
                let lz4 = column.compression() == Compression::LZ4_RAW;
                assert_eq!(lz4, matches!(path.as_str(), "input" | "output"), "{path}");
                let delta = column
                    .encodings()
                    .any(|e| e == Encoding::DELTA_BINARY_PACKED);
                if matches!(
                    path.as_str(),
                    "start_time" | "end_time" | "prompt_tokens" | "received_at"
                ) {
                    assert!(delta, "{path}");
                }
            }
        }
        assert_eq!(
            file.bytes,
            std::fs::metadata(dir.path().join(&file.path))
                .unwrap()
                .len()
        );
    }
}

fn next_seed() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static SEED: AtomicU64 = AtomicU64::new(0);
    SEED.fetch_add(1, Ordering::Relaxed)
}

#[test]
fn a_sealed_trace_has_one_row_a_file_and_a_later_one_hides_it() {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    let sealer = store.sealer();
    let id = |n: u64| overlay::trace_id(&trace_hex(n)).unwrap();
    let live = |lsn, ids: &[u64], calls| LiveBatch {
        lsn,
        rows: traces(ids, calls),
    };
    let mut replaced: Layers<TraceId, u64> = Layers::default();
    replaced.push([(id(2), 3)]);
    let mut input = SealInput {
        lsn: 3,
        sealed_at: Nanos(T0),
        replaced: replaced.clone(),
        ..SealInput::default()
    };
    input.traces = vec![live(1, &[1, 2, 4], 1), live(3, &[2, 5], 3)];
    sealer.seal(input).unwrap();
    replaced.push([(id(1), 7)]);
    let mut input = SealInput {
        lsn: 8,
        sealed_at: Nanos(T0),
        replaced: replaced.clone(),
        ..SealInput::default()
    };
    input.traces = vec![live(7, &[1, 6], 7)];
    let sealed = sealer.seal(input).unwrap();
    let mut rows: Vec<(String, String)> = sealed
        .files
        .iter()
        .flat_map(|file| {
            read_parquet(&dir.path().join(&file.path))
                .into_iter()
                .map(move |rows| (file, rows))
        })
        .flat_map(|(file, rows)| {
            assert!([(1, 3), (7, 7)].contains(&(file.lsn_min, file.lsn_max)));
            assert_eq!(
                file.color.is_some_and(Color::is_marked),
                !file.path.contains("color=unmarked")
            );
            let rows = overlay::current(&rows, file.lsn_max, &replaced).unwrap();
            column_text(&rows, "trace_id")
                .into_iter()
                .flatten()
                .zip(column_text(&rows, "calls").into_iter().flatten())
                .collect::<Vec<_>>()
        })
        .collect();
    rows.sort();
    let want = [(1, 7), (2, 3), (4, 1), (5, 3), (6, 7)]
        .map(|(n, calls): (u64, u64)| (trace_hex(n), calls.to_string()));
    assert_eq!(rows, want);
}

#[test]
#[ignore = "prints figures: cargo test -p store --test it -- --ignored --nocapture figures"]
fn figures() {
    use crate::rows::{batch, times, words};
    use arrow::array::{
        ArrayRef, Decimal128Array, Float64Array, Int64Array, StringArray, StringViewArray,
    };
    use rand::{Rng, RngExt};
    use store::{MicroBatch, Section};
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
        let ids: Vec<String> = (0..n / 4)
            .map(|_| format!("{:032x}", rng.random::<u128>()))
            .collect();
        let starts: Vec<i64> = (0..n)
            .map(|_| received - 1_000_000_000 + rng.random_range(0..900_000_000))
            .collect();
        let took: Vec<i64> = (0..n)
            .map(|_| rng.random_range(20_000_000..900_000_000))
            .collect();
        let span_ids: Vec<String> = (0..n).map(|_| format!("{:016x}", rng.next_u64())).collect();
        let word =
            |options: &[&str]| words((0..n).map(|i| Some(options[(i / 4 * 7) % options.len()])));
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
            (
                "span_id",
                Arc::new(StringArray::from_iter_values(&span_ids)),
            ),
            ("start_time", times(starts.iter().copied())),
            (
                "end_time",
                times(starts.iter().zip(&took).map(|(s, t)| s + t)),
            ),
            (
                "duration_ms",
                Arc::new(Float64Array::from_iter_values(
                    took.iter().map(|t| *t as f64 / 1e6),
                )),
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
            (
                "cost_usd",
                Arc::new(money.with_precision_and_scale(18, 9).unwrap()),
            ),
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
        let reader =
            SerializedFileReader::new(File::open(dir.path().join(&file.path)).unwrap()).unwrap();
        for column in reader
            .metadata()
            .row_groups()
            .iter()
            .flat_map(|g| g.columns())
        {
            *by_column.entry(column.column_path().string()).or_default() +=
                column.compressed_size();
            filters += column.bloom_filter_length().unwrap_or(0);
        }
    }
    for (name, bytes) in by_column.iter().filter(|(_, b)| **b as usize > rows / 20) {
        eprintln!("  {name:20} {:.2}", *bytes as f64 / rows as f64);
    }
    eprintln!(
        "  bloom filters        {:.2}",
        f64::from(filters) / rows as f64
    );
}
