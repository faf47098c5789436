//! What is measured, and at which grain.

use serde::{Deserialize, Serialize};
use std::{fmt, str::FromStr, sync::Arc};

/// What one observation stands for. The three are never mixed in one cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Grain {
    /// One `call` span: charged to the color that was attempted.
    Attempt,
    /// One request as the gateway answered it.
    Request,
    /// One trace: cost and user-visible outcome.
    Trace,
    /// All traces of a session, where sessions are randomised.
    Session,
    /// All traces of a user, where users are randomised.
    User,
}

impl Grain {
    /// The word used in the `cells` table.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Attempt => "attempt",
            Self::Request => "request",
            Self::Trace => "trace",
            Self::Session => "session",
            Self::User => "user",
        }
    }
}

/// How a metric's cells are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MetricKind {
    /// `n` units of which `events` had the event.
    Rate,
    /// A histogram of integers with their `sum`; `n` units had a known value.
    Amount,
}

macro_rules! metrics {
    ($($(#[$doc:meta])* $variant:ident = $name:literal, $kind:ident;)*) => {
        /// A measure of the design's list. `eval_fail` is kept per evaluator.
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Metric {
            $($(#[$doc])* $variant,)*
            /// Traces whose evaluation of this (normalised) name failed, of those evaluated: `eval_fail:task_completion`.
            EvalFail(Arc<str>),
            /// What the SQL of the gate of this name counts: `sql:refunds`.
            Sql(Arc<str>),
            /// Mirrored pairs as the paired gate of this name reads them (see [`crate::measure`]): `paired:p99 latency`.
            Paired(Arc<str>),
        }

        impl Metric {
            /// Every metric without a parameter.
            pub const PLAIN: &'static [Self] = &[$(Self::$variant),*];

            /// Rate or amount.
            #[must_use]
            pub const fn kind(&self) -> MetricKind {
                match self {
                    $(Self::$variant => MetricKind::$kind,)*
                    Self::EvalFail(_) | Self::Sql(_) => MetricKind::Rate,
                    Self::Paired(_) => MetricKind::Amount,
                }
            }
        }

        impl fmt::Display for Metric {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant => f.write_str($name),)*
                    Self::EvalFail(name) => write!(f, "eval_fail:{name}"),
                    Self::Sql(gate) => write!(f, "sql:{gate}"),
                    Self::Paired(gate) => write!(f, "paired:{gate}"),
                }
            }
        }

        impl FromStr for Metric {
            type Err = UnknownMetric;
            fn from_str(text: &str) -> Result<Self, UnknownMetric> {
                match text {
                    $($name => Ok(Self::$variant),)*
                    _ => match text.split_once(':') {
                        Some(("eval_fail", name)) if !name.is_empty() => Ok(Self::EvalFail(normalise_eval_name(name).into())),
                        Some(("sql", gate)) if !gate.is_empty() => Ok(Self::Sql(gate.into())),
                        Some(("paired", gate)) if !gate.is_empty() => Ok(Self::Paired(gate.into())),
                        _ => Err(UnknownMetric(text.to_owned())),
                    },
                }
            }
        }
    };
}

metrics! {
    /// Units seen: the denominator of the sample-ratio check.
    Traces = "traces", Rate;
    /// Trace duration, us.
    Latency = "latency", Amount;
    /// Time to first token of a call, us.
    Ttft = "ttft", Amount;
    /// Cost of a priced trace, nano-USD.
    Cost = "cost", Amount;
    /// Prompt tokens of a trace.
    PromptTokens = "prompt_tokens", Amount;
    /// Completion tokens of a trace.
    CompletionTokens = "completion_tokens", Amount;
    /// Traces whose root ended in ERROR.
    Error = "error", Rate;
    /// Calls that ended in ERROR.
    AttemptError = "attempt_error", Rate;
    /// Traces that timed out.
    Timeout = "timeout", Rate;
    /// Traces with a retry.
    Retry = "retry", Rate;
    /// Traces that fell back.
    Fallback = "fallback", Rate;
    /// Traces served from the semantic cache.
    CacheHit = "cache_hit", Rate;
    /// Calls refused by a rate limit.
    RateLimited = "rate_limited", Rate;
    /// Traces whose answer is not the JSON that the route promises, of those whose answer was seen.
    JsonInvalid = "json_invalid", Rate;
    /// Traces with a tool span that ended in ERROR, of those with a tool span.
    ToolError = "tool_error", Rate;
    /// Traces with a tool call whose arguments its schema refuses, of those with arguments that could be checked.
    ToolArgsInvalid = "tool_args_invalid", Rate;
    /// Traces a guardrail stopped.
    GuardrailBlock = "guardrail_block", Rate;
    /// Traces with negative user feedback, of those with any.
    ThumbsDown = "thumbs_down", Rate;
    /// Traces handed to a person.
    Escalation = "escalation", Rate;
    /// Traces the user abandoned.
    Abandoned = "abandoned", Rate;
    /// Traces whose answer a person replaced.
    Override = "override", Rate;
    /// Traces without a color.
    Unmarked = "unmarked", Rate;
    /// Traces whose stamped color contradicts their declared version.
    ColorConflict = "color_conflict", Rate;
    /// Traces whose answer came along another path than the manifest of their version declares.
    MixedManifest = "mixed_manifest", Rate;
    /// Traces that were sampled upstream (with a probability below one), of those that say how they were sampled.
    Sampled = "sampled", Rate;
    /// Sessions of at least two traces whose second trace came to the color of the first.
    SessionSame = "session_same", Rate;
    /// First calls of a trace (of each color) by the second within their minute, for the breaker: bucket `2 s` counts the calls that started in second
    /// `s` of the minute and succeeded, bucket `2 s + 1` those that failed. Not an amount in any other sense.
    AttemptSeconds = "attempt_seconds", Amount;
}

/// A metric name that is not in the list.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown metric `{0}`")]
pub struct UnknownMetric(pub String);

impl Serialize for Metric {
    fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Metric {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        String::deserialize(d)?.parse().map_err(serde::de::Error::custom)
    }
}

/// Evaluation names ignore case and separators: `TaskCompletion`, `task-completion` and `task_completion` are one
/// evaluator, written `task_completion`.
#[must_use]
pub fn normalise_eval_name(name: &str) -> String {
    let mut out = String::with_capacity(name.len() + 4);
    let mut before_was_lower = false;
    for c in name.trim().chars() {
        if c.is_alphanumeric() {
            if c.is_uppercase() && before_was_lower {
                out.push('_');
            }
            before_was_lower = c.is_lowercase() || c.is_numeric();
            out.extend(c.to_lowercase());
        } else {
            before_was_lower = false;
            if !out.is_empty() && !out.ends_with('_') {
                out.push('_');
            }
        }
    }
    while out.ends_with('_') {
        out.pop();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip() {
        for m in Metric::PLAIN {
            assert_eq!(&m.to_string().parse::<Metric>().unwrap(), m);
        }
        let m: Metric = "eval_fail:TaskCompletion".parse().unwrap();
        assert_eq!(m.to_string(), "eval_fail:task_completion");
        assert!("latencies".parse::<Metric>().is_err());
        for text in ["sql:refunds", "paired:p99 latency: slow"] {
            assert_eq!(text.parse::<Metric>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn spellings_of_one_evaluator_are_one() {
        for name in [
            "TaskCompletion",
            "task_completion",
            "task-completion",
            " Task Completion ",
            "task.completion",
        ] {
            assert_eq!(normalise_eval_name(name), "task_completion", "{name}");
        }
    }
}
