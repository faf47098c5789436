//! The composition root: one running instance, made of store, doors, pipeline, gates and query.

use crate::config::{Config, Door};
use proto::clock::Clock;
use std::{io, net::SocketAddr};

/// Where a running instance listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Addresses {
    /// OTLP over gRPC.
    pub otlp_grpc: SocketAddr,
    /// OTLP over HTTP.
    pub otlp_http: SocketAddr,
    /// API.
    pub http: SocketAddr,
}

/// Why an instance did not start.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum StartError {
    /// The port is in use.
    #[error("{address} is taken: {} cannot be served there", door.what())]
    #[diagnostic(help(
        "stop the other program, or move this one with `{} HOST:PORT` or `{} = \"HOST:PORT\"` under [server]",
        door.flag(), door.key()
    ))]
    PortTaken {
        /// Address.
        address: SocketAddr,
        /// Which.
        door: Door,
    },
    /// It cannot be bound.
    #[error("cannot listen on {address} for {}: {cause}", door.what())]
    #[diagnostic(help("choose another address with `{} HOST:PORT` or `{} = \"HOST:PORT\"` under [server]", door.flag(), door.key()))]
    Bind {
        /// Address.
        address: SocketAddr,
        /// Which.
        door: Door,
        /// Why.
        cause: io::Error,
    },
    /// It is reachable from other machines and nobody has to show a token.
    #[error("{} on {address} would be open to other machines without any credential", door.what())]
    #[diagnostic(help(
        "listen on 127.0.0.1 (`{} 127.0.0.1:{}`), or say that the network is trusted with --insecure", door.flag(), address.port()
    ))]
    Exposed {
        /// Address.
        address: SocketAddr,
        /// Which.
        door: Door,
    },
}

/// Why an instance did not stop cleanly. What was acknowledged is on disk all the same.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum StopError {}

/// One running instance.
#[derive(Debug)]
pub struct App {
    /// Where it listens; with port 0 asked for, the port that was found.
    pub addresses: Addresses,
}

impl App {
    /// Opens the data directory, recovers, binds every door and starts judging. Returns once requests are served.
    ///
    /// # Errors
    /// [`StartError`]; nothing is left running.
    pub async fn start(_config: Config, _clock: Clock) -> Result<Self, StartError> {
        std::future::pending().await
    }

    /// Resolves when the instance can't go on by itself: it should be shut down then.
    pub async fn failed(&self) {
        std::future::pending().await
    }

    /// Closes the doors, drains, seals. Takes at most 10 s.
    ///
    /// # Errors
    /// [`StopError`].
    pub async fn shutdown(self) -> Result<(), StopError> {
        Ok(())
    }
}
