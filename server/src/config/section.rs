//! A table of a TOML file read key by key, so that one wrong value does not hide the next.

use super::problem::Problem;
use miette::NamedSource;
use serde::Deserialize;
use std::{ops::Range, sync::Arc};
use toml::{
    Spanned,
    de::{DeTable, DeValue, ValueDeserializer},
};

/// Longest spelling distance at which a known key is proposed for an unknown one.
const TYPO_DISTANCE_MAX: usize = 3;

/// Problems of one file as they are found.
#[derive(Debug)]
pub struct Findings {
    source: Arc<NamedSource<String>>,
    /// What was found.
    pub problems: Vec<Problem>,
}

impl Findings {
    /// Nothing found yet in `text`.
    #[must_use]
    pub fn new(file: &str, text: &str) -> Self {
        let source = Arc::new(NamedSource::new(file, text.to_owned()).with_language("TOML"));
        Self {
            source,
            problems: Vec::new(),
        }
    }

    /// Adds one.
    pub fn add(&mut self, span: Option<Range<usize>>, message: impl Into<String>, help: Option<String>) {
        let source = Arc::clone(&self.source);
        self.problems.push(Problem {
            source,
            span,
            message: message.into(),
            help,
        });
    }
}

/// One table; keys are taken out one by one and what remains at the end is unknown.
pub struct Section<'i> {
    name: String,
    table: DeTable<'i>,
    known: Vec<&'static str>,
}

impl<'i> Section<'i> {
    /// `name` as people write it, `[server]`.
    #[must_use]
    pub fn new(name: &str, table: DeTable<'i>) -> Self {
        Self {
            name: name.to_owned(),
            table,
            known: Vec::new(),
        }
    }

    /// Takes the value of a key as it stands, with where it stands.
    pub fn take(&mut self, key: &'static str) -> Option<Spanned<DeValue<'i>>> {
        self.known.push(key);
        self.table.remove(key)
    }

    /// Refuses a key that is planned and not built, so that nobody relies on it.
    pub fn refuse(&mut self, key: &str, message: String, help: Option<String>, findings: &mut Findings) {
        if let Some(value) = self.table.remove(key) {
            findings.add(Some(value.span()), message, help);
        }
    }

    /// Reads the value of a key, if it is there and right.
    pub fn read<T: Deserialize<'i>>(&mut self, key: &'static str, findings: &mut Findings) -> Option<T> {
        let value = self.take(key)?;
        let span = value.span();
        match T::deserialize(ValueDeserializer::from(value)) {
            Ok(value) => Some(value),
            Err(error) => {
                findings.add(
                    error.span().or(Some(span)),
                    format!("`{key}`: {}", error.message()),
                    None,
                );
                None
            }
        }
    }

    /// Reads the value of a key and where it stands.
    pub fn read_spanned<T: Deserialize<'i>>(
        &mut self,
        key: &'static str,
        findings: &mut Findings,
    ) -> Option<(T, Range<usize>)> {
        let span = self.table.get(key).map_or(0..0, Spanned::span);
        self.read(key, findings).map(|value| (value, span))
    }

    /// Reads a text and turns it into something with `parse`, whose error says what to do.
    pub fn parse<T>(
        &mut self,
        key: &'static str,
        findings: &mut Findings,
        parse: impl FnOnce(&str) -> Result<T, String>,
    ) -> Option<T> {
        let value = self.take(key)?;
        let span = value.span();
        let text = match value.get_ref() {
            DeValue::String(text) => text.to_string(),
            other => {
                let message = format!("`{key}` is a text in quotes, not a {}", other.type_str());
                findings.add(Some(span), message, None);
                return None;
            }
        };
        parse(&text)
            .map_err(|error| findings.add(Some(span), format!("`{key}`: {error}"), None))
            .ok()
    }

    /// Takes a table inside this one.
    pub fn table(&mut self, key: &'static str, findings: &mut Findings) -> Option<Section<'i>> {
        let value = self.take(key)?;
        let span = value.span();
        match value.into_inner() {
            DeValue::Table(table) => Some(Section::new(&format!("[{key}]"), table)),
            other => {
                let help = format!("write `[{key}]` on a line of its own, and its keys below");
                findings.add(
                    Some(span),
                    format!("`{key}` is a table, not a {}", other.type_str()),
                    Some(help),
                );
                None
            }
        }
    }

    /// Refuses what nobody took.
    pub fn finish(self, findings: &mut Findings) {
        for (key, _) in &self.table {
            let help = match closest(key.get_ref(), &self.known) {
                Some(known) => format!("did you mean `{known}`?"),
                None => format!("{} knows: {}", self.name, self.known.join(", ")),
            };
            findings.add(
                Some(key.span()),
                format!("unknown key `{}` in {}", key.get_ref(), self.name),
                Some(help),
            );
        }
    }
}

fn closest<'k>(word: &str, known: &[&'k str]) -> Option<&'k str> {
    let near = known.iter().map(|k| (distance(word, k), *k)).min()?;
    (near.0 <= TYPO_DISTANCE_MAX.min(word.len() / 2)).then_some(near.1)
}

/// Levenshtein distance, in bytes.
fn distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = row[0];
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_slip_of_the_pen_finds_its_key() {
        assert_eq!(closest("data_dri", &["data_dir", "http"]), Some("data_dir"));
        assert_eq!(closest("otlp-http", &["data_dir", "otlp_http"]), Some("otlp_http"));
        assert_eq!(closest("color", &["data_dir", "http"]), None);
        assert_eq!(distance("kitten", "sitting"), 3);
    }
}
