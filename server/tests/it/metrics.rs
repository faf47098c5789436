//! What metric views count of rows is what cells hold: traces drawn at random with everything a gateway may send, and
//! what real clients sent, through a whole instance, live and from files.
//!
//! `METRICS_SEED=n` draws other traces.

use crate::{
    captures::{
        message::{self, Message},
        truth,
        wire::{Doors, Parcel, Way},
    },
    otlp::{client, eventually, sql},
};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    common::v1::{AnyValue, InstrumentationScope, KeyValue, any_value::Value},
    resource::v1::Resource,
    trace::v1::{ResourceSpans, ScopeSpans, Span, Status, span::SpanKind, status::StatusCode},
};
use proto::{Nanos, clock::Clock};
use query::metrics::METRICS;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Value as Json, json};
use server::{config::Config, wall_clock, wire::App};
use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, Instant},
};

const TRACES: u64 = 240;
const MS: u64 = 1_000_000;
/// Longest wait until everything is counted.
const WITHIN: Duration = Duration::from_secs(60);

fn pair(key: &str, value: Value) -> KeyValue {
    KeyValue {
        key: key.to_owned(),
        value: Some(AnyValue { value: Some(value) }),
        ..KeyValue::default()
    }
}

fn text(key: &str, value: impl Into<String>) -> KeyValue {
    pair(key, Value::StringValue(value.into()))
}

fn int(key: &str, value: i64) -> KeyValue {
    pair(key, Value::IntValue(value))
}

fn flag(key: &str, value: bool) -> KeyValue {
    pair(key, Value::BoolValue(value))
}

/// Writes the spans of one trace.
struct Writer<'a> {
    rng: &'a mut ChaCha8Rng,
    n: u64,
    spans: u64,
    start: u64,
    out: Vec<Span>,
    /// The same calls, recorded by another library.
    again: Vec<Span>,
}

impl Writer<'_> {
    fn chance(&mut self, share: f64) -> bool {
        self.rng.random_bool(share)
    }

    fn of<T: Copy>(&mut self, values: &[T]) -> T {
        values[self.rng.random_range(0..values.len())]
    }

    fn trace_id(&self) -> u128 {
        u128::from(self.n) + (7 << 100)
    }

    fn span(&mut self, parent: Option<u64>, kind: SpanKind, attributes: Vec<KeyValue>, failed: bool) -> u64 {
        self.spans += 1;
        let id = self.n * 1_000 + self.spans;
        let start = self.start + self.rng.random_range(1..50) * MS;
        self.out.push(Span {
            trace_id: self.trace_id().to_be_bytes().to_vec(),
            span_id: id.to_be_bytes().to_vec(),
            parent_span_id: parent.map_or_else(Vec::new, |id| id.to_be_bytes().to_vec()),
            name: "work".to_owned(),
            kind: kind as i32,
            start_time_unix_nano: start,
            end_time_unix_nano: start + self.rng.random_range(1..400_000) * 1_000,
            attributes,
            status: Some(Status {
                code: if failed { StatusCode::Error as i32 } else { 0 },
                ..Status::default()
            }),
            ..Span::default()
        });
        id
    }

    fn call(&mut self, parent: u64, stamps: &[KeyValue]) -> u64 {
        let model = self.of(&["gpt-4o-mini", "gpt-4o-mini", "nobody-knows-its-price"]);
        let mut attributes = stamps.to_vec();
        attributes.extend([
            text("gen_ai.operation.name", "chat"),
            text("gen_ai.provider.name", "openai"),
            text("gen_ai.request.model", model),
            text("gen_ai.response.id", format!("r{}-{}", self.n, self.spans)),
        ]);
        if self.chance(0.8) {
            attributes.push(int("gen_ai.usage.input_tokens", self.rng.random_range(1..3_000)));
            attributes.push(int("gen_ai.usage.output_tokens", self.rng.random_range(1..300)));
        }
        if self.chance(0.5) {
            let seconds = f64::from(self.rng.random_range(1_u32..900_000)) / 1e6;
            attributes.push(pair("gen_ai.response.time_to_first_chunk", Value::DoubleValue(seconds)));
        }
        let failed = self.chance(0.3);
        if failed && self.chance(0.5) {
            attributes.push(int("http.response.status_code", self.of(&[429, 500, 504])));
        }
        if !failed && self.chance(0.7) {
            attributes.extend(self.answer());
        }
        let id = self.span(Some(parent), SpanKind::Client, attributes, failed);
        if self.chance(0.2)
            && let Some(call) = self.out.last()
        {
            let mut again = call.clone();
            again.parent_span_id = std::mem::take(&mut again.span_id);
            again.span_id = (id + 500).to_be_bytes().to_vec();
            self.again.push(again);
        }
        id
    }

    /// An answer of the kind that the route promises or not, or a tool call that its schema takes or not.
    fn answer(&mut self) -> Vec<KeyValue> {
        let good = self.chance(0.6);
        let message = if self.chance(0.5) {
            let said = if good {
                json!({ "ok": true }).to_string()
            } else {
                "sorry".to_owned()
            };
            json!([{ "role": "assistant", "parts": [{ "type": "text", "content": said }] }])
        } else {
            let id = if good { json!(4711) } else { json!("4711") };
            let call = json!({ "type": "tool_call", "id": "c", "name": "get_order", "arguments": { "order_id": id } });
            json!([{ "role": "assistant", "parts": [call] }])
        };
        let tools = json!([{ "type": "function", "name": "get_order", "parameters": {
            "type": "object", "properties": { "order_id": { "type": "integer" } }, "required": ["order_id"],
        } }]);
        vec![
            text("gen_ai.tool.definitions", tools.to_string()),
            text("gen_ai.output.messages", message.to_string()),
        ]
    }

    /// What a gateway says of the request on its server span.
    fn stamps(&mut self, green: bool) -> Vec<KeyValue> {
        let (color, version) = if green { ("green", "8") } else { ("blue", "7") };
        let mut stamps = vec![text("gateway.route.name", "chat")];
        if self.chance(0.9) {
            if self.chance(0.9) {
                stamps.push(text("gateway.route.version", version));
            }
            let stamped = if self.chance(0.08) { "green" } else { color };
            stamps.push(text("gateway.route.color", stamped));
        }
        if self.chance(0.6) {
            stamps.push(text("customer.tier", self.of(&["free", "pro", "it's \"big\""])));
        }
        if self.chance(0.3) {
            stamps.push(pair("gateway.route.split", Value::DoubleValue(self.of(&[0.25, 0.5]))));
        }
        if self.chance(0.7) {
            stamps.push(text("session.id", format!("s{}", self.rng.random_range(0..60))));
        }
        if self.chance(0.5) {
            stamps.push(int("gateway.retry.count", self.of(&[0, 0, 1, 2])));
            stamps.push(flag("gateway.fallback", self.rng.random_bool(0.3)));
            stamps.push(flag("gateway.cache.hit", self.rng.random_bool(0.3)));
        }
        stamps
    }
}

/// The `n`th trace; some are a failed try and its fallback, which share a request id with the trace before.
fn drawn(rng: &mut ChaCha8Rng, n: u64, base: u64) -> Writer<'_> {
    let start = base + n * 200 * MS;
    let mut it = Writer {
        rng,
        n,
        spans: 0,
        start,
        out: Vec::new(),
        again: Vec::new(),
    };
    let green = it.chance(0.5);
    let mut stamps = it.stamps(green);
    let shadow = it.chance(0.15);
    if shadow || it.chance(0.1) {
        stamps.push(text("gateway.mirror.key", format!("m{}", it.rng.random_range(0..30))));
    }
    if shadow {
        stamps.push(flag("gateway.mirror.shadow", true));
    }
    let retried = n % 10 < 2;
    if retried {
        stamps.push(text("gateway.request.id", format!("q{}", n / 10)));
    }
    let failed = if retried { n.is_multiple_of(10) } else { it.chance(0.2) };
    if failed && it.chance(0.4) {
        stamps.push(int("http.response.status_code", 504));
    }
    let root = it.span(None, SpanKind::Server, stamps, failed);
    if it.chance(0.4) {
        it.out[0].trace_state = it.of(&["ot=th:8", "ot=th:0"]).to_owned();
    }
    for _ in 0..it.rng.random_range(0..4) {
        let color = it.of(&["blue", "green"]);
        let stamps: &[KeyValue] = &[text("gateway.route.color", color)];
        let own = if it.chance(0.2) { stamps } else { &[] };
        it.call(root, own);
    }
    if it.chance(0.2) {
        let other = if green { "blue" } else { "green" };
        it.call(
            root,
            &[flag("gateway.mirror.shadow", true), text("gateway.route.color", other)],
        );
    }
    if it.chance(0.1) {
        let mirror = it.span(
            Some(root),
            SpanKind::Internal,
            vec![flag("gateway.mirror.shadow", true)],
            false,
        );
        it.call(mirror, &[]);
    }
    if it.chance(0.2) {
        let judge = vec![text("openinference.span.kind", "EVALUATOR")];
        let judge = it.span(Some(root), SpanKind::Internal, judge, false);
        it.call(judge, &[]);
    }
    if it.chance(0.4) {
        let tool = vec![
            text("gen_ai.operation.name", "execute_tool"),
            text("gen_ai.tool.name", "get_order"),
        ];
        let failed = it.chance(0.4);
        it.span(Some(root), SpanKind::Internal, tool, failed);
    }
    if it.chance(0.4) {
        let result = it.of(&["blocked", "allow"]);
        let guardrail = vec![
            text("gen_ai.guardrail.name", "g"),
            text("gen_ai.guardrail.result", result),
        ];
        it.span(Some(root), SpanKind::Internal, guardrail, false);
    }
    it
}

fn request(it: Writer<'_>) -> Message {
    let scope = |name: &str, spans| ScopeSpans {
        scope: Some(InstrumentationScope {
            name: name.to_owned(),
            ..InstrumentationScope::default()
        }),
        spans,
        ..ScopeSpans::default()
    };
    Message::Traces(ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            resource: Some(Resource {
                attributes: vec![text("service.name", "gateway")],
                ..Resource::default()
            }),
            scope_spans: vec![scope("one", it.out), scope("another", it.again)],
            ..ResourceSpans::default()
        }],
    })
}

/// Evaluations and feedback of some traces, about the trace or any of its spans.
fn judged(rng: &mut ChaCha8Rng) -> (Vec<Json>, Vec<Json>) {
    let (mut evals, mut feedback) = (Vec::new(), Vec::new());
    for n in 0..TRACES {
        let trace = format!("{:032x}", u128::from(n) + (7 << 100));
        for _ in 0..rng.random_range(0..3) {
            let name = ["TaskCompletion", "groundedness"][rng.random_range(0..2)];
            let mut eval = json!({ "trace_id": trace, "name": name, "passed": rng.random_bool(0.6),
                                   "identifier": rng.random_range(0..1_000_000).to_string() });
            if rng.random_bool(0.6) {
                eval["span_id"] = json!(format!("{:016x}", n * 1_000 + rng.random_range(1..8)));
            }
            evals.push(eval);
        }
        if rng.random_bool(0.4) {
            let name = ["thumbs_down", "thumbs_up", "escalation", "abandoned", "override"][rng.random_range(0..5)];
            feedback.push(json!({ "trace_id": trace, "name": name }));
        }
    }
    (evals, feedback)
}

async fn post(api: SocketAddr, path: &str, body: &[Json]) {
    let sent = client().post(format!("http://{api}/api/v1/{path}")).json(body).send();
    let answer = sent.await.unwrap();
    assert_eq!(answer.status(), 200, "{}", answer.text().await.unwrap());
}

/// The wall clock, ahead by as much as a test says.
fn ahead(by: &Arc<AtomicI64>) -> Clock {
    let (by, wall) = (Arc::clone(by), wall_clock());
    Arc::new(move || Nanos(wall().0 + by.load(Ordering::SeqCst)))
}

async fn start(dir: &Path, clock: Clock) -> App {
    const SCHEMA: &str = r#"[[json_schema]]
route = "chat"
schema = '''{"type": "object", "required": ["ok"]}'''
"#;
    let file = dir.join("tracegate.toml");
    let server = format!(
        "[server]\ndata_dir = {:?}\notlp_grpc = \"127.0.0.1:0\"\notlp_http = \"127.0.0.1:0\"\nhttp = \"127.0.0.1:0\"\n\n",
        dir.join("data")
    );
    let release = include_str!("release.toml").replace("mode = \"act\"", "mode = \"observe\"");
    fs::write(&file, format!("{server}{SCHEMA}{release}")).unwrap();
    App::start(Config::load(&file).unwrap(), clock).await.unwrap()
}

type Counts = BTreeMap<String, [i64; 3]>;

async fn counts(api: SocketAddr, question: &str) -> Counts {
    let rows = sql(&client(), api, question).await;
    let row = |row: &Json| {
        let row = row.as_array().unwrap();
        let (key, numbers) = row.split_at(row.len() - 3);
        let numbers: Vec<i64> = numbers.iter().map(|n| n.as_i64().unwrap()).collect();
        (json!(key).to_string(), numbers.try_into().unwrap())
    };
    rows.as_array().unwrap().iter().map(row).collect()
}

/// Holds every view against the cells; `told` says where the rows lie.
async fn check(api: SocketAddr, told: &str) {
    const KEY: &str = "route, release, color, cohort, split";
    for metric in METRICS.iter().filter(|metric| metric.name != "session_same") {
        let (is_amount, grain) = (metric.unit != "event", metric.grain.as_str());
        let (name, of) = match metric.name {
            "eval_fail" => (
                "concat('eval_fail:', evaluator)".to_owned(),
                "metric LIKE 'eval_fail:%'".to_owned(),
            ),
            plain => (format!("'{plain}'"), format!("metric = '{plain}'")),
        };
        let sums = if is_amount {
            "0, sum(value_units)"
        } else {
            "count(*) FILTER (WHERE event), 0"
        };
        let rows = format!(
            "SELECT {name} AS metric, {KEY}, count(*), {sums} FROM {} GROUP BY 1, 2, 3, 4, 5, 6",
            metric.view
        );
        let cells = format!(
            "SELECT metric, {KEY}, sum(n), sum(events), sum(sum) FROM cells WHERE admitted AND grain = '{grain}' AND {of}
             GROUP BY 1, 2, 3, 4, 5, 6 HAVING sum(n) <> 0"
        );
        // Two questions are two moments: the last traces may close between them.
        let begun = Instant::now();
        let of_cells = loop {
            let (of_rows, of_cells) = (counts(api, &rows).await, counts(api, &cells).await);
            if of_rows == of_cells {
                break of_cells;
            }
            assert!(
                begun.elapsed() < WITHIN,
                "{} of rows {of_rows:?}, of cells {of_cells:?}; {told}",
                metric.name
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        };
        let n: i64 = of_cells.values().map(|[n, ..]| n).sum();
        let events: i64 = of_cells.values().map(|[_, events, _]| events).sum();
        let is_told = is_amount || metric.name == "traces" || (events > 0 && events < n);
        assert!(n > 20 && is_told, "{}: {events} of {n}, {told}", metric.name);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn views_count_what_cells_hold_live_and_from_files() {
    let seed = std::env::var("METRICS_SEED").map_or(3, |seed| seed.parse().unwrap());
    eprintln!("METRICS_SEED={seed}");
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let by = Arc::new(AtomicI64::new(0));
    let dir = tempfile::tempdir().unwrap();
    let app = start(dir.path(), ahead(&by)).await;
    let at = app.addresses;
    let doors = Doors::new(at.otlp_grpc, at.otlp_http, at.http);
    let way = Way::all()[0];
    // The release is in force from now on.
    let base = u64::try_from(wall_clock()().0).unwrap() + 1_000 * MS;
    by.store(70_000_000_000, Ordering::SeqCst);
    for n in 0..TRACES {
        let message = request(drawn(&mut rng, n, base));
        Parcel::new(&message, way, false).send(&doors).await.unwrap();
    }
    for message in message::all() {
        Parcel::new(&message, way, false).send(&doors).await.unwrap();
    }
    let (evals, feedback) = judged(&mut rng);
    post(at.http, "evals", &evals).await;
    post(at.http, "feedback", &feedback).await;
    // Everything is old enough to close and to count.
    by.store(600_000_000_000, Ordering::SeqCst);
    truth::closed(&doors, usize::try_from(TRACES).unwrap()).await;
    let waiting = "SELECT count(*) FROM cells WHERE NOT admitted";
    eventually(&client(), at.http, waiting, json!([[0]]), WITHIN).await;
    // What makes rows and cells differ at first sight is all there.
    let odd = "SELECT count(*) FILTER (WHERE superseded) > 5, count(*) FILTER (WHERE shadow) > 5,
                      count(*) FILTER (WHERE shadow_cost_usd > 0 AND NOT shadow) > 5,
                      count(*) FILTER (WHERE color_conflict) > 2, count(*) FILTER (WHERE split = 0.25) > 5,
                      (SELECT count(repeats_span_id) > 5 FROM spans), count(DISTINCT color) = 3 FROM traces";
    let all = json!([[true, true, true, true, true, true, true]]);
    assert_eq!(sql(&client(), at.http, odd).await, all);
    check(at.http, "live").await;
    app.shutdown().await.unwrap();
    let app = start(dir.path(), ahead(&by)).await;
    check(app.addresses.http, "from files").await;
    app.shutdown().await.unwrap();
}
