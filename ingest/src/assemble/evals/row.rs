//! Rows of `evals` that assembly holds until it is settled which trace they are about, and then writes itself.

use arrow::{
    array::{
        ArrayRef, BooleanBuilder, Float64Builder, RecordBatch, StringBuilder, StringDictionaryBuilder,
        StringViewBuilder, TimestampNanosecondBuilder,
    },
    datatypes::Int32Type,
    error::ArrowError,
};
use proto::{Nanos, schema};
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::{Mark, TraceId};

/// How an evaluation came to its trace; the words of column `linked_by`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum LinkedBy {
    /// It names trace and span.
    Span,
    /// It names the trace.
    Trace,
    /// It names a span, whose trace was looked up.
    TargetSpan,
    /// It names a response, which one trace has.
    ResponseId,
}

impl LinkedBy {
    /// The column's word.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Span => "span",
            Self::Trace => "trace",
            Self::TargetSpan => "target_span",
            Self::ResponseId => "response_id",
        }
    }
}

/// A row of `evals`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct EvalRow {
    /// Trace, as far as it is known.
    pub trace_id: Option<TraceId>,
    /// How that is known.
    pub linked_by: Option<LinkedBy>,
    /// Route, color, version, release and cohort of the trace.
    pub mark: Option<Arc<Mark>>,
    /// Span.
    pub span_id: Option<u64>,
    /// When it was made.
    pub time: Nanos,
    /// Name.
    pub name: Arc<str>,
    /// Score.
    pub score: Option<f64>,
    /// Label.
    pub label: Option<Arc<str>>,
    /// Verdict.
    pub passed: Option<bool>,
    /// By which way it came.
    pub source: Arc<str>,
    /// Tells apart evaluations of one name.
    pub identifier: Option<Arc<str>>,
    /// Why.
    pub explanation: Option<Arc<str>>,
    /// The evaluator's own error.
    pub error_type: Option<Arc<str>>,
    /// Id of the response that was judged.
    pub response_id: Option<Arc<str>>,
}

impl EvalRow {
    /// Estimated memory, bytes.
    pub(super) fn bytes(&self) -> usize {
        let texts = [
            &self.label,
            &self.identifier,
            &self.explanation,
            &self.error_type,
            &self.response_id,
        ];
        let texts: usize = texts.into_iter().flatten().map(|text| text.len() + 16).sum();
        size_of::<Self>() + self.name.len() + self.source.len() + 32 + texts
    }
}

type Word = StringDictionaryBuilder<Int32Type>;

/// A batch of `evals` with all declared columns.
///
/// # Errors
/// If the columns do not fit the declared schema.
pub fn evals_to_batch<'a>(rows: impl IntoIterator<Item = &'a EvalRow>) -> Result<RecordBatch, ArrowError> {
    let [mut trace_ids, mut span_ids] = std::array::from_fn(|_| StringBuilder::new());
    let mut time = TimestampNanosecondBuilder::new().with_timezone("UTC");
    let mut score = Float64Builder::new();
    let mut passed = BooleanBuilder::new();
    let [
        mut name,
        mut label,
        mut source,
        mut route,
        mut color,
        mut version,
        mut release,
        mut cohort,
        mut error_type,
        mut linked_by,
    ] = std::array::from_fn(|_| Word::new());
    let [mut identifier, mut explanation, mut response_id] = std::array::from_fn(|_| StringViewBuilder::new());
    for row in rows {
        let mark = row.mark.as_deref();
        trace_ids.append_option(row.trace_id.map(hex::encode));
        span_ids.append_option(row.span_id.map(|id| format!("{id:016x}")));
        time.append_value(row.time.0);
        name.append_value(&row.name);
        score.append_option(row.score);
        label.append_option(row.label.as_deref());
        passed.append_option(row.passed);
        source.append_value(&row.source);
        identifier.append_option(row.identifier.as_deref());
        route.append_option(mark.and_then(|mark| mark.route.as_deref()));
        color.append_option(mark.map(|mark| mark.color.as_str()));
        version.append_option(mark.and_then(|mark| mark.version.as_deref()));
        release.append_option(mark.and_then(|mark| mark.release.as_deref()));
        cohort.append_option(mark.and_then(|mark| mark.cohort.as_deref()));
        explanation.append_option(row.explanation.as_deref());
        error_type.append_option(row.error_type.as_deref());
        response_id.append_option(row.response_id.as_deref());
        linked_by.append_option(row.linked_by.map(LinkedBy::as_str));
    }
    let columns: Vec<ArrayRef> = vec![
        Arc::new(trace_ids.finish()),
        Arc::new(span_ids.finish()),
        Arc::new(time.finish()),
        Arc::new(name.finish()),
        Arc::new(score.finish()),
        Arc::new(label.finish()),
        Arc::new(passed.finish()),
        Arc::new(source.finish()),
        Arc::new(identifier.finish()),
        Arc::new(route.finish()),
        Arc::new(color.finish()),
        Arc::new(version.finish()),
        Arc::new(release.finish()),
        Arc::new(cohort.finish()),
        Arc::new(explanation.finish()),
        Arc::new(error_type.finish()),
        Arc::new(response_id.finish()),
        Arc::new(linked_by.finish()),
    ];
    RecordBatch::try_new(Arc::clone(&schema::EVALS), columns)
}
