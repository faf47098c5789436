//! Runs steps one after another, says what is under way and how long it took, and closes with one sum.

use crate::tally::Tally;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};
use std::time::Instant;

/// A run of steps. A step that fails does not stop the next ones: one run tells everything that is wrong.
pub(crate) struct Steps {
    began: Instant,
    tally: Tally,
    failed: Vec<String>,
}

impl Steps {
    pub(crate) fn new() -> Self {
        Self {
            began: Instant::now(),
            tally: Tally::default(),
            failed: Vec::new(),
        }
    }

    /// A step that passes or fails as a whole.
    pub(crate) fn run(&mut self, name: &str, mut command: Command) -> bool {
        let began = begin(name);
        let passed = status(&mut command);
        self.end(name, began, passed, Tally::default())
    }

    /// A step whose output says how many tests passed and failed.
    pub(crate) fn counted(&mut self, name: &str, mut command: Command) -> bool {
        let began = begin(name);
        let mut tally = Tally::default();
        let passed = match command.stdout(Stdio::piped()).spawn() {
            Ok(mut child) => {
                if let Some(out) = child.stdout.take() {
                    for line in BufReader::new(out).split(b'\n').map_while(Result::ok) {
                        let line = String::from_utf8_lossy(&line);
                        tally.add(Tally::of_line(&line).unwrap_or_default());
                        let _ = writeln!(std::io::stdout(), "{line}");
                    }
                }
                child.wait().is_ok_and(|status| status.success())
            }
            Err(error) => not_started(&command, &error),
        };
        self.end(name, began, passed, tally)
    }

    /// A step done in this process: every complaint is one line.
    pub(crate) fn check(&mut self, name: &str, check: impl FnOnce() -> Result<(), Vec<String>>) -> bool {
        let began = begin(name);
        let complaints = check().err().unwrap_or_default();
        for complaint in &complaints {
            eprintln!("  {complaint}");
        }
        self.end(name, began, complaints.is_empty(), Tally::default())
    }

    fn end(&mut self, name: &str, began: Instant, passed: bool, mut tally: Tally) -> bool {
        // A step without tests of its own counts as one; so does a failure that no test explains.
        if passed && tally == Tally::default() {
            tally.passed = 1;
        }
        if !passed && tally.failed == 0 {
            tally.failed = 1;
        }
        self.tally.add(tally);
        let Tally { passed: p, failed: f } = tally;
        println!(
            "--- {name}: {p} passed, {f} failed ({:.1} s)",
            began.elapsed().as_secs_f64()
        );
        if !passed {
            self.failed.push(name.to_owned());
        }
        passed
    }

    /// The closing lines.
    pub(crate) fn close(self) -> ExitCode {
        println!();
        if !self.failed.is_empty() {
            println!("failed: {}", self.failed.join(", "));
        }
        println!("took {:.0} s", self.began.elapsed().as_secs_f64());
        println!("{} passed, {} failed", self.tally.passed, self.tally.failed);
        if self.failed.is_empty() {
            ExitCode::SUCCESS
        } else {
            ExitCode::FAILURE
        }
    }
}

fn begin(name: &str) -> Instant {
    println!("\n=== {name}");
    Instant::now()
}

/// Runs a command with its output shown; whether it succeeded.
pub(crate) fn status(command: &mut Command) -> bool {
    match command.status() {
        Ok(status) => status.success(),
        Err(error) => not_started(command, &error),
    }
}

fn not_started(command: &Command, error: &std::io::Error) -> bool {
    eprintln!("{} could not be started: {error}", command.get_program().display());
    false
}

/// Whether a program answers.
pub(crate) fn is_there(program: &str, args: &[&str]) -> bool {
    Command::new(program)
        .args(args)
        .output()
        .is_ok_and(|output| output.status.success())
}

/// `cargo` with arguments, at the root of the workspace.
pub(crate) fn cargo(args: impl IntoIterator<Item = impl AsRef<OsStr>>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(args).current_dir(root());
    command
}

/// Root of the workspace.
pub(crate) fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// Where cargo builds to.
pub(crate) fn target() -> PathBuf {
    let told = std::env::var_os("CARGO_TARGET_DIR").map(PathBuf::from);
    told.map_or_else(|| root().join("target"), |dir| root().join(dir))
}

/// Adds toolchain components that a minimal installation lacks.
pub(crate) fn components(names: &[&str]) {
    for name in names {
        let command = if *name == "rustfmt" { "fmt" } else { name };
        if !is_there("cargo", &[command, "--version"]) {
            println!("adding the toolchain component {name}");
            if !status(Command::new("rustup").args(["component", "add", name])) {
                eprintln!("{name} is missing: install it with `rustup component add {name}` or your distribution");
            }
        }
    }
}

/// The C parts of some crates are built with `make`, which a small installation lacks.
pub(crate) fn make() {
    if !is_there("make", &["--version"]) && !apt_install("make") {
        eprintln!("make is missing: install it, on Debian with `apt-get install make`");
    }
}

/// Installs a Debian package, if this is Debian and we may.
pub(crate) fn apt_install(package: &str) -> bool {
    let root = Command::new("id")
        .arg("-u")
        .output()
        .is_ok_and(|out| out.stdout.trim_ascii() == b"0");
    if !root || !is_there("apt-get", &["--version"]) {
        return false;
    }
    println!("installing {package} with apt-get");
    status(Command::new("apt-get").args(["-qq", "update"]));
    let mut install = Command::new("apt-get");
    install.args(["-qq", "-y", "--no-install-recommends", "install", package]);
    status(install.env("DEBIAN_FRONTEND", "noninteractive"))
}
