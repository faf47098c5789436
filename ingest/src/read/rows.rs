//! The rows being gathered: one builder a column of the declared tables, by name.

use super::{
    columns::{Amounts, Column, Flags, Texts, Words},
    maps::{Events, Links, Maps},
};
use arrow::{
    array::{ArrayRef, RecordBatch},
    datatypes::{Decimal128Type, Field, Float64Type, Int32Type, Int64Type, Schema, SchemaRef, TimestampNanosecondType},
    error::ArrowError,
};
use std::sync::Arc;

type Times = Amounts<TimestampNanosecondType>;
type Doubles = Amounts<Float64Type>;
type Counts = Amounts<Int64Type>;
type Money = Amounts<Decimal128Type>;

/// Rows of a table. `rows` are complete; what a column holds beyond them belongs to the row being read.
macro_rules! rows {
    ($(#[$doc:meta])* $name:ident in $schema:path { $($column:ident: $ty:ty,)* }) => {
        $(#[$doc])*
        #[derive(Default)]
        pub(super) struct $name {
            pub(super) rows: usize,
            $(pub(super) $column: $ty,)*
        }

        impl $name {
            /// Forgets every row from `rows` on.
            pub(super) fn truncate(&mut self, rows: usize) {
                $(self.$column.truncate(rows);)*
                self.rows = rows;
            }

            /// Memory in use, bytes.
            pub(super) fn bytes(&self) -> usize {
                0 $(+ self.$column.bytes())*
            }

            /// Whether all text of the rows from `row` on is UTF-8.
            pub(super) fn is_text_from(&self, row: usize) -> bool {
                true $(&& self.$column.is_text_from(row))*
            }

            /// The rows as a batch without the columns that no row used; `None` if there are no rows.
            pub(super) fn take(&mut self) -> Result<Option<RecordBatch>, ArrowError> {
                let rows = std::mem::take(&mut self.rows);
                if rows == 0 {
                    self.truncate(0);
                    return Ok(None);
                }
                let mut used = Used { declared: &$schema, fields: Vec::new(), columns: Vec::new() };
                $(used.add(stringify!($column), &mut self.$column, rows)?;)*
                RecordBatch::try_new(Arc::new(Schema::new(used.fields)), used.columns).map(Some)
            }

            #[cfg(test)]
            const COLUMNS: &[&str] = &[$(stringify!($column)),*];
        }
    };
}

struct Used<'s> {
    declared: &'s SchemaRef,
    fields: Vec<Arc<Field>>,
    columns: Vec<ArrayRef>,
}

impl Used<'_> {
    fn add(&mut self, name: &str, column: &mut impl Column, rows: usize) -> Result<(), ArrowError> {
        let (_, field) = self
            .declared
            .fields()
            .find(name)
            .ok_or_else(|| ArrowError::SchemaError(format!("column `{name}` is not declared")))?;
        if let Some(array) = column.take(rows, field.data_type())? {
            self.fields.push(Arc::clone(field));
            self.columns.push(array);
        }
        Ok(())
    }
}

rows! {
    /// Rows of `spans`. `unmarked_reason`, `release` and `repeats_span_id` are assembly's: the reader never sets them.
    SpanRows in proto::schema::SPANS {
        trace_id: Texts,
        span_id: Texts,
        parent_span_id: Texts,
        start_time: Times,
        end_time: Times,
        duration_ms: Doubles,
        name: Words,
        kind: Words,
        role: Words,
        scope: Words,
        service_name: Words,
        route: Words,
        color: Words,
        version: Words,
        cohort: Words,
        split: Doubles,
        mirror_key: Texts,
        shadow: Flags,
        agent: Words,
        workflow: Words,
        session_id: Texts,
        user_id: Texts,
        provider: Words,
        host: Words,
        deployment: Words,
        request_model: Words,
        response_model: Words,
        response_id: Texts,
        prompt_tokens: Counts,
        completion_tokens: Counts,
        cache_read_tokens: Counts,
        cache_write_tokens: Counts,
        reasoning_tokens: Counts,
        cost_usd: Money,
        emitter_cost_usd: Money,
        price_version: Words,
        ttft_ms: Doubles,
        status: Words,
        error_type: Words,
        http_status: Amounts<Int32Type>,
        timed_out: Flags,
        rate_limited: Flags,
        retries: Amounts<Int32Type>,
        fallback: Flags,
        fallback_reason: Words,
        cache_hit: Flags,
        finish_reason: Words,
        tool_name: Words,
        prompt_name: Words,
        prompt_version: Words,
        tools_version: Words,
        guardrails_version: Words,
        cache_version: Words,
        fallback_version: Words,
        policy_version: Words,
        guardrail_name: Words,
        guardrail_result: Words,
        guardrail_score: Doubles,
        mirror_kind: Words,
        ratelimit_remaining: Counts,
        input: Texts,
        output: Texts,
        attributes: Maps,
        resource: Maps,
        events: Events,
        links: Links,
        received_at: Times,
        request_id: Texts,
        variant: Words,
        sampling: Doubles,
        json_checks: Words,
        tool_args_valid: Flags,
    }
}

rows! {
    /// Rows of `evals`. Route, color, version, release and cohort are those of the trace: assembly knows them.
    EvalRows in proto::schema::EVALS {
        trace_id: Texts,
        span_id: Texts,
        time: Times,
        name: Words,
        score: Doubles,
        label: Words,
        passed: Flags,
        source: Words,
        identifier: Texts,
        explanation: Texts,
        error_type: Words,
        response_id: Texts,
        linked_by: Words,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_declared_order(columns: &[&str], schema: &SchemaRef) -> bool {
        let places: Vec<usize> = columns.iter().map(|name| schema.index_of(name).unwrap()).collect();
        places.is_sorted()
    }

    #[test]
    fn columns_stand_in_declared_order() {
        assert!(is_declared_order(SpanRows::COLUMNS, &proto::schema::SPANS));
        assert!(is_declared_order(EvalRows::COLUMNS, &proto::schema::EVALS));
        // of assembly: unmarked_reason, release, repeats_span_id
        assert_eq!(SpanRows::COLUMNS.len() + 3, proto::schema::SPANS.fields().len());
    }
}
