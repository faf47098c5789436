//! From outcomes to cells: which counts a trace adds, and the signed deltas of many of them before they reach a table.

use super::outcome::{Outcome, Quality};
use ahash::RandomState;
use hashbrown::HashMap;
use proto::{
    Cell, CellKey, CellTable, Color, Grain, Metric, Nanos,
    cell::{PPM, Scope, Series},
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// Cells that share everything but the metric.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
struct Group {
    scope: Scope,
    minute: i64,
    cohort: Option<Arc<str>>,
    split_ppm: Option<u32>,
    color: Color,
    admitted: bool,
}

/// Signed deltas, gathered by group: a trace touches one or two groups and about fifteen metrics of each.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    groups: HashMap<Group, Vec<(Metric, Grain, Cell)>, RandomState>,
}

fn bump(cells: &mut Vec<(Metric, Grain, Cell)>, metric: &Metric, grain: Grain, change: impl FnOnce(&mut Cell)) {
    let at = cells
        .iter()
        .position(|(m, g, _)| m == metric && *g == grain)
        .unwrap_or_else(|| {
            cells.push((metric.clone(), grain, Cell::default()));
            cells.len() - 1
        });
    change(&mut cells[at].2);
}

fn rate(cells: &mut Vec<(Metric, Grain, Cell)>, metric: &Metric, grain: Grain, event: bool, sign: i64) {
    bump(cells, metric, grain, |cell| {
        cell.n += sign;
        cell.events += sign * i64::from(event);
    });
}

fn amount(cells: &mut Vec<(Metric, Grain, Cell)>, metric: &Metric, grain: Grain, value: Option<u64>, sign: i64) {
    let Some(value) = value else {
        return;
    };
    bump(cells, metric, grain, |cell| {
        cell.n += sign;
        cell.sum = cell
            .sum
            .saturating_add(sign.saturating_mul(i64::try_from(value).unwrap_or(i64::MAX)));
        cell.hdr.record(value, sign);
    });
}

fn add_quality(cells: &mut Vec<(Metric, Grain, Cell)>, quality: &Quality, sign: i64) {
    let said = [
        (Metric::JsonInvalid, quality.json_valid.map(|valid| !valid)),
        (Metric::ToolArgsInvalid, quality.tool_args_valid.map(|valid| !valid)),
        (Metric::ToolError, quality.tools_failed.map(|failed| failed > 0)),
        (Metric::MixedManifest, quality.off_path),
        (Metric::ThumbsDown, quality.thumbs_down),
        (Metric::GuardrailBlock, Some(quality.guardrail_blocks > 0)),
    ];
    for (metric, event) in said {
        if let Some(event) = event {
            rate(cells, &metric, Grain::Trace, event, sign);
        }
    }
    // of all traces: silence means that it did not happen
    for metric in [Metric::Escalation, Metric::Abandoned, Metric::Override] {
        let event = quality.reported.contains(&metric);
        rate(cells, &metric, Grain::Trace, event, sign);
    }
}

/// Start of the minute (or of the resolution in use) that holds `at`, unix seconds.
#[must_use]
pub fn minute_of(at: Nanos, resolution: Duration) -> i64 {
    let width = i64::try_from(resolution.as_secs()).unwrap_or(60).max(1);
    at.0.div_euclid(1_000_000_000).div_euclid(width) * width
}

impl Tally {
    /// Adds (`sign` 1) or takes back (-1) all that `outcome` contributes.
    pub fn add(&mut self, outcome: &Outcome, admitted: bool, sign: i64) {
        if !outcome.visible {
            return;
        }
        let mark = &outcome.mark;
        let of = |color| Group {
            scope: Scope {
                route: Arc::clone(&outcome.route),
                release: mark.release.clone(),
            },
            minute: outcome.minute,
            cohort: outcome.cohort.clone(),
            split_ppm: outcome.split_ppm,
            color,
            admitted,
        };
        let unsigned = |value: Option<i64>| value.and_then(|v| u64::try_from(v).ok());
        let trace = Grain::Trace;

        self.add_requests(outcome, of, sign);
        if outcome.is_superseded() {
            return;
        }
        let cells = self.groups.entry(of(outcome.assigned)).or_default();
        rate(cells, &Metric::Traces, trace, false, sign);
        amount(cells, &Metric::Latency, trace, Some(outcome.duration_us), sign);
        amount(
            cells,
            &Metric::Cost,
            trace,
            unsigned(outcome.cost).filter(|_| outcome.priced),
            sign,
        );
        amount(cells, &Metric::PromptTokens, trace, unsigned(outcome.prompt), sign);
        amount(
            cells,
            &Metric::CompletionTokens,
            trace,
            unsigned(outcome.completion),
            sign,
        );
        rate(cells, &Metric::Error, trace, outcome.error, sign);
        rate(cells, &Metric::Timeout, trace, outcome.timed_out, sign);
        rate(cells, &Metric::ColorConflict, trace, outcome.conflict, sign);
        if let Some(retries) = outcome.retries {
            rate(cells, &Metric::Retry, trace, retries > 0, sign);
        }
        if let Some(fell_back) = outcome.fallback.known() {
            rate(cells, &Metric::Fallback, trace, fell_back, sign);
        }
        if let Some(hit) = outcome.cache_hit.known() {
            rate(cells, &Metric::CacheHit, trace, hit, sign);
        }
        for (name, failed) in &outcome.verdicts {
            rate(cells, &Metric::EvalFail(Arc::clone(name)), trace, *failed, sign);
        }
        add_quality(cells, &outcome.quality, sign);
        if let Some(ppm) = outcome.sampling_ppm {
            rate(cells, &Metric::Sampled, trace, ppm < PPM, sign);
        }
        let unmarked = self.groups.entry(of(Color::Unmarked)).or_default();
        rate(unmarked, &Metric::Unmarked, trace, !outcome.assigned.is_marked(), sign);
    }

    /// What the calls and requests of a trace contribute: also those of a failed try that another trace made good.
    fn add_requests(&mut self, outcome: &Outcome, of: impl Fn(Color) -> Group + Copy, sign: i64) {
        // Calls of one trace fail together, so only the first of each color is a draw of its own.
        let mut seen: [bool; 3] = [false; 3];
        for attempt in &outcome.attempts {
            let first = !std::mem::replace(&mut seen[attempt.color as usize], true);
            let cells = self.groups.entry(of(attempt.color)).or_default();
            rate(cells, &Metric::AttemptError, Grain::Attempt, attempt.error, sign);
            rate(cells, &Metric::RateLimited, Grain::Attempt, attempt.rate_limited, sign);
            // the breaker tells starts apart by the second; nothing else does, so only releases pay for it
            if first && outcome.mark.release.is_some() {
                let bucket = 2 * outcome.second() + u32::from(attempt.error);
                bump(cells, &Metric::AttemptSeconds, Grain::Attempt, |cell| {
                    cell.n += sign;
                    cell.hdr.add_bucket(bucket, sign);
                });
            }
            amount(cells, &Metric::Ttft, Grain::Attempt, attempt.ttft_us, sign);
        }
        for request in outcome.requests.iter().filter(|_| !outcome.is_superseded()) {
            let cells = self.groups.entry(of(request.color)).or_default();
            rate(cells, &Metric::Error, Grain::Request, request.error, sign);
            amount(cells, &Metric::Latency, Grain::Request, Some(request.duration_us), sign);
        }
    }

    /// Moves everything of `waiting`, which was counted as not admitted, to the admitted side.
    pub fn admit(&mut self, waiting: Self) {
        for (group, cells) in waiting.groups {
            for (admitted, sign) in [(false, -1), (true, 1)] {
                let into = self
                    .groups
                    .entry(Group {
                        admitted,
                        ..group.clone()
                    })
                    .or_default();
                for (metric, grain, cell) in &cells {
                    bump(into, metric, *grain, |sum| sum.merge(cell, sign));
                }
            }
        }
    }

    /// Adds every delta to a table.
    pub fn apply_to(&self, table: &mut CellTable) {
        for (key, cell) in self.iter() {
            table.apply(&key, cell, 1);
        }
    }

    /// Adds every delta of `other`.
    pub fn merge(&mut self, other: Self) {
        if self.groups.is_empty() {
            *self = other;
            return;
        }
        for (group, cells) in other.groups {
            let into = self.groups.entry(group).or_default();
            for (metric, grain, cell) in &cells {
                bump(into, metric, *grain, |sum| sum.merge(cell, 1));
            }
        }
    }

    /// The deltas, in no order; those that came to nothing are left out.
    pub fn iter(&self) -> impl Iterator<Item = (CellKey, &Cell)> {
        self.groups.iter().flat_map(|(group, cells)| {
            cells
                .iter()
                .filter(|(_, _, cell)| !cell.is_zero())
                .map(|(metric, grain, cell)| {
                    let series = Series {
                        metric: metric.clone(),
                        grain: *grain,
                        cohort: group.cohort.clone(),
                        split_ppm: group.split_ppm,
                        color: group.color,
                        admitted: group.admitted,
                    };
                    (
                        CellKey {
                            scope: group.scope.clone(),
                            minute: group.minute,
                            series,
                        },
                        cell,
                    )
                })
        })
    }

    /// True if no delta was recorded.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }
}

/// In the state of a commit, a tally is the list of its groups.
impl Serialize for Tally {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_seq(&self.groups)
    }
}

impl<'de> Deserialize<'de> for Tally {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        Ok(Self {
            groups: Vec::deserialize(d)?.into_iter().collect(),
        })
    }
}
