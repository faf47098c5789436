//! One attempt to hand a notice to a gateway: address checked, body signed, answer read. The only HTTP client of gates.
//!
//! Everything that may be repeated (schedule, order, superseding) is the outbox's; this room knows one attempt.

pub mod address;

use address::{Guard, Refusal};
use proto::{
    Nanos,
    decision::{NOTICE_BYTES_MAX, Notice, WebhookBody},
    signature::{HEADER_ID, HEADER_SIGNATURE, HEADER_TIMESTAMP, Secret},
};
use reqwest::{
    Client, StatusCode,
    dns::{Addrs, Name, Resolve, Resolving},
    redirect::Policy,
};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use url::{Host, Url};

/// How long one attempt may take, connection included.
pub const ATTEMPT_TIMEOUT: Duration = Duration::from_secs(10);
/// Longest wait that a `Retry-After` can ask for: a rollback must not be put off for a day.
pub const RETRY_AFTER_MAX: Duration = Duration::from_secs(300);

/// Where secrets come from, given by the server: environment or file, by the names in the release. The text of an error
/// must not hold the secret. Several secrets sign every notice, so that keys can rotate.
pub type SecretSource = Arc<dyn Fn(&proto::release::WebhookSpec) -> Result<Vec<Secret>, String> + Send + Sync>;

/// A signed-to-be request, as the ledger keeps it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Envelope {
    /// `webhook-id`, the same on every attempt.
    pub id: String,
    /// Receiver.
    pub url: String,
    /// Exact body bytes, the same on every attempt.
    pub body: String,
}

/// How an attempt ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// 2xx.
    Accepted(u16),
    /// To be tried again, not before the given wait if there is one.
    Failed {
        /// HTTP status, if there was an answer.
        status: Option<u16>,
        /// In words, without secrets.
        error: String,
        /// What the receiver asked for.
        retry_after: Option<Duration>,
    },
    /// 410: the receiver wants no more.
    Gone,
}

/// Checks the form of a webhook URL. Addresses are checked later, at each attempt.
///
/// # Errors
/// What is wrong with it, in words.
pub fn parse_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|e| format!("the webhook url cannot be read: {e}"))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err(format!("a webhook url begins with https://, not {}://", url.scheme()));
    }
    if url.host().is_none() {
        return Err("the webhook url names no host".to_owned());
    }
    if !url.username().is_empty() || url.password().is_some() {
        return Err("a webhook url must not hold a user name or password".to_owned());
    }
    Ok(url)
}

/// The body of a notice, under [`NOTICE_BYTES_MAX`]: gates are cut from the end of the list until it fits.
#[must_use]
pub fn body(notice: &Notice) -> String {
    let mut whole = WebhookBody {
        kind: notice.action.event_type().to_owned(),
        timestamp: notice.decided_at.clone(),
        data: notice.clone(),
    };
    loop {
        let text = serde_json::to_string(&whole).unwrap_or_default();
        if text.len() < NOTICE_BYTES_MAX || whole.data.gates.is_empty() {
            return text;
        }
        // a report is a few hundred bytes, so this takes a handful of rounds
        let keep = whole.data.gates.len() * 3 / 4;
        whole.data.gates.truncate(keep);
    }
}

/// Sends envelopes.
pub struct Sender {
    guard: Guard,
    plain: Client,
    tls: Mutex<Option<Client>>,
}

impl Sender {
    /// A sender that obeys `guard`.
    ///
    /// # Errors
    /// If no HTTP client can be built.
    pub fn new(guard: Guard) -> Result<Self, String> {
        // someone else may have installed it, which is as good
        let _ = rustls::crypto::ring::default_provider().install_default();
        // without roots, so that plain http works on a machine without certificates
        let no_roots = rustls::ClientConfig::builder()
            .with_root_certificates(rustls::RootCertStore::empty())
            .with_no_client_auth();
        let plain = base(&guard, true)
            .tls_backend_preconfigured(no_roots)
            .build()
            .map_err(|e| chain(&e))?;
        Ok(Self {
            guard,
            plain,
            tls: Mutex::new(None),
        })
    }

    /// One attempt. `now` stamps and signs it.
    pub async fn attempt(&self, envelope: &Envelope, secrets: &[Secret], now: Nanos) -> Outcome {
        let failed = |error: String| Outcome::Failed {
            status: None,
            error,
            retry_after: None,
        };
        let url = match parse_url(&envelope.url) {
            Ok(url) => url,
            Err(e) => return failed(e),
        };
        let plain = url.scheme() == "http";
        if let Err(refusal) = self.check_literal(&url, plain) {
            return failed(refusal.to_string());
        }
        let client = match self.client(plain) {
            Ok(client) => client,
            Err(e) => return failed(format!("no TLS client: {e}")),
        };
        let at = now.0.div_euclid(1_000_000_000);
        let signatures: Vec<String> = secrets
            .iter()
            .map(|s| s.sign(&envelope.id, at, envelope.body.as_bytes()))
            .collect();
        let answer = client
            .post(url)
            .header("content-type", "application/json")
            .header(HEADER_ID, &envelope.id)
            .header(HEADER_TIMESTAMP, at)
            .header(HEADER_SIGNATURE, signatures.join(" "))
            .body(envelope.body.clone())
            .send()
            .await;
        match answer {
            Ok(response) => judged(&response, now),
            Err(e) => failed(chain(&e.without_url())),
        }
    }

    /// A literal address never meets the resolver, so it is checked here.
    fn check_literal(&self, url: &Url, plain: bool) -> Result<(), Refusal> {
        match url.host() {
            Some(Host::Ipv4(ip)) => self.guard.check(ip.into(), plain),
            Some(Host::Ipv6(ip)) => self.guard.check(ip.into(), plain),
            _ => Ok(()),
        }
    }

    fn client(&self, plain: bool) -> Result<Client, String> {
        if plain {
            return Ok(self.plain.clone());
        }
        let mut slot = self.tls.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = &*slot {
            return Ok(client.clone());
        }
        let client = base(&self.guard, false).build().map_err(|e| chain(&e))?;
        *slot = Some(client.clone());
        Ok(client)
    }
}

fn base(guard: &Guard, plain: bool) -> reqwest::ClientBuilder {
    Client::builder()
        .redirect(Policy::none())
        .no_proxy()
        .timeout(ATTEMPT_TIMEOUT)
        // a kept connection would skip the check of the next attempt
        .pool_max_idle_per_host(0)
        .user_agent(concat!("tracegate/", env!("CARGO_PKG_VERSION")))
        .dns_resolver(Arc::new(GuardedNames {
            guard: guard.clone(),
            plain,
        }))
}

/// Resolves names and refuses those that point, even in part, where nothing may be sent. What it returns is what the
/// connector connects to, so there is no second lookup to fool.
struct GuardedNames {
    guard: Guard,
    plain: bool,
}

impl Resolve for GuardedNames {
    fn resolve(&self, name: Name) -> Resolving {
        let guard = self.guard.clone();
        let plain = self.plain;
        Box::pin(async move {
            let found: Vec<SocketAddr> = tokio::net::lookup_host((name.as_str(), 0)).await?.collect();
            let good = sendable(&found, &guard, plain)?;
            Ok(Box::new(good.into_iter()) as Addrs)
        })
    }
}

/// The addresses of a name that may be connected to. One bad address refuses the whole name, since nobody knows which
/// the next lookup would give; only `localhost` may be half allowed, because it is two loopback addresses anyway.
fn sendable(found: &[SocketAddr], guard: &Guard, plain: bool) -> Result<Vec<SocketAddr>, Refusal> {
    let mut good = Vec::new();
    let mut skipped = None;
    for address in found {
        match guard.check(address.ip(), plain) {
            Ok(()) => good.push(*address),
            Err(Refusal::Private) if address.ip().is_loopback() => {
                skipped = Some(Refusal::Private);
            }
            Err(why) => return Err(why),
        }
    }
    match skipped {
        Some(why) if good.is_empty() || !good.iter().all(|a| a.ip().is_loopback()) => Err(why),
        _ => Ok(good),
    }
}

fn judged(response: &reqwest::Response, now: Nanos) -> Outcome {
    let status = response.status();
    if status.is_success() {
        return Outcome::Accepted(status.as_u16());
    }
    if status == StatusCode::GONE {
        return Outcome::Gone;
    }
    let throttles = matches!(status.as_u16(), 429 | 502 | 503 | 504);
    let retry_after = response
        .headers()
        .get("retry-after")
        .filter(|_| throttles)
        .and_then(|v| v.to_str().ok())
        .and_then(|v| retry_after(v, now));
    Outcome::Failed {
        status: Some(status.as_u16()),
        error: if status.is_redirection() {
            format!("answered {status}: redirects are not followed")
        } else {
            format!("answered {status}")
        },
        retry_after,
    }
}

/// `Retry-After` in seconds or as an HTTP date, at most [`RETRY_AFTER_MAX`].
fn retry_after(text: &str, now: Nanos) -> Option<Duration> {
    let wait = match text.trim().parse::<u64>() {
        Ok(secs) => Duration::from_secs(secs),
        Err(_) => {
            let at = chrono::DateTime::parse_from_rfc2822(text.trim()).ok()?;
            Nanos(at.timestamp_nanos_opt()?).since(now)
        }
    };
    Some(wait.min(RETRY_AFTER_MAX))
}

/// An error with its causes, since reqwest's own text stops at "error sending request".
fn chain(e: &dyn std::error::Error) -> String {
    let mut text = e.to_string();
    let mut source = e.source();
    while let Some(cause) = source {
        let more = cause.to_string();
        if !text.contains(&more) {
            text.push_str(": ");
            text.push_str(&more);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_is_read_in_both_forms_and_bounded() {
        let now = Nanos::from_secs(1_445_412_420);
        assert_eq!(retry_after("7", now), Some(Duration::from_secs(7)));
        assert_eq!(
            retry_after("Wed, 21 Oct 2015 07:28:00 GMT", now),
            Some(Duration::from_secs(60))
        );
        assert_eq!(retry_after("86400", now), Some(RETRY_AFTER_MAX));
        assert_eq!(retry_after("soon", now), None);
    }

    #[test]
    fn odd_urls_are_refused_by_form() {
        for url in [
            "ftp://gateway.example/x",
            "file:///etc/passwd",
            "gateway.example/hook",
            "https://",
            "https://user:pass@gateway.example/",
            "javascript:alert(1)",
            "unix:/run/x.sock",
        ] {
            assert!(parse_url(url).is_err(), "{url}");
        }
        assert!(parse_url("https://gateway.example/hooks/tracegate").is_ok());
    }

    #[test]
    fn a_name_that_points_inside_even_in_part_is_refused() {
        let guard = Guard::new(vec!["127.0.0.0/8".parse().unwrap()]);
        let found = |list: &[&str]| -> Vec<SocketAddr> { list.iter().map(|a| a.parse().unwrap()).collect() };
        let public = found(&["8.8.8.8:0", "[2606:4700::1111]:0"]);
        assert_eq!(sendable(&public, &guard, false), Ok(public.clone()));
        for bad in ["10.0.0.1:0", "169.254.169.254:0", "[::1]:0", "[::ffff:10.0.0.1]:0"] {
            let mixed = found(&["8.8.8.8:0", bad]);
            assert!(sendable(&mixed, &guard, false).is_err(), "{bad}");
        }
        let localhost = found(&["[::1]:0", "127.0.0.1:0"]);
        assert_eq!(sendable(&localhost, &guard, true), Ok(found(&["127.0.0.1:0"])));
        assert!(sendable(&localhost, &Guard::default(), true).is_err());
    }

    #[tokio::test]
    async fn addresses_in_disguise_are_refused_before_anything_is_sent() {
        let sender = Sender::new(Guard::default()).unwrap();
        let secret = [Secret::from_bytes(vec![1; 24]).unwrap()];
        for url in [
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://017700000001/",
            "https://127.1/",
            "https://[::1]/",
            "https://[::ffff:127.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[::ffff:a9fe:a9fe]/",
            "https://169.254.169.254/latest/meta-data/",
            "https://[fe80::1]/",
            "https://0/",
            "https://10.1.2.3/",
            "https://192.168.0.1/",
            "https://localhost/",
            "https://LOCALHOST:8443/",
            "https://localhost./",
            "https://\u{ff11}27.0.0.1/",
            "https://127\u{3002}0.0.1/",
            "http://8.8.8.8/",
        ] {
            let envelope = Envelope {
                id: "msg_1".into(),
                url: url.into(),
                body: "{}".into(),
            };
            let outcome = sender.attempt(&envelope, &secret, Nanos::ZERO).await;
            let Outcome::Failed { error, .. } = outcome else {
                panic!("{url} was sent to: {outcome:?}");
            };
            assert!(
                error.contains("addresses") || error.contains("lookup"),
                "{url}: {error}"
            );
        }
    }
}
