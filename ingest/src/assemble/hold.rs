//! Where traces are held while they may still change: a bounded number awake, the others asleep as packed bytes.
//!
//! A trace that waits for its root, or for late spans, is a few hundred bytes of fields that nobody reads. Beyond
//! [`Limits::awake_max`](super::Limits) the ones that woke first are packed: numbers as varints, words shared. What is
//! asleep is woken by its next span or when it is due. Sleeping changes no result, only memory.

use super::{outcome::Outcome, span::Labels, spans::PackedSpans, trace::Trace};
use ahash::RandomState;
use hashbrown::{HashMap, HashSet};
use postcard::ser_flavors::Flavor;
use proto::Nanos;
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, sync::Arc};
use store::{Mark, TraceId};

/// A packed trace. Immutable, so a capture shares it.
#[derive(Debug, Clone)]
pub(super) struct Asleep {
    spans: PackedSpans,
    /// Its mark, and that of what the cells hold of it.
    marks: [Option<Arc<Mark>>; 2],
    /// All the rest.
    bytes: Box<[u8]>,
    glance: Glance,
}

/// What can be told of a trace without unpacking it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Glance {
    first_lsn: u64,
    last_lsn: u64,
    touched: Nanos,
    /// Nothing of it waits to be admitted.
    settled: bool,
}

impl Glance {
    fn of(trace: &Trace) -> Self {
        Self {
            first_lsn: trace.first_lsn,
            last_lsn: trace.last_lsn,
            touched: trace.touched,
            settled: waits(trace).is_none(),
        }
    }
}

/// What is left to be said of a trace that is forgotten.
#[derive(Debug)]
pub(super) struct Parting {
    /// When its last span came.
    pub touched: Nanos,
    /// What cells hold of it, if that is not admitted, and when it is to be.
    pub waits: Option<(Nanos, Arc<Outcome>)>,
}

impl Parting {
    fn of(trace: &Trace) -> Self {
        Self {
            touched: trace.touched,
            waits: waits(trace).map(|(at, charged)| (at, Arc::clone(charged))),
        }
    }
}

/// What cells hold of a trace and is still to be admitted, and when.
fn waits(trace: &Trace) -> Option<(Nanos, &Arc<Outcome>)> {
    trace.admit_at.zip(trace.charged.as_ref()).filter(|_| !trace.admitted)
}

/// What postcard writes of a trace: spans, marks, and what a glance tells, stand outside.
#[derive(Serialize, Deserialize)]
struct Packed<T> {
    trace: T,
    mark_lsn: u64,
}

/// Where postcard writes: bytes that are used again and again.
struct Onto<'a>(&'a mut Vec<u8>);

impl Flavor for Onto<'_> {
    type Output = ();

    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

impl Asleep {
    /// Packs a trace; `None` if it cannot be written, which would be a fault of ours: it then stays awake. `scratch` is
    /// written over.
    pub fn of(trace: &Trace, scratch: &mut Vec<u8>) -> Option<Self> {
        let spans = trace.spans.pack(scratch);
        let packed = Packed {
            trace,
            mark_lsn: trace.mark.as_ref().map_or(0, |(_, lsn)| *lsn),
        };
        scratch.clear();
        postcard::serialize_with_flavor(&packed, Onto(scratch)).ok()?;
        Some(Self {
            spans,
            bytes: scratch.as_slice().into(),
            marks: [
                trace.mark.as_ref().map(|(mark, _)| Arc::clone(mark)),
                trace.charged.as_ref().map(|charged| Arc::clone(&charged.mark)),
            ],
            glance: Glance::of(trace),
        })
    }

    /// The trace as it was.
    pub fn wake(&self) -> Option<Trace> {
        let mut trace = self.without_spans()?;
        trace.spans = self.spans.unpack()?;
        trace.weigh();
        Some(trace)
    }

    /// Puts other labels in the place of those that are there.
    pub fn relabel(&mut self, other: impl FnMut(&Arc<Labels>) -> Arc<Labels>) {
        self.spans.relabel(other);
    }

    fn without_spans(&self) -> Option<Trace> {
        let Packed { mut trace, mark_lsn } = postcard::from_bytes::<Packed<Trace>>(&self.bytes).ok()?;
        let glance = &self.glance;
        (trace.first_lsn, trace.last_lsn, trace.touched) = (glance.first_lsn, glance.last_lsn, glance.touched);
        let [mark, charged] = &self.marks;
        trace.mark = mark.as_ref().map(|mark| (Arc::clone(mark), mark_lsn));
        if let (Some(outcome), Some(mark)) = (&mut trace.charged, charged) {
            Arc::make_mut(outcome).mark = Arc::clone(mark);
        }
        Some(trace)
    }

    fn parting(&self) -> Option<Parting> {
        if self.glance.settled {
            return Some(Parting {
                touched: self.glance.touched,
                waits: None,
            });
        }
        Some(Parting::of(&self.without_spans()?))
    }

    /// Its memory, about, bytes.
    fn weight(&self) -> u64 {
        (size_of::<Self>() + self.bytes.len() + self.spans.weight() + OVERHEAD_BYTES) as u64
    }
}

/// Entries in maps and queues, and what the allocator adds; bytes.
const OVERHEAD_BYTES: usize = 96;

const UNREADABLE: &str = "a packed trace cannot be read; it is forgotten";

/// A trace, in one form or the other.
#[derive(Debug)]
enum Held {
    Awake(Box<Trace>),
    Asleep(Arc<Asleep>),
}

impl Held {
    fn glance(&self) -> Glance {
        match self {
            Self::Awake(trace) => Glance::of(trace),
            Self::Asleep(asleep) => asleep.glance,
        }
    }

    fn mark(&self) -> Option<&Arc<Mark>> {
        match self {
            Self::Awake(trace) => trace.mark.as_ref().map(|(mark, _)| mark),
            Self::Asleep(asleep) => asleep.marks[0].as_ref(),
        }
    }

    fn weight(&self) -> u64 {
        match self {
            Self::Awake(trace) => trace.weighed,
            Self::Asleep(asleep) => asleep.weight(),
        }
    }
}

/// All traces as a capture takes them, by id.
pub(super) type Captured = Vec<(TraceId, Arc<Asleep>)>;

/// Traces by id.
#[derive(Debug, Default)]
pub(super) struct Traces {
    held: HashMap<TraceId, Held, RandomState>,
    /// Those whose root has not been seen.
    unrooted: HashSet<TraceId, RandomState>,
    /// How many are awake.
    awake: usize,
    /// In order of waking; entries of traces that are gone are skipped.
    woken: VecDeque<TraceId>,
    /// Memory of all, about, bytes.
    bytes: u64,
    /// What packing writes to first.
    scratch: Vec<u8>,
}

impl Traces {
    /// Memory of all traces, about, bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many are held.
    pub fn len(&self) -> usize {
        self.held.len()
    }

    /// Whether a trace is held.
    pub fn contains(&self, id: &TraceId) -> bool {
        self.held.contains_key(id)
    }

    /// A trace, woken if it was asleep.
    pub fn get_mut(&mut self, id: &TraceId) -> Option<&mut Trace> {
        let held = self.held.get_mut(id)?;
        if let Held::Asleep(asleep) = held {
            let Some(trace) = asleep.wake() else {
                tracing::error!("{UNREADABLE}");
                self.bytes = self.bytes.saturating_sub(asleep.weight());
                self.held.remove(id);
                return None;
            };
            self.bytes = self.bytes.saturating_sub(asleep.weight()) + trace.weighed;
            self.awake += 1;
            self.woken.push_back(*id);
            *held = Held::Awake(Box::new(trace));
        }
        match self.held.get_mut(id)? {
            Held::Awake(trace) => Some(trace),
            Held::Asleep(_) => None,
        }
    }

    /// Adds a trace, or puts another in its place.
    pub fn insert(&mut self, id: TraceId, trace: Trace) {
        self.bytes += trace.weighed;
        self.awake += 1;
        match self.held.insert(id, Held::Awake(Box::new(trace))) {
            Some(before) => self.let_go(&before),
            None => self.woken.push_back(id),
        }
    }

    /// Adds one that sleeps.
    pub fn take_up(&mut self, id: TraceId, asleep: Arc<Asleep>) {
        self.bytes += asleep.weight();
        if let Some(before) = self.held.insert(id, Held::Asleep(asleep)) {
            self.let_go(&before);
        }
    }

    fn let_go(&mut self, held: &Held) {
        self.bytes = self.bytes.saturating_sub(held.weight());
        self.awake -= usize::from(matches!(held, Held::Awake(_)));
    }

    /// Takes a trace out for good.
    pub fn remove(&mut self, id: &TraceId) -> Option<Parting> {
        let held = self.held.remove(id)?;
        self.let_go(&held);
        self.unrooted.remove(id);
        match held {
            Held::Awake(trace) => Some(Parting::of(&trace)),
            Held::Asleep(asleep) => {
                let parting = asleep.parting();
                if parting.is_none() {
                    tracing::error!("{UNREADABLE}");
                }
                parting
            }
        }
    }

    /// Counts the memory of a trace again.
    pub fn reweigh(&mut self, id: &TraceId) {
        if let Some(Held::Awake(trace)) = self.held.get_mut(id) {
            let change = trace.weigh();
            self.bytes = self.bytes.saturating_add_signed(change);
        }
    }

    /// Whether the root of a trace was seen, as it was last looked at.
    pub fn note_root(&mut self, id: TraceId, rooted: bool) {
        if rooted {
            self.unrooted.remove(&id);
        } else {
            self.unrooted.insert(id);
        }
    }

    /// Puts to sleep what woke first, until at most `awake_max` are awake.
    pub fn settle(&mut self, awake_max: usize) {
        while self.awake > awake_max
            && let Some(id) = self.woken.pop_front()
        {
            let Some(held) = self.held.get_mut(&id) else {
                continue;
            };
            let Held::Awake(trace) = held else {
                continue;
            };
            let Some(asleep) = Asleep::of(trace, &mut self.scratch) else {
                tracing::error!("{CANNOT_PACK}; it stays awake");
                self.woken.push_back(id);
                return;
            };
            self.bytes = self.bytes.saturating_sub(trace.weighed) + asleep.weight();
            self.awake -= 1;
            *held = Held::Asleep(Arc::new(asleep));
        }
        if self.woken.len() > 2 * self.awake + 1_024 {
            let held = &self.held;
            self.woken.retain(|id| matches!(held.get(id), Some(Held::Awake(_))));
        }
    }

    /// Shows every trace, in no order; of those asleep a copy, one at a time.
    pub fn each(&mut self, mut show: impl FnMut(TraceId, &mut Trace)) {
        for (id, held) in &mut self.held {
            match held {
                Held::Awake(trace) => show(*id, trace),
                Held::Asleep(asleep) => _ = asleep.wake().map(|mut trace| show(*id, &mut trace)),
            }
        }
    }

    /// Marks of traces whose root has not been seen, so that they may still be corrected, even if they closed for want of
    /// news; with the first record that brought rows of them, and of those
    /// that had rows after record `since`.
    pub fn provisional(&self, since: u64) -> impl Iterator<Item = (TraceId, Arc<Mark>, u64)> + '_ {
        self.unrooted.iter().filter_map(move |id| {
            let held = self.held.get(id)?;
            let glance = held.glance();
            (glance.last_lsn > since).then_some((*id, Arc::clone(held.mark()?), glance.first_lsn))
        })
    }

    /// All, packed, by id: what is awake is packed now, so that nothing which still changes is shared.
    pub fn capture(&self) -> Captured {
        let mut scratch = Vec::new();
        let mut all = Vec::with_capacity(self.held.len());
        for (id, held) in &self.held {
            match held {
                Held::Asleep(asleep) => all.push((*id, Arc::clone(asleep))),
                Held::Awake(trace) => match Asleep::of(trace, &mut scratch) {
                    Some(asleep) => all.push((*id, Arc::new(asleep))),
                    None => tracing::error!("{CANNOT_PACK}; it is not in the commit record"),
                },
            }
        }
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }
}

const CANNOT_PACK: &str = "a trace cannot be packed";

/// How the state of a commit record holds traces: packed, one after the other, and every set of labels and every mark
/// where it is first used.
pub(super) mod record {
    use super::{Arc, Asleep, Captured, Glance, HashMap, Labels, Mark, PackedSpans, RandomState, TraceId};
    use postcard::{Serializer, ser_flavors::Flavor};
    use serde::{Deserialize, Serialize};

    /// A value, or the place among those before it.
    #[derive(Serialize, Deserialize)]
    enum Shared<T> {
        New(T),
        Known(u32),
    }

    #[derive(Serialize, Deserialize)]
    struct Trace<L, M, B> {
        id: TraceId,
        labels: Vec<Shared<L>>,
        marks: [Option<Shared<M>>; 2],
        glance: Glance,
        spans: B,
        rest: B,
    }

    /// Bytes that are written at once, not one by one.
    struct Bytes<'a>(&'a [u8]);

    impl Serialize for Bytes<'_> {
        fn serialize<S: serde::Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            s.serialize_bytes(self.0)
        }
    }

    /// Values that were written, told apart by where they stand in memory, and kept there until all is written.
    struct Written<T> {
        at: HashMap<*const T, u32, RandomState>,
        values: Vec<Arc<T>>,
    }

    impl<T> Default for Written<T> {
        fn default() -> Self {
            Self {
                at: HashMap::default(),
                values: Vec::new(),
            }
        }
    }

    impl<T> Written<T> {
        fn share<'a>(&mut self, value: &'a Arc<T>) -> Shared<&'a T> {
            if let Some(at) = self.at.get(&Arc::as_ptr(value)) {
                return Shared::Known(*at);
            }
            self.at.insert(Arc::as_ptr(value), self.values.len() as u32);
            self.values.push(Arc::clone(value));
            Shared::New(value)
        }
    }

    /// Writes traces, and lets go of each as soon as it is written.
    pub fn write<F: Flavor>(traces: Captured, to: &mut Serializer<F>) -> postcard::Result<()> {
        let (mut labels, mut marks) = (Written::<Labels>::default(), Written::<Mark>::default());
        (traces.len() as u64).serialize(&mut *to)?;
        for (id, asleep) in traces {
            let trace = Trace {
                id,
                labels: asleep.spans.labels().iter().map(|of| labels.share(of)).collect(),
                marks: [0, 1].map(|i: usize| asleep.marks[i].as_ref().map(|mark| marks.share(mark))),
                glance: asleep.glance,
                spans: Bytes(asleep.spans.bytes()),
                rest: Bytes(&asleep.bytes),
            };
            trace.serialize(&mut *to)?;
        }
        Ok(())
    }

    /// Values that were read, in order.
    struct Read<T>(Vec<Arc<T>>);

    impl<T> Read<T> {
        fn find(&mut self, value: Shared<T>) -> postcard::Result<Arc<T>> {
            match value {
                Shared::New(value) => {
                    let value = Arc::new(value);
                    self.0.push(Arc::clone(&value));
                    Ok(value)
                }
                Shared::Known(at) => {
                    let known = self.0.get(at as usize).cloned();
                    known.ok_or(postcard::Error::SerdeDeCustom)
                }
            }
        }
    }

    /// Reads what [`write`] wrote, and says what comes after it.
    pub fn read(bytes: &[u8]) -> postcard::Result<(Captured, &[u8])> {
        let (mut labels, mut marks) = (Read::<Labels>(Vec::new()), Read::<Mark>(Vec::new()));
        let (count, mut rest) = postcard::take_from_bytes::<u64>(bytes)?;
        let mut traces = Vec::new();
        for _ in 0..count {
            let (trace, after) = postcard::take_from_bytes::<Trace<Labels, Mark, &[u8]>>(rest)?;
            rest = after;
            let of = trace.labels.into_iter().map(|of| labels.find(of));
            let of = of.collect::<postcard::Result<Vec<_>>>()?;
            let [mark, charged] = trace.marks.map(|mark| mark.map(|mark| marks.find(mark)).transpose());
            let asleep = Asleep {
                spans: PackedSpans::new(of, trace.spans),
                marks: [mark?, charged?],
                bytes: trace.rest.into(),
                glance: trace.glance,
            };
            traces.push((trace.id, Arc::new(asleep)));
        }
        Ok((traces, rest))
    }
}
