"""Assembles the agent: one event loop, one grpc.aio server, and an ordered end."""

import asyncio
import logging
import os
import resource
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, NamedTuple

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from sprite_agent.changes import ChangeHub
from sprite_agent.control import ControlPlane
from sprite_agent.desk import ControlDesk
from sprite_agent.drain import Drain
from sprite_agent.gate import Gate
from sprite_agent.heartbeat import DEFAULT_INTERVAL_SECONDS, HeartbeatFile, HeartbeatSource, LagProbe
from sprite_agent.listening import listen
from sprite_agent.runtime.repository import Repository
from sprite_agent.security import Address, TokenCheck
from sprite_agent.services.control import ControlService
from sprite_agent.services.health import SERVING, DrainingHealthServicer
from sprite_agent.services.reflection import V1_NAME, V1ALPHA_NAME, add_reflection
from sprite_agent.services.sprite import SpriteService
from spritemesh.ids import new_boot_id
from superloop.ops.v1 import control_pb2, control_pb2_grpc, sprite_pb2, sprite_pb2_grpc

if TYPE_CHECKING:
    from sprite_agent.http.listener import Listener

_log = logging.getLogger("sprite_agent")
_SERVICES = tuple(
    file.services_by_name[name].full_name
    for file, name in (
        (sprite_pb2.DESCRIPTOR, "SpriteService"),
        (control_pb2.DESCRIPTOR, "ControlService"),
        (health_pb2.DESCRIPTOR, "Health"),
    )
)
# Streams that have not said goodbye by then are cut off, and control requests end their confirmation.
GRACE_SECONDS = 5.0
# New calls are told why they are refused for this long, rather than find nobody there.
REFUSE_SECONDS = 1.0
_WORKERS = 8

# Measured: a vanished peer is noticed after 14 to 27 s, a second server on the same port is refused, and
# pings of the manager each 20 s are not taken for abuse.
_OPTIONS: tuple[tuple[str, int], ...] = (
    ("grpc.so_reuseport", 0),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
    ("grpc.keepalive_time_ms", 20_000),
    ("grpc.http2.ping_timeout_ms", 10_000),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.max_receive_message_length", 256 * 1024),
    ("grpc.max_send_message_length", 4 * 1024 * 1024),
)


class ServeSettings(NamedTuple):
    """repo: path of the repository. token "": open. heartbeat_interval: seconds between writes of
    heartbeat.v1.json, at least 0.25. runtime_command None: as ControlPlane finds it. runtime_timeout:
    seconds that a runtime command may take. http None: HTTP is not served."""

    repo: str
    address: Address
    token: str
    http: Address | None = None
    heartbeat_interval: float = DEFAULT_INTERVAL_SECONDS
    runtime_command: str | None = None
    runtime_timeout: float = 60.0


class Bound(NamedTuple):
    """Where calls are taken, with real ports. http None: nowhere."""

    grpc: str
    http: str | None


async def serve(settings: ServeSettings, ready: Callable[[Bound], None]) -> None:
    """Serve until SIGTERM or SIGINT; then drain. `ready` is told the bound address once calls are taken.

    A second signal ends the process at once with 128 + its number. Raises OpsError `repo_not_found` or
    `address_unavailable` before anything is served.
    """
    repository = Repository(settings.repo, boot_id=new_boot_id())
    _raise_descriptor_limit()
    hub = ChangeHub()
    drain = Drain(hub.wake_all)
    lag = LagProbe()
    heartbeats = HeartbeatSource(repository, lag)
    health = DrainingHealthServicer(drain.event)
    tokens = TokenCheck(settings.token)
    plane = ControlPlane(
        repository, runtime=settings.runtime_command, runtime_timeout=settings.runtime_timeout
    )
    with ThreadPoolExecutor(_WORKERS, "read") as pool:
        server = grpc.aio.server(interceptors=(Gate(tokens, lambda: drain.started),), options=_OPTIONS)
        service = SpriteService(repository, hub, heartbeats, drain, pool)
        desk = ControlDesk(plane)
        sprite_pb2_grpc.add_SpriteServiceServicer_to_server(service, server)
        control_pb2_grpc.add_ControlServiceServicer_to_server(ControlService(desk), server)
        health_pb2_grpc.add_HealthServicer_to_server(health, server)
        add_reflection(_SERVICES, server)
        bound = listen(server, settings.address)
        http = _http(settings.http, repository, tokens, drain, pool, desk)
        for name in ("", *_SERVICES, V1_NAME, V1ALPHA_NAME):
            await health.set(name, SERVING)
        try:
            await server.start()
            if http is not None:
                await http.start()
            stop = _handle_signals()
            async with asyncio.TaskGroup() as tasks:
                background = [
                    tasks.create_task(lag.run(), name="lag probe"),
                    tasks.create_task(
                        HeartbeatFile(heartbeats, settings.heartbeat_interval).run(), name="heartbeat file"
                    ),
                    tasks.create_task(desk.settle(), name="settle"),
                ]
                ready(Bound(bound, None if http is None else http.address))
                await stop.wait()
                await _drain(server, health, drain, desk)
                for task in background:
                    task.cancel()
        finally:
            if http is not None:
                await http.stop()
            await server.stop(None)  # at once, unless the drain has already ended it
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
    address: Address | None,
    repository: Repository,
    tokens: TokenCheck,
    drain: Drain,
    pool: ThreadPoolExecutor,
    desk: ControlDesk,
) -> "Listener | None":
    """The listener for clients of v1; None without an address. Raises OpsError `address_unavailable`."""
    if address is None:
        return None
    # Most agents serve no HTTP, and should not wait for its imports.
    from sprite_agent.http.bridge import Bridge
    from sprite_agent.http.listener import Listener

    return Listener(Bridge(repository, tokens, drain, pool, desk), address)


def _handle_signals() -> asyncio.Event:
    stop = asyncio.Event()

    def on_signal(number: int) -> None:
        if stop.is_set():
            os._exit(128 + number)
        stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, on_signal, number)
    return stop


def _raise_descriptor_limit() -> None:
    """Each subscriber needs a descriptor, and the soft limit is often 1,024."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):
            _log.info("the limit of open files stays at %d", soft)
