//! The spans of one trace, and how they are packed.
//!
//! Spans are packed once: as long as none is added, the bytes stay beside those that were unpacked from them, and the
//! trace can go to sleep again without writing them anew.

mod codec;

use super::span::{Labels, Span};
use std::{ops::Deref, sync::Arc};

/// Spans, sorted by id.
#[derive(Debug, Clone, Default)]
pub(super) struct Spans {
    list: Vec<Span>,
    /// The same, if they were packed since the last one came.
    packed: Option<PackedSpans>,
}

impl Deref for Spans {
    type Target = [Span];

    fn deref(&self) -> &[Span] {
        &self.list
    }
}

/// Packed spans. Immutable, so captures share them.
#[derive(Debug, Clone)]
pub(super) struct PackedSpans {
    /// Their distinct labels; the bytes hold indices.
    labels: Words,
    bytes: Arc<[u8]>,
}

/// Labels of the spans of one trace: most have one.
#[derive(Debug, Clone)]
enum Words {
    One(Arc<Labels>),
    Many(Arc<[Arc<Labels>]>),
}

impl From<Vec<Arc<Labels>>> for Words {
    fn from(mut labels: Vec<Arc<Labels>>) -> Self {
        match (labels.len(), labels.pop()) {
            (1, Some(only)) => Self::One(only),
            (_, last) => {
                labels.extend(last);
                Self::Many(labels.into())
            }
        }
    }
}

impl Spans {
    /// Adds a span where its id belongs; `at` is that place.
    pub fn insert(&mut self, at: usize, span: Span) {
        // most traces have few spans: doubling from four would cost more than moving them
        if self.list.len() == self.list.capacity() {
            self.list.reserve_exact(self.list.len().clamp(1, 1_024));
        }
        self.packed = None;
        self.list.insert(at, span);
    }

    /// Their memory, without what they point to, bytes.
    pub fn room(&self) -> usize {
        self.list.capacity() * size_of::<Span>() + self.packed.as_ref().map_or(0, PackedSpans::weight)
    }

    /// Packs them, unless they are. `scratch` is written over.
    pub fn pack(&self, scratch: &mut Vec<u8>) -> PackedSpans {
        if let Some(packed) = &self.packed {
            return packed.clone();
        }
        let mut labels: Vec<&Arc<Labels>> = Vec::new();
        let mut indices = Vec::new();
        for (nth, span) in self.list.iter().enumerate() {
            let at = labels.iter().position(|known| Arc::ptr_eq(known, &span.labels));
            if at.is_none() {
                labels.push(&span.labels);
            }
            let at = at.unwrap_or(labels.len() - 1);
            if at > 0 && indices.is_empty() {
                indices.resize(nth, 0);
            }
            if at > 0 || !indices.is_empty() {
                indices.push(at as u32);
            }
        }
        scratch.clear();
        codec::write(&self.list, &indices, scratch);
        PackedSpans::new(labels.into_iter().cloned().collect(), scratch)
    }
}

impl PackedSpans {
    /// Of what [`Self::bytes`] and [`Self::labels`] told.
    pub fn new(labels: Vec<Arc<Labels>>, bytes: &[u8]) -> Self {
        Self {
            labels: labels.into(),
            bytes: bytes.into(),
        }
    }

    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Puts other labels in the place of those that are there.
    pub fn relabel(&mut self, other: impl FnMut(&Arc<Labels>) -> Arc<Labels>) {
        self.labels = self.labels().iter().map(other).collect::<Vec<_>>().into();
    }

    pub fn labels(&self) -> &[Arc<Labels>] {
        match &self.labels {
            Words::One(labels) => std::slice::from_ref(labels),
            Words::Many(labels) => labels,
        }
    }

    /// What they point to, about, bytes.
    pub fn weight(&self) -> usize {
        let labels = match &self.labels {
            Words::One(_) => 0,
            Words::Many(labels) => size_of_val::<[_]>(labels) + OVERHEAD_BYTES,
        };
        self.bytes.len() + OVERHEAD_BYTES + labels
    }

    /// The spans as they were.
    pub fn unpack(&self) -> Option<Spans> {
        Some(Spans {
            list: codec::read(&self.bytes, self.labels())?,
            packed: Some(self.clone()),
        })
    }
}

/// Counts of references, and what the allocator adds; bytes.
const OVERHEAD_BYTES: usize = 24;
