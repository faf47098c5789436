//! What a running release asks of the rows.

use super::reading::pairs_from;
use crate::{judge::pair_plans, ledger::ReleaseRow, life::slot_after};
use proto::{
    Nanos,
    measure::{MeasurePlan, SqlPlan},
    release::Unit,
};
use std::time::Duration;

/// The question of one release.
pub(super) fn of(row: &ReleaseRow, resolution: Duration) -> MeasurePlan {
    let (spec, state) = (&row.spec, &row.state);
    let whole = |secs: u64| i64::try_from(secs).unwrap_or(i64::MAX);
    let statements = spec.gates.iter().filter_map(|gate| {
        Some(SqlPlan {
            gate: gate.name.as_str().into(),
            sql: gate.sql.clone()?,
        })
    });
    MeasurePlan {
        release: spec.id.as_str().into(),
        route: spec.route.as_str().into(),
        // sessions and users freeze their thresholds from the warm-up, and one begun in it is not a new one later
        from: match spec.unit {
            Unit::Trace => Nanos::from_secs(state.counted_from),
            Unit::Session | Unit::User => Nanos::from_secs(slot_after(state.opened, resolution)),
        },
        pairs_from: Nanos::from_secs(pairs_from(state, resolution)),
        minute_secs: whole(resolution.as_secs()).max(1),
        admitted_after_secs: whole((spec.timeout + spec.grace).as_secs()),
        splits: state.splits.clone(),
        pairs: pair_plans(spec, state.baseline.as_ref()),
        sql: statements.collect(),
        unit: spec.unit,
        metrics: match spec.unit {
            Unit::Trace => Vec::new(),
            Unit::Session | Unit::User => {
                let plain = spec.gates.iter().filter(|g| g.sql.is_none() && !g.paired);
                plain.map(|g| g.metric.clone()).collect()
            }
        },
    }
}
