//! The import graph and its fences, held by a test: who may depend on whom, and which words may stand where.

use crate::steps::cargo;
use serde_json::Value;
use std::path::{Path, PathBuf};

/// Every member of the workspace.
pub(crate) const MEMBERS: [&str; 8] = [
    "proto", "ingest", "store", "query", "gates", "server", "benches", "xtask",
];

/// Siblings never import each other; `server` composes; `benches` measures whatever it likes.
const MAY_IMPORT: [(&str, &[&str]); 8] = [
    ("proto", &[]),
    ("store", &["proto"]),
    ("ingest", &["proto", "store"]),
    ("query", &["proto", "store"]),
    ("gates", &["proto"]),
    ("server", &["proto", "store", "ingest", "query", "gates"]),
    ("benches", &["proto", "store", "ingest", "query", "gates", "server"]),
    ("xtask", &[]),
];

/// A dependency that lives in few crates.
struct Kept {
    prefix: &'static str,
    by: &'static [&'static str],
    /// Whose tests use it too: they read what the product wrote.
    tests_of: &'static [&'static str],
}

const DEPENDENCIES: [Kept; 5] = [
    Kept {
        prefix: "datafusion",
        by: &["query"],
        tests_of: &[],
    },
    Kept {
        prefix: "parquet",
        by: &["store", "query"],
        tests_of: &["ingest"],
    },
    Kept {
        prefix: "reqwest",
        by: &["gates", "server"],
        tests_of: &[],
    },
    Kept {
        prefix: "redb",
        by: &["gates"],
        tests_of: &[],
    },
    Kept {
        prefix: "opentelemetry",
        by: &["ingest", "server", "benches"],
        tests_of: &[],
    },
];

/// Words that only some paths may use.
struct Fence {
    words: &'static [&'static str],
    /// Prefixes of paths from the root.
    within: &'static [&'static str],
    why: &'static str,
    /// Whether tests keep to it too.
    in_tests: bool,
}

const FENCES: [Fence; 6] = [
    Fence {
        words: &["datafusion::", "datafusion_"],
        within: &["query/"],
        why: "DataFusion is known to `query` alone",
        in_tests: true,
    },
    Fence {
        words: &["ArrowWriter", "arrow_writer", "SerializedFileWriter"],
        within: &["store/src/", "query/src/export"],
        why: "Parquet is written by `store` (and the export of `query`)",
        in_tests: false,
    },
    Fence {
        words: &["reqwest::Client", "reqwest::get", "reqwest::blocking", "reqwest::{"],
        within: &["gates/src/webhook", "gates/src/notify", "server/src/cli/"],
        why: "the HTTP client belongs to gates::webhook, gates::notify and server::cli",
        in_tests: false,
    },
    Fence {
        words: &["SystemTime::now", "Utc::now", "Local::now", "UtcDateTime::now"],
        within: &["server/", "benches/", "xtask/"],
        why: "the wall clock is read in `server` alone: take `Nanos` or a `Clock`",
        in_tests: false,
    },
    Fence {
        // Pacing and deadlines need a monotonic clock where sockets, threads and queries run; decisions never do.
        words: &["Instant::now"],
        within: &[
            "server/",
            "benches/",
            "xtask/",
            "gates/src/desk",
            "ingest/src/door",
            "ingest/src/pipeline",
            "query/src/engine",
        ],
        why: "pure code takes its time as a value",
        in_tests: false,
    },
    Fence {
        words: &[concat!("todo", "!("), concat!("unimplemented", "!(")],
        within: &[],
        why: "nothing half-built is shared",
        in_tests: true,
    },
];

/// Checks graph and fences of the workspace at `root`.
///
/// # Errors
/// One line for every breach.
pub(crate) fn check(root: &Path) -> Result<(), Vec<String>> {
    let mut breaches = graph(root);
    for member in MEMBERS {
        for file in sources(&root.join(member)) {
            let Ok(text) = std::fs::read_to_string(&file) else {
                continue;
            };
            let path = file
                .strip_prefix(root)
                .unwrap_or(&file)
                .to_string_lossy()
                .replace('\\', "/");
            breaches.extend(fences(&path, &text));
        }
    }
    if breaches.is_empty() { Ok(()) } else { Err(breaches) }
}

fn graph(root: &Path) -> Vec<String> {
    let metadata = cargo(["metadata", "--no-deps", "--format-version", "1"])
        .current_dir(root)
        .output();
    let metadata: Value = match metadata.map(|output| serde_json::from_slice(&output.stdout)) {
        Ok(Ok(metadata)) => metadata,
        _ => {
            return vec!["`cargo metadata` gave no answer: does every Cargo.toml parse?".to_owned()];
        }
    };
    let packages = metadata["packages"].as_array().map_or(&[][..], Vec::as_slice);
    packages.iter().flat_map(edges).collect()
}

fn edges(package: &Value) -> Vec<String> {
    let name = package["name"].as_str().unwrap_or("?");
    let Some((_, imports)) = MAY_IMPORT.iter().find(|(member, _)| *member == name) else {
        return vec![format!(
            "{name}: not in the graph; give it a place in xtask/src/layers.rs"
        )];
    };
    let named = package["dependencies"].as_array().map_or(&[][..], Vec::as_slice);
    let mut breaches = Vec::new();
    for of in named {
        let Some(dependency) = of["name"].as_str() else {
            continue;
        };
        let in_tests = of["kind"].as_str() == Some("dev");
        if MEMBERS.contains(&dependency) && !imports.contains(&dependency) {
            breaches.push(format!(
                "{name}: must not import {dependency}: meet in `proto`, connect in server/src/wire.rs"
            ));
        }
        for kept in DEPENDENCIES.iter().filter(|kept| dependency.starts_with(kept.prefix)) {
            let may = kept.by.contains(&name) || in_tests && kept.tests_of.contains(&name);
            if !may {
                breaches.push(format!(
                    "{name}: must not depend on {dependency}: it stays in {}",
                    kept.by.join(", ")
                ));
            }
        }
    }
    breaches
}

fn fences(path: &str, text: &str) -> Vec<String> {
    if path == "xtask/src/layers.rs" {
        return Vec::new();
    }
    let mut test = path.contains("/tests/") || path.contains("/benches/") || path.ends_with("tests.rs");
    let mut breaches = Vec::new();
    for (at, line) in text.lines().enumerate() {
        // Unit tests stand last in a file; a lone `mod tests;` is the last line too.
        test |= line.trim_start().starts_with("#[cfg(test)]");
        let code = line.split("//").next().unwrap_or(line);
        for fence in FENCES.iter().filter(|fence| fence.in_tests || !test) {
            let allowed = fence.within.iter().any(|prefix| path.starts_with(prefix));
            if let Some(word) = fence.words.iter().find(|word| !allowed && code.contains(**word)) {
                breaches.push(format!("{path}:{}: {word}: {}", at + 1, fence.why));
            }
        }
    }
    breaches
}

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "rs") {
                found.push(path);
            }
        }
    }
    found.sort();
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_workspace_keeps_its_layers() {
        let breaches = check(&crate::steps::root()).err().unwrap_or_default();
        assert!(breaches.is_empty(), "{}", breaches.join("\n"));
    }

    #[test]
    fn a_sibling_import_and_a_kept_dependency_are_breaches() {
        let package = serde_json::json!({"name": "gates", "dependencies": [
            {"name": "proto"}, {"name": "store"}, {"name": "datafusion-common"}, {"name": "redb"}]});
        let breaches = edges(&package);
        assert_eq!(breaches.len(), 2, "{breaches:?}");
        assert!(breaches[0].contains("store") && breaches[1].contains("datafusion-common"));
    }

    #[test]
    fn fences_know_comments_tests_and_allowed_places() {
        let clock = "let now = SystemTime::now();";
        assert_eq!(fences("gates/src/life.rs", clock).len(), 1);
        assert_eq!(fences("server/src/clock.rs", clock).len(), 0);
        assert_eq!(fences("gates/src/life.rs", &format!("// {clock}")).len(), 0);
        assert_eq!(
            fences("gates/src/life.rs", &format!("#[cfg(test)]\nmod tests {{\n{clock}\n}}")).len(),
            0
        );
        assert_eq!(fences("gates/tests/it/main.rs", "use datafusion::prelude::*;").len(), 1);
    }
}
