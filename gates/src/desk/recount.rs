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
        cells: Some(over_cells(spec, &Metric::Traces, "trace", from)),
        rows: Some(over_rows(spec, "metric_traces", "", MetricKind::Rate, from, until)),
    };
    let gates = spec.gates.iter().map(|gate| of_gate(spec, gate, from, until));
    std::iter::once(units).chain(gates).collect()
}

fn of_gate(spec: &ReleaseSpec, gate: &GateSpec, from: Nanos, until: Nanos) -> Statement {
    let name = Some(gate.name.clone());
    if let Some(sql) = &gate.sql {
        let bound = sql
            .replace("$release", &literal(&spec.id))
            .replace("$admitted_before", &format!("TIMESTAMP {}", literal(&until.rfc3339())));
        return Statement {
            gate: name,
            cells: None,
            rows: Some(bound),
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
        cells: Some(over_cells(spec, &gate.metric, grain, from)),
        rows: Some(over_rows(spec, &view, &narrowed, gate.metric.kind(), from, until)),
    }
}

fn over_cells(spec: &ReleaseSpec, metric: &Metric, grain: &str, from: Nanos) -> String {
    format!(
        "SELECT color, split, sum(n) AS n, sum(events) AS events, sum(sum) AS sum FROM cells \
         WHERE release = {} AND route = {} AND metric = {} AND grain = {} AND admitted AND minute >= TIMESTAMP {} \
         AND color <> 'unmarked' GROUP BY color, split ORDER BY color, split",
        literal(&spec.id),
        literal(&spec.route),
        literal(&metric.to_string()),
        literal(grain),
        literal(&from.rfc3339()),
    )
}

fn over_rows(spec: &ReleaseSpec, view: &str, narrowed: &str, kind: MetricKind, from: Nanos, until: Nanos) -> String {
    let counted = match kind {
        MetricKind::Rate => "count(*) FILTER (WHERE event) AS events, CAST(0 AS BIGINT) AS sum",
        MetricKind::Amount => "CAST(0 AS BIGINT) AS events, CAST(sum(value_units) AS BIGINT) AS sum",
    };
    format!(
        "SELECT color, split, count(*) AS n, {counted} FROM {view} \
         WHERE release = {} AND route = {} AND start_time >= TIMESTAMP {} AND start_time <= TIMESTAMP {}{narrowed} \
         AND color <> 'unmarked' GROUP BY color, split ORDER BY color, split",
        literal(&spec.id),
        literal(&spec.route),
        literal(&from.rfc3339()),
        literal(&until.rfc3339()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_is_quoted() {
        assert_eq!(literal("it's"), "'it''s'");
    }
}
