//! Rules of stamps, of spans that repeat others, and of what is only counted.

use super::{
    super::{ContentPolicy, ReadConfig},
    rules::{attributes, check, failed, read, read_as, span},
};
use opentelemetry_proto::tonic::{
    common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value as Any},
    trace::v1::{Span, Status, span::Event},
};
use serde_json::{Value, json};

fn with_keys(keys: &[(&str, &str)]) -> ReadConfig {
    let mut config = ReadConfig::default();
    keys.iter()
        .for_each(|(column, key)| config.keys.add(column, key).unwrap());
    config
}

fn flag_event(name: &str, of: &Value) -> Event {
    Event {
        name: name.to_owned(),
        attributes: attributes(of),
        ..Event::default()
    }
}

#[test]
fn a_declared_flag_gives_a_variant_and_perhaps_a_color() {
    let config = with_keys(&[
        ("feature_flag", "support-chat"),
        ("feature_flag", "model"),
        ("color", "acme.color"),
    ]);
    let of = |on_span: Value, events: Vec<Event>| {
        read_as(
            Span {
                events,
                ..span(&on_span)
            },
            config.clone(),
        )
        .0
    };
    let key = |row: &serde_json::Map<String, Value>| {
        let pairs = row
            .get("attributes")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let flag = pairs.into_iter().find(|pair| pair[0] == "tracegate.flag");
        flag.map_or(Value::Null, |pair| pair[1].clone())
    };
    let new = |flag: &str, variant: &str| json!({"feature_flag.key": flag, "feature_flag.result.variant": variant});
    let row = of(new("support-chat", "Green"), vec![]);
    check(&row, &json!({"variant": "Green", "color": "green", "route": null}));
    assert_eq!(key(&row), "support-chat");

    let row = of(
        json!({"feature_flag.key": "model", "feature_flag.variant": "b"}),
        vec![],
    );
    check(&row, &json!({"variant": "b", "color": null}));

    let undeclared = of(new("other", "green"), vec![]);
    check(&undeclared, &json!({"variant": null, "color": null}));
    assert_eq!(key(&undeclared), Value::Null);

    // events of either name; the flag that is declared first is trusted most, wherever it stands
    for name in ["feature_flag.evaluation", "feature_flag"] {
        let events = vec![
            flag_event(name, &new("model", "blue")),
            flag_event(name, &new("other", "blue")),
            flag_event(
                name,
                &json!({"feature_flag.key": "support-chat", "feature_flag.variant": "green"}),
            ),
        ];
        let row = of(new("model", "x"), events);
        check(&row, &json!({"variant": "green", "color": "green"}));
        assert_eq!(key(&row), "support-chat");
    }
    let elsewhere = of(json!({}), vec![flag_event("log", &new("support-chat", "green"))]);
    check(&elsewhere, &json!({"variant": null}));

    // stamps and configured keys come before
    let mut both = new("support-chat", "green");
    both["acme.color"] = "blue".into();
    check(&of(both, vec![]), &json!({"variant": "green", "color": "blue"}));
}

#[test]
fn without_declared_flags_none_counts() {
    let of = json!({"feature_flag.key": "support-chat", "feature_flag.variant": "green"});
    check(&read(&of), &json!({"variant": null, "color": null}));
}

#[test]
fn cohorts_come_in_copies_of_their_keys() {
    let config = with_keys(&[("cohort", "customer.tier"), ("cohort", "locale")]);
    let cohort = |of: Value| {
        read_as(span(&of), config.clone())
            .0
            .get("cohort")
            .cloned()
            .unwrap_or_default()
    };
    for key in [
        "customer.tier",
        "baggage.customer.tier",
        "litellm.metadata.customer.tier",
        "metadata.customer.tier",
        "traceloop.association.properties.customer.tier",
        "traceloop.association.properties.release.cohort",
        "traceloop.association.properties.cohort",
        "langfuse.trace.metadata.locale",
    ] {
        let mut of = json!({});
        of[key] = "pro".into();
        assert_eq!(cohort(of), "pro", "{key}");
    }
    assert_eq!(
        cohort(json!({"baggage.locale": "de", "baggage.customer.tier": "pro"})),
        "pro"
    );
    assert_eq!(cohort(json!({"baggage.customer.tier": "copy", "locale": "de"})), "de");
    assert_eq!(
        cohort(json!({"release.cohort": "stamped", "customer.tier": "pro"})),
        "stamped"
    );
    assert_eq!(cohort(json!({"baggage.other": "x"})), Value::Null);
}

#[test]
fn configured_keys_fill_any_column_after_its_own() {
    let config = with_keys(&[
        ("prompt_tokens", "acme.in"),
        ("request_model", "acme.model"),
        ("response_model", "acme.answered"),
        ("ttft_ms", "acme.first_ms"),
        ("emitter_cost_usd", "acme.usd"),
        ("http_status", "acme.status"),
        ("output", "acme.reply"),
        ("agent", "acme.bot"),
    ]);
    let of = json!({"gen_ai.operation.name": "chat", "acme.in": "12", "acme.model": "a", "acme.answered": "b",
        "acme.first_ms": 7, "acme.usd": 0.5, "acme.status": 503, "acme.reply": "hello", "acme.bot": "helper"});
    let filled = json!({"prompt_tokens": 12, "request_model": "a", "response_model": "b", "ttft_ms": 7.0,
        "emitter_cost_usd": 500_000_000, "http_status": 503, "output": null, "agent": "helper"});
    let (row, reader) = read_as(span(&of), config.clone());
    check(&row, &filled);
    assert_eq!(
        reader.counts().content_dropped,
        1,
        "an output is content under any name"
    );
    let mut own = of;
    own["gen_ai.usage.input_tokens"] = 99.into();
    own["gen_ai.request.model"] = "own".into();
    let keep = ReadConfig {
        content: ContentPolicy::Keep.into(),
        ..config
    };
    let row = read_as(span(&own), keep).0;
    check(
        &row,
        &json!({"prompt_tokens": 99, "request_model": "own", "output": "hello"}),
    );
}

#[test]
fn a_request_is_known_by_the_gateways_id_and_never_by_an_attempts() {
    for (key, expected) in [
        ("gateway.request.id", json!("r-1")),
        ("litellm.trace_id", json!("r-1")),
        ("metadata.litellm_trace_id", json!("r-1")),
        ("http.request.header.x-request-id", json!("r-1")),
        ("x_request_id", json!("r-1")),
        ("request.id", json!("r-1")),
        ("litellm.call_id", Value::Null),
        ("gen_ai.response.id", Value::Null),
    ] {
        let mut of = json!({});
        of[key] = "r-1".into();
        check(&read(&of), &json!({"request_id": expected}));
    }
    // headers are lists of texts
    let values = vec![AnyValue {
        value: Some(Any::StringValue("r-2".to_owned())),
    }];
    let header = KeyValue {
        key: "http.request.header.x-request-id".to_owned(),
        value: Some(AnyValue {
            value: Some(Any::ArrayValue(ArrayValue { values })),
        }),
        ..KeyValue::default()
    };
    let of = Span {
        attributes: vec![header],
        ..span(&json!({}))
    };
    check(&read_as(of, ReadConfig::default()).0, &json!({"request_id": "r-2"}));
}

#[test]
fn upstream_sampling_is_read_and_what_cannot_be_read_is_counted() {
    for (state, sampling, unreadable) in [
        ("ot=th:c;rv:0123456789abcd", json!(0.25), 0),
        ("other=1,ot=th:0", json!(1.0), 0),
        ("ot=th:zz", Value::Null, 1),
        ("ot=rv:0123456789abcd", Value::Null, 0),
        ("", Value::Null, 0),
    ] {
        let of = Span {
            trace_state: state.to_owned(),
            ..span(&json!({}))
        };
        let (row, reader) = read_as(of, ReadConfig::default());
        check(&row, &json!({"sampling": sampling}));
        assert_eq!(reader.counts().sampling_unreadable, unreadable, "{state}");
    }
}

#[test]
fn spans_that_repeat_calls_are_none_and_their_usage_is_dropped() {
    let nothing = json!({"prompt_tokens": null, "completion_tokens": null, "cost_usd": null, "emitter_cost_usd": null});
    let usage = json!({"gen_ai.usage.input_tokens": 10, "gen_ai.usage.output_tokens": 5, "ai.usage.promptTokens": 10,
        "gen_ai.request.model": "gpt-4o-mini", "gen_ai.provider.name": "openai", "operation.cost": 0.5});
    let repeats = |of: Value, name: &str, role: &str| {
        let mut all = usage.clone();
        all.as_object_mut().unwrap().extend(of.as_object().unwrap().clone());
        let of = Span {
            name: name.to_owned(),
            ..span(&all)
        };
        let row = read_as(of, ReadConfig::default()).0;
        check(&row, &nothing);
        check(&row, &json!({"role": role}));
    };
    for operation in [
        "ai.generateText",
        "ai.streamText",
        "ai.generateObject",
        "ai.streamObject",
        "ai.embed",
        "ai.embedMany",
    ] {
        for also in [
            json!({}),
            json!({"gen_ai.operation.name": "chat"}),
            json!({"openinference.span.kind": "LLM"}),
            json!({"gen_ai.span.kind": "LLM"}),
            json!({"llm.request.type": "chat"}),
        ] {
            let mut of = also;
            of["ai.operationId"] = operation.into();
            repeats(of, operation, "agent");
        }
    }
    repeats(json!({"ai.operationId": "ai.toolCall"}), "ai.toolCall", "tool");
    repeats(json!({}), "raw_gen_ai_request", "other");
    repeats(json!({"llm.request.type": "chat"}), "raw_gen_ai_request", "other");
    repeats(
        json!({"agent_name": "support", "model_name": "gpt-4o-mini"}),
        "agent run",
        "other",
    );
    for operation in ["invoke_agent", "invoke_workflow", "agent_step"] {
        repeats(
            json!({"gen_ai.operation.name": operation}),
            "invoke_agent support",
            "agent",
        );
    }
    // the calls below are calls
    for operation in [
        "ai.generateText.doGenerate",
        "ai.streamText.doStream",
        "ai.embed.doEmbed",
    ] {
        let row = read(&json!({"ai.operationId": operation, "ai.usage.inputTokens": 10}));
        check(&row, &json!({"role": "call", "prompt_tokens": 10}));
    }
    let aggregated = json!({"gen_ai.operation.name": "chat", "gen_ai.aggregated_usage.input_tokens": 10,
        "gen_ai.aggregated_usage.output_tokens": 5});
    check(&read(&aggregated), &nothing);
}

#[test]
fn a_guardrail_of_litellm_is_known_by_its_name_and_its_spans() {
    let named = |name: &str, of: Value| {
        read_as(
            Span {
                name: name.to_owned(),
                ..span(&of)
            },
            ReadConfig::default(),
        )
        .0
    };
    let of = json!({"guardrail_name": "pii", "guardrail_status": "guardrail_intervened"});
    let expected = json!({"role": "guardrail", "guardrail_name": "pii", "guardrail_result": "guardrail_intervened"});
    check(&named("guardrail", of.clone()), &expected);
    check(
        &named("request", of),
        &json!({"role": "other", "guardrail_name": "pii"}),
    );
    check(&named("guardrail", json!({})), &json!({"role": "other"}));
}

#[test]
fn a_total_only_checks_the_parts() {
    let of = |total: Value| {
        let of = json!({"gen_ai.operation.name": "chat", "gen_ai.usage.input_tokens": 10,
            "gen_ai.usage.output_tokens": 5, "llm.usage.total_tokens": total});
        let (row, reader) = read_as(span(&of), ReadConfig::default());
        check(&row, &json!({"prompt_tokens": 10, "completion_tokens": 5}));
        reader.counts().totals_contradicted
    };
    assert_eq!(
        [of(json!(15)), of(json!("15")), of(json!(16)), of(json!("many"))],
        [0, 0, 1, 0]
    );
    let alone = json!({"gen_ai.operation.name": "chat", "gen_ai.usage.total_tokens": 15});
    check(
        &read(&alone),
        &json!({"prompt_tokens": null, "completion_tokens": null}),
    );
}

#[test]
fn the_emitters_cost_is_kept_in_all_its_spellings() {
    for key in [
        "llm.cost.total",
        "gen_ai.cost.total_cost",
        "litellm.cost.total",
        "gen_ai.cost.total",
        "gen_ai.usage.cost",
        "operation.cost",
    ] {
        let mut of = json!({"gen_ai.operation.name": "chat"});
        of[key] = json!(0.000_114);
        check(&read(&of), &json!({"emitter_cost_usd": 114_000, "cost_usd": null}));
    }
    for (key, text) in [
        (
            "langfuse.observation.cost_details",
            r#"{"input": 0.1, "total": 0.000114}"#,
        ),
        ("hidden_params", r#"{"model_id": "m", "response_cost": 1.14e-4}"#),
    ] {
        let mut of = json!({"gen_ai.operation.name": "chat"});
        of[key] = text.into();
        check(&read(&of), &json!({"emitter_cost_usd": 114_000}));
        of[key] = "{\"total\": broken".into();
        check(&read(&of), &json!({"emitter_cost_usd": null}));
    }
}

#[test]
fn the_http_status_is_found_where_clients_write_it() {
    let status = |message: &str| {
        let status = Some(Status {
            code: 2,
            message: message.to_owned(),
        });
        read_as(
            Span {
                status,
                ..span(&json!({}))
            },
            ReadConfig::default(),
        )
        .0
    };
    check(
        &status("Error code: 500 - The server had an error"),
        &json!({"http_status": 500}),
    );
    let limited = json!({"http_status": 429, "error_type": "rate_limited", "rate_limited": true});
    check(
        &status("ModelHTTPError: status_code: 429, model_name: gpt-4o-mini, body: {}"),
        &limited,
    );
    for none in [
        "Error code: 5",
        "Error code: +50",
        "Error code: 999",
        "status_code: abc",
        "code 500",
    ] {
        check(&status(none), &json!({"http_status": null}));
    }
    let both = json!({"exception.message": "Error code: 503", "http.response.status_code": 502});
    check(&failed(&both), &json!({"http_status": 502}));
}

#[test]
fn numbered_messages_become_input_and_output_where_no_whole_value_is() {
    let keep = ReadConfig {
        content: ContentPolicy::Keep.into(),
        ..ReadConfig::default()
    };
    let mut of = json!({"llm.input_messages.0.message.role": "user", "llm.input_messages.0.message.content": "hi",
        "gen_ai.completion.0.content": "hello"});
    let row = read_as(span(&of), keep.clone()).0;
    check(
        &row,
        &json!({"input": r#"[{"content":"hi","role":"user"}]"#, "output": r#"[{"content":"hello"}]"#}),
    );
    of["input.value"] = "whole".into();
    check(&read_as(span(&of), keep).0, &json!({"input": "whole"}));
    let hash = ReadConfig {
        content: ContentPolicy::Hash.into(),
        ..ReadConfig::default()
    };
    let row = read_as(span(&of), hash).0;
    assert!(row["output"].as_str().unwrap().starts_with("sha256:"), "{row:#?}");
    check(&read(&of), &json!({"input": null, "output": null}));
}
