//! OTLP/JSON to OTLP/protobuf, streaming: no tree of objects stands between, so 64 MiB of `{},{},...` stay 64 MiB.
//!
//! What the JSON mapping of OTLP changes against plain protobuf JSON: trace and span ids are hex, enums are numbers,
//! keys are lowerCamelCase, unknown keys are ignored, 64-bit integers come as strings or numbers.
//!
//! JSON that is no UTF-8 is refused. An escape that is half a character (`"\ud83d"`, what JavaScript makes of an emoji that
//! it cuts) is JSON all the same: it becomes U+FFFD, since a whole batch for half a character would be a bad bargain. The reader that takes those takes control
//! characters that are not escaped, too.

use super::Export;
use base64::Engine;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use std::fmt;

/// How a value is spelled in JSON and stored in protobuf.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Text,
    Hex,
    Base64,
    Bool,
    /// Varint; int64, uint32 and enums alike.
    Integer,
    Fixed32,
    Fixed64,
    Double,
    Message(&'static [Field]),
    Each(&'static [Field]),
}

/// One field of a message.
#[derive(Debug)]
struct Field {
    key: &'static str,
    number: u32,
    kind: Kind,
}

const fn field(key: &'static str, number: u32, kind: Kind) -> Field {
    Field { key, number, kind }
}

static VALUE: [Field; 7] = [
    field("stringValue", 1, Kind::Text),
    field("boolValue", 2, Kind::Bool),
    field("intValue", 3, Kind::Integer),
    field("doubleValue", 4, Kind::Double),
    field("arrayValue", 5, Kind::Message(&ARRAY)),
    field("kvlistValue", 6, Kind::Message(&KVLIST)),
    field("bytesValue", 7, Kind::Base64),
];
static ARRAY: [Field; 1] = [field("values", 1, Kind::Each(&VALUE))];
static KVLIST: [Field; 1] = [field("values", 1, Kind::Each(&KEY_VALUE))];
static KEY_VALUE: [Field; 2] = [field("key", 1, Kind::Text), field("value", 2, Kind::Message(&VALUE))];
static RESOURCE: [Field; 2] = [
    field("attributes", 1, Kind::Each(&KEY_VALUE)),
    field("droppedAttributesCount", 2, Kind::Integer),
];
static SCOPE: [Field; 4] = [
    field("name", 1, Kind::Text),
    field("version", 2, Kind::Text),
    field("attributes", 3, Kind::Each(&KEY_VALUE)),
    field("droppedAttributesCount", 4, Kind::Integer),
];
static TRACES: [Field; 1] = [field("resourceSpans", 1, Kind::Each(&RESOURCE_SPANS))];
static RESOURCE_SPANS: [Field; 3] = [
    field("resource", 1, Kind::Message(&RESOURCE)),
    field("scopeSpans", 2, Kind::Each(&SCOPE_SPANS)),
    field("schemaUrl", 3, Kind::Text),
];
static SCOPE_SPANS: [Field; 3] = [
    field("scope", 1, Kind::Message(&SCOPE)),
    field("spans", 2, Kind::Each(&SPAN)),
    field("schemaUrl", 3, Kind::Text),
];
static SPAN: [Field; 16] = [
    field("traceId", 1, Kind::Hex),
    field("spanId", 2, Kind::Hex),
    field("traceState", 3, Kind::Text),
    field("parentSpanId", 4, Kind::Hex),
    field("name", 5, Kind::Text),
    field("kind", 6, Kind::Integer),
    field("startTimeUnixNano", 7, Kind::Fixed64),
    field("endTimeUnixNano", 8, Kind::Fixed64),
    field("attributes", 9, Kind::Each(&KEY_VALUE)),
    field("droppedAttributesCount", 10, Kind::Integer),
    field("events", 11, Kind::Each(&EVENT)),
    field("droppedEventsCount", 12, Kind::Integer),
    field("links", 13, Kind::Each(&LINK)),
    field("droppedLinksCount", 14, Kind::Integer),
    field("status", 15, Kind::Message(&STATUS)),
    field("flags", 16, Kind::Fixed32),
];
static EVENT: [Field; 4] = [
    field("timeUnixNano", 1, Kind::Fixed64),
    field("name", 2, Kind::Text),
    field("attributes", 3, Kind::Each(&KEY_VALUE)),
    field("droppedAttributesCount", 4, Kind::Integer),
];
static LINK: [Field; 6] = [
    field("traceId", 1, Kind::Hex),
    field("spanId", 2, Kind::Hex),
    field("traceState", 3, Kind::Text),
    field("attributes", 4, Kind::Each(&KEY_VALUE)),
    field("droppedAttributesCount", 5, Kind::Integer),
    field("flags", 6, Kind::Fixed32),
];
static STATUS: [Field; 2] = [field("message", 2, Kind::Text), field("code", 3, Kind::Integer)];
static LOGS: [Field; 1] = [field("resourceLogs", 1, Kind::Each(&RESOURCE_LOGS))];
static RESOURCE_LOGS: [Field; 3] = [
    field("resource", 1, Kind::Message(&RESOURCE)),
    field("scopeLogs", 2, Kind::Each(&SCOPE_LOGS)),
    field("schemaUrl", 3, Kind::Text),
];
static SCOPE_LOGS: [Field; 3] = [
    field("scope", 1, Kind::Message(&SCOPE)),
    field("logRecords", 2, Kind::Each(&LOG_RECORD)),
    field("schemaUrl", 3, Kind::Text),
];
static LOG_RECORD: [Field; 11] = [
    field("timeUnixNano", 1, Kind::Fixed64),
    field("severityNumber", 2, Kind::Integer),
    field("severityText", 3, Kind::Text),
    field("body", 5, Kind::Message(&VALUE)),
    field("attributes", 6, Kind::Each(&KEY_VALUE)),
    field("droppedAttributesCount", 7, Kind::Integer),
    field("flags", 8, Kind::Fixed32),
    field("traceId", 9, Kind::Hex),
    field("spanId", 10, Kind::Hex),
    field("observedTimeUnixNano", 11, Kind::Fixed64),
    field("eventName", 12, Kind::Text),
];
/// Metrics are not stored: their JSON is only checked to be JSON.
static METRICS: [Field; 0] = [];

/// The protobuf message that `json` stands for.
///
/// # Errors
/// With line and column, if it is not JSON or a value does not fit its field.
pub(crate) fn transcode(export: Export, json: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let shape: &[Field] = match export {
        Export::Traces => &TRACES,
        Export::Logs => &LOGS,
        Export::Metrics => &METRICS,
    };
    if let Err(error) = std::str::from_utf8(json) {
        return Err(Error::custom(format!("the JSON is not UTF-8: {error}")));
    }
    let mut out = Vec::with_capacity(json.len() / 2);
    let mut from = serde_json::Deserializer::from_slice(json);
    from.deserialize_map(MessageOf { shape, out: &mut out })?;
    from.end()?;
    Ok(out)
}

/// Base64 as the JSON mapping of protobuf reads it: in either alphabet, with or without padding.
const BASE64: GeneralPurposeConfig =
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
const STANDARD: GeneralPurpose = GeneralPurpose::new(&alphabet::STANDARD, BASE64);
const URL_SAFE: GeneralPurpose = GeneralPurpose::new(&alphabet::URL_SAFE, BASE64);

const VARINT: u32 = 0;
const WIRE_64: u32 = 1;
const LENGTH: u32 = 2;
const WIRE_32: u32 = 5;

fn put_varint(out: &mut Vec<u8>, value: u64) {
    prost::encoding::encode_varint(value, out);
}

fn put_tag(out: &mut Vec<u8>, number: u32, wire: u32) {
    put_varint(out, u64::from((number << 3) | wire));
}

fn put_bytes(out: &mut Vec<u8>, number: u32, bytes: &[u8]) {
    put_tag(out, number, LENGTH);
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Writes what follows `start` as a length-delimited field: the length is moved in before it.
fn close(out: &mut Vec<u8>, start: usize) {
    let len = out.len() - start;
    let mut prefix = Vec::with_capacity(prost::encoding::encoded_len_varint(len as u64));
    put_varint(&mut prefix, len as u64);
    out.resize(out.len() + prefix.len(), 0);
    out.copy_within(start..start + len, start + prefix.len());
    out[start..start + prefix.len()].copy_from_slice(&prefix);
}

/// Reads an object into the fields of `shape`.
struct MessageOf<'o> {
    shape: &'static [Field],
    out: &'o mut Vec<u8>,
}

impl<'de> Visitor<'de> for MessageOf<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        while let Some(field) = map.next_key_seed(KeyIn(self.shape))? {
            match field {
                Some(field) => map.next_value_seed(ValueOf { field, out: self.out })?,
                None => {
                    map.next_value::<IgnoredAny>()?;
                }
            }
        }
        Ok(())
    }
}

/// Finds a key in a shape.
struct KeyIn(&'static [Field]);

impl<'de> DeserializeSeed<'de> for KeyIn {
    type Value = Option<&'static Field>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_bytes(self)
    }
}

impl Visitor<'_> for KeyIn {
    type Value = Option<&'static Field>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_bytes<E: Error>(self, key: &[u8]) -> Result<Self::Value, E> {
        Ok(self.0.iter().find(|field| field.key.as_bytes() == key))
    }
}

/// Reads one value into its field; null is absence.
struct ValueOf<'o> {
    field: &'static Field,
    out: &'o mut Vec<u8>,
}

impl ValueOf<'_> {
    fn wrong<E: Error>(&self, found: impl fmt::Display) -> E {
        E::custom(format!("{found} does not fit {:?}", self.field.key))
    }

    /// Any integer, as the 64 bits that protobuf stores.
    fn integer<E: Error>(self, bits: u64) -> Result<(), E> {
        match self.field.kind {
            Kind::Integer => {
                put_tag(self.out, self.field.number, VARINT);
                put_varint(self.out, bits);
            }
            Kind::Fixed64 => {
                put_tag(self.out, self.field.number, WIRE_64);
                self.out.extend_from_slice(&bits.to_le_bytes());
            }
            Kind::Fixed32 => {
                let bits = u32::try_from(bits).map_err(|_| self.wrong(bits))?;
                put_tag(self.out, self.field.number, WIRE_32);
                self.out.extend_from_slice(&bits.to_le_bytes());
            }
            _ => return Err(self.wrong(bits)),
        }
        Ok(())
    }

    fn double(self, value: f64) {
        put_tag(self.out, self.field.number, WIRE_64);
        self.out.extend_from_slice(&value.to_le_bytes());
    }
}

impl<'de> DeserializeSeed<'de> for ValueOf<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        match self.field.kind {
            // As bytes, which may hold half a character; and as an option, since these may not be null.
            Kind::Text => from.deserialize_option(self),
            _ => from.deserialize_any(self),
        }
    }
}

impl<'de> Visitor<'de> for ValueOf<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "a value of {:?}", self.field.key)
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_none<E: Error>(self) -> Result<(), E> {
        Ok(())
    }

    fn visit_some<D: Deserializer<'de>>(self, from: D) -> Result<(), D::Error> {
        from.deserialize_bytes(self)
    }

    fn visit_bytes<E: Error>(self, text: &[u8]) -> Result<(), E> {
        put_bytes(self.out, self.field.number, text);
        if simdutf8::basic::from_utf8(text).is_err() {
            let start = self.out.len() - text.len();
            replace_halves(&mut self.out[start..]);
        }
        Ok(())
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<(), E> {
        let Kind::Bool = self.field.kind else {
            return Err(self.wrong(value));
        };
        put_tag(self.out, self.field.number, VARINT);
        put_varint(self.out, u64::from(value));
        Ok(())
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<(), E> {
        match self.field.kind {
            #[allow(clippy::cast_precision_loss)]
            Kind::Double => self.double(value as f64),
            Kind::Integer if i64::try_from(value).is_err() => return Err(self.wrong(value)),
            _ => return self.integer(value),
        }
        Ok(())
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<(), E> {
        match self.field.kind {
            #[allow(clippy::cast_precision_loss)]
            Kind::Double => self.double(value as f64),
            Kind::Fixed64 | Kind::Fixed32 if value < 0 => return Err(self.wrong(value)),
            _ => return self.integer(value.cast_unsigned()),
        }
        Ok(())
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<(), E> {
        match self.field.kind {
            Kind::Double => self.double(value),
            // JavaScript writes large integers as 1.7e18.
            #[allow(clippy::cast_possible_truncation)]
            _ if value.fract() == 0.0 && value.abs() < 9.2e18 => {
                return self.visit_i64(value as i64);
            }
            _ => return Err(self.wrong(value)),
        }
        Ok(())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        match self.field.kind {
            Kind::Text => return self.visit_bytes(text.as_bytes()),
            Kind::Hex => {
                let id = hex::decode(text).map_err(|_| self.wrong(format_args!("{:?} is not hex and", head(text))))?;
                put_bytes(self.out, self.field.number, &id);
            }
            Kind::Base64 => {
                let is_url_safe = text.bytes().any(|byte| byte == b'-' || byte == b'_');
                let coding = if is_url_safe { &URL_SAFE } else { &STANDARD };
                let bytes = coding.decode(text).map_err(|_| self.wrong("text that is not base64"))?;
                put_bytes(self.out, self.field.number, &bytes);
            }
            Kind::Integer => match text.parse::<i64>() {
                Ok(value) => return self.visit_i64(value),
                Err(_) => return Err(self.wrong(format_args!("{:?}", head(text)))),
            },
            Kind::Fixed64 | Kind::Fixed32 => match text.parse::<u64>() {
                Ok(value) => return self.integer(value),
                Err(_) => return Err(self.wrong(format_args!("{:?}", head(text)))),
            },
            // Rust reads "NaN", "Infinity" and "-Infinity" as protobuf spells them.
            Kind::Double => match text.parse::<f64>() {
                Ok(value) => self.double(value),
                Err(_) => return Err(self.wrong(format_args!("{:?}", head(text)))),
            },
            Kind::Bool | Kind::Message(_) | Kind::Each(_) => {
                return Err(self.wrong(format_args!("{:?}", head(text))));
            }
        }
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<(), A::Error> {
        let (Kind::Message(shape) | Kind::Each(shape)) = self.field.kind else {
            return Err(self.wrong("an object"));
        };
        put_tag(self.out, self.field.number, LENGTH);
        let start = self.out.len();
        MessageOf {
            shape,
            out: &mut *self.out,
        }
        .visit_map(map)?;
        close(self.out, start);
        Ok(())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        let Kind::Each(_) = self.field.kind else {
            return Err(self.wrong("an array"));
        };
        while seq
            .next_element_seed(ValueOf {
                field: self.field,
                out: &mut *self.out,
            })?
            .is_some()
        {}
        Ok(())
    }
}

/// Puts U+FFFD, which is as long, where the parser has written half a character. Nothing else in a text is no UTF-8.
fn replace_halves(text: &mut [u8]) {
    for at in 0..text.len().saturating_sub(2) {
        if text[at] == 0xed && text[at + 1] >= 0xa0 {
            text[at..at + 3].copy_from_slice("\u{fffd}".as_bytes());
        }
    }
}

/// The beginning of a value, as much as an error message repeats of it.
fn head(text: &str) -> String {
    text.chars().take(40).collect()
}
