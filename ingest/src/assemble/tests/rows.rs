//! Batches as the reader makes them, from short descriptions.

use super::at;
use arrow::{
    array::{
        ArrayRef, BooleanArray, Decimal128Array, DictionaryArray, Float64Array, Int64Array, MapBuilder, MapFieldNames,
        RecordBatch, StringArray, StringBuilder, StringDictionaryBuilder, StringViewArray, TimestampNanosecondArray,
    },
    datatypes::Int32Type,
};
use proto::{
    layout::Table,
    schema::{MONEY_PRECISION, MONEY_SCALE},
};
use std::sync::Arc;
use store::Section;

#[derive(Debug, Clone, Default)]
pub(super) struct S {
    pub trace: u8,
    pub id: u64,
    pub parent: Option<u64>,
    /// Seconds after T0.
    pub start: f64,
    pub end: f64,
    pub role: &'static str,
    pub kind: Option<&'static str>,
    pub error: bool,
    pub route: Option<&'static str>,
    pub color: Option<&'static str>,
    pub version: Option<&'static str>,
    pub service: Option<&'static str>,
    pub deployment: Option<&'static str>,
    pub tier: Option<&'static str>,
    pub shadow: bool,
    pub tokens: Option<i64>,
    pub cost: Option<i64>,
    pub fallback: Option<bool>,
    pub session: Option<&'static str>,
    pub request: Option<&'static str>,
    pub scope: Option<&'static str>,
    pub response: Option<&'static str>,
    pub asked: Option<&'static str>,
    pub answered: Option<&'static str>,
    pub tools: Option<&'static str>,
    pub variant: Option<&'static str>,
    pub flag: Option<&'static str>,
    pub workflow: Option<&'static str>,
    pub json: Option<&'static str>,
    pub guardrail: Option<&'static str>,
    pub sampling: Option<f64>,
    pub group: Option<&'static str>,
}

/// A root that lasted from `start` to `end`.
pub(super) fn root(trace: u8, start: f64, end: f64) -> S {
    S {
        trace,
        id: 1,
        start,
        end,
        role: "server",
        ..S::default()
    }
}

/// A span of route `chat`.
pub(super) fn chat(span: S) -> S {
    S {
        route: Some("chat"),
        ..span
    }
}

/// A call below `parent`.
pub(super) fn call(trace: u8, id: u64, parent: u64, start: f64, end: f64) -> S {
    S {
        trace,
        id,
        parent: Some(parent),
        start,
        end,
        role: "call",
        ..S::default()
    }
}

type Words = DictionaryArray<Int32Type>;

fn column<A: arrow::array::Array + 'static>(name: &'static str, array: A) -> (&'static str, ArrayRef, bool) {
    (name, Arc::new(array), true)
}

pub(super) fn spans(rows: &[S]) -> Section {
    let hex = |id: u64| format!("{id:016x}");
    let times = |t: fn(&S) -> f64| {
        TimestampNanosecondArray::from_iter_values(rows.iter().map(|r| at(t(r)).0)).with_timezone("UTC")
    };
    let words = |w: fn(&S) -> Option<&'static str>| Words::from_iter(rows.iter().map(w));
    let texts = |t: fn(&S) -> Option<&'static str>| StringViewArray::from_iter(rows.iter().map(t));
    let names = MapFieldNames {
        entry: "entries".into(),
        key: "keys".into(),
        value: "values".into(),
    };
    let mut attributes = MapBuilder::new(
        Some(names),
        StringDictionaryBuilder::<Int32Type>::new(),
        StringBuilder::new(),
    );
    for row in rows {
        if let Some(tier) = row.tier {
            attributes.keys().append_value("tier");
            attributes.values().append_value(tier);
        }
        if let Some(flag) = row.flag {
            attributes.keys().append_value("tracegate.flag");
            attributes.values().append_value(flag);
        }
        if let Some(group) = row.group {
            attributes.keys().append_value("litellm.model_group");
            attributes.values().append_value(group);
        }
        attributes.append(true).unwrap();
    }
    let cost = Decimal128Array::from_iter(rows.iter().map(|r| r.cost.map(i128::from)));
    let rows = RecordBatch::try_from_iter_with_nullable([
        column(
            "trace_id",
            StringArray::from_iter_values(rows.iter().map(|r| format!("{:032x}", r.trace))),
        ),
        column("span_id", StringArray::from_iter_values(rows.iter().map(|r| hex(r.id)))),
        column(
            "parent_span_id",
            StringArray::from_iter(rows.iter().map(|r| r.parent.map(hex))),
        ),
        column("start_time", times(|r| r.start)),
        column("end_time", times(|r| r.end)),
        column("kind", words(|r| r.kind)),
        column("role", words(|r| Some(r.role))),
        column("route", words(|r| r.route)),
        column("color", words(|r| r.color)),
        column("version", words(|r| r.version)),
        column("service_name", words(|r| r.service)),
        column("deployment", words(|r| r.deployment)),
        column(
            "shadow",
            BooleanArray::from_iter(rows.iter().map(|r| r.shadow.then_some(true))),
        ),
        column("session_id", StringViewArray::from_iter(rows.iter().map(|r| r.session))),
        column("prompt_tokens", Int64Array::from_iter(rows.iter().map(|r| r.tokens))),
        column(
            "cost_usd",
            cost.with_precision_and_scale(MONEY_PRECISION, MONEY_SCALE).unwrap(),
        ),
        column("status", words(|r| r.error.then_some("error"))),
        column("fallback", BooleanArray::from_iter(rows.iter().map(|r| r.fallback))),
        column("attributes", attributes.finish()),
        column("request_id", texts(|r| r.request)),
        column("response_id", texts(|r| r.response)),
        column("scope", words(|r| r.scope)),
        column("request_model", words(|r| r.asked)),
        column("response_model", words(|r| r.answered)),
        column("tools_version", words(|r| r.tools)),
        column("variant", words(|r| r.variant)),
        column("workflow", words(|r| r.workflow)),
        column("json_checks", words(|r| r.json)),
        column("guardrail_result", words(|r| r.guardrail)),
        column("sampling", Float64Array::from_iter(rows.iter().map(|r| r.sampling))),
    ])
    .unwrap();
    Section {
        table: Table::Spans,
        rows,
    }
}

#[derive(Debug, Clone, Default)]
pub(super) struct E {
    /// 0 if it does not say.
    pub trace: u8,
    pub span: Option<u64>,
    pub response: Option<&'static str>,
    pub time: f64,
    pub name: &'static str,
    pub passed: Option<bool>,
}

pub(super) fn evals(rows: &[E]) -> Section {
    let score = |r: &E| r.passed.map(f64::from);
    let rows = RecordBatch::try_from_iter_with_nullable([
        column(
            "trace_id",
            StringArray::from_iter(rows.iter().map(|r| (r.trace > 0).then(|| format!("{:032x}", r.trace)))),
        ),
        column(
            "span_id",
            StringArray::from_iter(rows.iter().map(|r| r.span.map(|id| format!("{id:016x}")))),
        ),
        column(
            "response_id",
            StringViewArray::from_iter(rows.iter().map(|r| r.response)),
        ),
        column(
            "time",
            TimestampNanosecondArray::from_iter_values(rows.iter().map(|r| at(r.time).0)).with_timezone("UTC"),
        ),
        column("name", Words::from_iter(rows.iter().map(|r| Some(r.name)))),
        column("score", Float64Array::from_iter(rows.iter().map(score))),
        column("passed", BooleanArray::from_iter(rows.iter().map(|r| r.passed))),
        column("source", Words::from_iter(rows.iter().map(|_| Some("otel_log")))),
    ])
    .unwrap();
    Section {
        table: Table::Evals,
        rows,
    }
}
