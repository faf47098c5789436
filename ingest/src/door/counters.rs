//! What passed the door and what did not. Plain atomics: the metrics page reads them, gates judge the shed share.

use super::refused::Refused;
use crate::pipeline::Durations;
use std::sync::atomic::AtomicU64;
use std::sync::atomic::Ordering::Relaxed;

/// How a request came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    /// OTLP/gRPC.
    Grpc,
    /// OTLP/HTTP, protobuf or JSON.
    Http,
}

/// Totals since start.
#[derive(Debug, Default)]
pub struct DoorCounters {
    /// Requests that came by gRPC.
    pub grpc_requests: AtomicU64,
    /// Requests that came by HTTP.
    pub http_requests: AtomicU64,
    /// Metrics requests: taken, not stored.
    pub metrics_requests: AtomicU64,
    /// Message bytes after decompression.
    pub bytes: AtomicU64,
    /// Spans and log records acknowledged.
    pub accepted: AtomicU64,
    /// Spans and log records rejected alone.
    pub rejected: AtomicU64,
    /// Requests answered as a partial success: some of their spans or log records were rejected alone.
    pub partial_requests: AtomicU64,
    /// Time from a whole message to its ack.
    pub ack_time: Durations,
    /// Connections accepted.
    pub connections: AtomicU64,
    /// Connections closed at once because too many were open.
    pub connections_refused: AtomicU64,
    /// Requests refused to be retried: full, not available, or too slow.
    pub shed_requests: AtomicU64,
    malformed: AtomicU64,
    too_large: AtomicU64,
    busy: AtomicU64,
    unavailable: AtomicU64,
    slow: AtomicU64,
    encoding: AtomicU64,
    other: AtomicU64,
}

impl DoorCounters {
    /// Requests that came. Nothing is known of what a refused connection would have brought: it counts as one.
    #[must_use]
    pub fn came(&self) -> u64 {
        let counts = [&self.grpc_requests, &self.http_requests, &self.connections_refused];
        counts.map(|count| count.load(Relaxed)).iter().sum()
    }

    /// Of those that came, the ones that may be sent again, and are missing until they are.
    #[must_use]
    pub fn shed(&self) -> u64 {
        self.shed_requests.load(Relaxed) + self.connections_refused.load(Relaxed)
    }

    /// Requests refused, by cause.
    #[must_use]
    pub fn refused(&self) -> [(&'static str, u64); 7] {
        [
            ("malformed", self.malformed.load(Relaxed)),
            ("too_large", self.too_large.load(Relaxed)),
            ("busy", self.busy.load(Relaxed)),
            ("unavailable", self.unavailable.load(Relaxed)),
            ("slow", self.slow.load(Relaxed)),
            ("encoding", self.encoding.load(Relaxed)),
            ("other", self.other.load(Relaxed)),
        ]
    }

    pub(crate) fn count_request(&self, transport: Transport) {
        match transport {
            Transport::Grpc => &self.grpc_requests,
            Transport::Http => &self.http_requests,
        }
        .fetch_add(1, Relaxed);
    }

    pub(crate) fn count_refused(&self, refused: &Refused) {
        if refused.retry_after().is_some() {
            self.shed_requests.fetch_add(1, Relaxed);
        }
        match refused.cause() {
            "malformed" => &self.malformed,
            "too_large" => &self.too_large,
            "busy" => &self.busy,
            "unavailable" => &self.unavailable,
            "slow" => &self.slow,
            "encoding" => &self.encoding,
            _ => &self.other,
        }
        .fetch_add(1, Relaxed);
    }
}
