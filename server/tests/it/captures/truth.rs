//! What SQL says of the captured traces, held against MANIFEST.json.

use super::{message, wire::Doors};
use crate::otlp::sql;
use serde_json::{Map, Value, json};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// Longest wait until every trace has closed: the quiet time of one without a root, and then some.
const QUIET_WITHIN: Duration = Duration::from_secs(90);

/// Longest wait for links that need a look into sealed files.
const LINKED_WITHIN: Duration = Duration::from_secs(5);

type Row = Map<String, Value>;

/// Rows with their columns' names.
async fn rows(doors: &Doors, columns: &[&str], rest: &str) -> Vec<Row> {
    let answer = sql(
        &doors.client,
        doors.http,
        &format!("SELECT {} {rest}", columns.join(", ")),
    )
    .await;
    let named = |row: &Value| {
        let values = row.as_array().unwrap().iter().cloned();
        columns
            .iter()
            .map(|&column| column.rsplit(' ').next().unwrap().to_owned())
            .zip(values)
            .collect()
    };
    answer.as_array().unwrap().iter().map(named).collect()
}

async fn metric(doors: &Doors, name: &str) -> u64 {
    let page = doors.client.get(format!("http://{}/metrics", doors.http)).send();
    let page = page.await.unwrap().text().await.unwrap();
    let line = page
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '))
        .unwrap_or_else(|| panic!("no {name} in\n{page}"));
    line.parse().unwrap()
}

/// Waits until everything acknowledged is visible and no trace is open, of at least so many.
pub async fn closed(doors: &Doors, traces: usize) {
    let begun = Instant::now();
    loop {
        let open = metric(doors, "tracegate_traces_open").await;
        let durable = metric(doors, "tracegate_durable_lsn").await;
        let visible = metric(doors, "tracegate_visible_lsn").await;
        // Closing becomes visible with the next snapshot: ask for the rows, not for the counter alone.
        let rows = sql(&doors.client, doors.http, "SELECT count(*) FROM traces").await;
        let rows = rows[0][0].as_u64().unwrap();
        if open == 0 && visible >= durable && rows >= traces as u64 {
            return;
        }
        assert!(
            begun.elapsed() < QUIET_WITHIN,
            "{open} traces open, {rows} of {traces} closed, record {visible} of {durable} visible"
        );
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Differences between what was found and what is true.
struct Findings {
    checked: usize,
    wrong: Vec<String>,
}

impl Findings {
    fn compare(&mut self, whose: &str, what: &str, found: &Value, expected: &Value) {
        self.checked += 1;
        let same = match (found.as_f64(), expected.as_f64()) {
            (Some(found), Some(expected)) => (found - expected).abs() < 1e-9,
            _ => found == expected,
        };
        if !same {
            self.wrong
                .push(format!("{whose}: {what} is {found}, expected {expected}"));
        }
    }
}

/// Sum of the known values, null if none is known.
fn sum<'a>(values: impl Iterator<Item = &'a Value>) -> Value {
    values
        .filter_map(Value::as_i64)
        .reduce(|a, b| a + b)
        .map_or(Value::Null, Value::from)
}

fn by_trace(rows: Vec<Row>) -> BTreeMap<String, Vec<Row>> {
    let mut grouped: BTreeMap<String, Vec<Row>> = BTreeMap::new();
    for row in rows {
        let id = row["trace_id"].as_str().unwrap_or_default().to_owned();
        grouped.entry(id).or_default().push(row);
    }
    grouped
}

fn calls(findings: &mut Findings, whose: &str, spans: &[Row], expected: &Value) {
    for span in spans {
        findings.compare(whose, "color of a span", &span["color"], &expected["color"]);
    }
    let calls: Vec<&Row> = spans
        .iter()
        .filter(|span| span["role"] == "call" && span["repeats_span_id"].is_null())
        .collect();
    findings.compare(whose, "call spans", &calls.len().into(), &expected["model_calls"]);
    for (column, key) in [
        ("prompt_tokens", "prompt_tokens"),
        ("completion_tokens", "completion_tokens"),
        ("cache_read_tokens", "cached_prompt_tokens"),
        ("reasoning_tokens", "reasoning_tokens"),
    ] {
        if let Some(known) = expected.get(key) {
            findings.compare(whose, column, &sum(calls.iter().map(|call| &call[column])), known);
        }
    }
    for call in &calls {
        for column in ["request_model", "response_model"] {
            findings.compare(whose, column, &call[column], &expected[column]);
        }
        let failed = call["status"] == "error";
        findings.compare(whose, "error of its call", &failed.into(), &expected["error"]);
        if !call["http_status"].is_null() {
            findings.compare(whose, "http_status", &call["http_status"], &expected["http_status"]);
        }
        if let (Some(ttft), Some(floor)) = (call["ttft_ms"].as_f64(), expected["ttft_floor_s"].as_f64()) {
            findings.compare(
                whose,
                &format!("whether {ttft} ms to the first token is at least {floor} s"),
                &(ttft >= floor * 1e3).into(),
                &true.into(),
            );
        }
    }
    if let Some(truth) = expected["calls"].as_array() {
        let pairs = |prompt: &str, completion: &str, of: &dyn Fn(usize, &str) -> Value| {
            let mut pairs: Vec<String> = (0..truth.len().max(calls.len()))
                .map(|i| json!([of(i, prompt), of(i, completion)]).to_string())
                .collect();
            pairs.sort();
            json!(pairs)
        };
        let found = pairs("prompt_tokens", "completion_tokens", &|i, column| {
            calls.get(i).map_or(Value::Null, |call| call[column].clone())
        });
        let known = pairs("prompt", "completion", &|i, key| {
            truth.get(i).map_or(Value::Null, |call| call[key].clone())
        });
        findings.compare(whose, "tokens by call", &found, &known);
    }
}

/// Name of users' opinions.
const FEEDBACK: &str = "user_feedback";

/// Name, score, label, passed.
type Judgement = (String, Option<f64>, Option<String>, Option<bool>);

fn expected_evals(expected: &Value) -> Vec<Judgement> {
    let one = expected.get("evaluation");
    let many = expected["evaluations"].as_array().into_iter().flatten();
    let mut evals: Vec<Judgement> = one
        .into_iter()
        .chain(many)
        .map(|eval| {
            let label = eval["label"].as_str().map(str::to_owned);
            let passed = match label.as_deref() {
                Some("pass") => Some(true),
                Some("fail") => Some(false),
                _ => None,
            };
            (
                eval["name"].as_str().unwrap().to_owned(),
                eval["score"].as_f64(),
                label,
                passed,
            )
        })
        .collect();
    // Thumbs down, or a score below zero: the manifest says what was meant, not how it was written.
    let feedback = expected["user_feedback"].as_array().into_iter().flatten();
    evals.extend(feedback.map(|_| (FEEDBACK.to_owned(), None, None, Some(false))));
    evals.sort_by_key(|eval| format!("{eval:?}"));
    evals
}

fn evals(findings: &mut Findings, whose: &str, trace: &Row, evals: &[Row], expected: &Value) {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut found: Vec<Judgement> = evals
        .iter()
        .map(|eval| {
            let (name, passed) = (text(&eval["name"]).unwrap(), eval["passed"].as_bool());
            if name == FEEDBACK {
                return (name, None, None, passed);
            }
            (name, eval["score"].as_f64(), text(&eval["label"]), passed)
        })
        .collect();
    found.sort_by_key(|eval| format!("{eval:?}"));
    let known = expected_evals(expected);
    findings.compare(whose, "evaluations", &json!(found), &json!(known));
    for eval in evals {
        for column in ["color", "version", "route"] {
            let what = format!("{column} of evaluation {}", eval["name"]);
            findings.compare(whose, &what, &eval[column], &trace[column]);
        }
    }
    // What users think is no evaluation that failed: it has metrics of its own.
    let is_failure = |eval: &&Judgement| eval.3 == Some(false) && eval.0 != FEEDBACK;
    let failed = known.iter().filter(is_failure).count();
    findings.compare(whose, "evals", &trace["evals"], &known.len().into());
    findings.compare(whose, "evals_failed", &trace["evals_failed"], &failed.into());
}

/// What cells add up to is what rows add up to, by color.
async fn cells(findings: &mut Findings, doors: &Doors) {
    let of_rows = rows(
        doors,
        &[
            "color",
            "count(*) AS traces",
            "sum(calls) AS calls",
            "sum(attempts_failed) AS attempts_failed",
            "count(*) FILTER (WHERE error) AS errors",
            "sum(prompt_tokens) AS prompt_tokens",
            "sum(completion_tokens) AS completion_tokens",
            "CAST(sum(cost_usd) * 1000000000 AS BIGINT) AS cost",
            "sum(evals_failed) AS evals_failed",
        ],
        "FROM traces GROUP BY color ORDER BY color",
    )
    .await;
    for row in of_rows {
        let color = row["color"].as_str().unwrap();
        for (what, metric, grain, field) in [
            ("traces", "metric = 'traces'", "trace", "n"),
            ("calls", "metric = 'attempt_error'", "attempt", "n"),
            ("attempts_failed", "metric = 'attempt_error'", "attempt", "events"),
            ("errors", "metric = 'error'", "trace", "events"),
            ("prompt_tokens", "metric = 'prompt_tokens'", "trace", "sum"),
            ("completion_tokens", "metric = 'completion_tokens'", "trace", "sum"),
            ("cost", "metric = 'cost'", "trace", "sum"),
        ] {
            let question = format!("FROM cells WHERE color = '{color}' AND grain = '{grain}' AND {metric}");
            let found = rows(doors, &[&format!("coalesce(sum({field}), 0) AS total")], &question).await;
            let expected = if row[what].is_null() {
                json!(0)
            } else {
                row[what].clone()
            };
            findings.compare(&format!("cells of {color}"), what, &found[0]["total"], &expected);
        }
    }
}

/// Holds everything SQL says against the manifest; `told` says how the requests were delivered.
pub async fn check(doors: &Doors, told: &str) {
    let manifest = message::manifest();
    let clients = manifest["clients"].as_object().unwrap().values();
    let traces = clients.map(|client| client["traces"].as_array().unwrap().len());
    closed(doors, traces.sum()).await;
    // What is looked up in sealed files may be linked a moment after the last trace has closed.
    let mut findings = compare(doors).await;
    let begun = Instant::now();
    while !findings.wrong.is_empty() && begun.elapsed() < LINKED_WITHIN {
        tokio::time::sleep(Duration::from_millis(250)).await;
        findings = compare(doors).await;
    }
    assert!(
        findings.wrong.is_empty(),
        "{told}: {} checked, {} wrong:\n{}",
        findings.checked,
        findings.wrong.len(),
        findings.wrong.join("\n")
    );
    assert!(findings.checked > 2_000, "only {} checked", findings.checked);
}

async fn compare(doors: &Doors) -> Findings {
    let mut findings = Findings {
        checked: 0,
        wrong: Vec::new(),
    };
    let traces = by_trace(
        rows(
            doors,
            &[
                "trace_id",
                "calls",
                "prompt_tokens",
                "completion_tokens",
                "error",
                "attempts_failed",
                "color",
                "version",
                "route",
                "evals",
                "evals_failed",
                "priced",
                "cost_usd",
            ],
            "FROM traces",
        )
        .await,
    );
    let spans = by_trace(
        rows(
            doors,
            &[
                "trace_id",
                "span_id",
                "role",
                "prompt_tokens",
                "completion_tokens",
                "cache_read_tokens",
                "reasoning_tokens",
                "request_model",
                "response_model",
                "status",
                "http_status",
                "ttft_ms",
                "color",
                "version",
                "repeats_span_id",
            ],
            "FROM spans",
        )
        .await,
    );
    let judged = by_trace(
        rows(
            doors,
            &[
                "trace_id", "name", "score", "label", "passed", "color", "version", "route",
            ],
            "FROM evals",
        )
        .await,
    );
    let manifest = message::manifest();
    let mut known = Vec::new();
    for (client, truth) in manifest["clients"].as_object().unwrap() {
        for trace in truth["traces"].as_array().unwrap() {
            let (id, expected) = (trace["trace_id"].as_str().unwrap(), &trace["expected"]);
            known.push(id.to_owned());
            let whose = format!("{client} {} {id}", trace["scenario"].as_str().unwrap());
            let of_trace = traces.get(id).map_or(&[][..], Vec::as_slice);
            findings.compare(&whose, "rows of traces", &of_trace.len().into(), &1.into());
            let Some(row) = of_trace.first() else { continue };
            for (column, key) in [
                ("calls", "model_calls"),
                ("prompt_tokens", "prompt_tokens"),
                ("completion_tokens", "completion_tokens"),
                ("error", "error"),
                ("color", "color"),
                ("version", "route_version"),
            ] {
                findings.compare(&whose, column, &row[column], &expected[key]);
            }
            let failed = if expected["error"] == true {
                &expected["model_calls"]
            } else {
                &Value::from(0)
            };
            findings.compare(&whose, "attempts_failed", &row["attempts_failed"], failed);
            let of_spans = spans.get(id).map_or(&[][..], Vec::as_slice);
            findings.compare(&whose, "spans", &of_spans.len().into(), &trace["spans"]);
            calls(&mut findings, &whose, of_spans, expected);
            let of_evals = judged.get(id).map_or(&[][..], Vec::as_slice);
            evals(&mut findings, &whose, row, of_evals, expected);
        }
    }
    // A judge's own traces are no traces of a route: neither their count nor their tokens are anybody's.
    let others: Vec<&String> = traces.keys().filter(|id| !known.contains(id)).collect();
    findings.compare("all", "traces beside those of the manifest", &json!(others), &json!([]));
    let unlinked: Vec<&String> = judged.keys().filter(|id| !known.contains(id)).collect();
    findings.compare("all", "evaluations of other traces", &json!(unlinked), &json!([]));
    cells(&mut findings, doors).await;
    findings
}
