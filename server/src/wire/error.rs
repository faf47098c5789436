//! Why an instance did not start, or did not stop cleanly, and what to do about it.

use crate::config::Door;
use gates::desk::DeskError;
use ingest::pipeline::PipelineError;
use miette::Diagnostic;
use query::QueryError;
use std::{io, net::SocketAddr, time::Duration};
use store::StoreError;

/// Why an instance did not start.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum StartError {
    /// The port is in use.
    #[error("port {} is taken: {} cannot be served on {address}", address.port(), door.what())]
    #[diagnostic(help(
        "stop the other program, or move this one: `serve {} HOST:PORT`, or `{} = \"HOST:PORT\"` under [server]",
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
    #[diagnostic(help("choose another address: `serve {} HOST:PORT`, or `{} = \"HOST:PORT\"` under [server]", door.flag(), door.key()))]
    Bind {
        /// Address.
        address: SocketAddr,
        /// Which.
        door: Door,
        /// Why.
        cause: io::Error,
    },
    /// It is reachable from other machines and nobody has to show a credential.
    #[error("{} on {address} would be open to other machines, and nobody would have to show a credential", door.what())]
    #[diagnostic(help(
        "listen on this machine only (`serve {} 127.0.0.1:{}`), or say with --insecure that the network is trusted",
        door.flag(), address.port()
    ))]
    Exposed {
        /// Address.
        address: SocketAddr,
        /// Which.
        door: Door,
    },
    /// The data directory.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The journal's replay, or a thread of ingest.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// Ledger, or a release of the configuration.
    #[error(transparent)]
    Desk(#[from] DeskError),
    /// SQL.
    #[error(transparent)]
    Query(#[from] QueryError),
    /// No threads.
    #[error("cannot start threads: {0}")]
    Threads(io::Error),
    /// A fault of ours.
    #[error("starting broke off: {0}; please report this")]
    Panicked(String),
}

/// Why an instance did not stop cleanly. What was acknowledged is on disk all the same.
#[derive(Debug, thiserror::Error, Diagnostic)]
pub enum StopError {
    /// The last seal.
    #[error(transparent)]
    Pipeline(#[from] PipelineError),
    /// The last seal took too long.
    #[error("not everything was sealed within {} s; the journal has it, and the next start goes on from there", .0.as_secs())]
    SealTooSlow(Duration),
    /// A fault of ours.
    #[error("stopping broke off: {0}; please report this")]
    Panicked(String),
}
