//! Who may talk to a port that asks for no credential: a web page must not.
//!
//! A page on any site can make its visitor's browser send requests to loopback. With a name that resolves to
//! 127.0.0.1 it could even read the answers (DNS rebinding); without, it could still post an order. Both show:
//! the first in `Host`, the second in `Origin`. A rebinding attack needs a *name*, so numeric hosts are always fine.

use super::{Api, error::ApiError};
use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, StatusCode, header, uri::Authority};
use std::{net::IpAddr, sync::Arc};

/// Names under which the API may be reached.
#[derive(Debug, Clone, Default)]
pub struct Hosts {
    names: Vec<String>,
}

impl Hosts {
    /// `localhost`, every address, and `names`.
    #[must_use]
    pub fn new(names: impl IntoIterator<Item = String>) -> Self {
        Self {
            names: names.into_iter().map(|name| name.to_ascii_lowercase()).collect(),
        }
    }

    /// Whether a request that names this authority is meant for us.
    fn allow(&self, authority: &str) -> bool {
        let Ok(authority) = authority.parse::<Authority>() else {
            return false;
        };
        let host = authority.host();
        let bare = host.trim_start_matches('[').trim_end_matches(']');
        host.eq_ignore_ascii_case("localhost")
            || bare.parse::<IpAddr>().is_ok()
            || self.names.iter().any(|name| host.eq_ignore_ascii_case(name))
    }

    fn check(&self, authority: Option<&str>, headers: &HeaderMap) -> Result<(), ApiError> {
        let host = authority.or_else(|| headers.get(header::HOST)?.to_str().ok());
        let Some(host) = host.filter(|host| self.allow(host)) else {
            let message = "this name is not one the API is reached by; use its address, or add the name to `hosts` under [server]";
            return Err(ApiError::new(StatusCode::MISDIRECTED_REQUEST, message));
        };
        let Some(origin) = headers.get(header::ORIGIN) else {
            return Ok(());
        };
        let page = origin
            .to_str()
            .ok()
            .and_then(|origin| Some(origin.split_once("://")?.1));
        if page.is_some_and(|page| page.eq_ignore_ascii_case(host)) {
            Ok(())
        } else {
            Err(ApiError::new(
                StatusCode::FORBIDDEN,
                "requests from web pages of other sites are refused",
            ))
        }
    }
}

/// Refuses requests that a web page may have caused.
pub async fn guard(State(api): State<Arc<Api>>, request: Request, next: Next) -> Response {
    let authority = request.uri().authority().map(Authority::as_str);
    let checked = api.hosts.borrow().check(authority, request.headers());
    match checked {
        Ok(()) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(host: Option<&str>, origin: Option<&str>) -> u16 {
        let mut headers = HeaderMap::new();
        if let Some(host) = host {
            headers.insert(header::HOST, host.parse().unwrap());
        }
        if let Some(origin) = origin {
            headers.insert(header::ORIGIN, origin.parse().unwrap());
        }
        let hosts = Hosts::new(["Tracegate.internal".to_owned()]);
        hosts.check(None, &headers).map_or_else(|e| e.status.as_u16(), |()| 200)
    }

    #[test]
    fn names_that_nobody_configured_are_refused() {
        for host in [
            "localhost:4320",
            "127.0.0.1:4320",
            "[::1]:4320",
            "10.1.2.3",
            "tracegate.INTERNAL:4320",
        ] {
            assert_eq!(status(Some(host), None), 200, "{host}");
        }
        for host in [
            None,
            Some(""),
            Some("evil.example"),
            Some("127.0.0.1.evil.example:4320"),
            Some("localhost.evil.example"),
        ] {
            assert_eq!(status(host, None), 421, "{host:?}");
        }
    }

    #[test]
    fn pages_of_other_sites_cannot_post() {
        assert_eq!(status(Some("127.0.0.1:4320"), Some("http://127.0.0.1:4320")), 200);
        for origin in [
            "https://evil.example",
            "http://203.0.113.5:4320",
            "http://127.0.0.1:8080",
            "null",
            "file://",
        ] {
            assert_eq!(status(Some("127.0.0.1:4320"), Some(origin)), 403, "{origin}");
        }
    }
}
