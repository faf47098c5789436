//! Evaluations: log records and span events of the name `gen_ai.evaluation.result`, and legacy user feedback.

use super::{
    ReadError, Reader, Reject, Tally,
    cells::Cells,
    resolve,
    sources::{EVALUATION_EVENT, FEEDBACK_EVENT},
    span::is_id,
    value::{Value, cut, key_value, utf8},
    wire::{Cursor, FIXED64, LEN, key},
};
use proto::{Nanos, metric::normalise_eval_name};

/// Name of legacy feedback, which carries none.
const FEEDBACK: &str = "user_feedback";

/// The span or trace that was judged, as far as it is known.
#[derive(Clone, Copy, Default)]
pub(super) struct Place<'a> {
    pub(super) trace_id: &'a [u8],
    pub(super) span_id: &'a [u8],
}

/// What an evaluation says of itself.
#[derive(Default)]
pub(super) struct Judged<'a> {
    name: &'a [u8],
    score: Option<Value<'a>>,
    label: &'a [u8],
    explanation: &'a [u8],
    response_id: &'a [u8],
    error_type: Option<Value<'a>>,
    identifier: &'a [u8],
}

impl<'a> Judged<'a> {
    pub(super) fn take(&mut self, key: &[u8], value: Value<'a>) {
        let text = value.text().unwrap_or_default();
        match key {
            b"gen_ai.response.id" => self.response_id = text,
            b"error.type" if value.says_something() => self.error_type = Some(value),
            _ => {
                if let Some(field) = key.strip_prefix(b"gen_ai.evaluation.") {
                    self.take_field(field, value);
                }
            }
        }
    }

    /// Takes a field by its name within an evaluation.
    pub(super) fn take_field(&mut self, field: &[u8], value: Value<'a>) {
        let text = value.text().unwrap_or_default();
        match field {
            b"name" => self.name = text,
            b"score.value" => self.score = Some(value),
            // the name that legacy feedback and annotations use
            b"score" => self.score = self.score.or(Some(value)),
            b"score.label" | b"label" => self.label = text,
            b"explanation" => self.explanation = text,
            b"identifier" => self.identifier = text,
            _ => {}
        }
    }

    /// What the label says; an evaluator's own error says nothing about the answer.
    fn passed(&self) -> Option<bool> {
        const PASS: [&str; 3] = ["pass", "passed", "true"];
        const FAIL: [&str; 3] = ["fail", "failed", "false"];
        let says = |words: [&str; 3]| {
            words
                .iter()
                .any(|word| self.label.eq_ignore_ascii_case(word.as_bytes()))
        };
        match self.error_type {
            Some(_) => None,
            None if says(PASS) => Some(true),
            None if says(FAIL) => Some(false),
            None => None,
        }
    }
}

impl Reader {
    /// Every record of an `ExportLogsServiceRequest`.
    pub(super) fn read_log_records(
        &mut self,
        body: &[u8],
        received: Nanos,
        tally: &mut Tally,
    ) -> Result<(), ReadError> {
        let mut request = Cursor::new(body);
        while let Some(resource_logs) = request.next_len(1)? {
            let mut scopes = Cursor::new(resource_logs);
            while let Some(scope_logs) = scopes.next_len(2)? {
                let mut records = Cursor::new(scope_logs);
                while let Some(record) = records.next_len(2)? {
                    self.read_log_record(record, received, tally)?;
                }
            }
        }
        Ok(())
    }

    fn read_log_record(&mut self, message: &[u8], received: Nanos, tally: &mut Tally) -> Result<(), ReadError> {
        const TIME: u32 = key(1, FIXED64);
        const OBSERVED: u32 = key(11, FIXED64);
        const ATTRIBUTE: u32 = key(6, LEN);
        const TRACE_ID: u32 = key(9, LEN);
        const SPAN_ID: u32 = key(10, LEN);
        const EVENT_NAME: u32 = key(12, LEN);
        let (mut time, mut observed): (u64, u64) = (0, 0);
        let (mut event, mut event_attribute): (&[u8], &[u8]) = (&[], &[]);
        let mut place = Place::default();
        let mut judged = Judged::default();
        let mut cursor = Cursor::new(message);
        while let found @ 1.. = cursor.next_key()? {
            match found {
                TIME => time = cursor.fixed64()?,
                OBSERVED => observed = cursor.fixed64()?,
                TRACE_ID => place.trace_id = cursor.bytes()?,
                SPAN_ID => place.span_id = cursor.bytes()?,
                EVENT_NAME => event = cursor.bytes()?,
                ATTRIBUTE => {
                    let (key, value) = key_value(cursor.bytes()?)?;
                    if key == b"event.name" {
                        event_attribute = value.text().unwrap_or_default();
                    }
                    judged.take(key, value);
                }
                other => cursor.skip(other)?,
            }
        }
        let event = if event.is_empty() { event_attribute } else { event };
        if event == FEEDBACK_EVENT.as_bytes() && judged.name.is_empty() {
            judged.name = FEEDBACK.as_bytes();
        } else if event != EVALUATION_EVENT.as_bytes() {
            tally.accepted += 1;
            return Ok(());
        }
        if self.push_evaluation(&judged, place, [time, observed], b"otel_log", received)? {
            tally.accepted += 1;
        } else {
            tally.reject(Reject::EvaluationName);
        }
        Ok(())
    }

    /// A span event that is an evaluation of its span. Without a name it is no evaluation; the span is kept all the same.
    pub(super) fn read_span_evaluation(
        &mut self,
        event: &[u8],
        place: Place<'_>,
        received: Nanos,
    ) -> Result<(), ReadError> {
        const TIME: u32 = key(1, FIXED64);
        const ATTRIBUTE: u32 = key(3, LEN);
        let mut time = 0;
        let mut judged = Judged::default();
        let mut cursor = Cursor::new(event);
        while let found @ 1.. = cursor.next_key()? {
            match found {
                TIME => time = cursor.fixed64()?,
                ATTRIBUTE => {
                    let (key, value) = key_value(cursor.bytes()?)?;
                    judged.take(key, value);
                }
                other => cursor.skip(other)?,
            }
        }
        self.push_evaluation(&judged, place, [time, 0], b"otel_event", received)?;
        Ok(())
    }

    /// Appends a row, unless the evaluation has no name.
    pub(super) fn push_evaluation(
        &mut self,
        judged: &Judged<'_>,
        place: Place<'_>,
        times: [u64; 2],
        source: &[u8],
        received: Nanos,
    ) -> Result<bool, ReadError> {
        let name = normalise_eval_name(cut(utf8(judged.name)?, super::WORD_BYTES_MAX));
        if name.is_empty() {
            return Ok(false);
        }
        let rows = &mut self.evals;
        let row = rows.rows;
        let mut cells = Cells {
            row,
            counts: &mut self.counts,
        };
        if is_id::<16>(place.trace_id) {
            rows.trace_id.set_hex(row, place.trace_id);
        }
        if is_id::<8>(place.span_id) {
            rows.span_id.set_hex(row, place.span_id);
        }
        let time = times
            .into_iter()
            .filter_map(|time| i64::try_from(time).ok())
            .find(|&time| time > 0);
        rows.time.set(row, time.unwrap_or(received.0));
        rows.name.set(row, name.as_bytes())?;
        if let Some(score) = judged.score {
            cells.double(&mut rows.score, score.double());
        }
        cells.word(&mut rows.label, Some(judged.label))?;
        if let Some(passed) = judged.passed() {
            rows.passed.set(row, passed);
        }
        rows.source.set(row, source)?;
        for (column, text) in [
            (&mut rows.identifier, judged.identifier),
            (&mut rows.response_id, judged.response_id),
        ] {
            if !text.is_empty() {
                cells.text(column, Value::Text(text))?;
            }
        }
        if !judged.explanation.is_empty() {
            rows.explanation.set(
                row,
                cut(utf8(judged.explanation)?, self.config.value_bytes_max).as_bytes(),
            );
        }
        if let Some(error_type) = judged.error_type {
            cells.word(
                &mut rows.error_type,
                resolve::failure(Some(error_type), None).error_type,
            )?;
        }
        rows.rows += 1;
        Ok(true)
    }
}
