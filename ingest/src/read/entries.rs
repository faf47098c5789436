//! Keys and values of maps, before they are Arrow.

use super::{
    ReadError,
    columns::{Distinct, Strings, renewed},
    content::write_hash,
    texts::check_value,
    value::{Value, Written, cut, utf8, write_json, write_scalar},
};
use arrow::{
    array::{ArrayRef, DictionaryArray, Int32Array, StringArray, StructArray},
    buffer::NullBuffer,
    datatypes::{DataType, Fields},
    error::ArrowError,
};
use std::sync::Arc;

/// The key of an attribute, and the number under which its table knows it (zero if it does not).
#[derive(Debug, Clone, Copy)]
pub(super) struct Key<'a> {
    pub(super) text: &'a [u8],
    pub(super) number: u16,
}

impl<'a> Key<'a> {
    /// Of a key that was not looked up.
    pub(super) const fn new(text: &'a [u8]) -> Self {
        Self { text, number: 0 }
    }
}

/// The distinct keys of a column of maps. A key has a code as long as the column is being gathered.
#[derive(Default)]
pub(super) struct Keys {
    known: Distinct,
    /// Code plus one, by the key's number: spares most keys the search.
    by_number: Vec<u32>,
}

impl Keys {
    /// Code of a key, which is added if it is new.
    ///
    /// # Errors
    /// [`ReadError::Utf8`].
    #[inline]
    pub(super) fn code(&mut self, key: Key<'_>) -> Result<i32, ReadError> {
        let number = usize::from(key.number);
        if let Some(&code @ 1..) = self.by_number.get(number) {
            return Ok((code - 1).cast_signed());
        }
        let code = self.known.code(key.text)?;
        if number > 0 {
            self.by_number.resize(self.by_number.len().max(number + 1), 0);
            self.by_number[number] = code + 1;
        }
        Ok(code.cast_signed())
    }

    /// Memory in use, bytes.
    pub(super) fn size(&self) -> usize {
        self.known.size() + self.by_number.len() * 4
    }

    /// Forgets all keys; entries that have codes of them mean nothing afterwards.
    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.by_number.clear();
    }

    /// The keys that entries have, as `ty` says: as codes, or written out. No key is known afterwards.
    fn take(&mut self, codes: Vec<i32>, ty: &DataType) -> Result<ArrayRef, ArrowError> {
        self.by_number.clear();
        let texts = self.known.take()?;
        Ok(match ty {
            DataType::Dictionary(..) => Arc::new(DictionaryArray::try_new(Int32Array::from(codes), Arc::new(texts))?),
            #[allow(clippy::cast_sign_loss)]
            _ => {
                let each = codes.iter().map(|&code| texts.value(code as usize));
                Arc::new(StringArray::from_iter_values(each))
            }
        })
    }
}

/// Entries of maps, one after the other.
#[derive(Default)]
pub(super) struct Entries {
    /// Codes of their keys.
    codes: Vec<i32>,
    values: Strings,
    /// Entries whose value is NULL, ascending: an attribute without a value is rare.
    nulls: Vec<usize>,
    /// First entry of the map being written.
    pub(super) open_from: usize,
}

/// Where entries are written: entries, and the keys of which they have codes.
pub(super) struct Writing<'a> {
    pub(super) keys: &'a mut Keys,
    pub(super) entries: &'a mut Entries,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.codes.len()
    }

    /// Entries of the map being written.
    #[inline]
    pub(super) fn open_len(&self) -> usize {
        self.len() - self.open_from
    }

    /// Memory in use, bytes.
    pub(super) fn size(&self) -> usize {
        size_of_val(self.codes.as_slice()) + self.values.size()
    }

    /// Appends one entry; a value longer than `value_bytes_max` is cut between characters, one nested too deep is NULL.
    #[inline]
    pub(super) fn push(&mut self, code: i32, value: &Value<'_>, value_bytes_max: usize) -> Result<Written, ReadError> {
        let mut written = Written::Whole;
        match value {
            Value::Text(text) if text.len() <= value_bytes_max => self.values.bytes.extend_from_slice(text),
            Value::Text(text) => {
                written = Written::Cut;
                self.values
                    .bytes
                    .extend_from_slice(cut(utf8(text)?, value_bytes_max).as_bytes());
            }
            Value::Empty => self.nulls.push(self.len()),
            Value::Array(_) | Value::Pairs(_) => {
                written = write_json(*value, &mut self.values.bytes, value_bytes_max)?;
                if written == Written::TooDeep {
                    // it was read up to there
                    check_value(value)?;
                    self.nulls.push(self.len());
                }
            }
            Value::Bytes(bytes) => {
                // base64: three bytes are four characters
                let kept = bytes.len().min(value_bytes_max / 4 * 3);
                if kept < bytes.len() {
                    written = Written::Cut;
                }
                write_scalar(&Value::Bytes(&bytes[..kept]), &mut self.values.bytes);
            }
            scalar => write_scalar(scalar, &mut self.values.bytes),
        }
        self.values.end();
        self.codes.push(code);
        Ok(written)
    }

    /// Appends one entry with the hash of its value in place of the value.
    pub(super) fn push_hash(&mut self, code: i32, value: &Value<'_>) -> Result<Written, ReadError> {
        let mut scratch = Vec::new();
        let text: &[u8] = match value {
            Value::Text(text) => {
                utf8(text)?;
                text
            }
            Value::Empty => return self.push(code, value, 0),
            value => {
                let written = match value {
                    Value::Array(_) | Value::Pairs(_) => write_json(*value, &mut scratch, usize::MAX)?,
                    scalar => {
                        write_scalar(scalar, &mut scratch);
                        Written::Whole
                    }
                };
                if written == Written::TooDeep {
                    check_value(value)?;
                    self.push(code, &Value::Empty, 0)?;
                    return Ok(Written::TooDeep);
                }
                &scratch
            }
        };
        write_hash(text, &mut self.values.bytes);
        self.values.end();
        self.codes.push(code);
        Ok(Written::Whole)
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.open_from = len;
        self.codes.truncate(len);
        self.values.truncate(len);
        while self.nulls.last().is_some_and(|&last| last >= len) {
            self.nulls.pop();
        }
    }

    pub(super) fn clear(&mut self) {
        self.truncate(0);
    }

    /// Appends all of `other`, which has codes of the same keys.
    pub(super) fn extend(&mut self, other: &Self) {
        let len = self.len();
        self.nulls.extend(other.nulls.iter().map(|&null| len + null));
        self.codes.extend_from_slice(&other.codes);
        let (to, from) = (&mut self.values, &other.values);
        let base = to.ends[to.len()];
        to.bytes.extend_from_slice(&from.bytes);
        to.ends.extend(from.ends[1..].iter().map(|end| base + end));
    }

    /// Whether all values from an entry on are UTF-8.
    pub(super) fn is_text_from(&self, entry: usize) -> bool {
        self.values.is_text_from(entry)
    }

    /// The entries as an array, with the keys that they have codes of.
    pub(super) fn take(&mut self, keys: &mut Keys, fields: &Fields) -> Result<StructArray, ArrowError> {
        self.open_from = 0;
        let nulls = (!self.nulls.is_empty()).then(|| {
            let mut valid = vec![true; self.len()];
            self.nulls.drain(..).for_each(|null| valid[null] = false);
            NullBuffer::from(valid)
        });
        let keys = keys.take(renewed(&mut self.codes), fields[0].data_type())?;
        StructArray::try_new(fields.clone(), vec![keys, Arc::new(self.values.take(nulls)?)], None)
    }
}
