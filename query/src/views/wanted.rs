//! What an evaluator should judge next.

use proto::metric::normalise_eval_name;

/// A mirrored pair is one draw. Pairs come first, since they tell most; then each color's other traces in the order of
/// their own draws, so that any `rank <= n` has as many of one color as of the other. The draw depends on the mirror
/// key (else the trace id) alone, so it knows nothing of time and outcome, and stays as evaluations come in.
pub(crate) const EVALS_WANTED: &str = "
SELECT w.rank, w.trace_id, w.route, w.release, w.color, w.cohort, w.version, w.mirror_key, w.start_time, e.evaluations
FROM (
  SELECT *, place + CASE WHEN paired THEN 0
                         ELSE coalesce(max(CASE WHEN paired THEN place END) OVER (PARTITION BY route, release), 0)
                    END AS rank
  FROM (
    SELECT *, CASE WHEN paired
                   THEN dense_rank() OVER (PARTITION BY route, release, paired ORDER BY draw, unit)
                   ELSE row_number() OVER (PARTITION BY route, release, paired, color ORDER BY draw, unit, trace_id)
              END AS place
    FROM (
      SELECT *, draw_of(unit) AS draw,
             mirror_key IS NOT NULL
               AND sum(CASE WHEN color = 'blue' THEN 1 ELSE 0 END) OVER (PARTITION BY route, release, unit) > 0
               AND sum(CASE WHEN color = 'green' THEN 1 ELSE 0 END) OVER (PARTITION BY route, release, unit) > 0
               AS paired
      FROM (
        SELECT trace_id, route, release, color, cohort, version, mirror_key, start_time,
               coalesce(CAST(mirror_key AS VARCHAR), trace_id) AS unit
        FROM traces
      )
    )
  )
) w LEFT JOIN (
  SELECT trace_id, array_agg(DISTINCT name ORDER BY name) AS evaluations
  FROM (SELECT trace_id, CAST(name AS VARCHAR) AS name FROM evals WHERE trace_id IS NOT NULL AND error_type IS NULL)
  GROUP BY trace_id
) e ON w.trace_id = e.trace_id";

/// [`EVALS_WANTED`] without the traces that `evaluation` has judged; ranks stay as they are.
pub(crate) fn evals_wanted_by(evaluation: &str) -> String {
    // Letters, digits and `_`: nothing that would need quoting.
    let name = normalise_eval_name(evaluation);
    format!("SELECT * FROM ({EVALS_WANTED}) WHERE array_has(evaluations, '{name}') IS NOT TRUE")
}
