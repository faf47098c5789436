//! Pairs inside one trace: a user's trace that has no mirror key, with mirrored calls of the other color beside its own.
//!
//! Of either side the answering call speaks, the last to end without an error, or the last to end where all failed. Its status
//! is the error, its duration the latency; all calls of a side are its cost. Other metrics have no such pairs, nor has a
//! trace whose own calls cannot be told from its rows (they are then not as many as the trace counts).

use super::{
    ADMITTED, Asked, SPANS_SINCE,
    gathered::{Gathered, color_of},
    pairs::{PairGate, Side, count_pair},
    rows::Rows,
};
use crate::{QueryError, metrics::SERVED};
use proto::{Color, Metric, Nanos};

/// Adds the pairs of traces with mirrored calls, if a gate reads what calls tell.
pub(super) async fn gather(asked: &Asked<'_>, gates: &[PairGate<'_>], out: &mut Gathered) -> Result<(), QueryError> {
    let tells = |gate: &PairGate<'_>| matches!(gate.plan.metric, Metric::Cost | Metric::Latency | Metric::Error);
    if !gates.iter().any(tells) {
        return Ok(());
    }
    let mirrored =
        format!("SELECT trace_id FROM spans WHERE shadow AND role = 'call' AND release = $release AND {SPANS_SINCE}");
    let mut is_there = false;
    asked
        .each(&format!("{mirrored} LIMIT 1"), |rows| is_there |= rows.len() > 0)
        .await?;
    if !is_there {
        return Ok(());
    }
    let sql = format!(
        "SELECT t.trace_id, t.assigned_color, t.cohort, t.calls, s.shadow, s.color, s.start_time, s.end_time,
       lower(s.status) LIKE '%error', CAST(s.cost_usd * 1000000000 AS BIGINT)
FROM (SELECT DISTINCT trace_id FROM ({mirrored})) m
JOIN traces t ON t.trace_id = m.trace_id
JOIN (SELECT * FROM spans WHERE role = 'call' AND release = $release AND {SPANS_SINCE}) s ON s.trace_id = m.trace_id
WHERE {ADMITTED} AND {SERVED} AND t.mirror_key IS NULL AND t.assigned_color IS NOT NULL
ORDER BY t.trace_id, s.end_time, s.span_id"
    );
    let mut fold = Fold {
        gates,
        until: asked.until,
        id: String::new(),
        trace: None,
    };
    asked.each(&sql, |rows| fold.take(rows, out)).await?;
    fold.flush(out);
    Ok(())
}

/// Calls of one color, in the order of their ends.
#[derive(Debug, Clone, Copy, Default)]
struct Calls {
    n: i64,
    /// `None` once one is not known.
    cost: Option<i64>,
    answer: Option<Answer>,
}

#[derive(Debug, Clone, Copy)]
struct Answer {
    start: Nanos,
    us: i64,
    failed: bool,
}

impl Calls {
    fn add(&mut self, answer: Answer, cost: Option<i64>) {
        let before = if self.n == 0 { Some(0) } else { self.cost };
        self.cost = before.zip(cost).map(|(sum, cost)| sum.saturating_add(cost));
        self.n += 1;
        if self.answer.is_none_or(|known| known.failed || !answer.failed) {
            self.answer = Some(answer);
        }
    }

    fn value(&self, metric: &Metric) -> Option<i64> {
        match metric {
            Metric::Cost => self.cost.filter(|cost| *cost >= 0),
            Metric::Latency => self.answer.map(|answer| answer.us),
            Metric::Error => self.answer.map(|answer| i64::from(answer.failed)),
            _ => None,
        }
    }
}

/// One trace as its calls come in.
struct Trace {
    color: Color,
    cohort: Option<std::sync::Arc<str>>,
    /// Own calls, as its row counts them.
    counted: i64,
    own: Calls,
    mirrored: Calls,
}

struct Fold<'a> {
    gates: &'a [PairGate<'a>],
    until: Nanos,
    id: String,
    trace: Option<Trace>,
}

impl Fold<'_> {
    fn take(&mut self, rows: &Rows, out: &mut Gathered) {
        for row in 0..rows.len() {
            let id = rows.text(0, row).unwrap_or_default();
            if self.id != id {
                self.flush(out);
                id.clone_into(&mut self.id);
            }
            let trace = self.trace.get_or_insert_with(|| Trace {
                color: color_of(rows.text(1, row)),
                cohort: out.cohort(rows.text(2, row)),
                counted: rows.int(3, row).unwrap_or_default(),
                own: Calls::default(),
                mirrored: Calls::default(),
            });
            let [start, end] = [6, 7].map(|column| rows.int(column, row).unwrap_or_default());
            let answer = Answer {
                start: Nanos(start),
                us: end.saturating_sub(start).max(0) / 1_000,
                failed: rows.is(8, row),
            };
            let color = color_of(rows.text(5, row));
            if !rows.is(4, row) {
                trace.own.add(answer, rows.int(9, row));
            } else if color.is_marked() && color != trace.color {
                trace.mirrored.add(answer, rows.int(9, row));
            }
        }
    }

    fn flush(&mut self, out: &mut Gathered) {
        let Some(trace) = self.trace.take().filter(|trace| trace.own.n == trace.counted) else {
            return;
        };
        let side = |calls: &Calls| {
            Some(Side {
                start: calls.answer?.start,
                cohort: trace.cohort.clone(),
                values: self.gates.iter().map(|gate| calls.value(&gate.plan.metric)).collect(),
            })
        };
        let (Some(own), Some(mirrored)) = (side(&trace.own), side(&trace.mirrored)) else {
            return;
        };
        if mirrored.start > self.until {
            return;
        }
        match trace.color {
            Color::Blue => count_pair(self.gates, &own, &mirrored, out),
            Color::Green => count_pair(self.gates, &mirrored, &own, out),
            Color::Unmarked => {}
        }
    }
}
