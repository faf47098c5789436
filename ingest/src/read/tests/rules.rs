//! Single rules of the dialects and of evaluations, as small tables of attributes and what they must become.

use super::{
    super::{ContentPolicy, ReadConfig, Reader},
    cells,
};
use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, KeyValue, any_value::Value as Any},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::Event},
};
use prost::Message;
use proto::{Nanos, layout::Table};
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// JSON scalars as attributes.
pub(super) fn attributes(of: &Value) -> Vec<KeyValue> {
    let any = |value: &Value| match value {
        Value::String(text) => Any::StringValue(text.clone()),
        Value::Bool(flag) => Any::BoolValue(*flag),
        Value::Number(number) if number.is_i64() => Any::IntValue(number.as_i64().unwrap()),
        Value::Number(number) => Any::DoubleValue(number.as_f64().unwrap()),
        other => panic!("{other}"),
    };
    let pair = |(key, value): (&String, &Value)| KeyValue {
        key: key.clone(),
        value: Some(AnyValue {
            value: Some(any(value)),
        }),
        ..KeyValue::default()
    };
    of.as_object().unwrap().iter().map(pair).collect()
}

pub(super) fn span(of: &Value) -> Span {
    Span {
        trace_id: vec![7; 16],
        span_id: vec![9; 8],
        start_time_unix_nano: 1_000_000,
        end_time_unix_nano: 2_000_000,
        attributes: attributes(of),
        ..Span::default()
    }
}

pub(super) fn read_as(span: Span, config: ReadConfig) -> (Map<String, Value>, Reader) {
    let scope_spans = vec![ScopeSpans {
        spans: vec![span],
        ..ScopeSpans::default()
    }];
    let resource_spans = vec![ResourceSpans {
        scope_spans,
        ..ResourceSpans::default()
    }];
    let mut reader = Reader::new(Arc::new(config));
    reader
        .read_traces(&ExportTraceServiceRequest { resource_spans }.encode_to_vec(), Nanos(77))
        .unwrap();
    (cells::rows(&reader.take()[0].rows).remove(0), reader)
}

pub(super) fn read(of: &Value) -> Map<String, Value> {
    read_as(span(of), ReadConfig::default()).0
}

pub(super) fn failed(of: &Value) -> Map<String, Value> {
    let status = Some(Status {
        code: 2,
        ..Status::default()
    });
    read_as(Span { status, ..span(of) }, ReadConfig::default()).0
}

/// Every named column has the given value; null means absent.
#[track_caller]
pub(super) fn check(row: &Map<String, Value>, expected: &Value) {
    for (column, value) in expected.as_object().unwrap() {
        assert_eq!(row.get(column).unwrap_or(&Value::Null), value, "{column} of {row:#?}");
    }
}

#[test]
fn roles_follow_their_source_and_never_usage() {
    for (of, role) in [
        (json!({"gen_ai.operation.name": "Chat"}), "call"),
        (
            json!({"gen_ai.operation.name": "invoke_agent", "openinference.span.kind": "LLM"}),
            "agent",
        ),
        (
            json!({"gen_ai.operation.name": "", "openinference.span.kind": "llm"}),
            "call",
        ),
        (json!({"gen_ai.span.kind": "EMBEDDING"}), "call"),
        (json!({"ai.operationId": "ai.streamText.doStream"}), "call"),
        (json!({"ai.operationId": "ai.embedMany.doEmbed"}), "call"),
        (json!({"ai.operationId": "ai.streamText"}), "agent"),
        (json!({"ai.operationId": "ai.toolCall"}), "tool"),
        (json!({"traceloop.span.kind": "task"}), "other"),
        (json!({"traceloop.span.kind": "workflow"}), "agent"),
        (json!({"llm.request.type": "completion"}), "call"),
        (json!({"openinference.span.kind": "RERANKER"}), "retriever"),
        (json!({"openinference.span.kind": "GUARDRAIL"}), "guardrail"),
        (json!({"openinference.span.kind": "EVALUATOR"}), "evaluator"),
        (json!({"gen_ai.usage.input_tokens": 5}), "other"),
    ] {
        check(&read(&of), &json!({"role": role}));
    }
    let server = Span {
        kind: 2,
        ..span(&json!({}))
    };
    check(
        &read_as(server, ReadConfig::default()).0,
        &json!({"role": "server", "kind": "server", "status": "unset"}),
    );
}

#[test]
fn only_calls_carry_tokens_and_cost() {
    let usage = json!({"gen_ai.operation.name": "invoke_agent", "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini", "gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 5,
        "operation.cost": 1.0});
    let nothing = json!({"prompt_tokens": null, "completion_tokens": null, "cost_usd": null, "emitter_cost_usd": null});
    check(&read(&usage), &nothing);
    let mut call = usage;
    call["gen_ai.operation.name"] = "chat".into();
    let priced = json!({"prompt_tokens": 10, "completion_tokens": 5, "cost_usd": 4_500, "emitter_cost_usd": 1_000_000_000,
        "price_version": "2026-11"});
    check(&read(&call), &priced);
}

#[test]
fn unknown_usage_is_null_and_a_cost_of_nothing_says_nothing() {
    let lost = json!({"gen_ai.operation.name": "chat", "gen_ai.request.model": "gpt-4o-mini", "operation.cost": 0.0});
    check(
        &read(&lost),
        &json!({"prompt_tokens": null, "cost_usd": null, "emitter_cost_usd": null, "price_version": null}),
    );
}

#[test]
fn numbers_may_be_texts_and_bad_ones_are_null_and_counted() {
    let good = json!({"llm.request.type": "chat", "llm.token_count.prompt": "12", "llm.token_count.completion": 3.0,
        "gateway.retry.count": "2", "gateway.cache.hit": "True"});
    check(
        &read(&good),
        &json!({"prompt_tokens": 12, "completion_tokens": 3, "retries": 2, "cache_hit": true}),
    );
    let bad = json!({"llm.request.type": "chat", "llm.token_count.prompt": -1, "llm.token_count.completion": "NaN",
        "gen_ai.usage.cost": -0.5, "gateway.route.split": 1.5, "gateway.retry.count": "many"});
    let (row, reader) = read_as(span(&bad), ReadConfig::default());
    check(
        &row,
        &json!({"prompt_tokens": null, "completion_tokens": null, "emitter_cost_usd": null, "split": null,
        "retries": null}),
    );
    let counts = reader.counts();
    assert_eq!(
        [
            counts.numbers_negative,
            counts.numbers_not_finite,
            counts.numbers_out_of_range,
            counts.numbers_unreadable
        ],
        [2, 1, 1, 1]
    );
}

#[test]
fn models_follow_the_dialect() {
    for (of, request, response) in [
        (
            json!({"gen_ai.request.model": "a", "gen_ai.response.model": "b"}),
            json!("a"),
            json!("b"),
        ),
        (
            json!({"llm.model_name": "b", "llm.invocation_parameters": "{\"model\": \"a\"}"}),
            json!("a"),
            json!("b"),
        ),
        (
            json!({"gen_ai.span.kind": "LLM", "gen_ai.request.model": "b",
            "gen_ai.request.parameters": "{\"model\": \"a\"}"}),
            json!("a"),
            json!("b"),
        ),
        (
            json!({"gen_ai.span.kind": "LLM", "gen_ai.request.parameters": "{\"model\": \"a\"}"}),
            json!("a"),
            Value::Null,
        ),
        (
            json!({"embedding.model_name": "b", "embedding.invocation_parameters": "{\"model\": \"a\"}"}),
            json!("a"),
            json!("b"),
        ),
        (
            json!({"ai.model.id": "a", "ai.response.model": "b"}),
            json!("a"),
            json!("b"),
        ),
    ] {
        check(
            &read(&of),
            &json!({"request_model": request, "response_model": response}),
        );
    }
    check(
        &failed(&json!({"llm.model_name": "a"})),
        &json!({"request_model": "a", "response_model": null}),
    );
}

#[test]
fn the_provider_is_cut_at_the_point_on_vercel_spans_only() {
    let vercel = json!({"ai.operationId": "ai.generateText.doGenerate", "gen_ai.system": "openai.chat"});
    check(&read(&vercel), &json!({"provider": "openai"}));
    check(
        &read(&json!({"gen_ai.system": "aws.bedrock"})),
        &json!({"provider": "aws.bedrock"}),
    );
}

#[test]
fn errors_are_described_and_folded_only_where_the_status_says_error() {
    for (of, error_type, timed_out, rate_limited) in [
        (
            json!({"error.type": "openai.RateLimitError"}),
            json!("rate_limited"),
            json!(false),
            json!(true),
        ),
        (
            json!({"error.type": "429"}),
            json!("rate_limited"),
            json!(false),
            json!(true),
        ),
        (
            json!({"error.type": "APITimeoutError"}),
            json!("timed_out"),
            json!(true),
            json!(false),
        ),
        (
            json!({"error.type": "ValueError"}),
            json!("ValueError"),
            json!(false),
            json!(false),
        ),
        (
            json!({"http.response.status_code": 429}),
            json!("rate_limited"),
            json!(false),
            json!(true),
        ),
        (json!({}), Value::Null, Value::Null, Value::Null),
    ] {
        let expected = json!({"status": "error", "error_type": error_type, "timed_out": timed_out,
            "rate_limited": rate_limited});
        check(&failed(&of), &expected);
    }
    check(
        &read(&json!({"error.type": "ValueError"})),
        &json!({"error_type": null, "timed_out": null}),
    );
    let exception = Event {
        name: "exception".to_owned(),
        attributes: attributes(&json!({"exception.type": "E", "exception.message": "Error code: 503 - busy"})),
        ..Event::default()
    };
    let status = Some(Status {
        code: 2,
        message: "busy".to_owned(),
    });
    let (row, _) = read_as(
        Span {
            status,
            events: vec![exception],
            ..span(&json!({}))
        },
        ReadConfig::default(),
    );
    check(
        &row,
        &json!({"error_type": "E", "http_status": 503, "attributes": null}),
    );
}

#[test]
fn finish_reasons_fold_their_spellings() {
    for (sent, folded) in [
        ("tool-calls", "tool_calls"),
        ("[\"tool_call\"]", "tool_calls"),
        ("end_turn", "stop"),
        ("length", "length"),
    ] {
        check(
            &read(&json!({"gen_ai.response.finish_reasons": sent})),
            &json!({"finish_reason": folded}),
        );
    }
}

#[test]
fn the_time_to_the_first_token_has_many_units() {
    for (of, ms) in [
        (json!({"gen_ai.response.time_to_first_chunk": 0.25}), 250.0),
        (json!({"ai.response.msToFirstChunk": 12.5}), 12.5),
        (
            json!({"langfuse.observation.completion_start_time": "1970-01-01T00:00:00.004Z"}),
            3.0,
        ),
    ] {
        check(&read(&of), &json!({"ttft_ms": ms}));
    }
    let first = Event {
        time_unix_nano: 1_500_000,
        name: "First Token Stream Event".to_owned(),
        ..Event::default()
    };
    let later = Event {
        time_unix_nano: 1_900_000,
        ..first.clone()
    };
    let (row, _) = read_as(
        Span {
            events: vec![first, later],
            ..span(&json!({}))
        },
        ReadConfig::default(),
    );
    check(&row, &json!({"ttft_ms": 0.5}));
}

#[test]
fn dropped_content_reaches_no_column_and_kept_content_reaches_its_own() {
    let of = json!({"gen_ai.input.messages": "CANARY", "llm.output_messages.0.message.content": "CANARY",
        "input.value": "CANARY", "gen_ai.prompt.0.content": "CANARY", "llm.openai.choices": "CANARY",
        "traceloop.entity.output": "CANARY", "acme.wish": "CANARY", "gen_ai.tool.call.arguments": "CANARY",
        "gen_ai.output.messages": "CANARY-2"});
    let mut with_event = span(&of);
    with_event.events = vec![Event {
        name: "gen_ai.user.message".to_owned(),
        attributes: attributes(&json!({"anything": "CANARY"})),
        ..Event::default()
    }];
    let mut config = ReadConfig::default();
    config.keys.add("content", "acme.wish").unwrap();
    let (row, reader) = read_as(with_event.clone(), config.clone());
    assert!(!format!("{row:?}").contains("CANARY"), "{row:#?}");
    assert_eq!(reader.counts().content_dropped, 10);
    config.content = ContentPolicy::Keep.into();
    let (row, _) = read_as(with_event, config);
    check(&row, &json!({"input": "CANARY", "output": "CANARY-2"}));
    assert_eq!(row["attributes"].as_array().unwrap().len(), 9);
}

#[test]
fn stamps_come_from_the_span_then_its_resource_then_the_gateway() {
    let read = |on_span: Value, on_resource: Value| {
        let resource = opentelemetry_proto::tonic::resource::v1::Resource {
            attributes: attributes(&on_resource),
            ..Default::default()
        };
        let resource_spans = vec![ResourceSpans {
            resource: Some(resource),
            scope_spans: vec![ScopeSpans {
                spans: vec![span(&on_span)],
                ..ScopeSpans::default()
            }],
            ..ResourceSpans::default()
        }];
        let mut reader = Reader::new(Arc::new(ReadConfig::default()));
        reader
            .read_traces(&ExportTraceServiceRequest { resource_spans }.encode_to_vec(), Nanos(77))
            .unwrap();
        cells::rows(&reader.take()[0].rows).remove(0)
    };
    let resource = json!({"gateway.route.name": "r", "gateway.route.color": "BLUE", "service.name": "s",
        "service.version": "9", "release.cohort": "pro"});
    let row = read(
        json!({"litellm.model_group": "g", "release.color": "green"}),
        resource.clone(),
    );
    check(
        &row,
        &json!({"route": "r", "color": "green", "service_name": "s", "version": null, "cohort": "pro"}),
    );
    let row = read(
        json!({"release.route": "own", "gateway.route.color": "mauve", "gateway.route.version": 7}),
        resource,
    );
    check(&row, &json!({"route": "own", "color": null, "version": "7"}));
    let row = read(json!({"litellm.model_group": "g"}), json!({"service.name": "s"}));
    check(&row, &json!({"route": "g"}));
    let row = read(json!({"gen_ai.agent.name": "a"}), json!({"service.name": "s"}));
    let metadata = json!({"metadata": "{\"gateway.route.color\": \"blue\", \"gateway.route.name\": \"chat\"}"});
    check(&read(json!({}), metadata), &json!({"route": "chat", "color": "blue"}));
    check(&row, &json!({"route": null, "agent": "a"}));
}

fn evaluation(of: &Value, event_name: &str) -> LogRecord {
    LogRecord {
        time_unix_nano: 5,
        trace_id: vec![7; 16],
        span_id: vec![9; 8],
        event_name: event_name.to_owned(),
        attributes: attributes(of),
        ..LogRecord::default()
    }
}

fn read_logs(records: Vec<LogRecord>) -> (crate::intake::Accepted, Vec<Map<String, Value>>) {
    let scope_logs = vec![ScopeLogs {
        log_records: records,
        ..ScopeLogs::default()
    }];
    let resource_logs = vec![ResourceLogs {
        scope_logs,
        ..ResourceLogs::default()
    }];
    let mut reader = Reader::new(Arc::new(ReadConfig::default()));
    let body = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
    let accepted = reader.read_logs(&body, Nanos(77)).unwrap();
    let sections = reader.take();
    (
        accepted,
        sections
            .first()
            .map(|section| cells::rows(&section.rows))
            .unwrap_or_default(),
    )
}

#[test]
fn evaluations_in_logs_become_rows_and_other_records_do_not() {
    const NAME: &str = "gen_ai.evaluation.result";
    let by_attribute =
        json!({"event.name": NAME, "gen_ai.evaluation.name": "x", "gen_ai.evaluation.score.label": "passed"});
    let unlinked = LogRecord {
        trace_id: vec![],
        span_id: vec![],
        time_unix_nano: 0,
        ..evaluation(
            &json!({"gen_ai.evaluation.name": "relevance", "gen_ai.response.id": "r-1"}),
            NAME,
        )
    };
    let (accepted, rows) = read_logs(vec![
        evaluation(
            &json!({"gen_ai.evaluation.name": "TaskCompletion", "gen_ai.evaluation.score.value": "0.85",
            "gen_ai.evaluation.score.label": "Fail", "gen_ai.evaluation.explanation": "why"}),
            NAME,
        ),
        evaluation(
            &json!({"gen_ai.evaluation.name": "toxicity", "gen_ai.evaluation.score.label": "fail",
            "error.type": "timeout"}),
            NAME,
        ),
        evaluation(&by_attribute, ""),
        unlinked,
        evaluation(
            &json!({"event.name": "gen_ai.evaluation.user_feedback", "gen_ai.evaluation.score": -1.0}),
            "",
        ),
        evaluation(&json!({"gen_ai.evaluation.score.value": 1.0}), NAME),
        evaluation(
            &json!({"gen_ai.usage.input_tokens": 4}),
            "gen_ai.client.inference.operation.details",
        ),
    ]);
    assert_eq!((accepted.accepted, accepted.rejected), (6, 1));
    let ids = json!({"trace_id": "07".repeat(16), "span_id": "09".repeat(8), "time": 5, "source": "otel_log"});
    check(&rows[0], &ids);
    check(
        &rows[0],
        &json!({"name": "task_completion", "score": 0.85, "label": "Fail", "passed": false,
        "explanation": "why", "error_type": null}),
    );
    check(
        &rows[1],
        &json!({"name": "toxicity", "passed": null, "error_type": "timed_out"}),
    );
    check(&rows[2], &json!({"name": "x", "passed": true, "score": null}));
    check(
        &rows[3],
        &json!({"trace_id": null, "span_id": null, "time": 77, "response_id": "r-1", "passed": null}),
    );
    check(
        &rows[4],
        &json!({"name": "user_feedback", "score": -1.0, "label": null}),
    );
    assert_eq!(rows.len(), 5);
}

#[test]
fn an_evaluation_event_judges_its_span() {
    let event = Event {
        time_unix_nano: 1_500_000,
        name: "gen_ai.evaluation.result".to_owned(),
        attributes: attributes(
            &json!({"gen_ai.evaluation.name": "json_valid", "gen_ai.evaluation.score.value": 1.0,
            "gen_ai.evaluation.score.label": "pass"}),
        ),
        ..Event::default()
    };
    let spans = vec![
        Span {
            events: vec![event.clone()],
            ..span(&json!({}))
        },
        Span {
            events: vec![event],
            ..Span::default()
        },
    ];
    let scope_spans = vec![ScopeSpans {
        spans,
        ..ScopeSpans::default()
    }];
    let resource_spans = vec![ResourceSpans {
        scope_spans,
        ..ResourceSpans::default()
    }];
    let mut reader = Reader::new(Arc::new(ReadConfig::default()));
    reader
        .read_traces(&ExportTraceServiceRequest { resource_spans }.encode_to_vec(), Nanos(77))
        .unwrap();
    let sections = reader.take();
    let tables: Vec<Table> = sections.iter().map(|section| section.table).collect();
    assert_eq!(tables, [Table::Spans, Table::Evals]);
    let rows = cells::rows(&sections[1].rows);
    assert_eq!(rows.len(), 1, "a rejected span is not judged");
    check(
        &rows[0],
        &json!({"trace_id": "07".repeat(16), "span_id": "09".repeat(8), "time": 1_500_000,
        "name": "json_valid", "score": 1.0, "passed": true, "source": "otel_event"}),
    );
}
