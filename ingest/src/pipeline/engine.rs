//! The engine thread: one loop over a closed set of events, in the journal's order.

use super::{
    Fault, Settings,
    counters::{Counters, sub},
    error::PipelineError,
    fold::{Capture, Fold},
    journal::Event,
    lookup::Job,
};
use crate::assemble::Answer;
use crossbeam_channel::{Receiver, Sender, after, never, select};
use proto::release::ReleaseBook;
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use store::{Sealed, Snapshot};
use tokio::sync::watch;

pub(super) type SealResult = Result<Sealed, PipelineError>;

pub(super) struct Engine {
    pub fold: Fold,
    pub publish_window: Duration,
    pub seal_retry: Duration,
    pub book: watch::Receiver<Arc<ReleaseBook>>,
    pub settings: watch::Receiver<Settings>,
    pub events: Receiver<Event>,
    pub seal_now: Receiver<()>,
    pub captures: Sender<Capture>,
    pub results: Receiver<SealResult>,
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
            sealing: false,
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
            self.seal_if_due(&mut turn);
            self.look_up(&mut turn);
            // Nothing to publish: the next tick wakes it.
            let wake = if turn.changed {
                after(self.publish_window)
            } else {
                never()
            };
            // Journal and doors wait while seals can't keep up: rows must not pile up in memory.
            let waits = turn.sealing || turn.not_before.is_some();
            let held_up = self.fold.overfull() && waits && !turn.abandoned;
            let events = if held_up { never() } else { self.events.clone() };
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
                    Ok(result) => {
                        turn.sealing = false;
                        self.settle(result, &mut turn)?;
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
        (turn.wanted, turn.not_before) = (false, None);
        if let Some(capture) = self.fold.capture() {
            turn.sealing = self.captures.send(capture).is_ok();
        }
    }

    fn settle(&mut self, result: SealResult, turn: &mut Turn) -> Result<(), PipelineError> {
        match result {
            Ok(sealed) => self.fold.sealed(&sealed),
            Err(error) if is_fatal(&error) => return Err(error),
            Err(error) => {
                tracing::warn!(%error, "sealing failed; rows stay live and in the journal, and it is tried again");
                self.fold.seal_failed()?;
                turn.not_before = Some(Instant::now() + self.seal_retry);
            }
        }
        Ok(())
    }

    /// Waits for the running seal, seals the rest, publishes a last time.
    fn finish(&mut self, turn: &Turn) -> Result<(), PipelineError> {
        let mut sealing = turn.sealing;
        loop {
            if sealing {
                match self.results.recv() {
                    Ok(Ok(sealed)) => self.fold.sealed(&sealed),
                    Ok(Err(error)) => return Err(error),
                    Err(_) => return Ok(()),
                }
            }
            self.publish();
            sealing = match self.fold.capture() {
                Some(capture) => self.captures.send(capture).is_ok(),
                None => return Ok(()),
            };
        }
    }
}

fn is_fatal(error: &PipelineError) -> bool {
    match error {
        PipelineError::Store(error) => error.is_fatal(),
        _ => true,
    }
}
