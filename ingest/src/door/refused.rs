//! Every way to say no, once, and how each protocol spells it. The variant predicts what the client should do.

use crate::intake::Refusal;
use http::StatusCode;
use prost::Message;
use std::time::Duration;

/// Codings of bodies that are understood, as both protocols list them.
pub(crate) const ENCODINGS: &str = "identity, gzip, deflate, zstd";

/// Why a request did not pass.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Refused {
    /// Never retry as it is.
    #[error("the request is not a readable OTLP message: {0}")]
    Malformed(String),
    /// Never retry; send smaller batches.
    #[error("the request is larger than {limit_bytes} bytes after decompression: send smaller batches")]
    TooLarge { limit_bytes: usize },
    /// Retry later.
    #[error("ingest is at its limit ({cause}), retry in {} ms", retry_after.as_millis())]
    Busy { cause: &'static str, retry_after: Duration },
    /// Retry later.
    #[error("ingest is not available: {0}")]
    Unavailable(String, Duration),
    /// Retry later: exporters know no status for "too slow" that they would retry.
    #[error("the body came too slowly: check the network, or send smaller batches")]
    Slow,
    #[error("content coding {0:?} is not known: use one of {ENCODINGS}")]
    Encoding(String),
    #[error("content type {0:?} is not known: use application/x-protobuf or application/json")]
    ContentType(String),
    #[error("only POST is answered here")]
    Method,
    #[error("no such path: OTLP is received at /v1/traces, /v1/logs and /v1/metrics")]
    Path,
}

impl From<Refusal> for Refused {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Malformed(why) => Self::Malformed(why),
            Refusal::Busy { cause, retry_after } => Self::Busy { cause, retry_after },
            Refusal::Unavailable(why) => Self::Unavailable(why, super::retry_after()),
        }
    }
}

/// Codes of google.rpc.Code that are used.
mod code {
    pub(super) const INVALID_ARGUMENT: i32 = 3;
    pub(super) const RESOURCE_EXHAUSTED: i32 = 8;
    pub(super) const UNIMPLEMENTED: i32 = 12;
    pub(super) const UNAVAILABLE: i32 = 14;
}

impl Refused {
    /// gRPC status code. RESOURCE_EXHAUSTED comes without RetryInfo, which OTLP reads as "do not retry".
    pub(crate) const fn code(&self) -> i32 {
        match self {
            Self::Malformed(_) | Self::ContentType(_) => code::INVALID_ARGUMENT,
            Self::TooLarge { .. } => code::RESOURCE_EXHAUSTED,
            Self::Busy { .. } | Self::Unavailable(..) | Self::Slow => code::UNAVAILABLE,
            Self::Encoding(_) | Self::Method | Self::Path => code::UNIMPLEMENTED,
        }
    }

    /// HTTP status.
    pub(crate) const fn http(&self) -> StatusCode {
        match self {
            Self::Malformed(_) => StatusCode::BAD_REQUEST,
            Self::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Busy { .. } => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable(..) | Self::Slow => StatusCode::SERVICE_UNAVAILABLE,
            Self::Encoding(_) | Self::ContentType(_) => StatusCode::UNSUPPORTED_MEDIA_TYPE,
            Self::Method => StatusCode::METHOD_NOT_ALLOWED,
            Self::Path => StatusCode::NOT_FOUND,
        }
    }

    /// Word for counters.
    pub(crate) const fn cause(&self) -> &'static str {
        match self {
            Self::Malformed(_) => "malformed",
            Self::TooLarge { .. } => "too_large",
            Self::Busy { .. } => "busy",
            Self::Unavailable(..) => "unavailable",
            Self::Slow => "slow",
            Self::Encoding(_) => "encoding",
            Self::ContentType(_) => "content_type",
            Self::Method => "method",
            Self::Path => "path",
        }
    }

    /// When to come back; `None` means never with this request.
    pub(crate) const fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Busy { retry_after, .. } | Self::Unavailable(_, retry_after) => Some(*retry_after),
            Self::Slow => Some(super::retry_after()),
            _ => None,
        }
    }

    /// `google.rpc.Status`, with `RetryInfo` where a retry is welcome.
    pub(crate) fn status(&self) -> Status {
        let details = self.retry_after().map(|wait| Any {
            type_url: "type.googleapis.com/google.rpc.RetryInfo".to_owned(),
            value: RetryInfo {
                retry_delay: Some(Delay::from(wait)),
            }
            .encode_to_vec(),
        });
        Status {
            code: self.code(),
            message: self.to_string(),
            details: details.into_iter().collect(),
        }
    }
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Status {
    #[prost(int32, tag = "1")]
    pub(crate) code: i32,
    #[prost(string, tag = "2")]
    pub(crate) message: String,
    #[prost(message, repeated, tag = "3")]
    pub(crate) details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Any {
    #[prost(string, tag = "1")]
    pub(crate) type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    pub(crate) value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    pub(crate) retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Delay {
    #[prost(int64, tag = "1")]
    pub(crate) seconds: i64,
    #[prost(int32, tag = "2")]
    pub(crate) nanos: i32,
}

impl From<Duration> for Delay {
    fn from(wait: Duration) -> Self {
        Self {
            seconds: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            nanos: i32::try_from(wait.subsec_nanos()).unwrap_or(0),
        }
    }
}
