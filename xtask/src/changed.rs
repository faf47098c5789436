//! Which crates differ from the last commit, and their unit tests.

use crate::layers;
use crate::steps::{Steps, cargo, root};
use std::collections::BTreeSet;
use std::process::Command;

/// Runs the unit tests of `crates`, or of those that differ from the last commit.
pub(crate) fn test(steps: &mut Steps, crates: Vec<String>) {
    let crates = if crates.is_empty() {
        differing()
    } else {
        crates.into_iter().collect()
    };
    if crates.is_empty() {
        println!("\nno crate differs from the last commit: name one to test it, as in `cargo xtask quick ingest`");
        return;
    }
    let mut command = cargo(["test", "--bins", "--no-fail-fast"]);
    // Cargo refuses to look for a library where there is none at all.
    let is_library = |name: &String| root().join(name).join("src/lib.rs").exists();
    if crates.iter().any(is_library) {
        command.arg("--lib");
    }
    for name in &crates {
        command.args(["--package", name]);
    }
    let names: Vec<&str> = crates.iter().map(String::as_str).collect();
    steps.counted(&format!("unit tests of {}", names.join(", ")), command);
}

fn differing() -> BTreeSet<String> {
    let git = |args: &[&str]| {
        let output = Command::new("git").args(args).current_dir(root()).output();
        output
            .map(|output| String::from_utf8_lossy(&output.stdout).into_owned())
            .unwrap_or_default()
    };
    let mut paths = git(&["diff", "--name-only", "HEAD"]);
    paths.push_str(&git(&["ls-files", "--others", "--exclude-standard"]));
    members(&paths)
}

/// The workspace members that paths lie in; a change of the workspace itself is none of them.
fn members(paths: &str) -> BTreeSet<String> {
    let folders = paths
        .lines()
        .filter_map(|path| path.split_once('/'))
        .map(|(folder, _)| folder);
    folders
        .filter(|folder| layers::MEMBERS.contains(folder))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_their_crates_once() {
        let paths = "ingest/src/door/mod.rs\ningest/Cargo.toml\nCargo.lock\ndocs/glossary.md\nstore/src/lib.rs\n";
        assert_eq!(
            members(paths),
            BTreeSet::from(["ingest".to_owned(), "store".to_owned()])
        );
    }
}
