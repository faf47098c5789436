//! What targets do with bytes from anywhere: read them as the lane would, and look at what must hold of the rows.

pub mod journal;

use ingest::{
    intake::{Accepted, Signal},
    read::{AnswerSchemas, ContentConfig, ContentPolicy, ReadConfig, ReadError, Reader},
};
use proto::{Nanos, layout::Table};
use std::{cell::RefCell, sync::Arc};

/// The schema recurses and has a pattern, so that checks of answers are reached in full.
const SCHEMA: &str = r##"{
    "anyOf": [
        {"type": "string", "pattern": "^(a+)+$"},
        {"type": "array", "items": {"$ref": "#"}, "uniqueItems": true},
        {"type": "object", "additionalProperties": {"$ref": "#"}}
    ]
}"##;

fn reader(content: ContentPolicy) -> Reader {
    let mut schemas = AnswerSchemas::default();
    schemas.declare("route", SCHEMA).expect("the schema is good");
    Reader::new(Arc::new(ReadConfig {
        schemas: Arc::new(schemas),
        content: ContentConfig {
            policy: content,
            ..ContentConfig::default()
        },
        ..ReadConfig::default()
    }))
}

thread_local! {
    static READERS: RefCell<[Reader; 3]> = RefCell::new(
        [ContentPolicy::Drop, ContentPolicy::Hash, ContentPolicy::Keep].map(reader)
    );
}

/// Reads a request under every policy. A request is read whole or not at all, and its rows form batches.
///
/// # Panics
/// If that does not hold.
pub fn read(signal: Signal, body: &[u8]) {
    READERS.with_borrow_mut(|readers| {
        let mut outcomes = Vec::new();
        for reader in readers {
            let read = match signal {
                Signal::Traces => reader.read_traces(body, Nanos(1)),
                Signal::Logs => reader.read_logs(body, Nanos(1)),
            };
            // text of a span that is rejected alone is only looked at where it is left out: a refusal may depend on it
            outcomes.extend(outcome(reader, read, signal));
        }
        assert!(
            outcomes.windows(2).all(|pair| pair[0] == pair[1]),
            "a policy changed what is taken"
        );
    });
}

/// What was accepted and rejected, `None` if the request was refused.
fn outcome(reader: &mut Reader, read: Result<Accepted, ReadError>, signal: Signal) -> Option<(u64, u64)> {
    let rows = reader.rows();
    let sections = reader.take();
    let taken: usize = sections.iter().map(|section| section.rows.num_rows()).sum();
    assert_eq!(taken, rows, "rows did not form a batch");
    match read {
        Ok(accepted) => {
            let spans = sections.iter().find(|section| section.table == Table::Spans);
            let spans = spans.map_or(0, |section| section.rows.num_rows() as u64);
            if signal == Signal::Traces {
                assert_eq!(accepted.accepted, spans, "every accepted span is a row");
            }
            Some((accepted.accepted, accepted.rejected))
        }
        Err(_) => {
            assert_eq!(rows, 0, "a refused request left rows");
            None
        }
    }
}
