//! OTLP protobuf bytes to Arrow rows in one pass: no message structs, no allocation per attribute.
//!
//! ```text
//! body -> wire cursor -> keys: what does this attribute mean? -> slots: best value per column (order of trust)
//!                     \-> attributes, resource, events, links: maps of text, content left out
//! end of span -> resolve roles, models, errors, cost -> one row in the column builders -> take() -> store::Section
//! ```
//!
//! - Fields may arrive in any order, and in messages that are split; what is not known is stepped over.
//! - A span that cannot be placed (ids, times) is rejected alone and counted; a message that cannot be read takes all
//!   rows of its request with it, and is an error.
//! - Unknown is NULL, never 0. Numbers may arrive as texts; what is no number, NaN or negative is NULL and counted.
//! - Under [`ContentPolicy::Drop`] no prompt, output or tool argument reaches a builder.
//!
//! Words: `kind` is internal, server, client, producer or consumer, NULL if unspecified; `status` is ok, error or unset;
//! `role` as in the glossary; a stamped `color` is blue or green, else NULL: the resolver fills it. `service.name` is
//! `service_name`; `service.version` stays in `resource`. The status message is `attributes['otel.status_description']`.

mod annotation;
mod cells;
mod check;
mod columns;
mod config;
mod content;
mod content_keys;
mod counts;
mod entries;
mod evaluation;
mod extra;
mod keys;
mod maps;
mod messages;
mod priced;
mod resolve;
mod row;
mod rows;
mod slot;
mod slots;
mod sources;
mod span;
mod stamps;
mod texts;
mod value;
mod verdict;
mod wire;

use crate::intake::Accepted;
pub use check::{ANSWER_BYTES_MAX, AnswerSchemas, SCHEMA_BYTES_MAX, SCHEMAS_MAX, SchemaError};
pub use config::{ATTRIBUTES_MAX, EVENTS_MAX, LINKS_MAX, ReadConfig, TEXT_BYTES_MAX, VALUE_BYTES_MAX, WORD_BYTES_MAX};
use content::Policies;
pub use content::{ContentConfig, ContentPolicy, ContentRule};
pub use counts::{ReadCounts, Reject};
use entries::{Entries, Key, Writing};
pub use extra::{CONTENT, CONTENT_KEYS_MAX, EXTRA_KEYS_MAX, ExtraKeyError, ExtraKeys, FEATURE_FLAG};
use keys::KeyTable;
use proto::{Nanos, layout::Table};
use rows::{EvalRows, SpanRows};
use slot::Slot;
use slots::Slots;
pub(crate) use sources::FLAG_ATTRIBUTE;
use std::{fmt::Write as _, sync::Arc};
use store::Section;
use value::{check_utf8, key_value};
pub use verdict::{EVAL_RULES_MAX, EvalRule, EvalRuleError, EvalRules};
use wire::{Cursor, LEN, key};

/// How many times the size of its request the copies of a resource on every row may come to, before rows go without.
const RESOURCE_COPIES_MAX: usize = 8;
/// Copies of a resource that every request may have, bytes, however small it is.
const RESOURCE_COPIES_FREE: usize = 1 << 20;
/// Memory of the builders at which a request is refused: Arrow's offsets end at 2 GiB.
const BYTES_MAX: usize = 1 << 30;
/// How much larger the rows of a request may be than the request.
const GROWTH_MAX: usize = 8;

/// Why a request could not be read. None of its rows is kept; sending it again cannot help, except after `Full`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum ReadError {
    /// A field reaches past the end of its message.
    #[error("a field ends after its message does")]
    Truncated,
    /// A varint of more than 64 bits, or a field number of more than 29.
    #[error("a varint is longer than 64 bits")]
    Varint,
    /// An unknown wire type, field number 0, or a group that does not end or holds too many others.
    #[error("a field has a wire type or number that protobuf does not have")]
    WireType,
    /// Text that is not UTF-8.
    #[error("a text is not UTF-8")]
    Utf8,
    /// The builders are at their limit: take the rows, then read again.
    #[error("the batch being gathered is full, take its rows first")]
    Full,
}

/// Reads requests into rows. One per lane; not shared.
pub struct Reader {
    config: Arc<ReadConfig>,
    spans: SpanRows,
    evals: EvalRows,
    span_keys: KeyTable,
    resource_keys: KeyTable,
    /// Attributes of the resource whose spans are being read.
    resource: Entries,
    /// What becomes of content in the resource or span being read.
    policies: Policies,
    counts: ReadCounts,
    priced: priced::PricedCache,
    checks: check::Checks,
}

/// What one request came to so far.
#[derive(Default)]
struct Tally {
    accepted: u64,
    rejected: [u64; Reject::ALL.len()],
    /// Bytes that copies of resources may still take.
    resource_copies_left: usize,
}

impl Reader {
    /// An empty reader.
    #[must_use]
    pub fn new(config: Arc<ReadConfig>) -> Self {
        Self {
            span_keys: KeyTable::of_spans(&config.keys),
            resource_keys: KeyTable::of_resources(&config.keys),
            policies: config.content.of(None, None),
            config,
            spans: SpanRows::default(),
            evals: EvalRows::default(),
            resource: Entries::default(),
            counts: ReadCounts::default(),
            priced: priced::PricedCache::default(),
            checks: check::Checks::default(),
        }
    }

    /// Reads what comes next by another configuration. Call it while nothing is gathered: what was found for one
    /// configuration means nothing under the next.
    pub fn set_config(&mut self, config: Arc<ReadConfig>) {
        // Numbers of keys are those of their table.
        self.spans.truncate(0);
        self.span_keys = KeyTable::of_spans(&config.keys);
        self.resource_keys = KeyTable::of_resources(&config.keys);
        self.policies = config.content.of(None, None);
        self.priced.clear();
        self.config = config;
    }

    /// Reads an `ExportTraceServiceRequest`; its rows were received at `received`.
    ///
    /// # Errors
    /// [`ReadError`]; nothing of the request is kept then.
    pub fn read_traces(&mut self, body: &[u8], received: Nanos) -> Result<Accepted, ReadError> {
        self.whole(body, |reader, tally| {
            let mut request = Cursor::new(body);
            let mut slots = Slots::new();
            while let Some(resource_spans) = request.next_len(1)? {
                reader.read_resource_spans(resource_spans, received, &mut slots, tally)?;
            }
            Ok(())
        })
    }

    /// Reads an `ExportLogsServiceRequest`: evaluations and feedback become rows, other records are accepted and not
    /// stored.
    ///
    /// # Errors
    /// [`ReadError`]; nothing of the request is kept then.
    pub fn read_logs(&mut self, body: &[u8], received: Nanos) -> Result<Accepted, ReadError> {
        self.whole(body, |reader, tally| reader.read_log_records(body, received, tally))
    }

    /// Rows gathered so far, of all tables.
    #[must_use]
    pub fn rows(&self) -> usize {
        self.spans.rows + self.evals.rows
    }

    /// Memory of the gathered rows, bytes, about.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.spans.bytes() + self.evals.bytes()
    }

    /// What was left out since the reader was made.
    #[must_use]
    pub const fn counts(&self) -> &ReadCounts {
        &self.counts
    }

    /// The gathered rows, one section a table that has any; the reader is empty afterwards.
    pub fn take(&mut self) -> Vec<Section> {
        self.priced.clear();
        let taken = [(Table::Spans, self.spans.take()), (Table::Evals, self.evals.take())];
        let mut sections = Vec::new();
        for (table, rows) in taken {
            match rows {
                Ok(Some(rows)) => sections.push(Section { table, rows }),
                Ok(None) => {}
                // Every request was checked before its rows were kept, so this would be a fault of ours.
                Err(error) => {
                    tracing::error!(%error, table = table.as_str(), "rows do not form a batch")
                }
            }
        }
        sections
    }

    /// Reads a request whole or not at all.
    fn whole(
        &mut self,
        body: &[u8],
        read: impl FnOnce(&mut Self, &mut Tally) -> Result<(), ReadError>,
    ) -> Result<Accepted, ReadError> {
        if self.bytes() + body.len().saturating_mul(GROWTH_MAX) > BYTES_MAX {
            return Err(ReadError::Full);
        }
        let (spans, evals) = (self.spans.rows, self.evals.rows);
        let resource_copies_left = body.len().saturating_mul(RESOURCE_COPIES_MAX) + RESOURCE_COPIES_FREE;
        let mut tally = Tally {
            resource_copies_left,
            ..Tally::default()
        };
        let read = read(self, &mut tally).and_then(|()| {
            let is_text = self.spans.is_text_from(spans) && self.evals.is_text_from(evals);
            if is_text { Ok(()) } else { Err(ReadError::Utf8) }
        });
        if let Err(error) = read {
            self.spans.truncate(spans);
            self.evals.truncate(evals);
            self.priced.clear();
            return Err(error);
        }
        for (total, of_request) in self.counts.rejected.iter_mut().zip(tally.rejected) {
            *total += of_request;
        }
        Ok(tally.accepted())
    }

    fn read_resource_spans<'a>(
        &mut self,
        message: &'a [u8],
        received: Nanos,
        slots: &mut Slots<'a>,
        tally: &mut Tally,
    ) -> Result<(), ReadError> {
        let mut of_resource = Slots::new();
        self.read_resource(message, &mut of_resource)?;
        let mut scopes = Cursor::new(message);
        while let Some(scope_spans) = scopes.next_len(2)? {
            let scope = read_scope(scope_spans)?;
            let mut spans = Cursor::new(scope_spans);
            while let Some(span) = spans.next_len(2)? {
                let context = span::Context {
                    scope,
                    resource: &of_resource,
                    received,
                };
                self.read_span(span, &context, slots, tally)?;
            }
        }
        Ok(())
    }

    /// Attributes of `resource` in a `ResourceSpans`: into `self.resource` and the slots.
    fn read_resource<'a>(&mut self, message: &'a [u8], slots: &mut Slots<'a>) -> Result<(), ReadError> {
        self.resource.clear();
        if !self.config.content.rules.is_empty() {
            self.policies = self.policies_of_resource(message)?;
        }
        let mut fields = Cursor::new(message);
        while let found @ 1.. = fields.next_key()? {
            match found {
                RESOURCE => self.read_resource_fields(fields.bytes()?, slots)?,
                SCHEMA_URL => check_utf8(fields.bytes()?)?,
                other => fields.skip(other)?,
            }
        }
        if let Some(json) = slots.text(Slot::Metadata) {
            stamps::offer_metadata(json, &self.config.keys, slots);
        }
        if self.resource.is_text_from(0) {
            Ok(())
        } else {
            Err(ReadError::Utf8)
        }
    }

    fn read_resource_fields<'a>(&mut self, resource: &'a [u8], slots: &mut Slots<'a>) -> Result<(), ReadError> {
        const ATTRIBUTE: u32 = key(1, LEN);
        const ENTITY: u32 = key(3, LEN);
        let mut fields = Cursor::new(resource);
        while let found @ 1.. = fields.next_key()? {
            match found {
                ATTRIBUTE => self.read_resource_attribute(fields.bytes()?, slots)?,
                ENTITY => texts::check(&texts::ENTITY, fields.bytes()?)?,
                other => fields.skip(other)?,
            }
        }
        Ok(())
    }

    fn read_resource_attribute<'a>(&mut self, attribute: &'a [u8], slots: &mut Slots<'a>) -> Result<(), ReadError> {
        let (key, value) = key_value(attribute)?;
        let meaning = self.resource_keys.meaning(key);
        for &of in meaning.uses() {
            slots.offer(of, value);
        }
        let kept = Kept {
            policy: self.policies.of(meaning.content, &value),
            config: &self.config,
        };
        let to = Writing {
            keys: &mut self.spans.resource.keys,
            entries: &mut self.resource,
        };
        kept.push(meaning.key(key), &value, to, &mut self.counts)
    }
}

impl Tally {
    fn reject(&mut self, why: Reject) {
        self.rejected[why as usize] += 1;
    }

    fn accepted(&self) -> Accepted {
        let mut message = String::new();
        for (why, &count) in Reject::ALL.iter().zip(&self.rejected).filter(|(_, count)| **count > 0) {
            let before = if message.is_empty() { "" } else { "; " };
            let _ = write!(message, "{before}{count} rejected: {}", why.advice());
        }
        Accepted {
            accepted: self.accepted,
            rejected: self.rejected.iter().sum(),
            message,
        }
    }
}

/// Which attributes of a list are kept as text.
struct Kept<'c> {
    policy: ContentPolicy,
    config: &'c ReadConfig,
}

impl Kept<'_> {
    /// Appends an attribute, unless it is content or one too many; its text is checked then, since nothing else will.
    #[inline]
    fn push(
        &self,
        key: Key<'_>,
        value: &value::Value<'_>,
        to: Writing<'_>,
        counts: &mut ReadCounts,
    ) -> Result<(), ReadError> {
        let Writing { keys, entries } = to;
        if self.policy == ContentPolicy::Drop || entries.open_len() >= self.config.attributes_max {
            *(if self.policy == ContentPolicy::Drop {
                &mut counts.content_dropped
            } else {
                &mut counts.attributes_over_max
            }) += 1;
            check_utf8(key.text)?;
            return texts::check_value(value);
        }
        let code = keys.code(key)?;
        let written = if self.policy == ContentPolicy::Hash {
            counts.content_hashed += 1;
            entries.push_hash(code, value)?
        } else {
            entries.push(code, value, self.config.value_bytes_max)?
        };
        counts.wrote(written);
        Ok(())
    }
}

/// Whether a request of the metrics signal, which nobody reads, is one at all: its outer messages are stepped through.
///
/// # Errors
/// [`ReadError`], if it is not.
pub(crate) fn check_metrics(body: &[u8]) -> Result<(), ReadError> {
    let mut request = Cursor::new(body);
    while let Some(resource_metrics) = request.next_len(1)? {
        let mut fields = Cursor::new(resource_metrics);
        while let Some(scope_metrics) = fields.next_len(2)? {
            let mut metrics = Cursor::new(scope_metrics);
            while metrics.next_len(2)?.is_some() {}
        }
    }
    Ok(())
}

/// Key of `resource` in `ResourceSpans` and `ResourceLogs`.
const RESOURCE: u32 = key(1, LEN);
/// Key of `schema_url` there, and beside a scope.
const SCHEMA_URL: u32 = key(3, LEN);

/// Name of `scope` in a `ScopeSpans` or `ScopeLogs`, wherever it stands in the message; all texts around the spans and
/// records are checked on the way.
fn read_scope(message: &[u8]) -> Result<&[u8], ReadError> {
    const SCOPE: u32 = key(1, LEN);
    let mut name: &[u8] = &[];
    let mut fields = Cursor::new(message);
    while let found @ 1.. = fields.next_key()? {
        match found {
            SCOPE => {
                let scope = fields.bytes()?;
                texts::check(&texts::SCOPE, scope)?;
                let mut names = Cursor::new(scope);
                while let Some(last) = names.next_len(1)? {
                    name = last;
                }
            }
            SCHEMA_URL => check_utf8(fields.bytes()?)?,
            other => fields.skip(other)?,
        }
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
