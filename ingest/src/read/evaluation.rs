//! Evaluations: log records and span events of the name `gen_ai.evaluation.result`, and legacy user feedback.
//!
//! Three attributes are our own, for what no convention can say; the HTTP API uses them, and so may others:
//! `tracegate.eval.source` (`api` or `feedback`: by which way it came), `tracegate.eval.passed` (boolean: the verdict), and
//! `tracegate.eval.identifier` (tells apart evaluations of one name, as `annotation.identifier` does).

use super::{
    RESOURCE, ReadError, Reader, Reject, SCHEMA_URL, Tally,
    cells::Cells,
    read_scope, resolve,
    sources::{EVALUATION_EVENT, FEEDBACK_EVENT},
    span::is_id,
    texts,
    value::{Value, check_utf8, cut, key_value, utf8},
    verdict::Said,
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
    source: Option<&'static str>,
    passed: Option<bool>,
    /// That it was sent at all says something.
    is_feedback: bool,
}

/// Prefix of our own attributes.
const OWN: &[u8] = b"tracegate.eval.";
/// Values of `tracegate.eval.source`.
const SOURCES: [&str; 2] = ["api", FEEDBACK_SOURCE];
/// Column `source` of feedback.
const FEEDBACK_SOURCE: &str = "feedback";

impl<'a> Judged<'a> {
    pub(super) fn take(&mut self, key: &[u8], value: Value<'a>) {
        let text = value.text().unwrap_or_default();
        match key {
            b"gen_ai.response.id" => self.response_id = text,
            b"error.type" if value.says_something() => self.error_type = Some(value),
            _ => {
                if let Some(field) = key.strip_prefix(b"gen_ai.evaluation.") {
                    self.take_field(field, value);
                } else if let Some(field) = key.strip_prefix(OWN) {
                    self.take_own(field, value);
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

    fn take_own(&mut self, field: &[u8], value: Value<'a>) {
        match field {
            b"source" => {
                let told = value.text().unwrap_or_default();
                self.source = SOURCES.into_iter().find(|source| source.as_bytes() == told);
            }
            b"passed" => self.passed = value.flag().ok(),
            b"identifier" => self.identifier = value.text().unwrap_or_default(),
            _ => {}
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
        const SCOPE_LOGS: u32 = key(2, LEN);
        let mut request = Cursor::new(body);
        while let Some(resource_logs) = request.next_len(1)? {
            let mut fields = Cursor::new(resource_logs);
            while let found @ 1.. = fields.next_key()? {
                match found {
                    SCOPE_LOGS => self.read_scope_logs(fields.bytes()?, received, tally)?,
                    RESOURCE => texts::check(&texts::RESOURCE, fields.bytes()?)?,
                    SCHEMA_URL => check_utf8(fields.bytes()?)?,
                    other => fields.skip(other)?,
                }
            }
        }
        Ok(())
    }

    fn read_scope_logs(&mut self, message: &[u8], received: Nanos, tally: &mut Tally) -> Result<(), ReadError> {
        read_scope(message)?;
        let mut records = Cursor::new(message);
        while let Some(record) = records.next_len(2)? {
            self.read_log_record(record, received, tally)?;
        }
        Ok(())
    }

    fn read_log_record(&mut self, message: &[u8], received: Nanos, tally: &mut Tally) -> Result<(), ReadError> {
        const TIME: u32 = key(1, FIXED64);
        const OBSERVED: u32 = key(11, FIXED64);
        const SEVERITY_TEXT: u32 = key(3, LEN);
        const BODY: u32 = key(5, LEN);
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
                EVENT_NAME => {
                    event = cursor.bytes()?;
                    check_utf8(event)?;
                }
                SEVERITY_TEXT => check_utf8(cursor.bytes()?)?,
                BODY => texts::check(&texts::VALUE, cursor.bytes()?)?,
                ATTRIBUTE => {
                    let (key, value) = key_value(cursor.bytes()?)?;
                    check_utf8(key)?;
                    texts::check_value(&value)?;
                    if key == b"event.name" {
                        event_attribute = value.text().unwrap_or_default();
                    }
                    judged.take(key, value);
                }
                other => cursor.skip(other)?,
            }
        }
        let event = if event.is_empty() { event_attribute } else { event };
        if event == FEEDBACK_EVENT.as_bytes() {
            judged.is_feedback = true;
            if judged.name.is_empty() {
                judged.name = FEEDBACK.as_bytes();
            }
        } else if event != EVALUATION_EVENT.as_bytes() {
            tally.accepted += 1;
            return Ok(());
        }
        if self.push_evaluation(&judged, place, [time, observed], "otel_log", received)? {
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
        self.push_evaluation(&judged, place, [time, 0], "otel_event", received)?;
        Ok(())
    }

    /// Appends a row, unless the evaluation has no name.
    pub(super) fn push_evaluation(
        &mut self,
        judged: &Judged<'_>,
        place: Place<'_>,
        times: [u64; 2],
        source: &str,
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
        let (in_trace, of_span) = (is_id::<16>(place.trace_id), is_id::<8>(place.span_id));
        if in_trace {
            rows.trace_id.set_hex(row, place.trace_id);
            rows.linked_by.set(row, if of_span { b"span" } else { b"trace" })?;
        }
        if of_span {
            rows.span_id.set_hex(row, place.span_id);
        }
        let time = times
            .into_iter()
            .filter_map(|time| i64::try_from(time).ok())
            .find(|&time| time > 0);
        rows.time.set(row, time.unwrap_or(received.0));
        rows.name.set(row, name.as_bytes())?;
        match judged.score {
            Some(Value::Bool(flag)) => rows.score.set(row, f64::from(flag)),
            Some(score) => cells.double(&mut rows.score, score.double()),
            None => {}
        }
        cells.word(&mut rows.label, Some(judged.label))?;
        let source = judged.source.unwrap_or(source);
        let said = Said {
            label: utf8(judged.label)?,
            score: judged.score,
            passed: judged.passed,
            failed_itself: judged.error_type.is_some(),
            is_feedback: judged.is_feedback || source == FEEDBACK_SOURCE,
        };
        if let Some(passed) = self.config.evals.passed(&name, &said) {
            rows.passed.set(row, passed);
        }
        rows.source.set(row, source.as_bytes())?;
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

#[cfg(test)]
mod tests {
    use super::super::{ReadConfig, Reader};
    use arrow::array::{Array, AsArray, RecordBatch};
    use opentelemetry_proto::tonic::{
        collector::logs::v1::ExportLogsServiceRequest,
        common::v1::{AnyValue, KeyValue, any_value::Value},
        logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    };
    use prost::Message;
    use proto::Nanos;
    use std::sync::Arc;

    fn read(event: &str, trace_id: &[u8], span_id: &[u8], attributes: &[(&str, Value)]) -> Option<RecordBatch> {
        let record = LogRecord {
            time_unix_nano: 7,
            trace_id: trace_id.to_vec(),
            span_id: span_id.to_vec(),
            event_name: event.to_owned(),
            attributes: attributes
                .iter()
                .map(|(key, value)| KeyValue {
                    key: (*key).to_owned(),
                    value: Some(AnyValue {
                        value: Some(value.clone()),
                    }),
                    ..KeyValue::default()
                })
                .collect(),
            ..LogRecord::default()
        };
        let scope_logs = vec![ScopeLogs {
            log_records: vec![record],
            ..ScopeLogs::default()
        }];
        let resource_logs = vec![ResourceLogs {
            scope_logs,
            ..ResourceLogs::default()
        }];
        let body = ExportLogsServiceRequest { resource_logs }.encode_to_vec();
        let mut reader = Reader::new(Arc::new(ReadConfig::default()));
        reader.read_logs(&body, Nanos::from_secs(1)).unwrap();
        reader.take().pop().map(|section| section.rows)
    }

    fn text(value: &str) -> Value {
        Value::StringValue(value.to_owned())
    }

    /// Source, link, identifier and verdict of the only row.
    fn said(rows: &RecordBatch) -> (String, Option<String>, Option<String>, Option<bool>) {
        let word = |name: &str| {
            let words = rows
                .column_by_name(name)?
                .as_dictionary::<arrow::datatypes::Int32Type>();
            let key = words.key(0)?;
            Some(words.values().as_string::<i32>().value(key).to_owned())
        };
        let identifier = rows
            .column_by_name("identifier")
            .map(|c| c.as_string_view().value(0).to_owned());
        let passed = rows.column_by_name("passed").map(|c| c.as_boolean());
        (
            word("source").unwrap(),
            word("linked_by"),
            identifier,
            passed.filter(|p| p.is_valid(0)).map(|p| p.value(0)),
        )
    }

    #[test]
    fn our_own_attributes_name_source_verdict_and_identifier() {
        let rows = read(
            super::EVALUATION_EVENT,
            &[1; 16],
            &[2; 8],
            &[
                ("gen_ai.evaluation.name", text("Helpfulness")),
                ("tracegate.eval.source", text("api")),
                ("tracegate.eval.passed", Value::BoolValue(false)),
                ("tracegate.eval.identifier", text("night run")),
            ],
        );
        let expected = ("api".into(), Some("span".into()), Some("night run".into()), Some(false));
        assert_eq!(said(&rows.unwrap()), expected);
        let rows = read(
            super::EVALUATION_EVENT,
            &[1; 16],
            &[],
            &[
                ("gen_ai.evaluation.name", text("Helpfulness")),
                ("tracegate.eval.source", text("somebody")),
                ("gen_ai.evaluation.score.label", text("pass")),
            ],
        );
        let expected = ("otel_log".into(), Some("trace".into()), None, Some(true));
        assert_eq!(said(&rows.unwrap()), expected, "only known words are sources");
    }

    #[test]
    fn feedback_that_only_names_what_happened_says_that_it_did() {
        let escalated = [
            ("gen_ai.evaluation.name", text("escalation")),
            ("tracegate.eval.source", text("feedback")),
        ];
        let rows = read(super::EVALUATION_EVENT, &[], &[2; 8], &escalated);
        assert_eq!(said(&rows.unwrap()), ("feedback".into(), None, None, Some(false)));
        let thumb = [("gen_ai.evaluation.score", Value::DoubleValue(-1.0))];
        let rows = read(super::FEEDBACK_EVENT, &[1; 16], &[], &thumb);
        let expected = ("otel_log".into(), Some("trace".into()), None, Some(false));
        assert_eq!(said(&rows.unwrap()), expected);
    }
}
