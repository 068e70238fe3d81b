"""WatchTraces against real agents: trace files that grow, move aside, are cut, and agents that end."""

import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2, telemetry_pb2, telemetry_pb2_grpc
from tests.harness.agents import (
    BEARER,
    CALL_SECONDS,
    ROOT,
    Agent,
    StartAgent,
    environment,
    serve_words,
)
from tests.harness.loops import Repo
from tests.harness.refusals import refusal
from tests.harness.streams import place, raw_call
from tests.harness.traces import (
    TraceFile,
    TraceMessage,
    check_batches,
    kinds,
    numbers,
    places,
    refused,
    resets,
    span,
    spans,
    until_kind,
    until_number,
    watch_traces,
)

Stub = telemetry_pb2_grpc.TelemetryServiceStub
Reset = sprite_pb2.LogReset
NAME = "trace.jsonl"
METHOD = "/superloop.ops.v1.TelemetryService/WatchTraces"


@contextmanager
def telemetry(agent: Agent) -> Iterator[Stub]:
    options = (("grpc.use_local_subchannel_pool", 1),)
    with grpc.insecure_channel(agent.address, options=options) as channel:
        yield telemetry_pb2_grpc.TelemetryServiceStub(channel)


@pytest.fixture
def stub(channel: grpc.Channel) -> Stub:
    return telemetry_pb2_grpc.TelemetryServiceStub(channel)


@pytest.fixture
def file(make_loop: Any) -> TraceFile:
    """The trace file of a loop of the shared agent, never used before."""
    return TraceFile(make_loop().directory / NAME)


def loop_of(file: TraceFile) -> str:
    return file.path.parent.name


def name_of(file: TraceFile) -> str:
    return f".superloop/loops/{loop_of(file)}/{NAME}"


def test_lines_are_sent_bookmarked_and_ended(stub: Stub, file: TraceFile) -> None:
    file.append(spans(1, 600) + b"bad\n" + span(602))
    messages = list(watch_traces(stub, loop_of(file)))
    check_batches(messages)
    assert (kinds(messages)[0], kinds(messages)[-2:]) == ("opened", ["bookmark", "goodbye"])
    assert numbers(messages, name_of(file)) == [*range(1, 601), 602]
    assert refused(messages) == [(601, "invalid_json_line")]
    opened, bookmark, goodbye = messages[0].opened, messages[-2].bookmark, messages[-1].goodbye
    assert (opened.follow, opened.max_lines, opened.bookmark_interval.seconds) == (False, 0, 5)
    assert len(opened.boot_id) == 32
    assert {found.file: found.position for found in bookmark.places} == {
        name_of(file): place(file.path.read_bytes())
    }
    assert goodbye.reason == "drained_to_head"


def test_reading_goes_on_after_a_place(stub: Stub, file: TraceFile) -> None:
    file.append(spans(1, 5))
    first = list(watch_traces(stub, loop_of(file), max_lines=2))
    assert (numbers(first), first[-1].goodbye.reason) == ([1, 2], "max_lines_reached")
    strange = {"elsewhere.jsonl": place(span(1)), **places(first)}
    rest = list(watch_traces(stub, loop_of(file), strange))
    assert numbers(rest) == [3, 4, 5]
    assert [(found.file, found.position.line) for found in rest[0].opened.start] == [(name_of(file), 2)]


def test_agent_without_any_trace_file_waits_for_one(stub: Stub, file: TraceFile) -> None:
    stream = watch_traces(stub, loop_of(file), follow=True)
    assert not until_kind(stream, "bookmark")[-1].bookmark.places
    file.append(span(1))
    assert numbers(until_number(stream, 1)) == [1]
    stream.cancel()


def test_follower_gets_bookmarks_at_its_interval(stub: Stub, file: TraceFile) -> None:
    file.append(span(1))
    stream = watch_traces(stub, loop_of(file), follow=True, bookmark_interval=Duration(seconds=1))
    first, later = until_kind(stream, "bookmark")[-1], until_kind(stream, "bookmark")[-1]
    assert first.bookmark == later.bookmark
    assert 0.9e9 < later.sent_at.ToNanoseconds() - first.sent_at.ToNanoseconds() < 2.5e9
    stream.cancel()


@pytest.mark.parametrize(
    ("way", "reason"),
    [
        ("replaced", Reset.REASON_REPLACED),
        ("rewritten", Reset.REASON_REWRITTEN),
        ("truncated", Reset.REASON_TRUNCATED),
    ],
)
def test_follower_is_told_when_a_file_became_another(
    stub: Stub, file: TraceFile, way: str, reason: int
) -> None:
    file.append(spans(1, 3))
    stream = watch_traces(stub, loop_of(file), follow=True)
    until_kind(stream, "bookmark")
    if way == "replaced":
        fresh = file.path.with_name("fresh")
        fresh.write_bytes(spans(11, 14))
        fresh.replace(file.path)
        expected = [11, 12, 13, 14]
    else:
        content = span(1) + span(12) + span(14) if way == "rewritten" else spans(1, 2)
        with file.path.open("r+b") as handle:
            handle.write(content)
            handle.truncate()
        expected = numbers_of(content)
    messages = until_number(stream, expected[-1])
    assert resets(messages) == [reason]
    assert numbers(messages) == expected
    stream.cancel()


def numbers_of(content: bytes) -> list[int]:
    return [int(line.rpartition(b'"number":')[2].rstrip(b"}")) for line in content.splitlines()]


def test_follower_gets_each_line_once_from_processes_that_rotate(
    stub: Stub, file: TraceFile, tmp_path: Path
) -> None:
    """Two processes write; the file moves aside some twenty times."""
    lines, progress = tmp_path / "lines", tmp_path / "progress"
    lines.write_bytes(spans(0, 2399))
    progress.write_text("0")
    script = (
        "import sys, time\n"
        "from spritemesh import rotation\n"
        "path, lines, progress, first = sys.argv[1:]\n"
        "rows = open(lines, 'rb').read().splitlines(True)[int(first):][:1200]\n"
        "for at in range(0, 1200, 10):\n"
        # However slow the reader is: no more than the files hold.
        "    while 2 * at - int(open(progress).read() or 0) > 300:\n"
        "        time.sleep(0.002)\n"
        "    rotation.append_lines(path, b''.join(rows[at:at + 10]), limit=30_000)\n"
    )
    stream = watch_traces(stub, loop_of(file), follow=True)
    until_kind(stream, "opened")
    writers = [
        subprocess.Popen(
            [sys.executable, "-c", script, str(file.path), str(lines), str(progress), str(first)], cwd=ROOT
        )
        for first in (0, 1200)
    ]
    found: list[TraceMessage] = []
    while len(numbers(found)) < 2400:
        found.append(next(stream))
        progress.write_text(str(len(numbers(found))))
    assert [writer.wait(CALL_SECONDS) for writer in writers] == [0, 0]
    stream.cancel()
    check_batches(found)
    assert sorted(numbers(found)) == list(range(2400))
    assert resets(found) == []
    assert file.old(4).exists()


def test_agent_that_is_killed_is_followed_by_one_that_goes_on(repo: Repo, start: StartAgent) -> None:
    """The file moves aside between and during both."""
    file = TraceFile(repo.root / NAME, limit=30_000)
    stop = threading.Event()
    written = [0]

    def write() -> None:
        while not stop.wait(0.002):
            # However long an agent takes to start: no more than the files hold.
            if written[0] - len(found) < 400:
                file.append(spans(written[0] + 1, written[0] + 5))
                written[0] += 5

    reached: dict[str, pb.LogPosition] = {}
    found: list[int] = []
    writer = threading.Thread(target=write)
    writer.start()
    try:
        for turn in range(3):
            agent = start()
            with telemetry(agent) as stub:
                stream = watch_traces(stub, after=reached, follow=turn < 2)
                last_wanted = written[0]
                try:
                    for message in stream:
                        if turn == 2:
                            stop.set()
                        assert not message.HasField("log_reset")
                        found += numbers([message])
                        reached |= places([message])
                        if turn < 2 and found and found[-1] >= last_wanted + 200:
                            agent.end()
                except grpc.RpcError:
                    assert turn < 2
    finally:
        stop.set()
        writer.join()
    assert found == list(range(1, len(found) + 1))
    assert file.old(1).exists()


def test_agent_that_drains_says_goodbye_with_its_last_bookmark(repo: Repo, start: StartAgent) -> None:
    file = TraceFile(repo.root / NAME)
    file.append(spans(1, 3))
    agent = start()
    with telemetry(agent) as stub:
        stream = watch_traces(stub, follow=True)
        until_kind(stream, "bookmark")
        agent.signal()
        messages = list(stream)
    assert kinds(messages) == ["bookmark", "goodbye"]
    assert messages[0].bookmark.places[0].position == place(spans(1, 3))
    assert messages[1].goodbye.reason == "agent_draining"
    assert messages[1].goodbye.retry_after.ToMilliseconds() > 0
    assert agent.wait() == 0


def test_named_files_are_served_wherever_they_are(repo: Repo, start: StartAgent, tmp_path: Path) -> None:
    """Through a link, too: whoever may write to the repository decides what is in it."""
    inside, outside, behind = repo.root / "logs/x.jsonl", tmp_path / "out/y.jsonl", tmp_path / "out/z.jsonl"
    for number, path in enumerate((inside, outside, behind), 1):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(span(number))
    (repo.root / NAME).symlink_to(behind)
    agent = start("--runtime-traces", "./logs/x.jsonl", "--runtime-traces", str(outside))
    with telemetry(agent) as stub:
        messages = list(watch_traces(stub))
    assert {name: numbers(messages, name) for name in ("logs/x.jsonl", str(outside), NAME)} == {
        "logs/x.jsonl": [1],
        str(outside): [2],
        NAME: [3],
    }


def test_file_that_may_not_be_read_is_warned_of_and_hides_no_other(repo: Repo, start: StartAgent) -> None:
    (repo.root / NAME).symlink_to(NAME)  # to itself, so that not even root can open it
    TraceFile(repo.root / ".superloop" / NAME).append(span(1))
    agent = start()
    with telemetry(agent) as stub:
        for _ in range(2):
            assert numbers(watch_traces(stub)) == [1]
    assert "log_unavailable" in agent.said()
    assert "Traceback" not in agent.said()


@pytest.mark.parametrize("path", ["", "a\nb"])
def test_name_of_a_file_that_no_message_can_hold_is_refused(repo: Repo, path: str) -> None:
    words = serve_words(repo.root, "--token", "t", "--runtime-traces", path)
    ended = subprocess.run(
        words, capture_output=True, cwd=ROOT, env=environment(), timeout=CALL_SECONDS, check=False
    )
    assert ended.returncode == 1
    assert b"--runtime-traces" in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_requests_that_cannot_be_meant_are_refused(stub: Stub) -> None:
    def asked(**members: Any) -> telemetry_pb2.WatchTracesRequest:
        return telemetry_pb2.WatchTracesRequest(**members)

    one = telemetry_pb2.FilePlace(file=NAME)
    cases = [
        (asked(loop_id="../x"), "invalid_loop_id", "loop_id"),
        (asked(after=[one, one]), "invalid_request", "after"),
        (asked(after=[telemetry_pb2.FilePlace(file=str(n)) for n in range(65)]), "invalid_request", "after"),
        (asked(bookmark_interval=Duration(seconds=-1)), "invalid_request", "bookmark_interval"),
    ]
    for request, reason, field in cases:
        found = refusal(lambda: next(stub.WatchTraces(request, metadata=BEARER)))  # noqa: B023
        assert (found.reason, found.field) == (reason, field)


def test_stranger_is_refused(stub: Stub, channel: grpc.Channel) -> None:
    for metadata, reason in (((), "token_missing"), ((("x-ops-token", "wrong"),), "token_wrong")):
        request = telemetry_pb2.WatchTracesRequest()
        found = refusal(lambda: next(stub.WatchTraces(request, metadata=metadata)))  # noqa: B023
        assert (found.code, found.reason) == (grpc.StatusCode.UNAUTHENTICATED, reason)
    found = refusal(lambda: next(raw_call(channel, METHOD, stream=True)(b"\xff", metadata=BEARER)))
    assert found.reason == "invalid_request"


def test_trace_streams_of_a_loop_are_bounded_apart_from_event_streams(repo: Repo, start: StartAgent) -> None:
    repo.loop("alpha")
    agent = start("--limit", "subscribers-per-loop=1")
    with telemetry(agent) as stub, agent.stub() as events:
        streams = [
            watch_traces(stub, "alpha", follow=True),
            watch_traces(stub, "beta", follow=True),
            events.WatchEvents(sprite_pb2.WatchEventsRequest(loop_id="alpha", follow=True), metadata=BEARER),
        ]
        for stream in streams:
            next(stream)
        found = refusal(lambda: next(watch_traces(stub, "alpha", follow=True)))
        assert (found.code, found.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "too_many_subscribers")
        for stream in streams:
            stream.cancel()


def test_stalled_reader_costs_little(repo: Repo, start: StartAgent) -> None:
    file = TraceFile(repo.root / NAME)
    file.append(spans(1, 25_000))
    agent = start()
    before = agent.settled_rss_bytes()
    options = (("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0))
    with grpc.insecure_channel(agent.address, options=options) as channel:
        streams = [watch_traces(telemetry_pb2_grpc.TelemetryServiceStub(channel)) for _ in range(4)]
        for stream in streams:
            next(stream)
        assert agent.settled_rss_bytes() - before < 12e6
        for stream in streams:
            stream.cancel()
