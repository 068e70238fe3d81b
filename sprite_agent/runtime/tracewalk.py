"""One subscriber's way through one trace file, over all the files that it moves on to.

A file is read to its end under whatever name it has, then the one that was begun after it. Its end is known
once there is a younger one: nobody appends to a file that moved aside. The place of a walk stays at that end
until the younger file has a line, so that no place but the first ever means "from the beginning".
"""

from collections.abc import Callable, Iterator, Mapping, Sequence

from sprite_agent.runtime.eventlog import Head
from sprite_agent.runtime.generations import HeldLog, RotatedLog
from sprite_agent.runtime.lines import Allowance, Bad, LineWalk, Misfit, find_place, log_head
from sprite_agent.runtime.tracelines import MAX_LINE_BYTES, fill_lines
from spritemesh.errors import OpsError
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import sprite_pb2, telemetry_pb2

_Message = telemetry_pb2.WatchTracesResponse
_REPLACED = sprite_pb2.LogReset.REASON_REPLACED
_AHEAD = sprite_pb2.LogReset.REASON_AHEAD


class TraceWalk(LineWalk[_Message]):
    """Reads the file that subscribers know as `name`. wanted: the place after which it begins, line 0 for the
    oldest line that is there. walks: all of the stream, this one included. clock: seconds since 1970."""

    def __init__(
        self,
        name: str,
        files: RotatedLog,
        wanted: pb.LogPosition,
        allowance: Allowance,
        walks: "Sequence[TraceWalk]",
        *,
        batch_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        super().__init__(allowance, batch_bytes=batch_bytes, longest=MAX_LINE_BYTES)
        self.name = name
        self._files = files
        self._walks = walks
        self._clock = clock
        # What is to be found before anything is read.
        self._sought: pb.LogPosition | None = wanted
        self._held: HeldLog | None = None
        self._resets: list[_Message] = []  # that have not been handed out

    @property
    def is_found(self) -> bool:
        """Whether there is a file, and a place in it after which reading goes on."""
        return self._sought is None

    @property
    def place(self) -> pb.LogPosition | None:
        """Where to resume: the place reached, or the wanted one as long as it is not found. None: at the
        beginning."""
        reached = self.position if self._sought is None else self._sought
        return reached if reached.line else None

    def take_in(self) -> None:
        """See which files there are, index what was appended, and find the place. Raises OpsError of
        LogIndex; may take a second a GiB."""
        if not self._files.is_settled():
            self._files.look()
        if self._sought is None and self._held is not None:
            head = self._held.refresh()
            if head.generation == self._head.generation:
                self._head = head
            else:
                self._sought = self.position
                self._files.look()  # there may be a copy of what it was
        if self._is_alias():
            return
        if self._sought is not None:
            self._resets += self._seek(self._sought)
        if self._sought is None and self._is_drained:
            self._resets += self._move_on()

    def is_quick(self) -> bool:
        """Whether take_in takes no more than a few milliseconds now."""
        if not self._files.is_settled():
            return False
        if self._sought is not None or self._held is None:
            return not self._files.logs or self._is_alias()
        moves_on = self._is_drained and not self._is_alias()
        younger = self._files.after(self._held)[0] if moves_on else None
        return all(log is None or log.refresh_if_quick() is not None for log in (self._held, younger))

    def may_be_behind(self) -> bool:
        """Whether something has changed since this walk looked; costs two stat calls."""
        if not self._files.is_settled():
            return True
        return self._held is not None and self._held.refresh_if_idle() != self._head

    def messages(self, *, patient: bool) -> Iterator[_Message]:
        """Messages of the next 256 KiB or so, each made when it is asked for; none when all was handed out.

        It may be left half way. patient, `is_stuck`: as for EventFeed. Raises OpsError of LogIndex; the walk
        can go on afterwards.
        """
        self.is_stuck = False
        self.take_in()
        while self._resets:
            yield self._resets.pop(0)
        if self._sought is None and not self._is_drained:
            yield from self._read_block(patient)

    @property
    def _is_drained(self) -> bool:
        return self._offset >= self._head.offset

    def failed(self, error: OpsError) -> None:
        """Take note of an error. Most tell that the file changed meanwhile: the next call sees how."""
        if isinstance(error.__cause__, OSError):
            self._files.warn(error.__cause__)

    # --- files --------------------------------------------------------------------------------------

    def _is_alias(self) -> bool:
        """Whether the name is a link by now that leads to where another walk of the stream reads. Of two that
        both read there the first goes on."""
        same = (walk for walk in self._walks if walk._files.real_path == self._files.real_path)
        return next((walk for walk in same if walk.is_found), self) is not self

    def _seek(self, wanted: pb.LogPosition) -> list[_Message]:
        """Find the place in the files that are there. One that fits none is only given up once there is a
        line to go on with, so that no place without a line is ever handed out but in a reset.

        Where it fits several, since they begin alike, the oldest counts, so that nothing is lost; but not one
        that another goes on from, as its copy.
        """
        misfits: dict[HeldLog, Misfit.ValueType] = {}
        fitting: tuple[HeldLog, Head] | None = None
        # A number alone fits any of them, so only the youngest counts.
        logs = self._files.logs if wanted.digest else self._files.logs[-1:]
        for log in logs if wanted.line else ():
            if not log.may_begin_with(wanted.first_line_digest):
                continue
            head = log.refresh()
            least = wanted if fitting is None else log_head(fitting[1]).position
            _, misfit = find_place(log, head, least)
            if misfit is None:
                fitting = log, head
            else:
                misfits[log] = misfit
        if fitting is not None:
            return self._enter(*fitting, wanted)
        start = self._start(misfits)
        if start is None or (wanted.line and not start.refresh().line):
            return []
        if not wanted.line:
            return self._enter(start, start.refresh(), wanted)
        reason = _AHEAD if _AHEAD in misfits.values() else misfits.get(start, _REPLACED)
        return self._enter(start, start.refresh(), wanted, reason)

    def _start(self, misfits: "Mapping[HeldLog, Misfit.ValueType]") -> HeldLog | None:
        """Where to begin without a place, or after one that fits no file."""
        logs = self._files.logs
        if self._held is not None:  # the place was lost while it was read: what is older has been handed out
            return self._held if self._held in logs else self._files.after(self._held)[0]
        same = [log for log in logs if misfits.get(log, _REPLACED) not in {_REPLACED, _AHEAD}]
        return next((log for log in (*same, *logs) if log.refresh().line), logs[0] if logs else None)

    def _move_on(self) -> list[_Message]:
        """Go on in the next file, if this one is at its end."""
        if self._held is None:
            return []
        younger, is_gap = self._files.after(self._held)
        while younger is not None:
            # Asked before the heads: a file that a younger one follows does not grow any more.
            further, is_wider = self._files.after(younger)
            if self._held.refresh() != self._head:
                self.take_in()  # it had grown before it moved
                return []
            head = younger.refresh()
            if head.line:
                # After a gap it may still be a copy of this one, put in its place.
                wanted = self.position if is_gap else pb.LogPosition()
                return self._enter(younger, head, wanted, find_place(younger, head, wanted)[1])
            younger, is_gap = further, is_gap or is_wider
        return []

    def _enter(
        self, log: HeldLog, head: Head, wanted: pb.LogPosition, misfit: "Misfit.ValueType | None" = None
    ) -> list[_Message]:
        """Read on in a file: after the wanted place, or from its beginning where that does not fit."""
        place = find_place(log, head, wanted if misfit is None else pb.LogPosition())[0]
        if log is not self._held:
            self._told_line = 0
        self._log = self._held = log
        self._head = head
        self._sought = None
        return self._go_to(place, misfit, wanted)

    # --- messages -----------------------------------------------------------------------------------

    def _message(self) -> _Message:
        message = _Message(file=self.name, head=self._wire_head())
        message.sent_at.FromNanoseconds(int(self._clock() * 1e9))
        return message

    def _new_batch(self, first_line: int) -> _Message:
        message = self._message()
        message.batch.first_line = first_line
        message.batch.first_line_digest = self._head.first_line_digest
        return message

    def _fill(
        self, message: _Message, first_number: int, lines: Sequence[bytes], *, patient: bool
    ) -> tuple[int, str | None]:
        return fill_lines(message.batch.lines, first_number, lines, patient=patient)

    def _close_batch(self, message: _Message) -> int:
        batch = message.batch
        batch.last_line = self._line
        batch.end_digest = self._hasher.digest()
        return batch.last_line - batch.first_line + 1

    def _invalid(self, bad: Bad) -> _Message:
        message = self._message()
        message.invalid_line.CopyFrom(bad.message())
        return message

    def _reset(self, misfit: "Misfit.ValueType", wanted: pb.LogPosition) -> _Message:
        message = self._message()
        message.log_reset.reason = misfit
        message.log_reset.requested.CopyFrom(wanted)
        message.log_reset.resume.CopyFrom(self.position)
        return message
