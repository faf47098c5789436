//! A server of one's own: free ports, a folder that goes away, and the count of what it stored.

use crate::Failure;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const START_S_MAX: u64 = 30;
const ANSWER_S_MAX: u64 = 60;

/// A running server; stopped and its folder removed on drop.
pub(crate) struct Served {
    pub(crate) grpc: SocketAddr,
    pub(crate) http: SocketAddr,
    api: SocketAddr,
    folder: PathBuf,
    process: Child,
}

impl Served {
    pub(crate) fn start(binary: &Path, folder: &Path) -> Result<Self, Failure> {
        let folder = folder.join(format!("loadgen-{}", std::process::id()));
        std::fs::create_dir_all(&folder)?;
        let [grpc, http, api] = free_addresses()?;
        let log = std::fs::File::create(folder.join("server.log"))?;
        let process = Command::new(binary)
            .arg("serve")
            .arg("--data-dir")
            .arg(folder.join("data"))
            .args([
                "--otlp-grpc",
                &grpc.to_string(),
                "--otlp-http",
                &http.to_string(),
                "--http",
                &api.to_string(),
            ])
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .map_err(|error| format!("{}: {error}", binary.display()))?;
        let mut served = Self {
            grpc,
            http,
            api,
            folder,
            process,
        };
        let began = Instant::now();
        while !served
            .ask("GET", "/readyz", "")
            .is_ok_and(|answer| answer.starts_with("HTTP/1.0 200"))
        {
            if served.process.try_wait()?.is_some() || began.elapsed() > Duration::from_secs(START_S_MAX) {
                let log = std::fs::read_to_string(served.folder.join("server.log"))?;
                return Err(format!("the server did not get ready:\n{log}").into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(served)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Rows of `spans`: what was acknowledged must be there.
    pub(crate) fn count_spans(&self) -> Result<u64, Failure> {
        // Visible within a second of the ack.
        std::thread::sleep(Duration::from_secs(1));
        let answer = self.ask("POST", "/api/v1/sql", r#"{"sql":"SELECT count(*) FROM spans"}"#)?;
        let body = answer.split_once("\r\n\r\n").map_or("", |(_, body)| body);
        let rows: serde_json::Value = serde_json::from_str(body).map_err(|error| format!("{error}: {answer}"))?;
        rows["rows"][0][0]
            .as_u64()
            .ok_or_else(|| format!("no count in {rows}").into())
    }

    fn ask(&self, method: &str, path: &str, body: &str) -> Result<String, Failure> {
        let mut socket = TcpStream::connect(self.api)?;
        socket.set_read_timeout(Some(Duration::from_secs(ANSWER_S_MAX)))?;
        // HTTP/1.0: the answer comes without chunks.
        write!(
            socket,
            "{method} {path} HTTP/1.0\r\nhost: {}\r\nconnection: close\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{body}",
            self.api,
            body.len()
        )?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
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
