//! Release files and webhook addresses that are almost right: no panic, every complaint at a place of the text, and what
//! is accepted is what was meant. The fuzz targets `releases` and `webhook` of `fuzz/` look further.
//!
//! `FUZZ_ROUNDS` asks for more.
#![allow(clippy::print_stderr)] // a random test always tells its seed

use super::check::GOOD;
use gates::{
    check::{Checked, check, check_files, check_json, check_spec, rules_hash},
    webhook::{
        address::{Guard, Refusal},
        parse_url,
    },
};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use url::Host;

/// Rounds of every test here.
const ROUNDS: u64 = 1_500;

/// Values that are of another kind, at an edge, or over it.
const ODD_VALUES: [&str; 28] = [
    "",
    "0",
    "-1",
    "-0.0",
    "nan",
    "inf",
    "-inf",
    "1e308",
    "1e-308",
    "9223372036854775807",
    "-9223372036854775808",
    "true",
    "[]",
    "{}",
    "[[]]",
    "[{}]",
    "{ green = 0.5, min = \"3653d\" }",
    "[{ green = 0.1, min = \"3653d\" }, { green = 0.2, min = \"3653d\" }, { green = 1.0, min = \"3653d\" }]",
    "\"\"",
    "\"\\u0000\"",
    "\"\u{202e}\u{1f9ea}\"",
    "\"3653d\"",
    "\"18446744073709551615s\"",
    "\"18446744073709551615y 18446744073709551615y\"",
    "\"1ns\"",
    "\"a@\"",
    "'''\n'''",
    "2026-11-29T00:00:00Z",
];
/// Lines that may stand anywhere.
const ODD_LINES: [&str; 12] = [
    "[[release]]",
    "[[release.gate]]",
    "[release]",
    "[release.gate]",
    "[defaults]",
    "[release.breaker]",
    "[release.quota]",
    "[release.green.match]",
    "sql = \"SELECT $release, $admitted_before\"",
    "paired = true",
    "mirror = \"3653d\"",
    "# \u{feff}",
];

/// One generator a round, and what repeats it.
fn each_round(mut round_of: impl FnMut(&mut ChaCha8Rng, &str)) {
    let seed = rand::random::<u64>();
    eprintln!("seed {seed}");
    let rounds = std::env::var("FUZZ_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    for round in 0..rounds {
        let mut dice = ChaCha8Rng::seed_from_u64(seed.wrapping_add(round));
        round_of(&mut dice, &format!("seed {seed} round {round}"));
    }
}

/// The file with one to four lines changed, and sometimes a few characters.
fn changed(text: &str, dice: &mut ChaCha8Rng) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..dice.random_range(1..=4) {
        let at = dice.random_range(0..lines.len());
        let from = dice.random_range(0..lines.len());
        match dice.random_range(0..6) {
            0 => lines[at] = lines[from].clone(),
            1 => lines.insert(at, lines[from].clone()),
            2 => lines.insert(at, (*ODD_LINES.choose(dice).unwrap()).to_owned()),
            3 if lines.len() > 1 => drop(lines.remove(at)),
            _ => {
                if let Some((key, _)) = lines[at].split_once('=') {
                    lines[at] = format!("{key}= {}", ODD_VALUES.choose(dice).unwrap());
                }
            }
        }
    }
    let mut text: Vec<char> = lines.join("\n").chars().collect();
    if dice.random_bool(0.3) {
        let at = dice.random_range(0..=text.len());
        let end = (at + dice.random_range(0..20)).min(text.len());
        let odd: Vec<char> = "\"'[]{}=.\\#\n\0\u{e9}\u{1f9ea}".chars().collect();
        drop(text.splice(
            at..end,
            (0..dice.random_range(0..4)).map(|_| *odd.choose(dice).unwrap()),
        ));
    }
    text.into_iter().collect()
}

/// Every complaint lies in the text; what is accepted is written down and read back as it is.
fn holds(checked: &Checked, text: &str, what: &str) {
    for problem in &checked.problems {
        assert!(problem.span.start <= problem.span.end, "{what}: {problem:?}");
        assert!(
            text.get(problem.span.clone()).is_some(),
            "{what}: {problem:?} of\n{text}"
        );
        assert!(problem.line(text) <= text.lines().count() + 1, "{what}: {problem:?}");
        assert!(
            !problem.message.is_empty() && !problem.help.is_empty(),
            "{what}: {problem:?}"
        );
    }
    assert!(checked.problems.is_empty() || checked.releases.is_empty(), "{what}");
    for release in &checked.releases {
        assert_eq!(check_spec(release), Ok(()), "{what}:\n{text}");
        assert_eq!(rules_hash(release).len(), 64);
    }
}

#[test]
fn changed_release_files_are_accepted_as_meant_or_refused_at_their_lines() {
    let (mut accepted, mut refused) = (0, 0);
    let mirrored = include_str!("../../../docs/examples/mirrored.toml");
    each_round(|dice, what| {
        let text = changed([GOOD, mirrored].choose(dice).unwrap(), dice);
        let checked = check(&text, "changed");
        accepted += checked.releases.len();
        refused += checked.problems.len();
        holds(&checked, &text, what);
        // two files: the same release twice can never be good
        let both = [("one".to_owned(), text.clone()), ("two".to_owned(), text.clone())];
        let twice = check_files(&both);
        assert!(checked.releases.is_empty() || !twice.problems.is_empty(), "{what}");
        if let Ok(table) = toml::from_str::<toml::Table>(&text)
            && let Some(release) = table.get("release").and_then(|releases| releases.get(0))
        {
            let json = serde_json::to_value(release).unwrap();
            for release in &check_json(&json).releases {
                assert_eq!(check_spec(release), Ok(()), "{what}: {json}");
            }
        }
    });
    assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused");
}

#[test]
fn json_from_anywhere_is_no_release() {
    each_round(|dice, _| {
        let value = json(dice, 0);
        assert!(check_json(&value).releases.is_empty(), "{value}");
    });
}

fn json(dice: &mut ChaCha8Rng, depth: u32) -> serde_json::Value {
    let keys = [
        "route", "id", "gate", "steps", "blue", "green", "webhook", "defaults", "", "a.b", "\n",
    ];
    match dice.random_range(0..if depth > 4 { 5 } else { 7 }) {
        0 => serde_json::Value::Null,
        1 => dice.random::<u64>().into(),
        2 => dice.random::<i64>().into(),
        3 => f64::from_bits(dice.random()).into(),
        4 => (*ODD_VALUES.choose(dice).unwrap()).into(),
        5 => (0..dice.random_range(0..4)).map(|_| json(dice, depth + 1)).collect(),
        _ => (0..dice.random_range(0..6))
            .map(|_| ((*keys.choose(dice).unwrap()).to_owned(), json(dice, depth + 1)))
            .collect(),
    }
}

/// Ways to write the address that browsers understand, and some that they do not.
fn spelled(ip: Ipv4Addr, dice: &mut ChaCha8Rng) -> String {
    let [a, b, c, d] = ip.octets();
    let whole = u32::from(ip);
    match dice.random_range(0..10) {
        0 => whole.to_string(),
        1 => format!("{whole:#x}"),
        2 => format!("0{whole:o}"),
        3 => format!("{a:#x}.{b}.0{c:o}.{d}"),
        4 => format!("{a}.{}", whole & 0xff_ffff),
        5 => format!("{a}.{b}.{}", whole & 0xffff),
        6 => format!("{ip}."),
        7 => ip.to_string().replace('.', "\u{3002}"),
        8 => format!("[::ffff:{ip}]"),
        _ => ip.to_string(),
    }
}

#[test]
fn an_address_is_judged_the_same_however_it_is_written() {
    let seen = std::cell::Cell::new(0);
    each_round(|dice, what| {
        let ip = address(dice);
        let text = format!("https://{}:8443/hook", spelled(ip, dice));
        let Ok(url) = parse_url(&text) else {
            return;
        };
        let found: IpAddr = match url.host() {
            Some(Host::Ipv4(found)) => found.into(),
            Some(Host::Ipv6(found)) => found.into(),
            other => panic!("{what}: {text} is {other:?}"),
        };
        seen.set(seen.get() + 1);
        let all = Guard::new(vec!["0.0.0.0/0".parse().unwrap(), "::/0".parse().unwrap()]);
        for guard in [Guard::default(), all] {
            for plain in [false, true] {
                let direct = guard.check(ip.into(), plain);
                assert_eq!(guard.check(found, plain), direct, "{what}: {text}");
                for wrapped in wrapped(ip) {
                    assert_eq!(guard.check(wrapped.into(), plain), direct, "{what}: {wrapped}");
                }
            }
        }
        let inside = ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_unspecified();
        let nowhere = ip.is_multicast() || ip.is_broadcast() || ip.is_documentation();
        if inside || nowhere {
            assert!(Guard::default().check(found, false).is_err(), "{what}: {text}");
        }
        assert!(Guard::default().check(found, true).is_err(), "{what}: {text}");
    });
    assert!(seen.get() > 100, "{}", seen.get());
}

/// One that matters, or any.
fn address(dice: &mut ChaCha8Rng) -> Ipv4Addr {
    let known = [
        [127, 0, 0, 1],
        [10, 0, 0, 1],
        [169, 254, 169, 254],
        [100, 100, 100, 200],
        [0, 0, 0, 0],
        [192, 168, 1, 1],
    ];
    let any = Ipv4Addr::from(dice.random::<u32>());
    if dice.random_bool(0.5) {
        any
    } else {
        Ipv4Addr::from(*known.choose(dice).unwrap())
    }
}

/// IPv6 addresses behind which it is reached.
fn wrapped(ip: Ipv4Addr) -> [Ipv6Addr; 3] {
    let [a, b, c, d] = ip.octets().map(u16::from);
    let (high, low) = (a << 8 | b, c << 8 | d);
    [
        ip.to_ipv6_mapped(),
        Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, high, low),
        Ipv6Addr::new(0x2002, high, low, 0, 0, 0, 0, 1),
    ]
}

#[test]
fn text_from_anywhere_is_a_webhook_url_only_if_it_says_so() {
    let parts = [
        "https",
        "http",
        "file",
        "HTTPS",
        ":",
        "//",
        "/",
        "\\",
        "@",
        "user:pass@",
        "[",
        "]",
        "::1",
        "127.0.0.1",
        "%31",
        "%00",
        "localhost",
        "gateway.example",
        ".",
        "..",
        "?",
        "#",
        "\t",
        "\n",
        " ",
        "\0",
        "\u{ff11}",
        "\u{ad}",
        "xn--",
        "xn--a-ecp.ru",
        ":99999",
        ":0",
        "0x",
        "\u{1f9ea}",
        "%zz",
    ];
    let mut good = 0;
    each_round(|dice, what| {
        let begin = if dice.random_bool(0.5) { "https://" } else { "" };
        let text: String = (0..dice.random_range(0..8))
            .map(|_| *parts.choose(dice).unwrap())
            .collect();
        let Ok(url) = parse_url(&format!("{begin}{text}")) else {
            return;
        };
        good += 1;
        assert!(
            matches!(url.scheme(), "http" | "https") && url.has_host(),
            "{what}: {url}"
        );
        assert!(url.username().is_empty() && url.password().is_none(), "{what}: {url}");
        assert_eq!(
            parse_url(url.as_str()).as_ref(),
            Ok(&url),
            "{what}: what is sent to is what was checked"
        );
        if url.host() == Some(Host::Ipv4(Ipv4Addr::LOCALHOST)) || url.host() == Some(Host::Ipv6(Ipv6Addr::LOCALHOST)) {
            let ip = Ipv4Addr::LOCALHOST.into();
            assert_eq!(
                Guard::default().check(ip, false),
                Err(Refusal::Private),
                "{what}: {url}"
            );
        }
    });
    assert!(good > 0);
}
