//! What people decide. It is carried out at once, latched, and never overridden by what the evidence says later.

use super::{Acked, Command, Course, Effect, Latch, Muted, Told, Turn};
use crate::ledger::Actor;
use proto::{
    Color, Nanos,
    cell::PPM,
    decision::{Action, Phase},
    release::Step,
};

impl Turn<'_> {
    pub(super) fn command(&mut self, command: &Command, actor: &str, reason: &str) {
        match command {
            Command::Ack => self.acknowledge(actor),
            _ if self.state.phase == Phase::Observed => {
                self.refuse(command, "nobody declared the release; declare it: `tracegate init`");
            }
            Command::Rollback if self.state.course == Course::RolledBack => {
                // Where no span can prove it (blue unmarked, the route retired), a person's word ends it.
                self.state.effect = None;
                self.finish(Phase::RolledBack, Color::Blue, reason);
                if let Some(draft) = self.decisions.last_mut() {
                    draft.actor = Actor::Person(actor.to_owned());
                }
            }
            _ if self.state.course == Course::RolledBack => {
                self.refuse(command, "it is rolled back; `rollback` again closes it without proof");
            }
            Command::Promote => self.person_promotes(actor, reason),
            Command::Advance => self.person_advances(actor, reason),
            Command::Rollback => self.person_rolls_back(actor, reason),
            Command::Hold => self.person_holds(actor, reason),
            Command::Resume => self.person_resumes(actor, reason),
            Command::Mute { gate, until } => self.mute(gate, *until, actor, reason),
            Command::Unmute { gate } => self.unmute(gate),
        }
    }

    /// What was said last may still be acknowledged; all else comes too late.
    pub(super) fn command_when_over(&mut self, command: &Command, actor: &str) {
        if *command == Command::Ack {
            self.acknowledge(actor);
        } else {
            let why = format!("the release is over ({})", self.state.phase.as_str());
            self.refuse(command, &why);
        }
    }

    fn acknowledge(&mut self, actor: &str) {
        self.state.acked = Some(Acked {
            at: self.now,
            actor: actor.to_owned(),
        });
    }

    fn refuse(&mut self, command: &Command, why: &str) {
        self.refused = Some(format!("cannot {}: {why}", command.as_str()));
    }

    /// True if a freeze forbids to send green more traffic, whoever asks.
    fn refuse_frozen(&mut self, command: &Command) -> bool {
        let Some(why) = self.terms.frozen else {
            return false;
        };
        self.refuse(command, &format!("frozen ({why}); end the freeze first, or roll back"));
        true
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
        let ready = match self.state.phase {
            Phase::Canary => true,
            Phase::Mirroring => !self.has_ramp(),
            _ => false,
        };
        let called_back = self.state.is_called_back();
        if self.state.course == Course::Promoted {
            if !called_back {
                self.refuse(&Command::Promote, "it is promoted already");
            } else if !self.refuse_frozen(&Command::Promote) {
                self.latch(Action::Promote, actor, reason);
                self.let_go(Some(Action::Promote), actor, reason);
            }
        } else if !ready {
            self.refuse(&Command::Promote, "green serves nothing yet; advance first");
        } else if !self.refuse_frozen(&Command::Promote) {
            self.latch(Action::Promote, actor, reason);
            self.promote(Actor::Person(actor.to_owned()), reason.to_owned());
        }
    }

    fn person_advances(&mut self, actor: &str, reason: &str) {
        if self.state.is_called_back() {
            if !self.refuse_frozen(&Command::Advance) && !self.let_go(Some(Action::Advance), actor, reason) {
                self.refuse(
                    &Command::Advance,
                    "its promotion was called back; `promote` or `resume` lets it go on",
                );
            }
            return;
        }
        if self.state.course == Course::Promoted {
            self.refuse(&Command::Advance, "it is promoted already");
            return;
        }
        let next = self.state.step.map_or(0, |s| s + 1);
        let below_one = |s: &Step| s.ppm() < PPM;
        if !self.terms.spec.steps.get(next).is_some_and(below_one) {
            self.refuse(&Command::Advance, "there is no further step below 1.0; promote instead");
        } else if !self.refuse_frozen(&Command::Advance) {
            self.state.advised_step = self.state.advised_step.max(Some(next));
            if self.state.phase == Phase::Declared && self.state.step.is_some() {
                self.state.phase = Phase::Canary;
            }
            self.advance_to(next, Actor::Person(actor.to_owned()), reason.to_owned());
        }
    }

    fn person_rolls_back(&mut self, actor: &str, reason: &str) {
        let from = self.state.green_ppm;
        self.latch(Action::Rollback, actor, reason);
        self.state.course = Course::RolledBack;
        self.state.green_ppm = 0;
        if self.state.phase == Phase::Mirroring {
            self.draft_of(actor, Action::Rollback, reason);
            self.end_mirroring();
            return;
        }
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
            called_back: false,
        });
    }

    /// Said twice in the same words it is one decision. What the gateway has not accepted yet does not go out.
    fn person_holds(&mut self, actor: &str, reason: &str) {
        let before = self.state.latch.clone();
        self.latch(Action::Hold, actor, reason);
        if self.call_back() || before != self.state.latch {
            self.draft_of(actor, Action::Hold, reason);
        }
    }

    /// tracegate decides again; what people were told about the past may be told anew. A sample ratio that was off stays
    /// off: the numbers are spoiled for good.
    fn person_resumes(&mut self, actor: &str, reason: &str) {
        if self.state.is_called_back() && self.refuse_frozen(&Command::Resume) {
            return;
        }
        self.let_go(None, actor, reason);
        self.state.latch = None;
        self.state.held = None;
        self.state
            .told
            .retain(|t| matches!(t, Told::SampleRatio | Told::Undelivered));
        if self.now >= self.state.horizon_at {
            self.state.horizon_at = self.now.plus(self.terms.spec.horizon);
        }
    }

    fn mute(&mut self, gate: &str, until: Nanos, actor: &str, reason: &str) {
        let command = Command::Mute {
            gate: gate.to_owned(),
            until,
        };
        if let Some(why) = self.unknown_gate(gate) {
            self.refuse(&command, &why);
        } else if until <= self.now {
            let why = format!("{} is over; say until when, in the future", until.rfc3339());
            self.refuse(&command, &why);
        } else {
            self.state.muted.retain(|m| m.gate != gate);
            self.state.muted.push(Muted {
                gate: gate.to_owned(),
                until,
                actor: actor.to_owned(),
                reason: reason.to_owned(),
            });
        }
    }

    fn unmute(&mut self, gate: &str) {
        let command = Command::Unmute { gate: gate.to_owned() };
        if let Some(why) = self.unknown_gate(gate) {
            self.refuse(&command, &why);
        } else if !self.state.is_muted(gate, self.now) {
            self.refuse(&command, &format!("gate `{gate}` is not muted"));
        } else {
            self.state.muted.retain(|m| m.gate != gate);
        }
    }

    fn unknown_gate(&self, gate: &str) -> Option<String> {
        let gates = &self.terms.spec.gates;
        if gates.iter().any(|g| g.name == gate) {
            return None;
        }
        let names: Vec<String> = gates.iter().map(|g| format!("`{}`", g.name)).collect();
        Some(format!("there is no gate `{gate}`; the gates are {}", names.join(", ")))
    }
}
