"""Traced programs that are killed: nothing that they told is lost, and they die of what killed them."""

import signal
import time
from collections import Counter
from pathlib import Path

import pytest

from tests.harness.traced import Traced, events, told
from tests.harness.waiting import wait_for

# Each thread notes how many spans it has ended, after it ended them.
_BURST = """
def burst(name):
    notes = os.open(f"{sys.argv[2]}/{name}", os.O_CREAT | os.O_WRONLY)
    number = 0
    while True:
        with tracer.span("sys", "burst", name, number):
            number += 1
        os.pwrite(notes, b"%d" % number, 0)

threads = [threading.Thread(target=burst, args=(f"t{number}",)) for number in range(int(sys.argv[3]))]
for thread in threads:
    thread.start()
"""
_JOINS = "for thread in threads: thread.join()\n"
_TELLS = """
with tracer.span("sys", "first", "", "one"):
    pass
tracer.event("sys", "second", "", "two")
"""
_READS = 'print("ready", flush=True); sys.stdin.readline()\n'
# Python sees to a signal between two steps: one that comes in the moment before a call waits until it ends.
_WAITS = 'import time; print("ready", flush=True); any(time.sleep(0.05) for _ in iter(int, 1))\n'


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace.jsonl"


def noted(directory: Path) -> dict[str, int]:
    return {path.name: int(path.read_bytes() or b"0") for path in directory.glob("t*[0-9]")}


@pytest.mark.parametrize(
    ("threads", "ending"), [(1, _JOINS), (16, _JOINS), (3, 'burst("t3")')], ids=["join", "many", "main"]
)
def test_nothing_is_lost_when_a_burst_is_killed(
    trace: Path, tmp_path: Path, threads: int, ending: str
) -> None:
    notes = tmp_path / "notes"
    notes.mkdir()
    with Traced(trace, _BURST + ending, notes, threads) as traced:
        wait_for(lambda: sum(noted(notes).values()) > 300, what=traced.errors)
        traced.signal(signal.SIGTERM)
        assert traced.wait() == -signal.SIGTERM
        assert traced.errors == ""
    written = Counter(event["component"] for event in events(trace))
    ended = noted(notes)
    assert {name: number for name, number in ended.items() if written[name] < number} == {}
    # One each may have been written, and not noted any more.
    assert written.total() <= sum(ended.values()) + threads + 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT])
def test_process_dies_of_the_signal_at_once_and_its_lines_are_there(
    trace: Path, number: signal.Signals
) -> None:
    with Traced(trace, _TELLS + _WAITS) as traced:
        assert traced.says() == "ready"
        began = time.monotonic()
        traced.signal(number)
        assert traced.wait() == -number
        assert time.monotonic() - began < 1
        assert traced.errors == ""
    assert told(trace) == ["one", "two"]


def test_signal_that_comes_twice_loses_nothing(trace: Path) -> None:
    holds = """
import fcntl
file = open(sys.argv[1], "a"); fcntl.flock(file, fcntl.LOCK_EX)
threading.Timer(0.3, lambda: fcntl.flock(file, fcntl.LOCK_UN)).start()
"""
    with Traced(trace, holds + _TELLS + _WAITS) as traced:
        assert traced.says() == "ready"
        traced.signal(signal.SIGTERM)
        while traced.process.poll() is None:
            traced.signal(signal.SIGTERM)
            time.sleep(0.01)
        assert traced.wait() == -signal.SIGTERM
    assert told(trace) == ["one", "two"]


def test_interrupt_from_the_keyboard_stays_one(trace: Path) -> None:
    with Traced(trace, _TELLS + _WAITS) as traced:
        assert traced.says() == "ready"
        traced.signal(signal.SIGINT)
        assert traced.wait() == -signal.SIGINT
        assert "KeyboardInterrupt" in traced.errors
    assert told(trace) == ["one", "two"]


def test_spans_that_an_interrupt_unwinds_are_told(trace: Path) -> None:
    code = f'with tracer.span("sys", "serve", "", "three"):\n    {_WAITS}'
    with Traced(trace, code) as traced:
        assert traced.says() == "ready"
        traced.signal(signal.SIGINT)
        traced.wait()
    (event,) = events(trace)
    assert (event["status"], event["metadata"]["error_class"]) == ("error", "KeyboardInterrupt")


@pytest.mark.parametrize("order", ["before", "after"])
def test_handler_of_the_program_is_respected(trace: Path, order: str) -> None:
    handles = """
import signal
def handle(number, frame):
    tracer.event("sys", "last", "", "three")
    sys.exit(7)
signal.signal(signal.SIGTERM, handle)
"""
    configures = (
        "import sys\nfrom spritemesh.tracing import tracer\n{}tracer.configure(True, sys.argv[1])\n{}"
    )
    beginning = configures.format(handles, "") if order == "before" else configures.format("", handles)
    with Traced(trace, _TELLS + _WAITS, beginning=beginning) as traced:
        assert traced.says() == "ready"
        traced.signal(signal.SIGTERM)
        assert traced.wait() == 7
    assert told(trace) == ["one", "two", "three"]


@pytest.mark.parametrize(
    "before",
    ["signal.signal(signal.SIGUSR1, signal.SIG_IGN)", "faulthandler.register(signal.SIGUSR1)"],
    ids=["ignored", "caught by C code"],
)
def test_signal_that_ends_nothing_still_ends_nothing(trace: Path, before: str) -> None:
    beginning = f"import faulthandler, signal, sys\n{before}\nfrom spritemesh.tracing import tracer\n"
    with Traced(
        trace, _TELLS + _READS, beginning=f"{beginning}tracer.configure(True, sys.argv[1])\n"
    ) as traced:
        assert traced.says() == "ready"
        traced.signal(signal.SIGUSR1)
        traced.tell()
        assert traced.wait() == 0
    assert told(trace) == ["one", "two"]


@pytest.mark.parametrize("ending", ["", "sys.exit(0)"])
def test_normal_end_writes_all(trace: Path, ending: str) -> None:
    with Traced(trace, _TELLS + ending) as traced:
        assert traced.wait() == 0
        assert traced.errors == ""
    assert told(trace) == ["one", "two"]


def test_lines_of_the_very_end_are_there(trace: Path) -> None:
    """What other handlers of the end tell, before and after ours, and threads that outlive the main one."""
    code = """
def late():
    threading.main_thread().join()
    tracer.event("sys", "late", "", "thread")
threading.Thread(target=late).start()
"""
    beginning = """
import atexit, sys, threading
from spritemesh.tracing import tracer
atexit.register(tracer.event, "sys", "late", "", "after")
tracer.configure(True, sys.argv[1])
atexit.register(tracer.event, "sys", "late", "", "before")
"""
    with Traced(trace, code, beginning=beginning) as traced:
        assert traced.wait() == 0
        assert traced.errors == ""
    assert told(trace) == ["thread", "before", "after"]


def test_tracing_that_was_switched_off_leaves_signals_as_they_were(trace: Path) -> None:
    code = "import signal; tracer.close(); print(signal.getsignal(signal.SIGTERM) == signal.SIG_DFL)"
    with Traced(trace, code) as traced:
        assert traced.says() == "True"


def test_configured_by_another_thread_it_leaves_signals_alone(trace: Path) -> None:
    beginning = """
import signal, sys, threading
from spritemesh.tracing import tracer
thread = threading.Thread(target=tracer.configure, args=(True, sys.argv[1]))
thread.start(); thread.join()
"""
    with Traced(trace, _TELLS, beginning=beginning) as traced:
        assert traced.wait() == 0
        assert traced.errors == ""
    assert told(trace) == ["one", "two"]


def test_thread_that_is_the_first_to_trace_loses_nothing(trace: Path) -> None:
    beginning = "import os, sys, threading, time\nfrom spritemesh.tracing import tracer\n"
    code = """
thread = threading.Thread(target=tracer.event, args=("sys", "first", "", "one"))
thread.start(); thread.join()
print("told", flush=True); time.sleep(30)
"""
    variables = {"DOPEJAR_TRACE": "1", "DOPEJAR_TRACE_FILE": str(trace)}
    with Traced(trace, code, beginning=beginning, **variables) as traced:
        assert traced.says() == "told"
        traced.signal(signal.SIGTERM)
        assert traced.wait() == -signal.SIGTERM
    assert told(trace) == ["one"]
