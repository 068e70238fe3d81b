"""Lines of a sprite's trace files as a WatchTraces stream brings them, and the cursor beside what is stored.

The cursor, traces-cursor.json, tells two things that are true together: the place reached in each file of the
sprite, and how large the file of stored lines was then. What that file holds beyond was stored by somebody
who was killed before the cursor was written; it comes again, and so is cut off first.
"""

from collections.abc import Mapping
from typing import NamedTuple

from manager.core.cursor import Place, place_document, read_place
from spritemesh.errors import OpsError, kind_of
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc
from spritemesh.values import drop, get, whole
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import telemetry_pb2

# What one request can name (telemetry.proto).
MAX_FILES = 64
_MAX_NAME_CHARS = 4096
_DIGEST_BYTES = 32
_LARGEST = 2**63 - 1


class Stored(NamedTuple):
    """The file of stored lines as it was. first_line_digest: SHA-256 over its first line, empty for none: it
    tells the file from those that moved aside."""

    size: int = 0
    first_line_digest: bytes = b""


class TraceCursor(NamedTuple):
    """places: by the name of a file of the sprite. mark: of the trace files when all of them were read, as in
    Heartbeat; 0: not known."""

    places: Mapping[str, Place] = {}
    stored: Stored = Stored()
    mark: int = 0


class TraceIntake:
    """Takes the messages of WatchTraces streams, one stream after the other. places: where to begin."""

    def __init__(self, places: Mapping[str, Place]) -> None:
        self.places = dict(places)
        # Files that were replaced or rewritten, and are read from their beginning.
        self.resets = 0
        self.ended = ""
        self._opened = False

    def resume(self) -> list[telemetry_pb2.FilePlace]:
        """Where a stream has to start to go on from here; that stream is expected from now on."""
        self._opened, self.ended = False, ""
        return [
            telemetry_pb2.FilePlace(
                file=name,
                position=pb.LogPosition(
                    line=place.line, digest=place.digest, first_line_digest=place.first_line_digest
                ),
            )
            for name, place in self.places.items()
            if place.line
        ]

    def accept(self, message: telemetry_pb2.WatchTracesResponse) -> list[bytes]:
        """The new lines that a message brings, each with its newline.

        Raises OpsError: `stream_broken` when lines are missing in between (open again at `resume()`),
        `service_response_invalid`.
        """
        kind = message.WhichOneof("payload")
        if kind == "opened":
            self._opened = True
            self._forget_files({found.file for found in message.opened.start})
        elif kind is None:
            raise _invalid("the stream holds a message of unknown kind")
        elif not self._opened:
            raise _invalid(f"the stream began with {kind} instead of opened")
        elif kind == "batch":
            return self._take_batch(message.file, message.batch)
        elif kind == "bookmark":
            for found in message.bookmark.places:
                self._compare(found)
        elif kind == "log_reset":
            # The place stays until the batch of line 1: without it, all older files would come again.
            self._place(message.file)
            if message.log_reset.resume.line:
                raise _invalid("a log reset resumes elsewhere than at the beginning")
            self.resets += 1
        elif kind == "goodbye":
            self.ended = message.goodbye.reason or "stream_broken"
        return []

    def _take_batch(self, name: str, batch: telemetry_pb2.LineBatch) -> list[bytes]:
        place = self._place(name)
        if batch.first_line == 1:
            # The file moved aside and was read to its end, or was replaced: this is the next one of its name,
            # which may well begin with the same line.
            place = Place()
        if batch.first_line > place.line + 1:
            raise OpsError(
                "stream_broken",
                f"expected line {place.line + 1} next, but the batch covers lines {batch.first_line}"
                f" to {batch.last_line}",
            )
        if not 0 < batch.first_line <= batch.last_line <= _LARGEST:
            raise _invalid("a batch ends before it begins")
        if len(batch.end_digest) != _DIGEST_BYTES or len(batch.first_line_digest) != _DIGEST_BYTES:
            raise _invalid("a batch without the digests of its place")
        if batch.last_line <= place.line:
            if batch.last_line == place.line and place.digest not in {b"", batch.end_digest}:
                raise _invalid(f"line {place.line} has two digests")
            return []
        before = max(batch.first_line - 1, place.line)
        lines = []
        for line in batch.lines:
            if batch.first_line <= line.number <= place.line:
                continue  # it came before
            if not before < line.number <= batch.last_line:
                raise _invalid("the lines of a batch do not follow its range")
            before = line.number
            text = line.record.json
            if not text or "\n" in text:
                raise _invalid(f"line {line.number} is no line")
            lines.append(text.encode() + b"\n")
        self.places[name] = Place(batch.last_line, batch.end_digest, batch.first_line_digest)
        return lines

    def _compare(self, found: telemetry_pb2.FilePlace) -> None:
        """A bookmark only says what was sent."""
        reached = self.places.get(found.file, Place()).line
        if found.position.line > reached:
            raise OpsError(
                "stream_broken",
                f"the stream is at line {found.position.line}, but sent no more than {reached}",
            )

    def _place(self, name: str) -> Place:
        if not _is_name(name):
            raise _invalid("a message of a file without a usable name")
        place = self.places.get(name)
        if place is None:
            if len(self.places) >= MAX_FILES:
                raise _invalid(f"the stream is of more than {MAX_FILES} files")
            place = self.places[name] = Place()
        return place

    def _forget_files(self, there: set[str]) -> None:
        """Make room among the names; a file that is away for a moment keeps its place."""
        if len(self.places) + len(there - self.places.keys()) > MAX_FILES:
            self.places = {name: place for name, place in self.places.items() if name in there}


# --- the document -------------------------------------------------------------------------------------


def read_trace_cursor(document: JSON, path: str) -> TraceCursor:
    """The cursor of a document. Raises OpsError `cursor_invalid`, naming `path` and the member."""

    def refuse(why: str) -> OpsError:
        return OpsError("cursor_invalid", f"cursor {path}: {why}")

    if not isinstance(document, dict):
        raise refuse(f"holds {kind_of(document)} instead of an object")
    size = whole(get(document, "stored", "bytes"))
    if size is None or size > _LARGEST:
        raise refuse("stored.bytes is no size")
    first_line = read_place(document.get("stored"), line=1).first_line_digest
    if size and not first_line:
        raise refuse("stored.firstLineDigest is no digest")
    mark = whole(document.get("mark", 0))
    if mark is None:
        raise refuse("mark is no number")
    files = document.get("files")
    if not isinstance(files, dict) or len(files) > MAX_FILES:
        raise refuse(f"files holds {kind_of(files)} instead of an object of at most {MAX_FILES} members")
    places = {}
    for name, value in files.items():
        if not _is_name(name):
            raise refuse("a name in files is none of a file")
        line = whole(get(value, "line"))
        if line is None or line > _LARGEST:
            raise refuse("a line of files is no line number")
        place = read_place(value, line=line)
        if line and not place.digest:
            raise refuse("a logDigest of files is no digest")
        places[name] = place
    return TraceCursor(places, Stored(size, first_line), mark)


def trace_cursor_document(cursor: TraceCursor, *, loop_id: str, now: float) -> dict[str, JSON]:
    """The document traces-cursor.json."""
    stored = cursor.stored
    return drop(
        {
            "schemaVersion": "v1",
            "loopId": loop_id,
            "updatedAt": format_utc(now),
            "mark": cursor.mark or None,
            "stored": drop({"bytes": stored.size, "firstLineDigest": stored.first_line_digest.hex() or None}),
            "files": {name: place_document(place) for name, place in cursor.places.items()},
        }
    )


def _is_name(name: str) -> bool:
    """Whether messages can hold it, and file systems."""
    if not name or len(name) > _MAX_NAME_CHARS or "\0" in name:
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _invalid(why: str) -> OpsError:
    return OpsError("service_response_invalid", f"traces: {why}")
