"""What a running manager serves over gRPC: its fleet, health and reflection."""

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from manager.fleet.board import Board
from manager.services.fleet import SPEAKER, FleetService
from manager.transport.channel import grpc
from sprite_agent.counts import Counts
from sprite_agent.drain import Drain
from sprite_agent.gate import Gate
from sprite_agent.guard import Guard
from sprite_agent.listening import listen, server_options
from sprite_agent.security import Address
from sprite_agent.services.health import DrainingHealthServicer
from sprite_agent.services.standard import add_standard_services
from sprite_agent.usage import Usage
from superloop.ops.v1 import manager_pb2, manager_pb2_grpc

if TYPE_CHECKING:
    from sprite_agent.certificates import Certificates

_SERVICE = manager_pb2.DESCRIPTOR.services_by_name["ManagerService"].full_name
# Streams that have not ended by then are cut off.
GOODBYE_SECONDS = 1.0
_READERS = 2


class FleetServer:
    """The server of one manager; calls are taken between start and stop.

    guard: whether it may be as open as it is, the caller must have checked (check_exposure). repo:
    absolute path of the repository with the manager's files. certificates None: no TLS. counts: of calls that
    ended. usage: of limits.
    """

    def __init__(
        self,
        board: Board,
        address: Address,
        guard: Guard,
        repo: str,
        certificates: "Certificates | None" = None,
    ) -> None:
        self._certificates = certificates
        self._board = board
        self._address = address
        self._guard = guard
        self._repo = repo
        self._drain = Drain(lambda: None, guard.limits.streams)
        self.counts = Counts()
        self._gate = Gate(guard.admission(), lambda: self._drain.started, self.counts, SPEAKER)
        self.usage = Usage(
            guard.limits,
            streams=lambda: self._drain.open_streams,
            connection_calls=lambda: self._gate.connections.fullest,
        )
        self._pool = ThreadPoolExecutor(_READERS, "status")
        self._server: grpc.aio.Server | None = None
        self._health: DrainingHealthServicer | None = None

    async def start(self) -> str:
        """Take calls; the address with its real port. Raises OpsError `address_unavailable`."""
        server = grpc.aio.server(interceptors=(self._gate,), options=server_options(self._guard.limits))
        service = FleetService(self._board, self._repo, self._drain, self._pool)
        manager_pb2_grpc.add_ManagerServiceServicer_to_server(service, server)
        self._health = await add_standard_services((_SERVICE,), server, self._drain.event)
        bound = listen(server, self._address, "--listen", self._certificates)
        await server.start()
        self._server = server
        return bound

    async def stop(self) -> None:
        """Tell everybody, and end within about a second. A second call changes nothing."""
        server, self._server = self._server, None
        if server is not None and self._health is not None:
            await self._health.enter_graceful_shutdown()
            self._drain.start()
            await self._drain.wait_for_streams(GOODBYE_SECONDS)
            await server.stop(0.2)
        self._pool.shutdown(wait=False, cancel_futures=True)
