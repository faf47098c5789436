"""Real client libraries call a loopback model; SQL says of each call what the model wrote down about it.

Where a library loses a value on the way, or says another, `SAYS` has what it says: None is NULL, never 0.
"""

import os
import random
import subprocess
import sys
import tomllib
from decimal import Decimal

import pytest
from conftest import ROOT, Server
from provider import Provider

CLIENTS = ROOT / "server/e2e/clients"
CLOSED_S_MAX = 60
RUN_S_MAX = 120
MODEL = "gpt-4o-mini"
COLORS = {"blue": "41", "green": "42"}
FIELDS = ["request_model", "response_model", "prompt", "completion", "cached", "reasoning"]

# Client > (scenario or "*", field) > what the library says instead of what was served.
SAYS = {
    "openinference": {},
    "openllmetry": {
        ("stream", "reasoning"): None,
        # of cached tokens the model said nothing here
        ("embed", "cached"): 0,
    },
    "opentelemetry_v2": {("*", "cached"): None, ("*", "reasoning"): None},
    "traceai": {
        ("*", "cached"): None,
        ("*", "reasoning"): None,
        ("stream", "response_model"): None,
        ("silent", "response_model"): None,
        ("embed", "response_model"): None,
    },
    "langchain": {
        ("*", "reasoning"): None,
        ("stream", "response_model"): MODEL,
        ("error", "response_model"): MODEL,
    },
    "agents": {
        ("agent", "request_model"): None,
        ("retry", "request_model"): None,
        ("agent", "response_model"): MODEL,
        ("retry", "response_model"): MODEL,
        ("*", "cached"): None,
        ("*", "reasoning"): None,
    },
    "instructor": {},
    "litellm": {("stream", "response_model"): MODEL},
    "vercel_ai": {("embed", "response_model"): None},
    # two libraries on the same calls: the inner one fills what the outer one lost
    "double": {("embed", "cached"): 0},
}
# A library whose own retries are calls of their own, not hidden in one span.
TRIES_SEEN = {"vercel_ai"}


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    """One server for all clients: each has a route of its own."""
    server = Server(tmp_path_factory.mktemp("clients"))
    (server.folder / "tracegate.toml").write_text('[server]\ntrace_quiet = "500ms"\n')
    yield server.start()
    server.kill()


@pytest.fixture
def provider():
    seed = int(os.environ.get("E2E_SEED", random.randrange(1 << 32)))
    print(f"E2E_SEED={seed}")
    provider = Provider(seed)
    yield provider
    provider.close()


def prepared(name):
    """What `cargo xtask e2e` installs beside this interpreter."""
    assert name in os.environ, f"{name} is not set: run `cargo xtask e2e`, which installs the clients"
    return os.environ[name]


def command(client):
    if client == "vercel_ai":
        return [prepared("E2E_NODE"), os.path.join(prepared("E2E_VERCEL_AI"), "run.mjs")]
    python = prepared("E2E_LITELLM_PYTHON") if client == "litellm" else sys.executable
    return [python, "-B", CLIENTS / "run.py", client]


def run(server, provider, client, color):
    env = {
        **os.environ,
        "PROVIDER_URL": provider.url,
        "CLIENT": client,
        "COLOR": color,
        "VERSION": COLORS[color],
        "OTLP_GRPC": f"http://127.0.0.1:{server.grpc}",
        "OTLP_HTTP": f"http://127.0.0.1:{server.http}",
        # nothing here may look for a network
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "OPENAI_AGENTS_DISABLE_TRACING": "false",
        "NO_PROXY": "127.0.0.1",
    }
    ran = subprocess.run(command(client), env=env, capture_output=True, text=True, timeout=RUN_S_MAX)
    assert ran.returncode == 0, ran.stderr[-4000:]
    assert provider.log, f"{client} called no model:\n{ran.stderr[-4000:]}"
    return ran


def expected_calls(client, scenario, served):
    """Calls of a scenario as they must read, in the order they were served."""
    if client not in TRIES_SEEN:
        # A refused try that was repeated inside the SDK is part of the call that came of it.
        served = [one for one in served if one.status != 429]
    calls = []
    for one in served:
        call = {"request_model": one.model, "status": "error" if one.status != 200 else "fine"}
        call |= {field: one[field] for field in FIELDS[1:]}
        for (where, field), says in SAYS[client].items():
            if where in ("*", scenario):
                call[field] = says
        calls.append(call)
    return calls


def total(calls, field):
    known = [call[field] for call in calls if call[field] is not None]
    return sum(known) if known else None


def cost(calls):
    """By the shipped table; None if no call has a known cost."""
    prices = tomllib.loads((ROOT / "ingest/prices.toml").read_text())["provider"]["openai"]
    costs = []
    for call in calls:
        if call["prompt"] is None:
            continue
        price = prices[call["response_model"] or call["request_model"]]
        cached = call["cached"] or 0
        nano = (call["prompt"] - cached) * price["input"] + cached * price.get("cache_read", price["input"])
        costs.append(nano + (call["completion"] or 0) * price["output"])
    return Decimal(sum(costs)) / 1_000_000_000 if costs else None


def read_calls(server, trace_id):
    rows = server.sql(
        "SELECT request_model, response_model, prompt_tokens AS prompt, completion_tokens AS completion, "
        "cache_read_tokens AS cached, reasoning_tokens AS reasoning, status FROM spans "
        f"WHERE trace_id = '{trace_id}' AND role = 'call' AND repeats_span_id IS NULL ORDER BY start_time"
    )
    return [{**row, "status": "error" if row["status"] == "error" else "fine"} for row in rows]


@pytest.mark.parametrize("client", SAYS)
def test_sql_says_what_the_model_served(running, provider, client):
    color = random.choice(list(COLORS))
    run(running, provider, client, color)
    scenarios = {served.scenario for served in provider.log}
    traces, _ = running.await_sql(
        "SELECT trace_id, session_id, color, version, calls, attempts_failed, error, prompt_tokens, "
        f"completion_tokens, cost_usd, priced FROM traces WHERE route = '{client}'",
        lambda rows: {row["session_id"] for row in rows} >= scenarios,
        CLOSED_S_MAX,
    )
    assert sorted(trace["session_id"] for trace in traces) == sorted(scenarios), "one trace a request"
    wrong = []
    for trace in traces:
        scenario = trace["session_id"]
        served = provider.served(scenario)
        calls = expected_calls(client, scenario, served)
        expected = {
            "color": color,
            "version": COLORS[color],
            "calls": len(calls),
            "attempts_failed": sum(call["status"] == "error" for call in calls),
            "error": scenario == "error",
            "prompt_tokens": total(calls, "prompt"),
            "completion_tokens": total(calls, "completion"),
            "cost_usd": cost(calls),
            "priced": all(call["prompt"] is not None for call in calls),
        }
        found = {field: trace[field] for field in expected}
        wrong += [
            f"{scenario}: {field} is {found[field]}, expected {expected[field]}"
            for field in expected
            if found[field] != expected[field]
        ]
        for n, (read, call) in enumerate(zip(read_calls(running, trace["trace_id"]), calls, strict=False)):
            wrong += [
                f"{scenario}: {field} of call {n} is {read[field]}, expected {call[field]}"
                for field in call
                if read[field] != call[field]
            ]
        colors = running.sql(f"SELECT DISTINCT color FROM spans WHERE trace_id = '{trace['trace_id']}'")
        if colors != [{"color": color}]:
            wrong.append(f"{scenario}: spans are {colors}, expected {color}")
    assert not wrong, "\n".join(wrong)


def test_two_libraries_on_one_call_are_two_rows_and_one_call(running, provider):
    """Every call of the double run has two rows: one is the call, the other says whose it repeats."""
    if not running.sql("SELECT 1 FROM spans WHERE service_name = 'double' LIMIT 1"):
        run(running, provider, "double", "green")
    (rows,), _ = running.await_sql(
        "SELECT count(*) FILTER (WHERE role = 'call') AS calls, count(repeats_span_id) AS repeats, "
        "count(DISTINCT scope) AS scopes FROM spans "
        "WHERE service_name = 'double' AND (role = 'call' OR repeats_span_id IS NOT NULL)",
        lambda rows: rows[0]["repeats"] > 0 and rows[0]["repeats"] == rows[0]["calls"],
        CLOSED_S_MAX,
    )
    assert rows["scopes"] == 2, rows
