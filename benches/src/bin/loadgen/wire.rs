//! One connection that sends bytes as they are, by gRPC or HTTP/1.

use crate::{Compress, Failure};
use bytes::{Buf, BufMut, Bytes};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tonic::codec::{Codec, CompressionEncoding, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};

const PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// What the server said.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Acked,
    /// Full: come back later.
    Refused,
}

/// One connection.
pub(crate) enum Sender {
    Grpc(tonic::client::Grpc<Channel>),
    Http(TcpStream),
}

impl Sender {
    pub(crate) async fn connect(address: SocketAddr, http: bool, compress: Option<Compress>) -> Result<Self, Failure> {
        if http {
            let socket = TcpStream::connect(address).await?;
            socket.set_nodelay(true)?;
            return Ok(Self::Http(socket));
        }
        let channel = Endpoint::new(format!("http://{address}"))?
            .initial_stream_window_size(1 << 20)
            .tcp_nodelay(true)
            .connect()
            .await?;
        let client = tonic::client::Grpc::new(channel);
        Ok(Self::Grpc(match compress {
            None => client,
            Some(Compress::Gzip) => client.send_compressed(CompressionEncoding::Gzip),
            Some(Compress::Zstd) => client.send_compressed(CompressionEncoding::Zstd),
        }))
    }

    pub(crate) async fn send(&mut self, body: Bytes) -> Result<Sent, Failure> {
        match self {
            Self::Grpc(client) => {
                client.ready().await?;
                match client
                    .unary(Request::new(body), http::uri::PathAndQuery::from_static(PATH), Raw)
                    .await
                {
                    Ok(_) => Ok(Sent::Acked),
                    Err(status) if status.code() == Code::Unavailable && !status.details().is_empty() => {
                        Ok(Sent::Refused)
                    }
                    Err(status) => Err(status.into()),
                }
            }
            Self::Http(socket) => {
                let head = format!(
                    "POST /v1/traces HTTP/1.1\r\nhost: loadgen\r\ncontent-type: application/x-protobuf\r\n\
                     content-length: {}\r\n\r\n",
                    body.len()
                );
                socket.write_all(head.as_bytes()).await?;
                socket.write_all(&body).await?;
                match status(socket).await? {
                    200 => Ok(Sent::Acked),
                    429 | 503 => Ok(Sent::Refused),
                    other => Err(format!("HTTP {other}").into()),
                }
            }
        }
    }
}

/// Reads one answer off a kept connection; its status.
async fn status(socket: &mut TcpStream) -> Result<u16, Failure> {
    let mut head = Vec::with_capacity(512);
    while !head.ends_with(b"\r\n\r\n") {
        head.push(socket.read_u8().await?);
    }
    let head = String::from_utf8(head)?.to_ascii_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"))
        .map_or("0", str::trim);
    let mut body = vec![0; length.parse()?];
    socket.read_exact(&mut body).await?;
    Ok(head.get(9..12).unwrap_or("").parse()?)
}

/// Bytes through, untouched.
#[derive(Debug, Clone, Copy, Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}
