//! One trace in assembly: its spans, what it was last found to be, and when to look at it again.

use super::{
    Limits,
    link::{Link, Member, is_fallback},
    outcome::Outcome,
    resolve::{has_shadow_groups, is_in_shadow_group, route_of},
    shape::{Shape, is_rooted},
    span::{Call, Eval, Span, Subject},
    spans::Spans,
    twins::Twins,
};
use proto::{
    Nanos,
    release::{BookEntry, ReleaseBook},
};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
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

    /// Reads the column's word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let all = [Self::RootEnded, Self::Quiet, Self::Deadline, Self::Evicted];
        all.into_iter().find(|by| by.as_str() == word)
    }
}

/// State of one trace. Shared with captures: changed by copy while a seal still reads it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) struct Trace {
    /// Sorted by id. Packed on their own: they hardly change once they are there.
    #[serde(skip)]
    pub spans: Spans,
    /// In order of arrival.
    pub evals: Vec<Eval>,
    /// Record that brought the first row.
    #[serde(skip)]
    pub first_lsn: u64,
    /// Record with which its last row came: of a span, or of an evaluation.
    #[serde(skip)]
    pub last_lsn: u64,
    /// When the first row came.
    pub opened: Nanos,
    /// When the last span came.
    #[serde(skip)]
    pub touched: Nanos,
    /// Whether the root is a true one, so that its end is the trace's.
    pub rooted: bool,
    /// When the trace counts for gates; `None` without spans.
    pub admit_at: Option<Nanos>,
    /// It counts for gates.
    pub admitted: bool,
    /// When and why it closed.
    pub closed: Option<(Nanos, ClosedBy)>,
    /// Last emitted mark, and with which record. Kept beside the bytes as well.
    #[serde(skip)]
    pub mark: Option<(Arc<Mark>, u64)>,
    /// Stamp and version contradict.
    pub conflict: bool,
    /// Its tie to another trace of the same request.
    pub link: Option<Link>,
    /// What the cells hold of it, on the side that `admitted` says.
    pub charged: Option<Arc<Outcome>>,
    /// Record with which its last row of `traces` was made.
    pub row_lsn: Option<u64>,
    /// Names that came with its spans and are its own, bytes.
    pub texts: u64,
    /// Its memory as last counted, bytes.
    pub weighed: u64,
    /// Earliest time for which it stands in the queue.
    pub queued: Option<Nanos>,
}

impl Trace {
    pub fn new(now: Nanos, lsn: u64) -> Self {
        Self {
            spans: Spans::default(),
            evals: Vec::new(),
            first_lsn: lsn,
            last_lsn: lsn,
            opened: now,
            touched: now,
            rooted: false,
            admit_at: None,
            admitted: false,
            closed: None,
            mark: None,
            conflict: false,
            link: None,
            charged: None,
            row_lsn: None,
            texts: 0,
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
        let calls = self.spans.iter().filter(|s| s.call.is_some()).count();
        let bytes = size_of::<Self>()
            + OVERHEAD_BYTES
            + self
                .charged
                .as_ref()
                .map_or(0, |_| size_of::<Outcome>() + OVERHEAD_BYTES)
            + self.spans.room()
            + calls * (size_of::<Call>() + 16)
            + self.evals.len() * (size_of::<Eval>() + 32)
            + usize::try_from(self.texts).unwrap_or(usize::MAX);
        let before = std::mem::replace(&mut self.weighed, bytes as u64);
        bytes as i64 - before as i64
    }

    /// Adds a span where its id belongs; `at` is that place.
    pub fn insert(&mut self, at: usize, span: Span) {
        if let Some(subject) = &span.subject {
            let is_shared = |other: &Span| other.subject.as_ref().is_some_and(|known| Arc::ptr_eq(known, subject));
            if !self.spans.iter().any(is_shared) {
                self.texts += (size_of::<Subject>() + 16 + subject.text_bytes()) as u64;
            }
        }
        self.spans.insert(at, span);
    }

    /// Looks at the tree; `None` without spans.
    pub fn view<'b>(&mut self, book: &'b ReleaseBook) -> Option<View<'b>> {
        let mut shape = Shape::of(&self.spans, |span| span.shadow);
        let mut root = shape.root()?;
        let entry = route_of(&self.spans, &shape).and_then(|route| book.in_force(&route, self.spans[root].start));
        if let Some(entry) = entry.filter(|entry| has_shadow_groups(entry)) {
            shape = Shape::of(&self.spans, |span| span.shadow || is_in_shadow_group(span, entry));
            root = shape.root()?;
        }
        self.rooted = is_rooted(&self.spans[root]);
        Some(View {
            twins: Twins::of(&self.spans, &shape),
            start: self.spans[root].start,
            root,
            shape,
            entry,
        })
    }

    /// What its ties to other traces depend on.
    pub fn member(&self, view: &View<'_>) -> (Subject, Member) {
        let root = &self.spans[view.root];
        let speakers = || view.shape.speakers().map(|i| &self.spans[i]);
        let named =
            |pick: fn(&Subject) -> Option<&Arc<str>>| speakers().find_map(|s| pick(s.subject.as_deref()?)).cloned();
        let subject = Subject {
            session: named(|s| s.session.as_ref()),
            request: named(|s| s.request.as_ref()),
            ..Subject::default()
        };
        let member = Member {
            route: self.mark.as_ref().and_then(|(mark, _)| mark.route.clone()),
            start: root.start,
            end: root.end,
            failed: root.error,
            is_fallback: is_fallback(speakers()),
            color: self.mark.as_ref().map_or_else(Default::default, |(mark, _)| mark.color),
        };
        (subject, member)
    }
}

/// What a trace costs beside its own fields: entries in maps and queues, and what the allocator adds; bytes.
const OVERHEAD_BYTES: usize = 160;

/// What the spans of a trace say together.
#[derive(Debug)]
pub(super) struct View<'b> {
    pub shape: Shape,
    pub twins: Twins,
    /// Index of the root.
    pub root: usize,
    /// Start of the root.
    pub start: Nanos,
    /// Release in force at its start.
    pub entry: Option<&'b BookEntry>,
}

impl View<'_> {
    /// When a trace of this start has timed out, and for how long late spans are waited for after that.
    pub fn patience(&self, limits: &Limits) -> (Duration, Duration) {
        self.entry
            .map_or((limits.timeout, limits.grace), |entry| (entry.timeout, entry.grace))
    }
}
