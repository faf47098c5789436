//! Arrow columns as plain JSON values, so that rows can be compared and printed.

use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    datatypes::{DataType, Decimal128Type, Float64Type, Int32Type, Int64Type, TimestampNanosecondType},
};
use serde_json::{Map, Value, json};

/// Rows of a batch; a NULL is absent.
pub(in crate::read) fn rows(batch: &RecordBatch) -> Vec<Map<String, Value>> {
    let schema = batch.schema();
    (0..batch.num_rows())
        .map(|row| {
            let cells = schema.fields().iter().zip(batch.columns());
            cells
                .filter_map(|(field, column)| Some((field.name().clone(), cell(column, row)?)))
                .collect()
        })
        .collect()
}

fn cell(column: &ArrayRef, row: usize) -> Option<Value> {
    if column.is_null(row) {
        return None;
    }
    Some(match column.data_type() {
        DataType::Utf8 => column.as_string::<i32>().value(row).into(),
        DataType::Utf8View => column.as_string_view().value(row).into(),
        DataType::Boolean => column.as_boolean().value(row).into(),
        DataType::Int32 => column.as_primitive::<Int32Type>().value(row).into(),
        DataType::Int64 => column.as_primitive::<Int64Type>().value(row).into(),
        DataType::Float64 => column.as_primitive::<Float64Type>().value(row).into(),
        DataType::Decimal128(_, _) => i64::try_from(column.as_primitive::<Decimal128Type>().value(row))
            .unwrap()
            .into(),
        DataType::Timestamp(_, _) => column.as_primitive::<TimestampNanosecondType>().value(row).into(),
        DataType::Dictionary(_, _) => {
            let words = column.as_dictionary::<Int32Type>();
            let code = usize::try_from(words.keys().value(row)).unwrap();
            words.values().as_string::<i32>().value(code).into()
        }
        DataType::Map(_, _) => {
            let entries = column.as_map().value(row);
            let pairs = (0..entries.len()).map(|i| json!([cell(entries.column(0), i), cell(entries.column(1), i)]));
            pairs.collect()
        }
        DataType::List(_) => {
            let items = column.as_list::<i32>().value(row);
            let items = items.as_struct();
            let item = |i: usize| -> Value {
                items
                    .columns()
                    .iter()
                    .map(|field| cell(field, i).unwrap_or(Value::Null))
                    .collect()
            };
            (0..items.len()).map(item).collect()
        }
        other => panic!("a column of type {other} is not declared"),
    })
}
