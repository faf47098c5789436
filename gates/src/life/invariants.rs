//! What never happens in the life of a release, as predicates over single steps.
//!
//! The model test holds them against any sequence of events; the desk holds them against what really happens, and counts
//! what it finds. A predicate that fails is a bug in the state machine, never a fault of a release.

use super::{Breaker, Command, Course, DecisionDraft, Event, Finding, ReleaseState, Stepped, Terms, Told, step};
use crate::ledger::Actor;
use proto::{
    Color, Nanos,
    cell::PPM,
    decision::{Action, Phase},
    release::Mode,
};

/// One event: all that went in, and all that came out.
#[derive(Debug, Clone, Copy)]
pub struct Passage<'a> {
    /// The rules.
    pub terms: Terms<'a>,
    /// The state before it.
    pub before: &'a ReleaseState,
    /// What happened.
    pub event: &'a Event,
    /// When.
    pub now: Nanos,
    /// What came of it.
    pub after: &'a Stepped,
}

/// Something that holds for every passage.
#[derive(Debug, Clone, Copy)]
pub struct Invariant {
    /// Short and stable, `L1`.
    pub id: &'static str,
    /// In words.
    pub says: &'static str,
    /// Whether it holds.
    pub holds: fn(&Passage<'_>) -> bool,
}

/// Ids of the invariants that a passage violates; empty if all is well.
#[must_use]
pub fn check(passage: &Passage<'_>) -> Vec<&'static str> {
    let broken = INVARIANTS.iter().filter(|i| !(i.holds)(passage));
    broken.map(|i| i.id).collect()
}

/// All of them.
pub const INVARIANTS: &[Invariant] = &[
    Invariant {
        id: "L1",
        says: "once it is over nothing is decided, and nothing changes but who has seen it",
        holds: |p| {
            !p.before.phase.is_over()
                || p.after.decisions.is_empty()
                    && p.after.state
                        == ReleaseState {
                            acked: p.after.state.acked.clone(),
                            ..p.before.clone()
                        }
        },
    },
    Invariant {
        id: "L2",
        says: "it is rolled back at most once, and advised to be at most once",
        holds: |p| {
            let all = p.decided(Action::Rollback).count();
            let by_engine = p.decided(Action::Rollback).filter(|d| by_engine(d)).count();
            match p.before.course {
                Course::RolledBack => all == 0,
                Course::AdvisedRollback => all <= 1 && by_engine == 0,
                _ => all <= 1,
            }
        },
    },
    Invariant {
        id: "L3",
        says: "after a rollback nothing is promoted or advanced, and tracegate only watches, even if it was mere advice",
        holds: |p| {
            let watches = |d: &DecisionDraft| matches!(d.action, Action::Escalate | Action::Settle);
            let was_back = matches!(p.before.course, Course::RolledBack | Course::AdvisedRollback);
            (p.after.state.course != Course::RolledBack || p.forward().next().is_none())
                && (!was_back || p.by_engine().all(watches))
        },
    },
    Invariant {
        id: "L4",
        says: "while frozen nothing is promoted or advanced, whoever asks",
        holds: |p| p.terms.frozen.is_none() || p.forward().next().is_none(),
    },
    Invariant {
        id: "L5",
        says: "a person's decision is never overridden by tracegate",
        holds: |p| {
            matches!(p.event, Event::Command { .. })
                || p.before.latch.is_none()
                || p.before.latch == p.after.state.latch
                    && p.by_engine()
                        .all(|d| matches!(d.action, Action::Escalate | Action::Settle))
        },
    },
    Invariant {
        id: "L6",
        says: "while ingest is impaired only the breaker acts",
        holds: |p| {
            p.finding().is_none_or(|f| {
                f.impaired.is_none()
                    || !p.engine_forward() && (f.breaker == Breaker::Fired || !p.engine_did(Action::Rollback))
            })
        },
    },
    Invariant {
        id: "L7",
        says: "from what proves nothing no gate promotes, advances or rolls back",
        holds: |p| {
            p.finding()
                .is_none_or(|f| f.refused.is_none() || !p.engine_forward() && !p.gates_rolled_back())
        },
    },
    Invariant {
        id: "L8",
        says: "while the sample ratio is off or doubtful no gate promotes, advances or rolls back",
        holds: |p| {
            p.finding().is_none_or(|f| {
                let off =
                    f.sample_ratio_suspended || f.sample_ratio_fired || p.before.told.contains(&Told::SampleRatio);
                !off || !p.engine_forward() && !p.gates_rolled_back()
            })
        },
    },
    Invariant {
        id: "L9",
        says: "every decision of tracegate says why",
        holds: |p| p.by_engine().all(|d| !d.reason.trim().is_empty()),
    },
    Invariant {
        id: "L10",
        says: "weights lie in [0, 1]",
        holds: |p| {
            let state = &p.after.state;
            let splits = state.splits.iter().filter_map(|(_, ppm)| *ppm);
            let decided = p.after.decisions.iter().map(|d| d.green_ppm);
            splits.chain(decided).chain([state.green_ppm]).all(|ppm| ppm <= PPM)
        },
    },
    Invariant {
        id: "L11",
        says: "there is a split at any time, and each begins after the one before",
        holds: |p| {
            let splits = &p.after.state.splits;
            !splits.is_empty() && splits.is_sorted_by(|a, b| a.0 < b.0)
        },
    },
    Invariant {
        id: "L12",
        says: "a rollback leaves nothing to green",
        holds: |p| {
            let state = &p.after.state;
            let last = state.splits.last().and_then(|(_, ppm)| *ppm);
            state.course != Course::RolledBack || state.green_ppm == 0 && last.unwrap_or(0) == 0
        },
    },
    Invariant {
        id: "L13",
        says: "what does not act tells the gateway nothing, and what only observes decides nothing",
        holds: |p| {
            let mode = p.terms.spec.mode;
            let silent = |d: &DecisionDraft| !d.notified;
            // what a person ordered is watched to its end
            let watches = |d: &DecisionDraft| matches!(d.action, Action::Escalate | Action::Settle);
            (mode == Mode::Act || p.by_engine().all(silent))
                && (mode != Mode::Observe || p.by_engine().all(watches))
                && (p.before.phase != Phase::Observed || p.after.decisions.is_empty())
        },
    },
    Invariant {
        id: "L14",
        says: "the horizon never comes nearer",
        holds: |p| p.after.state.horizon_at >= p.before.horizon_at,
    },
    Invariant {
        id: "L15",
        says: "what is left out of the evidence is never counted later",
        holds: |p| p.after.state.counted_from >= p.before.counted_from,
    },
    Invariant {
        id: "L16",
        says: "the same event at the same time again repeats no decision",
        holds: |p| {
            let meant_twice = matches!(
                p.event,
                Event::Command {
                    command: Command::Advance | Command::Rollback,
                    ..
                }
            );
            if p.after.decisions.is_empty() || meant_twice {
                return true;
            }
            let again = step(p.terms, &p.after.state, p.event, p.now);
            // what begins a phase may be told something else in it
            let repeats = |d: &DecisionDraft| {
                p.decided(d.action)
                    .any(|first| d.action != Action::Escalate || first.reason == d.reason)
            };
            !again.decisions.iter().any(repeats)
        },
    },
    Invariant {
        id: "L17",
        says: "no phase is undone",
        holds: |p| rank(p.after.state.phase) >= rank(p.before.phase),
    },
    Invariant {
        id: "L18",
        says: "tracegate promotes only what passes, while nothing fails or stands in the way",
        holds: |p| {
            let clear = |f: &Finding| f.passes && !f.any_fail && f.obstacle.is_none() && f.rollback.is_none();
            let state = &p.after.state;
            !p.engine_did(Action::Promote)
                || p.finding().is_some_and(clear)
                    && matches!(p.before.phase, Phase::Canary | Phase::Mirroring)
                    && state.held.is_none()
                    && state.silence.is_none()
                    && !state.fallen.iter().any(|c| c.moved)
        },
    },
    Invariant {
        id: "L19",
        says: "tracegate promotes and advances nothing before a cool-down is over",
        holds: |p| p.before.cool_until.is_none_or(|until| until <= p.now) || !p.engine_forward(),
    },
    Invariant {
        id: "L20",
        says: "a refused command changes nothing",
        holds: |p| p.after.refused.is_none() || p.after.decisions.is_empty() && p.after.state == *p.before,
    },
    Invariant {
        id: "L21",
        says: "it is over when it is settled, blue wins a rollback, and only what nobody declared ends without a winner",
        holds: |p| {
            let state = &p.after.state;
            let winner = match state.phase {
                Phase::RolledBack => state.winner == Some(Color::Blue),
                Phase::Settled => {
                    state.winner == Some(Color::Green) || state.winner.is_none() && state.closed.is_some()
                }
                _ => state.winner.is_none(),
            };
            winner
                && state.phase.is_over() == state.settled.is_some()
                && state.settled.is_none_or(|at| at >= state.opened)
        },
    },
    Invariant {
        id: "L22",
        says: "while mirroring green serves nothing",
        holds: |p| {
            let state = &p.after.state;
            let last = state.splits.last().and_then(|(_, ppm)| *ppm);
            state.phase != Phase::Mirroring || state.green_ppm == 0 && last == Some(0)
        },
    },
    Invariant {
        id: "L23",
        says: "a mute is a person's, and ends in time",
        holds: |p| {
            let state = &p.after.state;
            let asked = |gate: &str| matches!(p.event, Event::Command { command: Command::Mute { gate: g, .. }, .. } if g == gate);
            let frozen_in_time = state.phase.is_over() || p.after.refused.is_some();
            state
                .muted
                .iter()
                .all(|m| (frozen_in_time || p.now < m.until) && (p.before.muted.contains(m) || asked(&m.gate)))
        },
    },
    Invariant {
        id: "L24",
        says: "tracegate promotes nothing before min_duration has passed",
        holds: |p| {
            let from = Nanos::from_secs(p.before.counted_from);
            !p.engine_did(Action::Promote) || p.now.since(from) >= p.terms.spec.min_duration
        },
    },
    Invariant {
        id: "L25",
        says: "a cohort that fell back stays out, and its proof stands",
        holds: |p| {
            let after = &p.after.state.fallen;
            let same = p.before.fallen.iter().zip(after).all(|(b, a)| {
                b.cohort == a.cohort && b.since == a.since && (b.proven_at.is_none() || b.proven_at == a.proven_at)
            });
            same && p.before.fallen.len() <= after.len()
        },
    },
    Invariant {
        id: "L26",
        says: "what is measured is not touched: thresholds and the order of pairs",
        holds: |p| p.after.state.baseline == p.before.baseline && p.after.state.order == p.before.order,
    },
    Invariant {
        id: "L27",
        says: "tracegate decides on judged cells only",
        holds: |p| {
            matches!(p.event, Event::Judged(_))
                || p.by_engine()
                    .all(|d| matches!(d.action, Action::Escalate | Action::Settle))
        },
    },
    Invariant {
        id: "L28",
        says: "no traffic is believed to have moved because the gateway said so",
        holds: |p| {
            let (before, after) = (p.before, &p.after.state);
            !matches!(p.event, Event::Delivered { .. } | Event::Undelivered { .. })
                || (
                    before.phase,
                    before.course,
                    before.step,
                    before.green_ppm,
                    &before.splits,
                ) == (after.phase, after.course, after.step, after.green_ppm, &after.splits)
                    && before.effect.is_some() == after.effect.is_some()
        },
    },
    Invariant {
        id: "L29",
        says: "tracegate sends green no more traffic before a cohort it sent back is proven to be on blue",
        holds: |p| {
            let open = p.after.state.fallen.iter().any(|c| c.moved && c.proven_at.is_none());
            !open || !p.engine_forward()
        },
    },
    Invariant {
        id: "L30",
        says: "what a person called back goes out again by a person only",
        holds: |p| {
            !p.before.is_called_back()
                || p.after.state.is_called_back()
                || matches!(p.event, Event::Command { .. })
                || p.after.state.phase.is_over()
        },
    },
];

impl Passage<'_> {
    fn finding(&self) -> Option<&Finding> {
        match self.event {
            Event::Judged(finding) => Some(finding),
            _ => None,
        }
    }

    fn decided(&self, action: Action) -> impl Iterator<Item = &DecisionDraft> {
        self.after.decisions.iter().filter(move |d| d.action == action)
    }

    fn by_engine(&self) -> impl Iterator<Item = &DecisionDraft> {
        self.after.decisions.iter().filter(|d| by_engine(d))
    }

    /// Decisions that send green more traffic.
    fn forward(&self) -> impl Iterator<Item = &DecisionDraft> {
        self.decided(Action::Promote).chain(self.decided(Action::Advance))
    }

    fn engine_forward(&self) -> bool {
        self.forward().any(by_engine)
    }

    fn engine_did(&self, action: Action) -> bool {
        self.decided(action).any(by_engine)
    }

    /// Not by the breaker and not by a policy: those name no culprits.
    fn gates_rolled_back(&self) -> bool {
        self.decided(Action::Rollback)
            .any(|d| by_engine(d) && !d.culprits.is_empty())
    }
}

fn by_engine(decision: &DecisionDraft) -> bool {
    decision.actor == Actor::Engine
}

const fn rank(phase: Phase) -> u8 {
    match phase {
        Phase::Observed | Phase::Declared => 0,
        Phase::Mirroring => 1,
        Phase::Canary => 2,
        Phase::Cutover => 3,
        Phase::Watching => 4,
        Phase::Settled | Phase::RolledBack => 5,
    }
}
