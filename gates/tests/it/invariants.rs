//! Every invariant of a release's life notices what it forbids.

use super::life::{World, pair, quiet, terms};
use gates::{
    ledger::Actor,
    life::{
        Breaker, Command, Course, DecisionDraft, Event, Fallen, Finding, Latch, Muted, ReleaseState, Stepped, Terms,
        Told,
        invariants::{INVARIANTS, Passage, check},
        step,
    },
};
use proto::{
    Color, Nanos,
    cell::PPM,
    decision::{Action, Phase},
    release::{Mode, ReleaseSpec},
};
use std::time::Duration;

/// A passage in which all is well, ready to be spoiled.
struct Case {
    spec: ReleaseSpec,
    before: ReleaseState,
    event: Event,
    now: Nanos,
    after: Stepped,
    frozen: Option<&'static str>,
}

impl Case {
    /// A judgement on the first step, from which nothing follows.
    fn good() -> Self {
        let mut w = World::new(Mode::Act);
        w.seconds(8, &quiet());
        w.state.effect = None;
        let event = Event::Judged(Box::new(quiet()));
        let after = step(terms(&w.spec), &w.state, &event, w.now);
        assert!(after.decisions.is_empty(), "{:?}", after.decisions);
        Self {
            spec: w.spec,
            before: w.state,
            event,
            now: w.now,
            after,
            frozen: None,
        }
    }

    fn violated(&self) -> Vec<&'static str> {
        check(&Passage {
            terms: Terms {
                frozen: self.frozen,
                ..terms(&self.spec)
            },
            before: &self.before,
            event: &self.event,
            now: self.now,
            after: &self.after,
        })
    }

    fn decide(&mut self, action: Action) -> &mut DecisionDraft {
        self.after.decisions.push(DecisionDraft {
            action,
            cohort: None,
            green_ppm: 0,
            reason: "a reason".into(),
            actor: Actor::Engine,
            culprits: vec![],
            notified: true,
        });
        self.after.decisions.last_mut().unwrap()
    }

    fn judged(&mut self, finding: Finding) {
        self.event = Event::Judged(Box::new(finding));
    }

    fn both(&mut self, change: impl Fn(&mut ReleaseState)) {
        change(&mut self.before);
        change(&mut self.after.state);
    }
}

fn passing() -> Finding {
    Finding {
        passes: true,
        ..quiet()
    }
}

fn fallen() -> Fallen {
    Fallen {
        cohort: "a".into(),
        since: Nanos::ZERO,
        moved: true,
        proven_at: Some(Nanos::ZERO),
        escalated: false,
    }
}

/// An invariant, and how to break it.
type Broken = (&'static str, fn(&mut Case));

fn forbidden() -> Vec<Broken> {
    let mut all = after_decisions();
    all.extend(while_in_doubt());
    all.extend(states());
    all
}

/// What was decided rules out what may follow.
fn after_decisions() -> Vec<Broken> {
    vec![
        ("L1", |c| {
            c.both(|s| {
                s.phase = Phase::RolledBack;
                s.winner = Some(Color::Blue);
                s.settled = Some(s.opened);
            });
            c.after.state.green_ppm = 7;
        }),
        ("L2", |c| {
            c.both(|s| s.course = Course::AdvisedRollback);
            c.decide(Action::Rollback);
        }),
        ("L3", |c| {
            c.both(|s| s.course = Course::RolledBack);
            c.decide(Action::Promote).actor = Actor::Person("ada".into());
        }),
        ("L4", |c| {
            c.frozen = Some("quarter end");
            c.decide(Action::Advance).actor = Actor::Person("ada".into());
        }),
        ("L5", |c| {
            c.both(|s| {
                s.latch = Some(Latch {
                    action: Action::Hold,
                    actor: "ada".into(),
                    reason: "lunch".into(),
                });
            });
            c.decide(Action::Rollback);
        }),
        ("L9", |c| c.decide(Action::Hold).reason = " ".into()),
        ("L13", |c| {
            c.spec.mode = Mode::Advise;
            c.decide(Action::Hold).notified = true;
        }),
        ("L16", |c| {
            c.judged(Finding {
                holds: vec![pair(None)],
                ..quiet()
            });
            // decided, and not remembered
            c.decide(Action::Hold);
        }),
        ("L19", |c| {
            c.both(|s| s.cool_until = Some(Nanos(i64::MAX)));
            c.decide(Action::Advance);
        }),
        ("L20", |c| {
            c.after.refused = Some("cannot".into());
            c.after.state.green_ppm = 7;
        }),
        ("L24", |c| {
            c.spec.min_duration = Duration::from_secs(1_000_000);
            c.judged(passing());
            c.decide(Action::Promote);
        }),
        ("L27", |c| {
            c.event = Event::Delivered {
                decision_id: "dec".into(),
            };
            c.decide(Action::Hold);
        }),
    ]
}

/// What was found rules out what may be decided.
fn while_in_doubt() -> Vec<Broken> {
    vec![
        ("L6", |c| {
            c.judged(Finding {
                impaired: Some("shed".into()),
                breaker: Breaker::Quiet,
                ..quiet()
            });
            c.decide(Action::Rollback);
        }),
        ("L7", |c| {
            c.judged(Finding {
                refused: Some("mixed".into()),
                ..quiet()
            });
            c.decide(Action::Rollback).culprits = vec![pair(None)];
        }),
        ("L8", |c| {
            c.both(|s| {
                s.told.insert(Told::SampleRatio);
            });
            c.decide(Action::Advance);
        }),
        ("L29", |c| {
            c.both(|s| {
                s.fallen.push(Fallen {
                    proven_at: None,
                    ..fallen()
                });
            });
            c.decide(Action::Advance);
        }),
        ("L18", |c| {
            c.judged(Finding {
                any_fail: true,
                ..passing()
            });
            c.decide(Action::Promote);
        }),
    ]
}

/// States that no release may be in, or come to.
fn states() -> Vec<Broken> {
    vec![
        ("L10", |c| c.decide(Action::Escalate).green_ppm = PPM + 1),
        ("L11", |c| {
            let first = c.after.state.splits[0];
            c.after.state.splits.push(first);
        }),
        ("L12", |c| {
            c.after.state.course = Course::RolledBack;
            c.after.state.green_ppm = 50_000;
        }),
        ("L14", |c| c.after.state.horizon_at = Nanos::ZERO),
        ("L15", |c| c.after.state.counted_from -= 1),
        ("L17", |c| c.after.state.phase = Phase::Declared),
        ("L21", |c| c.after.state.winner = Some(Color::Green)),
        ("L22", |c| {
            c.both(|s| s.phase = Phase::Mirroring);
            c.after.state.green_ppm = 50_000;
        }),
        ("L23", |c| {
            c.after.state.muted.push(Muted {
                gate: "p99 latency".into(),
                until: Nanos(i64::MAX),
                actor: "nobody".into(),
                reason: String::new(),
            });
        }),
        ("L25", |c| {
            c.before.fallen.push(fallen());
            c.after.state.fallen.push(Fallen {
                proven_at: None,
                ..fallen()
            });
        }),
        ("L26", |c| c.after.state.baseline = None),
        ("L28", |c| {
            c.event = Event::Delivered {
                decision_id: "dec".into(),
            };
            c.after.state.green_ppm = 1;
        }),
        ("L30", |c| {
            c.before = World::called_back().state;
            c.after.state.effect = None;
        }),
    ]
}

#[test]
fn every_invariant_notices_what_it_forbids() {
    assert_eq!(Case::good().violated(), Vec::<&str>::new());
    let mut covered = Vec::new();
    for (id, spoil) in forbidden() {
        let mut case = Case::good();
        spoil(&mut case);
        let violated = case.violated();
        assert!(violated.contains(&id), "{id} is not noticed: {violated:?}");
        covered.push(id);
    }
    covered.sort_by_key(|id| id[1..].parse::<u32>().unwrap());
    let all: Vec<&str> = INVARIANTS.iter().map(|i| i.id).collect();
    assert_eq!(covered, all);
    assert!(INVARIANTS.iter().all(|i| !i.says.is_empty()));
}

#[test]
fn what_is_allowed_is_not_forbidden() {
    let mut acked = Case::good();
    acked.both(|s| {
        s.phase = Phase::RolledBack;
        s.course = Course::RolledBack;
        s.winner = Some(Color::Blue);
        s.settled = Some(s.opened);
        s.green_ppm = 0;
        s.splits.truncate(1);
        s.effect = None;
    });
    acked.event = Event::Command {
        command: Command::Ack,
        actor: "ada".into(),
        reason: "seen".into(),
    };
    acked.after = step(terms(&acked.spec), &acked.before, &acked.event, acked.now);
    assert!(acked.after.state.acked.is_some());
    assert_eq!(acked.violated(), Vec::<&str>::new());

    let mut burst = Case::good();
    burst.judged(Finding {
        breaker: Breaker::Fired,
        impaired: Some("shed".into()),
        refused: Some("mixed".into()),
        sample_ratio_fired: true,
        ..quiet()
    });
    burst.frozen = Some("quarter end");
    burst.after = step(
        Terms {
            frozen: burst.frozen,
            ..terms(&burst.spec)
        },
        &burst.before,
        &burst.event,
        burst.now,
    );
    assert!(burst.after.decisions.iter().any(|d| d.action == Action::Rollback));
    assert_eq!(burst.violated(), Vec::<&str>::new());
}
