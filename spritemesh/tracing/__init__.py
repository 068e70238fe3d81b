"""Traces of the reasoning layers of a runtime: what it did, in which order, how long it took, how it ended.

    from spritemesh.tracing import tracer

    with tracer.span("altitude", "transition", "planner.py", request) as ctx:
        ctx.set_output("L2", reason="too abstract")

docs/tracing.md tells how to switch it on, and how to read what it writes.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from spritemesh.tracing.span import Span
    from spritemesh.tracing.tracers import Tracer

    tracer: Tracer

__all__ = ["Span", "tracer"]


def __getattr__(name: str) -> object:
    """The names above when they are first asked for: who reads traces needs none of them."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from spritemesh.tracing.span import Span
    from spritemesh.tracing.tracers import Tracer

    # Two threads may both come here: what the first one made stays.
    for own, value in {"Span": Span, "tracer": Tracer()}.items():
        globals().setdefault(own, value)
    return globals()[name]
