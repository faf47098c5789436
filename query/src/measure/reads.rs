//! Which columns a statement needs to read metrics of traces.

use super::{Asked, SPANS_SINCE};
use crate::{
    QueryError,
    metrics::{self, Apart, Read, UNMARKED, among, evaluations},
};
use proto::{Metric, metric::MetricKind};

/// One metric of a trace, as an expression over `t` (its row of `traces`) and `v` (what evaluations say of it).
pub(super) struct TraceRead {
    pub metric: Metric,
    pub expr: String,
    /// Which of the columns of `v` it looks at.
    told: Option<usize>,
}

/// Metrics read together.
#[derive(Default)]
pub(super) struct Reads {
    pub columns: Vec<TraceRead>,
    told: Vec<Vec<String>>,
}

impl Reads {
    /// Adds a metric; false if it is none of single traces.
    pub fn add(&mut self, metric: &Metric) -> bool {
        let (expr, told) = match metrics::doc_of(metric).map(|doc| doc.read) {
            Some(Read::Event(expr) | Read::Amount(expr)) => (expr.to_owned(), None),
            Some(Read::Unmarked) => (UNMARKED.to_owned(), None),
            Some(Read::Told { names, silence }) => {
                self.told.push(names.iter().map(|name| (*name).to_owned()).collect());
                let told = self.told.len() - 1;
                let expr = if silence {
                    format!("coalesce(v.told{told}, false)")
                } else {
                    format!("v.told{told}")
                };
                (expr, Some(told))
            }
            Some(Read::Evaluator) => {
                let Metric::EvalFail(name) = metric else { return false };
                self.told.push(vec![name.to_string()]);
                let told = self.told.len() - 1;
                (format!("v.told{told}"), Some(told))
            }
            Some(Read::CallEvent(_) | Read::CallAmount(_) | Read::SessionSame) | None => return false,
        };
        self.columns.push(TraceRead {
            metric: metric.clone(),
            expr,
            told,
        });
        true
    }

    /// Spans that are apart of traces with evaluations of single spans, as a query called `apart`; `None` if there are none.
    pub async fn apart(&self, asked: &Asked<'_>) -> Result<Option<String>, QueryError> {
        if self.told.is_empty() {
            return Ok(None);
        }
        let names: Vec<String> = self.told.iter().flatten().cloned().collect();
        let seeds = format!(
            "trace_id IN (SELECT e.trace_id FROM evals e WHERE e.span_id IS NOT NULL AND e.trace_id IS NOT NULL AND {})",
            among(&names)
        );
        apart(asked, Apart::All, "apart", &seeds).await
    }

    /// `, expr AS m0, expr AS m1`.
    pub fn selected(&self) -> String {
        let columns = self.columns.iter().enumerate();
        columns.map(|(i, read)| format!(", {} AS m{i}", read.expr)).collect()
    }

    /// What follows `FROM traces t`; `apart` names the query of [`Apart::All`], if there is any such span.
    pub fn joined(&self, apart: Option<&str>) -> String {
        if self.told.is_empty() {
            String::new()
        } else {
            format!(
                "\nLEFT JOIN (\n  {}\n) v ON v.trace_id = t.trace_id",
                evaluations(&self.told, apart)
            )
        }
    }
}

impl TraceRead {
    /// The same of a trace that may be a mirrored one, as far as evaluations tell.
    pub fn told_of_either(&self) -> Option<String> {
        let told = self.told?;
        let (own, mirrored) = (format!("v.told{told}"), format!("v.mirror_told{told}"));
        let either = format!("CASE WHEN t.shadow THEN {mirrored} ELSE {own} END");
        Some(self.expr.replace(&own, &either))
    }
}

/// The query called `name` of spans that are apart, if there is any such span; `seeds` narrows those it begins with.
pub(super) async fn apart(asked: &Asked<'_>, of: Apart, name: &str, seeds: &str) -> Result<Option<String>, QueryError> {
    let mut is_there = false;
    let probe = format!(
        "SELECT 1 FROM spans WHERE {} AND {SPANS_SINCE} AND {seeds} LIMIT 1",
        of.seeds()
    );
    asked.each(&probe, |rows| is_there |= rows.len() > 0).await?;
    Ok(is_there.then(|| of.query(name, seeds, SPANS_SINCE)))
}

/// What stands before `SELECT`.
pub(super) fn with(queries: &[Option<String>]) -> String {
    let queries: Vec<&str> = queries.iter().flatten().map(String::as_str).collect();
    if queries.is_empty() {
        String::new()
    } else {
        format!("WITH RECURSIVE {}\n", queries.join(",\n"))
    }
}

/// Whether a metric is an amount.
pub(super) fn is_amount(metric: &Metric) -> bool {
    metric.kind() == MetricKind::Amount
}
