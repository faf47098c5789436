//! Assembly from the outside: batches in, marks, rows and cells out.

mod aging;
mod any_order;
mod linking;
mod meaning;
mod rows;
mod sentences;

use super::{Answer, Assembly, AssemblyState, Effects, EvalRow, FoundTrace, Limits, TraceRow};
use postcard::{
    Serializer,
    ser_flavors::{Flavor, StdVec},
};
use proto::{
    Cell, CellTable, Color, Grain, Metric, Nanos,
    release::{BookEntry, Manifest, Match, ReleaseBook},
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::{Mark, MicroBatch, Patch, Section, TraceId};

/// Second of the tests' first moment; a whole minute.
const T0: i64 = 1_800_000_000;

fn at(seconds: f64) -> Nanos {
    Nanos(T0 * 1_000_000_000 + (seconds * 1e9) as i64)
}

/// A trace id.
fn id(trace: u8) -> TraceId {
    u128::from(trace).to_be_bytes()
}

fn manifest(version: &str, matches: Match) -> Manifest {
    let text = String::new;
    Manifest {
        version: version.to_owned(),
        provider: text(),
        model: text(),
        prompt: text(),
        tools: "tools@7".to_owned(),
        guardrails: text(),
        cache: text(),
        fallback: Vec::new(),
        policy: text(),
        logging: text(),
        pii: text(),
        matches,
    }
}

/// Route `chat`: 41 is blue, 42 green, half of the traffic each, cohort by `tier`, timeout 20 s and grace 10 s.
fn book() -> Arc<ReleaseBook> {
    let matches = Match {
        deployment: vec!["dep-green".to_owned()],
        variant: vec!["candidate".to_owned()],
        shadow_groups: vec!["chat-shadow".to_owned()],
        ..Match::default()
    };
    Arc::new(ReleaseBook {
        entries: vec![BookEntry {
            route: "chat".into(),
            id: "chat-42".into(),
            blue: manifest("41", Match::default()),
            green: manifest("42", matches),
            cohort_key: Some("tier".into()),
            timeout: Duration::from_secs(20),
            grace: Duration::from_secs(10),
            opened: at(-1_000.0),
            settled: None,
            winner: None,
            splits: vec![(at(-1_000.0), Some(500_000))],
        }],
    })
}

/// An assembly with everything that came out of it.
struct Bench {
    assembly: Assembly,
    lsn: u64,
    cells: CellTable,
    marks: BTreeMap<TraceId, Arc<Mark>>,
    rows: BTreeMap<TraceId, TraceRow>,
    patches: Vec<(TraceId, Patch)>,
    /// Rows of evaluations that assembly held.
    evals: Vec<EvalRow>,
}

impl Bench {
    fn new(limits: Limits) -> Self {
        let mut assembly = Assembly::new(limits);
        assembly.set_book(book());
        Self {
            assembly,
            lsn: 0,
            cells: CellTable::default(),
            marks: BTreeMap::new(),
            rows: BTreeMap::new(),
            patches: Vec::new(),
            evals: Vec::new(),
        }
    }

    fn keep(&mut self, effects: Effects) {
        effects.cells.apply_to(&mut self.cells);
        self.marks.extend(effects.marks);
        self.rows
            .extend(effects.rows.into_iter().map(|row| (row.trace_id, row)));
        self.patches.extend(effects.patches);
        self.evals.extend(effects.evals);
    }

    fn tick(&mut self, now: Nanos) {
        let effects = self.assembly.tick(now, self.lsn);
        self.keep(effects);
        self.answer();
    }

    /// Answers what assembly asks: there are no files.
    fn answer(&mut self) {
        loop {
            let asks = self.assembly.asks(self.lsn);
            if asks.is_empty() {
                return;
            }
            let answer = Answer {
                keys: asks.keys.into_iter().map(|key| (key, Vec::new())).collect(),
                traces: asks
                    .traces
                    .into_iter()
                    .map(|id| (id, Some(FoundTrace::default())))
                    .collect(),
            };
            let effects = self.assembly.answer(answer, self.lsn).unwrap();
            self.keep(effects);
        }
    }

    /// Applies a record; returns the span and evaluation rows that were dropped.
    fn apply(&mut self, now: Nanos, sections: Vec<Section>) -> (Vec<usize>, Vec<usize>) {
        self.tick(now);
        self.lsn += 1;
        let batch = MicroBatch {
            lsn: self.lsn,
            received_at: now,
            digests: Vec::new(),
            sections,
        };
        let mut effects = self.assembly.apply(&batch).unwrap();
        let dropped = (
            std::mem::take(&mut effects.drop_spans),
            std::mem::take(&mut effects.drop_evals),
        );
        self.keep(effects);
        dropped
    }

    /// Forgets everything but the bytes of a commit record.
    fn restart(&mut self, limits: Limits) {
        let mut to = Serializer {
            output: StdVec::default(),
        };
        self.assembly.capture().write(&mut to).unwrap();
        let bytes = to.output.finalize().unwrap();
        let (state, rest) = AssemblyState::read(&bytes).unwrap();
        assert!(rest.is_empty());
        self.assembly = Assembly::restore(limits, state, self.lsn, book());
    }

    fn cell(&self, color: Color, metric: &Metric, grain: Grain, admitted: bool) -> Cell {
        let mut sum = Cell::default();
        for (key, cell) in self.cells.iter() {
            let s = &key.series;
            if s.color == color && s.metric == *metric && s.grain == grain && s.admitted == admitted {
                sum.merge(cell, 1);
            }
        }
        sum
    }
}
