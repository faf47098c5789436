//! What the ledger holds, row by row. Stored as JSON: fields are added, never renamed.

use crate::life::ReleaseState;
use proto::{
    Nanos,
    decision::Action,
    release::{ReleaseSpec, WebhookSpec},
};
use serde::{Deserialize, Serialize};

/// Who decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "by", content = "name")]
pub enum Actor {
    /// tracegate itself, on evidence.
    Engine,
    /// A person, by name.
    Person(String),
}

/// Something a person did, kept beside the release whether or not it became a decision.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonAct {
    /// When.
    pub at: Nanos,
    /// Who.
    pub actor: String,
    /// The command's word.
    pub what: String,
    /// Why.
    pub reason: String,
}

/// A time in which nothing is advanced or promoted; rollbacks go on.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Freeze {
    /// The route; all of them if null.
    pub route: Option<String>,
    /// From.
    pub since: Nanos,
    /// Until; until it is lifted if null.
    pub until: Option<Nanos>,
    /// Who.
    pub actor: String,
    /// Why.
    pub reason: String,
}

impl Freeze {
    /// Whether it holds a route at this time.
    #[must_use]
    pub fn holds(&self, route: &str, now: Nanos) -> bool {
        self.route.as_deref().is_none_or(|r| r == route)
            && self.since <= now
            && self.until.is_none_or(|until| now < until)
    }
}

/// A release and where it stands.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseRow {
    /// As declared.
    pub spec: ReleaseSpec,
    /// SHA-256 of the rules.
    pub rules_hash: String,
    /// Where it stands.
    pub state: ReleaseState,
    /// When it was declared.
    pub declared_at: Nanos,
    /// By whom.
    pub declared_by: String,
    /// What people did to it, oldest first.
    pub people: Vec<PersonAct>,
}

/// A decision, without its evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionRow {
    /// `dec_` and a ULID.
    pub id: String,
    /// Number, growing per route.
    pub seq: i64,
    /// Place in the ledger, from 0.
    pub ordinal: u64,
    /// Release.
    pub release: String,
    /// Route.
    pub route: String,
    /// What was decided.
    pub action: Action,
    /// Affected cohort of a fallback.
    pub cohort: Option<String>,
    /// Why, in words.
    pub reason: String,
    /// Who decided.
    pub actor: Actor,
    /// Gates (and cohorts) that led to it.
    pub culprits: Vec<String>,
    /// Green's share from now on, ppm.
    pub green_ppm: u32,
    /// SHA-256 of the rules.
    pub rules_hash: String,
    /// When.
    pub decided_at: Nanos,
    /// Whether the gateway is told (notice and `desired`).
    pub notified: bool,
    /// SHA-256 of the evidence bundle's bytes, hex.
    pub evidence_hash: String,
    /// The same of the decision before; `None` for the first.
    pub previous_hash: Option<String>,
    /// When the decision before it was removed for its age: the chain begins here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before_expired: Option<Nanos>,
}

/// Where a delivery stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum DeliveryState {
    /// To be made, or made again.
    Pending,
    /// Answered with 2xx.
    Delivered,
    /// Given up, or refused by 410; a person may replay it.
    Dead,
    /// A newer decision of the route made it void.
    Superseded,
}

/// One notice on its way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeliveryRow {
    /// `webhook-id`: `msg_` and the decision's ULID, the same on every attempt and after every restart.
    pub id: String,
    /// Decision.
    pub decision_id: String,
    /// Its number.
    pub decision_seq: i64,
    /// What it says.
    pub action: Action,
    /// Release.
    pub release: String,
    /// Route.
    pub route: String,
    /// Receiver, and where its secret is found.
    pub webhook: WebhookSpec,
    /// Exact body.
    pub body: String,
    /// Where it stands.
    pub state: DeliveryState,
    /// When it was decided, or last replayed.
    pub created_at: Nanos,
    /// Attempts made.
    pub attempts: u32,
    /// Not before.
    pub next_attempt_at: Nanos,
    /// HTTP status of the last attempt.
    pub last_status: Option<u16>,
    /// What went wrong with it.
    pub last_error: Option<String>,
    /// When a 2xx came.
    pub delivered_at: Option<Nanos>,
}
