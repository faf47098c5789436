//! The same field more than once where a message has it once: protobuf merges, and so does the reader.
//!
//! Not drawn: two arrays, or two lists of pairs, as one value. Prost joins them; here the last one counts, since what is
//! read stands in one piece in the request. No client is known to send it.

use super::{
    super::{ContentPolicy, Reader},
    messages::{ANY, Dice, EVENT, PAIR, REQUEST, RESOURCE_SPANS, SCOPE, SCOPE_SPANS, SPAN, Shape, request},
    messages::{take_varint, varint},
    oracle::{compare, config},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, any_value::Value as Any},
    trace::v1::{Span, Status},
};
use prost::Message;
use std::sync::Arc;

fn field(number: u64, inner: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    varint(number << 3 | 2, &mut out);
    varint(inner.len() as u64, &mut out);
    out.extend(inner);
    out
}

fn is(shape: &'static Shape, other: &'static Shape) -> bool {
    std::ptr::eq(shape, other)
}

/// What an earlier copy of a field may have said. Values are scalars, or nothing.
fn earlier(dice: &mut Dice, number: u64, shape: &'static Shape) -> Vec<u8> {
    let scalar = |dice: &mut Dice| {
        let value = match dice.below(5) {
            0 => None,
            1 => Some(Any::StringValue("earlier".to_owned())),
            2 => Some(Any::IntValue(7)),
            3 => Some(Any::BoolValue(true)),
            _ => Some(Any::DoubleValue(0.5)),
        };
        AnyValue { value }.encode_to_vec()
    };
    if is(shape, &PAIR) && number == 2 {
        field(2, &scalar(dice))
    } else if is(shape, &PAIR) && number == 1 {
        field(1, b"earlier.key")
    } else if is(shape, &ANY) {
        scalar(dice)
    } else if is(shape, &SPAN) {
        match number {
            1..=8 => Span {
                trace_id: vec![1; 16],
                name: "earlier".to_owned(),
                kind: 3,
                start_time_unix_nano: 5,
                ..Span::default()
            }
            .encode_to_vec(),
            15 => {
                let message = "earlier".to_owned();
                field(15, &Status { message, code: 2 }.encode_to_vec())
            }
            _ => Vec::new(),
        }
    } else if is(shape, &EVENT) && number == 2 {
        field(2, b"exception")
    } else if is(shape, &SCOPE) && number == 1 {
        field(1, b"earlier")
    } else if is(shape, &SCOPE_SPANS) && number == 1 {
        let name = "earlier".to_owned();
        let scope = InstrumentationScope {
            name,
            ..InstrumentationScope::default()
        };
        field(1, &scope.encode_to_vec())
    } else {
        Vec::new()
    }
}

/// What a later copy may say that says nothing.
fn later(dice: &mut Dice, number: u64, shape: &'static Shape) -> Vec<u8> {
    let singular = [(&PAIR, 2), (&SPAN, 15), (&SCOPE_SPANS, 1), (&RESOURCE_SPANS, 1)];
    let is_singular = singular.iter().any(|(of, n)| is(shape, of) && *n == number);
    if is_singular && dice.one_in(3) {
        field(number, &[])
    } else {
        Vec::new()
    }
}

/// The same message, with fields before others that say something else, and fields after others that say nothing.
fn said_again(message: &[u8], shape: &'static Shape, dice: &mut Dice) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = message;
    while !rest.is_empty() {
        let key = take_varint(&mut rest);
        let number = key >> 3;
        if dice.one_in(3) {
            out.extend(earlier(dice, number, shape));
        }
        varint(key, &mut out);
        match key & 7 {
            0 => varint(take_varint(&mut rest), &mut out),
            1 => out.extend(rest.split_off(..8).unwrap()),
            5 => out.extend(rest.split_off(..4).unwrap()),
            _ => {
                let len = usize::try_from(take_varint(&mut rest)).unwrap();
                let inner = rest.split_off(..len).unwrap();
                let of_inner = shape.0.iter().find(|(known, _)| u64::from(*known) == number);
                let inner = of_inner.map_or_else(|| inner.to_vec(), |(_, of)| said_again(inner, of, dice));
                varint(inner.len() as u64, &mut out);
                out.extend(inner);
            }
        }
        out.extend(later(dice, number, shape));
    }
    out
}

#[test]
fn what_is_said_more_than_once_is_merged_as_prost_does() {
    for content in [ContentPolicy::Drop, ContentPolicy::Keep] {
        let mut reader = Reader::new(Arc::new(config(content)));
        for seed in 0..250 {
            let mut dice = Dice(seed);
            let body = request(&mut dice).encode_to_vec();
            let again = said_again(&body, &REQUEST, &mut dice);
            let merged = ExportTraceServiceRequest::decode(again.as_slice()).unwrap();
            compare(
                &again,
                &merged,
                &mut reader,
                content,
                &format!("seed {seed} said again, {content:?}"),
            );
        }
    }
}
