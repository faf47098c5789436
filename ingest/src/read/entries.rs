//! Keys and values of maps, before they are Arrow.

use super::{
    ReadError,
    columns::Strings,
    content::write_hash,
    value::{Value, Written, cut, utf8, write_json, write_scalar},
};
use arrow::{array::StructArray, buffer::NullBuffer, error::ArrowError};
use std::sync::Arc;

/// Keys and values of maps, one after the other.
#[derive(Default)]
pub(super) struct Entries {
    keys: Strings,
    values: Strings,
    /// Entries whose value is NULL, ascending: an attribute without a value is rare.
    nulls: Vec<usize>,
    /// First entry of the map being written.
    pub(super) open_from: usize,
}

impl Entries {
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    /// Entries of the map being written.
    #[inline]
    pub(super) fn open_len(&self) -> usize {
        self.len() - self.open_from
    }

    /// Memory in use, bytes.
    pub(super) fn size(&self) -> usize {
        self.keys.size() + self.values.size()
    }

    /// Appends one entry; a value longer than `value_bytes_max` is cut between characters, one nested too deep is NULL.
    #[inline]
    pub(super) fn push(&mut self, key: &[u8], value: &Value<'_>, value_bytes_max: usize) -> Result<Written, ReadError> {
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
        self.keys.push(key);
        Ok(written)
    }

    /// Appends one entry with the hash of its value in place of the value.
    pub(super) fn push_hash(&mut self, key: &[u8], value: &Value<'_>) -> Result<Written, ReadError> {
        let mut scratch = Vec::new();
        let text: &[u8] = match value {
            Value::Text(text) => {
                utf8(text)?;
                text
            }
            Value::Empty => return self.push(key, value, 0),
            value => {
                let written = match value {
                    Value::Array(_) | Value::Pairs(_) => write_json(*value, &mut scratch, usize::MAX)?,
                    scalar => {
                        write_scalar(scalar, &mut scratch);
                        Written::Whole
                    }
                };
                if written == Written::TooDeep {
                    self.push(key, &Value::Empty, 0)?;
                    return Ok(Written::TooDeep);
                }
                &scratch
            }
        };
        write_hash(text, &mut self.values.bytes);
        self.values.end();
        self.keys.push(key);
        Ok(Written::Whole)
    }

    pub(super) fn truncate(&mut self, len: usize) {
        self.open_from = len;
        self.keys.truncate(len);
        self.values.truncate(len);
        while self.nulls.last().is_some_and(|&last| last >= len) {
            self.nulls.pop();
        }
    }

    pub(super) fn clear(&mut self) {
        self.truncate(0);
    }

    /// Appends all of `other`.
    pub(super) fn extend(&mut self, other: &Self) {
        let len = self.len();
        self.nulls.extend(other.nulls.iter().map(|&null| len + null));
        for (to, from) in [(&mut self.keys, &other.keys), (&mut self.values, &other.values)] {
            let base = to.ends[to.len()];
            to.bytes.extend_from_slice(&from.bytes);
            to.ends.extend(from.ends[1..].iter().map(|end| base + end));
        }
    }

    pub(super) fn is_text_from(&self, entry: usize) -> bool {
        self.keys.is_text_from(entry) && self.values.is_text_from(entry)
    }

    pub(super) fn take(&mut self, fields: &arrow::datatypes::Fields) -> Result<StructArray, ArrowError> {
        self.open_from = 0;
        let nulls = (!self.nulls.is_empty()).then(|| {
            let mut valid = vec![true; self.len()];
            self.nulls.drain(..).for_each(|null| valid[null] = false);
            NullBuffer::from(valid)
        });
        let (keys, values) = (self.keys.take(None)?, self.values.take(nulls)?);
        StructArray::try_new(fields.clone(), vec![Arc::new(keys), Arc::new(values)], None)
    }
}
