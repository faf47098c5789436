//! `POST /api/v1/evals` and `POST /api/v1/feedback`: evaluations of programs that speak no OpenTelemetry.
//!
//! Every entry becomes a log record of the convention (`gen_ai.evaluation.result`), and all of a request go through the
//! intake as one OTLP request: acknowledged after they are on disk, deduplicated and linked as those that come as OTLP.

mod entry;
mod record;

use super::{Api, error::ApiError};
use axum::{Json, body::Bytes, extract::State};
use entry::{Entry, Evaluation, Kind};
use http::StatusCode;
use ingest::intake::{Refusal, Signal};
use prost::Message;
use proto::Nanos;
use serde::Deserialize;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};
use tokio::time::timeout;

/// Most entries of one request.
const ENTRIES_MAX: usize = 10_000;
/// Longest wait for the journal; an entry that is sent again after that is recognised.
const ACK_WAIT: Duration = Duration::from_secs(30);

pub(super) async fn evals(state: State<Arc<Api>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    take(state, &body, Kind::Evaluation).await
}

pub(super) async fn feedback(state: State<Arc<Api>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    take(state, &body, Kind::Feedback).await
}

async fn take(State(api): State<Arc<Api>>, body: &[u8], kind: Kind) -> Result<Json<Value>, ApiError> {
    let evaluations = read(body, kind, (api.clock)())?;
    let accepted = evaluations.len();
    let request = record::request(evaluations, kind).encode_to_vec();
    let unavailable = |message: String| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, message);
    match timeout(ACK_WAIT, api.intake.submit(Signal::Logs, request.into())).await {
        Ok(Ok(taken)) if taken.rejected == 0 => Ok(Json(json!({ "accepted": accepted }))),
        Ok(Ok(taken)) => Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, taken.message)),
        Ok(Err(refusal @ Refusal::Malformed(_))) => {
            Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, refusal.to_string()))
        }
        Ok(Err(refusal)) => Err(unavailable(refusal.to_string())),
        Err(_) => Err(unavailable(
            "the journal did not answer in time; send it again".to_owned(),
        )),
    }
}

/// All entries, or what is wrong with the first that is wrong.
fn read(body: &[u8], kind: Kind, now: Nanos) -> Result<Vec<Evaluation>, ApiError> {
    let body: Value =
        serde_json::from_slice(body).map_err(|error| ApiError::bad(format!("the body is not JSON: {error}")))?;
    let entries = match body {
        Value::Array(entries) => entries,
        one @ Value::Object(_) => vec![one],
        _ => return Err(ApiError::bad("the body is neither one entry nor an array of entries")),
    };
    if entries.is_empty() || entries.len() > ENTRIES_MAX {
        return Err(ApiError::bad(format!(
            "the body has {} entries; send 1 to {ENTRIES_MAX}",
            entries.len()
        )));
    }
    let checked = entries.into_iter().enumerate().map(|(i, entry)| {
        Entry::deserialize(entry)
            .map_err(|error| error.to_string())
            .and_then(|entry| entry.check(kind, now))
            .map_err(|why| ApiError::bad(format!("entry {i} (from 0): {why}; nothing was taken")))
    });
    checked.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

    fn refused(kind: Kind, body: &Value) -> String {
        match read(body.to_string().as_bytes(), kind, Nanos::from_secs(1)) {
            Ok(taken) => panic!("{body} was taken as {taken:?}"),
            Err(error) => {
                assert_eq!(error.status, StatusCode::BAD_REQUEST);
                error.message
            }
        }
    }

    #[test]
    fn what_cannot_be_meant_is_refused_with_its_entry() {
        let good = json!({ "trace_id": TRACE, "name": "TaskCompletion", "passed": true });
        let with = |key: &str, value: Value| {
            let mut entry = good.clone();
            entry[key] = value;
            entry
        };
        let long = "x".repeat(100_000);
        for (entry, says) in [
            (json!(7), "invalid type"),
            (json!({ "trace_id": TRACE }), "name is missing"),
            (
                json!({ "name": "a" }),
                "at least one of trace_id, span_id and response_id",
            ),
            (with("name", json!(" _ ")), "name"),
            (with("name", json!(long)), "name"),
            (with("trace_id", json!("0af7")), "32 hex digits"),
            (with("trace_id", json!("0".repeat(32))), "32 hex digits"),
            (with("trace_id", json!("g".repeat(32))), "32 hex digits"),
            (with("trace_id", json!("é".repeat(16))), "32 hex digits"),
            (with("span_id", json!(TRACE)), "16 hex digits"),
            (with("response_id", json!("")), "response_id"),
            (with("score", json!("0.5")), "score"),
            (with("passed", json!("yes")), "passed"),
            (with("label", json!(long)), "label"),
            (with("identifier", json!(long)), "identifier"),
            (with("explanation", json!(long.repeat(9))), "explanation"),
            (with("time", json!("yesterday")), "time"),
            (with("time", json!(-1)), "time"),
            (with("time", json!(1_795_183_200_000_i64)), "seconds"),
            (with("time", json!("9999-01-01T00:00:00Z")), "time"),
            (with("scor", json!(0.5)), "unknown field `scor`"),
        ] {
            let said = refused(Kind::Evaluation, &json!([good, entry]));
            assert!(said.starts_with("entry 1 "), "{said}");
            assert!(said.contains(says), "{said} does not say {says}");
        }
        assert!(refused(Kind::Feedback, &good).contains("thumbs_down"));
        let both = json!({ "trace_id": TRACE, "name": "thumbs_up", "label": "thumbs_down" });
        assert!(refused(Kind::Feedback, &both).contains("label"));
        assert!(refused(Kind::Evaluation, &json!([])).contains("0 entries"));
        assert!(refused(Kind::Evaluation, &json!(vec![1; ENTRIES_MAX + 1])).contains("10001 entries"));
        assert!(refused(Kind::Evaluation, &json!("text")).contains("neither"));
    }

    #[test]
    fn times_come_in_either_form() {
        let now = Nanos::from_secs(5);
        let time = |time: Value| {
            let body = json!({ "trace_id": TRACE, "name": "a", "time": time });
            read(body.to_string().as_bytes(), Kind::Evaluation, now).unwrap()[0]
                .time
                .0
        };
        assert_eq!(time(json!("2026-11-20T14:00:00Z")), 1_795_183_200_000_000_000);
        assert_eq!(time(json!("2026-11-20T15:00:00.25+01:00")), 1_795_183_200_250_000_000);
        assert_eq!(time(json!(1_795_183_200)), 1_795_183_200_000_000_000);
        assert_eq!(time(json!(1_795_183_200.5)), 1_795_183_200_500_000_000);
        assert_eq!(time(Value::Null), now.0);
    }
}
