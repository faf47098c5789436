//! What rows still need is looked for in many files, but not in all of them at once.

use super::{GO_ON, ages::DAY};
use crate::{
    journal::options,
    rows::{T0, traces},
};
use proto::{Nanos, layout::Table};
use std::{cell::Cell, sync::Arc, time::Duration};
use store::{Layers, LiveBatch, Retention, SealInput, SealedFile, Store, TraceId, Upkeep, Upkept};
use tempfile::TempDir;

/// One file of traces a day, and two of the last day: the newest row of trace 7 hides the one before it.
fn one_replaced(days: i64) -> (TempDir, Store, (TraceId, u64), Arc<Vec<SealedFile>>) {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    let id: TraceId = (7_u128 << 64 | 0xabcd_ef00).to_be_bytes();
    let (mut replaced, mut files) = (Layers::default(), None);
    let mut entry = (id, 0);
    for day in 0..days + 2 {
        let lsn = day as u64 + 1;
        let trace = if day < days { 1_000 + lsn } else { 7 };
        let at = Nanos(T0 + day.min(days) * DAY);
        if day == days + 1 {
            entry.1 = lsn;
            replaced.push([entry]);
        }
        let input = SealInput {
            lsn,
            sealed_at: at,
            traces: vec![LiveBatch {
                lsn,
                rows: traces(&[trace], (day - days).max(1) as i32),
            }],
            replaced: replaced.clone(),
            ..SealInput::default()
        };
        files = Some(store.sealer().seal(input).unwrap().files);
    }
    (dir, store, entry, files.unwrap())
}

fn keep(store: &Store, days: i64, minutes: u64, go_on: &dyn Fn() -> bool) -> Upkept {
    let now = Nanos(T0 + (days + 2) * DAY).plus(Duration::from_secs(60 * minutes));
    let forever = Duration::from_secs(5_000 * 86_400);
    let task = Upkeep {
        now,
        aged_to: now,
        retention: Retention {
            texts: forever,
            rows: forever,
            cells: forever,
            disk_max: 1.0,
        },
        ..Upkeep::default()
    };
    store.sealer().upkeep(&task, go_on).unwrap()
}

#[test]
fn hidden_rows_are_looked_for_over_several_steps_where_files_are_many() {
    let days = 300;
    let (_dir, store, entry, files) = one_replaced(days);
    let colors = |files: &[SealedFile]| files.iter().filter(|file| file.table == Table::Traces).count();
    assert_eq!(colors(&files) as i64, days + 2);
    let first = keep(&store, days, 0, GO_ON);
    assert_eq!((first.rewritten, first.rows_dropped), (2, 1));
    assert_eq!(first.replaced_gone, [], "nobody knows yet");
    let second = keep(&store, days, 1, GO_ON);
    assert_eq!(second.replaced_gone, [entry]);
    let third = keep(&store, days, 2, GO_ON);
    assert_eq!(third.replaced_gone, []);
}

#[test]
fn a_seal_that_hurries_ends_a_search_and_a_later_step_goes_on_with_it() {
    let days = 40;
    let (_dir, store, entry, _) = one_replaced(days);
    let asked = Cell::new(0);
    let few = || {
        asked.set(asked.get() + 1);
        asked.get() < 20
    };
    let first = keep(&store, days, 0, &few);
    assert_eq!((first.rewritten, first.replaced_gone.as_slice()), (2, [].as_slice()));
    assert_eq!(keep(&store, days, 1, GO_ON).replaced_gone, [entry]);
}
