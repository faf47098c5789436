//! Traces that do not come, though ingest works: what `no_data` says about it.
//!
//! A slow route is silent for minutes on any day, and at a split of 1 % green is silent a hundred times longer. So green
//! counts as missing only if so much blue came meanwhile that its absence cannot be luck; if blue is silent too, nothing
//! is green's fault, and tracegate waits.

use super::{Course, Finding, Silence, Turn, effect::after, slot_after};
use proto::{
    Nanos,
    cell::PPM,
    decision::{Action, Phase},
    release::{Mode, NoData, Unit},
};
use std::time::Duration;

/// Least silence that counts, beside the release's timeout.
const SILENCE_MIN: Duration = Duration::from_secs(300);
/// The same in slots of a cell.
const SILENT_SLOTS_MIN: u32 = 5;
/// Green traces that should have come in a silence before it counts: by luck none comes with a chance of e^-20, so that
/// months of looking stay far below any alpha.
const MISSED_MIN: f64 = 20.0;

/// Silences kept for one release; a route that falls silent more often is not compared through them.
const SILENCES_MAX: usize = 1_000;

/// What does not come, and for how long.
struct Missing {
    green: Option<Duration>,
    blue: Option<Duration>,
    /// Whether blue shows that green should have come.
    expected: bool,
}

impl Turn<'_> {
    /// Follows the policy; true if it rolled back. While a silence lasts nothing is advanced or promoted, but a gate may
    /// still roll back.
    pub(super) fn no_data(&mut self, f: &Finding) -> bool {
        let Some(missing) = self.missing(f) else {
            self.heard_again(f);
            return false;
        };
        let longest = missing.green.max(missing.blue).unwrap_or_default();
        let now = self.now;
        let silence = self.state.silence.get_or_insert(Silence {
            since: now.minus(longest),
            extended_to: now.minus(longest),
            told: false,
        });
        let fresh = missing.expected && !silence.told;
        silence.told |= missing.expected;
        let why = said(&missing);
        self.wait(why.clone());
        match self.terms.spec.no_data {
            NoData::Extend => self.extend(),
            NoData::Hold | NoData::Fail
                if fresh && (self.terms.spec.no_data == NoData::Hold || self.terms.spec.unit != Unit::Trace) =>
            {
                if self.state.held.is_none() {
                    self.draft(Action::Hold, why.clone(), &[]);
                }
                self.draft(Action::Escalate, why, &[]);
            }
            // traces of one session come and stay away together: their number says less than it seems
            NoData::Fail if missing.expected && missing.blue.is_none() && self.terms.spec.unit == Unit::Trace => {
                self.roll_back(&format!("{why}, and no_data = \"fail\""), &[]);
                return true;
            }
            NoData::Hold | NoData::Fail => {}
        }
        false
    }

    /// Where green was missed and is back, the time between belongs to no split.
    fn heard_again(&mut self, f: &Finding) {
        let Some(silence) = self.state.silence.take() else {
            return;
        };
        let back = self.now.minus(Duration::from_secs(f.quiet.green_secs));
        let from = slot_after(silence.since, self.terms.resolution);
        let until = back.0.div_euclid(1_000_000_000);
        if silence.told && from < until && self.state.silences.len() < SILENCES_MAX {
            self.state.silences.push((from, until));
        }
    }

    /// The silent time is not held against the horizon.
    fn extend(&mut self) {
        if let Some(silence) = &mut self.state.silence {
            let more = self.now.since(silence.extended_to);
            silence.extended_to = silence.extended_to.max(self.now);
            self.state.horizon_at = self.state.horizon_at.plus(more);
        }
    }

    fn missing(&self, f: &Finding) -> Option<Missing> {
        if self.state.phase != Phase::Canary || self.state.course != Course::Trial {
            return None;
        }
        let (from, ppm) = self.serves_since()?;
        let resolution = self.terms.resolution;
        let limit = SILENCE_MIN.max(resolution * SILENT_SLOTS_MIN) + self.terms.spec.timeout;
        let over = |secs: u64| {
            // what was silent before the step began says nothing about it
            let silent = Duration::from_secs(secs).min(self.now.since(from));
            (silent > limit).then_some(silent)
        };
        let (green, blue) = (over(f.quiet.green_secs), over(f.quiet.blue_secs));
        let expected = green.is_some_and(|silent| {
            let slots = after(&f.traffic, self.now.minus(silent), resolution);
            let came: i64 = slots.iter().map(|s| s.blue).sum();
            let share = f64::from(ppm) / f64::from(PPM);
            // nobody told the gateway of an advising release: its green may not have begun
            let began = self.terms.spec.mode == Mode::Act || f.n_green > 0;
            began && came as f64 * share / (1.0 - share) >= MISSED_MIN
        });
        (expected || blue.is_some()).then_some(Missing { green, blue, expected })
    }

    /// Since when green should serve at least this share, ppm.
    fn serves_since(&self) -> Option<(Nanos, u32)> {
        let (from, ppm) = match &self.state.effect {
            Some(e) => (e.since, e.from_ppm.min(e.to_ppm)),
            None => (self.state.stepped_at?, self.state.green_ppm),
        };
        (ppm > 0 && ppm < PPM).then_some((from, ppm))
    }
}

fn said(missing: &Missing) -> String {
    match (missing.green, missing.blue) {
        (Some(green), None) => format!("no data: no green trace for {}, blue still comes", spoken(green)),
        (None, Some(blue)) => format!("no data: no blue trace for {} to compare green with", spoken(blue)),
        (Some(green), Some(blue)) if missing.expected => {
            format!(
                "no data: no green trace for {}, and no blue one for {}",
                spoken(green),
                spoken(blue)
            )
        }
        (green, blue) => {
            let shorter = green.min(blue).unwrap_or_default();
            format!("no data: no trace of either color for {}", spoken(shorter))
        }
    }
}

/// In whole minutes, or seconds if it is short.
fn spoken(d: Duration) -> humantime::FormattedDuration {
    let secs = d.as_secs();
    humantime::format_duration(Duration::from_secs(if secs < 120 { secs } else { secs / 60 * 60 }))
}
