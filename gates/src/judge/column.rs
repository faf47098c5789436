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

    /// Replaces the rows of one minute.
    pub fn replace(&mut self, minute: i64, rows: Vec<R>) {
        let from = self.rows.partition_point(|r| r.place().0 < minute);
        let to = from + self.rows[from..].partition_point(|r| r.place().0 == minute);
        if from == to && rows.is_empty() {
            return;
        }
        self.states.retain(|(walked, _)| *walked <= from);
        self.rows.splice(from..to, rows);
    }

    /// The state after all rows: `step` takes it over the rows of one minute.
    pub fn walk(&mut self, mut step: impl FnMut(&mut S, &[R])) -> S {
        let (mut walked, mut state) = self.states.last().cloned().unwrap_or_default();
        let mut kept = walked;
        for minute in self.rows[walked..].chunk_by(|a, b| a.place().0 == b.place().0) {
            step(&mut state, minute);
            walked += minute.len();
            if walked >= kept + STRIDE {
                self.states.push((walked, state.clone()));
                kept = walked;
            }
        }
        state
    }
}

/// Adds `row` to those of its minute, which stand in ascending order of split.
pub(super) fn put<R: Row>(rows: &mut Vec<R>, row: R) {
    match rows.binary_search_by_key(&row.place(), Row::place) {
        Ok(i) => rows[i].absorb(&row),
        Err(i) => rows.insert(i, row),
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
