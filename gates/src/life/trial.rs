//! Green on trial: what lets it go on, what keeps it where it is, what sends it back.

use super::{Breaker, Course, Finding, Told, Turn, named, rest};
use crate::ledger::Actor;
use proto::{
    Nanos,
    cell::PPM,
    decision::{Action, Phase},
    release::{Approval, Mode, NoData},
};

/// Green traces that a step, or pairs that mirroring, must have shown before the next step, unless `min_traces` is smaller.
const STEP_TRACES_MIN: i64 = 30;

impl Turn<'_> {
    pub(super) fn on_trial(&mut self, f: &Finding) {
        if self.breaker(f) {
            return;
        }
        if let Some(why) = &f.impaired {
            self.wait(why.clone());
            return;
        }
        if self.no_data(f) || self.doubtful(f) {
            return;
        }
        if self.comes_in() {
            self.wait("traffic is moving: waiting for new spans to show it");
            return;
        }
        if f.split_unknown && self.needs_split() {
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
        match self.state.phase {
            Phase::Canary => self.onward(f),
            Phase::Mirroring => self.mirrored(f),
            _ => {}
        }
    }

    /// True if it rolled back.
    fn breaker(&mut self, f: &Finding) -> bool {
        match f.breaker {
            // after a common outage one arm's evidence fades before the other's: that is no news about green
            Breaker::Fired if self.state.told.contains(&Told::CommonOutage) => false,
            Breaker::Fired => {
                self.roll_back("the breaker: green's calls fail far above the limit", &[]);
                true
            }
            Breaker::CommonOutage if !self.state.told.contains(&Told::CommonOutage) => {
                let why = "calls fail in both colors: a common outage";
                self.state.held = Some(why.to_owned());
                self.draft(Action::Hold, why, &[]);
                self.tell(Told::CommonOutage, why);
                false
            }
            // neither color is above the limit any more: what comes now is news again
            Breaker::Quiet => {
                self.state.told.remove(&Told::CommonOutage);
                false
            }
            Breaker::CommonOutage => false,
        }
    }

    /// Whether nothing may be concluded from what was counted.
    pub(super) fn doubtful(&mut self, f: &Finding) -> bool {
        if let Some(why) = &f.refused {
            self.tell(Told::Refused, format!("nothing can be concluded: {why}"));
            self.wait(why.clone());
            self.horizon(f);
            return true;
        }
        if f.sample_ratio_fired || self.state.told.contains(&Told::SampleRatio) {
            self.wait("sample_ratio: traffic is not split as declared");
            return true;
        }
        if f.sample_ratio_suspended {
            self.wait("sample_ratio: suspended until the observed split fits the declared one");
            self.horizon(f);
            return true;
        }
        false
    }

    /// Whether the gates compare what a split sent to either color. Pairs need none, and mirroring has none.
    fn needs_split(&self) -> bool {
        self.terms.spec.mode == Mode::Act && self.state.phase != Phase::Mirroring && !self.only_paired()
    }

    /// Whether every gate that counts reads mirrored pairs.
    fn only_paired(&self) -> bool {
        let mut counting = self.terms.spec.gates.iter().filter(|g| !g.dry_run).peekable();
        counting.peek().is_some() && counting.all(|g| g.paired)
    }

    fn any_paired(&self) -> bool {
        self.terms.spec.gates.iter().any(|g| g.paired)
    }

    /// Whether the ramp has a step on which both colors serve.
    pub(super) fn has_ramp(&self) -> bool {
        self.terms.spec.steps.first().is_some_and(|s| s.ppm() < PPM)
    }

    /// True if the horizon has come and the policy left nothing more to do.
    pub(super) fn horizon(&mut self, f: &Finding) -> bool {
        let early = matches!(self.state.phase, Phase::Declared | Phase::Mirroring | Phase::Canary);
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
    pub(super) fn blocked(&mut self, f: &Finding) -> bool {
        if let Some(why) = self.state.held.clone() {
            self.wait(format!("held: {why}"));
            return true;
        }
        if self.state.effect.is_some() {
            self.wait("traffic is moving: waiting for new spans to show it");
            return true;
        }
        if let Some(cohort) = self.unproven() {
            self.wait(format!("waiting until new spans show that `{cohort}` is back on blue"));
            return true;
        }
        if self.state.silence.is_some() {
            self.wait("no data");
            return true;
        }
        if f.any_fail {
            self.wait("a gate fails");
            return true;
        }
        false
    }

    /// Whether the calendar lets tracegate send green more traffic now.
    pub(super) fn may_move(&mut self) -> bool {
        if let Some(until) = self.state.cool_until.filter(|until| self.now < *until) {
            self.wait(format!("cooling down for another {}", rest(until.since(self.now))));
            return false;
        }
        if let Some(why) = self.terms.frozen {
            self.wait(format!("frozen: {why}"));
            return false;
        }
        true
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
                rest(left)
            ));
            return;
        }
        if spec.steps.get(at + 1).is_none_or(|s| s.ppm() >= PPM) {
            self.promote_if_ready(f);
            return;
        }
        let least = self.least_of_a_step();
        if f.n_green_step < least {
            self.wait(format!(
                "{} of {least} green traces on this step are admitted",
                f.n_green_step
            ));
            return;
        }
        self.advance_if_free(at + 1, "the step's time has passed and nothing fails");
    }

    /// Green serves nothing yet: pairs alone say whether it may.
    fn mirrored(&mut self, f: &Finding) {
        let since = self.state.mirroring_since.unwrap_or(self.now);
        let least = self.terms.spec.mirror.unwrap_or_default();
        let left = least.saturating_sub(self.now.since(since));
        if !left.is_zero() {
            self.wait(format!("mirroring for another {}", rest(left)));
            return;
        }
        let least = self.least_of_a_step();
        if self.any_paired() && f.n_pairs < least {
            self.wait(format!("{} of {least} mirrored pairs are admitted", f.n_pairs));
            return;
        }
        if self.has_ramp() {
            self.advance_if_free(0, "mirroring's time has passed and nothing fails");
        } else {
            self.promote_if_ready(f);
        }
    }

    fn least_of_a_step(&self) -> i64 {
        STEP_TRACES_MIN.min(whole(self.terms.spec.min_traces)).max(1)
    }

    fn advance_if_free(&mut self, to: usize, why: &str) {
        if self.terms.spec.mode != Mode::Act && self.state.advised_step >= Some(to) {
            self.wait("the next step is advised: a person has not followed yet");
        } else if self.may_move() {
            self.advance_to(to, Actor::Engine, why.to_owned());
        }
    }

    fn promote_if_ready(&mut self, f: &Finding) {
        if self.state.course == Course::AdvisedPromote {
            self.wait("promotion is advised");
            return;
        }
        // the module says why
        if let Some(fallen) = self.state.fallen.iter().find(|c| c.moved) {
            let cohort = fallen.cohort.clone();
            self.tell(
                Told::Rest,
                format!("`{cohort}` fell back to blue: a person decides whether the rest is promoted"),
            );
            self.wait(format!(
                "`{cohort}` is on blue: waiting for a person to promote the rest"
            ));
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
        if self.too_few(f) {
            return;
        }
        if let Some(why) = &f.obstacle {
            self.wait(why.clone());
            return;
        }
        if !self.may_move() {
            return;
        }
        if self.terms.spec.approval == Approval::Promote {
            self.tell(Told::Approval, "every gate passes: a person's approval is asked for");
            self.wait("waiting for a person to promote");
            return;
        }
        self.promote(Actor::Engine, "every gate passes".to_owned());
    }

    /// Whether too little was compared for a promotion, in units or in time.
    fn too_few(&mut self, f: &Finding) -> bool {
        let spec = self.terms.spec;
        let least = whole(spec.min_traces);
        let by_pairs = self.only_paired() || self.state.phase == Phase::Mirroring;
        if by_pairs && self.any_paired() && f.n_pairs < least {
            self.wait(format!("{} of {least} mirrored pairs are admitted", f.n_pairs));
            return true;
        }
        if !by_pairs && (f.n_blue < least || f.n_green < least) {
            self.wait(format!(
                "{} blue and {} green of {least} traces an arm are admitted",
                f.n_blue, f.n_green
            ));
            return true;
        }
        let compared = self.now.since(Nanos::from_secs(self.state.counted_from));
        let left = spec.min_duration.saturating_sub(compared);
        if !left.is_zero() {
            self.wait(format!("{} of comparison to go (min_duration)", rest(left)));
            return true;
        }
        false
    }
}

fn whole(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}
