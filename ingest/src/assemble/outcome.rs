//! What a trace came to: the numbers of its `traces` row and of its cells, as one value.
//!
//! A pure function of the trace's spans, evaluations and mark. What cells hold of a trace is always exactly one
//! outcome, kept until it is taken back, so a change is "minus the old, plus the new" and nothing can drift.

use super::{
    resolve::own_color,
    shape::{Shape, is_rooted},
    span::{Eval, Role, Span, Subject, Tri},
};
use proto::{Color, Nanos, release::BookEntry};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::Mark;

/// One call, charged to the color that was attempted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its own color, else the trace's.
    pub color: Color,
    /// Status ERROR.
    pub error: bool,
    /// Refused by a rate limit.
    pub rate_limited: bool,
    /// Time to first token, us.
    pub ttft_us: Option<u64>,
}

/// Numbers of one trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Start of the root.
    pub start: Nanos,
    /// Start of the cells' minute that holds it, unix seconds.
    pub minute: i64,
    /// Duration, us.
    pub duration_us: u64,
    /// Whose it is.
    pub mark: Arc<Mark>,
    /// Route under which it is counted.
    pub route: Arc<str>,
    /// Cohort under which it is counted.
    pub cohort: Option<Arc<str>>,
    /// Stamped color and declared version contradict each other.
    pub conflict: bool,
    /// False for traces that no user saw (all of it mirrored): a row, but no cells.
    pub visible: bool,
    /// Color of the call that gave the answer.
    pub served: Color,
    /// Session, user, mirror key.
    pub subject: Subject,
    /// Calls of the user's own path, earliest first.
    pub attempts: Vec<Attempt>,
    /// Root ended in ERROR.
    pub error: bool,
    /// Timed out.
    pub timed_out: bool,
    /// Retries, if known.
    pub retries: Option<i32>,
    /// Fell back, if known.
    pub fallback: Tri,
    /// Served from the cache, if known.
    pub cache_hit: Tri,
    /// Sum of the known prompt tokens.
    pub prompt: Option<i64>,
    /// Sum of the known completion tokens.
    pub completion: Option<i64>,
    /// Sum of the known costs, nano-USD.
    pub cost: Option<i64>,
    /// No call's cost is unknown.
    pub priced: bool,
    /// Cost of mirrored calls, nano-USD.
    pub shadow_cost: Option<i64>,
    /// Evaluations.
    pub evals: u32,
    /// Evaluations that failed.
    pub evals_failed: u32,
    /// Per evaluator with a known verdict: whether any failed.
    pub verdicts: BTreeMap<Arc<str>, bool>,
}

/// Everything an outcome is computed from.
pub(super) struct Trial<'a> {
    pub spans: &'a [Span],
    pub evals: &'a [Eval],
    pub shape: &'a Shape,
    pub mark: &'a Arc<Mark>,
    /// Route and cohort under which it is counted.
    pub counted_as: (Arc<str>, Option<Arc<str>>),
    pub minute: i64,
    pub conflict: bool,
    pub entry: Option<&'a BookEntry>,
    /// A trace at least this old has timed out.
    pub timeout: Duration,
    /// Age at which a trace whose root has not ended is counted as it stands.
    pub running_for: Option<Duration>,
}

fn add(sum: &mut Option<i64>, value: Option<i64>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0).saturating_add(value));
    }
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

impl Trial<'_> {
    /// `None` for a trace that is a judge's own: it makes no row and no cells.
    pub fn outcome(&self) -> Option<Outcome> {
        let root_at = self.shape.root()?;
        if self.shape.judged(root_at) {
            return None;
        }
        let (spans, root) = (self.spans, &self.spans[root_at]);
        let color = self.mark.color;
        let counted: Vec<&Span> = self.counted_calls().collect();
        let any = |pick: fn(&Span) -> Tri| {
            let mut said = pick(root);
            for i in self.shape.speakers().take_while(|_| pick(root) == Tri::Unknown) {
                match pick(&spans[i]) {
                    Tri::Yes => said = Tri::Yes,
                    Tri::No if said == Tri::Unknown => said = Tri::No,
                    _ => {}
                }
            }
            said
        };
        let named = |pick: fn(&Subject) -> Option<&Arc<str>>| {
            self.shape
                .speakers()
                .find_map(|i| pick(spans[i].subject.as_deref()?))
                .cloned()
        };

        let mut out = Outcome {
            start: root.start,
            minute: self.minute,
            duration_us: micros(self.duration(root)),
            mark: Arc::clone(self.mark),
            route: Arc::clone(&self.counted_as.0),
            cohort: self.counted_as.1.clone(),
            conflict: self.conflict,
            visible: !self.shape.shadow(root_at),
            served: self.served(&counted),
            subject: Subject {
                session: named(|s| s.session.as_ref()),
                user: named(|s| s.user.as_ref()),
                mirror_key: named(|s| s.mirror_key.as_ref()),
            },
            attempts: Vec::with_capacity(counted.len()),
            error: root.error,
            timed_out: root.timed_out || (root.error && counted.iter().any(|s| s.timed_out)),
            retries: root.retries.or_else(|| {
                self.shape
                    .speakers()
                    .filter_map(|i| spans[i].retries)
                    .reduce(i32::saturating_add)
            }),
            fallback: any(|s| s.fallback),
            cache_hit: any(|s| s.cache_hit),
            prompt: None,
            completion: None,
            cost: None,
            priced: true,
            shadow_cost: None,
            evals: u32::try_from(self.evals.len()).unwrap_or(u32::MAX),
            evals_failed: 0,
            verdicts: BTreeMap::new(),
        };
        out.timed_out |= out.duration_us >= micros(self.timeout);
        for call in counted {
            add(&mut out.prompt, call.prompt);
            add(&mut out.completion, call.completion);
            add(&mut out.cost, call.cost);
            out.priced &= call.cost.is_some();
            out.attempts.push(Attempt {
                color: own_color(call, self.entry).map_or(color, |(own, _)| own),
                error: call.error,
                rate_limited: call.rate_limited,
                ttft_us: call.ttft_us,
            });
        }
        for i in (0..spans.len()).filter(|&i| spans[i].role == Role::Call && self.shape.shadow(i)) {
            add(&mut out.shadow_cost, spans[i].cost);
        }
        for eval in self.evals {
            if let Some(passed) = eval.passed {
                *out.verdicts.entry(Arc::clone(&eval.name)).or_insert(false) |= !passed;
                out.evals_failed += u32::from(!passed);
            }
        }
        Some(out)
    }

    /// Calls that count for the user, earliest first. Calls of judges and mirrors don't; a call that was instrumented
    /// twice will be paired here.
    fn counted_calls(&self) -> impl Iterator<Item = &Span> {
        let mut calls: Vec<&Span> = (0..self.spans.len())
            .filter(|&i| self.spans[i].role == Role::Call && !self.shape.judged(i) && !self.shape.shadow(i))
            .map(|i| &self.spans[i])
            .collect();
        calls.sort_by_key(|s| (s.start, s.end, s.id));
        calls.into_iter()
    }

    /// The root's own; without a true root, from the topmost span's start to the last end; while it still runs, the
    /// age at which it is counted.
    fn duration(&self, root: &Span) -> Duration {
        if is_rooted(root) {
            return root.end.since(root.start);
        }
        let last = self
            .shape
            .speakers()
            .map(|i| self.spans[i].end)
            .max()
            .unwrap_or(root.end);
        let seen = last.since(root.start);
        self.running_for.map_or(seen, |age| seen.max(age))
    }

    fn served(&self, calls: &[&Span]) -> Color {
        let answer = calls.iter().filter(|s| !s.error).max_by_key(|s| (s.end, s.id));
        answer
            .and_then(|s| own_color(s, self.entry))
            .map_or(self.mark.color, |(own, _)| own)
    }
}
