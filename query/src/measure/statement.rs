//! One run of a SQL gate's statement: four counts, or in words why not.

use super::Asked;
use crate::{Bounds, QueryError, parameters::Parameters};
use arrow::{
    array::{Array, ArrayRef, AsArray, RecordBatch},
    compute::cast,
    datatypes::{DataType, Int64Type},
};
use proto::Nanos;

/// Names of the counts, in their order.
const NAMES: [&str; 4] = ["blue_events", "blue_n", "green_events", "green_n"];
/// Largest answer that is looked at, bytes.
const ANSWER_BYTES_MAX: usize = 1 << 20;

/// Values of an SQL gate.
fn parameters(release: &str, admitted_before: Nanos) -> Parameters {
    Parameters::default()
        .text("release", release)
        .time("admitted_before", admitted_before)
        .all_used()
}

/// What the statement counted of everything that started before a moment, in the order of [`NAMES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Counts(pub [i64; 4]);

impl Counts {
    /// What was added since `before`.
    pub fn since(self, before: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].saturating_sub(before.0[i])))
    }

    /// These and `more`.
    pub fn plus(self, more: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].saturating_add(more.0[i])))
    }

    /// Where these fall short of `before`: counts only ever grow, and so do units without the event.
    pub fn fallen(self, before: Self) -> Option<String> {
        let named = NAMES.iter().zip(before.0.iter().zip(self.0));
        for (name, (before, now)) in named {
            if now < *before {
                return Some(format!("{name} fell from {before} to {now}"));
            }
        }
        for (color, i) in [("blue", 0), ("green", 2)] {
            let (before, now) = (before.0[i + 1] - before.0[i], self.0[i + 1] - self.0[i]);
            if now < before {
                return Some(format!("{color}_n less {color}_events fell from {before} to {now}"));
            }
        }
        None
    }

    fn checked(self) -> Result<Self, String> {
        for (color, i) in [("blue", 0), ("green", 2)] {
            let (events, n) = (self.0[i], self.0[i + 1]);
            if events < 0 || n < 0 {
                return Err(format!(
                    "its statement counts {events} {color}_events of {color}_n = {n}; counts are not negative"
                ));
            }
            if events > n {
                return Err(format!(
                    "its statement counts {events} {color}_events of {color}_n = {n}; count units in {color}_n, and of the same units those with the event in {color}_events"
                ));
            }
        }
        Ok(self)
    }
}

/// Runs the statement.
pub(super) async fn count(asked: &Asked<'_>, sql: &str, before: Nanos) -> Result<Counts, String> {
    let bounds = Bounds {
        rows: 1,
        bytes: ANSWER_BYTES_MAX,
    };
    let parameters = parameters(&asked.plan.release, before);
    let answer = match asked.engine.run_with(asked.view.clone(), sql, parameters).await {
        Ok(answer) => answer.collect(bounds).await,
        Err(error) => Err(error),
    };
    match answer {
        Ok(rows) if rows.rows() == 1 => match rows.batches.iter().find(|batch| batch.num_rows() == 1) {
            Some(row) => read(row)?.checked(),
            None => Err(not_one_row("none")),
        },
        Ok(_) => Err(not_one_row("none")),
        Err(QueryError::TooLarge { unit: "rows", .. }) => Err(not_one_row("several")),
        Err(error) => Err(format!("its statement could not be run: {error}")),
    }
}

fn not_one_row(how_many: &str) -> String {
    format!(
        "its statement gives not one row but {how_many}; aggregate to one row of {}",
        NAMES.join(", ")
    )
}

fn read(row: &RecordBatch) -> Result<Counts, String> {
    let by_name = NAMES.map(|name| row.column_by_name(name));
    let columns: Vec<&ArrayRef> = if by_name.iter().all(Option::is_some) {
        by_name.into_iter().flatten().collect()
    } else if row.num_columns() == NAMES.len() {
        row.columns().iter().collect()
    } else {
        return Err(format!(
            "its statement gives {} columns; select {}",
            row.num_columns(),
            NAMES.join(", ")
        ));
    };
    let mut counts = Counts::default();
    for ((count, column), name) in counts.0.iter_mut().zip(columns).zip(NAMES) {
        *count = integer(column, name)?;
    }
    Ok(counts)
}

fn integer(column: &ArrayRef, name: &str) -> Result<i64, String> {
    let is_whole = match column.data_type() {
        DataType::Decimal128(_, scale) | DataType::Decimal256(_, scale) => *scale <= 0,
        other => other.is_integer() || other.is_null(),
    };
    if !is_whole {
        return Err(format!(
            "{name} is {}, not an integer; use count(*), or CAST(... AS BIGINT)",
            column.data_type()
        ));
    }
    if column.is_null(0) || column.data_type().is_null() {
        return Err(format!(
            "{name} is NULL; use count(*) FILTER (WHERE ...), or coalesce(sum(...), 0)"
        ));
    }
    let cast = cast(column, &DataType::Int64).map_err(|_| format!("{name} is no 64-bit integer"))?;
    let values = cast.as_primitive::<Int64Type>();
    if values.is_null(0) {
        return Err(format!("{name} is no 64-bit integer"));
    }
    Ok(values.value(0))
}
