"""A real agent: `sprite-agent serve` as a process of its own, and stubs that talk to it."""

import json
import os
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import grpc
import psutil

from superloop.ops.v1 import sprite_pb2, sprite_pb2_grpc
from tests.harness import secrets

ROOT = Path(__file__).parents[2]
TOKEN = secrets.AGENT_TOKEN
BEARER = (("authorization", f"Bearer {TOKEN}"),)
# No call of a test takes longer unless something is broken.
CALL_SECONDS = 15.0
_START_SECONDS = 20.0
_STOP_SECONDS = 15.0
_SETTINGS = ("OPS_", "SPRITEMESH_", "DOPEJAR_")  # prefixes of variables
_SETTLED_BYTES = 1 << 19  # a tenth of a second

Message = sprite_pb2.WatchEventsResponse
Wrapper = Callable[[list[str]], list[str]]
_Stub = sprite_pb2_grpc.SpriteServiceStub


def environment() -> dict[str, str]:
    """This process's environment without settings that would leak into a program under test."""
    return {name: value for name, value in os.environ.items() if not name.startswith(_SETTINGS)}


def serve_words(repo: Path, *flags: str) -> list[str]:
    """The command line of an agent."""
    return [sys.executable, "-m", "sprite_agent", "serve", "--repo", str(repo), *flags]


class Agent:
    """A running agent. address: as gRPC takes it. ready: its first line on standard output."""

    def __init__(self, process: "subprocess.Popen[bytes]", errors: Path) -> None:
        self.process = process
        self.errors = errors
        self.token = TOKEN
        assert process.stdout is not None
        self.ready = json.loads(_first_line(process.stdout, self.said))
        self.address = str(self.ready["grpc"])

    @property
    def url(self) -> str:
        """As `--service-base-url` takes it."""
        return self.address if self.address.startswith("unix:") else f"grpc://{self.address}"

    @property
    def http_url(self) -> str:
        """The bridge, as `--service-base-url` takes it; of agents started with `--http`."""
        return f"http://{self.ready['http']}"

    @property
    def rss_bytes(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def settled_rss_bytes(self) -> int:
        """As rss_bytes, once it has stopped growing."""
        seen = 0
        for _ in range(100):
            now = self.rss_bytes
            if now - seen < _SETTLED_BYTES:
                return now
            seen = now
            time.sleep(0.1)
        raise AssertionError("the agent's memory does not stop growing")

    def said(self) -> str:
        """What the agent wrote to standard error."""
        return self.errors.read_text()

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = _STOP_SECONDS) -> int:
        """The exit code."""
        return self.process.wait(seconds)

    @contextmanager
    def stub(self) -> Iterator[_Stub]:
        """A stub on a connection of its own."""
        options = (("grpc.use_local_subchannel_pool", 1),)
        with grpc.insecure_channel(self.address, options=options) as channel:
            yield sprite_pb2_grpc.SpriteServiceStub(channel)

    def end(self) -> None:
        """Leave nothing behind, whatever happened."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(_STOP_SECONDS)
        if self.process.stdout is not None:
            if not self.process.stdout.closed:
                secrets.look("standard output of an agent", self.process.stdout.read())
            self.process.stdout.close()


StartAgent = Callable[..., Agent]


def start_agent(
    repo: Path,
    errors: Path,
    *flags: str,
    grpc_at: str = "127.0.0.1:0",
    token: Sequence[str] = ("--token", TOKEN),
    under: Wrapper | None = None,
) -> Agent:
    """Start an agent and wait until it takes calls. under: makes another command line of its own."""
    words = serve_words(repo, "--grpc", grpc_at, *token, *flags)
    with errors.open("ab") as stderr:
        process = subprocess.Popen(
            words if under is None else under(words),
            stdout=subprocess.PIPE,
            stderr=stderr,
            cwd=ROOT,
            env=environment(),
        )
    try:
        return Agent(process, errors)
    except BaseException:
        process.kill()
        process.wait(_STOP_SECONDS)
        assert process.stdout is not None
        process.stdout.close()
        raise


def _first_line(stream: IO[bytes], said: Callable[[], str]) -> bytes:
    deadline = time.monotonic() + _START_SECONDS
    line = b""
    with selectors.DefaultSelector() as selector:
        selector.register(stream, selectors.EVENT_READ)
        while not line.endswith(b"\n"):
            if not selector.select(deadline - time.monotonic()):
                raise AssertionError(f"the agent is not ready; it said: {said()}")
            piece = os.read(stream.fileno(), 4096)
            if not piece:
                raise AssertionError(f"the agent ended; it said: {said()}")
            line += piece
    return line
