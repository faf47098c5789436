//! What can go wrong with a query, in words that say what to do.

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
            Self::Forbidden(_) | Self::Invalid(_) | Self::TooLarge { .. }
        )
    }

    /// True if the same statement may succeed later.
    #[must_use]
    pub const fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy(_))
    }

    /// An error of planning: the statement is at fault unless the kind says otherwise.
    pub(crate) fn planning(error: DataFusionError) -> Self {
        match Self::from(error) {
            Self::Failed(message) => Self::Invalid(with_hint(message)),
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
            | DataFusionError::Configuration(message) => {
                Self::Invalid(with_hint(first_line(message)))
            }
            DataFusionError::SQL(parse, _) => {
                Self::Invalid(format!("cannot parse: {}", parser_words(parse)))
            }
            DataFusionError::SchemaError(schema, _) => Self::Invalid(with_hint(schema.to_string())),
            DataFusionError::Execution(message) => Self::Failed(first_line(message)),
            other => Self::Failed(first_line(&other.strip_backtrace())),
        }
    }
}

impl From<arrow::error::ArrowError> for QueryError {
    fn from(error: arrow::error::ArrowError) -> Self {
        Self::from(DataFusionError::from(error))
    }
}

fn parser_words(error: &datafusion::sql::sqlparser::parser::ParserError) -> String {
    use datafusion::sql::sqlparser::parser::ParserError::{
        ParserError, RecursionLimitExceeded, TokenizerError,
    };
    match error {
        TokenizerError(message) | ParserError(message) => message.clone(),
        RecursionLimitExceeded => "the statement is nested too deeply".to_owned(),
    }
}

/// DataFusion appends back traces and plans on further lines.
fn first_line(message: &str) -> String {
    message.lines().next().unwrap_or_default().trim().to_owned()
}
