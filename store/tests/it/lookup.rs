//! Rows by id, from files and live batches, against a plain walk over all of them.

use crate::{
    journal::options,
    rows::{T0, column_text, evals, read_parquet, rng, spans, text, trace_hex, traces},
};
use arrow::array::RecordBatch;
use proto::{Nanos, layout::Table};
use rand::RngExt;
use std::sync::Arc;
use store::{
    LiveBatch, SealInput, Snapshot, Store, live,
    lookup::{self, IdColumn, Matches, Search},
    overlay,
};
use tempfile::TempDir;

type Values = hashbrown::HashSet<String, ahash::RandomState>;

/// Two seals and live rows behind them.
fn world(seed: u64) -> (TempDir, Snapshot) {
    let (mut rng, mut next) = (rng(seed), 0);
    let dir = TempDir::new().unwrap();
    let (store, _) = Store::open(dir.path(), options()).unwrap();
    let mut snapshot = Snapshot::default();
    for round in 1..=3u64 {
        let mut input = SealInput {
            lsn: round * 10,
            sealed_at: Nanos(T0),
            ..SealInput::default()
        };
        for lsn in round * 10 - 9..=round * 10 {
            let rows = spans(&mut rng, 70, 60, &mut next, Nanos(T0));
            live::push(Table::Spans, &mut input.spans, LiveBatch { lsn, rows }).unwrap();
            let rows = evals(&mut rng, 9, 60);
            live::push(Table::Evals, &mut input.evals, LiveBatch { lsn, rows }).unwrap();
            let id = rng.random_range(0..60);
            input.replaced = snapshot.replaced.clone();
            input.replaced.push([(overlay::trace_id(&trace_hex(id)).unwrap(), lsn)]);
            snapshot.replaced = input.replaced.clone();
            let rows = traces(&[id], lsn as i32);
            live::push_traces(&mut input.traces, LiveBatch { lsn, rows }, &input.replaced).unwrap();
        }
        if round < 3 {
            snapshot.files = store.sealer().seal(input).unwrap().files;
        } else {
            (snapshot.spans, snapshot.evals, snapshot.traces) = (input.spans, input.evals, input.traces);
        }
    }
    (dir, snapshot)
}

/// All rows of a table, as they lie.
fn all(dir: &TempDir, snapshot: &Snapshot, table: Table) -> Vec<RecordBatch> {
    let files = snapshot.files.iter().filter(|f| f.table == table);
    let sealed = files.flat_map(|f| {
        let rows = read_parquet(&dir.path().join(&f.path));
        rows.into_iter().map(|rows| (rows, f.lsn_max))
    });
    let live = match table {
        Table::Spans => &snapshot.spans,
        Table::Evals => &snapshot.evals,
        _ => &snapshot.traces,
    };
    sealed
        .chain(live.iter().map(|b| (b.rows.clone(), b.lsn)))
        .map(|(rows, lsn)| match table {
            Table::Traces => overlay::current(&rows, lsn, &snapshot.replaced).unwrap(),
            _ => rows,
        })
        .collect()
}

fn as_text(table: Table, found: &Matches) -> Vec<String> {
    let mut text: Vec<String> = found.found.iter().flat_map(|m| text(table, &m.rows)).collect();
    text.sort_unstable();
    text
}

#[test]
fn what_is_found_is_what_is_there() {
    for seed in 0..6 {
        let (dir, snapshot) = world(seed);
        let mut hits = 0;
        for (table, column) in [
            (Table::Spans, IdColumn::Trace),
            (Table::Spans, IdColumn::Span),
            (Table::Spans, IdColumn::Response),
            (Table::Evals, IdColumn::Trace),
            (Table::Traces, IdColumn::Trace),
        ] {
            let batches = all(&dir, &snapshot, table);
            let ids = |rows: &RecordBatch| match rows.column_by_name(column.name()) {
                Some(_) => column_text(rows, column.name()),
                None => vec![None; rows.num_rows()],
            };
            let there: Vec<String> = batches.iter().flat_map(&ids).flatten().collect();
            let every_ninth = there.iter().step_by(9).cloned();
            let values: Values = every_ninth.chain(["nowhere".to_owned()]).collect();
            let mut expected = Vec::new();
            for rows in &batches {
                let is_wanted = ids(rows)
                    .into_iter()
                    .map(|id| id.is_some_and(|id| values.contains(&id)));
                expected.extend(
                    text(table, rows)
                        .into_iter()
                        .zip(is_wanted)
                        .filter_map(|(row, wanted)| wanted.then_some(row)),
                );
            }
            expected.sort_unstable();
            let search = Search {
                table,
                column,
                values: &values,
                columns: None,
                rows_max: usize::MAX,
            };
            let found = lookup::find(dir.path(), &snapshot, &search).unwrap();
            assert!(!found.cut);
            assert_eq!(as_text(table, &found), expected, "seed {seed}: {table:?} by {column:?}");
            hits += expected.len();

            let few = Search {
                columns: Some(&[column.name()]),
                rows_max: 3,
                ..search
            };
            let cut = lookup::find(dir.path(), &snapshot, &few).unwrap();
            let rows: usize = cut.found.iter().map(|m| m.rows.num_rows()).sum();
            assert_eq!(
                (rows, cut.cut),
                (expected.len().min(3), expected.len() > 3),
                "seed {seed}"
            );
            assert!(cut.found.iter().all(|m| m.rows.num_columns() == 1));
        }
        assert!(hits > 100, "seed {seed}: {hits}");
    }
}

#[test]
fn a_file_that_is_gone_is_an_error_and_not_an_empty_answer() {
    let (dir, snapshot) = world(9);
    let first = snapshot.files.iter().find(|f| f.table == Table::Spans).unwrap();
    std::fs::remove_file(dir.path().join(&first.path)).unwrap();
    let values: Values = [trace_hex(1)].into_iter().collect();
    let search = Search {
        table: Table::Spans,
        column: IdColumn::Trace,
        values: &values,
        columns: None,
        rows_max: 10,
    };
    assert!(lookup::find(dir.path(), &snapshot, &search).is_err());
    let without = Snapshot {
        files: Arc::default(),
        ..snapshot
    };
    assert!(lookup::find(dir.path(), &without, &search).is_ok());
}
