"""An append-only index of what happened under which trace id, one a repository.

It only makes things quick to find: each entry names the artifact that has the whole row, and nothing but
`ops-manager trace` reads it. So it fails open, is not synced, and old entries go when it has grown large.

A row begins with `{"traceId":"<id>"`, so that a look-up can search the bytes for that and parse only the rows
that have it: 260 MB in a tenth of a second.
"""

import os
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import suppress
from itertools import chain
from typing import NamedTuple

from spritemesh import jsontext, rotation
from spritemesh.jsontext import JSON
from spritemesh.times import format_utc_milliseconds, parse_rfc3339
from spritemesh.traceentry import DETAIL_MEMBERS, Entry, duration
from spritemesh.values import drop

__all__ = ["DETAIL_MEMBERS", "Entry", "Found", "append", "find", "index_path", "lines_with", "recent"]

# Not under .superloop/ops-manager, where every name is a loop's: no loop id can collide with it.
INDEX_FILE = os.path.join(".superloop", "trace", "index.jsonl")
# When it has grown so large it moves to `index.jsonl.1`, which replaces the one before: about a million
# entries in the two.
ROTATE_BYTES = 128 * 1024 * 1024
_KEEP = 1
# Of one trace id that thousands of passes share, the last entries are enough.
MAX_ENTRIES = 10_000
_SEARCH_BLOCK_BYTES = 256 * 1024
# `recent` gives up here: one trace id may fill the whole file.
_RECENT_ROWS = 100_000
# A row may be as large as its `detail`; what is larger was not written here.
_LARGEST_ROW_BYTES = 1024 * 1024


class Found(NamedTuple):
    """entries: in the order they were written. damaged: rows that were skipped because they are none.
    left_out: older entries beyond MAX_ENTRIES."""

    entries: list[Entry]
    damaged: int = 0
    left_out: int = 0


def index_path(repo: str) -> str:
    """The index of a repository."""
    return os.path.join(repo, INDEX_FILE)


def append(repo: str, entries: Iterable[Entry]) -> bool:
    """Append entries in one write; False when that failed: an index fails open. Raises nothing."""
    try:
        rows = [_row(entry) for entry in entries]
        if rows:
            rotation.append_rows(index_path(repo), rows, limit=ROTATE_BYTES, keep=_KEEP)
    except (OSError, OverflowError, TypeError, ValueError):
        return False
    return True


def find(repo: str, trace_id: str) -> Found:
    """The entries of a trace. What cannot be read counts as not there."""
    needle = b'{"traceId":' + jsontext.encode(trace_id)
    found: deque[Entry] = deque(maxlen=MAX_ENTRIES)
    damaged = count = 0
    for _, line in lines_with(index_path(repo), needle, keep=_KEEP):
        entry = _entry(line) if line.startswith(needle) else None
        if entry is None:
            damaged += 1
        elif entry.trace_id == trace_id:
            found.append(entry)
            count += 1
    return Found(list(found), damaged, count - len(found))


def recent(repo: str, count: int, *, loop_id: str = "") -> Found:
    """The last entries of the last `count` different trace ids, oldest first; of one loop, if one is named.

    Reads from the end, until there are enough ids. Of the oldest ones there may be earlier entries.
    """
    wanted: set[str] = set()
    entries: list[Entry] = []
    damaged = 0
    with suppress(OSError), rotation.generations(index_path(repo), keep=_KEEP) as opened:
        for line in chain.from_iterable(_lines_from_the_end(generation.handle) for generation in opened):
            entry = _entry(line)
            if entry is None:
                damaged += 1
                continue
            if loop_id not in ("", entry.loop_id):
                continue
            if (entry.trace_id not in wanted and len(wanted) >= count) or len(entries) >= _RECENT_ROWS:
                break
            wanted.add(entry.trace_id)
            entries.append(entry)
    return Found(entries[::-1], damaged)


def lines_with(path: str, needle: bytes, *, keep: int = rotation.KEEP) -> Iterator[tuple[str, bytes]]:
    """The complete lines that hold `needle`, without their newlines, each once, with the name of their file:
    first those of the old files into which `path` moved aside, then its own.

    Memory: a block, and a line of at most a megabyte; of a longer one only the end is looked at. What cannot
    be read counts as not there.
    """
    with suppress(OSError), rotation.generations(path, keep=keep) as opened:
        for generation in reversed(opened):
            with suppress(OSError):
                for line in _lines_with(generation.handle, needle):
                    yield generation.name, line


def _lines_with(handle: int, needle: bytes) -> Iterator[bytes]:
    rest = b""
    while block := os.read(handle, _SEARCH_BLOCK_BYTES):
        end = block.rfind(b"\n") + 1
        if not end:
            rest = (rest + block)[-_LARGEST_ROW_BYTES:]
            continue
        if rest:
            # The first line of the block began before it.
            first = block.find(b"\n") + 1
            if needle in (line := rest + block[: first - 1]):
                yield line
            yield from _lines_of(block, needle, first, end)
        else:
            yield from _lines_of(block, needle, 0, end)
        rest = block[end:]


def _lines_of(block: bytes, needle: bytes, start: int, end: int) -> Iterator[bytes]:
    """The lines of `block` with `needle` between two line starts."""
    while (place := block.find(needle, start, end)) >= 0:
        begin = block.rfind(b"\n", start, place) + 1 or start
        start = block.find(b"\n", place) + 1
        yield block[begin : start - 1]


def _lines_from_the_end(handle: int) -> Iterator[bytes]:
    """The lines of an open file, the last one first, without blank ones. Raises OSError."""
    position, rest = os.fstat(handle).st_size, b""
    while position:
        start = max(0, position - _SEARCH_BLOCK_BYTES)
        rest, *lines = (os.pread(handle, position - start, start) + rest).split(b"\n")
        yield from (line for line in reversed(lines) if line.strip())
        rest, position = rest[:_LARGEST_ROW_BYTES], start
    if rest.strip():
        yield rest


def _row(entry: Entry) -> dict[str, JSON]:
    detail = drop(entry.detail) if isinstance(entry.detail, dict) else entry.detail
    members = {
        "traceId": entry.trace_id,
        "at": format_utc_milliseconds(entry.at),
        "loopId": entry.loop_id,
        "kind": entry.kind,
        "status": entry.status or None,
        "durationSeconds": None if entry.seconds is None else round(max(0.0, entry.seconds), 6),
        "file": entry.file or None,
        "detail": detail or None,
    }
    return drop(members)


def _entry(line: bytes) -> Entry | None:
    """The entry of a row; None when it is none."""
    try:
        row = jsontext.parse(line)
    except jsontext.JSONError:
        return None
    if not isinstance(row, dict):
        return None
    at, seconds = parse_rfc3339(row.get("at")), duration(row.get("durationSeconds"))
    texts = [row.get(name, "") for name in ("traceId", "loopId", "kind", "status", "file")]
    if at is None or not all(isinstance(text, str) for text in texts) or not (texts[0] and texts[2]):
        return None
    trace_id, loop_id, kind, status, file = texts
    return Entry(trace_id, at, loop_id, kind, status, seconds, file, row.get("detail"))
