//! What a release shows beside its gates: its worst traces, and what mirroring cost.

use super::Asked;
use crate::QueryError;
use proto::measure::WorstTrace;

/// Worst traces of each color.
const WORST_PER_COLOR: usize = 10;

/// The worst traces of blue and of green, worst first.
pub(super) async fn traces(asked: &Asked<'_>) -> Result<Vec<WorstTrace>, QueryError> {
    const WORSE: &str =
        "error DESC, evals_failed DESC, timed_out DESC, attempts_failed DESC, duration_ms DESC, trace_id";
    let of = |color: &str| {
        format!(
            "(SELECT trace_id, assigned_color, error, timed_out, evals_failed, attempts_failed, duration_ms FROM traces
  WHERE release = $release AND start_time >= $from AND start_time <= $until AND assigned_color = '{color}'
    AND shadow IS NOT TRUE AND superseded IS NOT TRUE
  ORDER BY {WORSE} LIMIT {WORST_PER_COLOR})"
        )
    };
    let sql = format!(
        "SELECT * FROM (\n{}\nUNION ALL\n{}\n) ORDER BY {WORSE}",
        of("blue"),
        of("green")
    );
    let mut worst = Vec::new();
    asked
        .each(&sql, |rows| {
            for row in 0..rows.len() {
                worst.push(WorstTrace {
                    color: super::gathered::color_of(rows.text(1, row)),
                    trace_id: rows.text(0, row).unwrap_or_default().to_owned(),
                    what: what(
                        rows.is(2, row),
                        rows.is(3, row),
                        rows.int(4, row).unwrap_or_default(),
                        rows.int(5, row).unwrap_or_default(),
                        rows.float(6, row).unwrap_or_default(),
                    ),
                });
            }
        })
        .await?;
    Ok(worst)
}

/// What is bad about a trace, in words; its duration in any case.
fn what(error: bool, timed_out: bool, evals_failed: i64, attempts_failed: i64, ms: f64) -> String {
    let several = |n: i64, one: &str| match n {
        ..=0 => None,
        1 => Some(format!("1 failed {one}")),
        n => Some(format!("{n} failed {one}s")),
    };
    let duration = if ms < 1_000.0 {
        format!("{ms:.0} ms")
    } else {
        format!("{:.1} s", ms / 1_000.0)
    };
    let said = [
        error.then(|| "error".to_owned()),
        timed_out.then(|| "timed out".to_owned()),
        several(evals_failed, "evaluation"),
        several(attempts_failed, "attempt"),
        Some(duration),
    ];
    said.into_iter().flatten().collect::<Vec<String>>().join(", ")
}

/// What mirrored calls of the release cost, nano-USD, warm-up and all.
pub(super) async fn shadow_cost(asked: &Asked<'_>) -> Result<Option<i64>, QueryError> {
    let mut cost = None;
    let sql = "SELECT CAST(sum(shadow_cost_usd) * 1000000000 AS BIGINT) FROM traces WHERE release = $release";
    asked.each(sql, |rows| cost = rows.int(0, 0)).await?;
    Ok(cost)
}
