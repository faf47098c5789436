//! A captured call recorded by a second library, through the whole server: in one request, or after its trace was sealed.

use super::{
    message::{self, Message},
    start, truth,
    wire::{Doors, Parcel, Way},
};
use crate::otlp::{eventually, sql};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, any_value::Value},
    trace::v1::{ResourceSpans, ScopeSpans, Span},
};
use serde_json::json;
use std::time::Duration;

/// Names its responses, and knows nothing of cached tokens.
const CLIENT: &str = "otel-openai-v2-latest";

fn is(span: &Span, key: &str, word: &str) -> bool {
    let text = |value: &AnyValue| matches!(&value.value, Some(Value::StringValue(text)) if text == word);
    let mut attributes = span.attributes.iter();
    attributes.any(|attribute| attribute.key == key && attribute.value.as_ref().is_some_and(text))
}

/// The same calls, each as a child of itself, recorded by a library that knows how many tokens were cached.
fn second_records() -> Message {
    let mut parts: Vec<ResourceSpans> = Vec::new();
    for message in message::of_client(CLIENT) {
        let Message::Traces(request) = message else { continue };
        for part in request.resource_spans {
            let calls = part.scope_spans.iter().flat_map(|of_scope| &of_scope.spans);
            let calls: Vec<Span> = calls
                .filter(|span| is(span, "gen_ai.operation.name", "chat"))
                .cloned()
                .collect();
            let spans = calls.into_iter().map(|mut span| {
                span.parent_span_id = std::mem::take(&mut span.span_id);
                span.span_id = span.parent_span_id.iter().map(|byte| !byte).collect();
                let mut cached = span.attributes[0].clone();
                "gen_ai.usage.cache_read.input_tokens".clone_into(&mut cached.key);
                cached.value = Some(AnyValue {
                    value: Some(Value::IntValue(7)),
                });
                span.attributes.push(cached);
                span
            });
            let mut scope = part.scope_spans[0].scope.clone().unwrap_or_default();
            "another.instrumentation".clone_into(&mut scope.name);
            parts.push(ResourceSpans {
                scope_spans: vec![ScopeSpans {
                    scope: Some(scope),
                    spans: spans.collect(),
                    ..ScopeSpans::default()
                }],
                ..part
            });
        }
    }
    Message::Traces(ExportTraceServiceRequest { resource_spans: parts })
}

async fn send(doors: &Doors, message: &Message) {
    Parcel::new(message, Way::all()[0], false).send(doors).await.unwrap();
}

const PER_TRACE: &str = "SELECT trace_id, calls, attempts_failed, prompt_tokens, completion_tokens, error, color, version \
                         FROM traces ORDER BY trace_id";
const CELLS: &str = "SELECT color, metric, grain, sum(n), sum(events), sum(sum) FROM cells \
                     WHERE metric IN ('traces', 'error', 'attempt_error', 'prompt_tokens', 'completion_tokens') \
                     GROUP BY color, metric, grain \
                     HAVING sum(n) <> 0 ORDER BY color, metric, grain";
/// Calls, and what they say: repeated records are kept as rows and are no calls.
const CALLS: &str = "SELECT count(*) FILTER (WHERE role = 'call'), count(repeats_span_id), \
                     count(*) FILTER (WHERE role = 'call' AND cache_read_tokens = 7), sum(prompt_tokens) FROM spans";

#[tokio::test(flavor = "multi_thread")]
async fn a_second_record_of_every_call_changes_no_number_though_it_comes_after_the_seal() {
    let dir = tempfile::tempdir().unwrap();
    let (app, doors) = start(dir.path()).await;
    for message in message::of_client(CLIENT) {
        send(&doors, &message).await;
    }
    truth::closed(&doors, 10).await;
    let ask = async |question| sql(&doors.client, doors.http, question).await;
    let (traces, cells, calls) = (ask(PER_TRACE).await, ask(CELLS).await, ask(CALLS).await);
    assert_eq!((&calls[0][1], &calls[0][2]), (&json!(0), &json!(0)));
    // Sealed, and known to no instance but by its files.
    app.shutdown().await.unwrap();
    let (app, doors) = start(dir.path()).await;
    send(&doors, &second_records()).await;
    let n = &calls[0][0];
    let expected = json!([[n, n, n, calls[0][3]]]);
    eventually(&doors.client, doors.http, CALLS, expected, Duration::from_secs(30)).await;
    let ask = async |question| sql(&doors.client, doors.http, question).await;
    assert_eq!(ask(PER_TRACE).await, traces);
    assert_eq!(ask(CELLS).await, cells);
    app.shutdown().await.unwrap();

    let together = tempfile::tempdir().unwrap();
    let (app, doors) = start(together.path()).await;
    send(&doors, &second_records()).await;
    for message in message::of_client(CLIENT) {
        send(&doors, &message).await;
    }
    truth::closed(&doors, 10).await;
    let ask = async |question| sql(&doors.client, doors.http, question).await;
    assert_eq!(ask(CALLS).await, json!([[n, n, n, calls[0][3]]]));
    assert_eq!(ask(PER_TRACE).await, traces);
    assert_eq!(ask(CELLS).await, cells);
    app.shutdown().await.unwrap();
}
