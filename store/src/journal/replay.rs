//! Reading the journal after a start: which records are whole, where the tail was torn, what is damaged.
//!
//! A record that cannot be read is a *torn tail* if nothing proves that it was ever on disk: it is cut off and counted,
//! nobody had an ack for it. It is *damage* if a later record says so (its `durable`), or a later segment exists.
//! Damage stops the start, unless the operator chose to go on without.

use super::record;
use crate::{
    MicroBatch,
    error::{At, StoreError},
    frame,
};
use std::{
    collections::VecDeque,
    fs,
    path::{Path, PathBuf},
};

/// What to do about acked records that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum JournalRecovery {
    /// Refuse to start.
    #[default]
    Strict,
    /// Go on with what can be read, and count the rest.
    Skip,
}

/// First lsn and path of every segment, oldest first.
pub(crate) fn segments(dir: &Path) -> Result<Vec<(u64, PathBuf)>, StoreError> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).at("list", dir)? {
        let path = entry.at("list", dir)?.path();
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or("");
        // records count from 1
        let lsn = name.strip_suffix(".seg").and_then(|n| n.parse::<u64>().ok());
        if let Some(lsn) = lsn.filter(|lsn| *lsn > 0) {
            found.push((lsn, path));
        }
    }
    found.sort_unstable();
    Ok(found)
}

/// Whether nothing was trimmed yet: records count from 1.
pub(crate) fn begins_with_the_first(dir: &Path) -> Result<bool, StoreError> {
    Ok(segments(dir)?.first().is_some_and(|(first, _)| *first == 1))
}

/// What the scan found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Last whole record, or the position asked for if that is later.
    pub(crate) last_lsn: u64,
    /// Newest segment and the length of its whole records.
    pub(crate) tail: Option<(PathBuf, u64)>,
    /// The record that would come next in it.
    pub(crate) tail_next: u64,
    /// Bytes behind that length.
    pub(crate) torn_bytes: u64,
    /// Bytes of damaged records that were passed over.
    pub(crate) skipped_bytes: u64,
    /// Acked records that could not be read.
    pub(crate) lost_records: u64,
    /// Records after the position asked for.
    pub(crate) replay: Replay,
}

/// Records in order, read segment by segment.
#[derive(Debug, Default)]
pub struct Replay {
    segments: VecDeque<(PathBuf, VecDeque<usize>)>,
    bytes: Vec<u8>,
    loaded: bool,
}

impl Replay {
    /// How many records are left.
    #[must_use]
    pub fn records_left(&self) -> u64 {
        self.segments.iter().map(|(_, r)| r.len() as u64).sum()
    }
}

impl Iterator for Replay {
    type Item = Result<MicroBatch, StoreError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (path, offsets) = self.segments.front_mut()?;
            if !self.loaded {
                match fs::read(&*path).at("read", path) {
                    Ok(bytes) => self.bytes = bytes,
                    Err(e) => {
                        self.segments.clear();
                        return Some(Err(e));
                    }
                }
                self.loaded = true;
            }
            let Some(offset) = offsets.pop_front() else {
                self.segments.pop_front();
                (self.loaded, self.bytes) = (false, Vec::new());
                continue;
            };
            let payload = self
                .bytes
                .get(offset..)
                .and_then(|rest| frame::open(rest, record::MAGIC));
            return Some(match payload {
                Some(payload) => record::decode(payload),
                None => Err(StoreError::Damaged {
                    path: path.clone(),
                    offset: offset as u64,
                    lsn: 0,
                }),
            });
        }
    }
}

/// Reads every segment that may hold records after `after`.
pub(crate) fn scan(dir: &Path, after: u64, recovery: JournalRecovery) -> Result<Scan, StoreError> {
    let mut segments = segments(dir)?;
    let sealed = segments.windows(2).take_while(|pair| pair[1].0 <= after + 1).count();
    segments.drain(..sealed);
    let mut scan = Scan {
        last_lsn: after,
        ..Scan::default()
    };
    let Some(&(first, _)) = segments.first() else {
        return Ok(scan);
    };
    if first > after + 1 {
        if recovery == JournalRecovery::Strict {
            return Err(StoreError::Gap {
                path: dir.to_owned(),
                from: after + 1,
                to: first - 1,
            });
        }
        scan.lost_records += first - after - 1;
    }
    let mut expected = first;
    for (i, (first_lsn, path)) in segments.iter().enumerate() {
        let next_first = segments.get(i + 1).map(|(lsn, _)| *lsn);
        expected = expected.max(*first_lsn);
        scan_segment(path, next_first, after, recovery, &mut expected, &mut scan)?;
    }
    scan.last_lsn = after.max(expected - 1);
    Ok(scan)
}

fn scan_segment(
    path: &Path,
    next_first: Option<u64>,
    after: u64,
    recovery: JournalRecovery,
    expected: &mut u64,
    scan: &mut Scan,
) -> Result<(), StoreError> {
    let bytes = fs::read(path).at("read", path)?;
    let (mut offset, mut records) = (0, VecDeque::new());
    // One turn a record, or a stretch that is none.
    loop {
        if let Some((head, len)) = whole(&bytes[offset..])
            && head.lsn == *expected
        {
            if head.lsn > after {
                records.push_back(offset);
            }
            offset += len;
            *expected += 1;
            continue;
        }
        let all_read = match next_first {
            Some(next) => next == *expected,
            None => offset == bytes.len(),
        };
        if all_read {
            scan.torn_bytes += (bytes.len() - offset) as u64;
            break;
        }
        let later = later_records(&bytes, offset + 1, *expected);
        let proven = next_first.is_some() || later.iter().any(|(_, h)| h.durable >= *expected);
        if !proven {
            scan.torn_bytes += (bytes.len() - offset) as u64;
            break;
        }
        if recovery == JournalRecovery::Strict {
            return Err(StoreError::Damaged {
                path: path.to_owned(),
                offset: offset as u64,
                lsn: *expected,
            });
        }
        let (resume_at, resume_lsn) = match (later.first(), next_first) {
            (Some((at, head)), _) => (*at, head.lsn),
            (None, Some(next)) => (bytes.len(), next.max(*expected)),
            (None, None) => (bytes.len(), *expected),
        };
        scan.skipped_bytes += (resume_at - offset) as u64;
        scan.lost_records += resume_lsn - *expected;
        (offset, *expected) = (resume_at, resume_lsn);
        if resume_at == bytes.len() {
            break;
        }
    }
    if next_first.is_none() {
        scan.tail = Some((path.to_owned(), offset as u64));
        scan.tail_next = *expected;
    }
    scan.replay.segments.push_back((path.to_owned(), records));
    Ok(())
}

/// Head and length of the whole record that starts `bytes`.
fn whole(bytes: &[u8]) -> Option<(record::Head, usize)> {
    let payload = frame::open(bytes, record::MAGIC)?;
    Some((record::head(payload)?, frame::HEADER + payload.len()))
}

/// Offsets and heads of whole records at or after `from` whose lsn is at least `lsn`.
fn later_records(bytes: &[u8], from: usize, lsn: u64) -> Vec<(usize, record::Head)> {
    let (mut at, mut found) = (from, Vec::new());
    while let Some(rest) = bytes.get(at..).filter(|rest| rest.len() >= frame::HEADER) {
        if rest.starts_with(&record::MAGIC)
            && let Some((head, len)) = whole(rest)
            && head.lsn >= lsn
        {
            found.push((at, head));
            at += len;
            continue;
        }
        at += 1;
    }
    found
}
