"""Programs as teams write them: the OpenTelemetry SDK, an exporter from PyPI, spans of a small agent."""

import tomllib
from decimal import Decimal

from conftest import ROOT
from opentelemetry import trace
from opentelemetry._logs import LogRecord
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

TRANSPORTS = ["grpc", "http", "http-gzip", "http-deflate"]
MODEL = "gpt-4o-mini"
PROMPT, COMPLETION, CACHED = 1200, 300, 200
RESOURCE = Resource.create({"service.name": "shop"})


def span_exporter(server, transport):
    if transport == "grpc":
        return GrpcSpans(endpoint=f"http://127.0.0.1:{server.grpc}", insecure=True)
    return HttpSpans(endpoint=f"http://127.0.0.1:{server.http}/v1/traces", compression=coding(transport))


def log_exporter(server, transport):
    if transport == "grpc":
        return GrpcLogs(endpoint=f"http://127.0.0.1:{server.grpc}", insecure=True)
    return HttpLogs(endpoint=f"http://127.0.0.1:{server.http}/v1/logs", compression=coding(transport))


def coding(transport):
    return {"http-gzip": Compression.Gzip, "http-deflate": Compression.Deflate}.get(transport, Compression.NoCompression)


def expected_cost():
    """What one call costs by the shipped price table, USD."""
    table = tomllib.loads((ROOT / "ingest/prices.toml").read_text())
    price = table["provider"]["openai"][MODEL]
    nano = (PROMPT - CACHED) * price["input"] + CACHED * price["cache_read"] + COMPLETION * price["output"]
    return Decimal(nano) / 1_000_000_000


def call_attributes(response_id):
    return {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": MODEL,
        "gen_ai.response.model": MODEL,
        "gen_ai.response.id": response_id,
        "gen_ai.usage.input_tokens": PROMPT,
        "gen_ai.usage.output_tokens": COMPLETION,
        "gen_ai.usage.cache_read.input_tokens": CACHED,
    }


def root_attributes(color="green", version="42"):
    return {
        "gateway.route.name": "support-chat",
        "gateway.route.color": color,
        "gateway.route.version": version,
        "release.cohort": "gold",
    }


def export_trace(server, transport):
    """One trace of three spans, one request a span, children first; only the root knows its color. Its id."""
    provider = TracerProvider(resource=RESOURCE)
    provider.add_span_processor(SimpleSpanProcessor(span_exporter(server, transport)))
    tracer = provider.get_tracer("shop.agent")
    with tracer.start_as_current_span("POST /chat", kind=trace.SpanKind.SERVER, attributes=root_attributes()) as root:
        with tracer.start_as_current_span("search", attributes={"gen_ai.operation.name": "execute_tool"}):
            pass
        with tracer.start_as_current_span(f"chat {MODEL}", kind=trace.SpanKind.CLIENT) as call:
            call.set_attributes(call_attributes("resp-1"))
    provider.shutdown()
    return format(root.get_span_context().trace_id, "032x"), root


def export_evaluation(server, transport, root):
    """The OTel event of an evaluation, linked to the trace by its context; logs carry no color."""
    provider = LoggerProvider(resource=RESOURCE)
    provider.add_log_record_processor(SimpleLogRecordProcessor(log_exporter(server, transport)))
    event = LogRecord(
        timestamp=root.end_time,
        context=trace.set_span_in_context(root),
        event_name="gen_ai.evaluation.result",
        attributes={
            "gen_ai.evaluation.name": "TaskCompletion",
            "gen_ai.evaluation.score.value": 0.25,
            "gen_ai.evaluation.score.label": "fail",
        },
    )
    provider.get_logger("shop.judge").emit(event)
    provider.shutdown()
