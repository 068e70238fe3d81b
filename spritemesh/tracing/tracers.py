"""The tracer: off until settings or a call switch it on, and then next to nothing in a program's way."""

import os
import sys
from _thread import RLock
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from time import time
from typing import TYPE_CHECKING

from spritemesh.names import (
    TRACE_PARENT_HEADER,
    TRACE_PARENT_VARIABLE,
    TRACING_FILE_VARIABLE,
    TRACING_VARIABLE,
)
from spritemesh.tracing import identity
from spritemesh.tracing.anchor import Anchor
from spritemesh.tracing.context import innermost
from spritemesh.tracing.layers import layer_of
from spritemesh.tracing.live import LiveSpan
from spritemesh.tracing.settings import Settings, resolved, warn
from spritemesh.tracing.span import Span

if TYPE_CHECKING:
    from spritemesh.tracing.recorder import Recorder

_NO_METADATA: tuple[tuple[str, str], ...] = ()


class Tracer:
    """Makes spans and events. A process has one, `spritemesh.tracing.tracer`, which all its threads share.

    It reads its settings when it is first used. Nothing here raises but ValueError for a layer that there is
    not, and that only while tracing is on.
    """

    __slots__ = ("_dropped", "_is_deciding", "_is_on", "_recorder", "_turn")

    def __init__(self) -> None:
        # On as long as nobody has asked: the first call finds out.
        self._is_on = True
        self._recorder: Recorder | None = None
        self._dropped = 0
        # Threads that are first at the same time decide once.
        self._turn = RLock()
        self._is_deciding = False
        os.register_at_fork(after_in_child=self._part)
        if resolved(os.environ).enabled:
            # The first call may come from a thread that cannot.
            from spritemesh.tracing.writing import lifecycle

            lifecycle.catch_signals()

    @property
    def enabled(self) -> bool:
        """Whether tracing is on."""
        return self._found() is not None

    @property
    def dropped(self) -> int:
        """Lines that could not be written, since the program began."""
        recorder = self._recorder
        return self._dropped + (recorder.writer.dropped if recorder is not None else 0)

    def span(
        self,
        hrm: object,
        operation: str = "",
        component: str = "",
        input_data: object = None,
        *,
        metadata: Mapping[str, object] | None = None,
    ) -> Span:
        """A span, for `with`, `async with` or as a decorator.

        hrm: the layer, by name or prefix; ValueError for another one while tracing is on. operation: what is
        done, one of the layer's points or another word. component: file or class that does it. input_data:
        what it is done with; its beginning becomes the summary. metadata: more facts.
        """
        if self._is_on:
            recorder = self._recorder or self._found()
            if recorder is not None:
                layer = layer_of(hrm)
                return LiveSpan(hrm, operation, component, input_data, metadata, self, recorder, layer)
        return Span(hrm, operation, component, input_data, metadata, self)

    def event(
        self,
        hrm: object,
        operation: str = "",
        component: str = "",
        input_data: object = None,
        output: object = None,
        *,
        status: str = "success",
        duration_ms: float = 0.0,
        metadata: Mapping[str, object] | None = None,
    ) -> str:
        """One line for a single point, as `span` has it; its id, "" when tracing is off."""
        if not self._is_on:
            return ""
        recorder = self._recorder or self._found()
        if recorder is None:
            return ""
        layer = layer_of(hrm)
        span = LiveSpan(hrm, operation, component, input_data, metadata, self, recorder, layer)
        return span.tell(output, status, duration_ms)

    def generate_id(self, hrm: object) -> str:
        """A new id of a layer, whether tracing is on or off. Raises ValueError for a layer that there is
        not."""
        return identity.new_id(layer_of(hrm).prefix, time())

    def current_id(self) -> str:
        """The id that a new span would have for its parent; "" when there is none, or tracing is off."""
        recorder = self._found()
        if recorder is None:
            return ""
        node = innermost()
        return recorder.parent_id if node is None else node.trace_id

    def child_environment(self, environment: Mapping[str, str] | None = None) -> dict[str, str]:
        """The environment of a process to start: it is traced into the same file, and its roots hang from the
        current span.

        environment: what it has anyway; None for that of this process. While tracing is off it stays as it
        is.
        """
        variables = dict(os.environ if environment is None else environment)
        recorder = self._found()
        if recorder is None:
            return variables
        variables[TRACING_VARIABLE] = "1"
        variables[TRACING_FILE_VARIABLE] = recorder.writer.path
        parent_id = self.current_id()
        if parent_id:
            variables[TRACE_PARENT_VARIABLE] = parent_id
        else:
            variables.pop(TRACE_PARENT_VARIABLE, None)
        return variables

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Metadata for a gRPC call, from which the other side's spans hang; empty when there is no span."""
        if not self._is_on:
            return _NO_METADATA
        parent_id = self.current_id()
        return ((TRACE_PARENT_HEADER, parent_id),) if parent_id else _NO_METADATA

    def adopted(self, parent_id: object, ops_trace_id: object = "") -> AbstractContextManager[None]:
        """A block whose spans hang from one of another process, and carry the ops trace id of a request.

        parent_id: as it was received; whatever is no id counts as none, and the spans are roots.
        """
        recorder = self._found()
        if recorder is None:
            return nullcontext()
        return Anchor(
            parent_id if identity.is_trace_id(parent_id) else "",
            (ops_trace_id if type(ops_trace_id) is str else "") or recorder.ops_trace_id,
        )

    def configure(
        self,
        enabled: bool | None = None,
        output: str | os.PathLike[str] | None = None,
        level: str | None = None,
        console: bool = False,
    ) -> None:
        """Read the settings anew; what is given here is before environment and settings file.

        console: whether to tell the tree on standard error as it happens. What is wrong is warned of and
        ignored; an output that cannot be written leaves tracing off.
        """
        settings = resolved(os.environ, enabled=enabled, output=output, level=level)
        for problem in settings.problems:
            warn(problem)
        self._replace(_recorder(settings, console=console) if settings.enabled else None)

    def flush(self, seconds: float = 2.0) -> bool:
        """Wait until all that was told is written, at most so long; whether it is."""
        recorder = self._recorder
        return recorder is None or recorder.writer.flush(seconds)

    def close(self) -> None:
        """Write what there is, and switch off."""
        self._replace(None)

    def _found(self) -> "Recorder | None":
        """The recorder, None when tracing is off; found out if nobody has asked yet."""
        if self._is_on and self._recorder is None:
            self._decide()
        return self._recorder

    def _decide(self) -> None:
        with self._turn:
            # Another thread has decided meanwhile; or this one is at it, and what it calls traces itself.
            if self._is_deciding or not self._is_on or self._recorder is not None:
                return
            self._is_deciding = True
            try:
                self.configure()
            finally:
                self._is_deciding = False

    def _replace(self, recorder: "Recorder | None") -> None:
        """Go on with another recorder, None to be off, and have the one that there is write what it has."""
        with self._turn:
            former, self._recorder = self._recorder, recorder
            self._is_on = recorder is not None
        if recorder is None and former is None:
            return
        from spritemesh.tracing import threads
        from spritemesh.tracing.writing import lifecycle

        if recorder is not None:
            threads.begin()
        if former is not None:
            former.successor = self._later
            threads.end()
            lifecycle.close(former.writer)
            self._dropped += former.writer.dropped

    def _later(self) -> "Recorder | None":
        """What takes the line of a span that was open when its recorder was closed; None, and the line is
        dropped, when tracing is off."""
        if self._recorder is None:
            self._dropped += 1
        return self._recorder

    def _part(self) -> None:
        """In the child of a fork: the spans that are open are the parent's, which writes them. New ones hang
        from them. And nobody is left who could be deciding."""
        self._turn = RLock()
        self._is_deciding = False
        if self._recorder is not None:
            self._recorder = self._recorder.part()


def _recorder(settings: Settings, *, console: bool) -> "Recorder | None":
    """The recorder that settings ask for; None, after a warning, where nothing can be written."""
    from spritemesh.tracing.recorder import Recorder
    from spritemesh.tracing.writing import lifecycle
    from spritemesh.tracing.writing.console import Console
    from spritemesh.tracing.writing.writer import Writer

    try:
        writer = Writer(settings.output, max_bytes=settings.max_bytes)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        warn(f"{settings.output} cannot be written: {reason}; tracing is off")
        return None
    lifecycle.install(writer)
    return Recorder(
        writer,
        level=settings.level,
        parent_id=settings.parent_id,
        ops_trace_id=settings.ops_trace_id,
        console=Console(writer.show, has_colours=_has_colours()) if console else None,
    )


def _has_colours() -> bool:
    """Whether standard error is a terminal, and nobody wants it plain (https://no-color.org)."""
    try:
        return sys.stderr.isatty() and not os.environ.get("NO_COLOR")
    except (AttributeError, ValueError):
        return False
