//! A server of one's own: free ports, a folder that goes away, and the count of what it stored.

use crate::Failure;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

const START_S_MAX: u64 = 30;
const ANSWER_S_MAX: u64 = 60;

/// A running server; stopped and its folder removed on drop.
pub(crate) struct Served {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    /// Where tracegate answers questions; a peer does not.
    pub(crate) api: Option<SocketAddr>,
    folder: PathBuf,
    process: Child,
}

impl Served {
    pub(crate) fn tracegate(
        binary: &Path,
        config: Option<&Path>,
        folder: &Path,
        cpu: Option<usize>,
    ) -> Result<Self, Failure> {
        let [grpc, http, api] = free_addresses()?;
        let mut command = pinned(binary, cpu);
        command.arg("serve");
        for (key, address) in [("--otlp-grpc", grpc), ("--otlp-http", http), ("--http", api)] {
            command.args([key, &address.to_string()]);
        }
        if let Some(config) = config {
            command.arg("--config").arg(config);
        }
        Self::start(command, folder, [grpc, http], Some(api))
    }

    /// An agent that decodes what it is sent and drops it.
    pub(crate) fn rotel(binary: &Path, folder: &Path, cpu: Option<usize>) -> Result<Self, Failure> {
        let [grpc, http, _] = free_addresses()?;
        let mut command = pinned(binary, cpu);
        command.args(["start", "--exporter", "blackhole"]);
        command.args(["--otlp-grpc-endpoint", &grpc.to_string()]);
        command.args(["--otlp-http-endpoint", &http.to_string()]);
        Self::start(command, folder, [grpc, http], None)
    }

    fn start(
        mut command: Command,
        folder: &Path,
        [grpc, http]: [SocketAddr; 2],
        api: Option<SocketAddr>,
    ) -> Result<Self, Failure> {
        let folder = folder.join(format!("loadgen-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let log = std::fs::File::create(folder.join("server.log"))?;
        if api.is_some() {
            command.arg("--data-dir").arg(folder.join("data"));
        }
        command.stdout(log.try_clone()?).stderr(log);
        let process = command
            .spawn()
            .map_err(|error| format!("{}: {error}", command.get_program().display()))?;
        let mut served = Self {
            grpc,
            http,
            api,
            folder,
            process,
        };
        let began = Instant::now();
        while !served.is_ready() {
            if served.process.try_wait()?.is_some() || began.elapsed() > Duration::from_secs(START_S_MAX) {
                let log = std::fs::read_to_string(served.folder.join("server.log"))?;
                return Err(format!("the server did not get ready:\n{log}").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(served)
    }

    fn is_ready(&self) -> bool {
        match self.api {
            Some(_) => self
                .ask("GET", "/readyz", "")
                .is_ok_and(|answer| answer.starts_with("HTTP/1.0 200")),
            None => TcpStream::connect(self.grpc).is_ok(),
        }
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Rows of `spans`: what was acknowledged must be there. `None` of a peer.
    pub(crate) fn count_spans(&self) -> Result<Option<u64>, Failure> {
        if self.api.is_none() {
            return Ok(None);
        }
        // Visible within a second of the ack.
        std::thread::sleep(Duration::from_secs(1));
        let answer = self.ask("POST", "/api/v1/sql", r#"{"sql":"SELECT count(*) FROM spans"}"#)?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let rows: serde_json::Value = serde_json::from_str(body).map_err(|error| format!("{error}: {answer}"))?;
        let count = rows["rows"][0][0].as_u64();
        count.map(Some).ok_or_else(|| format!("no count in {rows}").into())
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<String, Failure> {
        ask(self.api.ok_or("a peer answers no questions")?, method, path, body)
    }
}

/// One request and the whole answer, head and body.
pub(crate) fn ask(api: SocketAddr, method: &str, path: &str, body: &str) -> Result<String, Failure> {
    let mut socket = TcpStream::connect(api)?;
    socket.set_read_timeout(Some(Duration::from_secs(ANSWER_S_MAX)))?;
    // HTTP/1.0: the answer comes without chunks.
    write!(
        socket,
        "{method} {path} HTTP/1.0\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n\r\n{body}",
        api,
        body.len()
    )?;
    let mut answer = String::new();
    socket.read_to_string(&mut answer)?;
    Ok(answer)
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The program, on one core alone if one is named.
fn pinned(binary: &Path, cpu: Option<usize>) -> Command {
    let Some(cpu) = cpu else {
        return Command::new(binary);
    };
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", &cpu.to_string()]).arg(binary);
    command
}

/// Three ports that nobody listens on, held open together so that they differ.
fn free_addresses() -> Result<[SocketAddr; 3], Failure> {
    let bind = || TcpListener::bind("127.0.0.1:0");
    let listeners = [bind()?, bind()?, bind()?];
    Ok([
        listeners[0].local_addr()?,
        listeners[1].local_addr()?,
        listeners[2].local_addr()?,
    ])
}
