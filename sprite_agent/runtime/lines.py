"""The way through the lines of one log: from a verified place on, in blocks, with a digest that runs along.

The file is the buffer. A walk holds a place and a running digest, and reads on from there when it is asked
to; nothing is queued for a slow reader. What messages are made of the lines is for its subclasses.
"""

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from typing import Generic, NamedTuple, TypeVar

from sprite_agent.runtime.eventlog import Head, LogIndex, Place
from spritemesh.errors import OpsError
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2

# A batch holds this many lines or bytes of lines, whichever comes first: smaller ones cost a tenth of
# the rate and more, larger ones gain little for the memory they hold. Over a slow way a subscriber may want
# smaller ones, to see that something comes.
BATCH_LINES = 256
BATCH_BYTES = 64 * 1024
MIN_BATCH_BYTES = 4 * 1024
READ_BYTES = 256 * 1024
_PREFIX_BYTES = 256

Misfit = sprite_pb2.LogReset.Reason
Message = TypeVar("Message")
NO_HEAD = Head(0, 0, 0, 0, 0, hashlib.sha256().digest(), b"", hashlib.sha256().hexdigest())


class Bad(NamedTuple):
    """A line that is refused. digest: SHA-256 of its bytes, 32 bytes. prefix: its first bytes."""

    number: int
    size: int
    digest: bytes
    reason: str
    prefix: bytes

    def message(self) -> sprite_pb2.InvalidLine:
        """As it travels."""
        return sprite_pb2.InvalidLine(
            line=self.number,
            size_bytes=self.size,
            sha256=self.digest,
            reason=self.reason,
            prefix=self.prefix.decode("utf-8", "replace"),
        )


class Allowance:
    """How much a subscriber may still get. limit 0: any amount."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._taken = 0
        # Set when all of it is taken: nothing more will come.
        self.is_spent = False

    def within(self, most: int) -> int:
        """`most`, or what is left when that is less."""
        return min(most, self._limit - self._taken) if self._limit else most

    def take(self, count: int) -> None:
        """Count what was handed out."""
        self._taken += count
        self.is_spent = self._taken == self._limit != 0


class LineWalk(ABC, Generic[Message]):
    """Reads one log at a time from a place on.

    Subclasses set `_log` before anything is read. batch_bytes: of a batch's lines, unless a single one is
    longer. longest: bytes of a line beyond which it is never held whole.
    """

    _log: LogIndex

    def __init__(self, allowance: Allowance, *, batch_bytes: int, longest: int) -> None:
        self._allowance = allowance
        self._batch_bytes = batch_bytes
        self._longest = longest
        self._line = 0
        self._offset = 0
        self._hasher = hashlib.sha256()
        self._head = NO_HEAD
        self._told_line = 0  # the last invalid line that was told of
        self._shown_head = (NO_HEAD, log_head(NO_HEAD))  # the head, and how it travels
        self.is_stuck = False

    @property
    def position(self) -> pb.LogPosition:
        """The place up to which everything has been handed out."""
        return pb.LogPosition(
            line=self._line,
            digest=self._hasher.digest(),
            first_line_digest=self._head.first_line_digest if self._line else b"",
        )

    # --- of subclasses ------------------------------------------------------------------------------

    @abstractmethod
    def _new_batch(self, first_line: int) -> Message:
        """A batch without lines yet."""

    @abstractmethod
    def _fill(
        self, message: Message, first_number: int, lines: Sequence[bytes], *, patient: bool
    ) -> tuple[int, str | None]:
        """Fill a batch from consecutive lines; the answer is that of `events.fill_events`."""

    @abstractmethod
    def _close_batch(self, message: Message) -> int:
        """Complete a batch that ends at the place reached; how much of the allowance it takes."""

    @abstractmethod
    def _invalid(self, bad: Bad) -> Message:
        """Tells of a line that is refused."""

    @abstractmethod
    def _reset(self, misfit: "Misfit.ValueType", wanted: pb.LogPosition) -> Message:
        """Tells that reading goes on at the place reached, since the wanted one does not fit."""

    # --- places -------------------------------------------------------------------------------------

    def _go_to(
        self, place: Place, misfit: "Misfit.ValueType | None", wanted: pb.LogPosition
    ) -> list[Message]:
        """Go on reading at `place`; the LogReset that tells of it when that is not where it was wanted."""
        self._line, self._offset, self._hasher = place.line, place.offset, place.hasher
        if misfit is None:
            return []
        self._told_line = 0
        return [self._reset(misfit, wanted)]

    def _wire_head(self) -> sprite_pb2.LogHead:
        """The head as it travels."""
        if self._head is not self._shown_head[0]:
            self._shown_head = (self._head, log_head(self._head))
        return self._shown_head[1]

    # --- lines --------------------------------------------------------------------------------------

    def _read_block(self, patient: bool) -> Iterator[Message]:
        """Messages of the next 256 KiB or so; each is made when it is asked for."""
        available = self._head.offset - self._offset
        data = self._log.read(self._head, self._offset, min(available, READ_BYTES))
        is_last = len(data) == available
        most_bytes = self._batch_bytes
        position = 0
        while position < len(data) and not self._allowance.is_spent:
            if position and not is_last and len(data) - position < most_bytes:
                return  # a batch cut short here would be small: the next block begins with it
            end = data.rfind(b"\n", position, position + most_bytes) + 1
            if not end:
                end = data.find(b"\n", position) + 1
            if not end:
                if position == 0:
                    self.is_stuck = not patient
                    if patient:
                        yield from self._read_long_line()
                return
            most = self._allowance.within(BATCH_LINES)
            lines = data[position : end - 1].split(b"\n", most)
            if len(lines) > most:
                end -= len(lines.pop()) + 1
            yield from self._read_lines(lines, memoryview(data)[position:end], patient)
            if self.is_stuck:
                return
            position = end

    def _read_lines(self, lines: list[bytes], data: memoryview, patient: bool) -> Iterator[Message]:
        """A batch of `lines`, and one more from each line on that is refused. data: their bytes on disk."""
        told = 0  # 1: the batch begins with an invalid line that has been told of
        while lines:
            first = self._line + 1
            message = self._new_batch(first)
            rest = lines[told:] if told else lines
            taken, reason = self._fill(message, first + told, rest, patient=patient)
            taken += told
            if taken:
                size = len(data) if taken == len(lines) else sum(map(len, lines[:taken])) + taken
                self._hasher.update(data[:size])
                self._offset += size
                yield self._closed(message, taken)
                lines, data = lines[taken:], data[size:]
            if reason is None:
                self.is_stuck = True
                return
            told = 1 if reason else 0
            if reason and self._line + 1 > self._told_line:
                self._told_line = self._line + 1
                line = lines[0]
                digest = hashlib.sha256(line).digest()
                yield self._invalid(Bad(self._told_line, len(line), digest, reason, line[:_PREFIX_BYTES]))

    def _closed(self, message: Message, lines: int) -> Message:
        """A batch of so many lines, whose bytes have been passed."""
        self._line += lines
        self._allowance.take(self._close_batch(message))
        return message

    def _read_long_line(self) -> Iterator[Message]:
        """A line that is longer than a block; one over the limit is passed without ever holding it whole."""
        data = self._log.read(self._head, self._offset, self._longest + 1)
        end = data.find(b"\n") + 1
        if end:
            yield from self._read_lines([data[: end - 1]], memoryview(data)[:end], True)
            return
        number = self._line + 1
        offset = self._offset
        digest = hashlib.sha256()
        hasher = self._hasher.copy()  # the line may prove to be cut off half way
        prefix = b""
        while True:
            block = self._log.read(self._head, offset, READ_BYTES)
            if not block:
                raise OpsError("log_unavailable", f"{self._log.path} shrank while it was read", retry_after=1)
            prefix = prefix or block[:_PREFIX_BYTES]
            end = block.find(b"\n") + 1
            taken = block[:end] if end else block
            digest.update(taken[:-1] if end else taken)
            hasher.update(taken)
            offset += len(taken)
            if end:
                break
        size = offset - self._offset - 1
        if number > self._told_line:
            self._told_line = number
            yield self._invalid(Bad(number, size, digest.digest(), "line_too_long", prefix))
        message = self._new_batch(number)
        self._offset, self._hasher = offset, hasher
        yield self._closed(message, 1)


def find_place(log: LogIndex, head: Head, wanted: pb.LogPosition) -> "tuple[Place, Misfit.ValueType | None]":
    """The place to read from in the log of `head`, and why that is not `wanted` (architecture 6).

    Changes nothing, so that a log which changes meanwhile can be asked again. Raises OpsError of LogIndex.
    """
    start = Place(0, 0, hashlib.sha256())
    if wanted.line == 0:
        return start, None
    known_first = wanted.first_line_digest
    another = not head.line or (known_first and known_first != head.first_line_digest)
    if wanted.line > head.line:
        if not wanted.digest:
            return start, sprite_pb2.LogReset.REASON_AHEAD
        misfit = sprite_pb2.LogReset.REASON_TRUNCATED
    else:
        place = log.place(head, wanted.line)
        if wanted.digest in {b"", place.digest}:
            return place, None
        misfit = sprite_pb2.LogReset.REASON_REWRITTEN
    return start, sprite_pb2.LogReset.REASON_REPLACED if another else misfit


def log_head(head: Head) -> sprite_pb2.LogHead:
    """A Head as it travels."""
    return sprite_pb2.LogHead(
        position=pb.LogPosition(line=head.line, digest=head.digest, first_line_digest=head.first_line_digest),
        size_bytes=head.size,
        torn_tail_bytes=head.size - head.offset,
    )


def grant_batch_bytes(wanted: int) -> int:
    """The size of batches that is granted for a wanted one; 0: as large as they get."""
    return min(max(wanted, MIN_BATCH_BYTES), BATCH_BYTES) if wanted else BATCH_BYTES
