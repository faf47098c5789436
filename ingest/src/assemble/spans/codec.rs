//! Spans as bytes, for as long as their trace waits: an id, flags, and what differs from the span before.
//!
//! ```text
//! span:  id u64 | flags u24 | start - start before | end - start | [parent] | [response u64] | [retries] | [label set]
//!        | [names] | [numbers of a call]
//! ```
//!
//! Integers without a width are LEB128 varints, signed ones zigzag. A parent within the trace is its place in it. Nothing
//! here outlives a state of the engine, whose version goes up when this changes.

use crate::assemble::span::{Call, Labels, Role, Span, Subject, Tri};
use proto::Nanos;
use std::{num::NonZeroU64, sync::Arc};

const ROLES: [Role; 5] = [Role::Call, Role::Tool, Role::Evaluator, Role::Server, Role::Other];
const TRIS: [Tri; 3] = [Tri::Unknown, Tri::Yes, Tri::No];

// Places of flags; those with a width say so.
const ROLE_3: u32 = 0;
const ENTRY: u32 = 3;
const ERROR: u32 = 4;
const SHADOW: u32 = 5;
const TIMED_OUT: u32 = 6;
const RATE_LIMITED: u32 = 7;
const FALLBACK_2: u32 = 8;
const CACHE_HIT_2: u32 = 10;
const PARENT_WITHIN: u32 = 12;
const PARENT_BEYOND: u32 = 13;
const RESPONSE: u32 = 14;
const RETRIES: u32 = 15;
const LABELS: u32 = 16;
const SUBJECT: u32 = 17;
/// The names are those of the span before.
const SAME_SUBJECT: u32 = 18;
const CALL: u32 = 19;

/// Writes spans, which are sorted by id; the nth has label set `labels[nth]`, or the first if there are no `labels`.
pub(super) fn write(spans: &[Span], labels: &[u32], out: &mut Vec<u8>) {
    varint(spans.len() as u64, out);
    let mut start_before = 0_i64;
    let mut subject_before: Option<&Arc<Subject>> = None;
    for (nth, span) in spans.iter().enumerate() {
        let parent = span.parent.map(|parent| {
            let within = spans.binary_search_by_key(&parent.get(), |other| other.id);
            (parent, within.ok())
        });
        let subject = span.subject.as_ref();
        let is_same = subject.zip(subject_before).is_some_and(|(own, before)| own == before);
        let mut flags = (span.role as u32) << ROLE_3 | (span.fallback as u32) << FALLBACK_2;
        flags |= (span.cache_hit as u32) << CACHE_HIT_2;
        for (is_set, place) in [
            (span.entry, ENTRY),
            (span.error, ERROR),
            (span.shadow, SHADOW),
            (span.timed_out, TIMED_OUT),
            (span.rate_limited, RATE_LIMITED),
            (matches!(parent, Some((_, Some(_)))), PARENT_WITHIN),
            (matches!(parent, Some((_, None))), PARENT_BEYOND),
            (span.response.is_some(), RESPONSE),
            (span.retries.is_some(), RETRIES),
            (!labels.is_empty(), LABELS),
            (subject.is_some(), SUBJECT),
            (is_same, SAME_SUBJECT),
            (span.call.is_some(), CALL),
        ] {
            flags |= u32::from(is_set) << place;
        }
        out.extend_from_slice(&span.id.to_le_bytes());
        out.extend_from_slice(&flags.to_le_bytes()[..3]);
        signed(span.start.0.wrapping_sub(start_before), out);
        signed(span.end.0.wrapping_sub(span.start.0), out);
        match parent {
            Some((_, Some(place))) => varint(place as u64, out),
            Some((parent, None)) => out.extend_from_slice(&parent.get().to_le_bytes()),
            None => {}
        }
        if let Some(response) = span.response {
            out.extend_from_slice(&response.get().to_le_bytes());
        }
        if let Some(retries) = span.retries {
            signed(retries.into(), out);
        }
        if let Some(set) = labels.get(nth) {
            varint((*set).into(), out);
        }
        if let Some(subject) = subject.filter(|_| !is_same) {
            for name in [&subject.session, &subject.user, &subject.mirror_key, &subject.request] {
                varint(name.as_ref().map_or(0, |name| name.len() as u64 + 1), out);
                out.extend_from_slice(name.as_deref().unwrap_or("").as_bytes());
            }
        }
        if let Some(call) = &span.call {
            write_call(call, out);
        }
        start_before = span.start.0;
        subject_before = subject;
    }
}

/// Reads what [`write`] wrote; `None` if the bytes are not that.
pub(super) fn read(bytes: &[u8], labels: &[Arc<Labels>]) -> Option<Vec<Span>> {
    let mut bytes = Bytes(bytes);
    let count = usize::try_from(bytes.varint()?).ok()?;
    let mut spans: Vec<Span> = Vec::with_capacity(count.min(bytes.0.len()));
    // places of parents, which may come later
    let mut within: Vec<(usize, usize)> = Vec::new();
    let mut start_before = 0_i64;
    for nth in 0..count {
        let id = bytes.u64()?;
        let flags = bytes.flags()?;
        let has = |place: u32| flags >> place & 1 == 1;
        let start = start_before.wrapping_add(bytes.signed()?);
        let end = start.wrapping_add(bytes.signed()?);
        let mut parent = None;
        if has(PARENT_WITHIN) {
            within.push((nth, usize::try_from(bytes.varint()?).ok()?));
        } else if has(PARENT_BEYOND) {
            parent = NonZeroU64::new(bytes.u64()?);
        }
        let response = if has(RESPONSE) {
            NonZeroU64::new(bytes.u64()?)
        } else {
            None
        };
        let retries = if has(RETRIES) {
            Some(i32::try_from(bytes.signed()?).ok()?)
        } else {
            None
        };
        let set = if has(LABELS) {
            usize::try_from(bytes.varint()?).ok()?
        } else {
            0
        };
        let subject = match (has(SUBJECT), has(SAME_SUBJECT)) {
            (false, _) => None,
            (true, true) => spans.last()?.subject.clone(),
            (true, false) => Some(Arc::new(Subject {
                session: bytes.name()?,
                user: bytes.name()?,
                mirror_key: bytes.name()?,
                request: bytes.name()?,
            })),
        };
        let call = if has(CALL) {
            Some(Box::new(read_call(&mut bytes)?))
        } else {
            None
        };
        spans.push(Span {
            id,
            parent,
            response,
            start: Nanos(start),
            end: Nanos(end),
            role: *ROLES.get((flags >> ROLE_3 & 7) as usize)?,
            entry: has(ENTRY),
            error: has(ERROR),
            shadow: has(SHADOW),
            timed_out: has(TIMED_OUT),
            rate_limited: has(RATE_LIMITED),
            fallback: *TRIS.get((flags >> FALLBACK_2 & 3) as usize)?,
            cache_hit: *TRIS.get((flags >> CACHE_HIT_2 & 3) as usize)?,
            retries,
            labels: Arc::clone(labels.get(set)?),
            subject,
            call,
        });
        start_before = start;
    }
    for (nth, place) in within {
        spans[nth].parent = NonZeroU64::new(spans.get(place)?.id);
    }
    Some(spans)
}

/// Flags of what is known, two of them for the verdict on tool arguments, then the known numbers.
fn write_call(call: &Call, out: &mut Vec<u8>) {
    let numbers = numbers(call);
    let mut flags = 0_u32;
    for (place, number) in numbers.iter().enumerate() {
        flags |= u32::from(number.is_some()) << place;
    }
    flags |= (Tri::from(call.tool_args_valid) as u32) << NUMBERS;
    varint(flags.into(), out);
    for number in numbers.into_iter().flatten() {
        signed(number, out);
    }
}

const NUMBERS: usize = 7;

fn numbers(call: &Call) -> [Option<i64>; NUMBERS] {
    [
        call.prompt,
        call.completion,
        call.cache_read,
        call.cache_write,
        call.reasoning,
        call.cost,
        call.ttft_us.map(u64::cast_signed),
    ]
}

fn read_call(bytes: &mut Bytes<'_>) -> Option<Call> {
    let flags = bytes.varint()?;
    let mut numbers = [None; NUMBERS];
    for (place, number) in numbers.iter_mut().enumerate() {
        if flags >> place & 1 == 1 {
            *number = Some(bytes.signed()?);
        }
    }
    Some(call_of(numbers, TRIS.get((flags >> NUMBERS) as usize)?.known()))
}

/// The inverse of [`numbers`].
fn call_of(numbers: [Option<i64>; NUMBERS], tool_args_valid: Option<bool>) -> Call {
    let [prompt, completion, cache_read, cache_write, reasoning, cost, ttft_us] = numbers;
    Call {
        prompt,
        completion,
        cache_read,
        cache_write,
        reasoning,
        cost,
        ttft_us: ttft_us.map(i64::cast_unsigned),
        tool_args_valid,
    }
}

fn varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

fn signed(value: i64, out: &mut Vec<u8>) {
    varint((value << 1 ^ value >> 63).cast_unsigned(), out);
}

struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(head)
    }

    fn u64(&mut self) -> Option<u64> {
        self.take(8)?.try_into().ok().map(u64::from_le_bytes)
    }

    fn flags(&mut self) -> Option<u32> {
        let bytes = self.take(3)?;
        Some(u32::from_le_bytes([bytes[0], bytes[1], bytes[2], 0]))
    }

    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = *self.take(1)?.first()?;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn signed(&mut self) -> Option<i64> {
        let value = self.varint()?;
        Some((value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    /// An absent name and an empty one differ. The outer `None` means that the bytes are none of ours.
    #[expect(clippy::option_option, reason = "two questions, two answers")]
    fn name(&mut self) -> Option<Option<Arc<str>>> {
        let Some(length) = self.varint()?.checked_sub(1) else {
            return Some(None);
        };
        let bytes = self.take(usize::try_from(length).ok()?)?;
        Some(Some(std::str::from_utf8(bytes).ok()?.into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::{array::uniform7, collection::vec, option, prelude::*};

    fn call() -> impl Strategy<Value = Call> {
        let number = option::of(prop_oneof![0..5_000_i64, any::<i64>()]);
        (uniform7(number), any::<Option<bool>>()).prop_map(|(numbers, valid)| call_of(numbers, valid))
    }

    fn subject() -> impl Strategy<Value = Subject> {
        let name = || option::of("[a-zé]{0,3}".prop_map(|name| Arc::from(name.as_str())));
        (name(), name(), name(), name()).prop_map(|(session, user, mirror_key, request)| Subject {
            session,
            user,
            mirror_key,
            request,
        })
    }

    fn span() -> impl Strategy<Value = Span> {
        let tri = || prop::sample::select(TRIS.to_vec());
        let time = || prop_oneof![1_800_000_000_000_000_000..1_800_000_900_000_000_000_i64, any::<i64>()];
        (
            (
                0..40_u64,
                option::of(0..60_u64),
                option::of(any::<u64>()),
                time(),
                time(),
            ),
            (prop::sample::select(ROLES.to_vec()), any::<[bool; 5]>(), tri(), tri()),
            option::of(any::<i32>()),
            option::of(subject().prop_map(Arc::new)),
            option::of(call().prop_map(Box::new)),
        )
            .prop_map(
                |((id, parent, response, start, end), (role, flags, fallback, cache_hit), retries, subject, call)| {
                    Span {
                        id,
                        parent: parent.and_then(NonZeroU64::new),
                        response: response.and_then(NonZeroU64::new),
                        start: Nanos(start),
                        end: Nanos(end),
                        role,
                        entry: flags[0],
                        error: flags[1],
                        shadow: flags[2],
                        timed_out: flags[3],
                        rate_limited: flags[4],
                        fallback,
                        cache_hit,
                        retries,
                        labels: Arc::default(),
                        subject,
                        call,
                    }
                },
            )
    }

    proptest! {
        #[test]
        fn spans_come_back_as_they_were(mut spans in vec(span(), 0..12), sets in vec(0..3_u32, 12), with_sets: bool) {
            spans.sort_by_key(|span| span.id);
            spans.dedup_by_key(|span| span.id);
            let named = |n: u32| Labels { split_ppm: Some(n), ..Labels::default() };
            let labels: Vec<Arc<Labels>> = (0..3).map(|n| Arc::new(named(n))).collect();
            for (span, set) in spans.iter_mut().zip(&sets) {
                span.labels = Arc::clone(&labels[if with_sets { *set as usize } else { 0 }]);
            }
            let mut bytes = Vec::new();
            write(&spans, if with_sets { &sets } else { &[] }, &mut bytes);
            prop_assert_eq!(read(&bytes, &labels), Some(spans));
            for end in 0..bytes.len() {
                prop_assert!(read(&bytes[..end], &labels).is_none_or(|spans| spans.is_empty()), "cut at {}", end);
            }
        }

        #[test]
        fn other_bytes_are_refused_or_read_but_never_harm(bytes in vec(any::<u8>(), 0..200)) {
            _ = read(&bytes, &[Arc::default()]);
        }
    }
}
