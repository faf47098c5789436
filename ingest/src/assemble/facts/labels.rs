//! Labels of spans, each set of them once.

use super::{SERVICE_VERSION, SpanFacts, code, map_value, ppm, value_at, word};
use crate::{
    assemble::span::{Labels, Word},
    read::FLAG_ATTRIBUTE,
};
use ahash::RandomState;
use arrow::array::Array;
use hashbrown::{HashMap, HashSet};
use proto::Color;
use std::sync::Arc;

/// What the labels of two rows of one batch are compared by.
#[derive(PartialEq, Eq, Hash)]
struct Seen<'a> {
    codes: [i32; Word::COLUMNS.len()],
    split: u64,
    sampling: u64,
    service_version: Option<&'a str>,
    flag: Option<&'a str>,
    asked: Vec<Option<&'a str>>,
}

/// Labels already met, so that the spans of a service share one value in memory.
#[derive(Debug, Default)]
pub struct LabelPool {
    pool: HashSet<Arc<Labels>, RandomState>,
}

/// Distinct label sets that are shared; beyond, the pool starts anew (spans keep what they hold).
const LABEL_SETS_MAX: usize = 16_384;

/// Labels that were read, and the shared value of each: found by where they stand in memory, where they are kept for that.
#[derive(Debug, Default)]
pub struct Relabeled(HashMap<*const Labels, [Arc<Labels>; 2], RandomState>);

impl Relabeled {
    /// The value in `pool` that equals `labels`.
    pub fn find(&mut self, labels: &Arc<Labels>, pool: &mut LabelPool) -> Arc<Labels> {
        let at = Arc::as_ptr(labels);
        let known = self.0.entry(at).or_insert_with(|| {
            let shared = pool.share((**labels).clone());
            [Arc::clone(labels), shared]
        });
        Arc::clone(&known[1])
    }
}

impl LabelPool {
    /// The shared value equal to `labels`.
    pub fn share(&mut self, labels: Labels) -> Arc<Labels> {
        if let Some(known) = self.pool.get(&labels) {
            return Arc::clone(known);
        }
        if self.pool.len() >= LABEL_SETS_MAX {
            self.pool.clear();
        }
        let labels = Arc::new(labels);
        self.pool.insert(Arc::clone(&labels));
        labels
    }

    /// Labels of every row, in row order. `asked` are the attributes that any release asks for.
    pub fn of_rows(&mut self, facts: &SpanFacts<'_>, asked: &[Arc<str>]) -> Vec<Arc<Labels>> {
        let mut memo: HashMap<Seen<'_>, Arc<Labels>, RandomState> = HashMap::default();
        let bits = |share: Option<f64>| share.map_or(u64::MAX, f64::to_bits);
        (0..facts.rows)
            .map(|row| {
                let (split, sampling) = (value_at!(facts.split, row), value_at!(facts.sampling, row));
                // a variant is always one of a declared flag, whose key stands in an attribute
                let is_flagged = word(&facts.words[Word::Variant as usize], row).is_some();
                let seen = Seen {
                    flag: is_flagged
                        .then(|| map_value(facts.attributes, row, FLAG_ATTRIBUTE))
                        .flatten(),
                    codes: std::array::from_fn(|i| code(&facts.words[i], row)),
                    split: bits(split),
                    sampling: bits(sampling),
                    service_version: map_value(facts.resource, row, SERVICE_VERSION),
                    asked: asked.iter().map(|key| facts.attribute(row, key)).collect(),
                };
                if let Some(known) = memo.get(&seen) {
                    return Arc::clone(known);
                }
                let text = |i: usize| word(&facts.words[i], row).map(Arc::<str>::from);
                let labels = self.share(Labels {
                    words: std::array::from_fn(text),
                    color: word(&facts.words[Word::Color as usize], row).and_then(Color::parse),
                    service_version: seen.service_version.map(Arc::from),
                    flag: seen.flag.map(Arc::from),
                    split_ppm: split.and_then(ppm),
                    sampling_ppm: sampling.and_then(ppm),
                    attributes: std::iter::zip(asked, &seen.asked)
                        .filter_map(|(key, value)| value.map(|value| (Arc::clone(key), Arc::from(value))))
                        .collect(),
                });
                memo.insert(seen, Arc::clone(&labels));
                labels
            })
            .collect()
    }
}
