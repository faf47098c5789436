//! What each route should be on: the same truth as the webhooks, for those who ask.
//!
//! `ETag` is the decision's number. With `If-None-Match` and `?wait=30s` the answer comes when there is a newer decision,
//! or as 304 when the time is over.

use super::{Api, error::ApiError};
use axum::{
    Json,
    extract::{Path, Query, State},
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header};
use proto::decision::Desired;
use serde::Deserialize;
use std::{sync::Arc, time::Duration};

/// Longest wait that may be asked for.
const WAIT_MAX: Duration = Duration::from_secs(60);

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Wait {
    wait: Option<String>,
}

impl Wait {
    fn time(&self) -> Result<Duration, ApiError> {
        let Some(text) = &self.wait else {
            return Ok(Duration::ZERO);
        };
        let wait = humantime::parse_duration(text)
            .map_err(|error| ApiError::bad(format!("wait: {error}; write it as in ?wait=30s")))?;
        Ok(wait.min(WAIT_MAX))
    }
}

pub(super) async fn all(State(api): State<Arc<Api>>) -> Json<Vec<Desired>> {
    let view = api.desk.view();
    let desired = view.borrow().desired.values().cloned().collect();
    Json(desired)
}

pub(super) async fn of_route(
    State(api): State<Arc<Api>>,
    Path(route): Path<String>,
    Query(wait): Query<Wait>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let known = headers
        .get(header::IF_NONE_MATCH)
        .and_then(|tag| tag.to_str().ok())
        .and_then(seq_of);
    let desired = tokio::select! {
        desired = api.desk.desired_after(&route, known, wait.time()?) => desired,
        () = api.stopping.cancelled() => api.desk.desired(&route),
    };
    let Some(desired) = desired else {
        let message = format!("nothing was decided for route `{route}` yet: keep the route as it is");
        return Err(ApiError::missing(message));
    };
    let tag = [(header::ETAG, format!("\"{}\"", desired.decision_seq))];
    if known.is_some_and(|known| desired.decision_seq <= known) {
        return Ok((StatusCode::NOT_MODIFIED, tag).into_response());
    }
    Ok((tag, Json(desired)).into_response())
}

/// The number inside `"123"` or `W/"123"`.
fn seq_of(tag: &str) -> Option<i64> {
    tag.trim().trim_start_matches("W/").trim_matches('"').parse().ok()
}
