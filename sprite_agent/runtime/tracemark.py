"""Whether a loop's trace files have changed, in one number: no stream is needed to see that nothing did."""

import os
from collections.abc import Iterable

from sprite_agent.runtime.layout import trace_files

# What a JSON number holds exactly.
_BITS = 53


def trace_mark(repo: str, loop_id: str, named: Iterable[str] = ()) -> int:
    """Another number whenever a trace file of the repository or the loop is another or has grown.

    0: there are none. Costs two stat calls for each. named: as for `trace_files`. Raises OpsError
    `invalid_loop_id`.
    """
    found: list[tuple[int, ...]] = []
    for number, name in enumerate(trace_files(repo, loop_id, named)):
        # A file that moved aside last may be the only one, and have lines that nobody has read.
        for suffix in ("", ".1"):
            try:
                status = os.stat(os.path.join(repo, name + suffix))
            except OSError:
                continue
            found.append((number, len(suffix), status.st_ino, status.st_size, status.st_mtime_ns))
    # Of numbers alone, which Python hashes alike in every process.
    return (hash(tuple(found)) & (1 << _BITS) - 1 or 1) if found else 0
