//! Releases that nobody declared: two paths are live on one route, so they are compared.
//!
//! Pure: from the paths that the rows show and the releases there are, which observed ones to open and to close. Blue is
//! the path that was there first, green the one that came last. They are told apart by the first of version, model,
//! prompt and tools in which they differ; a span that says the same in it belongs to its side. Nothing is known of a
//! split, so the arms are taken as iid, and nothing is ever sent.

use crate::ledger::ReleaseRow;
use proto::{
    Metric, Nanos,
    decision::Phase,
    measure::SeenPath,
    release::{Approval, BreakerSpec, GateSpec, Manifest, Margin, Match, Mode, NoData, Quota, ReleaseSpec, Unit},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Who declares them.
pub(super) const ACTOR: &str = "observed";
/// Traces a path must have served to be taken for more than a stray.
const TRACES_MIN: i64 = 20;
/// A path is live if it served within this time.
const LIVE: Duration = Duration::from_secs(15 * 60);
/// An observed release ends when one of its paths has not served for this long.
const GONE: Duration = Duration::from_secs(24 * 3_600);
/// A new path must have been seen this much later than the old one: what begins together is one deployment.
const LATER: Duration = Duration::from_secs(1);
/// Evaluators that get a gate.
const EVALUATORS_MAX: usize = 4;
/// Observed releases open at a time.
const OPEN_MAX: usize = 100;

/// What to do.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Found {
    /// Releases to open, each since a time.
    pub opened: Vec<(ReleaseSpec, Nanos)>,
    /// Routes whose observed release is over, and why.
    pub closed: Vec<(String, String)>,
}

/// In what two paths differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Key {
    Version,
    Model,
    Prompt,
    Tools,
}

const KEYS: [Key; 4] = [Key::Version, Key::Model, Key::Prompt, Key::Tools];

impl Key {
    const fn of(self, path: &SeenPath) -> Option<&String> {
        match self {
            Self::Version => path.version.as_ref(),
            Self::Model => path.model.as_ref(),
            Self::Prompt => path.prompt.as_ref(),
            Self::Tools => path.tools.as_ref(),
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Version => "version",
            Self::Model => "model",
            Self::Prompt => "prompt",
            Self::Tools => "tools",
        }
    }
}

/// Looks at what served lately. `evaluators` names those that judged a route's traces.
pub(super) fn look(
    seen: &[SeenPath],
    releases: &[&ReleaseRow],
    evaluators: impl Fn(&str) -> BTreeSet<Arc<str>>,
    now: Nanos,
) -> Found {
    let mut found = Found::default();
    let mut by_route: BTreeMap<&str, Vec<&SeenPath>> = BTreeMap::new();
    for path in seen {
        by_route.entry(&path.route).or_default().push(path);
    }
    let running = |route: &str| {
        releases
            .iter()
            .find(|r| r.spec.route == route && !r.state.phase.is_over())
    };
    for row in releases.iter().filter(|r| r.state.phase == Phase::Observed) {
        let paths = by_route.get(row.spec.route.as_str()).map_or(&[][..], Vec::as_slice);
        if let Some(why) = over(row, paths, now) {
            found.closed.push((row.spec.route.clone(), why));
        }
    }
    // a path that was seen before a release of its route ended has had its trial
    let tried = |route: &str, green: &SeenPath| {
        let of_route = releases.iter().filter(|r| r.spec.route == route);
        let ended = of_route.filter_map(|r| r.state.settled).max();
        ended.is_some_and(|end| green.first_seen <= end)
    };
    let open = releases.iter().filter(|r| r.state.phase == Phase::Observed).count();
    for (route, paths) in by_route {
        if running(route).is_some() || open + found.opened.len() >= OPEN_MAX {
            continue;
        }
        if let Some((key, blue, green)) = two_live(&paths, now)
            && !tried(route, &green)
        {
            let mut spec = spec(route, key, &blue, &green);
            spec.gates
                .extend(evaluators(route).into_iter().take(EVALUATORS_MAX).map(of_evaluator));
            // what was compared once and is over is not opened again
            if releases.iter().all(|r| r.spec.id != spec.id) {
                found.opened.push((spec, green.first_seen));
            }
        }
    }
    found
}

fn over(row: &ReleaseRow, paths: &[&SeenPath], now: Nanos) -> Option<String> {
    let key = KEYS
        .into_iter()
        .find(|key| row.spec.id.contains(&format!(".{}.", key.word())))?;
    [&row.spec.blue, &row.spec.green].into_iter().find_map(|side| {
        let value = side_value(key, side)?;
        let last = paths
            .iter()
            .filter(|p| key.of(p) == Some(&value))
            .map(|p| p.last_seen)
            .max();
        let silent = now.since(last.unwrap_or(row.state.opened));
        (silent > GONE).then(|| format!("{} `{value}` has not served for a day", key.word()))
    })
}

fn side_value(key: Key, side: &Manifest) -> Option<String> {
    Some(match key {
        Key::Version => side.version.clone(),
        Key::Model => side.matches.request_model.first()?.clone(),
        Key::Prompt => side.prompt.clone(),
        Key::Tools => side.matches.tools.first()?.clone(),
    })
}

/// The values of the first key in which live paths differ: the one seen first, and the one that came last.
fn two_live(paths: &[&SeenPath], now: Nanos) -> Option<(Key, SeenPath, SeenPath)> {
    KEYS.into_iter().find_map(|key| {
        let mut sides: BTreeMap<&String, SeenPath> = BTreeMap::new();
        for path in paths {
            let value = key.of(path)?;
            let side = sides.entry(value).or_insert_with(|| SeenPath {
                traces: 0,
                ..(*path).clone()
            });
            side.traces += path.traces;
            side.first_seen = side.first_seen.min(path.first_seen);
            side.last_seen = side.last_seen.max(path.last_seen);
        }
        let live = |p: &SeenPath| p.traces >= TRACES_MIN && now.since(p.last_seen) <= LIVE;
        let mut live: Vec<SeenPath> = sides.into_values().filter(live).collect();
        live.sort_by_key(|p| p.first_seen);
        let (green, blue) = (live.pop()?, live.into_iter().next()?);
        (green.first_seen.since(blue.first_seen) >= LATER).then_some((key, blue, green))
    })
}

/// Letters, digits and `-` of a name: what an id may hold.
fn plain(name: &str) -> String {
    let dashed = |c: char| {
        if c.is_ascii_alphanumeric() || c == '-' || c == '_' {
            c
        } else {
            '-'
        }
    };
    name.chars().take(60).map(dashed).collect()
}

fn spec(route: &str, key: Key, blue: &SeenPath, green: &SeenPath) -> ReleaseSpec {
    let value = |p: &SeenPath| key.of(p).map_or("", String::as_str).to_owned();
    ReleaseSpec {
        route: route.to_owned(),
        id: format!(
            "observed.{}.{}.{}.{}",
            plain(route),
            key.word(),
            plain(&value(blue)),
            plain(&value(green))
        ),
        mode: Mode::Observe,
        unit: Unit::Trace,
        cohort: None,
        baseline: Duration::from_secs(86_400),
        steps: Vec::new(),
        warmup: Duration::ZERO,
        min_traces: 500,
        min_duration: Duration::ZERO,
        mirror: None,
        cool_down: Duration::ZERO,
        horizon: Duration::from_secs(7 * 86_400),
        approval: Approval::Promote,
        alpha: 0.01,
        alpha_promote: 0.05,
        no_data: NoData::Hold,
        timeout: Duration::from_secs(60),
        grace: Duration::from_secs(10),
        blue: manifest(key, blue, "blue"),
        green: manifest(key, green, "green"),
        quota: Quota::default(),
        breaker: BreakerSpec {
            max: None,
            alpha_share: 0.2,
        },
        gates: gates(),
        webhook: None,
    }
}

/// A manifest as far as spans say it; what they don't say reads `unknown`.
fn manifest(key: Key, path: &SeenPath, color: &str) -> Manifest {
    let text = |value: &Option<String>| value.clone().unwrap_or_else(|| "unknown".to_owned());
    let value = key.of(path).cloned().into_iter();
    let mut matches = Match::default();
    match key {
        Key::Version => {}
        Key::Model => matches.request_model.extend(value.clone()),
        Key::Prompt => matches
            .prompt_version
            .extend(value.clone().filter_map(|p| Some(p.rsplit_once('@')?.1.to_owned()))),
        Key::Tools => matches.tools.extend(value.clone()),
    }
    Manifest {
        // paths that differ in something else have no version of their own, or share one
        version: match key {
            Key::Version => text(&path.version),
            other => format!("{color}:{}={}", other.word(), key.of(path).map_or("", String::as_str)),
        },
        provider: text(&path.provider),
        model: text(&path.model),
        prompt: text(&path.prompt),
        tools: text(&path.tools),
        guardrails: text(&path.guardrails),
        cache: text(&path.cache),
        fallback: path.fallback.iter().cloned().collect(),
        policy: text(&path.policy),
        logging: "unknown".to_owned(),
        pii: "unknown".to_owned(),
        matches,
    }
}

/// What everybody wants to know first.
fn gates() -> Vec<GateSpec> {
    let gate = |name: &str, metric, r| GateSpec::new(name, metric, Margin::MaxRatio(r));
    vec![
        gate("errors", Metric::Error, 1.5),
        GateSpec {
            quantile: Some(0.99),
            ..gate("p99 latency", Metric::Latency, 1.2)
        },
        gate("cost per trace", Metric::Cost, 1.2),
        gate("invalid JSON", Metric::JsonInvalid, 1.5),
    ]
}

fn of_evaluator(name: Arc<str>) -> GateSpec {
    GateSpec::new(format!("failed {name}"), Metric::EvalFail(name), Margin::MaxRatio(1.5))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::life::ReleaseState;

    const MINUTE: i64 = 60;

    fn path(version: &str, model: &str, first: i64, last: i64, traces: i64) -> SeenPath {
        SeenPath {
            route: "chat".to_owned(),
            version: Some(version.to_owned()),
            model: Some(model.to_owned()),
            prompt: Some("chat@1".to_owned()),
            traces,
            first_seen: Nanos::from_secs(first * MINUTE),
            last_seen: Nanos::from_secs(last * MINUTE),
            ..SeenPath::default()
        }
    }

    fn look_at(seen: &[SeenPath], rows: &[&ReleaseRow], minute: i64) -> Found {
        let none = |_: &str| BTreeSet::new();
        look(seen, rows, none, Nanos::from_secs(minute * MINUTE))
    }

    fn opened(found: &Found) -> ReleaseRow {
        let (spec, since) = found.opened[0].clone();
        ReleaseRow {
            state: ReleaseState::open_observed(&spec, since, Duration::from_secs(60)),
            rules_hash: String::new(),
            declared_at: since,
            declared_by: ACTOR.to_owned(),
            people: Vec::new(),
            spec,
        }
    }

    #[test]
    fn the_path_that_came_last_is_green_and_the_one_before_it_blue() {
        let seen = [path("8", "m", 50, 60, 30), path("7", "m", 0, 60, 900)];
        let found = look_at(&seen, &[], 61);
        let (spec, since) = &found.opened[0];
        assert_eq!((&*spec.blue.version, &*spec.green.version), ("7", "8"));
        assert_eq!(*since, Nanos::from_secs(50 * MINUTE));
        assert_eq!(spec.mode, Mode::Observe);
        assert!(spec.webhook.is_none());
    }

    #[test]
    fn strays_and_what_no_longer_serves_are_not_compared() {
        let old = path("7", "m", 0, 60, 900);
        for other in [
            path("8", "m", 50, 60, TRACES_MIN - 1),
            path("8", "m", 10, 40, 900),
            path("7", "m", 0, 60, 900),
        ] {
            assert_eq!(look_at(&[old.clone(), other], &[], 61), Found::default());
        }
    }

    #[test]
    fn without_versions_models_tell_them_apart() {
        let nameless = |model: &str, first| SeenPath {
            version: None,
            ..path("", model, first, 60, 50)
        };
        let found = look_at(&[nameless("small", 0), nameless("large", 30)], &[], 61);
        let spec = &found.opened[0].0;
        assert_eq!(spec.green.matches.request_model, ["large"]);
        assert_eq!(spec.blue.matches.request_model, ["small"]);
        assert_ne!(spec.blue.version, spec.green.version);
    }

    #[test]
    fn what_had_its_trial_is_not_compared_again() {
        let seen = [path("7", "m", 0, 60, 900), path("8", "m", 50, 60, 30)];
        let mut row = opened(&look_at(&seen, &[], 61));
        row.spec.id = "chat-8".to_owned();
        row.state.phase = Phase::RolledBack;
        row.state.settled = Some(Nanos::from_secs(58 * MINUTE));
        assert_eq!(look_at(&seen, &[&row], 61), Found::default());
        let newer = [path("7", "m", 0, 90, 900), path("9", "m", 80, 90, 30)];
        assert_eq!(
            look_at(&newer, &[&row], 91).opened.len(),
            1,
            "what came after it is new"
        );
    }

    #[test]
    fn it_is_opened_once_and_closed_when_one_side_is_gone_for_a_day() {
        let seen = [path("7", "m", 0, 60, 900), path("8", "m", 50, 60, 30)];
        let row = opened(&look_at(&seen, &[], 61));
        assert_eq!(look_at(&seen, &[&row], 62), Found::default());
        let day = 24 * 60;
        let later = [path("7", "m", 0, 61 + day, 9_000), path("8", "m", 50, 60, 30)];
        let found = look_at(&later, &[&row], 61 + day);
        assert_eq!(found.closed[0].1, "version `8` has not served for a day");
    }
}
