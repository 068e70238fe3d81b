"""A fleet at work: writers that append all the time, operators that ask for control, readers that look.

Each is a thread that goes on until it is stopped, and notes what it did and saw; what must not be is
gathered in `faults`.
"""

import json
import random
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import grpc

from superloop.ops.v1 import control_pb2 as pb
from tests.harness.agents import Agent
from tests.harness.control import client_of, request
from tests.harness.live_fleet import Fleet, recent
from tests.harness.loops import LoopFiles, Repo
from tests.harness.waiting import wait_for

# What is no event, and is recorded as such.
_NO_EVENTS = (b'{"event":\n', b"[]\n", b"\xff\xfe\n")
_STOP_SECONDS = 30.0


class Worker:
    """Does `turn` again and again, in a thread, until it is stopped."""

    def __init__(self) -> None:
        self.faults: list[str] = []
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name=type(self).__name__, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Let it finish its turn."""
        self._ended.set()
        self._thread.join(_STOP_SECONDS)
        assert not self._thread.is_alive(), f"{self._thread.name} does not end"

    def turn(self) -> float:
        """One turn; how long to rest after it, seconds."""
        raise NotImplementedError

    def _run(self) -> None:
        try:
            while not self._ended.wait(self.turn()):
                pass
        except Exception as error:
            self.faults.append(f"{self._thread.name}: {error!r}")


class Writer(Worker):
    """The runtime of a loop. torn: it also writes in pieces, and lines that are no events. runs: it is the
    one that runs in its repository."""

    def __init__(
        self, repo: Repo, loop: LoopFiles, seed: int, *, torn: bool = True, runs: bool = True
    ) -> None:
        super().__init__()
        self.events = 0
        self.bad_lines: list[int] = []  # their numbers
        self.lines = 0
        self._repo, self._loop, self._torn, self._runs = repo, loop, torn, runs
        self._dice = random.Random(seed)

    def turn(self) -> float:
        dice = self._dice
        self.write(dice.randrange(1, 20), torn=self._torn and dice.random() < 0.2)
        if self._torn and dice.random() < 0.05:
            for line in _NO_EVENTS:
                self.lines += 1
                self.bad_lines.append(self.lines)
                self._loop.append(line)
        if dice.random() < 0.3:
            self.change_state()
        return dice.uniform(0.005, 0.05)

    def rest(self) -> None:
        """Write no more; the last lines tell of the last state."""
        self.stop()
        self.change_state()
        self.write(2)

    def write(self, events: int, *, torn: bool = False) -> None:
        """So many more events; torn: in two pieces."""
        data = recent(self.events + 1, self.events + events)
        cut = self._dice.randrange(len(data)) if torn else 0
        for piece in (data[:cut], data[cut:]):
            if piece:
                self._loop.append(piece)
        self.events += events
        self.lines += events

    def change_state(self) -> None:
        """State files that say something else each time."""
        if self._runs:
            state = {"active": True, "current_loop_id": self._loop.loop_id, "iteration": self.events}
            self._repo.put("state.json", state)
        gates = {"tests": "ok", "checklist": "ok", "evidence": "ok"}
        entry = {"iteration": self.events, "gates": gates, "completion_ok": self._dice.random() < 0.5}
        self._loop.put("run-summary.json", {"version": 1, "entries": [entry]})


class Operator(Worker):
    """Asks for control of one loop, a key after the other; each until it is answered.

    Every command that runs notes its key, which is in its note.
    """

    def __init__(self, agent: Callable[[], Agent], loop_id: str, seed: int) -> None:
        super().__init__()
        self.outcomes: dict[str, pb.ControlOutcome] = {}
        self._agent, self._loop_id = agent, loop_id
        self._dice = random.Random(seed)

    def turn(self) -> float:
        key = f"{self._loop_id}-{len(self.outcomes)}"
        self.outcomes[key] = self._answered(key)
        return self._dice.uniform(0.02, 0.1)

    def _answered(self, key: str) -> pb.ControlOutcome:
        intent = self._dice.choice(("approve", "reject"))
        asked = request(intent, key, self._loop_id, note=key, even_if_nothing_pending=True)

        def answer() -> pb.ControlOutcome | None:
            with suppress(grpc.RpcError), client_of(self._agent()) as client:
                return client.ask(asked)
            time.sleep(0.02)
            return None

        found = wait_for(answer, seconds=_STOP_SECONDS, what=f"an answer to {key}")
        assert found is not None
        return found


class Reader(Worker):
    """Reads what is being replaced: each document must be whole, each cursor within its log and no older
    than the one before."""

    def __init__(self, fleet: Fleet, logs: dict[str, Path], documents: Sequence[Path]) -> None:
        super().__init__()
        self.reads = 0
        self._fleet, self._documents = fleet, documents
        self._logs = {loop_id: _Counted(path) for loop_id, path in logs.items()}
        self._cursors = dict.fromkeys(logs, 0)

    def turn(self) -> float:
        for loop_id, log in self._logs.items():
            line = self._fleet.place(loop_id).line
            lines = log.lines()
            if not self._cursors[loop_id] <= line <= lines:
                told = f"cursor of {loop_id}: {line}, before {self._cursors[loop_id]}, log {lines}"
                self.faults.append(told)
            self._cursors[loop_id] = line
            for name in ("state", "health", "session", "sequence_state", "heartbeat", "drift_state"):
                self._read(self._fleet.path(loop_id, name))
        for path in self._documents:
            self._read(path)
        return 0.02

    def stop(self) -> None:
        super().stop()
        for log in self._logs.values():
            log.close()

    def _read(self, path: Path) -> None:
        try:
            json.loads(path.read_bytes())
            self.reads += 1
        except FileNotFoundError:
            return
        except ValueError as error:
            self.faults.append(f"{path}: {error}")


class _Counted:
    """A log that grows, and how many lines it has."""

    def __init__(self, path: Path) -> None:
        self._file = path.open("rb")
        self._lines = 0

    def lines(self) -> int:
        self._lines += self._file.read().count(b"\n")
        return self._lines

    def close(self) -> None:
        self._file.close()
