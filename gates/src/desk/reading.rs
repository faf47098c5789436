//! What the cells say about one release at one time, brought into the form its life depends on.
//!
//! Pure but for memory: the reader keeps how it turned minutes that did not change.

use super::{GateInput, evidence::watching, tally::tally};
use crate::{
    judge::{self, Baseline, BreakerReading, Judge, JudgeInput, Judgement, PairKey, freeze, new_pairs},
    ledger::ReleaseRow,
    life::{Breaker, Fallen, Finding, Quiet, ReleaseState, slot_after},
};
use proto::{
    Nanos,
    cell::{Minute, Minutes, Scope, Series},
    decision::{Headroom, Verdict},
    measure::Measured,
    release::Unit,
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// One reading.
#[derive(Debug, Clone)]
pub(crate) struct Reading {
    pub judgement: Judgement,
    pub breaker: BreakerReading,
    pub finding: Finding,
    /// The cells it was computed from, fallen cohorts left out.
    pub minutes: Arc<Minutes>,
    /// What rows were asked for.
    pub measured: Arc<Measured>,
    /// Its cells, fallen cohorts left out.
    pub measured_minutes: Arc<Minutes>,
    /// First counted minute, unix seconds, as it was then.
    pub counted_from: i64,
    /// First counted minute of pairs.
    pub measured_from: i64,
    /// Gates that were muted.
    pub muted: Vec<String>,
    /// Whether green alone served, as it was then.
    pub watching: bool,
    /// What the whole route would need of green's provider.
    pub headroom: Vec<Headroom>,
}

/// First moment from which pairs count, unix seconds.
pub(super) fn pairs_from(state: &ReleaseState, resolution: Duration) -> i64 {
    let mirrored = state.mirroring_since.map(|at| slot_after(at, resolution));
    mirrored.map_or(state.counted_from, |at| at.min(state.counted_from))
}

/// Reads one release again and again.
#[derive(Debug, Default)]
pub(crate) struct Reader {
    judge: Judge,
    breaker: judge::Breaker,
    /// Minutes without the cohorts that fell back, beside the ones they were made from.
    without_fallen: BTreeMap<i64, (Arc<Minute>, Arc<Minute>)>,
    /// The same of measured minutes, all at once.
    measured: Option<(Arc<Minutes>, Arc<Minutes>)>,
    fallen: usize,
}

/// Freezes the baseline and appends new pairs when their time has come; true if the state changed. Must be persisted
/// before anything is judged by it.
pub(crate) fn prepare(
    row: &mut ReleaseRow,
    input: &GateInput,
    now: Nanos,
    resolution: Duration,
    late: &mut String,
) -> bool {
    let cells = &input.cells;
    let before = (row.state.baseline.is_some(), row.state.order.len());
    late.clear();
    if row.state.baseline.is_none() {
        match frozen(row, input, now) {
            Ok((baseline, shaped)) => {
                row.state.baseline = Some(baseline);
                // what shaped the thresholds is not held against them
                let counted = slot_after(shaped, resolution);
                row.state.counted_from = row.state.counted_from.max(counted);
            }
            Err(why) => *late = why,
        }
    }
    let measured = input.measured.get(&row.spec.id);
    let (units, from) = match row.spec.unit {
        // shadow traffic makes no cells, but pairs of it may be the first that a gate sees
        Unit::Trace => (cells.minutes(&scope(row)), pairs_from(&row.state, resolution)),
        Unit::Session | Unit::User => (measured.map(|m| &*m.minutes), row.state.counted_from),
    };
    if let Some(minutes) = units {
        let new = new_pairs(&row.spec, minutes, from, &row.state.order);
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
fn frozen(row: &ReleaseRow, input: &GateInput, now: Nanos) -> Result<(Baseline, Nanos), String> {
    let cells = &input.cells;
    let measured = input.measured.get(&row.spec.id).map(|m| &*m.minutes);
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
        return Ok((baseline, opened));
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
        let minutes = [cells.minutes(&inside), measured];
        let range = minutes
            .into_iter()
            .flatten()
            .flat_map(move |m| m.range(secs(opened)..end.max(secs(opened))));
        range.flat_map(|(_, minute)| minute.iter().map(|(s, c)| (s, &**c)))
    };
    let said = "blue before the release and in its warm-up".to_owned();
    let in_time = freeze(spec, history().chain(until(secs(warm))), now, said).map(|baseline| (baseline, warm));
    in_time.or_else(|_| {
        let end = now.minus(spec.timeout + spec.grace);
        let said = "blue before the release and in its warm-up, made longer for lack of traffic";
        freeze(spec, history().chain(until(secs(end))), now, said.to_owned()).map(|baseline| (baseline, end))
    })
}

impl Reader {
    pub fn read(
        &mut self,
        row: &ReleaseRow,
        input: &GateInput,
        late: &str,
        now: Nanos,
        resolution: Duration,
    ) -> Reading {
        let state = &row.state;
        let empty = Minutes::new();
        let all = input.cells.minutes(&scope(row)).unwrap_or(&empty);
        let mut minutes = self.leave_out_fallen(all, &state.fallen, resolution);
        minutes.retain(|at, _| !state.is_silent(*at));
        let minutes = Arc::new(minutes);
        let measured = input.measured.get(&row.spec.id).map(Arc::clone).unwrap_or_default();
        let measured_minutes = self.measured_without_fallen(&measured.minutes, &state.fallen, resolution);
        let measured_from = pairs_from(state, resolution);
        let muted: Vec<String> = state.muted_gates(now).into_iter().map(str::to_owned).collect();
        let minute_secs = i64::try_from(resolution.as_secs()).unwrap_or(60).max(1);
        let judgement = self.judge.judge(&JudgeInput {
            spec: &row.spec,
            baseline: state.baseline.as_ref(),
            order: &state.order,
            minutes: &minutes,
            measured: &measured_minutes,
            measured_from,
            obstacles: &measured.obstacles,
            muted: &muted,
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
            any_fail: judgement.reports.iter().any(|r| {
                let pair = PairKey {
                    gate: r.name.clone(),
                    cohort: r.cohort.clone(),
                };
                r.verdict == Verdict::Fail && !r.dry_run && !state.is_out(&pair)
            }),
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
            refused: judgement.refused.clone(),
            n_pairs: judgement.n_pairs,
            quiet: match input.impaired {
                Some(_) => Quiet::default(),
                None => tally.quiet(state, now),
            },
            impaired: input.impaired.clone(),
            obstacle: judgement.blocked.clone().or_else(|| tally.obstacle(&row.spec)),
            traffic,
            fallen: tally.fallen.clone(),
        };
        Reading {
            judgement,
            breaker,
            headroom: tally.headroom(&row.spec),
            finding,
            minutes,
            measured,
            measured_minutes,
            counted_from: state.counted_from,
            measured_from,
            muted,
            watching: watching(state.phase),
        }
    }

    /// As [`Self::leave_out_fallen`], of what rows were asked for.
    fn measured_without_fallen(&mut self, all: &Arc<Minutes>, fallen: &[Fallen], resolution: Duration) -> Arc<Minutes> {
        let moved = moved(fallen, resolution);
        if moved.is_empty() {
            return Arc::clone(all);
        }
        if let Some((source, kept)) = &self.measured
            && Arc::ptr_eq(source, all)
        {
            return Arc::clone(kept);
        }
        let kept = all.iter().filter_map(|(&at, minute)| {
            let kept = without(minute, at, &moved);
            (!kept.is_empty()).then(|| (at, Arc::new(kept)))
        });
        let kept = Arc::new(kept.collect());
        self.measured = Some((Arc::clone(all), Arc::clone(&kept)));
        kept
    }

    /// A cohort that went back to blue is no longer split: from then on it would look like a wrong sample ratio.
    fn leave_out_fallen(&mut self, all: &Minutes, fallen: &[Fallen], resolution: Duration) -> Minutes {
        let moved = moved(fallen, resolution);
        if self.fallen != moved.len() {
            self.without_fallen.clear();
            self.measured = None;
            self.fallen = moved.len();
        }
        if moved.is_empty() {
            return all.clone();
        }
        self.without_fallen.retain(|at, _| all.contains_key(at));
        all.iter()
            .filter_map(|(&at, minute)| {
                let kept = match self.without_fallen.get(&at) {
                    Some((source, kept)) if Arc::ptr_eq(source, minute) => Arc::clone(kept),
                    _ => {
                        let kept = Arc::new(without(minute, at, &moved));
                        self.without_fallen.insert(at, (Arc::clone(minute), Arc::clone(&kept)));
                        kept
                    }
                };
                (!kept.is_empty()).then_some((at, kept))
            })
            .collect()
    }
}

/// Cohorts that went back to blue, each with the first minute that is left out.
fn moved(fallen: &[Fallen], resolution: Duration) -> Vec<(&str, i64)> {
    let moved = fallen.iter().filter(|f| f.moved);
    moved
        .map(|f| (f.cohort.as_str(), slot_after(f.since, resolution) - seconds(resolution)))
        .collect()
}

fn without(minute: &Minute, at: i64, moved: &[(&str, i64)]) -> Minute {
    let gone = |s: &Series| {
        s.cohort
            .as_deref()
            .is_some_and(|c| moved.iter().any(|(m, since)| *m == c && at >= *since))
    };
    let kept = minute.iter().filter(|(s, _)| !gone(s));
    kept.map(|(s, c)| (s.clone(), Arc::clone(c))).collect()
}

pub(super) fn seconds(resolution: Duration) -> i64 {
    i64::try_from(resolution.as_secs()).unwrap_or(60).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{check, life::ReleaseState};
    use proto::{Cell, CellKey, CellTable, Color, Grain, Metric};

    const FILE: &str = include_str!("../../tests/it/release.toml");

    fn row() -> ReleaseRow {
        let mut spec = check::check(FILE, "x").releases.remove(0);
        spec.quota.requests_per_minute = Some(6_000);
        let mut state = ReleaseState::open(&spec, Nanos::from_secs(0), Duration::from_secs(1), None);
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
        let input = GateInput {
            cells: cells.clone(),
            ready: true,
            ..GateInput::default()
        };
        Reader::default().read(row, &input, "", now, Duration::from_secs(1))
    }

    #[test]
    fn unmarked_traffic_and_a_small_quota_stand_in_the_way_of_promotion() {
        use Color::{Blue, Green, Unmarked};
        let trace = |color, n| (50, Metric::Traces, Grain::Trace, color, "a", n);
        let lost = (50, Metric::Unmarked, Grain::Trace, Unmarked, "a", 100);
        let mut table = cells(&[trace(Blue, 80), trace(Green, 10), trace(Unmarked, 10), lost]);
        let (key, _) = table.iter().find(|(k, _)| k.series.metric == Metric::Unmarked).unwrap();
        let events = Cell {
            events: 10,
            ..Cell::default()
        };
        table.apply(&key, &events, 1);
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
            proven_at: None,
            escalated: false,
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

    #[test]
    fn minutes_of_a_silence_belong_to_no_split() {
        let mut row = row();
        let trace = |at, color, n| (at, Metric::Traces, Grain::Trace, color, "a", n);
        let mut told = vec![trace(10, Color::Blue, 30), trace(10, Color::Green, 10)];
        told.extend((11..60).map(|at| trace(at, Color::Blue, 30)));
        let silent = read(&row, &cells(&told));
        assert_eq!(silent.judgement.n_blue, 50 * 30);
        assert!(!silent.judgement.sample_ratio_suspended, "green may yet be back");
        told.extend([trace(60, Color::Blue, 30), trace(60, Color::Green, 10)]);
        assert!(read(&row, &cells(&told)).judgement.sample_ratio_fired);
        row.state.silences.push((11, 60));
        let kept = read(&row, &cells(&told));
        assert_eq!((kept.judgement.n_blue, kept.judgement.n_green), (60, 20));
        assert!(!kept.judgement.sample_ratio_suspended);
    }
}
