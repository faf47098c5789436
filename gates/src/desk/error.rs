//! Why the desk did not do as asked.

use crate::{check::Problem, ledger::LedgerError};

/// Why the desk did not do as asked.
#[derive(Debug, thiserror::Error)]
pub enum DeskError {
    /// The ledger.
    #[error(transparent)]
    Ledger(#[from] LedgerError),
    /// The HTTP client.
    #[error("cannot send webhooks: {0}")]
    Webhook(String),
    /// No thread.
    #[error("cannot start the desk's thread: {0}")]
    Thread(std::io::Error),
    /// No such release.
    #[error("there is no release `{0}`: `tracegate status` lists them")]
    UnknownRelease(String),
    /// Declared anew with other rules.
    #[error("release `{0}` was declared with other rules: rules of a running release cannot change, declare a new id")]
    RulesChanged(String),
    /// Another release runs on the route.
    #[error("route `{route}` is on trial in release `{by}`: settle or roll that back first")]
    RouteTaken {
        /// Route.
        route: String,
        /// Release that runs on it.
        by: String,
    },
    /// The rules are not acceptable.
    #[error("the release cannot run: {}", listed(.0))]
    Rules(Vec<Problem>),
    /// The state machine says no.
    #[error("{0}")]
    Refused(String),
    /// No such delivery, or it is void.
    #[error("delivery `{0}` cannot be replayed: it is not among the dead letters, or a newer decision has replaced it")]
    NoReplay(String),
    /// Shut down.
    #[error("the desk is closed: tracegate is shutting down")]
    Closed,
}

fn listed(problems: &[Problem]) -> String {
    let all: Vec<&str> = problems.iter().map(|p| p.message.as_str()).collect();
    all.join("; ")
}
