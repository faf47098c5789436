//! What the tables of one query know about their snapshot, computed when first needed.

use proto::{Color, layout::Table};
use std::sync::{Arc, OnceLock};
use store::{LiveBatch, SealedFile, Snapshot};

/// Columns that a mark or a patch may fill.
pub const PATCHABLE: [&str; 7] = [
    "route",
    "color",
    "unmarked_reason",
    "version",
    "release",
    "cohort",
    "split",
];

/// The column whose range a [`SealedFile`] tells.
pub const fn time_column(table: Table) -> &'static str {
    match table {
        Table::Spans | Table::Traces => "start_time",
        Table::Evals => "time",
        Table::Cells => "minute",
    }
}

/// A snapshot, with what is derived from it once per query.
#[derive(Debug)]
pub struct Reading {
    pub snapshot: Arc<Snapshot>,
    /// Record ranges that patches cover: disjoint, ascending, both ends inclusive.
    patched: OnceLock<Vec<(u64, u64)>>,
    /// Largest value of `replaced`: rows at or above it are nobody's former version.
    replaced_below: OnceLock<u64>,
}

impl Reading {
    pub fn new(snapshot: Arc<Snapshot>) -> Self {
        Self {
            snapshot,
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

    /// True if some patch may touch rows of `file`. Rows of `traces` are complete when written: a trace that changes
    /// later is replaced as a whole.
    pub fn is_patched(&self, file: &SealedFile) -> bool {
        if !matches!(file.table, Table::Spans | Table::Evals) || self.snapshot.patches.is_empty() {
            return false;
        }
        let ranges = self.patched.get_or_init(|| self.patched_ranges());
        let next = ranges.partition_point(|&(_, last)| last < file.lsn_min);
        ranges.get(next).is_some_and(|&(first, _)| first <= file.lsn_max)
    }

    fn patched_ranges(&self) -> Vec<(u64, u64)> {
        let mut ranges: Vec<(u64, u64)> = self
            .snapshot
            .patches
            .iter()
            .map(|(_, patch)| (patch.first_lsn, patch.last_lsn))
            .collect();
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
        merged
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
        file.color.filter(|color| color.is_marked() || !self.is_patched(file))
    }
}
