//! docs/operations.md against the page of a running server: every figure is explained, and every explained figure is there.

use crate::running::Running;
use std::collections::BTreeSet;

/// Figures that are on the page from the first event on.
const FROM_FIRST_EVENT: [&str; 2] = ["tracegate_decisions_total", "tracegate_delivery_attempts_total"];

#[tokio::test(flavor = "multi_thread")]
async fn every_figure_has_help_a_proper_name_and_a_line_in_the_docs() {
    let running = Running::start().await;
    let page = running.text("/metrics").await;
    let mut shown = BTreeSet::new();
    for line in page.lines().filter_map(|line| line.strip_prefix("# TYPE ")) {
        let (name, kind) = line.split_once(' ').unwrap();
        let help = page
            .lines()
            .find_map(|line| line.strip_prefix(&format!("# HELP {name} ")));
        assert!(help.is_some_and(|help| help.len() > 5), "{name} has no help");
        let proper = match kind {
            "counter" => !name.ends_with("_total"),
            "histogram" => name.ends_with("_seconds"),
            _ => !name.ends_with("_total"),
        };
        assert!(proper, "{name} is no name of a {kind}");
        let suffix = if kind == "counter" { "_total" } else { "" };
        shown.insert(format!("{name}{suffix}"));
    }
    shown.extend(FROM_FIRST_EVENT.map(str::to_owned));
    let docs = include_str!("../../../docs/operations.md");
    let figures = docs
        .split("\n## Figures\n")
        .nth(1)
        .unwrap()
        .split("\n## ")
        .next()
        .unwrap();
    let told: BTreeSet<String> = figures
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once('`'))
        .map(|(name, _)| name.to_owned())
        .collect();
    let (untold, gone): (Vec<_>, Vec<_>) = (shown.difference(&told).collect(), told.difference(&shown).collect());
    assert!(
        untold.is_empty() && gone.is_empty(),
        "not in the docs: {untold:?}; not on the page: {gone:?}"
    );
}
