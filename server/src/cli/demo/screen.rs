//! What a person sees while the demo runs: one line for the route, one a gate, and what happened above them.
//! On a terminal the lines stay in place; elsewhere a line is printed every two seconds.

use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use proto::decision::{GateReport, VerdictReport};
use std::{
    collections::BTreeMap,
    io::{IsTerminal, Write as _},
    time::{Duration, Instant},
};

const BAR_CELLS: usize = 8;
/// Fits 80 columns, as every line below.
const LEGEND: &str = "gate                 blue     green   to promote      to roll back, worst cohort";
const PLAIN_EVERY: Duration = Duration::from_secs(2);

/// What the route is doing right now.
#[derive(Debug, Clone, Copy)]
pub struct Pulse {
    /// Exported traces a second.
    pub traces_per_sec: f64,
    /// Green's share at the gateway.
    pub green_share: f64,
}

/// The live part of the terminal.
pub struct Screen {
    lines: MultiProgress,
    head: ProgressBar,
    legend: ProgressBar,
    gates: BTreeMap<String, ProgressBar>,
    begun: Instant,
    terminal: bool,
    printed: Option<Instant>,
}

impl Screen {
    /// Takes over the last lines of standard output.
    pub fn new() -> Self {
        let terminal = std::io::stdout().is_terminal();
        let lines = MultiProgress::with_draw_target(if terminal {
            ProgressDrawTarget::stdout()
        } else {
            ProgressDrawTarget::hidden()
        });
        let (head, legend) = (lines.add(line()), lines.add(line()));
        Self {
            lines,
            head,
            legend,
            gates: BTreeMap::new(),
            begun: Instant::now(),
            terminal,
            printed: None,
        }
    }

    /// A line that stays: something happened.
    pub fn say(&self, text: &str) {
        let stamped = format!("{:>5.1} s  {text}", self.begun.elapsed().as_secs_f64());
        if self.terminal {
            // A terminal that went away is no reason to stop the demo.
            let _ = self.lines.println(stamped);
        } else {
            say(&stamped);
        }
    }

    /// Redraws the live lines.
    pub fn show(&mut self, pulse: Pulse, verdict: &VerdictReport) {
        let head = format!(
            "{:>5.1} s  {:.0} traces/s  green {:.0} %  {}  n {}/{}  {}",
            self.begun.elapsed().as_secs_f64(),
            pulse.traces_per_sec,
            pulse.green_share * 100.0,
            verdict.phase.as_str(),
            verdict.n_blue,
            verdict.n_green,
            verdict.reason,
        );
        let rows = rows(&verdict.gates);
        if self.terminal {
            self.head.set_message(head);
            self.legend.set_message(LEGEND);
            for (name, text) in rows {
                let lines = &self.lines;
                self.gates
                    .entry(name)
                    .or_insert_with(|| lines.add(line()))
                    .set_message(text);
            }
        } else if self.printed.is_none_or(|at| at.elapsed() >= PLAIN_EVERY) {
            self.printed = Some(Instant::now());
            say(&head);
            say(LEGEND);
            rows.iter().for_each(|(_, text)| say(text));
        }
    }

    /// Leaves the last state standing.
    pub fn finish(&self) {
        self.head.abandon();
        self.legend.abandon();
        self.gates.values().for_each(ProgressBar::abandon);
    }
}

fn line() -> ProgressBar {
    ProgressBar::new(1)
        .with_style(ProgressStyle::with_template("{wide_msg}").unwrap_or_else(|_| ProgressStyle::default_bar()))
}

/// Prints a line to standard output; a closed pipe is not an error.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stdout().lock(), "{text}");
}

/// One line a gate: both colors, evidence for promotion of the overall pair, evidence for rollback of the worst pair.
fn rows(reports: &[GateReport]) -> Vec<(String, String)> {
    let mut order: Vec<&str> = Vec::new();
    for report in reports {
        if !order.contains(&report.name.as_str()) {
            order.push(&report.name);
        }
    }
    order
        .into_iter()
        .filter_map(|name| {
            let of_gate = || reports.iter().filter(|r| r.name == name);
            let overall = of_gate().find(|r| r.cohort.is_none())?;
            let worst = of_gate().max_by(|a, b| {
                share(a.log_e_fail, a.threshold_fail).total_cmp(&share(b.log_e_fail, b.threshold_fail))
            })?;
            let text = format!(
                "{name:<15} {:>9} {:>9}   {}      {} {}",
                amount(name, overall.blue),
                amount(name, overall.green),
                bar(share(overall.log_e_pass, overall.threshold_pass)),
                bar(share(worst.log_e_fail, worst.threshold_fail)),
                worst.cohort.as_deref().unwrap_or("overall"),
            );
            Some((name.to_owned(), text))
        })
        .collect()
}

fn share(log_e: f64, threshold: f64) -> f64 {
    (log_e / threshold).clamp(0.0, 1.0)
}

fn bar(share: f64) -> String {
    let full = (share * BAR_CELLS as f64).round() as usize;
    format!("[{}{}]", "#".repeat(full), ".".repeat(BAR_CELLS - full))
}

/// A value in the unit of the demo's gates.
pub fn amount(gate: &str, value: Option<f64>) -> String {
    match (gate, value) {
        (_, None) => "-".to_owned(),
        ("p99 latency", Some(ms)) => format!("{ms:.0} ms"),
        ("cost per trace", Some(usd)) => format!("${usd:.6}"),
        (_, Some(share)) => format!("{:.1} %", share * 100.0),
    }
}
