//! What can go wrong with a query, in words that say what to do.

use arrow::error::ArrowError;
use datafusion::error::DataFusionError;
use std::time::Duration;

/// Why there is no (or no whole) answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum QueryError {
    /// The statement is not one read-only query.
    #[error("{0}; send one read-only query: SELECT, WITH, EXPLAIN, DESCRIBE or SHOW TABLES")]
    Forbidden(String),
    /// The text does not parse, or names what is not there.
    #[error("{0}")]
    Invalid(String),
    /// The deadline passed.
    #[error("query stopped after {}; narrow start_time, or ask for less", seconds(.0))]
    Timeout(Duration),
    /// As many queries as allowed are running.
    #[error("{0} queries are running, which is the limit; try again in a moment")]
    Busy(usize),
    /// The memory pool or the spill space is used up.
    #[error(
        "query needs more memory than it may have: {0}; narrow start_time, group by less, or raise the query memory"
    )]
    Memory(String),
    /// The answer is larger than the caller takes at once.
    #[error("answer has more than {limit} {unit}; add a LIMIT, or aggregate")]
    TooLarge {
        /// How many are allowed.
        limit: u64,
        /// `rows` or `bytes`.
        unit: &'static str,
    },
    /// The statement itself is too large.
    #[error("statement has more than {limit} {unit}; split it, or put long lists into IN (...)")]
    TooLong {
        /// How many are allowed.
        limit: u64,
        /// `bytes`, or `keywords and operators`.
        unit: &'static str,
    },
    /// The query failed while it ran.
    #[error("query failed: {0}")]
    Failed(String),
    /// The engine could not be set up.
    #[error("query engine cannot start: {0}")]
    Setup(String),
}

fn seconds(limit: &Duration) -> String {
    format!("{} s", limit.as_secs_f64())
}

impl QueryError {
    /// True if another statement would help; false if the engine is at fault or out of resources.
    #[must_use]
    pub const fn is_callers(&self) -> bool {
        matches!(
            self,
            Self::Forbidden(_) | Self::Invalid(_) | Self::TooLarge { .. } | Self::TooLong { .. }
        )
    }

    /// True if the same statement may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy(_))
    }

    /// True if what was read may be the cause: damaged values can fail as computations do.
    pub(crate) const fn may_be_damage(&self) -> bool {
        matches!(self, Self::Failed(_) | Self::Invalid(_))
    }

    /// An error of planning: the statement is at fault unless the kind says otherwise.
    pub(crate) fn planning(error: DataFusionError) -> Self {
        let ours = matches!(error.find_root(), DataFusionError::Internal(_));
        match Self::from(error) {
            Self::Failed(message) if !ours => Self::Invalid(with_hint(message)),
            other => other,
        }
    }
}

/// Adds where to look when a table is not known; column errors already list the valid fields.
fn with_hint(message: String) -> String {
    let lower = message.to_ascii_lowercase();
    if lower.contains("table") && lower.contains("not found") {
        format!("{message}; SHOW TABLES lists what there is")
    } else if lower.contains("no field named") && !lower.contains("did you mean") {
        format!("{message} DESCRIBE a table to see its columns.")
    } else {
        message
    }
}

impl From<DataFusionError> for QueryError {
    fn from(error: DataFusionError) -> Self {
        let root = error.find_root();
        match root {
            DataFusionError::External(inner) => match inner.downcast_ref::<Self>() {
                Some(ours) => ours.clone(),
                None => Self::Failed(inner.to_string()),
            },
            DataFusionError::ResourcesExhausted(message) => Self::Memory(first_line(message)),
            DataFusionError::Plan(message)
            | DataFusionError::NotImplemented(message)
            | DataFusionError::Configuration(message) => Self::Invalid(with_hint(words(message))),
            DataFusionError::SQL(parse, _) => Self::Invalid(format!("cannot parse: {}", parser_words(parse))),
            DataFusionError::SchemaError(schema, _) => Self::Invalid(with_hint(words(&schema.to_string()))),
            DataFusionError::ArrowError(arrow, _) if is_of_values(arrow) => Self::Invalid(words(&arrow.to_string())),
            DataFusionError::Execution(message) => Self::Failed(words(message)),
            other => Self::Failed(words(&other.strip_backtrace())),
        }
    }
}

impl From<ArrowError> for QueryError {
    fn from(error: ArrowError) -> Self {
        Self::from(DataFusionError::from(error))
    }
}

fn parser_words(error: &datafusion::sql::sqlparser::parser::ParserError) -> String {
    use datafusion::sql::sqlparser::parser::ParserError::{ParserError, RecursionLimitExceeded, TokenizerError};
    match error {
        TokenizerError(message) | ParserError(message) => message.clone(),
        RecursionLimitExceeded => "the statement is nested too deeply".to_owned(),
    }
}

/// Errors of the values that a statement computes with, not of the engine.
const fn is_of_values(error: &ArrowError) -> bool {
    matches!(
        error,
        ArrowError::CastError(_)
            | ArrowError::ParseError(_)
            | ArrowError::ComputeError(_)
            | ArrowError::InvalidArgumentError(_)
            | ArrowError::DivideByZero
            | ArrowError::ArithmeticOverflow(_)
    )
}

/// Longest message, characters.
const MESSAGE_CHARS_MAX: usize = 600;

/// One line: DataFusion puts hints on further lines, and after an empty one plans and back traces.
fn words(message: &str) -> String {
    let lines = message.lines().map(str::trim);
    let said: Vec<&str> = lines
        .take_while(|line| !line.is_empty() && !line.starts_with("backtrace:"))
        .collect();
    said.join(" ").chars().take(MESSAGE_CHARS_MAX).collect()
}

fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim().to_owned()
}
