//! The moments at which a SQL gate is counted. They depend on time alone, never on what was counted: looking more often
//! where it is interesting would be a choice that the statistics do not know of.

use proto::{Nanos, measure::MeasurePlan};

/// For this many minutes every minute's end is a moment.
const DENSE_MINUTES: i64 = 512;
/// After that every so many.
const SPARSE_MINUTES: i64 = 16;
/// Moments of the grid lie at least this far apart, s; where the split changes there is one in any case.
const APART_SECS: i64 = 10;

/// Moments up to `until`, ascending: the start, ends of minutes, and every change of the split.
pub(super) fn moments(plan: &MeasurePlan, until: Nanos) -> Vec<Nanos> {
    if until < plan.from {
        return Vec::new();
    }
    let width = plan.minute_secs.max(1);
    let dense = (APART_SECS + width - 1) / width;
    let sparse = dense.max(SPARSE_MINUTES);
    let at = |minute: i64| {
        Nanos(
            plan.from
                .0
                .saturating_add(minute.saturating_mul(width).saturating_mul(1_000_000_000)),
        )
    };
    let first = (0..=DENSE_MINUTES).step_by(usize::try_from(dense).unwrap_or(1));
    let rest = (1..).map(|i: i64| DENSE_MINUTES + i.saturating_mul(sparse));
    let mut moments: Vec<Nanos> = first.chain(rest).map(at).take_while(|at| *at <= until).collect();
    moments.extend(
        plan.splits
            .iter()
            .map(|(since, _)| *since)
            .filter(|since| plan.from < *since && *since <= until),
    );
    moments.sort_unstable();
    moments.dedup();
    moments
}

/// Split in force at a moment, ppm.
pub(super) fn split_at(plan: &MeasurePlan, at: Nanos) -> Option<u32> {
    let i = plan.splits.partition_point(|(since, _)| *since <= at);
    i.checked_sub(1).and_then(|i| plan.splits[i].1)
}
