//! Whatever the order of arrival, however it is cut into records, however often rows are sent again, wherever a restart
//! falls, and however many of the traces are asleep: the same marks, the same rows, the same cells. The oracle is one
//! record with everything, in order.

use super::{
    super::Limits,
    Assembly, AssemblyState, Bench, at,
    rows::{E, S, evals, spans},
};
use rand::{RngExt, SeedableRng, seq::SliceRandom};
use rand_chacha::ChaCha8Rng;

#[derive(Debug, Clone)]
enum Row {
    Span(Box<S>),
    Eval(E),
}

fn pick<T: Copy>(rng: &mut ChaCha8Rng, from: &[T]) -> T {
    from[rng.random_range(0..from.len())]
}

fn trace(rng: &mut ChaCha8Rng, trace: u8) -> Vec<Row> {
    let mut rows = Vec::new();
    let spans = rng.random_range(1..7u64);
    let rootless = rng.random_bool(0.2);
    let own = u64::from(trace) * 100;
    for id in 1..=spans {
        let start = id as f64 * 0.1 + rng.random_range(0.0..1.0);
        let mut span = S {
            trace,
            id: own + id,
            parent: if id > 1 {
                Some(own + rng.random_range(u64::from(!rootless)..id))
            } else {
                None
            },
            start,
            end: start + rng.random_range(0.0..30.0),
            role: pick(rng, &["call", "call", "call", "tool", "evaluator", "other"]),
            kind: pick(rng, &[None, None, Some("server")]),
            error: rng.random_bool(0.2),
            shadow: rng.random_bool(0.1),
            tokens: pick(rng, &[None, Some(5), Some(2_000)]),
            cost: pick(rng, &[None, Some(7_000), Some(123_456)]),
            fallback: pick(rng, &[None, Some(true), Some(false)]),
            tier: pick(rng, &[None, None, Some("gold"), Some("free")]),
            service: Some("front"),
            ..S::default()
        };
        // two libraries and few values: twins, ties and mixed paths happen
        span.scope = pick(rng, &[Some("a"), Some("b")]);
        // ids of responses repeat, within a trace and across traces
        span.response = pick(
            rng,
            &[
                None,
                Some("r1"),
                Some("r1"),
                Some("r2"),
                Some("r3"),
                Some("r4"),
                Some("r5"),
            ],
        );
        span.request = pick(rng, &[None, None, None, Some("q-1"), Some("q-2")]);
        span.session = pick(rng, &[None, None, Some("s-1")]);
        span.asked = pick(rng, &[None, Some("m-1"), Some("m-2")]);
        span.answered = pick(rng, &[None, Some("m-1")]);
        span.json = pick(rng, &[None, Some("chat=ok"), Some("other=ok,chat=invalid")]);
        span.sampling = pick(rng, &[None, Some(1.0), Some(0.25)]);
        span.group = rng.random_bool(0.1).then_some("chat-shadow");
        span.route = pick(rng, &[None, None, Some("chat"), Some("chat"), Some("other")]);
        span.color = pick(rng, &[None, None, None, Some("green"), Some("blue")]);
        span.version = pick(rng, &[None, None, None, Some("41"), Some("42"), Some("43")]);
        span.deployment = pick(rng, &[None, None, Some("dep-green")]);
        rows.push(Row::Span(Box::new(span)));
    }
    for i in 0..rng.random_range(0..6) {
        // by trace, by span, by a span that nobody says the trace of, by response
        let spans = [None, Some(own + 1), Some(own + 3), Some(own + 9)];
        let (trace, span, response) = match rng.random_range(0..4) {
            0 => (trace, pick(rng, &spans), None),
            1 => (0, pick(rng, &spans), None),
            2 => (0, pick(rng, &spans), pick(rng, &[Some("r1"), Some("r2")])),
            _ => (0, None, pick(rng, &[Some("r3"), Some("r4"), Some("r5"), Some("r6")])),
        };
        rows.push(Row::Eval(E {
            trace,
            span,
            response,
            time: f64::from(i) * pick(rng, &[100.0, 400.0, 700.0]),
            name: pick(rng, &["TaskCompletion", "groundedness", "escalation"]),
            passed: pick(rng, &[None, Some(true), Some(false)]),
        }));
    }
    rows
}

fn send(bench: &mut Bench, seconds: f64, rows: &[Row]) {
    let of_spans: Vec<S> = rows
        .iter()
        .filter_map(|r| {
            if let Row::Span(s) = r {
                Some((**s).clone())
            } else {
                None
            }
        })
        .collect();
    let of_evals: Vec<E> = rows
        .iter()
        .filter_map(|r| if let Row::Eval(e) = r { Some(e.clone()) } else { None })
        .collect();
    let mut sections = Vec::new();
    if !of_spans.is_empty() {
        sections.push(spans(&of_spans));
    }
    if !of_evals.is_empty() {
        sections.push(evals(&of_evals));
    }
    bench.apply(at(seconds), sections);
}

fn finish(bench: &mut Bench) {
    for seconds in [700.0, 1_500.0, 3_000.0] {
        bench.tick(at(seconds));
    }
}

fn check(seed: u64) {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let rows: Vec<Row> = (1..=8).flat_map(|id| trace(&mut rng, id)).collect();
    let mut oracle = Bench::new(Limits::default());
    send(&mut oracle, 1.0, &rows);
    finish(&mut oracle);

    let mut sent = rows.clone();
    sent.extend(rows.choose_multiple_owned(&mut rng));
    sent.shuffle(&mut rng);
    let limits = Limits {
        awake_max: pick(&mut rng, &[0, 2, 1_000]),
        ..Limits::default()
    };
    let mut bench = Bench::new(limits.clone());
    let mut now = 0.5;
    while !sent.is_empty() {
        let size = rng.random_range(1..=sent.len().min(9));
        let batch: Vec<Row> = sent.drain(..size).collect();
        now += pick(&mut rng, &[0.0, 0.01, 3.0, 7.0, 12.0]);
        if rng.random_bool(0.3) {
            bench.assembly.captured(bench.lsn);
        }
        send(&mut bench, now, &batch);
        if rng.random_bool(0.2) {
            bench.restart(limits.clone());
        }
        if rng.random_bool(0.5) {
            bench.tick(at(now + 0.02));
        }
    }
    finish(&mut bench);

    for (id, mark) in &oracle.marks {
        assert_eq!(Some(mark), bench.marks.get(id), "seed {seed}: mark of {id:?}");
    }
    let outcomes = |b: &Bench| -> Vec<_> { b.rows.values().map(|r| (r.trace_id, r.outcome.clone())).collect() };
    let ours: Vec<_> = outcomes(&bench)
        .into_iter()
        .filter(|(_, outcome)| outcome.is_some())
        .collect();
    assert_eq!(outcomes(&oracle), ours, "seed {seed}: rows");
    let (theirs, ours): (Vec<_>, Vec<_>) = (oracle.cells.iter().collect(), bench.cells.iter().collect());
    assert_eq!(theirs, ours, "seed {seed}: cells");
    assert!(
        !theirs.is_empty() && theirs.iter().all(|(key, _)| key.series.admitted),
        "seed {seed}"
    );
}

trait Again {
    fn choose_multiple_owned(&self, rng: &mut ChaCha8Rng) -> Vec<Row>;
}

impl Again for Vec<Row> {
    /// About half of the rows, to be sent again.
    fn choose_multiple_owned(&self, rng: &mut ChaCha8Rng) -> Vec<Row> {
        self.iter().filter(|_| rng.random_bool(0.5)).cloned().collect()
    }
}

#[test]
fn any_order_of_arrival_ends_in_the_same_cells_marks_and_rows() {
    for seed in 0..300 {
        check(seed);
    }
}

/// Bytes of a state that a checksum vouches for, and that are wrong all the same: refused, or gone on with.
#[test]
fn a_state_with_changed_bytes_is_refused_or_restored() {
    let seed = rand::random::<u64>();
    #[allow(clippy::print_stderr)] // a random test always tells its seed
    {
        eprintln!("seed {seed}");
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let rows: Vec<Row> = (1..=8).flat_map(|id| trace(&mut rng, id)).collect();
    let limits = Limits {
        awake_max: 2,
        ..Limits::default()
    };
    let mut bench = Bench::new(limits.clone());
    send(&mut bench, 1.0, &rows);
    let whole = postcard::to_stdvec(&bench.assembly.capture()).unwrap();
    let (mut refused, mut restored) = (0, 0);
    for _ in 0..1_000 {
        let mut bytes = whole.clone();
        for _ in 0..rng.random_range(1..=3) {
            let at = rng.random_range(0..bytes.len());
            match rng.random_range(0..4) {
                0 => bytes.truncate(at.max(1)),
                1 => bytes[at] ^= 1 << rng.random_range(0..8),
                2 => bytes[at] = rng.random(),
                _ => bytes.insert(at, rng.random()),
            }
        }
        let Ok(state) = postcard::from_bytes::<AssemblyState>(&bytes) else {
            refused += 1;
            continue;
        };
        restored += 1;
        let mut assembly = Assembly::restore(limits.clone(), state, 1, std::sync::Arc::default());
        for seconds in [2.0, 700.0, 3_000.0] {
            assembly.tick(at(seconds), 2);
        }
    }
    assert!(refused > 0 && restored > 0, "{refused} refused, {restored} restored");
}
