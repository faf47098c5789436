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

/// Folder of a file that holds a whole day of receipt: compaction joins the hours of a day that is over.
#[must_use]
pub fn partition_of_day(table: Table, color: Option<Color>, received: Nanos) -> String {
    let hour = partition(table, color, received);
    match hour.rsplit_once('/') {
        Some((day, _)) => day.to_owned(),
        None => hour,
    }
}

/// When the rows of a sealed file were received, as its path says: first nanosecond of the hour (or day) and the first
/// one after it. `None` if it is no path of [`partition`].
#[must_use]
pub fn received(path: &str) -> Option<(Nanos, Nanos)> {
    let part = |name: &str| path.split('/').find_map(|part| part.strip_prefix(name));
    let date = chrono::NaiveDate::parse_from_str(part("date=")?, "%Y-%m-%d").ok()?;
    let (hour, length) = match part("hour=") {
        Some(hour) => (hour.parse().ok()?, HOUR),
        None => (0, 24 * HOUR),
    };
    let start = date.and_hms_opt(hour, 0, 0)?.and_utc().timestamp_nanos_opt()?;
    Some((Nanos(start), Nanos(start.checked_add(length)?)))
}

/// Nanoseconds in an hour.
pub const HOUR: i64 = 3_600_000_000_000;

/// Folder of journal segments.
pub const JOURNAL: &str = "journal";
/// Folder of commit records.
pub const COMMITS: &str = "commits";
/// Folder for files not yet committed; emptied at start.
pub const TMP: &str = "tmp";
/// Folder of sealed files that no commit record names and that a start did not dare to remove.
pub const ORPHANS: &str = "orphans";
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
        assert_eq!(partition_of_day(Table::Cells, None, at), "cells/date=2026-11-20");
    }

    #[test]
    fn a_path_says_when_its_rows_were_received() {
        let at = Nanos::from_secs(1_795_183_385);
        let hour = received(&format!("{}/x.parquet", partition(Table::Spans, Some(Color::Blue), at))).unwrap();
        assert!(hour.0 <= at && at < hour.1 && hour.1.0 - hour.0.0 == HOUR && hour.0.0 % HOUR == 0);
        let day = received(&format!("{}/x.parquet", partition_of_day(Table::Cells, None, at))).unwrap();
        assert!(day.0 <= hour.0 && hour.1 <= day.1 && day.1.0 - day.0.0 == 24 * HOUR);
        for wrong in [
            "",
            "spans/x.parquet",
            "spans/date=x/y",
            "spans/date=2026-13-01/y",
            "a/date=2026-11-20/hour=24/y",
        ] {
            assert_eq!(received(wrong), None, "{wrong}");
        }
    }
}
