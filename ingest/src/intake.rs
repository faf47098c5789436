//! Where doors hand requests to the lane: a bounded channel and an answer that comes after the data is safe.

use bytes::Bytes;
use crossbeam_channel::{Receiver, Sender, TrySendError};
use std::{sync::Arc, time::Duration};
use tokio::sync::{Semaphore, oneshot};

/// Kind of an export request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Signal {
    /// `ExportTraceServiceRequest`.
    Traces,
    /// `ExportLogsServiceRequest`.
    Logs,
}

/// One decompressed protobuf request on its way to the lane.
#[derive(Debug)]
pub struct Envelope {
    /// Which message `body` is.
    pub signal: Signal,
    /// The message, protobuf.
    pub body: Bytes,
    /// Answered once: after fdatasync, or with the reason for refusal.
    pub reply: oneshot::Sender<Result<Accepted, Refusal>>,
}

/// What an acknowledged request brought.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Accepted {
    /// Spans or log records that were taken.
    pub accepted: u64,
    /// Those that were rejected alone (OTLP partial success; the client must not retry them).
    pub rejected: u64,
    /// Why, for people; empty if none was rejected.
    pub message: String,
}

/// Why a request was not taken. The variant predicts what the client should do.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Not a readable OTLP message: do not retry. INVALID_ARGUMENT / 400.
    #[error("the request is not a readable OTLP message: {0}")]
    Malformed(String),
    /// Full: retry after the given time. UNAVAILABLE with RetryInfo / 429 with Retry-After.
    #[error("ingest is at its limit ({cause}), retry in {} ms", retry_after.as_millis())]
    Busy {
        /// Which limit, by name.
        cause: &'static str,
        /// When to come back.
        retry_after: Duration,
    },
    /// The journal cannot be written, or the process is stopping: retry. UNAVAILABLE with RetryInfo / 503.
    #[error("ingest is not available: {0}")]
    Unavailable(String),
}

/// The sending end, one clone a door.
#[derive(Debug, Clone)]
pub struct Intake {
    queue: Sender<Envelope>,
    /// Never has a permit; closed once nobody takes requests any more. The queue alone cannot say so: what was put
    /// there in the very last moment would wait for ever.
    stopped: Arc<Semaphore>,
}

/// How long a refused client is asked to wait, ms.
pub const RETRY_AFTER_MS: u64 = 1_000;

impl Intake {
    /// A queue of at most `requests_max` waiting requests.
    #[must_use]
    pub fn new(requests_max: usize) -> (Self, Receiver<Envelope>) {
        let (queue, lane) = crossbeam_channel::bounded(requests_max);
        (
            Self {
                queue,
                stopped: Arc::new(Semaphore::new(0)),
            },
            lane,
        )
    }

    /// Refuses every request from now on, those included that wait in the queue.
    pub fn close(&self) {
        self.stopped.close();
    }

    /// Requests that wait for the lane now.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }

    /// Hands a request over and waits until it is on disk or refused.
    ///
    /// # Errors
    /// [`Refusal`]; nothing of the request is kept then.
    pub async fn submit(&self, signal: Signal, body: Bytes) -> Result<Accepted, Refusal> {
        let stopping = || Refusal::Unavailable("the server is stopping".to_owned());
        let (reply, answer) = oneshot::channel();
        match self.queue.try_send(Envelope { signal, body, reply }) {
            Ok(()) => tokio::select! {
                biased;
                answer = answer => answer.unwrap_or_else(|_| Err(stopping())),
                _ = self.stopped.acquire() => Err(stopping()),
            },
            Err(TrySendError::Full(_)) => Err(Refusal::Busy {
                cause: "queued requests",
                retry_after: Duration::from_millis(RETRY_AFTER_MS),
            }),
            Err(TrySendError::Disconnected(_)) => Err(stopping()),
        }
    }
}
