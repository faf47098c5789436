"""What must not be lost, not be counted twice, and not be silent."""

import subprocess
import threading
import time
import urllib.error
import urllib.request

from conftest import BINARY
from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from program import COMPLETION, PROMPT, RESOURCE, call_attributes, expected_cost, export_trace, root_attributes

TRACES = 200
KILL_AFTER = 60
CLOSED_S_MAX = 90


def post(server, body):
    """The status of one OTLP/HTTP request; 0 if there was no answer."""
    request = urllib.request.Request(
        f"http://127.0.0.1:{server.http}/v1/traces", body, {"content-type": "application/x-protobuf"}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def requests(count):
    """Two requests a trace, as bytes: its call, then its root."""
    kept = InMemorySpanExporter()
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(SimpleSpanProcessor(kept))
    tracer = provider.get_tracer("shop.agent")
    for n in range(count):
        color, version = [("blue", "41"), ("green", "42")][n % 2]
        with tracer.start_as_current_span("POST /chat", attributes=root_attributes(color, version)):
            with tracer.start_as_current_span("chat", attributes=call_attributes(f"resp-{n}")):
                pass
    return [encode_spans([span]).SerializeToString() for span in kept.get_finished_spans()]


def test_kill_in_mid_stream_loses_nothing_acked_and_resending_counts_nothing_twice(server):
    bodies = requests(TRACES)
    acked = []
    killed = threading.Event()

    def kill_in_mid_stream():
        while len(acked) < KILL_AFTER:
            time.sleep(0.001)
        server.kill()
        killed.set()

    killer = threading.Thread(target=kill_in_mid_stream)
    killer.start()
    for n, body in enumerate(bodies):
        if post(server, body) == 200:
            acked.append(n)
        elif killed.is_set():
            break
    killer.join()
    assert KILL_AFTER <= len(acked) < len(bodies), "the kill must come in mid-stream"

    server.start()
    (kept,) = server.sql("SELECT count(*) AS n, count(DISTINCT span_id) AS ids FROM spans")
    assert kept["n"] == kept["ids"], "a span twice"
    assert len(acked) <= kept["n"] <= len(acked) + 1, "acked spans lost, or more than the one in flight kept"

    # Everything again, as a client does that saw no answer, and once more.
    for body in bodies + bodies:
        assert post(server, body) == 200
    by_color = "SELECT color, count(*) AS traces, sum(calls) AS calls, sum(prompt_tokens) AS prompt, \
        sum(completion_tokens) AS completion, sum(cost_usd) AS cost FROM traces GROUP BY color ORDER BY color"
    rows, _ = server.await_sql(by_color, lambda rows: sum(row["traces"] for row in rows) >= TRACES, CLOSED_S_MAX)
    half = TRACES // 2
    sums = {"traces": half, "calls": half, "prompt": half * PROMPT, "completion": half * COMPLETION}
    assert rows == [{"color": color, **sums, "cost": half * expected_cost()} for color in ("blue", "green")]
    (spans,) = server.sql("SELECT count(*) AS n, count(DISTINCT span_id) AS ids FROM spans")
    assert spans == {"n": 2 * TRACES, "ids": 2 * TRACES}


def test_a_trace_open_across_a_kill_is_closed_as_one(server):
    call, root = requests(1)
    assert post(server, call) == 200
    server.kill()
    server.start()
    assert post(server, root) == 200
    sql = "SELECT color, version, calls, cost_usd FROM traces"
    rows, _ = server.await_sql(sql, lambda rows: len(rows) == 1, CLOSED_S_MAX)
    assert rows == [{"color": "blue", "version": "41", "calls": 1, "cost_usd": expected_cost()}]
    colors = server.sql("SELECT DISTINCT color FROM spans")
    assert colors == [{"color": "blue"}], "the call came before the kill, its color after it"


def test_ctrl_c_seals_by_color_and_the_files_answer_without_a_server(server):
    export_trace(server, "grpc")
    assert server.stop() == 0, server.tail()
    sealed = [path.relative_to(server.data).parts for path in server.data.glob("spans/**/*.parquet")]
    assert sealed, server.tail()
    for parts in sealed:
        assert parts[1] == "color=green" and parts[2].startswith("date=") and parts[3].startswith("hour="), parts
    rows = server.sql("SELECT color, count(*) AS n FROM spans GROUP BY color", "--data-dir", str(server.data))
    assert rows == [{"color": "green", "n": 3}]


def test_a_bad_message_is_400_and_harms_nothing(server):
    assert post(server, b"\xff\xff\xff not protobuf") == 400
    export_trace(server, "http")
    rows, _ = server.await_sql("SELECT count(*) AS n FROM spans", lambda rows: rows[0]["n"] == 3, 5)


def test_a_taken_port_is_named_with_the_way_to_change_it(server, tmp_path):
    command = [part if part != server.data else tmp_path / "other" for part in server.command()]
    second = subprocess.run(command, capture_output=True, text=True, timeout=30, cwd=tmp_path)
    assert second.returncode != 0
    assert str(server.grpc) in second.stderr and "--otlp-grpc" in second.stderr, second.stderr


def test_bad_sql_is_one_clear_error(server):
    asked = subprocess.run(
        [BINARY, "sql", "--server", f"http://127.0.0.1:{server.api}", "SELECT colour FROM spans"],
        capture_output=True, text=True, timeout=30,
    )  # fmt: skip
    assert asked.returncode != 0
    assert "colour" in asked.stderr and "panicked" not in asked.stderr, asked.stderr


def test_a_root_that_comes_after_its_child_was_sealed_still_decides_for_it(stopped):
    (stopped.folder / "tracegate.toml").write_text('[server]\nseal_age = "1s"\n')
    server = stopped.start()
    call, root = requests(1)
    assert post(server, call) == 200
    deadline = time.monotonic() + CLOSED_S_MAX
    while not list(server.data.glob("spans/**/*.parquet")):
        assert time.monotonic() < deadline, "nothing was sealed"
        time.sleep(0.1)
    assert post(server, root) == 200
    where = "SELECT role, color, version, route FROM spans ORDER BY start_time"
    rows, _ = server.await_sql(where, lambda rows: len(rows) == 2 and rows[1]["color"] == "blue", 1.0)
    for key in ("color", "version", "route"):
        assert rows[0][key] == rows[1][key], f"the child keeps another {key}: {rows}"
    server.kill()
    assert server.start().sql(where) == rows, "a restart changes nothing"
