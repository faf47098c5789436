//! Where rows lie must not change what a query says.

use crate::{
    encoded, engine, view,
    world::{Held, World},
};
use query::output::Format;

const QUERIES: &[&str] = &[
    "SELECT count(*) FROM spans",
    "SELECT count(*), count(color), count(route) FROM spans",
    "SELECT count(*) FROM traces",
    "SELECT count(*) FROM evals",
    "SELECT color, count(*), sum(prompt_tokens), sum(cost_usd) FROM spans GROUP BY color ORDER BY color",
    "SELECT route, color, version, release, cohort, split, unmarked_reason, count(*) FROM spans
     GROUP BY 1, 2, 3, 4, 5, 6, 7 ORDER BY 1, 2, 3, 4, 5",
    "SELECT count(*) FROM spans WHERE color = 'green'",
    "SELECT count(*) FROM spans WHERE color = 'unmarked'",
    "SELECT count(*) FROM spans WHERE color IS NULL",
    "SELECT count(*) FROM spans WHERE color <> 'green' AND cohort = 'pro'",
    "SELECT count(*) FROM spans WHERE color IN ('green', 'unmarked') AND role = 'call'",
    "SELECT count(*) FROM spans WHERE unmarked_reason IS NOT NULL",
    "SELECT count(*) FROM spans WHERE cohort IS NULL OR split > 0.2",
    "SELECT trace_id, span_id FROM spans WHERE route = 'search' AND color = 'blue' ORDER BY span_id LIMIT 5",
    "SELECT trace_id FROM spans WHERE start_time >= TIMESTAMP '2026-11-20T14:00:40Z' AND role = 'call' ORDER BY 1 LIMIT 3",
    "SELECT count(*) FROM spans WHERE start_time < TIMESTAMP '2026-11-20T14:00:10Z'",
    "SELECT * FROM spans WHERE span_id = '0000000000000011' AND color = 'green'",
    "SELECT * FROM spans ORDER BY span_id LIMIT 20",
    "SELECT attributes['n'] AS n, color FROM spans WHERE attributes['gen_ai.system'] = 'openai' ORDER BY span_id LIMIT 7",
    "SELECT role, count(*), sum(prompt_tokens), sum(completion_tokens), sum(cost_usd), count(cost_usd) FROM spans
     GROUP BY role ORDER BY role",
    "SELECT span_id, role, repeats_span_id FROM spans WHERE repeats_span_id IS NOT NULL ORDER BY span_id",
    "SELECT response_model, count(*) FROM spans WHERE role = 'call' GROUP BY 1 ORDER BY 1",
    "SELECT max(prompt_tokens), min(ttft_ms) FROM spans",
    "SELECT * FROM traces ORDER BY trace_id LIMIT 30",
    "SELECT error, count(*) FROM traces GROUP BY error ORDER BY error",
    "SELECT color, count(*) FROM traces WHERE error GROUP BY color ORDER BY color",
    "SELECT count(*) FROM traces WHERE color = 'green' AND start_time > TIMESTAMP '2026-11-20T14:00:30Z'",
    "SELECT trace_id, duration_ms FROM traces ORDER BY duration_ms DESC, trace_id LIMIT 5",
    "SELECT t.color, count(*), count(DISTINCT t.trace_id) FROM traces t JOIN spans s ON t.trace_id = s.trace_id
     WHERE s.role = 'call' GROUP BY t.color ORDER BY 1",
    "SELECT count(*) FROM traces t JOIN spans s ON t.trace_id = s.trace_id AND t.color = s.color",
    "SELECT * FROM evals ORDER BY trace_id LIMIT 30",
    "SELECT color, cohort, count(*) FROM evals WHERE passed IS FALSE GROUP BY 1, 2 ORDER BY 1, 2",
    "SELECT * FROM latency_p99 ORDER BY route, version, color, cohort",
    "SELECT * FROM token_cost_per_trace ORDER BY route, version, color, cohort",
    "SELECT * FROM eval_fail_rate ORDER BY name, route, version, color, cohort",
    "SELECT * FROM route_health ORDER BY route, color",
    "SELECT * FROM user_impact ORDER BY release, route, color, cohort",
    "SELECT * FROM release_compare('r1') ORDER BY route, metric",
    "SELECT * FROM worst_traces('r1') ORDER BY color, rank",
    "SELECT * FROM manifests_seen ORDER BY route, version, kind, prompt, tools",
    "SELECT * FROM evals_wanted ORDER BY rank, route, release, color, trace_id",
    "SELECT * FROM evals_wanted('TaskCompletion') ORDER BY rank, route, release, color, trace_id",
    "SELECT * FROM unresolved ORDER BY route, reason",
    "SELECT * FROM worst_traces('r1', 'latency') ORDER BY color, rank",
];

#[tokio::test(flavor = "multi_thread")]
async fn live_sealed_and_patched_rows_give_the_same_answers() {
    let world = World { traces: 100 };
    let mut expected: Vec<String> = Vec::new();
    for held in Held::ALL {
        let dir = tempfile::tempdir().unwrap();
        let snapshot = world.write(dir.path(), held);
        let engine = engine(dir.path());
        for (i, sql) in QUERIES.iter().enumerate() {
            let answer = encoded(&engine, view(&snapshot), sql, Format::Json)
                .await
                .unwrap_or_else(|e| panic!("{held:?}: {sql}: {e}"));
            let answer = String::from_utf8(answer).unwrap();
            match expected.get(i) {
                None => expected.push(answer),
                Some(expected) => assert_eq!(expected, &answer, "{held:?}: {sql}"),
            }
        }
    }
}
