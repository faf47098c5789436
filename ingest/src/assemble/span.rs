//! What assembly keeps of a span and of an evaluation while their trace may still change.

use proto::{Color, Nanos};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// What a span is; the words of column `role`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// One attempt at a model.
    Call,
    /// Work of a judge: nothing below it is the route's.
    Evaluator,
    /// Anything else.
    Other,
}

impl Role {
    /// Reads the column's word.
    #[must_use]
    pub fn parse(word: Option<&str>) -> Self {
        match word {
            Some("call") => Self::Call,
            Some("evaluator") => Self::Evaluator,
            _ => Self::Other,
        }
    }
}

/// Yes, no, or not said. Unknown is never no.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub enum Tri {
    /// Nobody said.
    #[default]
    Unknown,
    /// Said to be so.
    Yes,
    /// Said not to be so.
    No,
}

impl From<Option<bool>> for Tri {
    fn from(value: Option<bool>) -> Self {
        match value {
            None => Self::Unknown,
            Some(true) => Self::Yes,
            Some(false) => Self::No,
        }
    }
}

impl Tri {
    /// `None` if nobody said.
    #[must_use]
    pub const fn known(self) -> Option<bool> {
        match self {
            Self::Unknown => None,
            Self::Yes => Some(true),
            Self::No => Some(false),
        }
    }
}

/// Words by which a span says, or lets one guess, whose it is. Shared between spans.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Labels {
    /// Stamped route.
    pub route: Option<Arc<str>>,
    /// Stamped color.
    pub color: Option<Color>,
    /// Stamped version.
    pub version: Option<Arc<str>>,
    /// Stamped cohort.
    pub cohort: Option<Arc<str>>,
    /// The last resort for a route.
    pub service_name: Option<Arc<str>>,
    /// Deployment id.
    pub deployment: Option<Arc<str>>,
    /// Model that answered.
    pub response_model: Option<Arc<str>>,
    /// Host that answered.
    pub host: Option<Arc<str>>,
    /// Prompt version.
    pub prompt_version: Option<Arc<str>>,
    /// The last resort for a version.
    pub service_version: Option<Arc<str>>,
    /// Stamped split, ppm.
    pub split_ppm: Option<u32>,
    /// Attributes that a release takes as its cohort, with their values.
    pub attributes: Vec<(Arc<str>, Arc<str>)>,
}

impl Labels {
    /// Value of a cohort attribute.
    #[must_use]
    pub fn attribute(&self, key: &str) -> Option<&Arc<str>> {
        self.attributes
            .iter()
            .find(|(k, _)| **k == *key)
            .map(|(_, value)| value)
    }
}

/// Names with as many values as there are units.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Subject {
    /// Session.
    pub session: Option<Arc<str>>,
    /// User.
    pub user: Option<Arc<str>>,
    /// Key that pairs mirrored requests.
    pub mirror_key: Option<Arc<str>>,
}

/// One span.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Id.
    pub id: u64,
    /// Id of its parent, in this trace or beyond.
    pub parent: Option<u64>,
    /// Start.
    pub start: Nanos,
    /// End, never before the start.
    pub end: Nanos,
    /// What it is.
    pub role: Role,
    /// Kind SERVER or CONSUMER: a local root, even if its parent lies in another process.
    pub entry: bool,
    /// Status ERROR.
    pub error: bool,
    /// Its answer reached no user.
    pub shadow: bool,
    /// It says that it timed out.
    pub timed_out: bool,
    /// It was refused by a rate limit.
    pub rate_limited: bool,
    /// Retries.
    pub retries: Option<i32>,
    /// Fell back.
    pub fallback: Tri,
    /// Served from the semantic cache.
    pub cache_hit: Tri,
    /// Prompt tokens.
    pub prompt: Option<i64>,
    /// Completion tokens.
    pub completion: Option<i64>,
    /// Cost, nano-USD.
    pub cost: Option<i64>,
    /// Time to first token, us.
    pub ttft_us: Option<u64>,
    /// Words.
    pub labels: Arc<Labels>,
    /// Names.
    pub subject: Option<Box<Subject>>,
}

/// One evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eval {
    /// Span it judges; `None` for the trace.
    pub span: Option<u64>,
    /// When it was made.
    pub time: Nanos,
    /// Normalised name.
    pub name: Arc<str>,
    /// The verdict, if there is one.
    pub passed: Option<bool>,
    /// Hash of source, identifier, score and label.
    pub told: u64,
}

impl Eval {
    /// Whether this is the same evaluation sent again: equal but for the time, within ten minutes.
    #[must_use]
    pub fn repeats(&self, other: &Self) -> bool {
        const WITHIN_NANOS: u64 = 600 * 1_000_000_000;
        self.span == other.span
            && self.name == other.name
            && self.told == other.told
            && self.time.0.abs_diff(other.time.0) <= WITHIN_NANOS
    }
}
