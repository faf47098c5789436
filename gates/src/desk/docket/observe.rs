//! Releases that nobody declared, opened and closed by what the rows show.

use super::{Docket, Running, running};
use crate::{
    check::rules_hash,
    desk::{DeskError, GateInput, observed},
    ledger::ReleaseRow,
    life::{Event, ReleaseState},
};
use proto::{
    CellTable, Metric,
    cell::{Minutes, Scope},
    decision::Phase,
};
use std::{collections::BTreeSet, sync::Arc};

impl Docket {
    /// Ends the observed release of a route.
    pub(super) fn close_observed(&mut self, route: &str, reason: &str) -> Result<(), DeskError> {
        let on_route = |r: &Running| r.row.spec.route == route && r.row.state.phase == Phase::Observed;
        let ids: Vec<String> = self
            .releases
            .values()
            .filter(|r| on_route(r))
            .map(|r| r.row.spec.id.clone())
            .collect();
        let now = (self.clock)();
        for id in ids {
            let Some(mut running) = self.releases.remove(&id) else {
                continue;
            };
            let event = Event::Closed {
                reason: reason.to_owned(),
            };
            let done = self.apply(&mut running, &event, now, true);
            self.releases.insert(id, running);
            done?;
        }
        Ok(())
    }

    /// Opens and closes observed releases by what the rows show.
    pub(super) fn observe(&mut self, input: &GateInput) {
        let Some(seen) = &input.seen else {
            return;
        };
        let now = (self.clock)();
        let rows: Vec<&ReleaseRow> = self.releases.values().map(|r| &r.row).collect();
        let found = observed::look(seen, &rows, |route| evaluators(&input.cells, route), now);
        for (route, why) in found.closed {
            if let Err(e) = self.close_observed(&route, &why) {
                tracing::error!(route, error = %e, "cannot close an observed release");
            }
        }
        for (spec, since) in found.opened {
            let row = ReleaseRow {
                state: ReleaseState::open_observed(&spec, since, self.config.resolution),
                rules_hash: rules_hash(&spec),
                declared_at: now,
                declared_by: observed::ACTOR.to_owned(),
                people: Vec::new(),
                spec,
            };
            if let Err(e) = self.ledger.put_release(&row) {
                tracing::error!(release = row.spec.id, error = %e, "cannot open an observed release");
                continue;
            }
            tracing::info!(
                release = row.spec.id,
                route = row.spec.route,
                "two paths are live: comparing them"
            );
            self.releases.insert(row.spec.id.clone(), running(row));
            self.publish_book();
        }
    }
}

/// Evaluators that judged traces of a route outside any release.
fn evaluators(cells: &CellTable, route: &str) -> BTreeSet<Arc<str>> {
    let outside = Scope {
        route: route.into(),
        release: None,
    };
    let minutes = cells.minutes(&outside).into_iter().flat_map(Minutes::values);
    let names = minutes
        .flat_map(|minute| minute.keys())
        .filter_map(|s| match &s.metric {
            Metric::EvalFail(name) => Some(Arc::clone(name)),
            _ => None,
        });
    names.collect()
}
