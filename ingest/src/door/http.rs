//! OTLP/HTTP: protobuf and JSON, answers in the type of the request, errors as `google.rpc.Status`.

use super::counters::Transport;
use super::inflate::Coding;
use super::refused::{ENCODINGS, Refused};
use super::unfold::Folded;
use super::{Answer, Door, Export, body, grpc};
use crate::intake::Accepted;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, header};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use prost::Message;

/// Content types that are understood.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Format {
    Protobuf,
    Json,
}

impl Format {
    const fn content_type(self) -> HeaderValue {
        match self {
            Self::Protobuf => HeaderValue::from_static("application/x-protobuf"),
            Self::Json => HeaderValue::from_static("application/json"),
        }
    }

    fn of(headers: &HeaderMap) -> Result<Self, Refused> {
        let named = headers
            .get(header::CONTENT_TYPE)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("");
        let essence = named.split(';').next().unwrap_or("").trim();
        if essence.eq_ignore_ascii_case("application/x-protobuf")
            || essence.eq_ignore_ascii_case("application/protobuf")
        {
            Ok(Self::Protobuf)
        } else if essence.eq_ignore_ascii_case("application/json") {
            Ok(Self::Json)
        } else {
            Err(Refused::ContentType(essence.chars().take(64).collect()))
        }
    }
}

/// Answers one request.
pub(crate) async fn answer(door: &Door, mut request: Request<Incoming>) -> Answer {
    door.counters.count_request(Transport::Http);
    let format = Format::of(request.headers());
    match export(door, &mut request, format.clone()).await {
        Ok(answer) => answer,
        Err(refused) => {
            door.counters.count_refused(&refused);
            // Who waits for "100 Continue" has sent nothing yet.
            if !request.headers().contains_key(header::EXPECT) {
                let version = request.version();
                body::linger(request.body_mut(), version, &refused).await;
            }
            refuse(&refused, format.unwrap_or(Format::Json))
        }
    }
}

async fn export(
    door: &Door,
    request: &mut Request<Incoming>,
    format: Result<Format, Refused>,
) -> Result<Answer, Refused> {
    let export = match request.uri().path() {
        // traceAI posts to a path of its own.
        "/v1/traces" | "/tracer/v1/traces" => Export::Traces,
        "/v1/logs" => Export::Logs,
        "/v1/metrics" => Export::Metrics,
        _ => return Err(Refused::Path),
    };
    if request.method() != Method::POST {
        return Err(Refused::Method);
    }
    let format = format?;
    let coding = match request.headers().get(header::CONTENT_ENCODING) {
        Some(name) => Coding::named(name.to_str().unwrap_or("?"))?,
        None => Coding::Identity,
    };
    let folded = Folded {
        coding,
        json: (format == Format::Json).then_some(export),
        limit_bytes: door.budget.body_bytes_max(door.config.body_bytes_max),
    };
    let raw = body::whole(request.body_mut(), &door.config, &door.budget, folded).await?;
    let accepted = door.submit(export, raw, folded).await?;
    let body = match format {
        Format::Protobuf => grpc::response(export, accepted).into(),
        Format::Json => response(export, accepted),
    };
    Ok(with_body(body, format))
}

/// JSON of the response message; int64 is a string there.
fn response(export: Export, accepted: Accepted) -> Bytes {
    let Accepted { rejected, message, .. } = accepted;
    if rejected == 0 {
        return Bytes::from_static(b"{}");
    }
    let count = match export {
        Export::Traces => "rejectedSpans",
        Export::Logs => "rejectedLogRecords",
        Export::Metrics => "rejectedDataPoints",
    };
    serde_json::json!({"partialSuccess": {count: rejected.to_string(), "errorMessage": message}})
        .to_string()
        .into()
}

fn with_body(body: Bytes, format: Format) -> Answer {
    let mut answer = Response::new(Full::new(body).boxed_unsync());
    answer.headers_mut().insert(header::CONTENT_TYPE, format.content_type());
    answer
}

fn refuse(refused: &Refused, format: Format) -> Answer {
    let status = refused.status();
    let body = match format {
        Format::Protobuf => status.encode_to_vec().into(),
        Format::Json => serde_json::json!({"code": status.code, "message": status.message})
            .to_string()
            .into(),
    };
    let mut answer = with_body(body, format);
    *answer.status_mut() = refused.http();
    let headers = answer.headers_mut();
    match refused {
        Refused::Method => {
            headers.insert(header::ALLOW, HeaderValue::from_static("POST"));
        }
        Refused::Encoding(_) => {
            headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static(ENCODINGS));
        }
        _ => {}
    }
    if let Some(wait) = refused.retry_after() {
        headers.insert(
            header::RETRY_AFTER,
            HeaderValue::from(wait.as_millis().div_ceil(1_000).max(1) as u64),
        );
    }
    answer
}
