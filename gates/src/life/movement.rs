//! What a decision changes: weights, split, course, and the effect that new spans must show.

use super::{Course, Effect, Finding, Turn, named, slot_after};
use crate::{judge::PairKey, ledger::Actor};
use proto::{
    cell::PPM,
    decision::{Action, Phase},
    release::Mode,
};

impl Turn<'_> {
    pub(super) fn roll_back(&mut self, why: &str, culprits: &[PairKey]) {
        let acts = self.terms.spec.mode == Mode::Act;
        if !acts && self.state.course == Course::AdvisedRollback {
            return;
        }
        if self.state.phase == Phase::Mirroring {
            // nothing has to move, so there is nothing to prove
            self.state.course = Course::RolledBack;
            self.draft(Action::Rollback, why, culprits);
            self.end_mirroring();
            return;
        }
        let from = self.state.green_ppm;
        self.state.course = if acts {
            self.state.green_ppm = 0;
            self.state.unname_split(self.now);
            Course::RolledBack
        } else {
            Course::AdvisedRollback
        };
        self.draft(Action::Rollback, why, culprits);
        self.state.effect = Some(Effect {
            action: Action::Rollback,
            decision_id: None,
            since: self.now,
            from_ppm: from,
            to_ppm: 0,
            acked_at: None,
            named: false,
            // nobody was asked to move anything, so nobody failed to
            escalated: !acts,
            called_back: false,
        });
    }

    pub(super) fn hold(&mut self, f: &Finding) {
        for pair in &f.holds {
            if self.counts(pair) {
                self.hold_for(pair, "worse than the margin");
            }
        }
    }

    pub(super) fn hold_for(&mut self, pair: &PairKey, what: &str) {
        if self.state.held.is_none() {
            let why = format!("{}: {what}", named(std::slice::from_ref(pair)));
            self.draft(Action::Hold, why.clone(), std::slice::from_ref(pair));
            self.state.held = Some(why);
        }
    }

    pub(super) fn promote(&mut self, actor: Actor, reason: String) {
        let tells = self.tells(&actor);
        let from = self.state.green_ppm;
        if tells {
            self.state.course = Course::Promoted;
            self.state.phase = Phase::Cutover;
            self.state.green_ppm = PPM;
            self.state.unname_split(self.now);
        } else {
            self.state.course = Course::AdvisedPromote;
        }
        self.moved(Action::Promote, actor, reason, from, PPM, tells);
    }

    pub(super) fn advance_to(&mut self, to: usize, actor: Actor, reason: String) {
        let Some(ppm) = self.terms.spec.steps.get(to).map(|s| s.ppm()) else {
            return;
        };
        let tells = self.tells(&actor);
        let from = self.state.green_ppm;
        if !tells {
            // advice changes nothing until a person follows it
            if self.state.advised_step >= Some(to) {
                return;
            }
            self.state.advised_step = Some(to);
            self.moved(Action::Advance, actor, reason, from, ppm, false);
            self.state.effect = None;
            return;
        }
        if self.state.phase == Phase::Mirroring {
            // pairs go on counting, and slots in which green served nothing count for no other gate
            self.state.phase = Phase::Canary;
        }
        if self.state.phase == Phase::Declared {
            self.state.phase = Phase::Canary;
            // blue alone is no comparison: evidence begins where green does
            let slot = slot_after(self.now, self.terms.resolution);
            self.state.counted_from = self.state.counted_from.max(slot);
        }
        self.state.step = Some(to);
        self.state.stepped_at = None;
        self.state.green_ppm = ppm;
        self.state.unname_split(self.now);
        self.moved(Action::Advance, actor, reason, from, ppm, true);
    }

    /// Whether a decision of `actor` reaches the gateway: a person's always does, tracegate's own only if it acts.
    pub(super) fn tells(&self, actor: &Actor) -> bool {
        self.terms.spec.mode == Mode::Act || matches!(actor, Actor::Person(_))
    }

    pub(super) fn moved(&mut self, action: Action, actor: Actor, reason: String, from: u32, to: u32, tells: bool) {
        self.draft(action, reason, &[]);
        if let Some(draft) = self.decisions.last_mut() {
            draft.actor = actor;
            draft.green_ppm = if tells { to } else { from };
            draft.notified = tells;
        }
        self.state.effect = Some(Effect {
            action,
            decision_id: None,
            since: self.now,
            from_ppm: from,
            to_ppm: to,
            acked_at: None,
            named: false,
            escalated: !tells,
            called_back: false,
        });
    }

    /// A movement that the gateway was told of and has not accepted yet is as good as not decided. True if there was one.
    pub(super) fn call_back(&mut self) -> bool {
        let promoted = self.state.course == Course::Promoted;
        let Some(effect) = &mut self.state.effect else {
            return false;
        };
        let forward = match effect.action {
            Action::Advance => true,
            // mere advice is not on its way
            Action::Promote => promoted,
            _ => false,
        };
        if !forward || effect.acked_at.is_some() || effect.called_back {
            return false;
        }
        effect.called_back = true;
        self.state.green_ppm = effect.from_ppm;
        true
    }

    /// What a person had called back goes out again, as a decision of theirs. True if there was anything.
    pub(super) fn let_go(&mut self, action: Option<Action>, actor: &str, reason: &str) -> bool {
        let back = |e: &&Effect| e.called_back && action.is_none_or(|a| a == e.action);
        let Some(effect) = self.state.effect.as_ref().filter(back) else {
            return false;
        };
        let (action, from, to) = (effect.action, effect.from_ppm, effect.to_ppm);
        self.state.green_ppm = to;
        self.moved(
            action,
            Actor::Person(actor.to_owned()),
            reason.to_owned(),
            from,
            to,
            true,
        );
        true
    }
}
