//! What the cells say about one release at one time, brought into the form its life depends on.
//!
//! Pure but for memory: the reader keeps how it turned minutes that did not change.

use super::evidence::watching;
use crate::{
    judge::{self, Baseline, BreakerReading, Judge, JudgeInput, Judgement, freeze, new_pairs},
    ledger::ReleaseRow,
    life::{Breaker, Fallen, Finding, Quiet, Slot, slot_after},
};
use proto::{
    CellTable, Color, Grain, Metric, Nanos,
    cell::{Minute, Minutes, Scope, Series},
    decision::Verdict,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Share of unmarked traces, or of traces with a mixed manifest, above which nothing is promoted.
const UNCLEAR_SHARE_MAX: f64 = 0.05;
/// Slots of traffic that a finding shows.
const SLOTS_MAX: usize = 120;
/// How far back cutover headroom is measured.
const HEADROOM_WINDOW: Duration = Duration::from_secs(600);

/// One reading.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub judgement: Judgement,
    pub breaker: BreakerReading,
    pub finding: Finding,
    /// The cells it was computed from, fallen cohorts left out.
    pub minutes: Arc<Minutes>,
    /// First counted minute, unix seconds, as it was then.
    pub counted_from: i64,
    /// Whether green alone served, as it was then.
    pub watching: bool,
}

/// Reads one release again and again.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    judge: Judge,
    breaker: judge::Breaker,
    /// Minutes without the cohorts that fell back, beside the ones they were made from.
    without_fallen: BTreeMap<i64, (Arc<Minute>, Arc<Minute>)>,
    fallen: usize,
}

/// Freezes the baseline and appends new pairs when their time has come; true if the state changed. Must be persisted
/// before anything is judged by it.
pub(crate) fn prepare(row: &mut ReleaseRow, cells: &CellTable, now: Nanos, late: &mut String) -> bool {
    let before = (row.state.baseline.is_some(), row.state.order.len());
    late.clear();
    if row.state.baseline.is_none() {
        match frozen(row, cells, now) {
            Ok(baseline) => row.state.baseline = Some(baseline),
            Err(why) => *late = why,
        }
    }
    if let Some(minutes) = cells.minutes(&scope(row)) {
        let new = new_pairs(&row.spec, minutes, row.state.counted_from, &row.state.order);
        row.state.order.extend(new);
    }
    before != (row.state.baseline.is_some(), row.state.order.len())
}

fn scope(row: &ReleaseRow) -> Scope {
    Scope {
        route: row.spec.route.as_str().into(),
        release: Some(row.spec.id.as_str().into()),
    }
}

/// Blue before the release if there is enough of it, else with blue's warm-up inside the release, once all of that is
/// admitted; a warm-up that was too quiet is made longer.
fn frozen(row: &ReleaseRow, cells: &CellTable, now: Nanos) -> Result<Baseline, String> {
    let spec = &row.spec;
    let opened = row.state.opened;
    let secs = |at: Nanos| at.0.div_euclid(1_000_000_000);
    let outside = Scope {
        route: spec.route.as_str().into(),
        release: None,
    };
    let history = || {
        let from = secs(opened.minus(spec.baseline));
        let minutes = cells.minutes(&outside);
        let range = minutes.into_iter().flat_map(move |m| m.range(from..secs(opened)));
        range.flat_map(|(_, minute)| minute.iter().map(|(s, c)| (s, &**c)))
    };
    let said = format!(
        "blue in the {} before the release",
        humantime::format_duration(spec.baseline)
    );
    if let Ok(baseline) = freeze(spec, history(), now, said) {
        return Ok(baseline);
    }
    let warm = opened.plus(spec.warmup);
    let admitted = spec.admitted_at(warm);
    if now < admitted {
        return Err(format!(
            "warming up: blue's thresholds are frozen in {}",
            humantime::format_duration(Duration::from_secs(admitted.since(now).as_secs() + 1))
        ));
    }
    let inside = scope(row);
    let until = |end: i64| {
        let minutes = cells.minutes(&inside);
        let range = minutes
            .into_iter()
            .flat_map(move |m| m.range(secs(opened)..end.max(secs(opened))));
        range.flat_map(|(_, minute)| minute.iter().map(|(s, c)| (s, &**c)))
    };
    let said = "blue before the release and in its warm-up".to_owned();
    freeze(spec, history().chain(until(secs(warm))), now, said).or_else(|_| {
        let end = now.minus(spec.timeout + spec.grace);
        let said = "blue before the release and in its warm-up, made longer for lack of traffic";
        freeze(spec, history().chain(until(secs(end))), now, said.to_owned())
    })
}

impl Reader {
    pub fn read(
        &mut self,
        row: &ReleaseRow,
        cells: &CellTable,
        impaired: Option<&str>,
        late: &str,
        now: Nanos,
        resolution: Duration,
    ) -> Reading {
        let state = &row.state;
        let empty = Minutes::new();
        let all = cells.minutes(&scope(row)).unwrap_or(&empty);
        let minutes = Arc::new(self.leave_out_fallen(all, &state.fallen, resolution));
        let minute_secs = i64::try_from(resolution.as_secs()).unwrap_or(60).max(1);
        let judgement = self.judge.judge(&JudgeInput {
            spec: &row.spec,
            baseline: state.baseline.as_ref(),
            order: &state.order,
            minutes: &minutes,
            counted_from: state.counted_from,
            minute_secs,
            watching: watching(state.phase),
            now,
        });
        let breaker = self.breaker.read(
            &row.spec,
            state.baseline.as_ref(),
            &minutes,
            state.opened.0.div_euclid(1_000_000_000),
            minute_secs,
        );
        let (traffic, tally) = tally(row, all, now, resolution);
        let reason = if state.baseline.is_none() && !late.is_empty() {
            late.to_owned()
        } else if judgement.passes {
            String::new()
        } else {
            judgement.reason.clone()
        };
        let finding = Finding {
            rollback: judgement.rollback.clone(),
            fallbacks: judgement.fallbacks.clone(),
            holds: judgement.holds.clone(),
            any_fail: judgement.reports.iter().any(|r| r.verdict == Verdict::Fail),
            passes: judgement.passes,
            split_unknown: judgement.iid_assumed,
            sample_ratio_suspended: judgement.sample_ratio_suspended,
            sample_ratio_fired: judgement.sample_ratio_fired,
            breaker: match (breaker.fires, breaker.common_outage) {
                (true, _) => Breaker::Fired,
                (_, true) => Breaker::CommonOutage,
                _ => Breaker::Quiet,
            },
            n_blue: judgement.n_blue,
            n_green: judgement.n_green,
            n_green_step: tally.green_on_step,
            reason,
            refused: None,
            n_pairs: 0,
            quiet: Quiet::default(),
            impaired: impaired.map(str::to_owned),
            obstacle: tally.obstacle(row),
            traffic,
            fallen: Vec::new(),
        };
        Reading {
            judgement,
            breaker,
            finding,
            minutes,
            counted_from: state.counted_from,
            watching: watching(state.phase),
        }
    }

    /// A cohort that went back to blue is no longer split: from then on it would look like a wrong sample ratio.
    fn leave_out_fallen(&mut self, all: &Minutes, fallen: &[Fallen], resolution: Duration) -> Minutes {
        let moved: Vec<(&str, i64)> = fallen
            .iter()
            .filter(|f| f.moved)
            .map(|f| (f.cohort.as_str(), slot_after(f.since, resolution) - seconds(resolution)))
            .collect();
        if moved.is_empty() {
            return all.clone();
        }
        if self.fallen != moved.len() {
            self.without_fallen.clear();
            self.fallen = moved.len();
        }
        let gone = |s: &Series, at: i64| {
            s.cohort
                .as_deref()
                .is_some_and(|c| moved.iter().any(|(m, since)| *m == c && at >= *since))
        };
        self.without_fallen.retain(|at, _| all.contains_key(at));
        all.iter()
            .filter_map(|(&at, minute)| {
                let kept = match self.without_fallen.get(&at) {
                    Some((source, kept)) if Arc::ptr_eq(source, minute) => Arc::clone(kept),
                    _ => {
                        let kept: Minute = minute
                            .iter()
                            .filter(|(s, _)| !gone(s, at))
                            .map(|(s, c)| (s.clone(), Arc::clone(c)))
                            .collect();
                        let kept = Arc::new(kept);
                        self.without_fallen.insert(at, (Arc::clone(minute), Arc::clone(&kept)));
                        kept
                    }
                };
                (!kept.is_empty()).then_some((at, kept))
            })
            .collect()
    }
}

fn seconds(resolution: Duration) -> i64 {
    i64::try_from(resolution.as_secs()).unwrap_or(60).max(1)
}

/// Plain counts beside the gates.
#[derive(Debug, Default)]
struct Tally {
    green_on_step: i64,
    marked: i64,
    unmarked: i64,
    /// Events and traces, recently.
    mixed: (i64, i64),
    /// Over the headroom window: green and all traces, green calls and tokens, seconds.
    window: (i64, i64, i64, i64, i64),
}

fn tally(row: &ReleaseRow, all: &Minutes, now: Nanos, resolution: Duration) -> (Vec<Slot>, Tally) {
    let width = seconds(resolution);
    let now_secs = now.0.div_euclid(1_000_000_000);
    // traces of a slot are seen when they close, a little after it
    let seen = now_secs - width - width.clamp(1, 10);
    let stepped = row.state.stepped_at.map(|at| slot_after(at, resolution));
    let window = now_secs - i64::try_from(HEADROOM_WINDOW.as_secs()).unwrap_or(600);
    let counted = row.state.counted_from;
    let mut tally = Tally::default();
    let mut traffic = Vec::new();
    for (&at, minute) in all {
        let mut slot = Slot { at, blue: 0, green: 0 };
        let recent = stepped.is_some_and(|s| at >= s) && at >= window && at <= seen;
        // `traces` is the first metric; only recent minutes are read further
        let old = at < window;
        let read = minute.iter().take_while(|(s, _)| !old || s.metric == Metric::Traces);
        for (series, cell) in read {
            match (&series.metric, series.grain, series.color) {
                (Metric::Traces, Grain::Trace, Color::Blue) => slot.blue += cell.n,
                (Metric::Traces, Grain::Trace, Color::Green) => {
                    slot.green += cell.n;
                    if series.admitted && stepped.is_some_and(|s| at >= s) {
                        tally.green_on_step += cell.n;
                    }
                }
                (Metric::Traces, Grain::Trace, Color::Unmarked) if at >= counted => {
                    tally.unmarked += cell.n;
                }
                (Metric::MixedManifest, Grain::Trace, Color::Blue | Color::Green) if at >= counted => {
                    tally.mixed.0 += cell.events;
                    tally.mixed.1 += cell.n;
                }
                (Metric::AttemptError, Grain::Attempt, Color::Green) if recent => {
                    tally.window.2 += cell.n;
                }
                (Metric::PromptTokens | Metric::CompletionTokens, Grain::Trace, Color::Green) if recent => {
                    tally.window.3 += cell.sum;
                }
                _ => {}
            }
        }
        if at >= counted {
            tally.marked += slot.blue + slot.green;
        }
        if recent {
            tally.window.0 += slot.green;
            tally.window.1 += slot.green + slot.blue;
            tally.window.4 += width;
        }
        if at <= seen {
            traffic.push(slot);
        }
    }
    let skip = traffic.len().saturating_sub(SLOTS_MAX);
    traffic.drain(..skip);
    (traffic, tally)
}

impl Tally {
    /// What forbids promotion beside the gates.
    fn obstacle(&self, row: &ReleaseRow) -> Option<String> {
        let share = |part: i64, of: i64| part as f64 / of.max(1) as f64;
        let unmarked = share(self.unmarked, self.unmarked + self.marked);
        if unmarked > UNCLEAR_SHARE_MAX {
            return Some(format!("unmarked: {:.1} % of traces have no color", 100.0 * unmarked));
        }
        let mixed = share(self.mixed.0, self.mixed.1);
        if mixed > UNCLEAR_SHARE_MAX {
            return Some(format!(
                "mixed_manifest: {:.1} % of traces are of a version seen with several manifests",
                100.0 * mixed
            ));
        }
        self.headroom(row)
    }

    /// Green at share w used R, so the whole route needs R / w.
    fn headroom(&self, row: &ReleaseRow) -> Option<String> {
        let (green, traces, calls, tokens, secs) = self.window;
        if green == 0 || secs == 0 {
            return None;
        }
        let at_full = |used: i64| {
            let a_minute = used as f64 * 60.0 / secs as f64;
            a_minute * traces as f64 / green as f64
        };
        let quota = &row.spec.quota;
        [
            (calls, quota.requests_per_minute, "requests"),
            (tokens, quota.tokens_per_minute, "tokens"),
        ]
        .into_iter()
        .find_map(|(used, limit, what)| {
            let limit = limit? as f64;
            let needed = at_full(used);
            (needed > limit)
                .then(|| format!("quota: the whole route on green needs {needed:.0} {what} a minute of {limit:.0}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check, life::ReleaseState};
    use proto::{Cell, CellKey};

    const FILE: &str = include_str!("../../tests/it/release.toml");

    fn row() -> ReleaseRow {
        let mut spec = check::check(FILE, "x").releases.remove(0);
        spec.quota.requests_per_minute = Some(6_000);
        let mut state = ReleaseState::open(&spec, Nanos::from_secs(0), Duration::from_secs(1));
        state.counted_from = 0;
        state.stepped_at = Some(Nanos::ZERO);
        ReleaseRow {
            rules_hash: String::new(),
            declared_at: Nanos::ZERO,
            declared_by: String::new(),
            people: Vec::new(),
            state,
            spec,
        }
    }

    fn cells(of: &[(i64, Metric, Grain, Color, &str, i64)]) -> CellTable {
        let mut table = CellTable::default();
        for (at, metric, grain, color, cohort, n) in of {
            let key = CellKey {
                scope: scope(&row()),
                minute: *at,
                series: Series {
                    metric: metric.clone(),
                    grain: *grain,
                    cohort: Some((*cohort).into()),
                    split_ppm: Some(250_000),
                    color: *color,
                    admitted: true,
                },
            };
            for _ in 0..*n {
                table.apply(&key, &Cell::unit(false), 1);
            }
        }
        table
    }

    fn read(row: &ReleaseRow, cells: &CellTable) -> Reading {
        let now = Nanos::from_secs(100);
        Reader::default().read(row, cells, None, "", now, Duration::from_secs(1))
    }

    #[test]
    fn unmarked_traffic_and_a_small_quota_stand_in_the_way_of_promotion() {
        use Color::{Blue, Green, Unmarked};
        let trace = |color, n| (50, Metric::Traces, Grain::Trace, color, "a", n);
        let table = cells(&[trace(Blue, 80), trace(Green, 10), trace(Unmarked, 10)]);
        let why = read(&row(), &table).finding.obstacle.unwrap();
        assert!(why.contains("unmarked: 10.0 %"), "{why}");

        // 25 % of a second's traffic made 40 calls: all of it would make 160 a second, 9,600 a minute
        let calls = (50, Metric::AttemptError, Grain::Attempt, Green, "a", 40);
        let table = cells(&[trace(Blue, 75), trace(Green, 25), calls]);
        let why = read(&row(), &table).finding.obstacle.unwrap();
        assert!(why.contains("9600 requests a minute of 6000"), "{why}");
    }

    #[test]
    fn a_cohort_that_fell_back_no_longer_counts_and_what_it_showed_before_still_does() {
        let mut row = row();
        row.state.fallen.push(Fallen {
            cohort: "a".into(),
            since: Nanos::from_secs(20),
            moved: true,
        });
        let trace = |at, color, cohort| (at, Metric::Traces, Grain::Trace, color, cohort, 5);
        let table = cells(&[
            trace(10, Color::Green, "a"),
            trace(10, Color::Blue, "b"),
            trace(30, Color::Blue, "a"),
            trace(30, Color::Blue, "b"),
            trace(40, Color::Blue, "a"),
        ]);
        let reading = read(&row, &table);
        let kept: i64 = reading.minutes.values().flat_map(|m| m.values()).map(|c| c.n).sum();
        assert_eq!(kept, 15);
        assert!(!reading.minutes.contains_key(&40));
        let seen: i64 = reading.finding.traffic.iter().map(|s| s.blue + s.green).sum();
        assert_eq!(seen, 25, "what is served is still watched");
    }
}
