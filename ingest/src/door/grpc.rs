//! OTLP/gRPC by hand: one unary method a service, so that the charge comes before the message.

use super::counters::Transport;
use super::inflate::Coding;
use super::refused::{ENCODINGS, Refused};
use super::unfold::Folded;
use super::{Answer, Door, Export, body};
use crate::intake::Accepted;
use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use opentelemetry_proto::tonic::collector::{
    logs::v1::{ExportLogsPartialSuccess, ExportLogsServiceResponse},
    trace::v1::{ExportTracePartialSuccess, ExportTraceServiceResponse},
};
use prost::Message;
use std::fmt::Write;

const TRACES: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";
const LOGS: &str = "/opentelemetry.proto.collector.logs.v1.LogsService/Export";
const METRICS: &str = "/opentelemetry.proto.collector.metrics.v1.MetricsService/Export";
const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/grpc");

/// Whether a request speaks gRPC; everything else is HTTP.
pub(crate) fn is_grpc(request: &Request<Incoming>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE);
    content_type.is_some_and(|value| value.as_bytes().starts_with(b"application/grpc"))
}

/// Answers one call; refusals too are HTTP 200, with a gRPC status.
pub(crate) async fn answer(door: &Door, mut request: Request<Incoming>) -> Answer {
    door.counters.count_request(Transport::Grpc);
    match export(door, &mut request).await {
        Ok(message) => taken(&message),
        Err(refused) => {
            door.counters.count_refused(&refused);
            let version = request.version();
            body::linger(request.body_mut(), version, &refused).await;
            refuse(&refused)
        }
    }
}

async fn export(door: &Door, request: &mut Request<Incoming>) -> Result<Vec<u8>, Refused> {
    if request.method() != Method::POST {
        return Err(Refused::Method);
    }
    let export = match request.uri().path() {
        TRACES => Export::Traces,
        LOGS => Export::Logs,
        METRICS => Export::Metrics,
        _ => return Err(Refused::Path),
    };
    let named = match request.headers().get("grpc-encoding") {
        Some(name) => Coding::named(name.to_str().unwrap_or("?")),
        None => Err(Refused::Malformed(
            "compressed, but grpc-encoding is missing".to_owned(),
        )),
    };
    let mut folded = Folded::plain(door.budget.body_bytes_max(door.config.body_bytes_max));
    folded.coding = named.clone().unwrap_or(Coding::Identity);
    let framed = body::framed(request.body_mut(), &door.config, &door.budget, folded).await?;
    // What is not compressed may name any coding.
    folded.coding = if framed.compressed { named? } else { Coding::Identity };
    Ok(response(export, door.submit(export, framed.raw, folded).await?))
}

/// The response message; `partial_success` only if something was rejected.
pub(crate) fn response(export: Export, accepted: Accepted) -> Vec<u8> {
    let Accepted { rejected, message, .. } = accepted;
    if rejected == 0 {
        return Vec::new();
    }
    let rejected = i64::try_from(rejected).unwrap_or(i64::MAX);
    match export {
        Export::Traces => {
            let partial = ExportTracePartialSuccess {
                rejected_spans: rejected,
                error_message: message,
            };
            ExportTraceServiceResponse {
                partial_success: Some(partial),
            }
            .encode_to_vec()
        }
        Export::Logs => {
            let partial = ExportLogsPartialSuccess {
                rejected_log_records: rejected,
                error_message: message,
            };
            ExportLogsServiceResponse {
                partial_success: Some(partial),
            }
            .encode_to_vec()
        }
        Export::Metrics => Vec::new(),
    }
}

fn taken(message: &[u8]) -> Answer {
    let mut frame = BytesMut::with_capacity(message.len() + 5);
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.len()).unwrap_or(u32::MAX));
    frame.extend_from_slice(message);
    let mut trailers = HeaderMap::with_capacity(1);
    trailers.insert("grpc-status", HeaderValue::from_static("0"));
    let body = Full::new(frame.freeze()).with_trailers(std::future::ready(Some(Ok(trailers))));
    let mut answer = Response::new(body.boxed_unsync());
    answer.headers_mut().insert(header::CONTENT_TYPE, CONTENT_TYPE);
    answer
}

/// Trailers only.
fn refuse(refused: &Refused) -> Answer {
    let status = refused.status();
    let mut answer = Response::new(Empty::<Bytes>::new().boxed_unsync());
    let headers = answer.headers_mut();
    headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
    headers.insert("grpc-status", HeaderValue::from(status.code));
    // Every connection would otherwise remember the last words of many refusals: HPACK indexes what is not sensitive.
    let unindexed = |mut value: HeaderValue| {
        value.set_sensitive(true);
        value
    };
    if let Ok(message) = HeaderValue::try_from(percent(&status.message)) {
        headers.insert("grpc-message", unindexed(message));
    }
    if refused.retry_after().is_some()
        && let Ok(details) = HeaderValue::try_from(STANDARD_NO_PAD.encode(status.encode_to_vec()))
    {
        headers.insert("grpc-status-details-bin", unindexed(details));
    }
    if matches!(refused, Refused::Encoding(_)) {
        headers.insert("grpc-accept-encoding", HeaderValue::from_static(ENCODINGS));
    }
    answer
}

/// Percent-encoding of grpc-message: printable ASCII but `%` stays.
fn percent(message: &str) -> String {
    let mut out = String::with_capacity(message.len());
    for byte in message.bytes() {
        if (b' '..=b'~').contains(&byte) && byte != b'%' {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}
