//! How a reader reads: limits, content policy, and the sources users add.

use super::{sources::Slot, verdict::EvalRules};
use crate::price::PriceTable;
use serde::Deserialize;
use std::sync::Arc;

/// Attributes kept of one span, resource, event or link; the rest only fills typed columns.
pub const ATTRIBUTES_MAX: usize = 256;
/// Longest value kept in a map, bytes.
pub const VALUE_BYTES_MAX: usize = 4 << 10;
/// Longest `input` or `output` kept, bytes.
pub const TEXT_BYTES_MAX: usize = 1 << 20;
/// Events kept of one span.
pub const EVENTS_MAX: usize = 128;
/// Links kept of one span.
pub const LINKS_MAX: usize = 128;
/// Longest word of a typed column (a route, a model, an id), bytes; beyond it the value is NULL and counted.
pub const WORD_BYTES_MAX: usize = 1 << 10;
/// What to do with prompts, outputs and tool arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ContentPolicy {
    /// They are never written anywhere.
    #[default]
    Drop,
    /// They are kept: `input`, `output`, and the attributes as sent.
    Keep,
}

/// Attribute keys that users add to the built-in sources of a column, in order of trust after them.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ExtraKeys {
    /// Sources of `route`, on spans and resources.
    pub route: Vec<String>,
    /// Sources of `color`, on spans and resources.
    pub color: Vec<String>,
    /// Sources of `version`, on spans and resources.
    pub version: Vec<String>,
    /// Sources of `cohort`, on spans and resources, and their copies in baggage and association properties.
    pub cohort: Vec<String>,
    /// Sources of `deployment`, on spans and resources.
    pub deployment: Vec<String>,
    /// Sources of `session_id`.
    pub session_id: Vec<String>,
    /// Sources of `user_id`.
    pub user_id: Vec<String>,
    /// Attributes that carry content, beyond the built-in ones.
    pub content: Vec<String>,
}

impl ExtraKeys {
    pub(super) fn by_slot(&self) -> [(Slot, &[String]); 7] {
        [
            (Slot::Route, &self.route),
            (Slot::Color, &self.color),
            (Slot::Version, &self.version),
            (Slot::Cohort, &self.cohort),
            (Slot::Deployment, &self.deployment),
            (Slot::Session, &self.session_id),
            (Slot::User, &self.user_id),
        ]
    }
}

/// How a [`Reader`] reads.
#[derive(Debug, Clone)]
pub struct ReadConfig {
    /// Prices that `cost_usd` is computed from.
    pub prices: Arc<PriceTable>,
    /// Sources beyond the built-in ones.
    pub keys: ExtraKeys,
    /// Whether content is kept.
    pub content: ContentPolicy,
    /// When evaluations have passed.
    pub evals: EvalRules,
    /// See [`ATTRIBUTES_MAX`].
    pub attributes_max: usize,
    /// See [`VALUE_BYTES_MAX`].
    pub value_bytes_max: usize,
    /// See [`TEXT_BYTES_MAX`].
    pub text_bytes_max: usize,
    /// See [`EVENTS_MAX`].
    pub events_max: usize,
    /// See [`LINKS_MAX`].
    pub links_max: usize,
}

impl Default for ReadConfig {
    fn default() -> Self {
        Self {
            prices: PriceTable::shipped(),
            keys: ExtraKeys::default(),
            content: ContentPolicy::default(),
            evals: EvalRules::default(),
            attributes_max: ATTRIBUTES_MAX,
            value_bytes_max: VALUE_BYTES_MAX,
            text_bytes_max: TEXT_BYTES_MAX,
            events_max: EVENTS_MAX,
            links_max: LINKS_MAX,
        }
    }
}
