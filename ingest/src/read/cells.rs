//! Writes single cells of a row. What a column cannot hold is NULL, and counted.

use super::{
    ReadCounts, ReadError, WORD_BYTES_MAX,
    columns::{Amounts, Flags, Texts, Words},
    priced::NO_WORD,
    value::{BadNumber, Number, Value, first_text, utf8, write_scalar},
};
use arrow::datatypes::{Float64Type, Int32Type, Int64Type};

/// Writes single cells of a row; what cannot be written is NULL and counted.
pub(super) struct Cells<'c> {
    pub(super) row: usize,
    pub(super) counts: &'c mut ReadCounts,
}

impl Cells<'_> {
    pub(super) fn word(&mut self, column: &mut Words, text: Option<&[u8]>) -> Result<(), ReadError> {
        self.coded(column, text).map(drop)
    }

    /// Sets a word and returns its code.
    #[inline]
    pub(super) fn coded(&mut self, column: &mut Words, text: Option<&[u8]>) -> Result<u32, ReadError> {
        match text {
            Some(text) if text.len() > WORD_BYTES_MAX => {
                self.counts.words_too_long += 1;
                utf8(text).map(|_| NO_WORD)
            }
            Some(text) if !text.is_empty() => column.set(self.row, text),
            _ => Ok(NO_WORD),
        }
    }

    /// Words that clients also send as numbers: versions, tiers.
    pub(super) fn text_or_number(&mut self, column: &mut Words, value: Value<'_>) -> Result<(), ReadError> {
        match value {
            Value::Text(text) => self.word(column, Some(text)),
            Value::Int(_) | Value::Bool(_) | Value::Double(_) => {
                let mut text = Vec::new();
                write_scalar(&value, &mut text);
                self.word(column, Some(&text))
            }
            _ => Ok(()),
        }
    }

    pub(super) fn text(&mut self, column: &mut Texts, value: Value<'_>) -> Result<(), ReadError> {
        match value {
            Value::Text(text) if text.len() > WORD_BYTES_MAX => {
                self.counts.words_too_long += 1;
                utf8(text).map(drop)
            }
            Value::Text(text) => {
                column.set(self.row, text);
                Ok(())
            }
            Value::Int(_) => {
                let mut text = Vec::new();
                write_scalar(&value, &mut text);
                column.set(self.row, &text);
                Ok(())
            }
            // HTTP headers come as lists
            Value::Array(texts) => match first_text(texts)? {
                Some(text) if !text.is_empty() => self.text(column, Value::Text(text)),
                _ => Ok(()),
            },
            _ => Ok(()),
        }
    }

    pub(super) fn double(&mut self, column: &mut Amounts<Float64Type>, number: Number<f64>) {
        match number {
            Ok(number) => column.set(self.row, number),
            Err(why) => self.counts.note(why),
        }
    }

    pub(super) fn count(&mut self, column: &mut Amounts<Int64Type>, number: Number<i64>) {
        match number {
            Ok(number) => column.set(self.row, number),
            Err(why) => self.counts.note(why),
        }
    }

    pub(super) fn small(&mut self, column: &mut Amounts<Int32Type>, number: Number<i64>) {
        match number.and_then(|number| i32::try_from(number).map_err(|_| BadNumber::OutOfRange)) {
            Ok(number) => column.set(self.row, number),
            Err(why) => self.counts.note(why),
        }
    }

    pub(super) fn flag(&mut self, column: &mut Flags, value: Value<'_>) {
        match value.flag() {
            Ok(flag) => column.set(self.row, flag),
            Err(why) => self.counts.note(why),
        }
    }
}
