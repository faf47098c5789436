//! The API: health, metrics, SQL, evaluations, releases, decisions, and what each route should be on.

mod decisions;
mod desired;
mod error;
mod evals;
mod freeze;
mod health;
mod host;
mod ledger;
mod listen;
mod metrics;
mod releases;
mod sql;

pub use decisions::line as decision_line;
pub use error::ApiError;
pub use host::Hosts;
pub use ledger::tables_of as ledger_tables;
pub use listen::serve;
pub use metrics::{Metrics, Watched};

use axum::{
    Router,
    body::to_bytes,
    extract::{DefaultBodyLimit, Request},
    middleware::{self, Next},
    response::{IntoResponse, Response},
    routing::{get, post},
};
use gates::desk::DeskHandle;
use http::{HeaderValue, StatusCode, header};
use ingest::intake::Intake;
use proto::clock::Clock;
use query::Engine;
use std::{sync::Arc, time::Duration};
use store::Snapshot;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

/// Largest request body, bytes.
const BODY_BYTES_MAX: usize = 1 << 20;
/// Longest refusal of the framework that is passed on, bytes.
const REFUSAL_BYTES_MAX: usize = 4 << 10;
/// Longest time to the head of an answer; longer than a long poll and than a query may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(65);

/// What every handler sees.
pub struct Api {
    /// Names the API is reached by; they can change while it runs.
    pub hosts: watch::Receiver<Hosts>,
    /// SQL.
    pub engine: Arc<Engine>,
    /// Releases, verdicts, decisions.
    pub desk: DeskHandle,
    /// Where evaluations go in.
    pub intake: Intake,
    /// Now.
    pub clock: Clock,
    /// Rows and cells.
    pub snapshots: watch::Receiver<Arc<Snapshot>>,
    /// Why ingest has stopped, if it has.
    pub failed: watch::Receiver<Option<Arc<str>>>,
    /// What is counted.
    pub metrics: Metrics,
    /// Cancelled when long polls should come to an end.
    pub stopping: CancellationToken,
}

/// Every path of the API.
pub fn router(api: Arc<Api>) -> Router {
    Router::new()
        .route("/", get(health::front))
        .route("/healthz", get(health::alive))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(metrics::page))
        .route("/api/v1/sql", post(sql::ask))
        .route("/api/v1/evals", post(evals::evals))
        .route("/api/v1/feedback", post(evals::feedback))
        .route("/api/v1/releases", get(releases::list).post(releases::declare))
        .route("/api/v1/releases/{id}", get(releases::one))
        .route("/api/v1/releases/{id}/verdict", get(releases::verdict))
        .route("/api/v1/releases/{id}/{command}", post(releases::command))
        .route("/api/v1/freeze", get(freeze::list).post(freeze::order))
        .route("/api/v1/decisions", get(decisions::list))
        .route("/api/v1/decisions/{id}", get(decisions::one))
        .route("/api/v1/deliveries/{id}/replay", post(decisions::replay))
        .route("/api/v1/desired", get(desired::all))
        .route("/api/v1/routes/{route}/desired", get(desired::of_route))
        .fallback(no_such_path)
        .method_not_allowed_fallback(no_such_method)
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::from_fn(within_time))
        .layer(middleware::from_fn_with_state(Arc::clone(&api), host::guard))
        .with_state(api)
}

async fn no_such_path() -> ApiError {
    ApiError::missing("no such path; GET / lists what there is")
}

async fn no_such_method() -> ApiError {
    ApiError::new(
        StatusCode::METHOD_NOT_ALLOWED,
        "this path is not asked that way; GET / lists what there is",
    )
}

async fn within_time(request: Request, next: Next) -> Response {
    let mut answer = match tokio::time::timeout(ANSWER_TIMEOUT, next.run(request)).await {
        Ok(answer) => in_one_form(answer).await,
        Err(_) => {
            let message = "the answer took too long; ask for less";
            ApiError::new(StatusCode::GATEWAY_TIMEOUT, message).into_response()
        }
    };
    answer
        .headers_mut()
        .insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}

/// Refusals of the framework (a body too large, a query that cannot be read) in the form of ours.
async fn in_one_form(answer: Response) -> Response {
    let is_text = answer
        .headers()
        .get(header::CONTENT_TYPE)
        .is_some_and(|kind| kind.as_bytes().starts_with(b"text/plain"));
    let status = answer.status();
    if !is_text || !(status.is_client_error() || status.is_server_error()) {
        return answer;
    }
    let words = to_bytes(answer.into_body(), REFUSAL_BYTES_MAX).await;
    let words = words.unwrap_or_default();
    ApiError::new(status, String::from_utf8_lossy(&words)).into_response()
}
