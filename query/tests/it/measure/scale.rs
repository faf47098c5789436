//! A release of a million traces. `cargo test -p query --test it -- --ignored --nocapture a_million` prints what each
//! part takes.

use super::{
    name, normalised, plan,
    story::{Call, Eval, Told, Trace, eval_rows, span_rows, trace_rows},
};
use crate::{
    engine, view,
    world::{SECOND, START},
};
use proto::{
    Color, Grain, Metric, Nanos,
    cell::Minutes,
    layout::Table,
    measure::{MeasurePlan, PairPlan, PairRead, SqlPlan},
    release::Unit,
};
use query::{
    Engine,
    measure::{SqlMemory, measure},
};
use std::{sync::Arc, time::Instant};
use store::{LiveBatch, SealInput, Snapshot, Store, StoreOptions};

const TRACES: usize = 1_000_000;
const CHUNK: usize = 10_000;

/// Colors in turn; of ten traces four are mirrored pairs, three follow each other in a session, one is evaluated.
fn nth(n: usize) -> Trace {
    let green = n % 2 == 1;
    let is_pair = n % 10 < 4;
    let start = START + (n / 2) as i64 * 2_000_000;
    let color = if green { Color::Green } else { Color::Blue };
    let call = Call {
        id: n as u64 * 100 + 10,
        start,
        us: 900 + (n % 1_000) as i64,
        error: n.is_multiple_of(11),
        cost: Some(1_000 + (n % 777) as i64),
        prompt: Some(100),
        completion: Some(10),
        ..Call::default()
    };
    Trace {
        n,
        start,
        us: 1_000 + (n % 5_000) as i64,
        color,
        release: Some("r'1"),
        cohort: [None, Some("free"), Some("pro")][n % 3],
        split: Some(500_000),
        mirror_key: is_pair.then(|| format!("pair-{}", n / 2)),
        shadow: is_pair && green,
        session: (n % 10 > 6).then(|| format!("session-{}", n / 10)),
        error: n.is_multiple_of(33),
        calls: vec![call],
        evals: if n.is_multiple_of(10) {
            vec![Eval {
                name: "task_completion",
                passed: Some(!n.is_multiple_of(100)),
                broke: false,
                span: None,
                of_judge: false,
                of_mirror: false,
            }]
        } else {
            Vec::new()
        },
        ..Trace::default()
    }
}

/// The million, in files.
fn sealed(dir: &std::path::Path) -> Arc<Snapshot> {
    let (mut store, _) = Store::open(dir, StoreOptions::default()).unwrap();
    let _journal = store.journal();
    let sealer = store.sealer();
    let mut snapshot = Snapshot::default();
    for (seal, from) in (0..TRACES).step_by(TRACES / 4).enumerate() {
        let mut input = SealInput {
            lsn: seal as u64 + 1,
            sealed_at: Nanos(START),
            ..SealInput::default()
        };
        for chunk in (from..from + TRACES / 4).step_by(CHUNK) {
            let told = Told((chunk..chunk + CHUNK).map(nth).collect());
            let traces: Vec<&Trace> = told.0.iter().collect();
            let lsn = seal as u64 + 1;
            input.marks.push(
                crate::world::Story::marks(&told)
                    .into_iter()
                    .map(|(id, mark, _)| (id, mark)),
            );
            for (table, into, rows) in [
                (Table::Spans, &mut input.spans, span_rows(&traces)),
                (Table::Evals, &mut input.evals, eval_rows(&traces)),
                (Table::Traces, &mut input.traces, trace_rows(&traces)),
            ] {
                store::live::push(table, into, LiveBatch { lsn, rows }).unwrap();
            }
        }
        snapshot.files = sealer.seal(input).unwrap().files;
    }
    Arc::new(snapshot)
}

fn n_of(minutes: &Minutes, metric: &Metric, grain: Grain) -> i64 {
    let cells = minutes.values().flat_map(|cells| cells.iter());
    cells
        .filter(|(series, _)| series.metric == *metric && series.grain == grain)
        .map(|(_, cell)| cell.n)
        .sum()
}

async fn timed(engine: &Engine, snapshot: &Arc<Snapshot>, plan: &MeasurePlan, what: &str) -> Minutes {
    let begun = Instant::now();
    let now = Nanos(START + 3_600 * SECOND);
    let measured = measure(engine, view(snapshot), plan, now, &mut SqlMemory::default()).await;
    eprintln!("{what}: {:?}", begun.elapsed());
    assert!(
        measured.obstacles.values().all(|why| why.contains("the rest follows")),
        "{:?}",
        measured.obstacles
    );
    (*measured.minutes).clone()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "a million traces take a minute to write"]
async fn a_million_traces_are_measured() {
    let dir = tempfile::tempdir().unwrap();
    let begun = Instant::now();
    let snapshot = sealed(dir.path());
    eprintln!("written: {:?}", begun.elapsed());
    let engine = engine(dir.path());
    let plan = MeasurePlan {
        from: Nanos(START),
        ..plan()
    };
    let sessions = timed(&engine, &snapshot, &plan, "guards alone").await;
    assert_eq!(
        n_of(&sessions, &Metric::SessionSame, Grain::Session),
        TRACES as i64 / 10
    );

    let pair = |metric: &str, read| PairPlan {
        gate: name(metric),
        metric: normalised(metric),
        read,
        by_cohort: true,
    };
    let pairs = MeasurePlan {
        pairs: vec![
            pair("error", PairRead::Event),
            pair(
                "latency",
                PairRead::Above {
                    blue: 3_000,
                    green: 3_600,
                },
            ),
            pair("cost", PairRead::Value { r: 1.15, cap: 10_000 }),
            pair("eval_fail:task_completion", PairRead::Event),
        ],
        ..plan.clone()
    };
    let found = timed(&engine, &snapshot, &pairs, "four paired gates").await;
    for (gate, n) in [("error", 400_000), ("latency", 400_000), ("cost", 600_000)] {
        assert_eq!(n_of(&found, &Metric::Paired(name(gate)), Grain::Trace), n, "{gate}");
    }

    let units = MeasurePlan {
        unit: Unit::Session,
        metrics: ["latency", "cost", "error", "eval_fail:task_completion"]
            .map(normalised)
            .to_vec(),
        ..plan.clone()
    };
    let found = timed(&engine, &snapshot, &units, "four metrics by session").await;
    // 200,000 of the million are mirrored; of the rest 300,000 lie in 100,000 sessions.
    assert_eq!(n_of(&found, &Metric::Traces, Grain::Session), 600_000);

    let sql = MeasurePlan {
        sql: vec![SqlPlan {
            gate: name("refunds"),
            sql: "SELECT count(*) FILTER (WHERE color = 'blue' AND error) AS blue_events,
                         count(*) FILTER (WHERE color = 'blue') AS blue_n,
                         count(*) FILTER (WHERE color = 'green' AND error) AS green_events,
                         count(*) FILTER (WHERE color = 'green') AS green_n
                  FROM traces WHERE release = $release AND start_time < $admitted_before"
                .to_owned(),
        }],
        ..plan
    };
    let found = timed(&engine, &snapshot, &sql, "an SQL gate, every minute of an hour").await;
    assert!(n_of(&found, &Metric::Sql(name("refunds")), Grain::Trace) > 100_000);
}
