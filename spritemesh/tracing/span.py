"""A span: what happens between two moments, and the line that tells of it; here those of a tracer that is
off.

They hold what was asked for, so that they can still decorate a function, and do nothing else. They are
structs, which are made faster than objects of other classes.
"""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import TYPE_CHECKING, Literal, TypeVar

import msgspec

if TYPE_CHECKING:
    from spritemesh.tracing.tracers import Tracer

Function = TypeVar("Function", bound=Callable[..., object])


class Span(msgspec.Struct, eq=False):
    """A span of a tracer that is off, and what all spans can do.

    with tracer.span("altitude", "plan", "planner.py", request) as ctx:
        ...
        ctx.set_output("two steps", steps=2)

    The same with `async with`; and as a decorator of functions, coroutine functions and generators, where
    each call has a span of its own if tracing is on then.
    """

    hrm: object
    operation: str = ""
    component: str = ""
    input_data: object = None
    metadata: Mapping[str, object] | None = None
    tracer: "Tracer | None" = None

    def __bool__(self) -> bool:
        """Whether it is traced."""
        return False

    @property
    def trace_id(self) -> str:
        """The id of this span, from its beginning on; "" when tracing is off."""
        return ""

    def set_output(self, text: object = None, /, **metadata: object) -> None:
        """What came out, told in 100 characters, and more members of `metadata`."""

    def block(self, reason: object = "") -> None:
        """Say that what was asked for was not allowed: status `blocked`, and the reason in `metadata`."""

    def fail(self, reason: object = "") -> None:
        """Say that it failed, where no exception says so: status `error`, and the reason in `metadata`."""

    def record(self, _output: object = None, /, **_metadata: object) -> str:
        """Write it as a single point, without a duration; its id, "" when tracing is off."""
        return ""

    def anew(self) -> "Span":
        """A span of the same kind, traced if tracing is on now."""
        if self.tracer is None:
            return self
        return self.tracer.span(
            self.hrm, self.operation, self.component, self.input_data, metadata=self.metadata
        )

    def __enter__(self) -> "Span":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False] | None:
        return None

    async def __aenter__(self) -> "Span":
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> Literal[False] | None:
        return None

    def __call__(self, function: Function) -> Function:
        from spritemesh.tracing.decorating import decorated

        return decorated(self, function)
