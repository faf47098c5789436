//! What people decide. It is carried out at once, latched, and never overridden by what the evidence says later.

use super::{Command, Course, Effect, Latch, Told, Turn};
use crate::ledger::Actor;
use proto::{
    Color,
    cell::PPM,
    decision::{Action, Phase},
};

impl Turn<'_> {
    pub(super) fn command(&mut self, command: Command, actor: &str, reason: &str) {
        if self.state.course == Course::RolledBack {
            if command == Command::Rollback {
                // Where no span can prove it (blue unmarked, the route retired), a person's word ends it.
                self.state.effect = None;
                self.finish(Phase::RolledBack, Color::Blue, reason);
                if let Some(draft) = self.decisions.last_mut() {
                    draft.actor = Actor::Person(actor.to_owned());
                }
            } else {
                self.refuse(command, "it is rolled back; `rollback` again closes it without proof");
            }
            return;
        }
        match command {
            Command::Promote => self.person_promotes(actor, reason),
            Command::Advance => self.person_advances(actor, reason),
            Command::Rollback => self.person_rolls_back(actor, reason),
            Command::Hold => {
                self.latch(Action::Hold, actor, reason);
                self.draft_of(actor, Action::Hold, reason);
            }
            Command::Resume => self.person_resumes(),
        }
    }

    fn refuse(&mut self, command: Command, why: &str) {
        self.refused = Some(format!("cannot {}: {why}", command.as_str()));
    }

    fn latch(&mut self, action: Action, actor: &str, reason: &str) {
        self.state.latch = Some(Latch {
            action,
            actor: actor.to_owned(),
            reason: reason.to_owned(),
        });
    }

    fn draft_of(&mut self, actor: &str, action: Action, reason: &str) {
        self.draft(action, reason, &[]);
        if let Some(draft) = self.decisions.last_mut() {
            draft.actor = Actor::Person(actor.to_owned());
            draft.notified = true;
        }
    }

    fn person_promotes(&mut self, actor: &str, reason: &str) {
        if self.state.course == Course::Promoted {
            self.refuse(Command::Promote, "it is promoted already");
        } else if self.state.phase != Phase::Canary {
            self.refuse(Command::Promote, "green serves nothing yet; advance first");
        } else {
            self.latch(Action::Promote, actor, reason);
            self.promote(Actor::Person(actor.to_owned()), reason.to_owned());
        }
    }

    fn person_advances(&mut self, actor: &str, reason: &str) {
        if self.state.course == Course::Promoted {
            self.refuse(Command::Advance, "it is promoted already");
            return;
        }
        let next = self.state.step.map_or(0, |s| s + 1);
        let below_one = |s: &proto::release::Step| s.ppm() < PPM;
        if self.terms.spec.steps.get(next).is_some_and(below_one) {
            self.state.advised_step = self.state.advised_step.max(Some(next));
            if self.state.phase == Phase::Declared && self.state.step.is_some() {
                self.state.phase = Phase::Canary;
            }
            self.advance_to(next, Actor::Person(actor.to_owned()), reason.to_owned());
        } else {
            self.refuse(Command::Advance, "it is on the last step below 1.0; promote instead");
        }
    }

    fn person_rolls_back(&mut self, actor: &str, reason: &str) {
        let from = self.state.green_ppm;
        self.latch(Action::Rollback, actor, reason);
        self.state.course = Course::RolledBack;
        self.state.green_ppm = 0;
        self.state.unname_split(self.now);
        self.draft_of(actor, Action::Rollback, reason);
        self.state.effect = Some(Effect {
            action: Action::Rollback,
            decision_id: None,
            since: self.now,
            from_ppm: from,
            to_ppm: 0,
            acked_at: None,
            named: false,
            escalated: false,
        });
    }

    /// tracegate decides again; what people were told about the past may be told anew. A sample ratio that was off stays
    /// off: the numbers are spoiled for good.
    fn person_resumes(&mut self) {
        self.state.latch = None;
        self.state.held = None;
        self.state
            .told
            .retain(|t| matches!(t, Told::SampleRatio | Told::Undelivered));
        if self.now >= self.state.horizon_at {
            self.state.horizon_at = self.now.plus(self.terms.spec.horizon);
        }
    }
}
