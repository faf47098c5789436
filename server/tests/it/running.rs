//! A running instance in this process, its client, and the command line against it.

use crate::{kill::tracegate, otlp::client};
use serde_json::{Value, json};
use server::{config::Config, wall_clock, wire::App};
use std::process::Output;

/// A release on route `chat`, id `chat-8`.
pub const RELEASE: &str = include_str!("release.toml");

/// A running instance and its client.
pub struct Running {
    pub app: App,
    pub client: reqwest::Client,
    pub dir: tempfile::TempDir,
}

impl Running {
    pub async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let config = Config::on_free_ports(dir.path().join("data"));
        Self {
            app: App::start(config, wall_clock()).await.unwrap(),
            client: client(),
            dir,
        }
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.app.addresses.http)
    }

    pub async fn get(&self, path: &str) -> (u16, Value) {
        let answer = self.client.get(self.url(path)).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub async fn text(&self, path: &str) -> String {
        let answer = self.client.get(self.url(path)).send().await.unwrap();
        answer.text().await.unwrap()
    }

    pub async fn post(&self, path: &str, body: Value) -> (u16, Value) {
        let answer = self.client.post(self.url(path)).json(&body).send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    pub async fn declare(&self, kind: &str, body: String) -> (u16, Value) {
        let request = self
            .client
            .post(self.url("/api/v1/releases"))
            .header("content-type", kind)
            .body(body);
        let answer = request.send().await.unwrap();
        (answer.status().as_u16(), answer.json().await.unwrap())
    }

    /// An order of `ann` about `chat-8`.
    pub async fn order(&self, command: &str, reason: &str) -> (u16, Value) {
        let path = format!("/api/v1/releases/chat-8/{command}");
        self.post(&path, json!({ "actor": "ann", "reason": reason })).await
    }

    /// A command against this server, as a person runs it.
    pub async fn cli(&self, args: &[&str]) -> (bool, String, String) {
        let server = self.url("");
        self.run(&[args, &["--server", &server]].concat()).await
    }

    /// A command in this instance's directory: whether it succeeded, and what it printed.
    pub async fn run(&self, args: &[&str]) -> (bool, String, String) {
        let mut command = tracegate(self.dir.path());
        command.args(args).env("COLUMNS", "120");
        let run = tokio::task::spawn_blocking(move || command.output().unwrap());
        let output: Output = run.await.unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.success(), text(output.stdout), text(output.stderr))
    }
}
