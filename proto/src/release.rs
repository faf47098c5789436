//! A release as declared, and the book that says which release a span belongs to.

use crate::{Color, Metric, Nanos};
use serde::{Deserialize, Serialize};
use std::{sync::Arc, time::Duration};

/// Durations as people write them (`"24h"`, `"1500ms"`), in TOML and in stored evidence alike.
pub mod human {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::Duration;

    /// Writes `1h 30m`.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(d: &Duration, s: S) -> Result<S::Ok, S::Error> {
        s.collect_str(&humantime::format_duration(*d))
    }

    /// Reads `90m`.
    ///
    /// # Errors
    /// If the text is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Duration, D::Error> {
        humantime::parse_duration(&String::deserialize(d)?).map_err(D::Error::custom)
    }
}

/// The same where there may be none.
pub mod human_option {
    use serde::{Deserialize, Deserializer, Serializer, de::Error};
    use std::time::Duration;

    /// Writes `1h 30m`, or nothing.
    ///
    /// # Errors
    /// The serializer's.
    pub fn serialize<S: Serializer>(d: &Option<Duration>, s: S) -> Result<S::Ok, S::Error> {
        match d {
            Some(d) => super::human::serialize(d, s),
            None => s.serialize_none(),
        }
    }

    /// Reads `90m`, or nothing.
    ///
    /// # Errors
    /// If the text is no duration.
    pub fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Option<Duration>, D::Error> {
        let text = Option::<String>::deserialize(d)?;
        text.map(|t| humantime::parse_duration(&t).map_err(D::Error::custom))
            .transpose()
    }
}

/// How far tracegate may go by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Measure and show; no decision is sent.
    Observe,
    /// Decide and tell people; the gateway is not told.
    Advise,
    /// Decide and send notices.
    Act,
}

/// What is randomised.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Unit {
    /// Each trace for itself.
    Trace,
    /// All traces of a session together.
    Session,
    /// All traces of a user together.
    User,
}

/// What to do at the horizon, or when no data come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum NoData {
    /// Leave the route as it is and tell people.
    Hold,
    /// Roll back.
    Fail,
    /// Go on for another horizon.
    Extend,
}

/// Whether a person must agree before a promotion.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Approval {
    /// No.
    None,
    /// Yes, before `promote`.
    Promote,
}

/// What a failed gate does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFail {
    /// The whole route goes back to blue.
    Rollback,
    /// The affected cohort goes back to blue.
    Fallback,
    /// Green's share stays as it is.
    Hold,
}

/// The complete path of a version: model, prompt, tools and all that stands around them. Rolled back as a whole.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Manifest {
    /// Identity of the path; versions last, colors are roles.
    pub version: String,
    /// Provider, `openai`.
    pub provider: String,
    /// Model name as requested.
    pub model: String,
    /// Prompt as `name@version`.
    pub prompt: String,
    /// Tool schema.
    pub tools: String,
    /// Guardrails.
    pub guardrails: String,
    /// Semantic cache.
    pub cache: String,
    /// Fallback chain, first tried first.
    pub fallback: Vec<String>,
    /// Routing policy.
    pub policy: String,
    /// Logging policy.
    pub logging: String,
    /// Treatment of personal data.
    pub pii: String,
    /// How its spans are known when nobody stamps them.
    #[serde(default, rename = "match", skip_serializing_if = "Match::is_empty")]
    pub matches: Match,
}

/// Keys by which unstamped spans are recognised. Values are compared as whole strings.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct Match {
    /// Deployment ids.
    pub deployment: Vec<String>,
    /// Variants of a declared feature flag.
    pub variant: Vec<String>,
    /// Response models.
    pub response_model: Vec<String>,
    /// Models as requested.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub request_model: Vec<String>,
    /// Tool schemas, by version or hash.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tools: Vec<String>,
    /// Hosts.
    pub host: Vec<String>,
    /// Prompt versions.
    pub prompt_version: Vec<String>,
    /// Model groups whose calls are shadow calls.
    pub shadow_groups: Vec<String>,
}

impl Match {
    /// True if nothing is declared.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// One step of a ramp.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Step {
    /// Green's share of the route, in (0, 1].
    pub green: f64,
    /// Least time on this step.
    #[serde(with = "human", default)]
    pub min: Duration,
}

impl Step {
    /// The share in ppm, the unit of cells.
    #[must_use]
    pub fn ppm(&self) -> u32 {
        (self.green * f64::from(crate::cell::PPM)).round() as u32
    }
}

/// How green is compared with blue.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Margin {
    /// Green may be at most this many times blue.
    MaxRatio(f64),
    /// Green may exceed blue by at most this (the metric's own unit: a share, USD, ms, tokens).
    MaxIncrease(f64),
    /// Green alone may not exceed this.
    Max(f64),
    /// Green alone may not fall below this.
    Min(f64),
}

/// One criterion.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GateSpec {
    /// Unique within the release.
    pub name: String,
    /// What is measured (for `eval_fail`, with its evaluator).
    pub metric: Metric,
    /// Quantile of an amount, in (0, 1); `None` compares means (amounts) or shares (rates).
    pub quantile: Option<f64>,
    /// How far green may be worse.
    pub margin: Margin,
    /// Also judged within each cohort.
    pub by_cohort: bool,
    /// Least share of traces that carry the evaluation.
    pub min_coverage: Option<f64>,
    /// Evaluations are counted once their trace is this old (on top of timeout and grace), in both colors alike.
    #[serde(default, with = "human", skip_serializing_if = "Duration::is_zero")]
    pub lateness: Duration,
    /// Judged on mirrored (or replayed) pairs: both colors answered the same request.
    #[serde(default, skip_serializing_if = "is_false")]
    pub paired: bool,
    /// Counts come from this statement; `metric` is then [`Metric::Sql`] of the gate's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sql: Option<String>,
    /// Measured and shown; what it finds changes nothing.
    #[serde(default, skip_serializing_if = "is_false")]
    pub dry_run: bool,
    /// What failing does.
    pub on_fail: OnFail,
}

impl GateSpec {
    /// A gate that compares all traffic and rolls back, with nothing else asked of it.
    #[must_use]
    pub fn new(name: impl Into<String>, metric: Metric, margin: Margin) -> Self {
        Self {
            name: name.into(),
            metric,
            quantile: None,
            margin,
            by_cohort: false,
            min_coverage: None,
            lateness: Duration::ZERO,
            paired: false,
            sql: None,
            dry_run: false,
            on_fail: OnFail::Rollback,
        }
    }
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde asks by reference
const fn is_false(b: &bool) -> bool {
    !*b
}

/// Where notices go. The secret itself is read from the environment or a file, never stored here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct WebhookSpec {
    /// Receiver.
    pub url: String,
    /// Environment variable that holds the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_env: Option<String>,
    /// File that holds the secret.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret_file: Option<String>,
}

/// What the provider lets green use at full traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quota {
    /// Requests a minute.
    pub requests_per_minute: Option<u64>,
    /// Tokens a minute.
    pub tokens_per_minute: Option<u64>,
}

/// The breaker: a betting test on green's failed attempts that fires within a burst.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct BreakerSpec {
    /// Highest tolerable share of failed attempts; `None`: five times blue's in the baseline, at least 5 %.
    pub max: Option<f64>,
    /// Its share of `alpha`.
    pub alpha_share: f64,
}

/// A release, with every default filled in. Serialised canonically it is what `rules_hash` is taken over.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ReleaseSpec {
    /// Route on trial.
    pub route: String,
    /// Name of the release, unique.
    pub id: String,
    /// How far to go.
    pub mode: Mode,
    /// What is randomised.
    pub unit: Unit,
    /// Attribute whose value is the cohort.
    pub cohort: Option<String>,
    /// How far back blue's history freezes thresholds.
    #[serde(with = "human")]
    pub baseline: Duration,
    /// The ramp; empty if traffic is only mirrored.
    pub steps: Vec<Step>,
    /// Start of the release that is left out (and freezes thresholds when there is no earlier blue).
    #[serde(with = "human")]
    pub warmup: Duration,
    /// Least traces an arm before a promotion.
    pub min_traces: u64,
    /// Least time of comparison before a promotion.
    #[serde(default, with = "human", skip_serializing_if = "Duration::is_zero")]
    pub min_duration: Duration,
    /// Green answers mirrored requests at least this long before it serves any; `None`: no mirroring phase.
    #[serde(default, with = "human_option", skip_serializing_if = "Option::is_none")]
    pub mirror: Option<Duration>,
    /// After a rollback on the route, or a fallback or hold of this release, nothing is advanced or promoted for this
    /// long.
    #[serde(default, with = "human", skip_serializing_if = "Duration::is_zero")]
    pub cool_down: Duration,
    /// After this long without a decision, `no_data` says what happens.
    #[serde(with = "human")]
    pub horizon: Duration,
    /// Whether a person agrees first.
    pub approval: Approval,
    /// Chance of ever rolling back a good green.
    pub alpha: f64,
    /// Chance of ever promoting a green at the margin.
    pub alpha_promote: f64,
    /// Policy without data.
    pub no_data: NoData,
    /// A trace older than this has timed out.
    #[serde(with = "human")]
    pub timeout: Duration,
    /// Time for spans and evaluations to arrive after the timeout.
    #[serde(with = "human")]
    pub grace: Duration,
    /// Stable path.
    pub blue: Manifest,
    /// Candidate path.
    pub green: Manifest,
    /// Provider's limits.
    pub quota: Quota,
    /// The breaker.
    pub breaker: BreakerSpec,
    /// Criteria, in order.
    #[serde(rename = "gate")]
    pub gates: Vec<GateSpec>,
    /// Where notices go; a release that acts has one.
    pub webhook: Option<WebhookSpec>,
}

impl ReleaseSpec {
    /// When a trace that started at `start` may be counted by a gate.
    #[must_use]
    pub fn admitted_at(&self, start: Nanos) -> Nanos {
        start.plus(self.timeout + self.grace)
    }
}

/// One release as ingest sees it: who is blue, who is green, since when, at which split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BookEntry {
    /// Route.
    pub route: Arc<str>,
    /// Release id.
    pub id: Arc<str>,
    /// Stable path.
    pub blue: Manifest,
    /// Candidate path.
    pub green: Manifest,
    /// Attribute whose value is the cohort.
    pub cohort_key: Option<Arc<str>>,
    /// A trace older than this has timed out.
    #[serde(with = "human")]
    pub timeout: Duration,
    /// Time for late spans and evaluations.
    #[serde(with = "human")]
    pub grace: Duration,
    /// In force from (inclusive).
    pub opened: Nanos,
    /// In force until (exclusive); `None` while it runs.
    pub settled: Option<Nanos>,
    /// Who won, once settled.
    pub winner: Option<Color>,
    /// Declared split over time: from this time on, this many ppm go green; `None` while traffic is moving and no
    /// split can be named. Ascending.
    pub splits: Vec<(Nanos, Option<u32>)>,
}

impl BookEntry {
    /// Whether a span that started `at` falls into this release.
    #[must_use]
    pub fn covers(&self, at: Nanos) -> bool {
        self.opened <= at && self.settled.is_none_or(|end| at < end)
    }

    /// Declared split at a time, ppm.
    #[must_use]
    pub fn split_at(&self, at: Nanos) -> Option<u32> {
        let i = self.splits.partition_point(|&(since, _)| since <= at);
        i.checked_sub(1).and_then(|i| self.splits[i].1)
    }

    /// Manifest of a color; none of `unmarked`.
    #[must_use]
    pub const fn manifest_of(&self, color: Color) -> Option<&Manifest> {
        match color {
            Color::Blue => Some(&self.blue),
            Color::Green => Some(&self.green),
            Color::Unmarked => None,
        }
    }

    /// Color of a declared version.
    #[must_use]
    pub fn color_of_version(&self, version: &str) -> Option<Color> {
        if version == self.green.version {
            Some(Color::Green)
        } else if version == self.blue.version {
            Some(Color::Blue)
        } else {
            None
        }
    }
}

/// Every release that ingest must know, as one immutable value. Published by the gates, read by trace assembly.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ReleaseBook {
    /// Releases, oldest first.
    pub entries: Vec<BookEntry>,
}

impl ReleaseBook {
    /// The release in force on `route` at a span's start.
    #[must_use]
    pub fn in_force(&self, route: &str, at: Nanos) -> Option<&BookEntry> {
        self.entries.iter().rev().find(|e| &*e.route == route && e.covers(at))
    }

    /// The version last settled as the winner on `route` before `at`: an unstamped span of it is blue.
    #[must_use]
    pub fn settled_version(&self, route: &str, at: Nanos) -> Option<&str> {
        self.entries
            .iter()
            .rev()
            .filter(|e| &*e.route == route && e.settled.is_some_and(|end| end <= at))
            .find_map(|e| match e.winner {
                Some(Color::Green) => Some(e.green.version.as_str()),
                Some(_) => Some(e.blue.version.as_str()),
                None => None,
            })
    }
}
