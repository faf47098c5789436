//! The minutes of one scope, in parts that snapshots share.

use super::Minute;
use std::{
    collections::{BTreeMap, btree_map},
    iter::FlatMap,
    ops::{Bound, RangeBounds},
    sync::Arc,
};

/// Seconds that one part covers: six hours. A change copies one part (360 minutes) and the list of parts (120 after a
/// month, 1,600 after 400 days) once it is shared, not every minute there is.
const PART_SECS: i64 = 6 * 3_600;

type Part = BTreeMap<i64, Arc<Minute>>;

/// The minutes of one scope, oldest first: a map from their start, unix seconds. A clone shares them; what is changed
/// later is copied then, and little else.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Minutes {
    /// By number; none is empty, so equal minutes are equal parts.
    parts: BTreeMap<i64, Arc<Part>>,
}

/// Minutes in order.
pub type Iter<'a> = FlatMap<
    btree_map::Values<'a, i64, Arc<Part>>,
    btree_map::Iter<'a, i64, Arc<Minute>>,
    fn(&'a Arc<Part>) -> btree_map::Iter<'a, i64, Arc<Minute>>,
>;

const fn part_of(minute: i64) -> i64 {
    minute.div_euclid(PART_SECS)
}

impl Minutes {
    /// None.
    #[must_use]
    pub const fn new() -> Self {
        Self { parts: BTreeMap::new() }
    }

    /// True if there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.parts.values().map(|part| part.len()).sum()
    }

    /// The one that starts at `at`.
    #[must_use]
    pub fn get(&self, at: &i64) -> Option<&Arc<Minute>> {
        self.parts.get(&part_of(*at))?.get(at)
    }

    /// Whether one starts at `at`.
    #[must_use]
    pub fn contains_key(&self, at: &i64) -> bool {
        self.get(at).is_some()
    }

    /// The cells of the one that starts at `at`, which is made if it was not there: whoever leaves it empty removes it.
    pub fn minute_mut(&mut self, at: i64) -> &mut Minute {
        let part = Arc::make_mut(self.parts.entry(part_of(at)).or_default());
        Arc::make_mut(part.entry(at).or_default())
    }

    /// Puts one in, and returns what was in its place.
    pub fn insert(&mut self, at: i64, minute: Arc<Minute>) -> Option<Arc<Minute>> {
        Arc::make_mut(self.parts.entry(part_of(at)).or_default()).insert(at, minute)
    }

    /// Takes one out.
    pub fn remove(&mut self, at: &i64) -> Option<Arc<Minute>> {
        let part = self.parts.get_mut(&part_of(*at)).filter(|part| part.contains_key(at))?;
        let part = Arc::make_mut(part);
        let removed = part.remove(at);
        if part.is_empty() {
            self.parts.remove(&part_of(*at));
        }
        removed
    }

    /// Takes out all that `keep` does not want. Parts of which all are wanted stay shared.
    pub fn retain(&mut self, mut keep: impl FnMut(&i64, &Arc<Minute>) -> bool) {
        self.parts.retain(|_, part| {
            let gone: Vec<i64> = part
                .iter()
                .filter(|(at, minute)| !keep(at, minute))
                .map(|(at, _)| *at)
                .collect();
            if gone.len() == part.len() {
                return false;
            }
            if !gone.is_empty() {
                let part = Arc::make_mut(part);
                for at in gone {
                    part.remove(&at);
                }
            }
            true
        });
    }

    /// All of them, oldest first.
    pub fn iter(&self) -> Iter<'_> {
        self.parts.values().flat_map(|part| part.iter())
    }

    /// Their cells, oldest first.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &Arc<Minute>> + Clone {
        self.iter().map(|(_, minute)| minute)
    }

    /// Their starts, oldest first.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &i64> + Clone {
        self.iter().map(|(at, _)| at)
    }

    /// Those that start within `bounds`, oldest first; none if these contradict each other.
    pub fn range(
        &self,
        bounds: impl RangeBounds<i64>,
    ) -> impl DoubleEndedIterator<Item = (&i64, &Arc<Minute>)> + Clone {
        let first = match bounds.start_bound() {
            Bound::Included(at) => Some(*at),
            Bound::Excluded(at) => at.checked_add(1),
            Bound::Unbounded => Some(i64::MIN),
        };
        let last = match bounds.end_bound() {
            Bound::Included(at) => Some(*at),
            Bound::Excluded(at) => at.checked_sub(1),
            Bound::Unbounded => Some(i64::MAX),
        };
        let within = first.zip(last).filter(|(first, last)| first <= last);
        within.into_iter().flat_map(|(first, last)| {
            let parts = self.parts.range(part_of(first)..=part_of(last));
            parts.flat_map(move |(_, part)| part.range(first..=last))
        })
    }

    /// The oldest.
    #[must_use]
    pub fn first_key_value(&self) -> Option<(&i64, &Arc<Minute>)> {
        self.iter().next()
    }

    /// The newest.
    #[must_use]
    pub fn last_key_value(&self) -> Option<(&i64, &Arc<Minute>)> {
        self.iter().next_back()
    }

    /// Sizes of the parts that `other` does not share.
    #[cfg(test)]
    pub(super) fn parts_not_of(&self, other: &Self) -> Vec<usize> {
        let shares = |nth: &i64, part: &Arc<Part>| other.parts.get(nth).is_some_and(|known| Arc::ptr_eq(known, part));
        let own = self.parts.iter().filter(|(nth, part)| !shares(nth, part));
        own.map(|(_, part)| part.len()).collect()
    }
}

impl<'a> IntoIterator for &'a Minutes {
    type Item = (&'a i64, &'a Arc<Minute>);
    type IntoIter = Iter<'a>;

    fn into_iter(self) -> Iter<'a> {
        self.iter()
    }
}

impl FromIterator<(i64, Arc<Minute>)> for Minutes {
    fn from_iter<I: IntoIterator<Item = (i64, Arc<Minute>)>>(minutes: I) -> Self {
        let mut all = Self::new();
        all.extend(minutes);
        all
    }
}

impl Extend<(i64, Arc<Minute>)> for Minutes {
    fn extend<I: IntoIterator<Item = (i64, Arc<Minute>)>>(&mut self, minutes: I) {
        for (at, minute) in minutes {
            self.insert(at, minute);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Minutes on both sides of every edge: of parts, of zero, of what can be counted.
    fn both() -> (Minutes, Part) {
        let edges = [-PART_SECS, 0, PART_SECS, 9 * PART_SECS];
        let near = edges.iter().flat_map(|edge| [edge - 60, *edge, edge + 60]);
        let starts = near.chain([i64::MIN, i64::MAX]);
        let all: Part = starts.map(|at| (at, Arc::default())).collect();
        (all.iter().map(|(at, minute)| (*at, Arc::clone(minute))).collect(), all)
    }

    #[test]
    fn they_are_what_one_map_of_them_would_be() {
        let (minutes, map) = both();
        assert!(minutes.iter().eq(map.iter()) && minutes.iter().rev().eq(map.iter().rev()));
        assert!((&minutes).into_iter().eq(&map) && minutes.keys().eq(map.keys()));
        assert_eq!((minutes.len(), minutes.is_empty()), (map.len(), false));
        assert_eq!(minutes.first_key_value(), map.first_key_value());
        assert_eq!(minutes.last_key_value(), map.last_key_value());
        let bounds = map
            .keys()
            .flat_map(|at| [*at, at.saturating_add(1), at.saturating_sub(1)]);
        let bounds: Vec<i64> = bounds.collect();
        for from in &bounds {
            assert!(minutes.range(from..).eq(map.range(from..)) && minutes.range(..from).eq(map.range(..from)));
            assert_eq!(minutes.get(from), map.get(from));
            for to in bounds.iter().filter(|to| *to >= from) {
                assert!(minutes.range(from..to).eq(map.range(from..to)));
                assert!(minutes.range(from..=to).rev().eq(map.range(from..=to).rev()));
            }
        }
        let (late, early) = (PART_SECS, 0);
        assert_eq!(
            minutes.range(late..early).count() + minutes.range(..i64::MIN).count(),
            0
        );
    }

    #[test]
    fn what_is_taken_out_leaves_no_trace() {
        let (mut minutes, map) = both();
        for at in map.keys() {
            assert!(minutes.remove(at).is_some() && minutes.remove(at).is_none());
        }
        assert_eq!(minutes, Minutes::new());
        let (mut minutes, mut map) = both();
        let shared = minutes.clone();
        minutes.retain(|at, _| *at >= PART_SECS);
        map.retain(|at, _| *at >= PART_SECS);
        assert!(minutes.iter().eq(map.iter()));
        assert_eq!(minutes.parts_not_of(&shared), Vec::<usize>::new(), "whole parts went");
        minutes.retain(|at, _| *at != PART_SECS);
        assert_eq!(minutes.parts_not_of(&shared), [1]);
        minutes.retain(|_, _| false);
        assert!(minutes.is_empty() && shared.len() > map.len());
    }
}
