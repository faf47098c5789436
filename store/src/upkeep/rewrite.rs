//! Files read again and written as one, in bounded memory: their rows are put in order by a few columns first, then
//! read, chunk by chunk of the new order, with all columns.
//!
//! Files are sorted the same way already, so the rows of a chunk lie next to each other in each of them.

use super::{
    choose::Group,
    input::Input,
    order::{Order, Place, Rules},
};
use crate::{
    Layers, Marks, SealedFile, TraceId,
    cells::{add_batch_to_cells, cells_to_batch},
    commit::Commit,
    error::StoreError,
    overlay,
    seal::{CHUNK_ROWS, Inner, out::Out, plan::Plan},
};
use arrow::array::RecordBatch;
use hashbrown::HashSet;
use parquet::arrow::arrow_reader::RowSelection;
use proto::{
    CellTable, Color, Nanos,
    layout::{self, Table},
    schema::LONG_TEXTS,
};
use std::{ops::Range, path::PathBuf};

/// Decoded bytes of a chunk, about.
const CHUNK_BYTES: u64 = 16 << 20;
/// Rows of a chunk: fewer would read every file too often, more hold too much.
const CHUNK_ROWS_RANGE: Range<u64> = 1_024..32_768;
/// What a row takes in memory beside its encoded values: nulls, offsets, ids.
const ROW_BYTES: u64 = 1_024;

/// What came of a group.
#[derive(Debug, Default)]
pub(super) struct Rewritten {
    /// New files, in their folders.
    pub files: Vec<SealedFile>,
    pub rows_dropped: u64,
    /// Traces whose patch was met.
    pub patched: HashSet<TraceId>,
    /// Traces of which a former row was left out.
    pub replaced: HashSet<TraceId>,
}

/// Why a group stays as it is.
#[derive(Debug)]
pub(super) enum Failure {
    /// The file with this number cannot be read, now or later.
    Input(usize, StoreError),
    /// Something else.
    Other(StoreError),
}

impl Failure {
    /// What to make of an error with the file number `nth`. The file was read a moment ago, so what the disk says now
    /// is about the disk.
    pub fn of(nth: usize, error: StoreError) -> Self {
        match error {
            StoreError::Parquet(_) | StoreError::Arrow(_) | StoreError::Format { .. } => Self::Input(nth, error),
            _ => Self::Other(error),
        }
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::Other(error)
    }
}

/// Rewrites `inputs`, the files of `group`; `None` if `go_on` said no.
pub(super) fn rewrite(
    inner: &Inner,
    group: &Group,
    inputs: &[SealedFile],
    marks: &Marks,
    base: &Commit,
    now: Nanos,
    go_on: &dyn Fn() -> bool,
) -> Result<Option<Rewritten>, Failure> {
    let mut opened = Vec::with_capacity(inputs.len());
    for (nth, file) in inputs.iter().enumerate() {
        opened.push(Input::open(&inner.root, file).map_err(|error| Failure::of(nth, error))?);
    }
    let lsns = inputs.iter().fold((u64::MAX, 0), |(min, max), file| {
        (min.min(file.lsn_min), max.max(file.lsn_max))
    });
    let writing = Writing {
        inner,
        group,
        inputs: &opened,
        marks,
        lsns,
        now,
        go_on,
    };
    let mut done = Rewritten::default();
    let mut written = Vec::new();
    let all = match group.table {
        Table::Cells => writing.cells(&mut written),
        _ => {
            let mut replaced = Layers::default();
            replaced.push(base.replaced.iter().copied());
            let rules = Rules {
                table: group.table,
                marks,
                replaced: &replaced,
            };
            let order = Order::of(&rules, &opened)?;
            let all = order.places.iter().try_fold(true, |all, (color, places)| match all {
                true => writing.rows(*color, places, &mut written),
                false => Ok(false),
            });
            (done.rows_dropped, done.patched, done.replaced) = (order.dropped, order.patched, order.replaced);
            all
        }
    };
    if !matches!(all, Ok(true)) {
        inner.discard(written.into_iter().map(|(_, tmp)| tmp));
        return all.map(|_| None);
    }
    done.files = inner.land(written.into_iter().map(Ok).collect())?;
    Ok(Some(done))
}

struct Writing<'a> {
    inner: &'a Inner,
    group: &'a Group,
    inputs: &'a [Input<'a>],
    marks: &'a Marks,
    lsns: (u64, u64),
    now: Nanos,
    go_on: &'a dyn Fn() -> bool,
}

type Written = Vec<(SealedFile, PathBuf)>;

impl Writing<'_> {
    /// The file of one color; false if `go_on` said no.
    fn rows(&self, color: Color, places: &[Place], written: &mut Written) -> Result<bool, Failure> {
        let chunk = self.chunk_rows();
        self.write(Some(color), places.len(), written, |out| {
            for places in places.chunks(chunk) {
                if !(self.go_on)() {
                    return Ok(false);
                }
                let (plan, rows) = self.plan(places)?;
                for rows in rows.chunks(CHUNK_ROWS) {
                    out.write(&plan.rows(rows)?)?;
                }
            }
            Ok(true)
        })
    }

    /// The sum of all cells, without those that come to nothing.
    fn cells(&self, written: &mut Written) -> Result<bool, Failure> {
        let mut sum = CellTable::default();
        for (nth, input) in self.inputs.iter().enumerate() {
            let at = |error| Failure::of(nth, error);
            for rows in input.read(|_| true, None).map_err(at)? {
                let rows = rows.map_err(|error| at(error.into()))?;
                add_batch_to_cells(&rows, &mut sum).map_err(at)?;
            }
        }
        if sum.is_empty() {
            return Ok(true);
        }
        let rows = cells_to_batch(&sum)?;
        self.write(None, rows.num_rows(), written, |out| {
            out.write(&rows)?;
            Ok(true)
        })
    }

    fn write(
        &self,
        color: Option<Color>,
        rows: usize,
        written: &mut Written,
        fill: impl FnOnce(&mut Out) -> Result<bool, Failure>,
    ) -> Result<bool, Failure> {
        let name = self.inner.name(self.now);
        let tmp = self.inner.root.join(layout::TMP).join(&name);
        let disk = self.inner.disk.as_ref();
        let work = || {
            let mut out = Out::begin(disk, tmp.clone(), self.group.table, rows, self.lsns, &[])?;
            if fill(&mut out)? {
                let path = format!("{}/{name}", self.group.folder(color));
                return Ok(Some(out.finish(path, color)?));
            }
            Ok(None)
        };
        let made: Result<Option<_>, Failure> = work();
        if !matches!(made, Ok(Some(_))) {
            _ = disk.remove(&tmp);
        }
        let made = made?;
        let is_made = made.is_some();
        written.extend(made);
        Ok(is_made)
    }

    /// Rows of a chunk, so that about [`CHUNK_BYTES`] are in memory.
    fn chunk_rows(&self) -> usize {
        let (bytes, rows) = self.inputs.iter().fold((0, 0), |(bytes, rows), input| {
            (bytes + input.bytes(), rows + input.file.rows)
        });
        let rows = CHUNK_BYTES / (ROW_BYTES + bytes / rows.max(1));
        rows.clamp(CHUNK_ROWS_RANGE.start, CHUNK_ROWS_RANGE.end) as usize
    }

    /// The rows at `places` with all columns, marks folded in.
    fn plan(&self, places: &[Place]) -> Result<(Plan, Vec<crate::seal::plan::Row>), Failure> {
        let mut wanted: Vec<Vec<u32>> = vec![Vec::new(); self.inputs.len()];
        for place in places {
            wanted[place.input as usize].push(place.row);
        }
        let mut batches = Vec::new();
        for (nth, mut rows) in wanted.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            rows.sort_unstable();
            let input = &self.inputs[nth];
            let at = |error| Failure::of(nth, error);
            let selection = RowSelection::from_consecutive_ranges(runs(&rows), input.file.rows as usize);
            let blank = self.group.blank;
            let wants = |name: &str| !(blank && LONG_TEXTS.contains(&name));
            for rows in input.read(wants, Some(selection)).map_err(at)? {
                let rows = rows.map_err(|error| at(error.into()))?;
                batches.push(self.folded(rows).map_err(at)?);
            }
        }
        Ok(Plan::again(self.group.table, batches)?)
    }

    fn folded(&self, rows: RecordBatch) -> Result<RecordBatch, StoreError> {
        match self.group.table {
            Table::Spans | Table::Evals => Ok(overlay::folded(self.group.table, &rows, self.marks)?),
            Table::Traces | Table::Cells => Ok(rows),
        }
    }
}

/// Ascending numbers as ranges of consecutive ones.
fn runs(rows: &[u32]) -> impl Iterator<Item = Range<usize>> + '_ {
    rows.chunk_by(|a, b| a + 1 == *b)
        .map(|run| run[0] as usize..run[run.len() - 1] as usize + 1)
}
