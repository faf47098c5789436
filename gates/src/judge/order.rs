//! The order in which (gate, cohort) pairs appeared: it fixes their weights, so it is persisted and only ever grows.

use super::plan::unit_grain;
use proto::{Metric, cell::Minutes, release::ReleaseSpec};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};

/// Pairs judged for one release at most; cohorts that appear later are counted in the overall pairs only.
pub const PAIRS_MAX: usize = 10_000;

/// One gate, over all traces or within one cohort.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct PairKey {
    /// Name of the gate.
    pub gate: String,
    /// Cohort; null for the overall pair.
    pub cohort: Option<String>,
}

/// Pairs not yet in `order`, to be appended and persisted before anything is judged by them: overall gates as declared,
/// then each cohort's pairs at its first admitted trace (minute, then name, then gate), whatever became of that trace.
/// Reads minutes from `counted_from` (unix seconds) on; they hold the release's units, so for sessions and users they are
/// measured ones.
#[must_use]
pub fn new_pairs(spec: &ReleaseSpec, minutes: &Minutes, counted_from: i64, order: &[PairKey]) -> Vec<PairKey> {
    let mut seen = BTreeSet::new();
    let mut cohorts: Vec<Arc<str>> = Vec::new();
    let units = unit_grain(spec.unit);
    for minute in minutes.range(counted_from..).map(|(_, m)| m) {
        // `traces` is the first metric, so its series stand first.
        let traces = minute
            .keys()
            .take_while(|s| s.metric == Metric::Traces)
            .filter(|s| s.grain == units && s.admitted && s.color.is_marked());
        for cohort in traces.filter_map(|s| s.cohort.as_ref()) {
            if !seen.contains(cohort) {
                seen.insert(Arc::clone(cohort));
                cohorts.push(Arc::clone(cohort));
            }
        }
    }
    append(spec, cohorts.iter().map(|c| &**c), order)
}

/// The same from cohorts in order of appearance.
pub(super) fn append<'a>(
    spec: &ReleaseSpec,
    cohorts: impl Iterator<Item = &'a str>,
    order: &[PairKey],
) -> Vec<PairKey> {
    let known: BTreeSet<&PairKey> = order.iter().collect();
    // what only looks on stands behind what acts, and takes no weight from it
    let (looks_on, acts): (Vec<_>, Vec<_>) = spec.gates.iter().partition(|g| g.dry_run);
    let overall = acts.into_iter().chain(looks_on).map(|g| (g, None));
    let within = cohorts.flat_map(|cohort| {
        let gates = spec.gates.iter().filter(|g| g.by_cohort);
        gates.map(move |g| (g, Some(cohort.to_owned())))
    });
    overall
        .chain(within)
        .map(|(gate, cohort)| PairKey {
            gate: gate.name.clone(),
            cohort,
        })
        .filter(|pair| !known.contains(pair))
        .take(PAIRS_MAX.saturating_sub(order.len()))
        .collect()
}
