//! Every way an exporter may send a request, over real sockets.

use super::message::Message;
use bytes::Bytes;
use flate2::{Compression, write::GzEncoder};
use futures::stream;
use http_body_util::{BodyExt, Full, StreamBody};
use std::{convert::Infallible, io::Write, net::SocketAddr};
use tonic::transport::{Channel, Endpoint};
use tower::ServiceExt;

/// Size of the pieces of a chunked body, bytes: several of them even for the smallest request.
const CHUNK_BYTES: usize = 97;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Grpc,
    Protobuf,
    Json,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coding {
    Identity,
    Gzip,
    Zstd,
}

/// One way to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Way {
    pub transport: Transport,
    pub coding: Coding,
    /// In pieces and without a length: `transfer-encoding: chunked` of HTTP/1.1, several DATA frames of gRPC.
    pub chunked: bool,
}

impl Way {
    pub fn all() -> Vec<Self> {
        let mut ways = Vec::new();
        for transport in [Transport::Grpc, Transport::Protobuf, Transport::Json] {
            for coding in [Coding::Identity, Coding::Gzip, Coding::Zstd] {
                for chunked in [false, true] {
                    ways.push(Self {
                        transport,
                        coding,
                        chunked,
                    });
                }
            }
        }
        ways
    }
}

impl Coding {
    const fn name(self) -> &'static str {
        match self {
            Self::Identity => "identity",
            Self::Gzip => "gzip",
            Self::Zstd => "zstd",
        }
    }

    fn pack(self, plain: Vec<u8>) -> Vec<u8> {
        match self {
            Self::Identity => plain,
            Self::Gzip => {
                let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
                encoder.write_all(&plain).unwrap();
                encoder.finish().unwrap()
            }
            Self::Zstd => zstd::encode_all(&plain[..], 1).unwrap(),
        }
    }
}

type Frames = Vec<Result<http_body::Frame<Bytes>, Infallible>>;

fn frames(bytes: &[u8]) -> Frames {
    let pieces = bytes.chunks(CHUNK_BYTES).map(Bytes::copy_from_slice);
    pieces.map(|piece| Ok(http_body::Frame::data(piece))).collect()
}

/// A request as bytes, made once, so that a copy is the same to the last bit.
#[derive(Debug, Clone)]
pub struct Parcel {
    way: Way,
    signal: &'static str,
    body: Vec<u8>,
}

impl Parcel {
    /// `numeric`: see [`Message::json`].
    pub fn new(message: &Message, way: Way, numeric: bool) -> Self {
        let plain = match way.transport {
            Transport::Json => message.json(numeric),
            Transport::Grpc | Transport::Protobuf => message.protobuf(),
        };
        Self {
            way,
            signal: message.signal(),
            body: way.coding.pack(plain),
        }
    }

    /// Sends it. `Ok` if all of it was acknowledged, else why not.
    pub async fn send(&self, to: &Doors) -> Result<(), String> {
        let why = match self.way.transport {
            Transport::Grpc => self.call(to).await,
            Transport::Protobuf | Transport::Json => self.post(to).await,
        };
        why.map_err(|why| format!("{} by {:?}: {why}", self.signal, self.way))
    }

    async fn post(&self, to: &Doors) -> Result<(), String> {
        let kind = match self.way.transport {
            Transport::Json => "application/json",
            _ => "application/x-protobuf",
        };
        let mut request = to
            .client
            .post(format!("http://{}/v1/{}", to.otlp_http, self.signal))
            .header("content-type", kind);
        if self.way.coding != Coding::Identity {
            request = request.header("content-encoding", self.way.coding.name());
        }
        let request = if self.way.chunked {
            request.body(reqwest::Body::wrap(StreamBody::new(stream::iter(frames(&self.body)))))
        } else {
            request.body(self.body.clone())
        };
        let answer = request.send().await.map_err(|error| error.to_string())?;
        let status = answer.status();
        let message = answer.bytes().await.map_err(|error| error.to_string())?;
        success(status == 200, &message, &status)
    }

    /// A call whose frame is made by hand: clients compress with more codings than tonic is built with here.
    async fn call(&self, to: &Doors) -> Result<(), String> {
        let service = match self.signal {
            "traces" => "trace.v1.TraceService",
            _ => "logs.v1.LogsService",
        };
        let mut frame = vec![u8::from(self.way.coding != Coding::Identity)];
        frame.extend_from_slice(&u32::try_from(self.body.len()).unwrap().to_be_bytes());
        frame.extend_from_slice(&self.body);
        let body = if self.way.chunked {
            tonic::body::Body::new(StreamBody::new(stream::iter(frames(&frame))))
        } else {
            tonic::body::Body::new(Full::from(frame))
        };
        let path = format!("/opentelemetry.proto.collector.{service}/Export");
        let request = http::Request::post(format!("http://{}{path}", to.otlp_grpc))
            .header("content-type", "application/grpc")
            .header("grpc-encoding", self.way.coding.name())
            .header("te", "trailers")
            .body(body)
            .unwrap();
        let answer = to.channel.clone().oneshot(request).await;
        let answer = answer.map_err(|error| error.to_string())?;
        let headers = answer.headers().clone();
        let answer = answer.into_body().collect().await;
        let answer = answer.map_err(|error| error.to_string())?;
        let status = answer
            .trailers()
            .and_then(|trailers| trailers.get("grpc-status"))
            .or_else(|| headers.get("grpc-status"))
            .cloned();
        let is_ok = status.as_ref().is_some_and(|status| status == "0");
        let message = answer.to_bytes();
        success(is_ok, message.get(5..).unwrap_or_default(), &status)
    }
}

/// Without a partial success protobuf writes nothing and JSON an empty object.
fn success(is_ok: bool, message: &[u8], status: &impl std::fmt::Debug) -> Result<(), String> {
    if is_ok && (message.is_empty() || message == b"{}") {
        return Ok(());
    }
    Err(format!("{status:?}, {}", String::from_utf8_lossy(message)))
}

/// Where an instance listens, with connections to it.
#[derive(Clone)]
pub struct Doors {
    pub client: reqwest::Client,
    pub channel: Channel,
    pub otlp_grpc: SocketAddr,
    pub otlp_http: SocketAddr,
    pub http: SocketAddr,
}

impl Doors {
    pub fn new(otlp_grpc: SocketAddr, otlp_http: SocketAddr, http: SocketAddr) -> Self {
        Self {
            client: crate::otlp::client(),
            channel: Endpoint::new(format!("http://{otlp_grpc}")).unwrap().connect_lazy(),
            otlp_grpc,
            otlp_http,
            http,
        }
    }
}
