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
    /// With the number of the entry in `oldest_first` that stands for it.
    known: HashMap<u128, (Known, u64), RandomState>,
    /// Entries of requests that were refused since stay for a while, and mean nothing.
    oldest_first: VecDeque<Entry>,
    entries: u64,
    /// Digests of groups that are at the journal, which may still be refused.
    at_journal: VecDeque<(u64, Vec<u128>)>,
    age: Duration,
    requests_max: usize,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    at: Nanos,
    digest: u128,
    number: u64,
}

/// Entries without meaning that are not worth a sweep.
const STALE_ENTRIES_FREE: usize = 1_024;

impl Requests {
    pub fn new(age: Duration, requests_max: usize) -> Self {
        Self {
            known: HashMap::default(),
            oldest_first: VecDeque::new(),
            entries: 0,
            at_journal: VecDeque::new(),
            age,
            requests_max,
        }
    }

    pub fn known(&self, digest: u128) -> Option<Known> {
        self.known.get(&digest).map(|(known, _)| *known)
    }

    pub fn insert(&mut self, now: Nanos, digest: u128, known: Known) {
        self.entries += 1;
        let number = self.entries;
        self.known.insert(digest, (known, number));
        self.oldest_first.push_back(Entry {
            at: now,
            digest,
            number,
        });
        while let Some(&oldest) = self.oldest_first.front() {
            let stands = self.stands(&oldest);
            if stands && self.known.len() <= self.requests_max && oldest.at.plus(self.age) > now {
                break;
            }
            self.oldest_first.pop_front();
            if stands {
                self.known.remove(&oldest.digest);
            }
        }
        if self.oldest_first.len() > 2 * self.known.len() + STALE_ENTRIES_FREE {
            let entries = std::mem::take(&mut self.oldest_first);
            self.oldest_first = entries.into_iter().filter(|entry| self.stands(entry)).collect();
        }
    }

    fn stands(&self, entry: &Entry) -> bool {
        self.known
            .get(&entry.digest)
            .is_some_and(|(_, number)| *number == entry.number)
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
    fn refused_requests_neither_count_nor_take_others_with_them() {
        let mut requests = Requests::new(Duration::from_secs(60), 2);
        requests.insert(Nanos::ZERO, 1, NEW);
        for (group, digest) in [(1, 2), (2, 3), (3, 4)] {
            requests.insert(Nanos::from_secs(1), digest, NEW);
            requests.closed(group, &[digest]);
            requests.finished(group, false);
        }
        assert_eq!(requests.known(1), Some(NEW), "refused requests take no place");

        requests.insert(Nanos::from_secs(59), 2, NEW);
        requests.insert(Nanos::from_secs(62), 5, NEW);
        assert_eq!(
            requests.known(2),
            Some(NEW),
            "what was refused at 1 s was taken at 59 s"
        );
        assert_eq!(requests.known(1), None, "a minute has passed");
    }

    #[test]
    fn what_is_kept_of_refused_requests_is_bounded() {
        let mut requests = Requests::new(Duration::from_secs(60), 10);
        requests.insert(Nanos::ZERO, u128::MAX, NEW);
        for group in 1..10_000 {
            requests.insert(Nanos::ZERO, 7, NEW);
            requests.closed(group, &[7]);
            requests.finished(group, false);
        }
        assert!(requests.oldest_first.len() <= STALE_ENTRIES_FREE + 22);
        assert_eq!(requests.known(u128::MAX), Some(NEW));
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
