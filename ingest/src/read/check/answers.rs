//! The JSON Schemas that users declare for the answers of their routes.

use super::schema::Schema;
use serde_json::Value as Json;
use xxhash_rust::xxh3::xxh3_128;

/// Schemas that may be declared.
pub const SCHEMAS_MAX: usize = 64;
/// Longest declared schema, bytes.
pub const SCHEMA_BYTES_MAX: usize = 256 << 10;
/// Longest answer that is checked, bytes.
pub const ANSWER_BYTES_MAX: usize = 256 << 10;
/// Longest route of a schema, bytes: as long as that of a release.
const ROUTE_BYTES_MAX: usize = 256;

/// Why a schema was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SchemaError {
    /// One more than [`SCHEMAS_MAX`].
    #[error("there are more than {SCHEMAS_MAX} schemas; declare them for the routes that matter most")]
    TooMany,
    /// A name that is none, or that `json_checks` could not be split at.
    #[error(
        "`{0}` cannot be the route of a schema: write a name of 1 to {ROUTE_BYTES_MAX} bytes without commas and \
         control characters"
    )]
    Route(String),
    /// A second schema for one route.
    #[error("route `{0}` has a schema already; join the two with `anyOf`")]
    Twice(String),
    /// Longer than [`SCHEMA_BYTES_MAX`].
    #[error("the schema has {0} bytes, more than {SCHEMA_BYTES_MAX}")]
    TooLong(usize),
    /// No JSON.
    #[error("the schema is not JSON: {0}")]
    Syntax(String),
    /// JSON, and no schema that can be used.
    #[error("the schema cannot be used: {0}")]
    Unusable(String),
}

/// A schema per route, compiled.
#[derive(Debug, Default)]
pub struct AnswerSchemas {
    by_route: Vec<(Box<str>, Schema)>,
    /// What each was compiled from, by digest: two that were declared alike are the same.
    texts: Vec<u128>,
}

impl PartialEq for AnswerSchemas {
    fn eq(&self, other: &Self) -> bool {
        let routes = |of: &Self| of.by_route.iter().map(|(route, _)| route.clone()).collect::<Vec<_>>();
        self.texts == other.texts && routes(self) == routes(other)
    }
}

impl AnswerSchemas {
    /// Declares the schema, a JSON text, of a route's answers.
    ///
    /// # Errors
    /// [`SchemaError`]; nothing is declared then.
    pub fn declare(&mut self, route: &str, schema: &str) -> Result<(), SchemaError> {
        let is_name = (1..=ROUTE_BYTES_MAX).contains(&route.len());
        if !is_name || route.contains(|c: char| c == ',' || c.is_control()) {
            return Err(SchemaError::Route(route.to_owned()));
        }
        if self.by_route.iter().any(|(known, _)| **known == *route) {
            return Err(SchemaError::Twice(route.to_owned()));
        }
        if self.by_route.len() == SCHEMAS_MAX {
            return Err(SchemaError::TooMany);
        }
        if schema.len() > SCHEMA_BYTES_MAX {
            return Err(SchemaError::TooLong(schema.len()));
        }
        let parsed: Json = serde_json::from_str(schema).map_err(|e| SchemaError::Syntax(e.to_string()))?;
        let compiled = Schema::compile(&parsed).map_err(SchemaError::Unusable)?;
        self.by_route.push((route.into(), compiled));
        self.texts.push(xxh3_128(schema.as_bytes()));
        Ok(())
    }

    /// Number of schemas.
    #[must_use]
    pub const fn len(&self) -> usize {
        self.by_route.len()
    }

    /// Whether none is declared: then no answer is looked at.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.by_route.is_empty()
    }

    /// Checks an answer against the schema of `route`, or against every one if the route is not known. Writes
    /// `route=ok` and `route=invalid`, separated by commas, in the order of declaration; nothing if none was tried.
    pub(super) fn check(&self, route: Option<&[u8]>, answer: &str, out: &mut Vec<u8>) {
        let tried = |name: &str| route.is_none_or(|route| route == name.as_bytes());
        let mut parsed: Option<Option<Json>> = None;
        for (name, schema) in self.by_route.iter().filter(|(name, _)| tried(name)) {
            let value = parsed.get_or_insert_with(|| serde_json::from_str(answer).ok());
            let is_valid = value.as_ref().is_some_and(|value| schema.accepts(value));
            if !out.is_empty() {
                out.push(b',');
            }
            out.extend_from_slice(name.as_bytes());
            out.extend_from_slice(if is_valid { b"=ok" } else { b"=invalid" });
        }
    }
}
