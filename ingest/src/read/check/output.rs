//! What a model answered: its text, or the tools it asks for, from whichever attributes the dialect has.

use super::{
    super::value::{Value, Written, write_json},
    pieces::{OfMessage, Piece, Pieces, message},
};
use serde_json::Value as Json;
use std::{borrow::Cow, collections::BTreeMap};

/// What instrumentations write in place of content they were told to hide.
const REDACTED: [&str; 2] = ["__REDACTED__", "redacted-by-litellm"];
/// Longest JSON text with messages that is looked into, bytes.
pub(super) const MESSAGES_BYTES_MAX: usize = 1 << 20;
/// Tools that one call may ask for; beyond, they are not checked.
const CALLS_MAX: usize = 256;

/// A tool that the model asks for.
#[derive(Debug, PartialEq)]
pub(super) struct Call<'a> {
    pub(super) name: Cow<'a, str>,
    pub(super) arguments: Arguments<'a>,
}

/// Arguments as they were captured.
#[derive(Debug, PartialEq)]
pub(super) enum Arguments<'a> {
    /// Hidden, or not sent.
    Absent,
    /// As the model wrote them.
    Text(Cow<'a, str>),
    /// Parsed by the instrumentation.
    Parsed(Json),
}

/// The tools that the answer asks for, of the first source that has any.
pub(super) fn calls<'a>(pieces: &Pieces<'a>, messages: &mut MessagesJson<'a>) -> Vec<Call<'a>> {
    let mut flat = flat(pieces, |of| {
        matches!(of, OfMessage::CallName(_) | OfMessage::CallArguments(_))
    });
    for source in [Piece::LlmMessage, Piece::GenAiMessage, Piece::Completion] {
        let calls: Vec<Call<'_>> = flat
            .iter_mut()
            .filter(|((of, _), _)| *of == source)
            .flat_map(|(_, message)| std::mem::take(&mut message.calls).into_values())
            .filter_map(|(name, arguments)| {
                let arguments = arguments.map_or(Arguments::Absent, |text| Arguments::Text(text.into()));
                Some(Call {
                    name: name?.into(),
                    arguments,
                })
            })
            .take(CALLS_MAX)
            .collect();
        if !calls.is_empty() {
            return calls;
        }
    }
    if messages.mentions("\"tool_call\"") {
        let calls: Vec<Call<'_>> = messages.parsed().map(calls_of_messages).unwrap_or_default();
        if !calls.is_empty() {
            return calls;
        }
    }
    match pieces.get(Piece::ToolCalls).and_then(|value| json(&value)) {
        Some(listed) => items(&listed).filter_map(call_of).take(CALLS_MAX).collect(),
        None => Vec::new(),
    }
}

/// The text of an answer that asks for no tools, from its most specific source. `None` if there is none, or it is hidden.
pub(super) fn text<'a>(pieces: &Pieces<'a>, messages: &mut MessagesJson<'a>) -> Option<Cow<'a, str>> {
    let whole = |piece| pieces.get(piece).and_then(|value| str_of(&value)).map(Cow::Borrowed);
    let flat = flat(pieces, |of| matches!(of, OfMessage::Content | OfMessage::Part(_)));
    let of_flat = |source| {
        let mut of_source = flat.iter().filter(|((of, _), _)| *of == source);
        of_source.find_map(|(_, message)| said(message.text()))
    };
    let object = pieces.get(Piece::Object).and_then(|value| text_of(&value));
    said(object)
        .or_else(|| said(whole(Piece::Text)))
        .or_else(|| of_flat(Piece::LlmMessage))
        .or_else(|| said(messages.parsed().and_then(text_of_messages).map(Cow::Owned)))
        .or_else(|| of_flat(Piece::GenAiMessage))
        .or_else(|| of_flat(Piece::Completion))
        .or_else(|| said(whole(Piece::Output).and_then(provider_text)))
}

/// A text that says something.
fn said(text: Option<Cow<'_, str>>) -> Option<Cow<'_, str>> {
    text.filter(|text| !text.trim().is_empty() && !REDACTED.contains(&text.trim()))
}

/// A message whose fields are attributes of their own.
#[derive(Default)]
struct Flat<'a> {
    content: Option<&'a str>,
    parts: BTreeMap<usize, &'a str>,
    /// Name and arguments by number.
    calls: BTreeMap<usize, (Option<&'a str>, Option<&'a str>)>,
}

impl<'a> Flat<'a> {
    fn text(&self) -> Option<Cow<'a, str>> {
        self.content
            .map(Cow::Borrowed)
            .or_else(|| (!self.parts.is_empty()).then(|| self.parts.values().copied().collect::<String>().into()))
    }
}

/// Messages whose fields are attributes of their own, with the wanted fields alone.
fn flat<'a>(pieces: &Pieces<'a>, is_wanted: fn(OfMessage) -> bool) -> BTreeMap<(Piece, usize), Flat<'a>> {
    let mut messages: BTreeMap<(Piece, usize), Flat<'a>> = BTreeMap::new();
    let is_flat = |piece| matches!(piece, Piece::LlmMessage | Piece::GenAiMessage | Piece::Completion);
    for (piece, key, value) in pieces.of(is_flat) {
        let Some(text) = str_of(&value) else {
            continue;
        };
        let Some((_, number, of)) = message(key).filter(|(.., of)| is_wanted(*of)) else {
            continue;
        };
        let message = messages.entry((piece, number)).or_default();
        match of {
            OfMessage::Content => message.content = Some(text),
            OfMessage::Part(number) => drop(message.parts.insert(number, text)),
            OfMessage::CallName(number) => message.calls.entry(number).or_default().0 = Some(text),
            OfMessage::CallArguments(number) => message.calls.entry(number).or_default().1 = Some(text),
        }
    }
    messages
}

/// `gen_ai.output.messages`, parsed when it is first needed.
pub(super) struct MessagesJson<'a> {
    source: Option<Cow<'a, str>>,
    parsed: Option<Option<Json>>,
}

impl<'a> MessagesJson<'a> {
    pub(super) fn of(pieces: &Pieces<'a>) -> Self {
        Self {
            source: pieces.get(Piece::Messages).and_then(|value| text_of(&value)),
            parsed: None,
        }
    }

    fn mentions(&self, what: &str) -> bool {
        self.source.as_deref().is_some_and(|source| source.contains(what))
    }

    fn parsed(&mut self) -> Option<&Json> {
        let source = self.source.as_deref();
        self.parsed
            .get_or_insert_with(|| serde_json::from_str(source?).ok())
            .as_ref()
    }
}

/// Tool calls of messages in the form `[{"role", "parts": [{"type": "tool_call", "name", "arguments"}]}]`.
fn calls_of_messages(messages: &Json) -> Vec<Call<'static>> {
    items(messages)
        .flat_map(|message| items(&message["parts"]))
        .filter(|part| part["type"] == "tool_call")
        .filter_map(call_of)
        .take(CALLS_MAX)
        .collect()
}

/// A call in any JSON form: names and arguments go by several names.
fn call_of(call: &Json) -> Option<Call<'static>> {
    let call = call.get("function").filter(|f| f.is_object()).unwrap_or(call);
    let name = ["name", "toolName"].iter().find_map(|key| call.get(key)?.as_str())?;
    let arguments = ["arguments", "input", "args"].iter().find_map(|key| call.get(key));
    Some(Call {
        name: name.to_owned().into(),
        arguments: match arguments {
            None | Some(Json::Null) => Arguments::Absent,
            Some(Json::String(text)) if text.is_empty() => Arguments::Absent,
            Some(Json::String(text)) => Arguments::Text(text.clone().into()),
            Some(parsed) => Arguments::Parsed(parsed.clone()),
        },
    })
}

/// Text of the first message that has any; parts of it are joined.
fn text_of_messages(messages: &Json) -> Option<String> {
    let from_model = |message: &&Json| {
        message["role"]
            .as_str()
            .is_none_or(|role| role == "assistant" || role == "model")
    };
    items(messages).filter(from_model).find_map(|message| {
        let parts = message.get("parts").or_else(|| message.get("content"))?;
        content_text(parts)
    })
}

/// A text, or the texts of parts.
fn content_text(content: &Json) -> Option<String> {
    if let Json::String(text) = content {
        return Some(text.clone());
    }
    let of_part = |part: &Json| {
        let is_text = part["type"]
            .as_str()
            .is_none_or(|ty| matches!(ty, "text" | "output_text"));
        let text = part.get("content").or_else(|| part.get("text"))?;
        is_text.then(|| text.as_str().map(str::to_owned))?
    };
    let texts: Vec<String> = items(content).filter_map(of_part).collect();
    (!texts.is_empty()).then(|| texts.concat())
}

/// The answer in a provider's response; any other text is the answer itself.
fn provider_text(text: Cow<'_, str>) -> Option<Cow<'_, str>> {
    let is_object = text.len() <= MESSAGES_BYTES_MAX && text.trim_start().starts_with('{');
    let Some(response) = is_object.then(|| serde_json::from_str::<Json>(&text).ok()).flatten() else {
        return Some(text);
    };
    if let Some(choice) = response["choices"].get(0) {
        let content = choice["message"].get("content").or_else(|| choice.get("text"))?;
        return content_text(content).map(Cow::Owned);
    }
    if let Some(generation) = response["generations"].get(0).and_then(|of_prompt| of_prompt.get(0)) {
        return generation["text"].as_str().map(|text| Cow::Owned(text.to_owned()));
    }
    if response["object"] == "response" {
        let of_item = |item: &Json| content_text(&item["content"]);
        return items(&response["output"]).find_map(of_item).map(Cow::Owned);
    }
    if response["type"] == "message" && response["content"].is_array() {
        return content_text(&response["content"]).map(Cow::Owned);
    }
    Some(text)
}

fn items(list: &Json) -> std::slice::Iter<'_, Json> {
    list.as_array().map_or(&[][..], Vec::as_slice).iter()
}

fn str_of<'a>(value: &Value<'a>) -> Option<&'a str> {
    std::str::from_utf8(value.text()?).ok()
}

/// A text, or nested values as the JSON they stand for; `None` if it is too long to look into.
pub(super) fn text_of<'a>(value: &Value<'a>) -> Option<Cow<'a, str>> {
    match value {
        Value::Text(text) if text.len() <= MESSAGES_BYTES_MAX => std::str::from_utf8(text).ok().map(Cow::Borrowed),
        Value::Array(_) | Value::Pairs(_) => {
            let mut json = Vec::new();
            let written = write_json(*value, &mut json, MESSAGES_BYTES_MAX).ok()?;
            (written == Written::Whole).then(|| String::from_utf8(json).ok().map(Cow::Owned))?
        }
        _ => None,
    }
}

/// What a text or nested values parse to.
pub(super) fn json(value: &Value<'_>) -> Option<Json> {
    serde_json::from_str(&text_of(value)?).ok()
}
