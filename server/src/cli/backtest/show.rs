//! A backtest as people read it.

use super::traces::Read;
use crate::cli::text::{number, table};
use gates::backtest::{Backtest, Halves, PeerReport, seconds};
use std::time::Duration;

/// Everything about one file.
pub fn describe(result: &Backtest, read: &Read, file: &str) -> String {
    let mut text = format!(
        "{} on {} ({file}): {} to {}, {} blue and {} green traces\n",
        result.release,
        result.route,
        seconds(result.from),
        seconds(result.to),
        result.n_blue,
        result.n_green
    );
    let thresholds = result.baseline.as_deref().unwrap_or("none could be frozen");
    text.push_str(&format!("  thresholds from: {thresholds}\n"));
    for line in left_out(read) {
        text.push_str(&format!("  {line}\n"));
    }
    text.push_str(&format!("  these rules: {}\n", result.outcome()));
    if !result.decisions.is_empty() {
        text.push_str(&format!("\n{}\n", decisions(result)));
    }
    text.push_str(&format!("\n{}\n", gates(result)));
    if !result.peers.is_empty() {
        text.push_str(&format!("\n{}\n", peers(&result.peers)));
    }
    text.push_str("\nassumed:\n");
    if result.iid_assumed {
        text.push_str(
            "  iid assumed: no split was recorded with these traces, so they are taken as independent draws in either color\n",
        );
    }
    for line in &result.assumptions {
        text.push_str(&format!("  {line}\n"));
    }
    text
}

/// What did not become part of the history, or only with a word about it.
fn left_out(read: &Read) -> Vec<String> {
    let mut lines = Vec::new();
    let others: u64 = read.others.values().sum();
    if others > 0 {
        let named: Vec<&str> = read.others.keys().take(5).map(String::as_str).collect();
        lines.push(format!(
            "{others} traces of other versions are left out: {}",
            named.join(", ")
        ));
    }
    if read.unmarked > 0 {
        lines.push(format!("{} traces have no color", read.unmarked));
    }
    if read.late_evals > 0 {
        lines.push(format!(
            "{} evaluations were made after this history was over: they count as if made at once",
            read.late_evals
        ));
    }
    lines
}

fn decisions(result: &Backtest) -> String {
    let mut shown = table(&["when", "after", "decision", "blue", "green", "why"]);
    for d in &result.decisions {
        let action = match &d.cohort {
            Some(cohort) => format!("{} of {cohort}", d.action.as_str()),
            None => d.action.as_str().to_owned(),
        };
        shown.add_row(vec![
            seconds(d.at),
            span(d.after_secs),
            action,
            d.n_blue.to_string(),
            d.n_green.to_string(),
            d.reason.clone(),
        ]);
    }
    shown.to_string()
}

fn gates(result: &Backtest) -> String {
    let mut shown = table(&[
        "gate",
        "cohort",
        "at the end",
        "passed after",
        "failed after",
        "blue",
        "green",
        "effect",
        "margin",
        "why",
    ]);
    for gate in &result.gates {
        let last = &gate.last;
        let after = |secs: Option<u64>| secs.map_or_else(|| "-".to_owned(), span);
        shown.add_row(vec![
            last.name.clone(),
            last.cohort.clone().unwrap_or_else(|| "all".to_owned()),
            last.verdict.as_str().to_owned(),
            after(gate.passed_after_secs),
            after(gate.failed_after_secs),
            number(last.blue),
            number(last.green),
            number(last.effect),
            number(Some(last.margin)),
            last.reason.clone(),
        ]);
    }
    shown.to_string()
}

fn peers(peers: &[PeerReport]) -> String {
    let mut shown = table(&["rules of others, same margins", "would have rolled back", "why"]);
    for peer in peers {
        shown.add_row(vec![
            peer.name.clone(),
            peer.rolled_back_at.map_or_else(|| "never".to_owned(), seconds),
            peer.reason.clone().unwrap_or_default(),
        ]);
    }
    shown.to_string()
}

/// What two files differ in.
pub fn difference(a: (&str, &Backtest), b: (&str, &Backtest)) -> String {
    let said = |(file, result): (&str, &Backtest)| format!("{file} {}", result.outcome());
    format!("{}; {}", said(a), said(b))
}

/// Blue against itself.
pub fn halves(halves: &Halves) -> String {
    let of = halves.splits;
    let mut text = format!(
        "\nblue against itself: {} traces split in two by chance {of} times, looked at every {}\n  \
         these rules: {} of {of} rolled back (alpha is {} %), {} promoted\n",
        halves.traces,
        span(halves.every_secs),
        halves.rolled_back.len(),
        100.0 * halves.alpha,
        halves.promoted
    );
    for (seed, why) in &halves.rolled_back {
        text.push_str(&format!("    split {seed}: {why}\n"));
    }
    for (name, rolled_back) in &halves.peers {
        text.push_str(&format!("  {name}: {rolled_back} of {of} rolled back\n"));
    }
    text
}

/// `1day 2h 5m`.
fn span(secs: u64) -> String {
    humantime::format_duration(Duration::from_secs(secs)).to_string()
}
