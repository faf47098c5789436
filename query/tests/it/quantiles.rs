//! Quantiles against oracles: sorted values for the exact views, the hdrhistogram crate for cells.

use crate::{
    engine, rows, view,
    world::{Held, World},
};
use proto::{
    Cell, CellKey, CellTable, Color, Grain, Metric,
    cell::{Scope, Series},
};
use rand::{RngExt, SeedableRng};
use std::{collections::BTreeMap, sync::Arc};
use store::Snapshot;

/// DataFusion rounds the weight between two neighbours (at most 0.25 ms apart here, per group a few) to six digits.
const WEIGHT_STEP: f64 = 1e-5;

/// Linear between the two nearest values, as SQL defines `percentile_cont`.
fn percentile_cont(mut values: Vec<f64>, q: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let rank = q * (values.len() - 1) as f64;
    let (low, high) = (rank.floor() as usize, rank.ceil() as usize);
    values[low] + (values[high] - values[low]) * (rank - low as f64)
}

#[tokio::test(flavor = "multi_thread")]
async fn latency_p99_is_the_exact_quantile_of_every_group() {
    let dir = tempfile::tempdir().unwrap();
    let world = World { traces: 500 };
    let snapshot = world.write(dir.path(), Held::Half);
    let mut groups: BTreeMap<[String; 3], Vec<f64>> = BTreeMap::new();
    for t in world.all() {
        let key = [t.route(), t.color().as_str(), t.cohort().unwrap_or("")].map(str::to_owned);
        groups.entry(key).or_default().push(t.duration_ms());
    }
    let sql = "SELECT route, color, cohort, n, p99_ms FROM latency_p99 ORDER BY 1, 2, 3";
    let answer = rows(&engine(dir.path()), view(&snapshot), sql).await;
    assert_eq!(answer.len(), groups.len());
    for row in answer {
        let text = |i: usize| row[i].as_str().unwrap_or("").to_owned();
        let key = [text(0), text(1), text(2)];
        let values = groups.remove(&key).unwrap();
        assert_eq!(row[3], values.len());
        let (exact, ours) = (percentile_cont(values, 0.99), row[4].as_f64().unwrap());
        assert!((exact - ours).abs() < WEIGHT_STEP, "{key:?}: {ours}, not {exact}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn hdr_quantile_equals_hdrhistogram_over_all_cells() {
    const SEED: u64 = 7;
    let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(SEED);
    let mut oracle = hdrhistogram::Histogram::<u64>::new_with_bounds(1, u64::MAX / 2, 3).unwrap();
    let mut cells = CellTable::default();
    for i in 0..5_000_i64 {
        let value = (10.0_f64).powf(rng.random_range(2.0..8.0)) as u64;
        oracle.record(value).unwrap();
        let key = CellKey {
            scope: Scope {
                route: format!("route {}", i % 7).into(),
                release: Some("r1".into()),
            },
            minute: i / 100 * 60,
            series: Series {
                metric: Metric::Latency,
                grain: Grain::Trace,
                cohort: None,
                split_ppm: None,
                color: Color::Green,
                admitted: i % 2 == 0,
            },
        };
        cells.apply(&key, &Cell::amount(value), 1);
    }
    let dir = tempfile::tempdir().unwrap();
    let snapshot = Arc::new(Snapshot {
        cells,
        ..Snapshot::default()
    });
    let engine = engine(dir.path());
    for q in [0.0, 0.5, 0.9, 0.99, 0.999, 1.0] {
        let sql = format!("SELECT hdr_quantile(hdr, {q}), sum(n) FROM cells WHERE metric = 'latency'");
        let answer = rows(&engine, view(&snapshot), &sql).await;
        assert_eq!(
            answer,
            [[oracle.value_at_quantile(q).into(), serde_json::Value::from(5_000)]]
        );
    }
    let none = rows(
        &engine,
        view(&snapshot),
        "SELECT hdr_quantile(hdr, 0.5) FROM cells WHERE route = 'x'",
    )
    .await;
    assert_eq!(none, [[serde_json::Value::Null]]);
}
