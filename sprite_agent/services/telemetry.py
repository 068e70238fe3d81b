"""TelemetryService: what the programs of a sprite tell about their own work, as they wrote it."""

import os
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from typing import Any

from sprite_agent.changes import ChangeHub
from sprite_agent.drain import Drain
from sprite_agent.rooms import Rooms
from sprite_agent.runtime.generations import RotatedLog
from sprite_agent.runtime.lines import grant_batch_bytes
from sprite_agent.runtime.repository import Repository
from sprite_agent.runtime.tracefeed import TraceFeed, TraceOptions
from sprite_agent.runtime.tracelogs import TraceLogs
from sprite_agent.services.following import Streams, grant_bookmark_seconds
from sprite_agent.services.requests import wanted_seconds
from spritemesh.errors import OpsError
from spritemesh.ids import validate_loop_id
from superloop.ops.v1 import envelope_pb2 as pb
from superloop.ops.v1 import telemetry_pb2, telemetry_pb2_grpc

_MAX_PLACES = 64
# A tracer writes twenty times a second, beside others who write to the same directories.
_REST_SECONDS = 0.05


class TelemetryService(telemetry_pb2_grpc.TelemetryServiceServicer):
    """Reads of the trace files of one repository."""

    def __init__(
        self,
        repository: Repository,
        hub: ChangeHub,
        drain: Drain,
        pool: ThreadPoolExecutor,
        *,
        named: Sequence[str] = (),
        subscribers: Rooms | None = None,
    ) -> None:
        """named: further trace files, as TraceLogs takes them. subscribers: trace streams of each loop; None:
        without a bound."""
        self._repository = repository
        self._logs = TraceLogs(repository.path, named)
        self._hub = hub
        self._drain = drain
        self._streams = Streams(drain, pool)
        self._subscribers = subscribers

    async def WatchTraces(
        self, request: telemetry_pb2.WatchTracesRequest, context: Any
    ) -> AsyncIterator[telemetry_pb2.WatchTracesResponse]:
        """Lines of the trace files after their places, as docs/wire.md tells."""
        loop_id = validate_loop_id(request.loop_id, field="loop_id") if request.loop_id else ""
        after = _places(request)
        options = TraceOptions(
            follow=request.follow,
            max_lines=request.max_lines,
            bookmark_seconds=grant_bookmark_seconds(wanted_seconds(request, "bookmark_interval")),
            batch_bytes=grant_batch_bytes(request.max_batch_bytes),
        )
        place = nullcontext() if self._subscribers is None else self._subscribers.entered(loop_id)
        with (
            self._drain.stream(),
            place,
            self._logs.opened(loop_id) as files,
            self._hub.subscribe(_directories(files), *(log.path for log in files.values())) as changes,
        ):
            feed = TraceFeed(files, after, options, identity=self._repository.identity, clock=time.time)
            for message in await self._streams.run(feed.open):
                yield message
            sent = self._streams.send(feed, changes, follow=options.follow, rest_seconds=_REST_SECONDS)
            async for message in sent:
                yield message


def _places(request: telemetry_pb2.WatchTracesRequest) -> Mapping[str, pb.LogPosition]:
    """The wanted places by file. Raises OpsError `invalid_request`."""
    if len(request.after) > _MAX_PLACES:
        raise OpsError("invalid_request", f"after holds more than {_MAX_PLACES} places", field="after")
    places = {found.file: found.position for found in request.after}
    if len(places) < len(request.after):
        raise OpsError("invalid_request", "after names a file twice", field="after")
    return places


def _directories(files: Mapping[str, RotatedLog]) -> tuple[str, ...]:
    """Those in which a change may be one of the files, each once."""
    return tuple(dict.fromkeys(os.path.dirname(log.path) for log in files.values()))
