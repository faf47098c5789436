//! One request over OTLP/HTTP, as often as the server asks for it.

use super::source::{Place, Request, Signal};
use crate::cli::ClientError;
use http::{StatusCode, header};
use opentelemetry_proto::tonic::collector::{
    logs::v1::ExportLogsServiceResponse, trace::v1::ExportTraceServiceResponse,
};
use prost::Message;
use serde_json::Value;
use std::time::Duration;

/// Attempts for one request.
const ATTEMPTS_MAX: u32 = 60;
/// Longest pause that a server may ask for.
const PAUSE_MAX: Duration = Duration::from_secs(30);
/// Pause where the server names none, or does not answer.
const PAUSE: Duration = Duration::from_secs(1);
/// Attempts where nobody answers at all.
const UNANSWERED_MAX: u32 = 5;

/// Why going on is useless.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Stop {
    /// Somebody pressed Ctrl-C.
    Interrupted,
    /// The server is gone, or is none.
    Server(String),
}

/// What became of a request.
#[derive(Debug)]
pub struct Answer {
    pub place: Place,
    pub items: u64,
    pub outcome: Outcome,
}

#[derive(Debug)]
pub enum Outcome {
    /// Taken, but for this many items, and why those not.
    Taken { rejected: u64, message: String },
    /// Refused as a whole.
    Refused(String),
    /// Not taken, and nothing else will be.
    Lost(Stop),
}

/// Sends to one server.
pub struct Sender {
    server: String,
    http: reqwest::Client,
}

impl Sender {
    pub fn new(server: &str, http: reqwest::Client) -> Result<Self, ClientError> {
        let server = server.trim_end_matches('/').to_owned();
        let url = reqwest::Url::parse(&server).ok();
        if !url.is_some_and(|url| matches!(url.scheme(), "http" | "https") && url.has_host()) {
            return Err(ClientError::Address(server));
        }
        Ok(Self { server, http })
    }

    pub async fn send(&self, request: Request) -> Answer {
        Answer {
            outcome: self.outcome(&request).await,
            place: request.place,
            items: request.items,
        }
    }

    async fn outcome(&self, request: &Request) -> Outcome {
        let path = match request.signal {
            Signal::Logs => "logs",
            _ => "traces",
        };
        let kind = if request.is_json {
            "application/json"
        } else {
            "application/x-protobuf"
        };
        let (mut attempt, mut unanswered) = (0, 0);
        loop {
            attempt += 1;
            let sent = self
                .http
                .post(format!("{}/v1/{path}", self.server))
                .header(header::CONTENT_TYPE, kind)
                .body(request.body.clone())
                .send();
            let pause = match sent.await {
                Ok(answer) => match answer.status() {
                    StatusCode::TOO_MANY_REQUESTS
                    | StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT => pause_of(&answer),
                    status => return self.answered(request, status, answer).await,
                },
                Err(error) => {
                    unanswered += 1;
                    if unanswered == UNANSWERED_MAX {
                        return Outcome::Lost(Stop::Server(format!(
                            "no server answers at {}: {}; start one with `tracegate serve`, or name the address it takes \
                             OTLP over HTTP at with --server",
                            self.server,
                            error.without_url()
                        )));
                    }
                    PAUSE
                }
            };
            if attempt == ATTEMPTS_MAX {
                return Outcome::Lost(Stop::Server(format!("{} stays too busy; try again later", self.server)));
            }
            tokio::time::sleep(pause).await;
        }
    }

    async fn answered(&self, request: &Request, status: StatusCode, answer: reqwest::Response) -> Outcome {
        let body = answer.bytes().await.unwrap_or_default();
        match status {
            StatusCode::OK => partial_success(request, &body),
            StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE => Outcome::Refused(words(request, &body)),
            _ => Outcome::Lost(Stop::Server(format!(
                "{} answers {status}: is that the address it takes OTLP over HTTP at?",
                self.server
            ))),
        }
    }
}

fn pause_of(answer: &reqwest::Response) -> Duration {
    let named = answer
        .headers()
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse().ok());
    named.map_or(PAUSE, Duration::from_secs).min(PAUSE_MAX)
}

fn partial_success(request: &Request, body: &[u8]) -> Outcome {
    let (rejected, message) = match (request.is_json, request.signal) {
        (true, _) => {
            let said: Value = serde_json::from_slice(body).unwrap_or_default();
            let partial = &said["partialSuccess"];
            let count = |key: &str| match &partial[key] {
                Value::String(text) => text.parse().unwrap_or(0),
                other => other.as_i64().unwrap_or(0),
            };
            let message = partial["errorMessage"].as_str().unwrap_or_default().to_owned();
            (count("rejectedSpans") + count("rejectedLogRecords"), message)
        }
        (false, Signal::Logs) => ExportLogsServiceResponse::decode(body)
            .ok()
            .and_then(|said| said.partial_success)
            .map_or_else(Default::default, |partial| {
                (partial.rejected_log_records, partial.error_message)
            }),
        (false, _) => ExportTraceServiceResponse::decode(body)
            .ok()
            .and_then(|said| said.partial_success)
            .map_or_else(Default::default, |partial| {
                (partial.rejected_spans, partial.error_message)
            }),
    };
    Outcome::Taken {
        rejected: u64::try_from(rejected).unwrap_or(0),
        message,
    }
}

/// `google.rpc.Status`, as far as it is read.
#[derive(Clone, PartialEq, prost::Message)]
struct Status {
    #[prost(string, tag = "2")]
    message: String,
}

/// The words of a refusal.
fn words(request: &Request, body: &[u8]) -> String {
    let said = if request.is_json {
        let said: Value = serde_json::from_slice(body).unwrap_or_default();
        said["message"].as_str().map(str::to_owned)
    } else {
        Status::decode(body).ok().map(|status| status.message)
    };
    said.unwrap_or_else(|| "refused without a reason".to_owned())
}
