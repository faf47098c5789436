//! The real binary as a child process: killed, stopped, and started again on the same directory.

use crate::otlp::{client, eventually, export, sql, trace};
use serde_json::json;
use std::{
    io::{BufRead, BufReader},
    net::{SocketAddr, TcpListener},
    path::Path,
    process::{Child, Command, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

/// Longest wait for the child to serve; a debug build on a busy machine is slow.
const READY_WITHIN: Duration = Duration::from_secs(60);

pub fn tracegate(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tracegate"));
    command
        .current_dir(dir)
        .env_remove("TRACEGATE_LOG")
        .env("NO_COLOR", "1")
        .stdin(Stdio::null());
    command
}

/// A running `tracegate serve`; dropping it kills it as a power cut would.
pub struct Served {
    child: Child,
    lines: mpsc::Receiver<String>,
    pub otlp_grpc: SocketAddr,
    pub otlp_http: SocketAddr,
    pub http: SocketAddr,
}

impl Served {
    pub fn start(dir: &Path) -> Self {
        Self::start_with(dir, &[])
    }

    /// With more flags.
    pub fn start_with(dir: &Path, flags: &[&str]) -> Self {
        let mut command = tracegate(dir);
        command.arg("serve").args(flags);
        Self::spawn(command)
    }

    /// A command that serves, on free ports.
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command
            .args(["--otlp-grpc", "127.0.0.1:0"])
            .args(["--otlp-http", "127.0.0.1:0"])
            .args(["--http", "127.0.0.1:0"])
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (lines_in, lines) = mpsc::channel();
        let stderr = BufReader::new(child.stderr.take().unwrap());
        thread::spawn(move || {
            stderr
                .lines()
                .map_while(Result::ok)
                .for_each(|line| _ = lines_in.send(line))
        });
        let (mut otlp_grpc, mut otlp_http, mut http) = (None, None, None);
        let begun = Instant::now();
        while otlp_grpc.is_none() || otlp_http.is_none() || http.is_none() {
            let line = lines
                .recv_timeout(READY_WITHIN.saturating_sub(begun.elapsed()))
                .unwrap();
            let after = |word: &str| -> Option<SocketAddr> {
                let rest = line.split_once(word)?.1;
                rest.split([',', ' ']).next()?.parse().ok()
            };
            otlp_grpc = otlp_grpc.or_else(|| after("OTLP gRPC "));
            otlp_http = otlp_http.or_else(|| after("OTLP HTTP "));
            http = http.or_else(|| after("API http://"));
        }
        Self {
            child,
            lines,
            otlp_grpc: otlp_grpc.unwrap(),
            otlp_http: otlp_http.unwrap(),
            http: http.unwrap(),
        }
    }

    /// Waits for a line of the log with these words, and gives it and those before it.
    pub fn said(&self, words: &str) -> Vec<String> {
        let begun = Instant::now();
        let mut lines = Vec::new();
        while lines.last().is_none_or(|line: &String| !line.contains(words)) {
            match self.lines.recv_timeout(READY_WITHIN.saturating_sub(begun.elapsed())) {
                Ok(line) => lines.push(line),
                Err(error) => panic!("{words} was not said ({error}), but {lines:#?}"),
            }
        }
        lines
    }

    /// Waits for its end; true if that was with 0.
    pub fn ended_well(&mut self) -> bool {
        self.child.wait().unwrap().success()
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(i32::try_from(self.child.id()).unwrap()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        _ = self.child.kill();
        _ = self.child.wait();
    }
}

/// `KILLS=n` kills more often.
#[tokio::test(flavor = "multi_thread")]
async fn a_kill_loses_nothing_acknowledged_and_counts_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let client = client();
    let mut acked = 0_u64;
    let mut last = Vec::new();
    let kills = std::env::var("KILLS").map_or(8, |kills| kills.parse().unwrap());
    for round in 0..kills {
        let served = Served::start(dir.path());
        for n in 0..40 {
            let body = trace(round * 1_000 + n, "blue");
            if n < 30 {
                assert!(export(&client, served.otlp_http, body.clone()).await);
                acked += 1;
                last = body;
            } else {
                // In flight when the kill comes: may be kept or not, and is sent again afterwards.
                let (client, to) = (client.clone(), served.otlp_http);
                tokio::spawn(async move { export(&client, to, body).await });
            }
        }
        drop(served);
        let served = Served::start(dir.path());
        assert!(
            export(&client, served.otlp_http, last.clone()).await,
            "sent again, acknowledged again"
        );
        let rows = sql(
            &client,
            served.http,
            "SELECT count(*), count(DISTINCT span_id || trace_id) FROM spans",
        )
        .await;
        let (rows, distinct) = (rows[0][0].as_u64().unwrap(), rows[0][1].as_u64().unwrap());
        assert!(rows >= acked * 2, "{rows} rows of at least {acked} traces");
        assert_eq!(rows, distinct, "no span twice");
        acked = rows / 2;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ctrl_c_seals_and_exits_with_zero() {
    let dir = tempfile::tempdir().unwrap();
    let client = client();
    let mut served = Served::start(dir.path());
    assert!(export(&client, served.otlp_http, trace(1, "green")).await);
    eventually(
        &client,
        served.http,
        "SELECT count(*) FROM spans",
        json!([[2]]),
        Duration::from_secs(1),
    )
    .await;
    let begun = Instant::now();
    served.signal(rustix::process::Signal::INT);
    let status = served.child.wait().unwrap();
    assert!(status.success(), "{status}");
    assert!(begun.elapsed() < Duration::from_secs(10), "{:?}", begun.elapsed());
    assert!(dir.path().join("tracegate-data/spans/color=green").is_dir());
    let answer = tracegate(dir.path())
        .args([
            "sql",
            "--data-dir",
            "tracegate-data",
            "--format",
            "csv",
            "SELECT color, count(*) AS n FROM spans GROUP BY color",
        ])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8(answer.stdout).unwrap().replace("\r\n", "\n"),
        "color,n\ngreen,2\n"
    );
}

#[test]
fn a_taken_port_says_which_and_how_to_change_it() {
    let dir = tempfile::tempdir().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap().to_string();
    let refused = tracegate(dir.path())
        .args([
            "serve",
            "--otlp-grpc",
            "127.0.0.1:0",
            "--http",
            "127.0.0.1:0",
            "--otlp-http",
            &address,
        ])
        .output()
        .unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8(refused.stderr).unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    for word in [port.as_str(), "--otlp-http", "otlp_http", "[server]"] {
        assert!(said.contains(word), "{word} is not in {said}");
    }
    assert!(!dir.path().join("tracegate-data").exists(), "nothing was touched");
}

#[test]
fn a_bind_beyond_this_machine_is_refused_unless_it_is_meant() {
    let dir = tempfile::tempdir().unwrap();
    let refused = tracegate(dir.path())
        .args(["serve", "--http", "0.0.0.0:0"])
        .output()
        .unwrap();
    assert!(!refused.status.success());
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("--insecure"), "{said}");
}
