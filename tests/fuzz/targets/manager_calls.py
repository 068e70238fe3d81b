"""Requests over gRPC to a manager's own service, as those to an agent."""

import logging
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path

from superloop.ops.v1 import manager_pb2
from tests.fuzz.calls import Caller
from tests.fuzz.driver import Run, Target
from tests.fuzz.fixtures import TOKEN
from tests.harness.fleet import connected, loop_view, served_fleet

_SERVICE = f"/{manager_pb2.DESCRIPTOR.package}.ManagerService/"
_WORDS = (
    b'"loopId":"alpha"', b'"loopId":"none"', b'"pageSize":1', b'"pageSize":-1', b'"pageToken":"YWxwaGE="',
    b'"interval":"0.001s"', b'"interval":"-1s"', b"\n--- metadata\n", b"x-ops-token: token-of-the-tests\n",
    *(b"\n--- " + f"{_SERVICE}{name} {form}".encode() + b"\n"
      for name in ("ListLoops", "GetLoopStatus", "WatchFleet") for form in ("json", "raw")),
)  # fmt: skip


class _Defects(logging.Handler):
    """Keeps what is logged with an exception."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self.found: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        # gRPC's poller is one for all event loops of a process, and complains of those that others closed.
        if "PollerCompletionQueue" in record.getMessage():
            return
        if record.exc_info or record.levelno >= logging.ERROR:
            self.found.append(self.format(record))


@contextmanager
def _opened(directory: Path) -> Iterator[Run]:
    defects = _Defects()
    logging.getLogger().addHandler(defects)
    try:
        with served_fleet(directory, token=TOKEN) as fleet, connected(fleet.address) as channel:
            fleet.put(*(loop_view(loop_id) for loop_id in ("alpha", "beta", "gamma")))
            caller = Caller(channel, manager_pb2.DESCRIPTOR)

            def run(data: bytes) -> Iterator[Hashable]:
                yield from caller.run(data)
                assert not defects.found, defects.found.pop()

            yield run
    finally:
        logging.getLogger().removeHandler(defects)


TARGET = Target("manager-calls", _opened, _WORDS, in_process=False)
