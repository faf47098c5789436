//! A pipeline on a temporary directory, with a clock that the test sets.

use super::traffic::Request;
use arrow::{
    array::{Array, AsArray, RecordBatch},
    datatypes::{Int32Type, TimestampNanosecondType},
    util::display::{ArrayFormatter, FormatOptions},
};
use ingest::{
    assemble::Counts,
    intake::{Accepted, Refusal},
    pipeline::{self, Pipeline, PipelineConfig},
    read::ReadConfig,
};
use parquet::arrow::arrow_reader::ParquetRecordBatchReaderBuilder;
use proto::{
    CellTable, Metric, Nanos,
    clock::Clock,
    layout::Table,
    release::{BookEntry, Manifest, Match, ReleaseBook},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering::SeqCst},
    },
    time::Duration,
};
use store::{LiveBatch, Retention, Snapshot, Store, StoreOptions, overlay};
use tempfile::TempDir;
use tokio::{runtime::Runtime, sync::watch};

/// Unix time of the first moment, seconds.
pub const T0: f64 = 1_800_000_000.0;

/// Longest wait for something that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// What can be seen at the end.
#[derive(Debug, PartialEq)]
pub struct Picture {
    pub cells: CellTable,
    /// Trace, span, color and route of every live span, as a query sees them.
    pub live_spans: BTreeSet<[String; 4]>,
    /// Columns of every live trace.
    pub live_traces: BTreeMap<String, Vec<String>>,
    /// Spans, live and sealed.
    pub span_rows: usize,
    pub eval_rows: usize,
    /// Traces counted in cells.
    pub trace_ids: i64,
}

pub struct Bench {
    dir: TempDir,
    read: Arc<ReadConfig>,
    config: PipelineConfig,
    options: StoreOptions,
    now: Arc<AtomicI64>,
    book: watch::Sender<Arc<ReleaseBook>>,
    runtime: Runtime,
    pipeline: Option<Pipeline>,
}

fn manifest(version: &str) -> Manifest {
    let text = String::new;
    Manifest {
        version: version.to_owned(),
        provider: text(),
        model: text(),
        prompt: text(),
        tools: text(),
        guardrails: text(),
        cache: text(),
        fallback: Vec::new(),
        policy: text(),
        logging: text(),
        pii: text(),
        matches: Match::default(),
    }
}

fn book() -> ReleaseBook {
    ReleaseBook {
        entries: vec![BookEntry {
            route: "chat".into(),
            id: "chat-42".into(),
            blue: manifest("41"),
            green: manifest("42"),
            cohort_key: Some("tier".into()),
            timeout: Duration::from_secs(2),
            grace: Duration::from_secs(1),
            opened: Nanos::ZERO,
            settled: None,
            winner: None,
            splits: vec![(Nanos::ZERO, Some(500_000))],
        }],
    }
}

impl Bench {
    /// Sealing happens only when asked for, and sealed files stay as they are, however full this machine's disk is.
    pub fn config() -> PipelineConfig {
        let long = Duration::from_secs(1_000_000);
        PipelineConfig {
            retention: Retention {
                disk_max: 1.0,
                ..Retention::default()
            },
            seal_age: long,
            upkeep_every: long * 1_000,
            tick: Duration::from_millis(2),
            ..PipelineConfig::default()
        }
    }

    pub fn open() -> Self {
        Self::open_with(Self::config())
    }

    pub fn open_with(config: PipelineConfig) -> Self {
        Self::open_on(config, StoreOptions::default())
    }

    pub fn open_on(config: PipelineConfig, options: StoreOptions) -> Self {
        Self::start(ReadConfig::default(), config, options)
    }

    /// A pipeline that reads in its own way.
    pub fn reading(read: ReadConfig) -> Self {
        Self::start(read, Self::config(), StoreOptions::default())
    }

    fn start(read: ReadConfig, config: PipelineConfig, options: StoreOptions) -> Self {
        let mut bench = Self {
            dir: TempDir::new().unwrap(),
            read: Arc::new(read),
            config,
            options,
            now: Arc::new(AtomicI64::new((T0 * 1e9) as i64)),
            book: watch::channel(Arc::new(book())).0,
            runtime: tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap(),
            pipeline: None,
        };
        bench.reopen();
        bench
    }

    /// Drops what runs, as a kill would, and opens the directory again.
    pub fn reopen(&mut self) {
        drop(self.pipeline.take());
        let (store, recovered) = Store::open(self.dir.path(), self.options.clone()).unwrap();
        let now = Arc::clone(&self.now);
        let clock: Clock = Arc::new(move || Nanos(now.load(SeqCst)));
        self.pipeline = Some(
            pipeline::start(
                store,
                recovered,
                self.config.clone(),
                Arc::clone(&self.read),
                self.book.subscribe(),
                Arc::clone(&clock),
                clock,
            )
            .unwrap(),
        );
    }

    pub fn shutdown(&mut self) {
        self.pipeline.take().unwrap().shutdown().unwrap();
        self.reopen();
    }

    /// Where everything is written.
    pub fn folder(&self) -> &Path {
        self.dir.path()
    }

    pub fn use_disk(&mut self, options: StoreOptions) {
        self.options = options;
    }

    /// Holds from the next start on.
    pub fn configure(&mut self, change: impl FnOnce(&mut PipelineConfig)) {
        change(&mut self.config);
    }

    pub fn pipeline(&self) -> &Pipeline {
        self.pipeline.as_ref().unwrap()
    }

    pub fn at(&self, seconds: f64) {
        self.now.store((seconds * 1e9) as i64, SeqCst);
    }

    pub fn send(&self, request: &Request) -> Accepted {
        self.try_send(request).unwrap()
    }

    pub fn try_send(&self, request: &Request) -> Result<Accepted, Refusal> {
        let submit = self.pipeline().intake.submit(request.signal, request.body.clone());
        self.runtime
            .block_on(async { tokio::time::timeout(PATIENCE, submit).await.unwrap() })
    }

    /// Every request from `clients` clients at the same time.
    pub fn send_at_once(&self, requests: &[Request], clients: usize) -> Vec<Accepted> {
        self.runtime.block_on(async {
            let mut sent = tokio::task::JoinSet::new();
            for request in (0..clients).flat_map(|_| requests) {
                let (intake, request) = (self.pipeline().intake.clone(), request.clone());
                sent.spawn(async move { intake.submit(request.signal, request.body).await.unwrap() });
            }
            tokio::time::timeout(PATIENCE, sent.join_all()).await.unwrap()
        })
    }

    pub fn snapshot(&self) -> Arc<Snapshot> {
        Arc::clone(&self.pipeline().snapshots.borrow())
    }

    pub fn wait_for(&self, holds: impl Fn(&Snapshot) -> bool) -> Arc<Snapshot> {
        let mut snapshots = self.pipeline().snapshots.clone();
        self.runtime.block_on(async {
            let found = tokio::time::timeout(PATIENCE, snapshots.wait_for(|s| holds(s))).await;
            Arc::clone(&found.expect("it must come").unwrap())
        })
    }

    pub fn wait_for_failure(&self) -> Arc<str> {
        let mut failed = self.pipeline().failed.clone();
        self.runtime.block_on(async {
            let found = tokio::time::timeout(PATIENCE, failed.wait_for(|f| f.is_some())).await;
            found.expect("it must fail").unwrap().clone().unwrap()
        })
    }

    /// Seals, and waits until it is done.
    pub fn seal(&self) {
        let before = self.snapshot().files.len();
        self.pipeline().seal_now();
        self.wait_for(|s| s.files.len() > before);
    }

    /// Lets everything close and be admitted.
    pub fn settle(&mut self) -> Picture {
        self.settle_at(T0 + 100_000.0)
    }

    /// The same, some time later.
    pub fn settle_at(&mut self, seconds: f64) -> Picture {
        self.at(seconds);
        let open = || {
            let counts = self.pipeline().counters.assembly();
            counts.open + counts.evals_pending + counts.late_wanted
        };
        // Acks come before the engine has seen the rows: nothing open and no cells would be true too early.
        let durable = || {
            self.pipeline()
                .counters
                .durable_lsn
                .load(std::sync::atomic::Ordering::Relaxed)
        };
        let settled = || {
            self.wait_for(|s| s.lsn >= durable() && open() == 0 && s.cells.iter().all(|(key, _)| key.series.admitted));
        };
        settled();
        // Counts are told before the snapshot that they belong to: let that one come.
        std::thread::sleep(Duration::from_millis(60));
        settled();
        self.picture()
    }

    /// Lets assembly forget everything.
    pub fn forget_at(&mut self, seconds: f64) {
        self.settle_at(seconds);
        self.wait_for_counts(|counts| counts.recent == 0);
    }

    /// Counts of assembly change with every tick, also where there is nothing to publish.
    pub fn wait_for_counts(&self, holds: impl Fn(&Counts) -> bool) {
        let began = std::time::Instant::now();
        loop {
            let counts = self.pipeline().counters.assembly();
            if holds(&counts) {
                return;
            }
            assert!(began.elapsed() < PATIENCE, "it must come: {counts:?}");
            std::thread::sleep(Duration::from_millis(2));
        }
    }

    pub fn set_book(&self, change: impl FnOnce(&mut ReleaseBook)) {
        let mut changed = book();
        change(&mut changed);
        self.book.send_replace(Arc::new(changed));
    }

    /// Rows of a table as a query sees them: trace id and the given columns, as text.
    pub fn rows(&self, table: Table, columns: &[&str]) -> Vec<Vec<String>> {
        let snapshot = self.snapshot();
        let files = snapshot.files.iter().filter(|f| f.table == table);
        let sealed = files.flat_map(|f| {
            let file = std::fs::File::open(self.dir.path().join(&f.path)).unwrap();
            let reader = ParquetRecordBatchReaderBuilder::try_new(file).unwrap().build().unwrap();
            reader.map(|rows| (rows.unwrap(), f.lsn_max, true)).collect::<Vec<_>>()
        });
        let live = match table {
            Table::Spans => &snapshot.spans,
            Table::Evals => &snapshot.evals,
            Table::Traces | Table::Cells => &snapshot.traces,
        };
        let live = live.iter().map(|b| (b.rows.clone(), b.lsn, false));
        let mut seen = Vec::new();
        for (rows, lsn, is_sealed) in sealed.chain(live) {
            let rows = match table {
                Table::Traces => overlay::current(&rows, lsn, &snapshot.replaced).unwrap(),
                _ => {
                    let patch = |id: &_| snapshot.patches.get(id).map(|patch| Arc::clone(&patch.mark));
                    let mark = |id: &_| match is_sealed {
                        true => patch(id),
                        false => snapshot.marks.get(id).cloned(),
                    };
                    overlay::marked(table, &rows, None, overlay::Depth::Spans, &mark).unwrap()
                }
            };
            for row in 0..rows.num_rows() {
                let cell = |name: &&str| show(rows.column_by_name(name).unwrap(), row);
                seen.push(columns.iter().map(cell).collect());
            }
        }
        seen.sort_unstable();
        seen
    }

    fn picture(&self) -> Picture {
        let snapshot = self.snapshot();
        let sealed = |table| -> usize {
            snapshot
                .files
                .iter()
                .filter(|f| f.table == table)
                .map(|f| f.rows as usize)
                .sum()
        };
        let live = |batches: &[LiveBatch]| -> usize { batches.iter().map(|b| b.rows.num_rows()).sum() };
        let mut live_spans = BTreeSet::new();
        for batch in &snapshot.spans {
            let mark = |id: &_| snapshot.marks.get(id).cloned();
            let rows = overlay::marked(Table::Spans, &batch.rows, None, snapshot.marks.depth(), &mark).unwrap();
            for row in 0..rows.num_rows() {
                let seen = ["trace_id", "span_id", "color", "route"].map(|c| text(&rows, c, row));
                assert!(live_spans.insert(seen), "a span twice");
            }
        }
        let mut live_traces = BTreeMap::new();
        for batch in &snapshot.traces {
            let rows = overlay::current(&batch.rows, batch.lsn, &snapshot.replaced).unwrap();
            for row in 0..rows.num_rows() {
                let columns = (0..rows.num_columns()).map(|c| show(rows.column(c), row)).collect();
                let twice = live_traces.insert(text(&rows, "trace_id", row), columns);
                assert!(twice.is_none(), "a trace twice");
            }
        }
        let traces = snapshot
            .cells
            .iter()
            .filter(|(key, _)| key.series.metric == Metric::Traces);
        Picture {
            trace_ids: traces.map(|(_, cell)| cell.n).sum(),
            cells: snapshot.cells.clone(),
            live_spans,
            live_traces,
            span_rows: sealed(Table::Spans) + live(&snapshot.spans),
            eval_rows: sealed(Table::Evals) + live(&snapshot.evals),
        }
    }
}

fn show(column: &dyn Array, row: usize) -> String {
    if let Some(times) = column.as_primitive_opt::<TimestampNanosecondType>() {
        return times.value(row).to_string();
    }
    let format = FormatOptions::default();
    ArrayFormatter::try_new(column, &format).unwrap().value(row).to_string()
}

fn text(rows: &RecordBatch, column: &str, row: usize) -> String {
    let column = rows.column_by_name(column).unwrap();
    if let Some(words) = column.as_dictionary_opt::<Int32Type>() {
        return words
            .key(row)
            .map_or(String::new(), |k| words.values().as_string::<i32>().value(k).to_owned());
    }
    column.as_string::<i32>().value(row).to_owned()
}
