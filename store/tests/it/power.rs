//! Power cuts at every step and at random: what was acked is there once, in the files or in the journal.

use crate::{
    faults::{Fault, FaultyDisk},
    journal::on,
    rows::{micro, read_parquet, rng, text},
    upkeep::{HOUR, named, on_disk},
};
use arrow::array::RecordBatch;
use proto::{
    Cell, CellKey, CellTable, Color, Grain, Metric, Nanos,
    cell::{Scope, Series},
    layout::Table,
};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::{collections::BTreeMap, path::Path, sync::Arc};
use store::{
    Journal, Layers, LiveBatch, MicroBatch, Patch, Recovered, SealInput, Sealer, Store, StoreOptions, Upkeep, Upkept,
    cells::batch_to_cells, cells_to_batch, live, overlay,
};
use tempfile::TempDir;

/// Stands in for the engine: rows as they came, a count of spans as cells, a count of records as state.
#[derive(Default)]
struct Engine {
    spans: Vec<LiveBatch>,
    evals: Vec<LiveBatch>,
    cells: CellTable,
    deltas: CellTable,
    records: u64,
    lsn: u64,
}

impl Engine {
    fn recovered(found: Recovered) -> Self {
        let mut engine = Self {
            cells: found.base.cells.clone(),
            lsn: found.lsn,
            records: found.state.map_or(0, |s| u64::from_le_bytes(s.try_into().unwrap())),
            ..Self::default()
        };
        for record in found.records {
            engine.apply(&record.unwrap());
        }
        engine
    }

    fn apply(&mut self, batch: &MicroBatch) {
        assert_eq!(batch.lsn, self.lsn + 1, "each record once, in order");
        self.lsn = batch.lsn;
        self.records += 1;
        for section in &batch.sections {
            let key = CellKey {
                scope: Scope {
                    route: section.table.as_str().into(),
                    release: None,
                },
                minute: batch.lsn as i64 / 7,
                series: Series {
                    metric: Metric::Latency,
                    grain: Grain::Attempt,
                    cohort: None,
                    split_ppm: Some(250_000),
                    color: Color::Blue,
                    admitted: false,
                },
            };
            let cell = Cell {
                n: section.rows.num_rows() as i64,
                ..Cell::amount(batch.lsn)
            };
            self.cells.apply(&key, &cell, 1);
            self.deltas.apply(&key, &cell, 1);
            let batches = if section.table == Table::Spans {
                &mut self.spans
            } else {
                &mut self.evals
            };
            let batch = LiveBatch {
                lsn: batch.lsn,
                rows: section.rows.clone(),
            };
            live::push(section.table, batches, batch).unwrap();
        }
    }

    fn capture(&self) -> SealInput {
        let mut patches = Layers::default();
        let patch = Patch {
            mark: Arc::default(),
            first_lsn: 1,
            last_lsn: self.lsn,
            rooted: true,
        };
        patches.push([([7; 16], patch)]);
        let mut replaced = Layers::default();
        replaced.push([([9; 16], self.lsn)]);
        SealInput {
            lsn: self.lsn,
            sealed_at: Nanos(crate::rows::T0 + self.lsn as i64),
            spans: self.spans.clone(),
            evals: self.evals.clone(),
            cell_deltas: self.deltas.clone(),
            state: Some(Box::new(self.records.to_le_bytes().to_vec())),
            patches,
            replaced,
            ..SealInput::default()
        }
    }

    fn sealed(&mut self) {
        self.spans.clear();
        self.evals.clear();
        self.deltas = CellTable::default();
    }
}

fn all_rows(batches: impl Iterator<Item = (Table, RecordBatch)>) -> Vec<String> {
    // Sealed rows say `unmarked` where live rows say nothing.
    let none = |_: &store::TraceId| None;
    let mut rows: Vec<String> = batches
        .flat_map(|(table, rows)| {
            text(
                table,
                &overlay::apply_marks(
                    table,
                    &overlay::complete(&rows, store::declared(table), None).unwrap(),
                    overlay::Depth::Traces,
                    &none,
                )
                .unwrap(),
            )
        })
        .collect();
    rows.sort();
    rows
}

fn rows_of(batches: &[MicroBatch]) -> Vec<String> {
    all_rows(
        batches
            .iter()
            .flat_map(|b| b.sections.iter().map(|s| (s.table, s.rows.clone()))),
    )
}

fn options(disk: &FaultyDisk) -> StoreOptions {
    StoreOptions {
        segment_bytes_max: 12_000,
        ..on(disk.clone())
    }
}

/// Opens what the cut left and compares it with what was appended (`acked` of it promised).
fn check(dir: &Path, appended: &[MicroBatch], acked: usize, what: &str) -> usize {
    let (store, found) = Store::open(dir, options(&FaultyDisk::default())).unwrap_or_else(|e| panic!("{what}: {e}"));
    let base = found.base.clone();
    let sealed_lsn = found.lsn as usize;
    if sealed_lsn > 0 {
        assert_eq!(base.patches.iter().next().unwrap().1.last_lsn, found.lsn, "{what}");
        // No file has rows of traces, so an upkeep may have found that it hides nothing.
        assert!(base.replaced.get(&[9; 16]).is_none_or(|from| *from == found.lsn));
    }
    assert!(
        found.report.quarantined.is_empty() && found.report.commits_damaged == 0,
        "{what}"
    );
    let engine = Engine::recovered(found);
    let count = engine.lsn as usize;
    assert!(
        acked <= count && count <= appended.len(),
        "{what}: {acked} acked, {count} found"
    );
    assert_eq!(
        engine.records, engine.lsn,
        "{what}: state and replay count every record once"
    );
    let sealed = base
        .files
        .iter()
        .filter(|f| f.table != Table::Cells)
        .flat_map(|f| read_parquet(&dir.join(&f.path)).into_iter().map(|rows| (f.table, rows)));
    let unsealed = [(Table::Spans, &engine.spans), (Table::Evals, &engine.evals)];
    let unsealed = unsealed
        .into_iter()
        .flat_map(|(t, b)| b.iter().map(move |b| (t, b.rows.clone())));
    assert_eq!(all_rows(sealed.chain(unsealed)), rows_of(&appended[..count]), "{what}");
    let mut oracle = Engine::default();
    appended[..count].iter().for_each(|b| oracle.apply(b));
    assert_eq!(engine.cells, oracle.cells, "{what}");
    assert!(std::fs::read_dir(dir.join("tmp")).unwrap().next().is_none());
    let mut named = named(&base.files);
    let there = on_disk(dir);
    assert!(there.is_superset(&named), "{what}: every file is there");
    if there != named {
        // The commit before names what is left; one more commit, and a minute, and it goes.
        drop(base);
        for minutes in [2, 4] {
            let now = AFTER + minutes * 60_000_000_000;
            named = crate::upkeep::named(&upkept(&store.sealer(), now).unwrap().files);
        }
        while let Some(files) = upkept(&store.sealer(), AFTER + HOUR).filter(|done| done.more) {
            named = crate::upkeep::named(&files.files);
        }
        upkept(&store.sealer(), AFTER + 2 * HOUR);
        upkept(&store.sealer(), AFTER + 3 * HOUR);
        assert_eq!(on_disk(dir), named, "{what}: no orphans stay");
    }
    count
}

/// When the hours of all rows are over.
const AFTER: i64 = crate::rows::T0 + 3 * HOUR;

/// One step of upkeep; `None` if the disk is gone.
fn upkept(sealer: &Sealer, now: i64) -> Option<Upkept> {
    let task = Upkeep {
        now: Nanos(now),
        aged_to: Nanos(now),
        ..Upkeep::default()
    };
    sealer.upkeep(&task, &|| true).ok()
}

fn files_below(dir: &Path, found: &mut std::collections::BTreeSet<std::path::PathBuf>) {
    for entry in std::fs::read_dir(dir).into_iter().flatten() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files_below(&path, found)
        } else {
            _ = found.insert(path)
        }
    }
}

fn start(dir: &Path, disk: &FaultyDisk) -> Option<(Journal, Sealer, Engine)> {
    match Store::open(dir, options(disk)) {
        Ok((mut store, found)) => {
            let (journal, sealer) = (store.journal().unwrap(), store.sealer());
            Some((journal, sealer, Engine::recovered(found)))
        }
        Err(e) => {
            assert!(disk.is_cut(), "{e}");
            None
        }
    }
}

/// Appends, syncs and seals at random until the power is gone; returns how many are acked.
fn work(dir: &Path, disk: &FaultyDisk, rng: &mut ChaCha8Rng, appended: &mut Vec<MicroBatch>, seals: f64) -> usize {
    let mut acked = 0;
    let Some((mut journal, sealer, mut engine)) = start(dir, disk) else {
        return acked;
    };
    let mut spans = appended.len() as u64 * 1_000;
    for _ in 0..20 {
        let lsn = journal.next_lsn();
        appended.truncate(lsn as usize - 1);
        let batch = micro(rng, lsn, &mut spans);
        appended.push(batch.clone());
        if journal.append(&batch).is_err() {
            break;
        }
        if rng.random_bool(0.6) {
            if journal.sync().is_err() {
                break;
            }
            acked = lsn as usize;
            for record in &appended[engine.lsn as usize..] {
                engine.apply(record);
            }
            if rng.random_bool(seals) {
                let deferred = rng.random_bool(0.4);
                let input = SealInput {
                    deferred,
                    ..engine.capture()
                };
                match sealer.seal(input) {
                    Ok(sealed) => {
                        assert_eq!(sealed.lsn, engine.lsn);
                        engine.sealed();
                    }
                    Err(_) => break,
                }
                if rng.random_bool(0.5) && upkept(&sealer, AFTER).is_none() {
                    break;
                }
            }
        }
    }
    acked
}

/// Three rounds of work and a power cut each, in one data directory. `STORE_SEEDS` runs more.
fn cut_at_random(seeds: u64, seals: f64) {
    let more = std::env::var("STORE_SEEDS").ok().and_then(|s| s.parse().ok());
    for seed in 0..more.unwrap_or(seeds) {
        let (dir, mut rng) = (TempDir::new().unwrap(), rng(seed));
        let (mut appended, mut acked) = (Vec::new(), 0);
        for round in 0..3 {
            let disk = FaultyDisk::with(rng.random_range(1..120), Fault::Cut);
            let now = work(dir.path(), &disk, &mut rng, &mut appended, seals);
            acked = now.max(acked);
            disk.lose_unsynced(&mut rng);
            let what = format!("seed {seed} round {round}");
            let count = check(dir.path(), &appended, acked, &what);
            // What was found is on disk now, and counts as promised.
            appended.truncate(count);
            acked = count;
        }
    }
}

#[test]
fn any_power_cut_between_appends_keeps_what_was_acked_once() {
    cut_at_random(40, 0.0);
}

#[test]
fn any_power_cut_between_seals_keeps_what_was_acked_once() {
    cut_at_random(20, 0.3);
}

#[test]
fn a_cut_at_each_step_of_a_seal_loses_and_doubles_nothing() {
    let one_thread = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    for step in 1.. {
        let (dir, mut rng, disk) = (TempDir::new().unwrap(), rng(step), FaultyDisk::default());
        let (mut journal, sealer, mut engine) = start(dir.path(), &disk).unwrap();
        let (mut appended, mut spans) = (Vec::new(), 0);
        for round in 0..3 {
            for _ in 0..6 {
                let batch = micro(&mut rng, journal.next_lsn(), &mut spans);
                journal.append(&batch).unwrap();
                engine.apply(&batch);
                appended.push(batch);
            }
            journal.sync().unwrap();
            if round < 2 {
                // The files of every other run's second seal wait for the third.
                let deferred = round == 1 && step % 2 == 0;
                let input = SealInput {
                    deferred,
                    ..engine.capture()
                };
                sealer.seal(input).unwrap();
                engine.sealed();
            }
        }
        disk.arm(step, Fault::Cut);
        let sealed = one_thread.install(|| sealer.seal(engine.capture()));
        let cut = disk.is_cut();
        assert!(sealed.is_ok() || cut);
        drop((journal, sealer));
        disk.lose_unsynced(&mut rng);
        check(dir.path(), &appended, 18, &format!("step {step}"));
        if !cut {
            assert!(step > 30, "only {step} steps");
            break;
        }
    }
}

#[test]
fn a_cut_at_each_step_of_upkeep_loses_and_doubles_nothing() {
    let mut last = 0;
    for step in 1.. {
        let (dir, mut rng, disk) = (TempDir::new().unwrap(), rng(77), FaultyDisk::default());
        let (mut journal, sealer, mut engine) = start(dir.path(), &disk).unwrap();
        let (mut appended, mut spans) = (Vec::new(), 0);
        for _ in 0..3 {
            for _ in 0..2 {
                let batch = micro(&mut rng, journal.next_lsn(), &mut spans);
                journal.append(&batch).unwrap();
                engine.apply(&batch);
                appended.push(batch);
            }
            journal.sync().unwrap();
            sealer.seal(engine.capture()).unwrap();
            engine.sealed();
        }
        disk.arm(step, Fault::Cut);
        // Joins every table and color, then removes what was joined.
        let mut now = AFTER;
        while let Some(done) = upkept(&sealer, now)
            && done.more
        {
            now += 120_000_000_000;
        }
        for _ in 0..2 {
            now += 120_000_000_000;
            upkept(&sealer, now);
        }
        let cut = disk.is_cut();
        drop((journal, sealer));
        disk.lose_unsynced(&mut rng);
        check(dir.path(), &appended, appended.len(), &format!("step {step}"));
        if !cut {
            last = step;
            break;
        }
    }
    assert!(last > 30, "only {last} steps");
}

#[test]
fn a_cut_at_each_step_of_a_removal_leaves_all_or_what_is_young() {
    for step in 1.. {
        let (dir, mut rng, disk) = (TempDir::new().unwrap(), rng(78), FaultyDisk::default());
        let (mut journal, sealer, mut engine) = start(dir.path(), &disk).unwrap();
        let mut spans = 0;
        let batch = micro(&mut rng, journal.next_lsn(), &mut spans);
        journal.append(&batch).unwrap();
        journal.sync().unwrap();
        engine.apply(&batch);
        let sealed = sealer.seal(engine.capture()).unwrap();
        disk.arm(step, Fault::Cut);
        for minutes in [0, 2, 4] {
            upkept(&sealer, crate::rows::T0 + 31 * 24 * HOUR + minutes * 60_000_000_000);
        }
        let cut = disk.is_cut();
        drop((journal, sealer));
        disk.lose_unsynced(&mut rng);
        let (_store, found) = Store::open(dir.path(), options(&FaultyDisk::default())).unwrap();
        assert!(found.report.quarantined.is_empty(), "step {step}");
        let all = named(&sealed.files);
        let young: std::collections::BTreeSet<String> =
            all.iter().filter(|p| p.starts_with("cells")).cloned().collect();
        let left = named(&found.base.files);
        assert!(left == all || left == young, "step {step}: {left:?}");
        assert!(on_disk(dir.path()).is_superset(&left), "step {step}");
        if !cut {
            assert!(left == young && on_disk(dir.path()) == young && step > 10, "{step}");
            break;
        }
    }
}

#[test]
fn after_a_seal_that_found_the_disk_full_the_same_rows_can_be_sealed() {
    for step in 0..40 {
        let (dir, mut rng, disk) = (TempDir::new().unwrap(), rng(step), FaultyDisk::default());
        let (mut journal, sealer, mut engine) = start(dir.path(), &disk).unwrap();
        let (mut appended, mut spans) = (Vec::new(), 0);
        for lsn in 1..=5 {
            let batch = micro(&mut rng, lsn, &mut spans);
            journal.append(&batch).unwrap();
            engine.apply(&batch);
            appended.push(batch);
        }
        journal.sync().unwrap();
        disk.arm(step, Fault::Full);
        if let Err(e) = sealer.seal(engine.capture()) {
            assert!(e.is_full() && !e.is_fatal(), "{e}");
            let mut left = std::collections::BTreeSet::new();
            files_below(&dir.path().join("spans"), &mut left);
            files_below(&dir.path().join("tmp"), &mut left);
            assert!(left.is_empty(), "{left:?}");
            sealer.seal(engine.capture()).unwrap();
        }
        drop((journal, sealer));
        check(dir.path(), &appended, 5, &format!("step {step}"));
    }
}

#[test]
fn cells_come_back_from_rows_as_they_were() {
    let mut rng = rng(3);
    let mut table = CellTable::default();
    let mut by_key = BTreeMap::new();
    for i in 0..500u64 {
        let pick =
            |rng: &mut ChaCha8Rng, from: &[&str]| from.get(rng.random_range(0..=from.len())).map(|s| Arc::from(*s));
        let key = CellKey {
            scope: Scope {
                route: format!("route {}", i % 5).into(),
                release: pick(&mut rng, &["r1", "r2"]),
            },
            minute: 1_795_183_380 + rng.random_range(-5..5) * 60,
            series: Series {
                metric: if i % 3 == 0 {
                    Metric::EvalFail("task_completion".into())
                } else {
                    Metric::PLAIN[i as usize % Metric::PLAIN.len()].clone()
                },
                grain: [Grain::Attempt, Grain::Request, Grain::Trace][i as usize % 3],
                cohort: pick(&mut rng, &["gold", "silver"]),
                split_ppm: rng.random_bool(0.7).then(|| rng.random_range(0..=1_000_000)),
                color: Color::ALL[i as usize % 3],
                admitted: rng.random_bool(0.5),
            },
        };
        let sign = if rng.random_bool(0.3) { -1 } else { 1 };
        let cell = if i % 2 == 0 {
            Cell::amount(rng.random_range(0..u64::MAX / 2))
        } else {
            Cell::unit(rng.random_bool(0.5))
        };
        table.apply(&key, &cell, sign);
        by_key.entry(key).or_insert_with(Cell::default).merge(&cell, sign);
    }
    let rows = cells_to_batch(&table).unwrap();
    assert_eq!(rows.num_rows(), table.iter().count());
    assert_eq!(batch_to_cells(&rows).unwrap(), table);
    assert_eq!(
        batch_to_cells(&cells_to_batch(&CellTable::default()).unwrap()).unwrap(),
        CellTable::default()
    );
}
