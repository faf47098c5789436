"""What every client program does: the same small requests, each under a root span that alone knows the color.

A program gets by its environment where the model and tracegate are, and exports span by span, children first.
"""

import contextlib
import os

from opentelemetry import _logs, trace
from opentelemetry.exporter.otlp.proto.grpc._log_exporter import OTLPLogExporter as GrpcLogs
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter as GrpcSpans
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as HttpLogs
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter as HttpSpans
from opentelemetry.sdk._logs import LoggerProvider
from opentelemetry.sdk._logs.export import SimpleLogRecordProcessor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor

MODEL = "gpt-4o-mini"
EMBEDDER = "text-embedding-3-small"
PROVIDER_URL = os.environ["PROVIDER_URL"]
CLIENT = os.environ["CLIENT"]
COLOR, VERSION = os.environ["COLOR"], os.environ["VERSION"]
GRPC, HTTP = os.environ["OTLP_GRPC"], os.environ["OTLP_HTTP"]
TOOL = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}


def telemetry(transport="grpc"):
    """A tracer provider, also the global one, and the global logger provider."""
    resource = Resource.create({"service.name": CLIENT})
    if transport == "grpc":
        spans, logs = GrpcSpans(endpoint=GRPC, insecure=True), GrpcLogs(endpoint=GRPC, insecure=True)
    else:
        spans = HttpSpans(endpoint=f"{HTTP}/v1/traces", compression=Compression.Gzip)
        logs = HttpLogs(endpoint=f"{HTTP}/v1/logs", compression=Compression.Gzip)
    tracers = TracerProvider(resource=resource)
    tracers.add_span_processor(SimpleSpanProcessor(spans))
    trace.set_tracer_provider(tracers)
    loggers = LoggerProvider(resource=resource)
    loggers.add_log_record_processor(SimpleLogRecordProcessor(logs))
    _logs.set_logger_provider(loggers)
    return tracers


@contextlib.contextmanager
def request(scenario):
    """The request's span; what fails inside it has failed for the user."""
    attributes = {
        "gateway.route.name": CLIENT,
        "gateway.route.color": COLOR,
        "gateway.route.version": VERSION,
        "session.id": scenario,
    }
    tracer = trace.get_tracer("e2e.gateway")
    with contextlib.suppress(Exception):
        with tracer.start_as_current_span(scenario, kind=trace.SpanKind.SERVER, attributes=attributes) as span:
            yield span


def openai_scenarios():
    """By the SDK of OpenAI itself; whoever instruments it sees all of this."""
    from openai import OpenAI

    client = OpenAI(base_url=PROVIDER_URL, api_key="none", max_retries=2)

    def ask(text, **more):
        messages = more.pop("messages", [{"role": "user", "content": text}])
        return client.chat.completions.create(model=MODEL, messages=messages, **more)

    with request("agent"):
        asked = [{"role": "user", "content": "agent: does it rain in Oslo?"}]
        planned = ask("", messages=asked, tools=[TOOL]).choices[0].message
        call = planned.tool_calls[0]
        with trace.get_tracer("e2e.agent").start_as_current_span(
            "execute_tool weather", attributes={"gen_ai.operation.name": "execute_tool", "gen_ai.tool.name": "weather"}
        ):
            answer = {"role": "tool", "tool_call_id": call.id, "content": '{"rain": true}'}
        ask("", messages=[*asked, planned.model_dump(exclude_none=True), answer], tools=[TOOL])
    with request("stream"):
        for _ in ask("stream: does it rain?", stream=True, stream_options={"include_usage": True}):
            pass
    with request("silent"):
        for _ in ask("silent: does it rain?", stream=True):
            pass
    with request("retry"):
        ask("retry: does it rain?")
    with request("error"):
        client.with_options(max_retries=0).chat.completions.create(
            model=MODEL, messages=[{"role": "user", "content": "error: does it rain?"}]
        )
    with request("embed"):
        client.embeddings.create(model=EMBEDDER, input="rain")
