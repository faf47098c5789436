//! Traces drawn at random with everything that measuring looks at, and the rows that ingest would have made of them.

use crate::world::{Columns, Rows, SECOND, SPANS_LSN, START, Story, TRACES_LSN, batch, money, texts, times, words};
use arrow::array::{
    ArrayRef, BooleanArray, Float64Array, Int32Array, Int64Array, RecordBatch, StringArray, StringViewArray,
};
use proto::{CellTable, Color, Nanos, cell::PPM, layout::Table};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::sync::Arc;
use store::{Layers, LiveBatch, Mark, TraceId};

pub const ROUTE: &str = "chat";
/// Stories are told of this long, s.
pub const SPAN_SECS: i64 = 1_200;

/// A call span of a trace.
#[derive(Debug, Clone, Default)]
pub struct Call {
    pub id: u64,
    pub kind: CallKind,
    pub color: Color,
    pub start: i64,
    pub us: i64,
    pub error: bool,
    pub timed_out: bool,
    pub cost: Option<i64>,
    pub prompt: Option<i64>,
    pub completion: Option<i64>,
    pub json: Option<&'static str>,
    pub args_valid: Option<bool>,
}

impl Call {
    pub fn end(&self) -> i64 {
        self.start + self.us * 1_000
    }
}

/// Whose a call is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum CallKind {
    /// The trace's.
    #[default]
    Own,
    /// A mirror's, and says so.
    Mirrored,
    /// A mirror's, below a span that says so.
    BelowMirror,
    /// A judge's.
    Judged,
}

/// An evaluation.
#[derive(Debug, Clone)]
pub struct Eval {
    pub name: &'static str,
    pub passed: Option<bool>,
    pub broke: bool,
    /// Span it is about; `None` for the trace.
    pub span: Option<u64>,
    /// It is about a judge's span.
    pub of_judge: bool,
    /// It is about a mirrored span.
    pub of_mirror: bool,
}

/// A trace with its row.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    pub n: usize,
    pub start: i64,
    pub us: i64,
    pub color: Color,
    pub release: Option<&'static str>,
    /// `None`: its color's word.
    pub version: Option<String>,
    pub cohort: Option<&'static str>,
    pub split: Option<u32>,
    pub mirror_key: Option<String>,
    pub session: Option<String>,
    pub user: Option<String>,
    /// All of it mirrored.
    pub shadow: bool,
    pub superseded: bool,
    pub error: bool,
    pub timed_out: bool,
    pub retries: Option<i32>,
    pub fallback: Option<bool>,
    pub cache_hit: Option<bool>,
    pub tools_failed: Option<i32>,
    pub guardrail_blocks: i32,
    pub conflict: bool,
    pub mixed: Option<bool>,
    pub sampling: Option<f64>,
    pub calls: Vec<Call>,
    pub evals: Vec<Eval>,
}

pub const NAMES: [&str; 7] = [
    "task_completion",
    "groundedness",
    "thumbs_down",
    "user_feedback",
    "escalation",
    "abandoned",
    "override",
];

impl Trace {
    pub fn id(&self) -> TraceId {
        (0xab << 120 | self.n as u128).to_be_bytes()
    }

    pub fn hex(&self) -> String {
        format!("{:032x}", u128::from_be_bytes(self.id()))
    }

    pub fn start(&self) -> Nanos {
        Nanos(self.start)
    }

    fn root(&self) -> u64 {
        self.n as u64 * 100 + 1
    }

    fn mirror(&self) -> u64 {
        self.n as u64 * 100 + 2
    }

    fn judge(&self) -> u64 {
        self.n as u64 * 100 + 3
    }

    /// Calls that the row counts.
    pub fn own(&self) -> impl Iterator<Item = &Call> {
        let shadow = self.shadow;
        self.calls
            .iter()
            .filter(move |call| call.kind == CallKind::Own && !shadow)
    }

    /// Calls of a trace as a side of a pair: a mirrored trace has its own too.
    pub fn served(&self) -> impl Iterator<Item = &Call> {
        self.calls.iter().filter(|call| call.kind == CallKind::Own)
    }

    pub fn json_valid<'a>(calls: impl Iterator<Item = &'a Call>) -> Option<bool> {
        let answer = calls
            .filter(|call| !call.error)
            .max_by_key(|call| (call.end(), call.id))?;
        answer.json?.split(',').find_map(|check| {
            let (route, verdict) = check.rsplit_once('=')?;
            (route == ROUTE).then_some(verdict == "ok")
        })
    }

    pub fn sum<'a>(calls: impl Iterator<Item = &'a Call>, of: impl Fn(&Call) -> Option<i64>) -> Option<i64> {
        calls.filter_map(of).reduce(|a, b| a + b)
    }

    fn lsn(&self) -> u64 {
        (self.n % 16) as u64
    }

    fn mark(&self) -> Mark {
        Mark {
            route: Some(ROUTE.into()),
            color: self.color,
            unmarked_reason: (!self.color.is_marked()).then(|| "no rule".into()),
            version: match &self.version {
                Some(version) => Some(version.as_str().into()),
                None => self.color.is_marked().then(|| self.color.as_str().into()),
            },
            release: self.release.map(Into::into),
            cohort: self.cohort.map(Into::into),
            split_ppm: self.split,
            spans: None,
        }
    }
}

/// Traces, told as rows.
pub struct Told(pub Vec<Trace>);

pub fn rng(seed: u64) -> ChaCha8Rng {
    eprintln!("seed {seed}");
    ChaCha8Rng::seed_from_u64(seed)
}

fn maybe<T>(rng: &mut ChaCha8Rng, share: f64, value: impl FnOnce(&mut ChaCha8Rng) -> T) -> Option<T> {
    rng.random_bool(share).then(|| value(rng))
}

impl Told {
    /// A story of so many traces.
    pub fn drawn(seed: u64, traces: usize) -> Self {
        let mut rng = rng(seed);
        Self((0..traces).map(|n| trace(&mut rng, n, traces)).collect())
    }
}

fn trace(rng: &mut ChaCha8Rng, n: usize, traces: usize) -> Trace {
    let start = START + rng.random_range(0..SPAN_SECS) * SECOND + rng.random_range(0..1_000_000) * 1_000;
    let color = [Color::Blue, Color::Green, Color::Unmarked][[0, 0, 0, 0, 1, 1, 1, 1, 1, 2][rng.random_range(0..10)]];
    let mirror_key = maybe(rng, 0.4, |rng| format!("m'{}", rng.random_range(0..traces / 10)));
    let shadow = mirror_key.is_some() && color == Color::Green && rng.random_bool(0.6);
    let mut trace = Trace {
        n,
        start,
        us: rng.random_range(1..5_000_000),
        color,
        release: [Some("r'1"), Some("r2"), None][[0, 0, 0, 0, 0, 0, 0, 0, 1, 2][rng.random_range(0..10)]],
        cohort: [None, Some("free"), Some("pro")][rng.random_range(0..3)],
        split: [
            Some(250_000),
            Some(if start < START + 500 * SECOND { 300_000 } else { 500_000 }),
            Some(PPM),
            None,
        ][[0, 1, 1, 1, 1, 1, 1, 2, 3][rng.random_range(0..9)]],
        shadow,
        superseded: rng.random_bool(0.05),
        session: maybe(rng, 0.7, |rng| format!("s{}", rng.random_range(0..traces / 4))),
        user: maybe(rng, 0.7, |rng| format!("u{}", rng.random_range(0..traces / 8))),
        error: rng.random_bool(0.2),
        timed_out: rng.random_bool(0.1),
        retries: maybe(rng, 0.5, |rng| rng.random_range(0..3)),
        fallback: maybe(rng, 0.5, |rng| rng.random_bool(0.3)),
        cache_hit: maybe(rng, 0.5, |rng| rng.random_bool(0.3)),
        tools_failed: maybe(rng, 0.5, |rng| rng.random_range(0..3)),
        guardrail_blocks: rng.random_range(0..2),
        conflict: rng.random_bool(0.1),
        mixed: maybe(rng, 0.5, |rng| rng.random_bool(0.2)),
        sampling: maybe(rng, 0.3, |rng| [0.5, 1.0][rng.random_range(0..2)]),
        mirror_key,
        ..Trace::default()
    };
    let mut id = trace.n as u64 * 100 + 10;
    let mut call = |rng: &mut ChaCha8Rng, kind, color| {
        id += 1;
        Call {
            id,
            kind,
            color,
            start: start + rng.random_range(0..1_000_000) * 1_000,
            us: rng.random_range(1..3_000_000),
            error: rng.random_bool(0.3),
            timed_out: rng.random_bool(0.2),
            cost: maybe(rng, 0.9, |rng| rng.random_range(0..5_000_000)),
            prompt: maybe(rng, 0.8, |rng| rng.random_range(0..5_000)),
            completion: maybe(rng, 0.8, |rng| rng.random_range(0..500)),
            json: [
                None,
                Some("chat=ok"),
                Some("a=ok,chat=invalid"),
                Some("other=ok"),
                Some("chatter=ok,chat=ok"),
            ][rng.random_range(0..5)],
            args_valid: maybe(rng, 0.5, |rng| rng.random_bool(0.7)),
        }
    };
    for _ in 0..rng.random_range(0..4) {
        let own = call(rng, CallKind::Own, color);
        trace.calls.push(own);
    }
    if !shadow && rng.random_bool(0.4) {
        let kind = [
            CallKind::Mirrored,
            CallKind::Mirrored,
            CallKind::Mirrored,
            CallKind::BelowMirror,
        ][rng.random_range(0..4)];
        for _ in 0..rng.random_range(1..3) {
            let color = [Color::Blue, Color::Green][rng.random_range(0..2)];
            trace.calls.push(call(rng, kind, color));
        }
    }
    if rng.random_bool(0.2) {
        trace.calls.push(call(rng, CallKind::Judged, color));
    }
    for _ in 0..rng.random_range(0..6) {
        let about = rng.random_range(0..=trace.calls.len());
        let (span, kind) = match trace.calls.get(about) {
            Some(call) => (Some(call.id), Some(call.kind)),
            None => (None, None),
        };
        trace.evals.push(Eval {
            name: NAMES[rng.random_range(0..NAMES.len())],
            passed: maybe(rng, 0.9, |rng| rng.random_bool(0.5)),
            broke: rng.random_bool(0.1),
            span,
            of_judge: kind == Some(CallKind::Judged),
            of_mirror: matches!(kind, Some(CallKind::Mirrored | CallKind::BelowMirror)),
        });
    }
    trace
}

impl Story for Told {
    fn cells(&self) -> CellTable {
        CellTable::default()
    }

    fn replaced(&self) -> Layers<TraceId, u64> {
        Layers::default()
    }

    fn marks(&self) -> Vec<(TraceId, Arc<Mark>, u64)> {
        let mark = |t: &Trace| (t.id(), Arc::new(t.mark()), SPANS_LSN + t.lsn());
        self.0.iter().map(mark).collect()
    }

    fn rows(&self, from: u64, upto: u64) -> Rows {
        let (mut spans, mut traces, mut evals) = (Vec::new(), Vec::new(), Vec::new());
        for lsn in from + 1..=upto {
            let at = |first: u64| -> Vec<&Trace> {
                let of = lsn.checked_sub(first).filter(|of| *of < 16);
                self.0.iter().filter(|t| Some(t.lsn()) == of).collect()
            };
            for (table, into, rows) in [
                (Table::Spans, &mut spans, span_rows(&at(SPANS_LSN))),
                (Table::Evals, &mut evals, eval_rows(&at(SPANS_LSN))),
                (Table::Traces, &mut traces, trace_rows(&at(TRACES_LSN))),
            ] {
                if rows.num_rows() > 0 {
                    store::live::push(table, into, LiveBatch { lsn, rows }).unwrap();
                }
            }
        }
        (spans, traces, evals)
    }
}

/// A row of `spans`.
struct Span<'a> {
    trace: &'a Trace,
    id: u64,
    parent: Option<u64>,
    role: &'static str,
    shadow: Option<bool>,
    call: Option<&'a Call>,
}

fn spans_of(trace: &Trace) -> Vec<Span<'_>> {
    let span = |id, parent, role, shadow| Span {
        trace,
        id,
        parent,
        role,
        shadow,
        call: None,
    };
    let has = |kind| trace.calls.iter().any(|call| call.kind == kind);
    let mut spans = vec![span(trace.root(), None, "server", trace.shadow.then_some(true))];
    if has(CallKind::BelowMirror) {
        spans.push(span(trace.mirror(), Some(trace.root()), "other", Some(true)));
    }
    if has(CallKind::Judged) {
        spans.push(span(trace.judge(), Some(trace.root()), "evaluator", None));
    }
    spans.extend(trace.calls.iter().map(|call| {
        let parent = match call.kind {
            CallKind::Own | CallKind::Mirrored => trace.root(),
            CallKind::BelowMirror => trace.mirror(),
            CallKind::Judged => trace.judge(),
        };
        Span {
            call: Some(call),
            ..span(
                call.id,
                Some(parent),
                "call",
                (call.kind == CallKind::Mirrored).then_some(true),
            )
        }
    }));
    spans
}

fn flags<'a>(values: impl Iterator<Item = Option<bool>> + 'a) -> ArrayRef {
    Arc::new(values.collect::<BooleanArray>())
}

fn counts(values: impl Iterator<Item = Option<i32>>) -> ArrayRef {
    Arc::new(values.collect::<Int32Array>())
}

fn numbers(values: impl Iterator<Item = Option<i64>>) -> ArrayRef {
    Arc::new(values.collect::<Int64Array>())
}

fn names<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    Arc::new(values.collect::<StringViewArray>())
}

pub fn span_rows(traces: &[&Trace]) -> RecordBatch {
    let spans: Vec<Span<'_>> = traces.iter().flat_map(|t| spans_of(t)).collect();
    let each = || spans.iter();
    let start = |s: &Span<'_>| s.call.map_or(s.trace.start, |call| call.start);
    let end = |s: &Span<'_>| s.call.map_or(s.trace.start + s.trace.us * 1_000, Call::end);
    let is_mirror = |call: &Call| matches!(call.kind, CallKind::Mirrored | CallKind::BelowMirror);
    let of = |s: &Span<'_>, pick: fn(&Call) -> Option<i64>| s.call.and_then(pick);
    let columns: Columns = [
        ("trace_id", texts(each().map(|s| s.trace.hex()))),
        ("span_id", texts(each().map(|s| format!("{:016x}", s.id)))),
        (
            "parent_span_id",
            Arc::new(
                each()
                    .map(|s| s.parent.map(|id| format!("{id:016x}")))
                    .collect::<StringArray>(),
            ) as ArrayRef,
        ),
        ("start_time", times(each().map(start))),
        ("end_time", times(each().map(end))),
        (
            "duration_ms",
            Arc::new(Float64Array::from_iter_values(
                each().map(|s| (end(s) - start(s)) as f64 / 1e6),
            )),
        ),
        ("role", words(each().map(|s| Some(s.role)))),
        // A mirrored call says its color itself; the others are known by their trace.
        (
            "color",
            words(each().map(|s| s.call.filter(|call| is_mirror(call)).map(|call| call.color.as_str()))),
        ),
        ("shadow", flags(each().map(|s| s.shadow))),
        (
            "status",
            words(each().map(|s| {
                let error = s.call.map_or(s.trace.error, |call| call.error);
                Some(if error { "error" } else { "unset" })
            })),
        ),
        ("timed_out", flags(each().map(|s| s.call.map(|call| call.timed_out)))),
        ("prompt_tokens", numbers(each().map(|s| of(s, |call| call.prompt)))),
        (
            "completion_tokens",
            numbers(each().map(|s| of(s, |call| call.completion))),
        ),
        (
            "cost_usd",
            money(each().map(|s| s.call.and_then(|call| call.cost).map(i128::from))),
        ),
        ("json_checks", words(each().map(|s| s.call.and_then(|call| call.json)))),
        (
            "tool_args_valid",
            flags(each().map(|s| s.call.and_then(|call| call.args_valid))),
        ),
        ("provider", words(each().map(|s| s.call.map(|_| "openai")))),
        (
            "request_model",
            words(each().map(|s| {
                s.call
                    .map(|call| ["m", "judge-m"][usize::from(call.kind == CallKind::Judged)])
            })),
        ),
        // Stamped on the root, for its calls.
        (
            "tools_version",
            words(each().map(|s| (s.parent.is_none() && s.trace.n % 2 == 0).then_some("tools@7"))),
        ),
        ("received_at", times(each().map(|s| end(s) + SECOND))),
    ]
    .into();
    batch(Table::Spans, columns)
}

pub fn eval_rows(traces: &[&Trace]) -> RecordBatch {
    let evals: Vec<(&Trace, &Eval)> = traces.iter().flat_map(|t| t.evals.iter().map(|e| (*t, e))).collect();
    let each = || evals.iter();
    let columns: Columns = [
        ("trace_id", texts(each().map(|(t, _)| t.hex()))),
        (
            "span_id",
            Arc::new(
                each()
                    .map(|(_, e)| e.span.map(|id| format!("{id:016x}")))
                    .collect::<StringArray>(),
            ) as ArrayRef,
        ),
        ("time", times(each().map(|(t, _)| t.start + 2 * SECOND))),
        ("name", words(each().map(|(_, e)| Some(e.name)))),
        ("passed", flags(each().map(|(_, e)| e.passed))),
        ("source", words(each().map(|_| Some("api")))),
        ("error_type", words(each().map(|(_, e)| e.broke.then_some("timeout")))),
    ]
    .into();
    batch(Table::Evals, columns)
}

pub fn trace_rows(traces: &[&Trace]) -> RecordBatch {
    let each = || traces.iter().copied();
    let marked = |t: &Trace| t.color.is_marked().then(|| t.color.as_str());
    let columns: Columns = [
        ("trace_id", texts(each().map(Trace::hex))),
        ("start_time", times(each().map(|t| t.start))),
        (
            "duration_ms",
            Arc::new(Float64Array::from_iter_values(each().map(|t| t.us as f64 / 1_000.0))) as ArrayRef,
        ),
        ("route", words(each().map(|_| Some(ROUTE)))),
        ("color", words(each().map(|t| Some(t.color.as_str())))),
        ("assigned_color", words(each().map(marked))),
        ("release", words(each().map(|t| t.release))),
        ("cohort", words(each().map(|t| t.cohort))),
        (
            "split",
            Arc::new(
                each()
                    .map(|t| t.split.map(|ppm| f64::from(ppm) / f64::from(PPM)))
                    .collect::<Float64Array>(),
            ),
        ),
        ("mirror_key", names(each().map(|t| t.mirror_key.as_deref()))),
        ("session_id", names(each().map(|t| t.session.as_deref()))),
        ("user_id", names(each().map(|t| t.user.as_deref()))),
        ("calls", counts(each().map(|t| Some(t.own().count() as i32)))),
        (
            "attempts_failed",
            counts(each().map(|t| Some(t.own().filter(|call| call.error).count() as i32))),
        ),
        ("error", flags(each().map(|t| Some(t.error)))),
        ("timed_out", flags(each().map(|t| Some(t.timed_out)))),
        ("retries", counts(each().map(|t| t.retries))),
        ("fallback", flags(each().map(|t| t.fallback))),
        ("cache_hit", flags(each().map(|t| t.cache_hit))),
        (
            "prompt_tokens",
            numbers(each().map(|t| Trace::sum(t.own(), |call| call.prompt))),
        ),
        (
            "completion_tokens",
            numbers(each().map(|t| Trace::sum(t.own(), |call| call.completion))),
        ),
        (
            "cost_usd",
            money(each().map(|t| Trace::sum(t.own(), |call| call.cost).map(i128::from))),
        ),
        (
            "priced",
            flags(each().map(|t| Some(t.own().all(|call| call.cost.is_some())))),
        ),
        (
            "shadow_cost_usd",
            money(each().map(|t| {
                let mirrored = t.calls.iter().filter(|call| match call.kind {
                    CallKind::Own => t.shadow,
                    CallKind::Mirrored | CallKind::BelowMirror => true,
                    CallKind::Judged => false,
                });
                Trace::sum(mirrored, |call| call.cost).map(i128::from)
            })),
        ),
        ("evals", counts(each().map(|t| Some(t.evals.len() as i32)))),
        (
            "evals_failed",
            counts(each().map(|t| Some(t.evals.iter().filter(|e| e.passed == Some(false)).count() as i32))),
        ),
        ("closed_by", words(each().map(|_| Some("root_ended")))),
        ("color_conflict", flags(each().map(|t| Some(t.conflict)))),
        ("superseded", flags(each().map(|t| Some(t.superseded)))),
        ("json_valid", flags(each().map(|t| Trace::json_valid(t.own())))),
        ("tools_failed", counts(each().map(|t| t.tools_failed))),
        ("guardrail_blocks", counts(each().map(|t| Some(t.guardrail_blocks)))),
        ("mixed_manifest", flags(each().map(|t| t.mixed))),
        (
            "sampling",
            Arc::new(each().map(|t| t.sampling).collect::<Float64Array>()),
        ),
        ("shadow", flags(each().map(|t| Some(t.shadow)))),
        (
            "tool_args_valid",
            flags(each().map(|t| t.own().filter_map(|call| call.args_valid).reduce(|a, b| a && b))),
        ),
    ]
    .into();
    batch(Table::Traces, columns)
}
