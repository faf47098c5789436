//! JSON Schemas, compiled: offline, with patterns that match in linear time, and within limits.

use jsonschema::{PatternOptions, Validator};
use serde_json::Value as Json;
use std::collections::HashMap;

/// Objects and arrays inside each other in a schema, or in what is checked against it: bounds the stack.
pub(super) const NESTING_MAX: usize = 64;
/// Parts inside each other, references followed.
const PATH_MAX: usize = 128;
/// Parts of one schema, those behind references counted as often as they are referred to.
const SIZE_MAX: usize = 50_000;
/// References in one schema.
const REFERENCES_MAX: usize = 256;
/// Patterns in one schema.
const PATTERNS_MAX: usize = 128;
/// Memory of one compiled pattern, bytes.
const PATTERN_BYTES_MAX: usize = 512 << 10;

/// A schema that is ready to judge.
#[derive(Debug)]
pub(super) struct Schema {
    validator: Validator,
}

impl Schema {
    /// Compiles a schema of Draft 4 to 2020-12 (the latest, if it names none).
    ///
    /// # Errors
    /// What is wrong, where, and what to do.
    pub(super) fn compile(schema: &Json) -> Result<Self, String> {
        if !depth_within(schema, NESTING_MAX) {
            return Err(format!(
                "it is nested more than {NESTING_MAX} levels deep; name parts under `$defs`"
            ));
        }
        Walk::new(schema).size(schema, 0)?;
        let patterns = PatternOptions::regex()
            .size_limit(PATTERN_BYTES_MAX)
            .dfa_size_limit(PATTERN_BYTES_MAX);
        let built = jsonschema::options()
            .offline()
            .should_validate_formats(false)
            .with_pattern_options(patterns)
            .build(schema);
        match built {
            Ok(validator) => Ok(Self { validator }),
            Err(error) => {
                let at = error.instance_path().to_string();
                let at = if at.is_empty() {
                    String::new()
                } else {
                    format!(" (at {at})")
                };
                Err(format!("{error}{at}"))
            }
        }
    }

    /// Whether it accepts a value; one that is nested too deep is never accepted.
    pub(super) fn accepts(&self, value: &Json) -> bool {
        depth_within(value, NESTING_MAX) && self.validator.is_valid(value)
    }
}

/// Keys whose values are data, not schemas.
const DATA_KEYS: [&str; 4] = ["const", "default", "enum", "examples"];
/// Keys whose schemas count where they are referred to.
const DEFINITIONS: [&str; 2] = ["$defs", "definitions"];

/// Keys that hold schemas by names of the user's.
const BY_NAME: [&str; 4] = ["properties", "patternProperties", "dependentSchemas", "dependencies"];

/// Walks a schema as a validator would: through its references, so that a few that double each other are seen for what
/// they come to.
struct Walk<'s> {
    root: &'s Json,
    /// What every visited part comes to, by its address; 1 while it is being visited, so that recursion ends.
    sizes: HashMap<usize, usize>,
    references: usize,
    patterns: usize,
    /// Whether `id` names a part, as it did in Draft 4.
    has_old_ids: bool,
}

impl<'s> Walk<'s> {
    fn new(root: &'s Json) -> Self {
        let draft = root["$schema"].as_str().unwrap_or_default();
        Self {
            root,
            sizes: HashMap::new(),
            references: 0,
            patterns: 0,
            has_old_ids: draft.contains("draft-04"),
        }
    }

    /// Number of parts, those behind references counted as often as they are referred to.
    fn size(&mut self, part: &'s Json, depth: usize) -> Result<usize, String> {
        if depth > PATH_MAX {
            return Err(format!("its parts and references are nested more than {PATH_MAX} deep"));
        }
        let address = std::ptr::from_ref(part).addr();
        if let Some(&known) = self.sizes.get(&address) {
            return Ok(known);
        }
        self.sizes.insert(address, 1);
        let mut size = 1_usize;
        match part {
            Json::Object(keys) => {
                for (key, value) in keys {
                    size = size.saturating_add(self.of_key(key, value, depth)?);
                }
            }
            Json::Array(items) => {
                for item in items {
                    size = size.saturating_add(self.size(item, depth + 1)?);
                }
            }
            _ => {}
        }
        if size > SIZE_MAX {
            return Err(format!("it comes to more than {SIZE_MAX} parts, references followed"));
        }
        self.sizes.insert(address, size);
        Ok(size)
    }

    fn of_key(&mut self, key: &str, value: &'s Json, depth: usize) -> Result<usize, String> {
        match (key, value) {
            ("$ref", Json::String(target)) => return self.refer(target, depth),
            ("$dynamicRef" | "$recursiveRef", Json::String(_)) => {
                return Err(format!("`{key}` is not supported; write `$ref`"));
            }
            ("$id", Json::String(_)) if depth > 0 => {
                return Err("only the whole schema may have an `$id`".to_owned());
            }
            ("id", Json::String(_)) if depth > 0 && self.has_old_ids => {
                return Err("only the whole schema may have an `id`".to_owned());
            }
            ("pattern", Json::String(_)) => self.patterns += 1,
            (_, Json::Object(named)) if BY_NAME.contains(&key) => {
                if key == "patternProperties" {
                    self.patterns += named.len();
                }
                // names are the user's here: one called `default` is a schema like any other
                return named
                    .values()
                    .try_fold(1_usize, |sum, part| Ok(sum.saturating_add(self.size(part, depth + 2)?)));
            }
            _ if DEFINITIONS.contains(&key) => return Ok(0),
            _ if DATA_KEYS.contains(&key) => return Ok(value.as_array().map_or(1, Vec::len)),
            _ => {}
        }
        if self.patterns > PATTERNS_MAX {
            return Err(format!("it has more than {PATTERNS_MAX} patterns"));
        }
        self.size(value, depth + 1)
    }

    /// Nothing is ever fetched: what a schema needs stands in it.
    fn refer(&mut self, target: &str, depth: usize) -> Result<usize, String> {
        self.references += 1;
        if self.references > REFERENCES_MAX {
            return Err(format!("it has more than {REFERENCES_MAX} references"));
        }
        let Some(pointer) = target.strip_prefix('#').filter(|p| p.is_empty() || p.starts_with('/')) else {
            return Err(format!(
                "`$ref` to `{target}`: nothing is fetched; put it under `$defs` and refer to `#/$defs/...`"
            ));
        };
        match self.root.pointer(pointer) {
            Some(part) => self.size(part, depth + 1),
            None => Err(format!("`$ref` to `{target}`: there is nothing at that place")),
        }
    }
}

/// Whether a value has at most `max` levels. A parsed text has 128 at most.
fn depth_within(value: &Json, max: usize) -> bool {
    match value {
        Json::Array(items) => max > 0 && items.iter().all(|item| depth_within(item, max - 1)),
        Json::Object(keys) => max > 0 && keys.values().all(|value| depth_within(value, max - 1)),
        _ => true,
    }
}
