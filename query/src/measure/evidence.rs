//! Statements that show a gate's numbers to whoever wants to check them: from cells, and again from rows.

use crate::{
    QueryError, guard,
    metrics::{doc_of, literal},
    parameters::Parameters,
};
use proto::{Grain, Metric, Nanos, metric::MetricKind};

/// What a gate counted.
#[derive(Debug, Clone, Copy)]
pub struct Shown<'a> {
    /// Metric.
    pub metric: &'a Metric,
    /// Grain at which the gate reads it.
    pub grain: Grain,
    /// Cohort; `None` for all traffic.
    pub cohort: Option<&'a str>,
    /// Release.
    pub release: &'a str,
    /// First counted moment.
    pub from: Nanos,
    /// What started before this was counted.
    pub admitted_before: Nanos,
}

/// Cells of the gate, added up by color and split: `n` and `events` of a rate, `n` and `sum` of an amount (integer units).
#[must_use]
pub fn statement(shown: &Shown<'_>) -> String {
    let counted = match shown.metric.kind() {
        MetricKind::Rate => "sum(events) AS events",
        MetricKind::Amount => "sum(sum) AS sum",
    };
    format!(
        "SELECT color, split, sum(n) AS n, {counted}\nFROM cells\nWHERE release = {} AND metric = {} AND grain = '{}' AND admitted\n  \
         AND minute >= {} AND minute < {}{}\nGROUP BY color, split\nORDER BY color, split",
        literal(shown.release),
        literal(&shown.metric.to_string()),
        shown.grain.as_str(),
        moment(shown.from),
        moment(shown.admitted_before),
        cohort(shown)
    )
}

/// The same counted again from the rows. `None` for what no metric view shows: pairs, sessions and users as units, SQL gates
/// (see [`bound_statement`]), and requests.
#[must_use]
pub fn recount_statement(shown: &Shown<'_>) -> Option<String> {
    let doc = doc_of(shown.metric).filter(|doc| doc.grain == shown.grain)?;
    let counted = match shown.metric.kind() {
        MetricKind::Rate => "count(*) FILTER (WHERE event) AS events",
        MetricKind::Amount => "sum(value_units) AS sum",
    };
    let evaluator = match shown.metric {
        Metric::EvalFail(name) => format!(" AND evaluator = {}", literal(name)),
        _ => String::new(),
    };
    Some(format!(
        "SELECT color, split, count(*) AS n, {counted}\nFROM {}\nWHERE release = {}{evaluator}\n  \
         AND start_time >= {} AND start_time < {}{}\nGROUP BY color, split\nORDER BY color, split",
        doc.view,
        literal(shown.release),
        moment(shown.from),
        moment(shown.admitted_before),
        cohort(shown)
    ))
}

/// The statement of an SQL gate with the values that it was asked with.
///
/// # Errors
/// [`QueryError`] of a statement that would not have run either.
pub fn bound_statement(sql: &str, release: &str, admitted_before: Nanos) -> Result<String, QueryError> {
    let mut statement = guard::parse(sql)?;
    sql_parameters(release, admitted_before).bind(&mut statement)?;
    Ok(statement.to_string())
}

/// Values of an SQL gate.
pub(super) fn sql_parameters(release: &str, admitted_before: Nanos) -> Parameters {
    Parameters::default()
        .text("release", release)
        .time("admitted_before", admitted_before)
        .all_used()
}

fn cohort(shown: &Shown<'_>) -> String {
    shown
        .cohort
        .map(|cohort| format!("\n  AND cohort = {}", literal(cohort)))
        .unwrap_or_default()
}

/// A moment as SQL, to the nanosecond where it has any.
fn moment(at: Nanos) -> String {
    let text = at.rfc3339();
    match at.0.rem_euclid(1_000_000) {
        0 => format!("TIMESTAMP '{text}'"),
        rest => format!("TIMESTAMP '{}{rest:06}Z'", text.trim_end_matches('Z')),
    }
}
