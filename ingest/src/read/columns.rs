//! Column builders of the reader: plain vectors that grow only on rows that have a value, can be cut back to an
//! earlier row, and become Arrow arrays without copying.
//!
//! Text is taken as bytes and checked for UTF-8 in one sweep per request ([`Column::is_text_from`]), which is cheaper
//! than one check a string. Rows a column was never set on are padded when it is taken.

use super::{ReadError, value::utf8};
use arrow::{
    array::{
        ArrayRef, ArrowPrimitiveType, BooleanArray, DictionaryArray, Int32Array, PrimitiveArray, StringArray,
        StringViewArray,
    },
    buffer::{BooleanBuffer, Buffer, NullBuffer, OffsetBuffer, ScalarBuffer},
    datatypes::{DataType, Int32Type},
    error::ArrowError,
};
use hashbrown::HashTable;
use std::{mem, sync::Arc};

/// What all builders can do.
pub(super) trait Column {
    /// Forgets every row from `rows` on.
    fn truncate(&mut self, rows: usize);
    /// Memory in use, bytes.
    fn bytes(&self) -> usize;
    /// Whether all text of the rows from `row` on is UTF-8.
    fn is_text_from(&self, _row: usize) -> bool {
        true
    }
    /// The column as an array of `rows` values, `None` if no row has one; the builder is empty afterwards.
    fn take(&mut self, rows: usize, ty: &DataType) -> Result<Option<ArrayRef>, ArrowError>;
}

/// Takes a full vector out, and leaves an empty one that will hold a little more. Batches live long: room that a larger
/// batch before left unused, or that doubling made, is given back.
pub(super) fn renewed<T>(full: &mut Vec<T>) -> Vec<T> {
    let roomy = full.len() + full.len() / 8 + 64;
    let mut taken = mem::replace(full, Vec::with_capacity(roomy));
    if taken.capacity() > roomy {
        taken.shrink_to_fit();
    }
    taken
}

/// One bit a row, in Arrow's order.
#[derive(Default)]
pub(super) struct Bits {
    words: Vec<u64>,
}

impl Bits {
    #[inline]
    pub(super) fn set(&mut self, row: usize) {
        if row / 64 >= self.words.len() {
            self.words.resize(row / 64 + 1, 0);
        }
        self.words[row / 64] |= 1 << (row % 64);
    }

    pub(super) fn truncate(&mut self, rows: usize) {
        self.words.truncate(rows.div_ceil(64));
        if rows / 64 < self.words.len() {
            self.words[rows / 64] &= (1 << (rows % 64)) - 1;
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.words.len() * 8
    }

    fn any(&self) -> bool {
        self.words.iter().any(|&word| word != 0)
    }

    pub(super) fn take(&mut self, rows: usize) -> BooleanBuffer {
        let mut words = renewed(&mut self.words);
        words.resize(rows.div_ceil(64), 0);
        BooleanBuffer::new(Buffer::from_vec(words), 0, rows)
    }

    /// NULLs where no bit is set; `None` if all are.
    pub(super) fn take_nulls(&mut self, rows: usize) -> Option<NullBuffer> {
        let nulls = NullBuffer::new(self.take(rows));
        (nulls.null_count() > 0).then_some(nulls)
    }
}

/// Numbers and times.
pub(super) struct Amounts<T: ArrowPrimitiveType> {
    values: Vec<T::Native>,
    set: Bits,
}

impl<T: ArrowPrimitiveType> Default for Amounts<T> {
    fn default() -> Self {
        Self {
            values: Vec::new(),
            set: Bits::default(),
        }
    }
}

impl<T: ArrowPrimitiveType> Amounts<T> {
    #[inline]
    pub(super) fn set(&mut self, row: usize, value: T::Native) {
        if self.values.len() < row {
            self.values.resize(row, T::Native::default());
        }
        self.values.push(value);
        self.set.set(row);
    }
}

impl<T: ArrowPrimitiveType> Column for Amounts<T> {
    fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows);
        self.set.truncate(rows);
    }

    fn bytes(&self) -> usize {
        size_of_val(self.values.as_slice()) + self.set.bytes()
    }

    fn take(&mut self, rows: usize, ty: &DataType) -> Result<Option<ArrayRef>, ArrowError> {
        if !self.set.any() {
            self.truncate(0);
            return Ok(None);
        }
        let mut values = renewed(&mut self.values);
        values.resize(rows, T::Native::default());
        let array = PrimitiveArray::<T>::try_new(ScalarBuffer::from(values), self.set.take_nulls(rows))?;
        Ok(Some(Arc::new(array.with_data_type(ty.clone()))))
    }
}

/// Yes or no.
#[derive(Default)]
pub(super) struct Flags {
    values: Bits,
    set: Bits,
}

impl Flags {
    pub(super) fn set(&mut self, row: usize, value: bool) {
        if value {
            self.values.set(row);
        }
        self.set.set(row);
    }
}

impl Column for Flags {
    fn truncate(&mut self, rows: usize) {
        self.values.truncate(rows);
        self.set.truncate(rows);
    }

    fn bytes(&self) -> usize {
        self.values.bytes() + self.set.bytes()
    }

    fn take(&mut self, rows: usize, _: &DataType) -> Result<Option<ArrayRef>, ArrowError> {
        if !self.set.any() {
            self.truncate(0);
            return Ok(None);
        }
        Ok(Some(Arc::new(BooleanArray::new(
            self.values.take(rows),
            self.set.take_nulls(rows),
        ))))
    }
}

/// Strings one after the other, with the offsets Arrow wants.
pub(super) struct Strings {
    pub(super) bytes: Vec<u8>,
    /// Starts with 0, then one end a string.
    pub(super) ends: Vec<i32>,
}

impl Default for Strings {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            ends: vec![0],
        }
    }
}

impl Strings {
    pub(super) fn len(&self) -> usize {
        self.ends.len() - 1
    }

    #[inline]
    pub(super) fn push(&mut self, text: &[u8]) {
        self.bytes.extend_from_slice(text);
        self.end();
    }

    /// Ends a string whose bytes were written to `bytes` directly. The reader takes no request that could take the
    /// offsets past 2^31.
    #[inline]
    #[allow(clippy::cast_possible_truncation, clippy::cast_possible_wrap)]
    pub(super) fn end(&mut self) {
        self.ends.push(self.bytes.len() as i32);
    }

    #[allow(clippy::cast_sign_loss)]
    fn start(&self, index: usize) -> usize {
        self.ends[index] as usize
    }

    pub(super) fn get(&self, index: usize) -> &[u8] {
        &self.bytes[self.start(index)..self.start(index + 1)]
    }

    pub(super) fn truncate(&mut self, len: usize) {
        if len < self.len() {
            self.ends.truncate(len + 1);
            self.bytes.truncate(self.start(len));
        }
    }

    pub(super) fn size(&self) -> usize {
        self.bytes.len() + self.ends.len() * 4
    }

    /// ASCII; or UTF-8 as a whole, and every string starts with a character's first byte: so each string is UTF-8.
    pub(super) fn is_text_from(&self, index: usize) -> bool {
        if index >= self.len() {
            return true;
        }
        #[allow(clippy::cast_sign_loss)]
        let starts_well = |&end: &i32| self.bytes.get(end as usize).is_none_or(|&byte| byte & 0xc0 != 0x80);
        let bytes = &self.bytes[self.start(index)..];
        bytes.is_ascii() || simdutf8::basic::from_utf8(bytes).is_ok() && self.ends[index..].iter().all(starts_well)
    }

    pub(super) fn take(&mut self, nulls: Option<NullBuffer>) -> Result<StringArray, ArrowError> {
        let ends = renewed(&mut self.ends);
        self.ends.push(0);
        let bytes = renewed(&mut self.bytes);
        StringArray::try_new(
            OffsetBuffer::new(ScalarBuffer::from(ends)),
            Buffer::from_vec(bytes),
            nulls,
        )
    }
}

/// Text of its own on every row: `Utf8` or `Utf8View`.
#[derive(Default)]
pub(super) struct Texts {
    strings: Strings,
    set: Bits,
}

impl Texts {
    #[inline]
    pub(super) fn set(&mut self, row: usize, text: &[u8]) {
        self.pad(row);
        self.strings.push(text);
        self.set.set(row);
    }

    /// Sets the hex digits of an id.
    pub(super) fn set_hex(&mut self, row: usize, id: &[u8]) {
        self.pad(row);
        write_hex(id, &mut self.strings.bytes);
        self.strings.end();
        self.set.set(row);
    }

    fn pad(&mut self, rows: usize) {
        if self.strings.len() < rows {
            let end = self.strings.ends[self.strings.len()];
            self.strings.ends.resize(rows + 1, end);
        }
    }
}

impl Column for Texts {
    fn truncate(&mut self, rows: usize) {
        self.strings.truncate(rows);
        self.set.truncate(rows);
    }

    fn bytes(&self) -> usize {
        self.strings.size() + self.set.bytes()
    }

    fn is_text_from(&self, row: usize) -> bool {
        self.strings.is_text_from(row)
    }

    fn take(&mut self, rows: usize, ty: &DataType) -> Result<Option<ArrayRef>, ArrowError> {
        if !self.set.any() {
            self.truncate(0);
            return Ok(None);
        }
        self.pad(rows);
        let nulls = self.set.take_nulls(rows);
        let strings = self.strings.take(nulls)?;
        Ok(Some(match ty {
            DataType::Utf8View => Arc::new(StringViewArray::from(&strings)),
            _ => Arc::new(strings),
        }))
    }
}

/// The two digits of every byte.
const HEX: [[u8; 2]; 256] = {
    let digits = b"0123456789abcdef";
    let mut table = [[0; 2]; 256];
    let mut byte = 0;
    while byte < 256 {
        table[byte] = [digits[byte >> 4], digits[byte & 15]];
        byte += 1;
    }
    table
};

#[inline]
pub(super) fn write_hex(id: &[u8], out: &mut Vec<u8>) {
    if let Ok(id) = <&[u8; 8]>::try_from(id) {
        out.extend_from_slice(id.map(|byte| HEX[usize::from(byte)]).as_flattened());
    } else if let Ok(id) = <&[u8; 16]>::try_from(id) {
        out.extend_from_slice(id.map(|byte| HEX[usize::from(byte)]).as_flattened());
    } else {
        id.iter()
            .for_each(|&byte| out.extend_from_slice(&HEX[usize::from(byte)]));
    }
}

/// Whether two texts are equal. Words are short: overlapping loads decide up to 32 bytes without a call.
#[inline]
fn is_same(a: &[u8], b: &[u8]) -> bool {
    let len = a.len();
    if len != b.len() {
        return false;
    }
    let differ = |at: usize| {
        let load = |text: &[u8]| {
            let eight = text.get(at..at + 8).and_then(<[u8]>::first_chunk);
            eight.map_or(0, |&eight| u64::from_le_bytes(eight))
        };
        load(a) ^ load(b)
    };
    match len {
        0..4 => a == b,
        4..8 => {
            let load = |text: &[u8], at: usize| {
                let four = text.get(at..at + 4).and_then(<[u8]>::first_chunk);
                four.map_or(0, |&four| u32::from_le_bytes(four))
            };
            load(a, 0) == load(b, 0) && load(a, len - 4) == load(b, len - 4)
        }
        8..=16 => differ(0) | differ(len - 8) == 0,
        17..=32 => differ(0) | differ(8) | differ(len - 16) | differ(len - 8) == 0,
        _ => a == b,
    }
}

/// Distinct texts, each with a code that stays the same until they are taken or cleared.
#[derive(Default)]
pub(super) struct Distinct {
    texts: Strings,
    codes_by_text: HashTable<u32>,
    hasher: ahash::RandomState,
}

impl Distinct {
    /// Code of a text, which is added if it is new.
    ///
    /// # Errors
    /// [`ReadError::Utf8`]; only a text not seen before needs the check.
    pub(super) fn code(&mut self, text: &[u8]) -> Result<u32, ReadError> {
        let hash = self.hasher.hash_one(text);
        let is = |&code: &u32| is_same(self.texts.get(code as usize), text);
        if let Some(&code) = self.codes_by_text.find(hash, is) {
            return Ok(code);
        }
        utf8(text)?;
        #[allow(clippy::cast_possible_truncation)]
        let code = self.texts.len() as u32;
        self.texts.push(text);
        let (texts, hasher) = (&self.texts, &self.hasher);
        self.codes_by_text
            .insert_unique(hash, code, |&code| hasher.hash_one(texts.get(code as usize)));
        Ok(code)
    }

    /// Whether `code` is that of a text.
    #[inline]
    fn is(&self, code: u32, text: &[u8]) -> bool {
        (code as usize) < self.texts.len() && is_same(self.texts.get(code as usize), text)
    }

    /// Memory in use, bytes.
    pub(super) fn size(&self) -> usize {
        self.texts.size() + self.codes_by_text.len() * 8
    }

    pub(super) fn clear(&mut self) {
        self.texts.truncate(0);
        self.codes_by_text.clear();
    }

    /// The texts by code; none is known afterwards.
    pub(super) fn take(&mut self) -> Result<StringArray, ArrowError> {
        self.codes_by_text.clear();
        self.texts.take(None)
    }
}

/// Text of low cardinality: a dictionary, and one code a row.
#[derive(Default)]
pub(super) struct Words {
    known: Distinct,
    /// Code of the row set last: rows of one request mostly say the same.
    last: u32,
    codes: Vec<i32>,
    set: Bits,
}

impl Words {
    /// Sets a row's word and returns its code, which stays the same until the column is taken.
    ///
    /// # Errors
    /// [`ReadError::Utf8`].
    #[inline]
    pub(super) fn set(&mut self, row: usize, text: &[u8]) -> Result<u32, ReadError> {
        if !self.known.is(self.last, text) {
            self.last = self.known.code(text)?;
        }
        let code = self.last;
        if self.codes.len() < row {
            self.codes.resize(row, 0);
        }
        self.codes.push(code.cast_signed());
        self.set.set(row);
        Ok(code)
    }
}

impl Column for Words {
    fn truncate(&mut self, rows: usize) {
        self.codes.truncate(rows);
        self.set.truncate(rows);
        if rows == 0 {
            // Words of refused requests must not pile up where no row is left that needs them.
            self.known.clear();
        }
    }

    fn bytes(&self) -> usize {
        self.known.size() + self.codes.len() * 4 + self.set.bytes()
    }

    fn take(&mut self, rows: usize, _: &DataType) -> Result<Option<ArrayRef>, ArrowError> {
        if !self.set.any() {
            self.truncate(0);
            return Ok(None);
        }
        let mut codes = renewed(&mut self.codes);
        codes.resize(rows, 0);
        let codes = Int32Array::try_new(ScalarBuffer::from(codes), self.set.take_nulls(rows))?;
        let known = self.known.take()?;
        Ok(Some(Arc::new(DictionaryArray::<Int32Type>::try_new(
            codes,
            Arc::new(known),
        )?)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_the_same_if_every_byte_is() {
        let text: Vec<u8> = (0..40).collect();
        for len in 0..=text.len() {
            let a = &text[..len];
            assert!(is_same(a, a), "{len}");
            assert!(!is_same(a, &text[..len.saturating_sub(1)]) || len == 0, "{len}");
            for at in 0..len {
                let mut b = a.to_vec();
                b[at] ^= 0x80;
                assert!(!is_same(a, &b), "{len}, {at}");
            }
        }
    }
}
