//! Two records of one call: the one that repeats reads as no call and has no numbers, the one that counts takes from it
//! what it lacks.

use super::{fill::words_of, marks::SpanRow, mistyped, set};
use crate::{
    Filling, SpanMark, Twin,
    words::{Lexicon, Words, column_of},
};
use arrow::{
    array::{
        Array, ArrayRef, ArrowPrimitiveType, AsArray, BooleanBufferBuilder, PrimitiveArray, RecordBatch, StringArray,
    },
    buffer::NullBuffer,
    datatypes::{Decimal128Type, Float64Type, Int64Type},
    error::ArrowError,
};
use std::sync::Arc;

/// What `role` reads of a record that repeats another.
const NO_CALL: &str = "other";

type Tokens = fn(&Filling) -> Option<i64>;

const TOKENS: [(&str, Tokens); 5] = [
    ("prompt_tokens", |f| f.prompt_tokens),
    ("completion_tokens", |f| f.completion_tokens),
    ("cache_read_tokens", |f| f.cache_read_tokens),
    ("cache_write_tokens", |f| f.cache_write_tokens),
    ("reasoning_tokens", |f| f.reasoning_tokens),
];

/// What became of a number that two records of one call have.
enum Number<T> {
    /// The record repeats another: null, whatever it says.
    Void,
    /// It counts: this, if it says nothing itself.
    Else(T),
}

/// Changes those of `columns`, the columns of `rows`, that the twins among `spans` change.
pub(super) fn settle(rows: &RecordBatch, spans: &[SpanRow<'_>], columns: &mut [ArrayRef]) -> Result<(), ArrowError> {
    let twins: Vec<(usize, &Twin)> = spans.iter().filter_map(twin_of).collect();
    if twins.is_empty() {
        return Ok(());
    }
    let mut change = |name: &str, with: &dyn Fn(&ArrayRef) -> Result<ArrayRef, ArrowError>| {
        if let Some(column) = rows.column_by_name(name) {
            set(rows, columns, name, with(column)?);
        }
        Ok::<_, ArrowError>(())
    };
    change("role", &|column| replace_where_repeated(column, &twins, Some(NO_CALL)))?;
    change("price_version", &|column| replace_where_repeated(column, &twins, None))?;
    change("repeats_span_id", &|column| name_the_other(column, &twins))?;
    change("response_model", &|column| {
        prefer_other_model(column, rows.column_by_name("request_model"), &twins)
    })?;
    for (name, tokens) in TOKENS {
        change(name, &|column| numbers::<Int64Type>(column, &twins, tokens))?;
    }
    change("cost_usd", &|column| {
        numbers::<Decimal128Type>(column, &twins, |f| f.cost_nano.map(i128::from))
    })?;
    change("emitter_cost_usd", &|column| {
        numbers::<Decimal128Type>(column, &twins, |_| None)
    })?;
    change("ttft_ms", &|column| {
        let counted: Vec<_> = twins.iter().copied().filter(|(_, twin)| !repeats(twin)).collect();
        numbers::<Float64Type>(column, &counted, |f| f.ttft_ms)
    })
}

fn twin_of<'a>(&(row, mark): &SpanRow<'a>) -> Option<(usize, &'a Twin)> {
    let mark: &'a SpanMark = mark;
    Some((row, mark.twin.as_ref()?))
}

const fn repeats(twin: &Twin) -> bool {
    matches!(twin, Twin::Repeats(_))
}

fn replace_where_repeated(
    column: &ArrayRef,
    twins: &[(usize, &Twin)],
    word: Option<&'static str>,
) -> Result<ArrayRef, ArrowError> {
    let mut lexicon = Lexicon::default();
    let mut codes = lexicon.recode(words_of(column)?);
    for (row, _) in twins.iter().filter(|(_, twin)| repeats(twin)) {
        codes[*row] = word.map_or(-1, |word| lexicon.code(word));
    }
    column_of(codes, &lexicon.values())
}

fn name_the_other(column: &ArrayRef, twins: &[(usize, &Twin)]) -> Result<ArrayRef, ArrowError> {
    let own = column.as_string_opt::<i32>().ok_or_else(|| mistyped(column, "Utf8"))?;
    let mut others: Vec<Option<String>> = vec![None; own.len()];
    for (row, twin) in twins {
        if let Twin::Repeats(other) = twin {
            others[*row] = Some(format!("{other:016x}"));
        }
    }
    let named: StringArray = own
        .iter()
        .zip(&others)
        .map(|(own, other)| other.as_deref().or(own))
        .collect();
    Ok(Arc::new(named))
}

/// The other record's response model, where the own one is missing or only repeats what was asked for.
fn prefer_other_model(
    column: &ArrayRef,
    requested: Option<&ArrayRef>,
    twins: &[(usize, &Twin)],
) -> Result<ArrayRef, ArrowError> {
    let own = words_of(column)?;
    let requested = requested.map(words_of).transpose()?;
    let mut lexicon = Lexicon::default();
    let mut codes = lexicon.recode(own);
    for (row, twin) in twins {
        let Twin::Counts(filling) = twin else { continue };
        let Some(model) = filling.response_model.as_deref() else {
            continue;
        };
        if codes[*row] < 0 || requested.is_some_and(|requested| word(requested, *row) == word(own, *row)) {
            codes[*row] = lexicon.code(model);
        }
    }
    column_of(codes, &lexicon.values())
}

fn word(words: &Words, row: usize) -> Option<&str> {
    words.key(row).map(|key| words.values().as_string::<i32>().value(key))
}

/// Nulls the numbers of records that repeat, and fills the nulls of those that count with `fill`.
fn numbers<T: ArrowPrimitiveType>(
    column: &ArrayRef,
    twins: &[(usize, &Twin)],
    fill: impl Fn(&Filling) -> Option<T::Native>,
) -> Result<ArrayRef, ArrowError> {
    let own = column
        .as_primitive_opt::<T>()
        .ok_or_else(|| mistyped(column, &T::DATA_TYPE.to_string()))?;
    let change = |&(row, twin): &(usize, &Twin)| match twin {
        Twin::Repeats(_) => own.is_valid(row).then_some((row, Number::Void)),
        Twin::Counts(filling) if own.is_null(row) => Some((row, Number::Else(fill(filling)?))),
        Twin::Counts(_) => None,
    };
    let mut changes = twins.iter().filter_map(change).peekable();
    if changes.peek().is_none() {
        return Ok(Arc::clone(column));
    }
    let mut values = own.values().to_vec();
    let mut valid = BooleanBufferBuilder::new(own.len());
    match own.nulls() {
        Some(nulls) => valid.append_buffer(nulls.inner()),
        None => valid.append_n(own.len(), true),
    }
    for (row, number) in changes {
        match number {
            Number::Void => valid.set_bit(row, false),
            Number::Else(value) => {
                values[row] = value;
                valid.set_bit(row, true);
            }
        }
    }
    let changed = PrimitiveArray::<T>::try_new(values.into(), Some(NullBuffer::new(valid.finish())))?;
    Ok(Arc::new(changed.with_data_type(column.data_type().clone())))
}
