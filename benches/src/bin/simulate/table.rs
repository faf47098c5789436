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

/// A whole number with its thousands set apart.
pub fn grouped(n: u64) -> String {
    let digits = n.to_string();
    let mut out = String::new();
    for (i, digit) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A median as it stands in a table.
pub fn middle(median: Option<u64>) -> String {
    median.map_or_else(|| "-".to_owned(), grouped)
}

/// A median beside a goal it must not exceed.
#[derive(Debug, Clone)]
pub struct Target {
    /// What is measured.
    pub what: String,
    /// Highest wished value.
    pub at_most: u64,
    /// Measured; `None` if fewer than half of the runs got there.
    pub measured: Option<u64>,
    /// Of what.
    pub unit: &'static str,
}

impl Target {
    /// Whether the goal is met.
    pub fn is_met(&self) -> bool {
        self.measured.is_some_and(|m| m <= self.at_most)
    }

    /// `met`, or by how much not.
    fn verdict(&self) -> String {
        match self.measured {
            Some(m) if m <= self.at_most => "met".to_owned(),
            Some(m) => format!("**missed by {:.0} %**", 100.0 * (m as f64 / self.at_most as f64 - 1.0)),
            None => "**not reached**".to_owned(),
        }
    }
}

/// All goals in one table.
pub fn targets(targets: &[Target]) -> Table {
    let head = ["what", "goal", "median", ""];
    let mut table = Table::new("How many traces it takes", &head).says(
        "Medians, alpha 1 % (the engine's gates together 0.8 %). \"In all\" counts both colors. One gate by itself is looked \
         at after every event; the whole engine is the judge with late starts and gates on failures, p99 and cost, in this \
         order, asked after every 20 traces, or every minute where health came before.",
    );
    for target in targets {
        let goal = format!("<= {} {}", grouped(target.at_most), target.unit);
        table.row([target.what.clone(), goal, middle(target.measured), target.verdict()]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_written_for_people() {
        assert_eq!(
            [0, 999, 1_000, 12_345_678].map(grouped),
            ["0", "999", "1,000", "12,345,678"]
        );
        assert_eq!(
            [0.0, 0.006_5, 0.347, 0.999_9, 1.0].map(percent),
            ["0 %", "0.65 %", "34.7 %", "100.0 %", "100 %"]
        );
    }

    #[test]
    fn a_goal_that_is_missed_says_by_how_much() {
        let goal = |measured| Target {
            what: "x".to_owned(),
            at_most: 200,
            measured,
            unit: "an arm",
        };
        let said = targets(&[goal(Some(200)), goal(Some(230)), goal(None)]).markdown();
        let ends: Vec<&str> = said
            .lines()
            .rev()
            .take(3)
            .map(|l| l.rsplit(" | ").next().unwrap())
            .collect();
        assert_eq!(ends, ["**not reached** |", "**missed by 15 %** |", "met |"]);
        assert!(!goal(None).is_met() && goal(Some(200)).is_met());
    }
}
