"""Assembles a running manager: registry, sessions, servers, signals, and an ordered end."""

import asyncio
import gc
import logging
import os
import signal
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, NamedTuple

from manager.core.facts import Settings
from manager.core.registry import Entry, Registry
from manager.fleet import presence
from manager.fleet.alerts import AlertDesk
from manager.fleet.board import Board
from manager.fleet.registry import RegistryWatch, check, read_registry, registry_path
from manager.fleet.server import FleetServer
from manager.fleet.supervisor import Supervisor
from manager.store import loop_files
from sprite_agent.guard import Guard
from sprite_agent.security import Address, parse_address
from sprite_agent.stopping import stop_on_signals
from spritemesh import clibrary, jsontext
from spritemesh.endpoints import SOCKET_PATH_BYTES
from spritemesh.errors import OpsError
from spritemesh.limits import raise_open_files

if TYPE_CHECKING:
    from manager.cli.judgement import Judgement
    from sprite_agent.certificates import Certificates

_log = logging.getLogger("ops_manager")
_WATCH_SECONDS = 1.0
# A loop holds a connection and a lock; the rest of the process some dozens.
_FILES_A_LOOP = 2
_FILES_BESIDE = 100
# Threads that read files of loops that begin. They come when they are needed, and stay.
_READERS = 4
# How often young garbage is looked for, seconds. Each call that is answered leaves a circle in gRPC, some
# 6 kB for a subscriber: what is few in number grows large before the collector comes by itself.
_COLLECT_SECONDS = 10.0
# Old garbage: at most a thousandth of the time goes into it.
_COLLECT_ALL_SECONDS = 60.0
_COLLECT_SHARE = 1000


class ManagerSettings(NamedTuple):
    """repo: absolute. registry None: the repository's own. alert_catalog None: no alerts are sent. listen
    None: a socket for this user. metrics None: nowhere. table: draw the fleet on standard output."""

    repo: str
    registry: str | None
    judgement: "Judgement"
    alert_catalog: str | None
    listen: Address | None
    guard: Guard
    metrics: Address | None
    metrics_token: str
    table: bool


async def manage(settings: ManagerSettings) -> None:
    """Watch the fleet until SIGTERM or SIGINT; a second one ends at once.

    Raises OpsError before anything is watched: `tls_files_invalid`, `registry_missing`, `registry_invalid`,
    `missing_service_token_env`, `fleet_running`, `fleet_too_large`, `address_unavailable`.
    """
    # Documents of thousands of loops are old objects: to look through them again and again finds nothing.
    # What becomes garbage when it is old (connections, sessions) may not wait for days all the same.
    gc.set_threshold(50_000, 10, 10)
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_READERS, "read"))
    path = settings.registry or registry_path(settings.repo)
    certificates = settings.guard.certificates()
    watch = RegistryWatch(path)
    registry = _checked(path)
    board = Board(registry.fleet_id)
    async with AsyncExitStack() as stack:
        stack.enter_context(presence.hold(settings.repo))
        desk = None if settings.alert_catalog is None else AlertDesk(settings.alert_catalog)
        supervisor = Supervisor(
            settings.repo,
            board,
            settings=_settings_of(settings),
            alerts=desk,
            environment=os.environ,
        )
        listen, metrics = await _serve(settings, board, certificates, stack)
        # Of a lease that somebody else breaks (manager.store.swap).
        signal.signal(signal.SIGIO, signal.SIG_IGN)
        stop, reload = stop_on_signals(), asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGHUP, reload.set)
        stack.push_async_callback(supervisor.stop)
        await supervisor.start(registry)
        is_encrypted = certificates is not None and settings.listen is not None
        presence.announce(
            settings.repo,
            fleet_id=registry.fleet_id,
            started_at=time.time(),
            listen=f"grpcs://{listen}" if is_encrypted else listen,
            metrics=metrics,
        )
        stack.callback(presence.withdraw, settings.repo)
        follower = asyncio.create_task(_follow(path, watch, reload, supervisor), name="registry")
        stack.push_async_callback(_end, follower)
        collector = asyncio.create_task(_collect(), name="garbage")
        stack.push_async_callback(_end, collector)
        if settings.table:
            from manager.fleet.lastword import LastWord
            from manager.fleet.live_table import LiveTable

            note = LastWord()
            logging.getLogger().addHandler(note)
            stack.callback(logging.getLogger().removeHandler, note)
            async with LiveTable(board, note=note) as table:
                ended = [asyncio.ensure_future(event.wait()) for event in (table.quit, stop)]
                await asyncio.wait(ended, return_when=asyncio.FIRST_COMPLETED)
                for task in ended:
                    task.cancel()
        else:
            _announce(registry, listen, metrics)
            await stop.wait()
        _log.info("stopping")


async def _collect() -> None:
    """Free what calls leave behind."""
    due = time.monotonic() + _COLLECT_ALL_SECONDS
    while True:
        await asyncio.sleep(_COLLECT_SECONDS)
        began = time.monotonic()
        if began < due:
            gc.collect(1)
            continue
        # The collector does so by itself only after many young collections of its own.
        gc.collect()
        clibrary.give_back_memory()
        ended = time.monotonic()
        due = ended + max(_COLLECT_ALL_SECONDS, _COLLECT_SHARE * (ended - began))


def _checked(path: str) -> Registry:
    """The registry in a file, checked whole. Raises OpsError."""
    registry = read_registry(path)
    check(registry, os.environ)
    allowed, needed = raise_open_files(), len(registry.loops) * _FILES_A_LOOP + _FILES_BESIDE
    if 0 < allowed < needed:
        raise OpsError(
            "fleet_too_large",
            f"{len(registry.loops)} loops need {needed} open files, and this process may have {allowed}",
        )
    return registry


def _settings_of(settings: ManagerSettings) -> Callable[[Entry], Settings]:
    def of(entry: Entry) -> Settings:
        return settings.judgement.settings(
            settings.repo,
            loop_files(settings.repo, entry.loop_id),
            entry.loop_id,
            transport=entry.transport,
            trace_id=None,
            retry_attempts=entry.retry_attempts,
            retry_backoff_seconds=int(entry.retry_backoff_seconds),
        )

    return of


async def _serve(
    settings: ManagerSettings, board: Board, certificates: "Certificates | None", stack: AsyncExitStack
) -> tuple[str | None, str | None]:
    """Where gRPC and metrics answer, None for nowhere. Raises OpsError `address_unavailable`."""
    guard = settings.guard
    address = settings.listen or _own_socket(settings.repo)
    listen = metrics = None
    server: FleetServer | None = None
    if address is not None:
        if settings.listen is None:
            server = FleetServer(board, address, guard.on_own_socket(), settings.repo)
        else:
            server = FleetServer(board, address, guard, settings.repo, certificates)
        listen = await server.start()
        stack.push_async_callback(server.stop)
    if settings.metrics is not None:
        from manager.fleet.metrics import FleetMetrics
        from sprite_agent.http.metrics import MetricsServer

        scrapes = MetricsServer(
            FleetMetrics(
                board,
                counts=None if server is None else server.counts,
                usage=None if server is None else server.usage,
            ),
            settings.metrics,
            guard.scrapes(settings.metrics_token).admission(),
            certificates,
        )
        metrics = await scrapes.start()
        stack.push_async_callback(scrapes.stop)
    return listen, metrics


def _own_socket(repo: str) -> Address | None:
    path = os.path.join(presence.fleet_directory(repo), "manager.sock")
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        _log.warning("the path %s is too long for a socket: give --listen, or nobody can ask", path)
        return None
    return parse_address(f"unix://{path}", field="--repo")


async def _follow(path: str, watch: RegistryWatch, reload: asyncio.Event, supervisor: Supervisor) -> None:
    """Apply the registry when its file changes, or a signal asks for it; keep to the old one if it cannot be
    used."""
    while True:
        try:
            async with asyncio.timeout(_WATCH_SECONDS):
                await reload.wait()
        except TimeoutError:
            if not watch.changed():
                continue
        else:
            watch.changed()
        reload.clear()
        try:
            registry = await asyncio.to_thread(_checked, path)
        except OpsError as error:
            _log.error("%s: %s; the registry before stays in force", error.reason, error.message)
            continue
        try:
            await supervisor.apply(registry)
        except Exception as defect:
            # The next change of the file must find somebody who looks.
            _log.error("internal_error while the registry was applied", exc_info=defect)
        else:
            _log.info("registry applied: %d loops", len(registry.loops))


def _announce(registry: Registry, listen: str | None, metrics: str | None) -> None:
    """The first line on standard output, once calls are taken and sessions begin."""
    document = {
        "ready": True,
        "fleetId": registry.fleet_id,
        "loops": len(registry.loops),
        "grpc": listen,
        "metrics": metrics,
    }
    sys.stdout.write(jsontext.encode(document).decode() + "\n")
    sys.stdout.flush()


async def _end(task: "asyncio.Task[None]") -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
