//! Which patches and replacements are needed by no row any more. A patch goes out of the commit when no file holds a row
//! that it would change: rows that were rewritten have it inside, others are looked at.

use super::{Step, ranges::Ranges};
use crate::{
    Layers, Mark, Patch, SealedFile, TraceId,
    commit::Commit,
    error::StoreError,
    lookup::{self, IdColumn, in_file},
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

/// Patches (and replacements) whose rows are looked for at a time; others stay.
const LOOKED_FOR_MAX: usize = 10_000;
/// Files that one step searches for rows of patches, and as many for those of replacements: a seal waits meanwhile.
const FILES_SEARCHED_MAX: usize = 256;

/// What can go.
#[derive(Debug, Default)]
pub(super) struct Leftover {
    pub patches: Vec<(TraceId, Patch)>,
    pub replaced: Vec<(TraceId, u64)>,
    /// Where the search for rows of others stands.
    pub search: Search,
}

/// Replacements whose hidden rows are looked for, step by step: they may lie in any file of traces that is old enough.
#[derive(Debug, Default)]
pub(crate) struct Search {
    asked: HashMap<TraceId, u64>,
    /// Paths of files that have no such row.
    without: HashSet<String>,
    /// Met meanwhile; asked for next.
    next: HashMap<TraceId, u64>,
}

impl Search {
    /// Nobody was told what was found of these.
    pub(super) fn ask_again(&mut self, found: &[(TraceId, u64)]) {
        self.next.extend(found.iter().copied());
    }
}

/// What a step is looked at with.
pub(super) struct Look<'a> {
    pub root: &'a Path,
    pub base: &'a Commit,
    /// A no ends a search that a later step can go on with.
    pub go_on: &'a dyn Fn() -> bool,
}

type Ids = HashMap<TraceId, String>;

impl Leftover {
    /// After `step`, whose files are in place; `search` goes on.
    pub fn of(look: &Look<'_>, step: &Step, search: Search, is_settled: impl Fn(&TraceId, &Patch) -> bool) -> Self {
        let mut left = Self {
            search,
            ..Self::default()
        };
        let none = HashSet::new();
        let (patched, replaced) = match &step.rewritten {
            Some(rewritten) => (&rewritten.patched, &rewritten.replaced),
            None => (&none, &none),
        };
        if !step.retired.is_empty() {
            let settled = look.base.patches.iter().filter(|(id, patch)| is_settled(id, patch));
            left.patches = patches(look, step, settled, patched);
        }
        if !step.retired.is_empty() || left.search.is_under_way() {
            left.replaced = replacements(look, step, replaced, &mut left.search);
        }
        left
    }
}

fn patches<'a>(
    look: &Look<'_>,
    step: &Step,
    settled: impl Iterator<Item = &'a (TraceId, Patch)>,
    met: &HashSet<TraceId>,
) -> Vec<(TraceId, Patch)> {
    let has_marks = |file: &&SealedFile| matches!(file.table, Table::Spans | Table::Evals);
    let files = Ranges::of_files(step.files.iter().filter(has_marks));
    // Whoever brings back a file that is set aside must find its patches.
    let aside = Ranges::of_files(step.quarantined.iter().filter(has_marks));
    let (mut gone, mut asked) = (Vec::new(), Vec::new());
    for entry in settled {
        let (id, patch) = entry;
        if aside.over(patch.first_lsn, patch.last_lsn) > 0 {
            continue;
        }
        if files.over(patch.first_lsn, patch.last_lsn) == 0 {
            gone.push(entry.clone());
        } else if met.contains(id) && asked.len() < LOOKED_FOR_MAX {
            asked.push(entry);
        }
    }
    let mut marks = Layers::default();
    marks.push(asked.iter().map(|(id, patch)| (*id, Arc::clone(&patch.mark))));
    let mut ids: Ids = asked.iter().map(|(id, _)| (*id, hex(id))).collect();
    let wanted = Ranges::of(asked.iter().map(|(_, patch)| (patch.first_lsn, patch.last_lsn)));
    let added: HashSet<&str> = step.added.iter().map(|file| file.path.as_str()).collect();
    let (mut searched, mut unsearched) = (0, Vec::new());
    for file in step.files.iter().filter(has_marks) {
        if wanted.over(file.lsn_min, file.lsn_max) == 0 || added.contains(file.path.as_str()) {
            continue;
        }
        if searched == FILES_SEARCHED_MAX {
            unsearched.push(file);
            continue;
        }
        searched += 1;
        if let Err(error) = without_changed(look.root, file, &marks, &mut ids) {
            tracing::warn!(path = file.path, %error, "its patches stay, because it cannot be searched");
            unsearched.push(file);
        }
    }
    let unsearched = Ranges::of_files(unsearched.into_iter());
    let needs_none =
        |(id, patch): &&(TraceId, Patch)| ids.contains_key(id) && unsearched.over(patch.first_lsn, patch.last_lsn) == 0;
    gone.extend(asked.into_iter().filter(needs_none).cloned());
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
    rows_of(root, file, ids, &columns, |rows| {
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

impl Search {
    fn is_under_way(&self) -> bool {
        !(self.asked.is_empty() && self.next.is_empty())
    }

    /// Takes up `met` of what `replaced` holds, and forgets what it holds no more.
    fn follow(&mut self, replaced: &[(TraceId, u64)], met: &HashSet<TraceId>) {
        // Commit records are sorted by trace id.
        let held = |id: &TraceId| {
            let at = replaced.binary_search_by_key(id, |(id, _)| *id).ok()?;
            Some(replaced[at].1)
        };
        for of in [&mut self.asked, &mut self.next] {
            of.retain(|id, from| held(id) == Some(*from));
        }
        for id in met.iter().filter(|id| !self.asked.contains_key(*id)) {
            if let Some(from) = held(id)
                && self.next.len() < LOOKED_FOR_MAX
            {
                self.next.insert(*id, from);
            }
        }
        if self.asked.is_empty() {
            (self.asked, self.next) = (std::mem::take(&mut self.next), HashMap::new());
            self.without.clear();
        }
    }
}

fn replacements(look: &Look<'_>, step: &Step, met: &HashSet<TraceId>, search: &mut Search) -> Vec<(TraceId, u64)> {
    let oldest = |files: &[SealedFile]| {
        let of_traces = files.iter().filter(|file| file.table == Table::Traces);
        of_traces.map(|file| file.lsn_max).min().unwrap_or(u64::MAX)
    };
    let (oldest, oldest_aside) = (oldest(&step.files), oldest(&step.quarantined));
    // Whoever brings back a file that is set aside must find its replacements.
    let may_go = |from: u64| oldest_aside >= from;
    let hides_nothing = |(_, from): &&(TraceId, u64)| may_go(*from) && oldest >= *from;
    let mut gone: Vec<(TraceId, u64)> = look.base.replaced.iter().filter(hides_nothing).copied().collect();
    search.follow(&look.base.replaced, met);
    search.asked.retain(|_, from| may_go(*from) && oldest < *from);
    let before = search.asked.values().copied().max().unwrap_or(0);
    let old = step
        .files
        .iter()
        .filter(|file| file.table == Table::Traces && file.lsn_max < before);
    let mut ids: Ids = search.asked.keys().map(|id| (*id, hex(id))).collect();
    let mut searched = 0;
    for file in old {
        if search.asked.is_empty() || search.without.contains(&file.path) {
            continue;
        }
        if searched == FILES_SEARCHED_MAX || !(look.go_on)() {
            return gone;
        }
        searched += 1;
        let mut found = Vec::new();
        let looked = rows_of(look.root, file, &ids, &["trace_id"], |rows| {
            found.extend(ids_of(rows, |_| true));
            Ok(())
        });
        if let Err(error) = looked {
            tracing::warn!(path = file.path, %error, "its replacements stay, because it cannot be searched");
            search.asked.retain(|_, from| file.lsn_max >= *from);
            ids.retain(|id, _| search.asked.contains_key(id));
        }
        for id in found {
            // They hide a row, and stay.
            if search.asked.get(&id).is_some_and(|from| file.lsn_max < *from) {
                search.asked.remove(&id);
                ids.remove(&id);
            }
        }
        search.without.insert(file.path.clone());
    }
    gone.extend(search.asked.drain());
    gone
}

fn rows_of(
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
    let search = lookup::Search {
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
