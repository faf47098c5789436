//! The study as it stands in the docs: tables between markers, and where they are from.

use crate::{Study, plot, run::Scale};
use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Where tables begin in `docs/statistics.md`.
const BEGIN: &str = "<!-- simulate:begin -->";
/// Where they end.
const END: &str = "<!-- simulate:end -->";
/// Name of the plot beside it.
const PLOT: &str = "statistics-simulated.svg";

/// Writes tables and plot, each whole or not at all.
///
/// # Errors
/// If the docs are not where they should be, have no markers, or cannot be written.
pub fn docs(study: &Study, commit: &str) -> Result<(), Box<dyn Error>> {
    let docs = root().join("docs");
    let page = docs.join("statistics.md");
    let text = between(&fs::read_to_string(&page)?, &section(study, commit))?;
    let plot = plot::svg(study)?;
    replace(&docs.join(PLOT), &plot)?;
    replace(&page, &text)?;
    Ok(())
}

/// Root of the repository this was built from.
fn root() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

/// A file is replaced by renaming, so that there is no half of it.
fn replace(path: &Path, text: &str) -> std::io::Result<()> {
    let new = path.with_extension("new");
    fs::write(&new, text)?;
    fs::rename(&new, path)
}

/// `text` with everything between the markers replaced.
fn between(text: &str, section: &str) -> Result<String, String> {
    let (before, rest) = text.split_once(BEGIN).ok_or_else(|| format!("no line `{BEGIN}`"))?;
    let (_, after) = rest.split_once(END).ok_or_else(|| format!("no line `{END}`"))?;
    Ok(format!("{before}{BEGIN}\n\n{section}\n{END}{after}"))
}

fn section(study: &Study, commit: &str) -> String {
    let Scale { runs, seed, .. } = study.scale;
    let missed = study.targets.iter().filter(|t| !t.is_met()).count();
    let goals = match missed {
        0 => "Every goal is met.".to_owned(),
        1 => "One goal is missed.".to_owned(),
        n => format!("{n} goals are missed."),
    };
    let mut out = format!(
        "{}, commit {commit}, `cargo xtask simulate --runs {runs} --seed {seed} --write`. {goals}\n\n\
         ![What an equal green, a worse one and a late onset see]({PLOT})\n",
        machine(),
    );
    for table in &study.tables {
        out.push('\n');
        out.push_str(&table.markdown());
    }
    out
}

/// Processor and cores, as far as the system says.
fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|l| l.strip_prefix("model name")?.split_once(": "));
    let model = model.map_or(std::env::consts::ARCH, |(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    format!("{cores} cores of {model}")
}

/// Short hash of the tree, as git says.
pub fn commit() -> String {
    let git = |args: &[&str]| {
        let output = Command::new("git").current_dir(root()).args(args).output().ok()?;
        output
            .status
            .success()
            .then(|| String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let Some(hash) = git(&["rev-parse", "--short", "HEAD"]) else {
        return "unknown".to_owned();
    };
    let changed = git(&["status", "--porcelain", "--untracked-files=no"]).is_some_and(|s| !s.is_empty());
    if changed {
        format!("{hash} and changes on top")
    } else {
        hash
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_stands_between_the_markers_is_replaced() {
        let page = format!("before\n{BEGIN}\nold\n{END}\nafter\n");
        let new = between(&page, "| new |\n").unwrap();
        assert_eq!(new, format!("before\n{BEGIN}\n\n| new |\n\n{END}\nafter\n"));
        assert_eq!(between(&new, "| new |\n").unwrap(), new);
        assert!(between("no markers", "").is_err());
        let real = fs::read_to_string(root().join("docs/statistics.md")).unwrap();
        assert!(between(&real, "").is_ok(), "the page has its markers");
    }
}
