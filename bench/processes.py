"""The processes that a benchmark starts, and what they cost."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import IO, Any, NamedTuple

import psutil

from manager.fleet.registry import registry_path
from spritemesh import jsontext
from spritemesh.files import write_atomic
from spritemesh.names import LISTEN_TOKEN_VARIABLE, SERVICE_TOKEN_VARIABLE

TOKEN = "bench-token"
METADATA = (("authorization", f"Bearer {TOKEN}"),)
_READY_SECONDS = 60.0
_STOP_SECONDS = 20.0
_ENV = {
    **os.environ,
    "GRPC_ENABLE_FORK_SUPPORT": "0",
    "GRPC_VERBOSITY": "ERROR",
    SERVICE_TOKEN_VARIABLE: TOKEN,
    LISTEN_TOKEN_VARIABLE: TOKEN,
}
PYTHON = sys.executable


class Server(NamedTuple):
    """A running server. target: as gRPC takes it."""

    pid: int
    target: str

    def cpu_seconds(self) -> float:
        """Processor time that the process has used, user and system."""
        times = psutil.Process(self.pid).cpu_times()
        return times.user + times.system


class Manager(NamedTuple):
    """A running `ops-manager run`. repo: where its files are. registry: path of the fleet's registry."""

    server: Server
    repo: str
    registry: str

    def ops(self, loop_id: str) -> str:
        """Directory of its files of one loop."""
        return os.path.join(self.repo, ".superloop", "ops-manager", loop_id)

    def reload(self, targets: Mapping[str, str]) -> None:
        """Watch these loops from now on, and no others. targets: loop id -> address of its agent."""
        write_registry(self.registry, targets)
        os.kill(self.server.pid, signal.SIGHUP)


class Usage(NamedTuple):
    """What one whole process took, seconds. cpu: user and system."""

    wall: float
    cpu: float


def script(name: str) -> str:
    """Path of an installed console script."""
    return os.path.join(os.path.dirname(PYTHON), name)


@contextmanager
def agent(repo: str, *flags: str) -> Iterator[Server]:
    """A real `sprite-agent serve` on a free port."""
    words = ["serve", "--repo", repo, "--grpc", "127.0.0.1:0", "--token", TOKEN, *flags]
    with server([script("sprite-agent"), *words]) as found:
        yield found


@contextmanager
def server(argv: Sequence[str]) -> Iterator[Server]:
    """A server that tells its address in the first line of standard output, as the agent does."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=_ENV) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{argv[:4]} did not start:\n{_error_text(process)}")
            yield Server(process.pid, json.loads(line)["grpc"])
        finally:
            _end(process)


@contextmanager
def manager(repo: str, targets: Mapping[str, str]) -> Iterator[Manager]:
    """A real `ops-manager run` on a free port, once it takes calls.

    repo: directory for its files, made if missing. targets: loop id -> address of its agent.
    """
    registry = registry_path(repo)
    fleet = os.path.dirname(registry)
    os.makedirs(fleet, exist_ok=True)
    write_registry(registry, targets)
    told = os.path.join(fleet, "manager.json")
    argv = [script("ops-manager"), "run", "--repo", repo, "--registry", registry, "--listen", "127.0.0.1:0"]
    # A file: nobody reads a pipe meanwhile, and a full one would hold the manager.
    log = os.path.join(repo, "manager.log")
    with (
        open(log, "wb") as errors,
        subprocess.Popen(argv, stdout=subprocess.DEVNULL, stderr=errors, env=_ENV) as process,
    ):
        try:
            until = time.monotonic() + _READY_SECONDS
            while not os.path.exists(told):
                if process.poll() is not None:
                    with open(log, encoding="utf-8", errors="replace") as text:
                        raise RuntimeError(f"{argv[:2]} did not start:\n{text.read()}")
                if time.monotonic() > until:
                    raise RuntimeError(f"{argv[:2]} does not say where it listens")
                time.sleep(0.01)
            with open(told, "rb") as file:
                found: dict[str, Any] = json.load(file)
            yield Manager(Server(process.pid, found["listen"]), repo, registry)
        finally:
            _end(process)


def _end(process: "subprocess.Popen[bytes]") -> None:
    process.terminate()
    try:
        process.wait(_STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()


def write_registry(path: str, targets: Mapping[str, str]) -> None:
    """A fleet's registry. targets: loop id -> address of its agent; none: a loop that is disabled."""
    loops: list[jsontext.JSON] = [
        {
            "loopId": loop_id,
            "transport": "sprite_service",
            "service": {"baseUrl": f"grpc://{target}", "tokenEnv": SERVICE_TOKEN_VARIABLE},
        }
        for loop_id, target in targets.items()
    ]
    # A registry may not be empty.
    loops = loops or [{"loopId": "nobody", "transport": "local", "enabled": False}]
    write_atomic(path, jsontext.encode({"schemaVersion": "v1", "fleetId": "bench", "loops": loops}))


def raise_descriptor_limit() -> None:
    """As many open files as this process and its children may have: each connection is one."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


class Helper:
    """A client in its own process, which answers with lines of JSON."""

    def __init__(self, *arguments: str) -> None:
        argv = [PYTHON, "-m", *arguments]
        self._process = subprocess.Popen(argv, stdout=subprocess.PIPE, env=_ENV)
        assert self._process.stdout is not None
        self._out: IO[bytes] = self._process.stdout

    def answer(self) -> dict[str, Any]:
        """Its next line. Raises RuntimeError when it ended without one."""
        line = self._out.readline()
        if not line:
            raise RuntimeError(f"a client process ended with {self._process.wait()}")
        found: dict[str, Any] = json.loads(line)
        return found

    def __enter__(self) -> "Helper":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self._process.terminate()
        self._process.wait(_STOP_SECONDS)
        self._out.close()


def run_whole(argv: Sequence[str], out: str = os.devnull) -> Usage:
    """Run a program to its end, from before its start until it is gone. Raises RuntimeError when it fails.

    out: file that takes its standard output.
    """
    actions = [(os.POSIX_SPAWN_OPEN, 1, out, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)]
    before = time.perf_counter()
    pid = os.posix_spawn(argv[0], list(argv), _ENV, file_actions=actions)
    _, status, usage = os.wait4(pid, 0)
    wall = time.perf_counter() - before
    if status:
        raise RuntimeError(f"{' '.join(argv)} ended with {os.waitstatus_to_exitcode(status)}")
    return Usage(wall, usage.ru_utime + usage.ru_stime)


def _error_text(process: "subprocess.Popen[bytes]") -> str:
    assert process.stderr is not None
    return process.stderr.read().decode("utf-8", "replace")
