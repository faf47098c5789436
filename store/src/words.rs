//! Columns put together from several batches.
//!
//! Arrow's own kernels append the dictionaries of the inputs one after the other. A minute of live data is thousands
//! of batches with the same ten words, so dictionaries are merged here, and every word stands once.

use ahash::RandomState;
use arrow::{
    array::{
        Array, ArrayRef, AsArray, DictionaryArray, Int32Array, MapArray, RecordBatch, RecordBatchOptions, StringArray,
        StructArray, new_null_array,
    },
    buffer::NullBuffer,
    datatypes::{DataType, Int32Type, SchemaRef},
    error::ArrowError,
};
use hashbrown::HashMap;
use proto::{layout::Table, schema};
use std::sync::Arc;

/// `Dictionary(Int32, Utf8)`.
pub(crate) type Words = DictionaryArray<Int32Type>;

/// The declared schema of a table.
#[must_use]
pub fn declared(table: Table) -> &'static SchemaRef {
    match table {
        Table::Spans => &schema::SPANS,
        Table::Traces => &schema::TRACES,
        Table::Evals => &schema::EVALS,
        Table::Cells => &schema::CELLS,
    }
}

/// The column as words, if its type is `Dictionary(Int32, Utf8)`.
pub(crate) fn as_words(column: &ArrayRef) -> Option<&Words> {
    column
        .as_dictionary_opt::<Int32Type>()
        .filter(|words| words.values().data_type() == &DataType::Utf8)
}

/// A dictionary under construction: every word once, in order of first use.
#[derive(Default)]
pub(crate) struct Lexicon<'a> {
    codes: HashMap<&'a str, i32, RandomState>,
    words: Vec<&'a str>,
}

impl<'a> Lexicon<'a> {
    /// Code of `word`, which is added if it is new.
    pub(crate) fn code(&mut self, word: &'a str) -> i32 {
        let words = &mut self.words;
        *self.codes.entry(word).or_insert_with(|| {
            words.push(word);
            words.len() as i32 - 1
        })
    }

    /// New code of every row of `column`, -1 for null.
    pub(crate) fn recode(&mut self, column: &'a Words) -> Vec<i32> {
        let values = column.values().as_string::<i32>();
        // Only words in use are taken over.
        let mut codes = vec![UNSEEN; values.len()];
        let keys = column.keys();
        (0..keys.len())
            .map(|row| {
                if keys.is_null(row) {
                    return -1;
                }
                let key = keys.value(row) as usize;
                if codes[key] == UNSEEN {
                    codes[key] = if values.is_null(key) {
                        -1
                    } else {
                        self.code(values.value(key))
                    };
                }
                codes[key]
            })
            .collect()
    }

    pub(crate) fn values(&self) -> ArrayRef {
        Arc::new(StringArray::from_iter_values(&self.words))
    }
}

const UNSEEN: i32 = i32::MIN;

/// A words column of these codes (-1 for null) into `values`.
pub(crate) fn column_of(codes: Vec<i32>, values: &ArrayRef) -> Result<ArrayRef, ArrowError> {
    let valid = NullBuffer::from_iter(codes.iter().map(|code| *code >= 0));
    let valid = Some(valid).filter(|v| v.null_count() > 0);
    let codes: Vec<i32> = codes.into_iter().map(|code| code.max(0)).collect();
    let keys = Int32Array::new(codes.into(), valid);
    if values.is_empty() {
        // No word, so every key is null, and a null key must still not point anywhere.
        let ty = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
        return Ok(new_null_array(&ty, keys.len()));
    }
    Ok(Arc::new(Words::try_new(keys, Arc::clone(values))?))
}

/// Maps whose keys are words, with codes into the same words in all of them: Arrow's kernels then copy codes alone. Columns of
/// another type stay as they are.
pub(crate) fn with_same_keys(ty: &DataType, parts: Vec<ArrayRef>) -> Result<Vec<ArrayRef>, ArrowError> {
    let keys_of = |part: &ArrayRef| {
        let keys = part.as_map_opt()?.keys();
        keys.as_dictionary_opt::<Int32Type>().cloned()
    };
    let DataType::Map(entries, sorted) = ty else {
        return Ok(parts);
    };
    let Some(keys) = parts.iter().map(keys_of).collect::<Option<Vec<Words>>>() else {
        return Ok(parts);
    };
    let mut lexicon = Lexicon::default();
    let codes: Vec<Vec<i32>> = keys.iter().map(|keys| lexicon.recode(keys)).collect();
    let words = lexicon.values();
    let rekeyed = parts.iter().zip(codes).map(|(part, codes)| {
        let map = part.as_map();
        let DataType::Struct(fields) = entries.data_type() else {
            return Err(ArrowError::SchemaError(format!(
                "map entries are declared as {entries}"
            )));
        };
        let columns = vec![column_of(codes, &words)?, Arc::clone(map.values())];
        let rekeyed = MapArray::try_new(
            Arc::clone(entries),
            map.offsets().clone(),
            StructArray::try_new(fields.clone(), columns, None)?,
            map.nulls().cloned(),
            *sorted,
        )?;
        Ok(Arc::new(rekeyed) as ArrayRef)
    });
    rekeyed.collect()
}

/// The rows of several batches, one after the other, with the union of their columns in declared order.
///
/// # Errors
/// Columns of one name that differ in type.
pub(crate) fn concat(table: Table, batches: &[&RecordBatch]) -> Result<RecordBatch, ArrowError> {
    let rows = batches.iter().map(|b| b.num_rows()).sum();
    let (mut fields, mut columns) = (Vec::new(), Vec::new());
    for field in declared(table).fields() {
        let parts: Vec<Option<&ArrayRef>> = batches.iter().map(|batch| batch.column_by_name(field.name())).collect();
        if parts.iter().any(Option::is_some) {
            let lengths = batches.iter().map(|b| b.num_rows());
            columns.push(concat_column(field.data_type(), &parts, lengths)?);
            fields.push(Arc::clone(field));
        }
    }
    RecordBatch::try_new_with_options(
        Arc::new(arrow::datatypes::Schema::new(fields)),
        columns,
        &RecordBatchOptions::new().with_row_count(Some(rows)),
    )
}

fn concat_column(
    ty: &DataType,
    parts: &[Option<&ArrayRef>],
    lengths: impl Iterator<Item = usize>,
) -> Result<ArrayRef, ArrowError> {
    if let DataType::Dictionary(..) = ty
        && parts.iter().flatten().all(|part| as_words(part).is_some())
    {
        let mut lexicon = Lexicon::default();
        let mut codes = Vec::new();
        for (part, len) in parts.iter().zip(lengths) {
            match part.and_then(as_words) {
                Some(words) => codes.extend(lexicon.recode(words)),
                None => codes.resize(codes.len() + len, -1),
            }
        }
        return column_of(codes, &lexicon.values());
    }
    let parts: Vec<ArrayRef> = parts
        .iter()
        .zip(lengths)
        .map(|(part, len)| part.map_or_else(|| new_null_array(ty, len), Arc::clone))
        .collect();
    let parts = with_same_keys(ty, parts)?;
    let parts: Vec<&dyn Array> = parts.iter().map(AsRef::as_ref).collect();
    let whole = arrow::compute::concat(&parts)?;
    Ok(match whole.as_string_view_opt() {
        // Views keep the blocks of their builders, mostly empty, alive; copy what is used.
        Some(views) => Arc::new(views.gc()),
        None => whole,
    })
}
