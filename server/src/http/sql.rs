//! `POST /api/v1/sql`: one question, answered in the format that was asked for, batch by batch.

use super::{Api, error::ApiError, ledger::tables};
use axum::{
    body::{Body, Bytes},
    extract::State,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use query::{
    Bounds, QueryError, View,
    output::{Format, encode, table},
};
use serde::Deserialize;
use std::sync::Arc;

/// Media type of a text table.
const PLAIN: &str = "text/plain";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Question {
    sql: String,
}

pub(super) async fn ask(State(api): State<Arc<Api>>, headers: HeaderMap, body: Bytes) -> Result<Response, ApiError> {
    let question: Question = serde_json::from_slice(&body)
        .map_err(|error| ApiError::bad(format!("the body is not {{\"sql\": \"SELECT ...\"}}: {error}")))?;
    let accept = headers
        .get(header::ACCEPT)
        .and_then(|value| value.to_str().ok())
        .unwrap_or_default();
    let ledger = tables(&api.desk, &question.sql).await?;
    let view = View {
        snapshot: Arc::clone(&api.snapshots.borrow()),
        ledger,
    };
    let answer = api.engine.run(view, &question.sql).await?;
    if accept
        .split(',')
        .next()
        .is_some_and(|first| first.trim().starts_with(PLAIN))
    {
        let rows = answer.collect(Bounds::default()).await?;
        return Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], table(&rows)?).into_response());
    }
    let format = Format::from_accept(accept);
    let body = Body::from_stream(encode(answer, format));
    Ok(([(header::CONTENT_TYPE, format.content_type())], body).into_response())
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        let status = match &error {
            QueryError::Forbidden(_) => StatusCode::FORBIDDEN,
            QueryError::Invalid(_) | QueryError::TooLarge { .. } | QueryError::TooLong { .. } => {
                StatusCode::BAD_REQUEST
            }
            QueryError::Timeout(_) => StatusCode::GATEWAY_TIMEOUT,
            QueryError::Busy(_) => StatusCode::SERVICE_UNAVAILABLE,
            QueryError::Memory(_) => StatusCode::INSUFFICIENT_STORAGE,
            QueryError::Failed(_) | QueryError::Setup(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}
