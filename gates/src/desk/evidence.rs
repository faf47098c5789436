//! The evidence bundle of a decision: all that it was computed from, so that anyone can compute it again.
//!
//! A bundle holds the rules with both complete manifests, the frozen baseline, the order of pairs, every cell that was
//! counted, what was measured from rows, the judgement, and the state of the release with the event that led to the
//! decision. [`verify_bundle`] judges the cells again and takes the state through the event again: both must come out
//! the same, bit for bit. What else stands in it is for people: the SQL that shows the same numbers, the files and the
//! journal position that were visible, the worst traces.

use super::{Provenance, reading::Reading, recount};
use crate::{
    check,
    judge::{Baseline, BreakerReading, JudgeInput, Judgement, PairKey, breaker, judge},
    ledger::{DecisionRow, Packed, ReleaseRow},
    life::{self, Breaker, DecisionDraft, Event, Finding, ReleaseState, Terms},
};
use proto::{
    Cell, Color, Grain, Histogram, Metric, Nanos,
    cell::{Minutes, Series},
    decision::{Headroom, Phase},
    measure::WorstTrace,
    release::{Manifest, ReleaseSpec},
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

/// Version of the mathematics: a bundle is recomputed only by the algorithm that made it.
pub const ALGORITHM: &str = "tracegate-gates/2";

/// One cell, compact: start, metric, grain, cohort, split (ppm), color, admitted, n, events, sum, buckets.
type CellRow = (
    i64,
    Metric,
    Grain,
    Option<Arc<str>>,
    Option<u32>,
    Color,
    bool,
    i64,
    i64,
    i64,
    Vec<(u32, i64)>,
);

/// The inputs of the judgement.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Inputs {
    baseline: Option<Baseline>,
    order: Vec<PairKey>,
    counted_from: i64,
    measured_from: i64,
    minute_secs: i64,
    watching: bool,
    judged_at: Nanos,
    muted: Vec<String>,
    obstacles: BTreeMap<String, String>,
    /// Start of the release, unix seconds: the breaker counts from here.
    opened_secs: i64,
    cells: Vec<CellRow>,
    measured: Vec<CellRow>,
}

/// [`Inputs`] as they are written: cells go straight from the minutes to the text.
#[derive(Serialize)]
struct Judged<'a> {
    baseline: &'a Option<Baseline>,
    order: &'a [PairKey],
    counted_from: i64,
    measured_from: i64,
    minute_secs: i64,
    watching: bool,
    judged_at: Nanos,
    muted: &'a [String],
    obstacles: &'a BTreeMap<String, String>,
    opened_secs: i64,
    cells: Counted<'a>,
    measured: Counted<'a>,
}

/// Cells of minutes; of all metrics where none are named.
struct Counted<'a> {
    minutes: &'a Minutes,
    wanted: Option<BTreeSet<&'a Metric>>,
}

impl Serialize for Counted<'_> {
    fn serialize<S: serde::Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let cells = self.minutes.iter().flat_map(|(&at, minute)| {
            let cells = minute.iter().filter(|(s, _)| self.counts(s));
            cells.map(move |(s, c)| cell_row(at, s, c))
        });
        to.collect_seq(cells)
    }
}

impl Counted<'_> {
    /// The breaker counts calls as they end; gates count what is admitted.
    fn counts(&self, s: &Series) -> bool {
        let Some(wanted) = &self.wanted else {
            return true;
        };
        let of_calls = matches!(s.metric, Metric::AttemptError | Metric::AttemptSeconds);
        (s.admitted || of_calls) && wanted.contains(&s.metric)
    }
}

/// The step of the release's life that made the decision.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Step {
    before: ReleaseState,
    event: Event,
    now: Nanos,
    resolution_secs: u64,
    effect_deadline_secs: u64,
    frozen: Option<String>,
    drafts: Vec<DecisionDraft>,
}

/// The step as it happens, on its way into bundles.
#[derive(Debug, Clone, Copy)]
pub(super) struct Taken<'a> {
    pub terms: Terms<'a>,
    pub before: &'a ReleaseState,
    pub event: &'a Event,
    pub now: Nanos,
    pub drafts: &'a [DecisionDraft],
}

/// What stands in a bundle. Written straight to text: a week of cells is large enough once.
#[derive(Serialize)]
struct Bundle<'a> {
    bundle: u32,
    algorithm: &'static str,
    decision: &'a DecisionRow,
    rules_hash: &'a str,
    rules: &'a ReleaseSpec,
    blue: &'a Manifest,
    green: &'a Manifest,
    state: &'a ReleaseState,
    inputs: Option<Judged<'a>>,
    judgement: Option<&'a Judgement>,
    breaker: Option<&'a BreakerReading>,
    headroom: Option<&'a [Headroom]>,
    step: Step,
    sql: Option<Vec<recount::Statement>>,
    provenance: &'a Provenance,
    worst: Option<&'a [WorstTrace]>,
    previous_hash: Option<&'a str>,
}

/// The bundle as JSON text: exactly this text is hashed and chained.
pub(super) fn bundle(
    row: &ReleaseRow,
    decision: &DecisionRow,
    reading: Option<&Reading>,
    taken: Taken<'_>,
    provenance: &Provenance,
) -> Packed {
    let minute_secs = i64::try_from(taken.terms.resolution.as_secs()).unwrap_or(60);
    let mut wanted: BTreeSet<&Metric> = row.spec.gates.iter().map(|g| &g.metric).collect();
    wanted.extend(GUARDED);
    let inputs = reading.map(|r| Judged {
        baseline: &row.state.baseline,
        order: &row.state.order,
        counted_from: r.counted_from,
        measured_from: r.measured_from,
        minute_secs,
        watching: r.watching,
        judged_at: r.judgement.judged_at,
        muted: &r.muted,
        obstacles: &r.measured.obstacles,
        opened_secs: row.state.opened.0.div_euclid(1_000_000_000),
        cells: Counted {
            minutes: &r.minutes,
            wanted: Some(wanted),
        },
        measured: Counted {
            minutes: &r.measured_minutes,
            wanted: None,
        },
    });
    let step = Step {
        before: taken.before.clone(),
        event: taken.event.clone(),
        now: taken.now,
        resolution_secs: taken.terms.resolution.as_secs(),
        effect_deadline_secs: taken.terms.effect_deadline.as_secs(),
        frozen: taken.terms.frozen.map(str::to_owned),
        drafts: taken.drafts.to_vec(),
    };
    let bundle = Bundle {
        bundle: 2,
        algorithm: ALGORITHM,
        decision,
        rules_hash: &row.rules_hash,
        rules: &row.spec,
        blue: &row.spec.blue,
        green: &row.spec.green,
        state: &row.state,
        inputs,
        judgement: reading.map(|r| &r.judgement),
        breaker: reading.map(|r| &r.breaker),
        headroom: reading.map(|r| r.headroom.as_slice()),
        step,
        sql: reading.map(|r| recount::statements(&row.spec, r)),
        provenance,
        worst: reading.map(|r| r.measured.worst.as_slice()),
        previous_hash: decision.previous_hash.as_deref(),
    };
    // plain structs with text keys always serialise, and memory takes what is written
    Packed::write(|to| Ok(serde_json::to_writer(to, &bundle)?)).unwrap_or_default()
}

/// What the units, the breaker and the guards read beside the gates' own metrics.
const GUARDED: &[Metric] = &[
    Metric::Traces,
    Metric::AttemptError,
    Metric::AttemptSeconds,
    Metric::Unmarked,
    Metric::ColorConflict,
    Metric::MixedManifest,
    Metric::Sampled,
];

fn cell_row(at: i64, s: &Series, c: &Cell) -> CellRow {
    (
        at,
        s.metric.clone(),
        s.grain,
        s.cohort.clone(),
        s.split_ppm,
        s.color,
        s.admitted,
        c.n,
        c.events,
        c.sum,
        c.hdr.iter().collect(),
    )
}

/// What verifying a bundle found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    /// Rules hash, judgement, breaker and decision come out the same, bit for bit.
    Same,
    /// A person decided before anything was judged: rules hash and decision come out the same.
    NothingJudged,
}

/// Computes a bundle again from what it holds.
///
/// # Errors
/// In words, what does not come out the same, or why it cannot be read.
pub fn verify_bundle(text: &str) -> Result<Verified, String> {
    let bundle: serde_json::Value =
        serde_json::from_str(text).map_err(|e| format!("the bundle cannot be read: {e}"))?;
    if bundle["algorithm"] != ALGORITHM {
        return Err(format!(
            "the bundle was made by {}, this is {ALGORITHM}: verify it with the tracegate that made it",
            bundle["algorithm"]
        ));
    }
    let spec: ReleaseSpec = part(&bundle, "rules")?;
    if bundle["rules_hash"] != check::rules_hash(&spec) {
        return Err("its rules are not those it names by hash".to_owned());
    }
    if bundle["blue"] != bundle["rules"]["blue"] || bundle["green"] != bundle["rules"]["green"] {
        return Err("its manifests are not those of its rules".to_owned());
    }
    let inputs: Option<Inputs> = part(&bundle, "inputs")?;
    if let Some(inputs) = &inputs {
        judged_again(&bundle, &spec, inputs)?;
    }
    let step: Step = part(&bundle, "step")?;
    if let Event::Judged(finding) = &step.event {
        let inputs = inputs.as_ref().ok_or("it was judged, and what was judged is missing")?;
        led_here(&bundle, inputs, &step, finding)?;
    }
    stepped_again(&bundle, &spec, &step)?;
    Ok(match inputs {
        Some(_) => Verified::Same,
        None => Verified::NothingJudged,
    })
}

fn part<T: serde::de::DeserializeOwned>(bundle: &serde_json::Value, key: &str) -> Result<T, String> {
    serde_json::from_value(bundle[key].clone()).map_err(|e| format!("its {key} cannot be read: {e}"))
}

fn judged_again(bundle: &serde_json::Value, spec: &ReleaseSpec, inputs: &Inputs) -> Result<(), String> {
    let (cells, measured) = (minutes(&inputs.cells), minutes(&inputs.measured));
    let again = judge(&JudgeInput {
        spec,
        baseline: inputs.baseline.as_ref(),
        order: &inputs.order,
        minutes: &cells,
        measured: &measured,
        measured_from: inputs.measured_from,
        obstacles: &inputs.obstacles,
        muted: &inputs.muted,
        counted_from: inputs.counted_from,
        minute_secs: inputs.minute_secs,
        watching: inputs.watching,
        now: inputs.judged_at,
    });
    let again = serde_json::to_value(&again).map_err(|e| e.to_string())?;
    if again != bundle["judgement"] {
        return Err("judging its cells again gives another judgement".to_owned());
    }
    let breaker = breaker(
        spec,
        inputs.baseline.as_ref(),
        &cells,
        inputs.opened_secs,
        inputs.minute_secs,
    );
    let breaker = serde_json::to_value(&breaker).map_err(|e| e.to_string())?;
    if breaker != bundle["breaker"] {
        return Err("reading the breaker again from its cells gives something else".to_owned());
    }
    Ok(())
}

/// Whether the judgement is the one that the step was taken on: same constants, same order, same findings.
fn led_here(bundle: &serde_json::Value, inputs: &Inputs, step: &Step, finding: &Finding) -> Result<(), String> {
    let said = &bundle["judgement"];
    let found = serde_json::to_value(finding).map_err(|e| e.to_string())?;
    for key in [
        "rollback",
        "fallbacks",
        "holds",
        "passes",
        "refused",
        "n_blue",
        "n_green",
        "n_pairs",
        "sample_ratio_suspended",
        "sample_ratio_fired",
    ] {
        if found[key] != said[key] {
            return Err(format!(
                "what led to the decision differs from the judgement in `{key}`"
            ));
        }
    }
    let read = &bundle["breaker"];
    let breaker = match (read["fires"].as_bool(), read["common_outage"].as_bool()) {
        (Some(true), _) => Breaker::Fired,
        (_, Some(true)) => Breaker::CommonOutage,
        _ => Breaker::Quiet,
    };
    let before = &step.before;
    let muted: Vec<&str> = before.muted_gates(step.now);
    let same = [
        ("breaker", finding.breaker == breaker),
        ("baseline", inputs.baseline == before.baseline),
        ("order", inputs.order == before.order),
        ("counted_from", inputs.counted_from == before.counted_from),
        (
            "opened",
            inputs.opened_secs == before.opened.0.div_euclid(1_000_000_000),
        ),
        ("watching", inputs.watching == watching(before.phase)),
        ("muted", inputs.muted == muted),
    ];
    match same.iter().find(|(_, same)| !same) {
        Some((what, _)) => Err(format!("what was judged is not what the release was at, in `{what}`")),
        None => Ok(()),
    }
}

/// Takes the release through the event again, and holds the decision against what comes of it.
fn stepped_again(bundle: &serde_json::Value, spec: &ReleaseSpec, step: &Step) -> Result<(), String> {
    let terms = Terms {
        spec,
        resolution: Duration::from_secs(step.resolution_secs),
        effect_deadline: Duration::from_secs(step.effect_deadline_secs),
        frozen: step.frozen.as_deref(),
    };
    let again = life::step(terms, &step.before, &step.event, step.now);
    if again.decisions != step.drafts {
        return Err("taking the release through its event again gives other decisions".to_owned());
    }
    let decision: DecisionRow = part(bundle, "decision")?;
    let is_of = |d: &DecisionDraft| {
        let culprits: Vec<String> = d
            .culprits
            .iter()
            .map(|p| life::named(std::slice::from_ref(p)))
            .collect();
        (d.action, &d.cohort, &d.reason, &d.actor, d.green_ppm, d.notified)
            == (
                decision.action,
                &decision.cohort,
                &decision.reason,
                &decision.actor,
                decision.green_ppm,
                decision.notified,
            )
            && culprits == decision.culprits
            && decision.decided_at == step.now
    };
    if again.decisions.iter().any(is_of) {
        Ok(())
    } else {
        Err("its evidence leads to no such decision".to_owned())
    }
}

fn minutes(cells: &[CellRow]) -> Minutes {
    let mut out = Minutes::new();
    for (at, metric, grain, cohort, split_ppm, color, admitted, n, events, sum, buckets) in cells {
        let mut hdr = Histogram::default();
        for (bucket, count) in buckets {
            hdr.add_bucket(*bucket, *count);
        }
        let series = Series {
            metric: metric.clone(),
            grain: *grain,
            cohort: cohort.clone(),
            split_ppm: *split_ppm,
            color: *color,
            admitted: *admitted,
        };
        let cell = Cell {
            n: *n,
            events: *events,
            sum: *sum,
            hdr,
        };
        out.minute_mut(*at).insert(series, Arc::new(cell));
    }
    out
}

/// Whether green alone serves, so that its minutes are held against the frozen baseline.
pub(super) const fn watching(phase: Phase) -> bool {
    matches!(phase, Phase::Cutover | Phase::Watching)
}
