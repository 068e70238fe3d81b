"""What a user would take for a log with readers instead: `python -m bench.redis_streams MODE SOCKET WHAT`.

    send SOCKET FILE     XADD of every line, so many in a pipeline; tells when it began
    read SOCKET COUNT    XREAD until COUNT lines were seen; tells when it is ready, and when it had them

Both times are monotonic seconds. The server keeps an append-only file with its default sync, once a second.
"""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from typing import Any

import redis

from bench.receiver import tell

_STREAM = "events"
# As many lines as the agent puts into a batch.
_PIPELINE = 256
_READ = 1000
_START_SECONDS = 20.0


@contextmanager
def server(program: str, directory: str) -> Iterator[str]:
    """A server with a fresh append-only file; its socket."""
    os.makedirs(directory)
    path = os.path.join(directory, "redis.sock")
    words = ["--port", "0", "--unixsocket", path, "--dir", directory, "--appendonly", "yes", "--save", ""]
    with subprocess.Popen([program, *words], stdout=subprocess.DEVNULL) as process:
        try:
            until = time.monotonic() + _START_SECONDS
            while not os.path.exists(path):
                if process.poll() is not None or time.monotonic() > until:
                    raise RuntimeError(f"{program} did not start")
                time.sleep(0.01)
            yield path
        finally:
            process.terminate()
            process.wait()


def _send(client: redis.Redis, path: str) -> None:
    began = time.monotonic()
    with open(path, "rb") as file:
        while lines := list(islice(file, _PIPELINE)):
            pipeline = client.pipeline(transaction=False)
            for line in lines:
                pipeline.xadd(_STREAM, {"line": line[:-1]})
            pipeline.execute()
    tell({"began": began})


def _read(client: redis.Redis, count: int) -> None:
    tell({"ready": True})
    last = "0"
    left = count
    while left > 0:
        # The types of answers depend on the protocol's version, and are told for both at once.
        answer: Any = client.xread({_STREAM: last}, count=_READ, block=1000)
        entries = answer[0][1] if answer else []
        if entries:
            last = entries[-1][0]
        left -= sum(bool(entry[b"line"]) for _, entry in entries)
    tell({"ended": time.monotonic(), "left": left})


def main() -> None:
    mode, socket, what = sys.argv[1:]
    with redis.Redis(unix_socket_path=socket) as client:
        if mode == "send":
            _send(client, what)
        else:
            _read(client, int(what))


if __name__ == "__main__":
    main()
