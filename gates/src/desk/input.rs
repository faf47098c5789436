//! What the desk reads, and what it asks about where that came from.

use proto::{
    CellTable, Nanos,
    measure::{Measured, SeenPath},
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// What the desk reads: published by the server whenever the snapshot changed.
#[derive(Debug, Clone, Default)]
pub struct GateInput {
    /// Cells of the latest snapshot.
    pub cells: CellTable,
    /// Whether the journal was replayed; nothing is judged and nothing old is sent before.
    pub ready: bool,
    /// What keeps the numbers from being trusted (an ingest outage, shed traffic above 1 %, quarantined files), in words:
    /// every verdict is then inconclusive. The breaker still works.
    pub impaired: Option<String>,
    /// What rows were asked for, by release (see [`proto::measure`] and [`super::DeskHandle::plans`]).
    pub measured: Arc<BTreeMap<String, Arc<Measured>>>,
    /// Paths that served lately, as the rows show them; `None` while nobody has looked.
    pub seen: Option<Arc<Vec<SeenPath>>>,
    /// Says what was visible when something is decided.
    pub whence: Whence,
}

/// What was visible when a decision was made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Provenance {
    /// Number of the snapshot.
    pub snapshot: u64,
    /// Last journal record in it.
    pub journal_lsn: u64,
    /// Sealed files that hold rows or cells of the time that was judged, by path under the data directory.
    pub files: Vec<String>,
    /// How many there are, if not all are named.
    pub files_total: usize,
}

/// A question that is asked only when something is decided: what is visible of the time from `from` on?
#[derive(Clone, Default)]
pub struct Whence(Option<Arc<dyn Fn(Nanos) -> Provenance + Send + Sync>>);

impl Whence {
    /// Asks `of`.
    pub fn new(of: impl Fn(Nanos) -> Provenance + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(of)))
    }

    pub(super) fn ask(&self, from: Nanos) -> Provenance {
        self.0.as_ref().map(|ask| ask(from)).unwrap_or_default()
    }
}

impl std::fmt::Debug for Whence {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Whence")
    }
}
