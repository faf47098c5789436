//! One trace in assembly: its spans, what it was last found to be, and when to look at it again.

use super::{
    Limits,
    outcome::Outcome,
    shape::{Shape, is_rooted},
    span::{Eval, Span, Subject},
};
use proto::Nanos;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use store::Mark;

/// Why a trace closed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum ClosedBy {
    /// Its root had ended and the quiet time passed.
    RootEnded,
    /// No root was seen, and nothing came for long.
    Quiet,
    /// It had been open for too long.
    Deadline,
    /// There was no room.
    Evicted,
}

impl ClosedBy {
    /// The word of column `closed_by`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RootEnded => "root_ended",
            Self::Quiet => "quiet",
            Self::Deadline => "deadline",
            Self::Evicted => "evicted",
        }
    }
}

/// State of one trace. Shared with captures: changed by copy while a seal still reads it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(super) struct Trace {
    /// Sorted by id.
    pub spans: Vec<Span>,
    /// In order of arrival.
    pub evals: Vec<Eval>,
    /// Record that brought the first row.
    pub first_lsn: u64,
    /// When the first row came.
    pub opened: Nanos,
    /// When the last span came.
    pub touched: Nanos,
    /// Whether the root is a true one, so that its end is the trace's.
    pub rooted: bool,
    /// When the trace counts for gates; `None` without spans.
    pub admit_at: Option<Nanos>,
    /// It counts for gates.
    pub admitted: bool,
    /// When and why it closed.
    pub closed: Option<(Nanos, ClosedBy)>,
    /// Last emitted mark, and with which record.
    pub mark: Option<(Arc<Mark>, u64)>,
    /// Stamp and version contradict.
    pub conflict: bool,
    /// What the cells hold of it, on the side that `admitted` says.
    pub charged: Option<Arc<Outcome>>,
    /// Record with which its last row of `traces` was made.
    pub row_lsn: Option<u64>,
    /// Its memory as last counted, bytes.
    pub weighed: u64,
    /// Earliest time for which it stands in the queue.
    #[serde(skip)]
    pub queued: Option<Nanos>,
}

impl Trace {
    pub fn new(now: Nanos, lsn: u64) -> Self {
        Self {
            spans: Vec::new(),
            evals: Vec::new(),
            first_lsn: lsn,
            opened: now,
            touched: now,
            rooted: false,
            admit_at: None,
            admitted: false,
            closed: None,
            mark: None,
            conflict: false,
            charged: None,
            row_lsn: None,
            weighed: 0,
            queued: None,
        }
    }

    /// When and why it will close if nothing more comes.
    pub fn closes(&self, limits: &Limits) -> (Nanos, ClosedBy) {
        let deadline = self.opened.plus(limits.deadline);
        let (quiet, by) = match (self.spans.is_empty(), self.rooted) {
            (true, _) => (deadline, ClosedBy::Deadline),
            (_, true) => (self.touched.plus(limits.quiet), ClosedBy::RootEnded),
            (_, false) => (self.touched.plus(limits.orphan_quiet), ClosedBy::Quiet),
        };
        if deadline < quiet {
            (deadline, ClosedBy::Deadline)
        } else {
            (quiet, by)
        }
    }

    /// When to look at it next; `None` if only late rows can change it.
    pub fn due(&self, limits: &Limits) -> Option<Nanos> {
        let close = self.closed.is_none().then(|| self.closes(limits).0);
        let admit = self.admit_at.filter(|_| !self.admitted);
        close.into_iter().chain(admit).min()
    }

    /// Estimates its memory again; by how many bytes it changed.
    pub fn weigh(&mut self) -> i64 {
        let subjects = self.spans.iter().filter(|s| s.subject.is_some()).count();
        let bytes = size_of::<Self>()
            + size_of::<Outcome>()
            + 256
            + self.spans.len() * size_of::<Span>()
            + subjects * (size_of::<Subject>() + 96)
            + self.evals.len() * (size_of::<Eval>() + 32);
        let before = std::mem::replace(&mut self.weighed, bytes as u64);
        bytes as i64 - before as i64
    }

    /// The tree, and whether its root is a true one.
    pub fn shape(&mut self) -> Shape {
        let shape = Shape::of(&self.spans);
        self.rooted = shape.root().is_some_and(|root| is_rooted(&self.spans[root]));
        shape
    }
}
