"""A real manager: `ops-manager run` as a process of its own, on a registry and files of its own.

The manager's repository is not the sprites': what a test compares is then the manager's alone.
"""

import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, NamedTuple

import grpc
import psutil

from manager.store import loop_files
from spritemesh.times import format_utc
from superloop.ops.v1 import manager_pb2 as pb
from superloop.ops.v1 import manager_pb2_grpc
from tests.harness import secrets
from tests.harness.agents import CALL_SECONDS, ROOT, TOKEN, Wrapper, environment
from tests.harness.loops import LoopFiles, Repo, event
from tests.harness.manager import Ran, command, run
from tests.harness.waiting import wait_for

UP, DOWN = pb.ConnectionView.STATE_UP, pb.ConnectionView.STATE_DOWN
ALIVE, SILENT = pb.AgentView.STATE_ALIVE, pb.AgentView.STATE_SILENT
# The variable that holds the sprites' token in the manager's environment.
TOKEN_VARIABLE = "TOKEN_OF_SPRITES"
_SECONDS = 20.0
_INTERVAL_NANOS = 5_000_000
# What two managers that saw the same log cannot have in common: when and under which trace id they looked,
# and what telemetry of their own passes sums up.
_OWN = frozenset(
    {
        "traceId",
        "reconcileTraceId",
        "previousState",
        "generatedAt",
        "updatedAt",
        "emittedAt",
        "sequenceUpdatedAt",
        "lastHeartbeatAt",
        "ingestLagSeconds",
        "heartbeatLagSeconds",
        "tuning",
        "drift",
    }
)

_DISORDER = frozenset({"ordering_drift_detected", "divergence_detected"})

Document = dict[str, Any]
MakeFleet = Callable[[], "Fleet"]
Condition = Callable[[pb.LoopView], object]


class Place(NamedTuple):
    """How far cursor.json says that a loop is read. offset: the last event; line: the last line."""

    offset: int
    line: int


def entry(loop_id: str, url: str | None = None, **members: Any) -> Document:
    """A loop for a registry. url: of its agent; None: the loop is local. Reconnects come quickly."""
    if url is None:
        return {"loopId": loop_id, "transport": "local", **members}
    service = {"baseUrl": url, "tokenEnv": TOKEN_VARIABLE, "retryBackoffSeconds": 0.1}
    return {"loopId": loop_id, "transport": "sprite_service", "service": service, **members}


def running_loop(repo: Repo, loop_id: str = "alpha", data: bytes = b"") -> LoopFiles:
    """A loop that runs, in this process, as its files tell."""
    repo.running(os.getpid(), loop_id)
    repo.put("state.json", {"active": True, "current_loop_id": loop_id})
    return repo.loop(loop_id, data)


def recent(first: int, last: int, **members: Any) -> bytes:
    """The event lines of these numbers, as of now: a log that is no news makes a loop unwell."""
    now = format_utc(time.time())
    return b"".join(event(number, timestamp=now, **members) for number in range(first, last + 1))


class Manager:
    """A running manager. errors: where it writes its standard error, after those before it."""

    def __init__(self, words: Sequence[str], errors: Path, under: Wrapper | None = None) -> None:
        self._errors = errors
        words = command(*words)
        with errors.open("ab") as stderr:
            self.process = subprocess.Popen(
                words if under is None else under(words),
                stdout=subprocess.PIPE,
                stderr=stderr,
                cwd=ROOT,
                env=environment() | {TOKEN_VARIABLE: TOKEN},
            )
        self._out: list[bytes] = []
        self._reader = threading.Thread(target=self._gather, args=(self.process.stdout,), daemon=True)
        self._reader.start()

    @property
    def ready(self) -> Document:
        """What it says once it takes calls. Waits for it."""
        lines = wait_for(
            lambda: self._out or self.process.poll() is not None,
            seconds=_SECONDS,
            what=f"a manager that is ready; it said: {self.said()}",
        )
        assert isinstance(lines, list), f"the manager ended; it said: {self.said()}"
        found: Document = json.loads(lines[0])
        return found

    @property
    def is_running(self) -> bool:
        return self.process.poll() is None

    @property
    def rss_bytes(self) -> int:
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def said(self) -> str:
        """What it, and those before it on the same repository, wrote to standard error."""
        return self._errors.read_text()

    def signal(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)

    def wait(self, seconds: float = _SECONDS) -> int:
        """The exit code."""
        return self.process.wait(seconds)

    def stop(self) -> int:
        """End it in order; the exit code."""
        self.signal(signal.SIGTERM)
        code = self.wait()
        self.end()
        return code

    def kill(self) -> None:
        """End it as a power cut would."""
        self.end()

    def end(self) -> None:
        """Leave nothing behind, whatever happened."""
        if self.is_running:
            self.process.kill()
        self.process.wait(_SECONDS)
        self._reader.join(_SECONDS)
        secrets.look("standard output of a manager", b"".join(self._out))
        assert self.process.stdout is not None
        self.process.stdout.close()

    @contextmanager
    def _views(self, loop_ids: Sequence[str], seconds: float) -> Iterator[Iterator[pb.WatchFleetResponse]]:
        request = pb.WatchFleetRequest(loop_ids=loop_ids)
        request.interval.FromNanoseconds(_INTERVAL_NANOS)
        options = (("grpc.use_local_subchannel_pool", 1),)
        with grpc.insecure_channel(self.ready["grpc"], options=options) as channel:
            yield manager_pb2_grpc.ManagerServiceStub(channel).WatchFleet(request, timeout=seconds)

    def views(self) -> dict[str, pb.LoopView]:
        """The fleet as it is now."""
        found: dict[str, pb.LoopView] = {}
        with self._views((), CALL_SECONDS) as messages:
            for message in messages:
                found.update((view.loop_id, view) for view in message.loops)
                if message.complete:
                    break
        return found

    def view(self, loop_id: str) -> pb.LoopView:
        """One loop as it is now."""
        return self.views()[loop_id]

    def wait_for(self, loop_id: str, condition: Condition, *, seconds: float = _SECONDS) -> pb.LoopView:
        """The first view of a loop that fulfils a condition; fails the test when none comes in time."""
        last: pb.LoopView | None = None
        try:
            with self._views([loop_id], seconds) as messages:
                for message in messages:
                    for last in message.loops:
                        if condition(last):
                            return last
        except grpc.RpcError as error:
            details = f"{error}\nlast view: {last}\nit said: {self.said()}"
            raise AssertionError(f"no such view of {loop_id} within {seconds:g} s: {details}") from error
        raise AssertionError(f"the stream of views of {loop_id} ended")

    def wait_for_line(self, loop_id: str, line: int) -> pb.LoopView:
        """The first view of a loop of which so many lines are applied."""
        return self.wait_for(loop_id, lambda view: view.applied_line >= line)

    def _gather(self, stream: IO[bytes]) -> None:
        for line in stream:
            self._out.append(line)


class Fleet:
    """A manager's repository: its registry, its files, and the managers that run on it, one after another."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.directory = root / ".superloop" / "ops-manager" / "fleet"
        self.registry = self.directory / "registry.v1.json"
        self.directory.mkdir(parents=True)
        self._started: list[Manager] = []

    def register(self, *loops: Document, **members: Any) -> None:
        """Write the registry, in one step."""
        fresh = self.registry.with_suffix(".new")
        fresh.write_text(json.dumps({"schemaVersion": "v1", "loops": loops} | members))
        fresh.replace(self.registry)

    def start(self, *flags: str, under: Wrapper | None = None) -> Manager:
        """A manager on this repository, which need not be ready yet. under: makes another command
        line of its own."""
        words = ("run", "--repo", str(self.root), "--listen", "127.0.0.1:0", "--allow-unauthenticated")
        manager = Manager((*words, *flags), self.root / "manager.txt", under)
        self._started.append(manager)
        return manager

    def close(self) -> None:
        """Leave nothing behind."""
        for manager in self._started:
            manager.end()

    def path(self, loop_id: str, name: str) -> Path:
        """A file of a loop. name: a field of LoopFiles."""
        return Path(getattr(loop_files(str(self.root), loop_id), name))

    def document(self, loop_id: str, name: str) -> Document:
        """A document of a loop; empty when there is none yet."""
        path = self.path(loop_id, name)
        return json.loads(path.read_bytes()) if path.exists() else {}

    def rows(self, loop_id: str, name: str) -> list[Document]:
        """The rows of a JSONL file of a loop, each of which must be whole."""
        path = self.path(loop_id, name)
        return [json.loads(line) for line in path.read_bytes().splitlines()] if path.exists() else []

    def place(self, loop_id: str) -> Place:
        """How far a loop is read, durably."""
        cursor = self.document(loop_id, "cursor")
        position = cursor.get("position", {})
        return Place(cursor.get("eventLineOffset", 0), position.get("line", 0))

    def wait_until_read(self, loop_id: str, lines: int, *, seconds: float = _SECONDS) -> None:
        """Until so many lines are read and the state is that after them, both durably."""
        manager = self._started[-1]

        def is_read() -> bool:
            assert manager.is_running, manager.said()
            state = self.document(loop_id, "state")
            read = state.get("cursor", {}).get("eventLineOffset") == lines
            return read and self.place(loop_id).line == lines

        try:
            wait_for(is_read, seconds=seconds)
        except AssertionError as error:
            told = (
                f"{self.document(loop_id, 'cursor')}, {self.document(loop_id, 'session')}, {manager.said()}"
            )
            raise AssertionError(f"{lines} lines are not read in {seconds:g} s: {told}") from error

    def records(self, loop_id: str) -> list[str]:
        """Reason codes of what a loop's sessions recorded, in order."""
        return [row["reasonCode"] for row in self.rows(loop_id, "session_telemetry")]

    def ordering_faults(self, loop_id: str) -> list[Document]:
        """Everything that was ever said of disorder: judgements of the sequence, and escalations."""
        judged = [row for row in self.rows(loop_id, "sequence_telemetry") if row["status"] != "ok"]
        return judged + [row for row in self.rows(loop_id, "escalations") if row["category"] in _DISORDER]

    def pass_words(self, loop_id: str, url: str, *flags: str) -> list[str]:
        """The words of `ops-manager reconcile` for the loop at its agent."""
        service = ("--transport", "sprite_service", "--service-base-url", url, "--service-token", TOKEN)
        return ["reconcile", "--repo", str(self.root), "--loop", loop_id, *service, *flags]

    def reconcile(self, loop_id: str, url: str, *flags: str) -> Ran:
        """One such pass, in this process."""
        return run(*self.pass_words(loop_id, url, *flags))

    def state(self, loop_id: str) -> Document:
        """state.json without what another manager of the same log cannot have in common with it."""
        text = self.path(loop_id, "state").read_text().replace(str(self.root), "ROOT")
        found: Document = _without_own(json.loads(text))
        # By which steps the log was read is not what it says.
        order = found.pop("sequence")
        found["order"] = [order["status"], order["driftActive"], order["snapshot"]["current"]]
        return found


def _without_own(document: Any) -> Any:
    if isinstance(document, dict):
        return {name: _without_own(value) for name, value in document.items() if name not in _OWN}
    if isinstance(document, list):
        return [_without_own(value) for value in document]
    return document
