//! Marks over rows against a row-by-row oracle; joining of live batches.

use crate::rows::{T0, batch, column_text, evals, rng, spans, text, traces, words};
use arrow::array::{ArrayRef, RecordBatch, StringArray};
use proto::{Color, Nanos, layout::Table};
use rand::RngExt;
use rand_chacha::ChaCha8Rng;
use std::{collections::HashMap, sync::Arc};
use store::{
    Filling, Layers, LiveBatch, Mark, SpanMark, TraceId, Twin, declared, live,
    overlay::{self, Depth},
};

/// Marks of most of `traces` traces, with marks of some spans of `1..=spans` whether they are theirs or not.
pub fn random_marks(rng: &mut ChaCha8Rng, traces: u64, spans: u64) -> HashMap<TraceId, Arc<Mark>> {
    let mut marks = HashMap::new();
    for trace in 0..traces {
        if rng.random_bool(0.3) {
            continue;
        }
        let of_spans: Arc<[SpanMark]> = (1..=spans)
            .filter_map(|span| match rng.random_bool(0.4) {
                true => Some(random_span_mark(rng, span)),
                false => None,
            })
            .collect();
        let mark = Mark {
            route: any(rng, &["support-chat", "from-mark"]),
            unmarked_reason: any(rng, &["open", "unknown version"]),
            version: any(rng, &["41", "43"]),
            release: any(rng, &["r1"]),
            cohort: any(rng, &["gold", "bronze"]),
            color: Color::ALL[trace as usize % 3],
            split_ppm: (trace % 2 == 0).then_some(50_000),
            spans: (trace % 3 != 0).then_some(of_spans),
        };
        marks.insert(
            overlay::trace_id(&crate::rows::trace_hex(trace)).unwrap(),
            Arc::new(mark),
        );
    }
    marks
}

fn any(rng: &mut ChaCha8Rng, from: &[&str]) -> Option<Arc<str>> {
    from.get(rng.random_range(0..=from.len())).map(|word| Arc::from(*word))
}

fn random_span_mark(rng: &mut ChaCha8Rng, span: u64) -> SpanMark {
    let twin = match rng.random_range(0..3) {
        0 => None,
        1 => Some(Twin::Repeats(rng.random())),
        _ => {
            let mut number = || rng.random_bool(0.7).then(|| rng.random_range(0..9_000));
            let filling = Filling {
                prompt_tokens: number(),
                completion_tokens: number(),
                cache_read_tokens: number(),
                cache_write_tokens: number(),
                reasoning_tokens: number(),
                cost_nano: number(),
                ttft_ms: number().map(|n| n as f64 / 4.0),
                response_model: any(rng, &["m-2026-01-01"]),
            };
            Some(Twin::Counts(Box::new(filling)))
        }
    };
    SpanMark {
        span,
        color: [None, Some(Color::Blue), Some(Color::Green)][rng.random_range(0..3)],
        version: any(rng, &["44"]),
        twin,
    }
}

/// Columns of any table that a mark may change, and what else of `spans`.
const FILLED: [&str; 5] = ["route", "version", "release", "cohort", "color"];
const OF_SPANS: [&str; 14] = [
    "unmarked_reason",
    "split",
    "role",
    "repeats_span_id",
    "response_model",
    "price_version",
    "emitter_cost_usd",
    "prompt_tokens",
    "completion_tokens",
    "cache_read_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "cost_usd",
    "ttft_ms",
];

fn columns(table: Table) -> Vec<&'static str> {
    let of_spans: &[&str] = if table == Table::Spans { &OF_SPANS } else { &[] };
    [&FILLED, of_spans].concat()
}

/// What a reader should see of the columns that marks change, row by row.
pub fn expected(table: Table, rows: &RecordBatch, marks: &HashMap<TraceId, Arc<Mark>>) -> Vec<Vec<Option<String>>> {
    let rows = overlay::complete(rows, declared(table), None).unwrap();
    let ids = column_text(&rows, "trace_id");
    let span_ids = column_text(&rows, "span_id");
    let own: Vec<HashMap<&str, Option<String>>> = {
        let names = columns(table)
            .into_iter()
            .chain((table == Table::Spans).then_some("request_model"));
        let texts: Vec<(&str, Vec<Option<String>>)> = names.map(|name| (name, column_text(&rows, name))).collect();
        (0..rows.num_rows())
            .map(|row| texts.iter().map(|(name, text)| (*name, text[row].clone())).collect())
            .collect()
    };
    (0..rows.num_rows())
        .map(|row| {
            let mark = ids[row]
                .as_deref()
                .and_then(overlay::trace_id)
                .and_then(|id| marks.get(&id));
            let span = (table == Table::Spans)
                .then(|| {
                    let id = u64::from_str_radix(span_ids[row].as_deref()?, 16).ok()?;
                    mark?.spans.as_ref()?.iter().find(|span| span.span == id)
                })
                .flatten();
            columns(table)
                .into_iter()
                .map(|name| one(name, &own[row], mark.map(AsRef::as_ref), span))
                .collect()
        })
        .collect()
}

/// What a reader should see of one column of one row.
fn one(
    name: &str,
    row: &HashMap<&str, Option<String>>,
    mark: Option<&Mark>,
    span: Option<&SpanMark>,
) -> Option<String> {
    let own = row[name].clone();
    let twin = span.and_then(|span| span.twin.as_ref());
    let or = |fill: fn(&Mark) -> Option<String>| own.clone().or_else(|| mark.and_then(fill));
    let text = |word: &Option<Arc<str>>| word.as_ref().map(|w| w.to_string());
    let color = || {
        let marked = |color: &String| color != "unmarked";
        let of_span = || Some(span?.color?.to_string());
        let of_trace = || mark.map(|mark| mark.color.to_string());
        let color = row["color"].clone().filter(marked).or_else(of_span).or_else(of_trace);
        color.unwrap_or_else(|| "unmarked".to_owned())
    };
    let number = |fill: fn(&Filling) -> Option<String>| match twin {
        Some(Twin::Repeats(_)) => None,
        Some(Twin::Counts(filling)) => own.clone().or_else(|| fill(filling)),
        None => own.clone(),
    };
    match name {
        "route" => or(|mark| mark.route.as_ref().map(|w| w.to_string())),
        "version" => own
            .clone()
            .or_else(|| text(&span?.version))
            .or_else(|| text(&mark?.version)),
        "release" => or(|mark| mark.release.as_ref().map(|w| w.to_string())),
        "cohort" => or(|mark| mark.cohort.as_ref().map(|w| w.to_string())),
        "color" => Some(color()),
        "unmarked_reason" => own
            .clone()
            .or_else(|| text(&mark?.unmarked_reason))
            .filter(|_| color() == "unmarked"),
        "split" => or(|mark| Some((f64::from(mark.split_ppm?) / 1e6).to_string())),
        "role" if matches!(twin, Some(Twin::Repeats(_))) => Some("other".to_owned()),
        "repeats_span_id" => match twin {
            Some(Twin::Repeats(other)) => Some(format!("{other:016x}")),
            _ => own,
        },
        "response_model" => match twin {
            Some(Twin::Counts(filling)) if own.is_none() || own == row["request_model"] => {
                text(&filling.response_model).or(own)
            }
            _ => own,
        },
        "price_version" | "emitter_cost_usd" => number(|_| None),
        "prompt_tokens" => number(|f| Some(f.prompt_tokens?.to_string())),
        "completion_tokens" => number(|f| Some(f.completion_tokens?.to_string())),
        "cache_read_tokens" => number(|f| Some(f.cache_read_tokens?.to_string())),
        "cache_write_tokens" => number(|f| Some(f.cache_write_tokens?.to_string())),
        "reasoning_tokens" => number(|f| Some(f.reasoning_tokens?.to_string())),
        "cost_usd" => number(|f| Some(format!("0.{:09}", f.cost_nano?))),
        "ttft_ms" => match twin {
            Some(Twin::Counts(filling)) => own.or_else(|| filling.ttft_ms.map(|ms| ms.to_string())),
            _ => own,
        },
        _ => own,
    }
}

pub fn seen(table: Table, rows: &RecordBatch) -> Vec<Vec<Option<String>>> {
    let texts: Vec<_> = columns(table).iter().map(|name| column_text(rows, name)).collect();
    (0..rows.num_rows())
        .map(|row| texts.iter().map(|text| text[row].clone()).collect())
        .collect()
}

/// Texts of the same floats may differ (`1` and `1.0`); those of what is expected follow those that are seen.
pub fn assert_seen(table: Table, rows: &RecordBatch, expected: &[Vec<Option<String>>], context: &str) {
    let same = |a: &Option<String>, b: &Option<String>| match (a, b) {
        (Some(a), Some(b)) => a == b || a.parse::<f64>().is_ok_and(|a| b.parse() == Ok(a)),
        (a, b) => a == b,
    };
    for (row, (seen, expected)) in seen(table, rows).iter().zip(expected).enumerate() {
        for ((name, seen), expected) in columns(table).iter().zip(seen).zip(expected) {
            assert!(
                same(seen, expected),
                "{context} row {row} {name}: {seen:?}, not {expected:?}"
            );
        }
    }
    assert_eq!(rows.num_rows(), expected.len(), "{context}");
}

#[test]
fn marks_fill_what_a_row_does_not_say() {
    for seed in 0..25 {
        let mut rng = rng(seed);
        let marks = random_marks(&mut rng, 6, 50);
        let lookup = |id: &TraceId| marks.get(id).cloned();
        for (table, rows) in [
            (Table::Spans, spans(&mut rng, 50, 6, &mut 0, Nanos(T0))),
            (Table::Evals, evals(&mut rng, 50, 6)),
        ] {
            let read = overlay::marked(table, &rows, None, Depth::Spans, &lookup).unwrap();
            assert_seen(table, &read, &expected(table, &rows, &marks), &format!("seed {seed}"));
            // Any projection shows the same values.
            let all = text(table, &read);
            let projection: Vec<usize> = (0..declared(table).fields().len())
                .filter(|_| rng.random_bool(0.2))
                .collect();
            let some = overlay::marked(table, &rows, Some(&projection), Depth::Spans, &lookup).unwrap();
            assert_eq!(some, read.project(&projection).unwrap(), "seed {seed} {projection:?}");
            // Reading a patched file: the wider projection first, then the marks.
            let wider = overlay::columns_for(table, &projection, Depth::Spans);
            let file = overlay::complete(&rows, declared(table), Some(&wider)).unwrap();
            assert_eq!(
                overlay::marked(table, &file, Some(&projection), Depth::Spans, &lookup).unwrap(),
                some
            );
            // Marks that were folded in change nothing the second time.
            // Where no mark speaks of spans, nobody need look for them.
            let plain: HashMap<TraceId, Arc<Mark>> = marks
                .iter()
                .map(|(id, mark)| {
                    (
                        *id,
                        Arc::new(Mark {
                            spans: None,
                            ..(**mark).clone()
                        }),
                    )
                })
                .collect();
            let plain = |id: &TraceId| plain.get(id).cloned();
            let read_as = |depth| overlay::marked(table, &rows, Some(&projection), depth, &plain).unwrap();
            assert_eq!(
                read_as(Depth::Traces),
                read_as(Depth::Spans),
                "seed {seed} {projection:?}"
            );
            let again = overlay::apply_marks(table, &read, Depth::Spans, &lookup).unwrap();
            assert_eq!(text(table, &again), all);
        }
    }
}

#[test]
fn a_column_that_no_mark_changes_costs_no_look_up() {
    let rows = spans(&mut rng(1), 9, 6, &mut 0, Nanos(T0));
    let index = |name: &str| declared(Table::Spans).index_of(name).unwrap();
    let columns = ["role", "prompt_tokens", "cost_usd", "duration_ms"].map(index);
    let refuse = |_: &TraceId| -> Option<Arc<Mark>> { panic!("nobody asked") };
    let read = overlay::marked(Table::Spans, &rows, Some(&columns), Depth::Traces, &refuse).unwrap();
    assert_eq!(read.num_rows(), 9);
    assert_eq!(overlay::columns_for(Table::Spans, &columns, Depth::Traces), columns);
}

#[test]
fn an_empty_projection_still_has_rows() {
    let rows = spans(&mut rng(1), 9, 6, &mut 0, Nanos(T0));
    let read = overlay::marked(Table::Spans, &rows, Some(&[]), Depth::Spans, &|_| None).unwrap();
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
