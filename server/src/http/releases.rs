//! Releases: what runs, how far each gate is, declaring one, and what people order.

use super::{Api, error::ApiError};
use axum::{
    Json,
    body::Bytes,
    extract::{Path, State},
    response::{IntoResponse, Response},
};
use gates::{
    check::{Problem, check, check_json},
    desk::{DeskError, ReleaseSummary},
    life::Command,
};
use http::{HeaderMap, StatusCode, header};
use proto::{Nanos, decision::VerdictReport};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// Who decided, if the body names nobody.
const NOBODY: &str = "api";
/// Longest name and reason kept, bytes.
const TEXT_BYTES_MAX: usize = 2_000;

pub(super) async fn list(State(api): State<Arc<Api>>) -> Json<Vec<ReleaseSummary>> {
    Json(api.desk.releases())
}

pub(super) async fn one(State(api): State<Arc<Api>>, Path(id): Path<String>) -> Result<Json<Value>, ApiError> {
    let summary = api.desk.releases().into_iter().find(|release| release.id == id);
    let (Some(summary), Some(row)) = (summary, api.desk.release(&id)) else {
        return Err(unknown(&id));
    };
    let people: Vec<Value> = row
        .people
        .iter()
        .map(|act| json!({ "at": act.at.rfc3339(), "actor": act.actor, "what": act.what, "reason": act.reason }))
        .collect();
    let mut answer = serde_json::to_value(summary).unwrap_or_default();
    answer["declared_at"] = json!(row.declared_at.rfc3339());
    answer["rules"] = json!(row.spec);
    answer["people"] = json!(people);
    answer["muted"] = json!(
        row.state
            .muted
            .iter()
            .map(|m| json!({ "gate": m.gate, "until": m.until.rfc3339(), "actor": m.actor, "reason": m.reason }))
            .collect::<Vec<_>>()
    );
    Ok(Json(answer))
}

/// Always 200 once the release exists, with every key: controllers read a missing one as an error.
pub(super) async fn verdict(
    State(api): State<Arc<Api>>,
    Path(id): Path<String>,
) -> Result<Json<VerdictReport>, ApiError> {
    api.desk.verdict(&id).map(Json).ok_or_else(|| unknown(&id))
}

fn unknown(id: &str) -> ApiError {
    ApiError::missing(format!("there is no release `{id}`; GET /api/v1/releases lists them"))
}

/// One release, as a release file (TOML) or as the same in JSON.
pub(super) async fn declare(
    State(api): State<Arc<Api>>,
    headers: HeaderMap,
    body: Bytes,
) -> Result<Response, Response> {
    let bad = |message: String| ApiError::bad(message).into_response();
    let kind = headers
        .get(header::CONTENT_TYPE)
        .and_then(|kind| kind.to_str().ok())
        .unwrap_or_default();
    let (text, checked) = if kind.contains("json") {
        let value = serde_json::from_slice(&body).map_err(|error| bad(format!("the body is not JSON: {error}")))?;
        (None, check_json(&value))
    } else {
        let text = String::from_utf8(body.to_vec()).map_err(|_| bad("the body is not UTF-8 text".to_owned()))?;
        let checked = check(&text, "release");
        (Some(text), checked)
    };
    if !checked.problems.is_empty() {
        let refusal = refusal(text.as_deref(), &checked.problems);
        return Err((StatusCode::BAD_REQUEST, Json(refusal)).into_response());
    }
    let [release] = &checked.releases[..] else {
        return Err(bad(format!(
            "the body declares {} releases; send one [[release]]",
            checked.releases.len()
        )));
    };
    let is_known = api.desk.release(&release.id).is_some();
    let actor = NOBODY;
    api.desk
        .declare(release.clone(), actor)
        .await
        .map_err(|error| ApiError::from(error).into_response())?;
    let status = if is_known { StatusCode::OK } else { StatusCode::CREATED };
    let location = [(header::LOCATION, format!("/api/v1/releases/{}", release.id))];
    Ok((
        status,
        location,
        Json(json!({ "release": release.id, "route": release.route })),
    )
        .into_response())
}

/// Every problem; with its line, if the release came as text.
fn refusal(text: Option<&str>, problems: &[Problem]) -> Value {
    let problems: Vec<Value> = problems
        .iter()
        .map(|p| json!({ "line": text.map(|text| p.line(text)), "message": p.message, "help": p.help }))
        .collect();
    json!({ "error": format!("the release has {} problems", problems.len()), "problems": problems })
}

/// What a person orders.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    #[serde(default)]
    actor: Option<String>,
    reason: String,
    /// For `mute` and `unmute`.
    #[serde(default)]
    gate: Option<String>,
    /// For `mute`: RFC 3339.
    #[serde(default)]
    until: Option<String>,
}

/// Who orders, if anybody is named.
pub(super) fn actor_of(named: Option<String>) -> Result<String, ApiError> {
    let actor = named.filter(|name| !name.trim().is_empty());
    short(actor.unwrap_or_else(|| NOBODY.to_owned()))
}

/// Why, which must be said.
pub(super) fn reason_of(reason: String) -> Result<String, ApiError> {
    if reason.trim().is_empty() {
        return Err(ApiError::bad("say why in `reason`: it is kept with the decision"));
    }
    short(reason)
}

fn short(text: String) -> Result<String, ApiError> {
    if text.len() > TEXT_BYTES_MAX {
        return Err(ApiError::bad(format!(
            "`actor` and `reason` may have {TEXT_BYTES_MAX} bytes"
        )));
    }
    Ok(text)
}

/// A time as RFC 3339.
pub(super) fn moment(text: &str) -> Result<Nanos, ApiError> {
    let parsed = chrono::DateTime::parse_from_rfc3339(text).ok();
    parsed
        .and_then(|at| at.timestamp_nanos_opt())
        .map(Nanos)
        .ok_or_else(|| ApiError::bad(format!("`{text}` is no time; write 2026-11-30T18:00:00Z")))
}

impl Order {
    fn command(&self, word: &str) -> Result<Command, ApiError> {
        let gate = || {
            self.gate
                .clone()
                .ok_or_else(|| ApiError::bad(format!("`{word}` names a `gate`")))
        };
        let command = match word {
            "promote" => Command::Promote,
            "advance" => Command::Advance,
            "rollback" => Command::Rollback,
            "hold" => Command::Hold,
            "resume" => Command::Resume,
            "ack" => Command::Ack,
            "mute" => {
                let until = self.until.as_deref();
                let until = until.ok_or_else(|| ApiError::bad("`mute` says `until` when, RFC 3339"))?;
                return Ok(Command::Mute {
                    gate: gate()?,
                    until: moment(until)?,
                });
            }
            "unmute" => return Ok(Command::Unmute { gate: gate()? }),
            _ => {
                return Err(ApiError::missing(format!(
                    "`{word}` is no order; there are promote, advance, rollback, hold, resume, mute, unmute, ack"
                )));
            }
        };
        if self.gate.is_some() || self.until.is_some() {
            return Err(ApiError::bad(format!("`{word}` takes neither `gate` nor `until`")));
        }
        Ok(command)
    }
}

pub(super) async fn command(
    State(api): State<Arc<Api>>,
    Path((id, word)): Path<(String, String)>,
    body: Bytes,
) -> Result<Json<Value>, ApiError> {
    let order: Order = serde_json::from_slice(&body).map_err(|error| {
        ApiError::bad(format!(
            "the body is not {{\"actor\": \"...\", \"reason\": \"...\"}}: {error}"
        ))
    })?;
    let command = order.command(&word)?;
    let (actor, reason) = (actor_of(order.actor)?, reason_of(order.reason)?);
    let decision = api.desk.command(&id, command, &actor, &reason).await?;
    Ok(Json(json!({
        "release": id,
        "command": word,
        "decision_id": decision.as_ref().map(|d| &d.id),
        "decision_seq": decision.as_ref().map(|d| d.seq),
    })))
}

impl From<DeskError> for ApiError {
    fn from(error: DeskError) -> Self {
        let status = match &error {
            DeskError::UnknownRelease(_) | DeskError::NoReplay(_) => StatusCode::NOT_FOUND,
            DeskError::RulesChanged(_) | DeskError::RouteTaken { .. } | DeskError::Refused(_) => StatusCode::CONFLICT,
            DeskError::Rules(_) => StatusCode::BAD_REQUEST,
            DeskError::Closed => StatusCode::SERVICE_UNAVAILABLE,
            DeskError::Ledger(_) | DeskError::Webhook(_) | DeskError::Thread(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self::new(status, error.to_string())
    }
}
