//! One span: its fields in whatever order they come, then one row.

use super::{
    ContentPolicy, Kept, ReadError, Reader, Reject, Tally,
    annotation::Found,
    content_keys::{CONTENT_EVENTS, STATUS_DESCRIPTION},
    entries::Key,
    evaluation,
    keys::{Content, Use},
    messages::Pieces,
    resolve::{self, Role},
    slot::Slot,
    slots::Slots,
    sources::{
        EVALUATION_EVENT, EXCEPTION_MESSAGE, EXCEPTION_TYPE, FIRST_TOKEN_EVENT, FIRST_TOKEN_EVENTS, FLAG_ATTRIBUTE,
        FLAG_EVENTS,
    },
    stamps::Flag,
    texts::{self, replace},
    value::{Value, check_utf8, key_value},
    wire::{Cursor, FIXED64, LEN, VARINT, key},
};
use proto::Nanos;

/// What a span has from around it.
pub(super) struct Context<'c, 'a> {
    pub(super) scope: &'a [u8],
    pub(super) resource: &'c Slots<'a>,
    pub(super) received: Nanos,
}

/// Fields of a span as they stand on the wire.
#[derive(Default)]
pub(super) struct Fields<'a> {
    pub(super) trace_id: &'a [u8],
    pub(super) span_id: &'a [u8],
    pub(super) parent_span_id: &'a [u8],
    pub(super) name: &'a [u8],
    pub(super) kind: u64,
    pub(super) start: u64,
    pub(super) end: u64,
    pub(super) status: u64,
    pub(super) status_message: &'a [u8],
    pub(super) trace_state: &'a [u8],
    /// Numbered messages, where content is not dropped.
    pub(super) messages: Pieces<'a>,
}

/// Ids and times that were found good.
pub(super) struct Placed {
    pub(super) start: i64,
    pub(super) end: i64,
}

impl Reader {
    /// Reads one span into a row, or rejects it alone.
    pub(super) fn read_span<'a>(
        &mut self,
        message: &'a [u8],
        context: &Context<'_, 'a>,
        slots: &mut Slots<'a>,
        tally: &mut Tally,
    ) -> Result<(), ReadError> {
        slots.clear();
        if !self.config.content.rules.is_empty() {
            self.policies = self.policies_of_span(message, context.resource)?;
        }
        let mut found = Found::default();
        let fields = self.read_fields(message, slots, &mut found)?;
        match place(&fields) {
            Ok(placed) => {
                slots.offer_all(context.resource);
                if !fields.status_message.is_empty() {
                    self.keep(STATUS_DESCRIPTION.as_bytes(), fields.status_message, Content::ErrorText)?;
                }
                Flag::settle(&mut found.flag, self.config.keys.flags(), slots);
                if let Some(flag) = found.flag {
                    self.keep(FLAG_ATTRIBUTE.as_bytes(), flag.key, Content::No)?;
                }
                if !found.is_empty() {
                    let own = evaluation::Place {
                        trace_id: fields.trace_id,
                        span_id: fields.span_id,
                    };
                    let is_carrier = resolve::role(slots, fields.name, fields.kind) == Role::Evaluator;
                    self.read_found(&found, own, is_carrier, fields.end, context.received)?;
                }
                self.close_row(&fields, &placed, context, slots, tally)?;
                tally.accepted += 1;
            }
            Err(why) => {
                texts::check(&texts::SPAN, message)?;
                self.spans.attributes.discard();
                self.spans.events.discard();
                self.spans.links.discard();
                tally.reject(why);
            }
        }
        Ok(())
    }

    /// Keeps a text that came in no attribute of the span beside those that did.
    fn keep(&mut self, key: &[u8], text: &[u8], content: Content) -> Result<(), ReadError> {
        let value = Value::Text(text);
        let kept = Kept {
            policy: self.policies.of(content, &value),
            config: &self.config,
        };
        kept.push(Key::new(key), &value, self.spans.attributes.open(), &mut self.counts)
    }

    fn read_fields<'a>(
        &mut self,
        message: &'a [u8],
        slots: &mut Slots<'a>,
        evaluations: &mut Found<'a>,
    ) -> Result<Fields<'a>, ReadError> {
        const TRACE_ID: u32 = key(1, LEN);
        const SPAN_ID: u32 = key(2, LEN);
        const TRACE_STATE: u32 = key(3, LEN);
        const PARENT_SPAN_ID: u32 = key(4, LEN);
        const NAME: u32 = key(5, LEN);
        const KIND: u32 = key(6, VARINT);
        const START: u32 = key(7, FIXED64);
        const END: u32 = key(8, FIXED64);
        const ATTRIBUTE: u32 = key(9, LEN);
        const EVENT: u32 = key(11, LEN);
        const LINK: u32 = key(13, LEN);
        const STATUS: u32 = key(15, LEN);
        let mut fields = Fields::default();
        let mut cursor = Cursor::new(message);
        while let found @ 1.. = cursor.next_key()? {
            match found {
                ATTRIBUTE => self.read_attribute(cursor.bytes()?, slots, evaluations, &mut fields.messages)?,
                TRACE_ID => fields.trace_id = cursor.bytes()?,
                SPAN_ID => fields.span_id = cursor.bytes()?,
                TRACE_STATE => {
                    fields.trace_state = cursor.bytes()?;
                    check_utf8(fields.trace_state)?;
                }
                PARENT_SPAN_ID => fields.parent_span_id = cursor.bytes()?,
                NAME => replace(&mut fields.name, cursor.bytes()?)?,
                KIND => fields.kind = cursor.varint()?,
                START => fields.start = cursor.fixed64()?,
                END => fields.end = cursor.fixed64()?,
                EVENT => self.read_event(cursor.bytes()?, slots, evaluations)?,
                LINK => self.read_link(cursor.bytes()?, evaluations)?,
                STATUS => read_status(cursor.bytes()?, &mut fields)?,
                other => cursor.skip(other)?,
            }
        }
        Ok(fields)
    }

    #[inline]
    fn read_attribute<'a>(
        &mut self,
        message: &'a [u8],
        slots: &mut Slots<'a>,
        found: &mut Found<'a>,
        messages: &mut Pieces<'a>,
    ) -> Result<(), ReadError> {
        let (key, value) = key_value(message)?;
        let meaning = self.span_keys.meaning(key);
        if meaning.judges {
            found.attributes.push((key, value));
        }
        if meaning.message && self.policies.content != ContentPolicy::Drop {
            messages.push(key, value);
        }
        if let Some(piece) = meaning.piece {
            slots.pieces.push(piece, key, value);
        }
        for &of in meaning.uses() {
            slots.offer(of, value);
        }
        let kept = Kept {
            policy: self.policies.of(meaning.content, &value),
            config: &self.config,
        };
        kept.push(meaning.key(key), &value, self.spans.attributes.open(), &mut self.counts)
    }

    fn read_event<'a>(
        &mut self,
        message: &'a [u8],
        slots: &mut Slots<'a>,
        found: &mut Found<'a>,
    ) -> Result<(), ReadError> {
        const TIME: u32 = key(1, FIXED64);
        const NAME: u32 = key(2, LEN);
        let (mut time, mut name): (u64, &[u8]) = (0, &[]);
        let mut cursor = Cursor::new(message);
        while let found @ 1.. = cursor.next_key()? {
            match found {
                TIME => time = cursor.fixed64()?,
                NAME => replace(&mut name, cursor.bytes()?)?,
                other => cursor.skip(other)?,
            }
        }
        let is = |known: &str| name == known.as_bytes();
        if is(EVALUATION_EVENT) {
            found.events.push(message);
        }
        if FIRST_TOKEN_EVENTS.iter().any(|first| is(first)) {
            const OF: Use = Use::of(Slot::Ttft, FIRST_TOKEN_EVENT);
            slots.offer(OF, Value::Int(time.cast_signed()));
        }
        let flags = self.config.keys.flags();
        if !flags.is_empty() && FLAG_EVENTS.iter().any(|event| is(event)) {
            Flag::of_event(&mut found.flag, flags, message)?;
        }
        let is_kept = self.spans.events.open_len() < self.config.events_max;
        if !is_kept {
            texts::check(&texts::EVENT, message)?;
        }
        let is_content = CONTENT_EVENTS.iter().any(|content| is(content));
        let mut attributes = Cursor::new(message);
        while let Some(attribute) = attributes.next_len(3)? {
            let (key, value) = key_value(attribute)?;
            if key == EXCEPTION_TYPE.as_bytes() {
                const OF: Use = Use::of(Slot::ErrorType, EXCEPTION_TYPE);
                slots.offer(OF, value);
            } else if key == EXCEPTION_MESSAGE.as_bytes() {
                const OF: Use = Use::of(Slot::ErrorText, EXCEPTION_MESSAGE);
                slots.offer(OF, value);
            }
            if is_kept {
                let meaning = self.span_keys.meaning(key);
                let content = if is_content { Content::Yes } else { meaning.content };
                let kept = Kept {
                    policy: self.policies.of(content, &value),
                    config: &self.config,
                };
                kept.push(
                    meaning.key(key),
                    &value,
                    self.spans.events.attributes(),
                    &mut self.counts,
                )?;
            }
        }
        if is_kept {
            self.spans.events.push(i64::try_from(time).unwrap_or(0), name);
        } else {
            self.counts.events_and_links_over_max += 1;
        }
        Ok(())
    }

    fn read_link<'a>(&mut self, message: &'a [u8], found: &mut Found<'a>) -> Result<(), ReadError> {
        const TRACE_ID: u32 = key(1, LEN);
        const SPAN_ID: u32 = key(2, LEN);
        const TRACE_STATE: u32 = key(3, LEN);
        const ATTRIBUTE: u32 = key(4, LEN);
        if self.spans.links.open_len() >= self.config.links_max {
            self.counts.events_and_links_over_max += 1;
            return texts::check(&texts::LINK, message);
        }
        let (mut trace_id, mut span_id): (&'a [u8], &'a [u8]) = (&[], &[]);
        let mut cursor = Cursor::new(message);
        while let found @ 1.. = cursor.next_key()? {
            match found {
                TRACE_ID => trace_id = cursor.bytes()?,
                SPAN_ID => span_id = cursor.bytes()?,
                TRACE_STATE => check_utf8(cursor.bytes()?)?,
                ATTRIBUTE => {
                    let (key, value) = key_value(cursor.bytes()?)?;
                    let meaning = self.span_keys.meaning(key);
                    let kept = Kept {
                        policy: self.policies.of(meaning.content, &value),
                        config: &self.config,
                    };
                    kept.push(
                        meaning.key(key),
                        &value,
                        self.spans.links.attributes(),
                        &mut self.counts,
                    )?;
                }
                other => cursor.skip(other)?,
            }
        }
        found.target.get_or_insert(evaluation::Place { trace_id, span_id });
        self.spans.links.push(trace_id, span_id);
        Ok(())
    }
}

fn read_status<'a>(message: &'a [u8], fields: &mut Fields<'a>) -> Result<(), ReadError> {
    const MESSAGE: u32 = key(2, LEN);
    const CODE: u32 = key(3, VARINT);
    let mut cursor = Cursor::new(message);
    while let found @ 1.. = cursor.next_key()? {
        match found {
            MESSAGE => replace(&mut fields.status_message, cursor.bytes()?)?,
            CODE => fields.status = cursor.varint()?,
            other => cursor.skip(other)?,
        }
    }
    Ok(())
}

/// Whether an id has its length and is not all zero.
pub(super) fn is_id<const N: usize>(id: &[u8]) -> bool {
    id.len() == N && id.iter().any(|&byte| byte != 0)
}

fn place(fields: &Fields<'_>) -> Result<Placed, Reject> {
    if !is_id::<16>(fields.trace_id) {
        return Err(Reject::TraceId);
    }
    if !is_id::<8>(fields.span_id) {
        return Err(Reject::SpanId);
    }
    let start = i64::try_from(fields.start)
        .ok()
        .filter(|&start| start > 0)
        .ok_or(Reject::StartTime)?;
    let end = i64::try_from(fields.end)
        .ok()
        .filter(|&end| end >= start)
        .ok_or(Reject::EndTime)?;
    Ok(Placed { start, end })
}
