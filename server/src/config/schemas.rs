//! `[[json_schema]]`: what the answers of a route must look like.

use super::{
    section::{Findings, Section},
    sources::Sources,
};
use ingest::read::{AnswerSchemas, SchemaError};
use std::{ops::Range, path::Path};
use toml::{Spanned, de::DeValue};

const HELP: &str = "write `[[json_schema]]` on a line of its own, then route = \"support-chat\" and either \
                    file = \"schemas/answer.json\" or schema = '''{...}'''";

/// Every schema by itself, so that one wrong schema does not hide the next. Files are relative to `folder`.
pub fn schemas(
    listed: Spanned<DeValue<'_>>,
    folder: &Path,
    into: &mut AnswerSchemas,
    sources: &mut Sources,
    findings: &mut Findings,
) {
    let span = listed.span();
    let DeValue::Array(listed) = listed.into_inner() else {
        return findings.add(Some(span), "`json_schema` is a list of tables", Some(HELP.to_owned()));
    };
    for schema in listed {
        let span = schema.span();
        match schema.into_inner() {
            DeValue::Table(table) => {
                let section = Section::new("[[json_schema]]", table);
                declare(section, span, folder, into, sources, findings);
            }
            _ => findings.add(Some(span), "`json_schema` is a list of tables", Some(HELP.to_owned())),
        }
    }
}

fn declare(
    mut section: Section<'_>,
    span: Range<usize>,
    folder: &Path,
    into: &mut AnswerSchemas,
    sources: &mut Sources,
    findings: &mut Findings,
) {
    let before = findings.problems.len();
    let route = section.read_spanned::<String>("route", findings);
    let file = section.read_spanned::<String>("file", findings);
    let inline = section.read_spanned::<String>("schema", findings);
    section.finish(findings);
    if findings.problems.len() > before {
        return;
    }
    let mut refuse = |span: Range<usize>, message: String, help: Option<&str>| {
        findings.add(Some(span), message, help.map(str::to_owned));
    };
    let Some((route, route_span)) = route else {
        return refuse(span, "this schema is for no route".to_owned(), Some(HELP));
    };
    let (text, text_span, from) = match (file, inline) {
        (Some((file, span)), None) => match sources.read(&folder.join(&file)) {
            Ok(text) => (text, span, format!("`{file}`: ")),
            Err(cause) => {
                let help = "write the path relative to this file, as in file = \"schemas/answer.json\"";
                return refuse(span, format!("cannot read the schema `{file}`: {cause}"), Some(help));
            }
        },
        (None, Some((text, span))) => (text, span, String::new()),
        (Some(_), Some((_, span))) => {
            return refuse(
                span,
                "a schema stands in a `file` or in `schema`, not in both".to_owned(),
                None,
            );
        }
        (None, None) => return refuse(span, format!("route `{route}` has no schema"), Some(HELP)),
    };
    match into.declare(&route, &text) {
        Ok(()) => {}
        Err(error @ (SchemaError::Route(_) | SchemaError::Twice(_))) => refuse(route_span, error.to_string(), None),
        Err(error @ SchemaError::TooMany) => refuse(span, error.to_string(), None),
        Err(error) => refuse(text_span, format!("{from}{error}"), None),
    }
}
