//! Captured requests of real clients, read into rows and compared with what their provider served.

use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Decimal128Type, Int32Type, Int64Type},
};
use ingest::read::{ReadConfig, Reader};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use prost::Message;
use proto::{Nanos, layout::Table};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

fn captures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/captures")
}

/// Every request body of a client, in the order it was sent; JSON ones as protobuf.
fn requests(client: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let mut files: Vec<PathBuf> = fs::read_dir(captures().join(client))
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    files
        .into_iter()
        .map(|file| {
            let body = fs::read(&file).unwrap();
            let is_json = file.extension().is_some_and(|e| e == "json");
            let body = if is_json {
                serde_json::from_slice::<ExportTraceServiceRequest>(&body)
                    .unwrap()
                    .encode_to_vec()
            } else {
                body
            };
            (file, body)
        })
        .collect()
}

fn is_logs(file: &Path) -> bool {
    file.to_string_lossy().contains(".logs.")
}

fn read(client: &str) -> Vec<store::Section> {
    let mut reader = Reader::new(Arc::new(ReadConfig::default()));
    for (file, body) in requests(client) {
        let accepted = if is_logs(&file) {
            reader.read_logs(&body, Nanos::from_secs(1)).unwrap()
        } else {
            reader.read_traces(&body, Nanos::from_secs(1)).unwrap()
        };
        assert_eq!(
            (accepted.rejected, accepted.message.as_str()),
            (0, ""),
            "{}",
            file.display()
        );
    }
    reader.take()
}

fn section(sections: &[store::Section], table: Table) -> &RecordBatch {
    &sections.iter().find(|section| section.table == table).unwrap().rows
}

fn word(rows: &RecordBatch, column: &str, row: usize) -> Option<String> {
    let words = rows.column_by_name(column)?.as_dictionary::<Int32Type>();
    let code = words.is_valid(row).then(|| words.keys().value(row))?;
    Some(
        words
            .values()
            .as_string::<i32>()
            .value(usize::try_from(code).unwrap())
            .to_owned(),
    )
}

fn count(rows: &RecordBatch, column: &str, row: usize) -> Option<i64> {
    let counts = rows.column_by_name(column)?.as_primitive::<Int64Type>();
    counts.is_valid(row).then(|| counts.value(row))
}

fn money(rows: &RecordBatch, column: &str, row: usize) -> Option<i128> {
    let money = rows.column_by_name(column)?.as_primitive::<Decimal128Type>();
    money.is_valid(row).then(|| money.value(row))
}

/// Sum of known values, `None` if none is.
fn sum(rows: &RecordBatch, column: &str, of: &[usize]) -> Option<i64> {
    of.iter()
        .filter_map(|&row| count(rows, column, row))
        .reduce(|a, b| a + b)
}

fn calls_by_trace(rows: &RecordBatch) -> BTreeMap<String, Vec<usize>> {
    let mut calls: BTreeMap<String, Vec<usize>> = BTreeMap::new();
    let traces = rows.column_by_name("trace_id").unwrap().as_string::<i32>();
    for row in 0..rows.num_rows() {
        let of_trace = calls.entry(traces.value(row).to_owned()).or_default();
        if word(rows, "role", row).as_deref() == Some("call") {
            of_trace.push(row);
        }
    }
    calls
}

#[test]
fn captured_calls_have_the_tokens_and_models_that_stand_on_the_wire() {
    let manifest: Value = serde_json::from_slice(&fs::read(captures().join("MANIFEST.json")).unwrap()).unwrap();
    let mut wrong = Vec::new();
    let mut checked = 0;
    for (client, truth) in manifest["clients"].as_object().unwrap() {
        let sections = read(client);
        let rows = section(&sections, Table::Spans);
        let calls = calls_by_trace(rows);
        for trace in truth["traces"].as_array().unwrap() {
            let (id, expected) = (trace["trace_id"].as_str().unwrap(), &trace["expected"]);
            let calls = &calls[id];
            let mut compare = |what: &str, found: Value, expected: &Value| {
                checked += 1;
                if found != *expected {
                    let scenario = &trace["scenario"];
                    wrong.push(format!("{client} {id} {scenario}: {what} is {found}, not {expected}"));
                }
            };
            compare("calls", calls.len().into(), &expected["model_calls"]);
            for (what, column, key) in [
                ("prompt", "prompt_tokens", "prompt_tokens"),
                ("completion", "completion_tokens", "completion_tokens"),
                ("cached", "cache_read_tokens", "cached_prompt_tokens"),
                ("reasoning", "reasoning_tokens", "reasoning_tokens"),
            ] {
                if expected.get(key).is_some() {
                    compare(what, sum(rows, column, calls).into(), &expected[key]);
                }
            }
            for &row in calls {
                for column in ["request_model", "response_model"] {
                    compare(column, word(rows, column, row).into(), &expected[column]);
                }
                let is_priced = money(rows, "cost_usd", row).is_some();
                let has_usage = count(rows, "prompt_tokens", row).is_some();
                compare("priced", is_priced.into(), &has_usage.into());
                let error = word(rows, "status", row).as_deref() == Some("error");
                compare("error", error.into(), &expected["error"]);
            }
        }
    }
    assert!(
        wrong.is_empty(),
        "{checked} checked, {} wrong:\n{}",
        wrong.len(),
        wrong.join("\n")
    );
}

#[test]
fn captured_evaluations_become_rows_in_whatever_form_they_came() {
    let sections = read("evals-hand");
    let evals = section(&sections, Table::Evals);
    let mut found: BTreeMap<(String, String), usize> = BTreeMap::new();
    for row in 0..evals.num_rows() {
        let name = word(evals, "name", row).unwrap();
        *found.entry((name, word(evals, "source", row).unwrap())).or_default() += 1;
    }
    let expected = [
        ("correctness", "openinference", 2),
        ("groundedness", "otel_log", 2),
        ("json_valid", "otel_event", 2),
        ("relevance", "otel_log", 2),
        ("task_completion", "otel_log", 4),
        ("toxicity", "otel_log", 2),
        ("user_feedback", "openinference", 2),
        ("user_feedback", "otel_log", 2),
    ];
    let found: Vec<(&str, &str, usize)> = found
        .iter()
        .map(|((name, source), &n)| (name.as_str(), source.as_str(), n))
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn every_client_that_sends_an_evaluation_gives_one_linked_row_a_color() {
    for (client, source) in [
        ("openinference-openai", "openinference"),
        ("otel-genai-openai-latest", "otel_log"),
        ("otel-openai-v2-latest", "otel_log"),
        ("traceloop-openai", "otel_log"),
        ("traceai-openai", "traceai"),
    ] {
        let sections = read(client);
        let evals = section(&sections, Table::Evals);
        assert_eq!(evals.num_rows(), 2, "{client}");
        for row in 0..2 {
            assert_eq!(word(evals, "name", row).as_deref(), Some("groundedness"), "{client}");
            assert_eq!(word(evals, "source", row).as_deref(), Some(source), "{client}");
            assert_eq!(word(evals, "label", row).as_deref(), Some("fail"), "{client}");
            let is_linked = |column| {
                let ids = evals.column_by_name(column)?.as_string::<i32>();
                Some(ids.is_valid(row))
            };
            assert!(
                is_linked("trace_id").or(is_linked("span_id")).unwrap_or(false),
                "{client}"
            );
        }
    }
}
