//! The commands' way to a running server.

use clap::Args;
use reqwest::{Method, StatusCode, header};
use serde_json::Value;
use std::{sync::Once, time::Duration};

/// Where the server is by default.
pub const SERVER_DEFAULT: &str = "http://127.0.0.1:4320";
/// A command waits this long for a connection.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// And this long for an answer; longer than a query may take.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(60);

/// Which server a command talks to.
#[derive(Debug, Args)]
pub struct ServerArgs {
    /// Address of the server's API
    #[arg(long, value_name = "URL", env = "TRACEGATE_SERVER", hide_env_values = true, default_value = SERVER_DEFAULT)]
    pub server: String,
}

/// Why the server gave no answer.
#[derive(Debug, thiserror::Error, miette::Diagnostic)]
pub enum ClientError {
    /// The address cannot be used.
    #[error("`{0}` is no address of a server")]
    #[diagnostic(help("write it as in --server http://127.0.0.1:4320"))]
    Address(String),
    /// No client could be made.
    #[error("cannot make an HTTP client: {0}")]
    Setup(reqwest::Error),
    /// Nobody there.
    #[error("no tracegate server answers at {server}")]
    #[diagnostic(help("start one with `tracegate serve`, or name another with --server URL"))]
    Unreachable {
        /// Address tried.
        server: String,
    },
    /// It took too long.
    #[error("{server} did not answer within {} s", ANSWER_TIMEOUT.as_secs())]
    #[diagnostic(help("ask for less, or look at the server's log"))]
    TimedOut {
        /// Address.
        server: String,
    },
    /// It answered with an error of its own.
    #[error("{message}")]
    Refused {
        /// HTTP status.
        status: StatusCode,
        /// Its words.
        message: String,
    },
    /// Somebody else answered.
    #[error("{server} answered with something that is not tracegate's: {cause}")]
    #[diagnostic(help("does another program listen there? name tracegate's API port with --server URL"))]
    Foreign {
        /// Address.
        server: String,
        /// What was wrong with it.
        cause: String,
    },
}

/// An HTTP client with the server's address.
#[derive(Debug, Clone)]
pub struct Client {
    server: String,
    http: reqwest::Client,
}

impl Client {
    /// For the server that the arguments name.
    ///
    /// # Errors
    /// If the address is none.
    pub fn new(args: &ServerArgs) -> Result<Self, ClientError> {
        let server = args.server.trim_end_matches('/').to_owned();
        let address = || ClientError::Address(args.server.clone());
        let url = reqwest::Url::parse(&server).map_err(|_| address())?;
        if !matches!(url.scheme(), "http" | "https") || !url.has_host() {
            return Err(address());
        }
        let http = http_client(ANSWER_TIMEOUT)?;
        Ok(Self { server, http })
    }

    /// `GET`, answered in JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn get(&self, path: &str) -> Result<Value, ClientError> {
        let answer = self.send(self.http.request(Method::GET, self.url(path))).await?;
        self.json(answer).await
    }

    /// `GET`, answered as it is.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn text(&self, path: &str) -> Result<String, ClientError> {
        let answer = self.send(self.http.request(Method::GET, self.url(path))).await?;
        answer.text().await.map_err(|e| self.foreign(&e))
    }

    /// `POST` of JSON, answered in JSON.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post(&self, path: &str, body: &Value) -> Result<Value, ClientError> {
        let answer = self
            .send(self.http.request(Method::POST, self.url(path)).json(body))
            .await?;
        self.json(answer).await
    }

    /// `POST` of JSON, answered in the format asked for.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn post_for(&self, path: &str, body: &Value, accept: &str) -> Result<Vec<u8>, ClientError> {
        let request = self
            .http
            .request(Method::POST, self.url(path))
            .json(body)
            .header(header::ACCEPT, accept);
        let answer = self.send(request).await?;
        Ok(answer.bytes().await.map_err(|e| self.foreign(&e))?.to_vec())
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.server)
    }

    async fn send(&self, request: reqwest::RequestBuilder) -> Result<reqwest::Response, ClientError> {
        let answer = request.send().await.map_err(|error| {
            if error.is_connect() {
                ClientError::Unreachable {
                    server: self.server.clone(),
                }
            } else if error.is_timeout() {
                ClientError::TimedOut {
                    server: self.server.clone(),
                }
            } else {
                self.foreign(&error)
            }
        })?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer);
        }
        let body = answer.bytes().await.unwrap_or_default();
        let message = serde_json::from_slice::<Value>(&body)
            .ok()
            .and_then(|v| Some(v.get("error")?.as_str()?.to_owned()));
        Err(match message {
            Some(message) => ClientError::Refused { status, message },
            None => ClientError::Foreign {
                server: self.server.clone(),
                cause: format!("HTTP status {status}"),
            },
        })
    }

    async fn json(&self, answer: reqwest::Response) -> Result<Value, ClientError> {
        answer.json().await.map_err(|e| self.foreign(&e))
    }

    fn foreign(&self, error: &reqwest::Error) -> ClientError {
        ClientError::Foreign {
            server: self.server.clone(),
            cause: error.to_string(),
        }
    }
}

/// A client that goes straight to the server: no proxy, no redirects.
///
/// # Errors
/// If TLS can't be set up.
pub fn http_client(timeout: Duration) -> Result<reqwest::Client, ClientError> {
    static CRYPTO: Once = Once::new();
    CRYPTO.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
    reqwest::Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .connect_timeout(CONNECT_TIMEOUT)
        .timeout(timeout)
        .build()
        .map_err(ClientError::Setup)
}
