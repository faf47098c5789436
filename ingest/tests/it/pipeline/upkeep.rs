//! What becomes of sealed files while requests go on: the oracle is the same pipeline that leaves them alone.

use super::{
    bench::{Bench, T0},
    traffic::{Request, chat},
};
use ingest::pipeline::PipelineConfig;
use proto::layout::Table;
use std::{
    collections::BTreeSet,
    fs,
    sync::atomic::Ordering::SeqCst,
    time::{Duration, Instant},
};
use store::Snapshot;

const HOUR: f64 = 3_600.0;
const SEEN: [&str; 7] = ["trace_id", "span_id", "color", "route", "release", "version", "role"];

fn kept() -> Bench {
    Bench::open_with(PipelineConfig {
        upkeep_every: Duration::from_millis(10),
        ..Bench::config()
    })
}

/// Seals every few requests: many small files, and marks that come after their rows were sealed.
fn play(bench: &Bench, requests: &[Request]) {
    for (i, request) in requests.iter().enumerate() {
        bench.at(T0 + 1.0 + i as f64 * 0.05);
        bench.send(request);
        if i % 6 == 5 {
            let counters = &bench.pipeline().counters;
            let sealed_before = counters.seals.load(SeqCst);
            bench.pipeline().seal_now();
            let began = Instant::now();
            while counters.seals.load(SeqCst) == sealed_before {
                assert!(began.elapsed() < Duration::from_secs(60), "it must be sealed");
                std::thread::sleep(Duration::from_millis(2));
            }
        }
    }
}

fn files_of(snapshot: &Snapshot, table: Table) -> usize {
    snapshot.files.iter().filter(|file| file.table == table).count()
}

#[test]
fn joined_files_answer_the_same_and_so_does_what_comes_late() {
    let requests = chat(60);
    let (requests, late) = requests.split_at(requests.len() - 4);
    let (mut plain, mut kept) = (Bench::open(), kept());
    play(&plain, requests);
    play(&kept, requests);
    let same = |plain: &Bench, kept: &Bench, what: &str| {
        for (table, columns) in [
            (Table::Spans, SEEN.as_slice()),
            (Table::Traces, &["trace_id", "color", "calls", "cost_usd", "closed_by"]),
            (Table::Evals, &["trace_id", "name", "score", "color", "version"]),
        ] {
            assert_eq!(
                plain.rows(table, columns),
                kept.rows(table, columns),
                "{what}: {table:?}"
            );
        }
        assert!(plain.snapshot().cells == kept.snapshot().cells, "{what}: cells");
    };
    plain.forget_at(T0 + 5.0 * HOUR);
    kept.forget_at(T0 + 5.0 * HOUR);
    plain.seal();
    kept.pipeline().seal_now();
    kept.wait_for(|s| s.spans.is_empty() && s.traces.is_empty());
    // Time stands still unless it is told; upkeep comes with time.
    kept.at(T0 + 5.0 * HOUR + 1.0);
    // One file a table, color and hour at the end.
    let is_joined = |s: &Snapshot| {
        let folders: BTreeSet<_> = s.files.iter().map(|f| (f.table, f.color, f.received())).collect();
        s.spans.is_empty() && folders.len() == s.files.len()
    };
    let joined = kept.wait_for(is_joined);
    assert!(files_of(&plain.snapshot(), Table::Spans) > 2 * files_of(&joined, Table::Spans));
    assert!(kept.pipeline().counters.compactions.load(SeqCst) > 0);
    same(&plain, &kept, "joined");
    kept.reopen();
    plain.reopen();
    same(&plain, &kept, "after a kill");
    for request in late {
        assert!(plain.send(request).accepted > 0 && kept.send(request).accepted > 0);
    }
    for bench in [&mut plain, &mut kept] {
        bench.settle_at(T0 + 8.0 * HOUR);
        bench.forget_at(T0 + 10.0 * HOUR);
    }
    same(&plain, &kept, "late");
    // Once roots are not awaited any more, whatever a patch said is inside.
    kept.pipeline().seal_now();
    kept.wait_for(|s| s.spans.is_empty() && s.traces.is_empty());
    kept.at(T0 + 60.0 * HOUR);
    kept.wait_for(|s| is_joined(s) && s.patches.is_empty());
    same(&plain, &kept, "days later");
}

#[test]
fn a_file_that_somebody_could_not_read_is_set_aside_if_it_is_damaged() {
    let bench = kept();
    play(&bench, &chat(12));
    let snapshot = bench.snapshot();
    let [good, bad] = [0, 1].map(|nth| snapshot.files[nth].path.clone());
    let mut bytes = fs::read(bench.folder().join(&bad)).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 0x40;
    fs::write(bench.folder().join(&bad), bytes).unwrap();
    for path in [&good, &bad] {
        bench.pipeline().suspects.name(path);
    }
    let left = bench.wait_for(|s| !s.files.iter().any(|file| file.path == bad));
    assert!(left.files.iter().any(|file| file.path == good));
    assert_eq!(bench.pipeline().counters.quarantined_files.load(SeqCst), 1);
    assert!(bench.folder().join(&bad).exists());
}

#[test]
fn sealed_files_are_looked_after_although_something_is_to_be_sealed_all_the_time() {
    let bench = Bench::open_with(PipelineConfig {
        upkeep_every: Duration::from_millis(10),
        seal_rows: 3,
        // Files would wait for their commit record for ever, and nobody looks after files while others wait for that.
        commit_age: Duration::from_secs(1_000_000),
        deferred_seals_max: u32::MAX,
        ..Bench::config()
    });
    let kept = || bench.pipeline().counters.upkeep_time.total().0;
    let send = |requests: &[Request], from: usize| {
        for (i, request) in requests.iter().enumerate() {
            bench.at(T0 + 1.0 + (from + i) as f64 * 0.05);
            bench.send(request);
        }
    };
    let requests = chat(40);
    let (first, others) = requests.split_at(10);
    send(first, 0);
    bench.wait_for(|s| files_of(s, Table::Spans) > 0);
    let before = kept();
    send(others, first.len());
    let began = Instant::now();
    while kept() == before {
        assert!(
            began.elapsed() < Duration::from_secs(60),
            "it must be looked after files"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}
