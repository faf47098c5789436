//! Many runs on few threads: each draws from a stream of its own, so that neither threads nor order change a figure.

use indicatif::{ProgressBar, ProgressStyle};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::{
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::Duration,
};

/// How large the study is, and how it runs.
#[derive(Debug, Clone, Copy)]
pub struct Scale {
    /// Runs of everything that is not named below.
    pub runs: u64,
    /// Runs of rare events alone in the search for false rollbacks, where a run costs little.
    pub events: u64,
    /// Runs through the judge itself.
    pub judged: u64,
    /// Runs through the judge with days of health before.
    pub long: u64,
    /// Traces of each color in the search for false rollbacks.
    pub arm: u64,
    /// Minutes a day.
    pub day: u64,
    /// First seed.
    pub seed: u64,
    /// Threads.
    pub threads: usize,
    /// Whether progress is shown.
    pub shown: bool,
}

impl Scale {
    /// The study as published, at `runs` runs.
    pub const fn full(runs: u64, seed: u64, threads: usize) -> Self {
        let tenth = runs.div_ceil(10);
        Self {
            runs,
            events: 10 * runs,
            judged: runs,
            long: tenth,
            arm: 1_000_000,
            day: 1_440,
            seed,
            threads,
            shown: true,
        }
    }

    /// Every part of it within seconds, in any build. Its figures say little.
    pub const fn quick(seed: u64, threads: usize, shown: bool) -> Self {
        Self {
            runs: 20,
            events: 20,
            judged: 3,
            long: 1,
            arm: 8_000,
            day: 30,
            seed,
            threads,
            shown,
        }
    }

    /// What `one` gives in each of `runs` runs, in their order. The name chooses the streams.
    pub fn map<T: Send>(&self, name: &str, runs: u64, one: impl Fn(&mut ChaCha8Rng) -> T + Sync) -> Vec<T> {
        let bar = self.bar(name, runs);
        let next = AtomicU64::new(0);
        let work = || {
            let mut out = Vec::new();
            loop {
                let run = next.fetch_add(1, Ordering::Relaxed);
                if run >= runs {
                    return out;
                }
                let mut rng = ChaCha8Rng::seed_from_u64(self.seed);
                rng.set_stream(stream(name) ^ run);
                out.push((run, one(&mut rng)));
                bar.inc(1);
            }
        };
        let mut out: Vec<(u64, T)> = thread::scope(|scope| {
            let workers: Vec<_> = (0..self.threads.max(1)).map(|_| scope.spawn(work)).collect();
            workers
                .into_iter()
                .flat_map(|w| w.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)))
                .collect()
        });
        bar.finish_and_clear();
        out.sort_by_key(|(run, _)| *run);
        out.into_iter().map(|(_, t)| t).collect()
    }

    fn bar(&self, name: &str, runs: u64) -> ProgressBar {
        if !self.shown {
            return ProgressBar::hidden();
        }
        let bar = ProgressBar::new(runs).with_message(name.to_owned());
        if let Ok(style) = ProgressStyle::with_template("{bar:30} {pos:>5}/{len} {elapsed:>4}, {eta:>4} left  {msg}") {
            bar.set_style(style);
        }
        bar.enable_steady_tick(Duration::from_secs(1));
        bar
    }
}

/// FNV-1a of the name, its low bits left for the number of the run.
fn stream(name: &str) -> u64 {
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    hash << 24
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::Rng;

    #[test]
    fn runs_are_the_same_on_any_number_of_threads_and_differ_by_name() {
        let draw = |threads, name| Scale::quick(5, threads, false).map(name, 9, |rng| rng.next_u64());
        let one = draw(1, "a");
        assert_eq!(one, draw(3, "a"));
        assert_ne!(one, draw(1, "b"));
        assert!(one.windows(2).all(|two| two[0] != two[1]));
    }
}
