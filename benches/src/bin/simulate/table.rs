//! Tables of the study, in the Markdown of the docs.

use std::fmt::Write;

/// One table under a heading of its own.
#[derive(Debug, Clone)]
pub struct Table {
    title: String,
    says: String,
    head: Vec<String>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// An empty table.
    pub fn new(title: impl Into<String>, head: &[&str]) -> Self {
        Self {
            title: title.into(),
            says: String::new(),
            head: head.iter().map(|&h| h.to_owned()).collect(),
            rows: Vec::new(),
        }
    }

    /// With what must be known to read it.
    pub fn says(mut self, text: impl Into<String>) -> Self {
        self.says = text.into();
        self
    }

    /// Adds a row.
    pub fn row(&mut self, cells: impl IntoIterator<Item = String>) {
        self.rows.push(cells.into_iter().collect());
    }

    /// As Markdown.
    pub fn markdown(&self) -> String {
        let mut out = format!("### {}\n\n", self.title);
        if !self.says.is_empty() {
            let _ = writeln!(out, "{}\n", self.says);
        }
        let rule: Vec<String> = self.head.iter().map(|_| "---".to_owned()).collect();
        for row in [&self.head, &rule].into_iter().chain(&self.rows) {
            let _ = writeln!(out, "| {} |", row.join(" | "));
        }
        out
    }
}

/// A share as people read it.
pub fn percent(share: f64) -> String {
    let digits = match share {
        0.0 | 1.0 => 0,
        s if s >= 0.0995 => 1,
        _ => 2,
    };
    format!("{:.digits$} %", 100.0 * share)
}

/// A measured number beside a goal it must not exceed.
#[derive(Debug, Clone)]
pub struct Target {
    /// What is measured.
    pub what: String,
    /// Highest wished value.
    pub at_most: f64,
    /// Measured; `None` if it was not reached at all.
    pub measured: Option<f64>,
    /// Of what.
    pub unit: &'static str,
}

impl Target {
    /// A median in traces, or minutes.
    pub fn median(what: impl Into<String>, at_most: u64, measured: Option<u64>, unit: &'static str) -> Self {
        Self {
            what: what.into(),
            at_most: at_most as f64,
            measured: measured.map(|m| m as f64),
            unit,
        }
    }

    /// Whether the goal is met.
    pub fn is_met(&self) -> bool {
        self.measured.is_some_and(|m| m <= self.at_most)
    }

    /// `met`, or by how much not.
    fn verdict(&self) -> String {
        match self.measured {
            Some(m) if m <= self.at_most => "met".to_owned(),
            Some(m) => format!("**missed by {:.0} %**", 100.0 * (m / self.at_most - 1.0)),
            None => "**not reached**".to_owned(),
        }
    }
}

/// All goals in one table.
pub fn targets(targets: &[Target]) -> Table {
    let mut table = Table::new("Goals", &["what", "goal", "measured", ""]);
    for target in targets {
        let measured = target.measured.map_or_else(|| "-".to_owned(), |m| m.to_string());
        let Target {
            what, at_most, unit, ..
        } = target;
        table.row([what.clone(), format!("<= {at_most} {unit}"), measured, target.verdict()]);
    }
    table
}
