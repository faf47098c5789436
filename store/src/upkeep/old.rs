//! Which files are past their age, or must go because the disk is full.

use super::Upkeep;
use crate::SealedFile;
use proto::{Nanos, layout::Table};
use std::time::Duration;

/// For want of room, only files whose rows are all older than this are removed: what is being judged stays.
const SPARED: Duration = Duration::from_secs(3_600);

/// Takes old files out of `files`, oldest first. `freed` bytes are given back soon anyway.
pub(super) fn take(files: &mut Vec<SealedFile>, task: &Upkeep, freed: u64) -> Vec<SealedFile> {
    let mut order: Vec<usize> = (0..files.len()).collect();
    order.sort_by_key(|&at| (files[at].received().1, at));
    let mut excess = excess(task).saturating_sub(freed);
    let mut gone = Vec::new();
    for at in order {
        let file = &files[at];
        let is_for_room = excess > 0 && file.table != Table::Cells && is_before(file, task.now, SPARED);
        if is_before(file, task.aged_to, age(file.table, task)) || is_for_room {
            excess = excess.saturating_sub(file.bytes);
            gone.push(at);
        }
    }
    let removed = gone.iter().map(|&at| files[at].clone()).collect();
    gone.sort_unstable();
    for at in gone.into_iter().rev() {
        files.remove(at);
    }
    removed
}

const fn age(table: Table, task: &Upkeep) -> Duration {
    match table {
        Table::Spans | Table::Traces | Table::Evals => task.retention.rows,
        Table::Cells => task.retention.cells,
    }
}

/// Whether every row was received at least `age` ago.
fn is_before(file: &SealedFile, now: Nanos, age: Duration) -> bool {
    file.received().1 <= now.minus(age)
}

/// Bytes above the share that may be used.
fn excess(task: &Upkeep) -> u64 {
    let Some(space) = task.space else { return 0 };
    let allowed = (space.total as f64 * task.retention.disk_max) as u64;
    space.used.saturating_sub(allowed)
}
