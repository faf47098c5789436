//! The lane: requests in, groups out. It owns the builders; while the journal syncs one group it fills the next.

use super::{
    Settings,
    config::PipelineConfig,
    counters::{Counters, add, sub},
    digests::{Known, Requests},
    journal::{Done, Entry, Group, Waiting},
};
use crate::{
    intake::{Accepted, Envelope, RETRY_AFTER_MS, Refusal, Signal},
    read::{ReadError, Reader},
};
use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, TryRecvError, after, never, select};
use proto::{Nanos, clock::Clock};
use std::{
    collections::VecDeque,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::{Duration, Instant},
};
use tokio::sync::watch;
use xxhash_rust::xxh3::xxh3_128_with_seed;

/// Groups at the journal at one time: one that syncs, one that waits.
const GROUPS_AT_JOURNAL_MAX: usize = 2;

/// How the lane is told to end.
#[derive(Debug)]
pub(super) enum LaneOrder {
    /// Take what waits, then stop.
    Drain,
}

pub(super) struct Lane {
    pub config: PipelineConfig,
    pub reader: Reader,
    pub settings: watch::Receiver<Settings>,
    pub requests: Requests,
    pub clock: Clock,
    pub intake: Receiver<Envelope>,
    pub orders: Receiver<LaneOrder>,
    pub entries: Sender<Entry>,
    pub done: Receiver<Done>,
    pub counters: Arc<Counters>,
    pub open: Open,
    pub time: Onward,
}

/// The time of groups and ticks, which never goes back: rows that came later must not seem to have come before. While the
/// clock is behind, because it was ahead and has been put right, time goes on at half the pace of real time: what waits
/// for time to pass still ends, and the clock catches up.
pub(super) struct Onward {
    last: Nanos,
    told: Instant,
}

impl Onward {
    /// Not before `last`.
    pub fn from(last: Nanos) -> Self {
        Self {
            last,
            told: Instant::now(),
        }
    }

    fn tell(&mut self, clock: Nanos, running: Instant) -> Nanos {
        let passed = running.saturating_duration_since(self.told);
        self.told = running;
        self.last = if clock < self.last {
            self.last.plus(passed / 2)
        } else {
            clock
        };
        self.last
    }
}

/// The group being filled, and those on their way.
#[derive(Default)]
pub(super) struct Open {
    digests: Vec<u128>,
    waiting: Vec<Waiting>,
    since: Option<Instant>,
    /// Requests sent again, by the group that has the original.
    sent_again: VecDeque<(u64, Waiting)>,
    /// Groups closed so far; the open one has the next number.
    closed: u64,
    durable: u64,
}

enum Next {
    Request(Option<Envelope>),
    Done(Option<Done>),
    Order(Option<LaneOrder>),
    Time,
}

impl Lane {
    /// Returns when drained, when told by the end of `orders`, or when the journal is gone. Requests that were not
    /// taken lose their reply, which reads as "not available".
    pub fn run(mut self) {
        let mut next_tick = Instant::now();
        loop {
            let now = Instant::now();
            if now >= next_tick {
                let at = self.now();
                self.tick(at);
                next_tick = now + self.config.tick;
            }
            let full = self.is_full();
            if self.should_close(now, full) && self.close().is_none() {
                return;
            }
            let wait = self.wait(now, next_tick);
            match self.next(full && self.open.since.is_some(), wait) {
                Next::Request(Some(envelope)) => {
                    while let Ok(done) = self.done.try_recv() {
                        self.finish(&done);
                    }
                    self.take(envelope);
                }
                Next::Done(Some(done)) => self.finish(&done),
                Next::Time => {}
                Next::Request(None) | Next::Done(None) | Next::Order(None) => return,
                Next::Order(Some(LaneOrder::Drain)) => return self.drain(),
            }
        }
    }

    /// Tells the time, unless the journal is behind: then the next tick says it.
    fn tick(&self, at: Nanos) {
        add(&self.counters.journal_depth, 1);
        if self.entries.try_send(Entry::Tick(at)).is_err() {
            sub(&self.counters.journal_depth, 1);
        }
    }

    /// `None` if the journal is gone.
    fn send(&self, entry: Entry) -> Option<()> {
        add(&self.counters.journal_depth, 1);
        self.entries.send(entry).ok()
    }

    /// Another configuration holds from the next group on: within one, all rows are read alike.
    fn read_settings(&mut self) {
        if self.reader.rows() == 0 && self.settings.has_changed().unwrap_or(false) {
            let read = Arc::clone(&self.settings.borrow_and_update().read);
            self.reader.set_config(read);
        }
    }

    fn now(&mut self) -> Nanos {
        self.time.tell((self.clock)(), Instant::now())
    }

    fn is_full(&self) -> bool {
        self.reader.rows() >= self.config.commit_rows || self.reader.bytes() >= self.config.commit_bytes
    }

    fn at_journal(&self) -> usize {
        (self.open.closed - self.open.durable) as usize
    }

    /// A group closes at its size; or when the journal is idle, unless more requests wait and the window still runs.
    fn should_close(&self, now: Instant, full: bool) -> bool {
        let Some(since) = self.open.since else {
            return false;
        };
        let waited = now.duration_since(since) >= self.config.commit_window;
        (full && self.at_journal() < GROUPS_AT_JOURNAL_MAX)
            || (self.at_journal() == 0 && (waited || self.intake.is_empty()))
    }

    fn wait(&self, now: Instant, next_tick: Instant) -> Duration {
        let window = self
            .open
            .since
            .filter(|_| self.at_journal() == 0)
            .map(|since| since + self.config.commit_window);
        window
            .map_or(next_tick, |end| end.min(next_tick))
            .saturating_duration_since(now)
    }

    /// A full group that cannot go to the journal yet takes no more: that is where push-back starts.
    fn next(&self, stalled: bool, wait: Duration) -> Next {
        let closed = never();
        let intake = if stalled { &closed } else { &self.intake };
        select! {
            recv(intake) -> envelope => Next::Request(envelope.ok()),
            recv(self.done) -> done => Next::Done(done.ok()),
            recv(self.orders) -> order => Next::Order(order.ok()),
            recv(after(wait)) -> _ => Next::Time,
        }
    }

    fn take(&mut self, envelope: Envelope) {
        let Envelope { signal, body, reply } = envelope;
        if reply.is_closed() {
            // The client gave up while the request was queued and will send it again: reading it now would be in vain.
            return;
        }
        let digest = xxh3_128_with_seed(&body, signal as u64);
        if let Some(Known { group, rejected }) = self.requests.known(digest) {
            add(&self.counters.requests_duplicate, 1);
            let waiting = Waiting {
                reply,
                accepted: Accepted {
                    accepted: 0,
                    rejected,
                    message: if rejected > 0 {
                        REJECTED_BEFORE.to_owned()
                    } else {
                        String::new()
                    },
                },
            };
            if group > self.open.durable {
                self.open.sent_again.push_back((group, waiting));
            } else {
                self.ack(waiting);
            }
            return;
        }
        self.read_settings();
        let (now, rows_before) = (self.now(), self.reader.rows());
        let read = match signal {
            Signal::Traces => self.reader.read_traces(&body, now),
            Signal::Logs => self.reader.read_logs(&body, now),
        };
        match read {
            Err(ReadError::Full) => {
                add(&self.counters.requests_refused, 1);
                let retry_after = Duration::from_millis(RETRY_AFTER_MS);
                _ = reply.send(Err(Refusal::Busy {
                    cause: "rows being gathered",
                    retry_after,
                }));
            }
            Err(error) => {
                add(&self.counters.requests_malformed, 1);
                _ = reply.send(Err(Refusal::Malformed(error.to_string())));
            }
            Ok(accepted) if self.reader.rows() == rows_before => self.ack(Waiting { reply, accepted }),
            Ok(accepted) => {
                self.requests.insert(
                    now,
                    digest,
                    Known {
                        group: self.open.closed + 1,
                        rejected: accepted.rejected,
                    },
                );
                self.open.digests.push(digest);
                self.open.waiting.push(Waiting { reply, accepted });
                add(&self.counters.lane_depth, 1);
                self.open.since.get_or_insert_with(Instant::now);
            }
        }
    }

    /// Answers a request that brought nothing new.
    fn ack(&self, waiting: Waiting) {
        add(&self.counters.requests_acked, 1);
        add(&self.counters.rejected, waiting.accepted.rejected);
        _ = waiting.reply.send(Ok(waiting.accepted));
    }

    /// Hands the open group to the journal; `None` if that is gone.
    fn close(&mut self) -> Option<()> {
        let group = Group {
            received_at: self.now(),
            digests: std::mem::take(&mut self.open.digests),
            sections: self.reader.take(),
            waiting: std::mem::take(&mut self.open.waiting),
        };
        self.counters.set_reading(self.reader.counts());
        self.open.since = None;
        self.open.closed += 1;
        self.requests.closed(self.open.closed, &group.digests);
        self.counters.lane_depth.store(0, Relaxed);
        self.send(Entry::Group(group))
    }

    /// The journal is done with the oldest group.
    fn finish(&mut self, done: &Done) {
        self.open.durable += 1;
        self.requests.finished(self.open.durable, done.is_ok());
        // Every copy of this group's requests, wherever it stands: copies come in any order.
        let waiting = std::mem::take(&mut self.open.sent_again);
        let (due, later): (VecDeque<_>, VecDeque<_>) =
            waiting.into_iter().partition(|(group, _)| *group <= self.open.durable);
        self.open.sent_again = later;
        for (_, waiting) in due {
            match done {
                Ok(()) => self.ack(waiting),
                Err(refusal) => _ = waiting.reply.send(Err(refusal.clone())),
            }
        }
    }

    /// Takes every request that waits, waits for the journal, and says that nothing more comes.
    fn drain(mut self) {
        loop {
            let stalled = self.is_full() && self.at_journal() >= GROUPS_AT_JOURNAL_MAX;
            let waits = if stalled {
                Err(TryRecvError::Empty)
            } else {
                self.intake.try_recv()
            };
            match waits {
                Ok(envelope) => self.take(envelope),
                Err(_) if self.open.since.is_some() && self.at_journal() < GROUPS_AT_JOURNAL_MAX => {
                    if self.close().is_none() {
                        return;
                    }
                }
                Err(_) if self.at_journal() > 0 => match self.done.recv_timeout(DRAIN_MAX) {
                    Ok(done) => self.finish(&done),
                    Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
                },
                Err(_) => {
                    let at = self.now();
                    _ = self.send(Entry::Tick(at));
                    _ = self.send(Entry::Stop);
                    return;
                }
            }
            if self.is_full() && self.at_journal() < GROUPS_AT_JOURNAL_MAX && self.close().is_none() {
                return;
            }
        }
    }
}

/// Why spans of a request that came before are missing: what was wrong with them is not kept.
const REJECTED_BEFORE: &str =
    "rejected when this request first came, which was told then; nothing of it is stored twice";

/// Longest wait for one sync while stopping.
const DRAIN_MAX: Duration = Duration::from_secs(30);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_slowly_while_the_clock_is_behind_and_follows_it_otherwise() {
        const HOUR: Duration = Duration::from_secs(3_600);
        let right = Nanos::from_secs(1_800_000_000);
        let mut time = Onward::from(right);
        let began = time.told;
        assert_eq!(time.tell(right.plus(HOUR), began + HOUR), right.plus(HOUR));
        assert_eq!(
            time.tell(right.plus(30 * HOUR), began + 2 * HOUR),
            right.plus(30 * HOUR),
            "it leapt"
        );
        for hours in 3..57 {
            let told = time.tell(right.plus(hours * HOUR), began + hours * HOUR);
            assert_eq!(
                told,
                right.plus(30 * HOUR + (hours - 2) * HOUR / 2),
                "put right {hours}"
            );
        }
        assert_eq!(
            time.tell(right.plus(58 * HOUR), began + 58 * HOUR),
            right.plus(58 * HOUR),
            "caught up"
        );
        assert_eq!(
            time.tell(right.plus(58 * HOUR), began + 60 * HOUR),
            right.plus(58 * HOUR),
            "a clock that stands"
        );
    }
}
