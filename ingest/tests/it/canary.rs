//! Text that the policy drops is nowhere on disk: not in the journal, not in sealed files, not in what a restart needs.
//!
//! The captured requests carry a canary wherever they carried what people, models and tools wrote, which is known from
//! the conversation they captured and not from the names of attributes.

use crate::pipeline::{bench::Bench, traffic::Request};
use arrow::{
    array::{Array, AsArray},
    datatypes::{DataType, Int32Type},
};
use ingest::{
    intake::Signal,
    read::{ContentConfig, ContentPolicy, ContentRule, ReadConfig},
};
use opentelemetry_proto::tonic::{
    collector::{logs::v1::ExportLogsServiceRequest, trace::v1::ExportTraceServiceRequest},
    common::v1::{AnyValue, ArrayValue, KeyValue, KeyValueList, any_value::Value},
    logs::v1::{LogRecord, ResourceLogs, ScopeLogs},
    resource::v1::Resource,
    trace::v1::{
        ResourceSpans, ScopeSpans, Span, Status,
        span::{Event, Link},
    },
};
use prost::Message;
use proto::layout::Table;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};
use store::lookup::{IdColumn, Search, find};

const CANARY: &str = "KANARIENVOGEL";

/// What was said in the captured conversations.
const SAID: [&str; 9] = [
    "Where is my order",
    "Your order 4711 ships on Friday",
    "You are a support agent",
    "You are {role}",
    "look up an order",
    "order_id",
    "ships",
    "had an error processing your request",
    "[[PLAN]]",
];

fn plant(text: &mut String) -> bool {
    let before = text.len();
    for said in SAID {
        if text.contains(said) {
            *text = text.replace(said, &format!("{CANARY} {}", said.len()));
        }
    }
    text.len() != before || text.contains(CANARY)
}

fn plant_in(value: &mut Option<AnyValue>) -> bool {
    match value.as_mut().and_then(|value| value.value.as_mut()) {
        Some(Value::StringValue(text)) => plant(text),
        Some(Value::ArrayValue(array)) => array.values.iter_mut().fold(false, |planted, value| {
            let mut inner = Some(std::mem::take(value));
            let here = plant_in(&mut inner);
            *value = inner.unwrap();
            planted | here
        }),
        Some(Value::KvlistValue(pairs)) => plant_in_all(&mut pairs.values),
        _ => false,
    }
}

fn plant_in_all(attributes: &mut [KeyValue]) -> bool {
    attributes
        .iter_mut()
        .fold(false, |planted, attribute| plant_in(&mut attribute.value) | planted)
}

/// Requests of one captured client, and how many of its spans carry the canary.
fn captured(client: &Path) -> (Vec<Request>, usize) {
    let mut files: Vec<_> = fs::read_dir(client).unwrap().map(|file| file.unwrap().path()).collect();
    files.sort();
    let (mut requests, mut spans_planted) = (Vec::new(), 0);
    for file in files {
        let name = file.to_string_lossy().into_owned();
        if !name.ends_with(".traces.otlp.pb") {
            continue;
        }
        let mut request = ExportTraceServiceRequest::decode(fs::read(&file).unwrap().as_slice()).unwrap();
        let scopes = request
            .resource_spans
            .iter_mut()
            .flat_map(|of_resource| &mut of_resource.scope_spans);
        for span in scopes.flat_map(|scope| &mut scope.spans) {
            let mut planted = plant_in_all(&mut span.attributes);
            for event in &mut span.events {
                planted |= plant_in_all(&mut event.attributes);
            }
            if let Some(status) = &mut span.status {
                planted |= plant(&mut status.message);
            }
            spans_planted += usize::from(planted);
        }
        requests.push(Request {
            signal: Signal::Traces,
            body: request.encode_to_vec().into(),
        });
    }
    (requests, spans_planted)
}

fn text(text: &str) -> AnyValue {
    AnyValue {
        value: Some(Value::StringValue(text.to_owned())),
    }
}

fn pair(key: &str, value: AnyValue) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(value),
        ..KeyValue::default()
    }
}

fn said(keys: &[&str]) -> Vec<KeyValue> {
    keys.iter().map(|key| pair(key, text(CANARY))).collect()
}

/// A canary that is nested in lists and pairs.
fn nested() -> AnyValue {
    let pairs = KeyValueList {
        values: vec![pair("role", text("user")), pair("anything", text(CANARY))],
    };
    let messages = ArrayValue {
        values: vec![AnyValue {
            value: Some(Value::KvlistValue(pairs)),
        }],
    };
    AnyValue {
        value: Some(Value::ArrayValue(messages)),
    }
}

/// A span that says the canary wherever people, models and tools may be quoted.
fn talkative(service: &str, route: Option<&str>, id: u8) -> Request {
    let mut attributes = said(&[
        "gen_ai.system_instructions",
        "gen_ai.prompt.0.content",
        "gen_ai.completion.0.content",
        "gen_ai.completion.0.function_call.arguments",
        "gen_ai.tool.call.arguments",
        "gen_ai.tool.call.result",
        "gen_ai.retrieval.documents",
        "retrieval.documents.0.document.content",
        "embedding.embeddings.0.embedding.text",
        "reranker.query",
        "llm.openai.messages",
        "llm.anthropic.system",
        "ai.prompt.messages",
        "ai.response.text",
        "ai.toolCall.args",
        "traceloop.entity.input",
        "traceloop.entity.output",
        "langfuse.observation.input",
        "pydantic_ai.all_messages",
        "db.statement",
        "error.message",
        "acme.user_prompt",
        "acme.answers.0",
        "http.request.body.content",
    ]);
    attributes.push(pair("gen_ai.input.messages", nested()));
    attributes.push(pair("acme.messages", nested()));
    attributes.push(pair("gen_ai.operation.name", text("chat")));
    if let Some(route) = route {
        // what it is about comes last: it must be known first
        attributes.push(pair("gateway.route.name", text(route)));
    }
    let event = |name: &str, attributes| Event {
        time_unix_nano: 1_800_000_000_000_000_500,
        name: name.to_owned(),
        attributes,
        ..Event::default()
    };
    let span = Span {
        trace_id: vec![id; 16],
        span_id: vec![id; 8],
        name: "chat".to_owned(),
        start_time_unix_nano: 1_800_000_000_000_000_000,
        end_time_unix_nano: 1_800_000_000_000_001_000,
        attributes,
        events: vec![
            event("gen_ai.user.message", said(&["content", "whatever"])),
            event("gen_ai.content.prompt", vec![pair("gen_ai.prompt", nested())]),
            event("exception", said(&["exception.message", "exception.stacktrace"])),
        ],
        links: vec![Link {
            trace_id: vec![99; 16],
            span_id: vec![99; 8],
            attributes: said(&["input.value", "gen_ai.output.messages"]),
            ..Link::default()
        }],
        status: Some(Status {
            message: format!("ValidationError: got '{CANARY}'"),
            code: 2,
        }),
        ..Span::default()
    };
    let resource = Some(Resource {
        attributes: vec![pair("service.name", text(service)), pair("input.value", text(CANARY))],
        ..Resource::default()
    });
    let scope_spans = vec![ScopeSpans {
        spans: vec![span],
        ..ScopeSpans::default()
    }];
    let resource_spans = vec![ResourceSpans {
        resource,
        scope_spans,
        ..ResourceSpans::default()
    }];
    Request {
        signal: Signal::Traces,
        body: ExportTraceServiceRequest { resource_spans }.encode_to_vec().into(),
    }
}

/// Messages as log records, as OpenTelemetry's clients send them.
fn messages_in_logs() -> Request {
    let record = |event: &str| LogRecord {
        time_unix_nano: 1_800_000_000_000_000_100,
        trace_id: vec![1; 16],
        span_id: vec![1; 8],
        event_name: event.to_owned(),
        body: Some(nested()),
        attributes: said(&["gen_ai.prompt", "content"]),
        ..LogRecord::default()
    };
    let log_records = ["gen_ai.user.message", "gen_ai.choice", ""].map(record).to_vec();
    let scope_logs = vec![ScopeLogs {
        log_records,
        ..ScopeLogs::default()
    }];
    let resource_logs = vec![ResourceLogs {
        scope_logs,
        ..ResourceLogs::default()
    }];
    Request {
        signal: Signal::Logs,
        body: ExportLogsServiceRequest { resource_logs }.encode_to_vec().into(),
    }
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries
        .flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] })
        .collect()
}

/// Every text of one cell, however deep.
fn texts(column: &dyn Array, row: usize, out: &mut Vec<String>) {
    if column.is_null(row) {
        return;
    }
    let all = |inner: &dyn Array, out: &mut Vec<String>| (0..inner.len()).for_each(|row| texts(inner, row, out));
    match column.data_type() {
        DataType::Utf8 => out.push(column.as_string::<i32>().value(row).to_owned()),
        DataType::Utf8View => out.push(column.as_string_view().value(row).to_owned()),
        DataType::Dictionary(_, _) => {
            let words = column.as_dictionary::<Int32Type>();
            texts(words.values(), words.key(row).unwrap(), out);
        }
        DataType::Struct(_) => column
            .as_struct()
            .columns()
            .iter()
            .for_each(|inner| texts(inner, row, out)),
        DataType::List(_) => all(&column.as_list::<i32>().value(row), out),
        DataType::Map(_, _) => all(&column.as_map().value(row), out),
        DataType::Boolean | DataType::Timestamp(_, _) | DataType::Decimal128(_, _) => {}
        number => assert!(number.is_numeric(), "a column of {number} may hold text"),
    }
}

/// Spans whose rows, read back from disk, have the canary in some cell; and whether any bytes on disk have it.
struct Seen {
    /// With one of their cells, and the one before it: an attribute's key.
    spans: BTreeMap<String, String>,
    hashes: usize,
    in_bytes: bool,
}

fn look(bench: &Bench, traces: &[String]) -> Seen {
    let values = traces.iter().cloned().collect();
    let mut seen = Seen {
        spans: BTreeMap::new(),
        hashes: 0,
        in_bytes: false,
    };
    for table in [Table::Spans, Table::Evals, Table::Traces] {
        let search = Search {
            table,
            column: IdColumn::Trace,
            values: &values,
            columns: None,
            rows_max: usize::MAX,
        };
        for found in find(bench.folder(), &bench.snapshot(), &search).unwrap().found {
            for row in 0..found.rows.num_rows() {
                let mut cells = Vec::new();
                found
                    .rows
                    .columns()
                    .iter()
                    .for_each(|column| texts(column, row, &mut cells));
                seen.hashes += cells.iter().filter(|text| text.starts_with("sha256:")).count();
                if let Some(at) = cells.iter().position(|text| text.contains(CANARY)) {
                    seen.spans.insert(cells[..2].join("/"), cells[at - 1..=at].join(": "));
                }
            }
        }
    }
    seen.in_bytes = files(bench.folder()).iter().any(|file| {
        let bytes = fs::read(file).unwrap();
        bytes.windows(CANARY.len()).any(|window| window == CANARY.as_bytes())
    });
    seen
}

/// Sends the requests, and looks first at what the journal gives back and then at what was sealed.
fn written(requests: &[Request], content: ContentConfig) -> [Seen; 2] {
    let mut bench = Bench::reading(ReadConfig {
        content,
        ..ReadConfig::default()
    });
    let mut traces = BTreeSet::new();
    for request in requests {
        bench.send(request);
        if request.signal == Signal::Traces {
            let body = ExportTraceServiceRequest::decode(request.body.clone()).unwrap();
            let scopes = body
                .resource_spans
                .into_iter()
                .flat_map(|of_resource| of_resource.scope_spans);
            traces.extend(
                scopes
                    .flat_map(|scope| scope.spans)
                    .map(|span| hex::encode(span.trace_id)),
            );
        }
    }
    let traces: Vec<String> = traces.into_iter().collect();
    bench.reopen();
    let journaled = look(&bench, &traces);
    bench.seal();
    bench.reopen();
    [journaled, look(&bench, &traces)]
}

#[test]
fn a_canary_in_every_captured_dialect_is_found_under_keep_alone() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../testdata/captures");
    let clients = fs::read_dir(root).unwrap().map(|client| client.unwrap().path());
    let mut talked = 0;
    for client in clients.filter(|path| path.is_dir()) {
        let (requests, planted) = captured(&client);
        talked += usize::from(planted > 0);
        if requests.is_empty() {
            continue;
        }
        for policy in [ContentPolicy::Drop, ContentPolicy::Hash, ContentPolicy::Keep] {
            for seen in written(&requests, policy.into()) {
                let what = format!("{} under {policy:?}: {:?}", client.display(), seen.spans);
                match policy {
                    ContentPolicy::Keep => assert_eq!(seen.spans.len(), planted, "{what}"),
                    _ => assert!(seen.spans.is_empty() && !seen.in_bytes, "{what}"),
                }
                // the version of unstamped tools is a hash under any policy
                assert!(
                    seen.hashes > 0 || policy != ContentPolicy::Hash || planted == 0,
                    "{what}"
                );
            }
        }
    }
    assert!(talked >= 9, "{talked} clients said anything");
}

#[test]
fn a_canary_in_prompts_events_links_logs_and_errors_is_found_under_keep_alone() {
    let requests = [talkative("front", Some("chat"), 1), messages_in_logs()];
    for policy in [ContentPolicy::Drop, ContentPolicy::Hash] {
        for seen in written(&requests, policy.into()) {
            assert!(seen.spans.is_empty() && !seen.in_bytes, "{policy:?}");
        }
    }
    for seen in written(&requests, ContentPolicy::Keep.into()) {
        assert_eq!(seen.spans.len(), 1);
    }
}

#[test]
fn content_is_kept_by_service_and_route_and_the_strictest_holds_while_they_are_unknown() {
    let rule = |service: &str, route: Option<&str>, policy| ContentRule {
        service: Some(service.to_owned()),
        route: route.map(str::to_owned),
        policy,
    };
    let content = ContentConfig {
        policy: ContentPolicy::Drop,
        rules: vec![
            rule("front", Some("billing"), ContentPolicy::Drop),
            rule("front", None, ContentPolicy::Keep),
        ],
        error_text: None,
    };
    let requests = [
        talkative("front", Some("chat"), 1),
        talkative("front", Some("billing"), 2),
        talkative("front", None, 3),
        talkative("back", Some("chat"), 4),
    ];
    for seen in written(&requests, content) {
        let ids: Vec<&str> = seen.spans.keys().map(|span| &span[..2]).collect();
        assert_eq!(ids, ["01"], "only a known route of that service is kept");
    }
}
