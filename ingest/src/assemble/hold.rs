//! Where traces are held while they may still change: a bounded number awake, the others asleep as packed bytes.
//!
//! A trace that waits for its root, or for late spans, is a few hundred bytes of fields that nobody reads. Beyond
//! [`Limits::awake_max`](super::Limits) the ones that woke first are packed: numbers as varints, words shared. What is
//! asleep is woken by its next span or when it is due. Sleeping changes no result, only memory.

use super::{outcome::Outcome, spans::PackedSpans, trace::Trace};
use ahash::RandomState;
use hashbrown::HashMap;
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
    /// Its root was not seen, so its mark may still be corrected, even if it closed for want of news.
    provisional: bool,
    first_lsn: u64,
    last_lsn: u64,
    touched: Nanos,
    /// Nothing of it waits to be admitted.
    settled: bool,
}

impl Glance {
    fn of(trace: &Trace) -> Self {
        Self {
            provisional: !trace.rooted,
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

/// A trace as a capture takes it.
#[derive(Debug, Clone)]
pub(super) enum Held {
    Awake(Arc<Trace>),
    Asleep(Arc<Asleep>),
}

/// Traces by id.
#[derive(Debug, Default)]
pub(super) struct Traces {
    awake: HashMap<TraceId, Arc<Trace>, RandomState>,
    asleep: HashMap<TraceId, Arc<Asleep>, RandomState>,
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

    /// Whether a trace is held.
    pub fn contains(&self, id: &TraceId) -> bool {
        self.awake.contains_key(id) || self.asleep.contains_key(id)
    }

    /// A trace, woken if it was asleep.
    pub fn get_mut(&mut self, id: &TraceId) -> Option<&mut Arc<Trace>> {
        if !self.asleep.is_empty()
            && let Some(asleep) = self.asleep.remove(id)
        {
            self.bytes = self.bytes.saturating_sub(asleep.weight());
            match asleep.wake() {
                Some(trace) => self.insert(*id, Arc::new(trace)),
                None => tracing::error!("{UNREADABLE}"),
            }
        }
        self.awake.get_mut(id)
    }

    /// Adds a trace, or puts another in its place.
    pub fn insert(&mut self, id: TraceId, trace: Arc<Trace>) {
        self.bytes += trace.weighed;
        match self.awake.insert(id, trace) {
            Some(before) => self.bytes = self.bytes.saturating_sub(before.weighed),
            None => self.woken.push_back(id),
        }
    }

    /// Takes a trace out for good.
    pub fn remove(&mut self, id: &TraceId) -> Option<Parting> {
        if let Some(trace) = self.awake.remove(id) {
            self.bytes = self.bytes.saturating_sub(trace.weighed);
            return Some(Parting::of(&trace));
        }
        let asleep = self.asleep.remove(id)?;
        self.bytes = self.bytes.saturating_sub(asleep.weight());
        let parting = asleep.parting();
        if parting.is_none() {
            tracing::error!("{UNREADABLE}");
        }
        parting
    }

    /// Counts the memory of a trace again.
    pub fn reweigh(&mut self, id: &TraceId) {
        if let Some(trace) = self.awake.get_mut(id) {
            let change = Arc::make_mut(trace).weigh();
            self.bytes = self.bytes.saturating_add_signed(change);
        }
    }

    /// Puts to sleep what woke first, until at most `awake_max` are awake.
    pub fn settle(&mut self, awake_max: usize) {
        while self.awake.len() > awake_max
            && let Some(id) = self.woken.pop_front()
        {
            let Some((id, trace)) = self.awake.remove_entry(&id) else {
                continue;
            };
            match Asleep::of(&trace, &mut self.scratch) {
                Some(asleep) => {
                    self.bytes = self.bytes.saturating_sub(trace.weighed) + asleep.weight();
                    self.asleep.insert(id, Arc::new(asleep));
                }
                None => {
                    tracing::error!("a trace cannot be packed; it stays awake");
                    self.awake.insert(id, trace);
                    self.woken.push_back(id);
                    return;
                }
            }
        }
        if self.woken.len() > 2 * self.awake.len() + 1_024 {
            let awake = &self.awake;
            self.woken.retain(|id| awake.contains_key(id));
        }
    }

    /// Every trace, in no order; those asleep are unpacked one by one.
    pub fn iter(&self) -> impl Iterator<Item = (TraceId, Arc<Trace>)> + '_ {
        let asleep = self
            .asleep
            .iter()
            .filter_map(|(id, held)| Some((*id, Arc::new(held.wake()?))));
        self.awake
            .iter()
            .map(|(id, trace)| (*id, Arc::clone(trace)))
            .chain(asleep)
    }

    /// Marks of traces whose root has not been seen, with the first record that brought rows of them; of those
    /// that had rows after record `since`.
    pub fn provisional(&self, since: u64) -> impl Iterator<Item = (TraceId, Arc<Mark>, u64)> + '_ {
        let awake = self.awake.iter().map(|(id, trace)| {
            let mark = trace.mark.as_ref().map(|(mark, _)| mark);
            (id, Glance::of(trace), mark)
        });
        let asleep = self
            .asleep
            .iter()
            .map(|(id, held)| (id, held.glance, held.marks[0].as_ref()));
        awake.chain(asleep).filter_map(move |(id, glance, mark)| {
            let is_wanted = glance.provisional && glance.last_lsn > since;
            is_wanted.then_some((*id, Arc::clone(mark?), glance.first_lsn))
        })
    }

    /// Pointers to all, for a capture; by id.
    pub fn capture(&self) -> Vec<(TraceId, Held)> {
        let awake = self
            .awake
            .iter()
            .map(|(id, trace)| (*id, Held::Awake(Arc::clone(trace))));
        let asleep = self
            .asleep
            .iter()
            .map(|(id, held)| (*id, Held::Asleep(Arc::clone(held))));
        let mut all: Vec<_> = awake.chain(asleep).collect();
        all.sort_unstable_by_key(|(id, _)| *id);
        all
    }
}

/// How a commit record holds traces: packed, and every set of labels and every mark once.
pub(super) mod record {
    use super::{Arc, Asleep, Glance, HashMap, Held, Mark, PackedSpans, RandomState, TraceId};
    use crate::assemble::span::Labels;
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};
    use std::{borrow::Cow, cell::RefCell};

    #[derive(Serialize, Deserialize)]
    struct Record<L, M, T> {
        labels: Vec<L>,
        marks: Vec<M>,
        traces: T,
    }

    #[derive(Serialize, Deserialize)]
    struct Trace<B> {
        id: TraceId,
        /// What it has of the record's labels and marks.
        labels: Vec<u32>,
        marks: [Option<u32>; 2],
        glance: Glance,
        spans: B,
        rest: B,
    }

    /// Bytes that are written at once, not one by one.
    struct Bytes<'a>(&'a [u8]);

    impl Serialize for Bytes<'_> {
        fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            s.serialize_bytes(self.0)
        }
    }

    /// Distinct values, told apart by where they stand in memory.
    struct Distinct<T> {
        values: Vec<Arc<T>>,
        at: HashMap<*const T, u32, RandomState>,
    }

    impl<T> Distinct<T> {
        fn index(&mut self, value: &Arc<T>) -> u32 {
            *self.at.entry(Arc::as_ptr(value)).or_insert_with(|| {
                self.values.push(Arc::clone(value));
                self.values.len() as u32 - 1
            })
        }
    }

    impl<T> Default for Distinct<T> {
        fn default() -> Self {
            Self {
                values: Vec::new(),
                at: HashMap::default(),
            }
        }
    }

    /// Traces with their places in the record's labels and marks, which are all known by now: made while they are written.
    struct Each<'a> {
        traces: &'a [(TraceId, Held)],
        places: RefCell<(Distinct<Labels>, Distinct<Mark>)>,
    }

    impl Serialize for Each<'_> {
        fn serialize<S: Serializer>(&self, s: S) -> Result<S::Ok, S::Error> {
            use serde::ser::{Error, SerializeSeq};
            let (labels, marks) = &mut *self.places.borrow_mut();
            let mut scratch = Vec::new();
            let mut seq = s.serialize_seq(Some(self.traces.len()))?;
            for (id, held) in self.traces {
                let asleep = packed(held, &mut scratch).ok_or_else(|| S::Error::custom(CANNOT_PACK))?;
                seq.serialize_element(&Trace {
                    id: *id,
                    labels: asleep.spans.labels().iter().map(|of| labels.index(of)).collect(),
                    marks: [0, 1].map(|i: usize| asleep.marks[i].as_ref().map(|mark| marks.index(mark))),
                    glance: asleep.glance,
                    spans: Bytes(asleep.spans.bytes()),
                    rest: Bytes(&asleep.bytes),
                })?;
            }
            seq.end()
        }
    }

    const CANNOT_PACK: &str = "a trace cannot be packed";

    fn packed<'a>(held: &'a Held, scratch: &mut Vec<u8>) -> Option<Cow<'a, Asleep>> {
        match held {
            Held::Asleep(asleep) => Some(Cow::Borrowed(asleep)),
            Held::Awake(trace) => Asleep::of(trace, scratch).map(Cow::Owned),
        }
    }

    /// Packs what is awake, and writes all. A trace that is awake is packed twice: that costs less than room for all.
    pub fn serialize<S: Serializer>(traces: &[(TraceId, Held)], s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error;
        let (mut labels, mut marks) = (Distinct::default(), Distinct::default());
        let mut scratch = Vec::new();
        for (_, held) in traces {
            let asleep = packed(held, &mut scratch).ok_or_else(|| S::Error::custom(CANNOT_PACK))?;
            asleep.spans.labels().iter().for_each(|of| _ = labels.index(of));
            asleep.marks.iter().flatten().for_each(|mark| _ = marks.index(mark));
        }
        Record {
            labels: labels.values.clone(),
            marks: marks.values.clone(),
            traces: Each {
                traces,
                places: RefCell::new((labels, marks)),
            },
        }
        .serialize(s)
    }

    /// Reads what [`serialize`] wrote.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<(TraceId, Held)>, D::Error> {
        let record = Record::<Arc<Labels>, Arc<Mark>, Vec<Trace<&'de [u8]>>>::deserialize(d)?;
        let missing = || D::Error::custom("a packed trace names what the record does not have");
        let mark = |at: Option<u32>| match at {
            Some(at) => record.marks.get(at as usize).cloned().map(Some).ok_or_else(missing),
            None => Ok(None),
        };
        record
            .traces
            .iter()
            .map(|trace| {
                let of = |at: &u32| record.labels.get(*at as usize).cloned().ok_or_else(missing);
                let labels = trace.labels.iter().map(of).collect::<Result<Vec<_>, _>>()?;
                let asleep = Asleep {
                    spans: PackedSpans::new(labels, trace.spans),
                    marks: [mark(trace.marks[0])?, mark(trace.marks[1])?],
                    bytes: trace.rest.into(),
                    glance: trace.glance,
                };
                Ok((trace.id, Held::Asleep(Arc::new(asleep))))
            })
            .collect()
    }
}

impl Held {
    /// The trace; `None` if it was packed by another version.
    pub fn wake(self) -> Option<Arc<Trace>> {
        match self {
            Self::Awake(trace) => Some(trace),
            Self::Asleep(asleep) => asleep.wake().map(Arc::new),
        }
    }
}
