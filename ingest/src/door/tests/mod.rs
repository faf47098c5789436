//! The door over real sockets: a real tonic client, hand-written HTTP/1, and a stub where the lane will be.

mod calm;
mod grpc;
mod http;
mod json;
mod slow;

use super::*;
use crate::intake::{Envelope, Refusal};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{ResourceSpans, ScopeSpans, Span};
use std::net::SocketAddr;
use std::sync::mpsc;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

/// A door on a free port, and what came through it.
struct Rig {
    address: SocketAddr,
    door: Arc<Door>,
    came: mpsc::Receiver<(Signal, Bytes)>,
    stop: Option<oneshot::Sender<()>>,
    served: tokio::task::JoinHandle<()>,
}

impl Rig {
    /// The lane answers everything with `reply`.
    async fn new(config: DoorConfig, reply: impl Fn() -> Result<Accepted, Refusal> + Send + 'static) -> Self {
        let (intake, lane) = Intake::new(64);
        let (passed, came) = mpsc::channel();
        std::thread::spawn(move || {
            for Envelope {
                signal,
                body,
                reply: answer,
            } in lane
            {
                let _ = passed.send((signal, Bytes::copy_from_slice(&body)));
                drop(body);
                let _ = answer.send(reply());
            }
        });
        Self::before(config, intake, came).await
    }

    async fn before(config: DoorConfig, intake: Intake, came: mpsc::Receiver<(Signal, Bytes)>) -> Self {
        let door = Door::new(config, intake).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shared = Arc::clone(&door);
        let served = tokio::spawn(async move {
            let stopped = async {
                let _ = stopped.await;
            };
            serve_http(listener, shared, stopped).await;
        });
        Self {
            address,
            door,
            came,
            stop: Some(stop),
            served,
        }
    }

    async fn taking() -> Self {
        Self::new(DoorConfig::default(), || {
            Ok(Accepted {
                accepted: 1,
                ..Accepted::default()
            })
        })
        .await
    }

    /// Sends one HTTP/1 request and reads the whole answer: status, head, body.
    async fn post(&self, path: &str, headers: &str, body: &[u8]) -> (u16, String, Vec<u8>) {
        let mut request = format!(
            "POST {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\ncontent-length: {}\r\n",
            body.len()
        )
        .into_bytes();
        request.extend_from_slice(headers.as_bytes());
        request.extend_from_slice(b"\r\n");
        request.extend_from_slice(body);
        self.raw(&request).await
    }

    async fn raw(&self, request: &[u8]) -> (u16, String, Vec<u8>) {
        let mut socket = TcpStream::connect(self.address).await.unwrap();
        socket.write_all(request).await.unwrap();
        answer(&mut socket).await
    }
}

/// Reads an answer that ends with the connection.
async fn answer(socket: &mut TcpStream) -> (u16, String, Vec<u8>) {
    let mut bytes = Vec::new();
    socket.read_to_end(&mut bytes).await.unwrap();
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n").unwrap();
    let body = bytes.split_off(head + 4);
    let head = String::from_utf8(bytes).unwrap().to_ascii_lowercase();
    (head[9..12].parse().unwrap(), head, body)
}

fn text(key: &str, value: &str) -> KeyValue {
    let value = Some(AnyValue {
        value: Some(Value::StringValue(value.to_owned())),
    });
    KeyValue {
        key: key.to_owned(),
        value,
        ..KeyValue::default()
    }
}

/// One span with one attribute of `bytes` bytes.
fn one_span(bytes: usize) -> ExportTraceServiceRequest {
    let span = Span {
        trace_id: vec![1; 16],
        span_id: vec![2; 8],
        name: "chat".to_owned(),
        start_time_unix_nano: 1,
        end_time_unix_nano: 2,
        attributes: vec![text("filling", &"x".repeat(bytes))],
        ..Span::default()
    };
    let scope_spans = vec![ScopeSpans {
        spans: vec![span],
        ..ScopeSpans::default()
    }];
    ExportTraceServiceRequest {
        resource_spans: vec![ResourceSpans {
            scope_spans,
            ..ResourceSpans::default()
        }],
    }
}

/// A request of exactly `bytes` bytes.
fn sized(bytes: usize) -> ExportTraceServiceRequest {
    use prost::Message;
    let mut filling = bytes - one_span(0).encoded_len();
    loop {
        let request = one_span(filling);
        match request.encoded_len() {
            len if len == bytes => return request,
            len if len > bytes => filling -= len - bytes,
            len => filling += bytes - len,
        }
    }
}
