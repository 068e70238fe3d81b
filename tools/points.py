"""Writes spritemesh/tracing/points.py from the catalog of trace points; `--check` only says whether it is
current."""

import sys
from collections.abc import Iterator, Mapping

from spritemesh.tracing.catalog import POINTS, Point
from tools.pages import kept_current

PAGE = "spritemesh/tracing/points.py"

_HEAD = '''"""The trace points of the catalog, typed: a method for each, which makes a span. Written by
`make docs`, do not edit.

    with memory.write(namespace="facts", key="color", component="store.py") as ctx:
        ctx.set_output("kept", tier="hot", tokens_saved=45)

    altitude.transition(from_level="L3", to_level="L2").record()

What is not known yet may be left out, and told at the end. component: file or class that does it. input_data:
what it is done with, of which the beginning becomes the summary.
"""

from collections.abc import Sequence

from spritemesh.tracing import tracer
from spritemesh.tracing.span import Span

'''


def written() -> str:
    """The whole module."""
    classes = "\n\n".join("".join(_class(layer, points)) for layer, points in POINTS.items())
    instances = "".join(f"{layer} = _{layer.capitalize()}()\n" for layer in POINTS)
    return f"{_HEAD}\n{classes}\n\n{instances}"


def _class(layer: str, points: Mapping[str, Point]) -> Iterator[str]:
    yield f"class _{layer.capitalize()}:\n"
    yield f'    """Points of the layer {layer}."""\n\n'
    yield "    __slots__ = ()\n"
    for operation, point in points.items():
        yield "\n    @staticmethod\n"
        yield f"    def {operation}(\n        *,\n"
        for name, kind in point.given.items():
            yield f"        {name}: {kind},\n"
        for name, kind in point.found.items():
            yield f"        {name}: {kind} | None = None,\n"
        yield '        component: str = "",\n        input_data: object = None,\n'
        yield "    ) -> Span:\n"
        yield f'        """{point.does}"""\n'
        members = [f'"{name}": {name}' for name in point.given]
        yield f"        metadata: dict[str, object] = {{{', '.join(members)}}}\n"
        for name in point.found:
            yield f"        if {name} is not None:\n"
            yield f'            metadata["{name}"] = {name}\n'
        facts = f'"{layer}", "{operation}", component, input_data'
        yield f"        return tracer.span({facts}, metadata=metadata)\n"


def main() -> int:
    """Exit code 1 with `--check` when the module is not current."""
    return kept_current(PAGE, lambda _: written())


if __name__ == "__main__":
    sys.exit(main())
