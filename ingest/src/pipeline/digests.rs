//! Which requests came before: XXH3-128 of every request of the last day, so that a client's retry counts once.

use ahash::RandomState;
use hashbrown::HashMap;
use proto::Nanos;
use std::{collections::VecDeque, time::Duration};

/// What is known about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Known {
    /// Group that holds it, counted since start; 0 if it was on disk before.
    pub group: u64,
    /// Spans of it that were rejected alone.
    pub rejected: u64,
}

/// The requests of the last day, at most a named number.
#[derive(Debug)]
pub(super) struct Requests {
    known: HashMap<u128, Known, RandomState>,
    oldest_first: VecDeque<(Nanos, u128)>,
    /// Digests of groups that are at the journal, which may still be refused.
    at_journal: VecDeque<(u64, Vec<u128>)>,
    age: Duration,
    requests_max: usize,
}

impl Requests {
    pub fn new(age: Duration, requests_max: usize) -> Self {
        Self {
            known: HashMap::default(),
            oldest_first: VecDeque::new(),
            at_journal: VecDeque::new(),
            age,
            requests_max,
        }
    }

    pub fn known(&self, digest: u128) -> Option<Known> {
        self.known.get(&digest).copied()
    }

    pub fn insert(&mut self, now: Nanos, digest: u128, known: Known) {
        self.known.insert(digest, known);
        self.oldest_first.push_back((now, digest));
        while let Some(&(at, oldest)) = self.oldest_first.front() {
            if self.oldest_first.len() <= self.requests_max && at.plus(self.age) > now {
                break;
            }
            self.oldest_first.pop_front();
            self.known.remove(&oldest);
        }
    }

    pub fn closed(&mut self, group: u64, digests: &[u128]) {
        self.at_journal.push_back((group, digests.to_vec()));
    }

    /// A group is on disk, or was refused: then its requests were never seen.
    pub fn finished(&mut self, group: u64, durable: bool) {
        while let Some((_, digests)) = self.at_journal.pop_front_if(|(number, _)| *number <= group) {
            if !durable {
                for digest in digests {
                    self.known.remove(&digest);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NEW: Known = Known { group: 1, rejected: 0 };

    #[test]
    fn a_refused_request_may_come_again() {
        let mut requests = Requests::new(Duration::from_secs(60), 10);
        requests.insert(Nanos::ZERO, 7, NEW);
        requests.closed(1, &[7]);
        assert_eq!(requests.known(7), Some(NEW));
        requests.finished(1, false);
        assert_eq!(requests.known(7), None);
    }

    #[test]
    fn old_and_surplus_requests_are_forgotten() {
        let mut requests = Requests::new(Duration::from_secs(60), 2);
        for (second, digest) in [(0, 1), (1, 2), (2, 3)] {
            requests.insert(Nanos::from_secs(second), digest, NEW);
        }
        assert_eq!([1, 2, 3].map(|d| requests.known(d).is_some()), [false, true, true]);
        requests.insert(Nanos::from_secs(61), 4, NEW);
        assert_eq!([2, 3, 4].map(|d| requests.known(d).is_some()), [false, true, true]);
    }
}
