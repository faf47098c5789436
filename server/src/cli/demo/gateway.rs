//! The simulated gateway: serves a route with two paths, exports its traces, and moves the route when a signed notice
//! says so. It knows tracegate only by two addresses and a shared secret, as a real one would.

use super::{
    spans::{Served, export_evaluations, export_spans},
    traffic::{Regression, Traffic, Visit},
};
use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    routing::post,
};
use opentelemetry_proto::tonic::collector::{
    logs::v1::logs_service_client::LogsServiceClient, trace::v1::trace_service_client::TraceServiceClient,
};
use proto::{Color, Nanos, cell::PPM, clock::Clock, decision::WebhookBody, signature};
use std::{
    cmp::Reverse,
    collections::BinaryHeap,
    net::SocketAddr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};
use tokio::{net::TcpListener, sync::mpsc, time::MissedTickBehavior};
use tokio_util::{sync::CancellationToken, task::TaskTracker};
use tonic::transport::{Channel, Endpoint};

/// Path of the receiver.
const HOOK_PATH: &str = "/hooks/tracegate";
/// How often finished requests are exported, ms.
const EXPORT_EVERY_MS: u64 = 100;
/// The evaluator answers this long after the request, ms.
const EVALUATION_DELAY_MS: u64 = 250;
/// Attempts at one export before its spans are given up.
const EXPORT_ATTEMPTS_MAX: u32 = 5;
/// Export batches waiting for the exporter.
const EXPORT_QUEUE_MAX: usize = 64;

/// A notice that arrived, with what the gateway did about it.
#[derive(Debug, Clone)]
pub struct Received {
    /// The body.
    pub body: WebhookBody,
    /// When.
    pub at: Nanos,
    /// Green's share before and after, ppm.
    pub moved: (u32, u32),
}

/// What the gateway is doing, for the screen and the summary.
#[derive(Debug)]
pub struct Route {
    green_ppm: AtomicU32,
    regressed: AtomicBool,
    /// Requests started, by color.
    pub served: [AtomicU64; 2],
    /// Traces whose export was acknowledged.
    pub exported: AtomicU64,
    /// Traces whose export was given up.
    pub lost: AtomicU64,
    /// Notices with a wrong signature.
    pub refused: AtomicU64,
    notices: Mutex<Vec<Received>>,
}

impl Route {
    /// Green's share, ppm.
    pub fn green_ppm(&self) -> u32 {
        self.green_ppm.load(Relaxed)
    }

    /// From now on green is worse for one cohort.
    pub fn inject(&self) {
        self.regressed.store(true, Relaxed);
    }

    /// Notices so far, oldest first.
    pub fn notices(&self) -> Vec<Received> {
        self.notices.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// A gateway that is about to run.
pub struct Gateway {
    /// Where it wants its notices.
    pub hook_url: String,
    /// Its state.
    pub route: Arc<Route>,
    receiver: TcpListener,
    secret: signature::Secret,
    clock: Clock,
}

impl Gateway {
    /// Opens the receiver on a free loopback port; nothing is served yet.
    ///
    /// # Errors
    /// If no port can be bound.
    pub async fn bind(secret: signature::Secret, clock: Clock) -> std::io::Result<Self> {
        let receiver = TcpListener::bind((std::net::Ipv4Addr::LOCALHOST, 0)).await?;
        let hook_url = format!("http://{}{HOOK_PATH}", receiver.local_addr()?);
        let route = Arc::new(Route {
            green_ppm: AtomicU32::new(0),
            regressed: AtomicBool::new(false),
            served: [AtomicU64::new(0), AtomicU64::new(0)],
            exported: AtomicU64::new(0),
            lost: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            notices: Mutex::default(),
        });
        Ok(Self {
            hook_url,
            route,
            receiver,
            secret,
            clock,
        })
    }

    /// Serves until `stop`: traffic of `seed`, exported to `otlp`, worse by `regression` once injected.
    ///
    /// # Errors
    /// If the exporter's address is no address.
    pub fn run(
        self,
        otlp: SocketAddr,
        seed: u64,
        regression: Regression,
        stop: &CancellationToken,
        tasks: &TaskTracker,
    ) -> Result<Arc<Route>, tonic::transport::Error> {
        let channel = Endpoint::from_shared(format!("http://{otlp}"))?
            .timeout(Duration::from_secs(10))
            .connect_lazy();
        let (spans, spans_out) = mpsc::channel(EXPORT_QUEUE_MAX);
        let (evaluations, evaluations_out) = mpsc::channel(EXPORT_QUEUE_MAX);
        let route = Arc::clone(&self.route);
        tasks.spawn(export(
            spans_out,
            channel.clone(),
            Arc::clone(&route),
            self.clock.clone(),
            Stream::Spans,
        ));
        tasks.spawn(export(
            evaluations_out,
            channel,
            Arc::clone(&route),
            self.clock.clone(),
            Stream::Evaluations,
        ));
        tasks.spawn(serve(
            Arc::clone(&route),
            seed,
            regression,
            self.clock.clone(),
            spans,
            evaluations,
            stop.clone(),
        ));
        let hooks = Router::new().route(HOOK_PATH, post(receive)).with_state(Arc::new((
            self.secret,
            self.clock,
            Arc::clone(&route),
        )));
        let stop = stop.clone();
        tasks.spawn(async move {
            let served =
                axum::serve(self.receiver, hooks).with_graceful_shutdown(async move { stop.cancelled().await });
            if let Err(e) = served.await {
                tracing::warn!("the demo's webhook receiver stopped: {e}");
            }
        });
        Ok(route)
    }
}

/// The receiver a gateway team writes: check the signature over the raw body, act on a newer decision only.
async fn receive(
    State(gateway): State<Arc<(signature::Secret, Clock, Arc<Route>)>>,
    headers: HeaderMap,
    raw: Bytes,
) -> StatusCode {
    let (secret, clock, route) = &*gateway;
    let now = clock();
    let header = |name| headers.get(name).and_then(|v| v.to_str().ok()).unwrap_or_default();
    let checked = secret.verify(
        header(signature::HEADER_ID),
        header(signature::HEADER_TIMESTAMP),
        header(signature::HEADER_SIGNATURE),
        &raw,
        now.unix_ms() / 1_000,
    );
    if checked.is_err() {
        route.refused.fetch_add(1, Relaxed);
        return StatusCode::UNAUTHORIZED;
    }
    let Ok(body) = serde_json::from_slice::<WebhookBody>(&raw) else {
        return StatusCode::BAD_REQUEST;
    };
    let mut notices = route.notices.lock().unwrap_or_else(PoisonError::into_inner);
    if notices
        .last()
        .is_none_or(|last| body.data.decision_seq > last.body.data.decision_seq)
    {
        let share = body
            .data
            .weights
            .get(&Color::Green)
            .copied()
            .unwrap_or(0.0)
            .clamp(0.0, 1.0);
        let after = (share * f64::from(PPM)).round() as u32;
        let before = route.green_ppm.swap(after, Relaxed);
        // The clock is read after the switch: what starts later than this was routed by it.
        notices.push(Received {
            body,
            at: clock(),
            moved: (before, after),
        });
    }
    StatusCode::OK
}

#[derive(PartialEq, Eq)]
struct Due(Nanos, usize);

impl Ord for Due {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.0, self.1).cmp(&(other.0, other.1))
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

/// Requests in flight, by the time something is due about them.
#[derive(Default)]
struct InFlight {
    due: BinaryHeap<Reverse<Due>>,
    slots: Vec<Option<Served>>,
    free: Vec<usize>,
}

impl InFlight {
    fn add(&mut self, at: Nanos, served: Served) {
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(None);
            self.slots.len() - 1
        });
        self.slots[slot] = Some(served);
        self.due.push(Reverse(Due(at, slot)));
    }

    fn take_due(&mut self, now: Nanos) -> Vec<Served> {
        let mut done = Vec::new();
        while self.due.peek().is_some_and(|Reverse(due)| due.0 <= now) {
            let Some(Reverse(Due(_, slot))) = self.due.pop() else {
                break;
            };
            self.free.push(slot);
            done.extend(self.slots[slot].take());
        }
        done
    }
}

async fn serve(
    route: Arc<Route>,
    seed: u64,
    regression: Regression,
    clock: Clock,
    spans: mpsc::Sender<Vec<Served>>,
    evaluations: mpsc::Sender<Vec<Served>>,
    stop: CancellationToken,
) {
    let Ok(traffic) = Traffic::new(seed) else { return };
    let mut traffic = traffic.peekable();
    let begun = clock();
    let (mut answering, mut judging) = (InFlight::default(), InFlight::default());
    let mut tick = tokio::time::interval(Duration::from_millis(EXPORT_EVERY_MS));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            _ = tick.tick() => {}
        }
        let now = clock();
        while let Some(visit) = traffic.next_if(|v| begun.plus(v.at) <= now) {
            let served = choose(&route, visit, begun, regression);
            answering.add(served.end(), served);
        }
        let answered = answering.take_due(now);
        for served in &answered {
            judging.add(now.plus(Duration::from_millis(EVALUATION_DELAY_MS)), served.clone());
        }
        let judged = judging.take_due(now);
        let full = (!answered.is_empty() && spans.send(answered).await.is_err())
            || (!judged.is_empty() && evaluations.send(judged).await.is_err());
        if full {
            return;
        }
    }
}

fn choose(route: &Route, visit: Visit, begun: Nanos, regression: Regression) -> Served {
    let split = f64::from(route.green_ppm()) / f64::from(PPM);
    let color = if visit.toss < split { Color::Green } else { Color::Blue };
    route.served[usize::from(color == Color::Green)].fetch_add(1, Relaxed);
    let regression = if route.regressed.load(Relaxed) {
        regression
    } else {
        Regression::NONE
    };
    let answer = visit.answer(color, regression);
    Served {
        start: begun.plus(visit.at),
        visit,
        color,
        split,
        answer,
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Stream {
    Spans,
    Evaluations,
}

async fn export(
    mut batches: mpsc::Receiver<Vec<Served>>,
    channel: Channel,
    route: Arc<Route>,
    clock: Clock,
    stream: Stream,
) {
    let mut traces = TraceServiceClient::new(channel.clone());
    let mut logs = LogsServiceClient::new(channel);
    while let Some(batch) = batches.recv().await {
        let mut acked = false;
        for attempt in 0..EXPORT_ATTEMPTS_MAX {
            let answer = match stream {
                Stream::Spans => traces.export(export_spans(&batch)).await.map(drop),
                Stream::Evaluations => logs.export(export_evaluations(&batch, clock())).await.map(drop),
            };
            match answer {
                Ok(()) => {
                    acked = true;
                    break;
                }
                Err(status) => {
                    tracing::debug!("export refused: {status}");
                    tokio::time::sleep(Duration::from_millis(100 << attempt)).await;
                }
            }
        }
        if stream == Stream::Spans {
            let counter = if acked { &route.exported } else { &route.lost };
            counter.fetch_add(batch.len() as u64, Relaxed);
        }
    }
}
