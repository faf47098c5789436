//! Bytes that are no text refuse their request wherever they stand: also where nothing is written from them.

use super::{
    super::{ContentPolicy, ReadConfig, ReadError, Reader},
    hostile::{NOW, good_span},
};
use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{
        AnyValue, ArrayValue, EntityRef, InstrumentationScope, KeyValue, KeyValueList, any_value::Value as Any,
    },
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, Link},
    },
};
use prost::Message;
use std::sync::Arc;

/// Gives every text of a request a word of its own.
#[derive(Default)]
struct Words(usize);

impl Words {
    fn word(&mut self) -> String {
        self.0 += 1;
        format!("WORD{:04}", self.0)
    }

    fn value(&mut self) -> AnyValue {
        AnyValue {
            value: Some(Any::StringValue(self.word())),
        }
    }

    /// A value with texts at every place a value can have one.
    fn nested(&mut self) -> AnyValue {
        let inner = ArrayValue {
            values: vec![self.value()],
        };
        let pair = KeyValue {
            key: self.word(),
            value: Some(AnyValue {
                value: Some(Any::ArrayValue(inner)),
            }),
            ..KeyValue::default()
        };
        let pairs = KeyValueList { values: vec![pair] };
        let values = vec![
            self.value(),
            AnyValue {
                value: Some(Any::KvlistValue(pairs)),
            },
        ];
        AnyValue {
            value: Some(Any::ArrayValue(ArrayValue { values })),
        }
    }

    /// Attributes that mean nothing, content, and more than are kept.
    fn attributes(&mut self) -> Vec<KeyValue> {
        let keys = ["gen_ai.input.messages", "exception.message"].map(str::to_owned);
        let keys = keys.into_iter().chain([self.word(), self.word(), self.word()]);
        let keys: Vec<String> = keys.collect();
        let mut attributes = Vec::new();
        for key in keys {
            for value in [self.value(), self.nested()] {
                attributes.push(KeyValue {
                    key: key.clone(),
                    value: Some(value),
                    ..KeyValue::default()
                });
            }
        }
        attributes
    }

    fn resource(&mut self) -> Option<Resource> {
        Some(Resource {
            attributes: self.attributes(),
            entity_refs: vec![EntityRef {
                schema_url: self.word(),
                r#type: self.word(),
                id_keys: vec![self.word()],
                description_keys: vec![self.word(), self.word()],
            }],
            ..Resource::default()
        })
    }

    fn scope(&mut self) -> Option<InstrumentationScope> {
        Some(InstrumentationScope {
            name: self.word(),
            version: self.word(),
            attributes: self.attributes(),
            ..InstrumentationScope::default()
        })
    }

    fn span(&mut self) -> Span {
        let event = |words: &mut Self| Event {
            name: words.word(),
            attributes: words.attributes(),
            ..Event::default()
        };
        let link = |words: &mut Self| Link {
            trace_state: words.word(),
            attributes: words.attributes(),
            ..Link::default()
        };
        Span {
            name: self.word(),
            trace_state: self.word(),
            events: vec![event(self), event(self)],
            links: vec![link(self), link(self)],
            status: Some(Status {
                message: self.word(),
                code: 2,
            }),
            ..good_span(self.attributes())
        }
    }

    fn traces(&mut self) -> Vec<u8> {
        let scope_spans = |words: &mut Self, spans: Vec<Span>| ScopeSpans {
            scope: words.scope(),
            spans,
            schema_url: words.word(),
        };
        let good = self.span();
        let rejected = Span {
            span_id: vec![],
            ..self.span()
        };
        let scope_spans = vec![
            scope_spans(self, vec![good]),
            scope_spans(self, vec![rejected]),
            scope_spans(self, vec![]),
        ];
        let resource_spans = vec![
            ResourceSpans {
                resource: self.resource(),
                scope_spans,
                schema_url: self.word(),
            },
            ResourceSpans {
                resource: self.resource(),
                schema_url: self.word(),
                ..ResourceSpans::default()
            },
        ];
        ExportTraceServiceRequest { resource_spans }.encode_to_vec()
    }

    fn logs(&mut self) -> Vec<u8> {
        let record = |words: &mut Self, event_name: &str| LogRecord {
            event_name: event_name.to_owned(),
            severity_text: words.word(),
            body: Some(words.nested()),
            attributes: words.attributes(),
            ..LogRecord::default()
        };
        let event = self.word();
        let log_records = vec![record(self, &event), record(self, "gen_ai.evaluation.result")];
        let scope_logs = vec![
            ScopeLogs {
                scope: self.scope(),
                log_records,
                schema_url: self.word(),
            },
            ScopeLogs {
                scope: self.scope(),
                ..ScopeLogs::default()
            },
        ];
        let resource_logs = vec![ResourceLogs {
            resource: self.resource(),
            scope_logs,
            schema_url: self.word(),
        }];
        ExportLogsServiceRequest { resource_logs }.encode_to_vec()
    }
}

fn read(config: &Arc<ReadConfig>, body: &[u8], logs: bool) -> Result<usize, ReadError> {
    let mut reader = Reader::new(Arc::clone(config));
    let read = if logs {
        reader.read_logs(body, NOW)
    } else {
        reader.read_traces(body, NOW)
    };
    read.map(|_| reader.rows())
}

#[test]
fn one_byte_that_is_no_text_refuses_the_request_whatever_is_kept_of_it() {
    for policy in [ContentPolicy::Drop, ContentPolicy::Hash, ContentPolicy::Keep] {
        let config = Arc::new(ReadConfig {
            content: policy.into(),
            attributes_max: 3,
            events_max: 1,
            links_max: 1,
            value_bytes_max: 6,
            ..ReadConfig::default()
        });
        for logs in [false, true] {
            let mut words = Words::default();
            let body = if logs { words.logs() } else { words.traces() };
            assert!(read(&config, &body, logs).is_ok());
            assert!(words.0 > 80, "{}", words.0);
            for number in 1..=words.0 {
                let word = format!("WORD{number:04}");
                let mut places = memchr::memmem::find_iter(&body, word.as_bytes());
                let at = places.next().unwrap();
                let mut bad = body.clone();
                bad[at + 7] = 0xff;
                assert_eq!(
                    read(&config, &bad, logs),
                    Err(ReadError::Utf8),
                    "{word} of {policy:?}, logs: {logs}"
                );
            }
        }
    }
}

#[test]
fn a_text_that_is_said_again_is_text_too() {
    // the key and the name, and the value, stand twice: the last one counts
    let field = |number: u8, bytes: &[u8]| [&[number << 3 | 2, u8::try_from(bytes.len()).unwrap()], bytes].concat();
    let body = |bad: &[u8]| {
        let value = [field(1, bad), field(1, b"value")].concat();
        let attribute = [field(1, bad), field(1, b"key"), field(2, &value)].concat();
        let name = [field(5, bad), field(5, b"name")].concat();
        let span = [good_span(vec![]).encode_to_vec(), field(9, &attribute), name].concat();
        field(1, &field(2, &field(2, &span)))
    };
    let config = Arc::default();
    assert_eq!(read(&config, &body(b"first"), false), Ok(1));
    assert_eq!(read(&config, &body(b"\xff"), false), Err(ReadError::Utf8));
}
