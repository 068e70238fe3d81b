"""Agents and manager are killed at random while everything works; what is left is what a fresh pass says.

Two agents with three loops, one of which is reached as a v1 service, and a loop on the manager's own disk.
Their logs grow all the time and their state files change, operators ask for control, and all documents are
read while they are replaced. SPRITEMESH_CRASH_CYCLES says how often somebody is killed, and
SPRITEMESH_CRASH_SEED in which order and when; a failure tells the seed. `make crash` is the long run.
"""

import os
import random
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from superloop.ops.v1 import control_pb2 as pb
from tests.harness.agents import TOKEN, Agent, start_agent
from tests.harness.control import Runtime, audit_of, client_of
from tests.harness.fresh import differences_from_fresh
from tests.harness.live_fleet import Fleet, entry, running_loop
from tests.harness.load import Operator, Reader, Worker, Writer
from tests.harness.loops import LoopFiles, Repo
from tests.harness.manager import run
from tests.harness.proxy import Proxy
from tests.harness.waiting import wait_for

CYCLES = int(os.environ.get("SPRITEMESH_CRASH_CYCLES", "6"))
# Who is killed together.
_VICTIMS = (("a",), ("b",), ("manager",), ("a", "manager"), ("a", "b", "manager"))
_LONGEST_SECONDS = 0.5
_CALM_SECONDS = 60.0
_WORDS = {
    pb.CONTROL_STATUS_EXECUTED_UNCONFIRMED: "executed_unconfirmed",
    pb.CONTROL_STATUS_AMBIGUOUS: "ambiguous",
}

pytestmark = pytest.mark.timeout(120 + 10 * CYCLES)


class Sprite:
    """An agent that may be killed at any time, and what stands between it and who asks it."""

    def __init__(self, stack: ExitStack, root: Path, *flags: str) -> None:
        self.repo = Repo(root)
        self._flags, self._errors = flags, root / "agent.txt"
        self.agent = self._start()
        stack.callback(self.end)
        self.proxies = {
            name: stack.enter_context(Proxy(str(self.agent.ready[name])))
            for name in ("grpc", "http")
            if self.agent.ready[name]
        }

    def kill(self) -> None:
        self.agent.signal(signal.SIGKILL)
        self.agent.wait()

    def restart(self) -> None:
        """Another takes the place of the one that was killed."""
        self.agent.end()
        self.agent = self._start()
        for name, proxy in self.proxies.items():
            proxy.retarget(str(self.agent.ready[name]))

    def end(self) -> None:
        self.agent.end()

    def said(self) -> str:
        return self._errors.read_text()

    def _start(self) -> Agent:
        return start_agent(self.repo.root, self._errors, "--heartbeat-interval", "1", *self._flags)


class Scene:
    """Everything that works, and who kills it."""

    def __init__(self, stack: ExitStack, root: Path, seed: int) -> None:
        self.dice = random.Random(seed)
        self.runtime = Runtime(root / "runtime")
        self.runtime.does("sleep 0.02")
        self.fleet = Fleet(root / "manager")
        stack.callback(self.fleet.close)
        local, flags = Repo(self.fleet.root), self.runtime.flags
        self.sprites = {
            "a": Sprite(stack, root / "a", *flags),
            "b": Sprite(stack, root / "b", *flags, "--http", "127.0.0.1:0"),
        }
        a, b = self.sprites.values()
        self.loops = {
            "alpha": running_loop(a.repo, "alpha"),
            "beta": a.repo.loop("beta"),
            "gamma": running_loop(b.repo, "gamma"),
            "local": running_loop(local, "local"),
        }
        urls = {
            "alpha": a.proxies["grpc"].url,
            "beta": a.proxies["grpc"].url,
            "gamma": f"http://{b.proxies['http'].address}",
        }
        self.ways = {loop_id: _service(urls.get(loop_id)) for loop_id in self.loops}
        self.fleet.register(*(entry(loop_id, urls.get(loop_id)) for loop_id in self.loops))
        self.writers = {
            "alpha": self._writer(a.repo, "alpha"),
            "beta": self._writer(a.repo, "beta", runs=False),
            # No v1 service serves lines that are no events.
            "gamma": self._writer(b.repo, "gamma", torn=False),
            "local": self._writer(local, "local"),
        }
        self.operators = {
            "alpha": Operator(lambda: a.agent, "alpha", self.dice.randrange(2**32)),
            "beta": Operator(lambda: a.agent, "beta", self.dice.randrange(2**32)),
            "gamma": Operator(lambda: b.agent, "gamma", self.dice.randrange(2**32)),
        }
        logs = {loop_id: loop.log for loop_id, loop in self.loops.items()}
        documents = [loop.heartbeat for loop in self.loops.values()]
        self.reader = Reader(self.fleet, logs, [*documents, self.fleet.directory / "manager.json"])
        self.workers: list[Worker] = [*self.writers.values(), *self.operators.values(), self.reader]
        self.kills: Counter[str] = Counter()
        self.start_manager()
        for worker in self.workers:
            worker.start()
            stack.callback(worker.stop)

    def _writer(self, repo: Repo, loop_id: str, *, torn: bool = True, runs: bool = True) -> Writer:
        return Writer(repo, self.loops[loop_id], self.dice.randrange(2**32), torn=torn, runs=runs)

    def start_manager(self) -> None:
        """One that may be killed before it is ready."""
        self.began_at = {loop_id: self.fleet.place(loop_id).line for loop_id in self.loops}
        self.manager = self.fleet.start()

    def kill(self) -> None:
        """One cycle."""
        time.sleep(self.dice.uniform(0, _LONGEST_SECONDS))
        victims = self.dice.choice(_VICTIMS)
        self.kills.update(victims)
        for name in victims:
            if name == "manager":
                self.manager.kill()
            else:
                self.sprites[name].kill()
        for name in victims:
            if name == "manager":
                self.start_manager()
            else:
                self.sprites[name].restart()

    def calm(self) -> None:
        """Nothing changes any more, and the manager has it all on disk."""
        for operator in self.operators.values():
            operator.stop()
        for writer in self.writers.values():
            writer.rest()
        for loop_id, writer in self.writers.items():
            self.fleet.wait_until_read(loop_id, writer.lines, seconds=_CALM_SECONDS)
        self.reader.stop()

    def counted(self) -> dict[str, tuple[int, ...]]:
        """By loop: what the last manager counted since it began: events, lines that are none, events that
        came again, gaps, logs that are others."""
        found: dict[str, tuple[int, ...]] = {}
        for loop_id, view in self.manager.views().items():
            counts = view.counts
            found[loop_id] = (
                counts.events,
                counts.quarantined,
                counts.replayed,
                counts.gaps,
                counts.resets,
            )
        return found

    def due(self) -> dict[str, tuple[int, ...]]:
        """By loop: what it should have counted, of the log from where it began."""
        found: dict[str, tuple[int, ...]] = {}
        for loop_id, writer in self.writers.items():
            bad = sum(line > self.began_at[loop_id] for line in writer.bad_lines)
            found[loop_id] = (writer.lines - self.began_at[loop_id] - bad, bad, 0, 0, 0)
        return found


def _service(url: str | None) -> list[str]:
    if url is None:
        return []
    return ["--transport", "sprite_service", "--service-base-url", url, "--service-token", TOKEN]


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    seed = int(os.environ.get("SPRITEMESH_CRASH_SEED", random.randrange(2**32)))
    print(f"seed {seed}")
    with ExitStack() as stack:
        yield Scene(stack, tmp_path, seed)


def check_control(sprite: Sprite, operator: Operator, loop: LoopFiles, runs: Counter[str]) -> None:
    """Each key ran once, or at most once where that is not known, and every record of it says the same.

    runs: key -> how often its command ran, by the runtime's own record.
    """
    audit = audit_of(sprite.repo, loop.loop_id)
    told = Counter((row["idempotencyKey"], row["status"]) for row in (*audit.intents, *audit.control))
    told.update((row["idempotencyKey"], row["outcome"]["status"]) for row in audit.invocations)
    # Asked while the command of a dead agent still ran.
    told = Counter({what: times for what, times in told.items() if what[1] != "refused"})
    assert told == {(key, _WORDS[outcome.status]): 3 for key, outcome in operator.outcomes.items()}
    with client_of(sprite.agent) as client:
        for key, outcome in operator.outcomes.items():
            assert runs[key] == 1 or (runs[key] == 0 and outcome.status == pb.CONTROL_STATUS_AMBIGUOUS), key
            found = client.invocation(key)
            assert found.state == pb.INVOCATION_STATE_FINISHED
            found.outcome.replayed = outcome.replayed
            assert found.outcome == outcome


def leftovers(*roots: Path) -> list[str]:
    """Files that crashes can pile up: temporary ones, but one of each document or trial, which the next takes
    up; locks of keys, spares of no document."""
    paths = [path for root in roots for path in root.rglob("*") if path.is_file()]
    return [
        str(path)
        for path in paths
        if (path.suffix == ".tmp" and path.stem != ".audit" and path.with_suffix("").suffix != ".json")
        or path.name.startswith("key-")
        or (path.suffix == ".spare" and not path.with_name(path.stem.removeprefix(".")).exists())
    ]


def locked_files(*roots: Path) -> list[str]:
    """Files that somebody holds a lock or a lease on."""
    held = {line.split()[-3].rpartition(":")[2] for line in Path("/proc/locks").read_text().splitlines()}
    paths = [path for root in roots for path in (root, *root.rglob("*"))]
    return [str(path) for path in paths if str(path.stat().st_ino) in held]


def test_fleet_killed_at_random_under_load_is_what_a_fresh_pass_says(scene: Scene) -> None:
    for _ in range(CYCLES):
        scene.kill()
    scene.calm()
    lines = {loop_id: writer.lines for loop_id, writer in scene.writers.items()}
    keys = {loop_id: len(operator.outcomes) for loop_id, operator in scene.operators.items()}
    print(f"killed {dict(scene.kills)}, lines {lines}, keys {keys}, documents read {scene.reader.reads}")
    assert [fault for worker in scene.workers for fault in worker.faults] == []
    assert scene.counted() == scene.due()

    runs = Counter(line.rsplit(" ", 1)[1] for line in scene.runtime.calls)
    asked = [key for operator in scene.operators.values() for key in operator.outcomes]
    assert set(runs) <= set(asked)
    for name, loop_id in (("a", "alpha"), ("a", "beta"), ("b", "gamma")):
        check_control(scene.sprites[name], scene.operators[loop_id], scene.loops[loop_id], runs)

    for sprite in scene.sprites.values():
        verified = run("audit", "verify", "--repo", str(sprite.repo.root))
        assert (verified.code, verified.documents[0]["status"]) == (0, "whole"), verified

    assert scene.manager.stop() == 0, scene.manager.said()
    said = [scene.manager.said(), *(sprite.said() for sprite in scene.sprites.values())]
    assert not any("internal_error" in text or "Traceback" in text for text in said), said
    roots = [scene.fleet.root, *(sprite.repo.root for sprite in scene.sprites.values())]
    # An agent that starts removes what others left, in the background.
    wait_for(lambda: not leftovers(*roots), what=f"leftovers to go: {leftovers(*roots)}")
    for sprite in scene.sprites.values():
        sprite.end()
    assert locked_files(*roots) == []
    for loop_id, writer in scene.writers.items():
        place = scene.fleet.place(loop_id)
        assert place == (writer.lines, writer.lines)
        quarantined = [row["line"] for row in scene.fleet.rows(loop_id, "quarantine")]
        assert quarantined == writer.bad_lines
        assert scene.fleet.ordering_faults(loop_id) == []

    for sprite in scene.sprites.values():
        sprite.restart()
    assert differences_from_fresh(scene.fleet, scene.ways) == []
