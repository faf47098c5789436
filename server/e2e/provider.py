"""A loopback model provider in the dialect of OpenAI. What it wrote down about its answers is the truth of the tests.

The first word of the first user message, up to a colon, says what is to happen:

    agent:   a tool call; once the tool has answered, a final answer
    stream:  chunks, with usage at the end if `stream_options.include_usage` asks for it
    retry:   429 first, then an answer
    error:   500
    anything else: an answer

Token counts are random, so that no two answers of a run have the same ones.
"""

import json
import random
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# A dated model answers for the undated one, as at the real thing.
SERVED_BY = {
    "gpt-4o-mini": "gpt-4o-mini-2024-07-18",
    "text-embedding-3-small": "text-embedding-3-small",
}
CREATED = 1_795_000_000


class Served(dict):
    """One answer: scenario, status, model, response_model, id, prompt, completion, cached, reasoning.

    The counts are those that were sent: None where no usage was.
    """

    __getattr__ = dict.__getitem__


class Provider:
    """Serves on a free port until closed; `log` lists what it answered, oldest first."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.lock = threading.Lock()
        self.log = []
        self.refused = set()
        provider = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["content-length"])))
                with provider.lock:
                    status, headers, answer = provider.answer(self.path, body)
                self.send_response(status)
                for name, value in headers.items():
                    self.send_header(name, value)
                self.send_header("content-length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/v1"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def close(self):
        self.server.shutdown()
        self.server.server_close()

    def served(self, scenario):
        with self.lock:
            return [served for served in self.log if served.scenario == scenario]

    def answer(self, path, body):
        if path.endswith("/embeddings"):
            return self.embeddings(body)
        messages = body["messages"]
        scenario = scenario_of(messages)
        if scenario == "error":
            return self.fail(scenario, body, 500, "the model fell over", {})
        if scenario == "retry" and scenario not in self.refused:
            self.refused.add(scenario)
            return self.fail(scenario, body, 429, "slow down", {"retry-after-ms": "1", "retry-after": "0"})
        wants_tool = scenario == "agent" and not any(message["role"] == "tool" for message in messages)
        if body.get("stream"):
            return self.stream(scenario, body)
        usage = self.usage()
        served = self.write(scenario, body, 200, usage)
        if wants_tool:
            function = {"name": body["tools"][0]["function"]["name"], "arguments": json.dumps({"city": "Oslo"})}
            call = {"id": f"call_{len(self.log)}", "type": "function", "function": function}
            message, finish = {"role": "assistant", "content": None, "tool_calls": [call]}, "tool_calls"
        else:
            message, finish = {"role": "assistant", "content": self.text(body)}, "stop"
        return ok(
            {
                "id": served.id,
                "object": "chat.completion",
                "created": CREATED,
                "model": served.response_model,
                "choices": [{"index": 0, "message": message, "finish_reason": finish, "logprobs": None}],
                "usage": usage,
            }
        )

    def stream(self, scenario, body):
        wants_usage = (body.get("stream_options") or {}).get("include_usage", False)
        usage = self.usage()
        served = self.write(scenario, body, 200, usage if wants_usage else None)
        chunk = {"id": served.id, "object": "chat.completion.chunk", "created": CREATED, "model": served.response_model}
        deltas = [({"role": "assistant", "content": ""}, None), ({"content": "It "}, None), ({"content": "rains."}, None)]
        deltas.append(({}, "stop"))
        events = [
            {**chunk, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]} for delta, finish in deltas
        ]
        if wants_usage:
            events = [{**event, "usage": None} for event in events] + [{**chunk, "choices": [], "usage": usage}]
        lines = [f"data: {json.dumps(event)}\n\n" for event in events] + ["data: [DONE]\n\n"]
        return 200, {"content-type": "text/event-stream"}, "".join(lines).encode()

    def embeddings(self, body):
        prompt = self.random.randrange(5, 500)
        served = self.write("embed", body, 200, {"prompt_tokens": prompt})
        vector = {"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}
        usage = {"prompt_tokens": prompt, "total_tokens": prompt}
        return ok({"object": "list", "data": [vector], "model": served.response_model, "usage": usage})

    def text(self, body):
        """JSON where a format or a tool asks for it, else a sentence."""
        return json.dumps({"city": "Oslo", "rain": True}) if body.get("response_format") else "It rains in Oslo."

    def usage(self):
        prompt, completion = self.random.randrange(1_000, 9_000), self.random.randrange(50, 900)
        return {
            "prompt_tokens": prompt,
            "completion_tokens": completion,
            "total_tokens": prompt + completion,
            "prompt_tokens_details": {"cached_tokens": self.random.randrange(1, prompt), "audio_tokens": 0},
            "completion_tokens_details": {
                "reasoning_tokens": self.random.randrange(1, completion),
                "audio_tokens": 0,
                "accepted_prediction_tokens": 0,
                "rejected_prediction_tokens": 0,
            },
        }

    def fail(self, scenario, body, status, message, headers):
        self.write(scenario, body, status, None)
        error = {"message": message, "type": "server_error", "param": None, "code": None}
        return status, {"content-type": "application/json", **headers}, json.dumps({"error": error}).encode()

    def write(self, scenario, body, status, usage):
        usage = usage or {}
        served = Served(
            scenario=scenario,
            status=status,
            model=body["model"],
            response_model=SERVED_BY[body["model"]] if status == 200 else None,
            id=f"chatcmpl-{self.random.getrandbits(64):016x}",
            prompt=usage.get("prompt_tokens"),
            completion=usage.get("completion_tokens"),
            cached=usage.get("prompt_tokens_details", {}).get("cached_tokens"),
            reasoning=usage.get("completion_tokens_details", {}).get("reasoning_tokens"),
        )
        self.log.append(served)
        return served


def ok(answer):
    return 200, {"content-type": "application/json"}, json.dumps(answer).encode()


def scenario_of(messages):
    for message in messages:
        if message["role"] == "user":
            content = message["content"]
            text = content if isinstance(content, str) else "".join(part.get("text", "") for part in content)
            return text.split(":", 1)[0].strip()
    return ""
