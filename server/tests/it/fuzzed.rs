//! Configurations that are almost right: read, or shown with every problem at its line; never a panic, not even while
//! problems are shown.
//!
//! `FUZZ_ROUNDS` asks for more.

use crate::running::RELEASE;
use miette::{GraphicalReportHandler, GraphicalTheme, Report};
use rand::{RngExt, SeedableRng, seq::IndexedRandom};
use rand_chacha::ChaCha8Rng;
use server::config::Config;

const ROUNDS: u64 = 1_000;

/// Every section with most of its keys.
const SECTIONS: &str = r##"
[server]
data_dir = "data"
otlp_grpc = "127.0.0.1:4317"
hosts = ["tracegate.internal"]
cell_resolution = "60s"
seal_age = "10m"
trace_quiet = "5s"
ingest_bytes_max = "256MiB"
public_url = "http://tracegate.internal:4320"

[retention]
text = "7d"
spans = "30d"
cells = "400d"
disk_max = 0.8

[attributes]
route = ["x-route"]
cohort = ["customer.tier"]

[content]
policy = "hash"
error_text = "keep"

[[content.rule]]
service = "support"
route = "chat"
policy = "keep"

[prices.provider.openai]
"gpt-4o" = { input = 2500, output = 10000 }

[[json_schema]]
route = "chat"
schema = '''{"type": "object", "properties": {"a": {"$ref": "#"}}}'''

[[eval]]
name = "toxicity"
pass_max = 0.2

[webhooks]
allow = ["127.0.0.0/8", "10.1.0.0/16"]
"##;

/// Values that are of another kind, at an edge, or over it.
const ODD_VALUES: [&str; 30] = [
    "",
    "0",
    "-1",
    "nan",
    "inf",
    "1e308",
    "9223372036854775807",
    "-9223372036854775808",
    "true",
    "[]",
    "{}",
    "[[[]]]",
    "[\"\"]",
    "\"\"",
    "\"\\u0000\"",
    "\"\u{202e}\u{1f9ea}\"",
    "\"18446744073709551615y\"",
    "\"18446744073709551615s\"",
    "\"1ns\"",
    "\"é\"",
    "\"99999999999999999999GiB\"",
    "\"18446744073709551615GiB\"",
    "\"1 é\"",
    "\"[::1]:0\"",
    "\"0.0.0.0/33\"",
    "\"http://\"",
    "'''{\"$ref\": \"#/nowhere\"}'''",
    "'''{\"pattern\": \"(\"}'''",
    "'''\n\n'''",
    "1979-05-27T07:32:00Z",
];

fn changed(text: &str, dice: &mut ChaCha8Rng) -> String {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    for _ in 0..dice.random_range(1..=4) {
        let (at, from) = (dice.random_range(0..lines.len()), dice.random_range(0..lines.len()));
        match dice.random_range(0..6) {
            0 => lines[at] = lines[from].clone(),
            1 => lines.insert(at, lines[from].clone()),
            2 => drop(lines.remove(at)),
            _ => {
                if let Some((key, _)) = lines[at].split_once('=') {
                    lines[at] = format!("{key}= {}", ODD_VALUES.choose(dice).unwrap());
                }
            }
        }
    }
    let mut text: Vec<char> = lines.join(["\n", "\r\n"].choose(dice).unwrap()).chars().collect();
    if dice.random_bool(0.3) {
        let at = dice.random_range(0..=text.len());
        let end = (at + dice.random_range(0..20)).min(text.len());
        let odd: Vec<char> = "\"'[]{}=.\\#\n\r\t\0\u{e9}\u{1f9ea}".chars().collect();
        drop(text.splice(
            at..end,
            (0..dice.random_range(0..4)).map(|_| *odd.choose(dice).unwrap()),
        ));
    }
    text.into_iter().collect()
}

#[test]
fn changed_configurations_are_read_or_shown_with_their_problems() {
    let seed = rand::random::<u64>();
    eprintln!("seed {seed}");
    let whole = format!("{SECTIONS}\n{RELEASE}");
    Config::parse(&whole, "whole").unwrap();
    let rounds = std::env::var("FUZZ_ROUNDS").map_or(ROUNDS, |rounds| rounds.parse().unwrap());
    let (mut read, mut refused) = (0, 0);
    for round in 0..rounds {
        let mut dice = ChaCha8Rng::seed_from_u64(seed.wrapping_add(round));
        let text = changed(&whole, &mut dice);
        match Config::parse(&text, "tracegate.toml") {
            Ok(_) => read += 1,
            Err(problems) => {
                refused += 1;
                assert!(!problems.problems.is_empty(), "seed {seed} round {round}");
                let mut out = String::new();
                GraphicalReportHandler::new_themed(GraphicalTheme::unicode_nocolor())
                    .with_width(100)
                    .render_report(&mut out, Report::new(problems).as_ref())
                    .unwrap_or_else(|e| panic!("seed {seed} round {round}: {e}:\n{text}"));
            }
        }
    }
    assert!(read > 0 && refused > 0, "{read} read, {refused} refused");
}

/// A duration of the configuration is bounded by nothing but its type.
#[tokio::test(flavor = "multi_thread")]
async fn a_start_with_the_longest_durations_comes_through() {
    let dir = tempfile::tempdir().unwrap();
    let text = "[server]\nseal_age = \"18446744073709551615s\"\ntrace_quiet = \"18446744073709551615s\"\n\
                [retention]\ntext = \"18446744073709551615s\"\nspans = \"18446744073709551615s\"\n";
    let config = Config::parse(text, "long").unwrap();
    let free = Config::on_free_ports(dir.path().join("data"));
    let config = Config {
        data_dir: free.data_dir,
        otlp_grpc: free.otlp_grpc,
        otlp_http: free.otlp_http,
        http: free.http,
        ..config
    };
    let app = server::wire::App::start(config, server::wall_clock()).await.unwrap();
    let client = crate::otlp::client();
    assert!(crate::otlp::export(&client, app.addresses.otlp_http, crate::otlp::trace(1, "blue")).await);
    let one = serde_json::json!([[2]]);
    let patience = std::time::Duration::from_secs(30);
    crate::otlp::eventually(&client, app.addresses.http, "SELECT count(*) FROM spans", one, patience).await;
    app.shutdown().await.unwrap();
}
