//! What gates ask of rows, over real snapshots, against plain loops over what the rows were made of.

mod oracle;
mod pairs;
mod scale;
mod sql;
mod statements;
pub mod story;
mod units;

use proto::{Metric, Nanos, cell::Minutes, measure::MeasurePlan, release::Unit};
use std::{fmt::Write as _, sync::Arc};

/// Everything of release `r'1` that was admitted 1,100 s into the story, from its second minute on.
fn plan() -> MeasurePlan {
    MeasurePlan {
        release: "r'1".into(),
        route: story::ROUTE.into(),
        from: Nanos(crate::world::START + 60 * crate::world::SECOND),
        pairs_from: Nanos(crate::world::START + 60 * crate::world::SECOND),
        minute_secs: 60,
        admitted_after_secs: 70,
        splits: Vec::new(),
        pairs: Vec::new(),
        sql: Vec::new(),
        unit: Unit::Trace,
        metrics: Vec::new(),
    }
}

fn now() -> Nanos {
    Nanos(crate::world::START + 1_170 * crate::world::SECOND)
}

/// Last start that counts.
fn until() -> Nanos {
    Nanos(crate::world::START + 1_100 * crate::world::SECOND)
}

/// Cells of the metrics that `of` takes, one a line.
fn listed(minutes: &Minutes, of: impl Fn(&Metric) -> bool) -> Vec<String> {
    let mut lines = Vec::new();
    for (minute, cells) in minutes {
        for (series, cell) in cells.iter().filter(|(series, _)| of(&series.metric)) {
            let mut line = format!(
                "{minute} {series:?} n {} events {} sum {}",
                cell.n, cell.events, cell.sum
            );
            for (bucket, count) in cell.hdr.iter() {
                let _ = write!(line, " {bucket}:{count}");
            }
            lines.push(line);
        }
    }
    lines
}

/// Shows the first lines that differ.
fn assert_same(found: &[String], expected: &[String], whose: &str) {
    assert!(!expected.is_empty(), "{whose}: nothing to compare");
    for (i, (found, expected)) in found.iter().zip(expected).enumerate() {
        assert_eq!(found, expected, "{whose}: line {i}");
    }
    assert_eq!(found.len(), expected.len(), "{whose}");
}

fn normalised(metric: &str) -> Metric {
    metric.parse().unwrap()
}

/// A name to share.
fn name(text: &str) -> Arc<str> {
    text.into()
}
