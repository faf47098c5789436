//! Rules over history: what a release file would have decided, and when.
//!
//! ```text
//! traces of a route --tape--> cells, look by look --judge, breaker, life--> decisions
//! ```
//!
//! The same code decides as live: [`judge`](crate::judge) reads the cells, [`life`](crate::life) follows them. What
//! differs is that nobody follows the decisions. History's traffic stays as it was, so no step of the ramp is waited for,
//! a promotion moves nothing, and everything after a rollback is left out. The history is only as random as its split
//! was: where the split was not recorded the arms are compared as iid.

mod halves;
mod history;
mod peers;
mod replay;
mod tape;

pub use halves::{Halves, halves};
pub use history::{History, Seen, Unit, metrics_of};

use crate::life::slot_after;
use proto::{
    Color, Nanos,
    decision::{Action, GateReport, Verdict},
    release::ReleaseSpec,
};
use replay::{Watch, as_replayed, green_share, replay};
use serde::{Serialize, Serializer};
use std::time::Duration;
use tape::Cast;

/// How to replay.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// When the release is opened; blue before it freezes the baseline. `None`: with the first green trace.
    pub from: Option<Nanos>,
    /// Width of a minute of cells, whole seconds.
    pub resolution: Duration,
    /// Also replay the rules of others.
    pub peers: bool,
}

impl Options {
    /// Start of the minute that holds `at`.
    fn minute(&self, at: Nanos) -> Nanos {
        let next = slot_after(at, self.resolution);
        let width = i64::try_from(self.resolution.as_secs()).unwrap_or(60).max(1);
        if Nanos::from_secs(next) > at {
            Nanos::from_secs(next - width)
        } else {
            at
        }
    }
}

/// A decision that would have been taken.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Decided {
    /// When.
    #[serde(serialize_with = "rfc3339")]
    pub at: Nanos,
    /// Since the release was opened, seconds.
    pub after_secs: u64,
    /// What.
    pub action: Action,
    /// Cohort of a fallback.
    pub cohort: Option<String>,
    /// Why.
    pub reason: String,
    /// Blue traces compared by then.
    pub n_blue: i64,
    /// Green traces compared by then.
    pub n_green: i64,
    /// Gates at that moment.
    pub gates: Vec<GateReport>,
}

/// One gate (and cohort) over the whole time.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct GateOutcome {
    /// When it passed first, seconds since the release was opened.
    pub passed_after_secs: Option<u64>,
    /// When it failed first.
    pub failed_after_secs: Option<u64>,
    /// What it said last.
    pub last: GateReport,
}

/// What a rule of others would have done.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct PeerReport {
    /// Its name.
    pub name: String,
    /// When it would have rolled back.
    #[serde(serialize_with = "rfc3339_option")]
    pub rolled_back_at: Option<Nanos>,
    /// Why.
    pub reason: Option<String>,
}

/// A release replayed.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Backtest {
    /// Release.
    pub release: String,
    /// Route.
    pub route: String,
    /// When it was opened.
    #[serde(serialize_with = "rfc3339")]
    pub from: Nanos,
    /// Last look.
    #[serde(serialize_with = "rfc3339")]
    pub to: Nanos,
    /// Blue traces in between.
    pub n_blue: i64,
    /// Green traces in between.
    pub n_green: i64,
    /// What froze the thresholds; null if nothing did.
    pub baseline: Option<String>,
    /// Decisions, in order.
    pub decisions: Vec<Decided>,
    /// Verdict at the end.
    pub verdict: Verdict,
    /// What stood in the way of a decision at the end; empty if nothing.
    pub reason: String,
    /// Gates, overall pairs first.
    pub gates: Vec<GateOutcome>,
    /// No split was recorded: the arms were compared as iid.
    pub iid_assumed: bool,
    /// What else was assumed, in words.
    pub assumptions: Vec<String>,
    /// Rules of others on the same traces; empty unless asked for.
    pub peers: Vec<PeerReport>,
}

impl Backtest {
    /// What came of it, in one clause: `rolled back at 2026-11-20T14:02:00Z by p99 latency`.
    #[must_use]
    pub fn outcome(&self) -> String {
        let at = |d: &Decided| seconds(d.at);
        let first = |action| self.decisions.iter().find(|d| d.action == action);
        match (first(Action::Promote), first(Action::Rollback)) {
            (None, Some(back)) => format!("rolled back at {}: {}", at(back), back.reason),
            (Some(promoted), None) => format!("promoted at {}", at(promoted)),
            (Some(promoted), Some(back)) => format!(
                "promoted at {}, and rolled back at {}: {}",
                at(promoted),
                at(back),
                back.reason
            ),
            (None, None) if self.reason.is_empty() => "undecided at the end".to_owned(),
            (None, None) => format!("undecided at the end: {}", self.reason),
        }
    }
}

/// RFC 3339 in whole seconds.
#[must_use]
pub fn seconds(at: Nanos) -> String {
    chrono::DateTime::from_timestamp_nanos(at.0).to_rfc3339_opts(chrono::SecondsFormat::Secs, true)
}

fn rfc3339<S: Serializer>(at: &Nanos, s: S) -> Result<S::Ok, S::Error> {
    s.collect_str(&seconds(*at))
}

fn rfc3339_option<S: Serializer>(at: &Option<Nanos>, s: S) -> Result<S::Ok, S::Error> {
    match at {
        Some(at) => rfc3339(at, s),
        None => s.serialize_none(),
    }
}

/// Replays `spec` over `history`, which is [sorted](History::sort). `progress` hears the share done, in [0, 1].
///
/// # Errors
/// In words, why there is nothing to replay.
pub fn backtest(
    spec: &ReleaseSpec,
    history: &History,
    options: Options,
    progress: &mut dyn FnMut(f64),
) -> Result<Backtest, String> {
    let first_green = || {
        let green = history.units.iter().find(|u| u.color == Color::Green);
        green
            .map(|u| u.start)
            .ok_or_else(|| "no green trace in this history: nothing was on trial".to_owned())
    };
    let opened = options.minute(options.from.map_or_else(first_green, Ok)?);
    let watch = Watch {
        opened,
        resolution: options.resolution,
        every: options.resolution,
    };
    let (rules, assumptions) = as_replayed(spec, green_share(history, opened))?;
    let replayed = replay(&rules, history, Cast::AsItWas, watch, progress);
    let peers = if options.peers {
        peers::compare(&rules, history, Cast::AsItWas, &replayed, options.resolution)
    } else {
        Vec::new()
    };
    Ok(Backtest {
        release: spec.id.clone(),
        route: spec.route.clone(),
        from: opened,
        to: replayed.until,
        n_blue: history.count(Color::Blue, opened, replayed.until),
        n_green: history.count(Color::Green, opened, replayed.until),
        baseline: replayed.baseline.map(|b| b.source),
        decisions: replayed.decisions,
        verdict: replayed.verdict,
        reason: replayed.waiting,
        gates: replayed.gates,
        iid_assumed: replayed.iid_assumed,
        assumptions,
        peers,
    })
}
