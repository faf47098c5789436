//! The SQL of metric views, put together from the expressions of the table.

use super::{FEEDBACK, MetricDoc, Read, per_unit};
use std::fmt::Write as _;

/// Rows of `traces` as `t` that count at the grain of traces: a user saw them, and no later trace made them good.
pub(crate) const SERVED: &str = "t.shadow IS NOT TRUE AND t.superseded IS NOT TRUE";

/// Spans that are nobody's own, as the rows tell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Apart {
    /// At or below a judge.
    Judges,
    /// The same, or at or below a mirrored span; `judged` tells which.
    All,
}

impl Apart {
    /// Where they begin.
    pub(crate) const fn seeds(self) -> &'static str {
        match self {
            Self::Judges => "role = 'evaluator'",
            Self::All => "(shadow OR role = 'evaluator')",
        }
    }

    /// A query of its own for `WITH RECURSIVE`, under this name. `seeds` narrows the spans it begins with, `since` all of
    /// them (a condition on `start_time` that leaves files out); either may be `true`.
    pub(crate) fn query(self, name: &str, seeds: &str, since: &str) -> String {
        format!(
            "{name}(trace_id, span_id, judged) AS (
  SELECT trace_id, span_id, coalesce(role = 'evaluator', false) FROM spans WHERE {} AND {since} AND {seeds}
  UNION
  SELECT s.trace_id, s.span_id, a.judged OR s.role = 'evaluator'
  FROM {name} a JOIN (SELECT * FROM spans WHERE {since}) s ON s.trace_id = a.trace_id AND s.parent_span_id = a.span_id
)",
            self.seeds()
        )
    }
}

/// One row a session.
const SESSION_SAME: &str = "
SELECT session_id AS unit_id, first_id AS trace_id, first_start AS start_time, route, release, first_version AS version,
       first_color AS color, first_cohort AS cohort, first_split AS split, 'session' AS grain, color = first_color AS event
FROM (
  SELECT *, row_number() OVER (PARTITION BY release, session_id ORDER BY start_time, trace_id) AS place
  FROM (
    SELECT *, row_number() OVER w AS seen, first_value(trace_id) OVER w AS first_id,
           first_value(start_time) OVER w AS first_start, first_value(version) OVER w AS first_version,
           first_value(color) OVER w AS first_color, first_value(cohort) OVER w AS first_cohort,
           first_value(split) OVER w AS first_split
    FROM (
      SELECT t.trace_id, t.start_time, t.route, t.release, t.version, t.assigned_color AS color, t.cohort, t.split,
             t.session_id
      FROM traces t
      WHERE {served} AND t.session_id IS NOT NULL AND t.assigned_color IS NOT NULL AND t.release IS NOT NULL
        AND t.split > 0 AND t.split < 1
    )
    WINDOW w AS (PARTITION BY release, session_id ORDER BY start_time, trace_id)
  )
  WHERE seen > 1 AND split = first_split
)
WHERE place = 1";

/// A text literal.
pub(crate) fn literal(text: &str) -> String {
    format!("'{}'", text.replace('\'', "''"))
}

/// What evaluations say of traces: a row a trace with two columns for each of `names`: `told0`, whether any of the first
/// failed, null if none was made; `mirror_told0`, the same of a trace that was mirrored. Of the user's traces what is said
/// of a mirrored call is left out, and of either what a judge was told about itself, by the query `apart`; without one, no span is apart.
pub(crate) fn evaluations(names: &[Vec<String>], apart: Option<&str>) -> String {
    let mut columns = String::new();
    for (i, names) in names.iter().enumerate() {
        let of = format!("NOT e.passed) FILTER (WHERE {}", among(names));
        let (own, mirrored) = match apart {
            Some(_) => (" AND a.span_id IS NULL", " AND a.judged IS NOT TRUE"),
            None => ("", ""),
        };
        let _ = write!(
            columns,
            ", bool_or({of}{own}) AS told{i}, bool_or({of}{mirrored}) AS mirror_told{i}"
        );
    }
    let all: Vec<String> = names.iter().flatten().cloned().collect();
    judged(&format!("e.trace_id{columns}"), &among(&all), "e.trace_id", apart)
}

/// Evaluations `e` of these names.
pub(crate) fn among(names: &[String]) -> String {
    let mut names: Vec<String> = names.iter().map(|name| literal(name)).collect();
    names.sort_unstable();
    names.dedup();
    format!("e.name IN ({})", names.join(", "))
}

fn judged(columns: &str, of: &str, by: &str, apart: Option<&str>) -> String {
    let apart = apart.map_or_else(String::new, |apart| {
        format!(
            "\n  LEFT JOIN (SELECT trace_id, span_id, bool_or(judged) AS judged FROM {apart} GROUP BY trace_id, span_id) a
    ON a.trace_id = e.trace_id AND a.span_id = e.span_id"
        )
    });
    format!(
        "SELECT {columns}
  FROM evals e{apart}
  WHERE e.passed IS NOT NULL AND e.error_type IS NULL AND e.trace_id IS NOT NULL AND {of}
  GROUP BY {by}"
    )
}

/// The view of a metric.
pub(super) fn view(metric: &MetricDoc) -> String {
    match metric.read {
        Read::Unmarked => traces(metric, "'unmarked'", &event(UNMARKED), "traces t", "true"),
        Read::Event(expr) => traces(metric, COLOR, &event(expr), "traces t", &known(expr)),
        Read::Amount(expr) => traces(metric, COLOR, &amount(metric, expr), "traces t", &known(expr)),
        Read::Told { names, silence } => {
            let names = vec![names.iter().map(|name| (*name).to_owned()).collect()];
            let from = format!(
                "traces t LEFT JOIN (\n  {}\n) v ON v.trace_id = t.trace_id",
                evaluations(&names, Some("apart"))
            );
            let expr = if silence { "coalesce(v.told0, false)" } else { "v.told0" };
            with_apart(&traces(metric, COLOR, &event(expr), &from, &known(expr)))
        }
        Read::Evaluator => {
            let feedback: Vec<String> = FEEDBACK.iter().map(|name| (*name).to_owned()).collect();
            let failed = judged(
                "e.trace_id, e.name AS evaluator, bool_or(NOT e.passed) AS failed",
                &format!("NOT {} AND a.span_id IS NULL", among(&feedback)),
                "e.trace_id, e.name",
                Some("apart"),
            );
            let from = format!("traces t JOIN (\n  {failed}\n) v ON v.trace_id = t.trace_id");
            let columns = format!("{}, v.evaluator", event("v.failed"));
            with_apart(&traces(metric, COLOR, &columns, &from, "true"))
        }
        Read::CallEvent(expr) => calls(&event(expr), &known(expr)),
        Read::CallAmount(expr) => calls(&amount(metric, expr), &known(expr)),
        Read::SessionSame => SESSION_SAME.replace("{served}", SERVED),
    }
}

fn with_apart(select: &str) -> String {
    format!("WITH RECURSIVE {}\n{select}", Apart::All.query("apart", "true", "true"))
}

/// Color under which a trace counts: of the first try, if this trace is its fallback.
const COLOR: &str = "coalesce(t.assigned_color, 'unmarked')";

/// Whether a trace has no color.
pub(crate) const UNMARKED: &str = "t.assigned_color IS NULL";

fn event(expr: &str) -> String {
    format!("{expr} AS event")
}

fn amount(metric: &MetricDoc, expr: &str) -> String {
    format!("{expr} / {} AS value, {expr} AS value_units", per_unit(metric))
}

fn known(expr: &str) -> String {
    format!("({expr}) IS NOT NULL")
}

fn traces(metric: &MetricDoc, color: &str, columns: &str, from: &str, condition: &str) -> String {
    format!(
        "SELECT t.trace_id AS unit_id, t.trace_id, t.start_time, coalesce(t.route, '__none__') AS route, t.release, t.version,
       {color} AS color, t.cohort, t.split, '{}' AS grain, {columns}
FROM {from}
WHERE {SERVED} AND {condition}",
        metric.grain.as_str()
    )
}

fn calls(columns: &str, condition: &str) -> String {
    with_apart(&format!(
        "SELECT s.span_id AS unit_id, t.trace_id, t.start_time, coalesce(t.route, '__none__') AS route, t.release, s.version,
       s.color, t.cohort, t.split, 'attempt' AS grain, {columns}
FROM traces t JOIN spans s ON s.trace_id = t.trace_id
LEFT JOIN apart a ON a.trace_id = s.trace_id AND a.span_id = s.span_id
WHERE t.shadow IS NOT TRUE AND s.role = 'call' AND a.span_id IS NULL AND {condition}"
    ))
}
