//! A map for snapshots: writers add whole layers, readers hold an immutable value, lookups see the newest layer first.
//!
//! Layers double in size like the digits of a binary counter, so a lookup visits O(log n) of them and an entry is
//! copied O(log n) times over its life.

use hashbrown::HashMap;
use std::{hash::Hash, sync::Arc};

type Layer<K, V> = Arc<HashMap<K, V, ahash::RandomState>>;

/// Immutable layered map; cloning copies a few pointers.
#[derive(Debug, Clone)]
pub struct Layers<K, V> {
    /// Oldest and largest first.
    layers: Vec<Layer<K, V>>,
}

impl<K, V> Default for Layers<K, V> {
    fn default() -> Self {
        Self { layers: Vec::new() }
    }
}

impl<K: Hash + Eq + Clone, V: Clone> Layers<K, V> {
    /// Newest value of `key`.
    #[must_use]
    pub fn get(&self, key: &K) -> Option<&V> {
        self.layers.iter().rev().find_map(|layer| layer.get(key))
    }

    /// Adds entries on top; where a key was there before, the new value counts.
    pub fn push(&mut self, entries: impl IntoIterator<Item = (K, V)>) {
        let mut top: HashMap<K, V, ahash::RandomState> = entries.into_iter().collect();
        if top.is_empty() {
            return;
        }
        while self.layers.last().is_some_and(|below| below.len() <= 2 * top.len()) {
            let Some(below) = self.layers.pop() else {
                break;
            };
            let mut merged = Arc::try_unwrap(below).unwrap_or_else(|shared| (*shared).clone());
            merged.extend(top);
            top = merged;
        }
        self.layers.push(Arc::new(top));
    }

    /// Every key once, with its newest value, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (&K, &V)> {
        self.layers.iter().enumerate().rev().flat_map(move |(i, layer)| {
            layer
                .iter()
                .filter(move |(key, _)| !self.layers[i + 1..].iter().any(|newer| newer.contains_key(*key)))
        })
    }

    /// A fresh map of the entries that `keep` accepts.
    #[must_use]
    pub fn retained(&self, mut keep: impl FnMut(&K, &V) -> bool) -> Self {
        let mut kept = Self::default();
        kept.push(
            self.iter()
                .filter(|(k, v)| keep(k, v))
                .map(|(k, v)| (k.clone(), v.clone())),
        );
        kept
    }

    /// True if there is no entry.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.layers.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::collections::BTreeMap;

    proptest! {
        #[test]
        fn equals_a_plain_map(pushes in prop::collection::vec(prop::collection::vec((0u16..300, 0u32..9), 0..40), 0..40)) {
            let (mut ours, mut plain) = (Layers::default(), BTreeMap::new());
            for push in pushes {
                plain.extend(push.iter().copied());
                ours.push(push);
                prop_assert!(ours.layers.len() <= 12);
            }
            let seen: Vec<(u16, u32)> = ours.iter().map(|(&k, &v)| (k, v)).collect();
            prop_assert_eq!(seen.len(), plain.len(), "every key once");
            prop_assert_eq!(seen.into_iter().collect::<BTreeMap<_, _>>(), plain.clone());
            prop_assert!((0..300).all(|k| ours.get(&k) == plain.get(&k)));
            prop_assert_eq!(ours.retained(|k, _| k % 2 == 0).iter().count(), plain.keys().filter(|k| *k % 2 == 0).count());
        }
    }
}
