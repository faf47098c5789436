//! One release over history, look by look: cells, then the judge and the breaker, then the life of the release.

use super::{
    Decided, GateOutcome,
    history::{History, is_replayed},
    tape::{Cast, Frame, Tape},
};
use crate::{
    check::rules_hash,
    desk::{
        GateInput,
        reading::{Reader, prepare},
    },
    judge::{Baseline, Judgement},
    ledger::ReleaseRow,
    life::{self, Course, Event, ReleaseState, Terms},
};
use proto::{
    Color, Nanos,
    cell::{PPM, Scope},
    decision::Verdict,
    release::{Approval, Mode, ReleaseSpec, Step, Unit},
};
use std::time::Duration;

/// Where and how closely to look.
#[derive(Debug, Clone, Copy)]
pub(super) struct Watch {
    /// When the release is opened.
    pub opened: Nanos,
    /// Width of a minute of cells.
    pub resolution: Duration,
    /// Time between two looks.
    pub every: Duration,
}

/// What came of it.
#[derive(Debug)]
pub(super) struct Replayed {
    pub decisions: Vec<Decided>,
    pub gates: Vec<GateOutcome>,
    pub baseline: Option<Baseline>,
    pub verdict: Verdict,
    /// What stood in the way of a decision at the end.
    pub waiting: String,
    pub iid_assumed: bool,
    /// First counted moment.
    pub counted_from: Nanos,
    /// Last look.
    pub until: Nanos,
}

/// The rules as history can follow them, and what had to be assumed for that.
///
/// # Errors
/// If no gate is left.
pub(super) fn as_replayed(spec: &ReleaseSpec, green_share: f64) -> Result<(ReleaseSpec, Vec<String>), String> {
    let mut said = vec![
        "history's traffic stays as it was: decisions are written down and move nothing, and no step of the ramp is \
         waited for; after a promotion the same traffic is watched on"
            .to_owned(),
    ];
    let mut out = ReleaseSpec {
        mode: Mode::Advise,
        approval: Approval::None,
        unit: Unit::Trace,
        mirror: None,
        cool_down: Duration::ZERO,
        steps: vec![Step {
            green: green_share.clamp(1.0 / f64::from(PPM), 1.0 - 1.0 / f64::from(PPM)),
            min: Duration::ZERO,
        }],
        ..spec.clone()
    };
    if spec.approval == Approval::Promote {
        said.push("a person approves every promotion at once".to_owned());
    }
    if spec.unit != Unit::Trace {
        said.push("traces are compared one by one although sessions or users are randomised".to_owned());
    }
    out.gates.retain(is_replayed);
    for gate in spec.gates.iter().filter(|g| !is_replayed(g)) {
        said.push(format!(
            "gate `{}` is left out: what it counts is not in single traces",
            gate.name
        ));
    }
    if out.gates.is_empty() {
        return Err("no gate of the release reads single traces, so there is nothing to replay".to_owned());
    }
    Ok((out, said))
}

fn scope(spec: &ReleaseSpec) -> Scope {
    Scope {
        route: spec.route.as_str().into(),
        release: Some(spec.id.as_str().into()),
    }
}

/// Replays `spec`, which [`as_replayed`] has made. Ends with a rollback, or with history. `progress` hears the share done.
pub(super) fn replay(
    spec: &ReleaseSpec,
    history: &History,
    cast: Cast,
    watch: Watch,
    progress: &mut dyn FnMut(f64),
) -> Replayed {
    let frame = Frame {
        inside: scope(spec),
        opened: watch.opened,
        admission: spec.timeout + spec.grace,
        resolution: watch.resolution,
    };
    let mut tape = Tape::new(history, cast, frame);
    let end = tape.end().unwrap_or(watch.opened).max(watch.opened);
    let mut run = Run {
        row: ReleaseRow {
            state: ReleaseState::open(spec, watch.opened, watch.resolution, None),
            rules_hash: rules_hash(spec),
            declared_at: watch.opened,
            declared_by: "backtest".to_owned(),
            people: Vec::new(),
            spec: spec.clone(),
        },
        watch,
        reader: Reader::default(),
        out: Replayed {
            decisions: Vec::new(),
            gates: Vec::new(),
            baseline: None,
            verdict: Verdict::Inconclusive,
            waiting: String::new(),
            iid_assumed: false,
            counted_from: watch.opened,
            until: watch.opened,
        },
    };
    let whole = end.since(watch.opened).as_secs_f64().max(1.0);
    let mut now = watch.opened;
    loop {
        tape.advance(now);
        run.look(&tape, now);
        progress((now.since(watch.opened).as_secs_f64() / whole).min(1.0));
        if now >= end || run.row.state.phase.is_over() || run.row.state.course == Course::AdvisedRollback {
            break;
        }
        now = now.plus(watch.every);
    }
    run.out.counted_from = Nanos::from_secs(run.row.state.counted_from);
    run.out.until = now;
    run.out.baseline = run.row.state.baseline;
    run.out
}

struct Run {
    row: ReleaseRow,
    watch: Watch,
    reader: Reader,
    out: Replayed,
}

impl Run {
    /// What the desk does in one cycle, but for its ledger and its notices.
    fn look(&mut self, tape: &Tape<'_>, now: Nanos) {
        let mut late = String::new();
        let input = GateInput {
            cells: tape.cells.clone(),
            ready: true,
            ..GateInput::default()
        };
        prepare(&mut self.row, &input, now, self.watch.resolution, &mut late);
        let reading = self.reader.read(&self.row, &input, &late, now, self.watch.resolution);
        let terms = Terms {
            spec: &self.row.spec,
            resolution: self.watch.resolution,
            effect_deadline: Duration::MAX,
            frozen: None,
        };
        let event = Event::Judged(Box::new(reading.finding));
        let stepped = life::step(terms, &self.row.state, &event, now);
        self.row.state = stepped.state;
        // nobody moves history's traffic, so no movement is waited for
        self.row.state.effect = None;
        for draft in stepped.decisions {
            self.out.decisions.push(Decided {
                at: now,
                after_secs: now.since(self.watch.opened).as_secs(),
                action: draft.action,
                cohort: draft.cohort,
                reason: draft.reason,
                n_blue: reading.judgement.n_blue,
                n_green: reading.judgement.n_green,
                gates: reading.judgement.reports.clone(),
            });
        }
        self.out.verdict = stepped.verdict;
        self.out.waiting = stepped.waiting;
        self.out.iid_assumed = reading.judgement.iid_assumed;
        self.note(reading.judgement, now);
    }

    /// When each gate spoke first, and what it says now.
    fn note(&mut self, judgement: Judgement, now: Nanos) {
        let secs = now.since(self.watch.opened).as_secs();
        for report in judgement.reports {
            let known = |g: &GateOutcome| g.last.name == report.name && g.last.cohort == report.cohort;
            let at = self.out.gates.iter().position(known).unwrap_or_else(|| {
                self.out.gates.push(GateOutcome {
                    passed_after_secs: None,
                    failed_after_secs: None,
                    last: report.clone(),
                });
                self.out.gates.len() - 1
            });
            let gate = &mut self.out.gates[at];
            match report.verdict {
                Verdict::Pass => gate.passed_after_secs = gate.passed_after_secs.or(Some(secs)),
                Verdict::Fail => gate.failed_after_secs = gate.failed_after_secs.or(Some(secs)),
                Verdict::Inconclusive => {}
            }
            gate.last = report;
        }
    }
}

/// Green's share of the traces from `opened` on.
pub(super) fn green_share(history: &History, opened: Nanos) -> f64 {
    let count = |color| history.count(color, opened, Nanos(i64::MAX)) as f64;
    let (blue, green) = (count(Color::Blue), count(Color::Green));
    green / (blue + green).max(1.0)
}
