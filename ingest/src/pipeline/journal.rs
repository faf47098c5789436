//! The journal thread: append, fdatasync, ack, pass on. What it passes on is durable, so nobody ever sees a row that a
//! kill could take back.

use super::{
    Fault,
    counters::{Counters, add, sub},
};
use crate::intake::{Accepted, RETRY_AFTER_MS, Refusal};
use crossbeam_channel::{Receiver, Sender};
use proto::Nanos;
use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use store::{Journal, MicroBatch, Section, StoreError};
use tokio::sync::oneshot;

/// The answer to one request, ready to be sent once it is durable.
#[derive(Debug)]
pub(super) struct Waiting {
    pub reply: oneshot::Sender<Result<Accepted, Refusal>>,
    pub accepted: Accepted,
}

/// A closed group, not yet numbered.
#[derive(Debug)]
pub(super) struct Group {
    pub received_at: Nanos,
    pub digests: Vec<u128>,
    pub sections: Vec<Section>,
    pub waiting: Vec<Waiting>,
}

/// From lane to journal.
#[derive(Debug)]
pub(super) enum Entry {
    Group(Group),
    Tick(Nanos),
    /// Nothing comes after this.
    Stop,
}

/// From journal to engine: the same, but durable and numbered.
#[derive(Debug)]
pub(super) enum Event {
    Batch(MicroBatch),
    Tick(Nanos),
    Stop,
}

/// From journal to lane, one for every group, in order: `Ok` once durable.
pub(super) type Done = Result<(), Refusal>;

pub(super) struct JournalThread {
    pub journal: Journal,
    pub entries: Receiver<Entry>,
    pub done: Sender<Done>,
    pub events: Sender<Event>,
    pub counters: Arc<Counters>,
    pub fault: Fault,
}

impl JournalThread {
    /// Returns when told to stop, when a neighbour is gone, or when the disk failed.
    pub fn run(mut self) {
        for entry in &self.entries {
            sub(&self.counters.journal_depth, 1);
            let event = match entry {
                Entry::Tick(now) => Event::Tick(now),
                Entry::Stop => Event::Stop,
                Entry::Group(group) => match write(&mut self.journal, group, &self.counters) {
                    Ok((batch, waiting)) => {
                        if self.done.send(Ok(())).is_err() {
                            return;
                        }
                        ack(waiting, &self.counters);
                        Event::Batch(batch)
                    }
                    Err((error, waiting)) => {
                        let refusal = refusal_of(&error);
                        let survivable = error.is_full() || matches!(error, StoreError::TooLarge { .. });
                        if survivable {
                            tracing::warn!(%error, "a group of requests is refused; nothing of it was written");
                        } else {
                            self.fault.raise(&error);
                        }
                        // The lane first: who is refused and comes again at once must not be taken for known.
                        let goes_on = self.done.send(Err(refusal.clone())).is_ok() && survivable;
                        refuse(waiting, &refusal, &self.counters);
                        if goes_on {
                            continue;
                        }
                        return;
                    }
                },
            };
            let stop = matches!(event, Event::Stop);
            add(&self.counters.engine_depth, 1);
            if self.events.send(event).is_err() || stop {
                return;
            }
        }
    }
}

type Written = Result<(MicroBatch, Vec<Waiting>), (StoreError, Vec<Waiting>)>;

/// Numbers a group and makes it durable.
fn write(journal: &mut Journal, group: Group, counters: &Counters) -> Written {
    let Group {
        received_at,
        digests,
        sections,
        waiting,
    } = group;
    let batch = MicroBatch {
        lsn: journal.next_lsn(),
        received_at,
        digests,
        sections,
    };
    let began = Instant::now();
    let written = journal.append(&batch).and_then(|bytes| {
        let began = Instant::now();
        journal.sync()?;
        counters.fsync_time.record(began.elapsed());
        Ok(bytes)
    });
    match written {
        Ok(bytes) => {
            counters.journal_time.record(began.elapsed());
            counters.durable_lsn.store(batch.lsn, Relaxed);
            add(&counters.journal_bytes, bytes);
            add(&counters.groups, 1);
            Ok((batch, waiting))
        }
        Err(error) => Err((error, waiting)),
    }
}

fn ack(waiting: Vec<Waiting>, counters: &Counters) {
    for Waiting { reply, accepted } in waiting {
        add(&counters.requests_acked, 1);
        add(&counters.accepted, accepted.accepted);
        add(&counters.rejected, accepted.rejected);
        _ = reply.send(Ok(accepted));
    }
}

fn refusal_of(error: &StoreError) -> Refusal {
    if error.is_full() {
        Refusal::Busy {
            cause: "disk space",
            retry_after: Duration::from_millis(RETRY_AFTER_MS),
        }
    } else if matches!(error, StoreError::TooLarge { .. }) {
        Refusal::Busy {
            cause: "record size",
            retry_after: Duration::from_millis(RETRY_AFTER_MS),
        }
    } else {
        Refusal::Unavailable(format!("the journal cannot be written: {error}"))
    }
}

fn refuse(waiting: Vec<Waiting>, refusal: &Refusal, counters: &Counters) {
    add(&counters.requests_refused, waiting.len() as u64);
    for Waiting { reply, .. } in waiting {
        _ = reply.send(Err(refusal.clone()));
    }
}
