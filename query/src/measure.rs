//! What gates ask of the rows: a [`MeasurePlan`] over one view becomes [`Measured`], as `proto::measure` says.
//!
//! ```text
//! pairs    rows of one mirror key, sorted, folded as they come      -> paired:<gate>
//! units    rows of one session or user, sorted, folded as they come -> grain session, user
//! sessions which sessions kept their color                          -> session_same
//! sql      the user's statement at moments of a fixed grid          -> sql:<gate>; remembered in SqlMemory
//! ```
//!
//! Rows are sorted by the engine, within its memory and with its spill files; what is held here grows with cells, not
//! with rows. What a trace says is read by the expressions of [`crate::metrics`], the same for live and sealed rows.

mod gathered;
mod grid;
mod memory;
mod pairs;
mod reads;
mod rows;
mod seen;
mod sessions;
mod statement;
mod units;
mod within;
mod worst;

pub use memory::SqlMemory;
pub use seen::{PATHS_MAX, seen};

use crate::{Engine, QueryError, View, parameters::Parameters};
use gathered::Gathered;
use proto::{
    Nanos,
    measure::{EVERY_GATE, MeasurePlan, Measured},
};
use std::{collections::BTreeMap, time::Duration};

/// Measures what `plan` asks for over `view`, as of `now`. What could not be measured is an obstacle with its reason, and
/// has no cells or only those of earlier moments. `memory` belongs to the release.
pub async fn measure(engine: &Engine, view: View, plan: &MeasurePlan, now: Nanos, memory: &mut SqlMemory) -> Measured {
    // mirroring begins before green serves, and its pairs go on counting
    let since_mirrored = MeasurePlan {
        from: plan.pairs_from,
        ..plan.clone()
    };
    let asked_of_pairs = Asked::new(engine, view.clone(), &since_mirrored, now);
    let asked = Asked::new(engine, view, plan, now);
    let mut out = Gathered::new(plan.minute_secs);
    let mut obstacles = BTreeMap::new();

    // What breaks off leaves nothing behind: a part of the pairs would be no sample of them.
    let part = || Gathered::new(plan.minute_secs);
    let mut pairs = part();
    match pairs::gather(&asked_of_pairs, &mut pairs, &mut obstacles).await {
        Ok(()) => out.absorb(pairs),
        Err(error) => {
            let of = plan.pairs.iter().map(|pair| pair.gate.to_string());
            obstacles.extend(of.map(|gate| (gate, format!("its pairs could not be counted: {error}"))));
        }
    }
    let mut units = part();
    match units::gather(&asked, &mut units).await {
        Ok(()) => out.absorb(units),
        Err(error) => {
            obstacles.insert(EVERY_GATE.to_owned(), format!("units could not be counted: {error}"));
        }
    }
    let mut sessions = part();
    match sessions::gather(&asked, &mut sessions).await {
        Ok(()) => out.absorb(sessions),
        Err(error) => {
            let why = format!("sessions could not be counted: {error}");
            obstacles.entry(EVERY_GATE.to_owned()).or_insert(why);
        }
    }
    memory.follow(&asked, &mut out, &mut obstacles).await;
    Measured {
        at: now,
        minutes: out.into_minutes(),
        obstacles,
        shadow_cost_nano: shown(worst::shadow_cost(&asked).await).flatten(),
        worst: shown(worst::traces(&asked).await).unwrap_or_default(),
    }
}

/// What is only shown is left out where it cannot be had.
fn shown<T>(answer: Result<T, QueryError>) -> Option<T> {
    answer
        .inspect_err(|error| tracing::warn!(%error, "a part of what a release shows could not be read"))
        .ok()
}

/// What is measured, over what, and up to when.
struct Asked<'a> {
    engine: &'a Engine,
    view: View,
    plan: &'a MeasurePlan,
    /// Last start that counts.
    until: Nanos,
}

/// Traces `t` of the release that are old enough.
const ADMITTED: &str = "t.release = $release AND t.start_time >= $from AND t.start_time <= $until";

/// Where spans of such traces lie: clocks of a trace's spans may differ, though not by a day.
const SPANS_SINCE: &str = "start_time >= $from - INTERVAL '1 day'";

/// A text as it stands, without the buffers and dictionaries of the batch it was read with: rows that are sorted keep what
/// they hold, and memory is counted for each batch.
fn plain(column: &str) -> String {
    format!("arrow_cast({column}, 'Utf8')")
}

impl<'a> Asked<'a> {
    fn new(engine: &'a Engine, view: View, plan: &'a MeasurePlan, now: Nanos) -> Self {
        let wait = Duration::from_secs(u64::try_from(plan.admitted_after_secs).unwrap_or(0));
        Self {
            engine,
            view,
            plan,
            until: now.minus(wait),
        }
    }

    /// Values of [`ADMITTED`].
    fn parameters(&self) -> Parameters {
        Parameters::default()
            .text("release", &self.plan.release)
            .time("from", self.plan.from)
            .time("until", self.until)
    }

    /// Runs one of our own statements and hands over its rows batch by batch.
    async fn each(&self, sql: &str, take: impl FnMut(&rows::Rows)) -> Result<(), QueryError> {
        rows::each(self.engine, self.view.clone(), sql, self.parameters(), take).await
    }
}
