"""Tracers of their own over real files, and what stands in those."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec

from spritemesh.tracing.tracers import Tracer

Line = dict[str, Any]


class Traced:
    """A tracer that is on. lines: all that it wrote so far, by decoding whole lines."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.path = path
        self.tracer = Tracer()
        self.tracer.configure(enabled=True, output=str(path), **settings)

    def lines(self) -> list[Line]:
        assert self.tracer.flush(5)
        return read_lines(self.path)

    def by_operation(self) -> dict[str, Line]:
        return {line["operation"]: line for line in self.lines()}

    def parents(self) -> dict[str, str | None]:
        """Of each operation the operation of its parent; None for a root. Operations have to be unlike."""
        lines = self.lines()
        names = {line["trace_id"]: line["operation"] for line in lines}
        assert len(set(names.values())) == len(lines)
        return {
            line["operation"]: names.get(line["parent_id"], line["parent_id"]) if line["parent_id"] else None
            for line in lines
        }


def read_lines(path: Path) -> list[Line]:
    data = path.read_bytes()
    assert not data or data.endswith(b"\n")
    return [msgspec.json.decode(line) for line in data.splitlines()]


@contextmanager
def traced(path: Path, **settings: Any) -> Iterator[Traced]:
    """A tracer that is on while the block runs."""
    on = Traced(path, **settings)
    try:
        yield on
    finally:
        on.tracer.close()
