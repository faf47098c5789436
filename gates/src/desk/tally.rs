//! Plain counts beside the gates: who served how much, for how long nothing came, and what green would need of its
//! provider at full traffic.

use super::reading::seconds;
use crate::{
    ledger::ReleaseRow,
    life::{Quiet, ReleaseState, Slot, slot_after},
};
use proto::{Color, Grain, Metric, Nanos, cell::Minutes, decision::Headroom, release::ReleaseSpec};
use std::time::Duration;

/// Slots of traffic that a finding shows.
const SLOTS_MAX: usize = 120;
/// How far back cutover headroom is measured.
const HEADROOM_WINDOW: Duration = Duration::from_secs(600);
/// Share of green's calls that a rate limit refuses, above which nothing is promoted.
const RATE_LIMITED_SHARE_MAX: f64 = 0.01;
/// Green calls below which that share says nothing.
const CALLS_MIN: i64 = 50;

/// Plain counts beside the gates.
#[derive(Debug, Default)]
pub(super) struct Tally {
    /// Admitted green traces of the present step.
    pub green_on_step: i64,
    /// Latest minute with a trace of blue and of green, unix seconds.
    last: [Option<i64>; 2],
    window: Window,
    /// Traffic of the cohorts that fell back.
    pub fallen: Vec<(String, Vec<Slot>)>,
}

/// What green used over the headroom window.
#[derive(Debug, Default, Clone, Copy)]
struct Window {
    green: i64,
    traces: i64,
    calls: i64,
    refused: i64,
    tokens: i64,
    secs: i64,
}

pub(super) fn tally(row: &ReleaseRow, all: &Minutes, now: Nanos, resolution: Duration) -> (Vec<Slot>, Tally) {
    let width = seconds(resolution);
    let now_secs = now.0.div_euclid(1_000_000_000);
    // traces of a slot are seen when they close, a little after it
    let seen = now_secs - width - width.clamp(1, 10);
    let stepped = row.state.stepped_at.map(|at| slot_after(at, resolution));
    let window = now_secs - i64::try_from(HEADROOM_WINDOW.as_secs()).unwrap_or(600);
    let moved = row.state.fallen.iter().filter(|f| f.moved);
    let mut tally = Tally {
        fallen: moved.map(|f| (f.cohort.clone(), Vec::new())).collect(),
        ..Tally::default()
    };
    let mut traffic = Vec::new();
    for (&at, minute) in all {
        let mut slot = Slot { at, blue: 0, green: 0 };
        let recent = stepped.is_some_and(|s| at >= s) && at >= window && at <= seen;
        // `traces` is the first metric; only recent minutes are read further
        let read = minute.iter().take_while(|(s, _)| recent || s.metric == Metric::Traces);
        for (series, cell) in read {
            match (&series.metric, series.grain, series.color) {
                (Metric::Traces, Grain::Trace, color @ (Color::Blue | Color::Green)) => {
                    let arm = usize::from(color == Color::Green);
                    tally.last[arm] = Some(at);
                    let fallen = tally
                        .fallen
                        .iter_mut()
                        .find(|(c, _)| series.cohort.as_deref() == Some(c));
                    if let Some((_, slots)) = fallen.filter(|_| at <= seen) {
                        of_cohort(slots, at, color, cell.n);
                    }
                    if color == Color::Blue {
                        slot.blue += cell.n;
                        continue;
                    }
                    slot.green += cell.n;
                    if series.admitted && stepped.is_some_and(|s| at >= s) {
                        tally.green_on_step += cell.n;
                    }
                }
                (Metric::AttemptError, Grain::Attempt, Color::Green) => tally.window.calls += cell.n,
                (Metric::RateLimited, Grain::Attempt, Color::Green) => tally.window.refused += cell.events,
                (Metric::PromptTokens | Metric::CompletionTokens, Grain::Trace, Color::Green) => {
                    tally.window.tokens += cell.sum;
                }
                _ => {}
            }
        }
        if recent {
            tally.window.green += slot.green;
            tally.window.traces += slot.green + slot.blue;
            tally.window.secs += width;
        }
        if at <= seen {
            traffic.push(slot);
        }
    }
    let skip = traffic.len().saturating_sub(SLOTS_MAX);
    traffic.drain(..skip);
    (traffic, tally)
}

fn of_cohort(slots: &mut Vec<Slot>, at: i64, color: Color, n: i64) {
    if slots.last().is_none_or(|s| s.at != at) {
        slots.push(Slot { at, blue: 0, green: 0 });
    }
    if let Some(slot) = slots.last_mut() {
        match color {
            Color::Green => slot.green += n,
            _ => slot.blue += n,
        }
    }
}

impl Tally {
    /// Time since the last trace of either color began, at most since the release opened.
    pub fn quiet(&self, state: &ReleaseState, now: Nanos) -> Quiet {
        let since = |last: Option<i64>| {
            let last = last.map_or(state.opened, Nanos::from_secs).max(state.opened);
            now.since(last).as_secs()
        };
        let [blue, green] = self.last;
        // green is not expected before its step began
        let stepped = state.stepped_at.map(|at| now.since(at).as_secs());
        Quiet {
            blue_secs: since(blue),
            green_secs: since(green).min(stepped.unwrap_or(0)),
        }
    }

    /// What forbids promotion beside the gates and their guards.
    pub fn obstacle(&self, spec: &ReleaseSpec) -> Option<String> {
        let Window { calls, refused, .. } = self.window;
        let share = refused as f64 / calls.max(1) as f64;
        let short = self.headroom(spec).into_iter().find_map(|h| {
            let limit = h.limit.filter(|limit| h.needed > *limit)?;
            Some(format!(
                "quota: the whole route on green needs {:.0} {} a minute of {limit:.0}",
                h.needed, h.what
            ))
        });
        short.or_else(|| {
            (calls >= CALLS_MIN && share > RATE_LIMITED_SHARE_MAX).then(|| {
                format!(
                    "rate_limited: {:.1} % of green's calls are refused by a rate limit",
                    100.0 * share
                )
            })
        })
    }

    /// Green at share w used R, so the whole route needs R / w. Calls that were refused count: they were wanted.
    pub fn headroom(&self, spec: &ReleaseSpec) -> Vec<Headroom> {
        let w = self.window;
        if w.green == 0 || w.secs == 0 {
            return Vec::new();
        }
        let quota = &spec.quota;
        [
            ("requests", w.calls, quota.requests_per_minute),
            ("tokens", w.tokens, quota.tokens_per_minute),
        ]
        .into_iter()
        .map(|(what, used, limit)| {
            let used = used as f64 * 60.0 / w.secs as f64;
            Headroom {
                what: what.to_owned(),
                used,
                needed: used * w.traces as f64 / w.green as f64,
                limit: limit.map(|l| l as f64),
                rate_limited: w.refused as f64 / w.calls.max(1) as f64,
            }
        })
        .collect()
    }
}
