//! The configuration: one TOML file, every key known, every problem shown at its line and all of them at once.

pub mod address;
mod load;
pub mod problem;
mod section;

pub use address::Door;
pub use load::{FILE_DEFAULT, LoadError};
pub use problem::{Problem, Problems};

use ipnet::IpNet;
use proto::release::ReleaseSpec;
use std::{net::SocketAddr, path::PathBuf, time::Duration};

/// Where data go if nobody says.
pub const DATA_DIR_DEFAULT: &str = "tracegate-data";
/// Width of a cell if nobody says.
pub const CELL_RESOLUTION_DEFAULT: Duration = Duration::from_secs(60);
/// Bytes of requests that may be in flight if nobody says.
pub const INGEST_BYTES_MAX_DEFAULT: u64 = 256 << 20;

/// What an instance is started with: file, then flags.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where everything is kept.
    pub data_dir: PathBuf,
    /// OTLP over gRPC; port 0 takes a free one.
    pub otlp_grpc: SocketAddr,
    /// OTLP over HTTP.
    pub otlp_http: SocketAddr,
    /// API.
    pub http: SocketAddr,
    /// Names, beside addresses and `localhost`, by which the API is reached.
    pub hosts: Vec<String>,
    /// Listen beyond loopback although nobody has to show a token.
    pub insecure: bool,
    /// Where others reach the API, `http://tracegate.internal:4320`; for links in notices. `None`: the bound address.
    pub public_url: Option<String>,
    /// Width of a cell, whole seconds.
    pub cell_resolution: Duration,
    /// Bytes of requests in flight beyond which ingest pushes back.
    pub ingest_bytes_max: u64,
    /// Skip unreadable records in the middle of the journal.
    pub journal_skip: bool,
    /// Networks that webhooks may go to although they are private.
    pub webhooks_allow: Vec<IpNet>,
    /// Releases of the file and its includes, checked.
    pub releases: Vec<ReleaseSpec>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: DATA_DIR_DEFAULT.into(),
            otlp_grpc: Door::OtlpGrpc.default_address(),
            otlp_http: Door::OtlpHttp.default_address(),
            http: Door::Http.default_address(),
            hosts: Vec::new(),
            insecure: false,
            public_url: None,
            cell_resolution: CELL_RESOLUTION_DEFAULT,
            ingest_bytes_max: INGEST_BYTES_MAX_DEFAULT,
            journal_skip: false,
            webhooks_allow: Vec::new(),
            releases: Vec::new(),
        }
    }
}

impl Config {
    /// Moves a door.
    pub const fn listen(&mut self, door: Door, address: SocketAddr) {
        match door {
            Door::OtlpGrpc => self.otlp_grpc = address,
            Door::OtlpHttp => self.otlp_http = address,
            Door::Http => self.http = address,
        }
    }

    /// The address of a door.
    #[must_use]
    pub const fn address(&self, door: Door) -> SocketAddr {
        match door {
            Door::OtlpGrpc => self.otlp_grpc,
            Door::OtlpHttp => self.otlp_http,
            Door::Http => self.http,
        }
    }

    /// Every door on a free port of loopback: for tests and demonstrations.
    #[must_use]
    pub fn on_free_ports(data_dir: PathBuf) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self { data_dir, otlp_grpc: free, otlp_http: free, http: free, ..Self::default() }
    }
}
