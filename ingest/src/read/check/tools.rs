//! Tools that a request offers: their identity over all dialects, and whether a model's calls of them are right.

use super::{
    output::{Arguments, Call, MESSAGES_BYTES_MAX, json, text_of},
    pieces::{OfTool, Piece, Pieces, tool},
    schema::Schema,
};
use crate::read::value::Value;
use hashbrown::HashMap;
use serde_json::Value as Json;
use sha2::{Digest, Sha256};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    sync::{Arc, OnceLock},
};
use xxhash_rust::xxh3::Xxh3;

/// Sets of definitions that are kept read and compiled.
const TOOLSETS_MAX: usize = 256;
/// Definitions kept read and compiled, bytes of their text.
const TOOLSETS_BYTES_MAX: usize = 8 << 20;
/// Tools of one request.
const TOOLS_MAX: usize = 512;
/// Longest arguments that are checked, bytes.
pub(super) const ARGUMENTS_BYTES_MAX: usize = 64 << 10;
/// Bytes of arguments times bytes of schema beyond which arguments are not checked: bounds the work on both.
const WORK_MAX: usize = 1 << 28;
/// Digits of a version that stands for captured definitions.
const VERSION_DIGITS: usize = 16;

/// The tools of one request.
pub(super) struct Toolset {
    /// `sha256:` and the first digits over name, description and parameters of all tools, by name.
    pub(super) version: String,
    tools: BTreeMap<String, Tool>,
}

struct Tool {
    description: Option<String>,
    parameters: Option<Json>,
    /// Length of the parameters as text.
    bytes: usize,
    compiled: OnceLock<Option<Schema>>,
}

/// What came of checking a call's arguments.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Valid,
    Invalid,
    /// Nothing to check them against, or hidden.
    Nothing,
    /// Beyond a limit, or the schema cannot be used.
    Unchecked,
}

impl Toolset {
    fn of(tools: BTreeMap<String, Tool>) -> Self {
        let mut text = String::from("[");
        for (name, tool) in &tools {
            text.push_str(if text.len() > 1 { ",{" } else { "{" });
            if let Some(description) = &tool.description {
                let _ = write!(text, "\"description\":{},", Json::from(description.as_str()));
            }
            let _ = write!(text, "\"name\":{}", Json::from(name.as_str()));
            if let Some(parameters) = &tool.parameters {
                text.push_str(",\"parameters\":");
                canonical(parameters, &mut text);
            }
            text.push('}');
        }
        text.push(']');
        let digits = hex::encode(Sha256::digest(text));
        Self {
            version: format!("sha256:{}", &digits[..VERSION_DIGITS]),
            tools,
        }
    }

    /// Judges one call. A tool that was not offered, and arguments that are no JSON, are invalid.
    pub(super) fn judge(&self, call: &Call<'_>) -> Verdict {
        let Some(tool) = self.tools.get(&*call.name) else {
            return Verdict::Invalid;
        };
        let (parsed, bytes);
        let arguments = match &call.arguments {
            Arguments::Absent => return Verdict::Nothing,
            Arguments::Text(text) if text.len() > ARGUMENTS_BYTES_MAX => return Verdict::Unchecked,
            Arguments::Text(text) => {
                let Ok(json) = serde_json::from_str::<Json>(text) else {
                    return Verdict::Invalid;
                };
                parsed = json;
                bytes = text.len();
                &parsed
            }
            Arguments::Parsed(json) => {
                bytes = json.to_string().len();
                json
            }
        };
        let Some(parameters) = &tool.parameters else {
            return Verdict::Nothing;
        };
        if bytes > ARGUMENTS_BYTES_MAX || bytes.saturating_mul(tool.bytes) > WORK_MAX {
            return Verdict::Unchecked;
        }
        let compiled = tool.compiled.get_or_init(|| Schema::compile(parameters).ok());
        match compiled {
            None => Verdict::Unchecked,
            Some(schema) if schema.accepts(arguments) => Verdict::Valid,
            Some(_) => Verdict::Invalid,
        }
    }
}

/// Keys sorted, no spaces: one text for one value, whoever wrote it.
fn canonical(value: &Json, out: &mut String) {
    match value {
        Json::Object(keys) => {
            let sorted: BTreeMap<&str, &Json> = keys.iter().map(|(key, value)| (key.as_str(), value)).collect();
            out.push('{');
            for (i, (key, value)) in sorted.into_iter().enumerate() {
                let _ = write!(out, "{}{}:", if i > 0 { "," } else { "" }, Json::from(key));
                canonical(value, out);
            }
            out.push('}');
        }
        Json::Array(items) => {
            out.push('[');
            for (i, item) in items.iter().enumerate() {
                out.push_str(if i > 0 { "," } else { "" });
                canonical(item, out);
            }
            out.push(']');
        }
        scalar => drop(write!(out, "{scalar}")),
    }
}

/// Sets of definitions that were seen, by a digest of their text. What cannot be read is remembered too.
#[derive(Default)]
pub(super) struct Toolsets {
    known: HashMap<u128, Option<Arc<Toolset>>, ahash::RandomState>,
    bytes: usize,
}

/// Sources of definitions that are one attribute, after those that are one attribute a tool.
const WHOLE: [Piece; 4] = [
    Piece::Definitions,
    Piece::AiTools,
    Piece::ModelRequest,
    Piece::Parameters,
];
const FLAT: [Piece; 3] = [Piece::LlmTool, Piece::GenAiTool, Piece::Function];

impl Toolsets {
    /// The tools that a request offers, from the first source that has any.
    pub(super) fn offered(&mut self, pieces: &Pieces<'_>) -> Option<Arc<Toolset>> {
        for source in FLAT {
            let mut digest = Xxh3::new();
            let mut bytes = 0;
            for (_, key, value) in pieces.of(|piece| piece == source) {
                let text = value.text().unwrap_or_default();
                for part in [key.as_bytes(), text] {
                    digest.update(&part.len().to_le_bytes());
                    digest.update(part);
                    bytes += part.len();
                }
            }
            if bytes > 0 {
                let found = self.known_or(digest.digest128(), bytes, || flat(pieces, source));
                if found.is_some() {
                    return found;
                }
            }
        }
        WHOLE.into_iter().find_map(|source| {
            let value = pieces.get(source)?;
            let raw = match value {
                Value::Text(text) | Value::Array(text) | Value::Pairs(text) => text,
                _ => return None,
            };
            if source == Piece::Parameters && !mentions_tools(raw) {
                return None;
            }
            let mut digest = Xxh3::with_seed(source as u64);
            digest.update(raw);
            self.known_or(digest.digest128(), raw.len(), || whole(&value))
        })
    }

    fn known_or(
        &mut self,
        digest: u128,
        bytes: usize,
        read: impl FnOnce() -> BTreeMap<String, Tool>,
    ) -> Option<Arc<Toolset>> {
        if let Some(known) = self.known.get(&digest) {
            return known.clone();
        }
        if bytes > MESSAGES_BYTES_MAX {
            return None;
        }
        if self.known.len() >= TOOLSETS_MAX || self.bytes + bytes > TOOLSETS_BYTES_MAX {
            self.known.clear();
            self.bytes = 0;
        }
        let tools = read();
        let toolset = (!tools.is_empty()).then(|| Arc::new(Toolset::of(tools)));
        self.bytes += bytes;
        self.known.insert(digest, toolset.clone());
        toolset
    }
}

/// Most parameters have no tools: they need not be parsed.
fn mentions_tools(parameters: &[u8]) -> bool {
    std::str::from_utf8(parameters).is_ok_and(|text| text.contains("\"tools\"") || text.contains("\"functions\""))
}

/// Tools whose fields are attributes of their own.
fn flat(pieces: &Pieces<'_>, source: Piece) -> BTreeMap<String, Tool> {
    let mut listed: BTreeMap<usize, serde_json::Map<String, Json>> = BTreeMap::new();
    let mut tools = BTreeMap::new();
    for (_, key, value) in pieces.of(|piece| piece == source) {
        let Some((_, number, of)) = tool(key) else {
            continue;
        };
        let text = || text_of(&value).map(|text| Json::from(&*text));
        let (field, held) = match of {
            OfTool::Whole => {
                json(&value)
                    .into_iter()
                    .for_each(|definition| define(&definition, &mut tools));
                continue;
            }
            OfTool::Name => ("name", text()),
            OfTool::Description => ("description", text()),
            OfTool::Parameters => ("parameters", json(&value)),
        };
        if let Some(held) = held {
            listed.entry(number).or_default().insert(field.to_owned(), held);
        }
    }
    for definition in listed.into_values() {
        define(&Json::Object(definition), &mut tools);
    }
    tools
}

/// Tools of a list, or of an object that has one.
fn whole(value: &Value<'_>) -> BTreeMap<String, Tool> {
    let mut tools = BTreeMap::new();
    let Some(parsed) = json(value) else {
        return tools;
    };
    let lists: Vec<&Json> = match &parsed {
        Json::Object(keys) => ["tools", "functions", "function_tools", "output_tools"]
            .iter()
            .filter_map(|key| keys.get(*key))
            .collect(),
        list => vec![list],
    };
    for definition in lists.into_iter().filter_map(Json::as_array).flatten() {
        // Vercel AI: an array of JSON texts
        match definition.as_str().map(serde_json::from_str::<Json>) {
            Some(Ok(definition)) => define(&definition, &mut tools),
            Some(Err(_)) => {}
            None => define(definition, &mut tools),
        }
    }
    tools
}

/// Adds the tools of one definition, in whatever provider's form.
fn define(definition: &Json, tools: &mut BTreeMap<String, Tool>) {
    if let Some(declared) = ["functionDeclarations", "function_declarations"]
        .iter()
        .find_map(|key| definition.get(key)?.as_array())
    {
        for declaration in declared.iter().filter(|inner| inner.get("name").is_some()) {
            define(declaration, tools);
        }
        return;
    }
    let inner = ["function", "toolSpec"]
        .iter()
        .find_map(|key| definition.get(key).filter(|inner| inner.is_object()));
    let fields = inner.unwrap_or(definition);
    // a provider's own tool has a type and no name
    let Some(name) = ["name", "type"].iter().find_map(|key| fields.get(key)?.as_str()) else {
        return;
    };
    let parameters = ["parameters", "inputSchema", "input_schema", "parameters_json_schema"]
        .iter()
        .find_map(|key| fields.get(key).filter(|schema| !schema.is_null()));
    let parameters = parameters.map(|schema| {
        let wrapped = ["json", "jsonSchema"]
            .iter()
            .find_map(|key| schema.get(key).filter(|s| s.is_object()));
        let mut schema = wrapped.unwrap_or(schema).clone();
        // which draft it was written in is the client's habit, not the tool's
        if let Some(keys) = schema.as_object_mut() {
            keys.remove("$schema");
        }
        schema
    });
    if tools.len() < TOOLS_MAX {
        let description = fields.get("description").and_then(Json::as_str);
        tools.entry(name.to_owned()).or_insert_with(|| Tool {
            description: description.filter(|text| !text.is_empty()).map(str::to_owned),
            bytes: parameters.as_ref().map_or(0, |schema| schema.to_string().len()),
            parameters,
            compiled: OnceLock::new(),
        });
    }
}
