//! What a trace means: calls recorded twice, tries and requests apart, ties between traces, quality.

use super::{
    super::{Limits, LinkedBy, OTHER, Outcome, rows_to_batch},
    Bench, at, id,
    rows::{E, S, call, evals, root, spans},
};
use arrow::array::AsArray;
use proto::{Color, Grain, Metric};
use std::sync::Arc;
use store::{Filling, Twin};

fn green(trace: u8, start: f64, end: f64) -> S {
    S {
        route: Some("chat"),
        color: Some("green"),
        ..root(trace, start, end)
    }
}

/// What trace 1 came to, long after.
fn outcome(rows: &[S]) -> (Arc<Outcome>, Bench) {
    let mut bench = Bench::new(Limits::default());
    bench.apply(at(1.0), vec![spans(rows)]);
    bench.tick(at(700.0));
    (bench.rows[&id(1)].outcome.clone().unwrap(), bench)
}

fn cell(bench: &Bench, color: Color, metric: Metric, grain: Grain) -> (i64, i64) {
    let cell = bench.cell(color, &metric, grain, true);
    (cell.n, cell.events)
}

/// Call `span` as library `scope` recorded it.
fn by(scope: &'static str, span: S) -> S {
    S {
        scope: Some(scope),
        ..span
    }
}

#[test]
fn a_call_recorded_by_two_libraries_counts_once_and_the_outer_record_takes_what_it_lacks() {
    let outer = S {
        asked: Some("gpt-4o-mini"),
        answered: Some("gpt-4o-mini"),
        response: Some("r-1"),
        ..by("outer", call(1, 2, 1, 0.1, 0.9))
    };
    let inner = S {
        asked: Some("gpt-4o-mini"),
        answered: Some("gpt-4o-mini-2024-07-18"),
        response: Some("r-1"),
        tokens: Some(100),
        cost: Some(7_000),
        ..by("inner", call(1, 3, 2, 0.2, 0.8))
    };
    let (out, bench) = outcome(&[green(1, 0.0, 1.0), outer, inner]);
    assert_eq!((out.attempts.len(), out.prompt, out.cost), (1, Some(100), Some(7_000)));
    assert!(out.priced);
    let spans = bench.marks[&id(1)].spans.clone().unwrap();
    let filling = Filling {
        response_model: Some("gpt-4o-mini-2024-07-18".into()),
        prompt_tokens: Some(100),
        cost_nano: Some(7_000),
        ..Filling::default()
    };
    assert_eq!(
        spans
            .iter()
            .map(|s| (s.span, s.twin.clone().unwrap()))
            .collect::<Vec<_>>(),
        [(2, Twin::Counts(Box::new(filling))), (3, Twin::Repeats(2))]
    );
}

#[test]
fn siblings_without_response_ids_are_one_call_if_one_lies_inside_the_other_with_equal_tokens() {
    let first = |tokens| S {
        tokens,
        ..by("a", call(1, 2, 1, 0.1, 0.9))
    };
    let second = |tokens, start, end| S {
        tokens,
        ..by("b", call(1, 3, 1, start, end))
    };
    let calls = |a: S, b: S| outcome(&[green(1, 0.0, 1.0), a, b]).0.attempts.len();
    assert_eq!(calls(first(Some(5)), second(Some(5), 0.2, 0.8)), 1);
    assert_eq!(calls(first(None), second(None, 0.2, 0.8)), 1, "unknown equals unknown");
    assert_eq!(calls(first(Some(5)), second(None, 0.2, 0.8)), 2, "unknown is no number");
    assert_eq!(calls(first(Some(5)), second(Some(6), 0.2, 0.8)), 2);
    assert_eq!(
        calls(first(Some(5)), second(Some(5), 0.2, 0.95)),
        2,
        "neither inside the other"
    );
    let same_library = S {
        scope: Some("a"),
        ..second(Some(5), 0.2, 0.8)
    };
    assert_eq!(calls(first(Some(5)), same_library), 2);
    let other_parent = S {
        parent: Some(9),
        ..second(Some(5), 0.2, 0.8)
    };
    assert_eq!(calls(first(Some(5)), other_parent), 2, "neither nested nor siblings");
    let named = |response, span: S| S {
        response: Some(response),
        ..span
    };
    assert_eq!(
        calls(named("r-1", first(Some(5))), named("r-2", second(Some(5), 0.2, 0.8))),
        2,
        "two responses are two calls"
    );
}

#[test]
fn twins_are_paired_one_to_one_and_an_answer_not_with_the_failed_try_before_it() {
    let rows = [
        green(1, 0.0, 1.0),
        by("gateway", call(1, 2, 1, 0.0, 1.0)),
        S {
            error: true,
            ..by("sdk", call(1, 3, 2, 0.1, 0.3))
        },
        by("sdk", call(1, 4, 2, 0.4, 0.9)),
    ];
    let (out, _) = outcome(&rows);
    assert_eq!(
        out.attempts.iter().map(|a| a.error).collect::<Vec<_>>(),
        [false, true],
        "the gateway's record is the answer; the failed try stays a call of its own"
    );
}

#[test]
fn three_records_of_one_call_are_one_call() {
    let record = |id, parent, scope, start, end| S {
        response: Some("r-1"),
        tokens: Some(5),
        ..by(scope, call(1, id, parent, start, end))
    };
    let rows = [
        green(1, 0.0, 1.0),
        record(2, 1, "a", 0.0, 1.0),
        record(3, 2, "b", 0.1, 0.9),
        record(4, 3, "c", 0.2, 0.8),
    ];
    assert_eq!(outcome(&rows).0.prompt, Some(5));
    let mut without_id = rows.clone();
    without_id[1].response = None;
    assert_eq!(
        outcome(&without_id).0.prompt,
        Some(5),
        "the outermost names no response"
    );
    let siblings = [
        green(1, 0.0, 1.0),
        record(2, 1, "a", 0.1, 1.0),
        record(3, 1, "b", 0.0, 0.5),
        record(4, 1, "c", 0.1, 0.4),
    ];
    assert_eq!(outcome(&siblings).0.attempts.len(), 1);
}

#[test]
fn a_mirrored_call_is_no_second_record_of_the_users_call() {
    let rows = [
        green(1, 0.0, 1.0),
        by("sdk", call(1, 2, 1, 0.1, 0.5)),
        S {
            shadow: true,
            ..by("gateway", call(1, 3, 1, 0.0, 0.6))
        },
    ];
    assert_eq!(outcome(&rows).0.attempts.len(), 1);
}

#[test]
fn an_evaluation_of_a_mirrored_call_is_not_charged_to_the_user() {
    let mut bench = Bench::new(Limits::default());
    let judged = |span| E {
        trace: 1,
        span: Some(span),
        response: None,
        time: 1.0,
        name: "Tone",
        passed: Some(span == 2),
    };
    let mirrored = S {
        shadow: true,
        ..call(1, 3, 1, 0.0, 0.6)
    };
    let rows = [green(1, 0.0, 1.0), call(1, 2, 1, 0.1, 0.5), mirrored];
    bench.apply(at(1.0), vec![spans(&rows), evals(&[judged(2), judged(3)])]);
    bench.tick(at(1_500.0));
    assert_eq!(
        cell(&bench, Color::Green, Metric::EvalFail("tone".into()), Grain::Trace),
        (1, 0)
    );
}

#[test]
fn an_opinion_is_counted_among_opinions_and_an_escalation_among_all() {
    let mut bench = Bench::new(Limits::default());
    let told = |trace, name, passed| E {
        trace,
        span: None,
        response: None,
        time: 1.0,
        name,
        passed: Some(passed),
    };
    let roots = [1, 2, 3].map(|trace| green(trace, 0.0, 1.0));
    let said = [
        told(1, "user_feedback", false),
        told(2, "user_feedback", true),
        told(3, "Escalation", false),
    ];
    bench.apply(at(1.0), vec![spans(&roots), evals(&said)]);
    bench.tick(at(1_500.0));
    let seen = |metric| cell(&bench, Color::Green, metric, Grain::Trace);
    assert_eq!((seen(Metric::ThumbsDown), seen(Metric::Escalation)), ((2, 1), (3, 1)));
    assert_eq!(
        bench.rows[&id(1)].outcome.clone().unwrap().evals_failed,
        0,
        "feedback is no failed evaluation"
    );
}

#[test]
fn a_masked_failure_is_a_failed_attempt_of_green_and_no_failed_request() {
    let gateway = |id, parent, color, error| S {
        role: "other",
        color: Some(color),
        error,
        ..call(1, id, parent, 0.1, 0.4)
    };
    let rows = [
        S {
            route: Some("chat"),
            ..root(1, 0.0, 1.0)
        },
        gateway(2, 1, "green", true),
        S {
            error: true,
            ..call(1, 3, 2, 0.1, 0.3)
        },
        gateway(4, 1, "blue", false),
        call(1, 5, 4, 0.5, 0.9),
    ];
    let (out, bench) = outcome(&rows);
    assert_eq!(
        (out.mark.color, out.served, out.error),
        (Color::Green, Color::Blue, false)
    );
    let attempts = |color| cell(&bench, color, Metric::AttemptError, Grain::Attempt);
    assert_eq!((attempts(Color::Green), attempts(Color::Blue)), ((1, 1), (1, 0)));
    assert_eq!(cell(&bench, Color::Green, Metric::Error, Grain::Request), (1, 0));
    assert_eq!(cell(&bench, Color::Green, Metric::Error, Grain::Trace), (1, 0));
    let spans = bench.marks[&id(1)].spans.clone().unwrap();
    let colors: Vec<_> = spans.iter().map(|s| (s.span, s.color)).collect();
    assert_eq!(
        colors,
        [(5, Some(Color::Blue))],
        "the call below blue's span is blue, its trace green"
    );
}

#[test]
fn each_server_span_with_calls_below_it_is_a_request_of_its_own() {
    let server = |id, error| S {
        role: "server",
        kind: Some("server"),
        parent: Some(1),
        error,
        ..call(1, id, 1, 0.1, 0.9)
    };
    let rows = [
        S {
            role: "agent",
            ..green(1, 0.0, 1.0)
        },
        server(2, false),
        call(1, 3, 2, 0.2, 0.3),
        call(1, 4, 2, 0.3, 0.4),
        server(5, true),
        call(1, 6, 5, 0.5, 0.6),
    ];
    let (out, bench) = outcome(&rows);
    assert_eq!((out.requests.len(), out.attempts.len()), (2, 3));
    assert_eq!(cell(&bench, Color::Green, Metric::Error, Grain::Request), (2, 1));
    assert_eq!(cell(&bench, Color::Green, Metric::Error, Grain::Trace), (1, 0));
}

#[test]
fn a_failed_root_and_its_fallback_are_tied_by_their_request() {
    let mut bench = Bench::new(Limits::default());
    let failed = S {
        error: true,
        request: Some("q-1"),
        ..green(1, 0.0, 1.0)
    };
    let fallback = S {
        request: Some("q-1"),
        color: Some("blue"),
        ..green(2, 1.1, 2.0)
    };
    bench.apply(at(2.0), vec![spans(&[failed])]);
    bench.tick(at(20.0));
    assert_eq!(cell(&bench, Color::Green, Metric::Error, Grain::Trace), (0, 0));
    assert_eq!(
        bench.cell(Color::Green, &Metric::Error, Grain::Trace, false).events,
        1,
        "until the fallback is seen, it is an error"
    );
    bench.apply(at(21.0), vec![spans(&[fallback])]);
    bench.tick(at(700.0));
    let [first, second] = [1, 2].map(|trace| bench.rows[&id(trace)].outcome.clone().unwrap());
    assert!(first.is_superseded() && !second.is_superseded());
    assert_eq!(second.linked_by(), Some(LinkedBy::RequestId.as_str()));
    assert_eq!((second.assigned, second.mark.color), (Color::Green, Color::Blue));
    assert_eq!(
        cell(&bench, Color::Green, Metric::Error, Grain::Trace),
        (1, 0),
        "one request, assigned to green, answered in the end"
    );
    assert_eq!(cell(&bench, Color::Blue, Metric::Error, Grain::Trace), (0, 0));
}

#[test]
fn a_session_ties_a_failure_only_to_what_says_that_it_is_a_fallback() {
    let session = |span: S| S {
        session: Some("s-1"),
        ..span
    };
    let failed = session(S {
        error: true,
        ..green(1, 0.0, 1.0)
    });
    let next = |fallback, start| {
        session(S {
            fallback,
            ..green(2, start, start + 1.0)
        })
    };
    let linked = |rows: &[S]| outcome(rows).1.rows[&id(2)].outcome.clone().unwrap().linked_by();
    assert_eq!(linked(&[failed.clone(), next(Some(true), 1.1)]), Some("session_id"));
    assert_eq!(
        linked(&[failed.clone(), next(None, 1.1)]),
        None,
        "the next turn is no fallback"
    );
    assert_eq!(
        linked(&[failed, next(Some(true), 200.0)]),
        Some("none"),
        "too late, and said"
    );
    let alone = S {
        fallback: Some(true),
        ..green(2, 0.0, 1.0)
    };
    assert_eq!(linked(&[green(1, 0.0, 1.0), alone]), Some("none"));
}

#[test]
fn one_request_id_on_two_routes_or_at_the_same_time_ties_nothing() {
    let failed = S {
        error: true,
        request: Some("q-1"),
        ..green(1, 0.0, 1.0)
    };
    let next = |route, start| S {
        route: Some(route),
        request: Some("q-1"),
        ..green(2, start, start + 1.0)
    };
    let is_superseded = |rows: &[S]| outcome(rows).0.is_superseded();
    assert!(is_superseded(&[failed.clone(), next("chat", 1.1)]));
    assert!(!is_superseded(&[failed.clone(), next("search", 1.1)]));
    assert!(
        !is_superseded(&[failed, next("chat", 0.5)]),
        "a call beside it is no second try"
    );
}

#[test]
fn calls_of_a_declared_shadow_group_are_never_charged_to_the_user() {
    let mirrored = S {
        group: Some("chat-shadow"),
        cost: Some(9_000),
        error: true,
        ..call(1, 3, 1, 0.1, 0.9)
    };
    let paid = S {
        cost: Some(1_000),
        ..call(1, 2, 1, 0.1, 0.9)
    };
    let (out, _) = outcome(&[green(1, 0.0, 1.0), paid, mirrored]);
    assert_eq!(
        (out.attempts.len(), out.cost, out.shadow_cost),
        (1, Some(1_000), Some(9_000))
    );
}

#[test]
fn a_variant_of_a_flag_tells_the_color_that_nobody_stamped() {
    let rows = [
        S {
            color: None,
            variant: Some("candidate"),
            ..green(1, 0.0, 1.0)
        },
        call(1, 2, 1, 0.1, 0.9),
    ];
    assert_eq!(outcome(&rows).0.mark.color, Color::Green);
}

#[test]
fn an_explicit_route_wins_wherever_it_stands_and_weaker_names_follow() {
    let workflow = S {
        route: None,
        workflow: Some("support"),
        service: Some("front"),
        ..green(1, 0.0, 1.0)
    };
    let explicit = S {
        route: Some("chat"),
        ..call(1, 2, 1, 0.1, 0.9)
    };
    let route = |rows: &[S]| outcome(rows).0.mark.route.clone();
    let flagged = S {
        variant: Some("b"),
        flag: Some("support-flag"),
        ..call(1, 3, 1, 0.2, 0.8)
    };
    let unflagged = S {
        variant: None,
        ..flagged.clone()
    };
    let unnamed = S {
        workflow: None,
        ..workflow.clone()
    };
    assert_eq!(route(&[workflow.clone(), explicit]).as_deref(), Some("chat"));
    assert_eq!(route(&[workflow, flagged.clone()]).as_deref(), Some("support"));
    assert_eq!(route(&[unnamed.clone(), flagged]).as_deref(), Some("support-flag"));
    assert_eq!(route(&[unnamed, unflagged]).as_deref(), Some("front"));
}

#[test]
fn quality_is_counted_where_it_was_seen() {
    let rows = [
        green(1, 0.0, 1.0),
        S {
            role: "tool",
            error: true,
            ..call(1, 2, 1, 0.1, 0.2)
        },
        S {
            role: "guardrail",
            guardrail: Some("guardrail_intervened"),
            ..call(1, 3, 1, 0.2, 0.3)
        },
        S {
            json: Some("other=ok,chat=invalid"),
            sampling: Some(0.25),
            ..call(1, 4, 1, 0.3, 0.9)
        },
    ];
    let (out, bench) = outcome(&rows);
    let seen = |metric| cell(&bench, Color::Green, metric, Grain::Trace);
    assert_eq!(seen(Metric::ToolError), (1, 1));
    assert_eq!(seen(Metric::GuardrailBlock), (1, 1));
    assert_eq!(seen(Metric::JsonInvalid), (1, 1));
    assert_eq!(seen(Metric::ToolArgsInvalid), (0, 0), "nothing could be checked");
    assert_eq!(seen(Metric::Sampled), (1, 1));
    assert_eq!(seen(Metric::Escalation), (1, 0));
    let batch = rows_to_batch(&[bench.rows[&id(1)].clone()]).unwrap();
    let valid = batch.column_by_name("json_valid").unwrap().as_boolean();
    assert_eq!(valid.value(0), out.quality.json_valid.unwrap());
}

#[test]
fn an_answer_along_an_undeclared_path_is_a_mixed_manifest() {
    let answered = |tools| {
        let rows = [
            green(1, 0.0, 1.0),
            S {
                tools,
                ..call(1, 2, 1, 0.1, 0.9)
            },
        ];
        cell(&outcome(&rows).1, Color::Green, Metric::MixedManifest, Grain::Trace)
    };
    assert_eq!(answered(Some("tools@7")), (1, 0));
    assert_eq!(answered(Some("tools@8")), (1, 1));
    assert_eq!(answered(None), (0, 0), "what nobody says contradicts nothing");
    assert_eq!(answered(Some("sha256:0123456789abcdef")), (0, 0), "a hash is no name");
}

#[test]
fn evaluators_beyond_the_limit_are_counted_under_one_name() {
    let limits = Limits {
        names_max: 2,
        ..Limits::default()
    };
    let mut bench = Bench::new(limits);
    let judged = |name| E {
        trace: 1,
        span: None,
        response: None,
        time: 1.0,
        name,
        passed: Some(name != "c"),
    };
    bench.apply(
        at(1.0),
        vec![spans(&[green(1, 0.0, 1.0)]), evals(&["a", "b", "c", "d"].map(judged))],
    );
    bench.tick(at(700.0));
    let cell = |name: &str| cell(&bench, Color::Green, Metric::EvalFail(name.into()), Grain::Trace);
    assert_eq!((cell("a"), cell("b"), cell(OTHER)), ((1, 0), (1, 0), (1, 1)));
}
