//! Rows of an answer in the few types that measuring reads.

use crate::{Engine, QueryError, View, parameters::Parameters};
use arrow::{
    array::{Array, ArrayRef, AsArray, BooleanArray, Float64Array, Int64Array, RecordBatch, StringArray},
    compute::cast,
    datatypes::{DataType, Float64Type, Int64Type},
};
use futures::StreamExt;

enum Column {
    Text(StringArray),
    /// Integers, and times in ns.
    Int(Int64Array),
    Float(Float64Array),
    Bool(BooleanArray),
}

impl Column {
    fn of(array: &ArrayRef) -> Result<Self, QueryError> {
        Ok(match array.data_type() {
            DataType::Boolean => Self::Bool(array.as_boolean().clone()),
            DataType::Utf8 | DataType::Utf8View | DataType::LargeUtf8 | DataType::Dictionary(..) => {
                Self::Text(cast(array, &DataType::Utf8)?.as_string::<i32>().clone())
            }
            other if other.is_floating() => {
                Self::Float(cast(array, &DataType::Float64)?.as_primitive::<Float64Type>().clone())
            }
            _ => Self::Int(cast(array, &DataType::Int64)?.as_primitive::<Int64Type>().clone()),
        })
    }
}

/// A batch of rows; columns by their place in the statement.
pub(super) struct Rows {
    columns: Vec<Column>,
    len: usize,
}

impl Rows {
    fn of(batch: &RecordBatch) -> Result<Self, QueryError> {
        Ok(Self {
            columns: batch.columns().iter().map(Column::of).collect::<Result<_, _>>()?,
            len: batch.num_rows(),
        })
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn text(&self, column: usize, row: usize) -> Option<&str> {
        match self.columns.get(column)? {
            Column::Text(values) => values.is_valid(row).then(|| values.value(row)),
            _ => None,
        }
    }

    /// An integer; of a boolean 0 or 1.
    pub fn int(&self, column: usize, row: usize) -> Option<i64> {
        match self.columns.get(column)? {
            Column::Int(values) => values.is_valid(row).then(|| values.value(row)),
            Column::Bool(values) => values.is_valid(row).then(|| i64::from(values.value(row))),
            _ => None,
        }
    }

    pub fn float(&self, column: usize, row: usize) -> Option<f64> {
        match self.columns.get(column)? {
            Column::Float(values) => values.is_valid(row).then(|| values.value(row)),
            _ => None,
        }
    }

    /// Null is no.
    pub fn is(&self, column: usize, row: usize) -> bool {
        self.int(column, row) == Some(1)
    }
}

/// Runs `sql` and hands over its rows as they come.
pub(super) async fn each(
    engine: &Engine,
    view: View,
    sql: &str,
    parameters: Parameters,
    mut take: impl FnMut(&Rows),
) -> Result<(), QueryError> {
    let mut answer = engine.run_with(view, sql, parameters).await?;
    while let Some(batch) = answer.stream.next().await {
        take(&Rows::of(&batch?)?);
    }
    Ok(())
}
