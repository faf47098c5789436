//! Cohorts that go back to blue while the rest of the route stays, and the proof that they did.

use super::{Fallen, Finding, Slot, Turn, effect, named};
use crate::judge::PairKey;
use proto::{decision::Action, release::Mode};

impl Turn<'_> {
    pub(super) fn fall_back(&mut self, f: &Finding) {
        for pair in &f.fallbacks {
            if !self.counts(pair) {
                continue;
            }
            let Some(cohort) = &pair.cohort else {
                // the whole route fails a rule that moves cohorts only: wait for the cohorts to show which
                self.hold_for(pair, "fails overall; no single cohort stands out yet");
                continue;
            };
            if self.state.fallen.iter().any(|c| c.cohort == *cohort) {
                continue;
            }
            let cohort = cohort.clone();
            let why = format!("worse than the margin: {}", named(std::slice::from_ref(pair)));
            self.draft(Action::Fallback, why, std::slice::from_ref(pair));
            if let Some(draft) = self.decisions.last_mut() {
                draft.cohort = Some(cohort.clone());
            }
            self.state.fallen.push(Fallen {
                cohort,
                since: self.now,
                moved: self.terms.spec.mode == Mode::Act,
                proven_at: None,
                escalated: false,
            });
        }
    }

    /// Compares each cohort that should be on blue with what its new spans show.
    pub(super) fn watch_fallen(&mut self, f: &Finding) {
        for at in 0..self.state.fallen.len() {
            let fallen = self.state.fallen[at].clone();
            if !fallen.moved || fallen.proven_at.is_some() {
                continue;
            }
            let known = f.fallen.iter().find(|(cohort, _)| *cohort == fallen.cohort);
            let slots = known.map_or(&[][..], |(_, slots)| slots);
            let slots = effect::after(slots, fallen.since, self.terms.resolution);
            if effect::back_on_blue(slots, self.state.green_ppm) {
                self.state.fallen[at].proven_at = Some(self.now);
                continue;
            }
            if fallen.escalated || self.now < fallen.since.plus(self.terms.effect_deadline) {
                continue;
            }
            let green: i64 = slots.iter().map(|s| s.green).sum();
            let all: i64 = slots.iter().map(|s| s.green + s.blue).sum();
            let what = if all == 0 {
                "no new trace shows whether it did".to_owned()
            } else {
                format!("{green} of {all} new traces are green")
            };
            self.state.fallen[at].escalated = true;
            self.draft(
                Action::Escalate,
                format!("the fallback of `{}` does not take effect: {what}", fallen.cohort),
                &[],
            );
        }
    }

    /// Whether what a pair finds may act alone.
    pub(super) fn counts(&self, pair: &PairKey) -> bool {
        !self.state.is_muted(&pair.gate, self.now) && !self.state.is_out(pair)
    }

    /// A cohort that was sent back and is not proven to be there.
    pub(super) fn unproven(&self) -> Option<&str> {
        let open = |c: &&Fallen| c.moved && c.proven_at.is_none();
        self.state.fallen.iter().find(open).map(|c| c.cohort.as_str())
    }

    /// Traffic without the cohorts that are held on blue: what the weights of a decision are about.
    pub(super) fn of_the_rest(&self, f: &Finding) -> Vec<Slot> {
        let mut out = f.traffic.clone();
        let moved = |name: &str| self.state.fallen.iter().any(|c| c.moved && c.cohort == name);
        for (_, slots) in f.fallen.iter().filter(|(cohort, _)| moved(cohort)) {
            for slot in slots {
                if let Ok(at) = out.binary_search_by_key(&slot.at, |s| s.at) {
                    out[at].blue = (out[at].blue - slot.blue).max(0);
                    out[at].green = (out[at].green - slot.green).max(0);
                }
            }
        }
        out
    }
}
