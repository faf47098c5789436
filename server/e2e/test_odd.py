"""Odd but legal: what exporters may send though no captured one does, and what it must come to."""

import itertools
import json
import time
import urllib.request

import pytest
from conftest import ROOT, Server

# Quiet time of a trace whose root was not seen, and then some.
CLOSED_S_MAX = 90
# Route `chat`: 7 is blue; 8, or what a deployment of its own served, is green.
RELEASE = (ROOT / "server/tests/it/release.toml").read_text()
MATCH = '[release.green.match]\ndeployment = ["dep-green"]\n\n'
NUMBERS = itertools.count(0x1000)


def any_value(value):
    match value:
        case bool():
            return {"boolValue": value}
        case int():
            return {"intValue": value}
        case float():
            return {"doubleValue": "NaN" if value != value else value}
        case _:
            return {"stringValue": value}


def attributes(of):
    return [{"key": key, "value": any_value(value)} for key, value in of.items()]


class Trace:
    """Makes spans of one trace, and sends them one a request in the order they are given."""

    def __init__(self, server, number):
        self.server = server
        self.id = f"{number:032x}"
        self.began = time.time_ns() - 2_000_000_000
        self.spans = 0

    def span(self, name, of, *, parent=None, start_ms=0, end_ms=None, error=False, **more):
        self.spans += 1
        span = {
            "traceId": self.id,
            "spanId": f"{int(self.id, 16):08x}{self.spans:08x}",
            "name": name,
            "kind": more.pop("kind", 1),
            "startTimeUnixNano": str(self.began + start_ms * 1_000_000),
            "endTimeUnixNano": str(self.began + (end_ms or start_ms + 100) * 1_000_000),
            "attributes": attributes(of),
            "status": {"code": 2 if error else 0},
            **more,
        }
        if parent:
            span["parentSpanId"] = parent if isinstance(parent, str) else parent["spanId"]
        return span

    def send(self, *spans, resource=None):
        for span in spans:
            scoped = {"scope": {"name": "odd"}, "spans": [span]}
            resource_spans = {"resource": {"attributes": attributes(resource or {"service.name": "odd"})}}
            post(self.server, "traces", {"resourceSpans": [{**resource_spans, "scopeSpans": [scoped]}]})

    def evaluated(self, span_id="", **of):
        record = {
            "traceId": self.id,
            "spanId": span_id,
            "timeUnixNano": str(self.began),
            "eventName": "gen_ai.evaluation.result",
            "attributes": attributes({key.replace("__", "."): value for key, value in of.items()}),
        }
        post(self.server, "logs", {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]})

    def row(self, columns):
        sql = f"SELECT {columns} FROM traces WHERE trace_id = '{self.id}'"
        rows, _ = self.server.await_sql(sql, lambda rows: len(rows) == 1, CLOSED_S_MAX)
        return tuple(rows[0].values())

    def rows(self, columns, table="spans"):
        rows = self.server.sql(f"SELECT {columns} FROM {table} WHERE trace_id = '{self.id}' ORDER BY 1")
        return [tuple(row.values()) for row in rows]


def post(server, signal, body):
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.http}/v1/{signal}", json.dumps(body).encode(), {"content-type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=10) as answer:
        assert (answer.status, json.load(answer)) == (200, {})


@pytest.fixture(scope="module")
def odd(tmp_path_factory):
    server = Server(tmp_path_factory.mktemp("odd"))
    release = RELEASE.replace("[[release.gate]]", MATCH + "[[release.gate]]", 1)
    (server.folder / "tracegate.toml").write_text('[server]\ntrace_quiet = "1s"\n' + release)
    yield server.start()
    server.kill()


@pytest.fixture
def trace(odd):
    return Trace(odd, next(NUMBERS))


def root(trace, of=None, **more):
    return trace.span("POST /odd", {"gateway.route.name": "odd", **(of or {})}, kind=2, end_ms=1_000, **more)


def call(trace, parent, of=None, **more):
    told = {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "gpt-4o-mini",
        "gen_ai.usage.input_tokens": 100,
        "gen_ai.usage.output_tokens": 10,
    }
    return trace.span("chat", {**told, **(of or {})}, parent=parent, **more)


def test_numbers_as_strings_kinds_in_any_case_and_attributes_in_any_order(trace):
    top = root(trace, {"gateway.route.color": "GREEN", "gateway.route.version": "42"})
    told = {
        "llm.token_count.completion": "34",
        "llm.model_name": "gpt-4o-mini-2024-07-18",
        "llm.token_count.prompt_details.cache_read": "7",
        "llm.token_count.prompt": "1200",
        "openinference.span.kind": "llm",
    }
    trace.send(trace.span("x", told, parent=top), top)
    assert trace.row("calls, prompt_tokens, completion_tokens, color, priced") == (1, 1200, 34, "green", True)
    assert (7,) in trace.rows("cache_read_tokens")


def test_tokens_that_are_no_numbers_are_unknown_and_the_row_stays(trace):
    top = root(trace, {"gateway.route.color": "blue"})
    nan, negative = {"gen_ai.usage.input_tokens": float("nan")}, {"gen_ai.usage.input_tokens": -5}
    words = {"gen_ai.usage.input_tokens": "many", "gen_ai.usage.output_tokens": "1e400"}
    trace.send(call(trace, top, nan), call(trace, top, negative, start_ms=200), call(trace, top, words, start_ms=300), top)
    assert trace.row("calls, prompt_tokens, completion_tokens, cost_usd, priced") == (3, None, 20, None, False)


def test_a_parent_that_never_comes_leaves_the_topmost_span_as_the_root(trace):
    top = root(trace, {"gateway.route.color": "green"}, parent="00000000000000aa", error=True)
    trace.send(call(trace, top), top)
    assert trace.row("calls, error, color") == (1, True, "green")


def test_an_evaluation_that_comes_before_its_trace(trace):
    top = root(trace, {"gateway.route.color": "blue", "gateway.route.version": "41"})
    said = {"gen_ai.evaluation.name": "Groundedness", "gen_ai.evaluation.score.value": "0.25"}
    trace.evaluated(top["spanId"], **{**said, "gen_ai.evaluation.score.label": "FAIL"})
    trace.send(call(trace, top), top)
    assert trace.row("evals, evals_failed") == (1, 1)
    assert trace.rows("name, score, passed, color, version", "evals") == [("groundedness", 0.25, False, "blue", "41")]


def test_a_carrier_that_comes_before_what_it_judges(trace):
    top = root(trace, {"gateway.route.color": "green"})
    judge = Trace(trace.server, next(NUMBERS))
    told = {"openinference.span.kind": "Evaluator", "annotations.0.annotation.name": "Tone"}
    link = {"traceId": trace.id, "spanId": top["spanId"]}
    carrier = judge.span(
        "judge", {**told, "annotations.0.annotation.score": 0.9, "annotations.0.annotation.label": "pass"}, links=[link]
    )
    judge.send(call(judge, carrier), carrier)
    trace.send(call(trace, top), top)
    assert trace.row("calls, prompt_tokens") == (1, 100), "the judge's tokens are nobody's"
    trace.server.await_sql(
        f"SELECT name, passed, color FROM evals WHERE trace_id = '{trace.id}'",
        lambda rows: [tuple(row.values()) for row in rows] == [("tone", True, "green")],
        CLOSED_S_MAX,
    )
    assert trace.row("evals, evals_failed") == (1, 0)
    assert judge.rows("trace_id", "traces") == []


def test_a_color_that_comes_last_colors_everything_below(trace):
    top = root(trace, {"release.color": "green"})
    agent = trace.span("agent", {"traceloop.span.kind": "workflow"}, parent=top)
    first = call(trace, agent)
    trace.send(first, trace.span("tool", {"traceloop.span.kind": "tool"}, parent=agent), agent, top)
    assert trace.row("color, calls") == ("green", 1)
    assert trace.rows("DISTINCT color") == [("green",)]


def test_a_version_only_in_the_resource_is_known_by_the_release(trace):
    top = trace.span("POST /chat", {"gateway.route.name": "chat"}, kind=2, end_ms=1_000)
    resource = {"service.name": "odd", "service.version": "8"}
    trace.began = time.time_ns()
    trace.send(call(trace, top), top, resource=resource)
    assert trace.row("color, version") == ("green", "8")


def served_by_deployment(trace):
    trace.began = time.time_ns()
    top = trace.span("POST /chat", {"gateway.route.name": "chat"}, kind=2, end_ms=1_000)
    trace.send(call(trace, top, {"release.deployment_id": "dep-green"}), top)


def test_a_deployment_is_known_by_the_release(trace):
    served_by_deployment(trace)
    assert trace.row("color") == ("green",)


def test_a_deployment_gives_the_version_of_its_manifest(trace):
    served_by_deployment(trace)
    assert trace.row("version") == ("8",)


def test_mirrored_calls_are_measured_and_charged_to_nobody(trace):
    top = root(trace, {"gateway.route.color": "blue"})
    mirrored = {"gateway.mirror.shadow": True, "gateway.route.color": "green", "gen_ai.usage.input_tokens": 1_000_000}
    trace.send(call(trace, top, mirrored), call(trace, top), top)
    calls, prompt, shadow, color = trace.row("calls, prompt_tokens, shadow_cost_usd, color")
    assert (calls, prompt, color) == (1, 100, "blue") and shadow > 0


def test_a_failure_that_a_retry_masks_is_the_candidates_and_no_users(trace):
    top = root(trace, {"gateway.route.color": "green", "gateway.route.name": "masked"})
    refused = {"http.response.status_code": 429, "error.type": "RateLimitError", "gateway.route.color": "green"}
    unknown = {"gen_ai.usage.input_tokens": "", "gen_ai.usage.output_tokens": ""}
    green = call(trace, top, {**refused, **unknown}, error=True)
    blue = call(trace, top, {"gateway.route.color": "blue"}, start_ms=200, end_ms=900)
    trace.send(blue, green, top)
    assert trace.row("error, calls, attempts_failed, prompt_tokens, served_color, assigned_color") == (
        (False, 2, 1, 100, "blue", "green")
    )
    cells = trace.server.sql(
        "SELECT grain, color, sum(n) AS n, sum(events) AS events FROM cells "
        "WHERE route = 'masked' AND metric IN ('error', 'attempt_error') GROUP BY grain, color ORDER BY grain, color"
    )
    found = {(row["grain"], row["color"]): (row["n"], row["events"]) for row in cells}
    assert found[("attempt", "green")] == (1, 1) and found[("attempt", "blue")] == (1, 0), found
    assert found[("trace", "green")] == (1, 0), found


def test_sums_of_agents_are_never_added(trace):
    top = root(trace, {"gateway.route.color": "blue"})
    usage = {"gen_ai.usage.input_tokens": 100, "gen_ai.usage.output_tokens": 10}
    agent = trace.span("invoke_agent", {"gen_ai.operation.name": "INVOKE_AGENT", **usage}, parent=top)
    outer = trace.span(
        "ai.generateText",
        {"ai.operationId": "ai.generateText", "ai.usage.inputTokens": 100, "ai.usage.outputTokens": 10},
        parent=agent,
    )
    inner = {"ai.operationId": "ai.generateText.doGenerate", "ai.model.id": "gpt-4o-mini", "ai.usage.inputTokens": 100}
    trace.send(agent, trace.span("ai.generateText.doGenerate", inner, parent=outer), outer, top)
    assert trace.row("calls, prompt_tokens, completion_tokens") == (1, 100, None)


def test_a_color_inside_json_of_a_resource(trace):
    top = trace.span("POST /odd", {"gen_ai.span.kind": "CHAIN"}, end_ms=1_000)
    metadata = json.dumps({"gateway.route.color": "green", "release.version": "42"})
    resource = {"service.name": "odd", "metadata": metadata}
    trace.send(call(trace, top), top, resource=resource)
    assert trace.row("color") == ("green",)
