"""Spans of a tracer that is on: each writes a line when it ends."""

import sys
from collections.abc import Mapping
from time import perf_counter_ns, time
from types import FrameType, TracebackType
from typing import TYPE_CHECKING

from spritemesh.tracing import identity
from spritemesh.tracing.context import Node, enter, innermost, leave
from spritemesh.tracing.layers import SYSTEM, Layer
from spritemesh.tracing.recorder import LABEL_CHARS, Recorder
from spritemesh.tracing.span import Span
from spritemesh.tracing.summaries import summary, told

if TYPE_CHECKING:
    from spritemesh.tracing.writing.console import Console

_ERROR_CHARS = 500
_STATUSES = ("success", "blocked", "error")
_LONGEST_MS = 1e15


class LiveSpan(Span, eq=False):
    """A span that is traced; a node of the chain of open ones (context.Node)."""

    recorder: Recorder = None  # type: ignore[assignment]  # always given
    layer: Layer = SYSTEM
    trace_id: str = ""
    parent_id: str = ""
    timestamp: str = ""
    input_summary: str = ""
    output_summary: str = ""
    status: str = "success"
    began: int = 0
    # Members of `metadata` so far, beside those that were given, until it begins.
    facts: dict[str, object] | None = None
    # How often it was entered and not left: more than once when a span is used within itself.
    entries: int = 0
    # What a root carries.
    ops_trace_id: str = ""
    # On the console: how far it is indented, and whether its beginning is there.
    depth: int = 0
    is_shown: bool = False
    # As context.Node tells.
    is_anchor: bool = False
    previous: "Node | None" = None
    frame: FrameType | None = None
    place: object = None
    over: "tuple[Node, ...]" = ()
    has_left: bool = False

    def __bool__(self) -> bool:
        return True

    def __enter__(self) -> "LiveSpan":
        try:
            self._enter(sys._getframe(1))
        except BaseException:
            self._abandon()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exit(error)

    async def __aenter__(self) -> "LiveSpan":
        try:
            self._enter(sys._getframe(1))
        except BaseException:
            self._abandon()
            raise
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._exit(error)

    def set_output(self, text: object = None, /, **metadata: object) -> None:
        if text is not None:
            self.output_summary = summary(text)
        if self.facts is None:
            # Made for this call.
            self.facts = metadata
        else:
            self.facts.update(metadata)

    def block(self, reason: object = "") -> None:
        self.status = "blocked"
        self.set_output(reason=reason)

    def fail(self, reason: object = "") -> None:
        self.status = "error"
        self.set_output(reason=reason)

    def record(self, output: object = None, /, **metadata: object) -> str:
        return self.tell(output, self.status, 0.0, metadata)

    def tell(
        self, output: object, status: object, duration_ms: object, metadata: dict[str, object] | None = None
    ) -> str:
        """Write it as a point, without being the current one at any time; its id. Words that are no status,
        and durations that are none, are kept in `metadata`."""
        try:
            self._begin(innermost())
            self.set_output(output, **(metadata or {}))
            if status in _STATUSES:
                self.status = status
            else:
                self.set_output(status=status)
            milliseconds = 0.0
            if isinstance(duration_ms, int | float) and 0 <= duration_ms <= _LONGEST_MS:
                milliseconds = round(float(duration_ms), 3)
            else:
                self.set_output(duration_ms=duration_ms)
            self._write(milliseconds)
        except Exception:
            return ""
        return self.trace_id

    def open(self, console: "Console") -> int:
        """As context.Node tells."""
        if not self.is_shown:
            self.is_shown = True
            console.began(
                self.layer,
                summary(self.operation, LABEL_CHARS),
                self.input_summary,
                self.facts or {},
                self.depth,
            )
        return self.depth + 1

    def _enter(self, frame: FrameType) -> None:
        """frame: of the block. Whatever goes wrong here must not keep the block from being run; an interrupt
        does."""
        self.entries += 1
        if self.entries > 1:
            return
        try:
            self._begin(enter(self, frame))
        except Exception:
            self.facts = None
        self.began = perf_counter_ns()

    def _exit(self, error: BaseException | None) -> None:
        """error: what the block ended with."""
        try:
            ended = perf_counter_ns()
            self.entries -= 1
            if self.entries:
                self.entries = max(self.entries, 0)
                return
            leave(self)
            if error is not None and not _is_plain_end(error):
                self.status = "error"
                self.set_output(
                    error_class=type(error).__name__, error_message=summary(_message(error), _ERROR_CHARS)
                )
            self._write(round((ended - self.began) / 1e6, 3))
        except Exception:
            return
        except BaseException:
            self._abandon()
            raise

    def _abandon(self) -> None:
        """Somebody interrupted the program in the middle of this: nothing must hang from here any more."""
        self.entries = 0
        leave(self)

    def _begin(self, parent: "Node | None") -> None:
        """Have an id, a time and a place in the tree."""
        # As identity.new_id and recorder.stamp do, without calling them: most of a span's time is spent here.
        seconds = time()
        number = int(seconds)
        second = identity.latest
        if second.number != number:
            second = identity.began(number)
        digits = second.start + next(identity.numbers) * identity.STEP & identity.MASK
        self.trace_id = f"{self.layer.prefix}{second.digits}{digits:016x}"
        self.timestamp = f"{second.date}{int((seconds - number) * 1e6):06d}Z"
        recorder = self.recorder
        if parent is None:
            self.parent_id = recorder.parent_id
            self.ops_trace_id = recorder.ops_trace_id
        else:
            self.parent_id = parent.trace_id
            self.ops_trace_id = parent.ops_trace_id if parent.is_anchor else ""
        if self.input_data is not None:
            self.input_summary = summary(self.input_data)
            # Whoever hangs from this may keep it for long.
            self.input_data = None
        if self.metadata is not None:
            self.facts = as_facts(self.metadata) | (self.facts or {})
        if recorder.console is not None:
            self.is_shown = False
            # Where only failures are told, none has a place in a tree.
            if parent is not None and "success" in recorder.wanted:
                self.depth = parent.open(recorder.console)

    def _write(self, milliseconds: float) -> None:
        """The line, if its status is one of those that are wanted."""
        facts = {} if self.facts is None else self.facts
        status, self.status = self.status, "success"
        output_summary, self.output_summary = self.output_summary, ""
        self.facts = None
        recorder = self.recorder
        if status not in recorder.wanted:
            return
        if recorder.successor is not None:
            later = recorder.successor()
            if later is None:
                return
            recorder = later
        if self.ops_trace_id:
            facts["ops_trace_id"] = self.ops_trace_id
        recorder.write(
            self.trace_id,
            self.parent_id,
            self.timestamp,
            self.layer,
            summary(self.operation, LABEL_CHARS),
            summary(self.component, LABEL_CHARS),
            self.input_summary,
            output_summary,
            milliseconds,
            status,
            facts,
            self.depth,
        )


def as_facts(metadata: object) -> dict[str, object]:
    """Members of `metadata` as they were given; what is no mapping becomes one."""
    return dict(metadata) if isinstance(metadata, Mapping) else {"metadata": metadata}


def _is_plain_end(error: BaseException) -> bool:
    """Whether nothing is wrong: a generator that nobody asks any more, or a program that ends with
    success."""
    return isinstance(error, GeneratorExit) or (isinstance(error, SystemExit) and error.code in {None, 0})


def _message(error: BaseException) -> str:
    try:
        return str(error)
    except KeyboardInterrupt:
        raise
    except BaseException:
        return told(error, _ERROR_CHARS)
