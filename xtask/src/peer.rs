//! Durable ingest beside an agent that takes the same requests and keeps nothing, in turns: ratios of one run.
//!
//! Each process has a core of its own, the load generator the other. What is compared is spans a CPU-second of the
//! process, so that a shared machine disturbs both alike.

use crate::{
    bench, clients,
    steps::{Steps, root, target},
};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// What is sent: a name, and options of the load generator.
const CASES: [(&str, &[&str]); 8] = [
    ("small, 64 a request", &["--spans", "64"]),
    ("small, 512 a request", &["--spans", "512"]),
    ("small, 4096 a request", &["--spans", "4096"]),
    ("small, 512 a request, gzip", &["--spans", "512", "--compress", "gzip"]),
    (
        "small, 512 a request, zstd",
        &["--spans", "512", "--compress", "zstd", ALONE],
    ),
    (
        "8 KB of text, dropped, 64 a request",
        &["--spans", "64", "--text", "8192"],
    ),
    (
        "8 KB of text, kept, 64 a request",
        &["--spans", "64", "--text", "8192", KEPT],
    ),
    ("small, 512 a request, HTTP", &["--spans", "512", "--over-http"]),
];
/// Stands for a configuration that keeps texts, which only our side has.
const KEPT: &str = "kept";
/// Stands for what the peer refuses: only our side is measured.
const ALONE: &str = "alone";
/// Core of the server, and of the load generator.
const CORES: [&str; 2] = ["0", "1"];

/// Measures every case `rounds` times on each side, and prints medians and ratios.
pub(crate) fn run(steps: &mut Steps, rounds: u32, seconds: u32) {
    if !bench::build(steps) {
        return;
    }
    let mut rotel = None;
    let prepared = || {
        rotel = Some(prepare().map_err(|why| vec![why])?);
        Ok(())
    };
    if !steps.check("the peer", prepared) {
        return;
    }
    let Some(rotel) = rotel else { return };
    let built = target().join("release");
    let kept = target().join("keep-texts.toml");
    let mut table = Vec::new();
    for (name, options) in CASES {
        let mut sides = [Vec::new(), Vec::new()];
        let measured = || {
            std::fs::write(&kept, "[content]\npolicy = \"keep\"\n").map_err(|e| vec![e.to_string()])?;
            for _ in 0..rounds {
                let measured = if options.contains(&ALONE) { 1 } else { 2 };
                let binaries = [built.join("tracegate"), rotel.clone()];
                for (side, binary) in binaries.iter().enumerate().take(measured) {
                    let mut command = generator(&built, binary, side == 0, seconds);
                    for option in options {
                        match *option {
                            KEPT if side == 0 => command.arg("--config").arg(&kept),
                            KEPT | ALONE => &mut command,
                            other => command.arg(other),
                        };
                    }
                    sides[side].push(report(&mut command).map_err(|why| vec![why])?);
                }
            }
            Ok(())
        };
        if steps.check(name, measured) {
            table.push((name, sides));
        }
    }
    println!(
        "\n| spans a CPU-second | tracegate, durable | rotel, nothing kept | ratio | ack p50 / p99, ms | peak RSS, MiB |"
    );
    println!("| --- | --- | --- | --- | --- | --- |");
    for (name, [ours, theirs]) in &table {
        let median = |of: &[serde_json::Value], key: &str| median(of.iter().filter_map(|r| r[key].as_f64()));
        let rate = "spans_per_server_cpu_s";
        let (a, b) = (median(ours, rate), median(theirs, rate));
        let shown = |value: f64, digits: usize| match value.is_nan() {
            true => "-".to_owned(),
            false => format!("{value:.digits$}"),
        };
        println!(
            "| {name} | {a:.0} | {} | {} | {:.1} / {:.1} | {:.0} |",
            shown(b, 0),
            shown(a / b, 2),
            median(ours, "ack_p50_ms"),
            median(ours, "ack_p99_ms"),
            median(ours, "server_rss_peak_mib"),
        );
    }
}

fn generator(built: &Path, binary: &Path, ours: bool, seconds: u32) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", CORES[1]]).arg(built.join("loadgen"));
    command.arg(if ours { "--serve" } else { "--rotel" }).arg(binary);
    command.args(["--server-cpu", CORES[0], "--seconds", &seconds.to_string()]);
    command.arg("--dir").arg(target());
    command
}

/// The last line of the load generator is its report.
fn report(command: &mut Command) -> Result<serde_json::Value, String> {
    let out = command
        .stdout(Stdio::piped())
        .output()
        .map_err(|e| format!("taskset does not start: {e}"))?;
    let text = String::from_utf8_lossy(&out.stdout);
    if !out.status.success() {
        return Err(format!("{text}{}", String::from_utf8_lossy(&out.stderr)));
    }
    serde_json::from_str(text.lines().last().unwrap_or_default()).map_err(|e| format!("{e}: {text}"))
}

fn median(of: impl Iterator<Item = f64>) -> f64 {
    let mut all: Vec<f64> = of.collect();
    all.sort_by(f64::total_cmp);
    all.get(all.len() / 2).copied().unwrap_or(f64::NAN)
}

/// The agent's program, from its Python package.
fn prepare() -> Result<PathBuf, String> {
    let lock = root().join("benches/peers/requirements.txt");
    let python = clients::python("peers-venv", &lock, "import rotel")?;
    let found = Command::new(&python)
        .args(["-c", "import rotel; print(rotel.__path__[0], end='')"])
        .output()
        .map_err(|e| format!("{}: {e}", python.display()))?;
    let program = PathBuf::from(String::from_utf8_lossy(&found.stdout).into_owned()).join("rotel-agent");
    program
        .is_file()
        .then_some(program)
        .ok_or_else(|| "the package of the peer holds no program".to_owned())
}
