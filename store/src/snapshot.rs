//! What a query sees: one immutable value, swapped as a whole.
//!
//! Rows never change once written. What became known later about a trace (its color, release, cohort) is a [`Mark`]:
//! it fills the nulls of the trace's rows when they are read, and is folded in for good when they are sealed. A mark
//! that came after its rows were sealed is kept as a [`Patch`] until compaction rewrites the file.

use crate::{Layers, overlay::Depth};
use arrow::{
    array::{AsArray, RecordBatch},
    compute::min,
    datatypes::TimestampNanosecondType,
};
use proto::{CellTable, Color, Nanos, layout::Table};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

/// The 16 bytes of an OTLP trace id; columns show them as 32 lower-case hex digits.
pub type TraceId = [u8; 16];

/// What is known about a trace as a whole. Fills what a row of the trace does not say itself.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Mark {
    /// Gateway path.
    pub route: Option<Arc<str>>,
    /// Resolved color.
    pub color: Color,
    /// Why there is none.
    pub unmarked_reason: Option<Arc<str>>,
    /// Version.
    pub version: Option<Arc<str>>,
    /// Release in force at the trace's start.
    pub release: Option<Arc<str>>,
    /// Cohort value.
    pub cohort: Option<Arc<str>>,
    /// Split in force, ppm.
    pub split_ppm: Option<u32>,
    /// Spans of which something else is known than of their trace, ascending by id.
    #[serde(default)]
    pub spans: Option<Arc<[SpanMark]>>,
}

/// What is known about one span beyond its trace's mark.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SpanMark {
    /// Id of the span.
    pub span: u64,
    /// Color of the nearest span around it that has one, where it is not the trace's.
    pub color: Option<Color>,
    /// Version of the nearest span around it that has one, where it is not the trace's.
    pub version: Option<Arc<str>>,
    /// It is one of two records of the same call.
    pub twin: Option<Twin>,
}

/// One of two records that two instrumentation libraries made of the same call.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Twin {
    /// The record that does not count: `repeats_span_id` names the one that does; `role` reads `other`, and tokens and
    /// cost read null, whatever the row says.
    Repeats(u64),
    /// The record that counts, with what its own row lacks.
    Counts(Box<Filling>),
}

/// Values for the nulls of a call, from its second record. `response_model` also replaces one that only repeats the
/// request model.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Filling {
    /// `response_model`, over a null or a repetition of the request model.
    pub response_model: Option<Arc<str>>,
    /// `prompt_tokens`.
    pub prompt_tokens: Option<i64>,
    /// `completion_tokens`.
    pub completion_tokens: Option<i64>,
    /// `cache_read_tokens`.
    pub cache_read_tokens: Option<i64>,
    /// `cache_write_tokens`.
    pub cache_write_tokens: Option<i64>,
    /// `reasoning_tokens`.
    pub reasoning_tokens: Option<i64>,
    /// `cost_usd`, nano-USD.
    pub cost_nano: Option<i64>,
    /// `ttft_ms`.
    pub ttft_ms: Option<f64>,
}

/// Marks by trace, and whether any of them may know something of a single span.
#[derive(Debug, Clone, Default)]
pub struct Marks {
    by_trace: Layers<TraceId, Arc<Mark>>,
    of_spans: bool,
}

impl Marks {
    /// Newest mark of a trace.
    #[must_use]
    pub fn get(&self, trace: &TraceId) -> Option<&Arc<Mark>> {
        self.by_trace.get(trace)
    }

    /// Adds marks on top; where a trace had one before, the new one counts.
    pub fn push(&mut self, marks: impl IntoIterator<Item = (TraceId, Arc<Mark>)>) {
        let of_spans = &mut self.of_spans;
        self.by_trace
            .push(marks.into_iter().inspect(|(_, mark)| *of_spans |= mark.spans.is_some()));
    }

    /// What a reader of rows with these marks must look for. Stays at spans when the mark that had some is replaced.
    #[must_use]
    pub const fn depth(&self) -> Depth {
        if self.of_spans { Depth::Spans } else { Depth::Traces }
    }
}

/// A mark for rows that were sealed before it was known.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Patch {
    /// The mark.
    pub mark: Arc<Mark>,
    /// The trace's rows lie at `first_lsn..=last_lsn`, so only files that overlap it need the patch.
    pub first_lsn: u64,
    /// Last record that was sealed when the patch was made.
    pub last_lsn: u64,
    /// The root of the trace was seen. A root that comes late may still say otherwise than a mark made without it.
    pub rooted: bool,
}

/// Live rows of one table, in journal order.
#[derive(Debug, Clone, PartialEq)]
pub struct LiveBatch {
    /// Journal record the rows came with, or after which they were made. Several small batches may have been joined:
    /// then the largest.
    pub lsn: u64,
    /// Rows; columns as in [`crate::Section`].
    pub rows: RecordBatch,
}

/// A sealed Parquet file, as the commit record names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct SealedFile {
    /// Table.
    pub table: Table,
    /// Path under the data directory, `/` between segments.
    pub path: String,
    /// Color of every row; `None` for cells.
    pub color: Option<Color>,
    /// Size, bytes.
    pub bytes: u64,
    /// Rows.
    pub rows: u64,
    /// Earliest and latest `start_time` (`time` of evals, `minute` of cells).
    pub start_min: Nanos,
    /// Latest.
    pub start_max: Nanos,
    /// Smallest and largest record whose rows are inside. Of `traces`: of the live batches they came from.
    pub lsn_min: u64,
    /// Largest.
    pub lsn_max: u64,
    /// CRC32C of all its bytes: what it was when it was written.
    pub crc32c: u32,
    /// Some row has a long text ([`proto::schema::LONG_TEXTS`]).
    pub texts: bool,
    /// Shared by every snapshot that names the file: who holds one may still open it.
    #[serde(skip)]
    pub(crate) held: Arc<()>,
}

impl SealedFile {
    /// When its rows were received: first nanosecond of the hour (or day), and the first one after it.
    #[must_use]
    pub fn received(&self) -> (Nanos, Nanos) {
        // Every path is made by `proto::layout`; one that is not is never old.
        proto::layout::received(&self.path).unwrap_or((Nanos(i64::MAX), Nanos(i64::MAX)))
    }
}

/// One consistent view: files, live rows, marks, cells.
#[derive(Debug, Clone, Default)]
pub struct Snapshot {
    /// Grows with every publication.
    pub seq: u64,
    /// Last journal record that is visible.
    pub lsn: u64,
    /// Sealed files, in commit order.
    pub files: Arc<Vec<SealedFile>>,
    /// Unsealed span rows; each trace's mark still to be applied.
    pub spans: Vec<LiveBatch>,
    /// Unsealed evaluation rows; each trace's mark still to be applied.
    pub evals: Vec<LiveBatch>,
    /// Unsealed rows of closed traces, complete.
    pub traces: Vec<LiveBatch>,
    /// Marks for the live rows.
    pub marks: Marks,
    /// Marks for sealed rows.
    pub patches: Layers<TraceId, Patch>,
    /// Rows of `traces` at a record below this are replaced by a later row of the same trace.
    pub replaced: Layers<TraceId, u64>,
    /// All cells, admitted and not yet admitted.
    pub cells: CellTable,
}

impl Snapshot {
    /// When the first of the unsealed spans started.
    #[must_use]
    pub fn unsealed_from(&self) -> Option<Nanos> {
        let starts = self.spans.iter().filter_map(|batch| {
            let starts = batch.rows.column_by_name("start_time")?;
            min(starts.as_primitive_opt::<TimestampNanosecondType>()?)
        });
        starts.min().map(Nanos)
    }

    /// The same without unsealed rows, so that who holds it for long keeps none of them in memory.
    #[must_use]
    pub fn sealed(&self) -> Self {
        Self {
            spans: Vec::new(),
            evals: Vec::new(),
            traces: Vec::new(),
            marks: Marks::default(),
            ..self.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use arrow::array::{ArrayRef, TimestampNanosecondArray};

    #[test]
    fn unsealed_rows_begin_with_the_earliest_and_a_snapshot_without_them_has_none() {
        let batch = |starts: Vec<i64>| {
            let starts: ArrayRef = Arc::new(TimestampNanosecondArray::from(starts).with_timezone("UTC"));
            LiveBatch {
                lsn: 1,
                rows: RecordBatch::try_from_iter([("start_time", starts)]).unwrap(),
            }
        };
        let snapshot = Snapshot {
            spans: vec![batch(vec![30, 20]), batch(vec![25, 40])],
            ..Snapshot::default()
        };
        assert_eq!(snapshot.unsealed_from(), Some(Nanos(20)));
        assert_eq!(snapshot.sealed().unsealed_from(), None);
    }
}
