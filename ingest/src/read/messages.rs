//! Messages that come in pieces: `llm.input_messages.0.message.content`, `gen_ai.prompt.0.role` and their like, put
//! together as one JSON array. Only done where content is kept or hashed.

use super::{
    ReadError,
    value::{Value, Written, write_json},
};
use std::collections::BTreeMap;

/// Whether a message went into a model or came out of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Input,
    Output,
}

/// How the keys of each dialect start, the most trusted first; a number follows.
const FAMILIES: [(&[u8], Side); 6] = [
    (b"llm.input_messages.", Side::Input),
    (b"gen_ai.input.messages.", Side::Input),
    (b"gen_ai.prompt.", Side::Input),
    (b"llm.output_messages.", Side::Output),
    (b"gen_ai.output.messages.", Side::Output),
    (b"gen_ai.completion.", Side::Output),
];
/// Words that OpenInference puts after every number; they say nothing.
const WRAPPERS: [&[u8]; 3] = [b"message", b"message_content", b"tool_call"];
/// Pieces of one span that are put together; the rest are left out.
const PIECES_MAX: usize = 4_096;
/// Words of a key behind its family; a piece with more is left out.
const DEPTH_MAX: usize = 16;

/// Whether a key is that of a piece of a message.
pub(super) fn is_piece(key: &[u8]) -> bool {
    let is_of = |family: &[u8]| {
        key.strip_prefix(family)
            .and_then(<[u8]>::first)
            .is_some_and(u8::is_ascii_digit)
    };
    FAMILIES.iter().any(|(family, _)| is_of(family))
}

/// Pieces of one span.
#[derive(Default)]
pub(super) struct Pieces<'a> {
    pieces: Vec<(&'a [u8], Value<'a>)>,
}

impl<'a> Pieces<'a> {
    pub(super) fn push(&mut self, key: &'a [u8], value: Value<'a>) {
        if self.pieces.len() < PIECES_MAX {
            self.pieces.push((key, value));
        }
    }

    /// The messages of one side as a JSON array, of the first dialect that has any.
    pub(super) fn json(&self, side: Side) -> Result<Option<Vec<u8>>, ReadError> {
        for (family, _) in FAMILIES.iter().filter(|(_, of)| *of == side) {
            let mut root = Node::default();
            for (key, value) in &self.pieces {
                if let Some(path) = key.strip_prefix(*family) {
                    root.put(path, *value);
                }
            }
            if !root.inner.is_empty() {
                let mut json = Vec::new();
                root.write(&mut json)?;
                return Ok(Some(json));
            }
        }
        Ok(None)
    }
}

/// A place in the messages. It may be both a value and hold others: that is how some clients send it.
#[derive(Default)]
struct Node<'a> {
    value: Option<Value<'a>>,
    inner: BTreeMap<Word<'a>, Node<'a>>,
}

/// Numbers sort as numbers, and make arrays.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Word<'a> {
    Number(u64),
    Name(&'a [u8]),
}

impl<'a> Word<'a> {
    fn of(word: &'a [u8]) -> Self {
        let number = std::str::from_utf8(word)
            .ok()
            .filter(|word| word.bytes().all(|b| b.is_ascii_digit()));
        number
            .and_then(|n| n.parse().ok())
            .map_or(Self::Name(word), Self::Number)
    }
}

impl<'a> Node<'a> {
    fn put(&mut self, path: &'a [u8], value: Value<'a>) {
        let words: Vec<&[u8]> = path.split(|&byte| byte == b'.').collect();
        if words.len() > DEPTH_MAX {
            return;
        }
        let mut node = self;
        let mut after_number = false;
        for word in words {
            if after_number && WRAPPERS.contains(&word) {
                after_number = false;
                continue;
            }
            let word = Word::of(word);
            after_number = matches!(word, Word::Number(_));
            node = node.inner.entry(word).or_default();
        }
        node.value.get_or_insert(value);
    }

    /// As deep as [`DEPTH_MAX`] at most.
    fn write(&self, out: &mut Vec<u8>) -> Result<(), ReadError> {
        if self.inner.is_empty() {
            return write(self.value.unwrap_or(Value::Empty), out);
        }
        let is_array = self.value.is_none() && self.inner.keys().all(|word| matches!(word, Word::Number(_)));
        out.push(if is_array { b'[' } else { b'{' });
        if let Some(value) = self.value {
            out.extend_from_slice(b"\"\":");
            write(value, out)?;
            out.push(b',');
        }
        for (at, (word, node)) in self.inner.iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            if !is_array {
                match word {
                    Word::Name(name) => write(Value::Text(name), out)?,
                    Word::Number(number) => out.extend_from_slice(format!("\"{number}\"").as_bytes()),
                }
                out.push(b':');
            }
            node.write(out)?;
        }
        out.push(if is_array { b']' } else { b'}' });
        Ok(())
    }
}

fn write(value: Value<'_>, out: &mut Vec<u8>) -> Result<(), ReadError> {
    if write_json(value, out, usize::MAX)? == Written::TooDeep {
        out.extend_from_slice(b"null");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(pieces: &[(&'static str, Value<'static>)], side: Side) -> Option<String> {
        let mut all = Pieces::default();
        for (key, value) in pieces {
            all.push(key.as_bytes(), *value);
        }
        all.json(side).unwrap().map(|json| String::from_utf8(json).unwrap())
    }

    #[test]
    fn pieces_become_messages_in_their_order() {
        let text = |text: &'static str| Value::Text(text.as_bytes());
        let pieces = [
            ("llm.input_messages.10.message.content", text("eleventh")),
            ("llm.input_messages.0.message.role", text("system")),
            ("llm.input_messages.0.message.content", text("be \"kind\"")),
            (
                "llm.input_messages.2.message.tool_calls.0.tool_call.function.name",
                text("get_order"),
            ),
            ("llm.input_messages.2.message.tool_calls.0.tool_call.id", text("call_1")),
            ("gen_ai.prompt.0.content", text("the same again")),
            ("gen_ai.completion.0.content", text("yes")),
            ("gen_ai.completion.0.finish_reason", text("stop")),
        ];
        assert_eq!(
            json(&pieces, Side::Input).unwrap(),
            r#"[{"content":"be \"kind\"","role":"system"},{"tool_calls":[{"function":{"name":"get_order"},"id":"call_1"}]},{"content":"eleventh"}]"#
        );
        assert_eq!(
            json(&pieces, Side::Output).unwrap(),
            r#"[{"content":"yes","finish_reason":"stop"}]"#
        );
    }

    #[test]
    fn a_value_that_also_holds_others_loses_neither() {
        let pieces = [
            ("gen_ai.prompt.0.content", Value::Text(b"leaf")),
            ("gen_ai.prompt.0.content.0.text", Value::Int(7)),
        ];
        assert_eq!(
            json(&pieces, Side::Input).unwrap(),
            r#"[{"content":{"":"leaf","0":{"text":7}}}]"#
        );
        assert_eq!(json(&pieces, Side::Output), None);
    }

    #[test]
    fn keys_that_are_no_pieces_are_left_alone() {
        for (key, expected) in [
            ("gen_ai.prompt.0.role", true),
            ("gen_ai.output.messages.3.message.content", true),
            ("gen_ai.prompt.name", false),
            ("gen_ai.prompt", false),
            ("gen_ai.prompt.", false),
            ("gen_ai.input.messages", false),
        ] {
            assert_eq!(is_piece(key.as_bytes()), expected, "{key}");
        }
        let deep = format!("gen_ai.prompt.0{}", ".x".repeat(100_000));
        let mut pieces = Pieces::default();
        pieces.push(deep.as_bytes(), Value::Text(b"v"));
        assert_eq!(pieces.json(Side::Input).unwrap(), None);
    }
}
