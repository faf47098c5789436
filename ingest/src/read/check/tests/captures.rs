//! What the captured requests come to.

use super::*;
use crate::read::Reader;
use std::{collections::BTreeMap, path::Path};

/// Calls of a client's captured requests.
fn calls(client: &str, reader: &mut Reader) -> Vec<Row> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../testdata/captures")
        .join(client);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .unwrap()
        .map(|file| file.unwrap().path())
        .collect();
    files.sort();
    let mut rows = Vec::new();
    for file in files {
        let name = file.to_string_lossy().into_owned();
        let body = std::fs::read(&file).unwrap();
        if name.ends_with(".traces.otlp.pb") {
            reader.read_traces(&body, Nanos(77)).unwrap();
        } else if name.ends_with(".traces.otlp.raw.json") {
            let body = crate::door::from_json(crate::intake::Signal::Traces, &body).unwrap();
            reader.read_traces(&body, Nanos(77)).unwrap();
        } else {
            continue;
        }
        rows.extend(reader.take().iter().flat_map(|section| cells::rows(&section.rows)));
    }
    rows.retain(|row| row.get("role") == Some(&json!("call")));
    assert!(rows.len() > 2, "{client}");
    rows
}

const CLIENTS: [&str; 9] = [
    "openinference-openai",
    "openinference-langchain",
    "otel-genai-openai-latest",
    "otel-openai-v2-latest",
    "traceloop-openai",
    "traceai-openai",
    "vercel-ai",
    "pydantic-ai",
    "litellm-otel",
];

#[test]
fn every_captured_tool_call_is_found_and_right() {
    for client in CLIENTS {
        let rows = calls(client, &mut reader(&[]));
        // its spans carry messages, and the definitions nowhere
        let has_definitions = client != "otel-openai-v2-latest";
        let asked = rows.iter().filter(|row| row.get("tool_name").is_some());
        let (mut right, mut named) = (0, 0);
        for row in asked {
            assert_eq!(row["tool_name"], "get_order", "{client}");
            assert_ne!(row.get("tool_args_valid"), Some(&json!(false)), "{client}: {row:#?}");
            named += 1;
            right += usize::from(row.get("tool_args_valid") == Some(&json!(true)));
        }
        assert!(named > 0, "{client}");
        assert_eq!(right, if has_definitions { named } else { 0 }, "{client}");
    }
}

#[test]
fn the_same_tools_have_the_same_version_whoever_saw_them() {
    let mut by_client = BTreeMap::new();
    for client in CLIENTS {
        let rows = calls(client, &mut reader(&[]));
        let mut versions: Vec<Value> = rows
            .iter()
            .filter_map(|row| row.get("tools_version").cloned())
            .collect();
        versions.dedup();
        assert!(versions.len() <= 1, "{client}: {versions:?}");
        by_client.extend(versions.pop().map(|version| (client, version)));
    }
    // the same program, seen by five instrumentations
    let same = &by_client["openinference-openai"];
    for client in [
        "openinference-langchain",
        "otel-genai-openai-latest",
        "traceloop-openai",
        "traceai-openai",
    ] {
        assert_eq!(&by_client[client], same, "{client}");
    }
    // these send other schemas or descriptions
    for client in ["pydantic-ai", "vercel-ai", "litellm-otel"] {
        assert_ne!(&by_client[client], same, "{client}");
    }
    assert!(!by_client.contains_key("otel-openai-v2-latest"));
}

#[test]
fn every_captured_answer_is_checked_and_no_step_on_the_way() {
    let says_friday = r#"{"type": "string", "const": "Your order 4711 ships on Friday."}"#;
    for client in CLIENTS {
        // the answers are plain text: no JSON
        for row in calls(client, &mut reader(&[("support-chat", says_friday)])) {
            let asks = row.get("tool_name").is_some();
            let failed = row["status"] == "error";
            let checks = row.get("json_checks");
            if asks || failed {
                assert_eq!(checks, None, "{client}: {row:#?}");
            } else if let Some(checks) = checks {
                assert_eq!(checks, "support-chat=invalid", "{client}");
            }
        }
    }
}
