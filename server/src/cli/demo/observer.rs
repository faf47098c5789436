//! The demo's view of the server: over HTTP, as anyone would look at it.

use miette::{IntoDiagnostic, WrapErr, miette};
use proto::{Nanos, decision::VerdictReport};
use serde_json::{Value, json};
use std::{net::SocketAddr, time::Duration};

/// A client of the API.
pub struct Observer {
    http: reqwest::Client,
    base: String,
}

impl Observer {
    /// # Errors
    /// If the HTTP client can't be made.
    pub fn new(api: SocketAddr) -> miette::Result<Self> {
        let http = crate::cli::http_client(Duration::from_secs(10))?;
        Ok(Self {
            http,
            base: format!("http://{api}"),
        })
    }

    /// The verdict endpoint's answer.
    ///
    /// # Errors
    /// If the API doesn't answer as documented.
    pub async fn verdict(&self, release: &str) -> miette::Result<VerdictReport> {
        let url = format!("{}/api/v1/releases/{release}/verdict", self.base);
        let answer = self
            .http
            .get(url)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .into_diagnostic()?;
        answer
            .json()
            .await
            .into_diagnostic()
            .wrap_err("the verdict endpoint answered something else")
    }

    /// Blue and green requests of the release that came in after `since`. Spans below a request are not counted: those
    /// of a request that was under way may well start later.
    ///
    /// # Errors
    /// If the query fails.
    pub async fn requests_since(&self, release: &str, since: Nanos) -> miette::Result<[i64; 2]> {
        let sql = format!(
            "SELECT count(*) FILTER (WHERE color = 'blue'), count(*) FILTER (WHERE color = 'green') FROM spans \
             WHERE role = 'server' AND release = '{release}' AND start_time > to_timestamp_nanos({})",
            since.0
        );
        let url = format!("{}/api/v1/sql", self.base);
        let answer: Value = self
            .http
            .post(url)
            .json(&json!({ "sql": sql }))
            .send()
            .await
            .into_diagnostic()?
            .json()
            .await
            .into_diagnostic()?;
        let count = |i: usize| {
            answer["rows"][0][i]
                .as_i64()
                .ok_or_else(|| miette!("the SQL endpoint answered {answer}"))
        };
        Ok([count(0)?, count(1)?])
    }
}
