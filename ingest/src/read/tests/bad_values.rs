//! Values that cannot be meant: the row survives with NULLs, and what was wrong is counted.

use super::{
    cells,
    hostile::{NOW, good_span, reader, request, text},
};
use opentelemetry_proto::tonic::common::v1::{AnyValue, ArrayValue, KeyValue, any_value::Value as Any};

/// The row of one call with these attributes, and how often numbers of it were bad.
fn call(attributes: &[(&str, Any)]) -> (serde_json::Map<String, serde_json::Value>, [u64; 4]) {
    let pair = |(key, value): &(&str, Any)| KeyValue {
        key: (*key).to_owned(),
        value: Some(AnyValue {
            value: Some(value.clone()),
        }),
        ..KeyValue::default()
    };
    let mut all = vec![text("gen_ai.operation.name", "chat")];
    all.extend(attributes.iter().map(pair));
    let mut reader = reader();
    let accepted = reader.read_traces(&request(vec![good_span(all)], vec![]), NOW).unwrap();
    assert_eq!((accepted.accepted, accepted.rejected), (1, 0));
    let counts = reader.counts();
    let bad = [
        counts.numbers_unreadable,
        counts.numbers_not_finite,
        counts.numbers_negative,
        counts.numbers_out_of_range,
    ];
    (cells::rows(&reader.take()[0].rows).remove(0), bad)
}

#[test]
fn a_bad_number_is_null_whatever_its_column_and_is_counted_by_its_reason() {
    let texts = |text: &str| Any::StringValue(text.to_owned());
    let nested = Any::ArrayValue(ArrayValue {
        values: vec![AnyValue {
            value: Some(Any::IntValue(1)),
        }],
    });
    for (key, column) in [
        ("gen_ai.usage.input_tokens", "prompt_tokens"),
        ("gen_ai.usage.output_tokens", "completion_tokens"),
        ("gen_ai.usage.cache_read.input_tokens", "cache_read_tokens"),
        ("gen_ai.usage.cache_write.input_tokens", "cache_write_tokens"),
        ("gen_ai.usage.reasoning_tokens", "reasoning_tokens"),
        ("gen_ai.usage.cost", "emitter_cost_usd"),
        ("gen_ai.response.time_to_first_chunk", "ttft_ms"),
        ("gateway.route.split", "split"),
        ("gateway.retry.count", "retries"),
        ("gateway.ratelimit.remaining_requests", "ratelimit_remaining"),
    ] {
        for (value, reason) in [
            (texts("many"), 0),
            (texts("0x10"), 0),
            (nested.clone(), 0),
            (Any::BoolValue(true), 0),
            (Any::BytesValue(b"12".to_vec()), 0),
            (Any::DoubleValue(f64::NAN), 1),
            (texts("NaN"), 1),
            (Any::DoubleValue(f64::NEG_INFINITY), 1),
            (texts("1e999"), 1),
            (Any::IntValue(-1), 2),
            (Any::IntValue(i64::MIN), 2),
            (texts("-7"), 2),
            (Any::DoubleValue(1e300), 3),
        ] {
            // no time is too long to be written down
            if column == "ttft_ms" && reason == 3 {
                continue;
            }
            let (row, bad) = call(&[(key, value.clone())]);
            assert_eq!(row.get(column), None, "{key} = {value:?}");
            assert_eq!(row["role"], "call");
            let mut expected = [0; 4];
            expected[reason] = 1;
            assert_eq!(bad, expected, "{key} = {value:?}");
        }
    }
}

#[test]
fn an_attribute_that_is_both_leaf_and_prefix_keeps_both_meanings() {
    let leaf = |key: &'static str, number| (key, Any::IntValue(number));
    let (row, bad) = call(&[
        leaf("gen_ai.usage.input_tokens", 10),
        leaf("gen_ai.usage.input_tokens.cache_read", 4),
        leaf("gen_ai.usage.output_tokens.reasoning", 2),
        leaf("gen_ai.usage.output_tokens", 5),
        ("gen_ai.prompt", Any::StringValue("DROPPED".to_owned())),
        ("gen_ai.prompt.name", Any::StringValue("support".to_owned())),
        ("metadata", Any::StringValue("{}".to_owned())),
        ("metadata.litellm_trace_id", Any::StringValue("r-1".to_owned())),
    ]);
    let number = |column: &str| row.get(column).and_then(serde_json::Value::as_i64);
    let tokens = [
        "prompt_tokens",
        "cache_read_tokens",
        "completion_tokens",
        "reasoning_tokens",
    ]
    .map(number);
    assert_eq!(tokens, [Some(10), Some(4), Some(5), Some(2)]);
    assert_eq!([&row["prompt_name"], &row["request_id"]], ["support", "r-1"]);
    assert_eq!(bad, [0; 4]);
    assert!(!format!("{row:?}").contains("DROPPED"));
}

#[test]
fn json_in_texts_that_does_not_parse_leaves_null_and_nothing_else() {
    for broken in [
        "",
        "{",
        "{\"model\"",
        "{\"model\":",
        "{\"model\": \"",
        "{\"model\": \"a",
        "{\"model\": \"a\\",
        "{\"model\": 7}",
        "{\"model\": null, \"response_cost\": null, \"total\": \"x\", \"model_id\": []}",
        "\"model\"\"model\"\"model\"",
        "[\"",
        "['cached_tokens': ",
        "{'cached_tokens': None, 'reasoning_tokens': -}",
    ] {
        let text = || Any::StringValue(broken.to_owned());
        let (row, _) = call(&[
            ("llm.invocation_parameters", text()),
            ("gen_ai.request.parameters", text()),
            ("hidden_params", text()),
            ("metadata.usage_object", text()),
            ("langfuse.observation.cost_details", text()),
            ("gen_ai.response.finish_reasons", Any::StringValue("[\"".to_owned())),
            ("langfuse.observation.completion_start_time", text()),
            ("gen_ai.usage.input_tokens", Any::IntValue(7)),
        ]);
        for column in [
            "request_model",
            "response_model",
            "deployment",
            "cache_read_tokens",
            "reasoning_tokens",
            "emitter_cost_usd",
            "finish_reason",
            "ttft_ms",
        ] {
            assert_eq!(row.get(column), None, "{column} of {broken}");
        }
        assert_eq!(row["prompt_tokens"], 7, "{broken}");
    }
}
