//! Release files: from TOML text to [`ReleaseSpec`]s with every default filled in, or to all that is wrong with them.
//!
//! Only `[defaults]` and `[[release]]` are read here; a whole config file may be given, and its other tables are the
//! server's. Nothing is accepted silently: a key that nobody reads and a feature that is not built yet are problems.
//!
//! Defaults, unless `[defaults]` or the release says otherwise: `mode = "advise"` (the safe one: decide and tell people,
//! send the gateway nothing), `unit = "trace"`, `baseline = "24h"`, `warmup = "5m"`, `min_traces = 500`,
//! `horizon = "7d"`, `approval = "none"`, `alpha = 0.01`, `alpha_promote = 0.05`, `no_data = "hold"`,
//! `timeout = "60s"`, `grace = "10s"`, `min_duration = "0s"`, `cool_down = "0s"`, `breaker.alpha_share = 0.2`, and no
//! mirroring, unless a gate is paired: `mirror = "0s"` then.

mod criterion;
mod nearest;
mod release;
mod tables;
mod walk;

use proto::release::ReleaseSpec;
use sha2::{Digest, Sha256};
use std::{collections::BTreeMap, ops::Range};
use toml::de::DeTable;
use walk::{Fields, Notes};

/// One thing that is wrong with a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// Name of the file, as it was given.
    pub file: String,
    /// Bytes of the text it is about.
    pub span: Range<usize>,
    /// What is wrong.
    pub message: String,
    /// What to do about it.
    pub help: String,
}

impl Problem {
    /// Line of the problem in `text`, counted from 1.
    #[must_use]
    pub fn line(&self, text: &str) -> usize {
        let upto = self.span.start.min(text.len());
        1 + text.as_bytes()[..upto].iter().filter(|b| **b == b'\n').count()
    }
}

/// What a check found.
#[derive(Debug, Clone, Default)]
pub struct Checked {
    /// Releases that may run: all declared ones if there is no problem, else none. What a file meant that is wrong in one
    /// place is a guess in the others.
    pub releases: Vec<ReleaseSpec>,
    /// Everything that is wrong, by file and place.
    pub problems: Vec<Problem>,
}

/// Checks one file. `file_name` only labels problems.
#[must_use]
pub fn check(text: &str, file_name: &str) -> Checked {
    check_files(&[(file_name.to_owned(), text.to_owned())])
}

/// Checks several files, given as (name, text), as one config: `[defaults]` of the first holds for all, and ids and
/// routes may not repeat across them. `[defaults]` elsewhere is a problem.
#[must_use]
pub fn check_files(files: &[(String, String)]) -> Checked {
    let notes: Vec<Notes> = files.iter().map(|(name, _)| Notes::new(name)).collect();
    let mut trees = Vec::with_capacity(files.len());
    for ((_, text), notes) in files.iter().zip(&notes) {
        let (tree, errors) = DeTable::parse_recoverable(text);
        for e in errors {
            let span = e.span().unwrap_or(0..text.len().min(1));
            notes.say(span, e.message(), "this is not valid TOML here");
        }
        trees.push(tree);
    }
    let roots: Vec<Fields<'_>> = trees
        .iter()
        .zip(&notes)
        .map(|(tree, notes)| Fields::new(tree.get_ref(), 0..0, notes, "the file"))
        .collect();

    let defaults = roots.first().and_then(|r| r.sub("defaults", "[defaults]"));
    if let Some(defaults) = &defaults {
        defaults.only(release::INHERITED);
    }
    for root in roots.iter().skip(1) {
        if root.has("defaults") {
            root.notes.say(
                root.at("defaults"),
                "only the main config may have [defaults]",
                "move these keys into the main config or into the release",
            );
        }
    }

    let mut releases = Vec::new();
    let mut ids = BTreeMap::new();
    let mut routes = BTreeMap::new();
    for root in &roots {
        for fields in root.subs("release", "release") {
            if let Some(spec) = release::read(fields, defaults.as_ref(), &mut ids, &mut routes) {
                releases.push(spec);
            }
        }
    }
    drop(roots);
    drop(trees);
    let problems: Vec<Problem> = notes.into_iter().flat_map(Notes::into_list).collect();
    if !problems.is_empty() {
        releases.clear();
    }
    Checked { releases, problems }
}

/// Checks one release given as JSON in the shape of a file's `[[release]]`, as the API takes it.
#[must_use]
pub fn check_json(release: &serde_json::Value) -> Checked {
    check(&release::as_file(release.clone()), "declared release")
}

/// Checks one release that was declared as a value, not as text, by writing it down and reading it back.
///
/// # Errors
/// Everything that is wrong with it.
pub fn check_spec(spec: &ReleaseSpec) -> Result<(), Vec<Problem>> {
    let text = release::written(spec);
    let checked = check(&text, "declared release");
    if checked.problems.is_empty() {
        Ok(())
    } else {
        Err(checked.problems)
    }
}

/// SHA-256, in hex, over the canonical JSON of a release: keys sorted, no space. It holds the names of secrets, never
/// the secrets.
#[must_use]
pub fn rules_hash(spec: &ReleaseSpec) -> String {
    let value = serde_json::to_value(spec).unwrap_or_default();
    hex::encode(Sha256::digest(canonical(&value).as_bytes()))
}

/// JSON with sorted keys and no space, whatever features serde_json was built with.
#[must_use]
pub fn canonical(value: &serde_json::Value) -> String {
    use serde_json::Value;
    match value {
        Value::Object(map) => {
            let sorted: BTreeMap<&String, &Value> = map.iter().collect();
            let parts: Vec<String> = sorted
                .iter()
                .map(|(k, v)| format!("{}:{}", Value::String((*k).clone()), canonical(v)))
                .collect();
            format!("{{{}}}", parts.join(","))
        }
        Value::Array(items) => {
            let parts: Vec<String> = items.iter().map(canonical).collect();
            format!("[{}]", parts.join(","))
        }
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proto::release::{GateSpec, Margin, Unit};
    use std::time::Duration;

    const FILE: &str = include_str!("../../tests/it/release.toml");

    fn gate(name: &str, metric: &str, margin: Margin) -> GateSpec {
        GateSpec::new(name, metric.parse().unwrap(), margin)
    }

    #[test]
    fn what_is_written_down_is_read_back_as_it_was() {
        let plain = check(FILE, "x").releases.remove(0);
        let mut all = plain.clone();
        all.unit = Unit::User;
        all.min_duration = Duration::from_secs(3_601);
        all.mirror = Some(Duration::ZERO);
        all.cool_down = Duration::from_millis(1_500);
        all.gates.extend([
            GateSpec {
                lateness: Duration::from_secs(3_600),
                dry_run: true,
                ..gate("rubric: \"late\"", "eval_fail:rubric", Margin::MaxRatio(1.5))
            },
            GateSpec {
                paired: true,
                by_cohort: true,
                ..gate("pairs", "error", Margin::MaxIncrease(0.01))
            },
            GateSpec {
                paired: true,
                quantile: Some(0.99),
                ..gate("slow pairs", "latency", Margin::MaxIncrease(250.0))
            },
            GateSpec {
                sql: Some("WITH r AS (SELECT '\\n\"' AS x)\nSELECT $release, $admitted_before FROM r".to_owned()),
                ..gate("sql: refunds", "sql:sql: refunds", Margin::Min(0.2))
            },
        ]);
        let mut mirrored = all.clone();
        mirrored.steps.clear();
        mirrored.gates.retain(|g| g.paired || g.sql.is_some() || g.dry_run);
        for spec in [plain, all, mirrored] {
            let checked = check(&release::written(&spec), "written");
            assert_eq!(checked.problems, []);
            assert_eq!(checked.releases, [spec]);
        }
    }
}
