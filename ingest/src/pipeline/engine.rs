//! The engine thread: one loop over a closed set of events, in the journal's order.

use super::{
    Fault, Settings,
    counters::{Counters, sub},
    error::PipelineError,
    fold::Fold,
    journal::Event,
    lookup::Job,
    seal::{Done, Work},
};
use crate::assemble::Answer;
use crossbeam_channel::{Receiver, Sender, after, never, select};
use proto::{Nanos, clock::Clock, release::ReleaseBook};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};
use store::{Sealed, Snapshot, Upkept};
use tokio::sync::watch;

type SealResult = Result<Sealed, PipelineError>;

/// Suspects that are looked at in one step.
const SUSPECTS_MAX: usize = 16;
/// Under load without a pause, sealed files are looked after at least once in so many of their usual intervals: twice as
/// many rows may pile up then before that is called off.
const UPKEEP_MISSED_MAX: u32 = 4;

pub(super) struct Engine {
    pub fold: Fold,
    /// A seal that began during the replay still runs.
    pub sealing: bool,
    pub publish_window: Duration,
    pub seal_retry: Duration,
    pub book: watch::Receiver<Arc<ReleaseBook>>,
    pub settings: watch::Receiver<Settings>,
    pub events: Receiver<Event>,
    pub seal_now: Receiver<()>,
    pub work: Sender<Work>,
    pub results: Receiver<Done>,
    /// No once a step of upkeep is in the way of a seal.
    pub go_on: Arc<AtomicBool>,
    pub suspects: Receiver<String>,
    pub upkeep_every: Duration,
    /// To what time the age of sealed files counts.
    pub ages: Clock,
    pub lookups: Sender<Job>,
    pub answers: Receiver<Answer>,
    pub snapshots: watch::Sender<Arc<Snapshot>>,
    pub counters: Arc<Counters>,
    pub fault: Fault,
}

/// What the loop remembers from turn to turn.
struct Turn {
    /// Something changed since the last publication.
    changed: bool,
    published: Instant,
    /// A seal was asked for.
    wanted: bool,
    sealing: bool,
    /// Sealed files are being looked after.
    keeping: bool,
    /// They are to be looked after again, by the time of ticks.
    keep_at: Nanos,
    /// When they were last.
    kept_at: Nanos,
    /// Something is being looked up.
    looking: bool,
    not_before: Option<Instant>,
    /// The pipeline was dropped: nobody is there to be held up.
    abandoned: bool,
}

impl Engine {
    /// Returns after [`Event::Stop`] (with everything sealed), or when a neighbour is gone.
    pub fn run(mut self) {
        if let Err(error) = self.work() {
            self.fault.raise(&error);
        }
    }

    fn work(&mut self) -> Result<(), PipelineError> {
        let mut turn = Turn {
            changed: false,
            published: Instant::now(),
            wanted: false,
            sealing: self.sealing,
            keeping: false,
            keep_at: self.fold.now().plus(self.upkeep_every),
            kept_at: self.fold.now(),
            looking: false,
            not_before: None,
            abandoned: false,
        };
        let mut seal_now = self.seal_now.clone();
        loop {
            if turn.changed && (self.events.is_empty() || turn.published.elapsed() >= self.publish_window) {
                self.publish();
                (turn.changed, turn.published) = (false, Instant::now());
            }
            if self.is_neglected(&turn) {
                self.keep_if_idle(&mut turn);
            }
            self.seal_if_due(&mut turn);
            self.keep_if_idle(&mut turn);
            self.look_up(&mut turn);
            // Journal and doors wait while seals can't keep up: rows must not pile up in memory.
            let waits = turn.sealing || turn.keeping || turn.not_before.is_some();
            let held_up = self.is_full(&turn) && waits && !turn.abandoned;
            let events = if held_up { never() } else { self.events.clone() };
            let wake = self.wake(&turn, held_up);
            select! {
                recv(events) -> event => {
                    let Ok(event) = event else {
                        return Ok(());
                    };
                    sub(&self.counters.engine_depth, 1);
                    if matches!(event, Event::Stop) {
                        return self.finish(&turn);
                    }
                    turn.changed |= self.take(event)?;
                }
                recv(self.results) -> result => match result {
                    Ok(Done::Sealed(result)) => {
                        turn.sealing = false;
                        self.settle(result, &mut turn)?;
                        turn.changed = true;
                    }
                    Ok(Done::Upkept(result)) => {
                        turn.keeping = false;
                        self.kept(result, &mut turn)?;
                        turn.changed = true;
                    }
                    Err(_) => return Ok(()),
                },
                recv(self.answers) -> answer => match answer {
                    Ok(answer) => {
                        turn.looking = false;
                        self.fold.answer(answer)?;
                        turn.changed = true;
                    }
                    Err(_) => return Ok(()),
                },
                recv(seal_now) -> asked => match asked {
                    Ok(()) => turn.wanted = true,
                    Err(_) => (seal_now, turn.abandoned) = (never(), true),
                },
                recv(wake) -> _ => {}
            }
        }
    }

    /// When to go on though nobody calls: for a publication that waits for more, and for a seal that is tried again while
    /// events, and so the ticks, are held up.
    fn wake(&self, turn: &Turn, held_up: bool) -> Receiver<Instant> {
        // What is under way wakes it itself.
        let is_idle = !turn.sealing && !turn.keeping && !turn.looking;
        let again = turn.not_before.filter(|_| held_up && is_idle);
        let again = again.map(|at| at.saturating_duration_since(Instant::now()));
        let publication = turn.changed.then_some(self.publish_window);
        publication.into_iter().chain(again).min().map_or_else(never, after)
    }

    /// Whether rows pile up. While files are looked after at last, it may be twice as many.
    fn is_full(&self, turn: &Turn) -> bool {
        if turn.keeping && self.is_neglected(turn) {
            self.fold.overfull()
        } else {
            self.fold.wants_seal_for_size()
        }
    }

    /// Whether nobody has looked after sealed files for long, because something was to be sealed all the time.
    fn is_neglected(&self, turn: &Turn) -> bool {
        self.fold.now().since(turn.kept_at) >= self.upkeep_every * UPKEEP_MISSED_MAX
    }

    /// Applies a batch or a tick; whether there is something new to publish.
    fn take(&mut self, event: Event) -> Result<bool, PipelineError> {
        self.read_book();
        self.read_settings();
        match event {
            Event::Batch(batch) => {
                self.fold.apply(batch)?;
                Ok(true)
            }
            Event::Tick(now) => {
                let changed = self.fold.tick(now)?;
                self.counters.set_assembly(self.fold.counts());
                Ok(changed)
            }
            Event::Stop => Ok(false),
        }
    }

    fn read_settings(&mut self) {
        if self.settings.has_changed().unwrap_or(false) {
            self.fold.set_seal_age(self.settings.borrow_and_update().seal_age);
        }
    }

    fn read_book(&mut self) {
        if self.book.has_changed().unwrap_or(false) {
            self.fold.set_book(Arc::clone(&self.book.borrow_and_update()));
        }
    }

    fn publish(&mut self) {
        let snapshot = self.fold.publish();
        // Who sees the record's number sees its counts.
        self.counters.set_assembly(self.fold.counts());
        self.counters.published_lsn.store(snapshot.lsn, Relaxed);
        self.counters.publications.fetch_add(1, Relaxed);
        self.counters.set_published(Instant::now());
        self.counters.live_rows.store(self.fold.live_rows() as u64, Relaxed);
        _ = self.snapshots.send_replace(snapshot);
    }

    fn look_up(&mut self, turn: &mut Turn) {
        if !turn.looking
            && let Some((asks, snapshot)) = self.fold.asks()
        {
            turn.looking = self.lookups.send(Job { asks, snapshot }).is_ok();
        }
    }

    fn seal_if_due(&mut self, turn: &mut Turn) {
        // An answer may show that a late span had come before; in a file its row would stand twice.
        let answer_first = turn.looking && !self.fold.overfull();
        let waits = answer_first || turn.sealing || turn.not_before.is_some_and(|at| Instant::now() < at);
        if waits || !(turn.wanted || self.fold.wants_seal()) {
            return;
        }
        if turn.keeping {
            // Somebody waits, or rows pile up: a rewrite can begin again, but the age of rows alone may wait for it.
            let hurries = turn.wanted || self.is_full(turn);
            self.go_on.store(!hurries, Relaxed);
            return;
        }
        let deferred = !turn.wanted && self.fold.may_defer() && !self.is_neglected(turn);
        (turn.wanted, turn.not_before) = (false, None);
        if let Some(capture) = self.fold.capture(deferred) {
            turn.sealing = self.work.send(Work::Seal(Box::new(capture))).is_ok();
        }
    }

    /// Has sealed files looked after while there is nothing to seal.
    fn keep_if_idle(&mut self, turn: &mut Turn) {
        let is_due = self.fold.now() >= turn.keep_at || !self.suspects.is_empty();
        let is_busy = turn.keeping || turn.sealing || turn.wanted;
        // Files that wait for their commit record come first. But if that finds no room, who else makes some?
        let waits = self.fold.has_deferred() && turn.not_before.is_none();
        if !is_due || is_busy || waits {
            return;
        }
        let mut task = self.fold.upkeep((self.ages)());
        task.suspects = self.suspects.try_iter().take(SUSPECTS_MAX).collect();
        task.suspects.sort_unstable();
        task.suspects.dedup();
        self.go_on.store(true, Relaxed);
        turn.keeping = self.work.send(Work::Upkeep(Box::new(task))).is_ok();
    }

    fn kept(&mut self, result: Result<Upkept, PipelineError>, turn: &mut Turn) -> Result<(), PipelineError> {
        (turn.kept_at, turn.keep_at) = (self.fold.now(), self.fold.now().plus(self.upkeep_every));
        match result {
            Ok(done) => {
                self.fold.upkept(&done);
                if done.more {
                    turn.keep_at = self.fold.now();
                }
            }
            Err(error) if error.is_fatal() => return Err(error),
            Err(error) => tracing::warn!(%error, "sealed files could not be looked after; it is tried again"),
        }
        Ok(())
    }

    fn settle(&mut self, result: SealResult, turn: &mut Turn) -> Result<(), PipelineError> {
        if !self.fold.settle(result)? {
            turn.not_before = Some(Instant::now() + self.seal_retry);
            // What is too old, or too much for the disk, may be what stands in the way.
            turn.keep_at = self.fold.now();
        }
        Ok(())
    }

    /// Waits for the running seal or step of upkeep, seals the rest, publishes a last time.
    fn finish(&mut self, turn: &Turn) -> Result<(), PipelineError> {
        self.go_on.store(false, Relaxed);
        let mut waiting = turn.sealing || turn.keeping;
        loop {
            if waiting {
                match self.results.recv() {
                    Ok(Done::Sealed(Ok(sealed))) => self.fold.sealed(&sealed),
                    Ok(Done::Upkept(Ok(done))) => self.fold.upkept(&done),
                    Ok(Done::Upkept(Err(error))) if !error.is_fatal() => {
                        tracing::warn!(%error, "sealed files could not be looked after");
                    }
                    Ok(Done::Sealed(Err(error)) | Done::Upkept(Err(error))) => return Err(error),
                    Err(_) => return Ok(()),
                }
            }
            self.publish();
            waiting = match self.fold.capture(false) {
                Some(capture) => self.work.send(Work::Seal(Box::new(capture))).is_ok(),
                None => return Ok(()),
            };
        }
    }
}
