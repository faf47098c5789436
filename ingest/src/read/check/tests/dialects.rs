//! One answer, one tool call and one definition, as each dialect writes them.

use super::*;

/// Attributes that carry an answer's text, by dialect.
fn answers(text: &str) -> Vec<Value> {
    let messages =
        json!([{"role": "assistant", "parts": [{"type": "text", "content": text}], "finish_reason": "stop"}]);
    let (half, rest) = text.split_at(text.len() / 2);
    let in_parts = json!([{"role": "assistant", "parts": [
        {"type": "reasoning", "content": "thinking"}, {"type": "text", "content": half}, {"type": "text", "content": rest}
    ]}]);
    vec![
        json!({"ai.response.object": text}),
        json!({"ai.response.text": text}),
        json!({"llm.output_messages.0.message.role": "assistant", "llm.output_messages.0.message.content": text}),
        json!({
            "llm.output_messages.0.message.contents.0.message_content.text": half,
            "llm.output_messages.0.message.contents.1.message_content.text": rest,
        }),
        json!({"gen_ai.output.messages": messages.to_string()}),
        json!({"gen_ai.output.messages": messages}),
        json!({"gen_ai.output.messages": in_parts.to_string()}),
        json!({"gen_ai.output.messages": json!([{"role": "assistant", "content": text}]).to_string()}),
        json!({"gen_ai.output.messages.0.message.content": text, "gen_ai.span.kind": "LLM"}),
        json!({"gen_ai.completion.0.content": text, "gen_ai.completion.0.role": "assistant"}),
        json!({"output.value": text}),
        json!({"output.value": json!({"choices": [{"message": {"role": "assistant", "content": text}}]}).to_string()}),
        json!({"output.value": json!({"generations": [[{"text": text, "type": "ChatGeneration"}]]}).to_string()}),
        json!({"output.value": json!({"object": "response", "output": [
            {"type": "reasoning"},
            {"type": "message", "content": [{"type": "output_text", "text": text}]}
        ]}).to_string()}),
        json!({"output.value": json!({"type": "message", "content": [{"type": "text", "text": text}]}).to_string()}),
    ]
}

#[test]
fn an_answer_is_checked_in_every_dialect() {
    for (text, verdict) in [
        (r#"{"order_id": 4711}"#, "orders=ok"),
        (" {\"order_id\": 4711}\n", "orders=ok"),
        (r#"{"order_id": "4711"}"#, "orders=invalid"),
        (r#"{"order_id": 4711, "note": "?"}"#, "orders=invalid"),
        (r#"{"order_id": 47"#, "orders=invalid"),
        ("```json\n{\"order_id\": 4711}\n```", "orders=invalid"),
        ("Your order ships on Friday.", "orders=invalid"),
    ] {
        for of in answers(text) {
            let row = call(&of);
            assert_eq!(row.get("json_checks"), Some(&json!(verdict)), "{text} in {of}");
            assert!(row.get("output").is_none(), "content is dropped all the same");
        }
    }
}

#[test]
fn only_answers_of_good_calls_are_checked() {
    let answer = json!({"gen_ai.operation.name": "chat", "gen_ai.completion.0.content": "no JSON"});
    let mut reader = reader(&[("orders", ORDER)]);
    check(
        &read_with(&mut reader, &answer, 1),
        &json!({"json_checks": "orders=invalid"}),
    );
    check(&read_with(&mut reader, &answer, 2), &json!({"json_checks": null}));
    let agent = json!({"gen_ai.operation.name": "invoke_agent", "gen_ai.completion.0.content": "no JSON"});
    check(&read_with(&mut reader, &agent, 0), &json!({"json_checks": null}));
    for of in [
        json!({"gen_ai.completion.0.content": "__REDACTED__"}),
        json!({"gen_ai.completion.0.content": "  "}),
        json!({"output.value": json!({"choices": [{"message": {"content": null}}]}).to_string()}),
        // a step on the way: traceAI says the call in words
        json!({
            "output.value": "Function: get_order({\"order_id\": 4711})",
            "gen_ai.output.messages.0.message.tool_calls.0.tool_call.function.name": "get_order",
        }),
        // what comes before a tool call is no answer
        json!({"gen_ai.output.messages": json!([{"role": "assistant", "parts": [
            {"type": "text", "content": "Let me see."}, {"type": "tool_call", "name": "get_order", "arguments": {}}
        ]}]).to_string()}),
    ] {
        check(&call(&of), &json!({"json_checks": null}));
    }
    let undeclared = &mut super::reader(&[]);
    check(&read_with(undeclared, &answer, 0), &json!({"json_checks": null}));
}

#[test]
fn a_route_that_is_named_picks_its_schema_and_a_guess_picks_none() {
    let schemas = [("orders", ORDER), ("a=b", r#"{"type": "string"}"#)];
    let of = |more: Value| {
        let mut of = json!({"gen_ai.operation.name": "chat", "gen_ai.completion.0.content": "{\"order_id\": 1}"});
        of.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        read_with(&mut reader(&schemas), &of, 0)
    };
    check(&of(json!({})), &json!({"json_checks": "orders=ok,a=b=invalid"}));
    check(
        &of(json!({"gateway.route.name": "orders"})),
        &json!({"json_checks": "orders=ok"}),
    );
    check(
        &of(json!({"release.route": "a=b"})),
        &json!({"json_checks": "a=b=invalid"}),
    );
    check(
        &of(json!({"gateway.route.name": "other"})),
        &json!({"json_checks": null}),
    );
    check(
        &of(json!({"litellm.model_group": "other"})),
        &json!({"json_checks": "orders=ok,a=b=invalid"}),
    );
}

fn parameters() -> Value {
    json!({"type": "object", "properties": {"order_id": {"type": "integer"}}, "required": ["order_id"]})
}

/// Attributes that carry the definition of one tool, by dialect.
fn definitions() -> Vec<Value> {
    let (name, description) = ("get_order", "look up an order");
    let flat = json!({"type": "function", "name": name, "description": description, "parameters": parameters()});
    let nested = json!({"type": "function", "function": {
        "name": name, "description": description, "parameters": parameters()
    }});
    let mut drafted = parameters();
    drafted["$schema"] = json!("http://json-schema.org/draft-07/schema#");
    let vercel = json!({"type": "function", "name": name, "description": description, "inputSchema": drafted});
    let anthropic = json!({"name": name, "description": description, "input_schema": parameters()});
    let pydantic =
        json!({"name": name, "description": description, "parameters_json_schema": parameters(), "strict": null});
    let bedrock =
        json!({"toolSpec": {"name": name, "description": description, "inputSchema": {"json": parameters()}}});
    let gemini =
        json!({"functionDeclarations": [{"name": name, "description": description, "parameters": parameters()}]});
    vec![
        json!({"gen_ai.tool.definitions": json!([flat]).to_string()}),
        json!({"gen_ai.tool.definitions": [flat]}),
        json!({"gen_ai.tool.definitions": json!([nested]).to_string()}),
        json!({"gen_ai.tool.definitions": "null", "gen_ai.tool.definitions.0.tool.json_schema": nested.to_string()}),
        json!({"gen_ai.tool.definitions": json!([anthropic]).to_string()}),
        json!({"gen_ai.tool.definitions": json!([bedrock]).to_string()}),
        json!({"gen_ai.tool.definitions": json!([gemini]).to_string()}),
        json!({"llm.tools.0.tool.json_schema": nested.to_string()}),
        json!({"llm.invocation_parameters": json!({"model": "m", "tools": [nested]}).to_string()}),
        json!({"gen_ai.request.parameters": json!({"model": "m", "tools": [nested]}).to_string()}),
        json!({
            "llm.request.functions.0.name": name,
            "llm.request.functions.0.description": description,
            "llm.request.functions.0.parameters": parameters().to_string(),
        }),
        json!({"ai.prompt.tools": [vercel.to_string()]}),
        json!({"model_request_parameters": json!({"function_tools": [pydantic], "output_tools": []}).to_string()}),
    ]
}

/// Attributes that carry one call of a tool, by dialect.
fn calls(name: &str, arguments: &str) -> Vec<Value> {
    let parsed: Value = serde_json::from_str(arguments).unwrap_or_else(|_| json!(arguments));
    let part = |arguments: Value| {
        json!([{"role": "assistant", "parts": [
            {"type": "tool_call", "id": "call_1", "name": name, "arguments": arguments}
        ]}])
    };
    let in_message = |prefix: &str, name_key: &str, arguments_key: &str| json!({format!("{prefix}{name_key}"): name, format!("{prefix}{arguments_key}"): arguments});
    let openinference = "message.tool_calls.0.tool_call.function.";
    vec![
        in_message(&format!("llm.output_messages.0.{openinference}"), "name", "arguments"),
        in_message(
            &format!("gen_ai.output.messages.0.{openinference}"),
            "name",
            "arguments",
        ),
        in_message("gen_ai.completion.0.tool_calls.0.", "name", "arguments"),
        in_message("gen_ai.completion.0.function_call.", "name", "arguments"),
        json!({"gen_ai.output.messages": part(json!(arguments)).to_string()}),
        json!({"gen_ai.output.messages": part(parsed.clone()).to_string()}),
        json!({"gen_ai.output.messages": part(parsed)}),
        json!({"ai.response.toolCalls": json!([{"toolCallId": "c", "toolName": name, "input": arguments}]).to_string()}),
        json!({"ai.response.toolCalls": json!([{"toolCallId": "c", "toolName": name, "args": arguments}]).to_string()}),
    ]
}

#[test]
fn arguments_are_checked_between_any_two_dialects() {
    for (name, arguments, valid) in [
        ("get_order", r#"{"order_id": 4711}"#, true),
        ("get_order", r#"{"order_id": "4711"}"#, false),
        ("get_order", "{}", false),
        ("get_order", r#"{"order_id": 4711"#, false),
        ("drop_table", r#"{"order_id": 4711}"#, false),
    ] {
        for offered in definitions() {
            for asked in calls(name, arguments) {
                let mut of = asked.clone();
                of.as_object_mut().unwrap().extend(offered.as_object().unwrap().clone());
                if offered["gen_ai.tool.definitions"] == "null" && asked.get("gen_ai.output.messages").is_some() {
                    continue; // no client writes both
                }
                check(
                    &call(&of),
                    &json!({"tool_args_valid": valid, "tool_name": name, "json_checks": null}),
                );
            }
        }
    }
}

#[test]
fn one_definition_has_one_version_in_every_dialect() {
    let versions: Vec<Value> = definitions()
        .iter()
        .map(|of| call(of)["tools_version"].clone())
        .collect();
    let text = versions[0].as_str().unwrap();
    assert!(
        text.strip_prefix("sha256:").is_some_and(|digits| digits.len() == 16),
        "{text}"
    );
    for (version, of) in versions.iter().zip(definitions()) {
        assert_eq!(version, &versions[0], "{of}");
    }
    let changed = |change: fn(&mut Value)| {
        let mut tool = json!({"name": "get_order", "description": "look up an order", "parameters": parameters()});
        change(&mut tool);
        call(&json!({"gen_ai.tool.definitions": json!([tool]).to_string()}))["tools_version"].clone()
    };
    assert_eq!(changed(|_| ()), versions[0]);
    let others = [
        changed(|tool| tool["name"] = json!("get_orders")),
        changed(|tool| tool["description"] = json!("look up orders")),
        changed(|tool| tool["parameters"]["required"] = json!([])),
    ];
    assert!(others.iter().all(|other| *other != versions[0]));
}

#[test]
fn the_order_of_tools_and_keys_makes_no_version() {
    let version = |tools: &str| call(&json!({"gen_ai.tool.definitions": tools}))["tools_version"].clone();
    let one = version(r#"[{"name":"a","parameters":{"type":"object","required":["x"]}},{"name":"b"}]"#);
    assert_eq!(
        one,
        version(r#"[{"name":"b"},{"parameters":{"required":["x"],"type":"object"},"name":"a"}]"#)
    );
}

#[test]
fn a_stamp_stands_and_only_calls_are_given_a_version() {
    let tools = json!([{"name": "a"}]).to_string();
    let stamped = json!({"gen_ai.tool.definitions": tools, "release.tools.version": "tools@7"});
    check(&call(&stamped), &json!({"tools_version": "tools@7"}));
    let agent = json!({"gen_ai.operation.name": "invoke_agent", "gen_ai.tool.definitions": tools});
    check(&read_with(&mut reader(&[]), &agent, 0), &json!({"tools_version": null}));
    for none in ["null", "[]", "{", "7"] {
        check(
            &call(&json!({"gen_ai.tool.definitions": none})),
            &json!({"tools_version": null}),
        );
    }
}

#[test]
fn one_wrong_call_makes_all_wrong_and_nothing_to_check_is_null() {
    let of = |definitions: Value, first: &str, second: Option<&str>| {
        let part = |arguments: &str| {
            let mut part = json!({"type": "tool_call", "name": "get_order"});
            if !arguments.is_empty() {
                part["arguments"] = json!(arguments);
            }
            part
        };
        let parts: Vec<Value> = std::iter::once(first).chain(second).map(part).collect();
        call(&json!({
            "gen_ai.tool.definitions": definitions.to_string(),
            "gen_ai.output.messages": json!([{"role": "assistant", "parts": parts}]).to_string(),
        }))
    };
    let known = json!([{"name": "get_order", "parameters": parameters()}]);
    let (right, wrong) = (r#"{"order_id": 1}"#, r#"{"order_id": null}"#);
    check(
        &of(known.clone(), right, Some(right)),
        &json!({"tool_args_valid": true}),
    );
    check(
        &of(known.clone(), right, Some(wrong)),
        &json!({"tool_args_valid": false}),
    );
    check(&of(known.clone(), right, Some("")), &json!({"tool_args_valid": true}));
    check(
        &of(known, "", None),
        &json!({"tool_args_valid": null, "tool_name": "get_order"}),
    );
    let bare = json!([{"name": "get_order", "type": "function"}]);
    check(&of(bare.clone(), right, None), &json!({"tool_args_valid": null}));
    check(&of(bare, "{", None), &json!({"tool_args_valid": false}));
    let unoffered =
        json!({"gen_ai.completion.0.tool_calls.0.name": "f", "gen_ai.completion.0.tool_calls.0.arguments": "{"});
    check(&call(&unoffered), &json!({"tool_args_valid": null, "tool_name": "f"}));
}

#[test]
fn a_named_tool_stands_before_that_of_the_messages() {
    let of = json!({"gen_ai.tool.name": "stated", "gen_ai.completion.0.tool_calls.0.name": "asked"});
    check(&call(&of), &json!({"tool_name": "stated"}));
}
