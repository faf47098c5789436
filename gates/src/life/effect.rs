//! Proof of effect: a movement of traffic counts as done when new spans show it, not when somebody said yes.

use super::{Course, Effect, Finding, Slot, Told, Turn, slot_after};
use proto::{
    Color, Nanos,
    cell::PPM,
    decision::{Action, Phase},
};
use std::time::Duration;

/// Slots in a row that must agree.
const SLOTS_AGREE: usize = 2;
/// Green's share below which the route counts as back on blue, and above one less which it counts as all green: retries
/// and sticky sessions leave stragglers.
const STRAGGLERS_MAX: f64 = 0.01;
/// The same as a part of the share green had, for small steps.
const STRAGGLERS_OF_STEP: f64 = 0.2;
/// Traces that an advance must show before its share is believed.
const ADVANCE_TRACES_MIN: i64 = 20;

impl Turn<'_> {
    /// Compares what was asked for with what new spans show.
    pub(super) fn watch_effect(&mut self, f: &Finding) {
        if self.state.is_called_back() {
            self.wait("a person called the last movement back; `resume` lets it go on");
        } else if let Some(effect) = self.state.effect.clone() {
            let traffic = match effect.action {
                // back means all of it, whoever fell back before
                Action::Rollback => f.traffic.clone(),
                _ => self.of_the_rest(f),
            };
            let slots = after(&traffic, effect.since, self.terms.resolution);
            match effect.action {
                Action::Advance => self.watch_advance(&effect, slots),
                Action::Promote => self.watch_promote(&effect, slots),
                _ => self.watch_rollback(&effect, slots),
            }
        } else if self.state.phase == Phase::Watching {
            self.watch_settlement(f);
        }
    }

    fn watch_advance(&mut self, effect: &Effect, slots: &[Slot]) {
        let green: i64 = slots.iter().map(|s| s.green).sum();
        let all: i64 = slots.iter().map(|s| s.green + s.blue).sum();
        let between = f64::from(effect.from_ppm / 2 + effect.to_ppm / 2) / f64::from(PPM);
        let shown = all >= ADVANCE_TRACES_MIN && green > 0 && green as f64 >= between * all as f64;
        if shown {
            self.name(effect.to_ppm);
            self.state.effect = None;
        } else if all >= ADVANCE_TRACES_MIN {
            self.overdue(effect, &format!("{green} of {all} new traces are green"));
        }
    }

    fn watch_promote(&mut self, effect: &Effect, slots: &[Slot]) {
        if latest(slots).is_some_and(|s| s.iter().all(|s| share(*s) >= 1.0 - STRAGGLERS_MAX)) {
            self.name(PPM);
            self.state.green_ppm = PPM;
            self.state.effect = None;
            self.state.course = Course::Promoted;
            self.state.phase = Phase::Watching;
            self.state.watching_since = Some(self.now);
        } else {
            self.overdue(effect, "new traces are still blue");
        }
    }

    fn watch_rollback(&mut self, effect: &Effect, slots: &[Slot]) {
        if back_on_blue(slots, effect.from_ppm) {
            self.state.effect = None;
            self.state.green_ppm = 0;
            self.state.unname_split(self.now);
            self.state.course = Course::RolledBack;
            self.finish(Phase::RolledBack, Color::Blue, "proven: no new trace is green");
        } else {
            let green: i64 = slots.iter().map(|s| s.green).sum();
            let what = if slots.iter().all(|s| s.green + s.blue == 0) {
                "no new trace shows whether it did".to_owned()
            } else {
                format!("{green} new traces are green")
            };
            self.overdue(effect, &what);
        }
    }

    /// After a cutover: over, once the slowest trace that began on blue has ended and green still serves all.
    fn watch_settlement(&mut self, f: &Finding) {
        let spec = self.terms.spec;
        let last = spec.steps.last().filter(|s| s.ppm() >= PPM);
        let least = last.map_or(Duration::ZERO, |s| s.min).max(spec.timeout + spec.grace);
        // Green alone is named from a slot boundary on; at least its first traces must have been admitted.
        let since = self.state.watching_since.max(self.state.stepped_at).unwrap_or(self.now);
        if self.state.latch.as_ref().is_some_and(|l| l.action == Action::Hold) {
            self.wait("a person holds it");
            return;
        }
        let Some(slots) = latest(&self.of_the_rest(f)) else {
            self.wait("watching: no new traces");
            return;
        };
        if slots.iter().all(|s| share(*s) <= STRAGGLERS_MAX) {
            self.tell(
                Told::MovedAway,
                "traffic went back to blue without a notice: a person must look",
            );
            self.wait("traffic went back to blue without a notice");
        } else if self.now.since(since) >= least
            && f.impaired.is_none()
            && f.rollback.is_none()
            && slots.iter().all(|s| share(*s) >= 1.0 - STRAGGLERS_MAX)
        {
            self.finish(Phase::Settled, Color::Green, "green serves the whole route");
        } else {
            self.wait("watching green alone");
        }
    }

    pub(super) fn finish(&mut self, phase: Phase, winner: Color, why: &str) {
        self.state.phase = phase;
        self.state.winner = Some(winner);
        // the server's clock may have been set back to before it began
        self.state.settled = Some(self.now.max(self.state.opened));
        self.state.silence = None;
        self.draft(Action::Settle, why, &[]);
    }

    /// Green served nothing but mirrored requests, so the end needs no proof.
    pub(super) fn end_mirroring(&mut self) {
        let why = "green served nothing but mirrored requests";
        self.finish(Phase::RolledBack, Color::Blue, why);
    }

    /// A rollback never waits, but whoever is on call should know if nothing shows that blue is alive.
    pub(super) fn doubt_blue(&mut self, f: &Finding) {
        let unseen = latest(&f.traffic).is_some_and(|slots| slots.iter().all(|s| s.blue == 0));
        if unseen {
            let since = f
                .traffic
                .iter()
                .rev()
                .find(|s| s.blue > 0)
                .map(|s| Nanos::from_secs(s.at));
            let what = match since {
                Some(at) => format!("has served nothing since {}", at.rfc3339()),
                None => "has served nothing of late".to_owned(),
            };
            self.tell(
                Told::BlueUnseen,
                format!("rolled back to a blue that {what}: see that it is alive and has room for all traffic"),
            );
        }
    }

    /// The movement does not show in time: people are told, once, and it is watched on.
    fn overdue(&mut self, effect: &Effect, what: &str) {
        if effect.escalated || self.now < effect.since.plus(self.terms.effect_deadline) {
            return;
        }
        let said = match effect.acked_at {
            Some(_) => "the gateway accepted it",
            None => "the gateway has not accepted it",
        };
        let word = effect.action.as_str();
        self.draft(
            Action::Escalate,
            format!("{word} does not take effect: {said}, and {what}"),
            &[],
        );
        if let Some(effect) = &mut self.state.effect {
            effect.escalated = true;
        }
    }

    pub(super) fn delivered(&mut self, decision_id: &str) {
        self.state.told.remove(&Told::Undelivered);
        let now = self.now;
        let Some(effect) = &mut self.state.effect else {
            return;
        };
        if effect.decision_id.as_deref() != Some(decision_id) || effect.acked_at.is_some() {
            return;
        }
        // A yes moves nothing: the split is named when new spans show it.
        effect.acked_at = Some(now);
    }

    pub(super) fn undelivered(&mut self, decision_id: &str, error: &str) {
        self.tell(
            Told::Undelivered,
            format!("the notice of {decision_id} was given up: {error}"),
        );
    }

    /// Writes the new split into the book, once.
    fn name(&mut self, ppm: u32) {
        let fresh = match &mut self.state.effect {
            Some(effect) => !std::mem::replace(&mut effect.named, true),
            None => true,
        };
        if fresh {
            let from = self.state.name_split(ppm, self.now, self.terms.resolution);
            self.state.stepped_at = Some(from);
        }
    }
}

/// Slots that began wholly after `since`.
pub(super) fn after(traffic: &[Slot], since: Nanos, resolution: Duration) -> &[Slot] {
    let from = slot_after(since, resolution);
    &traffic[traffic.partition_point(|s| s.at < from)..]
}

/// Whether the last slots with any traffic have but stragglers left of green, which had a share of `from_ppm`.
pub(super) fn back_on_blue(slots: &[Slot], from_ppm: u32) -> bool {
    // a step of 1 % that is still served is not a straggler
    let most = match f64::from(from_ppm) / f64::from(PPM) {
        share if share > 0.0 => STRAGGLERS_MAX.min(share * STRAGGLERS_OF_STEP),
        _ => STRAGGLERS_MAX,
    };
    let gone = |s: &Slot| s.blue > 0 && share(*s) <= most;
    latest(slots).is_some_and(|s| s.iter().all(gone))
}

/// The last slots with any traffic, if there are enough.
fn latest(slots: &[Slot]) -> Option<Vec<Slot>> {
    let busy: Vec<Slot> = slots
        .iter()
        .rev()
        .filter(|s| s.blue + s.green > 0)
        .take(SLOTS_AGREE)
        .copied()
        .collect();
    (busy.len() == SLOTS_AGREE).then_some(busy)
}

fn share(s: Slot) -> f64 {
    s.green as f64 / (s.green + s.blue).max(1) as f64
}
