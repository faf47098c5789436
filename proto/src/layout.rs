//! Where files lie under the data directory. Only the closed set of tables, colors and dates becomes a path segment;
//! nothing that a client sent ever does.

use crate::{Color, Nanos};

/// Tables that are sealed into Parquet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Table {
    /// One row per OTLP span.
    Spans,
    /// One row per assembled trace.
    Traces,
    /// One row per evaluation.
    Evals,
    /// Signed deltas of metric cells.
    Cells,
}

impl Table {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Spans, Self::Traces, Self::Evals, Self::Cells];

    /// Table name in SQL, and top folder under the data directory.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Spans => "spans",
            Self::Traces => "traces",
            Self::Evals => "evals",
            Self::Cells => "cells",
        }
    }
}

/// Folder of a sealed file, relative to the data directory: `spans/color=green/date=2026-11-20/hour=14`.
/// Date and hour are those of receipt. Cells hold all colors, so their folder has no color.
#[must_use]
pub fn partition(table: Table, color: Option<Color>, received: Nanos) -> String {
    let at = chrono::DateTime::from_timestamp_nanos(received.0);
    match color {
        Some(color) => format!(
            "{}/color={}/{}",
            table.as_str(),
            color,
            at.format("date=%Y-%m-%d/hour=%H")
        ),
        None => format!("{}/{}", table.as_str(), at.format("date=%Y-%m-%d/hour=%H")),
    }
}

/// Folder of journal segments.
pub const JOURNAL: &str = "journal";
/// Folder of commit records.
pub const COMMITS: &str = "commits";
/// Folder for files not yet committed; emptied at start.
pub const TMP: &str = "tmp";
/// The decision ledger and the outbox.
pub const LEDGER: &str = "ledger.redb";
/// Held exclusively while a process writes to the data directory.
pub const LOCK: &str = "LOCK";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_color_date_and_hour() {
        let at = Nanos::from_secs(1_795_183_385);
        assert_eq!(
            partition(Table::Spans, Some(Color::Green), at),
            "spans/color=green/date=2026-11-20/hour=14"
        );
        assert_eq!(partition(Table::Cells, None, at), "cells/date=2026-11-20/hour=14");
    }
}
