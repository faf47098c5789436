//! Late by days: what came when assembly had long forgotten the trace must end as if it had come in time. The oracle is
//! the same requests, all of them in time.

use super::{
    bench::{Bench, T0},
    traffic::{Request, chat, judged, span, traces},
};
use ingest::pipeline::PipelineConfig;
use opentelemetry_proto::tonic::trace::v1::Status;
use proto::{CellTable, Color, Metric, layout::Table};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::collections::BTreeSet;

const DAY: f64 = 86_400.0;
const TRACES: u64 = 12;

fn tone(pairs: &[(&'static str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    [
        &[
            ("gen_ai.evaluation.name", "Tone"),
            ("gen_ai.evaluation.score.label", "fail"),
        ],
        pairs,
    ]
    .concat()
}

/// A span that nobody has sent before, with a response id of its own.
fn new_call(trace: u64) -> Request {
    traces(vec![span(
        trace,
        9,
        Some(1),
        &[
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.request.model", "gpt-4o-mini"),
            ("gen_ai.response.model", "gpt-4o-mini"),
            ("gen_ai.response.id", "late-answer"),
            ("gen_ai.usage.input_tokens", "1000"),
            ("gen_ai.usage.output_tokens", "10"),
        ],
    )])
}

/// The second span of a trace, in a request that was never sent.
fn old_call(trace: u64) -> Request {
    traces(vec![span(
        trace,
        2,
        Some(1),
        &[
            ("gen_ai.operation.name", "chat"),
            ("gen_ai.request.model", "gpt-4o-mini"),
            ("gen_ai.response.model", "gpt-4o-mini"),
            ("gen_ai.usage.input_tokens", "120"),
            ("gen_ai.usage.output_tokens", "30"),
        ],
    )])
}

/// One of everything that can be late.
fn late() -> Vec<Request> {
    vec![
        judged(Some(2), None, 3.0 * DAY, &tone(&[])),
        judged(Some(4), Some(402), 3.0 * DAY, &tone(&[])),
        judged(None, Some(503), 3.0 * DAY, &tone(&[])),
        new_call(6),
        judged(None, None, 3.0 * DAY, &tone(&[("gen_ai.response.id", "late-answer")])),
        old_call(7),
        new_call(8),
    ]
}

/// Which of [`late`] are an evaluation by response id and the two calls that have that id.
const BY_RESPONSE: [usize; 3] = [3, 4, 6];

fn play_in_time(requests: &[Request]) -> CellTable {
    let mut bench = Bench::open();
    bench.at(T0 + 1.0);
    for request in requests {
        bench.send(request);
    }
    bench.settle().cells
}

/// All traces, sealed and forgotten.
fn forgotten(config: PipelineConfig) -> Bench {
    let mut bench = Bench::open_with(config);
    bench.at(T0 + 1.0);
    for request in &chat(TRACES) {
        bench.send(request);
    }
    bench.settle_at(T0 + 100.0);
    // seals whatever is left
    bench.shutdown();
    bench.forget_at(T0 + 10_000.0);
    bench
}

fn fails(cells: &CellTable) -> Vec<(i64, Color, Option<String>, i64, i64)> {
    let metric: Metric = "eval_fail:tone".parse().unwrap();
    let cells = cells
        .iter()
        .filter(|(key, cell)| key.series.metric == metric && !cell.is_zero());
    cells
        .map(|(key, cell)| {
            let series = &key.series;
            assert!(series.admitted);
            let cohort = series.cohort.as_deref().map(str::to_owned);
            (key.minute, series.color, cohort, cell.n, cell.events)
        })
        .collect()
}

#[test]
fn an_evaluation_three_days_late_counts_once_where_its_trace_counts() {
    let mut bench = forgotten(Bench::config());
    bench.shutdown();
    bench.at(T0 + 3.0 * DAY);
    let eval = judged(Some(2), None, 3.0 * DAY, &tone(&[]));
    bench.send(&eval);
    let picture = bench.settle_at(T0 + 3.0 * DAY + 10.0 + 700.0);
    let minute = (T0 as i64).div_euclid(60) * 60;
    let expected = vec![(minute, Color::Green, Some("free".to_owned()), 1, 1)];
    assert_eq!(fails(&picture.cells), expected);

    let again = judged(
        Some(2),
        None,
        3.0 * DAY + 5.0,
        &tone(&[("gen_ai.evaluation.explanation", "again")]),
    );
    bench.send(&again);
    bench.reopen();
    bench.seal();
    bench.forget_at(T0 + 4.0 * DAY);
    let third = judged(
        Some(2),
        None,
        3.0 * DAY + 9.0,
        &tone(&[("gen_ai.evaluation.explanation", "thrice")]),
    );
    bench.send(&third);
    let picture = bench.settle_at(T0 + 4.0 * DAY + 700.0);
    assert_eq!(
        fails(&picture.cells),
        expected,
        "sent again within ten minutes, by its own time"
    );

    let columns = ["trace_id", "name", "color", "version", "cohort", "linked_by"];
    let rows = bench.rows(Table::Evals, &columns);
    let tones: Vec<_> = rows.iter().filter(|row| row[1] == "tone").collect();
    let id = format!("{:032x}", 2);
    assert_eq!(
        tones,
        [&[&id, "tone", "green", "42", "free", "trace"]
            .map(str::to_owned)
            .to_vec()]
    );
    let traces = bench.rows(Table::Traces, &["trace_id", "evals", "evals_failed"]);
    assert_eq!(traces.len(), TRACES as usize, "one row a trace");
    assert!(traces.contains(&vec![id, "1".to_owned(), "1".to_owned()]));
}

#[test]
fn late_spans_change_what_they_change_and_late_copies_nothing() {
    let chat = chat(TRACES);
    for forgotten_max in [100_000, 0] {
        let mut config = Bench::config();
        config.assembly.late.forgotten_max = forgotten_max;
        let mut bench = forgotten(config);
        let before = bench.settle_at(T0 + 2.0 * DAY);
        bench.send(&old_call(3));
        let copied = bench.settle_at(T0 + 2.1 * DAY);
        assert_eq!((&before.cells, before.span_rows), (&copied.cells, copied.span_rows));
        let counts = bench.pipeline().counters.assembly();
        assert_eq!(
            (counts.revived, counts.revive_refused),
            (1, 0),
            "forgotten_max {forgotten_max}"
        );

        bench.send(&new_call(3));
        let grown = bench.settle_at(T0 + 2.2 * DAY);
        assert_eq!(grown.span_rows, before.span_rows + 1);
        assert_eq!(grown.cells, play_in_time(&[chat.as_slice(), &[new_call(3)]].concat()));
        let tokens = bench.rows(Table::Traces, &["trace_id", "prompt_tokens"]);
        assert!(
            tokens.contains(&vec![format!("{:032x}", 3), "1240".to_owned()]),
            "{tokens:?}"
        );
        assert_eq!(tokens.len(), TRACES as usize);
    }
}

#[test]
fn kills_and_seals_at_any_moment_change_nothing_of_what_is_late() {
    let in_time = play_in_time(&[chat(TRACES), late()].concat());
    for seed in 0..16 {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let mut config = Bench::config();
        if seed % 2 == 1 {
            // Seals also when enough came, and most of these without a commit record.
            config.seal_rows = 6;
        }
        let mut bench = forgotten(config);
        let mut now = T0 + 3.0 * DAY;
        let mut requests: Vec<(usize, Request)> = late().into_iter().enumerate().collect();
        while !requests.is_empty() {
            // an evaluation waits minutes for what names its response, and as long for a second one that does
            let is_waiting = |requests: &[(usize, Request)]| {
                let left = requests.iter().filter(|(n, _)| BY_RESPONSE.contains(n)).count();
                left != 0 && left != BY_RESPONSE.len()
            };
            let longest = if is_waiting(&requests) { 3 } else { 4 };
            now += [0.0, 1.0, 3.0, 300.0][rng.random_range(0..longest)];
            let (_, request) = requests.remove(rng.random_range(0..requests.len()));
            bench.at(now);
            bench.send(&request);
            match rng.random_range(0..6) {
                0 => bench.reopen(),
                1 => bench.pipeline().seal_now(),
                2 => {
                    bench.pipeline().seal_now();
                    bench.reopen();
                }
                3 if !is_waiting(&requests) => {
                    now += 50_000.0;
                    bench.settle_at(now);
                }
                _ => {}
            }
            if rng.random_bool(0.2) {
                assert_eq!(bench.send(&request).accepted, 0, "seed {seed}: sent again");
            }
        }
        let picture = bench.settle_at(now + 100_000.0);
        let refused = bench.pipeline().counters.assembly().revive_refused;
        assert_eq!(refused, 0, "seed {seed}");
        assert_eq!(picture.cells, in_time, "seed {seed}");
        let rows = bench.rows(Table::Traces, &["trace_id"]);
        assert_eq!(rows.len(), TRACES as usize, "seed {seed}: one row a trace");
    }
}

#[test]
fn what_cannot_be_counted_as_it_was_is_left_alone() {
    let mut bench = forgotten(Bench::config());
    let before = bench.settle_at(T0 + 1.0 * DAY);
    bench.set_book(|book| {
        let entry = &mut book.entries[0];
        std::mem::swap(&mut entry.blue, &mut entry.green);
    });
    bench.send(&judged(Some(2), None, 1.0 * DAY, &tone(&[])));
    bench.send(&new_call(3));
    let after = bench.settle_at(T0 + 2.0 * DAY);
    assert_eq!(before.cells, after.cells);
    assert_eq!(bench.pipeline().counters.assembly().revive_refused, 2);
    assert_eq!(
        (after.span_rows, after.eval_rows),
        (before.span_rows + 1, before.eval_rows + 1)
    );
}

#[test]
fn a_trace_that_was_forgotten_for_want_of_room_comes_back_before_and_after_it_is_admitted() {
    let chat = chat(TRACES);
    let in_time = play_in_time(&[chat.as_slice(), &[new_call(3), new_call(11)]].concat());
    for seal in [false, true] {
        let mut config = Bench::config();
        config.assembly.recent_traces_max = 0;
        config.assembly.quiet = std::time::Duration::from_millis(100);
        let mut bench = Bench::open_with(config);
        bench.at(T0 + 1.0);
        for request in &chat {
            bench.send(request);
        }
        // timeout and grace are three seconds: trace 3 is admitted at 3.3 s, trace 11 at 4.1 s
        bench.at(T0 + 1.5);
        bench.wait_for(|s| s.lsn >= chat.len() as u64);
        bench.wait_for_counts(|counts| counts.open == 0 && counts.recent == 0);
        if seal {
            bench.seal();
        }
        bench.send(&old_call(3));
        bench.send(&new_call(3));
        bench.wait_for_counts(|counts| counts.late_wanted == 0 && counts.revived > 0);
        bench.at(T0 + 4.2);
        bench.send(&new_call(11));
        bench.wait_for_counts(|counts| counts.late_wanted == 1 || counts.revived > 2);
        let picture = bench.settle();
        let counts = bench.pipeline().counters.assembly();
        assert_eq!(counts.revive_refused, 0, "seal {seal}");
        assert_eq!(
            (picture.cells, picture.span_rows),
            (in_time.clone(), TRACES as usize * 3 + 2),
            "seal {seal}"
        );
        assert_eq!(bench.rows(Table::Traces, &["trace_id"]).len(), TRACES as usize);
    }
}

#[test]
fn an_evaluation_of_a_fallback_counts_though_both_tries_are_forgotten() {
    let try_of = |trace: u64, color, status| {
        let mut root = span(
            trace,
            1,
            None,
            &[
                ("gateway.route.name", "chat"),
                ("gateway.route.color", color),
                ("gateway.request.id", "request-1"),
            ],
        );
        root.status = Some(Status {
            code: status,
            ..Status::default()
        });
        traces(vec![root])
    };
    let mut bench = Bench::open();
    bench.at(T0 + 1.0);
    bench.send(&try_of(21, "green", 2));
    bench.send(&try_of(22, "blue", 1));
    bench.settle_at(T0 + 100.0);
    bench.seal();
    bench.forget_at(T0 + 10_000.0);
    bench.send(&judged(Some(22), None, 1.0 * DAY, &tone(&[])));
    let picture = bench.settle_at(T0 + 1.0 * DAY);
    let counts = bench.pipeline().counters.assembly();
    assert_eq!((counts.revived, counts.revive_refused), (1, 0));
    let failed: Vec<_> = fails(&picture.cells).into_iter().map(|(_, color, ..)| color).collect();
    assert_eq!(failed, [Color::Green], "what was assigned to green counts for green");
    let rows = bench.rows(Table::Traces, &["trace_id", "superseded", "linked_by", "evals_failed"]);
    let id = |trace: u64| format!("{trace:032x}");
    let row = |trace, superseded: &str, failed: &str| {
        vec![
            id(trace),
            superseded.to_owned(),
            "request_id".to_owned(),
            failed.to_owned(),
        ]
    };
    assert!(
        rows.contains(&row(21, "true", "0")) && rows.contains(&row(22, "false", "1")),
        "{rows:?}"
    );
}

#[test]
fn a_trace_that_is_long_forgotten_and_goes_on_keeps_the_color_of_its_former_rows() {
    let mut config = Bench::config();
    config.assembly.late.forgotten_max = 0;
    let mut bench = Bench::open_with(config);
    let part = |trace, id, version| {
        let call = [("gateway.route.name", "chat"), ("gateway.route.version", version)];
        traces(vec![span(trace, id, Some(1), &call)])
    };
    bench.at(T0 + 1.0);
    bench.send(&part(50, 2, "42"));
    bench.send(&part(51, 2, "41"));
    bench.shutdown();
    bench.forget_at(T0 + 10_000.0);
    bench.send(&part(50, 3, "42"));
    bench.send(&part(51, 3, "42"));
    bench.shutdown();
    let snapshot = bench.snapshot();
    // Readers look for patches of a file by its records.
    let reached = |trace: u128| {
        let patch = snapshot.patches.get(&trace.to_be_bytes()).unwrap();
        assert_eq!(patch.mark.color, Color::Green);
        let files = snapshot.files.iter().filter(|file| file.table == Table::Spans);
        let records: BTreeSet<(u64, u64)> = files.map(|file| (file.lsn_min, file.lsn_max)).collect();
        assert_eq!(records.len(), 2, "two seals");
        let is_reached = |(first, last): &(u64, u64)| patch.first_lsn <= *last && *first <= patch.last_lsn;
        records.iter().filter(|records| is_reached(records)).count()
    };
    assert_eq!(reached(50), 2);
    assert_eq!(
        reached(51),
        1,
        "it was blue, and nobody may say otherwise of those rows"
    );
}
