//! Runs queries within limits: so many at a time, so much memory, so long; on threads of their own.
//!
//! Why own threads: a scan is CPU work, and the runtime that calls answers ingest and webhooks too. A query is a task
//! on the engine's runtime that sends batches through a bounded channel; whoever asked holds the other end, and the
//! query stops when that end is dropped or the deadline passes.

use crate::{
    Answer, QueryError, View, answer::Batches, guard, limits, parameters::Parameters, session, tables::Opened,
};
use arrow::{array::RecordBatch, datatypes::SchemaRef};
use datafusion::execution::SessionState;
use futures::{StreamExt, stream};
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{
    runtime::Runtime,
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    task::AbortHandle,
    time::{Instant, timeout_at},
};

/// Batches between a query and its reader.
const BATCHES_AHEAD: usize = 2;

/// Threads that wait for the disk.
const BLOCKING_THREADS_MAX: usize = 16;

/// Limits of the engine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EngineOptions {
    /// The only directory whose files may be read; spill files go to its `tmp`.
    pub data_dir: PathBuf,
    /// Memory of all queries together, bytes.
    pub memory_bytes: usize,
    /// Spill files of all queries together, bytes.
    pub spill_bytes: u64,
    /// Longest a query may take, from the call to the last row.
    pub timeout: Duration,
    /// Partitions of a plan, and threads of the engine.
    pub target_partitions: usize,
    /// Queries at a time.
    pub concurrent_max: usize,
    /// Longest a query waits for its turn before it is refused.
    pub queue_wait: Duration,
}

impl EngineOptions {
    /// A fifth of the memory, 1 GiB of spill, 30 s, two partitions, eight queries at a time, a wait of 2 s.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        Self {
            data_dir: data_dir.into(),
            memory_bytes: limits::default_memory(),
            spill_bytes: 1 << 30,
            timeout: Duration::from_secs(30),
            target_partitions: 2,
            concurrent_max: 8,
            queue_wait: Duration::from_secs(2),
        }
    }
}

/// How far threads of queries stand behind all others where cores are few: behind those that seal as well, for which acks
/// wait when they cannot keep up.
const QUERY_NICE: i32 = 10;

/// The query engine of one data directory.
#[derive(Debug)]
pub struct Engine {
    options: EngineOptions,
    base: Arc<SessionState>,
    turns: Arc<Semaphore>,
    suspects: watch::Sender<Vec<String>>,
    /// `None` only while dropping.
    runtime: Option<Runtime>,
}

impl Engine {
    /// Sets up the engine and starts its threads.
    ///
    /// # Errors
    /// [`QueryError::Setup`] if the data directory cannot be opened or threads cannot be started.
    pub fn new(options: EngineOptions) -> Result<Self, QueryError> {
        let environment = limits::runtime_env(&options.data_dir, options.memory_bytes, options.spill_bytes)?;
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(options.target_partitions.max(1))
            .thread_stack_size(guard::STACK_BYTES)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("query")
            // On Linux this is about the calling thread alone; where it is refused, all are equal.
            .on_thread_start(|| _ = rustix::process::nice(QUERY_NICE))
            .enable_all()
            .build()
            .map_err(|e| QueryError::Setup(e.to_string()))?;
        Ok(Self {
            base: Arc::new(session::base(environment, options.target_partitions.max(1))),
            turns: Arc::new(Semaphore::new(options.concurrent_max.max(1))),
            suspects: watch::Sender::default(),
            runtime: Some(runtime),
            options,
        })
    }

    /// Sealed files that the last failed query had opened, by path, the likeliest cause first: one of them may be
    /// damaged. Changes with every such query.
    #[must_use]
    pub fn suspects(&self) -> watch::Receiver<Vec<String>> {
        self.suspects.subscribe()
    }

    /// Runs one read-only statement over `view`. Returns when the first batch is there (or the end), so that most
    /// failures are an error here and not in the middle of an answer.
    ///
    /// # Errors
    /// Any [`QueryError`] but `Setup`.
    pub async fn run(&self, view: View, sql: &str) -> Result<Answer, QueryError> {
        self.run_with(view, sql, Parameters::default()).await
    }

    /// The same with values for the statement's parameters.
    pub(crate) async fn run_with(&self, view: View, sql: &str, parameters: Parameters) -> Result<Answer, QueryError> {
        let deadline = Instant::now() + self.options.timeout;
        let turn = self.turn().await?;
        let limit = self.options.timeout;
        let asked = Asked {
            view,
            sql: sql.to_owned(),
            parameters,
        };
        let mut running = self.start(asked, turn, deadline)?;
        let timed_out = |_| QueryError::Timeout(limit);
        let schema = timeout_at(deadline, running.opened()).await.map_err(timed_out)??;
        let first = timeout_at(deadline, running.next()).await.map_err(timed_out)?;
        let rest = stream::unfold(Some(running), move |running| async move {
            let mut running = running?;
            match timeout_at(deadline, running.next()).await {
                Ok(Some(Ok(batch))) => Some((Ok(batch), Some(running))),
                Ok(Some(Err(error))) => Some((Err(error), None)),
                Ok(None) => None,
                Err(_) => Some((Err(QueryError::Timeout(limit)), None)),
            }
        });
        let stream: Batches = match first {
            Some(Ok(batch)) => Box::pin(stream::iter([Ok(batch)]).chain(rest)),
            Some(Err(error)) => return Err(error),
            None => Box::pin(stream::empty()),
        };
        Ok(Answer { schema, stream })
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, QueryError> {
        let turn = Arc::clone(&self.turns).acquire_owned();
        match tokio::time::timeout(self.options.queue_wait, turn).await {
            Ok(Ok(turn)) => Ok(turn),
            _ => Err(QueryError::Busy(self.options.concurrent_max)),
        }
    }

    fn start(&self, asked: Asked, turn: OwnedSemaphorePermit, deadline: Instant) -> Result<Running, QueryError> {
        let (opened, schema) = oneshot::channel();
        let (batches, rows) = mpsc::channel(BATCHES_AHEAD);
        let (base, limit) = (Arc::clone(&self.base), self.options.timeout);
        let (files, suspects) = (Arc::new(Opened::default()), self.suspects.clone());
        let query = async move {
            let work = drive(&base, &asked, &files, opened, &batches);
            let end = match timeout_at(deadline, work).await {
                Ok(Ok(())) => Step::Done,
                Ok(Err(error)) => {
                    let files = files.paths();
                    if error.may_be_damage() && !files.is_empty() {
                        suspects.send_replace(files);
                    }
                    Step::Failed(error)
                }
                Err(_) => Step::Failed(QueryError::Timeout(limit)),
            };
            // The turn ends with the work: a reader that is slow to take the last step must not hold it.
            drop(turn);
            let _ = batches.send(end).await;
        };
        let Some(runtime) = &self.runtime else {
            return Err(QueryError::Failed("the engine is closing".to_owned()));
        };
        let task = runtime.spawn(query).abort_handle();
        Ok(Running {
            schema: Some(schema),
            rows,
            _task: AbortOnDrop(task),
        })
    }
}

impl Drop for Engine {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            // May happen on an async thread, where waiting for the workers would panic.
            runtime.shutdown_background();
        }
    }
}

/// A stretch of time that work of many queries keeps to.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Stretch {
    until: Instant,
}

impl Stretch {
    /// It begins now.
    pub fn of(length: Duration) -> Self {
        Self {
            until: Instant::now() + length,
        }
    }

    pub fn is_over(self) -> bool {
        Instant::now() >= self.until
    }
}

enum Step {
    Batch(RecordBatch),
    Failed(QueryError),
    Done,
}

/// What one query is asked.
struct Asked {
    view: View,
    sql: String,
    parameters: Parameters,
}

async fn drive(
    base: &SessionState,
    asked: &Asked,
    files: &Arc<Opened>,
    opened: oneshot::Sender<SchemaRef>,
    batches: &mpsc::Sender<Step>,
) -> Result<(), QueryError> {
    let mut statement = guard::parse(&asked.sql)?;
    asked.parameters.bind(&mut statement)?;
    let mut stream = session::open(base, &asked.view, statement, files).await?;
    let _ = opened.send(stream.schema());
    while let Some(batch) = stream.next().await {
        let batch = batch?;
        if batch.num_rows() > 0 && batches.send(Step::Batch(batch)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

struct AbortOnDrop(AbortHandle);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The reader's end of a query.
struct Running {
    schema: Option<oneshot::Receiver<SchemaRef>>,
    rows: mpsc::Receiver<Step>,
    _task: AbortOnDrop,
}

impl Running {
    async fn opened(&mut self) -> Result<SchemaRef, QueryError> {
        let Some(schema) = self.schema.take() else {
            return Err(broken());
        };
        match schema.await {
            Ok(schema) => Ok(schema),
            // It ended before it began: the reason comes as the first step.
            Err(_) => match self.rows.recv().await {
                Some(Step::Failed(error)) => Err(error),
                _ => Err(broken()),
            },
        }
    }

    /// The next batch; `None` only after the query said that it is done, so a broken one is never a short answer.
    async fn next(&mut self) -> Option<Result<RecordBatch, QueryError>> {
        match self.rows.recv().await {
            Some(Step::Batch(batch)) => Some(Ok(batch)),
            Some(Step::Failed(error)) => Some(Err(error)),
            Some(Step::Done) => None,
            None => Some(Err(broken())),
        }
    }
}

fn broken() -> QueryError {
    QueryError::Failed("the query broke off; the log says why".to_owned())
}
