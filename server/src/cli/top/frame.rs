//! One frame of `tracegate top`: lines of text, as wide and high as they may be.

use super::{
    super::{
        releases::is_over,
        text::{number, word},
    },
    page::{Page, Span},
};
use serde_json::Value;

/// Width of the word that begins a row, and of one figure with its word at most, cells.
const HEAD_CELLS: usize = 9;
const FIGURE_CELLS_MAX: usize = 22;
/// Figures that stand beside each other on any terminal.
const FIGURES: usize = 4;
/// Widest name of a release or route that is shown whole.
const NAME_CELLS: usize = 28;

/// What a frame is made of.
#[derive(Debug, Default)]
pub(super) struct Seen {
    /// Pages since the last start of the server, oldest first.
    pub(super) pages: Vec<Page>,
    /// Running releases first, each with its verdict.
    pub(super) releases: Vec<(Value, Value)>,
    /// Why the server gives no answer, if it gives none.
    pub(super) trouble: Option<String>,
}

/// The frame, `width` cells wide and at most `height` lines high.
pub(super) fn lines(seen: &Seen, server: &str, width: usize, height: usize) -> Vec<String> {
    let mut lines = vec![format!("tracegate top, {server}")];
    if let Some(trouble) = &seen.trouble {
        lines.push(format!("{trouble}; trying again"));
    }
    lines.push(String::new());
    if let (Some(first), Some(last)) = (seen.pages.first(), seen.pages.last()) {
        let before = seen.pages.iter().rev().nth(1).unwrap_or(last);
        let now = Span { from: before, to: last };
        let lately = Span { from: first, to: last };
        lines.extend(figures(now, lately, width));
        lines.push(String::new());
        lines.extend(releases(&seen.releases));
    }
    if lines.len() > height {
        let more = lines.len() + 1 - height;
        lines.truncate(height.saturating_sub(1));
        lines.push(format!("... and {more} more lines"));
    }
    lines.iter().map(|line| cut(line, width)).collect()
}

/// Without what a terminal would obey, and no wider than it is.
fn cut(line: &str, width: usize) -> String {
    line.chars()
        .map(|c| if c.is_control() { '?' } else { c })
        .take(width)
        .collect()
}

fn figures(now: Span<'_>, lately: Span<'_>, width: usize) -> Vec<String> {
    let cells = (width.saturating_sub(HEAD_CELLS) / FIGURES).clamp(2, FIGURE_CELLS_MAX) - 2;
    let row = |name, figures: &[(&str, String)]| row(cells, name, figures);
    let page = now.to;
    let per_second = |of: &dyn Fn(&Page) -> f64| now.rate(of).map_or_else(|| "-".to_owned(), count);
    let counter = |name: &'static str| move |page: &Page| page.get(name);
    let family = |name: &'static str| move |page: &Page| page.sum(name);
    let took = |name: &str, q: f64| seconds(lately.quantile(name, q));
    let get = |name: &str| count(page.get(name));
    let size = |name: &str| bytes(page.get(name));
    let queue = |name: &str| get(&format!("queue_depth{{queue=\"{name}\"}}"));
    vec![
        row(
            "taken",
            &[
                ("spans/s", per_second(&counter("accepted_total"))),
                ("requests/s", per_second(&family("requests_total"))),
                ("spans", get("accepted_total")),
                ("sent again", get("requests_duplicate_total")),
            ],
        ),
        row(
            "acks",
            &[
                ("p50", took("ack_seconds", 0.5)),
                ("p99", took("ack_seconds", 0.99)),
                ("fsync p99", took("journal_fsync_seconds", 0.99)),
            ],
        ),
        row(
            "refused",
            &[
                ("requests/s", per_second(&family("requests_refused_total"))),
                ("spans", get("rejected_total")),
                ("requests", refused(page)),
            ],
        ),
        row(
            "queues",
            &[
                ("intake", queue("intake")),
                ("lane", queue("lane")),
                ("journal", queue("journal")),
                ("engine", queue("engine")),
            ],
        ),
        row(
            "traces",
            &[
                ("open", get("traces_open")),
                ("recent", get("traces_recent")),
                ("live rows", get("live_rows")),
                (
                    "snapshot",
                    format!("{} old", seconds(Some(page.get("snapshot_age_seconds")))),
                ),
            ],
        ),
        row(
            "disk",
            &[
                ("journal", size("journal_disk_bytes")),
                ("sealed", size("seal_bytes_total")),
                ("seal p99", took("seal_seconds", 0.99)),
                ("seals", seals(page)),
            ],
        ),
        row(
            "memory",
            &[
                ("process", size("process_resident_memory_bytes")),
                ("traces", size("traces_bytes")),
                (
                    "requests",
                    format!("{} of {}", size("inflight_bytes"), size("inflight_bytes_max")),
                ),
            ],
        ),
        row("config", &[("", configuration(page))]),
    ]
}

/// A word, then figures with theirs, in columns.
fn row(cells: usize, name: &str, figures: &[(&str, String)]) -> String {
    let mut line = format!("{name:<HEAD_CELLS$}");
    for (what, value) in figures {
        let cell = format!("{what} {value}");
        line.push_str(&format!("{:<cells$}  ", cell.trim_start()));
    }
    line.trim_end().to_owned()
}

/// How many, and the reasons.
fn refused(page: &Page) -> String {
    let causes = page.family("requests_refused_total");
    let named: Vec<String> = causes
        .iter()
        .filter(|(_, n)| *n > 0.0)
        .map(|(cause, n)| format!("{cause} {}", count(*n)))
        .collect();
    let all = count(causes.iter().map(|(_, n)| n).sum());
    if named.is_empty() {
        all
    } else {
        format!("{all} ({})", named.join(", "))
    }
}

fn seals(page: &Page) -> String {
    let done = count(page.get("seals_total"));
    match page.get("seal_failures_total") {
        0.0 => done,
        failed => format!("{done}, {} FAILED", count(failed)),
    }
}

fn configuration(page: &Page) -> String {
    let refused = page.get("config_refused") > 0.0;
    let state = if refused {
        "REFUSED, an older one runs"
    } else {
        "in force"
    };
    match page.get("config_waiting") {
        0.0 => state.to_owned(),
        n => format!(
            "{state}; not in force: {} keys or releases, see the server's log",
            count(n)
        ),
    }
}

fn releases(all: &[(Value, Value)]) -> Vec<String> {
    if all.is_empty() {
        return vec!["no releases".to_owned()];
    }
    let mut rows = vec![["release", "route", "phase", "green", "verdict", "nearest gate"].map(str::to_owned)];
    for (release, verdict) in all {
        let green = release.pointer("/weights/green").and_then(Value::as_f64);
        rows.push([
            short(&word(release, "/id")),
            short(&word(release, "/route")),
            word(release, "/phase"),
            green.map_or_else(|| "-".to_owned(), percent),
            word(release, "/verdict"),
            if is_over(release) {
                String::new()
            } else {
                nearest(verdict)
            },
        ]);
    }
    let widths: Vec<usize> = (0..rows[0].len())
        .map(|i| rows.iter().map(|row| row[i].chars().count()).max().unwrap_or_default())
        .collect();
    rows.iter()
        .map(|row| {
            let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
            cells.collect::<Vec<_>>().join("  ").trim_end().to_owned()
        })
        .collect()
}

/// With a digit behind the point only where there is something.
fn percent(share: f64) -> String {
    let text = format!("{:.1}", share * 100.0);
    format!("{} %", text.strip_suffix(".0").unwrap_or(&text))
}

fn short(name: &str) -> String {
    if name.chars().count() <= NAME_CELLS {
        return name.to_owned();
    }
    let start: String = name.chars().take(NAME_CELLS - 3).collect();
    format!("{start}...")
}

/// The gate that failed, or else the one whose evidence is nearest to deciding it, and how far it is.
fn nearest(verdict: &Value) -> String {
    let gates = verdict["gates"].as_array().map(Vec::as_slice).unwrap_or_default();
    let name = |gate: &Value| match gate["cohort"].as_str() {
        Some(cohort) => format!("{} ({cohort})", word(gate, "/name")),
        None => word(gate, "/name"),
    };
    if let Some(failed) = gates.iter().find(|gate| gate["verdict"] == "fail") {
        return format!("{}: failed", name(failed));
    }
    let share = |gate: &Value, have: &str, need: &str| {
        let share = gate[have].as_f64()? / gate[need].as_f64()?;
        share.is_finite().then_some(share)
    };
    let undecided = gates.iter().filter(|gate| gate["verdict"] != "pass");
    let near = undecided
        .flat_map(|gate| {
            [
                (share(gate, "log_e_fail", "threshold_fail"), "fail", gate),
                (share(gate, "log_e_pass", "threshold_pass"), "pass", gate),
            ]
        })
        .filter_map(|(share, to, gate)| Some((share?, to, gate)))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match near {
        Some((share, to, gate)) => format!("{}: {:.0} % to {to}", name(gate), share.max(0.0) * 100.0),
        None if gates.is_empty() => "no gates yet".to_owned(),
        None => "all pass".to_owned(),
    }
}

/// With thousands apart.
fn count(n: f64) -> String {
    if n < 1_000.0 && n.fract() != 0.0 {
        return number(Some(n));
    }
    let digits = format!("{n:.0}");
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i) % 3 == 0 {
            out.push(' ');
        }
        out.push(digit);
    }
    out
}

fn bytes(n: f64) -> String {
    let units = [(1_u64 << 30, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")];
    let unit = units.into_iter().find(|(size, _)| n >= *size as f64);
    match unit {
        Some((size, unit)) => format!("{} {unit}", number(Some(n / size as f64))),
        None => format!("{n:.0} B"),
    }
}

fn seconds(of: Option<f64>) -> String {
    match of {
        None => "-".to_owned(),
        Some(s) if s >= 1.0 => format!("{} s", number(Some(s))),
        Some(s) => format!("{} ms", number(Some(s * 1e3))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;
    use std::time::{Duration, Instant};

    fn seen() -> Seen {
        let begun = Instant::now();
        let page = |accepted: u64, seconds: u64| {
            let text = format!(
                "tracegate_accepted_total {accepted}\ntracegate_requests_total{{transport=\"grpc\"}} {}\n\
                 tracegate_ack_seconds_bucket{{le=\"0.002\"}} 10\ntracegate_ack_seconds_bucket{{le=\"+Inf\"}} 10\n\
                 tracegate_requests_refused_total{{cause=\"busy\"}} 3\n\
                 tracegate_queue_depth{{queue=\"intake\"}} 17\ntracegate_live_rows 1234567\n\
                 tracegate_journal_disk_bytes 5242880\ntracegate_inflight_bytes_max 268435456\n\
                 tracegate_snapshot_age_seconds 0.0125\ntracegate_config_refused 1\ntracegate_config_waiting 2\n\
                 process_resident_memory_bytes 133324800\n",
                accepted / 10
            );
            Page::read(&text, begun + Duration::from_secs(seconds)).unwrap()
        };
        let gate = |name: &str, verdict: &str, fail: f64, pass: f64| {
            json!({ "name": name, "cohort": "enterprise", "verdict": verdict, "log_e_fail": fail, "threshold_fail": 5.0,
                    "log_e_pass": pass, "threshold_pass": 3.0 })
        };
        let release = |id: &str, phase: &str| json!({ "id": id, "route": "chat", "phase": phase, "verdict": "inconclusive", "weights": { "blue": 0.95, "green": 0.05 } });
        Seen {
            pages: vec![page(1_000, 0), page(3_469, 1)],
            releases: vec![
                (
                    release("chat-8", "canary"),
                    json!({ "gates": [gate("cost", "pass", 0.0, 9.0), gate("p99 latency", "inconclusive", 3.1, 0.2)] }),
                ),
                (
                    release("a-release-with-a-name-that-is-rather-long", "watching"),
                    json!({ "gates": [gate("error", "fail", 9.0, 0.0)] }),
                ),
                (release("chat\u{1b}[2J-7", "settled"), json!({ "gates": [] })),
            ],
            trouble: None,
        }
    }

    #[test]
    fn a_frame_shows_what_comes_waits_and_is_decided() {
        insta::assert_snapshot!(lines(&seen(), "http://127.0.0.1:4320", 120, 40).join("\n"));
    }

    #[test]
    fn trouble_is_said_above_the_last_figures_and_nothing_is_wider_or_higher_than_the_terminal() {
        let mut seen = seen();
        seen.trouble = Some("no tracegate server answers at http://127.0.0.1:4320".to_owned());
        let shown = lines(&seen, "http://127.0.0.1:4320", 40, 6);
        assert_eq!(shown.len(), 6);
        assert!(shown[1].starts_with("no tracegate server answers"));
        assert!(shown.iter().all(|line| line.chars().count() <= 40), "{shown:?}");
        assert_eq!(shown[5], "... and 11 more lines");
    }

    #[test]
    fn nothing_a_name_holds_reaches_the_terminal_as_an_order() {
        let all = lines(&seen(), "x", 200, 40).join("\n");
        assert!(!all.contains('\u{1b}') && all.contains("chat?[2J-7"), "{all}");
    }

    #[test]
    fn the_nearest_gate_is_the_one_that_decides_next() {
        let of = |gates: Value| nearest(&json!({ "gates": gates }));
        assert_eq!(of(json!([])), "no gates yet");
        assert_eq!(of(json!([{ "name": "a", "verdict": "pass" }])), "all pass");
        let undecided = json!([
            { "name": "a", "verdict": "inconclusive", "log_e_fail": null, "threshold_fail": 5, "log_e_pass": 1, "threshold_pass": 4 },
            { "name": "b", "verdict": "inconclusive", "log_e_fail": 1, "threshold_fail": 5, "log_e_pass": -2, "threshold_pass": 4 },
        ]);
        assert_eq!(of(undecided), "a: 25 % to pass");
    }

    #[test]
    fn figures_are_short() {
        assert_eq!(count(1_234_567.0), "1 234 567");
        assert_eq!(count(12.34), "12.3");
        assert_eq!(count(100.0), "100");
        assert_eq!(
            (bytes(17.0), bytes(5_242_880.0)),
            ("17 B".to_owned(), "5.00 MiB".to_owned())
        );
        assert_eq!(
            (seconds(Some(0.0012)), seconds(Some(61.0)), seconds(None)),
            ("1.20 ms".to_owned(), "61.0 s".to_owned(), "-".to_owned())
        );
    }
}
