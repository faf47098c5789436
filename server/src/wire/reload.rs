//! Another configuration for an instance that runs: what can change changes, the rest is named, and nothing is dropped.
//!
//! What requests are read by is swapped between two groups of the lane. The journal holds rows that were read already, so
//! a replay after a kill gives the same rows, whatever the files say by then.

use crate::{
    config::{Changes, Config, LoadError, Reloads},
    http::Hosts,
};
use gates::desk::DeskHandle;
use ingest::{door::Door, pipeline::Settings};
use std::sync::Arc;
use tokio::sync::{Mutex, watch};

/// Who declares the releases of the configuration.
pub(super) const CONFIG_ACTOR: &str = "config";

/// Takes configurations for one instance; clones take them for the same.
#[derive(Clone)]
pub struct Reloader {
    /// What holds now.
    running: Arc<Mutex<Config>>,
    settings: watch::Sender<Settings>,
    hosts: watch::Sender<Hosts>,
    door: Arc<Door>,
    desk: DeskHandle,
    reloads: Arc<Reloads>,
}

/// Names the API is reached by.
pub(super) fn hosts(config: &Config) -> Hosts {
    Hosts::new(config.hosts.iter().cloned().chain(config.public_host()))
}

impl Reloader {
    pub(super) fn new(
        running: Config,
        settings: watch::Sender<Settings>,
        hosts: watch::Sender<Hosts>,
        door: Arc<Door>,
        desk: DeskHandle,
        reloads: Arc<Reloads>,
    ) -> Self {
        Self {
            running: Arc::new(Mutex::new(running)),
            settings,
            hosts,
            door,
            desk,
            reloads,
        }
    }

    /// Takes what can change while the instance runs, and logs what changed, what waits for a restart and what was refused.
    pub async fn apply(&self, next: Config) {
        let mut running = self.running.lock().await;
        let Changes { mut live, waiting } = running.changes(&next);
        if !live.is_empty() {
            self.settings.send_replace(Settings {
                read: Arc::new(next.read.clone()),
                seal_age: next.pipeline.seal_age,
            });
            self.door.set_budget_bytes(next.doors.budget_bytes);
            self.desk.allow_webhooks(next.webhooks_allow.clone());
        }
        let refused = self.declare(&running, &next, &mut live).await;
        running.take_live(next);
        self.hosts.send_replace(hosts(&running));
        for key in &waiting {
            tracing::warn!(
                "{} needs a restart: {} stays in force, not {}",
                key.key,
                key.running,
                key.wanted
            );
        }
        self.reloads.taken(waiting.len() + refused);
        if live.is_empty() {
            tracing::info!("configuration read again: nothing to change");
        } else {
            tracing::info!("configuration reloaded: {}", live.join(", "));
        }
    }

    /// Declares the releases of the files as a start does; how many were refused.
    async fn declare(&self, running: &Config, next: &Config, live: &mut Vec<String>) -> usize {
        let mut refused = 0;
        for release in &next.releases {
            let is_known = self.desk.release(&release.id).is_some();
            match self.desk.declare(release.clone(), CONFIG_ACTOR).await {
                Ok(()) if is_known => {}
                Ok(()) => {
                    live.push(format!("release {} declared on route {}", release.id, release.route));
                    super::warn_of_missing_secret(release);
                }
                Err(error) => {
                    refused += 1;
                    tracing::error!("release {} is not taken from the configuration: {error}", release.id);
                }
            }
        }
        for release in &running.releases {
            let is_gone = !next.releases.iter().any(|kept| kept.id == release.id);
            let row = self.desk.release(&release.id);
            if is_gone && row.is_some_and(|row| !row.state.phase.is_over()) {
                live.push(format!("release {} left the files and goes on", release.id));
            }
        }
        refused
    }

    /// Logs why a configuration is not taken, every problem at its line. What runs stays.
    pub fn refuse(&self, error: &LoadError) {
        self.reloads.refused();
        if let LoadError::Wrong(wrong) = error {
            for problem in &wrong.problems {
                let help = problem
                    .help
                    .as_ref()
                    .map_or_else(String::new, |help| format!(" ({help})"));
                tracing::error!("{}: {problem}{help}", problem.place());
            }
        }
        tracing::error!("configuration refused, the one that runs stays: {error}");
    }
}
