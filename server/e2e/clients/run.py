"""One client program: `python run.py NAME`. Instrumentations patch the same library, so each runs in its own process."""

import sys

from scenarios import MODEL, PROVIDER_URL, TOOL, openai_scenarios, request, telemetry


def openinference():
    from openinference.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=telemetry("grpc"))
    openai_scenarios()


def openllmetry():
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=telemetry("http"))
    openai_scenarios()


def opentelemetry_v2():
    from opentelemetry.instrumentation.openai_v2 import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=telemetry("http"))
    openai_scenarios()


def traceai():
    from traceai_openai import OpenAIInstrumentor

    OpenAIInstrumentor().instrument(tracer_provider=telemetry("grpc"))
    openai_scenarios()


def double():
    """Two libraries at once on the same calls, as happens when a platform brings one and a team another."""
    from openinference.instrumentation.openai import OpenAIInstrumentor as OpenInference
    from opentelemetry.instrumentation.openai import OpenAIInstrumentor as OpenLLMetry

    tracers = telemetry("grpc")
    OpenInference().instrument(tracer_provider=tracers)
    OpenLLMetry().instrument(tracer_provider=tracers)
    openai_scenarios()


def langchain():
    from langchain_core.messages import HumanMessage, ToolMessage
    from langchain_openai import ChatOpenAI
    from opentelemetry.instrumentation.langchain import LangchainInstrumentor

    LangchainInstrumentor().instrument(tracer_provider=telemetry("grpc"))

    def chat(retries):
        return ChatOpenAI(model=MODEL, base_url=PROVIDER_URL, api_key="none", max_retries=retries)

    model = chat(retries=2)
    with request("agent"):
        asked = [HumanMessage("agent: does it rain in Oslo?")]
        bound = model.bind_tools([TOOL])
        planned = bound.invoke(asked)
        answer = ToolMessage('{"rain": true}', tool_call_id=planned.tool_calls[0]["id"])
        bound.invoke([*asked, planned, answer])
    with request("stream"):
        for _ in model.stream("stream: does it rain?", stream_usage=True):
            pass
    with request("retry"):
        model.invoke("retry: does it rain?")
    with request("error"):
        chat(retries=0).invoke("error: does it rain?")


def agents():
    from agents import Agent, OpenAIChatCompletionsModel, Runner, function_tool
    from openai import AsyncOpenAI
    from openinference.instrumentation.openai_agents import OpenAIAgentsInstrumentor

    tracers = telemetry("http")
    OpenAIAgentsInstrumentor().instrument(tracer_provider=tracers)

    @function_tool
    def weather(city: str) -> str:
        """The weather in a city."""
        return '{"rain": true}'

    def agent(retries, **more):
        client = AsyncOpenAI(base_url=PROVIDER_URL, api_key="none", max_retries=retries)
        model = OpenAIChatCompletionsModel(model=MODEL, openai_client=client)
        return Agent(name="meteorologist", model=model, **more)

    with request("agent"):
        Runner.run_sync(agent(2, tools=[weather]), "agent: does it rain in Oslo?")
    with request("retry"):
        Runner.run_sync(agent(2), "retry: does it rain?")
    with request("error"):
        Runner.run_sync(agent(0), "error: does it rain?")


def instructor():
    import instructor as library
    from openai import OpenAI
    from openinference.instrumentation.instructor import InstructorInstrumentor
    from openinference.instrumentation.openai import OpenAIInstrumentor
    from pydantic import BaseModel

    class Weather(BaseModel):
        city: str
        rain: bool

    tracers = telemetry("grpc")
    OpenAIInstrumentor().instrument(tracer_provider=tracers)
    InstructorInstrumentor().instrument(tracer_provider=tracers)
    client = library.from_openai(OpenAI(base_url=PROVIDER_URL, api_key="none"), mode=library.Mode.JSON)
    with request("extract"):
        client.create(
            model=MODEL, response_model=Weather, messages=[{"role": "user", "content": "extract: rain in Oslo"}]
        )


def litellm():
    import litellm as library
    from litellm.integrations.opentelemetry import OpenTelemetry

    tracers = telemetry("grpc")
    library.callbacks = [OpenTelemetry(tracer_provider=tracers)]
    library.suppress_debug_info = True

    def ask(text, span, **more):
        messages = more.pop("messages", [{"role": "user", "content": text}])
        return library.completion(
            model=f"openai/{MODEL}",
            base_url=PROVIDER_URL,
            api_key="none",
            messages=messages,
            metadata={"litellm_parent_otel_span": span},
            **more,
        )

    with request("agent") as span:
        asked = [{"role": "user", "content": "agent: does it rain in Oslo?"}]
        planned = ask("", span, messages=asked, tools=[TOOL]).choices[0].message
        answer = {"role": "tool", "tool_call_id": planned.tool_calls[0].id, "content": '{"rain": true}'}
        ask("", span, messages=[*asked, planned.model_dump(exclude_none=True), answer], tools=[TOOL])
    with request("stream") as span:
        for _ in ask("stream: does it rain?", span, stream=True, stream_options={"include_usage": True}):
            pass
    with request("retry") as span:
        ask("retry: does it rain?", span, max_retries=2)
    with request("error") as span:
        ask("error: does it rain?", span, max_retries=0)


if __name__ == "__main__":
    globals()[sys.argv[1]]()
