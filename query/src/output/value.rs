//! One value of a column as JSON, or as plain text.
//!
//! Int64 and Decimal are numbers with all their digits, times RFC 3339 in UTC, dictionaries their text, maps and
//! structs objects, lists arrays. What JSON cannot say (NaN, infinities) is null.

use crate::QueryError;
use arrow::{
    array::{
        Array, AsArray, BooleanArray, DictionaryArray, GenericListArray, MapArray, OffsetSizeTrait, PrimitiveArray,
        StructArray, downcast_integer,
    },
    datatypes::{
        ArrowDictionaryKeyType, ArrowNativeType, ArrowPrimitiveType, DataType, Decimal128Type, Decimal256Type,
        Float16Type, Float32Type, Float64Type,
    },
    downcast_dictionary_array,
    util::display::{ArrayFormatter, FormatOptions},
};
use std::io::Write;

/// Times with as many digits as they need, always with the zone.
pub const RFC_3339: &str = "%Y-%m-%dT%H:%M:%S%.fZ";

/// Writes values of one array.
pub trait Writer {
    /// The value at `row` as plain text; false if it is null.
    fn plain(&self, row: usize, out: &mut Vec<u8>) -> bool;

    /// The value at `row` as JSON. As it stands for numbers and booleans, whose plain text is JSON.
    fn json(&self, row: usize, out: &mut Vec<u8>) {
        if !self.plain(row, out) {
            out.extend_from_slice(NULL);
        }
    }
}

type Boxed<'a> = Box<dyn Writer + 'a>;

/// Word for a type in the answer's `columns`.
#[must_use]
pub fn type_name(data_type: &DataType) -> String {
    match data_type {
        DataType::Null => "null".to_owned(),
        DataType::Boolean => "boolean".to_owned(),
        DataType::Utf8 | DataType::LargeUtf8 | DataType::Utf8View => "text".to_owned(),
        DataType::Dictionary(_, values) => type_name(values),
        DataType::Decimal32(p, s)
        | DataType::Decimal64(p, s)
        | DataType::Decimal128(p, s)
        | DataType::Decimal256(p, s) => format!("decimal({p},{s})"),
        DataType::Timestamp(_, _) => "timestamp".to_owned(),
        DataType::Date32 | DataType::Date64 => "date".to_owned(),
        DataType::Time32(_) | DataType::Time64(_) => "time".to_owned(),
        DataType::Duration(_) | DataType::Interval(_) => "interval".to_owned(),
        DataType::Binary | DataType::LargeBinary | DataType::BinaryView | DataType::FixedSizeBinary(_) => {
            "binary".to_owned()
        }
        DataType::List(item)
        | DataType::LargeList(item)
        | DataType::ListView(item)
        | DataType::LargeListView(item)
        | DataType::FixedSizeList(item, _) => format!("list<{}>", type_name(item.data_type())),
        DataType::Struct(_) => "struct".to_owned(),
        DataType::Map(_, _) => "map".to_owned(),
        // int64, uint32, float64 and whatever else: Arrow's word in lower case.
        other => other.to_string().to_ascii_lowercase(),
    }
}

/// A writer for `array`.
pub fn writer(array: &dyn Array) -> Result<Boxed<'_>, QueryError> {
    macro_rules! integer {
        ($t:ty) => {
            Box::new(Integer(array.as_primitive::<$t>())) as Boxed<'_>
        };
    }
    let data_type = array.data_type();
    let boxed: Boxed<'_> = downcast_integer! {
        data_type => (integer),
        DataType::Null => Box::new(Nothing),
        DataType::Boolean => Box::new(array.as_boolean()),
        DataType::Float16 => Box::new(Float(array.as_primitive::<Float16Type>(), |v| v.to_f64())),
        DataType::Float32 => Box::new(Single(array.as_primitive::<Float32Type>())),
        DataType::Float64 => Box::new(Float(array.as_primitive::<Float64Type>(), |v| v)),
        DataType::Decimal128(_, scale) => {
            Box::new(Decimal(array.as_primitive::<Decimal128Type>(), *scale))
        }
        DataType::Decimal256(_, scale) => {
            Box::new(Decimal(array.as_primitive::<Decimal256Type>(), *scale))
        }
        DataType::Utf8 => Box::new(Text(array, |a, row| a.as_string::<i32>().value(row))),
        DataType::LargeUtf8 => Box::new(Text(array, |a, row| a.as_string::<i64>().value(row))),
        DataType::Utf8View => Box::new(Text(array, |a, row| a.as_string_view().value(row))),
        DataType::Dictionary(_, _) => dictionary(array)?,
        DataType::List(_) => list(array.as_list::<i32>())?,
        DataType::LargeList(_) => list(array.as_list::<i64>())?,
        DataType::Struct(_) => object(array.as_struct())?,
        DataType::Map(_, _) => map(array.as_map())?,
        _ => Box::new(Shown::new(array)?)
    };
    Ok(boxed)
}

/// `text` as a JSON string.
pub fn text(text: &str, out: &mut Vec<u8>) {
    // Writing into memory cannot fail.
    let _ = serde_json::to_writer(out, text);
}

const NULL: &[u8] = b"null";

struct Nothing;

impl Writer for Nothing {
    fn plain(&self, _: usize, _: &mut Vec<u8>) -> bool {
        false
    }
}

struct Integer<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>);

impl<T: ArrowPrimitiveType<Native: std::fmt::Display>> Writer for Integer<'_, T> {
    fn plain(&self, row: usize, out: &mut Vec<u8>) -> bool {
        self.0.is_valid(row) && write!(out, "{}", self.0.value(row)).is_ok()
    }
}

impl Writer for &BooleanArray {
    fn plain(&self, row: usize, out: &mut Vec<u8>) -> bool {
        self.is_valid(row) && write!(out, "{}", self.value(row)).is_ok()
    }
}

struct Float<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>, fn(T::Native) -> f64);

impl<T: ArrowPrimitiveType> Writer for Float<'_, T> {
    fn plain(&self, row: usize, out: &mut Vec<u8>) -> bool {
        self.0.is_valid(row) && float((self.1)(self.0.value(row)), out)
    }
}

struct Single<'a>(&'a PrimitiveArray<Float32Type>);

impl Writer for Single<'_> {
    fn plain(&self, row: usize, out: &mut Vec<u8>) -> bool {
        // Through its own shortest text, not through f64: 0.1f32 is 0.1.
        self.0.is_valid(row) && self.0.value(row).is_finite() && write!(out, "{}", self.0.value(row)).is_ok()
    }
}

/// The shortest text that reads back as `value`; false if it is not finite.
fn float(value: f64, out: &mut Vec<u8>) -> bool {
    value.is_finite() && serde_json::to_writer(out, &value).is_ok()
}

struct Decimal<'a, T: ArrowPrimitiveType>(&'a PrimitiveArray<T>, i8);

impl<T: ArrowPrimitiveType<Native: std::fmt::Display>> Writer for Decimal<'_, T> {
    fn plain(&self, row: usize, out: &mut Vec<u8>) -> bool {
        if self.0.is_null(row) {
            return false;
        }
        let digits = self.0.value(row).to_string();
        out.extend_from_slice(decimal(&digits, self.1).as_bytes());
        true
    }
}

/// Puts the point into `digits`, and drops zeros that say nothing: (1500, 3) is `1.5`.
fn decimal(digits: &str, scale: i8) -> String {
    let (sign, digits) = match digits.strip_prefix('-') {
        Some(rest) => ("-", rest),
        None => ("", digits),
    };
    if scale <= 0 {
        let zeros = if digits == "0" {
            0
        } else {
            usize::from(scale.unsigned_abs())
        };
        return format!("{sign}{digits}{}", "0".repeat(zeros));
    }
    let scale = usize::from(scale.unsigned_abs());
    let padded = format!("{digits:0>width$}", width = scale + 1);
    let (whole, part) = padded.split_at(padded.len() - scale);
    let part = part.trim_end_matches('0');
    if part.is_empty() {
        format!("{sign}{whole}")
    } else {
        format!("{sign}{whole}.{part}")
    }
}

struct Text<'a>(&'a dyn Array, fn(&'a dyn Array, usize) -> &'a str);

impl Writer for Text<'_> {
    fn json(&self, row: usize, out: &mut Vec<u8>) {
        if self.0.is_null(row) {
            out.extend_from_slice(NULL);
        } else {
            text((self.1)(self.0, row), out);
        }
    }

    fn plain(&self, row: usize, out: &mut Vec<u8>) -> bool {
        if self.0.is_null(row) {
            return false;
        }
        out.extend_from_slice((self.1)(self.0, row).as_bytes());
        true
    }
}

struct Keyed<'a, K: ArrowDictionaryKeyType> {
    keys: &'a PrimitiveArray<K>,
    values: Boxed<'a>,
}

impl<K: ArrowDictionaryKeyType> Writer for Keyed<'_, K> {
    fn json(&self, row: usize, out: &mut Vec<u8>) {
        if self.keys.is_null(row) {
            out.extend_from_slice(NULL);
        } else {
            self.values.json(self.keys.value(row).as_usize(), out);
        }
    }

    fn plain(&self, row: usize, out: &mut Vec<u8>) -> bool {
        self.keys.is_valid(row) && self.values.plain(self.keys.value(row).as_usize(), out)
    }
}

fn keyed<K: ArrowDictionaryKeyType>(array: &DictionaryArray<K>) -> Result<Boxed<'_>, QueryError> {
    Ok(Box::new(Keyed {
        keys: array.keys(),
        values: writer(array.values().as_ref())?,
    }))
}

fn dictionary(array: &dyn Array) -> Result<Boxed<'_>, QueryError> {
    downcast_dictionary_array!(
        array => keyed(array),
        other => Err(QueryError::Failed(format!("{other} is no dictionary")))
    )
}

/// Nested values: plain text is their JSON.
macro_rules! nested {
    () => {
        fn plain(&self, row: usize, out: &mut Vec<u8>) -> bool {
            let valid = self.array.is_valid(row);
            if valid {
                self.json(row, out);
            }
            valid
        }
    };
}

struct Listed<'a, O: OffsetSizeTrait> {
    array: &'a GenericListArray<O>,
    items: Boxed<'a>,
}

fn list<O: OffsetSizeTrait>(array: &GenericListArray<O>) -> Result<Boxed<'_>, QueryError> {
    let items = writer(array.values().as_ref())?;
    Ok(Box::new(Listed { array, items }))
}

impl<O: OffsetSizeTrait> Writer for Listed<'_, O> {
    fn json(&self, row: usize, out: &mut Vec<u8>) {
        if self.array.is_null(row) {
            return out.extend_from_slice(NULL);
        }
        let offsets = self.array.value_offsets();
        let range = offsets[row].as_usize()..offsets[row + 1].as_usize();
        out.push(b'[');
        for (i, item) in range.enumerate() {
            if i > 0 {
                out.push(b',');
            }
            self.items.json(item, out);
        }
        out.push(b']');
    }

    nested!();
}

struct Object<'a> {
    array: &'a StructArray,
    fields: Vec<(&'a str, Boxed<'a>)>,
}

fn object(array: &StructArray) -> Result<Boxed<'_>, QueryError> {
    let fields = array
        .fields()
        .iter()
        .zip(array.columns())
        .map(|(field, column)| Ok((field.name().as_str(), writer(column.as_ref())?)))
        .collect::<Result<_, QueryError>>()?;
    Ok(Box::new(Object { array, fields }))
}

impl Writer for Object<'_> {
    fn json(&self, row: usize, out: &mut Vec<u8>) {
        if self.array.is_null(row) {
            return out.extend_from_slice(NULL);
        }
        out.push(b'{');
        for (i, (name, column)) in self.fields.iter().enumerate() {
            if i > 0 {
                out.push(b',');
            }
            text(name, out);
            out.push(b':');
            column.json(row, out);
        }
        out.push(b'}');
    }

    nested!();
}

struct Mapped<'a> {
    array: &'a MapArray,
    keys: Boxed<'a>,
    values: Boxed<'a>,
}

fn map(array: &MapArray) -> Result<Boxed<'_>, QueryError> {
    Ok(Box::new(Mapped {
        array,
        keys: writer(array.keys().as_ref())?,
        values: writer(array.values().as_ref())?,
    }))
}

impl Writer for Mapped<'_> {
    fn json(&self, row: usize, out: &mut Vec<u8>) {
        if self.array.is_null(row) {
            return out.extend_from_slice(NULL);
        }
        let offsets = self.array.value_offsets();
        let range = offsets[row].as_usize()..offsets[row + 1].as_usize();
        let mut key = Vec::new();
        out.push(b'{');
        for (i, entry) in range.enumerate() {
            if i > 0 {
                out.push(b',');
            }
            key.clear();
            self.keys.plain(entry, &mut key);
            text(&String::from_utf8_lossy(&key), out);
            out.push(b':');
            self.values.json(entry, out);
        }
        out.push(b'}');
    }

    nested!();
}

/// Times, dates, intervals, binary and the rest, as Arrow shows them.
struct Shown<'a> {
    array: &'a dyn Array,
    formatter: ArrayFormatter<'a>,
}

impl<'a> Shown<'a> {
    fn new(array: &'a dyn Array) -> Result<Self, QueryError> {
        let options = FormatOptions::new()
            .with_timestamp_format(Some(RFC_3339))
            .with_timestamp_tz_format(Some(RFC_3339));
        let formatter = ArrayFormatter::try_new(array, &options)?;
        Ok(Self { array, formatter })
    }
}

impl Writer for Shown<'_> {
    fn json(&self, row: usize, out: &mut Vec<u8>) {
        if self.array.is_null(row) {
            out.extend_from_slice(NULL);
        } else {
            text(&self.formatter.value(row).to_string(), out);
        }
    }

    fn plain(&self, row: usize, out: &mut Vec<u8>) -> bool {
        self.array.is_valid(row) && write!(out, "{}", self.formatter.value(row)).is_ok()
    }
}
