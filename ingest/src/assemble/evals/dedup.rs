//! The same evaluation sent again: equal in target, name, source, identifier, score, label and verdict, and made within
//! ten minutes.
//!
//! "Within" reaches from one to the next: what is sent again every nine minutes is one evaluation. So an evaluation is
//! kept with the first and the last time it was made, and whatever order they come in, the same ones are one.

use super::super::span::Eval;
use proto::Nanos;

/// Farther apart, equal evaluations are two.
const WITHIN_NANOS: u64 = 600 * 1_000_000_000;

/// What became of an evaluation of a trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::assemble) enum Put {
    Added,
    Repeats,
    Full,
}

fn near(a: (Nanos, Nanos), b: (Nanos, Nanos)) -> bool {
    let apart = |first: Nanos, then: Nanos| first.0 <= then.0 && first.0.abs_diff(then.0) > WITHIN_NANOS;
    !apart(a.1, b.0) && !apart(b.1, a.0)
}

impl Eval {
    /// Whether this is the same evaluation sent again.
    #[must_use]
    pub fn repeats(&self, other: &Self) -> bool {
        self.is_like(other) && near((self.time, self.last), (other.time, other.last))
    }

    fn is_like(&self, other: &Self) -> bool {
        self.told == other.told && self.span == other.span && self.name == other.name
    }

    /// This one, made at the other's times too.
    pub(in crate::assemble) fn widened(&self, other: &Self) -> Self {
        Self {
            time: self.time.min(other.time),
            last: self.last.max(other.last),
            ..self.clone()
        }
    }

    /// Adds an evaluation that is settled to those of its trace.
    pub(in crate::assemble) fn put(evals: &mut Vec<Self>, eval: &Self, evals_max: usize) -> Put {
        let mut whole = Self {
            origin: 0,
            ..eval.clone()
        };
        let before = evals.len();
        evals.retain(|known| {
            let repeats = known.origin == 0 && known.repeats(&whole);
            if repeats {
                whole = whole.widened(known);
            }
            !repeats
        });
        let put = match evals.len() {
            now if now < before => Put::Repeats,
            now if now >= evals_max => return Put::Full,
            _ => Put::Added,
        };
        evals.push(whole);
        put
    }

    /// The evaluation with this number is settled. True if it repeats one that was before.
    pub(in crate::assemble) fn settle(evals: &mut Vec<Self>, number: u64) -> bool {
        let Some(at) = evals.iter().position(|eval| eval.origin == number) else {
            return false;
        };
        let eval = evals.swap_remove(at);
        Self::put(evals, &eval, usize::MAX) == Put::Repeats
    }

    /// Evaluations of one trace, each once.
    pub(in crate::assemble) fn distinct(evals: &[Self]) -> Vec<&Self> {
        let mut all: Vec<&Self> = evals.iter().collect();
        all.sort_unstable_by_key(|eval| (eval.told, eval.span, &eval.name, eval.time, eval.last));
        let mut last: Option<(&Self, Nanos)> = None;
        all.retain(|eval| match &mut last {
            Some((first, until)) if first.is_like(eval) && near((first.time, *until), (eval.time, eval.last)) => {
                *until = (*until).max(eval.last);
                false
            }
            _ => {
                last = Some((eval, eval.last));
                true
            }
        });
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn eval(told: u64, minute: i64, origin: u64) -> Eval {
        let time = Nanos::from_secs(minute * 60);
        Eval {
            span: None,
            time,
            last: time,
            name: "a".into(),
            passed: None,
            told,
            origin,
        }
    }

    #[test]
    fn ten_minutes_reach_from_one_to_the_next() {
        let mut evals = Vec::new();
        for minute in [0, 18, 9] {
            Eval::put(&mut evals, &eval(1, minute, 0), 10);
        }
        assert_eq!(evals.len(), 1, "nine minutes bridge the rest");
        assert_eq!(Eval::put(&mut evals, &eval(1, 28, 0), 10), Put::Repeats);
        assert_eq!(Eval::put(&mut evals, &eval(1, 39, 0), 10), Put::Added);
        assert_eq!(Eval::put(&mut evals, &eval(1, 90, 0), 2), Put::Full);
        assert_eq!(Eval::put(&mut evals, &eval(2, 39, 0), 10), Put::Added);
    }

    proptest! {
        #[test]
        fn what_is_distinct_depends_on_no_order(
            mut sent in prop::collection::vec((0u64..3, 0i64..120, 0u64..2), 0..30),
            seed in any::<u64>(),
        ) {
            let count = |sent: &[(u64, i64, u64)]| {
                let mut evals = Vec::new();
                for &(told, minute, origin) in sent {
                    let one = eval(told, minute, origin);
                    if origin == 0 {
                        Eval::put(&mut evals, &one, usize::MAX);
                    } else {
                        evals.push(one);
                    }
                }
                Eval::distinct(&evals).len()
            };
            let expected = {
                let mut sorted: Vec<_> = sent.iter().map(|s| (s.0, s.1)).collect();
                sorted.sort_unstable();
                let mut count = 0;
                for (i, now) in sorted.iter().enumerate() {
                    let before = i.checked_sub(1).map(|i| sorted[i]);
                    count += usize::from(before.is_none_or(|b| b.0 != now.0 || now.1 - b.1 > 10));
                }
                count
            };
            prop_assert_eq!(count(&sent), expected);
            use rand::{SeedableRng, seq::SliceRandom};
            sent.shuffle(&mut rand_chacha::ChaCha8Rng::seed_from_u64(seed));
            prop_assert_eq!(count(&sent), expected);
        }
    }
}
