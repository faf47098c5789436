//! Where traces are held while they may still change: a bounded number awake, the others asleep as packed bytes.
//!
//! A trace that waits for its root, or for late spans, is a few hundred bytes of fields that nobody reads. Beyond
//! [`Limits::awake_max`](super::Limits) the ones that woke first are packed: numbers as varints, words shared. What is
//! asleep is woken by its next span or when it is due. Sleeping changes no result, only memory.

use super::{span::Labels, trace::Trace};
use ahash::RandomState;
use hashbrown::HashMap;
use postcard::ser_flavors::Flavor;
use serde::{Deserialize, Serialize};
use std::{collections::VecDeque, sync::Arc};
use store::{Mark, TraceId};

/// A packed trace. Immutable, so a capture shares it.
#[derive(Debug)]
pub(super) struct Asleep {
    /// Distinct labels of its spans; the bytes hold indices.
    labels: Words,
    /// Its mark, and that of what the cells hold of it.
    marks: [Option<Arc<Mark>>; 2],
    bytes: Box<[u8]>,
    /// What a capture asks of every trace.
    glance: Glance,
}

/// Labels of the spans of one trace: most have one.
#[derive(Debug)]
enum Words {
    One(Arc<Labels>),
    Many(Box<[Arc<Labels>]>),
}

impl Words {
    fn all(&self) -> &[Arc<Labels>] {
        match self {
            Self::One(labels) => std::slice::from_ref(labels),
            Self::Many(labels) => labels,
        }
    }
}

impl From<Vec<Arc<Labels>>> for Words {
    fn from(mut labels: Vec<Arc<Labels>>) -> Self {
        match (labels.len(), labels.pop()) {
            (1, Some(only)) => Self::One(only),
            (_, last) => {
                labels.extend(last);
                Self::Many(labels.into())
            }
        }
    }
}

/// What can be told of a trace without unpacking it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
struct Glance {
    /// Its root was not seen, so its mark may still be corrected, even if it closed for want of news.
    provisional: bool,
    first_lsn: u64,
    last_lsn: u64,
}

impl Glance {
    fn of(trace: &Trace) -> Self {
        Self {
            provisional: !trace.rooted,
            first_lsn: trace.first_lsn,
            last_lsn: trace.last_lsn,
        }
    }
}

/// What postcard writes of a trace: its words are shared and stand outside.
#[derive(Serialize, Deserialize)]
struct Packed<T> {
    trace: T,
    /// Of every span.
    labels: Vec<u32>,
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
        let mut labels: Vec<&Arc<Labels>> = Vec::new();
        let mut indices = Vec::with_capacity(trace.spans.len());
        for span in &trace.spans {
            let at = labels.iter().position(|known| Arc::ptr_eq(known, &span.labels));
            indices.push(at.unwrap_or(labels.len()) as u32);
            if at.is_none() {
                labels.push(&span.labels);
            }
        }
        let packed = Packed {
            trace,
            labels: indices,
            mark_lsn: trace.mark.as_ref().map_or(0, |(_, lsn)| *lsn),
        };
        scratch.clear();
        postcard::serialize_with_flavor(&packed, Onto(scratch)).ok()?;
        Some(Self {
            bytes: scratch.as_slice().into(),
            labels: labels.into_iter().cloned().collect::<Vec<_>>().into(),
            marks: [
                trace.mark.as_ref().map(|(mark, _)| Arc::clone(mark)),
                trace.charged.as_ref().map(|charged| Arc::clone(&charged.mark)),
            ],
            glance: Glance::of(trace),
        })
    }

    /// The trace as it was.
    pub fn wake(&self) -> Option<Trace> {
        let Packed {
            mut trace,
            labels,
            mark_lsn,
        } = postcard::from_bytes::<Packed<Trace>>(&self.bytes).ok()?;
        for (span, at) in trace.spans.iter_mut().zip(labels) {
            span.labels = Arc::clone(self.labels.all().get(at as usize)?);
        }
        let [mark, charged] = &self.marks;
        trace.mark = mark.as_ref().map(|mark| (Arc::clone(mark), mark_lsn));
        if let (Some(outcome), Some(mark)) = (&mut trace.charged, charged) {
            Arc::make_mut(outcome).mark = Arc::clone(mark);
        }
        trace.weigh();
        Some(trace)
    }

    /// Its memory, about, bytes.
    fn weight(&self) -> u64 {
        let boxed = match &self.labels {
            Words::One(_) => self.bytes.len(),
            Words::Many(labels) => self.bytes.len() + size_of_val::<[_]>(labels),
        };
        (size_of::<Self>() + boxed + OVERHEAD_BYTES) as u64
    }
}

/// Entries in maps and queues, and what the allocator adds; bytes.
const OVERHEAD_BYTES: usize = 96;

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
                None => tracing::error!("a packed trace cannot be read; it is forgotten"),
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

    /// Takes a trace out.
    pub fn remove(&mut self, id: &TraceId) -> Option<Arc<Trace>> {
        self.get_mut(id)?;
        let trace = self.awake.remove(id)?;
        self.bytes = self.bytes.saturating_sub(trace.weighed);
        Some(trace)
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
    use super::{Arc, Asleep, Glance, HashMap, Held, Labels, Mark, RandomState, TraceId};
    use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error};

    #[derive(Serialize, Deserialize)]
    struct Record<L, M, B> {
        labels: Vec<L>,
        marks: Vec<M>,
        traces: Vec<(TraceId, Indices, B)>,
    }

    /// What a trace has of the record's labels and marks.
    #[derive(Serialize, Deserialize)]
    struct Indices {
        labels: Vec<u32>,
        marks: [Option<u32>; 2],
        glance: Glance,
    }

    /// Distinct values, told apart by where they stand in memory.
    struct Distinct<'a, T> {
        values: Vec<&'a T>,
        at: HashMap<*const T, u32, RandomState>,
    }

    impl<'a, T> Distinct<'a, T> {
        fn index(&mut self, value: &'a Arc<T>) -> u32 {
            *self.at.entry(Arc::as_ptr(value)).or_insert_with(|| {
                self.values.push(value);
                self.values.len() as u32 - 1
            })
        }
    }

    fn distinct<'a, T>() -> Distinct<'a, T> {
        Distinct {
            values: Vec::new(),
            at: HashMap::default(),
        }
    }

    /// Packs what is awake, and writes all.
    pub fn serialize<S: Serializer>(traces: &[(TraceId, Held)], s: S) -> Result<S::Ok, S::Error> {
        use serde::ser::Error;
        let mut scratch = Vec::new();
        let packed = traces
            .iter()
            .map(|(id, held)| match held {
                Held::Asleep(asleep) => Some((*id, Arc::clone(asleep))),
                Held::Awake(trace) => Some((*id, Arc::new(Asleep::of(trace, &mut scratch)?))),
            })
            .collect::<Option<Vec<_>>>()
            .ok_or_else(|| S::Error::custom("a trace cannot be packed"))?;
        let (mut labels, mut marks) = (distinct(), distinct());
        let traces = packed
            .iter()
            .map(|(id, asleep)| {
                let indices = Indices {
                    labels: asleep.labels.all().iter().map(|of| labels.index(of)).collect(),
                    marks: [0, 1].map(|i: usize| asleep.marks[i].as_ref().map(|mark| marks.index(mark))),
                    glance: asleep.glance,
                };
                (*id, indices, &asleep.bytes)
            })
            .collect();
        Record {
            labels: labels.values,
            marks: marks.values,
            traces,
        }
        .serialize(s)
    }

    /// Reads what [`serialize`] wrote.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<(TraceId, Held)>, D::Error> {
        let record = Record::<Arc<Labels>, Arc<Mark>, Box<[u8]>>::deserialize(d)?;
        let missing = || D::Error::custom("a packed trace names what the record does not have");
        let mark = |at: Option<u32>| match at {
            Some(at) => record.marks.get(at as usize).cloned().map(Some).ok_or_else(missing),
            None => Ok(None),
        };
        record
            .traces
            .into_iter()
            .map(|(id, indices, bytes)| {
                let of = |at: &u32| record.labels.get(*at as usize).cloned().ok_or_else(missing);
                let asleep = Asleep {
                    labels: indices.labels.iter().map(of).collect::<Result<Vec<_>, _>>()?.into(),
                    marks: [mark(indices.marks[0])?, mark(indices.marks[1])?],
                    bytes,
                    glance: indices.glance,
                };
                Ok((id, Held::Asleep(Arc::new(asleep))))
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
