//! The life of a release, course by course, with a gateway that does as it is told.

use super::check::GOOD;
use gates::{
    judge::PairKey,
    ledger::Actor,
    life::{Breaker, Command, Course, Event, Finding, ReleaseState, Slot, Stepped, Terms, step},
};
use proto::{
    Nanos,
    cell::PPM,
    decision::{Action, Phase, Verdict},
    release::{Mode, ReleaseSpec},
};
use std::time::Duration;

pub const RESOLUTION: Duration = Duration::from_secs(1);

pub fn spec(mode: Mode) -> ReleaseSpec {
    let mut spec = gates::check::check(GOOD, "good").releases.remove(0);
    spec.mode = mode;
    spec.warmup = Duration::from_secs(5);
    spec.timeout = Duration::from_secs(2);
    spec.grace = Duration::from_secs(1);
    for step in &mut spec.steps {
        step.min = Duration::from_secs(5);
    }
    spec.min_traces = 100;
    spec.horizon = Duration::from_secs(3_600);
    spec
}

pub fn terms(spec: &ReleaseSpec) -> Terms<'_> {
    Terms {
        spec,
        resolution: RESOLUTION,
        effect_deadline: Duration::from_secs(30),
        frozen: None,
    }
}

pub fn baseline() -> gates::judge::Baseline {
    gates::judge::Baseline {
        gates: Default::default(),
        attempt_error: None,
        frozen_at: Nanos::ZERO,
        source: "test".into(),
    }
}

pub fn pair(cohort: Option<&str>) -> PairKey {
    PairKey {
        gate: "p99 latency".into(),
        cohort: cohort.map(str::to_owned),
    }
}

pub fn quiet() -> Finding {
    Finding {
        rollback: None,
        fallbacks: Vec::new(),
        holds: Vec::new(),
        any_fail: false,
        passes: false,
        split_unknown: false,
        sample_ratio_suspended: false,
        sample_ratio_fired: false,
        breaker: Breaker::Quiet,
        n_blue: 1_000,
        n_green: 1_000,
        n_green_step: 1_000,
        reason: "evidence below both thresholds".into(),
        refused: None,
        n_pairs: 0,
        quiet: gates::life::Quiet::default(),
        fallen: vec![],
        impaired: None,
        obstacle: None,
        traffic: Vec::new(),
    }
}

/// A release on its way, with a gateway that does as it is told.
pub struct World {
    pub spec: ReleaseSpec,
    pub state: ReleaseState,
    pub now: Nanos,
    pub decided: Vec<(Action, Actor)>,
    /// Reasons of the decisions.
    pub said: Vec<String>,
    pub obeys: bool,
    pub green_ppm: u32,
    pub traffic: Vec<Slot>,
    pub frozen: Option<&'static str>,
}

impl World {
    pub fn new(mode: Mode) -> Self {
        Self::of(spec(mode))
    }

    pub fn of(spec: ReleaseSpec) -> Self {
        let now = Nanos::from_secs(1_000_000);
        let mut state = ReleaseState::open(&spec, now, RESOLUTION, None);
        state.baseline = Some(baseline());
        Self {
            green_ppm: state.green_ppm,
            spec,
            state,
            now,
            decided: Vec::new(),
            said: Vec::new(),
            obeys: true,
            traffic: Vec::new(),
            frozen: None,
        }
    }

    pub fn event(&mut self, event: &Event) -> Stepped {
        let terms = Terms {
            frozen: self.frozen,
            ..terms(&self.spec)
        };
        let out = step(terms, &self.state, event, self.now);
        self.state = out.state.clone();
        for d in &out.decisions {
            self.decided.push((d.action, d.actor.clone()));
            self.said.push(d.reason.clone());
            if self.obeys && d.notified {
                self.green_ppm = d.green_ppm;
            }
        }
        if let Some(effect) = &mut self.state.effect
            && effect.decision_id.is_none()
        {
            effect.decision_id = Some(format!("dec_{}", self.decided.len()));
        }
        out
    }

    /// One second of traffic, then a judgement.
    pub fn second(&mut self, mut finding: Finding) -> Stepped {
        let at = self.now.0 / 1_000_000_000;
        let green = i64::from(self.green_ppm) * 300 / i64::from(PPM);
        self.traffic.push(Slot {
            at,
            blue: 300 - green,
            green,
        });
        self.now = self.now.plus(Duration::from_secs(1));
        finding.traffic = self.traffic.clone();
        self.event(&Event::Judged(Box::new(finding)))
    }

    pub fn seconds(&mut self, n: usize, finding: &Finding) {
        for _ in 0..n {
            self.second(finding.clone());
        }
    }

    pub fn command(&mut self, command: Command) -> Stepped {
        self.event(&Event::Command {
            command,
            actor: "ada".into(),
            reason: "because".into(),
        })
    }

    /// An advance that the gateway never took, and that a person holds.
    pub fn called_back() -> Self {
        let mut w = Self::new(Mode::Act);
        w.obeys = false;
        w.seconds(8, &quiet());
        assert_eq!(w.actions(), [Action::Advance]);
        w.command(Command::Hold);
        w
    }

    pub fn actions(&self) -> Vec<Action> {
        self.decided.iter().map(|(a, _)| *a).collect()
    }
}

#[test]
fn a_good_green_walks_the_steps_is_promoted_and_settles() {
    let mut w = World::new(Mode::Act);
    w.seconds(4, &quiet());
    assert_eq!(w.state.phase, Phase::Declared);
    w.seconds(40, &quiet());
    assert_eq!(w.state.phase, Phase::Canary);
    assert_eq!(w.actions(), [Action::Advance, Action::Advance]);
    assert_eq!(w.state.green_ppm, 250_000);
    let good = Finding {
        passes: true,
        ..quiet()
    };
    w.seconds(20, &good);
    assert_eq!(
        w.actions(),
        [Action::Advance, Action::Advance, Action::Promote, Action::Settle]
    );
    assert_eq!(w.state.phase, Phase::Settled);
    assert_eq!(w.state.winner, Some(proto::Color::Green));
    // what started while traffic moved belongs to no split, and each split begins later than its notice
    let named: Vec<Option<u32>> = w.state.splits.iter().map(|s| s.1).collect();
    assert_eq!(
        named,
        [Some(0), None, Some(50_000), None, Some(250_000), None, Some(PPM)]
    );
}

#[test]
fn a_bad_green_is_rolled_back_once_and_the_effect_is_proven() {
    let mut w = World::new(Mode::Act);
    w.seconds(9, &quiet());
    let bad = Finding {
        rollback: Some(vec![pair(None)]),
        any_fail: true,
        ..quiet()
    };
    let out = w.second(bad.clone());
    assert_eq!(out.verdict, Verdict::Fail);
    assert_eq!(w.state.course, Course::RolledBack);
    assert_eq!(w.state.active_color(), proto::Color::Blue);
    assert_ne!(w.state.phase, Phase::RolledBack, "said is not done");
    w.seconds(10, &bad);
    assert_eq!(w.actions(), [Action::Advance, Action::Rollback, Action::Settle]);
    assert_eq!(w.state.phase, Phase::RolledBack);
}

#[test]
fn a_gateway_that_says_yes_and_does_nothing_is_escalated_within_its_deadline() {
    let mut w = World::new(Mode::Act);
    w.seconds(9, &quiet());
    w.obeys = false;
    let bad = Finding {
        rollback: Some(vec![pair(None)]),
        ..quiet()
    };
    w.second(bad.clone());
    let decision_id = w.state.effect.clone().unwrap().decision_id.unwrap();
    w.event(&Event::Delivered { decision_id });
    w.seconds(29, &bad);
    assert!(!w.actions().contains(&Action::Escalate));
    w.seconds(60, &bad);
    assert_eq!(w.actions(), [Action::Advance, Action::Rollback, Action::Escalate]);
    // and it is still watched: when the traffic moves at last, the release is over
    w.green_ppm = 0;
    w.seconds(3, &bad);
    assert_eq!(w.state.phase, Phase::RolledBack);
}

#[test]
fn a_small_step_that_is_still_served_is_no_straggler() {
    let mut rules = spec(Mode::Act);
    rules.steps[0].green = 0.01;
    let mut w = World::of(rules);
    w.seconds(9, &quiet());
    assert_eq!((w.state.phase, w.green_ppm), (Phase::Canary, 10_000));
    w.obeys = false;
    w.command(Command::Rollback);
    w.seconds(60, &quiet());
    assert_eq!(w.actions(), [Action::Advance, Action::Rollback, Action::Escalate]);
    w.green_ppm = 0;
    w.seconds(3, &quiet());
    assert_eq!(w.state.phase, Phase::RolledBack);
}

#[test]
fn advice_moves_nothing_and_is_given_once() {
    let mut w = World::new(Mode::Advise);
    w.seconds(40, &quiet());
    assert_eq!(w.actions(), [Action::Advance]);
    assert_eq!(w.state.green_ppm, 50_000, "a person has not followed it");
    w.command(Command::Advance);
    w.seconds(10, &quiet());
    assert_eq!(w.state.green_ppm, 250_000);
    let bad = Finding {
        rollback: Some(vec![pair(None)]),
        ..quiet()
    };
    w.seconds(200, &bad);
    assert_eq!(w.actions(), [Action::Advance, Action::Advance, Action::Rollback]);
    w.command(Command::Rollback);
    w.seconds(5, &bad);
    assert_eq!(w.state.phase, Phase::RolledBack);
}

#[test]
fn a_wrong_sample_ratio_decides_nothing_and_tells_people_once() {
    let mut w = World::new(Mode::Act);
    w.seconds(9, &quiet());
    let off = Finding {
        sample_ratio_fired: true,
        sample_ratio_suspended: true,
        rollback: Some(vec![pair(None)]),
        passes: true,
        ..quiet()
    };
    w.seconds(20, &off);
    let verdict = w.second(quiet()).verdict;
    assert_eq!(verdict, Verdict::Inconclusive);
    w.seconds(20, &quiet());
    assert_eq!(w.actions(), [Action::Advance, Action::Escalate]);
}

#[test]
fn a_common_outage_holds_and_pages_and_green_alone_failing_rolls_back() {
    let mut w = World::new(Mode::Act);
    w.seconds(9, &quiet());
    let both = Finding {
        breaker: Breaker::CommonOutage,
        ..quiet()
    };
    w.seconds(5, &both);
    assert_eq!(w.actions(), [Action::Advance, Action::Hold, Action::Escalate]);
    let fired = Finding {
        breaker: Breaker::Fired,
        impaired: Some("ingest is shedding".into()),
        ..quiet()
    };
    w.second(fired.clone());
    let last = w.actions().last().copied();
    assert_eq!(
        last,
        Some(Action::Escalate),
        "what is left of a common outage is no news about green"
    );

    let mut alone = World::new(Mode::Act);
    alone.seconds(9, &quiet());
    alone.second(fired);
    assert_eq!(alone.actions().last(), Some(&Action::Rollback));
}

#[test]
fn a_rollback_that_no_span_can_prove_is_closed_by_a_person() {
    let mut w = World::new(Mode::Act);
    w.seconds(9, &quiet());
    w.command(Command::Rollback);
    assert_eq!(w.state.phase, Phase::Canary, "not proven yet");
    w.command(Command::Rollback);
    assert_eq!(w.state.phase, Phase::RolledBack);
}

#[test]
fn the_horizon_follows_the_policy() {
    for (policy, expected) in [
        (proto::release::NoData::Hold, vec![Action::Hold, Action::Escalate]),
        (proto::release::NoData::Fail, vec![Action::Rollback]),
        (proto::release::NoData::Extend, vec![]),
    ] {
        let mut w = World::new(Mode::Act);
        w.spec.no_data = policy;
        w.seconds(40, &quiet());
        let before = w.decided.len();
        w.now = w.now.plus(Duration::from_secs(3_600));
        w.second(quiet());
        assert_eq!(&w.actions()[before..], expected, "{policy:?}");
    }
}

#[test]
fn a_fallen_cohort_falls_once_and_the_rest_goes_on() {
    let mut w = World::new(Mode::Act);
    w.seconds(9, &quiet());
    let bad = Finding {
        fallbacks: vec![pair(Some("enterprise"))],
        any_fail: true,
        ..quiet()
    };
    w.seconds(3, &bad);
    assert_eq!(w.actions(), [Action::Advance, Action::Fallback]);
    assert_eq!(w.state.fallen[0].cohort, "enterprise");
    assert_eq!(w.state.green_ppm, 50_000);
}

#[test]
fn a_promotion_waits_for_approval_traces_and_a_clear_view() {
    let mut w = World::new(Mode::Act);
    w.spec.approval = proto::release::Approval::Promote;
    w.seconds(40, &quiet());
    let good = Finding {
        passes: true,
        ..quiet()
    };
    let few = Finding {
        n_green: 99,
        ..good.clone()
    };
    let unmarked = Finding {
        obstacle: Some("unmarked: 9.0 % of traces have no color".into()),
        ..good.clone()
    };
    assert!(w.second(few).waiting.contains("99 green of 100"));
    assert!(w.second(unmarked).waiting.contains("unmarked"));
    w.seconds(5, &good);
    assert_eq!(w.actions(), [Action::Advance, Action::Advance, Action::Escalate]);
    w.command(Command::Promote);
    w.seconds(10, &quiet());
    assert_eq!(w.state.phase, Phase::Settled);
}

#[test]
fn a_late_regression_is_rolled_back_after_the_cutover() {
    let mut w = World::new(Mode::Act);
    w.seconds(40, &quiet());
    let good = Finding {
        passes: true,
        ..quiet()
    };
    w.seconds(4, &good);
    assert_eq!(w.state.phase, Phase::Watching);
    let bad = Finding {
        rollback: Some(vec![pair(None)]),
        ..quiet()
    };
    w.seconds(6, &bad);
    assert_eq!(w.state.phase, Phase::RolledBack);
    assert_eq!(w.state.winner, Some(proto::Color::Blue));
    let told: Vec<&String> = w.said.iter().filter(|s| s.contains("see that it is alive")).collect();
    assert_eq!(told.len(), 1, "blue had served nothing: {:?}", w.said);
}
