//! Which attributes answers and tool calls are read from. Only references are gathered while a span is read.

use super::super::value::Value;

/// Pieces gathered of one span; beyond, nothing of the span is checked.
pub(super) const PIECES_MAX: usize = 1024;
/// Digits of a message's, part's or tool's number.
const INDEX_DIGITS_MAX: usize = 4;

/// What an attribute contributes, in order of trust among those of one purpose.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(in crate::read) enum Piece {
    /// `ai.response.object`: the whole answer, parsed and written again.
    Object,
    /// `ai.response.text`: the whole answer.
    Text,
    /// `llm.output_messages.N.message.*` (OpenInference).
    LlmMessage,
    /// `gen_ai.output.messages`: a JSON text, or nested values.
    Messages,
    /// `gen_ai.output.messages.N.message.*` (traceAI).
    GenAiMessage,
    /// `gen_ai.completion.N.*`, `llm.completions.N.*` (OpenLLMetry, LiteLLM).
    Completion,
    /// `ai.response.toolCalls`: a JSON text.
    ToolCalls,
    /// `output.value`: the answer, or the provider's response as JSON.
    Output,
    /// `llm.tools.N.tool.json_schema` (OpenInference).
    LlmTool,
    /// `gen_ai.tool.definitions`: a JSON text, or nested values.
    Definitions,
    /// `gen_ai.tool.definitions.N.tool.json_schema` (traceAI).
    GenAiTool,
    /// `llm.request.functions.N.{name,description,parameters}` (OpenLLMetry, LiteLLM).
    Function,
    /// `ai.prompt.tools`: JSON texts (Vercel AI).
    AiTools,
    /// `model_request_parameters`: a JSON text (pydantic-ai).
    ModelRequest,
    /// `llm.invocation_parameters`, `gen_ai.request.parameters`: a JSON text that may have `tools`.
    Parameters,
}

const WHOLE: &[(&str, Piece)] = &[
    ("ai.response.object", Piece::Object),
    ("ai.response.text", Piece::Text),
    ("gen_ai.output.messages", Piece::Messages),
    ("ai.response.toolCalls", Piece::ToolCalls),
    ("output.value", Piece::Output),
    ("gen_ai.tool.definitions", Piece::Definitions),
    ("ai.prompt.tools", Piece::AiTools),
    ("model_request_parameters", Piece::ModelRequest),
    ("llm.invocation_parameters", Piece::Parameters),
    ("gen_ai.request.parameters", Piece::Parameters),
];

const MESSAGES: &[(&str, Piece)] = &[
    ("llm.output_messages.", Piece::LlmMessage),
    ("gen_ai.output.messages.", Piece::GenAiMessage),
    ("gen_ai.completion.", Piece::Completion),
    ("llm.completions.", Piece::Completion),
];

const TOOLS: &[(&str, Piece)] = &[
    ("llm.tools.", Piece::LlmTool),
    ("gen_ai.tool.definitions.", Piece::GenAiTool),
    ("llm.request.functions.", Piece::Function),
];

/// What of a message an attribute holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfMessage {
    Content,
    /// One of several contents.
    Part(usize),
    CallName(usize),
    CallArguments(usize),
}

/// What of a tool an attribute holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OfTool {
    Whole,
    Name,
    Description,
    Parameters,
}

impl Piece {
    /// Judged once a key; the key table remembers it.
    pub(in crate::read) fn of(key: &[u8]) -> Option<Self> {
        let key = std::str::from_utf8(key).ok()?;
        let whole = WHOLE.iter().find(|(known, _)| *known == key);
        whole
            .map(|(_, piece)| *piece)
            .or_else(|| message(key).map(|(piece, ..)| piece))
            .or_else(|| tool(key).map(|(piece, ..)| piece))
    }
}

/// Source, number of the message, and what of it.
pub(super) fn message(key: &str) -> Option<(Piece, usize, OfMessage)> {
    let (piece, rest) = MESSAGES
        .iter()
        .find_map(|(prefix, piece)| Some((*piece, key.strip_prefix(prefix)?)))?;
    let (number, rest) = numbered(rest)?;
    let rest = match piece {
        Piece::Completion => rest,
        _ => rest.strip_prefix("message.")?,
    };
    let of = match rest {
        "content" => OfMessage::Content,
        "function_call.name" | "function_call_name" => OfMessage::CallName(0),
        "function_call.arguments" | "function_call_arguments_json" => OfMessage::CallArguments(0),
        _ => {
            if let Some(part) = rest.strip_prefix("contents.") {
                let (number, "message_content.text") = numbered(part)? else {
                    return None;
                };
                OfMessage::Part(number)
            } else {
                let (number, field) = numbered(rest.strip_prefix("tool_calls.")?)?;
                let field = field.strip_prefix("tool_call.").unwrap_or(field);
                match field.strip_prefix("function.").unwrap_or(field) {
                    "name" => OfMessage::CallName(number),
                    "arguments" => OfMessage::CallArguments(number),
                    _ => return None,
                }
            }
        }
    };
    Some((piece, number, of))
}

/// Source, number of the tool, and what of it.
pub(super) fn tool(key: &str) -> Option<(Piece, usize, OfTool)> {
    let (piece, rest) = TOOLS
        .iter()
        .find_map(|(prefix, piece)| Some((*piece, key.strip_prefix(prefix)?)))?;
    let (number, field) = numbered(rest)?;
    let of = match (piece, field) {
        (Piece::Function, "name") => OfTool::Name,
        (Piece::Function, "description") => OfTool::Description,
        (Piece::Function, "parameters") => OfTool::Parameters,
        (Piece::LlmTool | Piece::GenAiTool, "tool.json_schema") => OfTool::Whole,
        _ => return None,
    };
    Some((piece, number, of))
}

/// `12.rest` as a number and what follows.
fn numbered(text: &str) -> Option<(usize, &str)> {
    let (number, rest) = text.split_once('.')?;
    let is_index = number.len() <= INDEX_DIGITS_MAX && number.bytes().all(|byte| byte.is_ascii_digit());
    is_index.then_some(())?;
    Some((number.parse().ok()?, rest))
}

/// The pieces of one span, as they came.
pub(in crate::read) struct Pieces<'a> {
    list: Vec<(Piece, &'a [u8], Value<'a>)>,
    is_over: bool,
}

impl<'a> Pieces<'a> {
    pub(in crate::read) const fn new() -> Self {
        Self {
            list: Vec::new(),
            is_over: false,
        }
    }

    pub(in crate::read) fn clear(&mut self) {
        self.list.clear();
        self.is_over = false;
    }

    #[inline]
    pub(in crate::read) fn push(&mut self, piece: Piece, key: &'a [u8], value: Value<'a>) {
        if self.list.len() < PIECES_MAX {
            self.list.push((piece, key, value));
        } else {
            self.is_over = true;
        }
    }

    #[inline]
    pub(in crate::read) const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Whether some were left out: then what is here may be half of something.
    pub(super) const fn is_over(&self) -> bool {
        self.is_over
    }

    /// Pieces of some kinds, in the order they came; their keys are text.
    pub(super) fn of(&self, is_wanted: impl Fn(Piece) -> bool) -> impl Iterator<Item = (Piece, &'a str, Value<'a>)> {
        let wanted = self.list.iter().filter(move |(piece, ..)| is_wanted(*piece));
        wanted.filter_map(|(piece, key, value)| Some((*piece, std::str::from_utf8(key).ok()?, *value)))
    }

    /// First value of a piece that stands alone.
    pub(super) fn get(&self, wanted: Piece) -> Option<Value<'a>> {
        let found = self
            .list
            .iter()
            .find(|(piece, _, value)| *piece == wanted && value.says_something());
        found.map(|(_, _, value)| *value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_that_are_no_pieces_are_not_gathered() {
        for key in [
            "llm.output_messages.0.message.role",
            "llm.input_messages.0.message.content",
            "llm.output_messages.x.message.content",
            "llm.output_messages.12345.message.content",
            "gen_ai.completion.0.role",
            "llm.tools.0.tool.name",
            "gen_ai.output.messages.0.message.contents.0.message_content.type",
            "",
        ] {
            assert_eq!(Piece::of(key.as_bytes()), None, "{key}");
        }
        assert_eq!(Piece::of(b"\xff"), None);
    }

    #[test]
    fn numbers_and_fields_of_messages_are_read() {
        let of = |key| message(key).unwrap();
        assert_eq!(
            of("llm.output_messages.2.message.contents.11.message_content.text"),
            (Piece::LlmMessage, 2, OfMessage::Part(11))
        );
        assert_eq!(
            of("gen_ai.output.messages.0.message.tool_calls.3.tool_call.function.arguments"),
            (Piece::GenAiMessage, 0, OfMessage::CallArguments(3))
        );
        assert_eq!(
            of("gen_ai.completion.1.tool_calls.0.name"),
            (Piece::Completion, 1, OfMessage::CallName(0))
        );
        assert_eq!(
            of("gen_ai.completion.0.function_call.arguments").2,
            OfMessage::CallArguments(0)
        );
    }
}
