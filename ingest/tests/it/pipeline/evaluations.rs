//! Evaluations of captured clients, by every way they come: each is a row of the trace that it judged, with its color.

use super::{
    bench::{Bench, T0},
    traffic::captured_of,
};
use proto::layout::Table;
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use std::{fs, path::Path};

/// Trace, name and color of every evaluation that the clients made.
fn truth() -> Vec<Vec<String>> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/captures/MANIFEST.json");
    let manifest: Value = serde_json::from_slice(&fs::read(file).unwrap()).unwrap();
    let mut all = Vec::new();
    for (_, client) in manifest["clients"].as_object().unwrap() {
        for trace in client["traces"].as_array().unwrap() {
            let expected = &trace["expected"];
            let list = |key: &str| expected[key].as_array().cloned().unwrap_or_default();
            let one = expected.get("evaluation").filter(|one| one.is_object()).cloned();
            let named = list("evaluations")
                .into_iter()
                .chain(one)
                .map(|eval| eval["name"].clone());
            let feedback = list("user_feedback").into_iter().map(|_| Value::from("user_feedback"));
            for name in named.chain(feedback) {
                let cells = [&trace["trace_id"], &name, &expected["color"]];
                all.push(cells.map(|cell| cell.as_str().unwrap().to_owned()).to_vec());
            }
        }
    }
    all.sort_unstable();
    all
}

#[test]
fn every_captured_evaluation_is_a_row_of_its_trace_in_any_order_and_over_kills() {
    let truth = truth();
    assert!(truth.len() >= 24, "{}", truth.len());
    for seed in 0..6 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut bench = Bench::open();
        let mut requests = [captured_of("traces"), captured_of("logs")].concat();
        if seed > 0 {
            requests.shuffle(&mut rng);
        }
        let mut now = T0 + 1.0;
        for request in &requests {
            now += 0.1;
            bench.at(now);
            bench.send(request);
            match rng.random_range(0..40) {
                0 if seed > 0 => bench.reopen(),
                1 if seed > 0 => bench.pipeline().seal_now(),
                _ => {}
            }
        }
        bench.settle();
        let rows = bench.rows(Table::Evals, &["trace_id", "name", "color"]);
        assert_eq!(rows, truth, "seed {seed}");
        let mut ways: Vec<_> = bench.rows(Table::Evals, &["source", "linked_by"]);
        ways.dedup();
        let ways: Vec<String> = ways.into_iter().map(|way| way.join(" ")).collect();
        let expected = [
            "openinference span",
            "openinference trace",
            "otel_event span",
            "otel_log response_id",
            "otel_log span",
            "traceai target_span",
        ];
        assert_eq!(ways, expected, "seed {seed}");
    }
}
