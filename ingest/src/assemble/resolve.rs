//! Whose trace this is: route, version, color, release, cohort and split, in order of trust.
//!
//! A span's own stamped values stand on its row. The trace takes its root's, else those of the topmost and earliest
//! span that has any: so a color known only on the root reaches its children though they came first, and a color
//! known only on a child reaches the rest. Weak keys (`service.name`, `service.version`) are asked last, when every
//! explicit key has failed on every span.

use super::{
    shape::Shape,
    span::{Span, Word},
    twins::Twins,
};
use proto::{
    Color, Nanos,
    release::{BookEntry, Manifest, ReleaseBook},
};
use std::sync::Arc;
use store::{Mark, SpanMark, Twin};

/// What the resolver found.
#[derive(Debug, Clone, PartialEq)]
pub struct Resolved {
    /// The trace's mark.
    pub mark: Mark,
    /// A stamped color contradicts the declared version beside it; the version won.
    pub conflict: bool,
}

/// Attribute by which LiteLLM names the group of deployments that was asked.
pub const MODEL_GROUP: &str = "litellm.model_group";

/// Reasons why a trace has no color.
mod reason {
    pub const NO_ROUTE: &str = "no route";
    pub const NO_RELEASE: &str = "no release in force";
    pub const UNDECLARED: &str = "version not declared";
    pub const UNSTAMPED: &str = "no version";
}

fn first(spans: &[Span], shape: &Shape, word: Word) -> Option<Arc<str>> {
    shape.speakers().find_map(|i| spans[i].word(word)).cloned()
}

/// Route of a trace: an explicit one wherever it stands, then ever weaker names.
#[must_use]
pub fn route_of(spans: &[Span], shape: &Shape) -> Option<Arc<str>> {
    let flag = || shape.speakers().find_map(|i| spans[i].labels.flag.clone());
    [Word::Route, Word::Workflow, Word::Agent]
        .into_iter()
        .find_map(|word| first(spans, shape, word))
        .or_else(flag)
        .or_else(|| first(spans, shape, Word::Service))
}

/// Whether a release declares groups of models whose calls are mirrored ones.
#[must_use]
pub fn has_shadow_groups(entry: &BookEntry) -> bool {
    [&entry.blue, &entry.green]
        .iter()
        .any(|manifest| !manifest.matches.shadow_groups.is_empty())
}

/// Whether the release declares the span's group of models as a mirror.
#[must_use]
pub fn is_in_shadow_group(span: &Span, entry: &BookEntry) -> bool {
    let group = span.labels.attribute(MODEL_GROUP).map(AsRef::as_ref);
    [&entry.blue, &entry.green]
        .iter()
        .any(|manifest| holds(&manifest.matches.shadow_groups, group))
}

/// Resolves the trace of `spans` (sorted by id) that started at `start`.
#[must_use]
pub fn resolve(spans: &[Span], shape: &Shape, start: Nanos, book: &ReleaseBook) -> Resolved {
    let route = route_of(spans, shape);
    let version = first(spans, shape, Word::Version)
        .or_else(|| shape.speakers().find_map(|i| spans[i].labels.service_version.clone()));
    let entry = route.as_deref().and_then(|route| book.in_force(route, start));

    let (color, conflict) = color_of(spans, shape, entry);
    let settled = || {
        let winner = book.settled_version(route.as_deref()?, start)?;
        (version.as_deref() == Some(winner)).then_some(Color::Blue)
    };
    let color = color.or_else(settled).unwrap_or(Color::Unmarked);
    // a color that a stamp or a match gave says which manifest it is
    let version = version.or_else(|| Some(entry?.manifest_of(color)?.version.as_str().into()));
    let unmarked_reason = (!color.is_marked()).then(|| {
        match (&route, entry, &version) {
            (None, _, _) => reason::NO_ROUTE,
            (_, None, _) => reason::NO_RELEASE,
            (_, _, Some(_)) => reason::UNDECLARED,
            (_, _, None) => reason::UNSTAMPED,
        }
        .into()
    });
    let cohort = first(spans, shape, Word::Cohort).or_else(|| {
        let key = entry?.cohort_key.as_deref()?;
        shape.speakers().find_map(|i| spans[i].labels.attribute(key)).cloned()
    });
    let split_ppm = shape
        .speakers()
        .find_map(|i| spans[i].labels.split_ppm)
        .or_else(|| entry.and_then(|e| e.split_at(start)));
    let release = entry.map(|e| Arc::clone(&e.id));
    let mark = Mark {
        route,
        color,
        unmarked_reason,
        version,
        release,
        cohort,
        split_ppm,
        spans: None,
    };
    Resolved { mark, conflict }
}

/// Color of one span by what it says itself: its declared version, else its stamp. True if the two contradict.
#[must_use]
pub fn own_color(span: &Span, entry: Option<&BookEntry>) -> Option<(Color, bool)> {
    let stamped = span.labels.color.filter(|c| c.is_marked());
    let declared = span.labels.text(Word::Version).and_then(|v| entry?.color_of_version(v));
    match (declared, stamped) {
        (Some(declared), stamped) => Some((declared, stamped.is_some_and(|s| s != declared))),
        (None, Some(stamped)) => Some((stamped, false)),
        (None, None) => None,
    }
}

type Guess = fn(&BookEntry, &Span) -> Option<Color>;

/// By what a release declares about spans that nobody stamped, in order of trust.
const GUESSES: [Guess; 6] = [
    |entry, span| {
        declared(entry, |m| {
            holds(&m.matches.deployment, span.labels.text(Word::Deployment))
        })
    },
    |entry, span| entry.color_of_version(span.labels.service_version.as_deref()?),
    |entry, span| declared(entry, |m| holds(&m.matches.variant, span.labels.text(Word::Variant))),
    |entry, span| declared(entry, |m| model_and_host(m, span)),
    |entry, span| {
        declared(entry, |m| {
            holds(&m.matches.prompt_version, span.labels.text(Word::PromptVersion))
        })
    },
    |entry, span| declared(entry, |m| holds(&m.matches.tools, span.labels.text(Word::Tools))),
];

fn color_of(spans: &[Span], shape: &Shape, entry: Option<&BookEntry>) -> (Option<Color>, bool) {
    if let Some((color, conflict)) = shape.speakers().find_map(|i| own_color(&spans[i], entry)) {
        return (Some(color), conflict);
    }
    let guess = |entry: &BookEntry| {
        GUESSES
            .iter()
            .find_map(|guess| shape.speakers().find_map(|i| guess(entry, &spans[i])))
    };
    (entry.and_then(guess), false)
}

/// Color and version of every span: its own, else of the nearest span around it, up and then down, else the trace's.
#[derive(Debug)]
pub struct Colors {
    of_trace: Color,
    /// Empty where every span has the trace's.
    of_span: Vec<Option<Color>>,
    /// Empty where every span has the trace's.
    versions: Vec<Option<Arc<str>>>,
}

impl Colors {
    /// Reads them. `mark` is the trace's.
    #[must_use]
    pub fn of(spans: &[Span], shape: &Shape, entry: Option<&BookEntry>, mark: &Mark) -> Self {
        let stated = |i: usize| own_color(&spans[i], entry).map(|(color, _)| color);
        let guessed = |i: usize| GUESSES.iter().find_map(|guess| guess(entry?, &spans[i]));
        let differs = |says: &dyn Fn(usize) -> Option<Color>| {
            (0..spans.len()).any(|i| says(i).is_some_and(|color| color != mark.color))
        };
        let is_stated = (0..spans.len()).any(|i| stated(i).is_some());
        let of_span = if is_stated && differs(&stated) {
            around(shape, stated)
        } else if !is_stated && entry.is_some() && differs(&guessed) {
            around(shape, guessed)
        } else {
            Vec::new()
        };
        let version = |i: usize| spans[i].word(Word::Version).cloned();
        let other_version = spans.iter().any(|span| {
            span.word(Word::Version)
                .is_some_and(|own| Some(own) != mark.version.as_ref())
        });
        Self {
            of_trace: mark.color,
            of_span,
            versions: if other_version {
                around(shape, version)
            } else {
                Vec::new()
            },
        }
    }

    /// Color of a span.
    #[must_use]
    pub fn get(&self, i: usize) -> Color {
        self.of_span.get(i).copied().flatten().unwrap_or(self.of_trace)
    }

    /// What is known of single spans beyond their trace's mark.
    #[must_use]
    pub fn marks(&self, spans: &[Span], mark: &Mark, twins: &Twins) -> Option<Arc<[SpanMark]>> {
        if self.of_span.is_empty() && self.versions.is_empty() && twins.is_empty() {
            return None;
        }
        let mark_of = |i: usize| {
            let counts = |filling| Twin::Counts(Box::new(filling));
            let span =
                SpanMark {
                    span: spans[i].id,
                    color: Some(self.get(i)).filter(|&color| color != mark.color && spans[i].labels.color.is_none()),
                    version: self.versions.get(i).cloned().flatten().filter(|version| {
                        Some(version) != mark.version.as_ref() && spans[i].word(Word::Version).is_none()
                    }),
                    twin: match twins.counted_instead(i) {
                        Some(counted) => Some(Twin::Repeats(spans[counted].id)),
                        None => twins.filling(spans, i).map(counts),
                    },
                };
            (span.color.is_some() || span.version.is_some() || span.twin.is_some()).then_some(span)
        };
        let marks: Arc<[SpanMark]> = (0..spans.len()).filter_map(mark_of).collect();
        (!marks.is_empty()).then_some(marks)
    }
}

/// For every span what it says, else the nearest above that says something, else the nearest below.
fn around<T: Clone>(shape: &Shape, says: impl Fn(usize) -> Option<T>) -> Vec<Option<T>> {
    let above = shape.heard_above(&says);
    let below = shape.heard_below(&says);
    std::iter::zip(above, below)
        .map(|(above, below)| above.or(below))
        .collect()
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

/// Models and host are one key: where a manifest declares several of them, all must fit.
fn model_and_host(manifest: &Manifest, span: &Span) -> bool {
    let matches = &manifest.matches;
    let keys = [
        (&matches.response_model, Word::ResponseModel),
        (&matches.request_model, Word::RequestModel),
        (&matches.host, Word::Host),
    ];
    let fits =
        |(declared, word): &(&Vec<String>, Word)| declared.is_empty() || holds(declared, span.labels.text(*word));
    keys.iter().any(|(declared, _)| !declared.is_empty()) && keys.iter().all(fits)
}
