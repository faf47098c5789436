//! Where to listen: on loopback unless told otherwise, and beyond it only if somebody says they mean it.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// Port of OTLP over gRPC.
pub const OTLP_GRPC_PORT: u16 = 4317;
/// Port of OTLP over HTTP.
pub const OTLP_HTTP_PORT: u16 = 4318;
/// Port of the API.
pub const HTTP_PORT: u16 = 4320;

/// One of the addresses the server listens on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Door {
    /// OTLP over gRPC.
    OtlpGrpc,
    /// OTLP over HTTP.
    OtlpHttp,
    /// API.
    Http,
}

impl Door {
    /// All of them, in the order they are bound.
    pub const ALL: [Self; 3] = [Self::OtlpGrpc, Self::OtlpHttp, Self::Http];

    /// The flag of `serve` that moves it.
    #[must_use]
    pub const fn flag(self) -> &'static str {
        match self {
            Self::OtlpGrpc => "--otlp-grpc",
            Self::OtlpHttp => "--otlp-http",
            Self::Http => "--http",
        }
    }

    /// The key of `[server]` that moves it.
    #[must_use]
    pub const fn key(self) -> &'static str {
        match self {
            Self::OtlpGrpc => "otlp_grpc",
            Self::OtlpHttp => "otlp_http",
            Self::Http => "http",
        }
    }

    /// What comes in there.
    #[must_use]
    pub const fn what(self) -> &'static str {
        match self {
            Self::OtlpGrpc => "OTLP over gRPC",
            Self::OtlpHttp => "OTLP over HTTP",
            Self::Http => "the API",
        }
    }

    /// Where it is by default: on loopback.
    #[must_use]
    pub const fn default_address(self) -> SocketAddr {
        let port = match self {
            Self::OtlpGrpc => OTLP_GRPC_PORT,
            Self::OtlpHttp => OTLP_HTTP_PORT,
            Self::Http => HTTP_PORT,
        };
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)
    }
}

/// Reads `127.0.0.1:4317`, `[::1]:4317` or `localhost:4317`; port 0 takes any free one.
///
/// # Errors
/// What an address looks like.
pub fn parse(text: &str) -> Result<SocketAddr, String> {
    let numeric = text.strip_prefix("localhost:").map(|port| format!("127.0.0.1:{port}"));
    numeric
        .as_deref()
        .unwrap_or(text)
        .parse()
        .map_err(|_| format!("`{text}` is no address; write HOST:PORT, as in 127.0.0.1:4317 or [::1]:4317"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_numeric_or_localhost() {
        assert_eq!(parse("localhost:1").unwrap(), "127.0.0.1:1".parse().unwrap());
        assert_eq!(parse("[::1]:2").unwrap(), "[::1]:2".parse().unwrap());
        for wrong in ["", "4317", "localhost", "example.com:4317", "127.0.0.1:99999"] {
            assert!(parse(wrong).is_err(), "{wrong}");
        }
    }
}
