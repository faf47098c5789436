//! What was decided and why; and sending a notice once more.

use super::{Api, error::ApiError};
use axum::{
    Json,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use gates::ledger::{Actor, DecisionRow};
use http::header;
use serde_json::{Value, json};
use std::sync::Arc;

/// Who decided, in one word.
pub(super) fn actor(actor: &Actor) -> &str {
    match actor {
        Actor::Engine => "tracegate",
        Actor::Person(name) => name,
    }
}

/// A decision as lists show it.
#[must_use]
pub fn line(row: &DecisionRow) -> Value {
    json!({
        "decision_id": row.id,
        "decision_seq": row.seq,
        "release": row.release,
        "route": row.route,
        "action": row.action,
        "cohort": row.cohort,
        "reason": row.reason,
        "actor": actor(&row.actor),
        "culprits": row.culprits,
        "green": f64::from(row.green_ppm) / f64::from(proto::cell::PPM),
        "rules_hash": row.rules_hash,
        "decided_at": row.decided_at.rfc3339(),
        "notified": row.notified,
        "evidence_hash": row.evidence_hash,
        "previous_hash": row.previous_hash,
        "before_expired": row.before_expired.map(proto::Nanos::rfc3339),
    })
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Result<Json<Vec<Value>>, ApiError> {
    Ok(Json(api.desk.decisions().await?.iter().map(line).collect()))
}

/// The evidence bundle, byte for byte as it was hashed.
pub(super) async fn one(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Response, ApiError> {
    let Some((_, bundle)) = api.desk.decision(&id).await? else {
        return Err(ApiError::missing(format!(
            "there is no decision `{id}`; GET /api/v1/decisions lists them"
        )));
    };
    Ok(([(header::CONTENT_TYPE, "application/json")], bundle).into_response())
}

pub(super) async fn replay(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let row = api.desk.replay(&id).await?;
    Ok(Json(
        json!({ "delivery_id": row.id, "decision_id": row.decision_id, "state": row.state }),
    ))
}
