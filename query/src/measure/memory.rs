//! What SQL gates have counted so far, moment by moment, and how that is kept true while late data change the past.
//!
//! A statement counts everything up to a moment, so the difference of two moments is what happened between them, and it goes
//! under the minute and the split of the earlier one. Before anything new is counted the last moment is counted again, over
//! the rows of now. If that differs, the past has changed, and it matters where: a label that came late belongs to the split
//! under which its trace ran. Where it changed is found by halving: if the counts of two moments have moved by the same, it is taken
//! that all between have. A count that falls over the *same* rows is a statement that does not count cumulatively.

use super::{
    Asked,
    gathered::{Gathered, Place},
    grid::{moments, split_at},
    statement::{self, Counts},
};
use crate::engine::Stretch;
use proto::{
    Color, Grain, Metric, Nanos,
    measure::{MeasurePlan, SqlPlan},
};
use std::{collections::BTreeMap, ops::Bound, sync::Arc, time::Duration};

/// Statements that are run in one call, of all gates together.
const STATEMENTS_MAX: usize = 64;
/// Time that they may take; what is left is done in the next call.
const TIME_MAX: Duration = Duration::from_secs(20);

/// Counts of the SQL gates of one release. It may be lost: everything is then counted again, over a few calls.
#[derive(Debug, Clone, Default)]
pub struct SqlMemory {
    gates: BTreeMap<Arc<str>, Gate>,
}

/// What a gate's counts depend on.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Question {
    release: Arc<str>,
    from: Nanos,
    minute_secs: i64,
    sql: String,
}

#[derive(Debug, Clone)]
struct Gate {
    question: Question,
    counts: BTreeMap<Nanos, Counts>,
    /// Where the past has changed, and it is not known yet at which moment.
    gaps: Vec<Gap>,
    /// Everything is being counted again.
    again: bool,
}

/// Moments between which counts have moved by different amounts.
#[derive(Debug, Clone, Copy)]
struct Gap {
    /// `None`: before the first, where everything is zero.
    low: Option<Nanos>,
    moved_low: Counts,
    high: Nanos,
    moved_high: Counts,
}

/// Why a call ends before everything is counted.
enum Stop {
    /// Enough for one call.
    Spent,
    /// In words.
    Obstacle(String),
}

/// What one gate may still do in this call.
struct Allowance {
    left: usize,
    stretch: Stretch,
}

impl SqlMemory {
    /// Counts what is new and what has changed, and adds the cells.
    pub(super) async fn follow(
        &mut self,
        asked: &Asked<'_>,
        out: &mut Gathered,
        obstacles: &mut BTreeMap<String, String>,
    ) {
        let plan = asked.plan;
        self.gates
            .retain(|name, _| plan.sql.iter().any(|gate| gate.gate == *name));
        let moments = moments(plan, asked.until);
        let stretch = Stretch::of(TIME_MAX);
        for sql in &plan.sql {
            let gate = self.gate(plan, sql);
            gate.counts.retain(|at, _| moments.binary_search(at).is_ok());
            let mut allowance = Allowance {
                left: (STATEMENTS_MAX / plan.sql.len()).max(1),
                stretch,
            };
            if let Err(stop) = gate.catch_up(asked, &moments, &mut allowance).await {
                let why = match stop {
                    Stop::Obstacle(why) => why,
                    Stop::Spent => gate.progress(moments.len()),
                };
                obstacles.insert(sql.gate.to_string(), why);
            }
            gate.gather(plan, &sql.gate, &moments, out);
        }
    }

    fn gate(&mut self, plan: &MeasurePlan, sql: &SqlPlan) -> &mut Gate {
        let question = Question {
            release: Arc::clone(&plan.release),
            from: plan.from,
            minute_secs: plan.minute_secs,
            sql: sql.sql.clone(),
        };
        let fresh = |question| Gate {
            question,
            counts: BTreeMap::new(),
            gaps: Vec::new(),
            again: false,
        };
        let gate = self
            .gates
            .entry(Arc::clone(&sql.gate))
            .or_insert_with(|| fresh(question.clone()));
        if gate.question != question {
            *gate = fresh(question);
        }
        gate
    }
}

impl Gate {
    async fn catch_up(&mut self, asked: &Asked<'_>, moments: &[Nanos], allowance: &mut Allowance) -> Result<(), Stop> {
        self.settle(asked, allowance).await?;
        let missing: Vec<Nanos> = moments
            .iter()
            .filter(|at| !self.counts.contains_key(at))
            .copied()
            .collect();
        if missing.is_empty() {
            return Ok(());
        }
        self.look_back(asked, allowance).await?;
        for at in missing {
            let now = self.count(asked, at, allowance).await?;
            let before = self.counts.range(..at).next_back().map(|(at, counts)| (*at, *counts));
            if let Some((then, before)) = before
                && let Some(what) = now.fallen(before)
            {
                return Err(Stop::Obstacle(format!(
                    "counts fell: {what} between {} and {}; a gate counts cumulatively, everything of the release that started before $admitted_before",
                    then.rfc3339(),
                    at.rfc3339()
                )));
            }
            self.counts.insert(at, now);
        }
        if self.falls_at().is_some() {
            // Pieces that were counted over different rows do not fit together.
            self.counts.clear();
            self.again = true;
            return Err(Stop::Spent);
        }
        self.again = false;
        Ok(())
    }

    /// Counts the last moment again; if it has moved, finds out where.
    async fn look_back(&mut self, asked: &Asked<'_>, allowance: &mut Allowance) -> Result<(), Stop> {
        let Some((&last, &before)) = self.counts.last_key_value() else {
            return Ok(());
        };
        let now = self.count(asked, last, allowance).await?;
        let moved = now.since(before);
        if moved != Counts::default() {
            self.counts.insert(last, now);
            self.gaps.push(Gap {
                low: None,
                moved_low: Counts::default(),
                high: last,
                moved_high: moved,
            });
        }
        self.settle(asked, allowance).await
    }

    /// Halves every gap until it is known where counts have moved.
    async fn settle(&mut self, asked: &Asked<'_>, allowance: &mut Allowance) -> Result<(), Stop> {
        while let Some(&gap) = self.gaps.last() {
            let from = gap.low.map_or(Bound::Unbounded, Bound::Excluded);
            let between = (from, Bound::Excluded(gap.high));
            let inside: Vec<Nanos> = self.counts.range(between).map(|(at, _)| *at).collect();
            if gap.moved_low == gap.moved_high || inside.is_empty() {
                for at in &inside {
                    if let Some(counts) = self.counts.get_mut(at) {
                        *counts = counts.plus(gap.moved_low);
                    }
                }
                self.gaps.pop();
                continue;
            }
            let middle = middle(asked.plan, &inside);
            let now = self.count(asked, middle, allowance).await?;
            let moved = now.since(self.counts.insert(middle, now).unwrap_or_default());
            self.gaps.pop();
            self.gaps.push(Gap {
                low: Some(middle),
                moved_low: moved,
                ..gap
            });
            self.gaps.push(Gap {
                high: middle,
                moved_high: moved,
                ..gap
            });
        }
        Ok(())
    }

    async fn count(&self, asked: &Asked<'_>, at: Nanos, allowance: &mut Allowance) -> Result<Counts, Stop> {
        if allowance.left == 0 || allowance.stretch.is_over() {
            return Err(Stop::Spent);
        }
        allowance.left -= 1;
        statement::count(asked, &self.question.sql, at)
            .await
            .map_err(Stop::Obstacle)
    }

    fn progress(&self, moments: usize) -> String {
        let (known, unsure) = (self.counts.len(), self.gaps.len());
        if unsure > 0 {
            format!("late data changed its counts; they are being read again ({unsure} stretches left)")
        } else if self.again {
            format!("late data changed its counts; they are being read again ({known} of {moments} moments)")
        } else {
            format!("{known} of {moments} moments are counted; the rest follows")
        }
    }

    /// The first moment at which counts are less than before.
    fn falls_at(&self) -> Option<Nanos> {
        let later = self.counts.iter().skip(1);
        self.counts
            .values()
            .zip(later)
            .find_map(|(before, (at, now))| now.fallen(*before).map(|_| *at))
    }

    /// Adds a cell of either color for every stretch between two moments, as far as all is counted.
    fn gather(&self, plan: &MeasurePlan, gate: &Arc<str>, moments: &[Nanos], out: &mut Gathered) {
        let metric = Metric::Sql(Arc::clone(gate));
        let falls_at = self.falls_at();
        for stretch in moments.windows(2) {
            let (Some(before), Some(now)) = (self.counts.get(&stretch[0]), self.counts.get(&stretch[1])) else {
                return;
            };
            if falls_at == Some(stretch[1]) {
                return;
            }
            let new = now.since(*before);
            for (color, i) in [(Color::Blue, 0), (Color::Green, 2)] {
                let place = Place {
                    minute: out.minute_of(stretch[0]),
                    cohort: None,
                    split_ppm: split_at(plan, stretch[0]),
                    color,
                };
                let cell = out.cell(place, &metric, Grain::Trace);
                cell.events += new.0[i];
                cell.n += new.0[i + 1];
            }
        }
    }
}

/// Where a gap is halved: where the split changes first, because a count under the wrong split is worse than one under the
/// wrong minute.
fn middle(plan: &MeasurePlan, inside: &[Nanos]) -> Nanos {
    let half = inside.len() / 2;
    let changes = inside.iter().enumerate().filter(|(_, at)| {
        let found = plan.splits.binary_search_by_key(at, |(since, _)| since);
        found.is_ok()
    });
    changes
        .min_by_key(|(i, _)| i.abs_diff(half))
        .map_or(inside[half], |(_, at)| *at)
}
