"""The process of a demo loop: plays a script at its pace until it ends or a signal ends it."""

import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from typing import NamedTuple

from sprite_agent.demo.documents import Document
from sprite_agent.demo.running import find_running, runtime_root
from sprite_agent.demo.script import Plan, Scenario, play
from sprite_agent.demo.steps import AwaitDecision, Crash, Log
from sprite_agent.demo.traces import LoopTraces
from sprite_agent.demo.writer import Writer, read_approval
from sprite_agent.runtime.layout import loop_paths
from spritemesh import files, jsontext, times
from spritemesh.errors import OpsError

# How often a waiting run looks whether its approval was decided, seconds.
_DECISION_POLL_SECONDS = 0.05
# How long a decision may take to be written and logged, seconds.
_DECISION_LOCK_SECONDS = 5.0


class Settings(NamedTuple):
    """One demo loop. repo: absolute. pace_seconds: between events, 0 for none. iterations: 0 for no end."""

    repo: str
    loop_id: str
    scenario: Scenario
    pace_seconds: float
    iterations: int


class _Ended(Exception):
    """A signal asks to end."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def run(settings: Settings, clock: Callable[[], float] = time.time) -> int:
    """Play one run in this process; returns its exit code.

    0 when the script ended, whatever its outcome; 128 plus the signal's number when SIGINT, SIGTERM or
    SIGHUP ended it. Either way active-run.json is removed; after a signal state.json stays as it is, as
    with the runtime, and `cancel` removes it. Prints one JSON line once the run can be found.

    Raises OpsError `already_running`, `document_invalid` or `state_unwritable`, and OSError.
    """
    with _held_signals() as signals, _only_one(settings.repo):
        run_id = times.format_utc(clock())
        writer = Writer(settings.repo, settings.loop_id, run_id, clock)
        try:
            with closing(LoopTraces()) as traces:
                _play(settings, run_id, writer, signals, traces)
        except _Ended as ended:
            return 128 + ended.number
        finally:
            writer.remove_active_run()
    return 0


def _play(
    settings: Settings, run_id: str, writer: Writer, signals: set[signal.Signals], traces: LoopTraces
) -> None:
    plan = Plan(
        settings.loop_id,
        run_id,
        loop_paths(settings.loop_id).directory,
        settings.scenario,
        settings.iterations,
    )
    script = play(plan, writer.now, read_approval(settings.repo, settings.loop_id))
    answer: Document | None = None
    announced, pace = False, 0.0
    while True:
        try:
            step = script.send(answer)
        except StopIteration:
            return
        answer = None
        if isinstance(step, AwaitDecision):
            answer = _await_decision(settings, signals)
            continue
        if isinstance(step, Crash):
            os.kill(os.getpid(), signal.SIGKILL)
            return
        if isinstance(step, Log):
            _pause(0 if step.at_once else pace, signals)
            # The first line comes at once; what follows a line (state, summary) comes with it.
            pace = settings.pace_seconds
        writer.write(step)
        traces.carried_out(step)
        # From the first line on, everything that names the run is in place.
        if not announced and isinstance(step, Log):
            _announce(settings)
            announced = True


def _await_decision(settings: Settings, signals: set[signal.Signals]) -> Document:
    directory = os.path.join(settings.repo, loop_paths(settings.loop_id).directory)
    while True:
        approval = read_approval(settings.repo, settings.loop_id)
        if approval is not None and approval["status"] != "pending":
            # Whoever decides holds this lock until the decision is logged, too.
            with files.locked_directory(directory, wait_seconds=_DECISION_LOCK_SECONDS, private=False):
                return approval
        _pause(_DECISION_POLL_SECONDS, signals)


def _announce(settings: Settings) -> None:
    line = {"demo": True, "repo": settings.repo, "loop": settings.loop_id, "pid": os.getpid()}
    sys.stdout.write(jsontext.encode(line).decode() + "\n")
    sys.stdout.flush()


def _pause(seconds: float, signals: set[signal.Signals]) -> None:
    """Wait, or raise _Ended at once when one of `signals` is pending or comes."""
    received = signal.sigtimedwait(signals, seconds)
    if received is not None:
        raise _Ended(received.si_signo)


@contextmanager
def _held_signals() -> Iterator[set[signal.Signals]]:
    """Hold the ending signals back, to be taken between two writes only.

    An ignored SIGHUP stays ignored, or `nohup` would not work.
    """
    signals = {signal.SIGINT, signal.SIGTERM}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        signals.add(signal.SIGHUP)
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signals)
    try:
        yield signals
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


@contextmanager
def _only_one(repo: str) -> Iterator[None]:
    """Refuse to run beside another run of the repository, be it a demonstration or a real one."""
    with ExitStack() as held:
        try:
            held.enter_context(files.locked_directory(runtime_root(repo), wait_seconds=0, private=False))
        except OpsError as error:
            if error.reason != "state_locked":
                raise
            raise OpsError("already_running", f"a demo loop already runs in {repo}") from error
        other = find_running(repo)
        if other is not None and other.process.pid != os.getpid():
            raise OpsError("already_running", f"process {other.process.pid} already runs a loop in {repo}")
        yield
