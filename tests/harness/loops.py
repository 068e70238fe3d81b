"""A repository with loops as the runtime leaves them: real files, written the way the runtime writes."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from spritemesh.jsontext import JSON

STARTED_AT = "2026-02-22T03:45:00Z"


def event(number: int, name: str = "role_end", **members: JSON) -> bytes:
    """One event line with its newline; `members` may replace or add to the usual ones."""
    line = {
        "timestamp": STARTED_AT,
        "event": name,
        "loop_id": "any",
        "run_id": STARTED_AT,
        "iteration": number,
        "role": "implementer",
        "data": {"number": number},
    }
    return json.dumps(line | members, separators=(",", ":"), ensure_ascii=False).encode() + b"\n"


def events(first: int, last: int) -> bytes:
    """The event lines of these numbers."""
    return b"".join(event(number) for number in range(first, last + 1))


class LoopFiles:
    """The directory of one loop. `log` is its events.jsonl."""

    def __init__(self, repo: Path, loop_id: str) -> None:
        self.repo = repo
        self.loop_id = loop_id
        self.directory = repo / ".superloop" / "loops" / loop_id
        self.log = self.directory / "events.jsonl"
        self.heartbeat = self.directory / "heartbeat.v1.json"

    def append(self, data: bytes) -> None:
        """Append in one write, as the runtime's shell redirect does."""
        handle = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(handle, data)
        finally:
            os.close(handle)

    def replace(self, data: bytes) -> None:
        """Put another file in the log's place."""
        fresh = self.log.with_suffix(".new")
        fresh.write_bytes(data)
        fresh.replace(self.log)

    def put(self, name: str, document: JSON) -> None:
        """Replace a state file of the loop."""
        _put(self.directory / name, document)


class Repo:
    """A repository directory."""

    def __init__(self, root: Path) -> None:
        self.root = root
        (root / ".superloop" / "loops").mkdir(parents=True)

    def loop(self, loop_id: str = "alpha", data: bytes | None = b"") -> LoopFiles:
        """A loop with this log; without one when `data` is None."""
        files = LoopFiles(self.root, loop_id)
        files.directory.mkdir()
        if data is not None:
            files.log.write_bytes(data)
        return files

    def put(self, name: str, document: JSON) -> None:
        """Replace a state file of the runtime, state.json or active-run.json."""
        _put(self.root / ".superloop" / name, document)

    def running(self, pid: int, loop_id: str | None = "alpha", **members: Any) -> None:
        """Say that a process runs a loop."""
        run = {"repo": str(self.root), "pid": pid, "pgid": pid, "loop_id": loop_id, "stage": "loop_start"}
        self.put("active-run.json", run | members)


MakeRepo = Callable[[], Repo]


def _put(path: Path, document: JSON) -> None:
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(document) + "\n")
    fresh.replace(path)
