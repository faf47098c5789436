//! What is different between two configurations, what of it holds at once, and how reloading went so far.

use super::{Config, Door};
use std::{
    path::Path,
    sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// A key that only a start reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Waiting {
    /// As it stands in the file, `[server] data_dir`.
    pub key: String,
    /// In force.
    pub running: String,
    /// In the file.
    pub wanted: String,
}

/// What another configuration would change.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Changes {
    /// What holds at once, in words.
    pub live: Vec<String>,
    /// What waits for a restart.
    pub waiting: Vec<Waiting>,
}

impl Changes {
    fn live(&mut self, is_changed: bool, what: impl Into<String>) {
        if is_changed {
            self.live.push(what.into());
        }
    }

    fn waits(&mut self, key: impl Into<String>, running: impl Into<String>, wanted: impl Into<String>) {
        let (running, wanted) = (running.into(), wanted.into());
        if running != wanted {
            self.waiting.push(Waiting {
                key: key.into(),
                running,
                wanted,
            });
        }
    }
}

fn path(of: &Path) -> String {
    of.display().to_string()
}

fn time(of: Duration) -> String {
    humantime::format_duration(of).to_string()
}

fn kept(of: &store::Retention, decisions: Duration) -> String {
    let (texts, rows, cells, decisions) = (time(of.texts), time(of.rows), time(of.cells), time(decisions));
    let disk_max = of.disk_max;
    format!("text {texts}, spans {rows}, cells {cells}, decisions {decisions}, disk_max {disk_max}")
}

impl Config {
    /// What `next` would change about an instance that runs with `self`. Releases are the desk's to compare.
    #[must_use]
    pub fn changes(&self, next: &Self) -> Changes {
        // Every field by name: one that is added must be thought about here.
        let Self {
            data_dir,
            otlp_grpc: _,
            otlp_http: _,
            http: _,
            hosts,
            insecure: _,
            public_url,
            doors,
            read,
            pipeline,
            recovery: _,
            decisions_kept,
            webhooks_allow,
            releases: _,
        } = self;
        let mut changes = Changes::default();
        changes.live(read.keys != next.read.keys, "[attributes]");
        changes.live(read.content != next.read.content, "[content]");
        if read.prices != next.read.prices {
            let (now, then) = (read.prices.version(), next.read.prices.version());
            changes.live.push(format!("[prices] ({now} -> {then})"));
        }
        changes.live(read.schemas != next.read.schemas, "[[json_schema]]");
        changes.live(read.evals != next.read.evals, "[[eval]]");
        changes.live(*hosts != next.hosts, "[server] hosts");
        let (age, wanted) = (pipeline.seal_age, next.pipeline.seal_age);
        changes.live(
            age != wanted,
            format!("[server] seal_age ({} -> {})", time(age), time(wanted)),
        );
        let networks = |of: &[ipnet::IpNet]| of.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let (now, then) = (networks(webhooks_allow), networks(&next.webhooks_allow));
        changes.live(now != then, format!("[webhooks] allow ([{now}] -> [{then}])"));
        let (bytes, wanted) = (doors.budget_bytes, next.doors.budget_bytes);
        let said = format!("[server] ingest_bytes_max ({bytes} -> {wanted} bytes)");
        changes.live(bytes != wanted, said);

        changes.waits("[server] data_dir", path(data_dir), path(&next.data_dir));
        for door in Door::ALL {
            let (now, then) = (self.address(door).to_string(), next.address(door).to_string());
            changes.waits(format!("[server] {}", door.key()), now, then);
        }
        let url = |of: &Option<String>| of.clone().unwrap_or_else(|| "none".to_owned());
        changes.waits("[server] public_url", url(public_url), url(&next.public_url));
        let (now, then) = (&pipeline.assembly, &next.pipeline.assembly);
        changes.waits("[server] cell_resolution", time(now.resolution), time(then.resolution));
        let kept_now = kept(&pipeline.retention, *decisions_kept);
        changes.waits(
            "[retention]",
            kept_now,
            kept(&next.pipeline.retention, next.decisions_kept),
        );
        changes.waits("[server] trace_quiet", time(now.quiet), time(then.quiet));
        changes
    }

    /// Takes over from `next` what holds at once; the rest stays.
    pub fn take_live(&mut self, next: Self) {
        self.read = next.read;
        self.hosts = next.hosts;
        self.webhooks_allow = next.webhooks_allow;
        self.pipeline.seal_age = next.pipeline.seal_age;
        self.doors.budget_bytes = next.doors.budget_bytes;
        self.releases = next.releases;
    }
}

/// How reloading went since start; the metrics page reads it.
#[derive(Debug, Default)]
pub struct Reloads {
    ok: AtomicU64,
    failed: AtomicU64,
    is_refused: AtomicBool,
    waiting: AtomicU64,
}

impl Reloads {
    /// A configuration was taken; `waiting` of its keys and releases are not in force.
    pub fn taken(&self, waiting: usize) {
        self.ok.fetch_add(1, Relaxed);
        self.is_refused.store(false, Relaxed);
        self.waiting.store(waiting as u64, Relaxed);
    }

    /// A configuration was refused whole; the one before it stays.
    pub fn refused(&self) {
        self.failed.fetch_add(1, Relaxed);
        self.is_refused.store(true, Relaxed);
    }

    /// Taken and refused since start.
    #[must_use]
    pub fn counts(&self) -> [(&'static str, u64); 2] {
        [("ok", self.ok.load(Relaxed)), ("failed", self.failed.load(Relaxed))]
    }

    /// Whether the files hold a configuration that was refused.
    #[must_use]
    pub fn is_refused(&self) -> bool {
        self.is_refused.load(Relaxed)
    }

    /// Keys and releases of the files that are not in force.
    #[must_use]
    pub fn waiting(&self) -> u64 {
        self.waiting.load(Relaxed)
    }
}
