//! Connections of the API port: how many, how long, and how they end.

use crate::config::DRAIN_MAX;
use axum::Router;
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::conn::auto,
    service::TowerToHyperService,
};
use std::{sync::Arc, time::Duration};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

/// Open connections; one more waits in the kernel's queue.
const CONNECTIONS_MAX: usize = 512;
/// The head of a request must be complete within this time.
const HEADER_WAIT: Duration = Duration::from_secs(10);
/// A silent HTTP/2 connection is asked for a sign of life this often.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// Requests of one HTTP/2 connection at a time.
const STREAMS_MAX: u32 = 64;
/// Bytes of the headers of one request.
const HEADERS_BYTES_MAX: u32 = 16 << 10;
/// Pause after an accept that failed: out of file descriptors does not get better by spinning.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves until `stopping`, then lets open requests finish.
pub async fn serve(listener: TcpListener, router: Router, stopping: CancellationToken) {
    let places = Arc::new(Semaphore::new(CONNECTIONS_MAX));
    let connections = TaskTracker::new();
    loop {
        let next = async {
            let place = Arc::clone(&places).acquire_owned().await;
            (place, listener.accept().await)
        };
        let (place, accepted) = tokio::select! {
            biased;
            () = stopping.cancelled() => break,
            next = next => next,
        };
        match (place, accepted) {
            (Ok(place), Ok((socket, _))) => {
                connections.spawn(connection(socket, router.clone(), stopping.clone(), place));
            }
            (_, Err(error)) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(ACCEPT_PAUSE).await;
            }
            (Err(_), _) => break,
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn connection(socket: TcpStream, router: Router, stopping: CancellationToken, place: OwnedSemaphorePermit) {
    let _ = socket.set_nodelay(true);
    let mut builder = auto::Builder::new(TokioExecutor::new());
    builder
        .http1()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_WAIT);
    builder
        .http2()
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEP_ALIVE)
        .max_concurrent_streams(STREAMS_MAX)
        .max_header_list_size(HEADERS_BYTES_MAX);
    let connection = builder.serve_connection(TokioIo::new(socket), TowerToHyperService::new(router));
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stopping.cancelled() => {
            connection.as_mut().graceful_shutdown();
            timeout(DRAIN_MAX, connection).await.unwrap_or(Ok(()))
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a connection ended early");
    }
    drop(place);
}
