//! A/A: blue's own history split in two by chance. Both halves are equal, so every rollback is a false one.

use super::{
    History, Options, PeerReport,
    peers::compare,
    replay::{Watch, as_replayed, replay},
    tape::Cast,
};
use proto::{Color, Nanos, decision::Action, release::ReleaseSpec};
use serde::Serialize;
use std::{collections::BTreeMap, time::Duration};

/// Looks at one split at most: the more looks, the more chances of a false rollback, and the longer it takes.
const LOOKS_MAX: u64 = 1_440;
/// Share of history that freezes the baseline, at most.
const BASELINE_SHARE: u32 = 5;

/// What came of all splits.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Halves {
    /// Splits made, with seeds from 0 on.
    pub splits: u64,
    /// Traces that were split.
    pub traces: i64,
    /// Seeds of those that the rules would have rolled back, and why.
    pub rolled_back: Vec<(u64, String)>,
    /// Splits that were promoted and not rolled back later.
    pub promoted: u64,
    /// Of how many splits each rule of others would have rolled back one half.
    pub peers: BTreeMap<String, u64>,
    /// What the release promises.
    pub alpha: f64,
    /// Time between two looks, seconds.
    pub every_secs: u64,
}

/// Splits blue's part of `history` `splits` times. `progress` hears the share done.
///
/// # Errors
/// In words, why it cannot be done.
pub fn halves(
    spec: &ReleaseSpec,
    history: &History,
    options: Options,
    splits: u64,
    progress: &mut dyn FnMut(f64),
) -> Result<Halves, String> {
    let blue = blue_alone(history);
    let (Some(first), Some(last)) = (blue.units.first(), blue.units.last()) else {
        return Err("blue has no history to split".to_owned());
    };
    let (spec, _) = as_replayed(spec, 0.5)?;
    let span = last.start.since(first.start);
    let opened = options.minute(first.start.plus(spec.baseline.min(span / BASELINE_SHARE)));
    let looks = span.as_secs() / LOOKS_MAX;
    let width = options.resolution.as_secs().max(1);
    let watch = Watch {
        opened,
        resolution: options.resolution,
        every: Duration::from_secs(looks.div_ceil(width).max(1) * width),
    };
    let mut out = Halves {
        splits,
        traces: blue.count(Color::Blue, opened, Nanos(i64::MAX)),
        rolled_back: Vec::new(),
        promoted: 0,
        peers: BTreeMap::new(),
        alpha: spec.alpha,
        every_secs: watch.every.as_secs(),
    };
    for seed in 0..splits {
        let cast = Cast::Halves { seed };
        let mut done = |share: f64| progress((seed as f64 + share) / splits as f64);
        let replayed = replay(&spec, &blue, cast, watch, &mut done);
        let decided = |action| replayed.decisions.iter().find(|d| d.action == action);
        match (decided(Action::Rollback), decided(Action::Promote)) {
            (Some(rollback), _) => out.rolled_back.push((seed, rollback.reason.clone())),
            (None, Some(_)) => out.promoted += 1,
            (None, None) => {}
        }
        for PeerReport {
            name, rolled_back_at, ..
        } in compare(&spec, &blue, cast, &replayed, options.resolution)
        {
            *out.peers.entry(name).or_default() += u64::from(rolled_back_at.is_some());
        }
    }
    Ok(out)
}

fn blue_alone(history: &History) -> History {
    History {
        metrics: history.metrics.clone(),
        units: history
            .units
            .iter()
            .filter(|u| u.color == Color::Blue)
            .cloned()
            .collect(),
    }
}
