"""A real program exports a trace; within a second SQL shows it with color, version, model, tokens and cost."""

import pytest
from program import COMPLETION, MODEL, PROMPT, TRANSPORTS, expected_cost, export_evaluation, export_trace

VISIBLE_S_MAX = 1.0
# Quiet time of a trace and then some.
CLOSED_S_MAX = 90


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_trace_is_visible_within_a_second_and_its_root_colors_its_children(server, transport):
    trace_id, _ = export_trace(server, transport)
    rows, asked = server.await_sql(
        "SELECT name, role, color, version, route, cohort, service_name, request_model, response_model, provider, "
        "prompt_tokens, completion_tokens, cost_usd FROM spans "
        f"WHERE trace_id = '{trace_id}' ORDER BY start_time",
        lambda rows: len(rows) == 3 and all(row["color"] == "green" for row in rows),
        VISIBLE_S_MAX,
    )
    assert asked <= VISIBLE_S_MAX
    root, tool, call = rows
    for row in rows:
        assert (row["color"], row["version"], row["route"]) == ("green", "42", "support-chat")
        assert (row["cohort"], row["service_name"]) == ("gold", "shop")
    assert (root["role"], tool["role"], call["role"]) == ("server", "tool", "call")
    assert (call["provider"], call["request_model"], call["response_model"]) == ("openai", MODEL, MODEL)
    assert (call["prompt_tokens"], call["completion_tokens"]) == (PROMPT, COMPLETION)
    assert call["cost_usd"] == expected_cost()
    assert root["cost_usd"] is None and tool["prompt_tokens"] is None, "unknown is NULL"


@pytest.mark.parametrize("transport", ["grpc", "http"])
def test_a_closed_trace_is_one_row_and_its_evaluation_takes_its_color(server, transport):
    trace_id, root = export_trace(server, transport)
    export_evaluation(server, transport, root)
    rows, _ = server.await_sql(
        f"SELECT color, version, route, calls, error, prompt_tokens, cost_usd, priced, evals, evals_failed "
        f"FROM traces WHERE trace_id = '{trace_id}'",
        lambda rows: len(rows) == 1 and rows[0]["evals"] == 1,
        CLOSED_S_MAX,
    )
    assert rows == [
        {
            "color": "green",
            "version": "42",
            "route": "support-chat",
            "calls": 1,
            "error": False,
            "prompt_tokens": PROMPT,
            "cost_usd": expected_cost(),
            "priced": True,
            "evals": 1,
            "evals_failed": 1,
        }
    ]
    evals = server.sql(f"SELECT name, score, label, passed, color, version FROM evals WHERE trace_id = '{trace_id}'")
    assert len(evals) == 1
    (judged,) = evals
    assert judged["name"].replace("_", "").lower() == "taskcompletion"
    assert (float(judged["score"]), judged["label"], judged["passed"]) == (0.25, "fail", False)
    assert (judged["color"], judged["version"]) == ("green", "42")
