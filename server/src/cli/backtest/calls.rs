//! The calls of traces, from `spans`: attempts, and what `match` looks at.

use super::colors::Says;
use crate::cli::ask::{AskError, Asker, quoted};
use proto::{Color, Nanos};
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

/// Spans of a trace may begin this much before its root ...
const BEFORE: Duration = Duration::from_secs(300);
/// ... and this much after.
const AFTER: Duration = Duration::from_secs(2 * 3_600);

/// One call of the user's own path.
#[derive(Debug)]
pub struct Call {
    pub says: Says,
    pub start: Nanos,
    pub failed: bool,
    pub rate_limited: bool,
    pub ttft_us: Option<u64>,
    pub tool_args_valid: Option<bool>,
}

/// Calls by trace id, and the traces that no user saw.
#[derive(Debug, Default)]
pub struct Calls {
    pub by_trace: HashMap<String, Vec<Call>>,
    pub mirrored: HashSet<String>,
}

/// Where spans of the traces of a window are found.
pub fn spans_within(route: &str, (from, to): (Nanos, Nanos)) -> String {
    format!(
        "(route = {} OR route IS NULL) AND start_time >= '{}' AND start_time < '{}'",
        quoted(route),
        from.minus(BEFORE).rfc3339(),
        to.plus(AFTER).rfc3339()
    )
}

impl Calls {
    /// Calls of the traces of a window; those of judges and mirrors, and second records of a call, are left out.
    ///
    /// # Errors
    /// If nobody answers.
    pub async fn of(asker: &Asker, route: &str, window: (Nanos, Nanos)) -> Result<Self, AskError> {
        let within = spans_within(route, window);
        let (judged, mirrored) = judged_and_mirrored(asker, &within).await?;
        let sql = format!(
            "SELECT trace_id, span_id, color, version, CAST(start_time AS BIGINT) AS start, \
             upper(status) = 'ERROR' AS failed, rate_limited, ttft_ms, tool_args_valid, deployment, variant, \
             response_model, request_model, host, tools_version, prompt_version, \
             resource['service.version'] AS service_version \
             FROM spans WHERE {within} AND role = 'call' AND shadow IS NOT TRUE AND repeats_span_id IS NULL"
        );
        let mut by_trace: HashMap<String, Vec<Call>> = HashMap::new();
        for rows in asker.rows(&sql).await? {
            let (trace, span) = (rows.texts("trace_id")?, rows.texts("span_id")?);
            let (color, version) = (rows.texts("color")?, rows.texts("version")?);
            let (deployment, variant) = (rows.texts("deployment")?, rows.texts("variant")?);
            let (response, request) = (rows.texts("response_model")?, rows.texts("request_model")?);
            let (host, tools) = (rows.texts("host")?, rows.texts("tools_version")?);
            let (prompt, service) = (rows.texts("prompt_version")?, rows.texts("service_version")?);
            let (start, ttft) = (rows.whole("start")?, rows.numbers("ttft_ms")?);
            let (failed, limited) = (rows.flags("failed")?, rows.flags("rate_limited")?);
            let valid = rows.flags("tool_args_valid")?;
            for i in 0..rows.len() {
                let (Some(trace), Some(span)) = (trace(i), span(i)) else {
                    continue;
                };
                let id = (trace, span);
                if judged.contains(&id) {
                    continue;
                }
                by_trace.entry(id.0).or_default().push(Call {
                    says: Says {
                        version: version(i),
                        color: color(i).and_then(|c| Color::parse(&c)),
                        deployment: deployment(i),
                        service_version: service(i),
                        variant: variant(i),
                        response_model: response(i),
                        request_model: request(i),
                        host: host(i),
                        tools: tools(i),
                        prompt_version: prompt(i),
                    },
                    start: Nanos(start(i).unwrap_or(0)),
                    failed: failed(i).unwrap_or(false),
                    rate_limited: limited(i).unwrap_or(false),
                    ttft_us: ttft(i).map(|ms| (ms * 1_000.0).round() as u64),
                    tool_args_valid: valid(i),
                });
            }
        }
        for calls in by_trace.values_mut() {
            calls.sort_by_key(|call| call.start);
        }
        Ok(Self { by_trace, mirrored })
    }
}

type SpanId = (String, String);

/// Spans at or below an evaluator's, and traces of which every span is a mirror's.
async fn judged_and_mirrored(asker: &Asker, within: &str) -> Result<(HashSet<SpanId>, HashSet<String>), AskError> {
    let sql = format!(
        "SELECT trace_id, span_id, parent_span_id, role = 'evaluator' AS judges, coalesce(shadow, false) AS shadow \
         FROM spans WHERE {within} AND trace_id IN \
         (SELECT trace_id FROM spans WHERE {within} AND (role = 'evaluator' OR shadow))"
    );
    let mut parents: HashMap<SpanId, Option<String>> = HashMap::new();
    let mut judges: HashSet<SpanId> = HashSet::new();
    let mut only_mirrors: HashMap<String, bool> = HashMap::new();
    for rows in asker.rows(&sql).await? {
        let (trace, span, parent) = (
            rows.texts("trace_id")?,
            rows.texts("span_id")?,
            rows.texts("parent_span_id")?,
        );
        let (is_judge, shadow) = (rows.flags("judges")?, rows.flags("shadow")?);
        for i in 0..rows.len() {
            let (Some(trace), Some(span)) = (trace(i), span(i)) else {
                continue;
            };
            *only_mirrors.entry(trace.clone()).or_insert(true) &= shadow(i).unwrap_or(false);
            if is_judge(i).unwrap_or(false) {
                judges.insert((trace.clone(), span.clone()));
            }
            parents.insert((trace, span), parent(i));
        }
    }
    let is_judged = |id: &SpanId| {
        let mut at = id.clone();
        // a loop of parents, which only a fault could make, ends here
        for _ in 0..parents.len() {
            if judges.contains(&at) {
                return true;
            }
            match parents.get(&at) {
                Some(Some(parent)) => at.1.clone_from(parent),
                _ => return false,
            }
        }
        false
    };
    let judged = parents.keys().filter(|id| is_judged(id)).cloned().collect();
    let mirrored = only_mirrors.into_iter().filter(|(_, all)| *all).map(|(id, _)| id);
    Ok((judged, mirrored.collect()))
}
