//! The one door: OTLP over gRPC and over HTTP, on any listener, through one admission with one byte budget.
//!
//! ```text
//! socket -> connection (capped, idle ones closed) -> path -> charge bytes -> buffer -> inflate, transcode -> Intake
//! ```
//!
//! The door reads request bodies itself: a framework would hand over messages that are buffered and decompressed
//! before anyone could ask whether there is room. Here the charge comes first. The charge travels inside the body's
//! [`bytes::Bytes`], so it ends when the lane has read the message and not when a client hangs up.
//! "Full" is an answer that says when to come back; "too large" is an answer that says not to.

mod body;
mod budget;
mod counters;
mod grpc;
mod http;
mod inflate;
mod json;
mod listen;
mod refused;
#[cfg(test)]
mod tests;
mod unfold;

pub use counters::{DoorCounters, Transport};
pub use listen::{serve_grpc, serve_http};

use crate::intake::{Accepted, Intake, RETRY_AFTER_MS, Signal};
use ::http::{Request, Response};
use body::Raw;
use budget::{Budget, Wait};
use bytes::Bytes;
use http_body_util::combinators::UnsyncBoxBody;
use hyper::body::Incoming;
use refused::Refused;
use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;
use unfold::Folded;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

/// Limits of the door. Everything has one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DoorConfig {
    /// Largest request after decompression, bytes (compressed ones may not be larger either).
    /// Never above a quarter of `budget_bytes`: a request must be able to pass alone.
    pub body_bytes_max: usize,
    /// Memory that all requests together may hold between socket and reader, bytes.
    pub budget_bytes: usize,
    /// Open connections of all listeners; one more is closed at once.
    pub connections_max: usize,
    /// Streams of one HTTP/2 connection at a time.
    pub streams_max: u32,
    /// A connection that sends nothing for this long is closed, ms. HTTP/2 peers are pinged well before.
    pub idle_ms_max: u64,
    /// The head of an HTTP/1 request must be complete within this time, ms.
    pub header_ms_max: u64,
    /// Longest pause between two pieces of a body, ms.
    pub body_pause_ms_max: u64,
    /// Longest time for a whole body, ms.
    pub body_ms_max: u64,
    /// Longest wait for the answer of the lane, ms. The client may retry then: the digest keeps it single.
    pub ack_ms_max: u64,
    /// How long open requests may finish after shutdown was asked for, ms.
    pub drain_ms_max: u64,
    /// Threads that decompress and transcode.
    pub inflate_threads: usize,
}

impl Default for DoorConfig {
    fn default() -> Self {
        Self {
            body_bytes_max: 64 * MIB,
            budget_bytes: 256 * MIB,
            connections_max: 4_096,
            streams_max: 256,
            idle_ms_max: 90_000,
            header_ms_max: 60_000,
            body_pause_ms_max: 10_000,
            body_ms_max: 60_000,
            ack_ms_max: 30_000,
            drain_ms_max: 5_000,
            inflate_threads: 2,
        }
    }
}

/// What an export path carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Export {
    Traces,
    Logs,
    /// Taken so that exporters stay content, counted, not stored.
    Metrics,
}

impl Export {
    const fn signal(self) -> Option<Signal> {
        match self {
            Self::Traces => Some(Signal::Traces),
            Self::Logs => Some(Signal::Logs),
            Self::Metrics => None,
        }
    }
}

/// The protobuf request that an OTLP/JSON request stands for.
///
/// # Errors
/// With line and column, if it is not JSON or a value does not fit its field.
pub fn from_json(signal: Signal, json: &[u8]) -> Result<Vec<u8>, serde_json::Error> {
    let export = match signal {
        Signal::Traces => Export::Traces,
        Signal::Logs => Export::Logs,
    };
    json::transcode(export, json)
}

/// Body of every answer.
type Answer = Response<UnsyncBoxBody<Bytes, Infallible>>;

/// The admission that all listeners share.
#[derive(Debug)]
pub struct Door {
    config: DoorConfig,
    intake: Intake,
    budget: Arc<Budget>,
    counters: Arc<DoorCounters>,
    inflaters: rayon::ThreadPool,
    places: Arc<tokio::sync::Semaphore>,
}

impl Door {
    /// A door in front of `intake`.
    ///
    /// # Errors
    /// If the threads that decompress cannot be started.
    pub fn new(config: DoorConfig, intake: Intake) -> std::io::Result<Arc<Self>> {
        let inflaters = rayon::ThreadPoolBuilder::new()
            .num_threads(config.inflate_threads.max(1))
            .thread_name(|n| format!("door-inflate-{n}"))
            // The request is answered as unreadable; the process lives on.
            .panic_handler(|_| tracing::error!("a request body made its reader panic"))
            .build()
            .map_err(std::io::Error::other)?;
        Ok(Arc::new(Self {
            budget: Arc::new(Budget::new(config.budget_bytes)),
            places: Arc::new(tokio::sync::Semaphore::new(config.connections_max)),
            counters: Arc::default(),
            inflaters,
            intake,
            config,
        }))
    }

    /// What has passed and what was refused; shared with the metrics page.
    #[must_use]
    pub fn counters(&self) -> Arc<DoorCounters> {
        Arc::clone(&self.counters)
    }

    /// Bytes that requests hold now, of `budget_bytes`.
    #[must_use]
    pub fn budget_bytes_used(&self) -> usize {
        self.budget.used()
    }

    /// What `budget_bytes` is now.
    #[must_use]
    pub fn budget_bytes_max(&self) -> usize {
        self.budget.bytes_max()
    }

    /// Another `budget_bytes` from the next request on; requests that have passed keep what they hold.
    pub fn set_budget_bytes(&self, bytes: usize) {
        self.budget.set_bytes_max(bytes);
    }

    /// Requests that wait for the lane.
    #[must_use]
    pub fn waiting_requests(&self) -> usize {
        self.intake.waiting()
    }

    /// Answers one request. gRPC and HTTP paths are known on every listener: who mixes up the ports is served too.
    pub(crate) async fn answer(self: Arc<Self>, request: Request<Incoming>) -> Answer {
        if grpc::is_grpc(&request) {
            grpc::answer(&self, request).await
        } else {
            http::answer(&self, request).await
        }
    }

    /// Unfolds a body, hands its message over and waits until it is safe.
    async fn submit(&self, export: Export, raw: Raw, folded: Folded) -> Result<Accepted, Refused> {
        let wait = self.budget.wait(raw.bytes.len());
        match self.unfold(raw, folded).await {
            Ok(message) => self.submit_message(export, message, wait).await,
            Err(refused) => {
                wait.forget();
                Err(refused)
            }
        }
    }

    async fn submit_message(&self, export: Export, message: Bytes, mut wait: Wait) -> Result<Accepted, Refused> {
        self.counters.bytes.fetch_add(message.len() as u64, Relaxed);
        let Some(signal) = export.signal() else {
            wait.forget();
            crate::read::check_metrics(&message).map_err(|error| Refused::Malformed(error.to_string()))?;
            self.counters.metrics_requests.fetch_add(1, Relaxed);
            return Ok(Accepted::default());
        };
        if message.is_empty() {
            wait.forget();
            return Ok(Accepted::default());
        }
        let patience = Duration::from_millis(self.config.ack_ms_max);
        let began = wait.on(message.len());
        let answer = tokio::time::timeout(patience, self.intake.submit(signal, message));
        let accepted = match answer.await {
            Ok(answer) => answer?,
            Err(_) => {
                return Err(Refused::Unavailable(
                    "the journal did not answer in time".to_owned(),
                    retry_after(),
                ));
            }
        };
        self.counters.ack_time.record(began.elapsed());
        if accepted.rejected > 0 {
            self.counters.partial_requests.fetch_add(1, Relaxed);
        }
        self.counters.accepted.fetch_add(accepted.accepted, Relaxed);
        self.counters.rejected.fetch_add(accepted.rejected, Relaxed);
        Ok(accepted)
    }
}

const fn retry_after() -> Duration {
    Duration::from_millis(RETRY_AFTER_MS)
}
