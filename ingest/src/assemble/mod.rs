//! From rows to traces and cells. Pure: batches and times go in, [`Effects`] come out.
//!
//! ```text
//! RecordBatch --facts--> Span, Eval --Assembly--> Shape (tree) --resolve--> Mark
//!                                                     |                      |
//!                                                     +------ outcome -------+--> traces row, signed cell deltas
//! ```
//!
//! The same code runs live and when the journal is replayed. Time is only what a batch's `received_at` and a tick say,
//! and every result is a function of the *set* of spans and evaluations, so neither the order of arrival nor a kill
//! between two records changes what a trace comes to.

mod aging;
mod assembly;
mod evals;
mod facts;
mod feedback;
mod hold;
mod late;
mod link;
mod marks;
mod names;
mod outcome;
mod path;
mod resolve;
mod revive;
mod row;
mod shape;
mod span;
mod spans;
mod state;
mod tally;
#[cfg(test)]
mod tests;
mod trace;
mod twins;

pub use assembly::Assembly;
pub use evals::{Ask, EvalLimits, EvalRow, evals_to_batch};
pub use facts::{EvalFacts, FactsError, SpanFacts};
pub use feedback::metric_of;
pub use late::{Answer, Asks, FoundRows, FoundTrace, LateLimits};
pub use link::{Link, LinkedBy};
pub use names::{NO_ROUTE, OTHER};
pub use outcome::{Attempt, Outcome, Quality, Request};
pub use row::{TraceRow, rows_to_batch};
pub use state::AssemblyState;
pub use tally::{Tally, minute_of};
pub use trace::ClosedBy;
pub use twins::TWIN_CALLS_MAX;

use std::{sync::Arc, time::Duration};
use store::{Mark, Patch, TraceId};

/// Times and limits of assembly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Width of a cell's minute; whole seconds.
    pub resolution: Duration,
    /// After the root has ended and nothing came for this long, a trace closes.
    pub quiet: Duration,
    /// The same for a trace whose root was not seen.
    pub orphan_quiet: Duration,
    /// A trace closes this long after its first span came, whatever happens.
    pub deadline: Duration,
    /// A trace older than this has timed out, outside any release.
    pub timeout: Duration,
    /// Time for late spans after the timeout, outside any release.
    pub grace: Duration,
    /// A trace that claims to have started longer ago than this has rows, and no cells.
    pub started_ago_max: Duration,
    /// The same for one that claims to start this far ahead of its arrival.
    pub started_ahead_max: Duration,
    /// Open traces; beyond, the oldest is closed as `evicted`.
    pub open_traces_max: usize,
    /// Closed traces that late spans and evaluations can still change.
    pub recent_traces_max: usize,
    /// For how long they can.
    pub recent_age: Duration,
    /// Of the traces held, as many stand unpacked; the others are packed until their next span or due time.
    pub awake_max: usize,
    /// Estimated memory of open and recent traces, bytes.
    pub bytes_max: usize,
    /// Spans of one trace that are assembled; further ones are rows only.
    pub trace_spans_max: usize,
    /// Evaluations of one trace that count; further ones are rows only.
    pub trace_evals_max: usize,
    /// Evaluations that wait for their trace.
    pub evals: EvalLimits,
    /// Traces that are brought back from files.
    pub late: LateLimits,
    /// Undeclared routes, the cohort values and evaluators of each route, and undeclared splits with cells of their own;
    /// those of further ones go under [`OTHER`], or have no split.
    pub names_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            resolution: Duration::from_secs(60),
            quiet: Duration::from_secs(5),
            orphan_quiet: Duration::from_secs(30),
            deadline: Duration::from_secs(600),
            timeout: Duration::from_secs(60),
            grace: Duration::from_secs(10),
            started_ago_max: Duration::from_secs(400 * 86_400),
            started_ahead_max: Duration::from_secs(86_400),
            open_traces_max: 1_000_000,
            recent_traces_max: 100_000,
            recent_age: Duration::from_secs(3_600),
            awake_max: 8_192,
            bytes_max: 336 << 20,
            trace_spans_max: 10_000,
            trace_evals_max: 1_000,
            evals: EvalLimits::default(),
            late: LateLimits::default(),
            names_max: 1_000,
        }
    }
}

/// What one batch or one tick changed.
#[derive(Debug, Default)]
pub struct Effects {
    /// Rows of the `spans` section that were there before, ascending.
    pub drop_spans: Vec<usize>,
    /// Rows of the `evals` section that were there before, or that assembly holds for now, ascending.
    pub drop_evals: Vec<usize>,
    /// Late spans that were there before, and whose rows came with this record: the newest row of each goes.
    pub repeated: Vec<(TraceId, u64, u64)>,
    /// Rows of `evals` that assembly held and that are settled.
    pub evals: Vec<EvalRow>,
    /// Marks that are new, changed, or needed again by rows that came after a seal.
    pub marks: Vec<(TraceId, Arc<Mark>)>,
    /// Changed marks of traces that have sealed rows.
    pub patches: Vec<(TraceId, Patch)>,
    /// Traces that closed, or changed after they had.
    pub rows: Vec<TraceRow>,
    /// Signed deltas.
    pub cells: Tally,
}

/// What assembly has counted since the data directory was made, and what it holds now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize, serde::Deserialize)]
pub struct Counts {
    /// Traces that are open.
    pub open: u64,
    /// Closed traces that can still change.
    pub recent: u64,
    /// Estimated memory of both, bytes.
    pub bytes: u64,
    /// Traces closed.
    pub closed: u64,
    /// Of these, for want of room.
    pub evicted: u64,
    /// Of these, because they had been open for too long.
    pub closed_at_deadline: u64,
    /// Of these, because nothing came for long, their root not seen.
    pub closed_quiet: u64,
    /// Changes of closed traces.
    pub changed_late: u64,
    /// Span rows dropped because they had come before.
    pub duplicate_spans: u64,
    /// Evaluation rows dropped because they had come before.
    pub duplicate_evals: u64,
    /// Spans beyond the limit of their trace.
    pub spans_over_limit: u64,
    /// Evaluations whose trace never came, was gone, or had too many: rows without effect on cells.
    pub evals_unplaced: u64,
    /// Evaluations that wait for their trace.
    pub evals_pending: u64,
    /// Forgotten traces that are being looked up.
    pub late_wanted: u64,
    /// Forgotten traces that late rows brought back from files.
    pub revived: u64,
    /// Forgotten traces that could not be brought back as they were counted: their late rows have no effect on cells.
    pub revive_refused: u64,
    /// Late spans and forgotten traces beyond the limits: taken for new, or without effect on cells.
    pub late_over_limit: u64,
}
