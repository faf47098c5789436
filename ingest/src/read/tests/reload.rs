//! Another configuration under a reader that runs: the next group is read by it, and nothing of the old one is left.

use super::{
    super::{ContentPolicy, ExtraKeys, ReadConfig, Reader},
    cells,
    rules::span,
};
use crate::price::{PriceList, PriceTable};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{ResourceSpans, ScopeSpans},
};
use prost::Message;
use proto::Nanos;
use serde_json::{Map, Value, json};
use std::sync::Arc;

/// One group of one call, read by what stands in the reader.
fn call(reader: &mut Reader) -> Map<String, Value> {
    let of = json!({
        "gen_ai.operation.name": "chat", "gen_ai.provider.name": "openai", "gen_ai.request.model": "house-model",
        "gen_ai.usage.input_tokens": 1_000, "gen_ai.usage.output_tokens": 100,
        "gen_ai.prompt": "canary", "acme.path": "support",
    });
    let scope_spans = vec![ScopeSpans {
        spans: vec![span(&of)],
        ..ScopeSpans::default()
    }];
    let resource_spans = vec![ResourceSpans {
        scope_spans,
        ..ResourceSpans::default()
    }];
    let body = ExportTraceServiceRequest { resource_spans }.encode_to_vec();
    reader.read_traces(&body, Nanos(77)).unwrap();
    let section = reader.take().pop().unwrap();
    cells::rows(&section.rows).pop().unwrap()
}

fn prices(input: u32) -> Arc<PriceTable> {
    let list: PriceList = serde_json::from_value(json!({
        "version": format!("v{input}"), "provider": { "openai": { "house-model": { "input": input, "output": 0 } } }
    }))
    .unwrap();
    let mut table = (*PriceTable::shipped()).clone();
    table.merge(&list).unwrap();
    Arc::new(table)
}

#[test]
fn the_next_group_is_read_by_the_new_configuration() {
    let mut first = ReadConfig {
        prices: prices(1),
        ..ReadConfig::default()
    };
    first.content.policy = ContentPolicy::Keep;
    let mut reader = Reader::new(Arc::new(first.clone()));
    let row = call(&mut reader);
    assert_eq!((&row["cost_usd"], &row["price_version"]), (&json!(1_000), &json!("v1")));
    assert!(json!(row).to_string().contains("canary"));
    assert!(!row.contains_key("route"));

    let mut keys = ExtraKeys::default();
    keys.add("route", "acme.path").unwrap();
    let second = ReadConfig {
        prices: prices(3),
        keys,
        ..ReadConfig::default()
    };
    assert_ne!(first, second);
    let second = Arc::new(second);
    reader.set_config(Arc::clone(&second));
    let row = call(&mut reader);
    assert_eq!((&row["cost_usd"], &row["price_version"]), (&json!(3_000), &json!("v3")));
    assert_eq!(row["route"], "support");
    assert!(!json!(row).to_string().contains("canary"), "dropped from now on");
    assert_eq!(
        row,
        call(&mut Reader::new(second)),
        "as a reader that never knew another"
    );
}
