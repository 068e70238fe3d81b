"""What an agent may send to a manager: messages of its streams, in any order, with any content.

An input holds messages, each as protobuf's JSON or as its bytes. A live loop takes them, as a session would:
a message is taken or refused with a reason of the table, and whatever was taken becomes documents.
"""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path

from google.protobuf import json_format
from google.protobuf.message import DecodeError, Message

from manager.core.facts import Known
from manager.core.live import LiveLoop
from manager.core.session_record import record_row, session_document
from spritemesh import jsontext
from spritemesh.bridge import event_documents, snapshot_to_json
from spritemesh.errors import OpsError
from superloop.ops.v1 import sprite_pb2
from tests.fuzz.checks import check_json, check_refusal
from tests.fuzz.driver import Run, Target
from tests.fuzz.sections import split
from tests.unit.core.test_observe import SETTINGS

_START = 1_710_147_600.0
_MAX_MESSAGES = 64
_WORDS = (
    b'"head":{"position":{"line":"3"}}', b'"batch":{', b'"events":[', b'"firstLine":"1"', b'"lastLine":"3"',
    b'"endDigest":"AAAA"', b'"bookmark":{"position":{}}', b'"snapshot":{', b'"invalidLine":{"line":"1"}',
    b'"logReset":{"reason":"REASON_REWRITTEN"}', b'"goodbye":{"reason":"drained_to_head"}', b'"opened":{}',
    b'"raw":"{}"', b'"envelope":{"json":"{}"}', b'"sequenceValue":"1"', b"\n--- events json\n",
    b"\n--- beat json\n", b"\n--- events raw\n", b"\n--- step\n", b"\n--- open\n", b"\n--- down\n",
    b'"runtime":{"alive":true}',
    b'"sentAt":"2024-03-11T09:00:00Z"', b'"grantedInterval":"5s"', b'"json":"[1]"',
    b'"iterationLiteral":"1e400"',
)  # fmt: skip


class _Session:
    """A live loop, and what is done with it for each part of an input."""

    def __init__(self) -> None:
        self.now = _START
        self.loop = LiveLoop(SETTINGS, Known(reconcile_rows=[], control_rows=[]), self.now)
        self._open()

    def take(self, word: str, content: bytes) -> Iterator[Hashable]:
        self.now += 0.3
        kind, _, form = word.partition(" ")
        if kind == "step":
            yield from self._step()
        elif kind == "open":
            self._open()
        elif kind == "down":
            self._broke(OpsError("agent_unreachable", "away"))
        elif kind == "events":
            message = sprite_pb2.WatchEventsResponse()
            if _read(message, form, content):
                yield from self._accept(message)
        elif kind == "beat":
            response = sprite_pb2.WatchHeartbeatsResponse()
            if _read(response, form, content):
                self.loop.beat(response.heartbeat, self.now)
                self.loop.tick(self.now)
                yield self.loop.liveness.agent, self.loop.liveness.runtime

    def end(self) -> Iterator[Hashable]:
        yield from self._step()
        self.loop.close(self.now)
        yield from self._step()

    def _open(self) -> None:
        self.loop.open("trace", self.now)
        self.loop.up(sprite_pb2.Opened(boot_id="b"), self.now)

    def _accept(self, message: sprite_pb2.WatchEventsResponse) -> Iterator[Hashable]:
        place = self.loop.intake.place
        try:
            self.loop.accept(message, self.now)
            yield message.WhichOneof("payload")
        except OpsError as error:
            yield check_refusal(error)
            moves = {"log_rewritten", "log_replaced", "log_truncated"}
            assert self.loop.intake.place == place or error.reason in moves
            self._broke(error)
            self._open()
        # As the commands for one pass show the same messages.
        try:
            for document in event_documents(message.batch):
                check_json(jsontext.encode(document))
            if message.bookmark.HasField("snapshot"):
                check_json(jsontext.encode(snapshot_to_json(message.bookmark.snapshot)))
        except OpsError as error:
            yield f"shown {check_refusal(error)}"

    def _broke(self, error: OpsError) -> None:
        self.loop.down(error, self.now + 1, self.now)

    def _step(self) -> Iterator[Hashable]:
        self.loop.tick(self.now)
        self.loop.remember(Known(reconcile_rows=[], control_rows=[]))
        step = self.loop.step(self.now)
        for document in step.outcome:
            if isinstance(document, dict):
                check_json(jsontext.encode(document))
        for record in step.records:
            check_json(jsontext.encode(record_row(record, self.loop.settings, self.now)))
        self.loop.written(step, telemetry_writable=True)
        check_json(jsontext.encode(session_document(self.loop, self.now)))
        yield step.outcome.failure_code, *step.outcome.health["reasonCodes"]


def _read(message: Message, form: str, content: bytes) -> bool:
    """Fill a message; False where gRPC itself or the test's own form would refuse it."""
    try:
        if form == "raw":
            message.ParseFromString(content)
        else:
            json_format.Parse(content, message, ignore_unknown_fields=True)
    except (json_format.ParseError, DecodeError, RecursionError, ValueError):
        return False
    return True


def _run(data: bytes) -> Iterator[Hashable]:
    session = _Session()
    for name, content in split(data)[:_MAX_MESSAGES]:
        yield from session.take(name, content)
    yield from session.end()


@contextmanager
def _opened(_directory: Path) -> Iterator[Run]:
    yield _run


TARGET = Target("peer", _opened, _WORDS)
