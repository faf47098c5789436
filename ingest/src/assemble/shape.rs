//! The tree of a trace: who stands above whom, which span is the root, what belongs to a judge or to a mirror.
//!
//! Everything here is a function of the *set* of spans, so the order in which they arrived cannot matter.

use super::span::{Role, Span};
use std::cmp::Reverse;

/// The tree of spans that are sorted by id.
#[derive(Debug)]
pub struct Shape {
    /// Indices of spans, topmost first; among equals the one that names no parent, then the earlier start, the later
    /// end, the smaller id. Spans of the user's own path come before those of judges and mirrors.
    pub order: Vec<u32>,
    /// How many at the front of `order` are the user's own path.
    pub own: usize,
    above: Vec<u32>,
    judged: Vec<bool>,
    shadow: Vec<bool>,
}

const UNSEEN: u32 = u32::MAX;
const WALKING: u32 = u32::MAX - 1;
/// Stands for the index of a parent that was not seen.
const NOBODY: u32 = u32::MAX;

impl Shape {
    /// Reads the tree. `spans` must be sorted by id; `is_shadow` says of a span whether it is a mirrored one.
    #[must_use]
    pub fn of(spans: &[Span], is_shadow: impl Fn(&Span) -> bool) -> Self {
        let mut depth = vec![UNSEEN; spans.len()];
        let mut judged: Vec<bool> = spans.iter().map(|s| s.role == Role::Evaluator).collect();
        let mut shadow: Vec<bool> = spans.iter().map(is_shadow).collect();
        let mut parents = vec![NOBODY; spans.len()];
        let above = |i: usize| {
            let parent = spans[i].parent?.get();
            spans.binary_search_by_key(&parent, |s| s.id).ok().filter(|&up| up != i)
        };
        let mut path = Vec::new();
        for i in 0..spans.len() {
            let mut at = Some(i);
            while let Some(here) = at.filter(|&here| depth[here] == UNSEEN) {
                depth[here] = WALKING;
                path.push(here);
                at = above(here);
            }
            // parents in a circle: the walk came back to itself, and its last span counts as topmost
            let mut parent = at.filter(|&up| depth[up] != WALKING);
            while let Some(here) = path.pop() {
                depth[here] = 0;
                if let Some(up) = parent {
                    depth[here] = depth[up].saturating_add(1);
                    parents[here] = up as u32;
                    judged[here] |= judged[up];
                    shadow[here] |= shadow[up];
                }
                parent = Some(here);
            }
        }
        let mut order: Vec<u32> = (0..spans.len() as u32).collect();
        order.sort_by_key(|&i| {
            let i = i as usize;
            let span = &spans[i];
            (
                judged[i] || shadow[i],
                depth[i],
                span.parent.is_some(),
                span.start,
                Reverse(span.end),
                span.id,
            )
        });
        let own = order
            .iter()
            .filter(|&&i| !judged[i as usize] && !shadow[i as usize])
            .count();
        Self {
            order,
            own,
            above: parents,
            judged,
            shadow,
        }
    }

    /// Index of the root: the topmost span seen.
    #[must_use]
    pub fn root(&self) -> Option<usize> {
        self.order.first().map(|&i| i as usize)
    }

    /// Index of the span right above another.
    #[must_use]
    pub fn above(&self, i: usize) -> Option<usize> {
        self.above.get(i).filter(|&&up| up != NOBODY).map(|&up| up as usize)
    }

    /// For every span what it or the nearest span above it says.
    pub fn heard_above<T: Clone>(&self, says: impl Fn(usize) -> Option<T>) -> Vec<Option<T>> {
        let mut said: Vec<Option<T>> = vec![None; self.above.len()];
        for &i in &self.order {
            let i = i as usize;
            said[i] = says(i).or_else(|| said[self.above(i)?].clone());
        }
        said
    }

    /// For every span what it or one below it says; among those below, the topmost and earliest counts.
    pub fn heard_below<T: Clone>(&self, says: impl Fn(usize) -> Option<T>) -> Vec<Option<T>> {
        let mut said: Vec<Option<T>> = (0..self.above.len()).map(&says).collect();
        let mut heard: Vec<Option<T>> = vec![None; self.above.len()];
        for &i in self.order.iter().rev() {
            let i = i as usize;
            said[i] = said[i].take().or_else(|| heard[i].take());
            if let (Some(up), Some(value)) = (self.above(i), &said[i]) {
                heard[up] = Some(value.clone());
            }
        }
        said
    }

    /// Position of every span in a walk that visits parents first: `below(a, b)` is then a comparison of numbers.
    #[must_use]
    pub fn walk(&self) -> Walk {
        let n = self.above.len();
        let mut size = vec![1u32; n];
        for &i in self.order.iter().rev() {
            if let Some(up) = self.above(i as usize) {
                size[up] += size[i as usize];
            }
        }
        let (mut enter, mut next, mut roots) = (vec![0; n], vec![0; n], 0);
        for &i in &self.order {
            let i = i as usize;
            let from = match self.above(i) {
                Some(up) => &mut next[up],
                None => &mut roots,
            };
            enter[i] = *from;
            *from += size[i];
            next[i] = enter[i] + 1;
        }
        Walk { enter, size }
    }

    /// Whether a span lies at or below a judge.
    #[must_use]
    pub fn judged(&self, i: usize) -> bool {
        self.judged[i]
    }

    /// Whether a span lies at or below a mirrored one.
    #[must_use]
    pub fn shadow(&self, i: usize) -> bool {
        self.shadow[i]
    }

    /// Indices of the spans that speak for the trace, topmost first: the user's own path, or all where there is none.
    pub fn speakers(&self) -> impl Iterator<Item = usize> + '_ {
        let count = if self.own == 0 { self.order.len() } else { self.own };
        self.order[..count].iter().map(|&i| i as usize)
    }
}

/// Where spans stand in a walk of the tree.
#[derive(Debug)]
pub struct Walk {
    enter: Vec<u32>,
    size: Vec<u32>,
}

impl Walk {
    /// Whether span `b` lies below span `a`.
    #[must_use]
    pub fn below(&self, a: usize, b: usize) -> bool {
        self.enter[b] > self.enter[a] && self.enter[b] < self.enter[a] + self.size[a]
    }
}

/// Whether the root is a true one: it names no parent, or it is where a request entered this process.
#[must_use]
pub fn is_rooted(root: &Span) -> bool {
    root.parent.is_none() || root.entry
}
