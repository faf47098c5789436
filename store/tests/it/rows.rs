//! Random rows, and rows as text so that any two places can be compared.

use arrow::{
    array::{
        Array, ArrayRef, AsArray, BooleanArray, Decimal128Array, DictionaryArray, Float64Array, Int32Array, Int64Array,
        MapBuilder, MapFieldNames, RecordBatch, StringArray, StringBuilder, StringDictionaryBuilder, StringViewArray,
        TimestampNanosecondArray,
    },
    datatypes::{DataType, Int32Type, Schema},
    util::display::{ArrayFormatter, FormatOptions},
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proto::{Nanos, layout::Table};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::{fmt::Write, path::Path, sync::Arc};
use store::{MicroBatch, Section, declared};

pub const T0: i64 = 1_795_183_385_000_000_000;

pub fn rng(seed: u64) -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(seed)
}

/// Hex id of trace `n`.
pub fn trace_hex(n: u64) -> String {
    format!("{:032x}", u128::from(n) << 64 | 0xabcd_ef00)
}

pub fn words<'a>(words: impl IntoIterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(words.into_iter().collect::<DictionaryArray<Int32Type>>())
}

pub fn times(times: impl IntoIterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampNanosecondArray::from_iter_values(times).with_timezone("UTC"))
}

/// A batch of `table` from named columns, put in declared order.
pub fn batch(table: Table, columns: Vec<(&str, ArrayRef)>) -> RecordBatch {
    let mut columns: Vec<(usize, ArrayRef)> = columns
        .into_iter()
        .map(|(name, column)| (declared(table).index_of(name).unwrap(), column))
        .collect();
    columns.sort_by_key(|(index, _)| *index);
    let fields: Vec<_> = columns
        .iter()
        .map(|(index, _)| Arc::clone(&declared(table).fields()[*index]))
        .collect();
    let columns = columns.into_iter().map(|(_, column)| column).collect();
    RecordBatch::try_new(Arc::new(Schema::new(fields)), columns).unwrap()
}

fn maybe<'a>(rng: &mut ChaCha8Rng, p: f64, from: &[&'a str]) -> Option<&'a str> {
    rng.random_bool(p).then(|| from[rng.random_range(0..from.len())])
}

/// `n` spans of traces below `traces`, ids from `next_span`; which columns are there is random.
pub fn spans(rng: &mut ChaCha8Rng, n: usize, traces: u64, next_span: &mut u64, received: Nanos) -> RecordBatch {
    let ids: Vec<u64> = (0..n).map(|_| rng.random_range(0..traces)).collect();
    let starts: Vec<i64> = (0..n)
        .map(|_| received.0 - rng.random_range(0..5_000_000_000))
        .collect();
    let ends: Vec<i64> = starts.iter().map(|s| s + rng.random_range(0..2_000_000_000)).collect();
    let span_ids: Vec<String> = (0..n)
        .map(|_| {
            *next_span += 1;
            format!("{next_span:016x}")
        })
        .collect();
    let mut columns: Vec<(&str, ArrayRef)> = vec![
        (
            "trace_id",
            Arc::new(StringArray::from_iter_values(ids.iter().map(|i| trace_hex(*i)))),
        ),
        ("span_id", Arc::new(StringArray::from_iter_values(span_ids))),
        ("start_time", times(starts.iter().copied())),
        ("end_time", times(ends.iter().copied())),
        (
            "duration_ms",
            Arc::new(Float64Array::from_iter_values(
                starts.iter().zip(&ends).map(|(s, e)| (e - s) as f64 / 1e6),
            )),
        ),
        (
            "role",
            words((0..n).map(|_| maybe(rng, 1.0, &["call", "agent", "tool"]))),
        ),
        ("received_at", times(std::iter::repeat_n(received.0, n))),
    ];
    let optional: [(&str, &[&str]); 10] = [
        ("name", &["chat gpt-4o", "retrieve", "POST /chat"]),
        ("route", &["support-chat", "checkout", "a"]),
        ("color", &["blue", "green", "unmarked"]),
        ("unmarked_reason", &["no stamp", "conflict"]),
        ("version", &["41", "42"]),
        ("cohort", &["gold", "silver"]),
        ("status", &["OK", "ERROR"]),
        ("request_model", &["m", "n"]),
        ("response_model", &["m", "n"]),
        ("price_version", &["2026-11"]),
    ];
    for (name, from) in optional {
        if rng.random_bool(0.7) {
            columns.push((name, words((0..n).map(|_| maybe(rng, 0.6, from)))));
        }
    }
    if rng.random_bool(0.5) {
        columns.push((
            "split",
            Arc::new(
                (0..n)
                    .map(|_| rng.random_bool(0.5).then_some(0.25))
                    .collect::<Float64Array>(),
            ),
        ));
    }
    if rng.random_bool(0.5) {
        let tokens = (0..n).map(|_| rng.random_bool(0.8).then(|| rng.random_range(0..9_000)));
        columns.push(("prompt_tokens", Arc::new(tokens.collect::<Int64Array>())));
        let money = (0..n).map(|_| rng.random_bool(0.8).then(|| rng.random_range(0..9_000_000)));
        let money = money
            .collect::<Decimal128Array>()
            .with_precision_and_scale(18, 9)
            .unwrap();
        columns.push(("emitter_cost_usd", Arc::new(money.clone())));
        columns.push(("cost_usd", Arc::new(money)));
        let times = (0..n).map(|_| {
            rng.random_bool(0.5)
                .then(|| f64::from(rng.random_range(0..9_000)) / 4.0)
        });
        columns.push(("ttft_ms", Arc::new(times.collect::<Float64Array>())));
    }
    if rng.random_bool(0.5) {
        let ids = (0..n).map(|i| rng.random_bool(0.5).then(|| format!("resp-{i}-a-rather-long-id")));
        columns.push(("response_id", Arc::new(ids.collect::<StringViewArray>())));
        columns.push(("attributes", attributes(rng, n)));
    }
    batch(Table::Spans, columns)
}

pub fn attributes(rng: &mut ChaCha8Rng, n: usize) -> ArrayRef {
    let names = MapFieldNames {
        entry: "entries".into(),
        key: "keys".into(),
        value: "values".into(),
    };
    let mut map = MapBuilder::new(
        Some(names),
        StringDictionaryBuilder::<Int32Type>::new(),
        StringBuilder::new(),
    );
    for _ in 0..n {
        for key in 0..rng.random_range(0..3) {
            map.keys().append_value(format!("k{key}"));
            map.values().append_value(format!("v{}", rng.random_range(0..9)));
        }
        map.append(rng.random_bool(0.9)).unwrap();
    }
    Arc::new(map.finish())
}

/// `n` evaluations.
pub fn evals(rng: &mut ChaCha8Rng, n: usize, traces: u64) -> RecordBatch {
    let ids = (0..n).map(|_| rng.random_bool(0.8).then(|| trace_hex(rng.random_range(0..traces))));
    let ids: StringArray = ids.collect();
    batch(
        Table::Evals,
        vec![
            ("trace_id", Arc::new(ids)),
            ("time", times((0..n).map(|_| T0 + rng.random_range(0..1_000_000)))),
            (
                "name",
                words((0..n).map(|_| maybe(rng, 1.0, &["task_completion", "toxicity"]))),
            ),
            (
                "passed",
                Arc::new((0..n).map(|_| Some(rng.random_bool(0.9))).collect::<BooleanArray>()),
            ),
            ("source", words((0..n).map(|_| Some("otel")))),
        ],
    )
}

/// One row per trace id given.
pub fn traces(ids: &[u64], calls: i32) -> RecordBatch {
    let n = ids.len();
    let yes = || Arc::new(BooleanArray::from(vec![true; n])) as ArrayRef;
    let ints = |value: i32| Arc::new(Int32Array::from(vec![value; n])) as ArrayRef;
    batch(
        Table::Traces,
        vec![
            (
                "trace_id",
                Arc::new(StringArray::from_iter_values(ids.iter().map(|i| trace_hex(*i)))),
            ),
            ("start_time", times(ids.iter().map(|i| T0 + *i as i64))),
            ("duration_ms", Arc::new(Float64Array::from(vec![1.5; n]))),
            (
                "route",
                words(ids.iter().map(|i| (i % 2 == 0).then_some("support-chat"))),
            ),
            (
                "color",
                words(ids.iter().map(|i| Some(["blue", "green", "unmarked"][*i as usize % 3]))),
            ),
            ("calls", ints(calls)),
            ("attempts_failed", ints(0)),
            ("error", yes()),
            ("timed_out", yes()),
            ("priced", yes()),
            ("evals", ints(0)),
            ("evals_failed", ints(0)),
            ("closed_by", words((0..n).map(|_| Some("root")))),
        ],
    )
}

/// A small micro-batch.
pub fn micro(rng: &mut ChaCha8Rng, lsn: u64, next_span: &mut u64) -> MicroBatch {
    let received_at = Nanos(T0 + lsn as i64 * 1_000_000);
    let n = rng.random_range(1..8);
    let mut sections = vec![Section {
        table: Table::Spans,
        rows: spans(rng, n, 6, next_span, received_at),
    }];
    if rng.random_bool(0.3) {
        sections.push(Section {
            table: Table::Evals,
            rows: evals(rng, 2, 6),
        });
    }
    MicroBatch {
        lsn,
        received_at,
        digests: (0..rng.random_range(1..4)).map(|_| rng.random()).collect(),
        sections,
    }
}

/// Every row with all declared columns, as text.
pub fn text(table: Table, rows: &RecordBatch) -> Vec<String> {
    let options = FormatOptions::default().with_null("~");
    // No batch here has events or links, and times are compared as numbers.
    let columns: Vec<Option<ArrayRef>> = declared(table)
        .fields()
        .iter()
        .map(|field| {
            rows.column_by_name(field.name())
                .filter(|c| c.null_count() < c.len())
                .and_then(plain)
        })
        .collect();
    let columns: Vec<Option<ArrayFormatter<'_>>> = columns
        .iter()
        .map(|c| c.as_ref().map(|c| ArrayFormatter::try_new(c, &options).unwrap()))
        .collect();
    (0..rows.num_rows())
        .map(|row| {
            let mut line = String::new();
            for column in &columns {
                match column {
                    Some(column) => write!(line, "{}|", column.value(row)).unwrap(),
                    None => line.push_str("~|"),
                }
            }
            line
        })
        .collect()
}

fn plain(column: &ArrayRef) -> Option<ArrayRef> {
    match column.data_type() {
        DataType::List(_) => None,
        DataType::Timestamp(..) => Some(arrow::compute::cast(column, &DataType::Int64).unwrap()),
        _ => Some(Arc::clone(column)),
    }
}

/// All rows of a Parquet file.
pub fn read_parquet(path: &Path) -> Vec<RecordBatch> {
    let file = std::fs::File::open(path).unwrap();
    ParquetRecordBatchReaderBuilder::try_new(file)
        .unwrap()
        .build()
        .unwrap()
        .map(Result::unwrap)
        .collect()
}

pub fn column_text(rows: &RecordBatch, name: &str) -> Vec<Option<String>> {
    let column = plain(rows.column_by_name(name).unwrap()).unwrap();
    let column = arrow::compute::cast(&column, &DataType::Utf8).unwrap();
    column.as_string::<i32>().iter().map(|v| v.map(str::to_owned)).collect()
}
