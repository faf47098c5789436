//! What is measured in release mode: load on a real server, and the statistics of the gates.

use crate::steps::{Steps, cargo, target};
use std::process::Command;

/// Spans a request.
const SIZES: [&str; 3] = ["64", "512", "4096"];

/// Builds server and load generator in release mode.
pub(crate) fn build(steps: &mut Steps) -> bool {
    let build = [
        "build",
        "--release",
        "--package",
        "server",
        "--package",
        "benches",
        "--bins",
    ];
    steps.run("build in release mode", cargo(build))
}

/// Lets the load generator loose on a server.
pub(crate) fn load(steps: &mut Steps, seconds: u32) {
    if !build(steps) {
        return;
    }
    let built = target().join("release");
    for spans in SIZES {
        let mut command = Command::new(built.join("loadgen"));
        command.arg("--serve").arg(built.join("tracegate"));
        command.arg("--dir").arg(target());
        command.args(["--spans", spans, "--seconds", &seconds.to_string()]);
        steps.run(&format!("load, {spans} spans a request"), command);
    }
}

/// Compares decoding with the peer's views into Arrow. The peer has a workspace of its own and takes long to build.
pub(crate) fn views(steps: &mut Steps) {
    let mut command = cargo(["run", "--release", "--manifest-path", "benches/peers/pdata/Cargo.toml"]);
    command.arg("--target-dir").arg(target());
    steps.run("decode beside views into Arrow", command);
}

/// Builds the simulation, with nothing but what the gates need themselves, and runs it.
pub(crate) fn simulate(steps: &mut Steps, options: &[String]) {
    let run = ["run", "--release", "--package", "benches", "--bin", "simulate"];
    let only = ["--no-default-features", "--features", "study", "--"];
    let mut command = cargo(run.into_iter().chain(only));
    command.args(options);
    steps.run("simulate", command);
}
