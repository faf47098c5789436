"""The real binary on free ports and a temporary directory, and SQL through its own command line."""

import json
import os
import pathlib
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from decimal import Decimal

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
BINARY = pathlib.Path(os.environ.get("TRACEGATE_BIN", ROOT / "target/debug/tracegate"))
START_S_MAX = 30
STOP_S_MAX = 30


def free_ports(count):
    """Ports that nobody listens on; held open together so that they differ."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Server:
    """One `tracegate serve`; it can be killed and started again on the same ports and data."""

    def __init__(self, folder):
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "server.log"
        self.grpc, self.http, self.api = free_ports(3)
        self.process = None

    def command(self):
        return [
            BINARY, "serve", "--data-dir", self.data,
            "--otlp-grpc", f"127.0.0.1:{self.grpc}",
            "--otlp-http", f"127.0.0.1:{self.http}",
            "--http", f"127.0.0.1:{self.api}",
        ]  # fmt: skip

    def start(self):
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(self.command(), stdout=log, stderr=log, cwd=self.folder)
        deadline = time.monotonic() + START_S_MAX
        while not self.ready():
            assert self.process.poll() is None, f"the server ended early:\n{self.tail()}"
            assert time.monotonic() < deadline, f"the server did not get ready:\n{self.tail()}"
            time.sleep(0.05)
        return self

    def ready(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.api}/readyz", timeout=2) as answer:
                return answer.status == 200
        except (urllib.error.URLError, OSError):
            return False

    def kill(self):
        """As a power cut would."""
        self.process.kill()
        self.process.wait()

    def stop(self, how=signal.SIGINT):
        """As Ctrl-C would; the exit code."""
        self.process.send_signal(how)
        return self.process.wait(timeout=STOP_S_MAX)

    def tail(self):
        return self.log.read_text(errors="replace")[-4000:]

    def sql(self, sql, *where):
        """Rows as dicts, by the command that people use; money stays exact."""
        where = where or ("--server", f"http://127.0.0.1:{self.api}")
        asked = subprocess.run(
            [BINARY, "sql", *where, "--format", "json", sql], capture_output=True, text=True, timeout=60, cwd=self.folder
        )
        assert asked.returncode == 0, f"{sql}\n{asked.stderr}\n{self.tail()}"
        answer = json.loads(asked.stdout, parse_float=Decimal)
        names = [column["name"] for column in answer["columns"]]
        return [dict(zip(names, row, strict=True)) for row in answer["rows"]]

    def await_sql(self, sql, enough, within_s):
        """Asks until `enough(rows)`; the rows, and how long after the call the question that saw them was put."""
        began = time.monotonic()
        while True:
            asked = time.monotonic() - began
            rows = self.sql(sql)
            if enough(rows):
                return rows, asked
            assert asked < within_s, f"not within {within_s} s: {sql}\n{rows}\n{self.tail()}"
            time.sleep(0.05)


@pytest.fixture
def stopped(tmp_path):
    """A server that has not been started."""
    server = Server(tmp_path)
    yield server
    if server.process and server.process.poll() is None:
        server.kill()


@pytest.fixture
def server(stopped):
    """A running server with no data."""
    return stopped.start()
