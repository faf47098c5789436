//! The tables of `docs/attributes.md` are those of the code.

use super::super::{
    content_keys::{
        CONTENT_EVENTS, CONTENT_KEYS, CONTENT_PREFIXES, CONTENT_WORDS, ERROR_TEXT_KEYS, RAW_CONTENT_FIELDS,
    },
    slot::Source,
    sources::{COHORT_PREFIXES, FIRST_TOKEN_EVENTS, FLAG_EVENTS, SOURCES},
};
use std::{fmt::Write as _, fs, path::Path};

/// Set it to write the tables instead of comparing them.
const UPDATE: &str = "UPDATE_DOCS";
const BEGIN: &str = "<!-- from here on written by the test `the_tables_of_the_docs_are_those_of_the_code` -->\n";

fn list<'k>(words: impl IntoIterator<Item = &'k &'static str>) -> String {
    let words: Vec<String> = words.into_iter().map(|word| format!("`{word}`")).collect();
    words.join(", ")
}

fn row(out: &mut String, name: &str, source: &Source) {
    let mut keys = list(source.keys);
    if !source.late.is_empty() {
        let _ = write!(keys, "; late: {}", list(source.late));
    }
    let place = source.place.words();
    let _ = writeln!(out, "| {name} | {place} | {keys} | {} |", source.note);
}

fn tables() -> String {
    let mut out = String::from("\n## Columns\n\n| column | on | keys, in order | notes |\n| --- | --- | --- | --- |\n");
    for source in SOURCES {
        if let Some(column) = source.column {
            row(&mut out, &format!("`{column}`"), source);
        }
    }
    out += "\n## Keys that help to understand others\n\n| for | on | keys, in order | notes |\n| --- | --- | --- | --- |\n";
    for source in SOURCES.iter().filter(|source| source.column.is_none()) {
        row(&mut out, &format!("{:?}", source.slot), source);
    }
    let prefixes = list(&COHORT_PREFIXES);
    let _ = writeln!(
        out,
        "\nBefore a cohort key stands one of {prefixes} where clients copy it."
    );
    let _ = writeln!(out, "Events that tell of feature flags: {}.", list(FLAG_EVENTS));
    let _ = writeln!(out, "Events that are the first token: {}.", list(FIRST_TOKEN_EVENTS));
    out += "\n## What is content\n\n";
    for (what, words) in [
        ("Whole keys", CONTENT_KEYS),
        ("Keys that start with (unless a source of a column)", CONTENT_PREFIXES),
        ("Raw fields of LiteLLM, as in `llm.openai.messages`", RAW_CONTENT_FIELDS),
        ("Events whose attributes are all content", CONTENT_EVENTS),
        (
            "Last words of unknown keys of spans, events and links, if the value is a text, a list or pairs",
            CONTENT_WORDS,
        ),
        ("Texts of errors", ERROR_TEXT_KEYS),
    ] {
        let _ = writeln!(out, "- {what}: {}", list(words));
    }
    out
}

#[test]
fn the_tables_of_the_docs_are_those_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/attributes.md");
    let docs = fs::read_to_string(&path).unwrap();
    let (before, written) = docs.split_once(BEGIN).unwrap_or((&docs, ""));
    let tables = tables();
    if std::env::var_os(UPDATE).is_some() {
        fs::write(&path, format!("{before}{BEGIN}{tables}")).unwrap();
        return;
    }
    assert!(
        written == tables,
        "docs/attributes.md no longer says what sources.rs and content_keys.rs say; write its tables anew with\n  \
         {UPDATE}=1 cargo test -p ingest the_tables_of_the_docs"
    );
}

#[test]
fn every_column_with_sources_is_declared_and_every_slot_has_one_entry() {
    let mut columns = Vec::new();
    for source in SOURCES {
        if let Some(column) = source.column {
            assert!(proto::schema::SPANS.index_of(column).is_ok(), "{column}");
            assert!(!columns.contains(&column), "{column} twice");
            columns.push(column);
        }
    }
    for slot in super::super::slot::Slot::ALL {
        assert_eq!(
            SOURCES.iter().filter(|source| source.slot == *slot).count(),
            1,
            "{slot:?}"
        );
    }
}
