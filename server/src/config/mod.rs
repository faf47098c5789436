//! The configuration: one TOML file, every key known, every problem shown at its line and all of them at once.

pub mod address;
mod load;
pub mod problem;
mod reading;
mod reload;
mod retention;
mod schemas;
mod section;
mod sources;
#[cfg(test)]
mod tests;

pub use address::Door;
pub use load::{FILE_DEFAULT, LoadError};
pub use problem::{Problem, Problems};
pub use reload::{Changes, Reloads, Waiting};
pub use sources::{Looks, Sources};

use gates::desk::DECISIONS_KEPT;
use ingest::{door::DoorConfig, pipeline::PipelineConfig, read::ReadConfig};
use ipnet::IpNet;
use proto::release::ReleaseSpec;
use std::{net::SocketAddr, path::PathBuf, time::Duration};
use store::JournalRecovery;

/// Where data go if nobody says.
pub const DATA_DIR_DEFAULT: &str = "tracegate-data";

/// Open requests, of exporters and of the API, may finish for this long when the instance stops: the last seal needs the
/// rest of the time.
pub const DRAIN_MAX: Duration = Duration::from_secs(2);

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
    /// Limits of the doors that OTLP comes through.
    pub doors: DoorConfig,
    /// What attributes mean, what becomes of content, what tokens cost.
    pub read: ReadConfig,
    /// Grouping, assembly, width of cells, sealing.
    pub pipeline: PipelineConfig,
    /// What to do about acknowledged records that cannot be read.
    pub recovery: JournalRecovery,
    /// How long decisions of settled releases are kept.
    pub decisions_kept: Duration,
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
            doors: DoorConfig {
                drain_ms_max: DRAIN_MAX.as_millis() as u64,
                ..DoorConfig::default()
            },
            read: ReadConfig::default(),
            pipeline: PipelineConfig::default(),
            recovery: JournalRecovery::Strict,
            decisions_kept: DECISIONS_KEPT,
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

    /// Host of the public URL, if there is one.
    #[must_use]
    pub fn public_host(&self) -> Option<String> {
        let url = reqwest::Url::parse(self.public_url.as_deref()?).ok()?;
        url.host_str().map(str::to_owned)
    }

    /// Every door on a free port of loopback: for tests and demonstrations.
    #[must_use]
    pub fn on_free_ports(data_dir: PathBuf) -> Self {
        let free = SocketAddr::from(([127, 0, 0, 1], 0));
        Self {
            data_dir,
            otlp_grpc: free,
            otlp_http: free,
            http: free,
            ..Self::default()
        }
    }
}
