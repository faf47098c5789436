//! Declared schemas of every table, live and sealed alike. Append-only: columns are added last and never renamed.

use arrow::datatypes::{DataType, Field, Fields, Schema, SchemaRef, TimeUnit};
use std::sync::{Arc, LazyLock};

/// Version of the declared schemas; goes up when a column is added.
pub const SCHEMA_VERSION: u32 = 3;
/// Digits of money: `Decimal128(18, 9)` holds nano-USD exactly, up to a billion dollars.
pub const MONEY_PRECISION: u8 = 18;
/// Digits after the point of money.
pub const MONEY_SCALE: i8 = 9;

/// `timestamp(ns, UTC)`.
#[must_use]
pub fn time() -> DataType {
    DataType::Timestamp(TimeUnit::Nanosecond, Some("UTC".into()))
}

/// `Dictionary(Int32, Utf8)`: text of low cardinality.
#[must_use]
pub fn word() -> DataType {
    DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8))
}

/// `Decimal128(18, 9)`: nano-USD.
#[must_use]
pub const fn money() -> DataType {
    DataType::Decimal128(MONEY_PRECISION, MONEY_SCALE)
}

/// A map in the layout of Arrow's `MapBuilder` with `entries`, `keys`, `values`.
fn map_of(keys: DataType) -> DataType {
    let entries = Fields::from(vec![
        Field::new("keys", keys, false),
        Field::new("values", DataType::Utf8, true),
    ]);
    DataType::Map(Arc::new(Field::new("entries", DataType::Struct(entries), false)), false)
}

/// `Map<Utf8, Utf8>`.
#[must_use]
pub fn map() -> DataType {
    map_of(DataType::Utf8)
}

/// `Map<Dictionary(Int32, Utf8), Utf8>`: a map in every row, with the same few keys in all of them.
#[must_use]
pub fn attributes() -> DataType {
    map_of(word())
}

fn list_of(fields: Vec<Field>) -> DataType {
    DataType::List(Arc::new(Field::new("item", DataType::Struct(fields.into()), true)))
}

/// `List<Struct<time, name, attributes>>`.
#[must_use]
pub fn events() -> DataType {
    list_of(vec![
        Field::new("time", time(), true),
        Field::new("name", DataType::Utf8, true),
        Field::new("attributes", map(), true),
    ])
}

/// `List<Struct<trace_id, span_id, attributes>>`.
#[must_use]
pub fn links() -> DataType {
    list_of(vec![
        Field::new("trace_id", DataType::Utf8, true),
        Field::new("span_id", DataType::Utf8, true),
        Field::new("attributes", map(), true),
    ])
}

/// Columns that hold the long texts of a span, where the content policy keeps them: they have an age of their own, after
/// which they are null.
pub const LONG_TEXTS: [&str; 2] = ["input", "output"];

fn table(columns: Vec<(&str, DataType, bool)>) -> SchemaRef {
    let fields: Vec<Field> = columns
        .into_iter()
        .map(|(name, ty, nullable)| Field::new(name, ty, nullable))
        .collect();
    Arc::new(Schema::new(fields))
}

const NULL: bool = true;
const SET: bool = false;

/// One row per OTLP span.
pub static SPANS: LazyLock<SchemaRef> = LazyLock::new(|| {
    use DataType::{Boolean, Float64, Int32, Int64, Utf8, Utf8View};
    table(vec![
        ("trace_id", Utf8, SET),
        ("span_id", Utf8, SET),
        ("parent_span_id", Utf8, NULL),
        ("start_time", time(), SET),
        ("end_time", time(), SET),
        ("duration_ms", Float64, SET),
        ("name", word(), NULL),
        ("kind", word(), NULL),
        ("role", word(), SET),
        ("scope", word(), NULL),
        ("service_name", word(), NULL),
        ("route", word(), NULL),
        ("color", word(), NULL),
        ("unmarked_reason", word(), NULL),
        ("version", word(), NULL),
        ("release", word(), NULL),
        ("cohort", word(), NULL),
        ("split", Float64, NULL),
        ("mirror_key", Utf8View, NULL),
        ("shadow", Boolean, NULL),
        ("agent", word(), NULL),
        ("workflow", word(), NULL),
        ("session_id", Utf8View, NULL),
        ("user_id", Utf8View, NULL),
        ("provider", word(), NULL),
        ("host", word(), NULL),
        ("deployment", word(), NULL),
        ("request_model", word(), NULL),
        ("response_model", word(), NULL),
        ("response_id", Utf8View, NULL),
        ("prompt_tokens", Int64, NULL),
        ("completion_tokens", Int64, NULL),
        ("cache_read_tokens", Int64, NULL),
        ("cache_write_tokens", Int64, NULL),
        ("reasoning_tokens", Int64, NULL),
        ("cost_usd", money(), NULL),
        ("emitter_cost_usd", money(), NULL),
        ("price_version", word(), NULL),
        ("ttft_ms", Float64, NULL),
        ("status", word(), NULL),
        ("error_type", word(), NULL),
        ("http_status", Int32, NULL),
        ("timed_out", Boolean, NULL),
        ("rate_limited", Boolean, NULL),
        ("retries", Int32, NULL),
        ("fallback", Boolean, NULL),
        ("fallback_reason", word(), NULL),
        ("cache_hit", Boolean, NULL),
        ("finish_reason", word(), NULL),
        ("tool_name", word(), NULL),
        ("prompt_name", word(), NULL),
        ("prompt_version", word(), NULL),
        ("tools_version", word(), NULL),
        ("guardrails_version", word(), NULL),
        ("cache_version", word(), NULL),
        ("fallback_version", word(), NULL),
        ("policy_version", word(), NULL),
        ("guardrail_name", word(), NULL),
        ("guardrail_result", word(), NULL),
        ("guardrail_score", Float64, NULL),
        ("mirror_kind", word(), NULL),
        ("ratelimit_remaining", Int64, NULL),
        ("input", Utf8View, NULL),
        ("output", Utf8View, NULL),
        ("attributes", attributes(), NULL),
        ("resource", attributes(), NULL),
        ("events", events(), NULL),
        ("links", links(), NULL),
        ("received_at", time(), SET),
        ("request_id", Utf8View, NULL),
        ("variant", word(), NULL),
        ("sampling", Float64, NULL),
        ("json_checks", word(), NULL),
        ("tool_args_valid", Boolean, NULL),
        ("repeats_span_id", Utf8, NULL),
    ])
});

/// One row per assembled trace.
pub static TRACES: LazyLock<SchemaRef> = LazyLock::new(|| {
    use DataType::{Boolean, Float64, Int32, Int64, Utf8, Utf8View};
    table(vec![
        ("trace_id", Utf8, SET),
        ("start_time", time(), SET),
        ("duration_ms", Float64, SET),
        ("route", word(), NULL),
        ("color", word(), SET),
        ("assigned_color", word(), NULL),
        ("served_color", word(), NULL),
        ("version", word(), NULL),
        ("release", word(), NULL),
        ("cohort", word(), NULL),
        ("split", Float64, NULL),
        ("mirror_key", Utf8View, NULL),
        ("session_id", Utf8View, NULL),
        ("user_id", Utf8View, NULL),
        ("calls", Int32, SET),
        ("attempts_failed", Int32, SET),
        ("error", Boolean, SET),
        ("timed_out", Boolean, SET),
        ("retries", Int32, NULL),
        ("fallback", Boolean, NULL),
        ("cache_hit", Boolean, NULL),
        ("prompt_tokens", Int64, NULL),
        ("completion_tokens", Int64, NULL),
        ("cost_usd", money(), NULL),
        ("priced", Boolean, SET),
        ("shadow_cost_usd", money(), NULL),
        ("evals", Int32, SET),
        ("evals_failed", Int32, SET),
        ("closed_by", word(), SET),
        ("unmarked_reason", word(), NULL),
        ("color_conflict", Boolean, NULL),
        ("requests", Int32, NULL),
        ("requests_failed", Int32, NULL),
        ("linked_trace_id", Utf8, NULL),
        ("linked_by", word(), NULL),
        ("superseded", Boolean, NULL),
        ("json_valid", Boolean, NULL),
        ("tools_failed", Int32, NULL),
        ("guardrail_blocks", Int32, NULL),
        ("mixed_manifest", Boolean, NULL),
        ("sampling", Float64, NULL),
        ("shadow", Boolean, NULL),
        ("tool_args_valid", Boolean, NULL),
    ])
});

/// One row per evaluation.
pub static EVALS: LazyLock<SchemaRef> = LazyLock::new(|| {
    use DataType::{Boolean, Float64, Utf8, Utf8View};
    table(vec![
        ("trace_id", Utf8, NULL),
        ("span_id", Utf8, NULL),
        ("time", time(), SET),
        ("name", word(), SET),
        ("score", Float64, NULL),
        ("label", word(), NULL),
        ("passed", Boolean, NULL),
        ("source", word(), SET),
        ("identifier", Utf8View, NULL),
        ("route", word(), NULL),
        ("color", word(), NULL),
        ("version", word(), NULL),
        ("release", word(), NULL),
        ("cohort", word(), NULL),
        ("explanation", Utf8View, NULL),
        ("error_type", word(), NULL),
        ("response_id", Utf8View, NULL),
        ("linked_by", word(), NULL),
    ])
});

/// Sparse buckets of a cell: `List<Struct<bucket: Int32, count: Int64>>`, ascending by bucket.
#[must_use]
pub fn hdr() -> DataType {
    list_of(vec![
        Field::new("bucket", DataType::Int32, false),
        Field::new("count", DataType::Int64, false),
    ])
}

/// Metric cells. Sealed rows are signed deltas: group by the key and sum. `split` is a share in [0, 1].
pub static CELLS: LazyLock<SchemaRef> = LazyLock::new(|| {
    use DataType::{Boolean, Float64, Int64};
    table(vec![
        ("minute", time(), SET),
        ("route", word(), SET),
        ("release", word(), NULL),
        ("color", word(), SET),
        ("cohort", word(), NULL),
        ("split", Float64, NULL),
        ("metric", word(), SET),
        ("grain", word(), SET),
        ("n", Int64, SET),
        ("events", Int64, SET),
        ("sum", Int64, SET),
        ("hdr", hdr(), SET),
        ("admitted", Boolean, SET),
    ])
});

/// Releases, from the ledger.
pub static RELEASES: LazyLock<SchemaRef> = LazyLock::new(|| {
    use DataType::{Float64, Utf8};
    table(vec![
        ("id", Utf8, SET),
        ("route", Utf8, SET),
        ("mode", word(), SET),
        ("phase", word(), SET),
        ("verdict", word(), SET),
        ("active_color", word(), SET),
        ("split", Float64, SET),
        ("blue_version", Utf8, SET),
        ("green_version", Utf8, SET),
        ("rules_hash", Utf8, SET),
        ("opened_at", time(), SET),
        ("settled_at", time(), NULL),
        ("manifests", Utf8, SET),
    ])
});

/// Decisions, from the ledger.
pub static DECISIONS: LazyLock<SchemaRef> = LazyLock::new(|| {
    use DataType::{Int64, Utf8};
    table(vec![
        ("decision_id", Utf8, SET),
        ("decision_seq", Int64, SET),
        ("release", Utf8, SET),
        ("route", Utf8, SET),
        ("action", word(), SET),
        ("cohort", Utf8, NULL),
        ("reason", Utf8, SET),
        ("actor", Utf8, SET),
        ("rules_hash", Utf8, SET),
        ("decided_at", time(), SET),
        ("evidence", Utf8, SET),
    ])
});

/// Delivery attempts of notices, from the outbox.
pub static DELIVERIES: LazyLock<SchemaRef> = LazyLock::new(|| {
    use DataType::{Int32, Utf8};
    table(vec![
        ("delivery_id", Utf8, SET),
        ("decision_id", Utf8, SET),
        ("state", word(), SET),
        ("attempts", Int32, SET),
        ("last_status", Int32, NULL),
        ("last_error", Utf8, NULL),
        ("next_attempt_at", time(), NULL),
        ("delivered_at", time(), NULL),
    ])
});
