//! Nulls that the marks of a trace and of a span fill.

use super::{
    marks::{RowMarks, SpanRow},
    mistyped, set, share,
};
use crate::{
    Mark, SpanMark,
    words::{self, Lexicon, as_words, column_of},
};
use arrow::{
    array::{Array, ArrayRef, AsArray, Float64Array, RecordBatch},
    datatypes::Float64Type,
    error::ArrowError,
};
use proto::Color;
use std::sync::Arc;

type OfTrace = fn(&Mark) -> Option<&str>;
type OfSpan = fn(&SpanMark) -> Option<&str>;

/// Text columns that are filled by a mark's own word.
const TEXTS: [(&str, OfSpan, OfTrace); 4] = [
    ("route", |_| None, |mark| mark.route.as_deref()),
    (
        "version",
        |span| span.version.as_deref(),
        |mark| mark.version.as_deref(),
    ),
    ("release", |_| None, |mark| mark.release.as_deref()),
    ("cohort", |_| None, |mark| mark.cohort.as_deref()),
];

/// Fills those of `columns`, the columns of `rows`, that have something to fill.
pub(super) fn fill(
    rows: &RecordBatch,
    marks: &RowMarks,
    spans: &[SpanRow<'_>],
    columns: &mut [ArrayRef],
) -> Result<(), ArrowError> {
    if let Some(color) = rows.column_by_name("color") {
        let filled = fill_color(color, marks, spans)?;
        if let Some(reason) = rows.column_by_name("unmarked_reason") {
            set(rows, columns, "unmarked_reason", fill_reason(reason, &filled, marks)?);
        }
        set(rows, columns, "color", filled);
    }
    if marks.is_empty() {
        return Ok(());
    }
    for (name, of_span, of_trace) in TEXTS {
        if let Some(column) = rows.column_by_name(name) {
            set(
                rows,
                columns,
                name,
                fill_words(column, marks, spans, of_span, of_trace)?,
            );
        }
    }
    if let Some(split) = rows.column_by_name("split") {
        set(rows, columns, "split", fill_split(split, marks)?);
    }
    Ok(())
}

pub(super) fn words_of(column: &ArrayRef) -> Result<&words::Words, ArrowError> {
    as_words(column).ok_or_else(|| mistyped(column, "Dictionary(Int32, Utf8)"))
}

fn fill_words(
    column: &ArrayRef,
    marks: &RowMarks,
    spans: &[SpanRow<'_>],
    of_span: OfSpan,
    of_trace: OfTrace,
) -> Result<ArrayRef, ArrowError> {
    if column.logical_null_count() == 0 {
        return Ok(Arc::clone(column));
    }
    let mut lexicon = Lexicon::default();
    let mut codes = lexicon.recode(words_of(column)?);
    for &(row, span) in spans {
        if codes[row] < 0
            && let Some(word) = of_span(span)
        {
            codes[row] = lexicon.code(word);
        }
    }
    let fills = marks.codes(&mut lexicon, of_trace);
    for (row, code) in codes.iter_mut().enumerate() {
        if *code < 0 {
            *code = marks.code(&fills, row);
        }
    }
    column_of(codes, &lexicon.values())
}

fn fill_color(column: &ArrayRef, marks: &RowMarks, spans: &[SpanRow<'_>]) -> Result<ArrayRef, ArrowError> {
    let mut lexicon = Lexicon::default();
    let unmarked = lexicon.code(Color::Unmarked.as_str());
    let mut codes = lexicon.recode(words_of(column)?);
    let unknown = |code: i32| code < 0 || code == unmarked;
    for &(row, span) in spans {
        if unknown(codes[row])
            && let Some(color) = span.color
        {
            codes[row] = lexicon.code(color.as_str());
        }
    }
    let fills = marks.codes(&mut lexicon, |mark| Some(mark.color.as_str()));
    for (row, code) in codes.iter_mut().enumerate() {
        if unknown(*code) {
            *code = marks.code(&fills, row).max(unmarked);
        }
    }
    column_of(codes, &lexicon.values())
}

fn fill_reason(column: &ArrayRef, color: &ArrayRef, marks: &RowMarks) -> Result<ArrayRef, ArrowError> {
    let color = words_of(color)?;
    let colors = color.values().as_string::<i32>();
    let mut lexicon = Lexicon::default();
    let mut codes = lexicon.recode(words_of(column)?);
    let fills = marks.codes(&mut lexicon, |mark| mark.unmarked_reason.as_deref());
    for (row, code) in codes.iter_mut().enumerate() {
        let is_marked = color
            .key(row)
            .is_some_and(|key| colors.value(key) != Color::Unmarked.as_str());
        if is_marked {
            *code = -1;
        } else if *code < 0 {
            *code = marks.code(&fills, row);
        }
    }
    column_of(codes, &lexicon.values())
}

fn fill_split(column: &ArrayRef, marks: &RowMarks) -> Result<ArrayRef, ArrowError> {
    let own = column
        .as_primitive_opt::<Float64Type>()
        .ok_or_else(|| mistyped(column, "Float64"))?;
    let filled: Float64Array = own
        .iter()
        .enumerate()
        .map(|(row, split)| split.or_else(|| marks.get(row)?.split_ppm.map(share)))
        .collect();
    Ok(Arc::new(filled))
}
