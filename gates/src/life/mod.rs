//! The life of a release as a pure state machine: declared, canary, cutover, watching, settled or rolled back.
//!
//! [`step`] takes a state, one event and the time, and returns the next state and what was decided. It does no IO and
//! reads no clock, so the same code runs live, after a restart, in a backtest and under the model test.
//!
//! What never happens here: a decision by tracegate while a person's decision is latched; a promotion after a rollback; a
//! second rollback; a decision without judged cells behind it; traffic believed to have moved because somebody said so.

mod command;
mod effect;
mod event;
mod movement;
mod state;

pub use event::{Breaker, Command, DecisionDraft, Event, Finding, Quiet, Slot, Stepped};
pub use state::{Course, Effect, Fallen, Latch, ReleaseState, Told, slot_after};

use crate::{judge::PairKey, ledger::Actor};
use proto::{
    Nanos,
    cell::PPM,
    decision::{Action, Phase, Verdict},
    release::{Approval, Mode, NoData, ReleaseSpec},
};
use std::time::Duration;

/// Green traces that a step must have shown before the next one, unless `min_traces` is smaller.
pub const STEP_TRACES_MIN: i64 = 30;

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
    if !turn.state.phase.is_over() {
        match event {
            Event::Judged(finding) => turn.judged(finding),
            Event::Delivered { decision_id } => turn.delivered(decision_id),
            Event::Undelivered { decision_id, error } => turn.undelivered(decision_id, error),
            Event::Command { command, actor, reason } => turn.command(*command, actor, reason),
        }
    } else if let Event::Command { command, .. } = event {
        turn.refused = Some(format!(
            "cannot {}: the release is over ({})",
            command.as_str(),
            turn.state.phase.as_str()
        ));
    }
    turn.verdict = turn.latched_verdict(event);
    Stepped {
        state: turn.state,
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
    fn draft(&mut self, action: Action, reason: impl Into<String>, culprits: &[PairKey]) {
        let notified = self.terms.spec.mode == Mode::Act;
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
    }

    fn observe_only(&mut self, f: &Finding) {
        if self.state.phase == Phase::Declared && self.state.baseline.is_some() {
            self.state.phase = Phase::Canary;
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
            self.wait(format!(
                "warming up for another {}",
                humantime::format_duration(Duration::from_secs(warm.since(self.now).as_secs() + 1))
            ));
            return;
        }
        if self.terms.spec.mode == Mode::Act {
            if let Some(why) = &f.impaired {
                self.wait(why.clone());
                return;
            }
            if self.blocked(f) {
                return;
            }
            self.advance_to(0, Actor::Engine, "warm-up over, thresholds frozen".to_owned());
        } else {
            self.state.phase = Phase::Canary;
            self.state.stepped_at = Some(self.now);
        }
    }

    fn on_trial(&mut self, f: &Finding) {
        match f.breaker {
            // after a common outage one arm's evidence fades before the other's: that is no news about green
            Breaker::Fired if self.state.told.contains(&Told::CommonOutage) => {}
            Breaker::Fired => {
                self.roll_back("the breaker: green's calls fail far above the limit", &[]);
                return;
            }
            Breaker::CommonOutage if !self.state.told.contains(&Told::CommonOutage) => {
                let why = "calls fail in both colors: a common outage";
                self.state.held = Some(why.to_owned());
                self.draft(Action::Hold, why, &[]);
                self.tell(Told::CommonOutage, why);
            }
            _ => {}
        }
        if let Some(why) = &f.impaired {
            self.wait(why.clone());
            return;
        }
        if f.sample_ratio_fired || self.state.told.contains(&Told::SampleRatio) {
            self.wait("sample_ratio: traffic is not split as declared");
            return;
        }
        if f.sample_ratio_suspended {
            self.wait("sample_ratio: suspended until the observed split fits the declared one");
            self.horizon(f);
            return;
        }
        if self.comes_in() {
            self.wait("traffic is moving: waiting for new spans to show it");
            return;
        }
        if f.split_unknown && self.terms.spec.mode == Mode::Act {
            self.wait("no admitted trace has a known split yet");
            self.horizon(f);
            return;
        }
        if let Some(culprits) = &f.rollback {
            let why = format!("worse than the margin: {}", named(culprits));
            self.roll_back(&why, culprits);
            return;
        }
        self.fall_back(f);
        self.hold(f);
        if self.horizon(f) || self.blocked(f) {
            return;
        }
        if self.state.phase == Phase::Canary {
            self.onward(f);
        }
    }

    /// True if the horizon has come and the policy left nothing more to do.
    fn horizon(&mut self, f: &Finding) -> bool {
        let early = matches!(self.state.phase, Phase::Declared | Phase::Canary);
        let decided = self.state.course != Course::Trial || !early;
        if self.now < self.state.horizon_at || decided {
            return false;
        }
        match self.terms.spec.no_data {
            NoData::Extend => {
                self.state.horizon_at = self.now.plus(self.terms.spec.horizon);
                false
            }
            NoData::Fail if self.state.phase != Phase::Declared => {
                self.roll_back("the horizon came without a decision, and no_data = \"fail\"", &[]);
                true
            }
            _ => {
                if self.state.told.insert(Told::Horizon) {
                    let why = format!("the horizon came without a decision: {}", f.reason);
                    self.draft(Action::Hold, why.clone(), &[]);
                    self.draft(Action::Escalate, why, &[]);
                }
                self.wait("the horizon came without a decision");
                true
            }
        }
    }

    /// Whether green is only just being let in: no split is known yet, and what moves belongs to no stratum.
    fn comes_in(&self) -> bool {
        self.state
            .effect
            .as_ref()
            .is_some_and(|e| e.action == Action::Advance && e.from_ppm == 0 && !e.named)
    }

    /// Whether something keeps the ramp where it is.
    fn blocked(&mut self, f: &Finding) -> bool {
        if let Some(why) = self.state.held.clone() {
            self.wait(format!("held: {why}"));
            return true;
        }
        if self.state.effect.is_some() {
            self.wait("traffic is moving: waiting for new spans to show it");
            return true;
        }
        if f.any_fail {
            self.wait("a gate fails");
            return true;
        }
        false
    }

    fn onward(&mut self, f: &Finding) {
        let spec = self.terms.spec;
        let at = self.state.step.unwrap_or(0);
        let Some(here) = spec.steps.get(at) else {
            return;
        };
        let since = self.state.stepped_at.unwrap_or(self.now);
        let left = here.min.saturating_sub(self.now.since(since));
        if !left.is_zero() {
            self.wait(format!(
                "step {} of {} has {} to go",
                at + 1,
                spec.steps.len(),
                humantime::format_duration(Duration::from_secs(left.as_secs() + 1))
            ));
            return;
        }
        let next = spec.steps.get(at + 1).filter(|s| s.ppm() < PPM);
        if next.is_some() {
            let least = STEP_TRACES_MIN.min(whole(spec.min_traces)).max(1);
            if f.n_green_step < least {
                self.wait(format!(
                    "{} of {least} green traces on this step are admitted",
                    f.n_green_step
                ));
                return;
            }
            self.advance_to(
                at + 1,
                Actor::Engine,
                "the step's time has passed and nothing fails".to_owned(),
            );
            return;
        }
        self.promote_if_ready(f);
    }

    fn promote_if_ready(&mut self, f: &Finding) {
        let spec = self.terms.spec;
        if self.state.course == Course::AdvisedPromote {
            self.wait("promotion is advised");
            return;
        }
        if !f.passes {
            self.wait(if f.reason.is_empty() {
                "the evidence is not enough yet".to_owned()
            } else {
                f.reason.clone()
            });
            return;
        }
        let least = whole(spec.min_traces);
        if f.n_blue < least || f.n_green < least {
            self.wait(format!(
                "{} blue and {} green of {least} traces an arm are admitted",
                f.n_blue, f.n_green
            ));
            return;
        }
        if let Some(why) = &f.obstacle {
            self.wait(why.clone());
            return;
        }
        if spec.approval == Approval::Promote {
            self.tell(Told::Approval, "every gate passes: a person's approval is asked for");
            self.wait("waiting for a person to promote");
            return;
        }
        self.promote(Actor::Engine, "every gate passes".to_owned());
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
                let doubtful = f.impaired.is_some() || f.sample_ratio_suspended;
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

fn whole(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
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
