//! Sessions and users as units: all traces of one together, counted where the first was.
//!
//! The first trace gives minute, split, cohort and color, whatever the later ones met: the comparison is by intention to
//! treat. A trace without the id is a unit by itself.

use super::{
    ADMITTED, Asked,
    gathered::{Gathered, Place, color_of, count, ppm, record},
    plain,
    reads::{Reads, is_amount, with},
    rows::Rows,
};
use crate::{QueryError, metrics::SERVED};
use proto::{Color, Grain, Metric, Nanos, release::Unit};

/// Columns before those of metrics.
const HEAD: usize = 5;

/// What a trace adds to its unit's cost: nothing without calls, -1 if a call's cost is not known.
const COST: &str = "CASE WHEN t.priced THEN CAST(t.cost_usd * 1000000000 AS BIGINT) ELSE -1 END";

/// Adds the cells of every unit.
pub(super) async fn gather(asked: &Asked<'_>, out: &mut Gathered) -> Result<(), QueryError> {
    let (grain, id) = match asked.plan.unit {
        Unit::Session => (Grain::Session, "t.session_id"),
        Unit::User => (Grain::User, "t.user_id"),
        Unit::Trace => return Ok(()),
    };
    let mut reads = Reads::default();
    for metric in asked.plan.metrics.iter().filter(|metric| **metric != Metric::Traces) {
        // Of single calls, pairs and statements there are no units.
        reads.add(metric);
    }
    for read in reads.columns.iter_mut().filter(|read| read.metric == Metric::Cost) {
        COST.clone_into(&mut read.expr);
    }
    let apart = reads.apart(asked).await?;
    let select = |id: &str, condition: &str, order: &str| {
        format!(
            "{}SELECT {id} AS unit, t.start_time, t.assigned_color, {}, t.split{}
FROM traces t{}
WHERE {ADMITTED} AND {SERVED} AND {condition}{order}",
            with(std::slice::from_ref(&apart)),
            plain("t.cohort"),
            reads.selected(),
            reads.joined(apart.as_ref().map(|_| "apart"))
        )
    };
    let mut fold = Fold {
        reads: &reads,
        grain,
        unit: None,
    };
    let order = "\nORDER BY unit, t.start_time, t.trace_id";
    let together = select(&plain(id), &format!("{id} IS NOT NULL"), order);
    asked.each(&together, |rows| fold.take(rows, out)).await?;
    fold.flush(out);
    // Each its own unit, in any order.
    let alone = select("t.trace_id", &format!("{id} IS NULL"), "");
    asked.each(&alone, |rows| fold.take(rows, out)).await?;
    fold.flush(out);
    Ok(())
}

struct One {
    id: String,
    place: Place,
    values: Vec<Value>,
}

/// What is known of one metric of a unit.
#[derive(Debug, Clone, Copy)]
enum Value {
    Unknown,
    Known(i64),
    /// A part of a sum is not known, so the sum is not either.
    Spoiled,
}

struct Fold<'a> {
    reads: &'a Reads,
    grain: Grain,
    unit: Option<One>,
}

impl Fold<'_> {
    fn take(&mut self, rows: &Rows, out: &mut Gathered) {
        for row in 0..rows.len() {
            let id = rows.text(0, row).unwrap_or_default();
            if self.unit.as_ref().is_none_or(|unit| unit.id != id) {
                self.flush(out);
                let place = Place {
                    minute: out.minute_of(Nanos(rows.int(1, row).unwrap_or_default())),
                    color: color_of(rows.text(2, row)),
                    cohort: out.cohort(rows.text(3, row)),
                    split_ppm: rows.float(4, row).map(ppm),
                };
                self.unit = Some(One {
                    id: id.to_owned(),
                    place,
                    values: vec![Value::Unknown; self.reads.columns.len()],
                });
            }
            let Some(unit) = &mut self.unit else { continue };
            for (i, (value, read)) in unit.values.iter_mut().zip(&self.reads.columns).enumerate() {
                *value = joined(&read.metric, *value, rows.int(HEAD + i, row));
            }
        }
    }

    fn flush(&mut self, out: &mut Gathered) {
        let Some(unit) = self.unit.take() else { return };
        count(out.cell(unit.place.clone(), &Metric::Traces, self.grain), false);
        for (value, read) in unit.values.iter().zip(&self.reads.columns) {
            let Value::Known(value) = *value else { continue };
            let mut place = unit.place.clone();
            if read.metric == Metric::Unmarked {
                place.color = Color::Unmarked;
            }
            let cell = out.cell(place, &read.metric, self.grain);
            if is_amount(&read.metric) {
                record(cell, u64::try_from(value).unwrap_or(0));
            } else {
                count(cell, value != 0);
            }
        }
    }
}

/// A unit's value with that of one more of its traces.
fn joined(metric: &Metric, sum: Value, next: Option<i64>) -> Value {
    match (metric, sum, next) {
        (_, Value::Spoiled, _) => Value::Spoiled,
        (_, _, None) => sum,
        (Metric::Cost, _, Some(..0)) => Value::Spoiled,
        (_, Value::Unknown, Some(next)) => Value::Known(next),
        (Metric::Cost | Metric::PromptTokens | Metric::CompletionTokens, Value::Known(sum), Some(next)) => {
            Value::Known(sum.saturating_add(next))
        }
        // The slowest of amounts; any of events.
        (_, Value::Known(sum), Some(next)) => Value::Known(sum.max(next)),
    }
}
