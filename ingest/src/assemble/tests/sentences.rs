//! What assembly promises, one sentence a test.

use super::{
    super::{ClosedBy, Limits, rows_to_batch},
    Bench, at, id,
    rows::{E, S, call, chat, evals, root, spans},
};
use arrow::array::AsArray;
use proto::{Color, Grain, Metric};
use std::time::Duration;

const TRACE: Grain = Grain::Trace;

#[test]
fn a_color_known_only_on_the_root_reaches_children_that_came_first() {
    let mut bench = Bench::new(Limits::default());
    bench.apply(at(1.0), vec![spans(&[call(1, 2, 1, 0.1, 0.9)])]);
    assert_eq!(bench.marks[&id(1)].color, Color::Unmarked);
    let root = S {
        color: Some("green"),
        tier: Some("gold"),
        ..chat(root(1, 0.0, 1.0))
    };
    bench.apply(at(1.2), vec![spans(&[root])]);
    let mark = &bench.marks[&id(1)];
    assert_eq!((mark.color, mark.unmarked_reason.as_deref()), (Color::Green, None));
    assert_eq!(
        (mark.release.as_deref(), mark.cohort.as_deref()),
        (Some("chat-42"), Some("gold"))
    );
    assert_eq!(mark.split_ppm, Some(500_000));
    bench.tick(at(10.0));
    assert_eq!(
        bench.cell(Color::Green, &Metric::AttemptError, Grain::Attempt, false).n,
        1
    );
}

#[test]
fn a_trace_closes_when_its_root_has_ended_and_nothing_more_came() {
    let mut bench = Bench::new(Limits::default());
    bench.apply(at(1.0), vec![spans(&[chat(root(1, 0.0, 1.0))])]);
    bench.tick(at(5.9));
    assert!(bench.rows.is_empty());
    bench.tick(at(6.0));
    assert_eq!(bench.rows[&id(1)].closed_by, ClosedBy::RootEnded);
}

#[test]
fn a_trace_without_a_root_waits_longer_and_takes_the_topmost_span_seen() {
    let mut bench = Bench::new(Limits::default());
    bench.apply(
        at(1.0),
        vec![spans(&[call(1, 3, 2, 0.2, 0.9), call(1, 2, 99, 0.1, 0.5)])],
    );
    bench.tick(at(30.0));
    assert!(bench.rows.is_empty());
    bench.tick(at(31.0));
    let row = &bench.rows[&id(1)];
    assert_eq!(row.closed_by, ClosedBy::Quiet);
    assert_eq!(
        row.outcome.as_ref().unwrap().duration_us,
        800_000,
        "from the topmost start to the last end"
    );
}

#[test]
fn cells_keep_admitted_and_not_yet_admitted_counts_apart() {
    let mut bench = Bench::new(Limits::default());
    let root = S {
        color: Some("blue"),
        ..chat(root(1, 0.0, 1.0))
    };
    bench.apply(at(1.0), vec![spans(&[root])]);
    bench.tick(at(29.9));
    let latency = |bench: &Bench, admitted| bench.cell(Color::Blue, &Metric::Latency, TRACE, admitted);
    assert_eq!((latency(&bench, false).n, latency(&bench, true).n), (1, 0));
    bench.tick(at(30.0));
    assert_eq!((latency(&bench, false).n, latency(&bench, true).n), (0, 1));
    assert_eq!(latency(&bench, true).sum, 1_000_000);
}

#[test]
fn a_late_evaluation_changes_a_closed_trace_and_replaces_its_row() {
    let mut bench = Bench::new(Limits::default());
    bench.apply(
        at(1.0),
        vec![spans(&[S {
            color: Some("green"),
            ..chat(root(1, 0.0, 1.0))
        }])],
    );
    bench.tick(at(60.0));
    let failed = |bench: &Bench| {
        let cell = bench.cell(Color::Green, &Metric::EvalFail("task_completion".into()), TRACE, true);
        (cell.n, cell.events)
    };
    assert_eq!(failed(&bench), (0, 0), "not evaluated yet is not passed");
    let eval = |passed| E {
        trace: 1,
        time: 50.0,
        name: "TaskCompletion",
        passed,
        ..E::default()
    };
    bench.apply(at(61.0), vec![evals(&[eval(Some(true)), eval(None)])]);
    assert_eq!(failed(&bench), (1, 0));
    bench.apply(at(62.0), vec![evals(&[eval(Some(false))])]);
    assert_eq!(failed(&bench), (1, 1), "any failure fails the trace once");
    let row = &bench.rows[&id(1)];
    assert_eq!(row.replaces, Some(2));
    let out = row.outcome.as_ref().unwrap();
    assert_eq!((out.evals, out.evals_failed), (3, 1));
    assert_eq!(bench.cell(Color::Green, &Metric::Traces, TRACE, true).n, 1);
}

#[test]
fn a_span_sent_twice_is_dropped_and_counted_once() {
    let mut bench = Bench::new(Limits::default());
    let root = chat(root(1, 0.0, 1.0));
    let child = S {
        tokens: Some(10),
        ..call(1, 2, 1, 0.1, 0.2)
    };
    let (dropped, _) = bench.apply(at(1.0), vec![spans(&[root.clone(), child.clone(), root.clone()])]);
    assert_eq!(dropped, [2]);
    bench.tick(at(10.0));
    let (dropped, _) = bench.apply(at(11.0), vec![spans(&[child, root])]);
    assert_eq!(dropped, [0, 1], "also after the trace closed");
    assert_eq!(bench.rows[&id(1)].replaces, None);
    assert_eq!(bench.cell(Color::Unmarked, &Metric::PromptTokens, TRACE, false).sum, 10);
}

#[test]
fn a_declared_version_wins_over_a_contradicting_stamp_and_the_conflict_is_counted() {
    let mut bench = Bench::new(Limits::default());
    bench.apply(
        at(1.0),
        vec![spans(&[S {
            color: Some("blue"),
            version: Some("42"),
            ..chat(root(1, 0.0, 1.0))
        }])],
    );
    bench.tick(at(10.0));
    assert_eq!(bench.marks[&id(1)].color, Color::Green);
    assert_eq!(bench.cell(Color::Green, &Metric::ColorConflict, TRACE, false).events, 1);
}

#[test]
fn weak_keys_are_asked_only_when_every_explicit_key_has_failed() {
    let mut bench = Bench::new(Limits::default());
    bench.apply(
        at(1.0),
        vec![spans(&[S {
            service: Some("front"),
            ..root(1, 0.0, 1.0)
        }])],
    );
    assert_eq!(bench.marks[&id(1)].route.as_deref(), Some("front"));
    bench.apply(
        at(1.1),
        vec![spans(&[S {
            deployment: Some("dep-green"),
            ..chat(call(1, 2, 1, 0.1, 0.2))
        }])],
    );
    let mark = &bench.marks[&id(1)];
    assert_eq!(
        (mark.route.as_deref(), mark.color),
        (Some("chat"), Color::Green),
        "a child's own route comes first"
    );
}

#[test]
fn judges_and_mirrors_are_not_charged_to_the_user() {
    let mut bench = Bench::new(Limits::default());
    let paid = |span: S| S {
        tokens: Some(100),
        cost: Some(1_000),
        ..span
    };
    bench.apply(
        at(1.0),
        vec![spans(&[
            S {
                color: Some("blue"),
                ..chat(root(1, 0.0, 1.0))
            },
            paid(call(1, 2, 1, 0.1, 0.5)),
            S {
                role: "evaluator",
                ..call(1, 3, 1, 0.5, 0.9)
            },
            paid(call(1, 4, 3, 0.6, 0.8)),
            S {
                role: "other",
                shadow: true,
                color: Some("green"),
                ..call(1, 5, 1, 0.1, 0.6)
            },
            S {
                error: true,
                ..paid(call(1, 6, 5, 0.1, 0.6))
            },
            S {
                role: "evaluator",
                ..root(2, 0.0, 1.0)
            },
        ])],
    );
    bench.tick(at(10.0));
    let out = bench.rows[&id(1)].outcome.clone().unwrap();
    assert_eq!(
        (out.attempts.len(), out.prompt, out.cost, out.shadow_cost),
        (1, Some(100), Some(1_000), Some(1_000))
    );
    assert!(out.priced && !out.error);
    assert!(!bench.rows.contains_key(&id(2)), "a judge's own trace makes no row");
    assert_eq!(bench.cell(Color::Unmarked, &Metric::Unmarked, TRACE, false).n, 1);
    assert_eq!(
        bench.cell(Color::Green, &Metric::AttemptError, Grain::Attempt, false).n,
        0
    );
}

#[test]
fn a_failed_attempt_is_charged_to_the_color_that_was_attempted() {
    let mut bench = Bench::new(Limits::default());
    bench.apply(
        at(1.0),
        vec![spans(&[
            S {
                color: Some("green"),
                fallback: Some(true),
                ..chat(root(1, 0.0, 1.0))
            },
            S {
                error: true,
                ..call(1, 2, 1, 0.1, 0.5)
            },
            S {
                version: Some("41"),
                ..call(1, 3, 1, 0.5, 0.9)
            },
        ])],
    );
    bench.tick(at(10.0));
    let attempts = |color| {
        let cell = bench.cell(color, &Metric::AttemptError, Grain::Attempt, false);
        (cell.n, cell.events)
    };
    assert_eq!((attempts(Color::Green), attempts(Color::Blue)), ((1, 1), (1, 0)));
    let out = bench.rows[&id(1)].outcome.clone().unwrap();
    assert_eq!(
        (out.mark.color, out.served, out.error),
        (Color::Green, Color::Blue, false)
    );
    assert_eq!(bench.cell(Color::Green, &Metric::Fallback, TRACE, false).events, 1);
    assert_eq!(
        bench.cell(Color::Green, &Metric::CacheHit, TRACE, false).n,
        0,
        "unknown is not no"
    );
}

#[test]
fn one_unknown_cost_clears_priced_and_keeps_the_known_sum() {
    let mut bench = Bench::new(Limits::default());
    let known = S {
        cost: Some(700),
        ..call(1, 2, 1, 0.1, 0.5)
    };
    bench.apply(
        at(1.0),
        vec![spans(&[chat(root(1, 0.0, 1.0)), known, call(1, 3, 1, 0.5, 0.9)])],
    );
    bench.tick(at(10.0));
    let out = bench.rows[&id(1)].outcome.clone().unwrap();
    assert_eq!((out.cost, out.priced), (Some(700), false));
    assert_eq!(bench.cell(Color::Unmarked, &Metric::Cost, TRACE, false).n, 0);
}

#[test]
fn the_row_of_an_evaluation_is_not_sealed_for_good_while_the_mark_may_change() {
    for eval_first in [false, true] {
        let mut bench = Bench::new(Limits::default());
        let named = E {
            trace: 1,
            name: "groundedness",
            passed: Some(true),
            ..E::default()
        };
        // an orphan: its root has not been seen
        let orphan = || vec![spans(&[call(1, 2, 1, 0.1, 0.9)])];
        let judged = || vec![evals(std::slice::from_ref(&named))];
        let (first, then) = if eval_first {
            (judged(), orphan())
        } else {
            (orphan(), judged())
        };
        bench.apply(at(1.0), first);
        bench.assembly.captured(1);
        bench.apply(at(1.1), then);
        let open = |bench: &Bench| -> Vec<store::TraceId> {
            let marks = bench.assembly.provisional(1, 2);
            marks.iter().map(|(id, _)| *id).collect()
        };
        assert_eq!(open(&bench), [id(1)], "evaluation first: {eval_first}");
        bench.tick(at(100.0));
        assert_eq!(
            open(&bench),
            [id(1)],
            "it closed for want of news, not because it was whole"
        );
    }
}

#[test]
fn a_mark_that_changes_after_its_rows_were_sealed_becomes_a_patch() {
    let mut bench = Bench::new(Limits::default());
    bench.apply(at(1.0), vec![spans(&[call(1, 2, 1, 0.1, 0.9)])]);
    bench.assembly.captured(1);
    bench.apply(
        at(1.2),
        vec![spans(&[S {
            color: Some("green"),
            ..chat(root(1, 0.0, 1.0))
        }])],
    );
    let (trace, patch) = &bench.patches[0];
    assert_eq!(
        (trace, patch.mark.color, patch.first_lsn, patch.last_lsn),
        (&id(1), Color::Green, 1, 1)
    );
    bench.marks.clear();
    bench.assembly.captured(2);
    bench.apply(at(1.3), vec![spans(&[call(1, 3, 1, 0.1, 0.9)])]);
    assert_eq!(
        bench.marks[&id(1)].color,
        Color::Green,
        "rows after a seal need the mark again"
    );
    assert_eq!(bench.patches.len(), 1);
}

#[test]
fn cells_of_more_routes_than_the_limit_go_under_one_name() {
    let mut bench = Bench::new(Limits {
        names_max: 2,
        ..Limits::default()
    });
    for (trace, route) in (1..).zip(["a", "b", "c", "d", "a"]) {
        bench.apply(
            at(1.0),
            vec![spans(&[S {
                route: Some(route),
                ..root(trace, 0.0, 1.0)
            }])],
        );
        bench.tick(at(f64::from(trace) * 10.0));
    }
    let routes: Vec<String> = bench.cells.scopes().map(|s| s.route.to_string()).collect();
    assert_eq!(routes, ["__other__", "a", "b"]);
    assert_eq!(
        bench.rows[&id(3)].outcome.as_ref().unwrap().mark.route.as_deref(),
        Some("c")
    );
}

#[test]
fn a_new_book_resolves_open_traces_again() {
    let mut bench = Bench::new(Limits {
        quiet: Duration::from_secs(60),
        ..Limits::default()
    });
    bench.assembly.set_book(std::sync::Arc::default());
    bench.apply(
        at(1.0),
        vec![spans(&[S {
            version: Some("42"),
            ..chat(root(1, 0.0, 1.0))
        }])],
    );
    assert_eq!(bench.marks[&id(1)].color, Color::Unmarked);
    bench.assembly.set_book(super::book());
    bench.tick(at(2.0));
    assert_eq!(bench.marks[&id(1)].color, Color::Green);
}

#[test]
fn rows_have_every_declared_column() {
    let mut bench = Bench::new(Limits::default());
    bench.apply(
        at(1.0),
        vec![spans(&[
            S {
                session: Some("s"),
                ..chat(root(1, 0.0, 1.0))
            },
            S {
                shadow: true,
                ..chat(root(2, 0.0, 1.0))
            },
        ])],
    );
    bench.tick(at(10.0));
    let rows: Vec<_> = bench.rows.values().cloned().collect();
    let batch = rows_to_batch(&rows).unwrap();
    assert_eq!(
        (batch.num_rows(), batch.num_columns()),
        (2, proto::schema::TRACES.fields().len())
    );
    let shadow = batch.column_by_name("shadow").unwrap().as_boolean();
    let shadow: Vec<Option<bool>> = shadow.iter().collect();
    assert_eq!(
        shadow,
        [Some(false), Some(true)],
        "a mirrored trace has a row that says so"
    );
}

#[test]
fn a_trace_that_claims_to_start_in_years_has_a_row_and_no_cells() {
    let mut bench = Bench::new(Limits::default());
    let year = 365.0 * 86_400.0;
    bench.apply(
        at(1.0),
        vec![spans(&[
            chat(root(1, year, year + 1.0)),
            chat(root(2, -2.0 * year, 1.0)),
        ])],
    );
    bench.tick(at(100_000.0));
    assert_eq!(bench.rows.len(), 2);
    assert!(bench.cells.is_empty());
}
