//! Texts that no builder takes (schema URLs, spans that are rejected, log records that are no evaluation, what is dropped
//! or one too many): checked all the same, so that a request with bytes that are no text is refused as a whole wherever
//! they stand, and whatever the configuration.

use super::{
    ReadError,
    value::{NESTING_MAX, Value, check_utf8},
    wire::{Cursor, LEN, key},
};

/// What stands behind a field.
enum Part {
    Text,
    Message(Shape),
}

/// The fields of a message that are texts or hold some, by key. All others are stepped over.
pub(super) type Shape = &'static [Field];

/// One of them.
pub(super) struct Field(u32, Part);

const fn text(number: u32) -> Field {
    Field(key(number, LEN), Part::Text)
}

const fn message(number: u32, shape: Shape) -> Field {
    Field(key(number, LEN), Part::Message(shape))
}

/// `AnyValue`.
pub(super) static VALUE: [Field; 3] = [text(1), message(5, &ARRAY), message(6, &PAIRS)];
static ARRAY: [Field; 1] = [message(1, &VALUE)];
static PAIRS: [Field; 1] = [message(1, &KEY_VALUE)];
static KEY_VALUE: [Field; 2] = [text(1), message(2, &VALUE)];
/// `Resource`.
pub(super) static RESOURCE: [Field; 2] = [message(1, &KEY_VALUE), message(3, &ENTITY)];
/// `EntityRef`.
pub(super) static ENTITY: [Field; 4] = [text(1), text(2), text(3), text(4)];
/// `InstrumentationScope`.
pub(super) static SCOPE: [Field; 3] = [text(1), text(2), message(3, &KEY_VALUE)];
/// `Span`.
pub(super) static SPAN: [Field; 6] = [
    text(3),
    text(5),
    message(9, &KEY_VALUE),
    message(11, &EVENT),
    message(13, &LINK),
    message(15, &STATUS),
];
/// `Span.Event`.
pub(super) static EVENT: [Field; 2] = [text(2), message(3, &KEY_VALUE)];
/// `Span.Link`.
pub(super) static LINK: [Field; 2] = [text(3), message(4, &KEY_VALUE)];
static STATUS: [Field; 1] = [text(2)];

/// Messages inside each other that are looked into: [`NESTING_MAX`] lists of pairs, and what is around them. Deeper
/// values become NULL, and so does their text.
const DEPTH_MAX: usize = 3 * NESTING_MAX + 4;

/// Checks all texts of a message.
pub(super) fn check(shape: Shape, message: &[u8]) -> Result<(), ReadError> {
    check_at(shape, message, 0)
}

fn check_at(shape: Shape, message: &[u8], depth: usize) -> Result<(), ReadError> {
    let mut cursor = Cursor::new(message);
    while let found @ 1.. = cursor.next_key()? {
        match shape.iter().find(|field| field.0 == found) {
            Some(Field(_, Part::Text)) => check_utf8(cursor.bytes()?)?,
            Some(Field(_, Part::Message(inner))) if depth < DEPTH_MAX => check_at(inner, cursor.bytes()?, depth + 1)?,
            _ => cursor.skip(found)?,
        }
    }
    Ok(())
}

/// Checks all texts of a value.
#[inline]
pub(super) fn check_value(value: &Value<'_>) -> Result<(), ReadError> {
    match value {
        Value::Text(text) => check_utf8(text),
        Value::Array(items) => check(&ARRAY, items),
        Value::Pairs(items) => check(&PAIRS, items),
        Value::Empty | Value::Bool(_) | Value::Int(_) | Value::Double(_) | Value::Bytes(_) => Ok(()),
    }
}

/// Sets a text of which the last one counts; one that is replaced must be text too.
#[inline]
pub(super) fn replace<'a>(text: &mut &'a [u8], by: &'a [u8]) -> Result<(), ReadError> {
    if !text.is_empty() {
        check_utf8(text)?;
    }
    *text = by;
    Ok(())
}
