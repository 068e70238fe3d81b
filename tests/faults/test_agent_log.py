"""Logs that are torn, cut and swapped while an agent reads them."""

import random
import threading
from collections.abc import Callable

import pytest

from superloop.ops.v1 import sprite_pb2
from tests.harness.agents import BEARER, Message, StartAgent
from tests.harness.loops import LoopFiles, event
from tests.harness.streams import Reset, check_stream, kinds, place, raw_events, until, until_end_of, watch

LINES = 9000


def long_log(salt: str) -> bytes:
    """Some ten megabytes: more than an agent may send ahead of a slow reader."""
    return b"".join(event(number, message=salt * 1000) for number in range(1, LINES))


def parts_at_resets(messages: list[Message]) -> list[list[Message]]:
    """The messages between resets."""
    parts: list[list[Message]] = [[]]
    for message in messages:
        if message.HasField("log_reset"):
            parts.append([])
        else:
            parts[-1].append(message)
    return parts


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda loop: loop.replace(long_log("b")), Reset.REASON_REPLACED),
        (lambda loop: loop.replace(event(1, message="a" * 1000)), Reset.REASON_TRUNCATED),
        (lambda loop: loop.replace(b""), Reset.REASON_REPLACED),
    ],
    ids=["replaced", "cut to one line", "emptied"],
)
def test_log_that_changes_in_mid_replay_is_told_and_never_mixed(
    loop: LoopFiles, start: StartAgent, change: Callable[[LoopFiles], None], reason: int
) -> None:
    data = long_log("a")
    loop.append(data)
    with start().stub() as stub:
        stream = watch(stub, "alpha", follow=True)
        messages = until(stream, "batch")
        change(loop)
        fresh = loop.log.read_bytes()
        # Somebody else makes the agent notice, too.
        stub.GetSnapshot(sprite_pb2.GetSnapshotRequest(loop_id="alpha"), metadata=BEARER)
        messages += until(stream, "log_reset")
        reset = messages[-1].log_reset
        assert reset.reason == reason
        assert 0 < reset.requested.line < LINES - 1
        assert reset.requested == place(data, reset.requested.line)
        if fresh:
            messages += until_end_of(stream, fresh)
        messages += until(stream, "bookmark")
        stream.cancel()
    before, after = parts_at_resets(messages)
    check_stream(before, data)
    check_stream(after, fresh)
    assert after[-1].bookmark.position == place(fresh)


@pytest.mark.parametrize("left", [0, 1, 3000, 5_000_000])
def test_log_truncated_in_place_in_mid_replay_ends_with_what_is_left(
    loop: LoopFiles, start: StartAgent, left: int
) -> None:
    data = long_log("a")
    loop.append(data)
    with start().stub() as stub:
        stream = watch(stub, "alpha", follow=True)
        messages = until(stream, "batch")
        with loop.log.open("r+b") as file:
            file.truncate(left)
        complete = place(data[:left])
        while messages[-1].bookmark.position != complete:
            messages += until(stream, "bookmark")
        loop.append(b"\n" + event(0, "the_end"))
        fresh = loop.log.read_bytes()
        rest = until_end_of(stream, fresh)
        stream.cancel()
    *_, last = parts_at_resets(messages)
    check_stream(last + rest, fresh)
    assert raw_events(rest)[-1][1] == event(0, "the_end")[:-1].decode()


def test_disk_image_of_torn_writes_is_read_to_its_end(loop: LoopFiles, start: StartAgent) -> None:
    """What a power cut leaves: holes of NULs, halves of lines, lines grown together, a torn tail."""
    dice = random.Random(7)
    image = bytearray()
    for number in range(1, 400):
        line = event(number, message="m" * dice.randrange(600))
        fate = dice.random()
        if fate < 0.1:
            image += line[: dice.randrange(len(line))]
        elif fate < 0.2:
            image += line[:-1]
        elif fate < 0.3:
            image += b"\0" * dice.randrange(1, 5000)
        elif fate < 0.35:
            image += line[:50] + bytes(dice.randrange(256) for _ in range(80)) + b"\n"
        else:
            image += line
    image += b"\n" + event(400) + b'{"timestamp":"2026'
    loop.append(bytes(image))
    with start().stub() as stub:
        messages = list(watch(stub, "alpha"))
        snapshot = stub.GetSnapshot(sprite_pb2.GetSnapshotRequest(loop_id="alpha"), metadata=BEARER).snapshot
    check_stream(messages, bytes(image))
    assert kinds(messages)[-2:] == ["bookmark", "goodbye"]
    assert messages[-2].bookmark.position == snapshot.position == place(bytes(image))
    assert raw_events(messages)[-1][1] == event(400)[:-1].decode()
    whole = {raw for _, raw in raw_events(messages)}
    assert sum(event_line in bytes(image) for event_line in map(str.encode, whole)) == len(whole)
    assert any(message.HasField("invalid_line") for message in messages)


def test_log_that_is_swapped_again_and_again_is_read_without_a_defect(
    loop: LoopFiles, start: StartAgent
) -> None:
    """Readers, snapshots and a log that never rests: answers or reasons, never a fault of the agent."""
    logs = [
        b"".join(event(n, message=salt * 50) for n in range(1, size))
        for salt, size in (("a", 900), ("b", 40))
    ]
    loop.append(logs[0])
    agent = start()
    done = threading.Event()
    failures: list[str] = []

    def snapshots() -> None:
        with agent.stub() as stub:
            while not done.is_set():
                try:
                    stub.GetSnapshot(sprite_pb2.GetSnapshotRequest(loop_id="alpha"), metadata=BEARER)
                except Exception as error:  # noqa: BLE001, RUF100 - whatever it is, it is judged
                    failures.append(str(error))

    def streams() -> None:
        with agent.stub() as stub:
            after = None
            while not done.is_set():
                try:
                    for message in watch(stub, "alpha", after=after):
                        after = message.head.position
                except Exception as error:  # noqa: BLE001, RUF100
                    failures.append(str(error))

    threads = [threading.Thread(target=work) for work in (snapshots, snapshots, streams, streams, streams)]
    for thread in threads:
        thread.start()
    for turn in range(100):
        loop.replace(logs[turn % 2])
        if turn % 3 == 0:
            loop.append(event(turn) + b"torn")
        if turn % 7 == 0:
            loop.log.write_bytes(logs[0][: 997 * turn])
        done.wait(0.01)
    done.set()
    for thread in threads:
        thread.join()
    assert "Traceback" not in agent.said()
    assert not [text for text in failures if "INTERNAL" in text or "agent_fault" in text or "UNKNOWN" in text]
    with agent.stub() as stub:
        loop.replace(logs[1])
        messages = list(watch(stub, "alpha"))
    check_stream(messages, logs[1])
