//! The evidence bundle of a decision: all that it was computed from, so that anyone can compute it again.

use super::reading::Reading;
use crate::{
    check,
    judge::{Baseline, JudgeInput, PairKey, judge},
    ledger::{DecisionRow, ReleaseRow},
};
use proto::{
    Cell, Color, Grain, Histogram, Metric, Nanos,
    cell::{Minutes, Series},
    decision::Phase,
    release::ReleaseSpec,
};
use serde::{Deserialize, Serialize};
use std::{collections::BTreeSet, sync::Arc};

/// Version of the mathematics: a bundle is recomputed only by the algorithm that made it.
pub const ALGORITHM: &str = "tracegate-gates/1";

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
    minute_secs: i64,
    watching: bool,
    judged_at: Nanos,
    cells: Vec<CellRow>,
}

/// The bundle as JSON text: exactly these bytes are hashed and chained.
pub(super) fn bundle(row: &ReleaseRow, decision: &DecisionRow, reading: Option<&Reading>, minute_secs: i64) -> String {
    let inputs = reading.map(|r| Inputs {
        baseline: row.state.baseline.clone(),
        order: row.state.order.clone(),
        counted_from: r.counted_from,
        minute_secs,
        watching: r.watching,
        judged_at: r.judgement.judged_at,
        cells: cells(row, r),
    });
    let value = serde_json::json!({
        "bundle": 1,
        "algorithm": ALGORITHM,
        "decision": decision,
        "rules_hash": row.rules_hash,
        "rules": row.spec,
        "state": row.state,
        "inputs": inputs,
        "judgement": reading.map(|r| &r.judgement),
        "breaker": reading.map(|r| &r.breaker),
        "traffic": reading.map(|r| {
            r.finding.traffic.iter().map(|s| (s.at, s.blue, s.green)).collect::<Vec<_>>()
        }),
        "previous_hash": decision.previous_hash,
    });
    value.to_string()
}

fn cells(row: &ReleaseRow, reading: &Reading) -> Vec<CellRow> {
    let mut wanted: BTreeSet<&Metric> = row.spec.gates.iter().map(|g| &g.metric).collect();
    wanted.insert(&Metric::Traces);
    wanted.insert(&Metric::AttemptError);
    let mut out = Vec::new();
    for (&at, minute) in reading.minutes.iter() {
        for (s, c) in minute.iter() {
            // the breaker counts calls as they end; gates count what is admitted
            let counts = s.admitted || s.metric == Metric::AttemptError;
            if counts && wanted.contains(&s.metric) {
                out.push((
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
                ));
            }
        }
    }
    out
}

/// What verifying a bundle found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verified {
    /// Rules hash and judgement come out the same, bit for bit.
    Same,
    /// A person decided before anything was judged: only the rules hash could be checked.
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
            "the bundle was made by {}, this is {ALGORITHM}",
            bundle["algorithm"]
        ));
    }
    let spec: ReleaseSpec =
        serde_json::from_value(bundle["rules"].clone()).map_err(|e| format!("its rules cannot be read: {e}"))?;
    if bundle["rules_hash"] != check::rules_hash(&spec) {
        return Err("its rules are not those it names by hash".to_owned());
    }
    let inputs: Option<Inputs> =
        serde_json::from_value(bundle["inputs"].clone()).map_err(|e| format!("its inputs cannot be read: {e}"))?;
    let Some(inputs) = inputs else {
        return Ok(Verified::NothingJudged);
    };
    let minutes = minutes(inputs.cells);
    let again = judge(&JudgeInput {
        spec: &spec,
        baseline: inputs.baseline.as_ref(),
        order: &inputs.order,
        minutes: &minutes,
        counted_from: inputs.counted_from,
        minute_secs: inputs.minute_secs,
        watching: inputs.watching,
        now: inputs.judged_at,
    });
    let again = serde_json::to_value(&again).map_err(|e| e.to_string())?;
    if again == bundle["judgement"] {
        Ok(Verified::Same)
    } else {
        Err("judging its cells again gives another judgement".to_owned())
    }
}

fn minutes(cells: Vec<CellRow>) -> Minutes {
    let mut out = Minutes::new();
    for (at, metric, grain, cohort, split_ppm, color, admitted, n, events, sum, buckets) in cells {
        let mut hdr = Histogram::default();
        for (bucket, count) in buckets {
            hdr.add_bucket(bucket, count);
        }
        let series = Series {
            metric,
            grain,
            cohort,
            split_ppm,
            color,
            admitted,
        };
        let cell = Cell { n, events, sum, hdr };
        Arc::make_mut(out.entry(at).or_default()).insert(series, Arc::new(cell));
    }
    out
}

/// Whether green alone serves, so that its minutes are held against the frozen baseline.
pub(super) const fn watching(phase: Phase) -> bool {
    matches!(phase, Phase::Cutover | Phase::Watching)
}
