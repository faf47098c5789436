//! The same call recorded by two instrumentation libraries: one call, counted once.
//!
//! Two `call` spans of different scopes, nested or siblings, are records of one call if both name the same response; or,
//! where one of them names none, if one interval lies inside the other and the tokens are equal, unknown equal to
//! unknown. Scope by scope the pairing is one to one. The outer record stays the call, and takes what it lacks from the
//! inner ones. Never across traces: providers repeat ids.

use super::{
    shape::{Shape, Walk},
    span::{Call, Role, Span, Word},
};
use ahash::RandomState;
use hashbrown::HashMap;
use proto::Nanos;
use std::{cmp::Reverse, sync::Arc};
use store::Filling;

/// Calls of one trace among which twins are looked for; the time this takes grows with the square.
pub const TWIN_CALLS_MAX: usize = 512;

/// Which calls repeat which.
#[derive(Debug, Default)]
pub struct Twins {
    /// (record that does not count, record that does), by index, ascending.
    pairs: Vec<(usize, usize)>,
}

impl Twins {
    /// Finds them.
    #[must_use]
    pub fn of(spans: &[Span], shape: &Shape) -> Self {
        let calls: Vec<usize> = (0..spans.len()).filter(|&i| spans[i].role == Role::Call).collect();
        let scope = |i: usize| spans[i].word(Word::Scope);
        let is_alone = calls.windows(2).all(|two| scope(two[0]) == scope(two[1]));
        if is_alone || calls.len() > TWIN_CALLS_MAX {
            return Self::default();
        }
        let walk = shape.walk();
        let mut found: Vec<(Kinship, usize, usize)> = Vec::new();
        for (n, &a) in calls.iter().enumerate() {
            for &b in &calls[n + 1..] {
                let is_of_one_path = shape.shadow(a) == shape.shadow(b) && shape.judged(a) == shape.judged(b);
                if scope(a) != scope(b)
                    && is_of_one_path
                    && let Some((outer, inner)) = outer_first(spans, shape, &walk, a, b)
                    && let Some(kinship) = kinship(&spans[outer], &spans[inner])
                {
                    found.push((kinship, outer, inner));
                }
            }
        }
        let key = |i: usize| (spans[i].start, Reverse(spans[i].end), spans[i].id);
        // of several that fit, the one that ended alike: an answer is not paired with the failed try before it
        found.sort_by_key(|&(kinship, outer, inner)| {
            (
                kinship,
                spans[outer].error != spans[inner].error,
                key(outer),
                key(inner),
            )
        });
        // groups of records of one call, each of a scope of its own; a group of two grows to three where it fits
        let mut group: HashMap<usize, usize, RandomState> = HashMap::default();
        let mut groups: Vec<Vec<usize>> = Vec::new();
        for (_, a, b) in found {
            let [a, b] = [a, b].map(|i| {
                *group.entry(i).or_insert_with(|| {
                    groups.push(vec![i]);
                    groups.len() - 1
                })
            });
            let is_disjoint = || {
                groups[a]
                    .iter()
                    .all(|&i| groups[b].iter().all(|&j| scope(i) != scope(j)))
            };
            if a != b && is_disjoint() {
                let joined = std::mem::take(&mut groups[b]);
                for &i in &joined {
                    group.insert(i, a);
                }
                groups[a].extend(joined);
            }
        }
        let mut pairs: Vec<(usize, usize)> = Vec::new();
        for records in groups.iter().filter(|records| records.len() > 1) {
            let is_topmost = |&&i: &&usize| !records.iter().any(|&other| walk.below(other, i));
            let outermost = records
                .iter()
                .filter(is_topmost)
                .min_by_key(|&&i| longest_first(&spans[i]));
            if let Some(&outer) = outermost {
                pairs.extend(records.iter().filter(|&&i| i != outer).map(|&inner| (inner, outer)));
            }
        }
        pairs.sort_unstable();
        Self { pairs }
    }

    /// True without twins.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pairs.is_empty()
    }

    /// The record that counts instead of this one.
    #[must_use]
    pub fn counted_instead(&self, i: usize) -> Option<usize> {
        let at = self.pairs.binary_search_by_key(&i, |&(repeats, _)| repeats).ok()?;
        Some(self.pairs[at].1)
    }

    /// The records that repeat this one, earliest index first.
    fn repeated_by(&self, i: usize) -> impl Iterator<Item = usize> + '_ {
        self.pairs
            .iter()
            .filter(move |&&(_, counts)| counts == i)
            .map(|&(repeats, _)| repeats)
    }

    /// What a counted record takes from those that repeat it.
    #[must_use]
    pub fn filling(&self, spans: &[Span], i: usize) -> Option<Filling> {
        let mut filling = Filling::default();
        let own = spans[i].call.as_deref()?;
        let (asked, answered) = (spans[i].word(Word::RequestModel), spans[i].word(Word::ResponseModel));
        for inner in self.repeated_by(i) {
            let Some(other) = spans[inner].call.as_deref() else {
                continue;
            };
            let model = spans[inner].word(Word::ResponseModel);
            if (answered.is_none() || answered == asked) && model.is_some() && model != answered {
                filling.response_model = filling.response_model.or_else(|| model.map(Arc::clone));
            }
            let fill = |into: &mut Option<i64>, own: Option<i64>, from: Option<i64>| {
                *into = into.or(from.filter(|_| own.is_none()));
            };
            fill(&mut filling.prompt_tokens, own.prompt, other.prompt);
            fill(&mut filling.completion_tokens, own.completion, other.completion);
            fill(&mut filling.cache_read_tokens, own.cache_read, other.cache_read);
            fill(&mut filling.cache_write_tokens, own.cache_write, other.cache_write);
            fill(&mut filling.reasoning_tokens, own.reasoning, other.reasoning);
            fill(&mut filling.cost_nano, own.cost, other.cost);
            if own.ttft_us.is_none() {
                filling.ttft_ms = filling.ttft_ms.or(other.ttft_us.map(|us| us as f64 / 1_000.0));
            }
        }
        (filling != Filling::default()).then_some(filling)
    }
}

/// How well two records fit; the best first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kinship {
    SameResponse,
    SameUsage,
}

fn contains(outer: &Span, inner: &Span) -> bool {
    outer.start <= inner.start && inner.end <= outer.end
}

fn longest_first(span: &Span) -> (Reverse<i64>, Nanos, u64) {
    (Reverse(span.end.0 - span.start.0), span.start, span.id)
}

/// The two with the outer record first, if they are nested or siblings.
fn outer_first(spans: &[Span], shape: &Shape, walk: &Walk, a: usize, b: usize) -> Option<(usize, usize)> {
    if walk.below(a, b) {
        return Some((a, b));
    }
    if walk.below(b, a) {
        return Some((b, a));
    }
    let are_siblings = spans[a].parent == spans[b].parent && shape.above(a) == shape.above(b);
    are_siblings.then(|| {
        if longest_first(&spans[a]) <= longest_first(&spans[b]) {
            (a, b)
        } else {
            (b, a)
        }
    })
}

fn kinship(outer: &Span, inner: &Span) -> Option<Kinship> {
    let tokens = |call: &Call| (call.prompt, call.completion);
    match (outer.response, inner.response) {
        (Some(a), Some(b)) => (a == b).then_some(Kinship::SameResponse),
        _ => {
            let (a, b) = (outer.call.as_deref()?, inner.call.as_deref()?);
            let inside = contains(outer, inner) || contains(inner, outer);
            (inside && tokens(a) == tokens(b)).then_some(Kinship::SameUsage)
        }
    }
}
