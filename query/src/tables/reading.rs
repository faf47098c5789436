//! What the tables of one query know about their snapshot, computed when first needed.

use super::Opened;
use proto::{Color, layout::Table};
use std::sync::{Arc, OnceLock};
use store::{LiveBatch, Patch, SealedFile, Snapshot, overlay::Depth};

/// The column whose range a [`SealedFile`] tells.
pub const fn time_column(table: Table) -> &'static str {
    match table {
        Table::Spans | Table::Traces => "start_time",
        Table::Evals => "time",
        Table::Cells => "minute",
    }
}

/// Records with patched rows.
#[derive(Debug)]
struct Patched {
    all: Ranges,
    /// By patches that know something of single spans.
    spans: Ranges,
}

impl Patched {
    fn of(snapshot: &Snapshot) -> Self {
        let patches = || snapshot.patches.iter().map(|(_, patch)| patch);
        Self {
            all: Ranges::of(patches()),
            spans: Ranges::of(patches().filter(|patch| patch.mark.spans.is_some())),
        }
    }
}

/// Ranges of records: disjoint, ascending, both ends inclusive.
#[derive(Debug)]
struct Ranges(Vec<(u64, u64)>);

impl Ranges {
    fn of<'a>(patches: impl Iterator<Item = &'a Patch>) -> Self {
        let mut ranges: Vec<(u64, u64)> = patches.map(|patch| (patch.first_lsn, patch.last_lsn)).collect();
        ranges.sort_unstable();
        let mut merged: Vec<(u64, u64)> = Vec::new();
        for (first, last) in ranges {
            match merged.last_mut() {
                Some(before) if first <= before.1.saturating_add(1) => {
                    before.1 = before.1.max(last);
                }
                _ => merged.push((first, last)),
            }
        }
        Self(merged)
    }

    fn overlap(&self, file: &SealedFile) -> bool {
        let next = self.0.partition_point(|&(_, last)| last < file.lsn_min);
        self.0.get(next).is_some_and(|&(first, _)| first <= file.lsn_max)
    }
}

/// A snapshot, with what is derived from it once per query.
#[derive(Debug)]
pub struct Reading {
    pub snapshot: Arc<Snapshot>,
    pub opened: Arc<Opened>,
    patched: OnceLock<Patched>,
    /// Largest value of `replaced`: rows at or above it are nobody's former version.
    replaced_below: OnceLock<u64>,
}

impl Reading {
    pub fn new(snapshot: Arc<Snapshot>, opened: Arc<Opened>) -> Self {
        Self {
            snapshot,
            opened,
            patched: OnceLock::new(),
            replaced_below: OnceLock::new(),
        }
    }

    /// Live rows of `table`.
    pub fn live(&self, table: Table) -> &[LiveBatch] {
        match table {
            Table::Spans => &self.snapshot.spans,
            Table::Traces => &self.snapshot.traces,
            Table::Evals => &self.snapshot.evals,
            Table::Cells => &[],
        }
    }

    /// What patches may touch in rows of `file`, if anything. Rows of `traces` are complete when written: a trace that
    /// changes later is replaced as a whole.
    pub fn patched(&self, file: &SealedFile) -> Option<Depth> {
        if !matches!(file.table, Table::Spans | Table::Evals) || self.snapshot.patches.is_empty() {
            return None;
        }
        let patched = self.patched.get_or_init(|| Patched::of(&self.snapshot));
        if patched.spans.overlap(file) {
            return Some(Depth::Spans);
        }
        patched.all.overlap(file).then_some(Depth::Traces)
    }

    /// True if rows of `traces` at record `lsn` may have been replaced by later ones.
    pub fn may_be_replaced(&self, lsn: u64) -> bool {
        let below = self.replaced_below.get_or_init(|| {
            let values = self.snapshot.replaced.iter().map(|(_, &value)| value);
            values.max().unwrap_or(0)
        });
        lsn < *below
    }

    /// Color of every row of `file`, as a query sees it; `None` if rows may differ. A blue or green row keeps its
    /// color whatever is learned later; an unmarked one may be patched.
    pub fn color_of(&self, file: &SealedFile) -> Option<Color> {
        file.color
            .filter(|color| color.is_marked() || self.patched(file).is_none())
    }
}
