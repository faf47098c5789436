//! The journal alone: cuts, flips, holes, rolling, faults.

use crate::{
    faults::{Fault, FaultyDisk},
    rows::{micro, rng},
};
use rand::RngExt;
use std::{fs, path::Path, sync::Arc};
use store::{
    Journal, JournalRecovery, MicroBatch, RecoveryReport, SealInput, Store, StoreError, StoreOptions,
    journal::RESERVE_BYTES,
};
use tempfile::TempDir;

/// Never syncs: these tests are about bytes, not about power.
pub fn options() -> StoreOptions {
    on(FaultyDisk::default())
}

pub fn on(disk: FaultyDisk) -> StoreOptions {
    StoreOptions {
        disk: Arc::new(disk),
        ..StoreOptions::default()
    }
}

fn journal(dir: &Path, options: StoreOptions) -> Journal {
    Store::open(dir, options).unwrap().0.journal().unwrap()
}

/// A data directory with `n` synced records.
fn written(seed: u64, n: u64, options: StoreOptions) -> (TempDir, Vec<MicroBatch>) {
    let (dir, mut rng, mut spans) = (TempDir::new().unwrap(), rng(seed), 0);
    let batches: Vec<MicroBatch> = (1..=n).map(|lsn| micro(&mut rng, lsn, &mut spans)).collect();
    let mut journal = journal(dir.path(), options);
    for batch in &batches {
        journal.append(batch).unwrap();
        journal.sync().unwrap();
    }
    (dir, batches)
}

fn replay(dir: &Path, options: StoreOptions) -> Result<(Vec<MicroBatch>, RecoveryReport), StoreError> {
    let (_store, found) = Store::open(dir, options)?;
    let records = found.records.collect::<Result<Vec<_>, _>>()?;
    assert_eq!(records.len() as u64, found.report.records);
    Ok((records, found.report))
}

fn only_segment(dir: &Path) -> std::path::PathBuf {
    let mut segments: Vec<_> = fs::read_dir(dir.join("journal"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    assert_eq!(segments.len(), 1);
    segments.remove(0)
}

#[test]
fn records_come_back_as_they_were() {
    let (dir, batches) = written(1, 40, options());
    let (records, report) = replay(dir.path(), options()).unwrap();
    assert_eq!(records, batches);
    assert_eq!(report.truncated_bytes, 0);
}

#[test]
fn a_tail_cut_at_any_byte_leaves_the_records_before_it() {
    let (dir, batches) = written(2, 2, options());
    let path = only_segment(dir.path());
    let two = fs::read(&path).unwrap();
    let (last, mut spans) = (micro(&mut rng(22), 3, &mut 0), 99);
    {
        let mut journal = journal(dir.path(), options());
        journal.append(&last).unwrap();
        journal.sync().unwrap();
    }
    let three = fs::read(&path).unwrap();
    assert!(three.starts_with(&two));
    for cut in two.len()..three.len() {
        fs::write(&path, &three[..cut]).unwrap();
        let (mut store, found) = Store::open(dir.path(), options()).unwrap();
        assert_eq!(found.report.truncated_bytes, (cut - two.len()) as u64);
        let records: Vec<_> = found.records.map(Result::unwrap).collect();
        assert_eq!(records, batches, "cut at {cut}");
        if cut % 97 == 0 {
            // What is written next follows the whole records.
            let next = micro(&mut rng(cut as u64), 3, &mut spans);
            store.journal().unwrap().append(&next).unwrap();
            drop(store);
            let (records, _) = replay(dir.path(), options()).unwrap();
            assert_eq!(records[2..], [next]);
        }
    }
}

#[test]
fn bytes_never_written_are_no_records() {
    let (dir, batches) = written(3, 3, options());
    let path = only_segment(dir.path());
    let whole = fs::read(&path).unwrap();
    for zeros in [1, 11, 12, 13, 4_096, 100_000] {
        let mut bytes = whole.clone();
        bytes.resize(whole.len() + zeros, 0);
        fs::write(&path, bytes).unwrap();
        let (records, report) = replay(dir.path(), options()).unwrap();
        assert_eq!(records, batches);
        assert_eq!(report.truncated_bytes, zeros as u64);
    }
}

#[test]
fn a_flipped_bit_is_never_read_as_a_row() {
    let (dir, batches) = written(4, 5, options());
    let path = only_segment(dir.path());
    let whole = fs::read(&path).unwrap();
    // The last record starts where the first four end.
    let last_at = {
        fs::remove_file(&path).unwrap();
        let mut four = journal(dir.path(), options());
        let bytes = batches[..4].iter().map(|b| four.append(b).unwrap()).sum::<u64>();
        bytes as usize
    };
    let mut rng = rng(44);
    for _ in 0..400 {
        let at = rng.random_range(0..whole.len());
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << rng.random_range(0..8);
        fs::write(&path, &bytes).unwrap();
        if at >= last_at {
            let (records, report) = replay(dir.path(), options()).unwrap();
            assert_eq!(records, batches[..4], "flip at {at}");
            assert_eq!(report.truncated_bytes, (whole.len() - last_at) as u64);
            continue;
        }
        let refused = replay(dir.path(), options()).unwrap_err();
        assert!(matches!(refused, StoreError::Damaged { .. }), "flip at {at}: {refused}");
        assert_eq!(fs::read(&path).unwrap(), bytes, "whoever refuses changes nothing");
        let skip = StoreOptions {
            recovery: JournalRecovery::Skip,
            ..options()
        };
        let (records, report) = replay(dir.path(), skip).unwrap();
        assert_eq!((records.len(), report.lost_records), (4, 1), "flip at {at}");
        assert!(records.iter().all(|record| batches.contains(record)));
        fs::write(&path, &whole).unwrap();
    }
}

#[test]
fn a_group_that_was_never_synced_is_a_torn_tail_even_if_its_last_record_is_whole() {
    let (dir, batches) = written(5, 2, options());
    let path = only_segment(dir.path());
    let acked = fs::read(&path).unwrap().len();
    {
        let mut journal = journal(dir.path(), options());
        journal.append(&micro(&mut rng(55), 3, &mut 0)).unwrap();
        journal.append(&micro(&mut rng(56), 4, &mut 0)).unwrap();
    }
    let mut bytes = fs::read(&path).unwrap();
    bytes[acked + 20] ^= 1;
    fs::write(&path, bytes).unwrap();
    let (records, _) = replay(dir.path(), options()).unwrap();
    assert_eq!(records, batches);
}

#[test]
fn segments_roll_and_a_missing_one_is_noticed() {
    let small = || StoreOptions {
        segment_bytes_max: 10_000,
        ..options()
    };
    let (dir, batches) = written(6, 30, small());
    let mut segments: Vec<_> = fs::read_dir(dir.path().join("journal"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    segments.sort();
    assert!(segments.len() > 4, "{}", segments.len());
    assert_eq!(replay(dir.path(), small()).unwrap().0, batches);
    let kept = fs::read(&segments[2]).unwrap();
    fs::remove_file(&segments[2]).unwrap();
    assert!(matches!(replay(dir.path(), small()), Err(StoreError::Damaged { .. })));
    let skip = StoreOptions {
        recovery: JournalRecovery::Skip,
        ..small()
    };
    let (records, report) = replay(dir.path(), skip).unwrap();
    assert_eq!(records.len() as u64 + report.lost_records, 30);
    fs::write(&segments[2], kept).unwrap();
    fs::remove_file(&segments[0]).unwrap();
    assert!(matches!(
        replay(dir.path(), small()),
        Err(StoreError::Gap { from: 1, .. })
    ));
}

#[test]
fn trimming_removes_only_what_lies_wholly_below() {
    let small = || StoreOptions {
        segment_bytes_max: 10_000,
        ..options()
    };
    let (dir, _) = written(7, 30, small());
    let journal = journal(dir.path(), small());
    let first = |dir: &Path| {
        let names = fs::read_dir(dir.join("journal")).unwrap();
        names
            .map(|e| {
                e.unwrap().file_name().into_string().unwrap()[..20]
                    .parse::<u64>()
                    .unwrap()
            })
            .collect::<std::collections::BTreeSet<_>>()
    };
    let starts = first(dir.path());
    for upto in 0..=31 {
        journal.trim(upto).unwrap();
        let left = first(dir.path());
        let oldest_needed = starts.iter().copied().filter(|s| *s <= upto + 1).max().unwrap();
        assert_eq!(left.first(), Some(&oldest_needed), "upto {upto}");
    }
}

#[test]
fn after_a_failed_sync_nothing_is_accepted_and_nothing_acked_is_lost() {
    for at in 1..60 {
        let (dir, disk) = (TempDir::new().unwrap(), FaultyDisk::default());
        let options = StoreOptions {
            segment_bytes_max: 10_000,
            ..on(disk.clone())
        };
        let mut journal = journal(dir.path(), options);
        disk.arm(at, Fault::SyncError);
        let (mut rng, mut spans, mut acked, mut failed) = (rng(at), 0, Vec::new(), false);
        for lsn in 1..=30 {
            let batch = micro(&mut rng, lsn, &mut spans);
            match journal.append(&batch).and_then(|_| journal.sync()) {
                Ok(()) => {
                    assert!(!failed, "an ack after a failed sync");
                    acked.push(batch);
                }
                Err(e) => {
                    assert!(e.is_fatal(), "{e}");
                    let syncs = disk.syncs();
                    assert!(failed || matches!(e, StoreError::Sync { .. }));
                    assert!(matches!(journal.sync(), Err(StoreError::Poisoned)));
                    assert_eq!(disk.syncs(), syncs, "a failed sync is never repeated");
                    failed = true;
                }
            }
        }
        assert!(failed);
        drop(journal);
        disk.lose_unsynced(&mut rng);
        let (records, _) = replay(dir.path(), self::options()).unwrap();
        assert!(records.starts_with(&acked), "step {at}");
    }
}

#[test]
fn a_full_disk_refuses_one_record_and_takes_it_later() {
    let (dir, disk) = (TempDir::new().unwrap(), FaultyDisk::default());
    let mut journal = journal(dir.path(), on(disk.clone()));
    let (mut rng, mut spans) = (rng(8), 0);
    let batches: Vec<_> = (1..=6).map(|lsn| micro(&mut rng, lsn, &mut spans)).collect();
    for batch in &batches {
        if batch.lsn % 2 == 0 {
            disk.arm(0, Fault::Full);
            let full = journal.append(batch).unwrap_err();
            assert!(full.is_full() && !full.is_fatal(), "{full}");
        }
        journal.append(batch).unwrap();
        journal.sync().unwrap();
    }
    drop(journal);
    assert_eq!(replay(dir.path(), options()).unwrap().0, batches);
}

#[test]
fn the_last_room_of_a_disk_is_left_to_seals_and_decisions() {
    let (dir, disk) = (TempDir::new().unwrap(), FaultyDisk::default());
    let mut journal = journal(dir.path(), on(disk.clone()));
    let (mut rng, mut spans) = (rng(12), 0);
    let batches: Vec<_> = (1..=2).map(|lsn| micro(&mut rng, lsn, &mut spans)).collect();
    journal.append(&batches[0]).unwrap();
    journal.sync().unwrap();
    disk.arm(0, Fault::Left(RESERVE_BYTES));
    let full = journal.append(&batches[1]).unwrap_err();
    assert!(full.is_full() && !full.is_fatal(), "{full}");
    disk.disarm();
    journal.append(&batches[1]).unwrap();
    journal.sync().unwrap();
    drop(journal);
    assert_eq!(replay(dir.path(), options()).unwrap().0, batches);
}

#[test]
fn where_much_is_written_with_every_seal_more_room_is_left_to_it() {
    let (dir, disk) = (TempDir::new().unwrap(), FaultyDisk::default());
    let (mut rng, mut spans, mut lsn) = (rng(13), 0, 0);
    // 24 MiB that no codec makes smaller.
    let mut state = vec![0; 24 << 20];
    rng.fill(&mut state[..]);
    let mut refuses = |journal: &mut Journal| {
        let batch = micro(&mut rng, lsn + 1, &mut spans);
        let refused = journal.append(&batch).inspect(|_| lsn += 1).is_err_and(|e| e.is_full());
        journal.sync().unwrap();
        refused
    };
    disk.arm(0, Fault::Left(RESERVE_BYTES + (8 << 20)));
    for turn in 0..2 {
        let (mut store, _) = Store::open(dir.path(), on(disk.clone())).unwrap();
        let mut journal = store.journal().unwrap();
        assert_eq!(
            refuses(&mut journal),
            turn == 1,
            "a start knows what the last seal wrote"
        );
        let seal = |state: &[u8]| {
            let input = SealInput {
                lsn: 1,
                state: Some(Box::new(state.to_vec())),
                ..SealInput::default()
            };
            store.sealer().seal(input).unwrap()
        };
        assert!(seal(&state).commit_bytes > 24 << 20);
        assert!(refuses(&mut journal));
        if turn == 1 {
            seal(&[1]);
            assert!(!refuses(&mut journal));
        }
    }
}

#[test]
fn records_out_of_turn_are_refused() {
    let (dir, batches) = written(9, 3, options());
    let mut journal = journal(dir.path(), options());
    assert_eq!(journal.next_lsn(), 4);
    let refused = journal.append(&batches[2]);
    assert!(matches!(refused, Err(StoreError::OutOfTurn { expected: 4, got: 3 })));
}
