//! A small world of traces, and the ways a store may hold it: live, sealed, in between, patched.
//!
//! All numbers follow from a trace's number, so answers can be worked out by hand. Durations are multiples of 0.25 ms
//! and sums of them exact, whatever the order.

use arrow::{
    array::{
        ArrayRef, BooleanArray, Decimal128Array, Float64Array, Int32Array, Int64Array, MapBuilder, MapFieldNames,
        RecordBatch, StringArray, StringBuilder, StringDictionaryBuilder, StringViewArray, TimestampNanosecondArray,
    },
    compute::cast,
};
use proto::{
    Cell, CellKey, CellTable, Color, Grain, Metric, Nanos,
    cell::{Scope, Series},
    layout::Table,
    schema,
};
use std::{collections::BTreeMap, path::Path, sync::Arc};
use store::{
    Filling, Layers, LiveBatch, Mark, Marks, Patch, SealInput, Snapshot, SpanMark, Store, StoreOptions, TraceId, Twin,
    declared,
};

/// 2026-11-20T14:00:00Z.
pub const START: i64 = 1_795_183_200_000_000_000;
pub const SECOND: i64 = 1_000_000_000;
/// Records: spans come in 1..=16 by trace number, traces close at 21..=36, changes come at 41.
pub const SPANS_LSN: u64 = 1;
pub const TRACES_LSN: u64 = 21;
const CHANGED_LSN: u64 = 41;
const LAST_LSN: u64 = 50;

/// One trace of the world: a root span, a call span, perhaps a second record of the call, perhaps an evaluation.
#[derive(Debug, Clone, Copy)]
pub struct Trace(pub usize);

impl Trace {
    pub fn id(self) -> TraceId {
        let mut id = [0xab; 16];
        id[8..].copy_from_slice(&(self.0 as u64).to_be_bytes());
        id
    }

    pub fn hex(self) -> String {
        self.id().iter().map(|b| format!("{b:02x}")).collect()
    }

    pub fn color(self) -> Color {
        [Color::Blue, Color::Green, Color::Unmarked][[0, 1, 0, 1, 0, 2][self.0 % 6]]
    }

    pub fn cohort(self) -> Option<&'static str> {
        [Some("free"), Some("pro"), None][self.0 % 3]
    }

    pub fn route(self) -> &'static str {
        if self.0.is_multiple_of(4) { "search" } else { "chat" }
    }

    fn version(self) -> Option<&'static str> {
        match self.color() {
            Color::Blue => Some("41"),
            Color::Green => Some("42"),
            Color::Unmarked => None,
        }
    }

    /// Spans that say their color and route themselves.
    fn is_stamped(self) -> bool {
        self.0.is_multiple_of(5)
    }

    /// Traces whose row was written again with an error found later.
    pub fn is_changed(self) -> bool {
        self.0 % 7 == 3
    }

    /// Traces whose call two libraries recorded; which of the records counts is in the mark.
    pub fn is_twinned(self) -> bool {
        self.0 % 4 == 1
    }

    /// Traces 2 and 3, 10 and 11, ... are two sides of one request; of the second pair one side has no color.
    fn mirror_key(self) -> Option<String> {
        matches!(self.0 % 8, 2 | 3).then(|| format!("pair-{}", self.0 / 8))
    }

    /// A failed primary whose fallback is another trace.
    fn is_superseded(self) -> bool {
        self.0 == 10
    }

    fn span(self, kind: Kind) -> u64 {
        match kind {
            Kind::Root => self.0 as u64 * 2,
            Kind::Call => self.0 as u64 * 2 + 1,
            Kind::Again => 0xf000 + self.0 as u64,
        }
    }

    fn spans(self) -> impl Iterator<Item = (Self, Kind)> {
        let again = self.is_twinned().then_some(Kind::Again);
        [Kind::Root, Kind::Call]
            .into_iter()
            .chain(again)
            .map(move |kind| (self, kind))
    }

    /// The call takes from its second record; the second record has a color and version of its own.
    fn span_marks(self) -> Option<Arc<[SpanMark]>> {
        let filling = Filling {
            response_model: Some("m-2026-01-01".into()),
            prompt_tokens: Some(1_000_000),
            completion_tokens: Some(self.0 as i64),
            cost_nano: Some(7),
            ttft_ms: Some(1.5),
            ..Filling::default()
        };
        let mark = |kind, twin| SpanMark {
            span: self.span(kind),
            color: None,
            version: None,
            twin: Some(twin),
        };
        let again = SpanMark {
            color: Some(Color::Green),
            version: Some("43".into()),
            ..mark(Kind::Again, Twin::Repeats(self.span(Kind::Call)))
        };
        self.is_twinned()
            .then(|| [mark(Kind::Call, Twin::Counts(Box::new(filling))), again].into())
    }

    pub fn start(self) -> i64 {
        START + self.0 as i64 * SECOND
    }

    pub fn duration_ms(self) -> f64 {
        100.0 + (self.0 * 37 % 101) as f64 * 0.25
    }

    /// Nano-USD; every eighth trace has no price.
    fn cost(self) -> Option<i128> {
        (self.0 % 8 != 7).then_some(1_000_000 + self.0 as i128 * 1_000)
    }

    fn lsn(self) -> u64 {
        (self.0 % 16) as u64
    }

    fn mark(self) -> Arc<Mark> {
        let marked = self.color().is_marked();
        Arc::new(Mark {
            route: Some(self.route().into()),
            color: self.color(),
            unmarked_reason: (!marked).then(|| "no rule".into()),
            version: self.version().map(Into::into),
            release: marked.then(|| "r1".into()),
            cohort: self.cohort().map(Into::into),
            split_ppm: marked.then_some(250_000),
            spans: self.span_marks(),
        })
    }
}

/// A span of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Root,
    Call,
    /// The call, recorded a second time.
    Again,
}

/// A number of traces.
#[derive(Debug, Clone, Copy)]
pub struct World {
    pub traces: usize,
}

/// How the store holds the world.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Nothing sealed.
    Live,
    /// Everything sealed at once, marks known.
    Sealed,
    /// The first half sealed while only every other mark was known; the rest live.
    Half,
    /// Sealed in two commits before any mark was known.
    Patched,
}

impl Held {
    pub const ALL: [Self; 4] = [Self::Live, Self::Sealed, Self::Half, Self::Patched];
}

impl World {
    pub fn all(self) -> impl Iterator<Item = Trace> {
        (0..self.traces).map(Trace)
    }

    fn at(self, of: u64) -> Vec<Trace> {
        self.all().filter(|t| t.lsn() == of).collect()
    }

    /// Writes the world under `dir` as `held`, through the real store.
    pub fn write(self, dir: &Path, held: Held) -> Arc<Snapshot> {
        write(&self, dir, held)
    }
}

impl Story for World {
    fn cells(&self) -> CellTable {
        (*self).cells()
    }

    fn replaced(&self) -> Layers<TraceId, u64> {
        let mut replaced = Layers::default();
        replaced.push(self.all().filter(|t| t.is_changed()).map(|t| (t.id(), CHANGED_LSN)));
        replaced
    }

    fn marks(&self) -> Vec<(TraceId, Arc<Mark>, u64)> {
        self.all().map(|t| (t.id(), t.mark(), SPANS_LSN + t.lsn())).collect()
    }

    fn rows(&self, from: u64, upto: u64) -> Rows {
        (*self).rows(from, upto)
    }
}

/// Live rows of spans, traces and evaluations.
pub type Rows = (Vec<LiveBatch>, Vec<LiveBatch>, Vec<LiveBatch>);

/// What a store can hold: spans in records 1 to 16, rows of traces in 21 to 36, what replaces them in 41.
pub trait Story {
    fn cells(&self) -> CellTable;
    /// Rows of traces that later ones replace.
    fn replaced(&self) -> Layers<TraceId, u64>;
    /// Marks, with the record of the trace's first span.
    fn marks(&self) -> Vec<(TraceId, Arc<Mark>, u64)>;
    /// Rows of the records in `from + 1..=upto`.
    fn rows(&self, from: u64, upto: u64) -> Rows;
}

/// Writes a story under `dir` as `held`, through the real store.
pub fn write(story: &impl Story, dir: &Path, held: Held) -> Arc<Snapshot> {
    let (mut store, _) = Store::open(dir, StoreOptions::default()).unwrap();
    let _journal = store.journal();
    let sealer = store.sealer();
    let mut snapshot = Snapshot {
        seq: 1,
        lsn: LAST_LSN,
        cells: story.cells(),
        ..Snapshot::default()
    };
    let all = story.marks();
    let is_even = |id: &TraceId| id[15].is_multiple_of(2);
    let marks = |of: &dyn Fn(&TraceId) -> bool| {
        let mut marks = Marks::default();
        marks.push(
            all.iter()
                .filter(|(id, ..)| of(id))
                .map(|(id, mark, _)| (*id, Arc::clone(mark))),
        );
        marks
    };
    let patches = |of: &dyn Fn(&TraceId) -> bool, sealed: u64| {
        let mut patches = Layers::default();
        patches.push(all.iter().filter(|(id, ..)| of(id)).map(|(id, mark, first_lsn)| {
            let patch = Patch {
                mark: Arc::clone(mark),
                first_lsn: *first_lsn,
                last_lsn: sealed,
                rooted: true,
            };
            (*id, patch)
        }));
        patches
    };
    let seal = |from: u64, upto: u64, marks: Marks, replaced| {
        let rows = story.rows(from, upto);
        let input = SealInput {
            lsn: upto,
            sealed_at: Nanos(START),
            spans: rows.0,
            traces: rows.1,
            evals: rows.2,
            marks,
            cell_deltas: story.cells(),
            replaced,
            ..SealInput::default()
        };
        sealer.seal(input).unwrap().files
    };
    match held {
        Held::Live => {
            (snapshot.spans, snapshot.traces, snapshot.evals) = story.rows(0, LAST_LSN);
            snapshot.marks = marks(&|_| true);
            snapshot.replaced = story.replaced();
        }
        Held::Sealed => {
            snapshot.files = seal(0, LAST_LSN, marks(&|_| true), story.replaced());
        }
        Held::Half => {
            snapshot.files = seal(0, 30, marks(&is_even), Layers::default());
            (snapshot.spans, snapshot.traces, snapshot.evals) = story.rows(30, LAST_LSN);
            snapshot.marks = marks(&|_| true);
            snapshot.patches = patches(&|id| !is_even(id), 30);
            snapshot.replaced = story.replaced();
        }
        Held::Patched => {
            seal(0, 8, Marks::default(), Layers::default());
            snapshot.files = seal(8, 40, Marks::default(), Layers::default());
            (snapshot.spans, snapshot.traces, snapshot.evals) = story.rows(40, LAST_LSN);
            snapshot.marks = marks(&|_| true);
            snapshot.patches = patches(&|_| true, 40);
            snapshot.replaced = story.replaced();
        }
    }
    Arc::new(snapshot)
}

impl World {
    /// Spans, traces and evaluations of the records in `from + 1..=upto`.
    fn rows(self, from: u64, upto: u64) -> Rows {
        let (mut spans, mut traces, mut evals) = (Vec::new(), Vec::new(), Vec::new());
        let put = |table, batches: &mut Vec<LiveBatch>, lsn, rows: RecordBatch| {
            store::live::push(table, batches, LiveBatch { lsn, rows }).unwrap();
        };
        for lsn in from + 1..=upto {
            if (SPANS_LSN..SPANS_LSN + 16).contains(&lsn) {
                let of = self.at(lsn - SPANS_LSN);
                put(Table::Spans, &mut spans, lsn, span_rows(&of));
                // Evaluations are few; every record's worth stays a batch of its own.
                put(Table::Evals, &mut evals, lsn, eval_rows(&of));
            } else if (TRACES_LSN..TRACES_LSN + 16).contains(&lsn) {
                let of = self.at(lsn - TRACES_LSN);
                put(Table::Traces, &mut traces, lsn, trace_rows(&of, false));
            } else if lsn == CHANGED_LSN {
                let of: Vec<Trace> = self.all().filter(|t| t.is_changed()).collect();
                put(Table::Traces, &mut traces, lsn, trace_rows(&of, true));
            }
        }
        (spans, traces, evals)
    }

    /// Latency cells of the closed traces.
    pub fn cells(self) -> CellTable {
        let mut cells = CellTable::default();
        for t in self.all() {
            let key = CellKey {
                scope: Scope {
                    route: t.route().into(),
                    release: t.color().is_marked().then(|| "r1".into()),
                },
                minute: t.start() / SECOND / 60 * 60,
                series: Series {
                    metric: Metric::Latency,
                    grain: Grain::Trace,
                    cohort: t.cohort().map(Into::into),
                    split_ppm: Some(250_000),
                    color: t.color(),
                    admitted: true,
                },
            };
            cells.apply(&key, &Cell::amount((t.duration_ms() * 1_000.0) as u64), 1);
            let errors = CellKey {
                series: Series {
                    metric: Metric::Error,
                    ..key.series.clone()
                },
                ..key
            };
            cells.apply(&errors, &Cell::unit(t.is_changed()), 1);
        }
        cells
    }
}

pub type Columns = BTreeMap<&'static str, ArrayRef>;

/// The given columns in declared order: a subset, as a reader closes it.
pub fn batch(table: Table, mut columns: Columns) -> RecordBatch {
    let schema = declared(table);
    let indices: Vec<usize> = (0..schema.fields().len())
        .filter(|&i| columns.contains_key(schema.field(i).name().as_str()))
        .collect();
    let schema = Arc::new(schema.project(&indices).unwrap());
    let arrays = schema
        .fields()
        .iter()
        .map(|f| columns.remove(f.name().as_str()).unwrap())
        .collect();
    assert!(columns.is_empty(), "undeclared: {columns:?}");
    RecordBatch::try_new(schema, arrays).unwrap()
}

pub fn words<'a>(values: impl Iterator<Item = Option<&'a str>>) -> ArrayRef {
    let text: StringArray = values.collect();
    cast(&text, &schema::word()).unwrap()
}

pub fn times(values: impl Iterator<Item = i64>) -> ArrayRef {
    Arc::new(TimestampNanosecondArray::from_iter_values(values).with_timezone("UTC"))
}

pub fn money(values: impl Iterator<Item = Option<i128>>) -> ArrayRef {
    let values: Decimal128Array = values.collect();
    Arc::new(
        values
            .with_precision_and_scale(schema::MONEY_PRECISION, schema::MONEY_SCALE)
            .unwrap(),
    )
}

pub fn texts(values: impl Iterator<Item = String>) -> ArrayRef {
    Arc::new(StringArray::from_iter_values(values))
}

/// The root and the call of every trace, and what was recorded again.
fn span_rows(traces: &[Trace]) -> RecordBatch {
    let spans: Vec<(Trace, Kind)> = traces.iter().flat_map(|t| t.spans()).collect();
    let each = || spans.iter().copied();
    let end = |t: Trace| t.start() + (t.duration_ms() * 1e6) as i64;
    let is_call = |kind| kind != Kind::Root;
    let own = |t: Trace, value: Option<&'static str>| value.filter(|_| t.is_stamped());
    let names = MapFieldNames {
        entry: "entries".into(),
        key: "keys".into(),
        value: "values".into(),
    };
    let mut attributes = MapBuilder::new(
        Some(names),
        StringDictionaryBuilder::<arrow::datatypes::Int32Type>::new(),
        StringBuilder::new(),
    );
    for (t, kind) in each() {
        if kind == Kind::Call {
            attributes.keys().append_value("gen_ai.system");
            attributes.values().append_value("openai");
            attributes.keys().append_value("n");
            attributes.values().append_value(t.0.to_string());
        }
        attributes.append(kind == Kind::Call).unwrap();
    }
    let columns: Columns = [
        ("trace_id", texts(each().map(|(t, _)| t.hex()))),
        (
            "span_id",
            texts(each().map(|(t, kind)| format!("{:016x}", t.span(kind)))),
        ),
        ("start_time", times(each().map(|(t, _)| t.start()))),
        ("end_time", times(each().map(|(t, _)| end(t)))),
        (
            "duration_ms",
            Arc::new(Float64Array::from_iter_values(each().map(|(t, _)| t.duration_ms()))) as ArrayRef,
        ),
        (
            "role",
            words(each().map(|(_, kind)| Some(if is_call(kind) { "call" } else { "server" }))),
        ),
        ("route", words(each().map(|(t, _)| own(t, Some(t.route()))))),
        (
            "color",
            words(each().map(|(t, _)| own(t, t.color().is_marked().then_some(t.color().as_str())))),
        ),
        (
            "prompt_tokens",
            Arc::new(
                each()
                    .map(|(t, kind)| is_call(kind).then_some(t.0 as i64 * 10))
                    .collect::<Int64Array>(),
            ),
        ),
        (
            "cost_usd",
            money(each().map(|(t, kind)| t.cost().filter(|_| is_call(kind)))),
        ),
        (
            "request_model",
            words(each().map(|(_, kind)| is_call(kind).then_some("m"))),
        ),
        (
            "provider",
            words(each().map(|(_, kind)| is_call(kind).then_some("openai"))),
        ),
        (
            "prompt_name",
            words(each().map(|(_, kind)| is_call(kind).then_some("support"))),
        ),
        (
            "prompt_version",
            words(each().map(|(t, kind)| is_call(kind).then_some(["12", "13"][usize::from(t.0 == 2)]))),
        ),
        // Stamped on the root, for its calls.
        (
            "tools_version",
            words(each().map(|(t, kind)| (!is_call(kind) && t.0 % 3 == 0).then_some("tools@7"))),
        ),
        (
            "response_model",
            words(each().map(|(_, kind)| is_call(kind).then_some("m"))),
        ),
        (
            "status",
            words(each().map(|(t, kind)| {
                Some(if kind == Kind::Call && t.is_changed() {
                    "ERROR"
                } else {
                    "OK"
                })
            })),
        ),
        ("attributes", Arc::new(attributes.finish())),
        ("received_at", times(each().map(|(t, _)| end(t) + SECOND))),
    ]
    .into();
    batch(Table::Spans, columns)
}

/// An evaluation of every second trace; every tenth trace fails it, and one evaluator broke.
fn eval_rows(traces: &[Trace]) -> RecordBatch {
    let of: Vec<Trace> = traces.iter().copied().filter(|t| t.0.is_multiple_of(2)).collect();
    let each = || of.iter().copied();
    let broke = |t: Trace| t.0 == 4;
    let columns: Columns = [
        ("trace_id", texts(each().map(Trace::hex))),
        ("time", times(each().map(|t| t.start() + 2 * SECOND))),
        ("name", words(each().map(|_| Some("task_completion")))),
        (
            "passed",
            Arc::new(
                each()
                    .map(|t| (!broke(t)).then_some(t.0 % 10 != 0))
                    .collect::<BooleanArray>(),
            ) as ArrayRef,
        ),
        ("source", words(each().map(|_| Some("log")))),
        ("error_type", words(each().map(|t| broke(t).then_some("timeout")))),
    ]
    .into();
    batch(Table::Evals, columns)
}

fn trace_rows(traces: &[Trace], changed: bool) -> RecordBatch {
    let each = || traces.iter().copied();
    let flag =
        |of: &dyn Fn(Trace) -> bool| -> ArrayRef { Arc::new(each().map(|t| Some(of(t))).collect::<BooleanArray>()) };
    let count = |of: &dyn Fn(Trace) -> i32| -> ArrayRef { Arc::new(Int32Array::from_iter_values(each().map(of))) };
    let columns: Columns = [
        ("trace_id", texts(each().map(Trace::hex))),
        ("start_time", times(each().map(Trace::start))),
        (
            "duration_ms",
            Arc::new(Float64Array::from_iter_values(each().map(Trace::duration_ms))) as ArrayRef,
        ),
        ("route", words(each().map(|t| Some(t.route())))),
        ("color", words(each().map(|t| Some(t.color().as_str())))),
        ("version", words(each().map(Trace::version))),
        ("release", words(each().map(|t| t.color().is_marked().then_some("r1")))),
        ("cohort", words(each().map(Trace::cohort))),
        (
            "mirror_key",
            Arc::new(each().map(Trace::mirror_key).collect::<StringViewArray>()),
        ),
        (
            "unmarked_reason",
            words(each().map(|t| (!t.color().is_marked()).then_some("no rule"))),
        ),
        ("color_conflict", flag(&|t| t.0 == 6)),
        ("superseded", flag(&Trace::is_superseded)),
        (
            "user_id",
            Arc::new(StringViewArray::from_iter_values(
                each().map(|t| format!("u{}", t.0 % 10)),
            )),
        ),
        ("calls", count(&|_| 1)),
        ("attempts_failed", count(&|t| i32::from(t.is_changed()))),
        ("error", flag(&|_| changed)),
        ("timed_out", flag(&|_| false)),
        (
            "prompt_tokens",
            Arc::new(Int64Array::from_iter_values(each().map(|t| t.0 as i64 * 10))),
        ),
        ("cost_usd", money(each().map(Trace::cost))),
        ("priced", flag(&|t| t.cost().is_some())),
        ("evals", count(&|t| i32::from(t.0.is_multiple_of(2)))),
        ("evals_failed", count(&|t| i32::from(t.0.is_multiple_of(10)))),
        ("closed_by", words(each().map(|_| Some("quiet")))),
    ]
    .into();
    batch(Table::Traces, columns)
}
