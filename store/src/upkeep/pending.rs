//! How many patches a rewrite of a file might fold in, told by ranges of records alone.

use super::{Upkeep, is_late, ranges::Ranges};
use crate::{Patch, SealedFile, TraceId};
use hashbrown::HashMap;
use proto::layout::Table;

/// Patches that will not change.
#[derive(Debug, Default)]
pub(super) struct Pending(Ranges);

impl Pending {
    pub fn of<'a>(patches: impl Iterator<Item = (&'a TraceId, &'a Patch)>) -> Self {
        Self(Ranges::of(patches.map(|(_, patch)| (patch.first_lsn, patch.last_lsn))))
    }

    /// Patches whose records overlap those of `file`.
    pub fn over(&self, file: &SealedFile) -> usize {
        self.0.over(file.lsn_min, file.lsn_max)
    }

    /// Whether a file is rewritten for the sake of its patches: a thousandth of its rows, and no root is awaited. `folded`
    /// are those that were over it after it was written; they do not count again.
    pub fn are_due(&self, file: &SealedFile, task: &Upkeep, folded: &HashMap<String, usize>) -> bool {
        if !matches!(file.table, Table::Spans | Table::Evals) || !is_late(file.received().1, task) {
            return false;
        }
        let new = self
            .over(file)
            .saturating_sub(folded.get(&file.path).copied().unwrap_or(0));
        new as u64 > file.rows / 1_000
    }
}
