//! Upkeep against a model that knows only rows, marks and cells: whatever was joined, thinned or set aside, a reader
//! sees what it saw before.

mod ages;
mod damage;
mod readers;
mod room;
mod searches;

use crate::{
    journal::options,
    overlay::random_marks,
    rows::{T0, evals, read_parquet, rng, spans, text, trace_hex, traces},
};
use arrow::array::RecordBatch;
use proto::{
    Cell, CellKey, CellTable, Color, Grain, Metric, Nanos,
    cell::{Scope, Series},
    layout::Table,
};
use rand::{RngExt, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    sync::Arc,
};
use store::{
    Layers, LiveBatch, Mark, Patch, SealInput, SealedFile, Sealer, Store, TraceId, Upkeep, Upkept,
    cells::batch_to_cells,
    overlay::{self, Depth},
};
use tempfile::TempDir;

pub const HOUR: i64 = 3_600_000_000_000;
/// Traces of the model.
const TRACES: u64 = 12;
/// Spans of which marks may know something.
const SPANS_MARKED: u64 = 60;
const GO_ON: &dyn Fn() -> bool = &|| true;

/// One step that nothing interrupts.
pub fn step(sealer: &Sealer, now: i64) -> Upkept {
    let task = Upkeep {
        now: Nanos(now),
        aged_to: Nanos(now),
        ..Upkeep::default()
    };
    sealer.upkeep(&task, GO_ON).unwrap()
}

/// Paths below the folders of tables, as a commit names them.
pub fn on_disk(dir: &Path) -> BTreeSet<String> {
    fn below(root: &Path, dir: &Path, found: &mut BTreeSet<String>) {
        for entry in std::fs::read_dir(dir).into_iter().flatten() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                below(root, &path, found);
            } else {
                found.insert(path.strip_prefix(root).unwrap().to_str().unwrap().to_owned());
            }
        }
    }
    let mut found = BTreeSet::new();
    for table in Table::ALL {
        below(dir, &dir.join(table.as_str()), &mut found);
    }
    found
}

pub fn named(files: &[SealedFile]) -> BTreeSet<String> {
    files.iter().map(|file| file.path.clone()).collect()
}

struct Known {
    mark: Arc<Mark>,
    settled: bool,
}

/// A store, and what should be in it.
struct World {
    dir: TempDir,
    store: Store,
    files: Arc<Vec<SealedFile>>,
    patches: Layers<TraceId, Patch>,
    replaced: Layers<TraceId, u64>,
    lsn: u64,
    now: i64,
    next_span: u64,
    /// Raw rows as they came.
    spans: Vec<RecordBatch>,
    evals: Vec<RecordBatch>,
    /// First record of every trace.
    first_lsn: HashMap<TraceId, u64>,
    known: HashMap<TraceId, Known>,
    /// Calls and version of the row that stands.
    traces: BTreeMap<u64, i32>,
    cells: CellTable,
}

impl World {
    fn new() -> Self {
        let dir = TempDir::new().unwrap();
        let (store, found) = Store::open(dir.path(), options()).unwrap();
        Self {
            dir,
            store,
            files: found.base.files,
            patches: Layers::default(),
            replaced: Layers::default(),
            lsn: 0,
            now: T0,
            next_span: 0,
            spans: Vec::new(),
            evals: Vec::new(),
            first_lsn: HashMap::new(),
            known: HashMap::new(),
            traces: BTreeMap::new(),
            cells: CellTable::default(),
        }
    }

    fn seal(&mut self, rng: &mut ChaCha8Rng) {
        self.lsn += 1;
        self.now += rng.random_range(0..HOUR / 3);
        let mut input = SealInput {
            lsn: self.lsn,
            sealed_at: Nanos(self.now),
            ..SealInput::default()
        };
        let live = |rows: RecordBatch| LiveBatch { lsn: self.lsn, rows };
        let n = rng.random_range(1..30);
        let rows = spans(rng, n, TRACES, &mut self.next_span, Nanos(self.now));
        input.spans.push(live(rows.clone()));
        if rng.random_bool(0.4)
            && let Some(again) = self.spans.choose(rng)
        {
            let from = rng.random_range(0..again.num_rows());
            input.spans.push(live(again.slice(from, again.num_rows() - from)));
        }
        self.spans.push(rows);
        let rows = evals(rng, n / 4, TRACES);
        input.evals.push(live(rows.clone()));
        self.evals.push(rows);
        for trace in 0..TRACES {
            let id = overlay::trace_id(&trace_hex(trace)).unwrap();
            self.first_lsn.entry(id).or_insert(self.lsn);
        }
        self.add_traces(rng, &mut input);
        self.add_cells(rng, &mut input);
        for (id, known) in &self.known {
            if known.settled {
                input.marks.push([(*id, Arc::clone(&known.mark))]);
            } else {
                let patch = patch(&known.mark, self.first_lsn[id], self.lsn);
                self.patches.push([(*id, patch)]);
            }
        }
        (input.patches, input.replaced) = (self.patches.clone(), self.replaced.clone());
        self.files = self.store.sealer().seal(input).unwrap().files;
    }

    fn add_traces(&mut self, rng: &mut ChaCha8Rng, input: &mut SealInput) {
        let calls = self.lsn as i32;
        let ids: Vec<u64> = (0..TRACES).filter(|_| rng.random_bool(0.2)).collect();
        for id in &ids {
            if self.traces.insert(*id, calls).is_some() {
                self.replaced
                    .push([(overlay::trace_id(&trace_hex(*id)).unwrap(), self.lsn)]);
            }
        }
        if !ids.is_empty() {
            input.traces.push(LiveBatch {
                lsn: self.lsn,
                rows: traces(&ids, calls),
            });
        }
    }

    fn add_cells(&mut self, rng: &mut ChaCha8Rng, input: &mut SealInput) {
        let mut deltas = CellTable::default();
        for (key, cell) in self.cells.iter().filter(|_| rng.random_bool(0.3)) {
            deltas.apply(&key, cell, -1);
        }
        for _ in 0..3 {
            let key = CellKey {
                scope: Scope {
                    route: ["a", "b"].choose(rng).copied().unwrap().into(),
                    release: None,
                },
                minute: (self.now / 60_000_000_000 - rng.random_range(0..90)) * 60,
                series: Series {
                    metric: Metric::Latency,
                    grain: Grain::Trace,
                    cohort: None,
                    split_ppm: None,
                    color: Color::ALL[rng.random_range(0..3)],
                    admitted: rng.random_bool(0.5),
                },
            };
            deltas.apply(&key, &Cell::amount(rng.random_range(0..1_000_000)), 1);
        }
        self.cells.merge(&deltas);
        input.cell_deltas = deltas;
    }

    /// Something becomes known of a trace that is not settled.
    fn learn(&mut self, rng: &mut ChaCha8Rng) {
        let marks = random_marks(rng, TRACES, SPANS_MARKED.min(self.next_span));
        let mut ids: Vec<&TraceId> = marks.keys().filter(|id| self.first_lsn.contains_key(*id)).collect();
        ids.sort_unstable();
        let Some(id) = ids.choose(rng).map(|id| **id) else {
            return;
        };
        if self.known.get(&id).is_some_and(|known| known.settled) {
            return;
        }
        let mark = Arc::clone(&marks[&id]);
        self.patches.push([(id, patch(&mark, self.first_lsn[&id], self.lsn))]);
        self.known.insert(id, Known { mark, settled: false });
    }

    fn settle(&mut self, rng: &mut ChaCha8Rng) {
        for known in self.known.values_mut() {
            known.settled |= rng.random_bool(0.3);
        }
    }

    fn upkeep(&mut self, now: i64) -> Upkept {
        let task = Upkeep {
            now: Nanos(now),
            aged_to: Nanos(now),
            settled: self.patches.retained(|id, _| self.known[id].settled),
            ..Upkeep::default()
        };
        let done = self.store.sealer().upkeep(&task, GO_ON).unwrap();
        self.files = Arc::clone(&done.files);
        let gone = |id: &TraceId, patch: &Patch| done.patches_gone.contains(&(*id, patch.clone()));
        self.patches = self.patches.retained(|id, patch| !gone(id, patch));
        self.replaced = self
            .replaced
            .retained(|id, from| !done.replaced_gone.contains(&(*id, *from)));
        assert!(done.cells_gone.is_empty() && done.quarantined.is_empty() && done.removed == 0);
        done
    }

    fn kill(self) -> Self {
        let Self {
            dir,
            store,
            files,
            cells,
            ..
        } = self;
        drop(store);
        let (store, found) = Store::open(dir.path(), options()).unwrap();
        assert_eq!(found.base.files, files);
        assert_eq!(found.base.cells, cells);
        assert!(found.report.quarantined.is_empty());
        Self {
            dir,
            store,
            files,
            cells,
            ..self
        }
    }

    /// What a reader sees of `table`, sorted.
    fn seen(&self, table: Table) -> Vec<String> {
        let patch_of = |id: &TraceId| self.patches.get(id).map(|patch| Arc::clone(&patch.mark));
        let mut seen = Vec::new();
        for file in self.files.iter().filter(|file| file.table == table) {
            let overlaps = |patch: &Patch| patch.first_lsn <= file.lsn_max && file.lsn_min <= patch.last_lsn;
            let is_patched = self.patches.iter().any(|(_, patch)| overlaps(patch));
            for rows in read_parquet(&self.dir.path().join(&file.path)) {
                let rows = match table {
                    Table::Traces => overlay::current(&rows, file.lsn_max, &self.replaced).unwrap(),
                    _ if is_patched => overlay::apply_marks(table, &rows, Depth::Spans, &patch_of).unwrap(),
                    _ => rows,
                };
                seen.extend(text(table, &rows));
            }
        }
        seen.sort();
        seen
    }

    fn expected(&self, table: Table, raw: &[RecordBatch]) -> Vec<String> {
        let mark_of = |id: &TraceId| Some(Arc::clone(&self.known.get(id)?.mark));
        let rows = raw.iter().flat_map(|rows| {
            text(
                table,
                &overlay::marked(table, rows, None, Depth::Spans, &mark_of).unwrap(),
            )
        });
        let mut rows: Vec<String> = rows.collect();
        rows.sort();
        rows
    }

    fn check(&self, what: &str) {
        let mut spans = self.seen(Table::Spans);
        spans.dedup();
        assert!(spans == self.expected(Table::Spans, &self.spans), "{what}: spans");
        assert!(
            self.seen(Table::Evals) == self.expected(Table::Evals, &self.evals),
            "{what}: evals"
        );
        let rows = self
            .traces
            .iter()
            .flat_map(|(id, calls)| text(Table::Traces, &traces(&[*id], *calls)));
        let mut rows: Vec<String> = rows.collect();
        rows.sort();
        assert_eq!(self.seen(Table::Traces), rows, "{what}: traces");
        let mut cells = CellTable::default();
        for file in self.files.iter().filter(|file| file.table == Table::Cells) {
            for rows in read_parquet(&self.dir.path().join(&file.path)) {
                cells.merge(&batch_to_cells(&rows).unwrap());
            }
        }
        assert_eq!(cells, self.cells, "{what}: cells");
        for file in self.files.iter().filter(|file| file.table != Table::Cells) {
            let color = file.color.unwrap();
            assert!(file.path.contains(&format!("color={color}/")));
            for rows in read_parquet(&self.dir.path().join(&file.path)) {
                let colors = crate::rows::column_text(&rows, "color");
                assert!(
                    colors.iter().all(|word| word.as_deref() == Some(color.as_str())),
                    "{what}"
                );
            }
        }
    }
}

fn patch(mark: &Arc<Mark>, first_lsn: u64, last_lsn: u64) -> Patch {
    Patch {
        mark: Arc::clone(mark),
        first_lsn,
        last_lsn,
        rooted: mark.split_ppm.is_some(),
    }
}

/// `STORE_SEEDS` runs more.
#[test]
fn any_mix_of_seals_late_colors_upkeep_and_kills_answers_the_same() {
    let more = std::env::var("STORE_SEEDS").ok().and_then(|s| s.parse().ok());
    let mut rewritten = 0;
    for seed in 0..more.unwrap_or(3) {
        eprintln!("seed {seed}");
        let (mut rng, mut world) = (rng(seed), World::new());
        for turn in 0..30 {
            match rng.random_range(0..10) {
                0..=3 => world.seal(&mut rng),
                4 | 5 => world.learn(&mut rng),
                6 => world.settle(&mut rng),
                7 | 8 => {
                    let later = [0, HOUR, 30 * HOUR][rng.random_range(0..3)];
                    rewritten += world.upkeep(world.now + later).rewritten;
                    world.check(&format!("seed {seed} turn {turn}"));
                }
                _ => world = world.kill(),
            }
        }
        world.check(&format!("seed {seed}"));
        finish(world, &mut rng, seed);
    }
    assert!(rewritten > 0);
}

/// Once everything is settled and over, nothing is left of patches, replacements, doubles and small files.
fn finish(mut world: World, rng: &mut ChaCha8Rng, seed: u64) {
    world.known.values_mut().for_each(|known| known.settled = true);
    world.seal(rng);
    let mut later = world.now + 60 * HOUR;
    while world.upkeep(later).more {
        later += 60_000_000_000;
    }
    world.upkeep(later + 120_000_000_000);
    // One that is alone in its day may stay in the folder of its hour.
    let day = |file: &SealedFile| {
        let folder = file.path.rsplit_once('/').unwrap().0;
        folder.split("/hour=").next().unwrap().to_owned()
    };
    let days: BTreeSet<String> = world.files.iter().map(day).collect();
    assert_eq!(
        days.len(),
        world.files.len(),
        "one file of each day: {:?}",
        named(&world.files)
    );
    assert!(world.patches.is_empty() && world.replaced.is_empty(), "seed {seed}");
    assert!(
        world.seen(Table::Spans) == world.expected(Table::Spans, &world.spans),
        "no doubles"
    );
    assert_eq!(on_disk(world.dir.path()), named(&world.files), "nothing else stays");
    world.kill().check(&format!("seed {seed} reopened"));
}
