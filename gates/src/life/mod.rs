//! The life of a release as a pure state machine.
//!
//! ```text
//! declared > mirroring > canary > cutover > watching > settled | rolled back        observed > settled, without a winner
//! ```
//!
//! [`step`] takes a state, one event and the time, and returns the next state and what was decided. It does no IO and
//! reads no clock, so the same code runs live, after a restart, in a backtest and under the model test.
//!
//! What never happens here: a decision by tracegate while a person's decision is latched; a promotion after a rollback; a
//! second rollback; a decision without judged cells behind it; traffic believed to have moved because somebody said so.
//! [`invariants`] says all of it as predicates.
//!
//! # A cohort that fell back
//!
//! From its fallback on a cohort is out of the release: it is no longer split, so its traces would only look like a wrong
//! sample ratio, and what it showed before stands still for ever. New spans must show that it is back on blue; until they
//! do nothing moves. Then the ramp goes on for the rest. tracegate does not promote the rest by itself, though: promotion
//! says "green becomes blue", and for one cohort it just found the opposite. Whether a route is to stay on two paths is for
//! a person to say, who is asked once, at the end of the ramp. If they promote, green takes what is not held on blue, and
//! that much must show.

mod command;
mod effect;
mod event;
mod fallen;
pub mod invariants;
mod movement;
mod silence;
mod state;
mod trial;

pub use event::{Breaker, Command, DecisionDraft, Event, Finding, Quiet, Slot, Stepped};
pub use state::{Acked, Course, Effect, Fallen, Latch, Muted, ReleaseState, Silence, Told, slot_after};

use crate::{judge::PairKey, ledger::Actor};
use proto::{
    Nanos,
    decision::{Action, Phase, Verdict},
    release::{Mode, ReleaseSpec},
};
use std::time::Duration;

/// What holds for the whole life of a release.
#[derive(Debug, Clone, Copy)]
pub struct Terms<'a> {
    /// The rules.
    pub spec: &'a ReleaseSpec,
    /// Width of a cell's minute.
    pub resolution: Duration,
    /// How long a movement may take to show in new spans before people are told.
    pub effect_deadline: Duration,
    /// Why nothing may be advanced or promoted now (a freeze), in words.
    pub frozen: Option<&'a str>,
}

/// One event.
#[must_use]
pub fn step(terms: Terms<'_>, state: &ReleaseState, event: &Event, now: Nanos) -> Stepped {
    let mut turn = Turn {
        terms,
        state: state.clone(),
        now,
        decisions: Vec::new(),
        waiting: String::new(),
        refused: None,
        verdict: Verdict::Inconclusive,
    };
    turn.react(event);
    turn.verdict = turn.latched_verdict(event);
    Stepped {
        // a refused command changes nothing
        state: if turn.refused.is_some() {
            state.clone()
        } else {
            turn.state
        },
        decisions: turn.decisions,
        refused: turn.refused,
        waiting: turn.waiting,
        verdict: turn.verdict,
    }
}

struct Turn<'a> {
    terms: Terms<'a>,
    state: ReleaseState,
    now: Nanos,
    decisions: Vec<DecisionDraft>,
    waiting: String,
    refused: Option<String>,
    verdict: Verdict,
}

impl Turn<'_> {
    fn react(&mut self, event: &Event) {
        if self.state.phase.is_over() {
            if let Event::Command { command, actor, .. } = event {
                self.command_when_over(command, actor);
            }
            return;
        }
        let now = self.now;
        self.state.muted.retain(|m| now < m.until);
        match event {
            Event::Command { command, actor, reason } => self.command(command, actor, reason),
            Event::Closed { reason } => self.closed(reason),
            // what nobody declared is judged and shown
            Event::Judged(finding) if self.state.phase == Phase::Observed => self.wait(finding.reason.clone()),
            _ if self.state.phase == Phase::Observed => {}
            Event::Judged(finding) => self.judged(finding),
            Event::Delivered { decision_id } => self.delivered(decision_id),
            Event::Undelivered { decision_id, error } => self.undelivered(decision_id, error),
        }
    }

    fn closed(&mut self, reason: &str) {
        if self.state.phase == Phase::Observed {
            self.state.phase = Phase::Settled;
            self.state.settled = Some(self.now.max(self.state.opened));
            self.state.closed = Some(reason.to_owned());
        }
    }

    fn draft(&mut self, action: Action, reason: impl Into<String>, culprits: &[PairKey]) {
        let notified = self.terms.spec.mode == Mode::Act;
        let cool_down = self.terms.spec.cool_down;
        if matches!(action, Action::Fallback | Action::Hold) && !cool_down.is_zero() {
            self.state.cool_until = self.state.cool_until.max(Some(self.now.plus(cool_down)));
        }
        self.decisions.push(DecisionDraft {
            action,
            cohort: None,
            green_ppm: self.state.green_ppm,
            reason: reason.into(),
            actor: Actor::Engine,
            culprits: culprits.to_vec(),
            notified,
        });
    }

    /// Tells people, once.
    fn tell(&mut self, what: Told, reason: impl Into<String>) {
        if self.state.told.insert(what) {
            self.draft(Action::Escalate, reason, &[]);
        }
    }

    fn wait(&mut self, why: impl Into<String>) {
        if self.waiting.is_empty() {
            self.waiting = why.into();
        }
    }

    fn judged(&mut self, f: &Finding) {
        if self.terms.spec.mode == Mode::Observe {
            self.observe_only(f);
            return;
        }
        // once rolled back, the ratio is meant to be off
        if f.sample_ratio_fired && self.state.course != Course::RolledBack {
            self.tell(
                Told::SampleRatio,
                "sample ratio: traffic is not split as declared, so nothing can be concluded",
            );
        }
        self.watch_effect(f);
        if self.state.phase.is_over() {
            return;
        }
        self.watch_fallen(f);
        if matches!(self.state.course, Course::RolledBack | Course::AdvisedRollback) {
            self.wait("rolled back; waiting until no new trace is green");
            return;
        }
        if let Some(latch) = self.state.latch.clone() {
            let alarm = f.rollback.is_some() || f.breaker == Breaker::Fired;
            if alarm && self.state.phase != Phase::Declared {
                self.tell(
                    Told::Overruled,
                    format!(
                        "the evidence says roll back, but {} decided {}: a person must look",
                        latch.actor,
                        latch.action.as_str()
                    ),
                );
            }
            self.wait(format!("{} decided {}", latch.actor, latch.action.as_str()));
            return;
        }
        match self.state.phase {
            Phase::Declared => self.declared(f),
            _ => self.on_trial(f),
        }
        if self.state.course == Course::RolledBack && !self.state.phase.is_over() {
            self.doubt_blue(f);
        }
        self.say_frozen();
    }

    /// Whatever else it waits for: while a freeze lasts it would not go on.
    fn say_frozen(&mut self) {
        let ahead = matches!(self.state.phase, Phase::Declared | Phase::Mirroring | Phase::Canary);
        let Some(why) = self
            .terms
            .frozen
            .filter(|_| ahead && self.state.course == Course::Trial)
        else {
            return;
        };
        if self.waiting.is_empty() {
            self.waiting = format!("frozen: {why}");
        } else if !self.waiting.starts_with("frozen: ") {
            self.waiting = format!("{}; frozen: {why}", self.waiting);
        }
    }

    fn observe_only(&mut self, f: &Finding) {
        let waits = self.state.phase == Phase::Declared && self.state.course == Course::Trial;
        if waits && self.state.baseline.is_some() {
            self.begin();
        }
        self.watch_effect(f);
        self.wait(f.reason.clone());
    }

    fn declared(&mut self, f: &Finding) {
        if self.state.baseline.is_none() {
            self.wait(if f.reason.is_empty() {
                "warming up: blue's thresholds are not frozen yet".to_owned()
            } else {
                f.reason.clone()
            });
            self.horizon(f);
            return;
        }
        let warm = self.state.opened.plus(self.terms.spec.warmup);
        if self.now < warm {
            self.wait(format!("warming up for another {}", rest(warm.since(self.now))));
            return;
        }
        if let Some(why) = &f.impaired {
            self.wait(why.clone());
        } else if self.terms.spec.mirror.is_some() || self.terms.spec.mode != Mode::Act {
            self.begin();
        } else if !self.doubtful(f) && !self.blocked(f) && self.may_move() {
            self.advance_to(0, Actor::Engine, "warm-up over, thresholds frozen".to_owned());
        }
    }

    /// From the warm-up to what comes first without moving any traffic: mirroring, or the step that people have set up.
    fn begin(&mut self) {
        if self.terms.spec.mirror.is_some() {
            self.state.phase = Phase::Mirroring;
            self.state.mirroring_since = Some(self.now);
            // what was mirrored before the thresholds were frozen may have shaped them
            let slot = slot_after(self.now, self.terms.resolution);
            self.state.counted_from = self.state.counted_from.max(slot);
        } else {
            self.state.phase = Phase::Canary;
            self.state.stepped_at = Some(self.now);
        }
    }

    fn latched_verdict(&self, event: &Event) -> Verdict {
        if self.state.course == Course::RolledBack {
            return Verdict::Fail;
        }
        if let Some(latch) = &self.state.latch {
            return match latch.action {
                Action::Promote => Verdict::Pass,
                Action::Rollback => Verdict::Fail,
                _ => Verdict::Inconclusive,
            };
        }
        match (self.state.course, event) {
            (Course::AdvisedRollback, _) => Verdict::Fail,
            _ if self.state.told.contains(&Told::SampleRatio) => Verdict::Inconclusive,
            (Course::Promoted | Course::AdvisedPromote, _) => Verdict::Pass,
            (Course::Trial, Event::Judged(f)) => {
                let doubtful = f.impaired.is_some()
                    || f.refused.is_some()
                    || f.sample_ratio_suspended
                    || self.state.silence.is_some();
                if doubtful {
                    Verdict::Inconclusive
                } else if f.rollback.is_some() {
                    Verdict::Fail
                } else if f.passes && !f.any_fail && f.obstacle.is_none() {
                    Verdict::Pass
                } else {
                    Verdict::Inconclusive
                }
            }
            _ => Verdict::Inconclusive,
        }
    }
}

/// `p99 latency, cost per trace (enterprise)`.
#[must_use]
pub fn named(pairs: &[PairKey]) -> String {
    let words: Vec<String> = pairs
        .iter()
        .map(|p| match &p.cohort {
            Some(cohort) => format!("{} ({cohort})", p.gate),
            None => p.gate.to_string(),
        })
        .collect();
    words.join(", ")
}

/// What is left of a time, in whole seconds.
fn rest(left: Duration) -> humantime::FormattedDuration {
    humantime::format_duration(Duration::from_secs(left.as_secs() + 1))
}
