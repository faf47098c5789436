//! What history there is on a route, before it is read.

use super::colors::Sides;
use crate::cli::ask::{AskError, Asker, quoted};
use proto::{Color, Nanos, release::ReleaseSpec};
use std::time::Duration;

/// Traces that one question brings, about.
const TRACES_AT_A_TIME: u64 = 200_000;
/// Shortest time that one question covers.
const WINDOW_MIN: Duration = Duration::from_secs(600);

/// Traces alike.
#[derive(Debug)]
struct Kind {
    version: Option<String>,
    color: Option<Color>,
    traces: i64,
    first: Nanos,
    last: Nanos,
}

/// What there is.
#[derive(Debug)]
pub struct Survey {
    kinds: Vec<Kind>,
}

impl Survey {
    /// Looks at `route`.
    ///
    /// # Errors
    /// If nobody answers.
    pub async fn of(asker: &Asker, route: &str) -> Result<Self, AskError> {
        let sql = format!(
            "SELECT version, assigned_color AS color, count(*) AS traces, \
             CAST(min(start_time) AS BIGINT) AS first, CAST(max(start_time) AS BIGINT) AS last \
             FROM traces WHERE route = {} GROUP BY 1, 2",
            quoted(route)
        );
        let mut kinds = Vec::new();
        for rows in asker.rows(&sql).await? {
            let (version, color) = (rows.texts("version")?, rows.texts("color")?);
            let (traces, first, last) = (rows.whole("traces")?, rows.whole("first")?, rows.whole("last")?);
            kinds.extend((0..rows.len()).map(|i| Kind {
                version: version(i),
                color: color(i).and_then(|c| Color::parse(&c)),
                traces: traces(i).unwrap_or(0),
                first: Nanos(first(i).unwrap_or(0)),
                last: Nanos(last(i).unwrap_or(0)),
            }));
        }
        Ok(Self { kinds })
    }

    /// Whether there is nothing.
    pub const fn is_empty(&self) -> bool {
        self.kinds.is_empty()
    }

    /// Whether any trace names a version of either side.
    pub fn is_versioned(&self, spec: &ReleaseSpec) -> bool {
        let of = |version: &String| *version == spec.blue.version || *version == spec.green.version;
        self.kinds.iter().any(|k| k.version.as_ref().is_some_and(of))
    }

    /// First trace that its own row says is green.
    fn first_green(&self, sides: &Sides<'_>) -> Option<Nanos> {
        let green = |k: &&Kind| {
            let says = super::colors::Says {
                version: k.version.clone(),
                color: k.color,
                ..Default::default()
            };
            sides.of_trace(&says) == super::colors::Known::Color(Color::Green)
        };
        self.kinds.iter().filter(green).map(|k| k.first).min()
    }

    /// What to read: from `baseline` before the release (as asked for, or as green began) to the end.
    pub fn range(
        &self,
        spec: &ReleaseSpec,
        sides: &Sides<'_>,
        from: Option<Nanos>,
        to: Option<Nanos>,
    ) -> (Nanos, Nanos) {
        let first = self.kinds.iter().map(|k| k.first).min().unwrap_or_default();
        let last = self.kinds.iter().map(|k| k.last).max().unwrap_or_default();
        let opened = from.or_else(|| self.first_green(sides));
        let begin = opened.map_or(first, |at| at.minus(spec.baseline).max(first));
        let end = last.plus(Duration::from_nanos(1));
        (begin, to.map_or(end, |to| to.min(end)))
    }

    /// The range in pieces that hold not too much each.
    pub fn windows(&self, (from, to): (Nanos, Nanos)) -> Vec<(Nanos, Nanos)> {
        let first = self.kinds.iter().map(|k| k.first).min().unwrap_or_default();
        let last = self.kinds.iter().map(|k| k.last).max().unwrap_or_default();
        let traces: i64 = self.kinds.iter().map(|k| k.traces).sum();
        let whole = last.since(first).as_secs_f64();
        let pieces = u64::try_from(traces).unwrap_or(0).div_ceil(TRACES_AT_A_TIME).max(1);
        let width = Duration::from_secs_f64(whole / pieces as f64).max(WINDOW_MIN);
        let mut out = Vec::new();
        let mut at = from;
        while at < to {
            let next = at.plus(width).min(to);
            out.push((at, next));
            at = next;
        }
        out
    }
}
