//! What spoils a comparison before any gate is asked, counted from the same cells.
//!
//! Two kinds. What makes the arms something other than what they are called **refuses** judgement: versions that are
//! not one path (mixed manifests), sessions that stick to a color while single traces are judged, traces that an
//! upstream sampler has chosen. What only leaves a doubt about the whole route **blocks** promotion: traffic without a
//! color, stamps that contradict the declared versions. The breaker works all the same.

use crate::stats::{BETS, ShareBet, log_space::ln, mean_exp};
use proto::{
    Cell, Color, Grain, Metric,
    cell::{PPM, Series},
    release::Unit,
};
use std::collections::BTreeMap;

/// Share of a color's traces on another path than their manifest's, above which nothing is judged.
pub const MIXED_SHARE_MAX: f64 = 0.05;
/// Share of a color's traces that an upstream sampler chose, above which nothing is judged.
pub const SAMPLED_SHARE_MAX: f64 = 0.01;
/// Share of a route's traces without a color, above which nothing is promoted.
pub const UNMARKED_SHARE_MAX: f64 = 0.05;
/// Share of a color's traces whose stamp contradicts their version, above which nothing is promoted.
pub const CONFLICT_SHARE_MAX: f64 = 0.05;
/// Traces of these kinds below which a share says nothing yet.
pub const TRACES_MIN: i64 = 3;
/// Chance of taking sessions that cross colors at random for sticky ones.
pub const STICKY_ALPHA: f64 = 0.001;

/// Counts of what is guarded against: integers, so that they can be taken back exactly.
#[derive(Debug, Default)]
pub(super) struct Guarded {
    counts: BTreeMap<(Metric, Color, Option<u32>), (i64, i64)>,
}

impl Guarded {
    /// Counts one admitted cell, if it is of a metric that is guarded.
    pub fn see(&mut self, series: &Series, cell: &Cell) {
        let by_split = match series.metric {
            Metric::Traces | Metric::Unmarked | Metric::ColorConflict | Metric::MixedManifest | Metric::Sampled
                if series.grain == Grain::Trace =>
            {
                None
            }
            Metric::SessionSame => series.split_ppm,
            _ => return,
        };
        self.put(
            (series.metric.clone(), series.color, by_split),
            (cell.n, cell.events),
            1,
        );
    }

    /// Adds or takes back what another has counted.
    pub fn add(&mut self, other: &Self, sign: i64) {
        for (key, counts) in &other.counts {
            self.put(key.clone(), *counts, sign);
        }
    }

    fn put(&mut self, key: (Metric, Color, Option<u32>), (n, events): (i64, i64), sign: i64) {
        let sum = self.counts.entry(key.clone()).or_default();
        *sum = (sum.0 + sign * n, sum.1 + sign * events);
        if *sum == (0, 0) {
            self.counts.remove(&key);
        }
    }

    fn get(&self, metric: &Metric, color: Color) -> (i64, i64) {
        self.counts
            .get(&(metric.clone(), color, None))
            .copied()
            .unwrap_or_default()
    }

    /// A color whose share of `metric`'s events among its traces is above `most`, with that share.
    fn above(&self, metric: &Metric, most: f64) -> Option<(Color, f64)> {
        [Color::Green, Color::Blue].into_iter().find_map(|color| {
            let (n, events) = self.get(metric, color);
            let all = match metric {
                Metric::Sampled => self.get(&Metric::Traces, color).0.max(n),
                _ => n,
            };
            let share = events as f64 / all.max(1) as f64;
            (events >= TRACES_MIN && share > most).then_some((color, share))
        })
    }

    /// Why nothing may be judged, in words. `sessions` are the counts of sessions, wherever they come from.
    pub fn refused(&self, unit: Unit, sessions: &Self) -> Option<String> {
        if let Some((color, share)) = self.above(&Metric::MixedManifest, MIXED_SHARE_MAX) {
            return Some(format!(
                "mixed_manifest: {:.1} % of {} traces came along another path than their version's manifest declares",
                100.0 * share,
                color.as_str()
            ));
        }
        if let Some((color, share)) = self.above(&Metric::Sampled, SAMPLED_SHARE_MAX) {
            return Some(format!(
                "sampled: an upstream sampler chose {:.1} % of {} traces; export to tracegate before the sampler",
                100.0 * share,
                color.as_str()
            ));
        }
        (unit == Unit::Trace).then(|| sessions.sticky()).flatten()
    }

    /// Says so if sessions keep their color more often than chance would let them.
    fn sticky(&self) -> Option<String> {
        let mut logs = [0.0; BETS];
        let (mut same, mut all) = (0, 0);
        for ((metric, color, split), &(n, events)) in &self.counts {
            let rho = match (metric, split) {
                (Metric::SessionSame, Some(split)) if *split > 0 && *split < PPM => f64::from(*split) / f64::from(PPM),
                _ => continue,
            };
            let by_chance = match color {
                Color::Green => rho,
                Color::Blue => 1.0 - rho,
                Color::Unmarked => continue,
            };
            ShareBet::above(by_chance).add(events, n - events, &mut logs);
            (same, all) = (same + events, all + n);
        }
        (all > 0 && mean_exp(&logs) >= ln(1.0 / STICKY_ALPHA)).then(|| {
            format!(
                "sticky_sessions: {same} of {all} sessions kept their color, more than single traces drawn at random would; \
                 declare unit = \"session\""
            )
        })
    }

    /// What stands in the way of a promotion, in words.
    pub fn blocked(&self) -> Option<String> {
        let (all, unmarked) = self.get(&Metric::Unmarked, Color::Unmarked);
        let share = unmarked as f64 / all.max(1) as f64;
        if unmarked >= TRACES_MIN && share > UNMARKED_SHARE_MAX {
            return Some(format!("unmarked: {:.1} % of traces have no color", 100.0 * share));
        }
        self.above(&Metric::ColorConflict, CONFLICT_SHARE_MAX)
            .map(|(color, share)| {
                format!(
                    "color_conflict: {:.1} % of {} traces are stamped with another color than their version's",
                    100.0 * share,
                    color.as_str()
                )
            })
    }
}
