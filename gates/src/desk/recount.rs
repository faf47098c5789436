//! The SQL beside a decision: for every gate a statement over `cells` that shows the numbers it was judged by, and one over
//! the rows themselves that counts them anew.

use super::reading::Reading;
use proto::{
    Metric, Nanos,
    metric::MetricKind,
    release::{GateSpec, ReleaseSpec, Unit},
};
use serde::{Deserialize, Serialize};

/// Statements of one gate, with what the first answered when it was judged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Statement {
    /// Gate; null for the traces themselves.
    pub gate: Option<String>,
    /// Over `cells`: one row a color and split with n, events and sum. Null where the numbers were asked of rows.
    pub cells: Option<String>,
    /// Over the rows: the same columns, counted anew. Null where no single statement can say it (pairs, sessions).
    pub rows: Option<String>,
}

/// Text as a literal of SQL.
fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// Statements of every gate of a release, as it was judged.
pub(super) fn statements(spec: &ReleaseSpec, reading: &Reading) -> Vec<Statement> {
    let from = Nanos::from_secs(reading.counted_from);
    let until = reading.judgement.judged_at.minus(spec.timeout + spec.grace);
    let units = Statement {
        gate: None,
        cells: Some(over_cells(spec, &Metric::Traces, "trace", from, until)),
        rows: Some(over_rows(spec, "metric_traces", "", MetricKind::Rate, from, until)),
    };
    let gates = spec.gates.iter().map(|gate| of_gate(spec, gate, from, until));
    std::iter::once(units).chain(gates).collect()
}

fn of_gate(spec: &ReleaseSpec, gate: &GateSpec, from: Nanos, until: Nanos) -> Statement {
    let name = Some(gate.name.clone());
    if let Some(sql) = &gate.sql {
        return Statement {
            gate: name,
            cells: None,
            rows: Some(bound(sql, &spec.id, until)),
        };
    }
    if gate.paired || spec.unit != Unit::Trace {
        return Statement {
            gate: name,
            cells: None,
            rows: None,
        };
    }
    let grain = crate::judge::units::natural_grain(&gate.metric).as_str();
    let (view, narrowed) = match &gate.metric {
        Metric::EvalFail(evaluator) => (
            "metric_eval_fail".to_owned(),
            format!(" AND evaluator = {}", literal(evaluator)),
        ),
        plain => (format!("metric_{plain}"), String::new()),
    };
    Statement {
        gate: name,
        cells: Some(over_cells(spec, &gate.metric, grain, from, until)),
        rows: Some(over_rows(spec, &view, &narrowed, gate.metric.kind(), from, until)),
    }
}

fn over_cells(spec: &ReleaseSpec, metric: &Metric, grain: &str, from: Nanos, until: Nanos) -> String {
    format!(
        "SELECT color, split, sum(n) AS n, sum(events) AS events, sum(sum) AS sum FROM cells \
         WHERE release = {} AND route = {} AND metric = {} AND grain = {} AND admitted \
         AND minute >= {} AND minute < {} AND color <> 'unmarked' GROUP BY color, split ORDER BY color, split",
        literal(&spec.id),
        literal(&spec.route),
        literal(&metric.to_string()),
        literal(grain),
        moment(from),
        moment(until),
    )
}

fn over_rows(spec: &ReleaseSpec, view: &str, narrowed: &str, kind: MetricKind, from: Nanos, until: Nanos) -> String {
    let counted = match kind {
        MetricKind::Rate => "count(*) FILTER (WHERE event) AS events, CAST(0 AS BIGINT) AS sum",
        MetricKind::Amount => "CAST(0 AS BIGINT) AS events, CAST(sum(value_units) AS BIGINT) AS sum",
    };
    format!(
        "SELECT color, split, count(*) AS n, {counted} FROM {view} \
         WHERE release = {} AND route = {} AND start_time >= {} AND start_time < {}{narrowed} \
         AND color <> 'unmarked' GROUP BY color, split ORDER BY color, split",
        literal(&spec.id),
        literal(&spec.route),
        moment(from),
        moment(until),
    )
}

/// A moment as SQL, to the nanosecond where it has any.
fn moment(at: Nanos) -> String {
    let text = at.rfc3339();
    match at.0.rem_euclid(1_000_000) {
        0 => format!("TIMESTAMP '{text}'"),
        rest => format!("TIMESTAMP '{}{rest:06}Z'", text.trim_end_matches('Z')),
    }
}

/// A gate's own statement with the values it was last asked with, for reading: they stand in quoted texts as well.
fn bound(sql: &str, release: &str, until: Nanos) -> String {
    let values = [("$release", literal(release)), ("$admitted_before", moment(until))];
    let mut out = String::with_capacity(sql.len());
    let mut rest = sql;
    while let Some(at) = rest.find('$') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let ends = |name: &str| !rest[name.len()..].starts_with(|c: char| c.is_alphanumeric() || c == '_');
        match values.iter().find(|(name, _)| rest.starts_with(name) && ends(name)) {
            Some((name, value)) => {
                out.push_str(value);
                rest = &rest[name.len()..];
            }
            None => {
                out.push('$');
                rest = &rest[1..];
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_quoted_and_moments_are_exact() {
        assert_eq!(literal("it's"), "'it''s'");
        assert_eq!(
            moment(Nanos(1_000_000_042)),
            "TIMESTAMP '1970-01-01T00:00:01.000000042Z'"
        );
        assert_eq!(moment(Nanos::from_secs(60)), "TIMESTAMP '1970-01-01T00:01:00.000Z'");
    }

    #[test]
    fn a_statement_is_shown_with_its_values() {
        let sql = "SELECT $releases, $release WHERE t < $admitted_before";
        let shown = bound(sql, "it's", Nanos::from_secs(60));
        let expected = "SELECT $releases, 'it''s' WHERE t < TIMESTAMP '1970-01-01T00:01:00.000Z'";
        assert_eq!(shown, expected);
    }
}
