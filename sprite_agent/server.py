"""Assembles the agent: one event loop, one grpc.aio server, and an ordered end."""

import asyncio
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import grpc

from sprite_agent.admission import Admission
from sprite_agent.changes import ChangeHub
from sprite_agent.control import ControlPlane
from sprite_agent.counts import Counts
from sprite_agent.desk import ControlDesk
from sprite_agent.drain import Drain
from sprite_agent.gate import Gate
from sprite_agent.guard import Guard
from sprite_agent.heartbeat import DEFAULT_INTERVAL_SECONDS, HeartbeatFile, HeartbeatSource
from sprite_agent.identity import kept_sprite_id
from sprite_agent.lag import LagProbe, Resumption
from sprite_agent.listening import listen, server_options
from sprite_agent.rooms import Rooms
from sprite_agent.runtime.layout import resolve_repo
from sprite_agent.runtime.repository import Repository
from sprite_agent.security import Address
from sprite_agent.services.control import ControlService
from sprite_agent.services.health import DrainingHealthServicer
from sprite_agent.services.sprite import SpriteService
from sprite_agent.services.standard import add_standard_services
from sprite_agent.services.telemetry import TelemetryService
from sprite_agent.stopping import stop_on_signals
from sprite_agent.usage import Usage
from spritemesh.ids import new_boot_id
from spritemesh.limits import raise_open_files
from superloop.ops.v1 import (
    control_pb2,
    control_pb2_grpc,
    sprite_pb2,
    sprite_pb2_grpc,
    telemetry_pb2,
    telemetry_pb2_grpc,
)

if TYPE_CHECKING:
    from sprite_agent.certificates import Certificates
    from sprite_agent.http.listener import Listener
    from sprite_agent.http.metrics import MetricsServer

_log = logging.getLogger("sprite_agent")
_SERVICES = tuple(
    file.services_by_name[name].full_name
    for file, name in (
        (sprite_pb2.DESCRIPTOR, "SpriteService"),
        (control_pb2.DESCRIPTOR, "ControlService"),
        (telemetry_pb2.DESCRIPTOR, "TelemetryService"),
    )
)
# Streams that have not said goodbye by then are cut off, and control requests end their confirmation.
GRACE_SECONDS = 5.0
# New calls are told why they are refused for this long, rather than find nobody there.
REFUSE_SECONDS = 1.0
_WORKERS = 8


class ServeSettings(NamedTuple):
    """repo: path of the repository. guard: of all who call but scrapers. heartbeat_interval: seconds between
    writes of heartbeat.v1.json, at least 0.25. runtime_command None: as ControlPlane finds it.
    runtime_timeout: seconds that a runtime command may take. http None: HTTP is not served; metrics None:
    metrics are not. metrics_token "": open. sprite_id "": the one that the repository keeps. runtime_traces:
    trace files beside those that are always looked for."""

    repo: str
    address: Address
    guard: Guard
    http: Address | None = None
    metrics: Address | None = None
    metrics_token: str = ""
    heartbeat_interval: float = DEFAULT_INTERVAL_SECONDS
    runtime_command: str | None = None
    runtime_timeout: float = 60.0
    sprite_id: str = ""
    runtime_traces: tuple[str, ...] = ()


class Bound(NamedTuple):
    """Where calls are taken, with real ports. http, metrics None: nowhere."""

    grpc: str
    http: str | None
    metrics: str | None


async def serve(settings: ServeSettings, ready: Callable[[Bound], None]) -> None:
    """Serve until SIGTERM or SIGINT; then drain. `ready` is told the bound address once calls are taken.

    A second signal ends the process at once with 128 + its number. Raises OpsError `repo_not_found`,
    `tls_files_invalid` or `address_unavailable` before anything is served.
    """
    path = resolve_repo(settings.repo)
    certificates = settings.guard.certificates()
    sprite_id = settings.sprite_id or kept_sprite_id(path)
    repository = Repository(path, boot_id=new_boot_id(), sprite_id=sprite_id)
    raise_open_files()  # each subscriber needs one
    hub = ChangeHub()
    drain = Drain(hub.wake_all, settings.guard.limits.streams)

    def resumed(pause: Resumption) -> None:
        """There may be a copy of this process by now, and others must be able to tell."""
        repository.renew(new_boot_id())
        _log.warning(
            "the agent had not run for %.1f s; its boot id is %s now [sprite_resumed]",
            pause.seconds,
            repository.boot_id,
        )
        hub.wake_all()

    lag = LagProbe(resumed)
    heartbeats = HeartbeatSource(repository, lag, settings.runtime_traces)
    admission = settings.guard.admission()
    plane = ControlPlane(
        repository, runtime=settings.runtime_command, runtime_timeout=settings.runtime_timeout
    )
    counts = Counts()
    with ThreadPoolExecutor(_WORKERS, "read") as pool:
        gate = Gate(admission, lambda: drain.started, counts, command_seconds=settings.runtime_timeout)
        server = grpc.aio.server(interceptors=(gate,), options=server_options(admission.limits))
        subscribers = Rooms(
            admission.limits.subscribers_per_loop,
            "too_many_subscribers",
            "event streams of the loop are open:",
        )
        service = SpriteService(repository, hub, heartbeats, drain, pool, subscribers)
        trace_subscribers = Rooms(
            admission.limits.subscribers_per_loop,
            "too_many_subscribers",
            "trace streams of the loop are open:",
        )
        telemetry = TelemetryService(
            repository, hub, drain, pool, named=settings.runtime_traces, subscribers=trace_subscribers
        )
        desk = ControlDesk(plane, counts=counts)
        sprite_pb2_grpc.add_SpriteServiceServicer_to_server(service, server)
        control_pb2_grpc.add_ControlServiceServicer_to_server(ControlService(desk), server)
        telemetry_pb2_grpc.add_TelemetryServiceServicer_to_server(telemetry, server)
        health = await add_standard_services(_SERVICES, server, drain.event)
        bound = listen(server, settings.address, certificates=certificates)
        http = _http(settings, certificates, repository, admission, drain, pool, desk, counts)
        usage = Usage(
            admission.limits,
            streams=lambda: drain.open_streams,
            connection_calls=lambda: gate.connections.fullest,
            subscribers=lambda: max(subscribers.fullest, trace_subscribers.fullest),
            http_connections=lambda: 0 if http is None else http.connections,
        )
        metrics = _metrics(settings, certificates, repository, heartbeats, lag, drain, desk, counts, usage)
        try:
            await server.start()
            if http is not None:
                await http.start()
            if metrics is not None:
                await metrics.start()
            stop = stop_on_signals()
            async with asyncio.TaskGroup() as tasks:
                background = [
                    tasks.create_task(lag.run(), name="lag probe"),
                    tasks.create_task(
                        HeartbeatFile(heartbeats, settings.heartbeat_interval).run(), name="heartbeat file"
                    ),
                    tasks.create_task(desk.settle(), name="settle"),
                ]
                ready(
                    Bound(
                        bound,
                        None if http is None else http.address,
                        None if metrics is None else metrics.address,
                    )
                )
                await stop.wait()
                await _drain(server, health, drain, desk)
                for task in background:
                    task.cancel()
        finally:
            if http is not None:
                await http.stop()
            await server.stop(None)  # at once, unless the drain has already ended it
            if metrics is not None:
                await metrics.stop()
        hub.close()
        desk.close()
        repository.close()


async def _drain(
    server: grpc.aio.Server, health: DrainingHealthServicer, drain: Drain, desk: ControlDesk
) -> None:
    """The ordered end: not serving, goodbyes, refusals with a reason, then the listener closes."""
    _log.info("draining")
    await health.enter_graceful_shutdown()
    drain.start()
    refusing = asyncio.create_task(asyncio.sleep(REFUSE_SECONDS), name="refuse new calls")
    ending = asyncio.create_task(desk.end(GRACE_SECONDS), name="end control requests")
    if not await drain.wait_for_streams(GRACE_SECONDS):
        _log.warning("streams were cut off after %g s without a goodbye", GRACE_SECONDS)
    await ending
    await refusing
    await server.stop(0.5)


def _http(
    settings: ServeSettings,
    certificates: "Certificates | None",
    repository: Repository,
    admission: Admission,
    drain: Drain,
    pool: ThreadPoolExecutor,
    desk: ControlDesk,
    counts: Counts,
) -> "Listener | None":
    """The listener for clients of v1; None without an address. Raises OpsError `address_unavailable`."""
    if settings.http is None:
        return None
    # Most agents serve no HTTP, and should not wait for its imports.
    from sprite_agent.http.bridge import Bridge
    from sprite_agent.http.listener import Listener

    bridge = Bridge(
        repository, admission, drain, pool, desk, counts, command_seconds=settings.runtime_timeout
    )
    return Listener(bridge, settings.http, admission.limits, certificates=certificates)


def _metrics(
    settings: ServeSettings,
    certificates: "Certificates | None",
    repository: Repository,
    heartbeats: HeartbeatSource,
    lag: LagProbe,
    drain: Drain,
    desk: ControlDesk,
    counts: Counts,
    usage: Usage,
) -> "MetricsServer | None":
    """The listener for scrapers; None without an address. Raises OpsError `address_unavailable`."""
    if settings.metrics is None:
        return None
    # Most agents serve no metrics, and should not hold the library.
    from sprite_agent.http.metrics import MetricsServer
    from sprite_agent.metrics import AgentMetrics

    source = AgentMetrics(repository, heartbeats, lag, drain, desk, counts, _methods(), usage)
    admission = settings.guard.scrapes(settings.metrics_token).admission()
    return MetricsServer(source, settings.metrics, admission, certificates)


def _methods() -> tuple[str, ...]:
    """Full names of the methods of the agent's own services."""
    return tuple(
        f"{service.full_name}/{method.name}"
        for service in (
            sprite_pb2.DESCRIPTOR.services_by_name["SpriteService"],
            control_pb2.DESCRIPTOR.services_by_name["ControlService"],
            telemetry_pb2.DESCRIPTOR.services_by_name["TelemetryService"],
        )
        for method in service.methods
    )
