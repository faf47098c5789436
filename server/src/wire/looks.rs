//! When it is looked at which paths serve, how far back, and what is remembered of earlier looks.
//!
//! A look reads every span of its time, so under much traffic it is made seldom and less far back: it must not cost what
//! ingest needs. What it no longer reaches is remembered for a day.

use proto::{Nanos, measure::SeenPath};
use query::measure::PATHS_MAX;
use std::{
    cmp::Reverse,
    ops::Range,
    time::{Duration, Instant},
};

/// How often it is looked at most.
const EVERY: Duration = Duration::from_secs(5);
/// After a look there is a rest of this many times its duration: at most 5 % of the time goes into looking.
const REST_TIMES: u32 = 20;
/// How far back paths are looked for, and remembered.
const BACK_MAX: Duration = Duration::from_secs(24 * 3_600);
/// The same where looks take long. A path that has not served for as long is not live for anybody.
const BACK_MIN: Duration = Duration::from_secs(15 * 60);
/// After a look that took longer the next one reaches half as far.
const TOOK_MAX: Duration = Duration::from_secs(1);
/// Spans of which every trace is looked at; of more, a share.
pub(super) const SPANS_LOOKED_AT: u64 = 400_000;

/// Unsealed spans that are looked at. More of them are in files within a minute, under load within seconds, and a look would
/// keep them in memory for longer.
pub(super) const LIVE_LOOKED_AT: usize = 16_384;

/// Earlier looks.
#[derive(Debug)]
pub(super) struct PathLooks {
    back: Duration,
    /// When the last one ended, how long it took, and the last record that it saw.
    last: Option<(Instant, Duration, u64)>,
    known: Vec<SeenPath>,
}

impl Default for PathLooks {
    fn default() -> Self {
        Self {
            back: BACK_MAX,
            last: None,
            known: Vec::new(),
        }
    }
}

impl PathLooks {
    /// Whether it is time for the next one; without new rows the paths are what they were.
    pub(super) fn are_due(&self, lsn: u64) -> bool {
        let rested =
            |(at, took, seen): (Instant, Duration, u64)| at.elapsed() >= EVERY.max(took * REST_TIMES) && seen != lsn;
        lsn > 0 && self.last.is_none_or(rested)
    }

    /// From when on to look.
    pub(super) fn since(&self, now: Nanos) -> Nanos {
        now.minus(self.back)
    }

    /// A look at records up to `lsn` ended now.
    pub(super) fn took(&mut self, took: Duration, lsn: u64) {
        if took > TOOK_MAX {
            self.back = BACK_MIN.max(self.back / 2);
        }
        self.last = Some((Instant::now(), took, lsn));
    }

    /// All paths of the last day: those found by a look that misses nothing that started in the time `looked_at`, and those that
    /// served before or since.
    pub(super) fn merge(&mut self, found: Vec<SeenPath>, looked_at: Range<Nanos>, now: Nanos) -> Vec<SeenPath> {
        let mut all = found;
        for path in &mut all {
            if let Some(known) = self.known.iter().find(|known| is_same(known, path)) {
                path.first_seen = path.first_seen.min(known.first_seen);
                path.last_seen = path.last_seen.max(known.last_seen);
                path.traces = path.traces.max(known.traces);
            }
        }
        // What served in that time and was not found again was another path, known better now.
        let out_of_reach = |known: &&SeenPath| {
            let at = known.last_seen;
            !looked_at.contains(&at) && at >= now.minus(BACK_MAX)
        };
        let others: Vec<SeenPath> = self.known.iter().filter(out_of_reach).cloned().collect();
        let found = all.len();
        for known in others {
            if !all[..found].iter().any(|path| is_same(path, &known)) {
                all.push(known);
            }
        }
        all.sort_by_key(|path| Reverse(path.traces));
        all.truncate(PATHS_MAX);
        self.known.clone_from(&all);
        all
    }
}

/// Whether two are the same path, whatever was counted.
fn is_same(a: &SeenPath, b: &SeenPath) -> bool {
    fn names(path: &SeenPath) -> (&str, [&Option<String>; 9]) {
        let SeenPath {
            route,
            version,
            provider,
            model,
            prompt,
            tools,
            guardrails,
            cache,
            fallback,
            policy,
            traces: _,
            first_seen: _,
            last_seen: _,
        } = path;
        (
            route,
            [
                version, provider, model, prompt, tools, guardrails, cache, fallback, policy,
            ],
        )
    }
    names(a) == names(b)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn path(version: &str, first: i64, last: i64, traces: i64) -> SeenPath {
        SeenPath {
            route: "chat".to_owned(),
            version: Some(version.to_owned()),
            first_seen: Nanos::from_secs(first),
            last_seen: Nanos::from_secs(last),
            traces,
            ..SeenPath::default()
        }
    }

    #[test]
    fn a_look_is_the_truth_of_its_time_and_what_served_before_is_remembered_for_a_day() {
        const DAY: i64 = 86_400;
        const END: Nanos = Nanos(i64::MAX);
        let mut looks = PathLooks::default();
        let at = Nanos::from_secs;
        let first = looks.merge(
            vec![path("1", 100, 900, 50), path("?", 800, 890, 3)],
            at(0)..END,
            at(1_000),
        );
        assert_eq!(first, [path("1", 100, 900, 50), path("?", 800, 890, 3)]);
        // The nameless one was version 2, as its root says; version 1 is out of reach.
        let next = looks.merge(vec![path("2", 880, 1_990, 70)], at(880)..END, at(2_000));
        assert_eq!(
            next,
            [path("2", 880, 1_990, 70)],
            "900 is within reach, and 1 was not found"
        );
        let later = looks.merge(vec![path("3", 5_000, 5_900, 60)], at(5_000)..END, at(6_000));
        assert_eq!(later, [path("2", 880, 1_990, 70), path("3", 5_000, 5_900, 60)]);
        let again = looks.merge(vec![path("2", 7_000, 7_900, 9)], at(6_500)..END, at(8_000));
        assert_eq!(again, [path("2", 880, 7_900, 70), path("3", 5_000, 5_900, 60)]);
        let day = looks.merge(Vec::new(), at(DAY + 6_000)..END, at(DAY + 7_000));
        assert_eq!(day, [path("2", 880, 7_900, 70)]);
    }

    #[test]
    fn a_look_at_sealed_rows_alone_takes_nothing_back_that_serves_since() {
        let mut looks = PathLooks::default();
        let at = Nanos::from_secs;
        let all = Nanos(i64::MAX);
        let first = looks.merge(
            vec![path("1", 100, 990, 50), path("?", 100, 300, 3)],
            at(0)..all,
            at(1_000),
        );
        assert_eq!(first.len(), 2);
        // Unsealed rows begin at 500: of what served until then nothing but version 1 is left.
        let next = looks.merge(vec![path("1", 100, 500, 20)], at(0)..at(500), at(1_010));
        assert_eq!(next, [path("1", 100, 990, 50)]);
        let none = looks.merge(Vec::new(), at(0)..Nanos::ZERO, at(1_020));
        assert_eq!(none, [path("1", 100, 990, 50)], "nothing is sealed yet");
    }

    #[test]
    fn a_look_that_takes_long_is_made_seldom_and_reaches_less_far() {
        let mut looks = PathLooks::default();
        assert!(!looks.are_due(0), "there is nothing to see");
        assert!(looks.are_due(1));
        looks.took(Duration::from_millis(10), 7);
        assert!(!looks.are_due(8), "not before its time");
        looks.last = Some((Instant::now(), Duration::ZERO, 7));
        assert_eq!(looks.since(Nanos::from_secs(90_000)), Nanos::from_secs(3_600));
        for _ in 0..10 {
            looks.took(TOOK_MAX * 2, 9);
        }
        assert_eq!(looks.since(Nanos::from_secs(90_000)), Nanos::from_secs(90_000 - 900));
    }
}
