//! Which columns a statement needs to read metrics of traces.

use super::SPANS_SINCE;
use crate::metrics::{self, Read, UNMARKED, apart, evaluations};
use proto::{Metric, metric::MetricKind};

/// One metric of a trace, as an expression over `t` (its row of `traces`) and `v` (what evaluations say of it).
pub(super) struct TraceRead {
    pub metric: Metric,
    pub expr: String,
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
        let expr = match metrics::doc_of(metric).map(|doc| doc.read) {
            Some(Read::Event(expr) | Read::Amount(expr)) => expr.to_owned(),
            Some(Read::Unmarked) => UNMARKED.to_owned(),
            Some(Read::Told { names, silence }) => {
                let told = self.told(names.iter().map(|name| (*name).to_owned()).collect());
                if silence {
                    format!("coalesce({told}, false)")
                } else {
                    told
                }
            }
            Some(Read::Evaluator) => match metric {
                Metric::EvalFail(name) => self.told(vec![name.to_string()]),
                _ => return false,
            },
            Some(Read::CallEvent(_) | Read::CallAmount(_) | Read::SessionSame) | None => return false,
        };
        self.columns.push(TraceRead {
            metric: metric.clone(),
            expr,
        });
        true
    }

    fn told(&mut self, names: Vec<String>) -> String {
        self.told.push(names);
        format!("v.told{}", self.told.len() - 1)
    }

    /// Whether evaluations are read.
    pub fn is_told(&self) -> bool {
        !self.told.is_empty()
    }

    /// `, expr AS m0, expr AS m1`.
    pub fn selected(&self) -> String {
        let columns = self.columns.iter().enumerate();
        columns.map(|(i, read)| format!(", {} AS m{i}", read.expr)).collect()
    }

    /// What stands before `SELECT`.
    pub fn with(&self) -> String {
        if self.is_told() {
            format!("WITH {}\n", apart(SPANS_SINCE))
        } else {
            String::new()
        }
    }

    /// What follows `FROM traces t`.
    pub fn joined(&self) -> String {
        if self.is_told() {
            format!(
                "\nLEFT JOIN (\n  {}\n) v ON v.trace_id = t.trace_id",
                evaluations(&self.told)
            )
        } else {
            String::new()
        }
    }
}

/// Whether a metric is an amount.
pub(super) fn is_amount(metric: &Metric) -> bool {
    metric.kind() == MetricKind::Amount
}
