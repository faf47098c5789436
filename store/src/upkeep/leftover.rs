//! Which patches and replacements are needed by no row any more. A patch goes out of the commit when no file holds a row
//! that it would change: rows that were rewritten have it inside, others are looked at.

use super::Step;
use crate::{
    Layers, Mark, Patch, SealedFile, TraceId,
    commit::Commit,
    error::StoreError,
    lookup::{IdColumn, Search, in_file},
    overlay::{self, Depth},
    words::declared,
};
use arrow::{
    array::{Array, AsArray, RecordBatch, make_comparator},
    compute::SortOptions,
    error::ArrowError,
};
use hashbrown::{HashMap, HashSet};
use proto::layout::Table;
use std::{path::Path, sync::Arc};

/// Patches (and replacements) whose rows are looked for in one step; others stay until the next.
const LOOKED_FOR_MAX: usize = 10_000;

/// What can go.
#[derive(Debug, Default)]
pub(super) struct Leftover {
    pub patches: Vec<(TraceId, Patch)>,
    pub replaced: Vec<(TraceId, u64)>,
}

type Ids = HashMap<TraceId, String>;

impl Leftover {
    /// After `step`, whose files are in place, of what `base` holds.
    pub fn of(root: &Path, step: &Step, base: &Commit, is_settled: impl Fn(&TraceId, &Patch) -> bool) -> Self {
        if step.retired.is_empty() {
            return Self::default();
        }
        let none = HashSet::new();
        let (patched, replaced) = match &step.rewritten {
            Some(rewritten) => (&rewritten.patched, &rewritten.replaced),
            None => (&none, &none),
        };
        let settled = base.patches.iter().filter(|(id, patch)| is_settled(id, patch));
        Self {
            patches: patches(root, step, settled, patched),
            replaced: replacements(root, step, base, replaced),
        }
    }
}

fn patches<'a>(
    root: &Path,
    step: &Step,
    settled: impl Iterator<Item = &'a (TraceId, Patch)>,
    met: &HashSet<TraceId>,
) -> Vec<(TraceId, Patch)> {
    let has_marks = |file: &&SealedFile| matches!(file.table, Table::Spans | Table::Evals);
    let files = Records::of(step.files.iter().filter(has_marks));
    // Whoever brings back a file that is set aside must find its patches.
    let aside = Records::of(step.quarantined.iter().filter(has_marks));
    let (mut gone, mut asked) = (Vec::new(), Vec::new());
    for entry in settled {
        let (id, patch) = entry;
        if aside.overlap(patch.first_lsn, patch.last_lsn) {
            continue;
        }
        if !files.overlap(patch.first_lsn, patch.last_lsn) {
            gone.push(entry.clone());
        } else if met.contains(id) && asked.len() < LOOKED_FOR_MAX {
            asked.push(entry);
        }
    }
    let mut marks = Layers::default();
    marks.push(asked.iter().map(|(id, patch)| (*id, Arc::clone(&patch.mark))));
    let mut ids: Ids = asked.iter().map(|(id, _)| (*id, hex(id))).collect();
    let (first, last) = asked.iter().fold((u64::MAX, 0), |(first, last), (_, patch)| {
        (first.min(patch.first_lsn), last.max(patch.last_lsn))
    });
    for file in step.files.iter().filter(has_marks).filter(|file| {
        let overlaps = file.lsn_min <= last && file.lsn_max >= first;
        overlaps && !step.added.iter().any(|new| new.path == file.path)
    }) {
        if let Err(error) = without_changed(root, file, &marks, &mut ids) {
            tracing::warn!(path = file.path, %error, "its patches stay, because it cannot be searched");
            ids.clear();
        }
    }
    gone.extend(asked.into_iter().filter(|(id, _)| ids.contains_key(id)).cloned());
    gone
}

/// Takes those traces out of `ids` of which `file` has rows that their marks change.
fn without_changed(
    root: &Path,
    file: &SealedFile,
    marks: &Layers<TraceId, Arc<Mark>>,
    ids: &mut Ids,
) -> Result<(), StoreError> {
    let is_needed =
        |name: &str| Depth::Spans.touches(file.table, name) || matches!(name, "trace_id" | "span_id" | "request_model");
    let fields = declared(file.table).fields().iter().map(|field| field.name().as_str());
    let columns: Vec<&str> = fields.filter(|name| is_needed(name)).collect();
    let mark_of = |id: &TraceId| marks.get(id).cloned();
    let mut changed = Vec::new();
    search(root, file, ids, &columns, |rows| {
        let after = overlay::apply_marks(file.table, rows, Depth::Spans, &mark_of)?;
        let comparators = rows
            .columns()
            .iter()
            .zip(after.columns())
            .filter(|(before, after)| !Arc::ptr_eq(before, after))
            .map(|(before, after)| make_comparator(before.as_ref(), after.as_ref(), SortOptions::default()))
            .collect::<Result<Vec<_>, ArrowError>>()?;
        changed.extend(ids_of(rows, |row| {
            comparators.iter().any(|compare| compare(row, row).is_ne())
        }));
        Ok(())
    })?;
    for id in changed {
        ids.remove(&id);
    }
    Ok(())
}

fn replacements(root: &Path, step: &Step, base: &Commit, met: &HashSet<TraceId>) -> Vec<(TraceId, u64)> {
    let traces = || step.files.iter().filter(|file| file.table == Table::Traces);
    let oldest = |files: &mut dyn Iterator<Item = &SealedFile>| {
        let of_traces = files.filter(|file| file.table == Table::Traces);
        of_traces.map(|file| file.lsn_max).min().unwrap_or(u64::MAX)
    };
    let (oldest, oldest_aside) = (oldest(&mut step.files.iter()), oldest(&mut step.quarantined.iter()));
    let (mut gone, mut asked) = (Vec::new(), Vec::new());
    for entry in &base.replaced {
        let (id, from) = entry;
        if oldest_aside < *from {
            continue;
        }
        if oldest >= *from {
            gone.push(*entry);
        } else if met.contains(id) && asked.len() < LOOKED_FOR_MAX {
            asked.push(*entry);
        }
    }
    let before = asked.iter().map(|(_, from)| *from).max().unwrap_or(0);
    let mut ids: Ids = asked.iter().map(|(id, _)| (*id, hex(id))).collect();
    for file in traces().filter(|file| file.lsn_max < before) {
        let mut found = Vec::new();
        let searched = search(root, file, &ids, &["trace_id"], |rows| {
            found.extend(ids_of(rows, |_| true));
            Ok(())
        });
        if let Err(error) = searched {
            tracing::warn!(path = file.path, %error, "its replacements stay, because it cannot be searched");
            ids.clear();
        }
        for id in found {
            let is_hidden = |(of, from): &&(TraceId, u64)| *of == id && file.lsn_max < *from;
            if asked.iter().any(|entry| is_hidden(&entry)) {
                ids.remove(&id);
            }
        }
    }
    gone.extend(asked.into_iter().filter(|(id, _)| ids.contains_key(id)));
    gone
}

fn search(
    root: &Path,
    file: &SealedFile,
    ids: &Ids,
    columns: &[&str],
    mut see: impl FnMut(&RecordBatch) -> Result<(), ArrowError>,
) -> Result<(), StoreError> {
    if ids.is_empty() {
        return Ok(());
    }
    let values = ids.values().cloned().collect();
    let search = Search {
        table: file.table,
        column: IdColumn::Trace,
        values: &values,
        columns: Some(columns),
        rows_max: usize::MAX,
    };
    for rows in in_file(&root.join(&file.path), &search)? {
        see(&rows?)?;
    }
    Ok(())
}

/// Traces of the rows that `wants` accepts.
fn ids_of(rows: &RecordBatch, wants: impl Fn(usize) -> bool) -> Vec<TraceId> {
    let ids = rows
        .column_by_name("trace_id")
        .and_then(|ids| ids.as_string_opt::<i32>());
    let Some(ids) = ids else { return Vec::new() };
    (0..ids.len())
        .filter(|&row| ids.is_valid(row) && wants(row))
        .filter_map(|row| overlay::trace_id(ids.value(row)))
        .collect()
}

fn hex(id: &TraceId) -> String {
    use std::fmt::Write;
    id.iter().fold(String::with_capacity(32), |mut text, byte| {
        _ = write!(text, "{byte:02x}");
        text
    })
}

/// Ranges of records that lie in files.
struct Records(Vec<(u64, u64)>);

impl Records {
    fn of<'a>(files: impl Iterator<Item = &'a SealedFile>) -> Self {
        let mut ranges: Vec<(u64, u64)> = files.map(|file| (file.lsn_min, file.lsn_max)).collect();
        ranges.sort_unstable();
        ranges.dedup();
        Self(ranges)
    }

    fn overlap(&self, first: u64, last: u64) -> bool {
        self.0.iter().any(|&(min, max)| min <= last && first <= max)
    }
}
