//! From measured pairs to one judgement, and the words for it.

use super::{
    JudgeInput, Judgement, PairKey, StratumCounts,
    columns::{BLUE, GREEN, NO_SPLIT, Sums},
    measure::Measure,
};
use crate::stats::{log_space::ln, many};
use proto::{
    decision::{GateReport, Verdict},
    release::{GateSpec, Margin, OnFail},
};

/// The sample-ratio check.
pub(super) struct Ratio {
    pub log_e: f64,
    pub suspended: bool,
    pub fired: bool,
}

/// What spoils the comparison as a whole.
pub(super) struct Guards {
    pub refused: Option<String>,
    pub blocked: Option<String>,
}

/// One pair on its way to a report.
pub(super) struct Pair<'a> {
    pub key: &'a PairKey,
    pub gate: &'a GateSpec,
    /// Position in the order of appearance, from 1.
    pub k: usize,
    pub threshold_fail: f64,
    /// By a person.
    pub muted: bool,
    pub measure: Measure,
    /// Why its evidence does not count, if so.
    pub obstacle: Option<String>,
    pub assumes: &'static str,
}

impl Pair<'_> {
    /// Whether what it finds may change anything for the worse.
    const fn acts(&self) -> bool {
        !self.gate.dry_run && !self.muted
    }

    fn fails_alone(&self) -> bool {
        self.obstacle.is_none() && self.measure.log_e_fail >= self.threshold_fail
    }

    fn passes(&self, threshold: f64) -> bool {
        self.obstacle.is_none() && self.measure.log_e_pass >= threshold
    }
}

/// Rolls back, passes or goes on: the weighted sum, the pairs that act alone, the intersection of those that must pass.
pub(super) fn conclude(
    input: &JudgeInput<'_>,
    pairs: Vec<Pair<'_>>,
    ratio: &Ratio,
    guards: Guards,
    compared: &[Sums],
    alpha_gates: f64,
    iid_assumed: bool,
) -> Judgement {
    let threshold_sum = ln(1.0 / alpha_gates);
    let threshold_pass = ln(1.0 / input.spec.alpha_promote);
    let acting = !ratio.suspended && !ratio.fired && guards.refused.is_none();
    let summed: Vec<&Pair<'_>> = pairs
        .iter()
        .filter(|p| p.acts() && p.gate.on_fail == OnFail::Rollback && p.obstacle.is_none())
        .collect();
    let terms: Vec<(usize, f64)> = summed.iter().map(|p| (p.k, p.measure.log_e_fail)).collect();
    let log_e_sum = many::weighted_sum(&terms);
    let rollback = (acting && log_e_sum >= threshold_sum).then(|| culprits(&summed, alpha_gates));
    let alone = |on_fail: OnFail| -> Vec<PairKey> {
        let failed = pairs
            .iter()
            .filter(|p| p.acts() && p.gate.on_fail == on_fail && p.fails_alone());
        failed.map(|p| p.key.clone()).collect()
    };
    let fallbacks = if acting { alone(OnFail::Fallback) } else { Vec::new() };
    // a muted gate must pass like any other: silence is no consent
    let overall = || pairs.iter().filter(|p| p.key.cohort.is_none() && !p.gate.dry_run);
    let passes = acting
        && rollback.is_none()
        && overall().count() == input.spec.gates.iter().filter(|g| !g.dry_run).count()
        && overall().all(|p| p.passes(threshold_pass))
        && overall().next().is_some()
        && !pairs.iter().any(|p| p.acts() && p.fails_alone());
    let holds = if guards.refused.is_none() {
        alone(OnFail::Hold)
    } else {
        Vec::new()
    };
    let n_pairs = pairs.iter().filter(|p| p.gate.paired).map(|p| p.measure.n[GREEN]).max();
    let mut strata = units_counts(compared);
    strata.extend(pairs.iter().flat_map(pair_counts));
    let spoiled = guards.refused.as_deref().or_else(|| ratio.reason());
    let reports: Vec<GateReport> = pairs
        .into_iter()
        .map(|p| report(p, spoiled, rollback.as_deref(), threshold_pass))
        .collect();
    let (verdict, reason) = if let Some(why) = spoiled {
        (Verdict::Inconclusive, why.to_owned())
    } else if let Some(culprits) = &rollback {
        (Verdict::Fail, worse_in(culprits))
    } else if passes {
        (Verdict::Pass, "every gate is within its margin".to_owned())
    } else {
        (Verdict::Inconclusive, stands_in_the_way(&reports))
    };
    let n = compared
        .iter()
        .fold([0; 2], |sum, s| [sum[BLUE] + s.n[BLUE], sum[GREEN] + s.n[GREEN]]);
    Judgement {
        judged_at: input.now,
        verdict,
        reason,
        reports,
        log_e_sum,
        threshold_sum,
        log_e_sample_ratio: ratio.log_e,
        sample_ratio_suspended: ratio.suspended,
        sample_ratio_fired: ratio.fired,
        refused: guards.refused,
        blocked: guards.blocked,
        n_pairs: n_pairs.unwrap_or(0),
        rollback,
        fallbacks,
        holds,
        passes,
        n_blue: n[BLUE],
        n_green: n[GREEN],
        iid_assumed,
        strata,
    }
}

impl Ratio {
    const fn reason(&self) -> Option<&'static str> {
        if self.fired {
            Some("sample_ratio: traffic does not follow the declared split")
        } else if self.suspended {
            Some("sample_ratio: suspended while traffic looks unlike the declared split")
        } else {
            None
        }
    }
}

/// Those e-BH names; if the sum crossed by many small parts, the largest of them.
fn culprits(summed: &[&Pair<'_>], alpha_gates: f64) -> Vec<PairKey> {
    let logs: Vec<f64> = summed.iter().map(|p| p.measure.log_e_fail).collect();
    let named = many::e_bh(&logs, alpha_gates);
    if !named.is_empty() {
        return named.into_iter().map(|i| summed[i].key.clone()).collect();
    }
    summed
        .iter()
        .max_by(|a, b| {
            let part = |p: &Pair<'_>| many::ln_weight(p.k) + p.measure.log_e_fail;
            part(a).total_cmp(&part(b))
        })
        .map(|p| p.key.clone())
        .into_iter()
        .collect()
}

fn report(pair: Pair<'_>, spoiled: Option<&str>, rollback: Option<&[PairKey]>, threshold_pass: f64) -> GateReport {
    let fails = pair.fails_alone() || rollback.is_some_and(|c| c.contains(pair.key));
    let (verdict, mut reason) = if let Some(why) = spoiled {
        (Verdict::Inconclusive, why.to_owned())
    } else if let Some(why) = &pair.obstacle {
        (Verdict::Inconclusive, why.clone())
    } else if fails {
        (Verdict::Fail, "green is beyond the margin".to_owned())
    } else if pair.passes(threshold_pass) {
        (Verdict::Pass, "green is within the margin".to_owned())
    } else {
        (Verdict::Inconclusive, "evidence below both thresholds".to_owned())
    };
    if !pair.assumes.is_empty() && pair.obstacle.is_none() {
        reason = format!("{reason} ({})", pair.assumes);
    }
    if pair.muted {
        reason = format!("muted: {reason}");
    } else if pair.gate.dry_run {
        reason = format!("dry run: {reason}");
    }
    let dry_run = !pair.acts();
    let m = pair.measure;
    GateReport {
        name: pair.key.gate.clone(),
        cohort: pair.key.cohort.clone(),
        verdict,
        reason,
        blue: m.blue,
        green: m.green,
        n_blue: m.n[BLUE],
        n_green: m.n[GREEN],
        effect: m.effect,
        low: m.low,
        high: m.high,
        margin: match pair.gate.margin {
            Margin::MaxRatio(x) | Margin::MaxIncrease(x) | Margin::Max(x) | Margin::Min(x) => x,
        },
        log_e_fail: m.log_e_fail,
        log_e_pass: m.log_e_pass,
        threshold_fail: pair.threshold_fail,
        threshold_pass,
        dry_run,
    }
}

fn named(gate: &str, cohort: Option<&str>) -> String {
    cohort.map_or_else(|| format!("`{gate}`"), |c| format!("`{gate}` in `{c}`"))
}

fn worse_in(culprits: &[PairKey]) -> String {
    let names: Vec<String> = culprits.iter().map(|c| named(&c.gate, c.cohort.as_deref())).collect();
    format!("green is worse in {}", names.join(", "))
}

/// The first thing that keeps the release from passing.
fn stands_in_the_way(reports: &[GateReport]) -> String {
    let failed = reports.iter().find(|r| r.verdict == Verdict::Fail && !r.dry_run);
    let open = reports
        .iter()
        .find(|r| r.cohort.is_none() && r.verdict != Verdict::Pass && (!r.dry_run || r.reason.starts_with("muted")));
    failed.or(open).map_or_else(
        || "no gate has been judged yet".to_owned(),
        |r| format!("{}: {}", named(&r.name, r.cohort.as_deref()), r.reason),
    )
}

fn counts(gate: Option<&str>, cohort: Option<&str>, s: &Sums) -> StratumCounts {
    StratumCounts {
        gate: gate.map(str::to_owned),
        cohort: cohort.map(str::to_owned),
        split_ppm: (s.split != NO_SPLIT).then_some(s.split),
        n_blue: s.n[BLUE],
        n_green: s.n[GREEN],
        events_blue: s.events[BLUE],
        events_green: s.events[GREEN],
    }
}

fn units_counts(compared: &[Sums]) -> Vec<StratumCounts> {
    compared.iter().map(|s| counts(None, None, s)).collect()
}

fn pair_counts<'a>(pair: &'a Pair<'_>) -> impl Iterator<Item = StratumCounts> + 'a {
    let key = pair.key;
    let strata = pair.measure.strata.iter();
    strata.map(move |s| counts(Some(&key.gate), key.cohort.as_deref(), s))
}
