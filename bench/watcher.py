"""When a manager knew and when its files told, in a process of its own, as monotonic nanoseconds.

    python -m bench.watcher views TARGET SECONDS COUNT LOOP...   lines applied, as WatchFleet tells of them
    python -m bench.watcher cursor DIRECTORY SECONDS COUNT       lines by the cursor.json in a directory

Ends after so many seconds, or at line COUNT (0: never) of the first loop. The first answer says that it
watches, the second is a list of [loop id, line applied, line on disk, when] of every change.
"""

import os
import sys
import time
from collections.abc import Iterator
from typing import NamedTuple

import grpc
from google.protobuf.duration_pb2 import Duration

from bench import processes
from bench.receiver import tell
from spritemesh import jsontext
from superloop.ops.v1 import manager_pb2, manager_pb2_grpc

_CURSOR = "cursor.json"
# The least that is granted: nobody is to wait for the next message.
_INTERVAL = Duration(nanos=1_000_000)


class Seen(NamedTuple):
    """How far a loop was, at a monotonic time in ns. line: applied. stored: on disk with the state."""

    loop_id: str
    line: int
    stored: int
    at: int


def views(target: str, seconds: float, loop_ids: list[str]) -> Iterator[Seen | None]:
    """What the manager says of the loops; None once, when it has said everything that it knew before."""
    request = manager_pb2.WatchFleetRequest(interval=_INTERVAL, loop_ids=loop_ids)
    known: dict[str, tuple[int, int]] = {}
    complete = False
    with grpc.insecure_channel(target) as channel:
        stub = manager_pb2_grpc.ManagerServiceStub(channel)
        try:
            for message in stub.WatchFleet(request, metadata=processes.METADATA, timeout=seconds):
                now = time.monotonic_ns()
                for view in message.loops:
                    lines = view.applied_line, view.committed_line
                    if known.get(view.loop_id) != lines:
                        known[view.loop_id] = lines
                        yield Seen(view.loop_id, *lines, now)
                if message.complete and not complete:
                    complete = True
                    yield None
        except grpc.RpcError as error:
            call: grpc.Call = error  # type: ignore[assignment] # what a stub raises is also the call
            if call.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
                raise


def cursor(directory: str, seconds: float) -> Iterator[Seen | None]:
    """What cursor.json says; None once, when it is being watched."""
    from inotify_simple import INotify, flags

    until = time.monotonic() + seconds
    path = os.path.join(directory, _CURSOR)
    with INotify() as inotify:
        inotify.add_watch(directory, flags.MOVED_TO | flags.CLOSE_WRITE)
        yield None
        while time.monotonic() < until:
            changed = inotify.read(timeout=1000)
            if any(event.name == _CURSOR for event in changed):
                now = time.monotonic_ns()
                with open(path, "rb") as file:
                    line = jsontext.parse(file.read())["eventLineOffset"]
                yield Seen("", line, line, now)


def main() -> None:
    mode, where, seconds, count, *loop_ids = sys.argv[1:]
    found = views(where, float(seconds), loop_ids) if mode == "views" else cursor(where, float(seconds))
    seen = []
    for item in found:
        if item is None:
            tell({"ready": True})
            continue
        seen.append(item)
        if 0 < int(count) <= item.line:
            break
    tell({"seen": seen})


if __name__ == "__main__":
    main()
