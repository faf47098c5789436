//! Binding every address before anything else happens, so that a wrong one is said at once and changes nothing.

use super::StartError;
use crate::config::{Config, Door};
use std::{io, net::SocketAddr};
use tokio::net::TcpListener;

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

/// Bound and listening; nobody answers yet.
pub(super) struct Ports {
    pub addresses: Addresses,
    pub otlp_grpc: TcpListener,
    pub otlp_http: TcpListener,
    pub http: TcpListener,
}

pub(super) async fn bind(config: &Config) -> Result<Ports, StartError> {
    let otlp_grpc = listen(config, Door::OtlpGrpc).await?;
    let otlp_http = listen(config, Door::OtlpHttp).await?;
    let http = listen(config, Door::Http).await?;
    let addresses = Addresses {
        otlp_grpc: bound(config, Door::OtlpGrpc, &otlp_grpc)?,
        otlp_http: bound(config, Door::OtlpHttp, &otlp_http)?,
        http: bound(config, Door::Http, &http)?,
    };
    Ok(Ports {
        addresses,
        otlp_grpc,
        otlp_http,
        http,
    })
}

async fn listen(config: &Config, door: Door) -> Result<TcpListener, StartError> {
    let address = config.address(door);
    if !address.ip().is_loopback() && !config.insecure {
        return Err(StartError::Exposed { address, door });
    }
    TcpListener::bind(address).await.map_err(|cause| match cause.kind() {
        io::ErrorKind::AddrInUse => StartError::PortTaken { address, door },
        _ => StartError::Bind { address, door, cause },
    })
}

fn bound(config: &Config, door: Door, listener: &TcpListener) -> Result<SocketAddr, StartError> {
    listener.local_addr().map_err(|cause| StartError::Bind {
        address: config.address(door),
        door,
        cause,
    })
}
