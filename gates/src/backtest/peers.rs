//! What rules of others would have made of the same history.
//!
//! They compare one rate and one amount; those of the release's first gates of either kind are taken. Where a rule needs
//! a fixed threshold it is the release's own margin, laid on what blue was like before the release: what a careful person
//! would have written down.

use super::{
    PeerReport,
    history::{History, is_rate},
    replay::Replayed,
    tape::Cast,
};
use crate::{
    judge::{Baseline, GateBaseline, units::per_display_unit},
    peers::{AmountLimit, PeerArm, PeerConfig, PeerMinute, replay},
};
use proto::{
    Color, Metric, Nanos,
    release::{GateSpec, Margin, ReleaseSpec},
};
use std::{collections::BTreeMap, time::Duration};

/// Every rule over the counted part of history.
pub(super) fn compare(
    spec: &ReleaseSpec,
    history: &History,
    cast: Cast,
    replayed: &Replayed,
    resolution: Duration,
) -> Vec<PeerReport> {
    let width = i64::try_from(resolution.as_secs()).unwrap_or(60).max(1);
    let rate = spec.gates.iter().find(|g| is_rate(&g.metric));
    let amount = spec.gates.iter().find(|g| !is_rate(&g.metric));
    let config = PeerConfig {
        minute_secs: width,
        interval_secs: width.max(60),
        failure_max: rate.and_then(|g| failure_max(g, &frozen(replayed.baseline.as_ref(), g))),
        amount_max: amount.and_then(|g| amount_max(g, &frozen(replayed.baseline.as_ref(), g))),
        ..PeerConfig::default()
    };
    let metrics = [rate, amount].map(|g| history.metric(&g?.metric));
    let minutes = minutes(history, cast, replayed.counted_from, width, metrics);
    replay(&config, minutes.values())
        .into_iter()
        .map(|o| PeerReport {
            name: o.name.to_owned(),
            rolled_back_at: o.rollback.as_ref().map(|(at, _)| Nanos::from_secs(at + width)),
            reason: o.rollback.map(|(_, why)| why),
        })
        .collect()
}

fn frozen(baseline: Option<&Baseline>, gate: &GateSpec) -> GateBaseline {
    let gates = baseline.map(|b| &b.gates);
    gates.and_then(|g| g.get(&gate.name)).cloned().unwrap_or_default()
}

fn failure_max(gate: &GateSpec, frozen: &GateBaseline) -> Option<f64> {
    match gate.margin {
        Margin::MaxRatio(r) => Some((frozen.p_hist? * r).min(1.0)),
        Margin::MaxIncrease(by) => Some((frozen.p_hist? + by).min(1.0)),
        Margin::Max(limit) => Some(limit),
        Margin::Min(_) => None,
    }
}

fn amount_max(gate: &GateSpec, frozen: &GateBaseline) -> Option<AmountLimit> {
    let max = match gate.margin {
        Margin::MaxRatio(_) | Margin::MaxIncrease(_) => frozen.t_margin?,
        Margin::Max(limit) => (limit * per_display_unit(&gate.metric)) as u64,
        Margin::Min(_) => return None,
    };
    Some(AmountLimit {
        quantile: gate.quantile?,
        max,
    })
}

/// Counts by minute of a trace's start; `metrics` are the rate's and the amount's.
fn minutes(
    history: &History,
    cast: Cast,
    from: Nanos,
    width: i64,
    metrics: [Option<u16>; 2],
) -> BTreeMap<i64, PeerMinute> {
    let mut out: BTreeMap<i64, PeerMinute> = BTreeMap::new();
    let traces = history.metric(&Metric::Traces);
    for unit in history.units.iter().filter(|u| u.start >= from) {
        let at = unit.start.0.div_euclid(1_000_000_000).div_euclid(width) * width;
        let Some(color) = cast.color_of(unit).filter(|c| c.is_marked()) else {
            continue;
        };
        let minute = out.entry(at).or_insert_with(|| PeerMinute {
            at,
            ..PeerMinute::default()
        });
        let arm: &mut PeerArm = match color {
            Color::Green => &mut minute.green,
            _ => &mut minute.blue,
        };
        for seen in &unit.seen {
            let metric = Some(seen.metric);
            // a rate that not every trace has an answer to counts those that have one
            if metric == metrics[0].or(traces) {
                arm.n += 1;
            }
            if metric == metrics[0] {
                arm.failures += i64::from(seen.value > 0);
            } else if metric == metrics[1] {
                arm.amount.record(seen.value, 1);
            }
        }
    }
    out
}
