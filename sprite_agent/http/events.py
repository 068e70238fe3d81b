"""The document of GET /ops/events: all events after a cursor, gathered before the first byte goes out.

An error can then still be a status, and a length can be told. A document of a large log goes through a
temporary file, so that memory does not follow the length of the log.
"""

import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, contextmanager
from tempfile import SpooledTemporaryFile, gettempdir
from typing import IO, Protocol, TypeVar

from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from sprite_agent.http.answers import CONTENT_TYPE
from sprite_agent.runtime.feed import FeedOptions
from sprite_agent.runtime.loop import LoopReader
from spritemesh import jsontext
from spritemesh.bridge import event_documents
from spritemesh.errors import OpsError
from spritemesh.times import format_utc
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2

# Beyond this a document is kept on disk.
_MEMORY_BYTES = 4 * 1024 * 1024
_CHUNK_BYTES = 256 * 1024
# No log is longer, and a message can hold it.
_MAX_EVENTS = 2**63 - 1

_T = TypeVar("_T")


class Run(Protocol):
    """Does blocking work in a thread."""

    async def __call__(self, work: Callable[[], _T], /) -> _T: ...


class EventDocument:
    """The answer in the making. Blocking: of the read pool, one call at a time.

    start: number of lines that the caller has. max_events 0: all.
    """

    def __init__(self, reader: LoopReader, *, start: int, max_events: int, trace_id: str | None) -> None:
        self._reader = reader
        self._start = start
        self._trace_id = trace_id
        self._feed = reader.feed(FeedOptions(max_events=min(max_events, _MAX_EVENTS), trace_id=trace_id))
        self._file: IO[bytes] = SpooledTemporaryFile(_MEMORY_BYTES)  # noqa: SIM115 - `close` is for that
        self._offset = start
        self._line_count = 0
        self._last_line = 0
        self._separator = b""

    def close(self) -> None:
        """Give up what was gathered."""
        self._file.close()

    def open(self) -> None:
        """Find the place. Raises OpsError: those of LoopReader.head, and `cursor_ahead`."""
        head = self._reader.head()
        if self._start > head.line:
            raise self._ahead(head.line)
        for message in self._feed.open(pb.LogPosition(line=self._start)):
            if message.HasField("log_reset"):
                raise self._ahead(message.head.position.line)
            # What is appended from now on is for the next call: a busy log would have no end.
            self._line_count = self._last_line = message.head.position.line
        opening = {"ok": True, "schemaVersion": "v1"}
        if self._trace_id is not None:
            opening["traceId"] = self._trace_id
        opening["source"] = {"repoPath": self._reader.repo, "loopId": self._reader.loop_id}
        with _spooling():
            self._file.write(jsontext.encode_ascii(opening)[:-1] + b',"events":[')

    def step(self) -> bool:
        """Gather the next 256 KiB of the log or so; whether there is more.

        Raises OpsError: the reason of a line that is no event, and those of LogIndex.
        """
        messages = self._feed.read()
        for message in messages:
            self._take(message)
        return bool(messages) and not self._feed.finished and self._feed.position.line < self._last_line

    def finish(self) -> tuple[IO[bytes], int]:
        """The file with the whole document, at its beginning, and its length in bytes."""
        cursor = {
            "eventLineOffset": self._offset,
            "eventLineCount": self._line_count,
            "updatedAt": format_utc(time.time()),
        }
        with _spooling():
            self._file.write(b'],"cursor":' + jsontext.encode_ascii(cursor) + b"}")
            length = self._file.tell()
            self._file.seek(0)
        return self._file, length

    def _take(self, message: sprite_pb2.WatchEventsResponse) -> None:
        if message.HasField("invalid_line"):
            bad = message.invalid_line
            raise OpsError(
                bad.reason,
                f"{self._reader.paths.events}: line {bad.line} is no event ({bad.size_bytes} bytes)",
            )
        if message.HasField("log_reset"):
            raise OpsError(
                "log_unavailable",
                f"{self._reader.paths.events} was replaced while it was read",
                retry_after=1,
            )
        self._line_count = message.batch.line_count
        with _spooling():
            for document in event_documents(message.batch):
                self._file.write(self._separator + jsontext.encode_ascii(document))
                self._separator = b","
                self._offset = document["sequence"]["value"]

    def _ahead(self, lines: int) -> OpsError:
        return OpsError(
            "cursor_ahead",
            f"cursor {self._start} is beyond the {lines} lines of {self._reader.paths.events}",
            field="cursor",
        )


@contextmanager
def _spooling() -> Iterator[None]:
    """Turns a full disk into an OpsError."""
    try:
        yield
    except OSError as error:
        raise OpsError(
            "state_unwritable", f"the answer cannot be kept in {gettempdir()}: {error.strerror}"
        ) from error


class SpooledAnswer(StreamingResponse):
    """A document from a file. held: closed afterwards, whatever happens; the file is among it."""

    def __init__(self, file: IO[bytes], length: int, run: Run, held: ExitStack) -> None:
        headers = {"content-type": CONTENT_TYPE, "content-length": str(length)}
        super().__init__(_chunks(file, run), headers=headers)
        self._held = held

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with self._held:
            await super().__call__(scope, receive, send)


async def _chunks(file: IO[bytes], run: Run) -> AsyncIterator[bytes]:
    while chunk := await run(lambda: file.read(_CHUNK_BYTES)):
        yield chunk
