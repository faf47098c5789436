//! What assembly keeps of a span and of an evaluation while their trace may still change.

use super::evals::Key;
use proto::{Color, Nanos};
use serde::{Deserialize, Serialize};
use std::{num::NonZeroU64, sync::Arc};

/// What a span is; the words of column `role`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Role {
    /// One attempt at a model.
    Call,
    /// A tool that was run.
    Tool,
    /// Work of a judge: nothing below it is the route's.
    Evaluator,
    /// Where a request entered a process.
    Server,
    /// Anything else.
    Other,
}

impl Role {
    /// Reads the column's word.
    #[must_use]
    pub fn parse(word: Option<&str>) -> Self {
        match word {
            Some("call") => Self::Call,
            Some("tool") => Self::Tool,
            Some("evaluator") => Self::Evaluator,
            Some("server") => Self::Server,
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

macro_rules! words {
    ($($(#[$doc:meta])* $word:ident = $column:literal,)*) => {
        /// A word of a span that assembly keeps: by these a span says, or lets one guess, whose it is and which path it
        /// took.
        #[derive(Debug, Clone, Copy, PartialEq, Eq)]
        pub enum Word {
            $($(#[$doc])* $word,)*
        }

        impl Word {
            /// Their columns in `spans`, by number.
            pub const COLUMNS: [&'static str; [$($column),*].len()] = [$($column),*];
        }
    };
}

words! {
    /// Stamped route.
    Route = "route",
    /// Stamped color.
    Color = "color",
    /// Stamped version.
    Version = "version",
    /// Stamped cohort.
    Cohort = "cohort",
    /// A weak name for a route.
    Workflow = "workflow",
    /// A weaker one.
    Agent = "agent",
    /// The last resort for a route.
    Service = "service_name",
    /// Instrumentation library.
    Scope = "scope",
    /// Deployment id.
    Deployment = "deployment",
    /// Variant of a declared feature flag.
    Variant = "variant",
    /// Model that was asked for.
    RequestModel = "request_model",
    /// Model that answered.
    ResponseModel = "response_model",
    /// Host that answered.
    Host = "host",
    /// Prompt.
    PromptName = "prompt_name",
    /// Its version.
    PromptVersion = "prompt_version",
    /// Tool schema.
    Tools = "tools_version",
    /// Guardrails.
    Guardrails = "guardrails_version",
    /// Semantic cache.
    Cache = "cache_version",
    /// Routing policy.
    Policy = "policy_version",
    /// What a guardrail found.
    GuardrailResult = "guardrail_result",
    /// Why another model was taken.
    FallbackReason = "fallback_reason",
    /// What the JSON schemas of routes said about the answer.
    JsonChecks = "json_checks",
}

/// Words of a span. Shared between spans.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub struct Labels {
    /// By number of [`Word`].
    pub words: [Option<Arc<str>>; Word::COLUMNS.len()],
    /// Stamped color.
    pub color: Option<Color>,
    /// The last resort for a version: `service.version`.
    pub service_version: Option<Arc<str>>,
    /// Key of the declared feature flag that gave the variant: a weak name for a route.
    pub flag: Option<Arc<str>>,
    /// Stamped split, ppm.
    pub split_ppm: Option<u32>,
    /// Probability with which the span was sampled upstream, ppm.
    pub sampling_ppm: Option<u32>,
    /// Attributes that a release asks for (its cohort, LiteLLM's model group), with their values.
    pub attributes: Vec<(Arc<str>, Arc<str>)>,
}

impl Labels {
    /// A word.
    #[must_use]
    pub fn word(&self, word: Word) -> Option<&Arc<str>> {
        self.words[word as usize].as_ref()
    }

    /// A word's text.
    #[must_use]
    pub fn text(&self, word: Word) -> Option<&str> {
        self.word(word).map(AsRef::as_ref)
    }

    /// Value of an attribute that a release asks for.
    #[must_use]
    pub fn attribute(&self, key: &str) -> Option<&Arc<str>> {
        self.attributes
            .iter()
            .find(|(k, _)| **k == *key)
            .map(|(_, value)| value)
    }

    /// Bytes of its texts.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let words = self.words.iter().flatten().map(|word| word.len());
        let pairs = self.attributes.iter().map(|(_, value)| value.len());
        words.chain(pairs).sum()
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
    /// Id that one user request keeps through its retries and fallbacks.
    pub request: Option<Arc<str>>,
}

impl Subject {
    /// Bytes of its texts.
    #[must_use]
    pub fn text_bytes(&self) -> usize {
        let names = [&self.session, &self.user, &self.mirror_key, &self.request];
        names.into_iter().flatten().map(|name| name.len()).sum()
    }
}

/// What only a call has.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Call {
    /// Prompt tokens.
    pub prompt: Option<i64>,
    /// Completion tokens.
    pub completion: Option<i64>,
    /// Prompt tokens read from the provider's cache.
    pub cache_read: Option<i64>,
    /// Prompt tokens written to it.
    pub cache_write: Option<i64>,
    /// Completion tokens spent on reasoning.
    pub reasoning: Option<i64>,
    /// Cost, nano-USD.
    pub cost: Option<i64>,
    /// Time to first token, us.
    pub ttft_us: Option<u64>,
    /// Whether the arguments of the tool calls it asks for fit the tools' schemas.
    pub tool_args_valid: Option<bool>,
}

/// One span.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Span {
    /// Id.
    pub id: u64,
    /// Id of its parent, in this trace or beyond.
    pub parent: Option<NonZeroU64>,
    /// Hash of the provider's id of the response.
    pub response: Option<NonZeroU64>,
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
    /// Fell back.
    pub fallback: Tri,
    /// Served from the semantic cache.
    pub cache_hit: Tri,
    /// Retries.
    pub retries: Option<i32>,
    /// Words.
    pub labels: Arc<Labels>,
    /// Names. Shared by spans of one trace that say the same.
    pub subject: Option<Arc<Subject>>,
    /// Present on calls.
    pub call: Option<Box<Call>>,
}

impl Span {
    /// A word of its labels.
    #[must_use]
    pub fn word(&self, word: Word) -> Option<&Arc<str>> {
        self.labels.word(word)
    }
}

impl Span {
    /// The key by which evaluations that only know the response find this call.
    pub(super) fn response_key(&self) -> Option<Key> {
        let call = Some(self).filter(|span| span.role == Role::Call)?;
        call.response.map(Key::Response)
    }
}

/// The hash by which response ids are compared: xxh3, zero read as one.
#[must_use]
pub fn response_hash(id: &str) -> NonZeroU64 {
    NonZeroU64::new(xxhash_rust::xxh3::xxh3_64(id.as_bytes())).unwrap_or(NonZeroU64::MIN)
}

/// One evaluation.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Eval {
    /// Span it judges; `None` for the trace.
    pub span: Option<u64>,
    /// When it was made.
    pub time: Nanos,
    /// When it was made last, if it was sent more than once.
    pub last: Nanos,
    /// Normalised name.
    pub name: Arc<str>,
    /// The verdict, if there is one.
    pub passed: Option<bool>,
    /// Hash of source, identifier, score, label and verdict.
    pub told: u64,
    /// Number of the evaluation while it is not settled which trace it is about; 0 for all others.
    pub origin: u64,
}
