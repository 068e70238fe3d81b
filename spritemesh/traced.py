"""How our own programs trace themselves: under the layer `sys`, in the words of an operator.

    with traced.step("reconcile", "reconcile.py", loop_id) as step:
        ...
        step.tell("healthy", events=12)

A step that an OpsError leaves has its reason code in the metadata, and is `blocked` when the error is a
refusal, `error` otherwise. Steps hold no secrets: neither what a caller proves itself by, nor notes, nor
what a runtime wrote.

A program that does not trace must not pay for it: `start` alone imports the tracer, and before that
everything here does nothing.
"""

import os
import sys
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, ClassVar, Self

from spritemesh.errors import OpsError
from spritemesh.ids import validate_trace_id
from spritemesh.names import (
    TRACE_ID_HEADER,
    TRACE_PARENT_HEADER,
    TRACING_FILE_VARIABLE,
    TRACING_SETTINGS_FILE,
    TRACING_SETTINGS_VARIABLE,
    TRACING_VARIABLE,
)
from spritemesh.reasons import Fault
from spritemesh.traceparent import TRACEPARENT_HEADER, trace_id_of

if TYPE_CHECKING:
    from spritemesh.tracing.span import Span
    from spritemesh.tracing.tracers import Tracer

_LAYER = "sys"
# Who meets one of these was refused; whoever meets another met a failure.
_REFUSALS = frozenset(
    {
        Fault.REQUEST,
        Fault.CREDENTIALS,
        Fault.FORBIDDEN,
        Fault.CONFLICT,
        Fault.REUSED,
        Fault.CONCURRENT,
        Fault.BUSY,
        Fault.LIMIT,
    }
)
# Neither: a manager asks before each try whether the request has come before.
_ANSWERS = frozenset({"invocation_not_found"})

Headers = Sequence[tuple[str, str | bytes]]


class _State:
    """Of this process. tracer None: it does not trace. is_shown: standard error has the tree. held: lines
    that are to stand there below it."""

    tracer: "Tracer | None" = None
    is_shown = False
    held: ClassVar[list[str]] = []


def start(*, flag: bool, heed: bool = True, directory: str | None = None) -> None:
    """Trace from now on, if the flag says so, or environment or settings do.

    flag: `--trace`, which shows the tree on standard error as well. heed: whether more than the flag counts.
    directory: where the trace file is if nobody says otherwise; None: in the working directory.
    """
    _State.tracer = None
    _State.is_shown = False
    if not (flag or (heed and _is_said(TRACING_VARIABLE))):
        return
    from spritemesh.tracing import tracer

    output = None
    if directory is not None and not _is_said(TRACING_FILE_VARIABLE):
        from spritemesh.tracing.settings import DEFAULT_OUTPUT

        # Absolute: a directory that is missing because its name is misspelt is not made.
        output = os.path.abspath(os.path.join(directory, DEFAULT_OUTPUT))
    if flag or output:
        tracer.configure(enabled=flag or None, output=output, console=flag)
    if tracer.enabled:
        _State.tracer = tracer
        _State.is_shown = flag


def hold(line: str) -> bool:
    """Keep a line for the end of standard error, and say so, if the tree is shown there."""
    if _State.is_shown:
        _State.held.append(line)
    return _State.is_shown


def finish() -> None:
    """Have the whole tree on standard error, if it is shown there, and below it what was held."""
    if _State.tracer is None or not _State.is_shown:
        return
    _State.is_shown = False
    # Somebody is tired of waiting.
    with suppress(KeyboardInterrupt):
        _State.tracer.flush()
    sys.stderr.write("".join(_State.held))
    _State.held.clear()


def _is_said(variable: str) -> bool:
    """Whether this variable, or settings, may say something of tracing; what it is, the tracer finds out."""
    named = os.environ.get(variable) or os.environ.get(TRACING_SETTINGS_VARIABLE)
    return bool(named) or os.path.exists(TRACING_SETTINGS_FILE)


class Step:
    """A span of ours, as a context manager."""

    def __init__(
        self, span: "Span | None" = None, adopted: AbstractContextManager[object] | None = None
    ) -> None:
        """span None: nothing is traced. adopted: what it hangs from, for as long as it lasts."""
        self._span = span
        self._adopted = adopted

    def tell(self, output: str, /, **facts: object) -> None:
        """What came of it. facts: as in `step`."""
        if self._span is not None:
            self._span.set_output(output, **_told(facts))

    def refuse(self, reason: str) -> None:
        """That it was not done. reason: a code."""
        if self._span is not None:
            self._span.block(reason)

    def fail(self, reason: str) -> None:
        """That it failed, where no error tells so. reason: a code."""
        if self._span is not None:
            self._span.fail(reason)

    def __enter__(self) -> Self:
        if self._adopted is not None:
            self._adopted.__enter__()
        if self._span is not None:
            self._span.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        span = self._span
        if span is None:
            return
        known = _known(error)
        if known is None:
            span.__exit__(kind, error, trace)
        elif known.reason in _ANSWERS:
            span.set_output(known.reason)
            span.__exit__(None, None, None)
        elif known.row.fault in _REFUSALS:
            span.set_output(known.reason, message=known.message)
            span.block(known.reason)
            span.__exit__(None, None, None)
        else:
            span.set_output(known.reason, reason=known.reason)
            span.__exit__(type(known), known, trace)
        if self._adopted is not None:
            self._adopted.__exit__(None, None, None)


# Has no state: all who do not trace share it.
OFF = Step()


def step(operation: str, component: str, summary: str, /, **facts: object) -> Step:
    """A step of this process. component: the file. facts: metadata; what is None or empty is left out."""
    tracer = _State.tracer
    if tracer is None:
        return OFF
    return Step(tracer.span(_LAYER, operation, component, summary, metadata=_told(facts)))


def request(operation: str, component: str, summary: str, headers: Headers, /, **facts: object) -> Step:
    """A step that a peer asked for: it hangs from the span that the request names, and belongs to its trace
    id. headers: as received, with lower-case names."""
    tracer = _State.tracer
    if tracer is None:
        return OFF
    parent, trace_id = _named(headers)
    span = tracer.span(_LAYER, operation, component, summary, metadata=_told(facts))
    return Step(span, tracer.adopted(parent, trace_id))


def event(operation: str, component: str, summary: str, output: str = "", /, **facts: object) -> None:
    """A moment. A `reason` among the facts, a code, makes it one of trouble."""
    tracer = _State.tracer
    if tracer is not None:
        status = "error" if facts.get("reason") else "success"
        tracer.event(_LAYER, operation, component, summary, output, status=status, metadata=_told(facts))


def parent_headers() -> tuple[tuple[str, str], ...]:
    """What tells a peer which step asks; nothing where nothing is traced."""
    return () if _State.tracer is None else _State.tracer.metadata()


def parent_id() -> str:
    """The id of the step under way; "" where nothing is traced."""
    return "" if _State.tracer is None else _State.tracer.current_id()


def _known(error: BaseException | None) -> OpsError | None:
    """The error with a reason that an exception is, or carries."""
    found = error if isinstance(error, OpsError) else getattr(error, "error", None)
    return found if isinstance(found, OpsError) else None


def _told(facts: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in facts.items() if value or value == 0}


def _named(headers: Headers) -> tuple[str, str]:
    """The parent and the trace id that a request names, "" for none; the tracer checks the parent."""
    found = dict(headers)
    parent, own, foreign = (
        value.decode("latin-1") if isinstance(value, bytes) else value
        for value in (
            found.get(name, "") for name in (TRACE_PARENT_HEADER, TRACE_ID_HEADER, TRACEPARENT_HEADER)
        )
    )
    trace_id = own.strip() or trace_id_of(foreign)
    with suppress(OpsError):
        return parent, validate_trace_id(trace_id)
    return parent, ""
