//! The views of the mission: each a name, what it answers, and its SQL. They are planned when a query names them.
//!
//! Quantiles of the views over `traces` are exact (`percentile_cont`: linear between the two nearest values, with a
//! weight of six digits). Those
//! over `cells` are read from merged histograms (at most 0.1 % above the true value): the numbers that gates judge.
//! What only a mirror saw (`shadow`) is no traffic: views of what users met leave it out.

mod wanted;

pub(crate) use wanted::{EVALS_WANTED, evals_wanted_by};

/// A view, or a table function that narrows one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ViewDoc {
    /// Name in SQL.
    pub name: &'static str,
    /// What a row is, in one line.
    pub doc: &'static str,
    /// Definition.
    pub sql: &'static str,
}

/// Every view, in the order the documentation lists them.
pub const VIEWS: &[ViewDoc] = &[
    ViewDoc {
        name: "latency_p99",
        doc: "99th percentile of trace duration by route, version, release, color and cohort: exact, in ms",
        sql: "
SELECT route, version, release, color, cohort, count(*) AS n,
       percentile_cont(duration_ms, 0.99) AS p99_ms
FROM traces WHERE shadow IS NOT TRUE
GROUP BY route, version, release, color, cohort",
    },
    ViewDoc {
        name: "token_cost_per_trace",
        doc: "cost and tokens of a trace by route, version, release, color and cohort: averages over the traces where they are known, totals, and the share that is fully priced",
        sql: "
SELECT route, version, release, color, cohort, count(*) AS n,
       avg(CASE WHEN priced THEN 1.0 ELSE 0.0 END) AS priced_share,
       avg(cost_usd) FILTER (WHERE priced) AS avg_cost_usd,
       sum(cost_usd) AS total_cost_usd,
       avg(prompt_tokens) AS avg_prompt_tokens,
       avg(completion_tokens) AS avg_completion_tokens,
       sum(prompt_tokens) AS total_prompt_tokens,
       sum(completion_tokens) AS total_completion_tokens
FROM traces WHERE shadow IS NOT TRUE
GROUP BY route, version, release, color, cohort",
    },
    ViewDoc {
        name: "eval_fail_rate",
        doc: "failed evaluations by evaluator (what users reported is feedback, and not here), route, version, release, color and cohort; n counts those with a result, errors those where the evaluator itself failed",
        sql: "
SELECT name, route, version, release, color, cohort,
       count(passed) AS n,
       count(*) FILTER (WHERE NOT passed) AS failed,
       CASE WHEN count(passed) > 0
            THEN CAST(count(*) FILTER (WHERE NOT passed) AS DOUBLE) / count(passed) END AS rate,
       count(error_type) AS errors
FROM evals
WHERE name NOT IN ('user_feedback', 'thumbs_down', 'escalation', 'abandoned', 'override')
GROUP BY name, route, version, release, color, cohort",
    },
    ViewDoc {
        name: "route_health",
        doc: "health of a route by color: shares of traces with an error, timeout, retry, fallback, cache hit; exact latency quantiles in ms; failed and rate-limited attempts. The error and timeout of a trace that another trace's fallback made good (superseded) count among the attempts alone",
        sql: "
SELECT t.route, t.color, t.n, t.last_seen, t.error_rate, t.timeout_rate, t.retry_rate, t.fallback_rate,
       t.cache_hit_rate, t.priced_share, t.p50_ms, t.p99_ms, t.avg_cost_usd,
       a.attempts, a.attempt_error_rate, a.rate_limited_rate, t.superseded
FROM (
  SELECT route, color, count(*) AS n, max(start_time) AS last_seen,
         count(*) FILTER (WHERE superseded) AS superseded,
         avg(CASE WHEN superseded THEN NULL WHEN error THEN 1.0 ELSE 0.0 END) AS error_rate,
         avg(CASE WHEN superseded THEN NULL WHEN timed_out THEN 1.0 ELSE 0.0 END) AS timeout_rate,
         avg(CASE WHEN retries > 0 THEN 1.0 ELSE 0.0 END) AS retry_rate,
         avg(CASE WHEN fallback THEN 1.0 ELSE 0.0 END) AS fallback_rate,
         avg(CASE WHEN cache_hit THEN 1.0 ELSE 0.0 END) AS cache_hit_rate,
         avg(CASE WHEN priced THEN 1.0 ELSE 0.0 END) AS priced_share,
         percentile_cont(duration_ms, 0.5) AS p50_ms,
         percentile_cont(duration_ms, 0.99) AS p99_ms,
         avg(cost_usd) FILTER (WHERE priced) AS avg_cost_usd
  FROM traces WHERE shadow IS NOT TRUE GROUP BY route, color
) t LEFT JOIN (
  SELECT route, color, count(*) AS attempts,
         avg(CASE WHEN upper(status) = 'ERROR' THEN 1.0 ELSE 0.0 END) AS attempt_error_rate,
         avg(CASE WHEN rate_limited THEN 1.0 ELSE 0.0 END) AS rate_limited_rate
  FROM spans WHERE role = 'call' AND shadow IS NOT TRUE GROUP BY route, color
) a ON (t.route IS NOT DISTINCT FROM a.route) AND t.color = a.color",
    },
    ViewDoc {
        name: "user_impact",
        doc: "how many traces, users and sessions were hurt (error, timeout or failed evaluation) by release, route, color and cohort; the error or timeout of a trace that another trace's fallback made good (superseded) hurt nobody",
        sql: "
SELECT release, route, color, cohort,
       count(*) AS traces, count(DISTINCT user_id) AS users, count(DISTINCT session_id) AS sessions,
       count(*) FILTER (WHERE hurt) AS traces_hurt,
       count(DISTINCT user_id) FILTER (WHERE hurt) AS users_hurt,
       count(DISTINCT session_id) FILTER (WHERE hurt) AS sessions_hurt
FROM (
  SELECT *, CASE WHEN superseded THEN evals_failed > 0
                 ELSE error OR timed_out OR evals_failed > 0 END AS hurt FROM traces WHERE shadow IS NOT TRUE
)
GROUP BY release, route, color, cohort",
    },
    ViewDoc {
        name: "release_compare",
        doc: "blue beside green for every metric of a release, from admitted cells: means of amounts (ms, USD, tokens) with their p99, shares of rates; also release_compare('id')",
        sql: RELEASE_COMPARE,
    },
    ViewDoc {
        name: "worst_traces",
        doc: "the 20 worst traces of every release and color, rank 1 the worst: errors, then failed evaluations, timeouts, failed attempts, duration; also worst_traces('id'), and worst_traces('id', 'latency') by one metric",
        sql: WORST_TRACES,
    },
    ViewDoc {
        name: "manifests_seen",
        doc: "what the calls of every route and version really were: provider, model asked for, prompt (name@version), and the tools, guardrails, cache, fallback and policy that any span of the trace was stamped with; generations and embeddings apart; up to 3 traces as examples, the newest among them. mixed: the version has more than one such tuple (what is not known differs from nothing)",
        sql: MANIFESTS_SEEN,
    },
    ViewDoc {
        name: "evals_wanted",
        doc: "what an evaluator should judge next, rank 1 first: within a route and release equally many of every color, drawn without regard to time or outcome, both sides of a mirrored pair under one rank; take `WHERE rank <= n ORDER BY rank, route, mirror_key`. evaluations: those it has; also evals_wanted('TaskCompletion'): those without that one",
        sql: EVALS_WANTED,
    },
    ViewDoc {
        name: "unresolved",
        doc: "traces without a color by route, one row a reason: traces and unmarked of the route, unmarked as a share, how many for this reason, and color conflicts of the route; traces without a route are a row of their own",
        sql: UNRESOLVED,
    },
];

/// Groups are put together and taken apart again instead of windows: nothing is sorted, and DataFusion 55 cannot plan
/// groups by eleven columns over windows (it holds every order of them). Rows of a trace are first counted by what they
/// say of their call, so that a group is a few rows. (`nullif` hides from the optimizer that route, version and kind were
/// a key before `unnest`; it would leave out what else a query orders by.)
const MANIFESTS_SEEN: &str = "
SELECT nullif(route, '') AS route, version, kind, m['provider'] AS provider, m['model'] AS model, m['prompt'] AS prompt, m['tools'] AS tools,
       m['guardrails'] AS guardrails, m['cache'] AS cache, m['fallback'] AS fallback, m['policy'] AS policy,
       m['traces'] AS traces, m['calls'] AS calls, m['first_seen'] AS first_seen, m['last_seen'] AS last_seen,
       array_sort(array_distinct(make_array(m['newest'], m['least'], m['greatest']))) AS examples, mixed
FROM (
  SELECT route, version, kind, unnest(manifests) AS m, mixed
  FROM (
    SELECT route, version, kind,
           array_agg(named_struct('provider', provider, 'model', model, 'prompt', prompt, 'tools', tools,
             'guardrails', guardrails, 'cache', cache, 'fallback', fallback, 'policy', policy, 'traces', traces,
             'calls', calls, 'first_seen', first_seen, 'last_seen', last_seen, 'newest', newest, 'least', least,
             'greatest', greatest)) AS manifests,
           version IS NOT NULL AND coalesce(greatest(
             count(DISTINCT provider), count(DISTINCT model), count(DISTINCT prompt), count(DISTINCT tools),
             count(DISTINCT guardrails), count(DISTINCT cache), count(DISTINCT fallback), count(DISTINCT policy)
           ) > 1, false) AS mixed
    FROM (
      SELECT route, version, c['kind'] AS kind, c['provider'] AS provider, c['model'] AS model, c['prompt'] AS prompt,
             tools, guardrails, cache, fallback, policy,
             count(*) AS traces, sum(c['calls']) AS calls,
             min(c['first_seen']) AS first_seen, max(c['last_seen']) AS last_seen,
             right(max(concat(CAST(CAST(c['first_seen'] AS BIGINT) AS VARCHAR), trace_id)), 32) AS newest,
             min(trace_id) AS least, max(trace_id) AS greatest
      FROM (
        SELECT route, version, trace_id, tools, guardrails, cache, fallback, policy, unnest(calls) AS c
        FROM (
          SELECT route, version, trace_id,
                 max(tools) AS tools, max(guardrails) AS guardrails, max(cache) AS cache,
                 max(fallback) AS fallback, max(policy) AS policy,
                 array_agg(named_struct('kind', kind, 'provider', provider, 'model', request_model, 'prompt', prompt,
                   'calls', calls, 'first_seen', first_seen, 'last_seen', last_seen))
                   FILTER (WHERE kind IS NOT NULL) AS calls
          FROM (
            SELECT route, version, trace_id, kind, provider, request_model, prompt,
                   count(*) AS calls, min(start_time) AS first_seen, max(start_time) AS last_seen,
                   max(tools_version) AS tools, max(guardrails_version) AS guardrails, max(cache_version) AS cache,
                   max(fallback_version) AS fallback, max(policy_version) AS policy
            FROM (
        SELECT CAST(route AS VARCHAR) AS route, CAST(version AS VARCHAR) AS version, trace_id, start_time,
               CAST(provider AS VARCHAR) AS provider, CAST(request_model AS VARCHAR) AS request_model,
               CASE WHEN prompt_version IS NULL THEN CAST(prompt_name AS VARCHAR)
                    ELSE concat(prompt_name, '@', prompt_version) END AS prompt,
               CAST(tools_version AS VARCHAR) AS tools_version,
               CAST(guardrails_version AS VARCHAR) AS guardrails_version,
               CAST(cache_version AS VARCHAR) AS cache_version,
               CAST(fallback_version AS VARCHAR) AS fallback_version,
               CAST(policy_version AS VARCHAR) AS policy_version,
               CASE WHEN role <> 'call' OR shadow OR repeats_span_id IS NOT NULL THEN NULL
                    WHEN lower(name) LIKE '%embed%' OR lower(request_model) LIKE '%embed%' THEN 'embedding'
                    ELSE 'generation' END AS kind
              FROM spans
            )
            GROUP BY route, version, trace_id, kind, provider, request_model, prompt
          )
          GROUP BY route, version, trace_id
        )
      )
      GROUP BY route, version, c['kind'], c['provider'], c['model'], c['prompt'], tools, guardrails, cache, fallback, policy
    )
    GROUP BY route, version, kind
  )
)";

const UNRESOLVED: &str = "
SELECT route, traces, unmarked, CAST(unmarked AS DOUBLE) / traces AS share, reason, n, color_conflicts
FROM (
  SELECT route, reason, CASE WHEN is_unmarked THEN n ELSE 0 END AS n, is_unmarked,
         sum(n) OVER r AS traces,
         sum(CASE WHEN is_unmarked THEN n ELSE 0 END) OVER r AS unmarked,
         sum(conflicts) OVER r AS color_conflicts
  FROM (
    SELECT route, is_unmarked, CASE WHEN is_unmarked THEN unmarked_reason END AS reason,
           count(*) AS n, count(*) FILTER (WHERE color_conflict) AS conflicts
    FROM (SELECT *, color = 'unmarked' AS is_unmarked FROM traces)
    GROUP BY 1, 2, 3
  )
  WINDOW r AS (PARTITION BY route)
)
WHERE is_unmarked OR unmarked = 0";

/// Cells keep integers: us and nano-USD become ms and USD.
pub(crate) const RELEASE_COMPARE: &str = "
SELECT release, route, metric, grain, n_blue, n_green, blue, green,
       CASE WHEN blue <> 0 THEN green / blue END AS ratio, blue_p99, green_p99
FROM (
  SELECT release, route, metric, grain,
         coalesce(sum(n) FILTER (WHERE color = 'blue'), 0) AS n_blue,
         coalesce(sum(n) FILTER (WHERE color = 'green'), 0) AS n_green,
         sum(CASE WHEN amount THEN sum ELSE events END) FILTER (WHERE color = 'blue')
           / nullif(CAST(sum(n) FILTER (WHERE color = 'blue') AS DOUBLE), 0) / unit AS blue,
         sum(CASE WHEN amount THEN sum ELSE events END) FILTER (WHERE color = 'green')
           / nullif(CAST(sum(n) FILTER (WHERE color = 'green') AS DOUBLE), 0) / unit AS green,
         hdr_quantile(hdr, 0.99) FILTER (WHERE color = 'blue') / unit AS blue_p99,
         hdr_quantile(hdr, 0.99) FILTER (WHERE color = 'green') / unit AS green_p99
  FROM (
    SELECT *, metric IN ('latency', 'ttft', 'cost', 'prompt_tokens', 'completion_tokens') AS amount,
           CASE WHEN metric IN ('latency', 'ttft') THEN 1e3 WHEN metric = 'cost' THEN 1e9 ELSE 1e0 END AS unit
    FROM cells WHERE admitted AND release IS NOT NULL AND metric <> 'attempt_seconds'
  )
  GROUP BY release, route, metric, grain, unit
)";

macro_rules! worst_traces {
    ($order:expr) => {
        concat!(
            "
SELECT * FROM (
  SELECT release, color,
         row_number() OVER (PARTITION BY release, color ORDER BY ",
            $order,
            ", trace_id) AS rank,
         trace_id, start_time, route, version, cohort, duration_ms, cost_usd, prompt_tokens, completion_tokens,
         error, timed_out, retries, fallback, attempts_failed, evals, evals_failed, user_id, session_id
  FROM traces
) WHERE rank <= 20"
        )
    };
}

pub(crate) const WORST_TRACES: &str =
    worst_traces!("error DESC, evals_failed DESC, timed_out DESC, attempts_failed DESC, duration_ms DESC");

/// [`WORST_TRACES`] by one column of `traces`.
pub(crate) fn worst_traces_by(column: &str) -> String {
    worst_traces!("{column} DESC NULLS LAST").replace("{column}", column)
}

/// What `worst_traces(id, metric)` sorts by, worst first.
pub(crate) const WORST_BY: &[(&str, &str)] = &[
    ("latency", "duration_ms"),
    ("cost", "cost_usd"),
    ("prompt_tokens", "prompt_tokens"),
    ("completion_tokens", "completion_tokens"),
    ("error", "error"),
    ("timeout", "timed_out"),
    ("retry", "retries"),
    ("fallback", "fallback"),
    ("attempt_error", "attempts_failed"),
    ("eval_fail", "evals_failed"),
];
