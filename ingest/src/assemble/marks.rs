//! Marks already met, so that the traces of one path share one value in memory.

use ahash::RandomState;
use hashbrown::HashSet;
use std::{
    hash::{Hash, Hasher},
    sync::Arc,
};
use store::Mark;

/// Distinct marks that are shared; beyond, the pool starts anew (traces keep what they hold).
const MARKS_MAX: usize = 16_384;

/// Shared marks of traces whose spans are all alike.
#[derive(Debug, Default)]
pub(super) struct MarkPool {
    pool: HashSet<Pooled, RandomState>,
}

#[derive(Debug, PartialEq)]
struct Pooled(Arc<Mark>);

/// Marks that are pooled hold no numbers that are unequal to themselves: those of single spans are left out.
impl Eq for Pooled {}

impl Hash for Pooled {
    fn hash<H: Hasher>(&self, state: &mut H) {
        let mark = &self.0;
        (
            &mark.route,
            mark.color,
            &mark.version,
            &mark.release,
            &mark.cohort,
            mark.split_ppm,
        )
            .hash(state);
    }
}

impl MarkPool {
    /// The shared value equal to `mark`.
    pub fn share(&mut self, mark: Mark) -> Arc<Mark> {
        let mark = Pooled(Arc::new(mark));
        if mark.0.spans.is_some() {
            return mark.0;
        }
        if let Some(known) = self.pool.get(&mark) {
            return Arc::clone(&known.0);
        }
        if self.pool.len() >= MARKS_MAX {
            self.pool.clear();
        }
        let shared = Arc::clone(&mark.0);
        self.pool.insert(mark);
        shared
    }
}
