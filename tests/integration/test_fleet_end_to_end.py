"""A whole fleet, interfered with in every way at once, ends where a fresh pass over the same files does.

Five demo loops play; one `ops-manager run` watches them: three through agents over gRPC, one as the JSON
service of v1, one on its own disk. SPRITEMESH_E2E_SECONDS says how long the trouble lasts, and
SPRITEMESH_E2E_SEED which trouble it is; a failure tells the seed.

The service of v1 has no words for a log that was replaced, and serves none with lines that are no events
(docs/wire.md): its log only grows.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.harness.agents import ROOT, TOKEN, Agent, environment, start_agent
from tests.harness.fresh import differences_from_fresh
from tests.harness.live_fleet import Document, Fleet, Manager, entry, recent
from tests.harness.loops import Repo
from tests.harness.manager import run
from tests.harness.proxy import DIRECTIONS, Proxy
from tests.harness.waiting import wait_for

SECONDS = float(os.environ.get("SPRITEMESH_E2E_SECONDS", "60"))
_CALM_SECONDS = 60.0
_DEMO_COMMAND = str(Path(sys.executable).with_name("superloop-demo"))

pytestmark = pytest.mark.timeout(SECONDS * 2 + 150)


class Sprite:
    """A demo loop that plays, and what stands between it and the manager. repo: of the loop.

    http: it is reached as a v1 service; local: it is on the manager's disk.
    """

    def __init__(
        self,
        stack: ExitStack,
        root: Path,
        loop_id: str,
        scenario: str,
        *,
        http: bool = False,
        local: bool = False,
    ) -> None:
        self.loop_id, self.http, self.local = loop_id, http, local
        self.repo = Repo(root)
        self.log = self.repo.loop(loop_id, None)
        self._scenario = scenario
        self._errors = root / "agent.txt"
        self._torn = b""
        self.play()
        stack.callback(self.end)
        if not local:
            self.agent = self._start_agent()
            self.proxy = stack.enter_context(Proxy(self._upstream))

    @property
    def url(self) -> str:
        """Where the manager reaches it."""
        return f"{'http' if self.http else 'grpc'}://{self.proxy.address}"

    @property
    def service(self) -> list[str]:
        """The same as flags of commands."""
        return ["--transport", "sprite_service", "--service-base-url", self.url, "--service-token", TOKEN]

    @property
    def entry(self) -> Document:
        """For the registry."""
        return entry(self.loop_id, None if self.local else self.url)

    @property
    def lines(self) -> int:
        """Of its log."""
        return self.log.log.read_bytes().count(b"\n")

    def play(self) -> None:
        """Start the demo loop."""
        iterations = "0" if self._scenario == "healthy" else "1"
        words = (
            "--loop",
            self.loop_id,
            "--scenario",
            self._scenario,
            "--iterations",
            iterations,
            "--pace",
            "0.05",
        )
        self.demo = subprocess.Popen(
            [sys.executable, "-m", "sprite_agent", "demo-loop", "--repo", str(self.repo.root), *words],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            cwd=ROOT,
            env=environment(),
        )
        wait_for(lambda: self.log.log.exists() or self.demo.poll() is not None)

    def play_on(self) -> None:
        """Start the demo loop anew if it has ended."""
        if self.demo.poll() is not None:
            self.play()

    def restart_agent(self, number: int) -> None:
        """End the agent by a signal; another takes its place."""
        self.agent.signal(number)
        self.agent.wait()
        self.agent.end()
        self.agent = self._start_agent()
        self.proxy.retarget(self._upstream)

    def complete(self) -> None:
        """Whatever line was torn is ended."""
        if self._torn:
            torn, self._torn = self._torn, b""
            self.log.append(torn)

    def tear(self, dice: random.Random) -> None:
        """Write a part of a line; the rest comes later, with what others write in between."""
        self.complete()
        line = recent(1, 1, role="tester")
        cut = dice.randrange(1, len(line))
        self.log.append(line[:cut])
        self._torn = line[cut:]

    def rest(self) -> None:
        """The demo loop ends, and whole lines end the log."""
        self.demo.terminate()
        self.demo.wait()
        self.complete()
        self.log.append(b"\n" + recent(1, 3))

    def end(self) -> None:
        """Leave nothing behind."""
        self.demo.kill()
        self.demo.wait()
        if not self.local:
            self.agent.end()

    @property
    def _upstream(self) -> str:
        return str(self.agent.ready["http"]) if self.http else self.agent.address

    def _start_agent(self) -> Agent:
        flags = ["--runtime-command", _DEMO_COMMAND, "--heartbeat-interval", "1"]
        if self.http:
            flags += ["--http", "127.0.0.1:0"]
        return start_agent(self.repo.root, self._errors, *flags)


class Trouble:
    """Everything that is done to a fleet, by chance but for the seed."""

    def __init__(self, fleet: Fleet, sprites: list[Sprite], dice: random.Random) -> None:
        self.fleet = fleet
        self.sprites = sprites
        self.remote = [sprite for sprite in sprites if not sprite.local]
        self.damageable = [sprite for sprite in sprites if not sprite.http]
        self.dice = dice
        self.done: list[str] = []
        self.manager = self._start()

    def make(self, seconds: float) -> None:
        """Trouble of all kinds for so long: each kind in turn, in another order each time."""
        deadline = time.monotonic() + seconds
        kinds = [getattr(self, name) for name in dir(self) if name.startswith("_do_")]
        while True:
            for kind in self.dice.sample(kinds, len(kinds)):
                if time.monotonic() > deadline:
                    return
                self.done.append(kind.__name__)
                kind()
                for sprite in self.sprites:
                    sprite.play_on()
                time.sleep(self.dice.uniform(0, 0.3))

    def calm(self) -> None:
        """No more trouble; wait until the manager has everything on disk."""
        for sprite in self.remote:
            sprite.proxy.refuse(False)
            sprite.proxy.release()
        self._register(self.sprites)
        for sprite in self.sprites:
            sprite.rest()
        self._wait_until_read()
        # That a log has shrunk is a divergence, until the state after it is followed by another.
        for sprite in self.sprites:
            sprite.log.append(recent(4, 4))
        self._wait_until_read()

    # --- logs ---------------------------------------------------------------------------------------

    def _do_append_a_burst(self) -> None:
        self._any().log.append(recent(1, self.dice.randrange(1, 3000)))

    def _do_tear_a_line(self) -> None:
        self._any_damageable().tear(self.dice)

    def _do_complete_a_line(self) -> None:
        for sprite in self.sprites:
            sprite.complete()

    def _do_write_what_is_no_event(self) -> None:
        self._any_damageable().log.append(b'{"event":\n[]\n\xff\xfe\n')

    def _do_truncate(self) -> None:
        log = self._any_damageable().log.log
        os.truncate(log, self.dice.randrange(log.stat().st_size))

    def _do_empty(self) -> None:
        os.truncate(self._any_damageable().log.log, 0)

    def _do_replace(self) -> None:
        self._any_damageable().log.replace(recent(1, self.dice.randrange(1, 200), role="reviewer"))

    def _do_rotate(self) -> None:
        files = self._any_damageable().log
        files.log.rename(files.log.with_name("events.jsonl.1"))
        files.append(recent(1, 5))

    # --- connections, agents, managers --------------------------------------------------------------

    def _do_cut(self) -> None:
        self._any_remote().proxy.cut(reset=self.dice.random() < 0.5)

    def _do_half_open(self) -> None:
        proxy = self._any_remote().proxy
        proxy.hold(self.dice.choice(DIRECTIONS))
        self._pause()
        proxy.cut()
        proxy.release()

    def _do_hold_for_a_moment(self) -> None:
        proxy = self._any_remote().proxy
        proxy.hold()
        self._pause()
        proxy.release()

    def _do_refuse(self) -> None:
        proxy = self._any_remote().proxy
        proxy.refuse()
        proxy.cut()
        self._pause()
        proxy.refuse(False)

    def _do_kill_an_agent(self) -> None:
        self._any_remote().restart_agent(signal.SIGKILL)

    def _do_drain_an_agent(self) -> None:
        self._any_remote().restart_agent(signal.SIGTERM)

    def _do_kill_the_manager(self) -> None:
        self.manager.kill()
        self.manager = self._start()

    def _do_restart_the_manager(self) -> None:
        assert self.manager.stop() == 0, self.manager.said()
        self.manager = self._start()

    def _do_reload_the_registry(self) -> None:
        some = self.dice.sample(self.sprites, self.dice.randrange(1, len(self.sprites)))
        self._register(some)
        self.manager.signal(signal.SIGHUP)
        self._pause()
        self._register(self.sprites)

    # --- operators ----------------------------------------------------------------------------------

    def _do_cancel(self) -> None:
        self._control(self._any(), "cancel")

    def _do_decide(self) -> None:
        for sprite in self.sprites:
            if (sprite.log.directory / "approval.json").exists():
                self._control(sprite, self.dice.choice(["approve", "reject"]))

    def _control(self, sprite: Sprite, intent: str) -> None:
        """Whatever becomes of it: it may meet nothing that runs, or nothing that waits."""
        way = ["--runtime-command", _DEMO_COMMAND] if sprite.local else sprite.service
        target = ("--repo", str(self.fleet.root), "--loop", sprite.loop_id, "--by", "ana", "--intent", intent)
        assert run("control", *target, *way, "--timeout-seconds", "1").code in {0, 1, 2}

    # --- helpers ------------------------------------------------------------------------------------

    def _wait_until_read(self) -> None:
        for sprite in self.sprites:
            self.fleet.wait_until_read(sprite.loop_id, sprite.lines, seconds=_CALM_SECONDS)

    def _any(self) -> Sprite:
        return self.dice.choice(self.sprites)

    def _any_damageable(self) -> Sprite:
        return self.dice.choice(self.damageable)

    def _any_remote(self) -> Sprite:
        return self.dice.choice(self.remote)

    def _pause(self) -> None:
        time.sleep(self.dice.uniform(0.05, 0.7))

    def _register(self, sprites: list[Sprite]) -> None:
        self.fleet.register(*(sprite.entry for sprite in sprites))

    def _start(self) -> Manager:
        self._register(self.sprites)
        manager = self.fleet.start()
        assert manager.ready
        return manager


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[Fleet]:
    made = Fleet(tmp_path / "manager")
    yield made
    made.close()


@pytest.fixture
def sprites(fleet: Fleet, tmp_path: Path) -> Iterator[list[Sprite]]:
    with ExitStack() as stack:
        yield [
            Sprite(stack, tmp_path / "a", "alpha", "healthy"),
            Sprite(stack, tmp_path / "b", "beta", "approval"),
            Sprite(stack, tmp_path / "c", "gamma", "failing"),
            Sprite(stack, tmp_path / "d", "delta", "healthy", http=True),
            Sprite(stack, fleet.root, "local", "approval", local=True),
        ]


def test_fleet_after_a_time_of_trouble_is_what_a_fresh_pass_says(fleet: Fleet, sprites: list[Sprite]) -> None:
    seed = int(os.environ.get("SPRITEMESH_E2E_SEED", random.randrange(2**32)))
    print(f"seed {seed}")
    trouble = Trouble(fleet, sprites, random.Random(seed))
    trouble.make(SECONDS)
    print(" ".join(name.removeprefix("_do_") for name in trouble.done))
    trouble.calm()
    assert trouble.manager.stop() == 0, trouble.manager.said()
    assert "internal_error" not in trouble.manager.said()
    ways = {sprite.loop_id: [] if sprite.local else sprite.service for sprite in sprites}
    assert not differences_from_fresh(fleet, ways)
