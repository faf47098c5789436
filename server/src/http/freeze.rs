//! Freezes: times in which nothing is advanced or promoted. Rollbacks go on.

use super::{
    Api,
    error::ApiError,
    releases::{actor_of, moment, reason_of},
};
use axum::{Json, body::Bytes, extract::State};
use gates::desk::Freeze;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

/// What a person orders.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Order {
    #[serde(default)]
    actor: Option<String>,
    reason: String,
    /// One route; all of them if it is missing.
    #[serde(default)]
    route: Option<String>,
    /// RFC 3339; until it is lifted if it is missing.
    #[serde(default)]
    until: Option<String>,
    /// Ends the freezes of the route (or those of all routes) instead.
    #[serde(default)]
    lift: bool,
}

fn line(freeze: &Freeze) -> Value {
    json!({
        "route": freeze.route,
        "since": freeze.since.rfc3339(),
        "until": freeze.until.map(proto::Nanos::rfc3339),
        "actor": freeze.actor,
        "reason": freeze.reason,
    })
}

pub(super) async fn list(State(api): State<Arc<Api>>) -> Json<Vec<Value>> {
    Json(api.desk.freezes().iter().map(line).collect())
}

pub(super) async fn order(State(api): State<Arc<Api>>, body: Bytes) -> Result<Json<Value>, ApiError> {
    let order: Order = serde_json::from_slice(&body).map_err(|error| {
        ApiError::bad(format!(
            "the body is not {{\"actor\": \"...\", \"reason\": \"...\", \"route\"?, \"until\"?, \"lift\"?}}: {error}"
        ))
    })?;
    let now = (api.clock)();
    let freeze = Freeze {
        route: order.route,
        since: now,
        until: order.until.as_deref().map(moment).transpose()?,
        actor: actor_of(order.actor)?,
        reason: reason_of(order.reason)?,
    };
    if freeze.until.is_some_and(|until| until <= now) {
        return Err(ApiError::bad("`until` is over already: give a time to come"));
    }
    if let Some(route) = &freeze.route
        && api.desk.release_of_route(route).is_none()
        && api.desk.desired(route).is_none()
        && !order.lift
    {
        return Err(ApiError::missing(format!(
            "no release knows the route `{route}`; GET /api/v1/releases lists them"
        )));
    }
    if order.lift {
        if !api.desk.thaw(freeze.route.clone()).await? {
            return Err(ApiError::missing(
                "nothing is frozen there; GET /api/v1/freeze lists freezes",
            ));
        }
    } else {
        api.desk.freeze(freeze).await?;
    }
    Ok(Json(
        json!({ "freezes": api.desk.freezes().iter().map(line).collect::<Vec<_>>() }),
    ))
}
