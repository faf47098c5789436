//! What time does to traces.

use super::{
    super::{ClosedBy, Limits},
    Bench, at, id,
    rows::{S, call, chat, root, spans},
};
use proto::{Color, Grain, Metric};

const TRACE: Grain = Grain::Trace;

#[test]
fn a_trace_that_still_runs_at_its_admission_has_timed_out_until_its_root_comes() {
    let mut bench = Bench::new(Limits::default());
    bench.apply(
        at(1.0),
        vec![spans(&[S {
            color: Some("green"),
            ..chat(call(1, 2, 1, 0.0, 1.0))
        }])],
    );
    bench.apply(at(25.0), vec![spans(&[call(1, 3, 1, 20.0, 24.0)])]);
    bench.tick(at(30.0));
    let timeout = |bench: &Bench| bench.cell(Color::Green, &Metric::Timeout, TRACE, true);
    let latency = |bench: &Bench| bench.cell(Color::Green, &Metric::Latency, TRACE, true);
    assert_eq!((timeout(&bench).n, timeout(&bench).events), (1, 1));
    assert_eq!(
        latency(&bench).sum,
        30_000_000,
        "it is at least as old as its admission"
    );
    bench.apply(at(41.0), vec![spans(&[chat(root(1, -1.0, 40.0))])]);
    assert_eq!((latency(&bench).n, latency(&bench).sum), (1, 41_000_000));
    bench.tick(at(60.0));
    assert_eq!((latency(&bench).n, latency(&bench).sum), (1, 41_000_000));
}

#[test]
fn a_trace_that_comes_long_after_its_root_ended_never_counts_as_running() {
    let mut bench = Bench::new(Limits::default());
    let root = S {
        color: Some("green"),
        ..chat(root(1, 0.0, 1.0))
    };
    bench.apply(at(1_000.0), vec![spans(&[root])]);
    for second in [1_000.1, 1_060.0] {
        bench.tick(at(second));
        let cell = |metric| bench.cell(Color::Green, &metric, TRACE, true);
        assert_eq!((cell(Metric::Latency).n, cell(Metric::Latency).sum), (1, 1_000_000));
        assert_eq!((cell(Metric::Timeout).n, cell(Metric::Timeout).events), (1, 0));
    }
}

#[test]
fn what_is_forgotten_leaves_the_queue_long_before_it_would_be_due() {
    let mut bench = Bench::new(Limits::default());
    bench.tick(at(0.0));
    for n in 0..5_000_u128 {
        let id = n.to_be_bytes();
        bench.assembly.trace(id, 1);
        bench.assembly.enqueue(id);
        if n % 5 > 0 {
            bench.assembly.forget(id);
        }
    }
    assert_eq!(bench.assembly.queue.len(), 5_000);
    bench.tick(at(1.0));
    assert_eq!(
        bench.assembly.queue.len(),
        1_000,
        "every trace that is held stays in it"
    );
}

#[test]
fn without_room_the_oldest_open_trace_is_closed_and_its_counts_still_get_admitted() {
    let limits = Limits {
        open_traces_max: 2,
        recent_traces_max: 1,
        ..Limits::default()
    };
    let mut bench = Bench::new(limits);
    for trace in 1..=5 {
        bench.apply(at(f64::from(trace)), vec![spans(&[chat(root(trace, 0.0, 1.0))])]);
    }
    assert_eq!(bench.assembly.counts().evicted, 3);
    assert_eq!(bench.rows[&id(1)].closed_by, ClosedBy::Evicted);
    bench.tick(at(12.0));
    assert_eq!((bench.assembly.counts().open, bench.assembly.counts().recent), (0, 1));
    assert_eq!(bench.cell(Color::Unmarked, &Metric::Traces, TRACE, false).n, 5);
    bench.tick(at(32.0));
    assert_eq!(bench.cell(Color::Unmarked, &Metric::Traces, TRACE, true).n, 5);
    assert_eq!(bench.cell(Color::Unmarked, &Metric::Traces, TRACE, false).n, 0);
    bench.tick(at(4_000.0));
    assert_eq!(bench.assembly.counts().bytes, 0);
}
