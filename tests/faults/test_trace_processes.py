"""Several processes that trace to one file: only whole lines, none lost, and none twice."""

import signal
from collections import Counter
from pathlib import Path

import pytest

from tests.harness.traced import Traced, events, told

THREADS, SPANS = 32, 100
# Of some 280 bytes each.
_LINES = 2 * THREADS * SPANS
_MANY = """
def work(thread):
    for number in range(int(sys.argv[4])):
        with tracer.span("sys", "work", f"t{thread}", f"{sys.argv[2]} {thread} {number}"):
            pass
threads = [threading.Thread(target=work, args=(number,)) for number in range(int(sys.argv[3]))]
print("ready", flush=True)
sys.stdin.readline()
for thread in threads: thread.start()
for thread in threads: thread.join()
"""
_EVENT = "from spritemesh.tracing import tracer; tracer.event('sys', 'child', '', {!r})"


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    return tmp_path / "trace.jsonl"


@pytest.mark.parametrize("max_bytes", [64 << 20, _LINES * 280 // 4], ids=["one file", "rotated"])
def test_two_processes_and_many_threads_write_whole_lines(trace: Path, max_bytes: int) -> None:
    variables = {"DOPEJAR_TRACE_MAX_BYTES": str(max_bytes)}
    with (
        Traced(trace, _MANY, "a", THREADS, SPANS, **variables) as one,
        Traced(trace, _MANY, "b", THREADS, SPANS, **variables) as other,
    ):
        assert one.says() == other.says() == "ready"
        one.tell()
        other.tell()
        assert (one.wait(), other.wait(), one.errors, other.errors) == (0, 0, "", "")
    expected = {f"{name} {t} {n}" for name in "ab" for t in range(THREADS) for n in range(SPANS)}
    found = told(trace)
    assert set(found) == expected
    assert len(found) == _LINES
    assert len({event["trace_id"] for event in events(trace)}) == _LINES
    assert trace.with_name("trace.jsonl.1").exists() == (max_bytes < 1 << 20)


def test_file_is_its_owners_alone(trace: Path) -> None:
    with Traced(trace, 'tracer.event("sys", "one")') as traced:
        assert traced.wait() == 0
    assert trace.stat().st_mode & 0o777 == 0o600


def test_forks_in_a_burst_lose_nothing_and_double_nothing(trace: Path) -> None:
    """Children that were forked at any moment: with lines that wait, or are being written."""
    code = """
def burst():
    while not is_over.is_set():
        tracer.event("sys", "burst", "", next(numbers))
import itertools
numbers = itertools.count()
is_over = threading.Event()
thread = threading.Thread(target=burst)
thread.start()
for number in range(8):
    child = os.fork()
    if not child:
        with tracer.span("sys", "child", "", f"child {number}"):
            sys.exit(0)
    assert os.waitpid(child, 0)[1] == 0
is_over.set()
thread.join()
tracer.event("sys", "end", "", f"end {next(numbers)}")
"""
    with Traced(trace, code) as traced:
        assert (traced.wait(), traced.errors) == (0, "")
    found = told(trace)
    (end,) = [text for text in found if text.startswith("end")]
    children = {f"child {number}" for number in range(8)}
    assert Counter(found) == Counter({*map(str, range(int(end[4:]))), *children, end})


def test_children_of_multiprocessing_write_all_at_their_end(trace: Path) -> None:
    code = """
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
event = sys.argv[2]
for method in ("fork", "spawn", "forkserver"):
    context = multiprocessing.get_context(method)
    tracer.event("sys", "parent", "", f"{method} parent")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        list(pool.map(exec, [event.format(f"{method} pool {number}") for number in range(3)]))
    child = context.Process(target=exec, args=(event.format(f"{method} child"),))
    child.start()
    child.join()
    assert child.exitcode == 0
"""
    variables = {"DOPEJAR_TRACE": "1", "DOPEJAR_TRACE_FILE": str(trace)}
    with Traced(trace, code, _EVENT.replace("!r", "0!r"), **variables) as traced:
        assert (traced.wait(), traced.errors) == (0, "")
    expected = [
        f"{method} {what}"
        for method in ("fork", "spawn", "forkserver")
        for what in ("parent", "pool 0", "pool 1", "pool 2", "child")
    ]
    assert sorted(told(trace)) == sorted(expected)


def test_child_of_multiprocessing_that_is_terminated_loses_nothing(trace: Path) -> None:
    code = """
import multiprocessing
context = multiprocessing.get_context("fork")
ours, theirs = context.Pipe()
def work():
    tracer.event("sys", "child", "", "child")
    theirs.send(1)
    threading.Event().wait()
child = context.Process(target=work)
child.start()
ours.recv()
child.terminate()
child.join()
sys.exit(-child.exitcode)
"""
    with Traced(trace, code) as traced:
        assert (traced.wait(), traced.errors) == (signal.SIGTERM, "")
    assert told(trace) == ["child"]


def test_killed_process_leaves_whole_lines_and_frees_the_file(trace: Path) -> None:
    with Traced(trace, _MANY, "a", 4, 1_000_000) as traced:
        traced.says()
        traced.tell()
        while not trace.exists() or trace.stat().st_size < 100_000:
            assert traced.process.poll() is None
        traced.signal(signal.SIGKILL)
        traced.wait()
    size = trace.stat().st_size
    with Traced(trace, 'tracer.event("sys", "one", "", "next")') as traced:
        assert traced.wait() == 0
    # The kernel may stop a write of many lines in the middle of one.
    lines = trace.read_bytes()[size:].splitlines()
    assert b'"next"' in lines[-1]
