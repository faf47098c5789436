//! What a sealed file holds, and how it is written.

use crate::{
    journal::options,
    overlay::{assert_seen, expected, random_marks},
    rows::{
        T0, attributes, batch, column_text, evals, read_parquet, rng, spans, text, times, trace_hex, traces, words,
    },
};
use arrow::{
    array::{ArrayRef, Float64Array, ListArray, RecordBatch, StringArray, StringViewArray, StructArray},
    buffer::{NullBuffer, OffsetBuffer},
    compute::{cast, concat_batches},
    datatypes::DataType,
};
use parquet::{
    basic::{Compression, Encoding},
    file::reader::{FileReader, SerializedFileReader},
};
use proto::{Color, Nanos, layout::Table};
use std::{fs::File, sync::Arc};
use store::{
    Layers, LiveBatch, MicroBatch, SealInput, Sealed, Section, Store, TraceId, declared, live,
    overlay::{self, Depth},
};
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
    files.flat_map(|f| read_parquet(&dir.path().join(&f.path))).collect()
}

#[test]
fn sealed_rows_equal_live_rows_with_their_marks() {
    for seed in 0..4 {
        let (mut rng, mut next) = (rng(seed), 0);
        let marks = random_marks(&mut rng, 40, 2_700);
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
            live::push(Table::Spans, &mut input.spans, LiveBatch { lsn, rows: batch }).unwrap();
            let batch = evals(&mut rng, 5, 40);
            rows.push((Table::Evals, batch.clone()));
            live::push(Table::Evals, &mut input.evals, LiveBatch { lsn, rows: batch }).unwrap();
        }
        input.marks.push(marks.iter().map(|(id, mark)| (*id, Arc::clone(mark))));
        let (dir, sealed) = sealed(input);
        let lookup = |id: &TraceId| marks.get(id).cloned();
        for table in [Table::Spans, Table::Evals] {
            let mut want: Vec<String> = rows
                .iter()
                .filter(|(t, _)| *t == table)
                .flat_map(|(t, rows)| text(*t, &overlay::marked(*t, rows, None, Depth::Spans, &lookup).unwrap()))
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
                assert_seen(table, rows, &expected(table, rows, &marks), &format!("seed {seed}"));
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
            assert!(
                file.path
                    .starts_with(&format!("{}/color={color}/date=2026-11-20/hour=1", file.table.as_str()))
            );
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
    let has: Vec<String> = rows.schema().fields().iter().map(|f| f.name().clone()).collect();
    input.spans.push(LiveBatch { lsn: 1, rows });
    let (dir, sealed) = sealed(input);
    for file in sealed.files.iter() {
        let reader = SerializedFileReader::new(File::open(dir.path().join(&file.path)).unwrap()).unwrap();
        let meta = reader.metadata();
        for group in meta.row_groups() {
            let sorting = group.sorting_columns().unwrap();
            let name = |i: i32| group.column(i as usize).column_path().string();
            assert_eq!(
                sorting.iter().map(|s| name(s.column_idx)).collect::<Vec<_>>(),
                ["route", "start_time"]
            );
            for column in group.columns() {
                let path = column.column_path().string();
                let statistics = column.statistics().is_some();
                assert_eq!(statistics, matches!(path.as_str(), "route" | "start_time"), "{path}");
                let filter = column.bloom_filter_offset().is_some();
                assert_eq!(
                    filter,
                    matches!(path.as_str(), "trace_id" | "span_id" | "response_id"),
                    "{path}"
                );
                if column.compression() == Compression::UNCOMPRESSED {
                    assert!(!has.contains(&path), "{path} has values");
                    continue;
                }
                let lz4 = column.compression() == Compression::LZ4_RAW;
                assert_eq!(lz4, matches!(path.as_str(), "input" | "output"), "{path}");
                let delta = column.encodings().any(|e| e == Encoding::DELTA_BINARY_PACKED);
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
            std::fs::metadata(dir.path().join(&file.path)).unwrap().len()
        );
    }
}

fn next_seed() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static SEED: AtomicU64 = AtomicU64::new(0);
    SEED.fetch_add(1, Ordering::Relaxed)
}

/// Lists of structs of the declared type of `name`: row `i` has `i % 3` items, or is null where `i % 5 == 4`.
fn items(name: &str, n: usize, salt: usize) -> ArrayRef {
    let field = declared(Table::Spans).field_with_name(name).unwrap();
    let DataType::List(item) = field.data_type() else {
        panic!("{name} is no list")
    };
    let DataType::Struct(fields) = item.data_type() else {
        panic!("{name} is no list of structs")
    };
    let null = |i: usize| i % 5 == 4;
    let lengths: Vec<usize> = (0..n).map(|i| if null(i) { 0 } else { i % 3 }).collect();
    let total: usize = lengths.iter().sum();
    let columns = fields.iter().map(|field| -> ArrayRef {
        match field.data_type() {
            DataType::Timestamp(..) => times((0..total).map(|i| T0 + (salt + i) as i64)),
            DataType::Utf8 => Arc::new(
                (0..total)
                    .map(|i| (i % 4 > 0).then(|| format!("{salt} {i}")))
                    .collect::<StringArray>(),
            ),
            // maps of items have keys of their own on every row
            map => cast(&attributes(&mut rng(salt as u64), total), map).unwrap(),
        }
    });
    let items = StructArray::new(fields.clone(), columns.collect(), None);
    let valid = NullBuffer::from_iter((0..n).map(|i| !null(i)));
    Arc::new(ListArray::new(
        Arc::clone(item),
        OffsetBuffer::from_lengths(lengths),
        Arc::new(items),
        Some(valid),
    ))
}

#[test]
fn events_links_and_texts_survive_journal_and_file() {
    let dir = TempDir::new().unwrap();
    let (mut store, _) = Store::open(dir.path(), options()).unwrap();
    let mut journal = store.journal().unwrap();
    let mut input = SealInput {
        lsn: 3,
        sealed_at: Nanos(T0),
        ..SealInput::default()
    };
    let mut all = Vec::new();
    for lsn in 1..=3u64 {
        let n = 40;
        let text = |what: &str| -> ArrayRef {
            Arc::new(
                (0..n)
                    .map(|i| (i % 2 == 0).then(|| format!("{what} {lsn} {i} ").repeat(50)))
                    .collect::<StringViewArray>(),
            )
        };
        let ids = (0..n).map(|i| format!("{:016x}", lsn as usize * 100 + i));
        let starts = || times((0..n).map(|i| T0 + (lsn as usize * 1_000 + i) as i64));
        let mut columns: Vec<(&str, ArrayRef)> = vec![
            (
                "trace_id",
                Arc::new(StringArray::from_iter_values((0..n).map(|i| trace_hex(i as u64)))),
            ),
            ("span_id", Arc::new(StringArray::from_iter_values(ids))),
            ("start_time", starts()),
            ("end_time", starts()),
            ("duration_ms", Arc::new(Float64Array::from(vec![0.0; n]))),
            ("role", words((0..n).map(|_| Some("call")))),
            ("received_at", times(std::iter::repeat_n(T0, n))),
        ];
        // The second batch has none of them.
        if lsn != 2 {
            columns.extend([
                ("events", items("events", n, lsn as usize)),
                ("links", items("links", n, 7)),
            ]);
            columns.extend([
                ("input", text("in")),
                ("output", text("out")),
                ("resource", attributes(&mut rng(lsn), n)),
            ]);
        }
        let rows = batch(Table::Spans, columns);
        let sections = vec![Section {
            table: Table::Spans,
            rows: rows.clone(),
        }];
        journal
            .append(&MicroBatch {
                lsn,
                received_at: Nanos(T0),
                digests: vec![],
                sections,
            })
            .unwrap();
        all.push(overlay::marked(Table::Spans, &rows, None, Depth::Spans, &|_| None).unwrap());
        // Not joined, so that rows are picked from several batches; joined below.
        input.spans.push(LiveBatch { lsn, rows });
    }
    journal.sync().unwrap();
    let all = concat_batches(declared(Table::Spans), &all).unwrap();
    let mut joined = Vec::new();
    for part in input.spans.clone() {
        live::push(Table::Spans, &mut joined, part).unwrap();
    }
    assert_eq!(joined.len(), 1);
    assert_eq!(
        overlay::marked(Table::Spans, &joined[0].rows, None, Depth::Spans, &|_| None).unwrap(),
        all
    );
    let replayed = Store::open_read_only(dir.path()).unwrap();
    let [replayed] = replayed.spans.as_slice() else {
        panic!("one batch")
    };
    assert_eq!(replayed, &joined[0]);
    let sealed = store.sealer().seal(input).unwrap();
    let [file] = sealed.files.as_slice() else {
        panic!("one file")
    };
    // In order of start, which is that of the batches.
    let read = read_parquet(&dir.path().join(&file.path));
    assert_eq!(concat_batches(declared(Table::Spans), &read).unwrap(), all);
    drop((store, journal));
    let (_store, found) = Store::open(dir.path(), options()).unwrap();
    assert_eq!((found.lsn, found.report.records), (3, 0));
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
    let want = [(1, 7), (2, 3), (4, 1), (5, 3), (6, 7)].map(|(n, calls): (u64, u64)| (trace_hex(n), calls.to_string()));
    assert_eq!(rows, want);
}
