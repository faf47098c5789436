//! Which files are rewritten together: decided from their names, sizes and the time alone, so that the same files give
//! the same choice.
//!
//! Files of one table, color and hour fit together, and once a day is over those of its hours. While an hour goes on,
//! files are joined only when none is larger than all others together: a row is then rewritten O(log n) times.

use crate::SealedFile;
use proto::{
    Color, Nanos,
    layout::{self, HOUR, Table},
};
use std::{collections::BTreeMap, time::Duration};

/// A file of this size is never joined with others, bytes: that is what a join aims at.
const LARGE_BYTES: u64 = 64 << 20;
/// Nor is one of this many rows: a row group.
const LARGE_ROWS: u64 = 1 << 17;
/// Files read in one step.
const FILES_MAX: usize = 64;
/// Their bytes together; one alone may have more.
const BYTES_MAX: u64 = 2 * LARGE_BYTES;
/// Their rows together; one alone may have more.
const ROWS_MAX: u64 = 1 << 17;
/// Cells in one step: all of them are in memory at a time.
const CELLS_MAX: u64 = 1 << 16;
/// Files joined while their hour goes on, at least.
const FILES_MIN: usize = 8;
/// Files joined once nothing more is to come, at least.
const FILES_MIN_OVER: usize = 2;
/// After its end an hour or day still gets rows for as long as a seal may wait.
const OVER_AFTER: Duration = Duration::from_secs(600);

/// The time that one file shall cover.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Period {
    /// That of its hours together, once it is over. It starts then.
    Day(Nanos),
    /// It starts then.
    Hour(Nanos),
}

/// Files to be rewritten as one (or one of each color that their rows take).
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Group {
    /// Places in the list, ascending.
    pub files: Vec<usize>,
    pub table: Table,
    pub period: Period,
    /// Long texts are left out, because they are past their age.
    pub blank: bool,
    /// Files that make it worth it.
    least: usize,
}

impl Group {
    /// Folder of a new file.
    pub fn folder(&self, color: Option<Color>) -> String {
        match self.period {
            Period::Hour(start) => layout::partition(self.table, color, start),
            Period::Day(start) => layout::partition_of_day(self.table, color, start),
        }
    }

    /// The file at place `at` is no longer in the list.
    pub fn lost(&mut self, at: usize) {
        self.files.retain(|place| *place != at);
        for place in self.files.iter_mut().filter(|place| **place > at) {
            *place -= 1;
        }
    }

    /// The file at place `at` stays as it is.
    pub fn leave(&mut self, at: usize) {
        self.files.retain(|place| *place != at);
    }

    /// False once too few are left.
    pub fn is_worth_it(&self) -> bool {
        self.files.len() >= self.least
    }
}

/// The group to be rewritten next: texts received until `texts_until` first, which are past their age, then the most files,
/// then what has patches. What is not readable is as if it were not there.
pub(super) fn choose(
    files: &[SealedFile],
    now: Nanos,
    texts_until: Nanos,
    is_readable: impl Fn(&SealedFile) -> bool,
    has_patches: impl Fn(&SealedFile) -> bool,
) -> Option<Group> {
    let mut groups: BTreeMap<(Period, Table, Option<Color>), Vec<usize>> = BTreeMap::new();
    for (at, file) in files.iter().enumerate().filter(|(_, file)| is_readable(file)) {
        let key = (period(file, now), file.table, file.color);
        groups.entry(key).or_default().push(at);
    }
    let has_old_texts = |at: &usize| files[*at].texts && files[*at].received().1 <= texts_until;
    let group = |(period, table, _): &(Period, Table, Option<Color>), mut chosen: Vec<usize>, blank, least| {
        chosen.sort_unstable();
        Group {
            files: chosen,
            table: *table,
            period: *period,
            blank,
            least,
        }
    };
    for (key, members) in &groups {
        let texts: Vec<usize> = members.iter().copied().filter(has_old_texts).collect();
        if !texts.is_empty() {
            return Some(group(key, within_bounds(files, key.1, texts), true, 1));
        }
    }
    let joined = groups
        .iter()
        .map(|(key, members)| (key, join(files, key, members, now)));
    // of equally many the oldest
    if let Some((key, chosen)) = joined.rev().max_by_key(|(_, chosen)| chosen.len())
        && !chosen.is_empty()
    {
        return Some(group(key, chosen, false, FILES_MIN_OVER));
    }
    let (key, at) = groups.iter().find_map(|(key, members)| {
        let at = members.iter().copied().find(|at| has_patches(&files[*at]))?;
        Some((key, at))
    })?;
    Some(group(key, vec![at], false, 1))
}

fn period(file: &SealedFile, now: Nanos) -> Period {
    let (start, _) = file.received();
    let day = Nanos(start.0.div_euclid(24 * HOUR) * (24 * HOUR));
    if is_over(Period::Day(day), now) {
        Period::Day(day)
    } else {
        Period::Hour(start)
    }
}

fn is_over(period: Period, now: Nanos) -> bool {
    let end = match period {
        Period::Hour(start) => start.0.saturating_add(HOUR),
        Period::Day(start) => start.0.saturating_add(24 * HOUR),
    };
    Nanos(end).plus(OVER_AFTER) <= now
}

/// Which of the files of a group are joined; none if it is not worth it.
fn join(files: &[SealedFile], key: &(Period, Table, Option<Color>), members: &[usize], now: Nanos) -> Vec<usize> {
    let small = |at: &usize| files[*at].bytes < LARGE_BYTES && files[*at].rows < LARGE_ROWS;
    let mut small: Vec<usize> = members.iter().copied().filter(small).collect();
    small.sort_by_key(|at| (files[*at].bytes, *at));
    let mut chosen = within_bounds(files, key.1, small);
    let is_over = is_over(key.0, now);
    if !is_over {
        let mut sum: u64 = chosen.iter().map(|at| files[*at].bytes).sum();
        while let Some(last) = chosen.last().map(|at| files[*at].bytes)
            && last > sum - last
        {
            chosen.pop();
            sum -= last;
        }
    }
    let least = if is_over { FILES_MIN_OVER } else { FILES_MIN };
    if chosen.len() < least {
        chosen.clear();
    }
    chosen
}

/// As many of the first as one step takes; one at least.
fn within_bounds(files: &[SealedFile], table: Table, mut chosen: Vec<usize>) -> Vec<usize> {
    let rows_max = if table == Table::Cells { CELLS_MAX } else { ROWS_MAX };
    let (mut bytes, mut rows) = (0, 0);
    let fits = chosen.iter().take(FILES_MAX).take_while(|at| {
        bytes += files[**at].bytes;
        rows += files[**at].rows;
        bytes <= BYTES_MAX && rows <= rows_max
    });
    let fits = fits.count().max(1);
    chosen.truncate(fits);
    chosen
}
