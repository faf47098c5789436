//! Complete paths that were seen serving routes: what observed releases are found by.

use super::rows;
use crate::{Engine, QueryError, View, metrics::Apart, parameters::Parameters};
use proto::{Nanos, layout::Table, measure::SeenPath};
use store::Snapshot;

/// Most paths, those with most traces first.
pub const PATHS_MAX: usize = 1_000;

/// Paths of calls that started since a moment: one for each distinct combination on a route, with the traces it served.
/// Embeddings, mirrored calls, judges' and second records are no paths. Stamps are those of any span of the trace.
///
/// Of much more than `rows_max` spans a share of the traces is looked at, by the last digits of their ids, and their number
/// is told as if all had been: a path that serves a few traces only may then be missing, and be seen later than it began.
///
/// # Errors
/// Those of a query.
pub async fn seen(engine: &Engine, view: View, since: Nanos, rows_max: u64) -> Result<Vec<SeenPath>, QueryError> {
    let digits = digits(rows_since(&view.snapshot, since), rows_max);
    let share = match digits {
        0 => String::new(),
        digits => format!(" AND trace_id LIKE '%{}'", "0".repeat(digits as usize)),
    };
    let sql = format!(
        "WITH RECURSIVE {}
SELECT c.route, c.version, c.provider, c.model, c.prompt, x.tools, x.guardrails, x.cache, x.fallback, x.policy,
       count(*) AS traces, min(c.first_seen) AS first_seen, max(c.last_seen) AS last_seen
FROM (
  SELECT s.trace_id, s.route, s.version, s.provider, s.request_model AS model,
         CASE WHEN s.prompt_version IS NULL THEN CAST(s.prompt_name AS VARCHAR)
              ELSE concat(s.prompt_name, '@', s.prompt_version) END AS prompt,
         min(s.start_time) AS first_seen, max(s.start_time) AS last_seen
  FROM spans s LEFT JOIN apart a ON a.trace_id = s.trace_id AND a.span_id = s.span_id
  WHERE s.start_time >= $since{} AND s.role = 'call' AND s.repeats_span_id IS NULL AND a.span_id IS NULL
    AND s.route IS NOT NULL
    AND coalesce(lower(s.name), '') NOT LIKE '%embed%' AND coalesce(lower(s.request_model), '') NOT LIKE '%embed%'
  GROUP BY 1, 2, 3, 4, 5, 6
) c JOIN (
  SELECT trace_id, max(CAST(tools_version AS VARCHAR)) AS tools, max(CAST(guardrails_version AS VARCHAR)) AS guardrails,
         max(CAST(cache_version AS VARCHAR)) AS cache, max(CAST(fallback_version AS VARCHAR)) AS fallback,
         max(CAST(policy_version AS VARCHAR)) AS policy
  FROM spans WHERE start_time >= $since - INTERVAL '1 day'{share} GROUP BY trace_id
) x ON x.trace_id = c.trace_id
GROUP BY 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
ORDER BY traces DESC, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10
LIMIT {PATHS_MAX}",
        Apart::All.query(
            "apart",
            "true",
            &format!("start_time >= $since - INTERVAL '1 day'{share}")
        ),
        share.replace("trace_id", "s.trace_id"),
    );
    let mut paths = Vec::new();
    let parameters = Parameters::default().time("since", since);
    rows::each(engine, view, &sql, parameters, |rows| {
        for row in 0..rows.len() {
            let text = |column| rows.text(column, row).map(str::to_owned);
            let int = |column| rows.int(column, row).unwrap_or_default();
            paths.push(SeenPath {
                route: text(0).unwrap_or_default(),
                version: text(1),
                provider: text(2),
                model: text(3),
                prompt: text(4),
                tools: text(5),
                guardrails: text(6),
                cache: text(7),
                fallback: text(8),
                policy: text(9),
                traces: int(10) << (DIGIT_BITS * digits),
                first_seen: Nanos(int(11)),
                last_seen: Nanos(int(12)),
            });
        }
    })
    .await?;
    Ok(paths)
}

/// What a hexadecimal digit says, bits.
const DIGIT_BITS: u32 = 4;
/// Digits by which traces are chosen at most: one in 65,536.
const DIGITS_MAX: u32 = 4;

/// Spans in a snapshot that may have started since a moment.
fn rows_since(snapshot: &Snapshot, since: Nanos) -> u64 {
    let files = snapshot.files.iter();
    let sealed = files.filter(|file| file.table == Table::Spans && file.start_max >= since);
    let live = snapshot.spans.iter().map(|batch| batch.rows.num_rows() as u64);
    sealed.map(|file| file.rows).sum::<u64>() + live.sum::<u64>()
}

/// By how many last digits of their ids traces are chosen, so that about `rows_max` of `rows` are left.
fn digits(rows: u64, rows_max: u64) -> u32 {
    (0..DIGITS_MAX)
        .find(|digits| rows >> (DIGIT_BITS * digits) <= rows_max)
        .unwrap_or(DIGITS_MAX)
}
