//! One pair's rows in order of time, and how far the walk along them had come: what makes the next judgement short.
//!
//! A mixture over start minutes is a recursion from row to row. Its state is kept every [`STRIDE`] rows, so a change near
//! the end, where nearly all changes are, costs a walk over the last few rows. The walk does the same operations in the
//! same order as one from the beginning, so the bits are the same.

use proto::cell::{Minute, Minutes};
use std::{collections::BTreeMap, sync::Arc};

/// Rows between two kept states.
const STRIDE: usize = 64;

/// A row of a column.
pub(super) trait Row: Sized {
    /// Minute (unix seconds) and split (ppm): the order of rows.
    fn place(&self) -> (i64, u32);
    /// Adds what another row of the same place counted.
    fn absorb(&mut self, other: &Self);
}

/// Rows of one pair in ascending order, with states `S` of a walk over them.
#[derive(Debug)]
pub(super) struct Column<R, S> {
    rows: Vec<R>,
    /// (rows walked, state after them), ascending; never between two rows of one minute.
    states: Vec<(usize, S)>,
}

impl<R, S> Default for Column<R, S> {
    fn default() -> Self {
        Self {
            rows: Vec::new(),
            states: Vec::new(),
        }
    }
}

impl<R: Row, S: Clone + Default> Column<R, S> {
    pub fn rows(&self) -> &[R] {
        &self.rows
    }

    /// Rows of minutes before `until` (unix seconds).
    pub fn rows_until(&self, until: i64) -> &[R] {
        &self.rows[..self.rows.partition_point(|r| r.place().0 < until)]
    }

    /// Replaces the rows of the minutes in `from..to`. True if anything is or was there.
    pub fn replace(&mut self, from: i64, to: i64, rows: impl ExactSizeIterator<Item = R>) -> bool {
        // nearly always rows come at the end
        let first = match self.rows.last() {
            Some(last) if last.place().0 >= from => self.rows.partition_point(|r| r.place().0 < from),
            _ => self.rows.len(),
        };
        let last = first + self.rows[first..].partition_point(|r| r.place().0 < to);
        if first == last && rows.len() == 0 {
            return false;
        }
        let kept = self.states.partition_point(|(walked, _)| *walked <= first);
        self.states.truncate(kept);
        self.rows.splice(first..last, rows);
        true
    }

    /// The state after all rows of minutes before `until`: `step` takes it over the rows of one minute.
    pub fn walk(&mut self, until: i64, mut step: impl FnMut(&mut S, &[R])) -> S {
        let end = self.rows.partition_point(|r| r.place().0 < until);
        let known = self.states.partition_point(|(walked, _)| *walked <= end);
        let (mut walked, mut state) = match known.checked_sub(1) {
            Some(last) => self.states[last].clone(),
            None => Default::default(),
        };
        let mut kept = walked;
        let grows = known == self.states.len();
        for minute in self.rows[walked..end].chunk_by(|a, b| a.place().0 == b.place().0) {
            step(&mut state, minute);
            walked += minute.len();
            if grows && walked >= kept + STRIDE {
                self.states.push((walked, state.clone()));
                kept = walked;
            }
        }
        state
    }
}

/// Minutes that are not what they were, with what they are now: `None` if gone. Compared by identity; one walk over
/// both.
pub(super) fn changed(old: &BTreeMap<i64, Arc<Minute>>, new: &Minutes, from: i64) -> Vec<(i64, Option<Arc<Minute>>)> {
    let mut out = Vec::new();
    let mut old = old.iter().peekable();
    for (&minute, cells) in new.range(from..) {
        while let Some((&gone, _)) = old.next_if(|(m, _)| **m < minute) {
            out.push((gone, None));
        }
        let known = old.next_if(|(m, _)| **m == minute);
        if known.is_none_or(|(_, known)| !Arc::ptr_eq(known, cells)) {
            out.push((minute, Some(Arc::clone(cells))));
        }
    }
    out.extend(old.map(|(&gone, _)| (gone, None)));
    out
}
