//! Opening: the lock, a damaged commit record, a damaged file, reading beside a server.

use crate::{
    faults::FaultyDisk,
    journal::{on, options},
    rows::{micro, rng},
    upkeep::on_disk,
};
use proto::{
    Cell, CellKey, CellTable, Color, Grain, Metric, Nanos,
    cell::{Scope, Series},
    layout::Table,
};
use std::{collections::BTreeSet, fs, path::Path};
use store::{JournalRecovery, LiveBatch, SealInput, Store, StoreError, StoreOptions};
use tempfile::TempDir;

fn cells(n: i64) -> CellTable {
    let key = CellKey {
        scope: Scope {
            route: "chat".into(),
            release: None,
        },
        minute: 60,
        series: Series {
            metric: Metric::Error,
            grain: Grain::Trace,
            cohort: None,
            split_ppm: None,
            color: Color::Blue,
            admitted: true,
        },
    };
    let mut table = CellTable::default();
    table.apply(&key, &Cell { n, ..Cell::default() }, 1);
    table
}

/// Three commits of three records each, and two records behind them.
pub fn three_commits(dir: &Path) {
    let small = StoreOptions {
        segment_bytes_max: 4_000,
        ..options()
    };
    let (mut store, _) = Store::open(dir, small).unwrap();
    let (mut journal, sealer) = (store.journal().unwrap(), store.sealer());
    let (mut rng, mut spans) = (rng(1), 0);
    let mut live = Vec::new();
    for lsn in 1..=11 {
        let batch = micro(&mut rng, lsn, &mut spans);
        journal.append(&batch).unwrap();
        journal.sync().unwrap();
        live.push(LiveBatch {
            lsn,
            rows: batch.sections[0].rows.clone(),
        });
        if lsn % 3 == 0 {
            let sealed = sealer.seal(SealInput {
                lsn,
                sealed_at: Nanos(crate::rows::T0),
                spans: std::mem::take(&mut live),
                cell_deltas: cells(3),
                state: Some(Box::new(vec![lsn as u8])),
                ..SealInput::default()
            });
            assert_eq!(sealed.unwrap().seq, lsn / 3);
        }
    }
}

fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(dir)
        .unwrap()
        .map(|e| e.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn one_process_at_a_time() {
    let dir = TempDir::new().unwrap();
    let (mut first, found) = Store::open(dir.path(), options()).unwrap();
    assert!(found.state.is_none() && found.lsn == 0);
    let refused = Store::open(dir.path(), options()).unwrap_err();
    assert!(matches!(refused, StoreError::Locked { .. }));
    assert!(
        refused
            .to_string()
            .contains("another tracegate is using this data directory"),
        "{refused}"
    );
    let journal = first.journal();
    assert!(journal.is_some() && first.journal().is_none());
    drop(first);
    assert!(Store::open(dir.path(), options()).is_err(), "the journal still writes");
    drop(journal);
    Store::open(dir.path(), options()).unwrap();
}

#[test]
fn a_new_data_directory_is_there_after_a_power_cut() {
    for seed in 0..8 {
        let (root, disk, mut rng) = (TempDir::new().unwrap(), FaultyDisk::default(), rng(seed));
        let dir = root.path().join("var/lib/tracegate");
        let (mut store, _) = Store::open(&dir, on(disk.clone())).unwrap();
        let mut journal = store.journal().unwrap();
        journal.append(&micro(&mut rng, 1, &mut 0)).unwrap();
        journal.sync().unwrap();
        drop((store, journal));
        for above in ["", "var", "var/lib"] {
            assert!(disk.synced_dirs().contains(&root.path().join(above)), "{above:?}");
        }
        disk.lose_unsynced(&mut rng);
        assert_eq!(Store::open(&dir, options()).unwrap().1.records.count(), 1);
    }
    let root = TempDir::new().unwrap();
    fs::write(root.path().join("file"), "").unwrap();
    let refused = Store::open(&root.path().join("file"), options()).unwrap_err();
    assert!(refused.to_string().starts_with("cannot create folder"), "{refused}");
}

#[test]
fn folders_without_files_go_at_a_start() {
    let dir = TempDir::new().unwrap();
    three_commits(dir.path());
    let empty = dir.path().join("spans/color=green/date=2026-01-01");
    fs::create_dir_all(empty.join("hour=03")).unwrap();
    fs::create_dir_all(dir.path().join("traces/color=blue")).unwrap();
    let (_store, found) = Store::open(dir.path(), options()).unwrap();
    assert!(!empty.exists() && !dir.path().join("traces/color=blue").exists());
    assert!(found.base.files.iter().all(|file| dir.path().join(&file.path).exists()));
}

#[test]
fn the_newest_commit_counts_and_the_journal_behind_it() {
    let dir = TempDir::new().unwrap();
    three_commits(dir.path());
    let (second, third) = (format!("{:020}", 2), format!("{:020}", 3));
    let kept = [&second, &third].map(|seq| [format!("{seq}.commit"), format!("{seq}.state")]);
    assert_eq!(names(&dir.path().join("commits")), kept.concat());
    let (_store, found) = Store::open(dir.path(), options()).unwrap();
    assert_eq!((found.lsn, found.state, found.report.commit_seq), (9, Some(vec![9]), 3));
    assert_eq!(found.base.cells, cells(9));
    let lsns: Vec<u64> = found.records.map(|r| r.unwrap().lsn).collect();
    assert_eq!(lsns, [10, 11]);
}

#[test]
fn a_damaged_newest_commit_falls_back_to_the_one_before() {
    for part in ["commit", "state"] {
        falls_back_if_damaged(part);
    }
}

fn falls_back_if_damaged(part: &str) {
    let dir = TempDir::new().unwrap();
    three_commits(dir.path());
    let commits = dir.path().join("commits");
    let newest = commits.join(format!("{:020}.{part}", 3));
    let record = commits.join(format!("{:020}.commit", 3));
    let (whole, whole_record) = (fs::read(&newest).unwrap(), fs::read(&record).unwrap());
    for damage in 0..2 {
        let mut bytes = whole.clone();
        if damage == 0 {
            bytes.truncate(whole.len() / 2)
        } else {
            let middle = bytes.len() / 2;
            bytes[middle] ^= 4;
        }
        fs::write(&record, &whole_record).unwrap();
        fs::write(&newest, bytes).unwrap();
        let (_store, found) = Store::open(dir.path(), options()).unwrap();
        assert_eq!(
            (found.lsn, found.state, found.report.commits_damaged),
            (6, Some(vec![6]), 1),
            "{part}"
        );
        assert_eq!(found.base.cells, cells(6));
        let lsns: Vec<u64> = found.records.map(|r| r.unwrap().lsn).collect();
        assert_eq!(
            lsns,
            [7, 8, 9, 10, 11],
            "the journal was trimmed only up to the commit before"
        );
        assert_eq!(
            found.report.orphans_removed > 0,
            damage == 0,
            "the files it named are journal again"
        );
    }
    for name in names(&dir.path().join("commits")) {
        let path = dir.path().join("commits").join(name);
        fs::write(&path, b"nothing").unwrap();
    }
    assert!(matches!(
        Store::open(dir.path(), options()),
        Err(StoreError::NoCommit { .. })
    ));
    assert!(!names(&dir.path().join("spans")).is_empty(), "refusing changes nothing");
}

#[test]
fn a_damaged_file_is_set_aside_and_the_rest_answers() {
    let dir = TempDir::new().unwrap();
    three_commits(dir.path());
    let (_, found) = Store::open(dir.path(), options()).unwrap();
    let all = found.base.files.len();
    let of = |table| found.base.files.iter().find(|f| f.table == table).unwrap();
    fs::remove_file(dir.path().join(&of(Table::Spans).path)).unwrap();
    let mut bytes = fs::read(dir.path().join(&of(Table::Cells).path)).unwrap();
    let end = bytes.len();
    bytes[end - 60..end - 8].fill(0xff);
    fs::write(dir.path().join(&of(Table::Cells).path), bytes).unwrap();
    for _ in 0..2 {
        let (store, found) = Store::open(dir.path(), options()).unwrap();
        assert_eq!((found.report.quarantined.len(), found.base.files.len()), (2, all - 2));
        assert_eq!(found.base.cells, cells(6));
        // The next commit remembers them too.
        store
            .sealer()
            .seal(SealInput {
                lsn: found.lsn,
                ..SealInput::default()
            })
            .unwrap();
    }
    assert!(
        dir.path().join(&of(Table::Cells).path).exists(),
        "set aside, not removed"
    );
}

#[test]
fn reading_beside_a_server_changes_nothing() {
    let dir = TempDir::new().unwrap();
    assert!(Store::open_read_only(dir.path()).is_err());
    three_commits(dir.path());
    let _server = Store::open(dir.path(), options()).unwrap();
    let torn = dir
        .path()
        .join("journal")
        .join(names(&dir.path().join("journal")).pop().unwrap());
    let mut bytes = fs::read(&torn).unwrap();
    bytes.extend_from_slice(b"TGJ1 half a record");
    fs::write(&torn, &bytes).unwrap();
    fs::write(dir.path().join("tmp/x.parquet"), b"x").unwrap();
    let snapshot = Store::open_read_only(dir.path()).unwrap();
    assert_eq!(snapshot.lsn, 11);
    assert_eq!(snapshot.cells, cells(9));
    assert!(!snapshot.spans.is_empty() && snapshot.files.iter().any(|f| f.table == Table::Spans));
    assert_eq!(fs::read(&torn).unwrap(), bytes);
    assert!(dir.path().join("tmp/x.parquet").exists());
}

/// A file that can be opened and not read: its first page answers EIO, as a bad sector does.
#[cfg(target_os = "linux")]
fn make_unreadable(path: &Path) {
    fs::remove_file(path).unwrap();
    std::os::unix::fs::symlink("/proc/self/mem", path).unwrap();
    assert_eq!(fs::read(path).unwrap_err().raw_os_error(), Some(5));
}

#[cfg(target_os = "linux")]
#[test]
fn a_newest_commit_that_the_disk_cannot_read_falls_back_to_the_one_before() {
    for part in ["commit", "state"] {
        let dir = TempDir::new().unwrap();
        three_commits(dir.path());
        let commits = dir.path().join("commits");
        make_unreadable(&commits.join(format!("{:020}.{part}", 3)));
        let (_store, found) = Store::open(dir.path(), StoreOptions::default()).unwrap();
        assert_eq!((found.lsn, found.report.commits_damaged), (6, 1), "{part}");
        assert_eq!(
            found.records.map(|r| r.unwrap().lsn).collect::<Vec<_>>(),
            [7, 8, 9, 10, 11]
        );
    }
    // The one before is no reason to refuse either, and two of them are.
    let dir = TempDir::new().unwrap();
    three_commits(dir.path());
    let commits = dir.path().join("commits");
    make_unreadable(&commits.join(format!("{:020}.commit", 2)));
    assert_eq!(Store::open(dir.path(), StoreOptions::default()).unwrap().1.lsn, 9);
    make_unreadable(&commits.join(format!("{:020}.commit", 3)));
    assert!(matches!(
        Store::open(dir.path(), StoreOptions::default()),
        Err(StoreError::NoCommit { .. })
    ));
}

fn skip() -> StoreOptions {
    StoreOptions {
        recovery: JournalRecovery::Skip,
        ..options()
    }
}

#[test]
fn sealed_files_without_any_commit_record_are_never_removed() {
    // With so many segments of the journal left, the newest; without even its folder.
    for left in [Some(usize::MAX), Some(1), Some(0), None] {
        let dir = TempDir::new().unwrap();
        three_commits(dir.path());
        let journal = dir.path().join("journal");
        fs::remove_dir_all(dir.path().join("commits")).unwrap();
        for segment in names(&journal).iter().rev().skip(left.unwrap_or(0)) {
            fs::remove_file(journal.join(segment)).unwrap();
        }
        if left.is_none() {
            fs::remove_dir(&journal).unwrap();
        }
        let sealed = on_disk(dir.path());
        assert!(!sealed.is_empty());
        for options in [options(), skip()] {
            let refused = Store::open(dir.path(), options).unwrap_err();
            assert!(matches!(refused, StoreError::NoCommit { .. }), "{left:?}: {refused}");
            assert!(refused.to_string().contains("restore the folder"), "{refused}");
            assert_eq!(on_disk(dir.path()), sealed, "{left:?}");
            let refused = Store::open_read_only(dir.path()).unwrap_err();
            assert!(matches!(refused, StoreError::NoCommit { .. }), "{left:?}: {refused}");
        }
        // What the message says helps.
        for folder in ["commits", "spans", "cells"] {
            fs::remove_dir_all(dir.path().join(folder)).unwrap();
        }
        Store::open(dir.path(), skip()).unwrap();
    }
}

/// Two records, and a seal of the first that no commit record names.
fn uncommitted(dir: &Path) {
    let (mut store, _) = Store::open(dir, options()).unwrap();
    let (mut journal, sealer) = (store.journal().unwrap(), store.sealer());
    let (mut rng, mut spans) = (rng(3), 0);
    for lsn in 1..=2 {
        let batch = micro(&mut rng, lsn, &mut spans);
        journal.append(&batch).unwrap();
        journal.sync().unwrap();
        if lsn == 1 {
            let rows = batch.sections[0].rows.clone();
            let input = SealInput {
                lsn,
                sealed_at: Nanos(crate::rows::T0),
                spans: vec![LiveBatch { lsn, rows }],
                deferred: true,
                ..SealInput::default()
            };
            sealer.seal(input).unwrap();
        }
    }
}

#[test]
fn a_kill_in_the_very_first_seal_is_no_loss() {
    for options in [options(), skip()] {
        let dir = TempDir::new().unwrap();
        uncommitted(dir.path());
        let (_store, found) = Store::open(dir.path(), options).unwrap();
        assert_eq!((found.report.records, found.report.orphans_kept), (2, 0));
        assert!(found.report.orphans_removed > 0 && on_disk(dir.path()).is_empty());
    }
}

/// Flips a bit in the first record that is found in the segment `nth`.
fn harm(dir: &Path, nth: usize) {
    let journal = dir.join("journal");
    let path = journal.join(&names(&journal)[nth]);
    let mut bytes = fs::read(&path).unwrap();
    bytes[20] ^= 1;
    fs::write(&path, bytes).unwrap();
}

#[test]
fn records_lost_before_the_first_commit_may_be_in_its_files() {
    let dir = TempDir::new().unwrap();
    uncommitted(dir.path());
    harm(dir.path(), 0);
    let sealed = on_disk(dir.path());
    assert!(matches!(
        Store::open(dir.path(), options()),
        Err(StoreError::Damaged { .. })
    ));
    assert!(matches!(
        Store::open(dir.path(), skip()),
        Err(StoreError::NoCommit { .. })
    ));
    assert_eq!(on_disk(dir.path()), sealed);
}

#[test]
fn a_start_that_lost_records_keeps_unnamed_files_aside() {
    let dir = TempDir::new().unwrap();
    three_commits(dir.path());
    // The newest commit is gone, and a record behind the one before it: maybe it is in a file that only the newest named.
    fs::remove_file(dir.path().join("commits").join(format!("{:020}.commit", 3))).unwrap();
    let before = on_disk(dir.path());
    harm(dir.path(), 0);
    let journal = dir.path().join("journal");
    assert!(names(&journal).len() > 1);
    let (store, found) = Store::open(dir.path(), skip()).unwrap();
    let report = &found.report;
    assert!(report.lost_records > 0 && report.orphans_kept > 0 && report.orphans_removed == 0);
    let left = on_disk(dir.path());
    let aside = on_disk(&dir.path().join("orphans"));
    assert_eq!(aside.len() as u64, report.orphans_kept);
    assert!(left.is_disjoint(&aside));
    assert_eq!(left.union(&aside).cloned().collect::<BTreeSet<_>>(), before);
    assert!(found.base.files.iter().all(|file| left.contains(&file.path)));
    drop((store, found));
    // Nobody but a person takes them away.
    Store::open(dir.path(), skip()).unwrap();
    assert_eq!(on_disk(&dir.path().join("orphans")), aside);
}
