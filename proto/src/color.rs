//! The role a version plays in a release.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Role of a version in the release in force when a span started. A closed set: the only text of a span that becomes a path segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Color {
    /// The stable path.
    Blue,
    /// The candidate.
    Green,
    /// Nobody could say; the row carries the reason.
    #[default]
    Unmarked,
}

impl Color {
    /// All colors, in the order files and tables list them.
    pub const ALL: [Self; 3] = [Self::Blue, Self::Green, Self::Unmarked];

    /// The word used in columns, paths and JSON.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Blue => "blue",
            Self::Green => "green",
            Self::Unmarked => "unmarked",
        }
    }

    /// Reads a stamped color, ignoring ASCII case and surrounding space. Anything but blue and green is no color.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let text = text.trim();
        if text.eq_ignore_ascii_case("blue") {
            Some(Self::Blue)
        } else if text.eq_ignore_ascii_case("green") {
            Some(Self::Green)
        } else {
            None
        }
    }

    /// Blue or green: a color that a gate may count.
    #[must_use]
    pub const fn is_marked(self) -> bool {
        !matches!(self, Self::Unmarked)
    }
}

impl fmt::Display for Color {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
