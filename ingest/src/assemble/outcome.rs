//! What a trace came to: the numbers of its `traces` row and of its cells, as one value.
//!
//! A pure function of the trace's spans, evaluations and mark. What cells hold of a trace is always exactly one
//! outcome, kept until it is taken back, so a change is "minus the old, plus the new" and nothing can drift.

use super::{
    feedback,
    link::Link,
    path,
    resolve::Colors,
    shape::{Shape, is_rooted},
    span::{Call, Eval, Role, Span, Subject, Tri, Word},
    twins::Twins,
};
use proto::{Color, Metric, Nanos, release::BookEntry};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use store::Mark;

/// One call, charged to the color that was attempted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// Its own color, else that of the nearest span around it, else the trace's.
    pub color: Color,
    /// Status ERROR.
    pub error: bool,
    /// Refused by a rate limit.
    pub rate_limited: bool,
    /// Time to first token, us.
    pub ttft_us: Option<u64>,
}

/// One request as the gateway answered it: a server span with calls below it, or the root where there is none.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// Its color, found as that of an attempt.
    pub color: Color,
    /// Status ERROR: what the caller saw, whatever was tried in between.
    pub error: bool,
    /// Duration, us.
    pub duration_us: u64,
}

/// What the members of a trace said of its quality; `None` where nobody said.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Quality {
    /// The answer is the JSON that its route promises.
    pub json_valid: Option<bool>,
    /// All arguments of all tool calls fit the tools' schemas.
    pub tool_args_valid: Option<bool>,
    /// Tool spans that ended in ERROR; `None` without tool spans.
    pub tools_failed: Option<u32>,
    /// Guardrails that stopped something.
    pub guardrail_blocks: u32,
    /// The answer came along another path than its version's manifest declares.
    pub off_path: Option<bool>,
    /// A user's opinion was negative.
    pub thumbs_down: Option<bool>,
    /// Other bad things that were reported.
    pub reported: Vec<Metric>,
}

/// Numbers of one trace.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    /// Start of the root.
    pub start: Nanos,
    /// Start of the cells' minute that holds it, unix seconds.
    pub minute: i64,
    /// Duration, us.
    pub duration_us: u64,
    /// Whose it is. Shared by many, so what packs an outcome keeps it beside the bytes.
    #[serde(skip)]
    pub mark: Arc<Mark>,
    /// Route under which it is counted.
    pub route: Arc<str>,
    /// Cohort under which it is counted.
    pub cohort: Option<Arc<str>>,
    /// Split under which it is counted, ppm.
    pub split_ppm: Option<u32>,
    /// Stamped color and declared version contradict each other.
    pub conflict: bool,
    /// False for traces that no user saw (all of it mirrored): a row, but no cells.
    pub visible: bool,
    /// Color under which the trace is counted: of the first try, if this trace is its fallback.
    pub assigned: Color,
    /// Its tie to another trace of the same request.
    pub link: Option<Link>,
    /// Color of the call that gave the answer.
    pub served: Color,
    /// Session, user, mirror key.
    pub subject: Subject,
    /// Calls of the user's own path, earliest first.
    pub attempts: Vec<Attempt>,
    /// Requests, in the order of the tree.
    pub requests: Vec<Request>,
    /// Root ended in ERROR.
    pub error: bool,
    /// Timed out.
    pub timed_out: bool,
    /// Retries, if known.
    pub retries: Option<i32>,
    /// Fell back, if known.
    pub fallback: Tri,
    /// Served from the cache, if known.
    pub cache_hit: Tri,
    /// Sum of the known prompt tokens.
    pub prompt: Option<i64>,
    /// Sum of the known completion tokens.
    pub completion: Option<i64>,
    /// Sum of the known costs, nano-USD.
    pub cost: Option<i64>,
    /// No call's cost is unknown.
    pub priced: bool,
    /// Cost of mirrored calls, nano-USD.
    pub shadow_cost: Option<i64>,
    /// Quality.
    pub quality: Quality,
    /// Smallest probability with which any of its spans was sampled upstream, ppm.
    pub sampling_ppm: Option<u32>,
    /// Evaluations.
    pub evals: u32,
    /// Evaluations that failed.
    pub evals_failed: u32,
    /// Per evaluator with a known verdict, feedback apart: whether any failed.
    pub verdicts: BTreeMap<Arc<str>, bool>,
}

impl Outcome {
    /// Whether this is a failed try that another trace made good: no user saw it fail.
    #[must_use]
    pub fn is_superseded(&self) -> bool {
        self.link.as_ref().is_some_and(|link| link.superseded)
    }

    /// Second of its minute in which it started.
    #[must_use]
    pub fn second(&self) -> u32 {
        let since = self.start.0.div_euclid(1_000_000_000) - self.minute;
        u32::try_from(since).unwrap_or(0)
    }

    /// How its fallback was tied to the failed try, as column `linked_by` says it; `none` where it could not be.
    #[must_use]
    pub fn linked_by(&self) -> Option<&'static str> {
        let has_own_failure = self.attempts.iter().any(|attempt| attempt.error);
        match &self.link {
            Some(link) => Some(link.by.as_str()),
            None => (self.fallback == Tri::Yes && !has_own_failure).then_some("none"),
        }
    }
}

/// Everything an outcome is computed from.
pub(super) struct Trial<'a> {
    pub spans: &'a [Span],
    pub evals: &'a [Eval],
    pub shape: &'a Shape,
    pub twins: &'a Twins,
    pub colors: &'a Colors,
    pub mark: &'a Arc<Mark>,
    pub link: Option<&'a Link>,
    /// Route and cohort under which it is counted.
    pub counted_as: (Arc<str>, Option<Arc<str>>),
    pub minute: i64,
    pub conflict: bool,
    pub entry: Option<&'a BookEntry>,
    /// A trace at least this old has timed out.
    pub timeout: Duration,
    /// Age at which a trace whose root has not ended is counted as it stands.
    pub running_for: Option<Duration>,
}

fn add(sum: &mut Option<i64>, value: Option<i64>) {
    if let Some(value) = value {
        *sum = Some(sum.unwrap_or(0).saturating_add(value));
    }
}

fn micros(d: Duration) -> u64 {
    u64::try_from(d.as_micros()).unwrap_or(u64::MAX)
}

impl Trial<'_> {
    /// `None` for a trace that is a judge's own: it makes no row and no cells.
    pub fn outcome(&self) -> Option<Outcome> {
        let root_at = self.shape.root()?;
        if self.shape.judged(root_at) {
            return None;
        }
        let (spans, root) = (self.spans, &self.spans[root_at]);
        let calls = self.counted_calls();
        let any = |pick: fn(&Span) -> Tri| {
            let mut said = pick(root);
            for i in self.shape.speakers().take_while(|_| pick(root) == Tri::Unknown) {
                match pick(&spans[i]) {
                    Tri::Yes => said = Tri::Yes,
                    Tri::No if said == Tri::Unknown => said = Tri::No,
                    _ => {}
                }
            }
            said
        };
        let named = |pick: fn(&Subject) -> Option<&Arc<str>>| {
            self.shape
                .speakers()
                .find_map(|i| pick(spans[i].subject.as_deref()?))
                .cloned()
        };

        let mut out = Outcome {
            start: root.start,
            minute: self.minute,
            duration_us: micros(self.duration(root)),
            mark: Arc::clone(self.mark),
            route: Arc::clone(&self.counted_as.0),
            cohort: self.counted_as.1.clone(),
            split_ppm: self.mark.split_ppm,
            conflict: self.conflict,
            visible: !self.shape.shadow(root_at),
            assigned: self.link.map_or(self.mark.color, |link| link.assigned),
            link: self.link.cloned(),
            served: self.answer(&calls).map_or(self.mark.color, |i| self.colors.get(i)),
            subject: Subject {
                session: named(|s| s.session.as_ref()),
                user: named(|s| s.user.as_ref()),
                mirror_key: named(|s| s.mirror_key.as_ref()),
                request: named(|s| s.request.as_ref()),
            },
            attempts: Vec::with_capacity(calls.len()),
            requests: self.requests(root_at, &calls),
            error: root.error,
            timed_out: root.timed_out || (root.error && calls.iter().any(|&i| spans[i].timed_out)),
            retries: root.retries.or_else(|| {
                self.shape
                    .speakers()
                    .filter_map(|i| spans[i].retries)
                    .reduce(i32::saturating_add)
            }),
            fallback: any(|s| s.fallback),
            cache_hit: any(|s| s.cache_hit),
            prompt: None,
            completion: None,
            cost: None,
            priced: true,
            shadow_cost: None,
            quality: self.quality(&calls),
            sampling_ppm: self.shape.speakers().filter_map(|i| spans[i].labels.sampling_ppm).min(),
            evals: 0,
            evals_failed: 0,
            verdicts: BTreeMap::new(),
        };
        out.timed_out |= out.duration_us >= micros(self.timeout);
        for i in calls {
            let (span, call) = (&spans[i], self.completed(i));
            add(&mut out.prompt, call.prompt);
            add(&mut out.completion, call.completion);
            add(&mut out.cost, call.cost);
            out.priced &= call.cost.is_some();
            out.attempts.push(Attempt {
                color: self.colors.get(i),
                error: span.error,
                rate_limited: span.rate_limited,
                ttft_us: call.ttft_us,
            });
        }
        for i in (0..spans.len()).filter(|&i| self.shape.shadow(i) && self.twins.counted_instead(i).is_none()) {
            add(&mut out.shadow_cost, spans[i].call.as_ref().and_then(|call| call.cost));
        }
        for eval in Eval::distinct(self.evals) {
            out.evals += 1;
            let Some(passed) = eval.passed.filter(|_| !self.is_of_another(eval)) else {
                continue;
            };
            let quality = &mut out.quality;
            match feedback::metric_of(&eval.name) {
                Some(Metric::ThumbsDown) => *quality.thumbs_down.get_or_insert(false) |= !passed,
                Some(metric) if !passed && !quality.reported.contains(&metric) => quality.reported.push(metric),
                Some(_) => {}
                None => {
                    *out.verdicts.entry(Arc::clone(&eval.name)).or_insert(false) |= !passed;
                    out.evals_failed += u32::from(!passed);
                }
            }
        }
        out.quality.reported.sort_unstable();
        Some(out)
    }

    /// Whether an evaluation is about a mirrored span of a trace that a user saw, or about a judge's own.
    fn is_of_another(&self, eval: &Eval) -> bool {
        let about = eval
            .span
            .and_then(|id| self.spans.binary_search_by_key(&id, |span| span.id).ok());
        let is_mirrored = |i| {
            self.shape
                .root()
                .is_some_and(|root| self.shape.shadow(i) && !self.shape.shadow(root))
        };
        about.is_some_and(|i| is_mirrored(i) || self.shape.judged(i))
    }

    /// Calls that count for the user, earliest first. Calls of judges and mirrors don't, nor does the second record of
    /// a call.
    fn counted_calls(&self) -> Vec<usize> {
        let mut calls: Vec<usize> = (0..self.spans.len())
            .filter(|&i| self.spans[i].role == Role::Call && !self.shape.judged(i) && !self.shape.shadow(i))
            .filter(|&i| self.twins.counted_instead(i).is_none())
            .collect();
        calls.sort_by_key(|&i| (self.spans[i].start, self.spans[i].end, self.spans[i].id));
        calls
    }

    /// A call's numbers, with what its second record knows beside.
    fn completed(&self, i: usize) -> Call {
        let own = self.spans[i].call.as_deref().cloned().unwrap_or_default();
        let Some(filling) = self.twins.filling(self.spans, i) else {
            return own;
        };
        Call {
            prompt: own.prompt.or(filling.prompt_tokens),
            completion: own.completion.or(filling.completion_tokens),
            cost: own.cost.or(filling.cost_nano),
            ttft_us: own.ttft_us.or(filling.ttft_ms.map(|ms| (ms * 1_000.0).round() as u64)),
            ..own
        }
    }

    /// The requests of the trace: nearest server span above each call, or the root.
    fn requests(&self, root: usize, calls: &[usize]) -> Vec<Request> {
        let serves = |i: usize| (self.spans[i].role == Role::Server || self.spans[i].entry).then_some(i);
        let server = self.shape.heard_above(serves);
        let mut requests: Vec<usize> = calls.iter().map(|&call| server[call].unwrap_or(root)).collect();
        if requests.is_empty() {
            requests.push(root);
        }
        requests.sort_unstable();
        requests.dedup();
        requests
            .into_iter()
            .map(|i| Request {
                color: if i == root { self.mark.color } else { self.colors.get(i) },
                error: self.spans[i].error,
                duration_us: micros(if i == root {
                    self.duration(&self.spans[i])
                } else {
                    self.spans[i].end.since(self.spans[i].start)
                }),
            })
            .collect()
    }

    fn quality(&self, calls: &[usize]) -> Quality {
        let own = || self.shape.speakers().map(|i| &self.spans[i]);
        let tools: Vec<bool> = own()
            .filter(|span| span.role == Role::Tool)
            .map(|span| span.error)
            .collect();
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let answer = self.answer(calls);
        let checked = calls
            .iter()
            .filter_map(|&i| self.spans[i].call.as_ref()?.tool_args_valid);
        Quality {
            json_valid: answer.and_then(|i| self.json_valid(i)),
            tool_args_valid: checked.reduce(|all, valid| all && valid),
            tools_failed: (!tools.is_empty()).then(|| count(tools.iter().filter(|&&failed| failed).count())),
            guardrail_blocks: count(own().filter(|span| is_blocked(span)).count()),
            off_path: answer.and_then(|i| {
                let manifest = self.entry?.manifest_of(self.colors.get(i))?;
                path::is_off(manifest, self.spans, self.shape, i)
            }),
            thumbs_down: None,
            reported: Vec::new(),
        }
    }

    /// What the schema of the trace's route said about an answer: column `json_checks` is `route=ok,route=invalid`.
    fn json_valid(&self, answer: usize) -> Option<bool> {
        let checks = self.spans[answer].labels.text(Word::JsonChecks)?;
        let route = self.mark.route.as_deref()?;
        checks.split(',').find_map(|check| match check.rsplit_once('=')? {
            (of, verdict) if of == route => Some(verdict == "ok"),
            _ => None,
        })
    }

    /// The root's own; without a true root, from the topmost span's start to the last end; while it still runs, the
    /// age at which it is counted.
    fn duration(&self, root: &Span) -> Duration {
        if is_rooted(root) {
            return root.end.since(root.start);
        }
        let last = self
            .shape
            .speakers()
            .map(|i| self.spans[i].end)
            .max()
            .unwrap_or(root.end);
        let seen = last.since(root.start);
        self.running_for.map_or(seen, |age| seen.max(age))
    }

    /// The call that gave the answer: the last to end without an error.
    fn answer(&self, calls: &[usize]) -> Option<usize> {
        let answers = calls.iter().copied().filter(|&i| !self.spans[i].error);
        answers.max_by_key(|&i| (self.spans[i].end, self.spans[i].id))
    }
}

/// Words by which guardrails say that they stopped something.
const BLOCKED: [&str; 8] = [
    "guardrail_intervened",
    "intervened",
    "block",
    "blocked",
    "deny",
    "denied",
    "reject",
    "rejected",
];

fn is_blocked(span: &Span) -> bool {
    span.labels
        .text(Word::GuardrailResult)
        .is_some_and(|result| BLOCKED.iter().any(|word| result.eq_ignore_ascii_case(word)))
}
