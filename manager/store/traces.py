"""What one trace left in the artifacts of a loop, found by searching their bytes."""

import os
from collections import deque
from contextlib import suppress

from manager.core.trace_rows import ARTIFACTS, Row, rows_of
from manager.store.paths import LoopFiles
from sprite_agent.runtime.layout import RUNTIME_ROOT, list_loop_ids, loop_paths
from spritemesh import jsontext
from spritemesh.traceindex import MAX_ENTRIES, lines_with


def known_loops(repo: str) -> list[str]:
    """The loops of a repository: those that the runtime knows, and those that only the manager does."""
    known = set(list_loop_ids(repo))
    with suppress(OSError), os.scandir(os.path.join(repo, RUNTIME_ROOT, "ops-manager")) as entries:
        known.update(entry.name for entry in entries if entry.is_dir())
    return sorted(known)


def artifact_rows(repo: str, files: LoopFiles, loop_id: str, trace_id: str) -> tuple[list[list[Row]], int]:
    """For each artifact the rows that tell of the trace, the oldest first, and how many lines were damaged.

    Of thousands of rows in one artifact the last ones. What cannot be read counts as not there.
    """
    needle = jsontext.encode(trace_id)
    artifacts: list[list[Row]] = []
    damaged = 0
    for artifact in ARTIFACTS:
        rows: deque[Row] = deque(maxlen=MAX_ENTRIES)
        path = _path(repo, files, loop_id, artifact)
        for name, line in lines_with(path, needle):
            try:
                row = jsontext.parse(line)
            except jsontext.JSONError:
                damaged += 1
                continue
            shown = os.path.relpath(name, repo)
            rows += rows_of(artifact, row, trace_id=trace_id, loop_id=loop_id, file=shown)
        artifacts.append(list(rows))
    return artifacts, damaged


def _path(repo: str, files: LoopFiles, loop_id: str, artifact: str) -> str:
    if artifact == "events":
        return os.path.join(repo, loop_paths(loop_id).events)
    path: str = getattr(files, artifact)
    return path
