//! Which routes and cohorts have cells of their own. A sender may name a million; memory holds the first so many.

use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};
use store::Mark;

/// Where the counts of further names go.
pub const OTHER: &str = "__other__";
/// Route of traces that named none, so that their unmarked share has a place.
pub const NO_ROUTE: &str = "__none__";

/// Names that have cells. They only grow, so a trace that is counted again is counted under the same name. Routes and
/// splits that a release declares are always counted as such: a sender of many names cannot hide them.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(super) struct Names {
    routes: BTreeSet<Arc<str>>,
    /// By route.
    cohorts: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    /// By route.
    evaluators: BTreeMap<Arc<str>, BTreeSet<Arc<str>>>,
    splits: BTreeSet<u32>,
}

impl Names {
    /// Route and cohort under which a trace of `mark` is counted.
    pub fn counted_as(&mut self, mark: &Mark, names_max: usize) -> (Arc<str>, Option<Arc<str>>) {
        let route = match &mark.route {
            Some(route) if mark.release.is_some() => Arc::clone(route),
            Some(route) => listed(&mut self.routes, route, names_max),
            None => NO_ROUTE.into(),
        };
        let cohort = mark.cohort.as_ref().map(|cohort| {
            let cohorts = self.cohorts.entry(Arc::clone(&route)).or_default();
            listed(cohorts, cohort, names_max)
        });
        (route, cohort)
    }

    /// Verdicts under the names of evaluators that have cells on a route.
    pub fn verdicts(
        &mut self,
        route: &Arc<str>,
        verdicts: BTreeMap<Arc<str>, bool>,
        names_max: usize,
    ) -> BTreeMap<Arc<str>, bool> {
        if verdicts.is_empty() {
            return verdicts;
        }
        let evaluators = self.evaluators.entry(Arc::clone(route)).or_default();
        let mut counted = BTreeMap::new();
        for (name, failed) in verdicts {
            *counted.entry(listed(evaluators, &name, names_max)).or_insert(false) |= failed;
        }
        counted
    }

    /// The split under which a trace is counted; of a sender that names too many, further ones are unknown.
    pub fn split(&mut self, split_ppm: Option<u32>, declared: Option<u32>, names_max: usize) -> Option<u32> {
        let split = split_ppm?;
        if self.splits.contains(&split) || declared == Some(split) {
            return Some(split);
        }
        (self.splits.len() < names_max).then(|| {
            self.splits.insert(split);
            split
        })
    }
}

fn listed(names: &mut BTreeSet<Arc<str>>, name: &Arc<str>, names_max: usize) -> Arc<str> {
    if let Some(known) = names.get(name) {
        return Arc::clone(known);
    }
    if names.len() >= names_max {
        return OTHER.into();
    }
    names.insert(Arc::clone(name));
    Arc::clone(name)
}
