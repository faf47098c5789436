//! The life of a release as a model: random rules and random events in any order, and all invariants after every one.
//!
//! The seed is printed. `TRACEGATE_MODEL_SEED` repeats a run, `TRACEGATE_MODEL_CASES` makes it longer. What fails is
//! shrunk, and told as a story: one line an event.

mod chance;

use super::life::{RESOLUTION, baseline, pair, quiet, terms};
use chance::{Find, Happens, Rules, Traffic, happens, rules};
use gates::{
    judge::PairKey,
    life::{
        Breaker, Command, Event, Finding, Quiet, ReleaseState, Slot, Stepped, Terms, Told,
        invariants::{INVARIANTS, Passage, check},
        step,
    },
};
use proptest::{
    prelude::*,
    test_runner::{RngAlgorithm, TestError, TestRng, TestRunner},
};
use proto::{
    Nanos,
    cell::PPM,
    release::{Mode, ReleaseSpec},
};
use std::{fmt::Write, time::Duration};

/// Slots that a finding shows.
const SLOTS_MAX: usize = 120;

/// A release, and the world around it.
struct Life {
    spec: ReleaseSpec,
    state: ReleaseState,
    now: Nanos,
    frozen: bool,
    decided: usize,
    /// What the gateway sends to green, ppm.
    told: u32,
    traffic: Vec<Slot>,
    /// Seconds without a blue and a green trace.
    silent: (u64, u64),
    last: Option<Event>,
    story: String,
}

impl Life {
    fn begin(rules: &Rules) -> Self {
        let spec = rules.spec();
        let now = Nanos::from_secs(1_000_000);
        let cool_until = rules.cooling.map(|secs| now.plus(Duration::from_secs(secs)));
        let mut state = if rules.observed {
            ReleaseState::open_observed(&spec, now, RESOLUTION)
        } else {
            ReleaseState::open(&spec, now, RESOLUTION, cool_until)
        };
        state.baseline = rules.frozen_thresholds.then(baseline);
        Self {
            told: state.green_ppm,
            spec,
            state,
            now,
            frozen: false,
            decided: 0,
            traffic: Vec::new(),
            silent: (0, 0),
            last: None,
            story: format!("{rules:?}\n"),
        }
    }

    fn secs(&self) -> i64 {
        self.now.0.div_euclid(1_000_000_000)
    }

    fn flow(&mut self, secs: u64, traffic: Traffic) {
        for _ in 0..secs {
            let (all, ppm) = match traffic {
                Traffic::AsTold => (400, self.told),
                Traffic::Green(percent) => (400, u32::from(percent) * 10_000),
                Traffic::None => (0, 0),
            };
            let green = all * i64::from(ppm) / i64::from(PPM);
            let blue = all - green;
            self.traffic.push(Slot {
                at: self.secs(),
                blue,
                green,
            });
            self.silent.0 = if blue > 0 { 0 } else { self.silent.0 + 1 };
            self.silent.1 = if green > 0 { 0 } else { self.silent.1 + 1 };
            self.now = self.now.plus(Duration::from_secs(1));
        }
        // a clock set back makes traffic of a past that was there already
        self.traffic.sort_by_key(|s| s.at);
        let excess = self.traffic.len().saturating_sub(SLOTS_MAX);
        self.traffic.drain(..excess);
    }

    fn finding(&self, finds: &[Find]) -> Finding {
        let has = |f: Find| finds.contains(&f);
        let of = |cohort: &str| PairKey {
            gate: "task completion".into(),
            cohort: Some(cohort.into()),
        };
        let mut fallbacks = Vec::new();
        fallbacks.extend(has(Find::FallbackOverall).then(|| pair(None)));
        fallbacks.extend(has(Find::FallbackOfA).then(|| of("a")));
        fallbacks.extend(has(Find::FallbackOfB).then(|| of("b")));
        let mut holds = Vec::new();
        holds.extend(has(Find::Hold).then(|| pair(None)));
        holds.extend(has(Find::HoldOfA).then(|| of("a")));
        let enough = if has(Find::FewTraces) { 3 } else { 1_000 };
        let fallen = |cohort: &str| {
            let green = if has(Find::FallenStay) { 9 } else { 0 };
            let slots = self.traffic.iter().rev().take(20).rev();
            let slots = slots
                .map(|s| Slot {
                    at: s.at,
                    blue: 30,
                    green,
                })
                .collect();
            (cohort.to_owned(), slots)
        };
        Finding {
            passes: has(Find::Passes),
            any_fail: has(Find::Fails),
            rollback: has(Find::Rollback).then(|| vec![pair(None)]),
            fallbacks,
            holds,
            split_unknown: has(Find::SplitUnknown),
            sample_ratio_suspended: has(Find::Suspended) || has(Find::SampleRatio),
            sample_ratio_fired: has(Find::SampleRatio),
            breaker: match (has(Find::BreakerFires), has(Find::CommonOutage)) {
                (true, _) => Breaker::Fired,
                (_, true) => Breaker::CommonOutage,
                _ => Breaker::Quiet,
            },
            n_blue: enough,
            n_green: enough,
            n_green_step: enough,
            n_pairs: if has(Find::FewPairs) { 3 } else { 500 },
            refused: has(Find::Refused).then(|| "mixed manifests".into()),
            impaired: has(Find::Impaired).then(|| "shed".into()),
            obstacle: has(Find::Obstacle).then(|| "unmarked".into()),
            quiet: Quiet {
                blue_secs: if has(Find::NoBlue) { 900 } else { self.silent.0 },
                green_secs: if has(Find::NoGreen) { 900 } else { self.silent.1 },
            },
            traffic: self.traffic.clone(),
            fallen: self.state.fallen.iter().map(|c| fallen(&c.cohort)).collect(),
            ..quiet()
        }
    }

    fn live(&mut self, happening: &Happens) -> Result<(), String> {
        let event = match happening {
            Happens::Judged(secs, traffic, finds) => {
                self.flow(*secs, *traffic);
                Event::Judged(Box::new(self.finding(finds)))
            }
            Happens::Again => match self.last.clone() {
                Some(event) => event,
                None => return Ok(()),
            },
            Happens::Delivered => Event::Delivered {
                decision_id: self
                    .state
                    .effect
                    .as_ref()
                    .and_then(|e| e.decision_id.clone())
                    .unwrap_or_default(),
            },
            Happens::Undelivered if self.decided == 0 => return Ok(()),
            Happens::Undelivered => Event::Undelivered {
                decision_id: "dec_1".into(),
                error: "gone".into(),
            },
            Happens::Orders(command) => ordered(command.clone()),
            Happens::Mutes(gate, secs) => ordered(Command::Mute {
                gate: (*gate).into(),
                until: Nanos(self.now.0 + secs * 1_000_000_000),
            }),
            Happens::Closed => Event::Closed {
                reason: "one path is left".into(),
            },
            around => {
                self.turn(around);
                return Ok(());
            }
        };
        let after = self.pass(&event)?;
        let actions: Vec<&str> = after.decisions.iter().map(|d| d.action.as_str()).collect();
        writeln!(
            self.story,
            "    > {:?} {:?}, step {:?}, {} ppm {actions:?} {}",
            after.state.phase,
            after.state.course,
            after.state.step,
            after.state.green_ppm,
            after.refused.as_deref().unwrap_or(&after.waiting),
        )
        .map_err(|e| e.to_string())?;
        self.obey(after);
        self.last = Some(event);
        Ok(())
    }

    /// What happens around a release, not to it.
    fn turn(&mut self, happening: &Happens) {
        match happening {
            Happens::ThresholdsFrozen if self.state.baseline.is_none() => self.state.baseline = Some(baseline()),
            Happens::Restart => self.last = None,
            Happens::Freeze(on) => self.frozen = *on,
            Happens::Clock(secs) => self.now = Nanos(self.now.0 + secs * 1_000_000_000),
            _ => {}
        }
    }

    /// One event through the state machine, held against every invariant; the state survives being stored.
    fn pass(&self, event: &Event) -> Result<Stepped, String> {
        let terms = Terms {
            frozen: self.frozen.then_some("quarter end"),
            ..terms(&self.spec)
        };
        let after = step(terms, &self.state, event, self.now);
        let violated = check(&Passage {
            terms,
            before: &self.state,
            event,
            now: self.now,
            after: &after,
        });
        if let Some(id) = violated.first() {
            let says = INVARIANTS.iter().find(|i| i.id == *id).map_or("", |i| i.says);
            return Err(format!("{violated:?} broken, {id}: {says}\n{:?}", after.state));
        }
        let stored = serde_json::to_string(&after.state).map_err(|e| e.to_string())?;
        let read: ReleaseState = serde_json::from_str(&stored).map_err(|e| e.to_string())?;
        if read == after.state {
            Ok(after)
        } else {
            Err(format!("read back it is another state: {stored}"))
        }
    }

    /// As the desk and the gateway do.
    fn obey(&mut self, after: Stepped) {
        self.state = after.state;
        for decision in &after.decisions {
            self.decided += 1;
            let id = format!("dec_{}", self.decided);
            if let Some(effect) = self.state.effect.as_mut().filter(|e| e.decision_id.is_none()) {
                effect.decision_id = Some(id.clone());
            }
            self.state.last_decision = Some((id, self.decided as i64));
            if decision.notified {
                self.told = decision.green_ppm;
            }
        }
    }
}

fn ordered(command: Command) -> Event {
    Event::Command {
        command,
        actor: "ada".into(),
        reason: "because".into(),
    }
}

fn live(rules: &Rules, events: &[Happens], seen: &mut Seen) -> Result<(), String> {
    let mut life = Life::begin(rules);
    for happening in events {
        let from = life.secs() - 1_000_000;
        let _ = writeln!(life.story, "{from:>7} s  {happening:?}");
        life.live(happening)
            .map_err(|broken| format!("{broken}\n\n{}", life.story))?;
        seen.phases.insert(life.state.phase.as_str());
    }
    if rules.mode == Mode::Act && !rules.observed {
        comes_to_an_end(&mut life).map_err(|stuck| format!("{stuck}\n\n{}", life.story))?;
    }
    Ok(())
}

/// Whatever happened before: when all is well at last, a release that acts ends, or says whom it waits for.
fn comes_to_an_end(life: &mut Life) -> Result<(), String> {
    life.state.baseline.get_or_insert_with(baseline);
    let mut well = vec![Happens::Freeze(false), Happens::Orders(Command::Resume)];
    well.extend((0..150).map(|_| Happens::Judged(120, Traffic::AsTold, vec![Find::Passes])));
    for happening in &well {
        if life.state.phase.is_over() {
            return Ok(());
        }
        life.live(happening)?;
    }
    let asked = [
        Told::SampleRatio,
        Told::Approval,
        Told::Rest,
        Told::Horizon,
        Told::MovedAway,
    ];
    if life.state.phase.is_over() || asked.iter().any(|t| life.state.told.contains(t)) {
        return Ok(());
    }
    Err(format!("all is well, and yet it does not end\n{:?}", life.state))
}

/// What a run came across: a model that never promotes proves little.
#[derive(Default)]
struct Seen {
    phases: std::collections::BTreeSet<&'static str>,
}

fn from_env(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap())
}

#[test]
#[allow(clippy::print_stdout)] // a random test always tells its seed
fn whatever_happens_no_invariant_breaks() {
    let seed = from_env("TRACEGATE_MODEL_SEED").unwrap_or_else(rand::random);
    let cases = from_env("TRACEGATE_MODEL_CASES").unwrap_or(300);
    println!("seed {seed}, {cases} cases");
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = ProptestConfig {
        cases: u32::try_from(cases).unwrap(),
        failure_persistence: None,
        max_shrink_iters: 20_000,
        ..ProptestConfig::default()
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
    let seen = std::cell::RefCell::new(Seen::default());
    let sequences = (rules(), prop::collection::vec(happens(), 1..150));
    let outcome = runner.run(&sequences, |(rules, events)| {
        live(&rules, &events, &mut seen.borrow_mut()).map_err(TestCaseError::fail)
    });
    match outcome {
        Ok(()) => {}
        Err(TestError::Fail(why, _)) => panic!("seed {seed}: {why}"),
        Err(TestError::Abort(why)) => panic!("seed {seed}: given up: {why}"),
    }
    let phases = seen.into_inner().phases;
    assert_eq!(phases.len(), 8, "only {phases:?} were ever reached; seed {seed}");
}
