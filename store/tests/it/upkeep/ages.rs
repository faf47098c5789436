//! What is old goes, exactly that, and long texts before it.

use super::{GO_ON, HOUR, named, on_disk};
use crate::{
    journal::options,
    rows::{T0, batch, column_text, evals, read_parquet, rng, spans, traces},
};
use arrow::array::StringViewArray;
use proto::{
    Cell, CellKey, CellTable, Color, Grain, Metric, Nanos,
    cell::{Scope, Series},
    layout::{self, Table},
};
use std::{collections::BTreeSet, sync::Arc, time::Duration};
use store::{LiveBatch, Retention, SealInput, SealedFile, Space, Store, StoreOptions, Upkeep, Upkept};
use tempfile::TempDir;

pub const DAY: i64 = 24 * HOUR;

fn cells(hour: i64) -> CellTable {
    let mut cells = CellTable::default();
    let key = CellKey {
        scope: Scope {
            route: "a".into(),
            release: None,
        },
        minute: hour * 3_600,
        series: Series {
            metric: Metric::Latency,
            grain: Grain::Trace,
            cohort: None,
            split_ppm: None,
            color: Color::Blue,
            admitted: true,
        },
    };
    cells.apply(&key, &Cell::amount(hour.unsigned_abs()), 1);
    cells
}

/// One seal an hour, at these hours after `T0`.
pub fn sealed_at(hours: &[i64], text: Option<&str>) -> (TempDir, Store, Arc<Vec<SealedFile>>) {
    sealed_on(options(), hours, text)
}

pub fn sealed_on(options: StoreOptions, hours: &[i64], text: Option<&str>) -> (TempDir, Store, Arc<Vec<SealedFile>>) {
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path(), options).unwrap();
    let (mut rng, mut next, mut files) = (rng(5), 0, None);
    for (nth, hour) in hours.iter().enumerate() {
        let (lsn, at) = (nth as u64 + 1, Nanos(T0 + hour * HOUR));
        let live = |rows| vec![LiveBatch { lsn, rows }];
        let mut rows = spans(&mut rng, 40, 5, &mut next, at);
        if let Some(text) = text {
            let texts = Arc::new(StringViewArray::from(vec![Some(text); 40]));
            let mut columns: Vec<_> = rows
                .schema_ref()
                .fields()
                .iter()
                .map(|field| field.name().clone())
                .zip(rows.columns().iter().cloned())
                .collect();
            columns.push(("input".to_owned(), texts.clone()));
            columns.push(("output".to_owned(), texts));
            rows = batch(
                Table::Spans,
                columns.iter().map(|(n, c)| (n.as_str(), c.clone())).collect(),
            );
        }
        let input = SealInput {
            lsn,
            sealed_at: at,
            spans: live(rows),
            evals: live(evals(&mut rng, 5, 5)),
            traces: live(traces(&[lsn * 2, lsn * 2 + 1], 1)),
            cell_deltas: cells(*hour),
            ..SealInput::default()
        };
        files = Some(store.sealer().seal(input).unwrap().files);
    }
    (dir, store, files.unwrap())
}

pub fn until_done(store: &Store, task: &Upkeep) -> (Upkept, u64, u64) {
    let (mut removed, mut blanked, mut now) = (0, 0, task.now);
    loop {
        let task = Upkeep { now, ..task.clone() };
        let done = store.sealer().upkeep(&task, GO_ON).unwrap();
        (removed, blanked) = (removed + done.removed, blanked + done.blanked);
        now = now.plus(Duration::from_millis(1));
        if !done.more {
            return (done, removed, blanked);
        }
    }
}

#[test]
fn what_is_old_goes_and_nothing_else() {
    let hours: Vec<i64> = (0..40).map(|day| day * 24).collect();
    let (dir, store, files) = sealed_at(&hours, None);
    for days in [29, 30, 31, 35, 60, 399, 431] {
        let now = Nanos(T0 + days * DAY);
        let before = named(&files);
        let task = Upkeep {
            now,
            aged_to: now,
            ..Upkeep::default()
        };
        let (done, ..) = until_done(&store, &task);
        let age = |file: &SealedFile| {
            if file.table == Table::Cells {
                400 * DAY
            } else {
                30 * DAY
            }
        };
        let is_old = |file: &&SealedFile| layout::received(&file.path).unwrap().1.0 <= now.0 - age(file);
        let kept: BTreeSet<String> = files
            .iter()
            .filter(|file| !is_old(file))
            .map(|f| f.path.clone())
            .collect();
        // Hours became days; each has one file of its table and color, so days tell them apart.
        let day = |path: &String| {
            path.split("/hour=")
                .next()
                .unwrap()
                .split("/0")
                .next()
                .unwrap()
                .to_owned()
        };
        let days_of = |paths: &BTreeSet<String>| paths.iter().map(day).collect::<BTreeSet<String>>();
        assert_eq!(
            days_of(&named(&done.files)),
            days_of(&kept),
            "day {days} of {}",
            before.len()
        );
        let oldest_cells = done.files.iter().filter(|f| f.table == Table::Cells).count();
        assert_eq!(oldest_cells, (40 - (days - 400).clamp(0, 40)) as usize, "day {days}");
    }
    let later = Nanos(T0 + 431 * DAY + HOUR / 2);
    for minutes in [0, 2, 4] {
        let now = later.plus(Duration::from_secs(60 * minutes));
        store
            .sealer()
            .upkeep(
                &Upkeep {
                    now,
                    aged_to: now,
                    ..Upkeep::default()
                },
                GO_ON,
            )
            .unwrap();
    }
    drop(files);
    let (_, found) = {
        drop(store);
        Store::open(dir.path(), options()).unwrap()
    };
    assert_eq!(on_disk(dir.path()), named(&found.base.files));
    let mut left = CellTable::default();
    hours[31..].iter().for_each(|hour| left.merge(&cells(*hour)));
    assert_eq!(found.base.cells, left);
}

#[test]
fn cells_that_go_are_told_so_that_memory_and_files_say_the_same() {
    let (_dir, store, _) = sealed_at(&[0, 24, 48], None);
    let task = Upkeep {
        now: Nanos(T0 + 401 * DAY),
        aged_to: Nanos(T0 + 401 * DAY),
        ..Upkeep::default()
    };
    let done = store.sealer().upkeep(&task, GO_ON).unwrap();
    assert_eq!(done.cells_gone, cells(0));
    assert!(done.files.len() >= 2 && done.files.iter().all(|file| file.table == Table::Cells));
    assert!(done.removed_bytes > 0);
}

#[test]
fn long_texts_go_after_their_age_and_the_rows_stay() {
    let (dir, store, files) = sealed_at(&[0, 1, 30, 24 * 9], Some("a long text"));
    let texts = |files: &[SealedFile]| -> Vec<(String, usize)> {
        let spans = files.iter().filter(|file| file.table == Table::Spans);
        let of_file = |file: &SealedFile| {
            read_parquet(&dir.path().join(&file.path))
                .iter()
                .flat_map(|rows| {
                    let (inputs, outputs) = (column_text(rows, "input"), column_text(rows, "output"));
                    column_text(rows, "span_id")
                        .into_iter()
                        .zip(inputs.into_iter().zip(outputs))
                })
                .map(|(span, (input, output))| (span.unwrap(), input.iter().chain(&output).count()))
                .collect::<Vec<_>>()
        };
        let mut found: Vec<(String, usize)> = spans.flat_map(of_file).collect();
        found.sort();
        found
    };
    assert!(texts(&files).iter().all(|(_, texts)| *texts == 2));
    let task = Upkeep {
        now: Nanos(T0 + 10 * DAY),
        aged_to: Nanos(T0 + 10 * DAY),
        ..Upkeep::default()
    };
    let (done, removed, blanked) = until_done(&store, &task);
    assert_eq!(removed, 0);
    let old: BTreeSet<String> = (1..=120).map(|span| format!("{span:016x}")).collect();
    let expected: Vec<(String, usize)> = texts(&files)
        .into_iter()
        .map(|(span, _)| (span.clone(), if old.contains(&span) { 0 } else { 2 }))
        .collect();
    assert_eq!(texts(&done.files), expected);
    let has_old = |f: &&SealedFile| f.texts && f.received().1.0 <= T0 + 3 * DAY;
    assert_eq!(blanked as usize, files.iter().filter(has_old).count());
    assert!(done.files.iter().all(|file| file.table == Table::Spans || !file.texts));
    let (_, removed, blanked) = until_done(&store, &task);
    assert_eq!((removed, blanked), (0, 0), "once is enough");
}

#[test]
fn when_the_disk_is_full_the_oldest_go_first_and_the_last_hour_stays() {
    let hours = [0, 1, 2, 3, 4];
    let (_dir, store, files) = sealed_at(&hours, None);
    let now = Nanos(T0 + 4 * HOUR + HOUR / 2);
    let of_hour = |hour: i64| {
        files.iter().filter(move |f| {
            f.table != Table::Cells && f.received().0.0.div_euclid(HOUR) == (T0 + hour * HOUR).div_euclid(HOUR)
        })
    };
    let bytes_of_first: u64 = of_hour(0).map(|file| file.bytes).sum();
    let full = |used: u64| Upkeep {
        now,
        aged_to: now,
        space: Some(Space { used, total: 1_000_000 }),
        retention: Retention::default(),
        ..Upkeep::default()
    };
    let done = store.sealer().upkeep(&full(800_000), GO_ON).unwrap();
    assert_eq!(done.removed, 0, "at the limit");
    let done = store.sealer().upkeep(&full(800_000 + bytes_of_first), GO_ON).unwrap();
    assert_eq!(done.removed, of_hour(0).count() as u64);
    assert_eq!(done.removed_bytes, bytes_of_first);
    // Their bytes are free only once nobody reads them: that is no reason to remove more.
    let done = store.sealer().upkeep(&full(800_000 + bytes_of_first), GO_ON).unwrap();
    assert_eq!(done.removed, 0);
    let done = store.sealer().upkeep(&full(100_000_000), GO_ON).unwrap();
    let left: BTreeSet<i64> = done
        .files
        .iter()
        .filter(|f| f.table != Table::Cells)
        .map(|file| (file.received().0.0 - T0).div_euclid(HOUR) + 1)
        .collect();
    assert_eq!(left, BTreeSet::from([3, 4]), "rows of the last hour stay");
    assert_eq!(
        done.files.iter().filter(|f| f.table == Table::Cells).count(),
        hours.len()
    );
}

#[test]
fn a_clock_that_leapt_by_years_takes_neither_rows_nor_texts_along() {
    let (_dir, store, files) = sealed_at(&[0, 24, 48], Some("a long text"));
    let leapt = Upkeep {
        now: Nanos(T0 + 5 * 365 * DAY),
        aged_to: Nanos(T0 + 3 * DAY),
        ..Upkeep::default()
    };
    let rows = |files: &[SealedFile]| files.iter().map(|file| file.rows).sum::<u64>();
    let (done, removed, blanked) = until_done(&store, &leapt);
    assert_eq!((removed, blanked), (0, 0));
    assert_eq!(rows(&done.files), rows(&files));
    assert!(done.files.iter().any(|file| file.texts));
    let confirmed = Upkeep {
        aged_to: leapt.now,
        ..leapt
    };
    let (done, ..) = until_done(&store, &confirmed);
    assert!(done.files.is_empty());
}
