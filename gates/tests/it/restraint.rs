//! What keeps a release where it is: freezes, cool-downs, mutes, least times, silence, traffic that proves nothing.

use super::life::{World, pair, quiet, spec};
use gates::{
    ledger::Actor,
    life::{Breaker, Command, Course, Event, Finding, Quiet, Slot},
};
use proto::{
    Color,
    cell::PPM,
    decision::{Action, Phase, Verdict},
    release::{Mode, NoData},
};
use std::time::Duration;

fn good() -> Finding {
    Finding {
        passes: true,
        ..quiet()
    }
}

fn bad() -> Finding {
    Finding {
        rollback: Some(vec![pair(None)]),
        any_fail: true,
        ..quiet()
    }
}

/// On the first step, proven.
fn on_the_first_step(mode: Mode) -> World {
    let mut w = World::new(mode);
    w.seconds(9, &quiet());
    assert_eq!(w.state.phase, Phase::Canary);
    w
}

#[test]
fn a_freeze_lets_nothing_forward_and_everything_back() {
    let mut w = World::new(Mode::Act);
    w.frozen = Some("quarter end");
    w.seconds(30, &good());
    assert_eq!((w.state.phase, w.actions()), (Phase::Declared, vec![]));
    assert_eq!(w.second(good()).waiting, "frozen: quarter end");
    let refused = w.command(Command::Advance).refused.unwrap();
    assert_eq!(
        refused,
        "cannot advance: frozen (quarter end); end the freeze first, or roll back"
    );
    w.frozen = None;
    w.seconds(9, &quiet());
    w.frozen = Some("quarter end");
    let step = w.state.step;
    w.seconds(60, &good());
    assert_eq!(w.state.step, step);
    let refused = w.command(Command::Promote).refused.unwrap();
    assert!(refused.contains("quarter end"), "{refused}");
    let waits = w
        .second(Finding {
            any_fail: true,
            ..quiet()
        })
        .waiting;
    assert_eq!(waits, "a gate fails; frozen: quarter end");
    assert_eq!(w.second(bad()).decisions[0].action, Action::Rollback);

    let mut w = on_the_first_step(Mode::Act);
    w.frozen = Some("quarter end");
    assert!(w.command(Command::Rollback).refused.is_none());
}

#[test]
fn a_freeze_keeps_advice_and_questions_back_too() {
    let mut w = World::new(Mode::Advise);
    w.frozen = Some("holidays");
    w.seconds(60, &good());
    assert_eq!(w.actions(), []);
    let mut w = World::new(Mode::Act);
    w.spec.approval = proto::release::Approval::Promote;
    w.seconds(40, &quiet());
    w.frozen = Some("holidays");
    w.seconds(10, &good());
    assert!(!w.actions().contains(&Action::Escalate), "nobody could approve it now");
}

#[test]
fn after_a_rollback_on_the_route_the_next_release_cools_down() {
    let mut w = World::new(Mode::Act);
    w.state.cool_until = Some(w.now.plus(Duration::from_secs(60)));
    w.seconds(58, &quiet());
    assert_eq!(w.actions(), []);
    assert!(w.second(quiet()).waiting.starts_with("cooling down for another"));
    w.seconds(3, &quiet());
    assert_eq!(w.actions(), [Action::Advance]);
}

#[test]
fn a_hold_and_a_fallback_begin_a_cool_down_and_people_need_not_wait() {
    for action in [Action::Hold, Action::Fallback] {
        let mut w = World::new(Mode::Act);
        w.spec.cool_down = Duration::from_secs(100);
        w.seconds(9, &quiet());
        let f = match action {
            Action::Hold => Finding {
                holds: vec![pair(None)],
                ..quiet()
            },
            _ => Finding {
                fallbacks: vec![pair(Some("a"))],
                ..quiet()
            },
        };
        w.second(f);
        w.command(Command::Resume);
        for fallen in &mut w.state.fallen {
            fallen.proven_at = Some(w.now);
        }
        w.seconds(98, &quiet());
        assert_eq!(w.actions(), [Action::Advance, action]);
        w.seconds(2, &quiet());
        assert_eq!(w.actions(), [Action::Advance, action, Action::Advance]);
    }
    let mut w = World::new(Mode::Act);
    w.state.cool_until = Some(w.now.plus(Duration::from_secs(600)));
    assert!(w.command(Command::Advance).refused.is_none());
}

#[test]
fn a_promotion_waits_for_min_duration() {
    let mut w = World::new(Mode::Act);
    w.spec.min_duration = Duration::from_secs(120);
    w.seconds(60, &good());
    assert!(w.second(good()).waiting.ends_with("of comparison to go (min_duration)"));
    let from = w.state.counted_from;
    while !w.actions().contains(&Action::Promote) {
        assert!(w.now.0 / 1_000_000_000 <= from + 120);
        w.second(good());
    }
    assert_eq!(w.now.0 / 1_000_000_000, from + 120);
}

#[test]
fn a_mute_names_its_gate_and_ends_by_itself() {
    let mut w = on_the_first_step(Mode::Act);
    let mute = |gate: &str, secs: u64, w: &World| Command::Mute {
        gate: gate.into(),
        until: w.now.plus(Duration::from_secs(secs)),
    };
    let unknown = w.command(mute("latency", 60, &w)).refused.unwrap();
    assert_eq!(
        unknown,
        "cannot mute: there is no gate `latency`; the gates are `p99 latency`, `task completion`"
    );
    assert!(
        w.command(mute("p99 latency", 0, &w))
            .refused
            .unwrap()
            .contains("is over")
    );
    assert!(w.command(mute("p99 latency", 60, &w)).refused.is_none());
    assert!(w.state.is_muted("p99 latency", w.now));
    assert_eq!(w.state.muted_gates(w.now), ["p99 latency"]);
    assert!(!w.state.is_muted("p99 latency", w.now.plus(Duration::from_secs(60))));
    assert_eq!(
        (w.state.muted[0].actor.as_str(), w.state.muted[0].reason.as_str()),
        ("ada", "because")
    );
    assert!(w.command(mute("p99 latency", 90, &w)).refused.is_none());
    assert_eq!(w.state.muted.len(), 1, "the later word counts");

    // muted, it neither holds nor sends back
    let alone = Finding {
        holds: vec![pair(None)],
        fallbacks: vec![pair(Some("a"))],
        ..quiet()
    };
    w.seconds(30, &alone);
    assert!(!w.actions().iter().any(|a| matches!(a, Action::Hold | Action::Fallback)));
    let unmute = Command::Unmute {
        gate: "p99 latency".into(),
    };
    assert!(w.command(unmute.clone()).refused.is_none());
    assert!(w.command(unmute).refused.unwrap().contains("is not muted"));
    w.second(alone.clone());
    assert!(w.actions().ends_with(&[Action::Fallback, Action::Hold]));

    let mut w = on_the_first_step(Mode::Act);
    w.command(mute("p99 latency", 10, &w));
    w.seconds(12, &quiet());
    assert_eq!(w.state.muted, []);
}

#[test]
fn an_ack_says_who_has_seen_it_even_after_the_end() {
    let mut w = on_the_first_step(Mode::Act);
    w.command(Command::Rollback);
    assert!(w.command(Command::Ack).refused.is_none());
    w.seconds(6, &quiet());
    assert_eq!(w.state.phase, Phase::RolledBack);
    let before = w.state.acked.clone().unwrap();
    let out = w.command(Command::Ack);
    assert_eq!((out.refused, out.decisions.len()), (None, 0));
    let acked = w.state.acked.clone().unwrap();
    assert!(acked.at > before.at && acked.actor == "ada");
    assert!(w.command(Command::Hold).refused.unwrap().contains("over"));
}

#[test]
fn the_same_hold_twice_is_one_decision() {
    let mut w = on_the_first_step(Mode::Act);
    w.command(Command::Hold);
    w.command(Command::Hold);
    assert_eq!(w.actions(), [Action::Advance, Action::Hold]);
}

#[test]
fn a_hold_calls_back_what_the_gateway_has_not_accepted() {
    let mut w = World::called_back();
    assert!(w.state.is_called_back());
    assert_eq!((w.state.green_ppm, w.state.active_color()), (0, Color::Blue));
    let held = w.second(good());
    assert!(
        held.waiting.contains("called the last movement back"),
        "{}",
        held.waiting
    );
    w.seconds(300, &good());
    assert_eq!(
        w.actions(),
        [Action::Advance, Action::Hold],
        "nobody is told that it does not show"
    );

    w.frozen = Some("holidays");
    assert!(w.command(Command::Resume).refused.unwrap().contains("frozen"));
    w.frozen = None;
    w.obeys = true;
    let again = w.command(Command::Resume).decisions.remove(0);
    assert_eq!(
        (again.action, again.green_ppm, again.notified),
        (Action::Advance, 50_000, true)
    );
    assert_eq!(again.actor, Actor::Person("ada".into()));
    let proven = (0..9).any(|_| {
        w.second(quiet());
        w.state.effect.is_none()
    });
    assert!(proven, "as ever");
    w.command(Command::Hold);
    assert_eq!(
        (w.state.is_called_back(), w.state.green_ppm),
        (false, 50_000),
        "what is proven stays"
    );
}

#[test]
fn a_promotion_that_was_called_back_is_let_go_by_a_promotion() {
    let mut w = on_the_first_step(Mode::Act);
    w.obeys = false;
    w.command(Command::Promote);
    assert_eq!(w.state.active_color(), Color::Green);
    w.command(Command::Hold);
    assert_eq!((w.state.green_ppm, w.state.active_color()), (50_000, Color::Blue));
    assert!(w.command(Command::Advance).refused.unwrap().contains("called back"));
    w.obeys = true;
    w.command(Command::Promote);
    assert!(w.command(Command::Promote).refused.unwrap().contains("already"));
    w.seconds(5, &good());
    assert_eq!((w.state.phase, w.state.green_ppm), (Phase::Watching, PPM));
    assert_eq!(
        w.actions(),
        [Action::Advance, Action::Promote, Action::Hold, Action::Promote]
    );
}

#[test]
fn what_the_gateway_has_accepted_is_not_called_back() {
    let mut w = on_the_first_step(Mode::Act);
    w.obeys = false;
    w.command(Command::Promote);
    let decision_id = w.state.effect.as_ref().unwrap().decision_id.clone().unwrap();
    w.event(&Event::Delivered { decision_id });
    w.command(Command::Hold);
    assert!(!w.state.is_called_back() && w.state.green_ppm == PPM);
}

#[test]
fn what_proves_nothing_concludes_nothing_and_people_hear_once() {
    let mut w = World::new(Mode::Act);
    let mixed = |f: Finding| Finding {
        refused: Some("mixed manifests: 12 % of green".into()),
        ..f
    };
    w.seconds(20, &mixed(good()));
    assert_eq!(w.actions(), [Action::Escalate], "not even let in");
    w.seconds(9, &quiet());
    assert_eq!(w.state.phase, Phase::Canary);
    let out = w.second(mixed(bad()));
    assert_eq!((out.verdict, out.decisions.len()), (Verdict::Inconclusive, 0));
    assert!(out.waiting.starts_with("mixed manifests"));
    assert_eq!(w.second(mixed(good())).verdict, Verdict::Inconclusive);
    let burst = Finding {
        breaker: Breaker::Fired,
        ..mixed(good())
    };
    assert_eq!(w.second(burst).decisions[0].action, Action::Rollback);
}

/// One second after another without green, and with blue if `blue`, for longer than any silence may last.
fn silent(w: &mut World, secs: u64, blue: bool) {
    w.obeys = false;
    let green = w.green_ppm;
    for s in 1..=secs {
        w.green_ppm = 0;
        let at = w.now.0 / 1_000_000_000;
        w.now = w.now.plus(Duration::from_secs(1));
        let blue_now = if blue { 300 } else { 0 };
        w.traffic.push(Slot {
            at,
            blue: blue_now,
            green: 0,
        });
        let finding = Finding {
            quiet: Quiet {
                blue_secs: if blue { 0 } else { s },
                green_secs: s,
            },
            traffic: w.traffic.clone(),
            ..quiet()
        };
        w.event(&Event::Judged(Box::new(finding)));
    }
    w.green_ppm = green;
    w.obeys = true;
}

/// Five minutes and the timeout.
const LIMIT: u64 = 302;

fn with_policy(no_data: NoData) -> World {
    let mut spec = spec(Mode::Act);
    spec.no_data = no_data;
    spec.steps[0].min = Duration::from_secs(3_000);
    let mut w = World::of(spec);
    w.seconds(12, &quiet());
    w
}

#[test]
fn green_that_does_not_come_holds_once_and_goes_on_when_it_is_back() {
    let mut w = with_policy(NoData::Hold);
    silent(&mut w, LIMIT, true);
    assert_eq!(w.actions(), [Action::Advance]);
    silent(&mut w, LIMIT + 60, true);
    assert_eq!(w.actions(), [Action::Advance, Action::Hold, Action::Escalate]);
    assert_eq!(w.said[1], "no data: no green trace for 5m, blue still comes");
    w.state.stepped_at = Some(w.now.minus(Duration::from_secs(4_000)));
    let out = w.second(quiet());
    assert_eq!(w.state.silence, None);
    assert_eq!(out.decisions[0].action, Action::Advance, "by itself");
}

#[test]
fn green_that_does_not_come_fails_only_while_blue_comes() {
    let mut w = with_policy(NoData::Fail);
    silent(&mut w, LIMIT + 10, false);
    assert_eq!(w.actions(), [Action::Advance], "no traffic at all is not green's fault");
    assert!(w.state.silence.is_some());
    let mut w = with_policy(NoData::Fail);
    silent(&mut w, LIMIT + 10, true);
    assert_eq!(w.actions()[1], Action::Rollback);
    assert!(
        w.said[1].ends_with("blue still comes, and no_data = \"fail\""),
        "{}",
        w.said[1]
    );
}

#[test]
fn a_silence_is_not_held_against_the_horizon_where_it_extends() {
    let mut w = with_policy(NoData::Extend);
    let horizon = w.state.horizon_at;
    silent(&mut w, LIMIT + 98, true);
    assert_eq!(w.actions(), [Action::Advance]);
    assert_eq!(w.state.horizon_at, horizon.plus(Duration::from_secs(LIMIT + 98)));
    w.second(quiet());
    w.seconds(20, &quiet());
    assert_eq!(w.state.horizon_at, horizon.plus(Duration::from_secs(LIMIT + 98)));
}

#[test]
fn an_outage_of_ingest_and_a_slow_route_are_no_silence() {
    let mut w = with_policy(NoData::Fail);
    let out = Finding {
        impaired: Some("ingest: nothing was acknowledged for 9m".into()),
        quiet: Quiet {
            blue_secs: 0,
            green_secs: 900,
        },
        ..quiet()
    };
    w.now = w.now.plus(Duration::from_secs(900));
    let stepped = w.second(out);
    assert_eq!(stepped.waiting, "ingest: nothing was acknowledged for 9m");
    assert_eq!(w.state.course, Course::Trial);

    // 300 blue traces in 15 minutes at 5 %: 16 green ones were to be expected, and none is still luck
    let mut w = with_policy(NoData::Fail);
    let slow = |w: &World, blue: i64| Finding {
        quiet: Quiet {
            blue_secs: 1,
            green_secs: 900,
        },
        traffic: vec![Slot {
            at: w.now.0 / 1_000_000_000 - 20,
            blue,
            green: 0,
        }],
        ..quiet()
    };
    w.now = w.now.plus(Duration::from_secs(900));
    let finding = slow(&w, 300);
    w.event(&Event::Judged(Box::new(finding)));
    assert_eq!(w.state.course, Course::Trial);
    let finding = slow(&w, 400);
    w.event(&Event::Judged(Box::new(finding)));
    assert_eq!(w.state.course, Course::RolledBack);
}

#[test]
fn a_gate_rolls_back_in_the_middle_of_a_silence() {
    let mut w = with_policy(NoData::Hold);
    silent(&mut w, LIMIT + 10, true);
    let finding = Finding {
        quiet: Quiet {
            blue_secs: 0,
            green_secs: LIMIT + 11,
        },
        ..bad()
    };
    assert_eq!(w.second(finding).decisions[0].action, Action::Rollback);
}
