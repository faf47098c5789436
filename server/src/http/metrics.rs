//! `GET /metrics`: what is counted, as Prometheus reads it. Everything is read when asked; nothing is counted twice.

mod runtime;
mod upkeep;

use super::Api;
use crate::config::Reloads;
use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use gates::{
    desk::{DeskEvent, DeskHandle},
    ledger::DeliveryState,
};
use http::header;
use ingest::{
    door::Door,
    pipeline::{Counters, Durations},
    read::Reject,
};
use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric, text},
    metrics::{
        MetricType,
        counter::{ConstCounter, Counter},
        family::Family,
        gauge::ConstGauge,
    },
    registry::Registry,
};
use std::{
    fmt,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};
use tokio::sync::broadcast::{self, error::RecvError};
use tokio_util::sync::CancellationToken;

/// Media type of the page.
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
/// Microseconds of a second.
const US: f64 = 1e6;
/// Shortest edge of a histogram, us.
const EDGE_US_MIN: u64 = 64;

/// Counts by one word.
type ByWord = Family<[(&'static str, &'static str); 1], Counter>;

/// Where the figures of the page come from.
#[derive(Clone)]
pub struct Watched {
    /// Doors.
    pub door: Arc<Door>,
    /// Lane, journal, engine, seals.
    pub pipeline: Arc<Counters>,
    /// Releases.
    pub desk: DeskHandle,
    /// How reloading went.
    pub reloads: Arc<Reloads>,
    /// Folder of the journal.
    pub journal: PathBuf,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Watched")
    }
}

/// The page.
pub struct Metrics {
    registry: Registry,
    decisions: ByWord,
    attempts: ByWord,
}

impl Metrics {
    /// Reads from these whenever the page is asked for.
    #[must_use]
    pub fn new(watched: Watched) -> Self {
        let mut root = Registry::default();
        root.register_collector(Box::new(runtime::Process));
        let registry = root.sub_registry_with_prefix("tracegate");
        registry.register_collector(Box::new(Ingest {
            door: Arc::clone(&watched.door),
            pipeline: Arc::clone(&watched.pipeline),
        }));
        registry.register_collector(Box::new(Desk(watched.desk.clone())));
        registry.register_collector(Box::new(runtime::Runtime(watched)));
        let (decisions, attempts) = (ByWord::default(), ByWord::default());
        registry.register("decisions", "decisions since start", decisions.clone());
        registry.register(
            "delivery_attempts",
            "attempts to deliver a notice since start",
            attempts.clone(),
        );
        Self {
            registry: root,
            decisions,
            attempts,
        }
    }

    /// Counts what happens at the desk, until `stop`.
    pub fn count_events(
        &self,
        mut events: broadcast::Receiver<DeskEvent>,
        stop: CancellationToken,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (decisions, attempts) = (self.decisions.clone(), self.attempts.clone());
        async move {
            loop {
                let event = tokio::select! {
                    () = stop.cancelled() => return,
                    event = events.recv() => event,
                };
                match event {
                    Ok(DeskEvent::Decided(decision)) => {
                        decisions.get_or_create(&[("action", decision.action.as_str())]).inc();
                    }
                    Ok(DeskEvent::Delivered(row)) => {
                        let outcome = if row.state == DeliveryState::Delivered {
                            "accepted"
                        } else {
                            "failed"
                        };
                        attempts.get_or_create(&[("outcome", outcome)]).inc();
                    }
                    Ok(DeskEvent::Judged(_)) | Err(RecvError::Lagged(_)) => {}
                    Err(RecvError::Closed) => return,
                }
            }
        }
    }
}

pub(super) async fn page(State(api): State<Arc<Api>>) -> Response {
    let mut page = String::new();
    match text::encode(&mut page, &api.metrics.registry) {
        Ok(()) => ([(header::CONTENT_TYPE, OPEN_METRICS)], page).into_response(),
        Err(error) => super::ApiError::new(http::StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

/// Releases.
struct Desk(DeskHandle);

impl fmt::Debug for Desk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Desk")
    }
}

impl Collector for Desk {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        let releases = self.0.releases();
        let running = releases.iter().filter(|release| !release.phase.is_over()).count();
        gauge(
            &mut out,
            "releases_running",
            "releases that are not over",
            running as u64,
        )?;
        let violations = self.0.violations();
        let mut broken = out.encode_descriptor(
            "invariant_violations",
            "how often an invariant of a release's life was found broken; anything but 0 is a fault in tracegate",
            None,
            MetricType::Counter,
        )?;
        for (id, count) in &violations {
            let labels = [("invariant", *id)];
            ConstCounter::new(*count).encode(broken.encode_family(&labels)?)?;
        }
        self.aging(&mut out)?;
        let judged = self
            .0
            .last_judged()
            .map_or(0, |at| u64::try_from(at.unix_ms() / 1_000).unwrap_or(0));
        gauge(
            &mut out,
            "last_judged_timestamp_seconds",
            "when anything was last judged; 0 if never",
            judged,
        )
    }
}

/// Doors and pipeline.
#[derive(Debug)]
struct Ingest {
    door: Arc<Door>,
    pipeline: Arc<Counters>,
}

impl Collector for Ingest {
    fn encode(&self, mut out: DescriptorEncoder<'_>) -> fmt::Result {
        self.doors(&mut out)?;
        self.lane(&mut out)?;
        self.assembly(&mut out)?;
        self.disk(&mut out)?;
        self.upkeep(&mut out)
    }
}

impl Ingest {
    fn doors(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let door = self.door.counters();
        let requests = [("grpc", get(&door.grpc_requests)), ("http", get(&door.http_requests))];
        family(out, "requests", "export requests that came", "transport", &requests)?;
        family(
            out,
            "requests_refused",
            "export requests refused",
            "cause",
            &door.refused(),
        )?;
        counter(
            out,
            "requests_shed",
            "export requests refused that may be sent again",
            get(&door.shed_requests),
        )?;
        counter(
            out,
            "requests_metrics",
            "metrics requests, taken and not stored",
            get(&door.metrics_requests),
        )?;
        counter(
            out,
            "received_bytes",
            "message bytes after decompression",
            get(&door.bytes),
        )?;
        counter(out, "connections", "connections accepted", get(&door.connections))?;
        counter(
            out,
            "connections_refused",
            "connections closed for want of room",
            get(&door.connections_refused),
        )?;
        gauge(
            out,
            "inflight_bytes",
            "bytes that requests hold now",
            self.door.budget_bytes_used() as u64,
        )
    }

    fn lane(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let lane = &self.pipeline;
        counter(
            out,
            "accepted",
            "spans and log records acknowledged",
            get(&lane.accepted),
        )?;
        counter(
            out,
            "rejected",
            "spans and log records rejected alone",
            get(&lane.rejected),
        )?;
        counter(
            out,
            "requests_acked",
            "requests acknowledged",
            get(&lane.requests_acked),
        )?;
        counter(
            out,
            "requests_duplicate",
            "requests that had come before",
            get(&lane.requests_duplicate),
        )?;
        counter(
            out,
            "requests_malformed",
            "requests that were no readable OTLP",
            get(&lane.requests_malformed),
        )?;
        counter(
            out,
            "requests_unwritten",
            "requests the journal could not take",
            get(&lane.requests_refused),
        )?;
        let read = lane.reading();
        family(
            out,
            "left_out",
            "values and attributes that rows are without, or that contradict others, by reason",
            "reason",
            &read.left_out(),
        )?;
        let rejected = Reject::ALL.map(|why| (why.name(), read.rejected[why as usize]));
        family(
            out,
            "rejected_by_reason",
            "spans and evaluations rejected alone, by reason",
            "reason",
            &rejected,
        )?;
        family(
            out,
            "unpriced_calls",
            "calls that used tokens of a model without a price; see `tracegate prices unpriced`",
            "model",
            &read.unpriced.by_model(),
        )?;
        counter(
            out,
            "answers_unchecked",
            "answers too long to be checked against a schema",
            read.answers_unchecked,
        )?;
        counter(
            out,
            "tool_calls_unchecked",
            "tool calls that could not be checked against their definitions",
            read.tool_calls_unchecked,
        )
    }

    fn assembly(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let traces = self.pipeline.assembly();
        gauge(out, "traces_open", "traces that are open", traces.open)?;
        gauge(
            out,
            "traces_recent",
            "closed traces that can still change",
            traces.recent,
        )?;
        gauge(out, "traces_bytes", "estimated memory of both", traces.bytes)?;
        counter(out, "traces_closed", "traces closed", traces.closed)?;
        counter(
            out,
            "traces_evicted",
            "traces closed early for want of room",
            traces.evicted,
        )?;
        counter(
            out,
            "traces_changed_late",
            "changes of closed traces",
            traces.changed_late,
        )?;
        counter(
            out,
            "spans_duplicate",
            "span rows that had come before",
            traces.duplicate_spans,
        )?;
        counter(
            out,
            "spans_over_limit",
            "spans beyond the limit of their trace",
            traces.spans_over_limit,
        )?;
        counter(
            out,
            "evals_duplicate",
            "evaluations that had come before",
            traces.duplicate_evals,
        )?;
        counter(
            out,
            "evals_unplaced",
            "evaluations whose trace never came",
            traces.evals_unplaced,
        )?;
        counter(
            out,
            "traces_closed_at_deadline",
            "traces closed because they had been open for too long",
            traces.closed_at_deadline,
        )?;
        counter(
            out,
            "traces_closed_quiet",
            "traces closed without their root, because nothing came for long",
            traces.closed_quiet,
        )?;
        gauge(
            out,
            "evals_pending",
            "evaluations that wait for their trace",
            traces.evals_pending,
        )?;
        gauge(
            out,
            "late_traces_wanted",
            "forgotten traces that are being looked up",
            traces.late_wanted,
        )?;
        counter(
            out,
            "late_traces_revived",
            "forgotten traces that late rows brought back from files",
            traces.revived,
        )?;
        counter(
            out,
            "late_traces_refused",
            "forgotten traces whose late rows have no effect on cells",
            traces.revive_refused,
        )?;
        counter(
            out,
            "late_over_limit",
            "late spans and forgotten traces beyond the limits",
            traces.late_over_limit,
        )?;
        counter(
            out,
            "lookup_failures",
            "look-ups of late rows that failed because a file could not be read",
            get(&self.pipeline.lookup_failures),
        )?;
        durations(
            out,
            "lookup_seconds",
            "time of a look-up of late rows",
            &self.pipeline.lookup_time,
        )
    }

    fn disk(&self, out: &mut DescriptorEncoder<'_>) -> fmt::Result {
        let disk = &self.pipeline;
        counter(out, "journal_records", "journal records written", get(&disk.groups))?;
        counter(
            out,
            "journal_bytes",
            "bytes written to the journal",
            get(&disk.journal_bytes),
        )?;
        durations(
            out,
            "journal_sync_seconds",
            "append and fdatasync of a journal record",
            &disk.journal_time,
        )?;
        gauge(
            out,
            "durable_lsn",
            "last journal record on disk",
            get(&disk.durable_lsn),
        )?;
        gauge(
            out,
            "visible_lsn",
            "last journal record that queries see",
            get(&disk.published_lsn),
        )?;
        gauge(
            out,
            "sealed_lsn",
            "last journal record in Parquet",
            get(&disk.sealed_lsn),
        )?;
        gauge(out, "live_rows", "rows not yet in Parquet", get(&disk.live_rows))?;
        counter(out, "snapshots", "snapshots published", get(&disk.publications))?;
        counter(out, "seals", "seals done", get(&disk.seals))?;
        counter(
            out,
            "seal_failures",
            "seals that failed and were put off",
            get(&disk.seal_failures),
        )?;
        durations(out, "seal_seconds", "time of a seal", &disk.seal_time)
    }
}

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

fn counter(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let value = ConstCounter::new(value);
    value.encode(out.encode_descriptor(name, help, None, value.metric_type())?)
}

fn gauge(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, value: u64) -> fmt::Result {
    let value = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    value.encode(out.encode_descriptor(name, help, None, value.metric_type())?)
}

fn family(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, label: &str, values: &[(&str, u64)]) -> fmt::Result {
    let mut family = out.encode_descriptor(name, help, None, MetricType::Counter)?;
    for &(word, value) in values {
        ConstCounter::new(value).encode(family.encode_family(&[(label, word)])?)?;
    }
    Ok(())
}

/// As a histogram in seconds.
fn durations(out: &mut DescriptorEncoder<'_>, name: &str, help: &str, durations: &Durations) -> fmt::Result {
    let (n, sum_us) = durations.total();
    let mut edges: Vec<(f64, u64)> = Vec::new();
    let mut short = 0;
    for (us, count) in durations.buckets() {
        // Nothing written to a disk is faster: those edges would only make the page longer.
        if us < EDGE_US_MIN {
            short += count;
        } else {
            edges.push((us as f64 / US, count + std::mem::take(&mut short)));
        }
    }
    if let Some(last) = edges.last_mut() {
        last.0 = f64::INFINITY;
    }
    let mut encoder = out.encode_descriptor(name, help, None, MetricType::Histogram)?;
    encoder.encode_histogram::<prometheus_client::encoding::NoLabelSet>(sum_us as f64 / US, n, &edges, None)
}
