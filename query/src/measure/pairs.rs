//! Mirrored and replayed pairs: two traces of one mirror key, one of each color, read side by side.
//!
//! What a mirror answered reached nobody, so its row of `traces` counts no calls, tokens, cost or checks: those are read
//! from its call spans here. Rows come sorted by key and are folded as they come. A user's trace with a mirrored
//! call inside is a pair by itself ([`super::within`]).

use super::{
    ADMITTED, Asked, SPANS_SINCE,
    gathered::{Gathered, Place, count, record},
    plain,
    reads::{Reads, apart, is_amount, with},
    rows::Rows,
    within,
};
use crate::{QueryError, metrics::Apart};
use proto::{
    Cell, Color, Grain, Metric, Nanos,
    measure::{PairPlan, PairRead},
};
use std::{collections::BTreeMap, sync::Arc};

/// Columns before those of metrics.
const HEAD: usize = 4;

/// Adds the cells of every paired gate; a gate whose metric no pair has gets an obstacle.
pub(super) async fn gather(
    asked: &Asked<'_>,
    out: &mut Gathered,
    obstacles: &mut BTreeMap<String, String>,
) -> Result<(), QueryError> {
    let mut reads = Reads::default();
    let mut gates = Vec::new();
    for pair in &asked.plan.pairs {
        let fits = is_amount(&pair.metric) != (pair.read == PairRead::Event);
        if fits && reads.add(&pair.metric) {
            gates.push(PairGate::new(pair));
        } else {
            obstacles.insert(
                pair.gate.to_string(),
                format!(
                    "`{}` is not compared within pairs; pair a metric of traces, such as error, latency or cost",
                    pair.metric
                ),
            );
        }
    }
    if gates.is_empty() {
        return Ok(());
    }
    let sql = statement(asked, &mut reads).await?;
    let mut fold = Fold {
        gates: &gates,
        key: None,
        sides: [None, None],
    };
    asked.each(&sql, |rows| fold.take(rows, out)).await?;
    fold.flush(out);
    within::gather(asked, &gates, out).await
}

async fn statement(asked: &Asked<'_>, reads: &mut Reads) -> Result<String, QueryError> {
    let mut of_calls = false;
    for read in &mut reads.columns {
        if let Some(mirrored) = mirrored(&read.metric) {
            read.expr = format!("CASE WHEN t.shadow THEN {mirrored} ELSE {} END", read.expr);
            of_calls = true;
        } else if let Some(told) = read.told_of_either() {
            read.expr = told;
        }
    }
    let apart_all = reads.apart(asked).await?;
    let judges = match of_calls {
        true => apart(asked, Apart::Judges, "judges", "release = $release").await?,
        false => None,
    };
    let calls = if of_calls {
        let calls = calls(judges.is_some());
        format!("\nLEFT JOIN (\n  {calls}\n) c ON c.trace_id = t.trace_id")
    } else {
        String::new()
    };
    Ok(format!(
        "{}SELECT {} AS key, t.assigned_color = 'green', t.start_time, {}{}
FROM traces t{}{calls}
WHERE {ADMITTED} AND t.mirror_key IS NOT NULL AND t.assigned_color IS NOT NULL AND t.superseded IS NOT TRUE
ORDER BY key, t.start_time, t.trace_id",
        with(&[apart_all.clone(), judges]),
        plain("t.mirror_key"),
        plain("t.cohort"),
        reads.selected(),
        reads.joined(apart_all.as_ref().map(|_| "apart"))
    ))
}

/// What the calls of mirrored traces say together.
fn calls(has_judges: bool) -> String {
    let (judges, own) = match has_judges {
        true => (
            "\n  LEFT JOIN (SELECT DISTINCT trace_id, span_id FROM judges) a ON a.trace_id = s.trace_id AND a.span_id = s.span_id",
            " AND a.span_id IS NULL",
        ),
        false => ("", ""),
    };
    format!(
        "SELECT s.trace_id,
    CASE WHEN count(s.cost_usd) = count(*) THEN CAST(sum(s.cost_usd) * 1000000000 AS BIGINT) END AS cost,
    sum(s.prompt_tokens) AS prompt_tokens, sum(s.completion_tokens) AS completion_tokens,
    bool_and(s.tool_args_valid) AS tool_args_valid, bool_or(s.timed_out) AS timed_out,
    first_value(s.json_checks ORDER BY s.end_time DESC, s.span_id DESC)
      FILTER (WHERE lower(s.status) IS NULL OR lower(s.status) NOT LIKE '%error') AS json_checks
  FROM (SELECT t.trace_id FROM traces t WHERE {ADMITTED} AND t.shadow AND t.mirror_key IS NOT NULL) m
  JOIN (SELECT * FROM spans WHERE role = 'call' AND release = $release AND {SPANS_SINCE}) s ON s.trace_id = m.trace_id{judges}
  WHERE true{own}
  GROUP BY s.trace_id"
    )
}

/// How a metric that depends on calls is read of a mirrored trace.
const fn mirrored(metric: &Metric) -> Option<&'static str> {
    Some(match metric {
        Metric::Cost => "c.cost",
        Metric::PromptTokens => "c.prompt_tokens",
        Metric::CompletionTokens => "c.completion_tokens",
        Metric::ToolArgsInvalid => "NOT c.tool_args_valid",
        Metric::Timeout => "t.timed_out OR (t.error AND coalesce(c.timed_out, false))",
        Metric::JsonInvalid => {
            "CASE WHEN strpos(concat(',', c.json_checks, ','), concat(',', t.route, '=ok,')) > 0 THEN false
                  WHEN strpos(concat(',', c.json_checks, ','), concat(',', t.route, '=')) > 0 THEN true END"
        }
        _ => return None,
    })
}

/// A paired gate and the metric under which its pairs are counted.
pub(super) struct PairGate<'a> {
    pub plan: &'a PairPlan,
    counted_as: Metric,
}

/// One side of a pair.
#[derive(Debug, Clone)]
pub(super) struct Side {
    /// When it started.
    pub start: Nanos,
    pub cohort: Option<Arc<str>>,
    /// By gate; events are 0 or 1.
    pub values: Vec<Option<i64>>,
}

impl<'a> PairGate<'a> {
    fn new(plan: &'a PairPlan) -> Self {
        Self {
            plan,
            counted_as: Metric::Paired(Arc::clone(&plan.gate)),
        }
    }

    /// Counts a pair, at the minute in which its later side started.
    fn count(&self, minute: i64, cohort: Option<&Arc<str>>, [blue, green]: [i64; 2], out: &mut Gathered) {
        let place = |color| Place {
            minute,
            cohort: cohort.filter(|_| self.plan.by_cohort).map(Arc::clone),
            split_ppm: None,
            color,
        };
        let mut put = |color, change: &dyn Fn(&mut Cell)| {
            change(out.cell(place(color), &self.counted_as, Grain::Trace));
        };
        let (blue_had, green_had) = match self.plan.read {
            PairRead::Event => (blue != 0, green != 0),
            PairRead::Above {
                blue: of_blue,
                green: of_green,
            } => (unsigned(blue) > of_blue, unsigned(green) > of_green),
            PairRead::Value { r, cap } => {
                let [blue, green] = [blue, green].map(unsigned);
                put(Color::Blue, &|cell| record(cell, blue));
                put(Color::Green, &|cell| record(cell, green));
                put(Color::Unmarked, &|cell| record(cell, difference(blue, green, r, cap)));
                return;
            }
        };
        put(Color::Blue, &|cell| count(cell, blue_had && !green_had));
        put(Color::Green, &|cell| count(cell, green_had && !blue_had));
    }
}

fn unsigned(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(0)
}

/// `min(green, cap) - r min(blue, cap) + r cap`, rounded down.
fn difference(blue: u64, green: u64, r: f64, cap: u64) -> u64 {
    let [blue, green, most] = [blue.min(cap), green.min(cap), cap].map(|v| v as f64);
    // From 0 to (1 + r) cap, so the conversion only cuts the fraction.
    (green + r * (most - blue)).max(0.0) as u64
}

/// Counts a pair for every gate whose metric both sides know.
pub(super) fn count_pair(gates: &[PairGate<'_>], blue: &Side, green: &Side, out: &mut Gathered) {
    let minute = out.minute_of(blue.start.max(green.start));
    let cohort = blue.cohort.as_ref().or(green.cohort.as_ref());
    for (i, gate) in gates.iter().enumerate() {
        if let (Some(Some(of_blue)), Some(Some(of_green))) = (blue.values.get(i), green.values.get(i)) {
            gate.count(minute, cohort, [*of_blue, *of_green], out);
        }
    }
}

struct Fold<'a> {
    gates: &'a [PairGate<'a>],
    key: Option<String>,
    /// Blue, green: the earliest trace of each.
    sides: [Option<Side>; 2],
}

impl Fold<'_> {
    fn take(&mut self, rows: &Rows, out: &mut Gathered) {
        for row in 0..rows.len() {
            let key = rows.text(0, row).unwrap_or_default();
            if self.key.as_deref() != Some(key) {
                self.flush(out);
                self.key = Some(key.to_owned());
            }
            let side = &mut self.sides[usize::from(rows.is(1, row))];
            if side.is_none() {
                *side = Some(Side {
                    start: Nanos(rows.int(2, row).unwrap_or_default()),
                    cohort: out.cohort(rows.text(3, row)),
                    values: (0..self.gates.len()).map(|i| rows.int(HEAD + i, row)).collect(),
                });
            }
        }
    }

    fn flush(&mut self, out: &mut Gathered) {
        if let [Some(blue), Some(green)] = std::mem::take(&mut self.sides) {
            count_pair(self.gates, &blue, &green, out);
        }
    }
}
