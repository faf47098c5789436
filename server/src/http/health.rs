//! Whether the process lives, whether it takes requests, and what there is to ask.

use super::{Api, error::ApiError};
use axum::{extract::State, response::Html};
use http::StatusCode;
use std::sync::Arc;

/// What answers at `/` until there is more to see.
const FRONT: &str = include_str!("front.html");

/// The process answers.
pub(super) async fn alive() -> &'static str {
    "ok\n"
}

/// Requests are taken: recovery is over (nothing is served before that) and ingest runs.
pub(super) async fn ready(State(api): State<Arc<Api>>) -> Result<&'static str, ApiError> {
    if let Some(reason) = &*api.failed.borrow() {
        return Err(ApiError::new(
            StatusCode::SERVICE_UNAVAILABLE,
            format!("ingest has stopped: {reason}"),
        ));
    }
    if api.stopping.is_cancelled() {
        return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "the server is stopping"));
    }
    Ok("ready\n")
}

pub(super) async fn front() -> Html<&'static str> {
    Html(FRONT)
}
