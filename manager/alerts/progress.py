"""What a pass of dispatch is to do, and how far it is (contract I.3)."""

import time
from collections.abc import Callable
from typing import NamedTuple

from manager.core.alert_rows import Counts, Head, state_document
from manager.store import LoopFiles
from spritemesh import files, jsontext
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc


class Order(NamedTuple):
    """What a pass is to do. repo_path: absolute. catalog: path of the catalog of sinks. limit: lines to take
    at most, 0: all."""

    repo_path: str
    loop_id: str
    trace_id: str
    catalog: str
    limit: int = 0


class Budget:
    """The time that a pass may take."""

    def __init__(self, seconds: float | None) -> None:
        """seconds: None for as long as it takes."""
        self._seconds = seconds
        self._began = time.monotonic()

    def is_used_up(self, share: float = 1.0) -> bool:
        """Whether that share of it has gone by."""
        return self._seconds is not None and time.monotonic() - self._began >= self._seconds * share


class Progress:
    """How far a pass is, and the document that says so."""

    def __init__(
        self, paths: LoopFiles, order: Order, *, offset: int, lines: int | None, clock: Callable[[], float]
    ) -> None:
        """offset: lines passed. lines: of the file, None when there is none."""
        self.offset = offset
        self.lines = lines
        self.counts = Counts()
        self._paths = paths
        self._order = order
        self._clock = clock
        self._written: tuple[int, int | None, Counts] | None = None
        self._document: dict[str, JSON] = {}

    def head(self) -> Head:
        """What a row begins with now."""
        return Head(format_utc(self._clock()), self._order.loop_id, self._order.trace_id)

    def write_state(self) -> dict[str, JSON]:
        """Write the state document, unless it stands there, and return it. Raises OpsError."""
        told = (self.offset, self.lines, self.counts)
        if told == self._written:
            return self._document
        status = "no_source" if self.lines is None else self.counts.status
        document = state_document(
            self.head(),
            self.counts,
            status=status,
            offset=self.offset,
            line_count=self.offset if self.lines is None else self.lines,
            escalations=self._paths.escalations,
            telemetry=self._paths.alert_telemetry,
        )
        files.write_atomic(self._paths.alert_state, jsontext.encode(document) + b"\n")
        self._written, self._document = told, document
        return document
