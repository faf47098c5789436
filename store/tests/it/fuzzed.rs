//! Files of the store with bytes that are not its own: cut, flipped, spliced, put under another name, and also such as a
//! checksum vouches for. A start reads what can be trusted or refuses; it never panics, and never makes rows up.
//!
//! `FUZZ_ROUNDS` asks for more. The fuzz target `journal` of `fuzz/` looks further.

use crate::{
    journal::options,
    rows::{micro, rng},
    start::three_commits,
};
use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use std::{
    fs,
    path::{Path, PathBuf},
};
use store::{JournalRecovery, MicroBatch, Store, StoreError, StoreOptions};
use tempfile::TempDir;

/// Rounds of every test here.
const ROUNDS: u64 = 150;
/// What begins a record, a commit record and a block of the state.
const MAGICS: [&[u8; 4]; 3] = [b"TGJ1", b"TGC1", b"TGS1"];
/// Bytes of a frame before its payload: magic, length, checksum.
const HEADER: usize = 12;

fn rounds() -> u64 {
    std::env::var("FUZZ_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap())
}

/// One generator a round, and what repeats it.
fn each_round(mut round_of: impl FnMut(&mut ChaCha8Rng, &str)) {
    let seed = rand::random::<u64>();
    eprintln!("seed {seed}");
    for round in 0..rounds() {
        let mut dice = rng(seed.wrapping_add(round));
        round_of(&mut dice, &format!("seed {seed} round {round}"));
    }
}

/// One to three changes, each anywhere.
fn changed(whole: &[u8], dice: &mut ChaCha8Rng) -> Vec<u8> {
    let mut bytes = whole.to_vec();
    for _ in 0..dice.random_range(1..=3) {
        let at = dice.random_range(0..=bytes.len());
        let end = (at + dice.random_range(1..400)).min(bytes.len());
        match dice.random_range(0..7) {
            0 => bytes.truncate(at),
            1 => drop(bytes.drain(at..end)),
            2 => drop(bytes.splice(at..at, whole[at.min(whole.len())..].iter().copied().take(5_000))),
            3 => bytes[at..end].fill(dice.random()),
            4 => bytes[at..end].iter_mut().for_each(|byte| *byte = dice.random()),
            5 => {
                let magic = *MAGICS.choose(dice).unwrap();
                drop(bytes.splice(at..at, magic.iter().copied().chain([dice.random(), 0, 0, 0])));
            }
            _ if at < bytes.len() => bytes[at] ^= 1 << dice.random_range(0..8),
            _ => bytes.extend((0..dice.random_range(1..64)).map(|_| dice.random::<u8>())),
        }
    }
    bytes
}

/// Bytes from nowhere.
fn noise(dice: &mut ChaCha8Rng) -> Vec<u8> {
    (0..dice.random_range(0..3_000)).map(|_| dice.random()).collect()
}

/// A frame that its checksum vouches for, whatever is in it.
fn framed(magic: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_le_bytes();
    let sum = crc32c::crc32c_append(crc32c::crc32c(&length), payload).to_le_bytes();
    [&magic[..], &length, &sum, payload].concat()
}

/// Payload lengths of frames that follow each other.
fn payloads(mut bytes: &[u8]) -> Vec<&[u8]> {
    let mut found = Vec::new();
    while bytes.len() > HEADER {
        let length = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
        found.push(&bytes[HEADER..HEADER + length]);
        bytes = &bytes[HEADER + length..];
    }
    found
}

fn paths(folder: &Path) -> Vec<PathBuf> {
    let mut paths: Vec<_> = fs::read_dir(folder).unwrap().map(|e| e.unwrap().path()).collect();
    paths.sort();
    paths
}

/// A folder of files, so that it can be put back.
fn files(folder: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let read = |path: PathBuf| (path.clone(), fs::read(&path).unwrap());
    paths(folder).into_iter().map(read).collect()
}

fn put_back(folder: &Path, files: &[(PathBuf, Vec<u8>)]) {
    for path in paths(folder) {
        fs::remove_file(path).unwrap();
    }
    for (path, bytes) in files {
        fs::write(path, bytes).unwrap();
    }
}

fn small(recovery: JournalRecovery) -> StoreOptions {
    StoreOptions {
        segment_bytes_max: 10_000,
        recovery,
        ..options()
    }
}

fn replayed(dir: &Path, recovery: JournalRecovery) -> Result<Vec<MicroBatch>, StoreError> {
    let (_store, found) = Store::open(dir, small(recovery))?;
    found.records.collect()
}

/// A directory whose journal holds some segments, with every record in them.
fn journal_of(lsns: u64) -> (TempDir, Vec<MicroBatch>) {
    let (dir, mut dice, mut spans) = (TempDir::new().unwrap(), rng(31), 0);
    let batches: Vec<_> = (1..=lsns).map(|lsn| micro(&mut dice, lsn, &mut spans)).collect();
    let mut store = Store::open(dir.path(), small(JournalRecovery::Strict)).unwrap().0;
    let mut journal = store.journal().unwrap();
    for batch in &batches {
        journal.append(batch).unwrap();
        journal.sync().unwrap();
    }
    (dir, batches)
}

#[test]
fn a_journal_with_changed_bytes_gives_its_first_records_or_is_refused() {
    let (dir, batches) = journal_of(12);
    let folder = dir.path().join("journal");
    let whole = files(&folder);
    assert!(whole.len() > 2, "{}", whole.len());
    let (mut read, mut refused) = (0, 0);
    each_round(|dice, what| {
        put_back(&folder, &whole);
        let (path, bytes) = whole.choose(dice).unwrap();
        let bytes = if dice.random_bool(0.1) {
            noise(dice)
        } else {
            changed(bytes, dice)
        };
        fs::write(path, bytes).unwrap();
        if dice.random_bool(0.2) {
            let name = *[
                "0.seg",
                "00000000000000000000.seg",
                "18446744073709551615.seg",
                "1.seg",
                "+3.seg",
                "x.seg",
            ]
            .choose(dice)
            .unwrap();
            fs::rename(path, folder.join(name)).unwrap();
        }
        let damaged = files(&folder);
        match replayed(dir.path(), JournalRecovery::Strict) {
            Ok(records) => {
                assert!(batches.starts_with(&records), "{what}");
                read += 1;
            }
            Err(_) => {
                assert_eq!(files(&folder), damaged, "{what}: whoever refuses changes nothing");
                refused += 1;
            }
        }
        put_back(&folder, &damaged);
        _ = Store::open_read_only(dir.path());
        let records = replayed(dir.path(), JournalRecovery::Skip).unwrap_or_else(|e| panic!("{what}: {e}"));
        assert!(records.iter().all(|record| batches.contains(record)), "{what}");
        assert!(records.windows(2).all(|pair| pair[0].lsn < pair[1].lsn), "{what}");
    });
    assert!(read > 0 && refused > 0, "{read} read, {refused} refused");
}

#[test]
fn a_record_that_its_checksum_vouches_for_is_read_or_refused() {
    let (dir, _) = journal_of(3);
    let folder = dir.path().join("journal");
    let whole = files(&folder);
    each_round(|dice, _| {
        put_back(&folder, &whole);
        let (path, bytes) = whole.choose(dice).unwrap();
        let payloads = payloads(bytes);
        let odd = dice.random_range(0..payloads.len());
        let records = payloads.iter().enumerate().flat_map(|(at, payload)| {
            let payload = match (at == odd, dice.random_range(0..3)) {
                (false, _) => payload.to_vec(),
                (true, 0) => changed(payload, dice),
                (true, 1) => [&payload[..17], &noise(dice)].concat(),
                (true, _) => with_rows(payload, dice),
            };
            framed(*b"TGJ1", &payload)
        });
        let bytes: Vec<u8> = records.collect();
        fs::write(path, bytes).unwrap();
        for recovery in [JournalRecovery::Strict, JournalRecovery::Skip] {
            _ = replayed(dir.path(), recovery);
        }
    });
}

/// The record with other bytes where its first Arrow stream was.
fn with_rows(payload: &[u8], dice: &mut ChaCha8Rng) -> Vec<u8> {
    let digests = u32::from_le_bytes(payload[25..29].try_into().unwrap()) as usize;
    let at = 29 + digests * 16 + 2;
    let number = |at: usize| u32::from_le_bytes(payload[at..at + 4].try_into().unwrap()) as usize;
    let (plain, packed) = (number(at), number(at + 4));
    let stream = lz4_flex::block::decompress(&payload[at + 8..at + 8 + packed], plain).unwrap();
    let odd = changed(&stream, dice);
    // Arrow takes as much memory as a message says that it is long: of that, the checksum is the only guard.
    let stream = if claims_much(&odd) { stream } else { odd };
    let packed_again = lz4_flex::block::compress(&stream);
    let claimed = if dice.random_bool(0.1) {
        dice.random()
    } else {
        stream.len() as u32
    };
    let mut out = payload[..at].to_vec();
    out.extend(claimed.to_le_bytes());
    out.extend((packed_again.len() as u32).to_le_bytes());
    out.extend(packed_again);
    out.extend(&payload[at + 8 + packed..]);
    out
}

/// Whether a message of an Arrow stream says that it is longer than the stream.
fn claims_much(stream: &[u8]) -> bool {
    let mut rest = stream;
    while let Some((begin, body)) = rest.split_at_checked(8) {
        let length = u32::from_le_bytes(begin[4..].try_into().unwrap()) as usize;
        let Some((head, body)) = body.split_at_checked(length) else {
            return length > stream.len();
        };
        let Ok(message) = arrow::ipc::root_as_message(head) else {
            return false;
        };
        let Some(next) = usize::try_from(message.bodyLength())
            .ok()
            .and_then(|length| body.get(length..))
        else {
            return true;
        };
        rest = next;
    }
    false
}

#[test]
fn damaged_commits_and_states_fall_back_or_are_refused() {
    let dir = TempDir::new().unwrap();
    three_commits(dir.path());
    let folder = dir.path().join("commits");
    let whole = files(&folder);
    let (mut newest, mut before, mut refused) = (0, 0, 0);
    each_round(|dice, what| {
        let copy = TempDir::new().unwrap();
        copied(dir.path(), copy.path());
        let folder = copy.path().join("commits");
        for _ in 0..dice.random_range(1..=3) {
            let (path, bytes) = whole.choose(dice).unwrap();
            let path = folder.join(path.file_name().unwrap());
            match dice.random_range(0..10) {
                0 => _ = fs::remove_file(path),
                1 => fs::write(path, noise(dice)).unwrap(),
                _ => fs::write(path, changed(bytes, dice)).unwrap(),
            }
        }
        let damaged = files(&folder);
        match Store::open(copy.path(), options()) {
            Ok((_store, found)) => {
                match found.lsn {
                    9 => newest += 1,
                    6 => before += 1,
                    0 => assert!(
                        damaged.iter().all(|(path, _)| path.extension().unwrap() != "commit"),
                        "{what}"
                    ),
                    other => panic!("{what}: no commit is at {other}"),
                }
                let state = (found.lsn > 0).then(|| vec![found.lsn as u8]);
                assert_eq!(found.state, state, "{what}");
                let lsns: Vec<u64> = found.records.map(|record| record.unwrap().lsn).collect();
                assert_eq!(lsns, (found.lsn + 1..=11).collect::<Vec<_>>(), "{what}");
            }
            Err(_) => {
                assert_eq!(files(&folder), damaged, "{what}: whoever refuses changes nothing");
                refused += 1;
            }
        }
    });
    assert!(newest > 0 && before > 0 && refused > 0, "{newest}, {before}, {refused}");
}

#[test]
fn a_commit_or_state_that_its_checksum_vouches_for_is_read_or_refused() {
    let dir = TempDir::new().unwrap();
    three_commits(dir.path());
    let folder = dir.path().join("commits");
    let whole = files(&folder);
    each_round(|dice, _| {
        put_back(&folder, &whole);
        let (path, bytes) = whole.choose(dice).unwrap();
        let payload = match (bytes[..4] == *b"TGC1", dice.random_bool(0.2)) {
            (_, true) => noise(dice),
            (true, _) => {
                let plain = zstd::decode_all(&bytes[HEADER + 1..]).unwrap();
                [
                    &bytes[HEADER..HEADER + 1],
                    &zstd::encode_all(&*changed(&plain, dice), 1).unwrap(),
                ]
                .concat()
            }
            (false, _) => changed(&bytes[HEADER..], dice),
        };
        fs::write(path, framed(bytes[..4].try_into().unwrap(), &payload)).unwrap();
        _ = Store::open_read_only(dir.path());
        _ = replayed(dir.path(), JournalRecovery::Skip);
    });
}

fn copied(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for path in paths(from) {
        let at = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copied(&path, &at);
        } else {
            fs::copy(path, at).unwrap();
        }
    }
}
