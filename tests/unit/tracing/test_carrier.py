"""spritemesh.tracing.writing.carrier: a thread writes lines in order, or counts them; who puts one never
waits."""

import _thread
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack

import pytest

from spritemesh.tracing.writing import carrier
from spritemesh.tracing.writing.carrier import Carrier
from tests.harness.waiting import wait_for


class Sink:
    """Keeps what is written. While `gate` is clear it makes writers wait; fails: what it raises instead."""

    def __init__(self) -> None:
        self.written: list[bytes] = []
        self.gate = threading.Event()
        self.gate.set()
        self.is_entered = threading.Event()
        self.fails: Exception | None = None

    def write(self, data: bytes) -> None:
        self.is_entered.set()
        self.gate.wait()
        if self.fails:
            raise self.fails
        self.written.append(data)

    @property
    def lines(self) -> list[str]:
        return b"".join(self.written).decode().splitlines()


@pytest.fixture
def sink() -> Sink:
    return Sink()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as stack:
        yield stack


def carrying(sink: Sink, stack: ExitStack, interval: float = 0.001) -> Carrier:
    made = Carrier(sink, interval=interval, report=lambda count: b"dropped %d\n" % count)
    stack.callback(made.stop)
    stack.callback(sink.gate.set)
    return made


def blocked(sink: Sink, stack: ExitStack) -> Carrier:
    """One whose thread waits for the gate with a first line."""
    made = carrying(sink, stack)
    sink.gate.clear()
    made.put(b"first\n")
    assert sink.is_entered.wait(10)
    return made


def test_lines_are_written_in_order_without_being_asked_for(sink: Sink, stack: ExitStack) -> None:
    made = carrying(sink, stack)
    for number in range(1000):
        made.put(b"%d\n" % number)
    wait_for(lambda: len(sink.lines) == 1000)
    assert sink.lines == [str(number) for number in range(1000)]
    # And again, once the thread sleeps.
    made.put(b"later\n")
    wait_for(lambda: sink.lines[-1] == "later")


def test_lines_gather_before_they_are_written(sink: Sink, stack: ExitStack) -> None:
    made = carrying(sink, stack, interval=0.05)
    for number in range(100):
        made.put(b"%d\n" % number)
    assert made.flush(5)
    assert len(sink.written) <= 2


def test_flush_waits_for_all_that_was_put_and_not_for_the_interval(sink: Sink, stack: ExitStack) -> None:
    made = carrying(sink, stack, interval=60)
    began = time.monotonic()
    for number in range(50):
        made.put(b"%d\n" % number)
        assert made.flush(5)
        assert len(sink.lines) == number + 1
    assert time.monotonic() - began < 5


def test_flush_of_nothing_is_done_and_starts_nothing(sink: Sink, stack: ExitStack) -> None:
    threads = _thread._count()
    assert carrying(sink, stack).flush(5)
    # Those of earlier tests may still end.
    assert _thread._count() <= threads


def test_blocked_sink_makes_nobody_wait_and_what_is_too_much_is_counted(
    sink: Sink, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier, "MAX_LINES", 500)
    made = blocked(sink, stack)
    began = time.monotonic()
    threads = [threading.Thread(target=_put, args=(made, 1000)) for _ in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert time.monotonic() - began < 2
    assert not made.flush(0.01)
    assert made.waiting + made.dropped == 16_001
    assert 500 < made.waiting < 520
    dropped = made.dropped
    sink.gate.set()
    assert made.flush(5)
    assert sink.lines.count("x") + dropped == 16_000
    assert [line for line in sink.lines if line.startswith("dropped")] == [f"dropped {dropped}"]
    # Said once.
    made.put(b"x\n")
    assert made.flush(5)
    assert sink.lines[-1] == "x"


def test_large_lines_are_bounded_by_their_bytes(
    sink: Sink, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(carrier, "MAX_BYTES", 10_000)
    made = blocked(sink, stack)
    for _ in range(30):
        made.put(b"y" * 999 + b"\n")
    assert made.dropped == 19
    sink.gate.set()
    assert made.flush(5)
    for _ in range(5):
        made.put(b"y" * 999 + b"\n")
    assert made.dropped == 19


def test_what_could_not_be_written_stays_and_is_tried_again(sink: Sink, stack: ExitStack) -> None:
    made = carrying(sink, stack)
    sink.fails = OSError(28, "No space left on device")
    made.put(b"one\n")
    began = time.monotonic()
    assert not made.flush(5)
    assert time.monotonic() - began < 1
    made.put(b"two\n")
    assert (made.problem, made.waiting, made.dropped) == ("No space left on device", 2, 0)
    sink.fails = None
    wait_for(lambda: sink.lines == ["one", "two"])
    assert made.problem == ""


def test_whatever_a_sink_raises_the_thread_goes_on(sink: Sink, stack: ExitStack) -> None:
    made = carrying(sink, stack)
    sink.fails = ZeroDivisionError()
    made.put(b"one\n")
    assert not made.flush(5)
    assert made.problem == "ZeroDivisionError"
    sink.fails = None
    assert made.flush(5)
    assert sink.lines == ["one"]


def test_when_the_process_is_about_to_end_each_line_waits_until_it_is_written(
    sink: Sink, stack: ExitStack
) -> None:
    made = carrying(sink, stack, interval=60)
    made.hasten(5)
    for number in range(5):
        made.put(b"%d\n" % number)
        assert len(sink.lines) == number + 1


def test_but_not_for_longer_than_the_process_has(sink: Sink, stack: ExitStack) -> None:
    made = blocked(sink, stack)
    made.hasten(0.1)
    began = time.monotonic()
    for number in range(100):
        made.put(b"%d\n" % number)
    assert 0.05 < time.monotonic() - began < 1
    assert made.waiting == 101


def test_lines_that_come_late_at_the_end_wait_as_those_before(sink: Sink, stack: ExitStack) -> None:
    made = carrying(sink, stack, interval=60)
    made.hasten(0.05)
    time.sleep(0.06)
    made.put(b"late\n")
    assert sink.lines == ["late"]


def test_stopped_it_drops_what_comes_and_ends_its_thread(sink: Sink, stack: ExitStack) -> None:
    threads = _thread._count()
    made = carrying(sink, stack)
    made.put(b"one\n")
    assert made.flush(5)
    made.stop()
    made.put(b"two\n")
    assert (made.dropped, sink.lines) == (1, ["one"])
    # Those of earlier tests may still have been ending.
    wait_for(lambda: _thread._count() <= threads)


def test_program_does_not_meet_the_thread(sink: Sink, stack: ExitStack) -> None:
    before = set(threading.enumerate())
    made = carrying(sink, stack)
    made.put(b"one\n")
    assert made.flush(5)
    assert set(threading.enumerate()) <= before


def test_where_there_can_be_no_thread_a_flush_writes(
    sink: Sink, stack: ExitStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    made = carrying(sink, stack)
    with monkeypatch.context() as patch:
        patch.setattr(_thread, "start_new_thread", refuse)
        made.put(b"one\n")
        made.put(b"two\n")
        assert sink.lines == []
        assert made.flush(5)
        assert sink.lines == ["one", "two"]
    # And as soon as there can be one again, it does.
    made.put(b"three\n")
    wait_for(lambda: sink.lines[-1] == "three")


def _put(made: Carrier, count: int) -> None:
    for _ in range(count):
        made.put(b"x\n")
