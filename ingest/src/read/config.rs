//! How a reader reads: limits, and what its parts are configured with.

use super::{check::AnswerSchemas, content::ContentConfig, extra::ExtraKeys, verdict::EvalRules};
use crate::price::PriceTable;
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

/// How a [`Reader`] reads.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadConfig {
    /// Prices that `cost_usd` is computed from.
    pub prices: Arc<PriceTable>,
    /// Sources beyond the built-in ones.
    pub keys: ExtraKeys,
    /// What answers are checked against, by route.
    pub schemas: Arc<AnswerSchemas>,
    /// What becomes of prompts, outputs and tool arguments.
    pub content: ContentConfig,
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
            schemas: Arc::default(),
            content: ContentConfig::default(),
            evals: EvalRules::default(),
            attributes_max: ATTRIBUTES_MAX,
            value_bytes_max: VALUE_BYTES_MAX,
            text_bytes_max: TEXT_BYTES_MAX,
            events_max: EVENTS_MAX,
            links_max: LINKS_MAX,
        }
    }
}
