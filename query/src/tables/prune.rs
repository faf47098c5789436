//! Which sealed files can hold rows that a filter accepts, by what the snapshot knows of each without opening it.

use super::reading::{Reading, time_column};
use arrow::{
    array::{ArrayRef, BooleanArray, UInt64Array},
    datatypes::SchemaRef,
};
use datafusion::{
    common::{Column, ScalarValue, pruning::PruningStatistics},
    physical_expr::PhysicalExpr,
    physical_optimizer::pruning::PruningPredicateBuilder,
};
use proto::layout::Table;
use std::{collections::HashSet, sync::Arc};
use store::SealedFile;

/// Files of `table` that may match `predicate`, in commit order. A predicate that says nothing about color or time
/// keeps all.
pub fn files<'a>(
    table: Table,
    reading: &'a Reading,
    declared: &SchemaRef,
    predicate: Option<&Arc<dyn PhysicalExpr>>,
) -> Vec<&'a SealedFile> {
    let all: Vec<&SealedFile> = reading
        .snapshot
        .files
        .iter()
        .filter(|file| file.table == table && file.rows > 0)
        .collect();
    let Some(predicate) = predicate.filter(|_| !all.is_empty()) else {
        return all;
    };
    let known = Known {
        table,
        reading,
        files: &all,
    };
    let kept = PruningPredicateBuilder::new()
        .with_file_schema(Arc::clone(declared))
        .try_build(Arc::clone(predicate))
        .and_then(|pruning| pruning.prune(&known));
    match kept {
        Ok(kept) => all
            .iter()
            .zip(kept)
            .filter_map(|(file, keep)| keep.then_some(*file))
            .collect(),
        // A predicate that cannot be pruned with is no reason to fail.
        Err(error) => {
            tracing::debug!(%error, "files not pruned");
            all
        }
    }
}

/// Minimum and maximum of the color and the time column, per file.
struct Known<'a> {
    table: Table,
    reading: &'a Reading,
    files: &'a [&'a SealedFile],
}

impl Known<'_> {
    fn bound(&self, column: &Column, time_of: impl Fn(&SealedFile) -> i64) -> Option<ArrayRef> {
        let values: Vec<ScalarValue> = if column.name == time_column(self.table) {
            let zone = Some(Arc::from("UTC"));
            self.files
                .iter()
                .map(|file| ScalarValue::TimestampNanosecond(Some(time_of(file)), zone.clone()))
                .collect()
        } else if column.name == "color" {
            self.files
                .iter()
                .map(|file| {
                    let color = self.reading.color_of(file).map(|c| c.as_str().to_owned());
                    let text = Box::new(ScalarValue::Utf8(color));
                    ScalarValue::Dictionary(Box::new(arrow::datatypes::DataType::Int32), text)
                })
                .collect()
        } else {
            return None;
        };
        ScalarValue::iter_to_array(values).ok()
    }
}

impl PruningStatistics for Known<'_> {
    fn min_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, |file| file.start_min.0)
    }

    fn max_values(&self, column: &Column) -> Option<ArrayRef> {
        self.bound(column, |file| file.start_max.0)
    }

    fn num_containers(&self) -> usize {
        self.files.len()
    }

    fn null_counts(&self, column: &Column) -> Option<ArrayRef> {
        let counts: UInt64Array = if column.name == time_column(self.table) {
            self.files.iter().map(|_| Some(0)).collect()
        } else if column.name == "color" {
            self.files
                .iter()
                .map(|file| self.reading.color_of(file).map(|_| 0))
                .collect()
        } else {
            return None;
        };
        Some(Arc::new(counts))
    }

    fn row_counts(&self) -> Option<ArrayRef> {
        let counts: UInt64Array = self.files.iter().map(|file| Some(file.rows)).collect();
        Some(Arc::new(counts))
    }

    fn contained(&self, _: &Column, _: &HashSet<ScalarValue>) -> Option<BooleanArray> {
        None
    }
}
