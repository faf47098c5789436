//! The pipeline with real files: what a kill, a seal or a client's retry must not change.

pub mod bench;
mod evaluations;
mod faults;
mod late;
pub mod traffic;
mod upkeep;

use bench::{Bench, Picture, T0};
use ingest::pipeline::PipelineConfig;
use proto::layout::Table;
use std::time::Duration;
use traffic::{Request, captured, chat, span, traces};

/// What happens to the requests, in order. Positions are shares of the whole.
#[derive(Debug, Clone, Copy)]
enum Fate {
    Seal,
    /// Sealing is asked for and not waited for.
    SealAndKill,
    Kill,
}

/// Sends every request `times` times, the repetitions a few requests later, with `fates` in between.
fn play(requests: &[Request], times: usize, fates: &[(f64, Fate)]) -> Picture {
    let mut bench = Bench::open();
    let mut sent_lately: Vec<&Request> = Vec::new();
    for (i, request) in requests.iter().enumerate() {
        bench.at(T0 + 1.0 + i as f64 * 0.05);
        assert!(bench.send(request).accepted > 0, "request {i}");
        sent_lately.push(request);
        for (share, fate) in fates {
            if (share * requests.len() as f64) as usize != i {
                continue;
            }
            match fate {
                Fate::Seal => bench.seal(),
                Fate::SealAndKill => {
                    bench.pipeline().seal_now();
                    bench.reopen();
                }
                Fate::Kill => bench.reopen(),
            }
        }
        if sent_lately.len() == 7 || i + 1 == requests.len() {
            for _ in 1..times {
                for again in &sent_lately {
                    assert_eq!(bench.send(again).accepted, 0, "sent again");
                }
            }
            sent_lately.clear();
        }
    }
    bench.settle()
}

#[test]
fn a_kill_without_a_seal_changes_nothing() {
    let requests = chat(60);
    let quiet = play(&requests, 1, &[]);
    let killed = play(
        &requests,
        1,
        &[
            (0.1, Fate::Kill),
            (0.5, Fate::Kill),
            (0.52, Fate::Kill),
            (0.99, Fate::Kill),
        ],
    );
    assert_eq!(quiet.live_spans.len(), 60 * 3);
    assert_eq!(quiet, killed);
}

#[test]
fn kills_and_seals_in_any_mix_end_in_the_same_cells_and_as_many_rows() {
    let requests = chat(60);
    let quiet = play(&requests, 1, &[]);
    let fates = [
        (0.2, Fate::Seal),
        (0.4, Fate::SealAndKill),
        (0.6, Fate::Kill),
        (0.7, Fate::Seal),
        (0.8, Fate::SealAndKill),
        (0.9, Fate::Seal),
    ];
    let harried = play(&requests, 1, &fates);
    assert_eq!(quiet.cells, harried.cells);
    assert_eq!(quiet.span_rows, harried.span_rows);
    assert_eq!(quiet.eval_rows, harried.eval_rows);
    assert_eq!(quiet.trace_ids, harried.trace_ids);
}

#[test]
fn requests_sent_three_times_count_once_also_across_a_kill() {
    let requests = chat(30);
    let once = play(&requests, 1, &[]);
    let thrice = play(&requests, 3, &[(0.3, Fate::Kill), (0.75, Fate::Kill)]);
    assert_eq!(once, thrice);
    let sealed = play(
        &requests,
        3,
        &[(0.3, Fate::Seal), (0.5, Fate::Kill), (0.75, Fate::SealAndKill)],
    );
    assert_eq!((once.cells, once.span_rows), (sealed.cells, sealed.span_rows));
}

#[test]
fn what_was_rejected_is_told_again_when_its_request_comes_again() {
    let bench = Bench::open();
    bench.at(T0 + 1.0);
    let mut nameless = span(1, 2, None, &[]);
    nameless.span_id.clear();
    let request = traces(vec![span(1, 1, None, &[]), nameless]);
    let first = bench.send(&request);
    assert_eq!((first.accepted, first.rejected), (1, 1));
    let again = bench.send(&request);
    assert_eq!((again.accepted, again.rejected), (0, 1));
    assert!(
        again.message.starts_with("rejected when this request first came"),
        "{again:?}"
    );
    let whole = traces(vec![span(2, 1, None, &[])]);
    bench.send(&whole);
    assert_eq!(bench.send(&whole).message, "", "nothing of it was rejected");
}

#[test]
fn the_same_requests_from_many_clients_at_once_count_once_and_all_are_acked() {
    let requests = chat(40);
    let quiet = play(&requests, 1, &[]);
    let mut bench = Bench::open();
    bench.at(T0 + 1.0);
    let accepted: u64 = bench.send_at_once(&requests, 6).iter().map(|a| a.accepted).sum();
    assert_eq!(accepted, (quiet.span_rows + quiet.eval_rows) as u64);
    let together = bench.settle();
    assert_eq!(quiet.cells, together.cells);
    assert_eq!(quiet.live_spans, together.live_spans);
    let groups = bench
        .pipeline()
        .counters
        .groups
        .load(std::sync::atomic::Ordering::SeqCst);
    assert!(groups < requests.len() as u64, "requests share a sync: {groups}");
}

#[test]
fn captured_requests_of_real_clients_survive_a_kill() {
    let requests = captured();
    let quiet = play(&requests, 1, &[]);
    let killed = play(&requests, 2, &[(0.33, Fate::Kill), (0.8, Fate::Kill)]);
    assert!(quiet.span_rows > 100);
    assert_eq!(quiet, killed);
}

#[test]
fn a_clean_stop_seals_everything_and_open_traces_go_on() {
    let requests = chat(12);
    let quiet = play(&requests, 1, &[]);
    let mut bench = Bench::open();
    for (i, request) in requests.iter().enumerate() {
        bench.at(T0 + 1.0 + i as f64 * 0.05);
        bench.send(request);
        if i == requests.len() / 2 {
            bench.shutdown();
            let snapshot = bench.snapshot();
            assert!(snapshot.spans.is_empty() && !snapshot.files.is_empty());
        }
    }
    let stopped = bench.settle();
    assert_eq!((quiet.cells, quiet.span_rows), (stopped.cells, stopped.span_rows));
}

#[test]
fn rows_are_sealed_by_size_while_requests_go_on() {
    let requests = chat(60);
    let quiet = play(&requests, 1, &[]);
    let config = PipelineConfig {
        seal_rows: 20,
        ..Bench::config()
    };
    let mut bench = Bench::open_with(config);
    for (i, request) in requests.iter().enumerate() {
        bench.at(T0 + 1.0 + i as f64 * 0.05);
        bench.send(request);
    }
    let sealed = bench.settle();
    assert!(bench.snapshot().files.len() > 4);
    assert_eq!((quiet.cells, quiet.span_rows), (sealed.cells, sealed.span_rows));
}

#[test]
fn a_kill_takes_back_seals_without_a_commit_record_and_nothing_is_lost_or_doubled() {
    let requests = chat(60);
    let quiet = play(&requests, 1, &[]);
    let mut taken_back = 0;
    for deferred_seals_max in [1, 3, 1_000] {
        let config = PipelineConfig {
            seal_rows: 20,
            commit_age: Duration::from_secs(1_000_000),
            deferred_seals_max,
            ..Bench::config()
        };
        let mut bench = Bench::open_with(config);
        for (i, request) in requests.iter().enumerate() {
            bench.at(T0 + 1.0 + i as f64 * 0.05);
            bench.send(request);
            if i % 17 == 16 {
                bench.wait_for(|s| !s.files.is_empty());
                let before = bench.snapshot();
                bench.reopen();
                let after = bench.snapshot();
                let stays = |path: &str| after.files.iter().any(|file| file.path == path);
                taken_back += before.files.iter().filter(|file| !stays(&file.path)).count();
            }
        }
        let sealed = bench.settle();
        assert_eq!(
            (&quiet.cells, quiet.span_rows),
            (&sealed.cells, sealed.span_rows),
            "{deferred_seals_max}"
        );
        bench.shutdown();
        let opened = bench.snapshot();
        assert!(opened.spans.is_empty(), "what was deferred is committed at the end");
        let rows: usize = bench.rows(Table::Spans, &["span_id"]).len();
        assert_eq!(rows, quiet.span_rows, "{deferred_seals_max}");
    }
    assert!(taken_back > 0, "every file was committed at once");
}
