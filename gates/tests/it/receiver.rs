//! A gateway's webhook endpoint on loopback that answers as it is told and checks signatures with the reference library.

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode, header::LOCATION},
    response::{IntoResponse, Response},
    routing::any,
};
use proto::{
    Nanos,
    clock::Clock,
    decision::{Action, WebhookBody},
    release::WebhookSpec,
    signature::Secret,
};
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};
use tokio::sync::Notify;

pub const SECRET: &str = "whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD";

/// One request as it came.
#[derive(Debug, Clone)]
pub struct Got {
    pub id: String,
    pub timestamp: i64,
    pub body: WebhookBody,
    pub verified: bool,
    pub answered: u16,
    pub at: std::time::Instant,
}

impl Got {
    pub fn action(&self) -> Action {
        self.body.data.action
    }
}

#[derive(Default)]
struct Script {
    answers: VecDeque<u16>,
    delay: Duration,
    got: Vec<Got>,
}

/// The endpoint; answers 200 once its script is over.
#[derive(Clone)]
pub struct Receiver {
    pub url: String,
    script: Arc<Mutex<Script>>,
    arrived: Arc<Notify>,
}

impl Receiver {
    pub async fn start(answers: &[u16]) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let receiver = Self {
            url: format!("http://{}/hook", listener.local_addr().unwrap()),
            script: Arc::new(Mutex::new(Script {
                answers: answers.iter().copied().collect(),
                ..Script::default()
            })),
            arrived: Arc::default(),
        };
        let app = Router::new().fallback(any(answer)).with_state(receiver.clone());
        tokio::spawn(async move { axum::serve(listener, app).await });
        receiver
    }

    pub fn slow(&self, delay: Duration) {
        self.script.lock().unwrap().delay = delay;
    }

    pub fn will_answer(&self, answers: &[u16]) {
        self.script.lock().unwrap().answers = answers.iter().copied().collect();
    }

    pub fn got(&self) -> Vec<Got> {
        self.script.lock().unwrap().got.clone()
    }

    /// Waits until `n` requests have come.
    pub async fn wait_for(&self, n: usize) -> Vec<Got> {
        let enough = async {
            loop {
                let arrived = self.arrived.notified();
                let got = self.got();
                if got.len() >= n {
                    return got;
                }
                arrived.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(30), enough)
            .await
            .unwrap_or_else(|_| panic!("only {:?} came", self.got()))
    }

    /// Waits until the notice of this number was answered with 200.
    pub async fn took(&self, seq: i64) {
        let mut n = 0;
        loop {
            let got = self.wait_for(n).await;
            if got.iter().any(|g| g.body.data.decision_seq == seq && g.answered == 200) {
                return;
            }
            n = got.len() + 1;
        }
    }

    pub fn spec(&self) -> WebhookSpec {
        WebhookSpec {
            url: self.url.clone(),
            secret_env: Some("SECRET".into()),
            secret_file: None,
        }
    }
}

async fn answer(State(me): State<Receiver>, headers: HeaderMap, body: Bytes) -> Response {
    let oracle = standardwebhooks::Webhook::new(SECRET).unwrap();
    let header = |name: &str| headers.get(name).unwrap().to_str().unwrap().to_owned();
    let (status, delay) = {
        let mut script = me.script.lock().unwrap();
        let status = script.answers.pop_front().unwrap_or(200);
        (status, script.delay)
    };
    tokio::time::sleep(delay).await;
    me.script.lock().unwrap().got.push(Got {
        id: header("webhook-id"),
        timestamp: header("webhook-timestamp").parse().unwrap(),
        body: serde_json::from_slice(&body).unwrap(),
        verified: oracle.verify(&body, &headers).is_ok() && body.len() < 20_000,
        answered: status,
        at: std::time::Instant::now(),
    });
    me.arrived.notify_waiters();
    me.arrived.notify_one();
    let status = StatusCode::from_u16(status).unwrap();
    if status.is_redirection() {
        return (status, [(LOCATION, me.url.clone())]).into_response();
    }
    status.into_response()
}

pub fn secrets() -> gates::webhook::SecretSource {
    Arc::new(|_| {
        let key = Secret::parse(SECRET).map_err(|e| e.to_string())?;
        Ok(vec![key])
    })
}

pub fn wall_clock() -> Clock {
    Arc::new(|| {
        let since = SystemTime::UNIX_EPOCH.elapsed().unwrap();
        Nanos(i64::try_from(since.as_nanos()).unwrap())
    })
}
