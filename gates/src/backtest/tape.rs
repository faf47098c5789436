//! History played into cells, as assembly would have filled them: a trace counts from its end on, and for gates from its
//! start plus timeout and grace on; an evaluation from the time at which it was known.

use super::history::{History, Seen, Unit, grain, is_rate};
use proto::{
    Cell, CellKey, CellTable, Color, Nanos,
    cell::{PPM, Scope, Series},
};
use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    sync::Arc,
    time::Duration,
};

/// Who is blue and who is green.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cast {
    /// As history has it.
    AsItWas,
    /// Blue alone, split in two by chance.
    Halves {
        /// Another seed, another split.
        seed: u64,
    },
}

impl Cast {
    fn color(self, unit: &Unit, color: Color) -> Option<Color> {
        match self {
            Self::AsItWas => Some(color),
            Self::Halves { seed } => (color == Color::Blue).then(|| half(unit.trace, seed)),
        }
    }

    const fn split(self, unit: &Unit) -> Option<u32> {
        match self {
            Self::AsItWas => unit.split_ppm,
            Self::Halves { .. } => Some(PPM / 2),
        }
    }

    /// Color of a trace in this cast; `None` if it does not play.
    pub fn color_of(self, unit: &Unit) -> Option<Color> {
        self.color(unit, unit.color)
    }
}

/// Blue or green by a hash of the trace's id: SplitMix64's finalizer over both halves.
fn half(trace: u128, seed: u64) -> Color {
    let mix = |mut x: u64| {
        x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let seeded = mix(seed.wrapping_add(0x9e37_79b9_7f4a_7c15));
    let hash = mix(mix(trace as u64 ^ seeded) ^ (trace >> 64) as u64);
    if hash & 1 == 1 { Color::Green } else { Color::Blue }
}

/// Where the release began, and when its traces are admitted.
#[derive(Debug, Clone)]
pub(super) struct Frame {
    /// Scope of traces inside the release.
    pub inside: Scope,
    /// Opened at.
    pub opened: Nanos,
    /// Timeout and grace.
    pub admission: Duration,
    /// Width of a minute.
    pub resolution: Duration,
}

/// A group of cells that differ in nothing but what they hold.
type Key = (bool, i64, u16, Color, Option<u32>, bool, Option<Arc<str>>);

/// The player.
pub(super) struct Tape<'a> {
    history: &'a History,
    cast: Cast,
    frame: Frame,
    /// Units that end before they are admitted, by their end.
    by_end: Vec<(Nanos, usize)>,
    ended: usize,
    admitted: usize,
    /// What becomes known after its trace has ended: when, unit, position in `seen`, on the admitted side or not yet.
    later: BinaryHeap<Reverse<(Nanos, usize, usize, bool)>>,
    /// What has been played.
    pub cells: CellTable,
}

impl<'a> Tape<'a> {
    pub fn new(history: &'a History, cast: Cast, frame: Frame) -> Self {
        let mut by_end: Vec<(Nanos, usize)> = history
            .units
            .iter()
            .enumerate()
            .map(|(i, u)| (end(u), i))
            .filter(|&(end, i)| end < history.units[i].start.plus(frame.admission))
            .collect();
        by_end.sort_unstable();
        Self {
            history,
            cast,
            frame,
            by_end,
            ended: 0,
            admitted: 0,
            later: BinaryHeap::new(),
            cells: CellTable::default(),
        }
    }

    /// When nothing more will come.
    pub fn end(&self) -> Option<Nanos> {
        let last = self.history.units.last()?;
        Some(last.start.plus(self.frame.admission))
    }

    /// Plays everything up to `now`.
    pub fn advance(&mut self, now: Nanos) {
        let mut deltas = HashMap::new();
        while let Some(&(_, i)) = self.by_end.get(self.ended).filter(|(end, _)| *end <= now) {
            self.ended += 1;
            for (k, seen) in self.history.units[i].seen.iter().enumerate() {
                let times = self.times(i, seen);
                if seen.known_after == 0 {
                    self.add(&mut deltas, i, seen, false, 1);
                } else if times.shown < times.admitted {
                    self.later.push(Reverse((times.shown, i, k, false)));
                }
            }
        }
        // what is shown before it is admitted must be there to be moved
        self.play_later(&mut deltas, now);
        while let Some(unit) = self.history.units.get(self.admitted) {
            if unit.start.plus(self.frame.admission) > now {
                break;
            }
            self.admit(&mut deltas, self.admitted);
            self.admitted += 1;
        }
        self.play_later(&mut deltas, now);
        self.apply(deltas);
    }

    fn play_later(&mut self, deltas: &mut HashMap<Key, Cell>, now: Nanos) {
        while let Some(&Reverse((at, i, k, admitted))) = self.later.peek() {
            if at > now {
                break;
            }
            self.later.pop();
            self.add(deltas, i, &self.history.units[i].seen[k], admitted, 1);
        }
    }

    fn admit(&mut self, deltas: &mut HashMap<Key, Cell>, i: usize) {
        for (k, seen) in self.history.units[i].seen.iter().enumerate() {
            let times = self.times(i, seen);
            if times.known > times.admitted {
                self.later.push(Reverse((times.known, i, k, true)));
                continue;
            }
            if times.shown < times.admitted {
                self.add(deltas, i, seen, false, -1);
            }
            self.add(deltas, i, seen, true, 1);
        }
    }

    fn times(&self, i: usize, seen: &Seen) -> Times {
        let unit = &self.history.units[i];
        let known = unit.start.plus(Duration::from_secs(u64::from(seen.known_after)));
        Times {
            known,
            shown: known.max(end(unit)),
            admitted: unit.start.plus(self.frame.admission),
        }
    }

    fn add(&self, deltas: &mut HashMap<Key, Cell>, i: usize, seen: &Seen, admitted: bool, sign: i64) {
        let unit = &self.history.units[i];
        let inside = unit.start >= self.frame.opened;
        let cast = if inside { self.cast } else { Cast::AsItWas };
        let Some(color) = cast.color(unit, seen.color) else {
            return;
        };
        let width = i64::try_from(self.frame.resolution.as_secs()).unwrap_or(60).max(1);
        let minute = unit.start.0.div_euclid(1_000_000_000).div_euclid(width) * width;
        let split = cast.split(unit);
        let key = (inside, minute, seen.metric, color, split, admitted, unit.cohort.clone());
        let cell = deltas.entry(key).or_default();
        cell.n += sign;
        if is_rate(&self.history.metrics[usize::from(seen.metric)]) {
            cell.events += sign * i64::from(seen.value > 0);
        } else {
            let value = i64::try_from(seen.value).unwrap_or(i64::MAX);
            cell.sum = cell.sum.saturating_add(sign.saturating_mul(value));
            cell.hdr.record(seen.value, sign);
        }
    }

    fn apply(&mut self, deltas: HashMap<Key, Cell>) {
        for ((inside, minute, metric, color, split_ppm, admitted, cohort), delta) in deltas {
            let metric = self.history.metrics[usize::from(metric)].clone();
            let scope = Scope {
                release: self.frame.inside.release.clone().filter(|_| inside),
                route: Arc::clone(&self.frame.inside.route),
            };
            let series = Series {
                grain: grain(&metric),
                metric,
                cohort,
                split_ppm,
                color,
                admitted,
            };
            self.cells.apply(&CellKey { scope, minute, series }, &delta, 1);
        }
    }
}

/// When one thing seen of a trace reaches the cells.
struct Times {
    /// When it was known at the earliest.
    known: Nanos,
    /// When it and its trace's end were known.
    shown: Nanos,
    /// When its trace counts for gates.
    admitted: Nanos,
}

fn end(unit: &Unit) -> Nanos {
    unit.start.plus(Duration::from_micros(unit.duration_us))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn halves_are_even_and_differ_by_seed() {
        let green = |seed| {
            (0..10_000u128)
                .filter(|i| half((i << 64) | (i * 7), seed) == Color::Green)
                .count()
        };
        for seed in 0..8 {
            assert!((4_800..5_200).contains(&green(seed)), "seed {seed}: {}", green(seed));
        }
        let same = (0..10_000u128).filter(|&i| half(i, 1) == half(i, 2)).count();
        assert!((4_800..5_200).contains(&same), "{same}");
    }
}
