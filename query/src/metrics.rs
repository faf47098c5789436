//! Every metric as rows: `metric_<name>` has one row a unit, and its counts are those of the cells.
//!
//! The table below is the only place in SQL that says what a metric is: the views, what gates ask of rows
//! ([`crate::measure`]) and `docs/metrics.md` are all made of it. `ingest::assemble` says the same in Rust, for the
//! cells; tests hold the two equal.

mod sql;

pub(crate) use sql::{Apart, SERVED, UNMARKED, among, evaluations};

use crate::views::ViewDoc;
use proto::{Grain, Metric};
use std::sync::LazyLock;

/// A metric, as documented.
#[derive(Debug, Clone, Copy)]
pub struct MetricDoc {
    /// View, `metric_latency`.
    pub view: &'static str,
    /// Metric, without its parameter.
    pub name: &'static str,
    /// What a row of its view stands for.
    pub grain: Grain,
    /// Unit of `value`; `event` for a rate.
    pub unit: &'static str,
    /// When the event is true, or what the value is; of which units, where not of all.
    pub doc: &'static str,
    /// Columns of `docs/attributes.md`, or what else it is made of.
    pub fed_by: &'static str,
    pub(crate) read: Read,
}

/// How a metric is read from rows. Expressions stand over `t` (a row of `traces`) or `s` (one of `spans`); where one is
/// null, the unit is not counted.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Read {
    /// A boolean of a trace.
    Event(&'static str),
    /// An integer of a trace, in the unit of cells.
    Amount(&'static str),
    /// Whether an evaluation of one of these names failed; `silence`: also of traces that have none.
    Told {
        names: &'static [&'static str],
        silence: bool,
    },
    /// The same for every evaluator.
    Evaluator,
    /// A boolean of a call.
    CallEvent(&'static str),
    /// An integer of a call.
    CallAmount(&'static str),
    /// Whether a trace has no color; such rows count under no color themselves.
    Unmarked,
    /// Whether a session kept its color.
    SessionSame,
}

macro_rules! metrics {
    ($($name:literal, $grain:ident, $unit:literal, $read:expr, $doc:literal, $fed_by:literal;)*) => {
        /// Every metric that has a view, in the order of [`Metric::PLAIN`], and `eval_fail` last.
        pub const METRICS: &[MetricDoc] = &[$(MetricDoc {
            view: concat!("metric_", $name),
            name: $name,
            grain: Grain::$grain,
            unit: $unit,
            doc: $doc,
            fed_by: $fed_by,
            read: $read,
        }),*];
    };
}

use Read::{Amount, CallAmount, CallEvent, Event, Told};

metrics! {
    "traces", Trace, "event", Event("false"),
        "a trace; there is no event: the view counts units",
        "every span";
    "latency", Trace, "ms", Amount("CAST(round(t.duration_ms * 1000) AS BIGINT)"),
        "duration of the root; without a true root, from the topmost span's start to the last end",
        "start and end of spans";
    "ttft", Attempt, "ms", CallAmount("CASE WHEN s.ttft_ms >= 0 THEN CAST(round(s.ttft_ms * 1000) AS BIGINT) END"),
        "time to the first token of a call, of calls that tell it",
        "`ttft_ms`";
    "cost", Trace, "USD",
        Amount("CASE WHEN t.priced AND t.cost_usd >= 0 THEN CAST(t.cost_usd * 1000000000 AS BIGINT) END"),
        "what the calls of a trace cost, of traces with a call and no call of unknown cost",
        "`prompt_tokens`, `completion_tokens`, `cache_read_tokens`, `cache_write_tokens`, `reasoning_tokens`, `provider`, `request_model`, `response_model`; prices (docs/prices.md)";
    "prompt_tokens", Trace, "tokens", Amount("CASE WHEN t.prompt_tokens >= 0 THEN t.prompt_tokens END"),
        "sum of the known prompt tokens of a trace's calls, of traces where any is known",
        "`prompt_tokens`";
    "completion_tokens", Trace, "tokens", Amount("CASE WHEN t.completion_tokens >= 0 THEN t.completion_tokens END"),
        "sum of the known completion tokens of a trace's calls, of traces where any is known",
        "`completion_tokens`";
    "error", Trace, "event", Event("t.error"),
        "the root ended in ERROR",
        "status of the root span";
    "attempt_error", Attempt, "event", CallEvent("lower(s.status) LIKE '%error'"),
        "the call ended in ERROR; also calls of a trace that another one made good",
        "status of call spans";
    "timeout", Trace, "event", Event("t.timed_out"),
        "the root timed out, or took as long as the release's timeout, or it ended in ERROR above a call that timed out",
        "`error_type`, `http_status`; start and end of spans";
    "retry", Trace, "event", Event("t.retries > 0"),
        "a retry was made, of traces that tell how many",
        "`retries`";
    "fallback", Trace, "event", Event("t.fallback"),
        "another path than the first answered, of traces that tell",
        "`fallback`";
    "cache_hit", Trace, "event", Event("t.cache_hit"),
        "the answer came from the semantic cache, of traces that tell",
        "`cache_hit`";
    "rate_limited", Attempt, "event", CallEvent("coalesce(s.rate_limited, false)"),
        "the call was refused by a rate limit",
        "`error_type`, `http_status`";
    "json_invalid", Trace, "event", Event("NOT t.json_valid"),
        "the answer is not the JSON that the route promises, of traces whose answer was checked",
        "the answer's text (docs/checks.md)";
    "tool_error", Trace, "event", Event("t.tools_failed > 0"),
        "a tool span ended in ERROR, of traces with a tool span",
        "`role`; status of tool spans";
    "tool_args_invalid", Trace, "event", Event("NOT t.tool_args_valid"),
        "a tool call has arguments that its schema refuses, of traces with arguments that could be checked",
        "tool definitions and arguments (docs/checks.md)";
    "guardrail_block", Trace, "event", Event("coalesce(t.guardrail_blocks, 0) > 0"),
        "a guardrail stopped something",
        "`guardrail_result`";
    "thumbs_down", Trace, "event", Told { names: &["user_feedback", "thumbs_down"], silence: false },
        "an opinion was negative, of traces with an opinion",
        "feedback (docs/evaluations.md)";
    "escalation", Trace, "event", Told { names: &["escalation"], silence: true },
        "handed to a person; silence means that it was not",
        "feedback (docs/evaluations.md)";
    "abandoned", Trace, "event", Told { names: &["abandoned"], silence: true },
        "abandoned by the user; silence means that it was not",
        "feedback (docs/evaluations.md)";
    "override", Trace, "event", Told { names: &["override"], silence: true },
        "a person replaced the answer; silence means that nobody did",
        "feedback (docs/evaluations.md)";
    "unmarked", Trace, "event", Read::Unmarked,
        "nobody could say the color; color reads `unmarked` in every row of this view",
        "`color`, `version` and what a release file's `match` names";
    "color_conflict", Trace, "event", Event("coalesce(t.color_conflict, false)"),
        "the stamped color contradicts the declared version",
        "`color`, `version`";
    "mixed_manifest", Trace, "event", Event("t.mixed_manifest"),
        "the answer came along another path than the manifest of its version declares, of traces where any of it can be compared",
        "`request_model`, `prompt_name`, `prompt_version`, `tools_version`, `guardrails_version`, `cache_version`, `policy_version`";
    "sampled", Trace, "event", Event("t.sampling < 1"),
        "sampled upstream with a probability below one, of traces that tell",
        "`ot=th` of the trace state";
    "session_same", Session, "event", Read::SessionSame,
        "the session's second trace at the split of its first came to the color of the first, of sessions with two traces at one randomised split; trace_id and start_time are the first's",
        "`session_id`";
    "eval_fail", Trace, "event", Read::Evaluator,
        "an evaluation of this `evaluator` failed, of traces it has judged; feedback is not among them",
        "evaluations (docs/evaluations.md)";
}

/// Evaluations that are feedback, and count under metrics of their own.
pub(crate) const FEEDBACK: [&str; 5] = ["user_feedback", "thumbs_down", "escalation", "abandoned", "override"];

/// A view for each of [`METRICS`].
pub fn views() -> &'static [ViewDoc] {
    static VIEWS: LazyLock<Vec<ViewDoc>> = LazyLock::new(|| {
        let view = |metric: &MetricDoc| ViewDoc {
            name: metric.view,
            doc: metric.doc,
            // Made once, for as long as the process lives.
            sql: Box::leak(sql::view(metric).into_boxed_str()),
        };
        METRICS.iter().map(view).collect()
    });
    &VIEWS
}

/// The documented metric that `metric` is.
pub(crate) fn doc_of(metric: &Metric) -> Option<&'static MetricDoc> {
    let name = match metric {
        Metric::EvalFail(_) => "eval_fail".to_owned(),
        plain => plain.to_string(),
    };
    METRICS.iter().find(|doc| doc.name == name)
}

/// Integer units of the cells in one unit of display.
pub(crate) fn per_unit(metric: &MetricDoc) -> &'static str {
    match metric.unit {
        "ms" => "1e3",
        "USD" => "1e9",
        _ => "1e0",
    }
}
