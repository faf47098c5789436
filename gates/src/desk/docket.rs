//! The desk's own thread: owns every release, takes one message at a time, writes to the ledger before anything leaves.

mod forget;
mod observe;
mod restrain;

use super::{
    Aging, DeskConfig, DeskError, DeskEvent, DeskView, GateInput, Provenance,
    evidence::Taken,
    notice::entry,
    reading::{Reader, Reading, prepare},
    view,
};
use crate::{
    check::rules_hash,
    ledger::{DecisionRow, DeliveryRow, DeliveryState, Entry, Freeze, Ledger, PersonAct, ReleaseRow},
    life::{
        self, Command, Event, ReleaseState, Stepped, Terms,
        invariants::{self, INVARIANTS, Passage},
    },
    outbox::Outbox,
};
use proto::{
    Ages, Color, Nanos,
    clock::Clock,
    decision::{Desired, Phase, Verdict, VerdictReport},
    release::{ReleaseBook, ReleaseSpec},
};
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::sync::{broadcast, mpsc, oneshot, watch};

/// Longest time without a judgement while the cells do not change.
const UNCHANGED_MAX: Duration = Duration::from_secs(1);
/// What a cycle that failed is said to have cost, so that the next one does not follow at once.
const PAUSE_AFTER_ERROR: Duration = Duration::from_secs(1);
/// Acts of people kept per release.
const PEOPLE_MAX: usize = 1_000;

/// One message to the desk.
pub(super) enum Message {
    /// New cells, or time has passed.
    Wake,
    /// An attempt was made.
    Attempted(Box<DeliveryRow>),
    /// A release is declared.
    Declare {
        spec: Box<ReleaseSpec>,
        actor: String,
        reply: oneshot::Sender<Result<(), DeskError>>,
    },
    /// A person decides.
    Command {
        release: String,
        command: Command,
        actor: String,
        reason: String,
        reply: oneshot::Sender<Result<Option<DecisionRow>, DeskError>>,
    },
    /// Nothing is promoted for a while.
    Freeze {
        freeze: Freeze,
        reply: oneshot::Sender<Result<(), DeskError>>,
    },
    /// It may be again.
    Thaw {
        route: Option<String>,
        reply: oneshot::Sender<Result<bool, DeskError>>,
    },
    /// No more.
    Stop,
}

struct Running {
    row: ReleaseRow,
    reader: Reader,
    reading: Option<Reading>,
    report: Arc<VerdictReport>,
    /// The row as the view shows it; made anew when the row has changed.
    shown: Arc<ReleaseRow>,
    changed: bool,
}

/// Where the desk speaks to.
pub(super) struct Outlets {
    pub outbox: Outbox,
    pub book: watch::Sender<Arc<ReleaseBook>>,
    pub view: watch::Sender<Arc<DeskView>>,
    pub events: broadcast::Sender<DeskEvent>,
    /// What the last cycle cost, us.
    pub cost_us: Arc<AtomicU64>,
}

pub(super) struct Docket {
    config: DeskConfig,
    ledger: Arc<Ledger>,
    inputs: watch::Receiver<Arc<GateInput>>,
    clock: Clock,
    out: Outlets,
    releases: BTreeMap<String, Running>,
    desired: BTreeMap<String, Desired>,
    last_judged: Option<Nanos>,
    freezes: Vec<Freeze>,
    violations: BTreeMap<&'static str, u64>,
    /// What was judged last, and when.
    judged: Option<(Arc<GateInput>, Instant)>,
    /// Whether what was left undelivered by the last process may go: only once the backlog was judged.
    backlog_judged: bool,
    /// When the desk began: what `ages` takes for real time counts from here.
    begun: Instant,
    ages: Ages,
    aging: Aging,
    /// When old decisions are looked for next; `None`: at once.
    look_at: Option<Instant>,
}

impl Docket {
    pub fn open(
        config: DeskConfig,
        ledger: Arc<Ledger>,
        inputs: watch::Receiver<Arc<GateInput>>,
        clock: Clock,
        out: Outlets,
    ) -> Result<Self, DeskError> {
        // where nothing was written down yet nothing can be lost either
        let known = ledger.aged_to()?.unwrap_or_else(|| clock());
        let mut docket = Self {
            begun: Instant::now(),
            ages: Ages::new(known, Duration::ZERO),
            aging: Aging::default(),
            look_at: None,
            desired: ledger.desired()?,
            freezes: ledger.freezes()?,
            violations: INVARIANTS.iter().map(|i| (i.id, 0)).collect(),
            releases: BTreeMap::new(),
            last_judged: None,
            judged: None,
            backlog_judged: false,
            config,
            ledger,
            inputs,
            clock,
            out,
        };
        for row in docket.ledger.releases()? {
            docket.releases.insert(row.spec.id.clone(), running(row));
        }
        docket.forget();
        docket.publish_book();
        docket.publish_view();
        Ok(docket)
    }

    /// Until [`Message::Stop`], or until nobody can send any more.
    pub fn run(mut self, mut messages: mpsc::Receiver<Message>) {
        while let Some(first) = messages.blocking_recv() {
            let mut judge = false;
            let mut next = Some(first);
            while let Some(message) = next {
                match message {
                    Message::Wake => judge = true,
                    Message::Stop => return,
                    other => self.handle(other),
                }
                next = messages.try_recv().ok();
            }
            if judge {
                let begun = Instant::now();
                let cost = if self.judge_all() {
                    begun.elapsed()
                } else {
                    PAUSE_AFTER_ERROR
                };
                let cost_us = u64::try_from(cost.as_micros()).unwrap_or(u64::MAX);
                self.out.cost_us.store(cost_us, Ordering::Relaxed);
                self.forget();
            }
            self.publish_view();
        }
    }

    fn handle(&mut self, message: Message) {
        match message {
            Message::Wake | Message::Stop => {}
            Message::Attempted(row) => self.attempted(*row),
            Message::Declare { spec, actor, reply } => {
                // the asker may have gone
                let _ = reply.send(self.declare(*spec, actor));
            }
            Message::Command {
                release,
                command,
                actor,
                reason,
                reply,
            } => {
                let _ = reply.send(self.command(&release, command, &actor, &reason));
            }
            Message::Freeze { freeze, reply } => {
                let _ = reply.send(self.freeze(freeze));
            }
            Message::Thaw { route, reply } => {
                let _ = reply.send(self.thaw(route.as_deref()));
            }
        }
    }

    fn declare(&mut self, spec: ReleaseSpec, actor: String) -> Result<(), DeskError> {
        let hash = rules_hash(&spec);
        if let Some(known) = self.releases.get(&spec.id) {
            return if known.row.rules_hash == hash {
                Ok(())
            } else {
                Err(DeskError::RulesChanged(spec.id))
            };
        }
        let on_route = |r: &&Running| r.row.spec.route == spec.route && !r.row.state.phase.is_over();
        let declared = |r: &&Running| r.row.state.phase != Phase::Observed;
        if let Some(other) = self.releases.values().filter(on_route).find(declared) {
            return Err(DeskError::RouteTaken {
                route: spec.route,
                by: other.row.spec.id.clone(),
            });
        }
        let now = (self.clock)();
        let rolled_back = |r: &&Running| r.row.spec.route == spec.route && r.row.state.phase == Phase::RolledBack;
        let last = self
            .releases
            .values()
            .filter(rolled_back)
            .filter_map(|r| r.row.state.settled)
            .max();
        let cool_until = last.map(|at| at.plus(spec.cool_down));
        let row = ReleaseRow {
            state: ReleaseState::open(&spec, now, self.config.resolution, cool_until),
            rules_hash: hash,
            declared_at: now,
            declared_by: actor,
            people: Vec::new(),
            spec,
        };
        let by = format!("release `{}` is declared on its route", row.spec.id);
        self.close_observed(&row.spec.route, &by)?;
        self.ledger.put_release(&row)?;
        self.releases.insert(row.spec.id.clone(), running(row));
        self.judged = None;
        self.publish_book();
        self.publish_view();
        Ok(())
    }

    fn command(
        &mut self,
        id: &str,
        command: Command,
        actor: &str,
        reason: &str,
    ) -> Result<Option<DecisionRow>, DeskError> {
        let now = (self.clock)();
        let Some(mut running) = self.releases.remove(id) else {
            return Err(DeskError::UnknownRelease(id.to_owned()));
        };
        running.row.people.push(PersonAct {
            at: now,
            actor: actor.to_owned(),
            what: command.as_str().to_owned(),
            reason: reason.to_owned(),
        });
        let excess = running.row.people.len().saturating_sub(PEOPLE_MAX);
        running.row.people.drain(..excess);
        let event = Event::Command {
            command,
            actor: actor.to_owned(),
            reason: reason.to_owned(),
        };
        let outcome = self.apply(&mut running, &event, now, true);
        if outcome.is_err() {
            running.row.people.pop();
        }
        self.releases.insert(id.to_owned(), running);
        self.publish_view();
        Ok(outcome?.into_iter().next())
    }

    fn attempted(&mut self, row: DeliveryRow) {
        let now = (self.clock)();
        let event = match row.state {
            DeliveryState::Delivered => Some(Event::Delivered {
                decision_id: row.decision_id.clone(),
            }),
            DeliveryState::Dead => Some(Event::Undelivered {
                decision_id: row.decision_id.clone(),
                error: row.last_error.clone().unwrap_or_default(),
            }),
            DeliveryState::Pending | DeliveryState::Superseded => None,
        };
        if let Some(event) = event
            && let Some(mut running) = self.releases.remove(&row.release)
        {
            if let Err(e) = self.apply(&mut running, &event, now, false) {
                tracing::error!(release = row.release, error = %e, "cannot record a delivery");
            }
            self.releases.insert(row.release.clone(), running);
        }
        // nobody may be listening
        let _ = self.out.events.send(DeskEvent::Delivered(Arc::new(row)));
    }

    /// False if anything could not be judged or written.
    fn judge_all(&mut self) -> bool {
        let input = Arc::clone(&self.inputs.borrow_and_update());
        if !input.ready {
            return true;
        }
        // the same cells say the same; only time has passed, and what waits for time can wait a moment
        let same = self
            .judged
            .as_ref()
            .is_some_and(|(cells, at)| Arc::ptr_eq(cells, &input) && at.elapsed() < UNCHANGED_MAX);
        if same {
            self.last_judged = Some((self.clock)());
            return true;
        }
        self.observe(&input);
        let ids: Vec<String> = self
            .releases
            .iter()
            .filter(|(_, r)| !r.row.state.phase.is_over())
            .map(|(id, _)| id.clone())
            .collect();
        let mut clean = true;
        for id in ids {
            let Some(mut running) = self.releases.remove(&id) else {
                continue;
            };
            if let Err(e) = self.judge(&mut running, &input) {
                clean = false;
                tracing::error!(release = id, error = %e, "cannot judge; nothing was decided");
            }
            self.releases.insert(id, running);
        }
        self.last_judged = Some((self.clock)());
        if clean && !self.backlog_judged {
            match self.ledger.pending() {
                Ok(rows) => {
                    self.backlog_judged = true;
                    for row in rows {
                        self.out.outbox.wake(&row.route);
                    }
                }
                Err(e) => {
                    clean = false;
                    tracing::error!(error = %e, "cannot read what is left to deliver");
                }
            }
        }
        self.judged = clean.then(|| (input, Instant::now()));
        clean
    }

    fn judge(&mut self, running: &mut Running, input: &GateInput) -> Result<(), DeskError> {
        let now = (self.clock)();
        let mut late = String::new();
        let before = running.row.state.clone();
        if prepare(&mut running.row, input, now, self.config.resolution, &mut late) {
            running.changed = true;
            if let Err(e) = self.ledger.put_release(&running.row) {
                running.row.state = before;
                return Err(e.into());
            }
        }
        let reading = running
            .reader
            .read(&running.row, input, &late, now, self.config.resolution);
        let event = Event::Judged(Box::new(reading.finding.clone()));
        running.reading = Some(reading);
        self.apply(running, &event, now, false)?;
        Ok(())
    }

    /// One event: the state machine, then the ledger, then the world, in this order.
    fn apply(
        &mut self,
        running: &mut Running,
        event: &Event,
        now: Nanos,
        force_write: bool,
    ) -> Result<Vec<DecisionRow>, DeskError> {
        let frozen = self.frozen(&running.row.spec.route, now);
        // the row changes while the terms still look at its rules
        let spec = running.row.spec.clone();
        let terms = Terms {
            spec: &spec,
            resolution: self.config.resolution,
            effect_deadline: self.config.effect_deadline(running.row.spec.timeout),
            frozen: frozen.as_deref(),
        };
        let stepped = life::step(terms, &running.row.state, event, now);
        self.watch_invariants(terms, running, event, now, &stepped);
        if let Some(why) = stepped.refused {
            return Err(DeskError::Refused(why));
        }
        let changed = stepped.state != running.row.state;
        running.changed |= changed || force_write;
        let moved =
            stepped.state.splits != running.row.state.splits || stepped.state.settled != running.row.state.settled;
        let before = std::mem::replace(&mut running.row.state, stepped.state);
        let taken = Taken {
            terms,
            before: &before,
            event,
            now,
            drafts: &stepped.decisions,
        };
        let written = if !stepped.decisions.is_empty() {
            self.decide(running, taken)
        } else if changed || force_write {
            self.ledger.put_release(&running.row).map(|()| Vec::new())
        } else {
            Ok(Vec::new())
        };
        let written = match written {
            Ok(written) => written,
            Err(e) => {
                running.row.state = before;
                return Err(e.into());
            }
        };
        if matches!(event, Event::Judged(_)) || !written.is_empty() || force_write {
            self.show(running, stepped.verdict, &stepped.waiting, !written.is_empty());
        }
        // spans that start from now on must be booked before the gateway hears of it
        if moved {
            self.publish_book_with(Some(running));
        }
        for entry in &written {
            if let Some(desired) = &entry.desired {
                self.desired.insert(desired.route.clone(), desired.clone());
            }
            if entry.delivery.is_some() {
                self.out.outbox.wake(&entry.decision.route);
            }
            let _ = self
                .out
                .events
                .send(DeskEvent::Decided(Arc::new(entry.decision.clone())));
        }
        Ok(written.into_iter().map(|e| e.decision).collect())
    }

    /// Counts what never happens, if it does.
    fn watch_invariants(&mut self, terms: Terms<'_>, running: &Running, event: &Event, now: Nanos, after: &Stepped) {
        let passage = Passage {
            terms,
            before: &running.row.state,
            event,
            now,
            after,
        };
        for id in invariants::check(&passage) {
            *self.violations.entry(id).or_default() += 1;
            tracing::error!(
                release = running.row.spec.id,
                invariant = id,
                "an invariant does not hold: please report this"
            );
        }
    }

    fn decide(&self, running: &mut Running, taken: Taken<'_>) -> Result<Vec<Entry>, crate::ledger::LedgerError> {
        let reading = running.reading.as_ref();
        let from = Nanos::from_secs(running.row.state.counted_from).min(running.row.state.opened);
        let provenance: Provenance = self.inputs.borrow().whence.ask(from);
        let config = &self.config;
        self.ledger
            .decide(&mut running.row, taken.drafts.len(), taken.now, |row, i, place| {
                entry(config, row, reading, taken, &provenance, i, place)
            })
    }

    fn show(&self, running: &mut Running, verdict: Verdict, waiting: &str, loud: bool) {
        let report = view::report(&running.row, running.reading.as_ref(), verdict, waiting);
        if loud || report != *running.report {
            running.report = Arc::new(report);
            let shown = Arc::clone(&running.report);
            let _ = self.out.events.send(DeskEvent::Judged(shown));
        }
    }

    fn publish_book(&self) {
        self.publish_book_with(None);
    }

    /// `busy` is a release that is taken out of the map at the moment.
    fn publish_book_with(&self, busy: Option<&Running>) {
        let mut entries: Vec<_> = self
            .releases
            .values()
            .chain(busy)
            .map(|r| r.row.state.book_entry(&r.row.spec))
            .collect();
        entries.sort_by(|a, b| (a.opened, &a.id).cmp(&(b.opened, &b.id)));
        self.out.book.send_replace(Arc::new(ReleaseBook { entries }));
    }

    fn publish_view(&mut self) {
        for running in self.releases.values_mut().filter(|r| r.changed) {
            running.shown = Arc::new(running.row.clone());
            running.changed = false;
        }
        self.out.view.send_replace(Arc::new(DeskView {
            releases: self
                .releases
                .iter()
                .map(|(id, r)| (id.clone(), Arc::clone(&r.shown)))
                .collect(),
            verdicts: self
                .releases
                .iter()
                .map(|(id, r)| (id.clone(), Arc::clone(&r.report)))
                .collect(),
            desired: self.desired.clone(),
            last_judged: self.last_judged,
            freezes: self.freezes.clone(),
            violations: self.violations.clone(),
            aging: self.aging,
        }));
    }
}

fn running(row: ReleaseRow) -> Running {
    let settled = match row.state.winner {
        Some(Color::Green) => Verdict::Pass,
        Some(_) => Verdict::Fail,
        None => Verdict::Inconclusive,
    };
    let waiting = if row.state.phase.is_over() {
        String::new()
    } else {
        "not judged yet".to_owned()
    };
    Running {
        report: Arc::new(view::report(&row, None, settled, &waiting)),
        shown: Arc::new(row.clone()),
        changed: false,
        row,
        reader: Reader::default(),
        reading: None,
    }
}

/// How long to leave between two cycles: short when judging is cheap, and never more than a third of a core.
pub(super) fn pace(cost: Duration, cycle_max: Duration) -> Duration {
    const PACE_MIN: Duration = Duration::from_millis(20);
    cost.saturating_mul(2).max(PACE_MIN).min(cycle_max)
}
