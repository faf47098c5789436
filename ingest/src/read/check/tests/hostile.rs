//! What no client should send: no panic, no overflow, no unbounded work, and a count of what was left out.

use super::*;
use crate::read::SchemaError;
use std::fmt::Write as _;

fn deep(levels: usize) -> String {
    "[".repeat(levels) + &"]".repeat(levels)
}

fn of_answer(reader: &mut Reader, text: &str) -> Row {
    read_with(
        reader,
        &json!({"gen_ai.operation.name": "chat", "gen_ai.completion.0.content": text}),
        0,
    )
}

fn of_call(reader: &mut Reader, parameters: &str, arguments: &str) -> Row {
    let of = json!({
        "gen_ai.operation.name": "chat",
        "llm.tools.0.tool.json_schema": format!(r#"{{"name": "f", "parameters": {parameters}}}"#),
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.name": "f",
        "llm.output_messages.0.message.tool_calls.0.tool_call.function.arguments": arguments,
    });
    read_with(reader, &of, 0)
}

#[test]
fn an_answer_too_long_is_not_checked_and_counted() {
    let mut reader = reader(&[("r", "true")]);
    let long = json!("x".repeat(1 << 20)).to_string();
    check(&of_answer(&mut reader, &long), &json!({"json_checks": null}));
    assert_eq!(reader.counts().answers_unchecked, 1);
    check(&of_answer(&mut reader, "1"), &json!({"json_checks": "r=ok"}));
}

#[test]
fn depth_is_invalid_and_never_overflows() {
    let tree = r##"{"anyOf": [{"type": "integer"}, {"type": "array", "items": {"$ref": "#"}}]}"##;
    let mut reader = reader(&[("r", tree)]);
    for (levels, verdict) in [(60, "r=ok"), (100, "r=invalid"), (100_000, "r=invalid")] {
        check(&of_answer(&mut reader, &deep(levels)), &json!({"json_checks": verdict}));
    }
    for (levels, valid) in [(60, true), (100, false), (20_000, false)] {
        check(
            &of_call(&mut reader, tree, &deep(levels)),
            &json!({"tool_args_valid": valid}),
        );
    }
    check(
        &of_call(&mut reader, &deep(20_000), "{}"),
        &json!({"tools_version": null, "tool_name": "f"}),
    );
    let messages = json!({"gen_ai.operation.name": "chat", "gen_ai.output.messages": deep(100_000)});
    check(&read_with(&mut reader, &messages, 0), &json!({"json_checks": null}));
}

#[test]
fn a_catastrophic_pattern_matches_in_linear_time_or_is_refused() {
    let catastrophic = r#"{"type": "string", "pattern": "^(a+)+$"}"#;
    let mut reader = reader(&[("r", catastrophic)]);
    let text = json!("a".repeat(50_000) + "!").to_string();
    check(&of_answer(&mut reader, &text), &json!({"json_checks": "r=invalid"}));
    let mut schemas = AnswerSchemas::default();
    for pattern in [r"^(?=a)b", r"(a)\1", "(((a{1000}){1000}){1000})", "("] {
        let schema = json!({"pattern": pattern}).to_string();
        let refused = schemas.declare("x", &schema);
        assert!(
            matches!(refused, Err(SchemaError::Unusable(_))),
            "{pattern}: {refused:?}"
        );
        check(
            &of_call(&mut reader, &schema, "{}"),
            &json!({"tool_args_valid": null, "tool_name": "f"}),
        );
    }
    assert_eq!(reader.counts().tool_calls_unchecked, 4);
}

#[test]
fn nothing_is_ever_fetched() {
    let mut schemas = AnswerSchemas::default();
    for target in [
        "http://127.0.0.1:9/schema.json",
        "https://json-schema.org/draft/2020-12/schema",
        "file:///etc/passwd",
        "other.json",
        "/etc/passwd",
    ] {
        let schema = json!({"type": "object", "properties": {"x": {"$ref": target}}}).to_string();
        let Err(SchemaError::Unusable(why)) = schemas.declare("x", &schema) else {
            panic!("{target} was taken");
        };
        assert!(why.contains("$defs") && why.contains(target), "{why}");
        let mut reader = reader(&[]);
        check(&of_call(&mut reader, &schema, "{}"), &json!({"tool_args_valid": null}));
        assert_eq!(reader.counts().tool_calls_unchecked, 1);
    }
    assert!(
        schemas
            .declare("x", r#"{"$schema": "http://127.0.0.1:9/meta"}"#)
            .is_err()
    );
    assert!(schemas.declare("x", r##"{"$ref": "#/$defs/missing"}"##).is_err());
    assert!(schemas.is_empty());
}

#[test]
fn recursion_and_references_that_multiply_end() {
    let mut doubling = String::from(r##"{"$ref": "#/$defs/a0", "$defs": {"a60": {"type": "integer"}"##);
    for i in 0..60 {
        let next = format!(r##"{{"$ref": "#/$defs/a{}"}}"##, i + 1);
        let _ = write!(doubling, r#","a{i}": {{"allOf": [{next}, {next}]}}"#);
    }
    doubling.push_str("}}");
    let mut chain = String::from(r##"{"$ref": "#/$defs/a0", "$defs": {"a200": {"type": "integer"}"##);
    for i in 0..200 {
        let _ = write!(chain, r##","a{i}": {{"$ref": "#/$defs/a{}"}}"##, i + 1);
    }
    chain.push_str("}}");
    let hidden = doubling.replacen("{", r##"{"properties": {"default": {"$ref": "#/$defs/a0"}}, "##, 1);
    let branching = r##"{"anyOf": [
        {"type": "array", "items": {"$ref": "#"}, "maxItems": 1, "minItems": 2},
        {"type": "array", "items": {"$ref": "#"}},
        {"type": "array", "items": {"$ref": "#"}}
    ]}"##;
    let endless = r##"{"$ref": "#"}"##;
    let mutual =
        r##"{"allOf": [{"$ref": "#/$defs/b"}], "$defs": {"b": {"anyOf": [{"$ref": "#"}, {"type": "integer"}]}}}"##;
    for (schema, arguments) in [
        (doubling.as_str(), "1"),
        (hidden.as_str(), r#"{"default": 1}"#),
        (chain.as_str(), "1"),
        (branching, deep(60).as_str()),
        (endless, "{}"),
        (mutual, "1"),
    ] {
        let mut reader = reader(&[]);
        let row = of_call(&mut reader, schema, arguments);
        assert_eq!(row["tool_name"], "f");
        assert!(row["tools_version"].as_str().unwrap().starts_with("sha256:"));
    }
    let many = json!((0..300).map(|_| json!({"$ref": "#"})).collect::<Vec<_>>());
    let refused = AnswerSchemas::default().declare("x", &json!({"anyOf": many}).to_string());
    assert!(matches!(refused, Err(SchemaError::Unusable(why)) if why.contains("references")));
}

#[test]
fn floods_of_pieces_and_definitions_stay_bounded() {
    let mut flood = json!({"gen_ai.operation.name": "chat"});
    for i in 0..3_000 {
        flood[format!("llm.output_messages.{i}.message.content")] = json!("x");
    }
    let mut reader = reader(&[("r", "true")]);
    check(&read_with(&mut reader, &flood, 0), &json!({"json_checks": null}));
    assert_eq!(reader.counts().answers_unchecked, 1);
    for i in 0..1_000 {
        let row = of_call(&mut reader, &format!(r#"{{"const": {i}}}"#), &i.to_string());
        check(&row, &json!({"tool_args_valid": true}));
    }
    let wide = json!({"enum": (0..20_000).collect::<Vec<_>>()}).to_string();
    let long = json!("x".repeat(60_000)).to_string();
    check(&of_call(&mut reader, &wide, &long), &json!({"tool_args_valid": null}));
    check(
        &of_call(&mut reader, "{}", &json!("x".repeat(70_000)).to_string()),
        &json!({"tool_args_valid": null}),
    );
    assert_eq!(reader.counts().tool_calls_unchecked, 2);
}

#[test]
fn text_that_is_not_utf8_has_no_checks_and_is_refused_as_ever() {
    let good = request(
        &json!({"gen_ai.operation.name": "chat", "gen_ai.completion.0.content": "WRONG"}),
        0,
    );
    let at = good.windows(5).position(|window| window == b"WRONG").unwrap();
    let mut bad = good;
    bad[at] = 0xff;
    let mut reader = reader(&[("r", "true")]);
    assert_eq!(reader.read_traces(&bad, Nanos(77)), Err(crate::read::ReadError::Utf8));
    assert_eq!(reader.rows(), 0);
}

#[test]
fn schemas_that_cannot_be_declared_say_why() {
    let mut schemas = AnswerSchemas::default();
    let says = |refused: Result<(), SchemaError>, word: &str| {
        let why = refused.unwrap_err().to_string();
        assert!(why.contains(word), "{why}");
    };
    says(schemas.declare("a,b", "true"), "commas");
    says(schemas.declare("", "true"), "route");
    says(schemas.declare("r", "{\n  \"type\": \n}"), "line 3");
    says(schemas.declare("r", r#"{"type": "strnig"}"#), "/type");
    says(schemas.declare("r", &deep(70)), "nested");
    schemas.declare("r", "true").unwrap();
    says(schemas.declare("r", "true"), "anyOf");
    for i in 1..crate::read::SCHEMAS_MAX {
        schemas.declare(&format!("r{i}"), "true").unwrap();
    }
    says(schemas.declare("more", "true"), "64");
    assert_eq!(schemas.len(), 64);
}
