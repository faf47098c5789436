//! Captured calls recorded a second time, as another library would: one call, its tokens once. And what only looks so.

use ingest::{
    assemble::{Assembly, Limits, Outcome},
    read::{ReadConfig, Reader},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value as Any},
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use prost::Message;
use proto::Nanos;
use std::{collections::BTreeMap, fs, path::Path, sync::Arc, time::Duration};
use store::{Filling, MicroBatch, Twin};

/// Client whose calls name their response, and lose cached and reasoning tokens.
const NAMES_RESPONSES: &str = "otel-openai-v2-latest";
/// Client whose calls name no response, and keep cached and reasoning tokens.
const NAMES_NONE: &str = "openinference-openai";
/// What two of its calls, of one trace, used: prompt, completion, cached, reasoning.
const CALLS: [(i64, i64, i64, i64); 2] = [(1_200, 18, 1_024, 0), (1_310, 45, 1_152, 12)];
const PROMPT: i64 = 2_510;
const COMPLETION: i64 = 63;

/// Where a second record lies, beside the first.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Place {
    /// A child of the first.
    Child,
    /// A new parent of the first.
    Parent,
    /// A sibling whose interval lies inside that of the first.
    Inside,
    /// A sibling that starts and ends a little later.
    Overlapping,
    /// A sibling after the first.
    After,
    /// The same in a trace of its own.
    OtherTrace,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Said {
    /// What the first says, or would if it could.
    Same,
    /// Nothing.
    Nothing,
    /// Another value.
    Other,
}

/// A second record of every call.
#[derive(Debug, Clone, Copy)]
struct Second {
    place: Place,
    scope: &'static str,
    response_id: Said,
    tokens: Said,
    /// `Same` repeats the request model.
    response_model: Said,
}

impl Default for Second {
    fn default() -> Self {
        Self {
            place: Place::Child,
            scope: "another.instrumentation",
            response_id: Said::Same,
            tokens: Said::Same,
            response_model: Said::Nothing,
        }
    }
}

fn text(key: &str, value: &str) -> KeyValue {
    any(key, Any::StringValue(value.to_owned()))
}

fn any(key: &str, value: Any) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn attribute<'a>(span: &'a Span, key: &str) -> Option<&'a Any> {
    let found = span.attributes.iter().find(|attribute| attribute.key == key)?;
    found.value.as_ref()?.value.as_ref()
}

/// Every scope of the blue trace of a client that has two calls, with its resource.
fn captured(client: &str) -> Vec<ResourceSpans> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/captures");
    let manifest: serde_json::Value = serde_json::from_slice(&fs::read(folder.join("MANIFEST.json")).unwrap()).unwrap();
    let traces = manifest["clients"][client]["traces"].as_array().unwrap();
    let is_wanted =
        |trace: &&serde_json::Value| trace["scenario"] == "agent_ok" && trace["expected"]["color"] == "blue";
    let id = traces.iter().find(is_wanted).unwrap()["trace_id"].as_str().unwrap();
    let mut files: Vec<_> = fs::read_dir(folder.join(client))
        .unwrap()
        .map(|f| f.unwrap().path())
        .collect();
    files.sort();
    let mut parts = Vec::new();
    for file in files.iter().filter(|file| file.to_string_lossy().contains(".traces.")) {
        parts.extend(
            ExportTraceServiceRequest::decode(&fs::read(file).unwrap()[..])
                .unwrap()
                .resource_spans,
        );
    }
    for part in &mut parts {
        for of_scope in &mut part.scope_spans {
            of_scope.spans.retain(|span| hex::encode(&span.trace_id) == id);
        }
        part.scope_spans.retain(|of_scope| !of_scope.spans.is_empty());
    }
    parts.retain(|part| !part.scope_spans.is_empty());
    parts
}

fn is_call(span: &Span) -> bool {
    let is = |key, word| matches!(attribute(span, key), Some(Any::StringValue(value)) if value == word);
    is("openinference.span.kind", "LLM") || is("gen_ai.operation.name", "chat")
}

/// The n-th call as the other library records it: the conventions of OTel if the first speaks those of OpenInference,
/// and the other way round.
fn second(first: &Span, n: usize, like: Second) -> Span {
    let (prompt, completion, cached, reasoning) = CALLS[n];
    let other = i64::from(like.tokens == Said::Other);
    let response_id = match (like.response_id, attribute(first, "gen_ai.response.id")) {
        (Said::Same, Some(id)) => Some(id.clone()),
        (Said::Nothing, _) => None,
        _ => Some(Any::StringValue(format!("another-{n}"))),
    };
    let response_model = match like.response_model {
        Said::Same => Some("gpt-4o-mini"),
        Said::Other => Some("gpt-4o-mini-2024-07-18"),
        Said::Nothing => None,
    };
    let is_openinference = attribute(first, "openinference.span.kind").is_some();
    let keys = if is_openinference {
        [
            "gen_ai.usage.input_tokens",
            "gen_ai.usage.output_tokens",
            "gen_ai.usage.cache_read.input_tokens",
            "gen_ai.usage.reasoning.output_tokens",
            "gen_ai.response.model",
        ]
    } else {
        [
            "llm.token_count.prompt",
            "llm.token_count.completion",
            "llm.token_count.prompt_details.cache_read",
            "llm.token_count.completion_details.reasoning",
            "llm.response.model_name",
        ]
    };
    let mut attributes = if is_openinference {
        vec![
            text("gen_ai.operation.name", "chat"),
            text("gen_ai.request.model", "gpt-4o-mini"),
        ]
    } else {
        vec![
            text("openinference.span.kind", "LLM"),
            text("llm.request.model_name", "gpt-4o-mini"),
        ]
    };
    if like.tokens != Said::Nothing {
        let values = [prompt + other, completion, cached, reasoning];
        attributes.extend(
            keys.iter()
                .zip(values)
                .map(|(key, value)| any(key, Any::IntValue(value))),
        );
    }
    attributes.extend(response_id.map(|id| any("gen_ai.response.id", id)));
    attributes.extend(response_model.map(|model| text(keys[4], model)));
    let (start, end) = (first.start_time_unix_nano, first.end_time_unix_nano);
    let (start, end) = match like.place {
        Place::Child | Place::Inside | Place::OtherTrace => (start + 1_000, end - 1_000),
        Place::Parent => (start - 1_000, end + 1_000),
        Place::Overlapping => (start + 1_000, end + 1_000),
        Place::After => (end + 1_000, end + 2_000),
    };
    let mut span_id = first.span_id.clone();
    span_id[0] ^= 0x5a;
    // Bits of their own for a third and a fourth record.
    span_id[1] ^= u8::try_from(like.scope.len()).unwrap();
    Span {
        span_id,
        parent_span_id: match like.place {
            Place::Child => first.span_id.clone(),
            _ => first.parent_span_id.clone(),
        },
        name: "second record".to_owned(),
        start_time_unix_nano: start,
        end_time_unix_nano: end,
        attributes,
        events: Vec::new(),
        ..first.clone()
    }
}

/// The trace with further records of every call.
fn recorded_again(client: &str, likes: &[Second]) -> ExportTraceServiceRequest {
    let mut parts = captured(client);
    let mut added = Vec::new();
    let mut calls: Vec<&mut Span> = parts
        .iter_mut()
        .flat_map(|part| &mut part.scope_spans)
        .flat_map(|of_scope| &mut of_scope.spans)
        .filter(|span| is_call(span))
        .collect();
    calls.sort_by_key(|call| call.start_time_unix_nano);
    assert_eq!(calls.len(), CALLS.len());
    for (n, call) in calls.into_iter().enumerate() {
        for &like in likes {
            let mut again = second(call, n, like);
            match like.place {
                Place::Parent => call.parent_span_id.clone_from(&again.span_id),
                Place::OtherTrace => again.trace_id[0] ^= 0xff,
                _ => {}
            }
            added.push((like.scope, again));
        }
    }
    let first_scope = parts[0]
        .scope_spans
        .iter()
        .find(|of_scope| of_scope.spans.iter().any(is_call));
    let first_scope = first_scope.and_then(|of_scope| of_scope.scope.clone()).unwrap();
    let resource = parts[0].resource.clone();
    parts.extend(added.into_iter().map(|(scope, span)| {
        let named = InstrumentationScope {
            name: if scope == SAME_SCOPE {
                first_scope.name.clone()
            } else {
                scope.to_owned()
            },
            ..InstrumentationScope::default()
        };
        ResourceSpans {
            resource: resource.clone(),
            scope_spans: vec![ScopeSpans {
                scope: Some(named),
                spans: vec![span],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }
    }));
    ExportTraceServiceRequest { resource_spans: parts }
}

/// Stands for the scope of the first record.
const SAME_SCOPE: &str = "(same)";

/// What every trace of a request came to, by trace id.
fn assembled(request: &ExportTraceServiceRequest) -> Vec<Arc<Outcome>> {
    let now = Nanos::from_secs(1_795_200_000);
    let mut reader = Reader::new(Arc::new(ReadConfig::default()));
    let accepted = reader.read_traces(&request.encode_to_vec(), now).unwrap();
    assert_eq!(accepted.rejected, 0);
    let mut assembly = Assembly::new(Limits::default());
    let batch = MicroBatch {
        lsn: 1,
        received_at: now,
        digests: Vec::new(),
        sections: reader.take(),
    };
    let mut rows = BTreeMap::new();
    let applied = assembly.apply(&batch).unwrap();
    let closed = assembly.tick(now.plus(Duration::from_secs(3_600)), 1);
    for row in applied.rows.into_iter().chain(closed.rows) {
        rows.insert(row.trace_id, row.outcome.unwrap());
    }
    rows.into_values().collect()
}

/// The one trace of a request.
fn outcome(client: &str, likes: &[Second]) -> Arc<Outcome> {
    let outcomes = assembled(&recorded_again(client, likes));
    assert_eq!(outcomes.len(), 1);
    Arc::clone(&outcomes[0])
}

fn fillings(outcome: &Outcome) -> Vec<Filling> {
    let spans = outcome.mark.spans.as_deref().unwrap_or_default();
    let counting = spans.iter().filter_map(|span| match &span.twin {
        Some(Twin::Counts(filling)) => Some((**filling).clone()),
        _ => None,
    });
    counting.collect()
}

fn repeats(outcome: &Outcome) -> usize {
    let spans = outcome.mark.spans.as_deref().unwrap_or_default();
    spans
        .iter()
        .filter(|span| matches!(span.twin, Some(Twin::Repeats(_))))
        .count()
}

#[test]
fn a_call_recorded_twice_counts_once_with_its_tokens_once() {
    use {Place::*, Said::*};
    let mut wrong = Vec::new();
    for (client, place, response_id, tokens) in [
        // one response, wherever the second record lies
        (NAMES_RESPONSES, Child, Same, Same),
        (NAMES_RESPONSES, Parent, Same, Same),
        (NAMES_RESPONSES, Inside, Same, Same),
        (NAMES_RESPONSES, Overlapping, Same, Same),
        (NAMES_RESPONSES, Child, Same, Nothing),
        (NAMES_RESPONSES, Parent, Same, Nothing),
        (NAMES_RESPONSES, Overlapping, Same, Nothing),
        // one of the two names no response: one interval inside the other, and equal tokens
        (NAMES_RESPONSES, Child, Nothing, Same),
        (NAMES_RESPONSES, Parent, Nothing, Same),
        (NAMES_RESPONSES, Inside, Nothing, Same),
        (NAMES_NONE, Child, Same, Same),
        (NAMES_NONE, Parent, Same, Same),
        (NAMES_NONE, Inside, Same, Same),
        // neither does
        (NAMES_NONE, Child, Nothing, Same),
        (NAMES_NONE, Parent, Nothing, Same),
        (NAMES_NONE, Inside, Nothing, Same),
    ] {
        let like = Second {
            place,
            response_id,
            tokens,
            ..Second::default()
        };
        let out = outcome(client, &[like]);
        let found = (out.attempts.len(), out.prompt, out.completion, repeats(&out));
        if found != (2, Some(PROMPT), Some(COMPLETION), 2) {
            wrong.push(format!("{client} {like:?}: {found:?}"));
        }
        let alone = outcome(client, &[]);
        if out.cost.is_none() || !out.priced || (out.error, out.mark.color) != (alone.error, alone.mark.color) {
            wrong.push(format!("{client} {like:?}: cost {:?}, priced {}", out.cost, out.priced));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_only_looks_like_the_same_call_stays_two() {
    use {Place::*, Said::*};
    let mut wrong = Vec::new();
    for (client, place, scope, response_id, tokens) in [
        // one library does not record a call twice: a loop that gets the same answer is two calls
        (NAMES_RESPONSES, Child, SAME_SCOPE, Same, Same),
        (NAMES_RESPONSES, Inside, SAME_SCOPE, Nothing, Same),
        // two responses
        (NAMES_RESPONSES, Inside, "another.instrumentation", Other, Same),
        (NAMES_RESPONSES, Child, "another.instrumentation", Other, Nothing),
        // nothing but time ties them, and time does not
        (NAMES_NONE, Overlapping, "another.instrumentation", Nothing, Same),
        (NAMES_NONE, After, "another.instrumentation", Nothing, Same),
        (NAMES_RESPONSES, After, "another.instrumentation", Nothing, Same),
        // other tokens, or known against unknown
        (NAMES_NONE, Inside, "another.instrumentation", Nothing, Other),
        (NAMES_NONE, Child, "another.instrumentation", Nothing, Other),
        (NAMES_NONE, Inside, "another.instrumentation", Nothing, Nothing),
    ] {
        let like = Second {
            place,
            scope,
            response_id,
            tokens,
            ..Second::default()
        };
        let out = outcome(client, &[like]);
        let prompt = match tokens {
            Same => 2 * PROMPT,
            Other => 2 * PROMPT + 2,
            Nothing => PROMPT,
        };
        let found = (out.attempts.len(), out.prompt, repeats(&out));
        if found != (4, Some(prompt), 0) {
            wrong.push(format!("{client} {like:?}: {found:?}"));
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn equal_response_ids_of_two_traces_are_two_calls() {
    let like = Second {
        place: Place::OtherTrace,
        ..Second::default()
    };
    let outcomes = assembled(&recorded_again(NAMES_RESPONSES, &[like]));
    let calls: Vec<_> = outcomes
        .iter()
        .map(|out| (out.attempts.len(), out.prompt, repeats(out)))
        .collect();
    assert_eq!(calls, [(2, Some(PROMPT), 0), (2, Some(PROMPT), 0)]);
}

#[test]
fn records_pair_one_to_one() {
    // The second library records every call twice, so one of its records has nothing left to pair with.
    let (one, two) = (
        Second {
            place: Place::Inside,
            ..Second::default()
        },
        Second {
            place: Place::Inside,
            scope: "another.instrumentation",
            response_id: Said::Nothing,
            ..Second::default()
        },
    );
    let mut request = recorded_again(NAMES_RESPONSES, &[one, two]);
    // Two records of one library need two ids.
    let mut seen = std::collections::BTreeSet::new();
    let spans = request.resource_spans.iter_mut().flat_map(|part| &mut part.scope_spans);
    for span in spans.flat_map(|of_scope| &mut of_scope.spans) {
        while !seen.insert(span.span_id.clone()) {
            span.span_id[2] ^= 1;
        }
    }
    let outcomes = assembled(&request);
    let out = &outcomes[0];
    assert_eq!((out.attempts.len(), out.prompt, repeats(out)), (4, Some(2 * PROMPT), 2));
}

#[test]
fn the_outer_record_takes_from_the_inner_one_what_it_lacks() {
    // The first knows no cached and reasoning tokens; the second does, and the model that answered.
    let like = Second {
        place: Place::Child,
        response_model: Said::Other,
        ..Second::default()
    };
    let out = outcome(NAMES_RESPONSES, &[like]);
    let filled: Vec<_> = fillings(&out)
        .iter()
        .map(|f| (f.cache_read_tokens, f.reasoning_tokens))
        .collect();
    let known: Vec<_> = CALLS.iter().map(|call| (Some(call.2), Some(call.3))).collect();
    assert!(
        filled.len() == 2 && known.iter().all(|pair| filled.contains(pair)),
        "{filled:?}"
    );

    // An outer record without tokens, whose response model is the one it asked for.
    let like = Second {
        place: Place::Parent,
        tokens: Said::Nothing,
        response_model: Said::Same,
        ..Second::default()
    };
    let out = outcome(NAMES_RESPONSES, &[like]);
    let filled = fillings(&out);
    assert_eq!(filled.len(), 2);
    for filling in &filled {
        assert_eq!(filling.response_model.as_deref(), Some("gpt-4o-mini-2024-07-18"));
        assert!(
            CALLS
                .iter()
                .any(|call| filling.prompt_tokens == Some(call.0) && filling.completion_tokens == Some(call.1))
        );
    }
    assert_eq!(
        (out.attempts.len(), out.prompt, out.completion),
        (2, Some(PROMPT), Some(COMPLETION))
    );

    // What the outer record knows stays.
    let like = Second {
        place: Place::Parent,
        response_model: Said::Other,
        ..Second::default()
    };
    let out = outcome(NAMES_NONE, &[like]);
    for filling in fillings(&out) {
        assert_eq!((filling.prompt_tokens, filling.response_model), (None, None));
    }
}

#[test]
fn no_order_of_arrival_changes_which_record_counts() {
    let like = Second {
        place: Place::Overlapping,
        ..Second::default()
    };
    let mut request = recorded_again(NAMES_RESPONSES, &[like]);
    let forth = assembled(&request);
    request.resource_spans.reverse();
    let back = assembled(&request);
    assert_eq!(forth[0].mark, back[0].mark);
    assert_eq!(forth, back);
}
