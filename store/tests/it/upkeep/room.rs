//! What stands in the way of a rewrite, or of a seal, never stands in the way of removal.

use super::{
    GO_ON, HOUR,
    ages::{DAY, sealed_at, sealed_on, until_done},
    named, on_disk, step,
};
use crate::{
    faults::{Fault, FaultyDisk},
    journal::{on, options},
    rows::{T0, rng, spans},
};
use proto::{Nanos, layout::Table};
use std::{collections::BTreeSet, fs, os::unix::fs::symlink, path::Path};
use store::{LiveBatch, SealInput, SealedFile, Sealer, Space, Store, Upkeep};

const MINUTE: i64 = 60_000_000_000;

/// One more seal of a few spans, at `hour`.
fn seal(sealer: &Sealer, lsn: u64, hour: i64, deferred: bool) -> store::Sealed {
    let rows = spans(&mut rng(lsn), 10, 5, &mut 0, Nanos(T0 + hour * HOUR));
    let input = SealInput {
        lsn,
        sealed_at: Nanos(T0 + hour * HOUR),
        spans: vec![LiveBatch { lsn, rows }],
        deferred,
        ..SealInput::default()
    };
    sealer.seal(input).unwrap()
}

fn rows(files: &[SealedFile]) -> u64 {
    files.iter().map(|file| file.rows).sum()
}

#[test]
fn beside_files_that_wait_for_their_commit_record_old_ones_go() {
    let (dir, store, files) = sealed_at(&[0, 1, 30 * 24], None);
    let sealer = store.sealer();
    let waiting = seal(&sealer, 4, 30 * 24 + 1, true).added;
    // The day of the first two is 30 days over; nothing is joined, though two files of it could be.
    let now = Nanos(T0 + 31 * DAY);
    let task = Upkeep {
        now,
        aged_to: now,
        ..Upkeep::default()
    };
    let is_old = |file: &&SealedFile| file.table != Table::Cells && file.received().1.0 < T0 + DAY;
    let old: BTreeSet<String> = files.iter().filter(is_old).map(|file| file.path.clone()).collect();
    let done = sealer.upkeep(&task, GO_ON).unwrap();
    assert_eq!((done.removed, done.rewritten, done.more), (old.len() as u64, 0, false));
    let left: BTreeSet<String> = named(&files).difference(&old).cloned().collect();
    let all: BTreeSet<String> = left.union(&named(&waiting)).cloned().collect();
    assert_eq!(named(&done.files), all, "those that wait answer queries on");
    // Twice committed and a minute later their room is free, still beside what waits.
    drop((files, done));
    for minutes in [1, 3] {
        let done = step(&sealer, now.0 + minutes * MINUTE);
        assert_eq!(named(&done.files), all);
    }
    assert_eq!(on_disk(dir.path()), all);
    let day = old.first().and_then(|path| path.split("/hour=").next()).unwrap();
    assert!(!dir.path().join(day).exists(), "and so are their folders");
    // The commit record that follows names them, and says what is gone.
    let sealed = seal(&sealer, 5, 30 * 24 + 2, false);
    let expected: BTreeSet<String> = all.union(&named(&sealed.added)).cloned().collect();
    assert_eq!(named(&sealed.files), expected);
    drop((store, sealer));
    let (_store, found) = Store::open(dir.path(), options()).unwrap();
    assert_eq!(named(&found.base.files), expected);
    assert!(found.report.quarantined.is_empty() && found.lsn == 5);
}

#[test]
fn a_kill_after_a_removal_beside_waiting_files_takes_only_those_back() {
    let (dir, store, _) = sealed_at(&[0, 30 * 24], None);
    let waiting = seal(&store.sealer(), 3, 30 * 24 + 1, true).added;
    let mut left = BTreeSet::new();
    for minutes in 0..3 {
        left = named(&step(&store.sealer(), T0 + 31 * DAY + minutes * MINUTE).files);
    }
    drop(store);
    let (_store, found) = Store::open(dir.path(), options()).unwrap();
    assert_eq!(found.lsn, 2, "the journal has the rows of what waited");
    assert_eq!(
        named(&found.base.files),
        left.difference(&named(&waiting)).cloned().collect()
    );
}

#[test]
fn for_want_of_room_old_files_go_beside_files_that_wait() {
    let (_dir, store, files) = sealed_at(&[0, 1, 2, 3, 4], None);
    seal(&store.sealer(), 6, 4, true);
    let now = Nanos(T0 + 5 * HOUR);
    let task = Upkeep {
        now,
        aged_to: now,
        space: Some(Space {
            used: 900,
            total: 1_000,
        }),
        ..Upkeep::default()
    };
    let done = store.sealer().upkeep(&task, GO_ON).unwrap();
    assert!(done.removed > 0);
    assert!(
        named(&files)
            .difference(&named(&done.files))
            .all(|path| path.contains("hour="))
    );
}

#[test]
fn a_rewrite_that_finds_no_room_holds_back_no_removal() {
    let disk = FaultyDisk::default();
    let (dir, store, files) = sealed_on(on(disk.clone()), &[0, 30 * 24, 30 * 24 + 1], None);
    let now = T0 + 31 * DAY + HOUR;
    let is_old = |file: &&SealedFile| file.table != Table::Cells && file.received().1.0 < T0 + DAY;
    let old: BTreeSet<String> = files.iter().filter(is_old).map(|file| file.path.clone()).collect();
    drop(files);
    let first = step(&store.sealer(), now);
    assert_eq!(
        (first.removed, first.rewritten),
        (old.len() as u64, 0),
        "removal goes alone"
    );
    assert!(first.more);
    disk.arm(0, Fault::Full);
    let second = step(&store.sealer(), now + MINUTE / 2);
    assert_eq!(second.rewritten, 0);
    drop((first, second));
    step(&store.sealer(), now + 2 * MINUTE);
    assert!(on_disk(dir.path()).is_disjoint(&old), "their room is free");
}

/// In place of a file something that cannot be opened, and is neither missing nor damaged.
fn make_unreadable(path: &Path) {
    fs::remove_file(path).unwrap();
    symlink(path, path).unwrap();
}

#[test]
fn a_file_that_cannot_be_opened_is_left_out_and_the_rest_goes_on() {
    let (dir, store, files) = sealed_at(&[0, 1, 2, 24, 25], None);
    let of_first_day = |file: &&SealedFile| file.table == Table::Spans && file.received().1.0 < T0 + 4 * HOUR;
    let bad = files.iter().find(of_first_day).unwrap().clone();
    let path = dir.path().join(&bad.path);
    let whole = fs::read(&path).unwrap();
    make_unreadable(&path);
    let now = Nanos(T0 + 3 * DAY);
    let task = Upkeep {
        now,
        aged_to: now,
        suspects: vec![bad.path.clone()],
        ..Upkeep::default()
    };
    let (done, ..) = until_done(&store, &task);
    assert!(named(&done.files).contains(&bad.path) && done.quarantined_now == 0);
    assert_eq!(rows(&done.files), rows(&files), "nothing is lost");
    let hours = |files: &[SealedFile], bad: &str| {
        let others = files
            .iter()
            .filter(|file| file.table == Table::Spans && file.path != bad);
        others.filter(|file| file.path.contains("/hour=")).count()
    };
    assert_eq!(hours(&done.files, &bad.path), 0, "all others are joined by day");
    // Old files go, this one too when its time comes.
    let old = step(&store.sealer(), T0 + 40 * DAY);
    assert!(old.removed > 0 && old.files.iter().all(|file| file.table == Table::Cells));
    drop((done, old, files));
    // An hour later it is tried again.
    let (dir, store, files) = sealed_at(&[0, 1], None);
    let bad = files.iter().find(of_first_day).unwrap().path.clone();
    let path = dir.path().join(&bad);
    make_unreadable(&path);
    until_done(
        &store,
        &Upkeep {
            suspects: vec![],
            ..task.clone()
        },
    );
    fs::remove_file(&path).unwrap();
    fs::write(&path, whole).unwrap();
    let now = now.plus(std::time::Duration::from_secs(3_601));
    let (done, ..) = until_done(
        &store,
        &Upkeep {
            now,
            suspects: vec![],
            ..task
        },
    );
    assert_eq!((hours(&done.files, ""), done.quarantined_now), (0, 0));
}

#[test]
fn files_that_cannot_be_rewritten_do_not_stand_before_all_others() {
    let disk = FaultyDisk::default();
    let (_dir, store, files) = sealed_on(on(disk.clone()), &[0, 1, 2, 24, 25, 26], None);
    let now = T0 + 3 * DAY;
    let task = Upkeep {
        now: Nanos(now),
        aged_to: Nanos(now),
        ..Upkeep::default()
    };
    disk.arm(0, Fault::Refused);
    store.sealer().upkeep(&task, GO_ON).unwrap_err();
    let (done, ..) = until_done(&store, &task);
    let left = |files: &[SealedFile]| files.iter().filter(|file| file.path.contains("hour=")).count();
    assert!(left(&done.files) > 0 && left(&done.files) < left(&files) / 2);
    // An hour later they are joined as well.
    let now = Nanos(now + HOUR + MINUTE);
    let (again, ..) = until_done(&store, &Upkeep { now, ..task });
    assert!(again.files.len() < done.files.len());
    assert_eq!(rows(&again.files), rows(&files));
}
