//! Webhook addresses from anywhere: what is accepted says plainly where it goes.
#![no_main]

use gates::webhook::{address::Guard, parse_url};
use std::net::IpAddr;
use url::Host;

libfuzzer_sys::fuzz_target!(|text: &str| {
    let Ok(url) = parse_url(text) else {
        return;
    };
    assert!(matches!(url.scheme(), "http" | "https"));
    assert!(url.username().is_empty() && url.password().is_none());
    assert_eq!(parse_url(url.as_str()).as_ref(), Ok(&url));
    let ip: IpAddr = match url.host() {
        Some(Host::Ipv4(ip)) => ip.into(),
        Some(Host::Ipv6(ip)) => ip.into(),
        Some(Host::Domain(_)) => return,
        None => panic!("{url} has no host"),
    };
    let guard = Guard::default();
    let inside = match ip.to_canonical() {
        IpAddr::V4(ip) => ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified(),
        IpAddr::V6(ip) => ip.is_loopback() || ip.is_unspecified() || ip.is_unique_local() || ip.is_unicast_link_local(),
    };
    assert!(!inside || guard.check(ip, false).is_err(), "{url}");
    assert!(guard.check(ip, true).is_err(), "plain http to {url}");
});
