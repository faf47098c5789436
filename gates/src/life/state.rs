//! Where a release stands: plain values that are stored after every change and read back after a kill.

use crate::judge::{Baseline, PairKey};
use proto::{
    Color, Nanos,
    cell::PPM,
    decision::{Action, Phase},
    release::{BookEntry, Mode, ReleaseSpec},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc, time::Duration};

/// Where the judging of a release is heading. Once it leaves `Trial` by a decision it never returns there by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Course {
    /// Green is on trial.
    Trial,
    /// Promotion was advised; the gateway was not told.
    AdvisedPromote,
    /// Rollback was advised; the gateway was not told.
    AdvisedRollback,
    /// Promoted: latched, unless a rollback follows.
    Promoted,
    /// Rolled back: latched for good.
    RolledBack,
}

/// What a person decided last. Nothing that tracegate decides by itself overrides it until they `resume`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Latch {
    /// promote, rollback or hold.
    pub action: Action,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// A movement of traffic that was asked for, until new spans prove it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Effect {
    /// Advance, promote or rollback.
    pub action: Action,
    /// Decision that asked for it, once numbered.
    pub decision_id: Option<String>,
    /// When it was asked for.
    pub since: Nanos,
    /// Green's share before, ppm.
    pub from_ppm: u32,
    /// Green's share it should lead to, ppm.
    pub to_ppm: u32,
    /// When the gateway answered 2xx.
    pub acked_at: Option<Nanos>,
    /// Whether the new split stands in the book already.
    pub named: bool,
    /// Whether people were told that it does not show.
    pub escalated: bool,
    /// A person held it before the gateway had accepted it: its notice is void until they let it go on.
    #[serde(default)]
    pub called_back: bool,
}

/// A cohort that went back to blue while the rest of the route stayed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fallen {
    /// Cohort value.
    pub cohort: String,
    /// Since when.
    pub since: Nanos,
    /// Whether the gateway was told; mere advice moves nothing, so its traces go on counting.
    pub moved: bool,
    /// When new spans showed it.
    #[serde(default)]
    pub proven_at: Option<Nanos>,
    /// Whether people were told that they don't.
    #[serde(default)]
    pub escalated: bool,
}

/// A gate that a person keeps from rolling back, for a while.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Muted {
    /// Name of the gate.
    pub gate: String,
    /// Until when.
    pub until: Nanos,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// A person has seen what people were told up to then.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Acked {
    /// When.
    pub at: Nanos,
    /// Who.
    pub actor: String,
}

/// A time in which traces that were expected did not come, though ingest works.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Silence {
    /// Last trace before it.
    pub since: Nanos,
    /// Up to when `no_data = "extend"` has moved the horizon for it.
    pub extended_to: Nanos,
    /// Whether people were told.
    pub told: bool,
}

/// What people were already told, so that they are told once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Told {
    /// The sample ratio is off.
    SampleRatio,
    /// Blue fails as well.
    CommonOutage,
    /// The horizon came.
    Horizon,
    /// A person is asked to approve the promotion.
    Approval,
    /// The evidence contradicts a person's decision.
    Overruled,
    /// A notice could not be delivered.
    Undelivered,
    /// Traffic went back to blue without a notice.
    MovedAway,
    /// Nothing may be concluded from the traffic as it is.
    Refused,
    /// A cohort fell back, so a person decides about the rest.
    Rest,
    /// A rollback goes to a blue that nobody has seen serve.
    BlueUnseen,
}

/// State of one release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseState {
    /// Phase.
    pub phase: Phase,
    /// Where the judging is heading.
    pub course: Course,
    /// Declared and in force since.
    pub opened: Nanos,
    /// When `no_data` says what happens.
    pub horizon_at: Nanos,
    /// Latest step that was advised, not taken.
    pub advised_step: Option<usize>,
    /// Index into the steps; `None` while blue alone serves.
    pub step: Option<usize>,
    /// When this step was in effect.
    pub stepped_at: Option<Nanos>,
    /// Green's share that the route should be on, ppm.
    pub green_ppm: u32,
    /// Declared split over time, as the book shows it.
    pub splits: Vec<(Nanos, Option<u32>)>,
    /// First minute that counts, unix seconds.
    pub counted_from: i64,
    /// (gate, cohort) pairs in the order of their first trace.
    pub order: Vec<PairKey>,
    /// Frozen thresholds.
    pub baseline: Option<Baseline>,
    /// Movement that is not proven yet.
    pub effect: Option<Effect>,
    /// A person's decision.
    pub latch: Option<Latch>,
    /// Why a gate holds the ramp.
    pub held: Option<String>,
    /// Cohorts on blue.
    pub fallen: Vec<Fallen>,
    /// What people were told.
    pub told: BTreeSet<Told>,
    /// Since when green serves all, proven.
    pub watching_since: Option<Nanos>,
    /// When it ended.
    pub settled: Option<Nanos>,
    /// Who won.
    pub winner: Option<Color>,
    /// Latest decision: id and number.
    pub last_decision: Option<(String, i64)>,
    /// Since when green answers mirrored requests.
    #[serde(default)]
    pub mirroring_since: Option<Nanos>,
    /// Nothing is advanced or promoted before.
    #[serde(default)]
    pub cool_until: Option<Nanos>,
    /// Gates that people muted.
    #[serde(default)]
    pub muted: Vec<Muted>,
    /// Who has seen what people were told.
    #[serde(default)]
    pub acked: Option<Acked>,
    /// Traces that do not come.
    #[serde(default)]
    pub silence: Option<Silence>,
    /// Silences that are over, from and until, unix seconds: no split held while green did not come.
    #[serde(default)]
    pub silences: Vec<(i64, i64)>,
    /// Why an observed release ended.
    #[serde(default)]
    pub closed: Option<String>,
}

impl ReleaseState {
    /// A release declared at `now`, with cells of width `resolution`. `cool_until` comes from the last rollback on the
    /// route: nothing is advanced or promoted before.
    ///
    /// One that acts, or mirrors first, begins with blue alone: the gateway is told to let green in when the time has come.
    /// One that observes or advises takes the first step as what people have set up already; the sample-ratio check would
    /// tell.
    #[must_use]
    pub fn open(spec: &ReleaseSpec, now: Nanos, resolution: Duration, cool_until: Option<Nanos>) -> Self {
        let blue_alone = spec.mode == Mode::Act || spec.mirror.is_some();
        let first = spec.steps.first().map_or(0, |s| s.ppm());
        let green_ppm = if blue_alone { 0 } else { first };
        Self {
            step: if blue_alone { None } else { Some(0) },
            stepped_at: if blue_alone { None } else { Some(now) },
            green_ppm,
            splits: vec![(now, Some(green_ppm))],
            cool_until,
            ..Self::begun(Phase::Declared, spec, now, resolution)
        }
    }

    /// A release that nobody declared: two paths were seen on one route since `since`. No split is known, so the arms are
    /// compared as iid; it never decides anything.
    #[must_use]
    pub fn open_observed(spec: &ReleaseSpec, since: Nanos, resolution: Duration) -> Self {
        Self {
            splits: vec![(since, None)],
            ..Self::begun(Phase::Observed, spec, since, resolution)
        }
    }

    fn begun(phase: Phase, spec: &ReleaseSpec, now: Nanos, resolution: Duration) -> Self {
        Self {
            phase,
            course: Course::Trial,
            opened: now,
            horizon_at: now.plus(spec.horizon),
            advised_step: None,
            step: None,
            stepped_at: None,
            green_ppm: 0,
            splits: Vec::new(),
            counted_from: slot_after(now.plus(spec.warmup), resolution),
            order: Vec::new(),
            baseline: None,
            effect: None,
            latch: None,
            held: None,
            fallen: Vec::new(),
            told: BTreeSet::new(),
            watching_since: None,
            settled: None,
            winner: None,
            last_decision: None,
            mirroring_since: None,
            cool_until: None,
            muted: Vec::new(),
            acked: None,
            silence: None,
            silences: Vec::new(),
            closed: None,
        }
    }

    /// Whether a person has muted a gate at this time.
    #[must_use]
    pub fn is_muted(&self, gate: &str, now: Nanos) -> bool {
        self.muted.iter().any(|m| m.gate == gate && now < m.until)
    }

    /// Names of the gates that are muted at this time.
    #[must_use]
    pub fn muted_gates(&self, now: Nanos) -> Vec<&str> {
        let muted = self.muted.iter().filter(|m| now < m.until);
        muted.map(|m| m.gate.as_str()).collect()
    }

    /// Whether a minute of cells, by its start in unix seconds, lies in a silence: it belongs to no split.
    #[must_use]
    pub fn is_silent(&self, minute: i64) -> bool {
        self.silences
            .iter()
            .any(|(from, until)| (*from..*until).contains(&minute))
    }

    /// Whether a pair no longer says anything about the release: the gateway sent its cohort back to blue, so what it
    /// showed before stands still.
    #[must_use]
    pub fn is_out(&self, pair: &PairKey) -> bool {
        let moved = |cohort: &str| self.fallen.iter().any(|f| f.moved && f.cohort == cohort);
        pair.cohort.as_deref().is_some_and(moved)
    }

    /// Color that should carry the route.
    #[must_use]
    pub const fn active_color(&self) -> Color {
        match (self.winner, self.course) {
            (Some(color), _) => color,
            (None, Course::Promoted) if !self.is_called_back() => Color::Green,
            _ => Color::Blue,
        }
    }

    /// Whether a person's hold keeps the last movement from going out.
    #[must_use]
    pub const fn is_called_back(&self) -> bool {
        matches!(&self.effect, Some(effect) if effect.called_back)
    }

    /// The release as ingest sees it.
    #[must_use]
    pub fn book_entry(&self, spec: &ReleaseSpec) -> BookEntry {
        BookEntry {
            route: spec.route.as_str().into(),
            id: spec.id.as_str().into(),
            blue: spec.blue.clone(),
            green: spec.green.clone(),
            cohort_key: spec.cohort.as_deref().map(Arc::from),
            timeout: spec.timeout,
            grace: spec.grace,
            opened: self.opened,
            settled: self.settled,
            winner: self.winner,
            splits: self.splits.clone(),
        }
    }

    /// From `now` on no split can be named.
    pub(super) fn unname_split(&mut self, now: Nanos) {
        self.push_split(now, None);
    }

    /// From the slot after next on, the split is the one asked for: what started while traffic moved stays out.
    pub(super) fn name_split(&mut self, ppm: u32, now: Nanos, resolution: Duration) -> Nanos {
        let from = Nanos::from_secs(slot_after(now.plus(resolution), resolution));
        self.push_split(from, Some(ppm));
        from
    }

    fn push_split(&mut self, from: Nanos, split: Option<u32>) {
        // a split that was to begin later never does
        self.splits.retain(|(at, _)| *at < from);
        if self.splits.last().map(|(_, s)| *s) != Some(split) {
            self.splits.push((from, split));
        }
    }

    /// Weights by color.
    #[must_use]
    pub fn weights(green_ppm: u32) -> std::collections::BTreeMap<Color, f64> {
        let green = f64::from(green_ppm) / f64::from(PPM);
        [
            (Color::Blue, f64::from(PPM - green_ppm.min(PPM)) / f64::from(PPM)),
            (Color::Green, green),
        ]
        .into()
    }
}

/// Start of the first slot at or after `at`, unix seconds.
#[must_use]
pub fn slot_after(at: Nanos, resolution: Duration) -> i64 {
    let width = i64::try_from(resolution.as_secs()).unwrap_or(60).max(1);
    let secs = at.0.div_euclid(1_000_000_000) + i64::from(at.0.rem_euclid(1_000_000_000) > 0);
    let over = secs.rem_euclid(width);
    if over == 0 { secs } else { secs - over + width }
}
