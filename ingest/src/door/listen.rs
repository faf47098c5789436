//! Listeners and connections: how many, how long, and how they end.

use super::{Door, KIB, MIB};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, watch};
use tokio::time::{Sleep, sleep, timeout};

/// Pause after an accept that failed, ms: out of file descriptors does not get better by spinning.
const ACCEPT_PAUSE_MS: u64 = 100;
/// HTTP/2 windows and frames, bytes. Bodies are read as they come, so a window bounds what waits unread, and what a
/// client still sends of a request that is refused.
const STREAM_WINDOW_BYTES: u32 = 256 * KIB as u32;
const CONNECTION_WINDOW_BYTES: u32 = MIB as u32;
const FRAME_BYTES_MAX: u32 = 32 * KIB as u32;
/// Headers of one request, bytes.
const HEADERS_BYTES_MAX: u32 = 16 * KIB as u32;
/// Read buffer of one HTTP/1 connection: headers and what of the body came with them.
const HTTP1_BUFFER_BYTES_MAX: usize = 32 * KIB;

/// Serves OTLP/gRPC (HTTP/2 without TLS) until `shutdown`, then lets open requests finish.
pub async fn serve_grpc(listener: TcpListener, door: Arc<Door>, shutdown: impl Future<Output = ()> + Send) {
    serve(listener, door, shutdown).await;
}

/// Serves OTLP/HTTP until `shutdown`, then lets open requests finish.
pub async fn serve_http(listener: TcpListener, door: Arc<Door>, shutdown: impl Future<Output = ()> + Send) {
    serve(listener, door, shutdown).await;
}

async fn serve(listener: TcpListener, door: Arc<Door>, shutdown: impl Future<Output = ()> + Send) {
    let (stop, stopping) = watch::channel(false);
    tokio::pin!(shutdown);
    loop {
        let accepted = tokio::select! {
            biased;
            () = &mut shutdown => break,
            accepted = listener.accept() => accepted,
        };
        let socket = match accepted {
            Ok((socket, _)) => socket,
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(Duration::from_millis(ACCEPT_PAUSE_MS)).await;
                continue;
            }
        };
        if let Ok(place) = Arc::clone(&door.places).try_acquire_owned() {
            door.counters.connections.fetch_add(1, Relaxed);
            tokio::spawn(connection(socket, Arc::clone(&door), stopping.clone(), place));
        } else {
            door.counters.connections_refused.fetch_add(1, Relaxed);
        }
    }
    drop((listener, stopping));
    let _ = stop.send(true);
    // Every connection holds a receiver and ends by itself within the drain time.
    stop.closed().await;
}

async fn connection(
    socket: TcpStream,
    door: Arc<Door>,
    mut stopping: watch::Receiver<bool>,
    place: OwnedSemaphorePermit,
) {
    let config = door.config.clone();
    let _ = socket.set_nodelay(true);
    let io = TokioIo::new(Impatient::new(socket, Duration::from_millis(config.idle_ms_max)));
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .max_buf_size(HTTP1_BUFFER_BYTES_MAX)
        .header_read_timeout(Duration::from_millis(config.header_ms_max));
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(Duration::from_millis(config.idle_ms_max / 3))
        .max_concurrent_streams(config.streams_max)
        .initial_stream_window_size(STREAM_WINDOW_BYTES)
        .initial_connection_window_size(CONNECTION_WINDOW_BYTES)
        .max_frame_size(FRAME_BYTES_MAX)
        .auto_date_header(false)
        .max_header_list_size(HEADERS_BYTES_MAX);
    let service = service_fn(move |request| {
        let door = Arc::clone(&door);
        async move { Ok::<_, Infallible>(door.answer(request).await) }
    });
    let connection = builder.serve_connection(io, service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => Some(ended),
        _ = stopping.wait_for(|stop| *stop) => None,
    };
    let ended = match ended {
        Some(ended) => ended,
        None => {
            connection.as_mut().graceful_shutdown();
            timeout(Duration::from_millis(config.drain_ms_max), connection)
                .await
                .unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
    drop(place);
}

/// A socket that fails when nothing was read for a while, also before the first byte.
struct Impatient {
    socket: TcpStream,
    wait: Duration,
    alarm: Pin<Box<Sleep>>,
    read_since: bool,
}

impl Impatient {
    fn new(socket: TcpStream, wait: Duration) -> Self {
        Self {
            socket,
            wait,
            alarm: Box::pin(sleep(wait)),
            read_since: false,
        }
    }
}

impl AsyncRead for Impatient {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.socket).poll_read(cx, buf);
        if read.is_ready() {
            // The alarm is not set back at each read: it rings, sees that something came, and is set anew.
            self.read_since = true;
            return read;
        }
        while self.alarm.as_mut().poll(cx).is_ready() {
            if !std::mem::take(&mut self.read_since) {
                return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
            }
            let wait = self.wait;
            self.alarm.set(sleep(wait));
        }
        Poll::Pending
    }
}

impl AsyncWrite for Impatient {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(cx)
    }
}
