//! `KeyValue` and `AnyValue`: reading them as borrowed values, turning them into numbers, and writing them as text.

use super::{
    ReadError,
    texts::{check_value, replace},
    wire::{Cursor, FIXED64, LEN, VARINT, key},
};
use base64::Engine as _;

/// An attribute's value, still standing in the request's bytes.
///
/// The tag has a word of its own: with a one-byte tag the value is copied in overlapping pieces, and every copy waits
/// for the store before it (a third of the reader's time, once).
#[derive(Debug, Clone, Copy, PartialEq)]
#[repr(u64)]
pub(super) enum Value<'a> {
    /// Not set.
    Empty,
    /// Not yet checked for UTF-8.
    Text(&'a [u8]),
    Bool(bool),
    Int(i64),
    Double(f64),
    /// `ArrayValue`.
    Array(&'a [u8]),
    /// `KeyValueList`.
    Pairs(&'a [u8]),
    Bytes(&'a [u8]),
}

/// Why a number became NULL. As wide as the numbers beside it in a `Result`, for the reason of [`Value`]'s tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u64)]
pub(super) enum BadNumber {
    Unreadable,
    NotFinite,
    Negative,
    OutOfRange,
}

pub(super) type Number<T> = Result<T, BadNumber>;

pub(super) fn any_value(message: &[u8]) -> Result<Value<'_>, ReadError> {
    merged_value(message, Value::Empty)
}

/// A value of which `value` was said before: what is said last counts, and nothing said changes nothing.
fn merged_value<'a>(message: &'a [u8], mut value: Value<'a>) -> Result<Value<'a>, ReadError> {
    const TEXT: u32 = key(1, LEN);
    const BOOL: u32 = key(2, VARINT);
    const INT: u32 = key(3, VARINT);
    const DOUBLE: u32 = key(4, FIXED64);
    const ARRAY: u32 = key(5, LEN);
    const PAIRS: u32 = key(6, LEN);
    const BYTES: u32 = key(7, LEN);
    let mut cursor = Cursor::new(message);
    while let found @ 1.. = cursor.next_key()? {
        let said = match found {
            TEXT => Value::Text(cursor.bytes()?),
            BOOL => Value::Bool(cursor.varint()? != 0),
            INT => Value::Int(cursor.varint()?.cast_signed()),
            DOUBLE => Value::Double(f64::from_bits(cursor.fixed64()?)),
            ARRAY => Value::Array(cursor.bytes()?),
            PAIRS => Value::Pairs(cursor.bytes()?),
            BYTES => Value::Bytes(cursor.bytes()?),
            other => {
                cursor.skip(other)?;
                continue;
            }
        };
        check_value(&std::mem::replace(&mut value, said))?;
    }
    Ok(value)
}

/// Key and value of a `KeyValue`.
#[inline(always)]
pub(super) fn key_value(message: &[u8]) -> Result<(&[u8], Value<'_>), ReadError> {
    match usual(message) {
        Some(pair) => Ok(pair),
        None => any_key_value(message),
    }
}

/// A `KeyValue` as every exporter writes it: key, then value, each once, with lengths of one or two bytes.
#[inline(always)]
fn usual(message: &[u8]) -> Option<(&[u8], Value<'_>)> {
    let [0x0a, key_len @ ..0x80, rest @ ..] = message else {
        return None;
    };
    let (key, rest) = rest.split_at_checked(usize::from(*key_len))?;
    let [0x12, rest @ ..] = rest else { return None };
    let value = match usual_bytes(rest)? {
        [0x0a, text @ ..] => Value::Text(usual_bytes(text)?),
        [0x18, int @ ..0x80] => Value::Int(i64::from(*int)),
        [0x18, low @ 0x80..=0xff, high @ ..0x80] => Value::Int(i64::from(low & 0x7f) | i64::from(*high) << 7),
        [0x10, flag @ (0 | 1)] => Value::Bool(*flag == 1),
        [0x2a, array @ ..] => Value::Array(usual_bytes(array)?),
        [0x21, double @ ..] => Value::Double(f64::from_le_bytes(double.try_into().ok()?)),
        _ => return None,
    };
    Some((key, value))
}

/// Bytes that stand behind their length and reach to the end.
#[inline(always)]
fn usual_bytes(field: &[u8]) -> Option<&[u8]> {
    match field {
        [len @ ..0x80, bytes @ ..] if bytes.len() == usize::from(*len) => Some(bytes),
        [low @ 0x80..=0xff, high @ ..0x80, bytes @ ..]
            if bytes.len() == usize::from(low & 0x7f) | usize::from(*high) << 7 =>
        {
            Some(bytes)
        }
        _ => None,
    }
}

#[inline(never)]
fn any_key_value(message: &[u8]) -> Result<(&[u8], Value<'_>), ReadError> {
    const KEY: u32 = key(1, LEN);
    const VALUE: u32 = key(2, LEN);
    let mut cursor = Cursor::new(message);
    let (mut name, mut value): (&[u8], _) = (&[], Value::Empty);
    while let found @ 1.. = cursor.next_key()? {
        match found {
            KEY => replace(&mut name, cursor.bytes()?)?,
            VALUE => value = merged_value(cursor.bytes()?, value)?,
            other => cursor.skip(other)?,
        }
    }
    Ok((name, value))
}

/// First text in an `ArrayValue`.
pub(super) fn first_text(array: &[u8]) -> Result<Option<&[u8]>, ReadError> {
    match Cursor::new(array).next_len(1)? {
        Some(first) => Ok(match any_value(first)? {
            Value::Text(text) => Some(text),
            _ => None,
        }),
        None => Ok(None),
    }
}

/// Only whether it is text. Short ASCII, which most is, costs a few words.
#[inline]
pub(super) fn check_utf8(bytes: &[u8]) -> Result<(), ReadError> {
    if bytes.is_ascii() {
        Ok(())
    } else {
        utf8(bytes).map(drop)
    }
}

pub(super) fn utf8(bytes: &[u8]) -> Result<&str, ReadError> {
    simdutf8::basic::from_utf8(bytes).map_err(|_| ReadError::Utf8)
}

/// Longest start of `text` that has at most `max` bytes and ends between characters.
pub(super) fn cut(text: &str, max: usize) -> &str {
    &text[..text.floor_char_boundary(max)]
}

impl<'a> Value<'a> {
    /// Whether there is anything to take. An empty text says no more than an absent attribute.
    pub(super) fn says_something(&self) -> bool {
        !matches!(self, Self::Empty | Self::Text([]))
    }

    pub(super) fn text(&self) -> Option<&'a [u8]> {
        match self {
            Self::Text(text) => Some(text),
            _ => None,
        }
    }

    /// Any finite number; texts are read as numbers.
    pub(super) fn double(&self) -> Number<f64> {
        let number = match self {
            Self::Double(number) => *number,
            #[allow(clippy::cast_precision_loss)]
            Self::Int(number) => *number as f64,
            Self::Text(text) => {
                let text = std::str::from_utf8(text).map_err(|_| BadNumber::Unreadable)?;
                text.trim().parse::<f64>().map_err(|_| BadNumber::Unreadable)?
            }
            _ => return Err(BadNumber::Unreadable),
        };
        if number.is_finite() {
            Ok(number)
        } else {
            Err(BadNumber::NotFinite)
        }
    }

    /// A finite number from zero up.
    pub(super) fn amount(&self) -> Number<f64> {
        let number = self.double()?;
        if number < 0.0 {
            Err(BadNumber::Negative)
        } else {
            Ok(number)
        }
    }

    /// A whole number from zero up. Doubles and texts count if they are whole.
    pub(super) fn count(&self) -> Number<i64> {
        let number = match self {
            Self::Int(number) => *number,
            Self::Text(text) => {
                let text = std::str::from_utf8(text).map_err(|_| BadNumber::Unreadable)?.trim();
                match text.parse() {
                    Ok(number) => number,
                    Err(_) => whole(text.parse::<f64>().map_err(|_| BadNumber::Unreadable)?)?,
                }
            }
            Self::Double(number) => whole(*number)?,
            _ => return Err(BadNumber::Unreadable),
        };
        if number < 0 {
            Err(BadNumber::Negative)
        } else {
            Ok(number)
        }
    }

    /// `true`, `false`, their texts in any case, 1 and 0.
    pub(super) fn flag(&self) -> Number<bool> {
        match self {
            Self::Bool(flag) => Ok(*flag),
            Self::Int(0) => Ok(false),
            Self::Int(1) => Ok(true),
            Self::Text(text) if text.eq_ignore_ascii_case(b"true") || *text == b"1" => Ok(true),
            Self::Text(text) if text.eq_ignore_ascii_case(b"false") || *text == b"0" => Ok(false),
            _ => Err(BadNumber::Unreadable),
        }
    }
}

/// Doubles beyond 2^53 are not exact: no count is that large.
const WHOLE_MAX: f64 = 9_007_199_254_740_992.0;

fn whole(number: f64) -> Number<i64> {
    if !number.is_finite() {
        Err(BadNumber::NotFinite)
    } else if number < 0.0 {
        Err(BadNumber::Negative)
    } else if number > WHOLE_MAX {
        Err(BadNumber::OutOfRange)
    } else if number.fract() == 0.0 {
        #[allow(clippy::cast_possible_truncation)]
        Ok(number as i64)
    } else {
        Err(BadNumber::Unreadable)
    }
}

/// Values nested deeper than this are NULL; prost refuses the whole request at 100.
pub(super) const NESTING_MAX: usize = 64;

/// What became of a value that was to be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Written {
    Whole,
    /// Only its start, as much as there was room for.
    Cut,
    /// Nothing: it is nested deeper than [`NESTING_MAX`].
    TooDeep,
}

/// Writes a number or flag as text; other values are the caller's.
pub(super) fn write_scalar(value: &Value<'_>, out: &mut Vec<u8>) {
    match value {
        Value::Bool(true) => out.extend_from_slice(b"true"),
        Value::Bool(false) => out.extend_from_slice(b"false"),
        Value::Int(number) => out.extend_from_slice(itoa::Buffer::new().format(*number).as_bytes()),
        Value::Double(number) => out.extend_from_slice(ryu::Buffer::new().format(*number).as_bytes()),
        Value::Bytes(bytes) => {
            out.extend_from_slice(base64::engine::general_purpose::STANDARD.encode(bytes).as_bytes())
        }
        Value::Empty | Value::Text(_) | Value::Array(_) | Value::Pairs(_) => {}
    }
}

/// Writes a value as JSON, without recursion. Once `max` bytes are written the rest is only checked.
pub(super) fn write_json(value: Value<'_>, out: &mut Vec<u8>, max: usize) -> Result<Written, ReadError> {
    if let Value::Array(array) = value
        && array.len() <= max / 8
        && write_texts(array, out)?
    {
        return Ok(Written::Whole);
    }
    let start = out.len();
    let mut full = None;
    let mut open: Vec<Level<'_>> = Vec::new();
    write_item(value, out, &mut open)?;
    while let Some(level) = open.last_mut() {
        let Some(item) = level.items.next_len(1)? else {
            out.push(level.close);
            open.pop();
            continue;
        };
        if level.any {
            out.push(b',');
        }
        level.any = true;
        let item = if level.close == b'}' {
            let (name, value) = key_value(item)?;
            write_text(name, out)?;
            out.push(b':');
            value
        } else {
            any_value(item)?
        };
        if !write_item(item, out, &mut open)? {
            out.truncate(start);
            return Ok(Written::TooDeep);
        }
        if full.is_none() && out.len() - start > max {
            full = Some(start + cut(utf8(&out[start..])?, max).len());
        }
        // what stands behind the limit is only checked
        out.truncate(full.unwrap_or(out.len()));
    }
    let keep = full.unwrap_or(start + cut(utf8(&out[start..])?, max).len());
    let was_cut = full.is_some() || keep < out.len();
    out.truncate(keep);
    Ok(if was_cut { Written::Cut } else { Written::Whole })
}

/// Writes an array of texts, which most arrays are; false, and nothing written, if it holds anything else. Escaped, a
/// text grows sixfold at most.
fn write_texts(array: &[u8], out: &mut Vec<u8>) -> Result<bool, ReadError> {
    let start = out.len();
    let mut items = Cursor::new(array);
    while let Some(item) = items.next_len(1)? {
        let Value::Text(text) = any_value(item)? else {
            out.truncate(start);
            return Ok(false);
        };
        out.push(if out.len() == start { b'[' } else { b',' });
        write_text(text, out)?;
    }
    if out.len() == start {
        out.push(b'[');
    }
    out.push(b']');
    Ok(true)
}

struct Level<'a> {
    items: Cursor<'a>,
    close: u8,
    any: bool,
}

/// Writes a scalar, or opens a level; false if that would be one too many.
fn write_item<'a>(value: Value<'a>, out: &mut Vec<u8>, open: &mut Vec<Level<'a>>) -> Result<bool, ReadError> {
    let (items, close) = match value {
        Value::Array(items) => (items, b']'),
        Value::Pairs(items) => (items, b'}'),
        Value::Text(text) => return write_text(text, out).map(|()| true),
        Value::Bytes(_) => {
            out.push(b'"');
            write_scalar(&value, out);
            out.push(b'"');
            return Ok(true);
        }
        Value::Double(number) if !number.is_finite() => {
            out.extend_from_slice(b"null");
            return Ok(true);
        }
        Value::Empty => {
            out.extend_from_slice(b"null");
            return Ok(true);
        }
        scalar => {
            write_scalar(&scalar, out);
            return Ok(true);
        }
    };
    if open.len() == NESTING_MAX {
        return Ok(false);
    }
    out.push(if close == b']' { b'[' } else { b'{' });
    open.push(Level {
        items: Cursor::new(items),
        close,
        any: false,
    });
    Ok(true)
}

fn write_text(text: &[u8], out: &mut Vec<u8>) -> Result<(), ReadError> {
    utf8(text)?;
    out.push(b'"');
    for &byte in text {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', byte]),
            b'\n' => out.extend_from_slice(b"\\n"),
            b'\r' => out.extend_from_slice(b"\\r"),
            b'\t' => out.extend_from_slice(b"\\t"),
            0x08 => out.extend_from_slice(b"\\b"),
            0x0c => out.extend_from_slice(b"\\f"),
            0..0x20 => {
                let digit = |nibble: u8| b"0123456789abcdef"[usize::from(nibble)];
                out.extend_from_slice(b"\\u00");
                out.extend_from_slice(&[digit(byte >> 4), digit(byte & 15)]);
            }
            _ => out.push(byte),
        }
    }
    out.push(b'"');
    Ok(())
}
