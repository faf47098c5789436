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
    judged: Vec<bool>,
    shadow: Vec<bool>,
}

const UNSEEN: u32 = u32::MAX;

impl Shape {
    /// Reads the tree. `spans` must be sorted by id.
    #[must_use]
    pub fn of(spans: &[Span]) -> Self {
        let mut depth = vec![UNSEEN; spans.len()];
        let mut judged: Vec<bool> = spans.iter().map(|s| s.role == Role::Evaluator).collect();
        let mut shadow: Vec<bool> = spans.iter().map(|s| s.shadow).collect();
        let above = |i: usize| {
            let parent = spans[i].parent.filter(|&p| p != spans[i].id)?;
            spans.binary_search_by_key(&parent, |s| s.id).ok()
        };
        let mut path = Vec::new();
        for i in 0..spans.len() {
            let mut at = Some(i);
            while let Some(here) = at.filter(|&here| depth[here] == UNSEEN) {
                depth[here] = 0; // also ends a walk around a cycle of parents
                path.push(here);
                at = above(here);
            }
            let mut parent = at;
            while let Some(here) = path.pop() {
                if let Some(up) = parent {
                    depth[here] = depth[up].saturating_add(1);
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
            judged,
            shadow,
        }
    }

    /// Index of the root: the topmost span seen.
    #[must_use]
    pub fn root(&self) -> Option<usize> {
        self.order.first().map(|&i| i as usize)
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

/// Whether the root is a true one: it names no parent, or it is where a request entered this process.
#[must_use]
pub fn is_rooted(root: &Span) -> bool {
    root.parent.is_none() || root.entry
}
