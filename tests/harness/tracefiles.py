"""Trace files as tracers write them, and as others do."""

import json
import random
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from spritemesh.tracing.layers import LAYERS

START = 1_795_290_000
Event = dict[str, Any]


def event(trace_id: str, parent_id: str | None = None, *, at: float = START, **members: Any) -> Event:
    """An event that began at `at` and took a millisecond."""
    stamp = datetime.fromtimestamp(at, UTC)
    return {
        "trace_id": trace_id,
        "parent_id": parent_id,
        "timestamp": f"{stamp:%Y-%m-%dT%H:%M:%S.%fZ}",
        "hrm_layer": "memory",
        "operation": "read",
        "component": "store.py",
        "input_summary": "in",
        "output_summary": "out",
        "duration_ms": 1.0,
        "status": "success",
        "metadata": {},
    } | members


def line(document: Event) -> bytes:
    """As our tracer spells it."""
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode() + b"\n"


def write(path: Path, documents: Iterable[Event]) -> Path:
    path.write_bytes(b"".join(map(line, documents)))
    return path


def trees(
    count: int, *, seed: int = 1, digits: int = 16, gap: float = 0.3, length: float = 0.1
) -> list[Event]:
    """The events of `count` trees in the order in which tracers write them: by their ends.

    gap: seconds from one tree's begin to that of the next. length: most seconds that a span goes on behind
    its children."""
    chance = random.Random(seed)
    ended: list[tuple[float, Event]] = []

    def span(parent_id: str | None, depth: int, at: float) -> float:
        layer = chance.choice(LAYERS)
        trace_id = f"{layer.prefix}_{int(at)}_{chance.getrandbits(4 * digits):0{digits}x}"
        end = at
        for _ in range(chance.choice((0, 1, 3)) if 0 < depth < 4 else 3 * (not depth)):
            end = span(trace_id, depth + 1, end + chance.random() * length / 10)
        end += chance.random() * length
        made = event(
            trace_id, parent_id, at=at, hrm_layer=layer.name, duration_ms=round((end - at) * 1000, 3)
        )
        ended.append((end, made))
        return end

    for number in range(count):
        span(None, 0, START + number * gap)
    return [made for _, made in sorted(ended, key=lambda item: item[0])]


def members_of_tree(documents: Sequence[Event], trace_id: str) -> set[str]:
    """The ids of the whole tree of a span, found by looking at everything."""
    parents = {document["trace_id"]: document["parent_id"] for document in documents}

    def root(found: str) -> str:
        while parents.get(found):
            found = parents[found]
        return found

    return {found for found in parents if root(found) == root(trace_id)}
