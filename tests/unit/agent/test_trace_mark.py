"""The mark of a loop's trace files: what a client asks before it opens a stream."""

import os
from collections.abc import Callable
from pathlib import Path

from sprite_agent.runtime.tracemark import trace_mark
from tests.harness.traces import TraceFile, span


def test_mark_is_another_whenever_there_may_be_lines_to_read(tmp_path: Path) -> None:
    repo, file = str(tmp_path), TraceFile(tmp_path / "trace.jsonl")
    seen = [trace_mark(repo, "alpha")]
    assert seen == [0]
    changes: list[Callable[[], None]] = [
        lambda: file.append(span(1)),
        lambda: file.append(span(2)),
        lambda: file.move_aside(span(3)),
        file.path.unlink,  # a writer that was killed between moving it and the next line
        lambda: os.truncate(file.old(1), 0),
    ]
    for change in changes:
        change()
        seen.append(trace_mark(repo, "alpha"))
        assert seen[-1] == trace_mark(repo, "alpha")
    assert len(set(seen)) == len(seen)
    assert all(seen[1:])
