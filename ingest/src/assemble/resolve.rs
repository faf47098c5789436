//! Whose trace this is: route, version, color, release, cohort and split, in order of trust.
//!
//! A span's own stamped values stand on its row. The trace takes its root's, else those of the topmost and earliest
//! span that has any: so a color known only on the root reaches its children though they came first, and a color
//! known only on a child reaches the rest. Weak keys (`service.name`, `service.version`) are asked last, when every
//! explicit key has failed on every span.

use super::{shape::Shape, span::Span};
use proto::{
    Color, Nanos,
    release::{BookEntry, Manifest, ReleaseBook},
};
use std::sync::Arc;
use store::Mark;

/// What the resolver found.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The trace's mark.
    pub mark: Mark,
    /// A stamped color contradicts the declared version beside it; the version won.
    pub conflict: bool,
}

/// Reasons why a trace has no color.
mod reason {
    pub const NO_ROUTE: &str = "no route";
    pub const NO_RELEASE: &str = "no release in force";
    pub const UNDECLARED: &str = "version not declared";
    pub const UNSTAMPED: &str = "no version";
}

/// Resolves the trace of `spans` (sorted by id) that started at `start`.
#[must_use]
pub fn resolve(spans: &[Span], shape: &Shape, start: Nanos, book: &ReleaseBook) -> Resolved {
    let first = |pick: fn(&Span) -> Option<&Arc<str>>| shape.speakers().find_map(|i| pick(&spans[i])).cloned();
    let route = first(|s| s.labels.route.as_ref()).or_else(|| first(|s| s.labels.service_name.as_ref()));
    let stamped_version = first(|s| s.labels.version.as_ref());
    let version = stamped_version.or_else(|| first(|s| s.labels.service_version.as_ref()));
    let entry = route.as_deref().and_then(|route| book.in_force(route, start));

    let (color, conflict) = color_of(spans, shape, entry);
    let settled = || {
        let winner = book.settled_version(route.as_deref()?, start)?;
        (version.as_deref() == Some(winner)).then_some(Color::Blue)
    };
    let color = color.or_else(settled).unwrap_or(Color::Unmarked);
    let unmarked_reason = (!color.is_marked()).then(|| {
        match (&route, entry, &version) {
            (None, _, _) => reason::NO_ROUTE,
            (_, None, _) => reason::NO_RELEASE,
            (_, _, Some(_)) => reason::UNDECLARED,
            (_, _, None) => reason::UNSTAMPED,
        }
        .into()
    });
    let cohort = first(|s| s.labels.cohort.as_ref()).or_else(|| {
        let key = entry?.cohort_key.as_deref()?;
        shape.speakers().find_map(|i| spans[i].labels.attribute(key)).cloned()
    });
    let split_ppm = shape
        .speakers()
        .find_map(|i| spans[i].labels.split_ppm)
        .or_else(|| entry.and_then(|e| e.split_at(start)));
    let release = entry.map(|e| Arc::clone(&e.id));
    Resolved {
        mark: Mark {
            route,
            color,
            unmarked_reason,
            version,
            release,
            cohort,
            split_ppm,
            spans: None,
        },
        conflict,
    }
}

/// Color of one span by what it says itself: its declared version, else its stamp. True if the two contradict.
#[must_use]
pub fn own_color(span: &Span, entry: Option<&BookEntry>) -> Option<(Color, bool)> {
    let stamped = span.labels.color.filter(|c| c.is_marked());
    let declared = span.labels.version.as_deref().and_then(|v| entry?.color_of_version(v));
    match (declared, stamped) {
        (Some(declared), stamped) => Some((declared, stamped.is_some_and(|s| s != declared))),
        (None, Some(stamped)) => Some((stamped, false)),
        (None, None) => None,
    }
}

fn color_of(spans: &[Span], shape: &Shape, entry: Option<&BookEntry>) -> (Option<Color>, bool) {
    if let Some((color, conflict)) = shape.speakers().find_map(|i| own_color(&spans[i], entry)) {
        return (Some(color), conflict);
    }
    let Some(entry) = entry else {
        return (None, false);
    };
    let by = |pick: &dyn Fn(&Span) -> Option<Color>| shape.speakers().find_map(|i| pick(&spans[i]));
    let color = by(&|s| declared(entry, |m| holds(&m.matches.deployment, s.labels.deployment.as_deref())))
        .or_else(|| by(&|s| entry.color_of_version(s.labels.service_version.as_deref()?)))
        .or_else(|| by(&|s| declared(entry, |m| model_and_host(m, s))))
        .or_else(|| {
            by(&|s| {
                declared(entry, |m| {
                    holds(&m.matches.prompt_version, s.labels.prompt_version.as_deref())
                })
            })
        });
    (color, false)
}

/// The one side whose manifest `matches`; neither if both do.
fn declared(entry: &BookEntry, matches: impl Fn(&Manifest) -> bool) -> Option<Color> {
    match (matches(&entry.blue), matches(&entry.green)) {
        (true, false) => Some(Color::Blue),
        (false, true) => Some(Color::Green),
        _ => None,
    }
}

fn holds(declared: &[String], value: Option<&str>) -> bool {
    value.is_some_and(|value| declared.iter().any(|d| d == value))
}

/// Model and host are one key: where a manifest declares both, both must fit.
fn model_and_host(manifest: &Manifest, span: &Span) -> bool {
    let (models, hosts) = (&manifest.matches.response_model, &manifest.matches.host);
    (!models.is_empty() || !hosts.is_empty())
        && (models.is_empty() || holds(models, span.labels.response_model.as_deref()))
        && (hosts.is_empty() || holds(hosts, span.labels.host.as_deref()))
}
