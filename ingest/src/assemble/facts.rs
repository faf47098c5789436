//! What assembly reads of a batch: borrowed columns of `spans` and `evals`. A column that the batch left out is `None`
//! everywhere, so rows that were just read and rows that come back from the journal pass through the same code.

mod labels;

pub use labels::{LabelPool, Relabeled};

use super::{
    evals::{EvalRow, LinkedBy},
    span::{Call, Eval, Labels, Role, Span, Subject, Tri, Word, response_hash},
};
use arrow::{
    array::{
        Array, AsArray, BooleanArray, Decimal128Array, DictionaryArray, Float64Array, Int32Array, Int64Array, MapArray,
        RecordBatch, StringArray, StringViewArray, TimestampNanosecondArray,
    },
    datatypes::Int32Type,
};
use proto::{Nanos, cell::PPM, metric::normalise_eval_name};
use std::{cell::RefCell, num::NonZeroU64, sync::Arc};
use store::TraceId;

/// A batch that does not have the declared shape: a fault in the reader or a journal of another version.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "column `{column}` of `{table}` is missing or of another type than declared; the record was written by another version"
)]
pub struct FactsError {
    /// Table.
    pub table: &'static str,
    /// Column.
    pub column: &'static str,
}

/// Attribute that gives the version when nothing better does.
const SERVICE_VERSION: &str = "service.version";
/// Under these, client libraries copy baggage and association properties.
const COPIES: [&str; 3] = ["traceloop.association.properties.", "litellm.metadata.", "baggage."];

/// Text of low cardinality with its code, so that equal rows are recognised without comparing text.
struct Words<'a> {
    codes: &'a Int32Array,
    values: &'a StringArray,
}

impl<'a> Words<'a> {
    fn code(&self, row: usize) -> i32 {
        if self.codes.is_null(row) {
            -1
        } else {
            self.codes.value(row)
        }
    }

    fn get(&self, row: usize) -> Option<&'a str> {
        usize::try_from(self.code(row)).ok().map(|code| self.values.value(code))
    }
}

fn words<'a>(rows: &'a RecordBatch, column: &'static str) -> Option<Words<'a>> {
    let dictionary: &DictionaryArray<Int32Type> = rows.column_by_name(column)?.as_dictionary_opt()?;
    Some(Words {
        codes: dictionary.keys(),
        values: dictionary.values().as_string_opt()?,
    })
}

fn word<'a>(column: &Option<Words<'a>>, row: usize) -> Option<&'a str> {
    column.as_ref().and_then(|c| c.get(row))
}

fn code(column: &Option<Words<'_>>, row: usize) -> i32 {
    column.as_ref().map_or(-1, |c| c.code(row))
}

fn typed<'a, A: Array + 'static>(rows: &'a RecordBatch, column: &str) -> Option<&'a A> {
    rows.column_by_name(column)?.as_any().downcast_ref()
}

macro_rules! value_at {
    ($column:expr, $row:expr) => {
        $column.and_then(|c| if c.is_null($row) { None } else { Some(c.value($row)) })
    };
}

use value_at;

/// Value of `key` in one row of a map column.
fn map_value<'a>(map: Option<&'a MapArray>, row: usize, key: &str) -> Option<&'a str> {
    let map = map?;
    if map.is_null(row) {
        return None;
    }
    map_find(map, row, |found| found == key)
}

/// Value of a copy of `key`, under one of [`COPIES`], in one row of a map column; the first of these that has one.
fn map_copy<'a>(map: &'a MapArray, row: usize, key: &str) -> Option<&'a str> {
    if map.is_null(row) {
        return None;
    }
    COPIES
        .iter()
        .find_map(|copy| map_find(map, row, |found| found.strip_prefix(copy) == Some(key)))
}

/// The first value whose key `is` the wanted one.
fn map_find(map: &MapArray, row: usize, is: impl Fn(&str) -> bool) -> Option<&str> {
    let keys = map.keys().as_dictionary_opt::<Int32Type>()?;
    let (texts, values) = (
        keys.values().as_string_opt::<i32>()?,
        map.values().as_string_opt::<i32>()?,
    );
    let (from, to) = (map.value_offsets()[row] as usize, map.value_offsets()[row + 1] as usize);
    (from..to)
        .find(|&i| is(texts.value(keys.keys().value(i) as usize)) && values.is_valid(i))
        .map(|i| values.value(i))
}

/// 32 hex digits to the 16 bytes of a trace id.
pub(crate) fn trace_id(hex_digits: &str) -> Option<TraceId> {
    let mut id = TraceId::default();
    hex::decode_to_slice(hex_digits, &mut id).ok()?;
    Some(id)
}

fn span_id(hex_digits: &str) -> Option<u64> {
    let mut id = [0; 8];
    hex::decode_to_slice(hex_digits, &mut id).ok()?;
    Some(u64::from_be_bytes(id))
}

fn ppm(share: f64) -> Option<u32> {
    (0.0..=1.0)
        .contains(&share)
        .then(|| (share * f64::from(PPM)).round() as u32)
}

/// Columns of a `spans` batch that assembly uses.
pub struct SpanFacts<'a> {
    rows: usize,
    trace_id: &'a StringArray,
    span_id: &'a StringArray,
    parent: Option<&'a StringArray>,
    start: &'a TimestampNanosecondArray,
    end: &'a TimestampNanosecondArray,
    kind: Option<Words<'a>>,
    role: Words<'a>,
    status: Option<Words<'a>>,
    words: [Option<Words<'a>>; Word::COLUMNS.len()],
    split: Option<&'a Float64Array>,
    sampling: Option<&'a Float64Array>,
    shadow: Option<&'a BooleanArray>,
    mirror_key: Option<&'a StringViewArray>,
    session: Option<&'a StringViewArray>,
    user: Option<&'a StringViewArray>,
    request: Option<&'a StringViewArray>,
    response: Option<&'a StringViewArray>,
    prompt: Option<&'a Int64Array>,
    completion: Option<&'a Int64Array>,
    cache_read: Option<&'a Int64Array>,
    cache_write: Option<&'a Int64Array>,
    reasoning: Option<&'a Int64Array>,
    cost: Option<&'a Decimal128Array>,
    ttft: Option<&'a Float64Array>,
    tool_args_valid: Option<&'a BooleanArray>,
    timed_out: Option<&'a BooleanArray>,
    rate_limited: Option<&'a BooleanArray>,
    retries: Option<&'a Int32Array>,
    fallback: Option<&'a BooleanArray>,
    cache_hit: Option<&'a BooleanArray>,
    attributes: Option<&'a MapArray>,
    resource: Option<&'a MapArray>,
    last_subject: RefCell<Option<Arc<Subject>>>,
}

impl<'a> SpanFacts<'a> {
    /// Borrows the columns.
    ///
    /// # Errors
    /// If a column that every row has is not there.
    pub fn new(rows: &'a RecordBatch) -> Result<Self, FactsError> {
        let missing = |column| FactsError { table: "spans", column };
        Ok(Self {
            rows: rows.num_rows(),
            trace_id: typed(rows, "trace_id").ok_or(missing("trace_id"))?,
            span_id: typed(rows, "span_id").ok_or(missing("span_id"))?,
            parent: typed(rows, "parent_span_id"),
            start: typed(rows, "start_time").ok_or(missing("start_time"))?,
            end: typed(rows, "end_time").ok_or(missing("end_time"))?,
            kind: words(rows, "kind"),
            role: words(rows, "role").ok_or(missing("role"))?,
            status: words(rows, "status"),
            words: Word::COLUMNS.map(|column| words(rows, column)),
            split: typed(rows, "split"),
            sampling: typed(rows, "sampling"),
            shadow: typed(rows, "shadow"),
            mirror_key: typed(rows, "mirror_key"),
            session: typed(rows, "session_id"),
            user: typed(rows, "user_id"),
            request: typed(rows, "request_id"),
            response: typed(rows, "response_id"),
            prompt: typed(rows, "prompt_tokens"),
            completion: typed(rows, "completion_tokens"),
            cache_read: typed(rows, "cache_read_tokens"),
            cache_write: typed(rows, "cache_write_tokens"),
            reasoning: typed(rows, "reasoning_tokens"),
            cost: typed(rows, "cost_usd"),
            ttft: typed(rows, "ttft_ms"),
            tool_args_valid: typed(rows, "tool_args_valid"),
            timed_out: typed(rows, "timed_out"),
            rate_limited: typed(rows, "rate_limited"),
            retries: typed(rows, "retries"),
            fallback: typed(rows, "fallback"),
            cache_hit: typed(rows, "cache_hit"),
            attributes: typed(rows, "attributes"),
            resource: typed(rows, "resource"),
            last_subject: RefCell::default(),
        })
    }

    /// Rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// True without rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Trace of a row; `None` if its ids are not hex of the right length (the row is kept, and belongs to no trace).
    #[must_use]
    pub fn trace_id(&self, row: usize) -> Option<TraceId> {
        trace_id(self.trace_id.value(row))
    }

    /// Start of the span in a row.
    #[must_use]
    pub fn start(&self, row: usize) -> Nanos {
        Nanos(self.start.value(row))
    }

    /// Id of the span in a row.
    #[must_use]
    pub fn span_id(&self, row: usize) -> Option<u64> {
        span_id(self.span_id.value(row))
    }

    /// Value of an attribute that a release asks for: the span's own, the resource's, or a library's copy.
    fn attribute(&self, row: usize, key: &str) -> Option<&'a str> {
        map_value(self.attributes, row, key)
            .or_else(|| map_value(self.resource, row, key))
            .or_else(|| map_copy(self.attributes?, row, key))
    }

    /// Everything of one row that assembly keeps.
    pub fn span(&self, row: usize, id: u64, labels: Arc<Labels>) -> Span {
        let role = Role::parse(self.role.get(row));
        Span {
            id,
            parent: value_at!(self.parent, row).and_then(span_id).and_then(NonZeroU64::new),
            response: value_at!(self.response, row).map(response_hash),
            start: Nanos(self.start.value(row)),
            end: Nanos(self.end.value(row).max(self.start.value(row))),
            role,
            entry: word(&self.kind, row).is_some_and(is_entry),
            error: word(&self.status, row).is_some_and(is_error),
            shadow: value_at!(self.shadow, row).unwrap_or(false),
            timed_out: value_at!(self.timed_out, row).unwrap_or(false),
            rate_limited: value_at!(self.rate_limited, row).unwrap_or(false),
            fallback: Tri::from(value_at!(self.fallback, row)),
            cache_hit: Tri::from(value_at!(self.cache_hit, row)),
            retries: value_at!(self.retries, row),
            labels,
            subject: self.subject(row),
            call: (role == Role::Call).then(|| Box::new(self.call(row))),
        }
    }

    /// Names of a row; spans of one trace mostly follow each other and say the same, and then share one value.
    fn subject(&self, row: usize) -> Option<Arc<Subject>> {
        let text = |column: Option<&'a StringViewArray>| value_at!(column, row);
        let names = [self.session, self.user, self.mirror_key, self.request].map(text);
        if names.iter().all(Option::is_none) {
            return None;
        }
        let mut last = self.last_subject.borrow_mut();
        let is_same = last.as_deref().is_some_and(|last| {
            let known = [&last.session, &last.user, &last.mirror_key, &last.request];
            known.iter().zip(names).all(|(known, name)| known.as_deref() == name)
        });
        if !is_same {
            let [session, user, mirror_key, request] = names.map(|name| name.map(Arc::from));
            *last = Some(Arc::new(Subject {
                session,
                user,
                mirror_key,
                request,
            }));
        }
        last.clone()
    }

    fn call(&self, row: usize) -> Call {
        Call {
            prompt: value_at!(self.prompt, row),
            completion: value_at!(self.completion, row),
            cache_read: value_at!(self.cache_read, row),
            cache_write: value_at!(self.cache_write, row),
            reasoning: value_at!(self.reasoning, row),
            cost: value_at!(self.cost, row).and_then(|cost| i64::try_from(cost).ok()),
            ttft_us: value_at!(self.ttft, row)
                .filter(|ms| *ms >= 0.0)
                .map(|ms| (ms * 1_000.0).round() as u64),
            tool_args_valid: value_at!(self.tool_args_valid, row),
        }
    }
}

/// Kinds whose span is a local root when its parent lies in another process.
fn is_entry(kind: &str) -> bool {
    let kind = kind.rsplit('_').next().unwrap_or(kind);
    kind.eq_ignore_ascii_case("server") || kind.eq_ignore_ascii_case("consumer")
}

fn is_error(status: &str) -> bool {
    status
        .rsplit('_')
        .next()
        .unwrap_or(status)
        .eq_ignore_ascii_case("error")
}

/// Columns of an `evals` batch that assembly uses.
pub struct EvalFacts<'a> {
    rows: usize,
    trace_id: Option<&'a StringArray>,
    span_id: Option<&'a StringArray>,
    time: &'a TimestampNanosecondArray,
    name: Words<'a>,
    score: Option<&'a Float64Array>,
    label: Option<Words<'a>>,
    passed: Option<&'a BooleanArray>,
    source: Option<Words<'a>>,
    identifier: Option<&'a StringViewArray>,
    error_type: Option<Words<'a>>,
    explanation: Option<&'a StringViewArray>,
    response: Option<&'a StringViewArray>,
}

impl<'a> EvalFacts<'a> {
    /// Borrows the columns.
    ///
    /// # Errors
    /// If a column that every row has is not there.
    pub fn new(rows: &'a RecordBatch) -> Result<Self, FactsError> {
        let missing = |column| FactsError { table: "evals", column };
        Ok(Self {
            rows: rows.num_rows(),
            trace_id: typed(rows, "trace_id"),
            span_id: typed(rows, "span_id"),
            time: typed(rows, "time").ok_or(missing("time"))?,
            name: words(rows, "name").ok_or(missing("name"))?,
            score: typed(rows, "score"),
            label: words(rows, "label"),
            passed: typed(rows, "passed"),
            source: words(rows, "source"),
            identifier: typed(rows, "identifier"),
            error_type: words(rows, "error_type"),
            explanation: typed(rows, "explanation"),
            response: typed(rows, "response_id"),
        })
    }

    /// Rows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.rows
    }

    /// True without rows.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rows == 0
    }

    /// Trace of a row; `None` while it is not linked.
    #[must_use]
    pub fn trace_id(&self, row: usize) -> Option<TraceId> {
        value_at!(self.trace_id, row).and_then(trace_id)
    }

    /// Everything of one row that assembly keeps. An evaluator's own error is not a verdict.
    #[must_use]
    pub fn eval(&self, row: usize) -> Eval {
        let failed_itself = word(&self.error_type, row).is_some();
        let name = normalise_eval_name(self.name.get(row).unwrap_or_default());
        let told = (
            word(&self.source, row),
            value_at!(self.identifier, row),
            value_at!(self.score, row).map(f64::to_bits),
            word(&self.label, row),
            value_at!(self.passed, row),
        );
        let text = format!("{told:?}");
        Eval {
            span: value_at!(self.span_id, row).and_then(span_id),
            time: Nanos(self.time.value(row)),
            last: Nanos(self.time.value(row)),
            name: name.into(),
            passed: value_at!(self.passed, row).filter(|_| !failed_itself),
            told: xxhash_rust::xxh3::xxh3_64(text.as_bytes()),
            origin: 0,
        }
    }

    /// Id of the response that was judged.
    #[must_use]
    pub fn response_id(&self, row: usize) -> Option<&'a str> {
        value_at!(self.response, row)
    }

    /// Everything of one row, for rows that assembly holds.
    #[must_use]
    pub fn row(&self, row: usize) -> EvalRow {
        let text = |column: Option<&'a StringViewArray>| value_at!(column, row).map(Arc::<str>::from);
        let span = value_at!(self.span_id, row).and_then(span_id);
        let shared = |column: &Option<Words<'a>>| word(column, row).map(Arc::<str>::from);
        EvalRow {
            trace_id: self.trace_id(row),
            linked_by: self.trace_id(row).map(|_| match span {
                Some(_) => LinkedBy::Span,
                None => LinkedBy::Trace,
            }),
            mark: None,
            span_id: span,
            time: Nanos(self.time.value(row)),
            name: self.name.get(row).unwrap_or_default().into(),
            score: value_at!(self.score, row),
            label: shared(&self.label),
            passed: value_at!(self.passed, row),
            source: shared(&self.source).unwrap_or_else(|| "".into()),
            identifier: text(self.identifier),
            explanation: text(self.explanation),
            error_type: shared(&self.error_type),
            response_id: text(self.response),
        }
    }
}
