//! Courses beside the ramp: mirrored traffic, cohorts that fell back, releases that nobody declared.

use super::life::{RESOLUTION, World, pair, quiet, spec};
use gates::{
    judge::PairKey,
    life::{Command, Course, Event, Finding, ReleaseState, Slot, Told},
};
use proto::{
    Color, Nanos,
    decision::{Action, Phase, Verdict},
    release::{Approval, Margin, Mode, ReleaseSpec},
};
use std::time::Duration;

/// Mirrors for ten seconds before its ramp.
fn mirrored(mode: Mode) -> ReleaseSpec {
    let mut spec = spec(mode);
    spec.mirror = Some(Duration::from_secs(10));
    spec.gates[0].paired = true;
    spec
}

/// Mirrors, and has no ramp.
fn only_mirrored(mode: Mode) -> ReleaseSpec {
    let mut spec = mirrored(mode);
    spec.steps.clear();
    for gate in &mut spec.gates {
        gate.paired = true;
        gate.margin = Margin::MaxIncrease(0.02);
    }
    spec
}

fn pairs(n: i64) -> Finding {
    Finding {
        n_pairs: n,
        n_green: 0,
        n_green_step: 0,
        split_unknown: true,
        ..quiet()
    }
}

fn bad() -> Finding {
    Finding {
        rollback: Some(vec![pair(None)]),
        any_fail: true,
        ..pairs(500)
    }
}

#[test]
fn mirroring_serves_no_green_and_lets_it_in_after_its_time_and_enough_pairs() {
    let mut w = World::of(mirrored(Mode::Act));
    w.seconds(6, &pairs(0));
    assert_eq!(w.state.phase, Phase::Mirroring);
    let counted = w.state.counted_from;
    w.seconds(20, &pairs(29));
    assert_eq!((w.state.phase, w.state.green_ppm), (Phase::Mirroring, 0));
    assert!(w.second(pairs(29)).waiting.contains("29 of 30 mirrored pairs"));
    assert_eq!(w.actions(), []);
    let fails = Finding {
        any_fail: true,
        ..pairs(30)
    };
    assert_eq!(w.second(fails).waiting, "a gate fails");
    w.second(pairs(30));
    assert_eq!((w.state.phase, w.state.green_ppm), (Phase::Canary, 50_000));
    assert_eq!(w.actions(), [Action::Advance]);
    assert_eq!(w.state.counted_from, counted, "its pairs go on counting");
    let rest = Finding { n_pairs: 30, ..quiet() };
    w.seconds(20, &rest);
    assert_eq!(w.state.green_ppm, 250_000);
}

#[test]
fn its_time_passes_even_with_pairs_enough() {
    let mut w = World::of(mirrored(Mode::Act));
    w.seconds(13, &pairs(900));
    assert_eq!(w.state.phase, Phase::Mirroring);
    assert!(w.second(pairs(900)).waiting.starts_with("mirroring for another"));
    w.second(pairs(900));
    assert_eq!(w.state.phase, Phase::Canary);
}

#[test]
fn one_that_advises_mirrors_too_and_waits_for_a_person() {
    let mut w = World::of(mirrored(Mode::Advise));
    assert_eq!((w.state.step, w.state.green_ppm), (None, 0));
    w.seconds(40, &pairs(100));
    assert_eq!(w.state.phase, Phase::Mirroring);
    assert_eq!(w.actions(), [Action::Advance], "advised once");
    assert!(w.second(pairs(100)).waiting.contains("a person has not followed"));
    w.command(Command::Advance);
    assert_eq!((w.state.phase, w.state.step), (Phase::Canary, Some(0)));
    assert_eq!(w.state.green_ppm, 50_000);
}

#[test]
fn a_rollback_while_mirroring_ends_the_release_at_once() {
    for mode in [Mode::Act, Mode::Advise] {
        let mut w = World::of(mirrored(mode));
        w.seconds(8, &pairs(10));
        let out = w.second(bad());
        assert_eq!(out.verdict, Verdict::Fail);
        assert_eq!(w.actions(), [Action::Rollback, Action::Settle]);
        assert_eq!(w.state.phase, Phase::RolledBack);
        assert_eq!((w.state.winner, w.state.effect.is_none()), (Some(Color::Blue), true));
    }
    let mut w = World::of(mirrored(Mode::Act));
    w.seconds(8, &pairs(10));
    w.command(Command::Rollback);
    assert_eq!(w.state.phase, Phase::RolledBack);
}

#[test]
fn mirrored_traffic_alone_is_promoted_on_pairs() {
    let mut w = World::of(only_mirrored(Mode::Act));
    w.seconds(20, &pairs(500));
    assert_eq!(w.actions(), [], "nothing passes yet");
    assert!(w.command(Command::Advance).refused.unwrap().contains("promote instead"));
    let good = |n| Finding {
        passes: true,
        ..pairs(n)
    };
    assert!(w.second(good(99)).waiting.contains("99 of 100 mirrored pairs"));
    w.second(good(100));
    assert_eq!((w.state.phase, w.actions()), (Phase::Cutover, vec![Action::Promote]));
    w.seconds(8, &good(100));
    assert_eq!(w.state.phase, Phase::Settled);
    assert_eq!(w.state.winner, Some(Color::Green));

    let mut asked = only_mirrored(Mode::Act);
    asked.approval = Approval::Promote;
    let mut w = World::of(asked);
    w.seconds(20, &good(100));
    assert_eq!(w.actions(), [Action::Escalate]);
    w.command(Command::Promote);
    assert_eq!(w.state.phase, Phase::Cutover);
}

#[test]
fn mirroring_is_bound_by_the_horizon() {
    let mut w = World::of(mirrored(Mode::Act));
    w.spec.no_data = proto::release::NoData::Fail;
    w.seconds(20, &pairs(3));
    w.now = w.now.plus(Duration::from_secs(3_600));
    w.second(pairs(3));
    assert_eq!(w.state.phase, Phase::RolledBack);
}

fn fallen(w: &World, cohort: &str, green: i64, blue: i64) -> Finding {
    let slots = |n: usize| {
        let at = w.now.0 / 1_000_000_000 - n as i64;
        Slot { at, blue, green }
    };
    Finding {
        fallbacks: vec![pair(Some(cohort))],
        fallen: vec![(cohort.to_owned(), (0..4).rev().map(slots).collect())],
        ..quiet()
    }
}

/// On the first step, with `enterprise` just sent back.
fn with_a_fallen_cohort() -> World {
    let mut w = World::new(Mode::Act);
    w.seconds(9, &quiet());
    let worse = Finding {
        fallbacks: vec![pair(Some("enterprise"))],
        ..quiet()
    };
    w.second(worse);
    assert_eq!(w.actions(), [Action::Advance, Action::Fallback]);
    w
}

#[test]
fn a_fallback_is_proven_by_the_cohorts_own_spans_and_then_the_ramp_goes_on() {
    let mut w = with_a_fallen_cohort();
    for _ in 0..20 {
        let still = fallen(&w, "enterprise", 4, 60);
        let out = w.second(still);
        assert_eq!(
            out.waiting,
            "waiting until new spans show that `enterprise` is back on blue"
        );
    }
    assert_eq!(w.state.green_ppm, 50_000);
    for _ in 0..4 {
        let back = fallen(&w, "enterprise", 0, 60);
        w.second(back);
    }
    assert!(w.state.fallen[0].proven_at.is_some());
    assert_eq!(w.state.green_ppm, 250_000, "the ramp goes on for the rest");
    assert_eq!(w.actions()[2..], [Action::Advance]);
}

#[test]
fn a_fallback_that_does_not_show_is_told_once_by_name() {
    let mut w = with_a_fallen_cohort();
    for _ in 0..90 {
        let still = fallen(&w, "enterprise", 4, 60);
        w.second(still);
    }
    assert_eq!(w.actions()[2..], [Action::Escalate]);
    let said = w.said.last().unwrap();
    assert!(
        said.starts_with("the fallback of `enterprise` does not take effect: "),
        "{said}"
    );
    let mut w = with_a_fallen_cohort();
    w.seconds(90, &quiet());
    assert!(w.said.last().unwrap().ends_with("no new trace shows whether it did"));
}

#[test]
fn the_rest_is_promoted_by_a_person_only_and_must_show_for_the_rest_only() {
    let mut w = with_a_fallen_cohort();
    w.spec.min_traces = 10;
    let good = |w: &World| Finding {
        passes: true,
        ..fallen(w, "enterprise", 0, 60)
    };
    for _ in 0..60 {
        let f = good(&w);
        w.second(f);
    }
    assert_eq!(w.actions()[2..], [Action::Advance, Action::Escalate]);
    assert!(w.state.told.contains(&Told::Rest));
    let waiting = {
        let f = good(&w);
        w.second(f).waiting
    };
    assert!(
        waiting.contains("waiting for a person to promote the rest"),
        "{waiting}"
    );
    w.command(Command::Promote);
    // the gateway moves all but `enterprise`: 60 of 300 traces a second stay blue
    w.obeys = false;
    w.green_ppm = 800_000;
    for _ in 0..12 {
        let f = good(&w);
        w.second(f);
    }
    assert_eq!(w.state.phase, Phase::Settled);
    assert_eq!(w.state.winner, Some(Color::Green));
}

#[test]
fn what_a_fallen_cohort_showed_holds_nothing_again() {
    let mut w = with_a_fallen_cohort();
    let key = PairKey {
        gate: "another".into(),
        cohort: Some("enterprise".into()),
    };
    assert!(w.state.is_out(&key));
    assert!(!w.state.is_out(&pair(None)) && !w.state.is_out(&pair(Some("free"))));
    let holds = Finding {
        holds: vec![key],
        ..quiet()
    };
    w.seconds(3, &holds);
    assert_eq!(w.state.held, None);
}

#[test]
fn an_observed_release_is_judged_and_decides_nothing() {
    let spec = spec(Mode::Observe);
    let now = Nanos::from_secs(1_000_000);
    let mut w = World::of(spec.clone());
    w.state = ReleaseState::open_observed(&spec, now, RESOLUTION);
    assert_eq!(w.state.splits, [(now, None)]);
    let verdicts = [
        w.second(bad()).verdict,
        w.second(Finding {
            passes: true,
            ..quiet()
        })
        .verdict,
        w.second(quiet()).verdict,
    ];
    assert_eq!(verdicts, [Verdict::Fail, Verdict::Pass, Verdict::Inconclusive]);
    w.event(&Event::Undelivered {
        decision_id: "dec".into(),
        error: "gone".into(),
    });
    w.now = w.now.plus(Duration::from_secs(90_000));
    w.seconds(5, &bad());
    assert_eq!((w.actions(), w.state.phase), (vec![], Phase::Observed));
    for command in [
        Command::Promote,
        Command::Advance,
        Command::Rollback,
        Command::Hold,
        Command::Resume,
    ] {
        let refused = w.command(command).refused.unwrap();
        assert!(refused.ends_with("declare it: `tracegate init`"), "{refused}");
    }
    w.event(&Event::Closed {
        reason: "one path is left".into(),
    });
    assert_eq!((w.state.phase, w.state.winner), (Phase::Settled, None));
    assert_eq!(w.state.closed.as_deref(), Some("one path is left"));
    assert_eq!(w.state.active_color(), Color::Blue);
    assert_eq!(w.actions(), []);
}

#[test]
fn a_declared_release_is_not_closed_from_outside() {
    let mut w = World::new(Mode::Act);
    w.seconds(9, &quiet());
    let before = w.state.clone();
    w.event(&Event::Closed { reason: "x".into() });
    assert_eq!(w.state, before);
    assert_eq!(w.state.course, Course::Trial);
}

#[test]
fn a_row_stored_before_these_words_existed_is_read() {
    let state = World::new(Mode::Act).state;
    let mut stored = serde_json::to_value(&state).unwrap();
    let new = ["mirroring_since", "cool_until", "muted", "acked", "silence", "closed"];
    for key in new {
        stored.as_object_mut().unwrap().remove(key).unwrap();
    }
    stored["fallen"] = serde_json::json!([{ "cohort": "a", "since": 5, "moved": true }]);
    let read: ReleaseState = serde_json::from_value(stored).unwrap();
    assert_eq!(read.fallen[0].proven_at, None);
    assert_eq!(ReleaseState { fallen: vec![], ..read }, state);
}
