//! What a release reacts to, and what comes of it.

use crate::{judge::PairKey, ledger::Actor};
use proto::{
    Nanos,
    decision::{Action, Verdict},
};
use serde::{Deserialize, Serialize};

/// What judging the cells found, as far as the life of a release depends on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Finding {
    /// Rollback pairs crossed their threshold; the culprits.
    pub rollback: Option<Vec<PairKey>>,
    /// Pairs whose failing sends a cohort back.
    pub fallbacks: Vec<PairKey>,
    /// Pairs whose failing holds the ramp.
    pub holds: Vec<PairKey>,
    /// Any verdict is `fail`, of what counts: dry runs and pairs that [are out](super::ReleaseState::is_out) do not.
    pub any_fail: bool,
    /// Every overall gate passes.
    pub passes: bool,
    /// No admitted trace has a known split: the arms can only be compared as iid.
    pub split_unknown: bool,
    /// The sample ratio is doubtful.
    pub sample_ratio_suspended: bool,
    /// The sample ratio is off.
    pub sample_ratio_fired: bool,
    /// What the breaker says.
    pub breaker: Breaker,
    /// Admitted blue traces.
    pub n_blue: i64,
    /// Admitted green traces.
    pub n_green: i64,
    /// Admitted green traces that started on the present step.
    pub n_green_step: i64,
    /// Why nothing can be said, in words; empty if something can.
    pub reason: String,
    /// Why nothing may be concluded, in words: mixed manifests, sticky sessions, sampled traffic. Every gate is then
    /// inconclusive; the breaker still works.
    pub refused: Option<String>,
    /// Mirrored pairs that paired gates have read.
    pub n_pairs: i64,
    /// How long nothing has come, while ingest works.
    pub quiet: Quiet,
    /// What keeps the numbers from being trusted at all (an ingest outage, shed traffic).
    pub impaired: Option<String>,
    /// What forbids promotion beside the gates (unmarked traffic, quota).
    pub obstacle: Option<String>,
    /// Traffic by slot, complete ones only, oldest first.
    pub traffic: Vec<Slot>,
    /// The same of each cohort that fell back, by name.
    pub fallen: Vec<(String, Vec<Slot>)>,
}

/// For how long no trace of a color has started; zero while traffic flows, and while ingest itself is out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quiet {
    /// Blue, seconds.
    pub blue_secs: u64,
    /// Green, seconds.
    pub green_secs: u64,
}

/// The breaker's word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Breaker {
    /// Nothing.
    Quiet,
    /// Green fails, blue does not.
    Fired,
    /// Both fail.
    CommonOutage,
}

/// Traces that started within one slot, whether admitted yet or not.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slot {
    /// Its start, unix seconds.
    pub at: i64,
    /// Blue traces.
    pub blue: i64,
    /// Green traces.
    pub green: i64,
}

/// What a person asks for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Green takes the route now.
    Promote,
    /// The next step now.
    Advance,
    /// Back to blue now.
    Rollback,
    /// Stay, whatever the evidence.
    Hold,
    /// tracegate decides again.
    Resume,
    /// What this gate finds rolls nothing back for a while; a promotion still needs it to pass.
    Mute {
        /// Name of the gate.
        gate: String,
        /// Until when.
        until: Nanos,
    },
    /// It counts again.
    Unmute {
        /// Name of the gate.
        gate: String,
    },
    /// What people were told is known: it need not be repeated.
    Ack,
}

impl Command {
    /// The word of the CLI and the API.
    #[must_use]
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Promote => "promote",
            Self::Advance => "advance",
            Self::Rollback => "rollback",
            Self::Hold => "hold",
            Self::Resume => "resume",
            Self::Mute { .. } => "mute",
            Self::Unmute { .. } => "unmute",
            Self::Ack => "ack",
        }
    }
}

/// Everything that can happen to a release.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The cells were judged.
    Judged(Box<Finding>),
    /// The gateway answered 2xx to a notice.
    Delivered {
        /// Its decision.
        decision_id: String,
    },
    /// A notice was given up.
    Undelivered {
        /// Its decision.
        decision_id: String,
        /// What went wrong.
        error: String,
    },
    /// A person decided.
    Command {
        /// What.
        command: Command,
        /// Who.
        actor: String,
        /// Why.
        reason: String,
    },
    /// An observed release ends: its route shows one path again, or a declared release takes it. Declared releases end by
    /// decisions only.
    Closed {
        /// Why.
        reason: String,
    },
}

/// A decision before it has an id, a number and its evidence.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DecisionDraft {
    /// What.
    pub action: Action,
    /// Cohort of a fallback.
    pub cohort: Option<String>,
    /// Green's share from now on, ppm.
    pub green_ppm: u32,
    /// Why.
    pub reason: String,
    /// Who.
    pub actor: Actor,
    /// Pairs that led to it.
    pub culprits: Vec<PairKey>,
    /// Whether the gateway is told.
    pub notified: bool,
}

/// What a step led to.
#[derive(Debug, Clone, PartialEq)]
pub struct Stepped {
    /// The state after it.
    pub state: super::ReleaseState,
    /// Decisions, in order; empty if nothing was decided.
    pub decisions: Vec<DecisionDraft>,
    /// Why a command was refused.
    pub refused: Option<String>,
    /// What stands in the way of a decision, in words.
    pub waiting: String,
    /// The verdict, latches considered.
    pub verdict: Verdict,
}
