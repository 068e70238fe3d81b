"""Requests over gRPC to a real agent: any bytes and mutated messages, to each method, under odd metadata.

Each call is answered, or refused with a status that names a reason of the table. The agent lives on, and logs
no defect.
"""

from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from pathlib import Path

from superloop.ops.v1 import control_pb2, sprite_pb2, telemetry_pb2
from tests.fuzz.calls import Caller
from tests.fuzz.driver import Run, Target
from tests.fuzz.fixtures import fuzzed_agent
from tests.harness.fleet import connected

_FILES = (sprite_pb2.DESCRIPTOR, control_pb2.DESCRIPTOR, telemetry_pb2.DESCRIPTOR)
_SERVICE, _CONTROL, _TELEMETRY = (
    f"/{file.package}.{name}/"
    for file, name in zip(_FILES, ("SpriteService", "ControlService", "TelemetryService"), strict=True)
)
_WORDS = (
    b'"loopId":"alpha"', b'"loopId":"bad"', b'"loopId":"pending"', b'"loopId":"../x"', b'"follow":true',
    b'"after":{"line":"3","digest":"AAAA"}', b'"maxEvents":"1"', b'"bookmarkInterval":"0.5s"',
    b'"traceId":"t"', b'"confirmation":{"skip":true}', b'"confirmation":{"timeout":"0s"}', b'"pageSize":-1',
    b'"pageToken":"YWxwaGE="', b'"idempotencyKey":"k"', b'"interval":"-1s"', b'"maxBatchBytes":1',
    b'"after":[{"file":"trace.jsonl","position":{"line":"3","digest":"AAAA"}}]', b'"maxLines":"1"',
    b'"expectedRunId":"x"', b'"evenIfNothingPending":true', b'"passInvalidLines":true',
    *(b"\n--- " + f"{prefix}{name} {form}".encode() + b"\n"
      for prefix, names in ((_SERVICE, ("ListLoops", "GetSnapshot", "WatchEvents", "WatchHeartbeats")),
                            (_CONTROL, ("CancelLoop", "ApprovePending", "RejectPending", "GetInvocation")),
                            (_TELEMETRY, ("WatchTraces",)))
      for name in names for form in ("json", "raw")),
    b"\n--- metadata\n", b"authorization: Bearer token-of-the-tests\n", b"x-ops-token: \n", b"x-trace-id: \n",
    b"traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\n", b"x-ops-signature: \n",
)  # fmt: skip


@contextmanager
def _opened(directory: Path) -> Iterator[Run]:
    with fuzzed_agent(directory) as fuzzed, connected(fuzzed.agent.address) as channel:
        caller = Caller(channel, *_FILES)

        def run(data: bytes) -> Iterator[Hashable]:
            yield from caller.run(data)
            fuzzed.check()

        yield run


TARGET = Target("requests", _opened, _WORDS, in_process=False)
