//! Evaluations and feedback of traces, from `evals`.

use crate::cli::ask::{AskError, Asker, quoted_list};
use proto::{Metric, Nanos};
use std::collections::HashMap;

/// What was said of one trace under one metric.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Verdict {
    /// Whether anything failed.
    pub failed: bool,
    /// When the last of it was said.
    pub known: Nanos,
}

/// Verdicts by trace id and position of the metric.
pub type Verdicts = HashMap<String, Vec<(u16, Verdict)>>;

/// Names under which evaluations of a metric come.
pub fn names(metric: &Metric) -> Vec<&str> {
    match metric {
        Metric::EvalFail(name) => vec![name],
        Metric::ThumbsDown => vec!["user_feedback", "thumbs_down"],
        Metric::Escalation => vec!["escalation"],
        Metric::Abandoned => vec!["abandoned"],
        Metric::Override => vec!["override"],
        _ => Vec::new(),
    }
}

/// Verdicts of the traces that `traces` selects (a condition on `traces`), for those of `metrics` that need any.
///
/// # Errors
/// If nobody answers.
pub async fn verdicts(asker: &Asker, metrics: &[Metric], traces: &str) -> Result<Verdicts, AskError> {
    let mut out = Verdicts::new();
    let wanted: Vec<(u16, Vec<&str>)> = (0..)
        .zip(metrics.iter().map(names))
        .filter(|(_, names)| !names.is_empty())
        .collect();
    if wanted.is_empty() {
        return Ok(out);
    }
    let sql = format!(
        "SELECT trace_id, name, bool_or(NOT passed) AS failed, CAST(max(time) AS BIGINT) AS known \
         FROM evals WHERE passed IS NOT NULL AND name IN {} \
         AND trace_id IN (SELECT trace_id FROM traces WHERE {traces}) GROUP BY 1, 2",
        quoted_list(wanted.iter().flat_map(|(_, names)| names.iter().copied()))
    );
    for rows in asker.rows(&sql).await? {
        let (trace, name) = (rows.texts("trace_id")?, rows.texts("name")?);
        let (failed, known) = (rows.flags("failed")?, rows.whole("known")?);
        for i in 0..rows.len() {
            let (Some(trace), Some(name)) = (trace(i), name(i)) else {
                continue;
            };
            let of_name = wanted.iter().find(|(_, names)| names.contains(&name.as_str()));
            let Some(&(metric, _)) = of_name else { continue };
            let verdict = Verdict {
                failed: failed(i).unwrap_or(false),
                known: Nanos(known(i).unwrap_or(0)),
            };
            let known = out.entry(trace).or_default();
            match known.iter_mut().find(|(m, _)| *m == metric) {
                Some((_, old)) => {
                    old.failed |= verdict.failed;
                    old.known = old.known.max(verdict.known);
                }
                None => known.push((metric, verdict)),
            }
        }
    }
    Ok(out)
}
