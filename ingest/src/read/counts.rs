//! What the reader has left out, by reason.

use super::value::{BadNumber, Written};
#[cfg(doc)]
use super::{ANSWER_BYTES_MAX, ATTRIBUTES_MAX, TEXT_BYTES_MAX, VALUE_BYTES_MAX, WORD_BYTES_MAX};
use crate::price::Unpriced;

/// Why a span was rejected alone. Index into [`ReadCounts::rejected`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reject {
    /// `trace_id` is not 16 bytes, or zero.
    TraceId,
    /// `span_id` is not 8 bytes, or zero.
    SpanId,
    /// Start time 0, or past the year 2262.
    StartTime,
    /// End time before the start, or past the year 2262.
    EndTime,
    /// An evaluation that has no name.
    EvaluationName,
}

impl Reject {
    /// All of them, in the order of [`ReadCounts::rejected`].
    pub const ALL: [Self; 5] = [
        Self::TraceId,
        Self::SpanId,
        Self::StartTime,
        Self::EndTime,
        Self::EvaluationName,
    ];

    /// Short name, for metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::TraceId => "trace_id",
            Self::SpanId => "span_id",
            Self::StartTime => "start_time",
            Self::EndTime => "end_time",
            Self::EvaluationName => "evaluation_name",
        }
    }

    /// What to tell the sender.
    #[must_use]
    pub const fn advice(self) -> &'static str {
        match self {
            Self::TraceId => "trace_id must be 16 bytes, not all zero",
            Self::SpanId => "span_id must be 8 bytes, not all zero",
            Self::StartTime => "start_time_unix_nano must be set and before the year 2262",
            Self::EndTime => "end_time_unix_nano must not be before the start, and before the year 2262",
            Self::EvaluationName => "an evaluation must have gen_ai.evaluation.name",
        }
    }
}

/// What the reader has left out since it was made.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ReadCounts {
    /// Spans and evaluations rejected alone, by [`Reject`].
    pub rejected: [u64; Reject::ALL.len()],
    /// Numbers that are NULL because they could not be read as one.
    pub numbers_unreadable: u64,
    /// Numbers that are NULL because they were NaN or infinite.
    pub numbers_not_finite: u64,
    /// Numbers that are NULL because they were negative.
    pub numbers_negative: u64,
    /// Numbers that are NULL because their column cannot hold them.
    pub numbers_out_of_range: u64,
    /// Words that are NULL because they were longer than [`WORD_BYTES_MAX`].
    pub words_too_long: u64,
    /// Attributes beyond [`ATTRIBUTES_MAX`].
    pub attributes_over_max: u64,
    /// Values cut at [`VALUE_BYTES_MAX`] or [`TEXT_BYTES_MAX`].
    pub values_cut: u64,
    /// Values that are NULL because they were nested too deep.
    pub values_too_deep: u64,
    /// Answers longer than [`ANSWER_BYTES_MAX`], and those of spans with too many attributes: not checked.
    pub answers_unchecked: u64,
    /// Calls of tools that were not checked: arguments too long, or a definition that cannot be used.
    pub tool_calls_unchecked: u64,
    /// Calls that used tokens of a model without a price.
    pub unpriced: Unpriced,
    /// Events and links beyond their limits.
    pub events_and_links_over_max: u64,
    /// Attributes left out because they carry content.
    pub content_dropped: u64,
    /// Attributes of which only the hash is kept, because they carry content.
    pub content_hashed: u64,
    /// Calls whose total of tokens contradicts prompt + completion.
    pub totals_contradicted: u64,
    /// Tracestates whose sampling threshold cannot be read.
    pub sampling_unreadable: u64,
    /// Rows that go without a copy of their resource, since copies came to too much.
    pub resources_left_out: u64,
}

impl ReadCounts {
    /// What was left out of rows that were kept, by reason.
    #[must_use]
    pub fn left_out(&self) -> [(&'static str, u64); 14] {
        [
            ("number_unreadable", self.numbers_unreadable),
            ("number_not_finite", self.numbers_not_finite),
            ("number_negative", self.numbers_negative),
            ("number_out_of_range", self.numbers_out_of_range),
            ("word_too_long", self.words_too_long),
            ("value_cut", self.values_cut),
            ("value_too_deep", self.values_too_deep),
            ("attribute_over_max", self.attributes_over_max),
            ("event_or_link_over_max", self.events_and_links_over_max),
            ("content_dropped", self.content_dropped),
            ("content_hashed", self.content_hashed),
            ("total_contradicted", self.totals_contradicted),
            ("sampling_unreadable", self.sampling_unreadable),
            ("resource_left_out", self.resources_left_out),
        ]
    }

    #[inline]
    pub(super) fn wrote(&mut self, written: Written) {
        match written {
            Written::Whole => {}
            Written::Cut => self.values_cut += 1,
            Written::TooDeep => self.values_too_deep += 1,
        }
    }

    pub(super) fn note(&mut self, why: BadNumber) {
        *match why {
            BadNumber::Unreadable => &mut self.numbers_unreadable,
            BadNumber::NotFinite => &mut self.numbers_not_finite,
            BadNumber::Negative => &mut self.numbers_negative,
            BadNumber::OutOfRange => &mut self.numbers_out_of_range,
        } += 1;
    }
}
