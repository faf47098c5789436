//! Which addresses a notice may be sent to.
//!
//! A webhook URL is text that a release file brings, so it must not become a way to reach what only this machine can
//! reach. Checked is the *address* that is about to be connected to, after name resolution and on every attempt: a name
//! may point elsewhere a second later.

use ipnet::IpNet;
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::{Arc, PoisonError, RwLock},
};

/// Why an address was refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Never allowed, whatever the allow list says.
    #[error("link-local, metadata, unspecified, multicast and reserved addresses are never sent to")]
    Never,
    /// Private or loopback, and not on the allow list.
    #[error("private and loopback addresses are sent to only if `[webhooks] allow` lists their network")]
    Private,
    /// Plain http to an address that is not on the allow list.
    #[error("plain http is used only to addresses that `[webhooks] allow` lists: use https")]
    Plain,
}

/// What `[webhooks] allow` permits. Clones share it, so that a change holds for whoever is about to send.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    allow: Arc<RwLock<Vec<IpNet>>>,
}

/// Addresses of cloud metadata services that do not lie in a range refused anyway: Alibaba, Oracle, Azure's host agent,
/// AWS over IPv6.
const METADATA_V4: [Ipv4Addr; 3] = [
    Ipv4Addr::new(100, 100, 100, 200),
    Ipv4Addr::new(192, 0, 0, 192),
    Ipv4Addr::new(168, 63, 129, 16),
];
const METADATA_V6: [Ipv6Addr; 2] = [
    Ipv6Addr::new(0xfd00, 0x0ec2, 0, 0, 0, 0, 0, 0x0254),
    Ipv6Addr::new(0xfd20, 0x00ce, 0, 0, 0, 0, 0, 0x0254),
];

impl Guard {
    /// A guard that lets through what `allow` lists, beside public addresses.
    #[must_use]
    pub fn new(allow: Vec<IpNet>) -> Self {
        Self {
            allow: Arc::new(RwLock::new(allow)),
        }
    }

    /// Permits this instead, from the next attempt on.
    pub fn set_allow(&self, allow: Vec<IpNet>) {
        *self.allow.write().unwrap_or_else(PoisonError::into_inner) = allow;
    }

    /// Whether the allow list covers `ip`.
    #[must_use]
    pub fn lists(&self, ip: IpAddr) -> bool {
        let ip = unwrapped(ip);
        let allow = self.allow.read().unwrap_or_else(PoisonError::into_inner);
        allow.iter().any(|net| net.contains(&ip))
    }

    /// Checks one address that is about to be connected to; `plain` means http without TLS.
    ///
    /// # Errors
    /// Why not.
    pub fn check(&self, ip: IpAddr, plain: bool) -> Result<(), Refusal> {
        let ip = unwrapped(ip);
        if never(ip) {
            return Err(Refusal::Never);
        }
        if self.lists(ip) {
            return Ok(());
        }
        if private(ip) {
            return Err(Refusal::Private);
        }
        if plain { Err(Refusal::Plain) } else { Ok(()) }
    }
}

/// The IPv4 address inside an IPv6 one (mapped, compatible, NAT64, 6to4), which is where the packets end up.
fn unwrapped(ip: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = ip else { return ip };
    let s = v6.segments();
    let v4 = |hi: u16, lo: u16| {
        let [a, b] = hi.to_be_bytes();
        let [c, d] = lo.to_be_bytes();
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match s {
        [0, 0, 0, 0, 0, 0xffff, hi, lo] => v4(hi, lo),
        // `::` and `::1` are addresses of their own
        [0, 0, 0, 0, 0, 0, hi, lo] if hi != 0 => v4(hi, lo),
        [0x64, 0xff9b, 0, 0, 0, 0, hi, lo] => v4(hi, lo),
        [0x2002, hi, lo, ..] => v4(hi, lo),
        _ => ip,
    }
}

fn never(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, c, _] = v4.octets();
            a == 0
                || v4.is_link_local()
                || v4.is_multicast()
                || a >= 240
                || (a, b, c) == (192, 0, 0)
                || METADATA_V4.contains(&v4)
        }
        IpAddr::V6(v6) => {
            let s = v6.segments();
            v6.is_unspecified()
                || v6.is_multicast()
                // link-local, and the retired site-local range
                || (0xfe80..=0xfeff).contains(&s[0])
                // Teredo hides an IPv4 address; discard-only, local NAT64 and documentation lead nowhere
                || (s[0] == 0x2001 && s[1] == 0)
                || (s[0] == 0x64 && s[1] == 0xff9b && s[2] == 1)
                || (s[0] == 0x100 && s[1] == 0)
                || METADATA_V6.contains(&v6)
        }
    }
}

fn private(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(v4) => {
            let [a, b, ..] = v4.octets();
            v4.is_private()
                || v4.is_loopback()
                || v4.is_documentation()
                // carrier-grade NAT, benchmarking
                || (a == 100 && (64..128).contains(&b))
                || (a == 198 && (18..20).contains(&b))
        }
        IpAddr::V6(v6) => {
            let s = v6.segments();
            v6.is_loopback() || (s[0] & 0xfe00) == 0xfc00 || (s[0] == 0x2001 && s[1] == 0xdb8)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_allow_list_never_opens_metadata() {
        let all = Guard::new(vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]);
        for ip in [
            "169.254.169.254",
            "169.254.170.2",
            "100.100.100.200",
            "168.63.129.16",
            "192.0.0.192",
            "fd00:ec2::254",
            "fe80::1",
            "::ffff:169.254.169.254",
            "64:ff9b::a9fe:a9fe",
            "2002:a9fe:a9fe::1",
            "::169.254.169.254",
            "0.0.0.0",
            "::",
            "224.0.0.1",
            "ff02::1",
            "255.255.255.255",
            "240.0.0.1",
            "2001:0:53aa:64c:0:0:0:1",
        ] {
            assert_eq!(all.check(ip.parse().unwrap(), false), Err(Refusal::Never), "{ip}");
        }
    }

    #[test]
    fn private_addresses_need_the_allow_list() {
        let none = Guard::default();
        let loopback = Guard::new(vec!["127.0.0.0/8".parse().unwrap()]);
        for ip in [
            "127.0.0.1",
            "127.8.9.1",
            "10.0.0.1",
            "172.16.0.1",
            "172.31.255.254",
            "192.168.1.1",
            "100.64.0.1",
            "198.18.0.1",
            "::1",
            "fc00::1",
            "fd12:3456::1",
            "::ffff:10.0.0.1",
            "64:ff9b::a00:1",
            "2002:7f00:1::",
            "2001:db8::1",
            "203.0.113.5",
        ] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(none.check(ip, false), Err(Refusal::Private), "{ip}");
        }
        for ip in ["127.0.0.1", "::ffff:127.0.0.1"] {
            assert_eq!(loopback.check(ip.parse().unwrap(), true), Ok(()), "{ip}");
        }
        assert_eq!(loopback.check("::1".parse().unwrap(), true), Err(Refusal::Private));
    }

    #[test]
    fn public_addresses_need_tls() {
        let none = Guard::default();
        for ip in ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111", "172.32.0.1"] {
            let ip: IpAddr = ip.parse().unwrap();
            assert_eq!(none.check(ip, false), Ok(()), "{ip}");
            assert_eq!(none.check(ip, true), Err(Refusal::Plain), "{ip}");
        }
    }
}
