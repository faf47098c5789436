//! The breaker: a limit test on green's failed attempts, fast enough for a burst.
//!
//! It counts attempts as they end, admitted or not, and has its own share of alpha. It fires only while blue stays
//! within the same limit: a common outage is not green's.

use super::{
    baseline::{BREAKER_MAX_MIN, BREAKER_TIMES, Baseline},
    column::{Column, Row, changed},
    units::natural_grain,
};
use crate::stats::{BETS, LateStarts, ShareBet, log_space::ln};
use proto::{
    Cell, Color, Metric,
    cell::{Minute, Minutes, Series},
    release::ReleaseSpec,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// A declared or derived limit is at most this, so that a bet against it exists.
const LIMIT_MAX: f64 = 0.95;

/// What the breaker reads. E-values are natural logs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BreakerReading {
    /// Highest tolerable share of failed attempts.
    pub limit: f64,
    /// Evidence that green is above it.
    pub log_e_green: f64,
    /// Evidence that blue is.
    pub log_e_blue: f64,
    /// `log_e_green` at which it fires.
    pub threshold: f64,
    /// Green attempts and how many of them failed.
    pub green: (i64, i64),
    /// Blue's.
    pub blue: (i64, i64),
    /// Green is above the limit and blue is not known to be: roll back.
    pub fires: bool,
    /// Both are: hold, and page.
    pub common_outage: bool,
}

/// Attempts of one second (or minute, where seconds are not known), `[blue, green]`.
#[derive(Debug, Clone, Copy)]
struct Attempts {
    /// Its start, unix seconds.
    at: i64,
    n: [i64; 2],
    failed: [i64; 2],
}

impl Row for Attempts {
    fn place(&self) -> (i64, u32) {
        (self.at, 0)
    }

    fn absorb(&mut self, other: &Self) {
        for arm in [0, 1] {
            self.n[arm] += other.n[arm];
            self.failed[arm] += other.failed[arm];
        }
    }
}

/// Reads one release again and again: remembers minutes that did not change.
#[derive(Debug, Default)]
pub struct Breaker {
    /// (limit, start, width) that the column was walked for.
    basis: Option<(f64, i64, i64)>,
    minutes: BTreeMap<i64, Arc<Minute>>,
    column: Column<Attempts, [LateStarts; 2]>,
}

/// Reads once. Same as a fresh [`Breaker`].
#[must_use]
pub fn breaker(
    spec: &ReleaseSpec,
    baseline: Option<&Baseline>,
    minutes: &Minutes,
    counted_from: i64,
    minute_secs: i64,
) -> BreakerReading {
    Breaker::default().read(spec, baseline, minutes, counted_from, minute_secs)
}

impl Breaker {
    /// Reads attempts from `counted_from` (unix seconds: the release's start) on. Cells have minutes of `minute_secs`;
    /// late starts are told apart by the second.
    pub fn read(
        &mut self,
        spec: &ReleaseSpec,
        baseline: Option<&Baseline>,
        minutes: &Minutes,
        counted_from: i64,
        minute_secs: i64,
    ) -> BreakerReading {
        let limit = limit(spec, baseline);
        let width = minute_secs.max(1);
        let origin = counted_from + (-counted_from).rem_euclid(width);
        let basis = Some((limit, origin, width));
        if self.basis != basis {
            *self = Self {
                basis,
                ..Self::default()
            };
        }
        for (minute, cells) in changed(&self.minutes, minutes, origin) {
            let rows = cells.as_ref().map(|cells| attempts(minute, width, cells));
            self.column
                .replace(minute, minute + width, rows.unwrap_or_default().into_iter());
            match cells {
                Some(cells) => self.minutes.insert(minute, cells),
                None => self.minutes.remove(&minute),
            };
        }
        let bet = ShareBet::above(limit);
        let [blue_late, green_late] = self.column.walk(i64::MAX, |late, rows| {
            for (arm, late) in late.iter_mut().enumerate() {
                let mut earned = [0.0; BETS];
                for row in rows {
                    bet.add(row.failed[arm], row.n[arm] - row.failed[arm], &mut earned);
                }
                late.push(u64::try_from(rows[0].at - origin).unwrap_or(0), &earned);
            }
        });
        let mut sums = [(0, 0); 2];
        for row in self.column.rows() {
            for (arm, sum) in sums.iter_mut().enumerate() {
                *sum = (sum.0 + row.n[arm], sum.1 + row.failed[arm]);
            }
        }
        let (log_e_blue, log_e_green) = (blue_late.log_e(), green_late.log_e());
        let threshold = ln(1.0 / (spec.alpha * spec.breaker.alpha_share));
        let crossed = log_e_green >= threshold;
        let blue_too = log_e_blue >= ln(1.0 / spec.alpha);
        BreakerReading {
            limit,
            log_e_green,
            log_e_blue,
            threshold,
            green: sums[1],
            blue: sums[0],
            fires: crossed && !blue_too,
            common_outage: crossed && blue_too,
        }
    }
}

/// The declared limit, else five times blue's failure rate in the baseline, at least 5 %.
fn limit(spec: &ReleaseSpec, baseline: Option<&Baseline>) -> f64 {
    let derived = || {
        let blue = baseline.and_then(|b| b.attempt_error).unwrap_or(0.0);
        (BREAKER_TIMES * blue).max(BREAKER_MAX_MIN)
    };
    spec.breaker.max.unwrap_or_else(derived).min(LIMIT_MAX)
}

/// Attempts of one minute by second, in order; admitted or not, at any split, in any cohort.
fn attempts(minute: i64, width: i64, cells: &Minute) -> Vec<Attempts> {
    let mut seconds: BTreeMap<i64, Attempts> = BTreeMap::new();
    let mut put = |second: i64, color: Color, n: i64, failed: i64| {
        let arm = match color {
            Color::Blue => 0,
            Color::Green => 1,
            Color::Unmarked => return,
        };
        let at = minute + second.clamp(0, width - 1);
        let row = seconds.entry(at).or_insert(Attempts {
            at,
            n: [0; 2],
            failed: [0; 2],
        });
        row.n[arm] += n;
        row.failed[arm] += failed;
    };
    let mut by_second = false;
    for (series, cell) in of(cells, &Metric::AttemptSeconds) {
        by_second = true;
        for (bucket, count) in cell.hdr.iter() {
            let failed = if bucket % 2 == 1 { count } else { 0 };
            put(i64::from(bucket / 2), series.color, count, failed);
        }
    }
    if !by_second {
        for (series, cell) in of(cells, &Metric::AttemptError) {
            put(0, series.color, cell.n, cell.events);
        }
    }
    seconds.retain(|_, row| row.n != [0; 2]);
    seconds.into_values().collect()
}

/// Cells of a metric of attempts.
fn of<'a>(cells: &'a Minute, metric: &'a Metric) -> impl Iterator<Item = (&'a Series, &'a Arc<Cell>)> {
    let grain = natural_grain(metric);
    let first = Series {
        metric: metric.clone(),
        grain,
        cohort: None,
        split_ppm: None,
        color: Color::Blue,
        admitted: false,
    };
    let range = cells.range(first..);
    range.take_while(move |(s, _)| s.metric == *metric && s.grain == grain)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::{CellKey, CellTable, cell::Scope};

    fn spec() -> ReleaseSpec {
        serde_json::from_value(serde_json::json!({
            "route": "chat", "id": "r", "mode": "act", "unit": "trace", "cohort": null, "baseline": "1h",
            "steps": [], "warmup": "0s", "min_traces": 1, "horizon": "1h", "approval": "none", "alpha": 0.01,
            "alpha_promote": 0.05, "no_data": "hold", "timeout": "1s", "grace": "1s",
            "blue": manifest(), "green": manifest(),
            "quota": {"requests_per_minute": null, "tokens_per_minute": null},
            "breaker": {"max": null, "alpha_share": 0.2}, "gate": [], "webhook": null,
        }))
        .unwrap()
    }

    fn manifest() -> serde_json::Value {
        serde_json::json!({
            "version": "1", "provider": "p", "model": "m", "prompt": "p@1", "tools": "t", "guardrails": "g",
            "cache": "c", "fallback": [], "policy": "p", "logging": "l", "pii": "p",
        })
    }

    /// 20 attempts a second and color for 100 s; from second 90 on the given number of them fails.
    fn read(fail_blue: i64, fail_green: i64) -> BreakerReading {
        let mut table = CellTable::default();
        let scope = Scope {
            route: "chat".into(),
            release: None,
        };
        for minute in 0..100 {
            for (color, fails) in [(Color::Blue, fail_blue), (Color::Green, fail_green)] {
                for i in 0..20 {
                    let key = CellKey {
                        scope: scope.clone(),
                        minute,
                        series: Series {
                            metric: Metric::AttemptError,
                            grain: natural_grain(&Metric::AttemptError),
                            cohort: None,
                            split_ppm: Some(500_000),
                            color,
                            admitted: minute < 95,
                        },
                    };
                    let failed = minute >= 90 && i < fails;
                    table.apply(&key, &Cell::unit(failed), 1);
                }
            }
        }
        breaker(&spec(), None, table.minutes(&scope).unwrap(), 0, 1)
    }

    #[test]
    fn a_burst_of_green_failures_trips_it_and_a_common_outage_does_not() {
        let healthy = read(0, 0);
        assert_eq!(healthy.limit, BREAKER_MAX_MIN);
        assert!(!healthy.fires && healthy.green == (2_000, 0));
        let burst = read(0, 12);
        assert!(burst.fires && !burst.common_outage, "{burst:?}");
        let outage = read(12, 12);
        assert!(!outage.fires && outage.common_outage, "{outage:?}");
    }

    /// An hour of 20 calls a second and color in minutes of 60 s; in the last five seconds twelve in twenty of green's fail.
    fn burst(by_second: bool) -> BreakerReading {
        let mut table = CellTable::default();
        let scope = Scope {
            route: "chat".into(),
            release: None,
        };
        for minute in 0..60 {
            for color in [Color::Blue, Color::Green] {
                let mut put = |metric: Metric, cell: &Cell| {
                    let series = Series {
                        grain: natural_grain(&metric),
                        metric,
                        cohort: None,
                        split_ppm: Some(500_000),
                        color,
                        admitted: false,
                    };
                    let key = CellKey {
                        scope: scope.clone(),
                        minute: minute * 60,
                        series,
                    };
                    table.apply(&key, cell, 1);
                };
                let bad = color == Color::Green && minute == 59;
                let failed = if bad { 60 } else { 0 };
                let whole = Cell {
                    n: 1_200,
                    events: failed,
                    ..Cell::default()
                };
                put(Metric::AttemptError, &whole);
                let mut seconds = Cell {
                    n: 1_200,
                    ..Cell::default()
                };
                for second in 0..60 {
                    let failed = if bad && second >= 55 { 12 } else { 0 };
                    seconds.hdr.add_bucket(2 * second, 20 - failed);
                    if failed > 0 {
                        seconds.hdr.add_bucket(2 * second + 1, failed);
                    }
                }
                if by_second {
                    put(Metric::AttemptSeconds, &seconds);
                }
            }
        }
        breaker(&spec(), None, table.minutes(&scope).unwrap(), 0, 60)
    }

    #[test]
    fn a_burst_within_a_minute_is_seen_by_the_second() {
        let seen = burst(true);
        assert!(seen.fires && seen.green == (72_000, 60), "{seen:?}");
        let blurred = burst(false);
        assert!(!blurred.fires && blurred.green == seen.green, "{blurred:?}");
    }
}
