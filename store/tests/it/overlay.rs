//! Marks over rows against a row-by-row oracle; joining of live batches.

use crate::rows::{T0, batch, column_text, evals, rng, spans, text, traces, words};
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use proto::{Color, Nanos, layout::Table};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::{collections::HashMap, sync::Arc};
use store::{Layers, LiveBatch, Mark, TraceId, declared, live, overlay};

pub fn random_marks(rng: &mut ChaCha8Rng, traces: u64) -> HashMap<TraceId, Arc<Mark>> {
    let mut marks = HashMap::new();
    for trace in 0..traces {
        if rng.random_bool(0.3) {
            continue;
        }
        let mut word = |from: &[&str]| from.get(rng.random_range(0..=from.len())).map(|w| Arc::from(*w));
        let mark = Mark {
            route: word(&["support-chat", "from-mark"]),
            unmarked_reason: word(&["open", "unknown version"]),
            version: word(&["41", "43"]),
            release: word(&["r1"]),
            cohort: word(&["gold", "bronze"]),
            color: Color::ALL[trace as usize % 3],
            split_ppm: (trace % 2 == 0).then_some(50_000),
            spans: None,
        };
        marks.insert(
            overlay::trace_id(&crate::rows::trace_hex(trace)).unwrap(),
            Arc::new(mark),
        );
    }
    marks
}

/// What a reader should see of the columns that marks fill, row by row.
pub fn expected(table: Table, rows: &RecordBatch, marks: &HashMap<TraceId, Arc<Mark>>) -> Vec<Vec<Option<String>>> {
    let rows = overlay::complete(rows, declared(table), None).unwrap();
    let get = |name: &str| match rows.column_by_name(name) {
        Some(_) => column_text(&rows, name),
        None => vec![None; rows.num_rows()],
    };
    let (ids, colors, reasons) = (get("trace_id"), get("color"), get("unmarked_reason"));
    let own: Vec<_> = ["route", "version", "release", "cohort"].map(get).into();
    let splits = get("split");
    (0..rows.num_rows())
        .map(|i| {
            let mark = ids[i]
                .as_deref()
                .and_then(overlay::trace_id)
                .and_then(|id| marks.get(&id));
            let text =
                |own: &Option<String>, mark: Option<&Arc<str>>| own.clone().or_else(|| mark.map(|m| m.to_string()));
            let color = match colors[i].as_deref() {
                Some(own) if own != "unmarked" => own.to_owned(),
                _ => mark.map_or("unmarked".to_owned(), |m| m.color.to_string()),
            };
            let reason = (color == "unmarked")
                .then(|| text(&reasons[i], mark.and_then(|m| m.unmarked_reason.as_ref())))
                .flatten();
            let split = splits[i]
                .as_ref()
                .map(|s| s.parse::<f64>().unwrap())
                .or_else(|| Some(f64::from(mark?.split_ppm?) / 1e6));
            let filled = [
                text(&own[0][i], mark.and_then(|m| m.route.as_ref())),
                text(&own[1][i], mark.and_then(|m| m.version.as_ref())),
                text(&own[2][i], mark.and_then(|m| m.release.as_ref())),
                text(&own[3][i], mark.and_then(|m| m.cohort.as_ref())),
            ];
            let mut row = filled.to_vec();
            row.push(Some(color));
            if table == Table::Spans {
                row.push(reason);
                row.push(split.map(|s| format!("{s:?}")));
            }
            row
        })
        .collect()
}

pub fn seen(table: Table, rows: &RecordBatch) -> Vec<Vec<Option<String>>> {
    let mut names = vec!["route", "version", "release", "cohort", "color"];
    if table == Table::Spans {
        names.extend(["unmarked_reason", "split"]);
    }
    let columns: Vec<_> = names.iter().map(|name| column_text(rows, name)).collect();
    (0..rows.num_rows())
        .map(|i| {
            let mut row: Vec<_> = columns.iter().map(|c| c[i].clone()).collect();
            if let Some(Some(split)) = row.get_mut(6) {
                *split = format!("{:?}", split.parse::<f64>().unwrap());
            }
            row
        })
        .collect()
}

#[test]
fn marks_fill_what_a_row_does_not_say() {
    for seed in 0..25 {
        let mut rng = rng(seed);
        let marks = random_marks(&mut rng, 6);
        let lookup = |id: &TraceId| marks.get(id).cloned();
        for (table, rows) in [
            (Table::Spans, spans(&mut rng, 50, 6, &mut 0, Nanos(T0))),
            (Table::Evals, evals(&mut rng, 50, 6)),
        ] {
            let read = overlay::marked(table, &rows, None, &lookup).unwrap();
            assert_eq!(seen(table, &read), expected(table, &rows, &marks), "seed {seed}");
            // Any projection shows the same values.
            let all = text(table, &read);
            let projection: Vec<usize> = (0..declared(table).fields().len())
                .filter(|_| rng.random_bool(0.2))
                .collect();
            let some = overlay::marked(table, &rows, Some(&projection), &lookup).unwrap();
            assert_eq!(some, read.project(&projection).unwrap(), "seed {seed} {projection:?}");
            // Reading a patched file: the wider projection first, then the marks.
            let wider = overlay::columns_for(table, &projection);
            let file = overlay::complete(&rows, declared(table), Some(&wider)).unwrap();
            assert_eq!(overlay::marked(table, &file, Some(&projection), &lookup).unwrap(), some);
            // Marks that were folded in change nothing the second time.
            let again = overlay::apply_marks(table, &read, &lookup).unwrap();
            assert_eq!(text(table, &again), all);
        }
    }
}

#[test]
fn an_empty_projection_still_has_rows() {
    let rows = spans(&mut rng(1), 9, 6, &mut 0, Nanos(T0));
    let read = overlay::marked(Table::Spans, &rows, Some(&[]), &|_| None).unwrap();
    assert_eq!((read.num_rows(), read.num_columns()), (9, 0));
}

#[test]
fn joined_batches_hold_the_same_rows_in_the_same_order() {
    for seed in 0..4 {
        let (mut rng, mut live, mut plain, mut next) = (rng(seed), Vec::new(), Vec::new(), 0);
        for lsn in 1..=300 {
            let n = if rng.random_bool(0.02) {
                3_000
            } else {
                rng.random_range(1..60)
            };
            let rows = spans(&mut rng, n, 50, &mut next, Nanos(T0));
            plain.extend(text(Table::Spans, &rows));
            live::push(Table::Spans, &mut live, LiveBatch { lsn, rows }).unwrap();
        }
        let joined: Vec<String> = live.iter().flat_map(|b| text(Table::Spans, &b.rows)).collect();
        assert!(joined == plain, "seed {seed}");
        assert!(live.windows(2).all(|w| w[0].lsn < w[1].lsn));
        assert!(live.len() < 60, "{} batches", live.len());
    }
}

#[test]
fn words_stand_once_in_a_joined_dictionary() {
    let mut live = Vec::new();
    for lsn in 1..=200u64 {
        let rows = batch(
            Table::Traces,
            vec![
                (
                    "trace_id",
                    Arc::new(StringArray::from(vec![format!("{lsn:032x}")])) as ArrayRef,
                ),
                ("route", words([Some(["a", "b"][lsn as usize % 2])])),
            ],
        );
        live::push(Table::Traces, &mut live, LiveBatch { lsn, rows }).unwrap();
    }
    assert!(live.len() <= 9);
    for batch in &live {
        let route = batch.rows.column_by_name("route").unwrap();
        let route = arrow::array::AsArray::as_dictionary::<arrow::datatypes::Int32Type>(route);
        assert!(arrow::array::Array::len(route.values()) <= 2);
    }
}

#[test]
fn a_replaced_or_withdrawn_trace_row_is_hidden_wherever_it_lies() {
    let mut live = Vec::new();
    let mut replaced: Layers<TraceId, u64> = Layers::default();
    let mut newest = HashMap::new();
    let mut rng = rng(5);
    let key = |id: u64| overlay::trace_id(&crate::rows::trace_hex(id)).unwrap();
    for lsn in 1..=400u64 {
        let mut ids: Vec<u64> = (0..rng.random_range(1..20)).map(|_| rng.random_range(0..300)).collect();
        ids.sort_unstable();
        ids.dedup();
        let rows = traces(&ids, lsn as i32);
        for id in &ids {
            if newest.insert(*id, lsn).is_some() {
                replaced.push([(key(*id), lsn)]);
            }
        }
        // a row that goes without another in its place
        let withdrawn = rng.random_range(0..300);
        if !ids.contains(&withdrawn) && newest.remove(&withdrawn).is_some() {
            replaced.push([(key(withdrawn), lsn)]);
        }
        live::push_traces(&mut live, LiveBatch { lsn, rows }, &replaced).unwrap();
    }
    let mut seen = HashMap::new();
    for batch in &live {
        let rows = overlay::current(&batch.rows, batch.lsn, &replaced).unwrap();
        for (id, calls) in column_text(&rows, "trace_id")
            .into_iter()
            .zip(column_text(&rows, "calls"))
        {
            assert!(seen.insert(id.unwrap(), calls.unwrap()).is_none(), "one row a trace");
        }
    }
    let newest: HashMap<String, String> = newest
        .into_iter()
        .map(|(id, lsn)| (crate::rows::trace_hex(id), lsn.to_string()))
        .collect();
    assert_eq!(seen, newest);
}
