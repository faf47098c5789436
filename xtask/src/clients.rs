//! End to end with real clients: a Python environment under the target folder, pinned with hashes, then pytest.

use crate::steps::{Steps, is_there, root, status, target};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The tests, and the lock of what they install.
const FOLDER: &str = "server/e2e";

/// Prepares the clients and runs the tests against the server that was built.
pub(crate) fn run(steps: &mut Steps, pytest: &[String]) {
    let mut python = None;
    let prepared = || {
        python = Some(prepare().map_err(|why| vec![why])?);
        Ok(())
    };
    if !steps.check("python clients", prepared) {
        return;
    }
    let Some(python) = python else { return };
    let mut command = Command::new(python);
    command
        .args(["-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", FOLDER])
        .args(pytest)
        .env("TRACEGATE_BIN", target().join("debug/tracegate"))
        .current_dir(root());
    steps.counted("end to end", command);
}

/// The interpreter of an environment that holds exactly what the lock says.
fn prepare() -> Result<PathBuf, String> {
    let folder = target().join("e2e-venv");
    let python = folder.join("bin/python");
    let lock = root().join(FOLDER).join("requirements.txt");
    let wanted = fs::read(&lock).map_err(|error| format!("{}: {error}", lock.display()))?;
    let stamp = folder.join("installed.txt");
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) && works(&python) {
        return Ok(python);
    }
    println!("preparing {}", folder.display());
    let _ = fs::remove_dir_all(&folder);
    create(&folder)?;
    let mut install = Command::new(&python);
    install.args([
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--require-hashes",
        "--requirement",
    ]);
    if !status(install.arg(&lock)) {
        return Err(format!(
            "the Python clients could not be installed from {}: is the package index reachable?",
            lock.display()
        ));
    }
    fs::write(&stamp, wanted).map_err(|error| format!("{}: {error}", stamp.display()))?;
    Ok(python)
}

fn works(python: &Path) -> bool {
    Command::new(python)
        .args(["-c", "import pytest, opentelemetry.sdk"])
        .output()
        .is_ok_and(|out| out.status.success())
}

fn create(folder: &Path) -> Result<(), String> {
    if !is_there("python3", &["--version"]) {
        return Err("python3 is missing: install Python 3.11 or newer".to_owned());
    }
    let venv = || {
        Command::new("python3")
            .args(["-m", "venv"])
            .arg(folder)
            .output()
            .is_ok_and(|out| out.status.success())
    };
    if venv() {
        return Ok(());
    }
    // Debian splits venv off; an administrator can be spared the reading.
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|out| out.stdout.trim_ascii() == b"0");
    if root && is_there("apt-get", &["--version"]) {
        println!("installing python3-venv with apt-get");
        status(Command::new("apt-get").args(["-qq", "update"]));
        let mut install = Command::new("apt-get");
        install.args(["-qq", "-y", "--no-install-recommends", "install", "python3-venv"]);
        status(install.env("DEBIAN_FRONTEND", "noninteractive"));
        let _ = fs::remove_dir_all(folder);
        if venv() {
            return Ok(());
        }
    }
    Err("`python3 -m venv` does not work: install it, on Debian with `apt-get install python3-venv`".to_owned())
}
