//! Which trace an evaluation is about, and when that is taken back.

use super::{
    super::{EvalLimits, Limits},
    Bench, at, id,
    rows::{E, S, call, evals, root, spans},
};
use proto::{Cell, Color, Grain, Metric};

fn in_chat(span: S) -> S {
    S {
        route: Some("chat"),
        version: Some("42"),
        ..span
    }
}

/// A trace of two spans, `100 t + 1` and `100 t + 2`; the call's response is `response`.
fn chat(trace: u8, response: &'static str) -> Vec<S> {
    let own = u64::from(trace) * 100;
    let root = in_chat(S {
        id: own + 1,
        ..root(trace, 0.0, 1.0)
    });
    let call = S {
        response: Some(response),
        ..call(trace, own + 2, own + 1, 0.1, 0.9)
    };
    vec![root, call]
}

fn failed_at(time: f64) -> E {
    E {
        time,
        name: "tone",
        passed: Some(false),
        ..E::default()
    }
}

fn fails(bench: &Bench) -> Cell {
    let metric: Metric = "eval_fail:tone".parse().unwrap();
    let mut sum = bench.cell(Color::Green, &metric, Grain::Trace, true);
    sum.merge(&bench.cell(Color::Green, &metric, Grain::Trace, false), 1);
    sum
}

/// Ticks every second.
fn pass(bench: &mut Bench, from: u32, to: u32) {
    for second in from..=to {
        bench.tick(at(f64::from(second)));
    }
}

#[test]
fn a_span_id_alone_finds_its_trace_before_and_after_it_came() {
    for early in [true, false] {
        let mut bench = Bench::new(Limits::default());
        let eval = E {
            span: Some(102),
            ..failed_at(2.0)
        };
        let (first, then) = (vec![evals(&[eval])], vec![spans(&chat(1, "r"))]);
        let (first, then) = if early { (first, then) } else { (then, first) };
        let dropped = bench.apply(at(2.0), first);
        assert_eq!(dropped.1.len(), usize::from(early), "the row is held");
        bench.apply(at(4.0), then);
        pass(&mut bench, 5, 20);
        assert_eq!((fails(&bench).n, fails(&bench).events), (1, 1), "early {early}");
        assert!(bench.evals.is_empty(), "it may still be taken back");
        pass(&mut bench, 600, 606);
        let row = &bench.evals[0];
        assert_eq!(
            (row.trace_id, row.linked_by.unwrap().as_str()),
            (Some(id(1)), "target_span")
        );
        assert!(
            row.mark.is_none(),
            "written values are final, and a trace may come to know better"
        );
        let mark = &bench.marks[&id(1)];
        assert_eq!((mark.color, mark.version.as_deref()), (Color::Green, Some("42")));
        assert_eq!(bench.assembly.counts().evals_pending, 0);
    }
}

#[test]
fn a_response_id_counts_for_its_only_trace_and_is_taken_back_when_a_second_has_it() {
    let mut bench = Bench::new(Limits::default());
    let eval = E {
        response: Some("r"),
        ..failed_at(2.0)
    };
    bench.apply(at(2.0), vec![spans(&chat(1, "r")), evals(&[eval])]);
    pass(&mut bench, 3, 60);
    assert_eq!(
        (fails(&bench).n, bench.rows[&id(1)].outcome.as_ref().unwrap().evals),
        (1, 1)
    );
    bench.restart(Limits::default());
    bench.apply(at(61.0), vec![spans(&chat(2, "r"))]);
    pass(&mut bench, 62, 120);
    assert!(fails(&bench).is_zero(), "two traces: nobody knows which");
    assert_eq!(bench.rows[&id(1)].outcome.as_ref().unwrap().evals, 0);
    pass(&mut bench, 610, 620);
    let row = &bench.evals[0];
    assert_eq!((row.trace_id, row.linked_by, row.mark.is_none()), (None, None, true));
}

#[test]
fn the_span_counts_before_the_response_and_a_judges_own_spans_have_no_response() {
    let mut bench = Bench::new(Limits::default());
    let judge = S {
        response: Some("r"),
        role: "evaluator",
        id: 301,
        ..root(3, 2.0, 3.0)
    };
    bench.apply(
        at(2.0),
        vec![spans(&[chat(1, "r"), chat(2, "s"), vec![judge]].concat())],
    );
    let by_both = E {
        span: Some(202),
        response: Some("r"),
        ..failed_at(2.0)
    };
    let by_response = E {
        response: Some("r"),
        name: "wit",
        ..failed_at(2.0)
    };
    bench.apply(at(3.0), vec![evals(&[by_both, by_response])]);
    pass(&mut bench, 4, 60);
    let verdicts = |trace| bench.rows[&id(trace)].outcome.as_ref().unwrap().verdicts.clone();
    assert_eq!(verdicts(2).keys().map(|name| &**name).collect::<Vec<_>>(), ["tone"]);
    assert_eq!(verdicts(1).keys().map(|name| &**name).collect::<Vec<_>>(), ["wit"]);
    assert!(!bench.rows.contains_key(&id(3)), "a judge makes no traces row");
}

#[test]
fn the_same_evaluation_waits_once_and_counts_once() {
    let mut bench = Bench::new(Limits::default());
    let eval = |time| E {
        span: Some(102),
        ..failed_at(time)
    };
    bench.apply(at(2.0), vec![evals(&[eval(2.0), eval(400.0)])]);
    bench.apply(at(3.0), vec![evals(&[eval(2.0)])]);
    assert_eq!(bench.assembly.counts().evals_pending, 1);
    bench.apply(at(4.0), vec![spans(&chat(1, "r"))]);
    pass(&mut bench, 5, 60);
    assert_eq!(bench.rows[&id(1)].outcome.as_ref().unwrap().evals, 1);
    pass(&mut bench, 603, 610);
    bench.apply(at(700.0), vec![evals(&[eval(2.0)])]);
    pass(&mut bench, 701, 702);
    assert_eq!(
        bench.rows[&id(1)].outcome.as_ref().unwrap().evals,
        1,
        "settled ones are remembered"
    );
    pass(&mut bench, 1_301, 1_310);
    assert_eq!((bench.evals.len(), bench.assembly.counts().duplicate_evals), (1, 3));
}

#[test]
fn what_finds_no_trace_is_a_row_and_a_count() {
    let limits = Limits {
        evals: EvalLimits {
            pending_max: 2,
            ..EvalLimits::default()
        },
        ..Limits::default()
    };
    let mut bench = Bench::new(limits);
    let unknown = |span| E {
        span: Some(span),
        ..failed_at(2.0)
    };
    let gone = E {
        trace: 9,
        ..failed_at(2.0)
    };
    bench.apply(at(2.0), vec![evals(&[unknown(1), unknown(2), gone])]);
    pass(&mut bench, 3, 10);
    assert_eq!(bench.evals.len(), 1, "the oldest goes first where room is short");
    pass(&mut bench, 603, 610);
    let traces: Vec<_> = bench.evals.iter().map(|row| row.trace_id).collect();
    assert_eq!(traces, [None, None, Some(id(9))], "what it says itself stands");
    let counts = bench.assembly.counts();
    assert_eq!((counts.evals_unplaced, counts.evals_pending, counts.open), (3, 0, 0));
}
