"""The demonstration: loops, agents and a manager are started, shown, and ended."""

import asyncio
import json
import os
import secrets
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from manager.demo.children import Child, Children
from manager.demo.ending import Ending, Stopped
from manager.demo.hints import approve_hints, recent_hint, watch_hint
from manager.demo.loops import Loop
from manager.demo.screen import Screen
from manager.fleet.registry import registry_path
from manager.transport.base import Endpoint
from sprite_agent.demo.script import Scenario
from sprite_agent.runtime.layout import loop_paths
from spritemesh import files, jsontext
from spritemesh.names import SERVICE_TOKEN_VARIABLE, TRACING_FILE_VARIABLE, TRACING_VARIABLE
from spritemesh.traceparent import TRACEPARENT_VARIABLE
from spritemesh.values import get
from superloop.ops.v1 import manager_pb2 as pb

if TYPE_CHECKING:
    from manager.fleet.document import Fleet

# How long the fleet may take until it is worth looking at.
_SETTLE_SECONDS = 15.0
_LOOK_SECONDS = 0.1
# Variables by which real managers and runtimes are set up.
_NOT_OURS = ("OPS_", "DOPEJAR_", TRACEPARENT_VARIABLE)
# Of a runtime's own repository, which is only read.
_SPRITE_ID = "demonstration"


def demonstrate(loops: Sequence[Loop], duration: float | None) -> int:
    """Show these loops, the first of which is to be healthy, and print its status document at the end.

    duration: seconds; None: until a signal comes, without a status. Returns the exit code. Raises OpsError
    `internal_error` when a program does not start, or ends.
    """
    ending = Ending()
    status: Any = None
    try:
        work = tempfile.mkdtemp(prefix="spritemesh-run-")
        with closing(_Demonstration(loops, work, ending)) as demonstration:
            status = demonstration.watch(duration)
    except Stopped:
        print("stopped", flush=True)
        return 0
    print(json.dumps(status, separators=(",", ":"), ensure_ascii=False), flush=True)
    return 0 if _is_healthy(status) else 1


def _make_token(work: str, name: str) -> tuple[str, str]:
    """A file with a new token, and the token. work: a directory for this user alone."""
    path, token = os.path.join(work, name), secrets.token_urlsafe(32)
    files.write_atomic(path, token.encode() + b"\n")
    return path, token


class _Demonstration:
    """work: a directory of its own, which is gone once this is closed."""

    def __init__(self, loops: Sequence[Loop], work: str, ending: Ending) -> None:
        self._ending = ending
        self._loops = loops
        self._work = work
        self._repo = os.path.join(work, "manager")
        # One for the agents, and another for the manager.
        self._token_file, token = _make_token(work, "agents.token")
        self._manager_token_file, self._manager_token = _make_token(work, "manager.token")
        self._urls: dict[str, str] = {}
        # What is set for real managers must not tell real people of a demonstration.
        names = [name for name in os.environ if not name.startswith(_NOT_OURS)]
        environment = {name: os.environ[name] for name in names} | {SERVICE_TOKEN_VARIABLE: token}
        heartbeat = loops[0].heartbeat if loops[0].repo else ""
        self._children = Children(work, "" if os.path.exists(heartbeat) else heartbeat, environment, ending)

    def close(self) -> None:
        """End everything; no signal disturbs that."""
        self._ending.ignore()
        self._children.close()

    def watch(self, duration: float | None) -> Any:
        """Start everything, and show it until the time is up; the status document of the first loop."""
        deadline = None if duration is None else time.monotonic() + duration
        endpoint = self._start()
        self._settle(endpoint)
        print("\n".join(self._hints()), end="\n\n", flush=True)
        screen = Screen()
        with screen.open():
            while True:
                self._children.check()
                screen.show(self._look(endpoint))
                left = screen.interval if deadline is None else deadline - time.monotonic()
                if left <= 0:
                    break
                time.sleep(min(screen.interval, left))
        words = ("status", "--repo", self._repo, "--loop", self._loops[0].loop_id, "--output", "json")
        return self._children.run("manager", *words)

    def _start(self) -> Endpoint:
        """All programs, those that need not wait for each other side by side; where the manager answers."""
        os.makedirs(self._repo)
        agents = [(loop, self._start_agent(loop, self._start_loop(loop))) for loop in self._loops]
        self._urls = {loop.loop_id: f"grpc://{agent.ready()['grpc']}" for loop, agent in agents}
        self._register()
        listen = ("--listen", "127.0.0.1:0", "--token-file", self._manager_token_file)
        manager = self._children.start("manager", "manager", "run", "--repo", self._repo, *listen)
        return Endpoint(manager.ready()["grpc"], self._manager_token)

    def _start_loop(self, loop: Loop) -> str:
        """Its repository; a demo loop begins to play there."""
        if loop.repo:
            return loop.repo
        repo = tempfile.mkdtemp(prefix="sprite-", dir=self._work)
        words = ("demo-loop", "--repo", repo, "--loop", loop.loop_id, *loop.words)
        traced = _traced(repo, loop)
        self._children.start(f"loop {loop.loop_id}", "sprite_agent", *words, may_end=True, variables=traced)
        return repo

    def _start_agent(self, loop: Loop, repo: str) -> Child:
        words, name = ["serve", "--repo", repo, "--grpc", "127.0.0.1:0"], f"agent of {loop.loop_id}"
        if loop.repo:
            return self._children.start(name, "sprite_agent", *words, "--sprite-id", _SPRITE_ID)
        runtime = os.path.join(os.path.dirname(sys.executable), "superloop-demo")
        words += ["--runtime-command", runtime]
        # What it runs to step in traces where it does itself.
        return self._children.start(name, "sprite_agent", *words, variables=_traced(repo, loop))

    def _register(self) -> None:
        entries = [
            {
                "loopId": loop_id,
                "transport": "sprite_service",
                "service": {"baseUrl": url, "tokenEnv": SERVICE_TOKEN_VARIABLE},
            }
            for loop_id, url in self._urls.items()
        ]
        document = {"schemaVersion": "v1", "fleetId": "demonstration", "loops": entries}
        path = registry_path(self._repo)
        files.write_atomic(path, jsontext.encode(document) + b"\n")

    # --- looking ------------------------------------------------------------------------------------

    def _look(self, endpoint: Endpoint) -> "Fleet":
        from manager.fleet.client import read_fleet

        with self._ending.held():
            return asyncio.run(read_fleet(endpoint))

    def _settle(self, endpoint: Endpoint) -> None:
        """Wait until all loops are reached, and there is something to approve."""
        deadline = time.monotonic() + _SETTLE_SECONDS
        while time.monotonic() < deadline:
            self._children.check()
            views = {view.loop_id: view for view in self._look(endpoint).views}
            if all(_is_settled(loop, views[loop.loop_id]) for loop in self._loops):
                return
            time.sleep(_LOOK_SECONDS)

    def _hints(self) -> Iterator[str]:
        names = ", ".join(f"{loop_id} at {url}" for loop_id, url in self._urls.items())
        yield f"{names}; a manager watches. While this runs, try in another terminal:"
        yield f"  {watch_hint(self._repo, self._manager_token_file)}"
        waiting = [loop for loop in self._loops if loop.scenario is Scenario.APPROVAL]
        for loop in waiting:
            url = self._urls[loop.loop_id]
            for hint in approve_hints(self._repo, loop.loop_id, url=url, token_file=self._token_file):
                yield f"  {hint}"
        if not waiting:
            yield f"  {recent_hint(self._repo)}"


def _traced(repo: str, loop: Loop) -> dict[str, str]:
    """Variables with which a demo loop traces into its own directory, which is there then."""
    directory = os.path.join(repo, loop_paths(loop.loop_id).directory)
    os.makedirs(directory, exist_ok=True)
    return {TRACING_VARIABLE: "1", TRACING_FILE_VARIABLE: os.path.join(directory, "trace.jsonl")}


def _is_settled(loop: Loop, view: pb.LoopView) -> bool:
    if view.connection.state != pb.ConnectionView.STATE_UP or not view.state:
        return False
    return loop.scenario is not Scenario.APPROVAL or view.awaits_approval


def _is_healthy(status: Any) -> bool:
    """The loop was read over gRPC, down to its last line, and is healthy."""
    return (
        get(status, "reconcile", "lastTransport") == "sprite_service"
        and get(status, "reconcile", "lastStatus") == "success"
        and bool(get(status, "cursor", "eventLineOffset"))
        and get(status, "health", "status") == "healthy"
    )
