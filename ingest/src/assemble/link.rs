//! A failed try and its fallback that a client recorded as two root traces: one request of one user.
//!
//! They are tied where they are of one route, the later one starts after the failure, and something in common allows it:
//! the same request id, within [`REQUEST_WITHIN`]; or the same session, within [`SESSION_WITHIN`], if the later one says
//! that it is a fallback. The failed one is then superseded: no user
//! saw its error, so it counts at attempt grain only, and the later one counts under the color that was tried first.
//! A fallback that cannot be tied says so: `linked_by` reads `none`.

use super::span::{Span, Subject, Tri, Word};
use ahash::RandomState;
use hashbrown::HashMap;
use proto::{Color, Nanos};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};
use store::TraceId;

/// How long after a failure a trace of the same request may start and still be its next try.
pub const REQUEST_WITHIN: Duration = Duration::from_secs(600);
/// How long after a failure a trace of the same session may start and still be its fallback.
pub const SESSION_WITHIN: Duration = Duration::from_secs(60);
/// Traces of one request id or session that are compared; of more, none are tied.
const MEMBERS_MAX: usize = 32;

/// What ties two traces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum LinkedBy {
    /// The same request id.
    RequestId,
    /// The same session.
    SessionId,
}

impl LinkedBy {
    /// The word of column `linked_by`.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::RequestId => "request_id",
            Self::SessionId => "session_id",
        }
    }

    /// Reads the column's word.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        [Self::RequestId, Self::SessionId]
            .into_iter()
            .find(|by| by.as_str() == word)
    }
}

/// One end of a tie.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Link {
    /// The trace at the other end: the fallback of a superseded trace, else the failed try.
    pub other: TraceId,
    /// What ties them.
    pub by: LinkedBy,
    /// This is the failed try.
    pub superseded: bool,
    /// Color of the first try: what the request was assigned to.
    pub assigned: Color,
}

/// What the ties of a trace depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Member {
    /// Its route: a fallback is on the route of the failed try.
    pub route: Option<Arc<str>>,
    /// Start of its root.
    pub start: Nanos,
    /// End of its root.
    pub end: Nanos,
    /// Its root ended in ERROR.
    pub failed: bool,
    /// It says that it is a fallback.
    pub is_fallback: bool,
    /// Color of its mark.
    pub color: Color,
}

type Key = (LinkedBy, Arc<str>);

/// Traces of one key, by start; none at all once there were more than [`MEMBERS_MAX`]: such a key tells nothing.
#[derive(Debug, Default)]
struct Group {
    traces: Vec<(TraceId, Member)>,
    /// How many there are, once they are too many.
    crowd: usize,
}

/// Traces that may belong together, by what they have in common.
#[derive(Debug, Default)]
pub struct Links {
    members: HashMap<Key, Group, RandomState>,
    keys: HashMap<TraceId, Vec<Key>, RandomState>,
}

/// Whether spans say that their trace is a fallback.
#[must_use]
pub fn is_fallback<'a>(spans: impl Iterator<Item = &'a Span>) -> bool {
    let mut spans = spans;
    spans.any(|span| span.fallback == Tri::Yes || span.word(Word::FallbackReason).is_some())
}

impl Links {
    /// Takes note of what a trace has become; returns the traces whose ties may have changed.
    pub fn note(&mut self, id: TraceId, subject: &Subject, member: &Member) -> Vec<TraceId> {
        let keys = keys_of(subject, member);
        if keys.is_empty() && !self.keys.contains_key(&id) {
            return Vec::new();
        }
        let mut touched = self.forget(id);
        touched.push(id);
        for key in &keys {
            let group = self.members.entry(key.clone()).or_default();
            touched.extend(group.traces.iter().map(|(other, _)| *other));
            if group.traces.len() == MEMBERS_MAX {
                *group = Group {
                    traces: Vec::new(),
                    crowd: MEMBERS_MAX,
                };
            }
            if group.crowd > 0 {
                group.crowd += 1;
            } else {
                let at = group
                    .traces
                    .partition_point(|(other, known)| (known.start, other) < (member.start, &id));
                group.traces.insert(at, (id, member.clone()));
            }
        }
        if !keys.is_empty() {
            self.keys.insert(id, keys);
        }
        touched.sort_unstable();
        touched.dedup();
        touched
    }

    /// Forgets a trace; returns the others that it had something in common with.
    pub fn forget(&mut self, id: TraceId) -> Vec<TraceId> {
        let mut touched = Vec::new();
        for key in self.keys.remove(&id).unwrap_or_default() {
            let Some(group) = self.members.get_mut(&key) else {
                continue;
            };
            group.crowd = group.crowd.saturating_sub(1);
            group.traces.retain(|(other, _)| *other != id);
            touched.extend(group.traces.iter().map(|(other, _)| *other));
            if group.traces.is_empty() && group.crowd == 0 {
                self.members.remove(&key);
            }
        }
        touched
    }

    /// The tie of a trace, as far as the traces noted now tell. A trace that is both a fallback and superseded (the
    /// second of three tries) names the one after it, and counts under the color of the first.
    #[must_use]
    pub fn link(&self, id: TraceId) -> Option<Link> {
        let keys = self.keys.get(&id)?;
        keys.iter().find_map(|key| {
            let members = &self.members.get(key)?.traces;
            let at = members.iter().position(|(other, _)| *other == id)?;
            let by = key.0;
            // chains of tries: each failure is followed by the try after it
            let mut first = at;
            while first > 0 && follows(by, &members[first - 1].1, &members[first].1) {
                first -= 1;
            }
            let next = members
                .get(at + 1)
                .filter(|(_, next)| follows(by, &members[at].1, next));
            let other = match next {
                Some((next, _)) => *next,
                None if first < at => members[at - 1].0,
                None => return None,
            };
            Some(Link {
                other,
                by,
                superseded: next.is_some(),
                assigned: Some(members[first].1.color)
                    .filter(|color| color.is_marked())
                    .unwrap_or(members[at].1.color),
            })
        })
    }
}

/// What a trace has in common with others. Most have nothing, and cost nothing.
fn keys_of(subject: &Subject, member: &Member) -> Vec<Key> {
    let by_request = subject.request.iter().map(|id| (LinkedBy::RequestId, Arc::clone(id)));
    // only a failure and a fallback can be tied by their session alone
    let sessions = subject.session.iter().filter(|_| member.failed || member.is_fallback);
    let by_session = sessions.map(|id| (LinkedBy::SessionId, Arc::clone(id)));
    by_request.chain(by_session).collect()
}

/// Whether `next` is the try after the failure of `before`.
fn follows(by: LinkedBy, before: &Member, next: &Member) -> bool {
    let within = match by {
        LinkedBy::RequestId => REQUEST_WITHIN,
        LinkedBy::SessionId => SESSION_WITHIN,
    };
    before.failed
        && before.route == next.route
        && before.end <= next.start
        && next.start <= before.end.plus(within)
        && (by == LinkedBy::RequestId || next.is_fallback)
}
