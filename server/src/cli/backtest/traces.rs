//! Traces of a route from rows, as units of history.

use super::{
    calls::{Call, Calls, spans_within},
    colors::{Known, Says, Sides},
    evals::{Verdict, Verdicts, verdicts},
    survey::Survey,
};
use crate::cli::ask::{AskError, Asker, Rows, quoted};
use arrow::error::ArrowError;
use gates::backtest::{History, Seen, Unit};
use proto::{Color, Metric, Nanos, cell::PPM, release::ReleaseSpec};
use std::{
    collections::{BTreeMap, HashMap},
    sync::Arc,
};

/// Digits of a trace id.
const HEX: u32 = 16;

/// What was read, and what was left out.
#[derive(Debug, Default)]
pub struct Read {
    pub history: History,
    /// Traces of other versions.
    pub others: BTreeMap<String, u64>,
    /// Traces without a color.
    pub unmarked: u64,
    /// Evaluations made after this history was over, counted as if made at once.
    pub late_evals: u64,
    /// Color of failed tries that another trace made good, by trace id.
    superseded: HashMap<String, Color>,
    cohorts: HashMap<String, Arc<str>>,
}

/// A row of `traces`.
struct Row {
    id: String,
    start: Nanos,
    duration_us: u64,
    says: Says,
    cohort: Option<String>,
    split_ppm: Option<u32>,
    superseded: bool,
    /// The failed try whose fallback this is.
    made_good: Option<String>,
    facts: Facts,
}

/// Its numbers.
#[derive(Default)]
struct Facts {
    cost_nano: Option<i64>,
    prompt: Option<i64>,
    completion: Option<i64>,
    error: bool,
    timed_out: bool,
    retries: Option<i64>,
    fallback: Option<bool>,
    cache_hit: Option<bool>,
    json_valid: Option<bool>,
    tools_failed: Option<i64>,
    guardrail_blocks: Option<i64>,
    mixed: Option<bool>,
    conflict: Option<bool>,
    sampling: Option<f64>,
}

/// Reads the history of a release. `progress` hears the share done.
///
/// # Errors
/// If nobody answers, or not as expected.
pub async fn read(
    asker: &Asker,
    spec: &ReleaseSpec,
    metrics: Vec<Metric>,
    survey: &Survey,
    range: (Nanos, Nanos),
    progress: &dyn Fn(f64),
) -> Result<Read, AskError> {
    let sides = Sides {
        blue: &spec.blue,
        green: &spec.green,
        versioned: survey.is_versioned(spec),
    };
    let mut read = Read {
        history: History {
            metrics,
            units: Vec::new(),
        },
        ..Read::default()
    };
    let windows = survey.windows(range);
    // what was said later than this can only have been said of the recording
    let over = spec.admitted_at(range.1);
    for (i, &window) in windows.iter().enumerate() {
        progress(i as f64 / windows.len() as f64);
        read.window(asker, spec, &sides, window, over).await?;
    }
    read.history.sort();
    Ok(read)
}

impl Read {
    async fn window(
        &mut self,
        asker: &Asker,
        spec: &ReleaseSpec,
        sides: &Sides<'_>,
        window: (Nanos, Nanos),
        over: Nanos,
    ) -> Result<(), AskError> {
        let within = format!(
            "route = {} AND start_time >= '{}' AND start_time < '{}'",
            quoted(&spec.route),
            precise(window.0),
            precise(window.1)
        );
        let mut rows = Vec::new();
        for batch in asker
            .rows(&format!("SELECT {COLUMNS} FROM traces WHERE {within}"))
            .await?
        {
            rows.extend(rows_of(&batch)?);
        }
        // a failed try comes before the trace that made it good
        rows.sort_by(|a, b| (a.start, &a.id).cmp(&(b.start, &b.id)));
        let calls = Calls::of(asker, &spec.route, window).await?;
        let verdicts = verdicts(asker, &self.history.metrics, &within).await?;
        let cohorts = match &spec.cohort {
            Some(key) if rows.iter().any(|row| row.cohort.is_none()) => {
                cohorts(asker, key, &spans_within(&spec.route, window)).await?
            }
            _ => HashMap::new(),
        };
        for mut row in rows.into_iter().filter(|row| !calls.mirrored.contains(&row.id)) {
            row.cohort = row.cohort.or_else(|| cohorts.get(&row.id).cloned());
            self.take(&row, sides, &calls, &verdicts, over);
        }
        Ok(())
    }

    fn take(&mut self, row: &Row, sides: &Sides<'_>, calls: &Calls, verdicts: &Verdicts, over: Nanos) {
        let calls = calls.by_trace.get(&row.id).map(Vec::as_slice).unwrap_or_default();
        let (Some(color), Ok(trace)) = (self.color(row, sides, calls), u128::from_str_radix(&row.id, HEX)) else {
            return;
        };
        self.unmarked += u64::from(!color.is_marked());
        let verdicts = verdicts.get(&row.id).map(Vec::as_slice).unwrap_or_default();
        let said = |metric: u16| verdicts.iter().find(|(m, _)| *m == metric).map(|(_, v)| *v);
        let mut seen = Vec::new();
        for (at, metric) in (0..).zip(&self.history.metrics) {
            let mut put = |color, value, known_after| {
                seen.push(Seen {
                    metric: at,
                    color,
                    value,
                    known_after,
                });
            };
            if is_of_calls(metric) {
                for call in calls {
                    if let Some(value) = of_call(metric, call, row.start) {
                        put(sides.of_call(&call.says).unwrap_or(color), value, 0);
                    }
                }
            } else if row.superseded {
                // the try that made it good counts instead
            } else if let Some(verdict) = said(at).filter(|v| v.failed || !is_of_all(metric)) {
                let late = verdict.known > over;
                self.late_evals += u64::from(late);
                let known_after = if late { 0 } else { after(verdict, row.start) };
                put(color, u64::from(verdict.failed), known_after);
            } else if *metric == Metric::Unmarked {
                put(Color::Unmarked, u64::from(!color.is_marked()), 0);
            } else if let Some(value) = of_trace(metric, row, calls) {
                put(color, value, 0);
            }
        }
        let cohort = row.cohort.as_deref().map(|name| self.cohort(name));
        self.history.units.push(Unit {
            trace,
            start: row.start,
            duration_us: row.duration_us,
            color,
            cohort,
            split_ppm: row.split_ppm,
            seen,
        });
    }

    /// Color under which a trace counts; `None` for those of other versions.
    fn color(&mut self, row: &Row, sides: &Sides<'_>, calls: &[Call]) -> Option<Color> {
        let own = match sides.of_trace(&row.says) {
            Known::Other => {
                let version = row.says.version.clone().unwrap_or_default();
                *self.others.entry(version).or_default() += 1;
                return None;
            }
            Known::Color(color) => color,
            Known::Nothing if sides.has_keys() => {
                let of = |call: &Call| sides.of_call(&call.says);
                calls.iter().find_map(of).unwrap_or(Color::Unmarked)
            }
            Known::Nothing => Color::Unmarked,
        };
        let tried = row.made_good.as_ref().and_then(|other| self.superseded.get(other));
        let color = tried.copied().unwrap_or(own);
        if row.superseded {
            self.superseded.insert(row.id.clone(), color);
        }
        Some(color)
    }

    /// A name kept once.
    fn cohort(&mut self, name: &str) -> Arc<str> {
        if let Some(known) = self.cohorts.get(name) {
            return Arc::clone(known);
        }
        let kept: Arc<str> = name.into();
        self.cohorts.insert(name.to_owned(), Arc::clone(&kept));
        kept
    }
}

/// Metrics of single calls.
const fn is_of_calls(metric: &Metric) -> bool {
    matches!(
        metric,
        Metric::AttemptError | Metric::AttemptSeconds | Metric::RateLimited | Metric::Ttft
    )
}

/// Reports of things that happen to some traces are shares of all: silence means that they did not happen.
const fn is_of_all(metric: &Metric) -> bool {
    matches!(metric, Metric::Escalation | Metric::Abandoned | Metric::Override)
}

/// Seconds from a trace's start to a verdict.
fn after(verdict: Verdict, start: Nanos) -> u32 {
    let secs = verdict.known.since(start).as_secs_f64().ceil();
    secs.min(f64::from(u32::MAX)) as u32
}

fn of_call(metric: &Metric, call: &Call, trace_start: Nanos) -> Option<u64> {
    match metric {
        Metric::AttemptError => Some(u64::from(call.failed)),
        Metric::RateLimited => Some(u64::from(call.rate_limited)),
        Metric::Ttft => call.ttft_us,
        Metric::AttemptSeconds => {
            let minute = trace_start.0.div_euclid(60_000_000_000) * 60;
            let second = (call.start.0.div_euclid(1_000_000_000) - minute).clamp(0, 59);
            Some(2 * u64::try_from(second).unwrap_or(0) + u64::from(call.failed))
        }
        _ => None,
    }
}

/// What a trace itself says of a metric, as assembly counts it; `None` where it says nothing.
fn of_trace(metric: &Metric, row: &Row, calls: &[Call]) -> Option<u64> {
    let facts = &row.facts;
    let amount = |value: Option<i64>| value.and_then(|v| u64::try_from(v).ok());
    let event = |happened: bool| Some(u64::from(happened));
    let known = |happened: Option<bool>| happened.map(u64::from);
    match metric {
        Metric::Traces | Metric::Escalation | Metric::Abandoned | Metric::Override => event(false),
        Metric::Latency => Some(row.duration_us),
        Metric::Cost => amount(facts.cost_nano),
        Metric::PromptTokens => amount(facts.prompt),
        Metric::CompletionTokens => amount(facts.completion),
        Metric::Error => event(facts.error),
        Metric::Timeout => event(facts.timed_out),
        Metric::Retry => known(facts.retries.map(|n| n > 0)),
        Metric::Fallback => known(facts.fallback),
        Metric::CacheHit => known(facts.cache_hit),
        Metric::JsonInvalid => known(facts.json_valid.map(|valid| !valid)),
        Metric::ToolError => known(facts.tools_failed.map(|n| n > 0)),
        Metric::ToolArgsInvalid => {
            let checked = calls.iter().filter_map(|call| call.tool_args_valid);
            known(checked.reduce(|all, valid| all && valid).map(|valid| !valid))
        }
        Metric::GuardrailBlock => event(facts.guardrail_blocks.unwrap_or(0) > 0),
        Metric::MixedManifest => known(facts.mixed),
        Metric::ColorConflict => known(facts.conflict),
        Metric::Sampled => known(facts.sampling.map(|p| p < 1.0)),
        _ => None,
    }
}

const COLUMNS: &str = "trace_id, CAST(start_time AS BIGINT) AS start, duration_ms, version, assigned_color AS color, \
    cohort, split, superseded, linked_trace_id, CASE WHEN priced THEN CAST(cost_usd * 1000000000 AS BIGINT) END AS cost, \
    prompt_tokens, completion_tokens, error, timed_out, retries, fallback, cache_hit, json_valid, tools_failed, \
    guardrail_blocks, mixed_manifest, color_conflict, sampling";

fn rows_of(rows: &Rows) -> Result<Vec<Row>, ArrowError> {
    let (id, start, duration) = (
        rows.texts("trace_id")?,
        rows.whole("start")?,
        rows.numbers("duration_ms")?,
    );
    let (version, color, cohort) = (rows.texts("version")?, rows.texts("color")?, rows.texts("cohort")?);
    let (split, superseded) = (rows.numbers("split")?, rows.flags("superseded")?);
    let (linked, cost) = (rows.texts("linked_trace_id")?, rows.whole("cost")?);
    let (prompt, completion) = (rows.whole("prompt_tokens")?, rows.whole("completion_tokens")?);
    let (error, timed_out) = (rows.flags("error")?, rows.flags("timed_out")?);
    let (retries, fallback) = (rows.whole("retries")?, rows.flags("fallback")?);
    let (cache_hit, json_valid) = (rows.flags("cache_hit")?, rows.flags("json_valid")?);
    let (tools_failed, blocks) = (rows.whole("tools_failed")?, rows.whole("guardrail_blocks")?);
    let (mixed, conflict) = (rows.flags("mixed_manifest")?, rows.flags("color_conflict")?);
    let sampling = rows.numbers("sampling")?;
    let row = |i: usize| {
        let superseded = superseded(i).unwrap_or(false);
        Some(Row {
            id: id(i)?,
            start: Nanos(start(i)?),
            // kept as ms of whole us
            duration_us: (duration(i)? * 1_000.0).round() as u64,
            says: Says {
                version: version(i),
                color: color(i).and_then(|c| Color::parse(&c)),
                ..Says::default()
            },
            cohort: cohort(i),
            split_ppm: split(i).map(|share| (share * f64::from(PPM)).round() as u32),
            superseded,
            made_good: linked(i).filter(|_| !superseded),
            facts: Facts {
                cost_nano: cost(i),
                prompt: prompt(i),
                completion: completion(i),
                error: error(i).unwrap_or(false),
                timed_out: timed_out(i).unwrap_or(false),
                retries: retries(i),
                fallback: fallback(i),
                cache_hit: cache_hit(i),
                json_valid: json_valid(i),
                tools_failed: tools_failed(i),
                guardrail_blocks: blocks(i),
                mixed: mixed(i),
                conflict: conflict(i),
                sampling: sampling(i),
            },
        })
    };
    Ok((0..rows.len()).filter_map(row).collect())
}

/// Values of the attribute by which a release tells cohorts apart, by trace id.
async fn cohorts(asker: &Asker, key: &str, within: &str) -> Result<HashMap<String, String>, AskError> {
    let key = quoted(key);
    let value = format!("coalesce(attributes[{key}], resource[{key}])");
    let sql = format!(
        "SELECT trace_id, max({value}) AS cohort FROM spans WHERE {within} AND {value} IS NOT NULL GROUP BY trace_id"
    );
    let mut out = HashMap::new();
    for rows in asker.rows(&sql).await? {
        let (trace, cohort) = (rows.texts("trace_id")?, rows.texts("cohort")?);
        out.extend((0..rows.len()).filter_map(|i| Some((trace(i)?, cohort(i)?))));
    }
    Ok(out)
}

/// A time as SQL reads it, to the nanosecond.
fn precise(at: Nanos) -> String {
    chrono::DateTime::from_timestamp_nanos(at.0).to_rfc3339_opts(chrono::SecondsFormat::Nanos, true)
}
