//! Rows of `traces`: the one table that assembly writes itself. A row is complete when it is made; a trace that changes
//! later gets another one.

use super::{outcome::Outcome, trace::ClosedBy};
use arrow::{
    array::{
        ArrayRef, BooleanBuilder, Decimal128Builder, Float64Builder, Int32Builder, Int64Builder, RecordBatch,
        StringBuilder, StringDictionaryBuilder, StringViewBuilder, TimestampNanosecondBuilder, new_null_array,
    },
    datatypes::Int32Type,
    error::ArrowError,
};
use proto::{
    Color,
    cell::PPM,
    schema::{self, MONEY_PRECISION, MONEY_SCALE},
};
use std::sync::Arc;
use store::TraceId;

/// A closed trace.
#[derive(Debug, Clone, PartialEq)]
pub struct TraceRow {
    /// Trace.
    pub trace_id: TraceId,
    /// Its numbers; `None` if a late span showed that it is a judge's own, so that its earlier row goes.
    pub outcome: Option<Arc<Outcome>>,
    /// Why it closed.
    pub closed_by: ClosedBy,
    /// Record with which its earlier row was made, which this one replaces.
    pub replaces: Option<u64>,
}

type Word = StringDictionaryBuilder<Int32Type>;

fn marked(color: Color) -> Option<&'static str> {
    color.is_marked().then(|| color.as_str())
}

fn count(n: usize) -> i32 {
    i32::try_from(n).unwrap_or(i32::MAX)
}

/// A batch of `traces` with all declared columns. Rows without an outcome are left out.
///
/// # Errors
/// If the columns do not fit the declared schema.
pub fn rows_to_batch(rows: &[TraceRow]) -> Result<RecordBatch, ArrowError> {
    let mut ids = StringBuilder::new();
    let mut start = TimestampNanosecondBuilder::new().with_timezone("UTC");
    let (mut duration, mut split) = (Float64Builder::new(), Float64Builder::new());
    let [
        mut route,
        mut color,
        mut assigned,
        mut served,
        mut version,
        mut release,
        mut cohort,
        mut closed_by,
        mut reason,
        mut linked_by,
    ] = std::array::from_fn(|_| Word::new());
    let [mut mirror_key, mut session, mut user] = std::array::from_fn(|_| StringViewBuilder::new());
    let [
        mut calls,
        mut failed,
        mut retries,
        mut evals,
        mut evals_failed,
        mut requests,
        mut requests_failed,
        mut tools_failed,
        mut guardrail_blocks,
    ] = std::array::from_fn(|_| Int32Builder::new());
    let [
        mut error,
        mut timed_out,
        mut fallback,
        mut cache_hit,
        mut priced,
        mut conflict,
        mut superseded,
        mut json_valid,
        mut mixed,
        mut shadow,
        mut tool_args_valid,
    ] = std::array::from_fn(|_| BooleanBuilder::new());
    let (mut linked, mut sampling) = (StringBuilder::new(), Float64Builder::new());
    let [mut prompt, mut completion] = std::array::from_fn(|_| Int64Builder::new());
    let money = || Decimal128Builder::new().with_precision_and_scale(MONEY_PRECISION, MONEY_SCALE);
    let (mut cost, mut shadow_cost) = (money()?, money()?);

    let rows_made = rows.iter().filter(|row| row.outcome.is_some()).count();
    for row in rows {
        let Some(out) = &row.outcome else {
            continue;
        };
        let mark = &out.mark;
        ids.append_value(hex::encode(row.trace_id));
        start.append_value(out.start.0);
        duration.append_value(out.duration_us as f64 / 1_000.0);
        route.append_option(mark.route.as_deref());
        color.append_value(mark.color.as_str());
        assigned.append_option(marked(out.assigned));
        served.append_option(marked(out.served));
        version.append_option(mark.version.as_deref());
        release.append_option(mark.release.as_deref());
        cohort.append_option(mark.cohort.as_deref());
        split.append_option(mark.split_ppm.map(|ppm| f64::from(ppm) / f64::from(PPM)));
        mirror_key.append_option(out.subject.mirror_key.as_deref());
        session.append_option(out.subject.session.as_deref());
        user.append_option(out.subject.user.as_deref());
        calls.append_value(count(out.attempts.len()));
        failed.append_value(count(out.attempts.iter().filter(|a| a.error).count()));
        error.append_value(out.error);
        timed_out.append_value(out.timed_out);
        retries.append_option(out.retries);
        fallback.append_option(out.fallback.known());
        cache_hit.append_option(out.cache_hit.known());
        prompt.append_option(out.prompt);
        completion.append_option(out.completion);
        cost.append_option(out.cost.map(i128::from));
        priced.append_value(out.priced);
        shadow_cost.append_option(out.shadow_cost.map(i128::from));
        evals.append_value(count(out.evals as usize));
        evals_failed.append_value(count(out.evals_failed as usize));
        closed_by.append_value(row.closed_by.as_str());
        let quality = &out.quality;
        reason.append_option(mark.unmarked_reason.as_deref());
        conflict.append_value(out.conflict);
        requests.append_value(count(out.requests.len()));
        requests_failed.append_value(count(out.requests.iter().filter(|r| r.error).count()));
        linked.append_option(out.link.as_ref().map(|link| hex::encode(link.other)));
        linked_by.append_option(out.linked_by());
        superseded.append_value(out.is_superseded());
        json_valid.append_option(quality.json_valid);
        tools_failed.append_option(quality.tools_failed.map(|n| count(n as usize)));
        guardrail_blocks.append_value(count(quality.guardrail_blocks as usize));
        mixed.append_option(quality.off_path);
        sampling.append_option(out.sampling_ppm.map(|ppm| f64::from(ppm) / f64::from(PPM)));
        shadow.append_value(!out.visible);
        tool_args_valid.append_option(quality.tool_args_valid);
    }
    let mut columns: Vec<ArrayRef> = vec![
        Arc::new(ids.finish()),
        Arc::new(start.finish()),
        Arc::new(duration.finish()),
        Arc::new(route.finish()),
        Arc::new(color.finish()),
        Arc::new(assigned.finish()),
        Arc::new(served.finish()),
        Arc::new(version.finish()),
        Arc::new(release.finish()),
        Arc::new(cohort.finish()),
        Arc::new(split.finish()),
        Arc::new(mirror_key.finish()),
        Arc::new(session.finish()),
        Arc::new(user.finish()),
        Arc::new(calls.finish()),
        Arc::new(failed.finish()),
        Arc::new(error.finish()),
        Arc::new(timed_out.finish()),
        Arc::new(retries.finish()),
        Arc::new(fallback.finish()),
        Arc::new(cache_hit.finish()),
        Arc::new(prompt.finish()),
        Arc::new(completion.finish()),
        Arc::new(cost.finish()),
        Arc::new(priced.finish()),
        Arc::new(shadow_cost.finish()),
        Arc::new(evals.finish()),
        Arc::new(evals_failed.finish()),
        Arc::new(closed_by.finish()),
        Arc::new(reason.finish()),
        Arc::new(conflict.finish()),
        Arc::new(requests.finish()),
        Arc::new(requests_failed.finish()),
        Arc::new(linked.finish()),
        Arc::new(linked_by.finish()),
        Arc::new(superseded.finish()),
        Arc::new(json_valid.finish()),
        Arc::new(tools_failed.finish()),
        Arc::new(guardrail_blocks.finish()),
        Arc::new(mixed.finish()),
        Arc::new(sampling.finish()),
        Arc::new(shadow.finish()),
        Arc::new(tool_args_valid.finish()),
    ];
    let unfilled = &schema::TRACES.fields()[columns.len()..];
    columns.extend(
        unfilled
            .iter()
            .map(|field| new_null_array(field.data_type(), rows_made)),
    );
    RecordBatch::try_new(Arc::clone(&schema::TRACES), columns)
}
