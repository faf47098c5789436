//! The mark of every row of a batch.

use crate::{Mark, SpanMark, TraceId, words::Lexicon};
use arrow::array::{Array, AsArray, RecordBatch};
use hashbrown::HashMap;
use std::sync::Arc;

/// A row whose span has a mark of its own.
pub(super) type SpanRow<'a> = (usize, &'a SpanMark);

/// The mark of every row.
pub(super) struct RowMarks {
    known: Vec<Arc<Mark>>,
    /// Index into `known`, or `NONE`.
    of_row: Vec<u32>,
}

const NONE: u32 = u32::MAX;

impl RowMarks {
    pub fn of(rows: &RecordBatch, lookup: &impl Fn(&TraceId) -> Option<Arc<Mark>>) -> Self {
        let mut marks = Self {
            known: Vec::new(),
            of_row: vec![NONE; rows.num_rows()],
        };
        let Some(ids) = rows
            .column_by_name("trace_id")
            .and_then(|ids| ids.as_string_opt::<i32>())
        else {
            return marks;
        };
        let mut seen: HashMap<&str, u32, ahash::RandomState> = HashMap::default();
        let mut last: Option<(&str, u32)> = None;
        for (row, slot) in marks.of_row.iter_mut().enumerate() {
            if ids.is_null(row) {
                continue;
            }
            let id = ids.value(row);
            // Spans of a trace come in runs.
            *slot = match last {
                Some((before, mark)) if before == id => mark,
                _ => *seen.entry(id).or_insert_with(|| {
                    let mark = super::trace_id(id).and_then(|id| lookup(&id));
                    mark.map_or(NONE, |mark| {
                        marks.known.push(mark);
                        marks.known.len() as u32 - 1
                    })
                }),
            };
            last = Some((id, *slot));
        }
        marks
    }

    /// True if no row has a mark.
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    pub fn get(&self, row: usize) -> Option<&Mark> {
        self.known.get(self.of_row[row] as usize).map(AsRef::as_ref)
    }

    /// Code of every mark's word, -1 where it has none.
    pub fn codes<'a>(&'a self, lexicon: &mut Lexicon<'a>, value: impl Fn(&'a Mark) -> Option<&'a str>) -> Vec<i32> {
        self.known
            .iter()
            .map(|mark| value(mark).map_or(-1, |word| lexicon.code(word)))
            .collect()
    }

    pub fn code(&self, codes: &[i32], row: usize) -> i32 {
        codes.get(self.of_row[row] as usize).copied().unwrap_or(-1)
    }

    /// True if some mark knows something of a single span.
    pub fn speaks_of_spans(&self) -> bool {
        self.known.iter().any(|mark| mark.spans.is_some())
    }

    /// Rows of `rows` whose spans have marks of their own, ascending; none if `rows` has no `span_id`.
    pub fn spans(&self, rows: &RecordBatch) -> Vec<SpanRow<'_>> {
        if !self.speaks_of_spans() {
            return Vec::new();
        }
        let ids = rows
            .column_by_name("span_id")
            .and_then(|ids| ids.as_string_opt::<i32>());
        let Some(ids) = ids else {
            return Vec::new();
        };
        let find = |row: usize| {
            let spans = self.get(row)?.spans.as_deref()?;
            let id = super::span_id(ids.is_valid(row).then(|| ids.value(row))?)?;
            let at = spans.binary_search_by_key(&id, |mark| mark.span).ok()?;
            Some((row, &spans[at]))
        };
        (0..rows.num_rows()).filter_map(find).collect()
    }
}
